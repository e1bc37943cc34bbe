//! A folder with a Dockerfile as a template: taken as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::source::Kind;
use super::{Library, Limits, RenderRequest, Rendered, Resources, Runtime, Template, TemplateError, distro};

/// The file's name.
pub(super) const DOCKERFILE: &str = "Dockerfile";

impl Library {
    /// Takes `folder` as a context and `file`, wherever it lies, as its Dockerfile.
    ///
    /// # Errors
    ///
    /// Fails when the folder or the file cannot be read.
    pub fn dockerfile(&self, folder: &Path, file: &Path) -> Result<Template, TemplateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| TemplateError::Read { path, source }
        };
        let root = fs::canonicalize(folder).map_err(failed(folder))?;
        plain(&root, folder, fs::read(file).map_err(failed(file))?, file, self)
    }
}

pub(super) fn open(folder: &Path, library: &Library) -> Result<Template, TemplateError> {
    let path = folder.join(DOCKERFILE);
    let failed = |source| TemplateError::Read { path: path.clone(), source };
    let root = fs::canonicalize(folder).map_err(failed)?;
    if !fs::canonicalize(&path).map_err(failed)?.starts_with(&root) {
        return Err(TemplateError::Outside { path: DOCKERFILE.to_owned(), folder: folder.to_owned() });
    }
    let bytes = fs::read(&path).map_err(failed)?;
    plain(&root, folder, bytes, &path, library)
}

fn plain(
    root: &Path,
    folder: &Path,
    bytes: Vec<u8>,
    path: &Path,
    library: &Library,
) -> Result<Template, TemplateError> {
    let dockerfile = String::from_utf8(bytes).map_err(|error| TemplateError::Unusable {
        path: path.display().to_string(),
        reason: format!("it is no UTF-8 text ({})", error.utf8_error()),
    })?;
    let name = root.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned());
    let kind = Kind::Plain { folder: folder.to_owned(), dockerfile };
    Ok(Template { name, kind, library: library.clone() })
}

pub(super) fn render(
    name: &str,
    folder: &Path,
    dockerfile: &str,
    request: &RenderRequest,
) -> Result<Rendered, TemplateError> {
    let refuse =
        |reason, instead| Err(TemplateError::Unsupported { template: name.to_owned(), reason, instead });
    if !request.parameters.is_empty() || !request.computed.is_empty() {
        return refuse(
            "is a plain Dockerfile and has no parameters",
            "give an `ARG` its value with `--build-arg`",
        );
    }
    if request.base.is_some() {
        return refuse("is a plain Dockerfile and names its base itself", "change its `FROM`");
    }
    if !request.baked_cas.is_empty() || !request.build_cas.is_empty() {
        return refuse(
            "is a plain Dockerfile and cannot be given certificates",
            "write a `template.toml` that uses the component `ca`",
        );
    }
    let base = last_base(dockerfile).unwrap_or_default();
    Ok(Rendered {
        template: name.to_owned(),
        description: String::new(),
        dockerfile: dockerfile.to_owned(),
        files: Vec::new(),
        context_root: Some(PathBuf::from(folder)),
        distro: distro::of_reference(&base),
        base,
        components: Vec::new(),
        parameters: BTreeMap::new(),
        baked_cas: Vec::new(),
        build_cas: Vec::new(),
        runtime: Runtime::default(),
        resources: Resources::default(),
        limits: Limits::default(),
        secrets: Vec::new(),
        checks: Vec::new(),
        refresh_after: None,
    })
}

/// Returns the image of the last `FROM`, followed through stages' names; variables have the defaults of the `ARG`s before
/// the first `FROM`. What is wrong with a Dockerfile is for its parser to say.
fn last_base(dockerfile: &str) -> Option<String> {
    let mut arguments = BTreeMap::new();
    let mut stages: BTreeMap<String, String> = BTreeMap::new();
    let mut base = None;
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_ascii_uppercase();
        if instruction == "ARG" && base.is_none() {
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                arguments.insert(name.to_owned(), value.trim_matches(['"', '\'']).to_owned());
            }
        } else if instruction == "FROM" {
            let mut words = words.skip_while(|word| word.starts_with("--"));
            let named = expand_arguments(words.next()?, &arguments);
            let image = stages.get(&named.to_ascii_lowercase()).cloned().unwrap_or(named);
            if words.next().is_some_and(|word| word.eq_ignore_ascii_case("as")) {
                stages.insert(words.next()?.to_ascii_lowercase(), image.clone());
            }
            base = Some(image);
        }
    }
    base
}

/// Replaces `$NAME`, `${NAME}` and `${NAME:-default}`.
fn expand_arguments(text: &str, arguments: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, default, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((inner, tail)) => {
                let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
                (name, default, tail)
            }
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                let (name, tail) = after.split_at(end);
                (name, "", tail)
            }
        };
        expanded.push_str(arguments.get(name).map_or(default, String::as_str));
        rest = tail;
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_that_of_the_last_stage() {
        for (dockerfile, base) in [
            ("FROM debian:12\n", "debian:12"),
            ("# x\nARG V=12\nFROM --platform=linux/amd64 debian:${V}-slim AS a\nFROM a\n", "debian:12-slim"),
            ("from a as x\nFROM b\nARG V=1\nFROM X", "a"),
            ("ARG V\nFROM debian:${V:-13}", "debian:13"),
            ("ARG I=\"ubuntu:24.04\"\nFROM $I", "ubuntu:24.04"),
            ("FROM scratch", "scratch"),
        ] {
            assert_eq!(last_base(dockerfile).as_deref(), Some(base), "{dockerfile}");
        }
        assert_eq!(last_base("RUN x\nFROM"), None);
    }
}
