//! `template.toml` and `component.toml`, as read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::parameter::{self, ParameterType};
use super::{LockKind, TemplateError};
use crate::base::{ByteSize, Length};

/// The version of the manifests that this program reads.
const SCHEMA: i64 = 1;

/// The name of a template's manifest.
pub(super) const TEMPLATE: &str = "template.toml";

/// The name of a component's manifest.
pub(super) const COMPONENT: &str = "component.toml";

/// What stands in `template.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplateManifest {
    #[serde(rename = "schema")]
    _schema: i64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) base: Option<String>,
    pub(super) extends: Option<String>,
    pub(super) refresh_after: Option<Length>,
    #[serde(default)]
    pub(super) components: Vec<ComponentUse>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, ParameterManifest>,
    #[serde(default)]
    pub(super) runtime: RuntimeManifest,
    #[serde(default)]
    pub(super) resources: ResourcesManifest,
    #[serde(default)]
    pub(super) limits: LimitsManifest,
    #[serde(default, rename = "secret")]
    pub(super) secrets: Vec<SecretManifest>,
    #[serde(default, rename = "check")]
    pub(super) checks: Vec<CheckManifest>,
    pub(super) checkout: Option<CheckoutManifest>,
    #[serde(default)]
    pub(super) templated: Vec<String>,
    #[serde(default, rename = "lock")]
    pub(super) locks: Vec<LockManifest>,
}

/// What stands in `component.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ComponentManifest {
    #[serde(rename = "schema")]
    _schema: i64,
    pub(super) name: String,
    #[serde(default, rename = "description")]
    _description: String,
    #[serde(default)]
    pub(super) requires: Vec<String>,
    #[serde(default)]
    pub(super) conflicts: Vec<String>,
    pub(super) distros: Option<Vec<String>>,
    #[serde(default)]
    pub(super) distros_reason: String,
    #[serde(default)]
    pub(super) templated: Vec<String>,
    #[serde(default)]
    pub(super) path: Vec<String>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, ParameterManifest>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default, rename = "lock")]
    pub(super) locks: Vec<LockManifest>,
}

/// A component in use, with values for its parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ComponentUse {
    #[serde(rename = "use")]
    pub(super) component: String,
    #[serde(default)]
    pub(super) with: BTreeMap<String, toml::Value>,
}

/// A declared parameter.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterManifest {
    #[serde(rename = "type")]
    pub(super) kind: ParameterType,
    pub(super) default: Option<toml::Value>,
    pub(super) pattern: Option<String>,
    #[serde(default)]
    pub(super) values: Vec<String>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) secret: bool,
    #[serde(default)]
    pub(super) computed: bool,
}

impl ParameterManifest {
    /// Returns the default as text.
    pub(super) fn default_text(&self) -> Option<String> {
        self.default.as_ref().and_then(text_of)
    }
}

/// Returns a scalar of TOML as text.
pub(super) fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// The `[runtime]` table; texts are templates.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuntimeManifest {
    pub(super) user: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) workdir: Option<String>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) start: Option<String>,
    pub(super) ready: Option<ReadyManifest>,
    pub(super) ports: Option<Vec<u16>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
}

/// How to see that the services answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadyManifest {
    pub(super) cmd: String,
    #[serde(default = "ready_timeout")]
    pub(super) timeout: Length,
    #[serde(default = "ready_interval")]
    pub(super) interval: Length,
}

fn ready_timeout() -> Length {
    Length::seconds(60)
}

fn ready_interval() -> Length {
    Length(std::time::Duration::from_millis(500))
}

/// The `[resources]` table.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourcesManifest {
    pub(super) cpu: Option<u32>,
    pub(super) memory: Option<ByteSize>,
    pub(super) disk: Option<ByteSize>,
}

/// The `[limits]` table.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsManifest {
    pub(super) image: Option<ByteSize>,
    pub(super) build_write: Option<ByteSize>,
    pub(super) context: Option<ByteSize>,
    pub(super) timeout: Option<Length>,
}

/// A secret that the build takes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretManifest {
    pub(super) id: String,
    #[serde(default)]
    pub(super) required: bool,
}

/// A command that must succeed in the finished image; texts are templates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckManifest {
    pub(super) name: String,
    pub(super) cmd: String,
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) network: bool,
    #[serde(default = "check_timeout")]
    pub(super) timeout: Length,
    pub(super) expect: Option<String>,
    pub(super) when: Option<String>,
}

fn check_timeout() -> Length {
    Length::seconds(60)
}

/// A git repository whose files become part of the context; texts are templates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckoutManifest {
    pub(super) url: String,
    #[serde(default)]
    pub(super) reference: String,
    pub(super) prefix: String,
    pub(super) secret: Option<String>,
}

/// A lock file below `files/` and what it is made from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockManifest {
    pub(super) file: String,
    pub(super) input: String,
    pub(super) kind: LockKind,
}

/// Reads a `template.toml`; `file` names it in errors.
pub(super) fn template(file: &str, text: &str) -> Result<TemplateManifest, TemplateError> {
    let manifest: TemplateManifest = read(file, text)?;
    let source = Source { file, text };
    source.name(&manifest.name)?;
    source.parameters(&manifest.parameters)?;
    source.variables(&manifest.runtime.env)?;
    for used in &manifest.components {
        source.name(&used.component)?;
        if manifest.components.iter().filter(|other| other.component == used.component).count() > 1 {
            return Err(source.wrong(
                &format!("\"{}\"", used.component),
                format!("the component `{}` is listed twice", used.component),
            ));
        }
    }
    for check in &manifest.checks {
        if manifest.checks.iter().filter(|other| other.name == check.name).count() > 1 {
            return Err(source
                .wrong(&format!("\"{}\"", check.name), format!("two checks are named `{}`", check.name)));
        }
    }
    source.inside(manifest.templated.iter())?;
    source.inside(manifest.locks.iter().flat_map(|lock| [&lock.file, &lock.input]))?;
    source.inside(manifest.checkout.iter().map(|checkout| &checkout.prefix))?;
    Ok(manifest)
}

/// Reads a `component.toml`; `file` names it in errors.
pub(super) fn component(file: &str, text: &str) -> Result<ComponentManifest, TemplateError> {
    let manifest: ComponentManifest = read(file, text)?;
    let source = Source { file, text };
    source.name(&manifest.name)?;
    source.parameters(&manifest.parameters)?;
    source.variables(&manifest.env)?;
    for name in manifest.requires.iter().chain(&manifest.conflicts) {
        source.name(name)?;
    }
    source.inside(manifest.templated.iter())?;
    source.inside(manifest.locks.iter().flat_map(|lock| [&lock.file, &lock.input]))?;
    Ok(manifest)
}

fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, TemplateError> {
    let source = Source { file, text };
    let table: toml::Table = toml::from_str(text).map_err(|error| source.toml(&error))?;
    // Before the fields: a manifest of another schema would be full of unknown ones.
    match table.get("schema") {
        Some(toml::Value::Integer(SCHEMA)) => {}
        Some(other) => {
            return Err(source.wrong(
                "schema",
                format!("schema {other} is not known; this program reads schema {SCHEMA}"),
            ));
        }
        None => return Err(source.wrong("schema", format!("`schema = {SCHEMA}` is missing"))),
    }
    toml::from_str(text).map_err(|error| source.toml(&error))
}

/// A manifest's text, for errors that name a line.
#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn toml(&self, error: &toml::de::Error) -> TemplateError {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + self.text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
        TemplateError::Manifest { file: self.file.to_owned(), line, message }
    }

    /// Makes an error about the first line that has `word`.
    fn wrong(&self, word: &str, message: String) -> TemplateError {
        let line = self.text.lines().position(|line| line.contains(word)).map_or(1, |index| index + 1);
        TemplateError::Manifest { file: self.file.to_owned(), line, message }
    }

    fn name(&self, name: &str) -> Result<(), TemplateError> {
        if is_name(name) {
            return Ok(());
        }
        Err(self.wrong(
            name,
            format!("`{}` is not a name (lower-case letters, digits and `-`)", name.escape_debug()),
        ))
    }

    fn variables(&self, env: &BTreeMap<String, String>) -> Result<(), TemplateError> {
        for name in env.keys() {
            let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !valid {
                return Err(self.wrong(name, format!("`{}` is not a variable's name", name.escape_debug())));
            }
            if name == "PATH" {
                return Err(
                    self.wrong(name, "`PATH` is composed of the components' `path` entries".to_owned())
                );
            }
        }
        Ok(())
    }

    fn inside<'a>(&self, paths: impl Iterator<Item = &'a String>) -> Result<(), TemplateError> {
        for path in paths {
            if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
                return Err(
                    self.wrong(path, format!("`{}` leads out of the template's files", path.escape_debug()))
                );
            }
        }
        Ok(())
    }

    fn parameters(&self, parameters: &BTreeMap<String, ParameterManifest>) -> Result<(), TemplateError> {
        for (name, declared) in parameters {
            let wrong = |message: String| Err(self.wrong(&format!("parameters.{name}"), message));
            let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !valid {
                return wrong(format!(
                    "`{}` is not a parameter's name (lower-case letters, digits and `_`)",
                    name.escape_debug()
                ));
            }
            if let Some(Err(error)) = declared.pattern.as_deref().map(parameter::whole_pattern) {
                // The last line says why; those before it draw a picture.
                let reason = error.to_string().lines().last().unwrap_or_default().replace("error: ", "");
                return wrong(format!("the pattern of `{name}` is not valid: {reason}"));
            }
            if (declared.kind == ParameterType::Enum) == declared.values.is_empty() {
                return wrong(format!("`{name}`: `values` belongs to the type `enum`, and to it alone"));
            }
            if declared.secret && declared.default.is_some() {
                return wrong(format!("the secret `{name}` must not have a default"));
            }
            let Some(default) = &declared.default else { continue };
            let Some(text) = text_of(default) else {
                return wrong(format!("the default of `{name}` is neither text, number nor boolean"));
            };
            // An empty default of a text says "not given"; its pattern is for values that are.
            if text.is_empty() && declared.kind == ParameterType::String {
                continue;
            }
            if let Err(error) = parameter::check(name, declared, &text) {
                return wrong(format!("default of `{name}`: {error}"));
            }
        }
        Ok(())
    }
}

/// Whether `name` can name a template or a component: it is also a folder's name and part of paths in the context.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
