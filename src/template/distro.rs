//! Which release of Debian or Ubuntu a base image is, and what that release brings.

use super::{Distro, TemplateError};

/// A release: family, codename, version, Python, PostgreSQL, and an image of it.
struct Release {
    family: &'static str,
    codename: &'static str,
    version: &'static str,
    python: &'static str,
    postgres: &'static str,
    image: &'static str,
}

/// What the distributions' own package lists give for each release.
const RELEASES: [Release; 4] = [
    Release {
        family: "debian",
        codename: "bookworm",
        version: "12",
        python: "3.11",
        postgres: "15",
        image: "debian:bookworm-slim",
    },
    Release {
        family: "debian",
        codename: "trixie",
        version: "13",
        python: "3.13",
        postgres: "17",
        image: "debian:trixie-slim",
    },
    Release {
        family: "ubuntu",
        codename: "jammy",
        version: "22.04",
        python: "3.10",
        postgres: "14",
        image: "ubuntu:22.04",
    },
    Release {
        family: "ubuntu",
        codename: "noble",
        version: "24.04",
        python: "3.12",
        postgres: "16",
        image: "ubuntu:24.04",
    },
];

/// The base image of templates that name none.
pub(super) const DEFAULT_BASE: &str = RELEASES[0].image;

impl Release {
    fn distro(&self) -> Distro {
        Distro {
            family: self.family.to_owned(),
            codename: self.codename.to_owned(),
            version: self.version.to_owned(),
            python: self.python.to_owned(),
            postgres: self.postgres.to_owned(),
        }
    }

    /// Whether an image tag names this release: its codename or version, alone or followed by something like `-slim`.
    fn is_tag(&self, tag: &str) -> bool {
        [self.codename, self.version].iter().any(|name| {
            tag.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    }
}

/// Returns the releases that are known, each with an image of it.
pub(super) fn known() -> impl Iterator<Item = (&'static str, Distro)> {
    RELEASES.iter().map(|release| (release.image, release.distro()))
}

/// Returns the codenames that are known, for messages.
pub(super) fn codenames() -> String {
    RELEASES.iter().map(|release| format!("`{}`", release.codename)).collect::<Vec<_>>().join(", ")
}

/// Returns the release that an image reference names. A registry in front of the name does not matter; a digest alone
/// says nothing.
pub(super) fn of_reference(reference: &str) -> Option<Distro> {
    let name = reference.split('@').next()?;
    let (family, tag) = name.rsplit('/').next()?.split_once(':')?;
    RELEASES.iter().find(|release| release.family == family && release.is_tag(tag)).map(Release::distro)
}

/// Returns the release of the base, from the reference or from the parameter `release` (empty: not given).
pub(super) fn of_base(base: &str, release: &str) -> Result<Distro, TemplateError> {
    let by_reference = of_reference(base);
    if release.is_empty() {
        return by_reference.ok_or_else(|| TemplateError::UnknownRelease { base: base.to_owned() });
    }
    let named = RELEASES
        .iter()
        .find(|known| known.codename == release || known.version == release)
        .map(Release::distro)
        .ok_or_else(|| TemplateError::Value {
            name: "release".to_owned(),
            value: release.to_owned(),
            expected: format!("one of {}", codenames()),
        })?;
    match by_reference {
        Some(other) if other != named => Err(TemplateError::Value {
            name: "release".to_owned(),
            value: release.to_owned(),
            expected: format!("`{}`, which is what `{base}` is", other.codename),
        }),
        _ => Ok(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_release() {
        for (reference, codename) in [
            ("debian:bookworm", Some("bookworm")),
            ("debian:bookworm-slim", Some("bookworm")),
            ("debian:bookworm-20260101-slim", Some("bookworm")),
            ("debian:12", Some("bookworm")),
            ("debian:12.8-slim", Some("bookworm")),
            ("docker.io/library/debian:13-slim@sha256:00", Some("trixie")),
            ("registry.test:5000/debian:trixie", Some("trixie")),
            ("ubuntu:22.04", Some("jammy")),
            ("ubuntu:noble-20260101", Some("noble")),
            ("debian:120", None),
            ("debian:bookwormish", None),
            ("debian", None),
            ("debian@sha256:00", None),
            ("python:3.12-bookworm", None),
            ("ubuntu:bookworm", None),
            ("", None),
        ] {
            let found = of_reference(reference).map(|distro| distro.codename);
            assert_eq!(found.as_deref(), codename, "{reference}");
        }
    }

    #[test]
    fn a_release_parameter_names_what_the_reference_does_not() {
        assert_eq!(of_base("python:3.12", "trixie").unwrap().python, "3.13");
        assert_eq!(of_base("python:3.12", "24.04").unwrap().postgres, "16");
        assert!(matches!(of_base("python:3.12", ""), Err(TemplateError::UnknownRelease { .. })));
        assert!(matches!(of_base("python:3.12", "sid"), Err(TemplateError::Value { .. })));
        assert!(matches!(of_base("debian:12", "trixie"), Err(TemplateError::Value { .. })));
    }
}
