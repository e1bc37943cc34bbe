//! What a bake needs to know of a Dockerfile, and which builder can build it.

use std::collections::BTreeMap;

use super::BakeError;
use crate::docker::{BuilderFeatures, EngineError};
use crate::template::{Dockerfile, DockerfileError, Needs};

/// What a bake needs to know of a Dockerfile.
#[derive(Debug)]
pub(super) struct Inspected {
    /// Images that are built on, each once; the one of the stage that is built is the last.
    pub(super) bases: Vec<String>,
    /// The text without comments and trailing blanks.
    pub(super) canonical: String,
    /// Secrets that a step reads.
    pub(super) secret_ids: Vec<String>,
    needs: Needs,
}

/// Parses a Dockerfile, before anything is sent to the engine.
pub(super) fn inspect(
    text: &str,
    build_args: &BTreeMap<String, String>,
    target: Option<&str>,
) -> Result<Inspected, BakeError> {
    let wrong = |error: DockerfileError| {
        BakeError::Engine(EngineError::Dockerfile { line: Some(error.line), message: error.message })
    };
    let dockerfile = Dockerfile::parse(text).map_err(wrong)?;
    Ok(Inspected {
        bases: dockerfile.base_images(build_args, target).map_err(wrong)?,
        canonical: dockerfile.canonical(),
        secret_ids: dockerfile.secret_ids(),
        needs: dockerfile.needs(),
    })
}

impl Inspected {
    /// Returns whether a step mounts a secret.
    pub(super) fn mounts_secrets(&self) -> bool {
        self.needs.secret_mount.is_some()
    }

    /// Returns what BuildKit with these features cannot do for it. A frontend that the file names itself may do anything.
    pub(super) fn missing_in_buildkit(&self, features: &BuilderFeatures) -> Option<String> {
        if self.needs.syntax.is_some() {
            return None;
        }
        let needs = &self.needs;
        missing(
            "this engine's BuildKit",
            &[
                ("here-documents", needs.heredoc, features.heredoc),
                ("`--link`", needs.copy_link, features.copy_link),
                ("secrets with `env=`", needs.secret_env, features.secret_env),
                ("`RUN --network`", needs.run_network, features.run_network),
                ("secrets", needs.secret_mount, features.session),
            ],
        )
    }

    /// Returns what the classic builder cannot do for it.
    pub(super) fn missing_in_classic(&self) -> Option<String> {
        let needs = &self.needs;
        missing(
            "the classic builder",
            &[
                ("`RUN --mount`", needs.mount, false),
                ("here-documents", needs.heredoc, false),
                ("`--chmod`", needs.copy_chmod, false),
                ("`--link`", needs.copy_link, false),
                ("`RUN --network`", needs.run_network, false),
                ("`RUN --security`", needs.run_security, false),
                ("`# syntax`", needs.syntax.as_ref().map(|(line, _)| *line), false),
            ],
        )
    }
}

/// Returns a sentence on the first needs that are not met.
fn missing(builder: &str, needs: &[(&str, Option<u32>, bool)]) -> Option<String> {
    let lacking: Vec<String> = needs
        .iter()
        .filter_map(|(what, line, there)| line.filter(|_| !there).map(|line| format!("{what} (line {line})")))
        .collect();
    (!lacking.is_empty()).then(|| format!("{builder} has no {}", lacking.join(", no ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(text: &str) -> Inspected {
        inspect(text, &BTreeMap::new(), None).unwrap()
    }

    #[test]
    fn a_plain_file_suits_every_builder() {
        let plain = inspected("FROM a\nRUN true\n");
        assert_eq!(plain.missing_in_classic(), None);
        assert_eq!(plain.missing_in_buildkit(&BuilderFeatures::default()), None);
        assert_eq!(plain.bases, ["a"]);
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let mount = inspected("FROM a\nRUN --mount=type=cache,target=/x true\n");
        assert_eq!(mount.missing_in_classic().unwrap(), "the classic builder has no `RUN --mount` (line 2)");
        let heredoc = inspected("FROM a\nRUN <<EOF\ntrue\nEOF\n");
        assert!(
            heredoc
                .missing_in_buildkit(&BuilderFeatures::default())
                .unwrap()
                .contains("here-documents (line 2)")
        );
        let features = BuilderFeatures { heredoc: true, ..BuilderFeatures::default() };
        assert_eq!(heredoc.missing_in_buildkit(&features), None);
    }

    #[test]
    fn a_mistake_has_its_line() {
        let error = inspect("FROM a\n\nRUNN true\n", &BTreeMap::new(), None).unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
