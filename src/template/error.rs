//! Why a template could not become a Dockerfile.

use std::path::PathBuf;

use crate::base::{Classify, ErrorKind};

/// Why a template could not be found, read or rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No shipped template has this name.
    #[error("there is no template `{name}`")]
    UnknownTemplate {
        /// The name that was asked for.
        name: String,
        /// The shipped name that is nearest to it.
        nearest: Option<String>,
        /// All shipped names.
        known: Vec<String>,
    },
    /// The path is no folder with a template in it.
    #[error("`{}` is not a folder with a `template.toml` or a `Dockerfile`", path.display())]
    NotATemplate {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A file of a template could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A path leads out of the template's folder.
    #[error("`{path}` of the template in `{}` leads out of that folder", folder.display())]
    Outside {
        /// The path, as the template has it.
        path: String,
        /// The template's folder.
        folder: PathBuf,
    },
    /// Something in the template's folder cannot be part of it.
    #[error("`{path}` cannot be part of a template: {reason}")]
    Unusable {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// A manifest is not what it should be.
    #[error("`{file}`, line {line}: {message}")]
    Manifest {
        /// The manifest.
        file: String,
        /// The line, counted from one.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A part, or an expression of a manifest, could not be rendered.
    #[error("cannot render `{file}`, line {line}: {message}")]
    Render {
        /// The part.
        file: String,
        /// The line, counted from one.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// No component has this name.
    #[error("`{wanted_by}` uses the component `{name}`, which does not exist")]
    UnknownComponent {
        /// The name.
        name: String,
        /// The template or component that names it.
        wanted_by: String,
        /// The name that is nearest to it.
        nearest: Option<String>,
    },
    /// Components need each other, or templates extend each other, in a circle.
    #[error("{what} need each other in a circle: {}", circle.join(" → "))]
    Cycle {
        /// `components` or `templates`.
        what: &'static str,
        /// The circle; its first and last element are the same.
        circle: Vec<String>,
    },
    /// Two components exclude each other.
    #[error("the components `{first}` and `{second}` cannot be used together")]
    Conflict {
        /// The one that says so.
        first: String,
        /// The other.
        second: String,
    },
    /// Two components set the same variable.
    #[error("the variable `{name}` is set by `{first}` and by `{second}`")]
    DuplicateVariable {
        /// The variable.
        name: String,
        /// Who set it first.
        first: String,
        /// Who set it again.
        second: String,
    },
    /// Two components bring the same file of the context.
    #[error("the file `{path}` is brought by `{first}` and by `{second}`")]
    DuplicateFile {
        /// Its path in the context.
        path: String,
        /// Who brought it first.
        first: String,
        /// Who brought it again.
        second: String,
    },
    /// A component does not work on the base's distribution.
    #[error("the component `{component}` does not work on {distro}: {reason}")]
    Distro {
        /// The component.
        component: String,
        /// The distribution and its release.
        distro: String,
        /// Why.
        reason: String,
    },
    /// It cannot be told which release the base image is.
    #[error("cannot tell which release of Debian or Ubuntu `{base}` is")]
    UnknownRelease {
        /// The base image.
        base: String,
    },
    /// The base image's name is no image reference.
    #[error("`{base}` is not an image reference")]
    Base {
        /// What was given.
        base: String,
    },
    /// There is no parameter of this name.
    #[error("`{owner}` has no parameter `{name}`")]
    UnknownParameter {
        /// The template or component.
        owner: String,
        /// The name that was given.
        name: String,
        /// The name that is nearest to it.
        nearest: Option<String>,
    },
    /// A parameter without default was not given.
    #[error("`{owner}` needs a value for its parameter `{name}`")]
    MissingParameter {
        /// The template or component.
        owner: String,
        /// The parameter.
        name: String,
    },
    /// A parameter's value is not what it should be.
    #[error("`{value}` is no value for the parameter `{name}`: expected {expected}")]
    Value {
        /// The parameter.
        name: String,
        /// The value, without control characters.
        value: String,
        /// The expected form.
        expected: String,
    },
    /// A parameter may not be given this way.
    #[error("the parameter `{name}` {reason}")]
    Forbidden {
        /// The parameter.
        name: String,
        /// Why.
        reason: &'static str,
        /// What to do instead.
        instead: Option<String>,
    },
    /// A value of the rendered manifest is not what it should be.
    #[error("the template `{template}` gives `{value}` as its {what}: expected {expected}")]
    Rendered {
        /// The template.
        template: String,
        /// Which value.
        what: &'static str,
        /// The value, without control characters.
        value: String,
        /// The expected form.
        expected: &'static str,
    },
    /// A certificate file was refused.
    #[error("`{}` {reason}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The template cannot do what was asked, as it is.
    #[error("the template `{template}` {reason}")]
    Unsupported {
        /// The template.
        template: String,
        /// What it cannot do.
        reason: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The folder to write to holds something else.
    #[error("`{}` is in the way: the folder does not hold an earlier render of this template only", path.display())]
    Occupied {
        /// What is in the way.
        path: PathBuf,
    },
    /// A rendered file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Classify for TemplateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownTemplate { .. } | Self::NotATemplate { .. } => ErrorKind::NotFound,
            Self::Occupied { .. } => ErrorKind::Conflict,
            Self::Write { .. } => ErrorKind::Unavailable,
            Self::Read { .. }
            | Self::Outside { .. }
            | Self::Unusable { .. }
            | Self::Manifest { .. }
            | Self::Render { .. }
            | Self::UnknownComponent { .. }
            | Self::Cycle { .. }
            | Self::Conflict { .. }
            | Self::DuplicateVariable { .. }
            | Self::DuplicateFile { .. }
            | Self::Distro { .. }
            | Self::UnknownRelease { .. }
            | Self::Base { .. }
            | Self::UnknownParameter { .. }
            | Self::MissingParameter { .. }
            | Self::Value { .. }
            | Self::Forbidden { .. }
            | Self::Rendered { .. }
            | Self::Certificate { .. }
            | Self::Unsupported { .. } => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownTemplate { nearest: Some(nearest), .. }
            | Self::UnknownComponent { nearest: Some(nearest), .. }
            | Self::UnknownParameter { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`?"))
            }
            Self::UnknownTemplate { nearest: None, known, .. } => Some(format!(
                "shipped templates are {}; the path of an own template contains a `/` or a `.`",
                known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            )),
            Self::MissingParameter { name, .. } => Some(format!("give it with `--set {name}=…`")),
            Self::UnknownRelease { .. } => {
                Some(format!("say it with `--set release=…` ({})", super::distro::codenames()))
            }
            Self::Forbidden { instead, .. } => instead.clone(),
            Self::Unsupported { instead, .. } => Some((*instead).to_owned()),
            Self::Occupied { .. } => Some("choose an empty folder, or remove what is in the way".to_owned()),
            Self::NotATemplate { .. }
            | Self::Read { .. }
            | Self::Outside { .. }
            | Self::Unusable { .. }
            | Self::Manifest { .. }
            | Self::Render { .. }
            | Self::UnknownComponent { .. }
            | Self::UnknownParameter { .. }
            | Self::Cycle { .. }
            | Self::Conflict { .. }
            | Self::DuplicateVariable { .. }
            | Self::DuplicateFile { .. }
            | Self::Distro { .. }
            | Self::Base { .. }
            | Self::Value { .. }
            | Self::Rendered { .. }
            | Self::Certificate { .. }
            | Self::Write { .. } => None,
        }
    }
}

/// Returns `text` with control characters escaped and shortened, for messages.
pub(super) fn shown(text: &str) -> String {
    /// Long enough for a path, short enough for a line.
    const MOST: usize = 120;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    shown = shown.replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\");
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns the name of `known` that is nearest to `name`, if one is near enough to be meant.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (name.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
