//! What a template is, for people who choose one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::parameter::{Missing, ParameterType};
use super::source::Kind;
use super::{
    Limits, RenderRequest, Rendered, Resources, Runtime, SecretSpec, Template, TemplateError, distro, merge,
    parameter, render,
};
use crate::base::Length;

/// A template, described with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateSummary {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The folder that it was read from; `None` for a shipped one.
    pub folder: Option<PathBuf>,
    /// The template that it extends.
    pub extends: Option<String>,
    /// The base image, unless another is asked for.
    pub base: String,
    /// Components in the order of use.
    pub components: Vec<String>,
    /// Its parameters, and then those that every template has.
    pub parameters: Vec<ParameterSummary>,
    /// How a sandbox runs.
    pub runtime: Runtime,
    /// What a sandbox is given.
    pub resources: Resources,
    /// What the build may use.
    pub limits: Limits,
    /// Secrets that the build takes.
    pub secrets: Vec<SecretSpec>,
    /// Names of the checks.
    pub checks: Vec<String>,
    /// After how long an image should be built anew.
    pub refresh_after: Option<Length>,
    /// What each release gives; empty for a plain Dockerfile.
    pub bases: Vec<BaseSummary>,
}

/// A parameter, described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParameterSummary {
    /// Its name.
    pub name: String,
    /// What its values look like.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// Its default; it must be given when there is none.
    pub default: Option<String>,
    /// The pattern that a value must match as a whole.
    pub pattern: Option<String>,
    /// The values of an enum.
    pub values: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Whether it is given with `--secret`.
    pub secret: bool,
    /// Whether the build finds it out by itself.
    pub computed: bool,
    /// Whether every template has it.
    pub global: bool,
}

/// A release that a template may be based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseSummary {
    /// An image of the release.
    pub image: String,
    /// The version of its `python3`.
    pub python: String,
    /// The major version of its PostgreSQL.
    pub postgres: String,
    /// Why the template does not work on it, if so.
    pub refused: Option<String>,
}

impl Template {
    /// Describes the template with its defaults; parameters that have none are left blank.
    ///
    /// # Errors
    ///
    /// Fails when the template cannot be rendered so.
    pub fn describe(&self) -> Result<TemplateSummary, TemplateError> {
        let request = RenderRequest::default();
        if matches!(self.kind, Kind::Plain { .. }) {
            let rendered = render(self, &request)?;
            return Ok(self.summary(rendered, None, Vec::new(), Vec::new()));
        }
        let merged = merge::merge(self, &request, Missing::Blank)?;
        let rendered = render::composed(self, &request, Missing::Blank)?;
        let global = parameter::global();
        let mut parameters: Vec<_> = merged
            .parameters
            .iter()
            .map(|(name, declared)| ParameterSummary {
                name: name.clone(),
                kind: declared.kind,
                default: declared.default_text(),
                pattern: declared.pattern.clone(),
                values: declared.values.clone(),
                description: declared.description.clone(),
                secret: declared.secret,
                computed: declared.computed,
                global: global.contains_key(name),
            })
            .collect();
        parameters.sort_by_key(|parameter| parameter.global);
        let bases = distro::known()
            .map(|(image, release)| {
                let request = RenderRequest { base: Some(image.to_owned()), ..RenderRequest::default() };
                let refused =
                    render::composed(self, &request, Missing::Blank).err().map(|error| error.to_string());
                BaseSummary {
                    image: image.to_owned(),
                    python: release.python,
                    postgres: release.postgres,
                    refused,
                }
            })
            .collect();
        Ok(self.summary(rendered, merged.extends, parameters, bases))
    }

    fn summary(
        &self,
        rendered: Rendered,
        extends: Option<String>,
        parameters: Vec<ParameterSummary>,
        bases: Vec<BaseSummary>,
    ) -> TemplateSummary {
        TemplateSummary {
            name: self.name.clone(),
            description: rendered.description,
            folder: self.folder().map(ToOwned::to_owned),
            extends,
            base: rendered.base,
            components: rendered.components,
            parameters,
            runtime: rendered.runtime,
            resources: rendered.resources,
            limits: rendered.limits,
            secrets: rendered.secrets,
            checks: rendered.checks.into_iter().map(|check| check.name).collect(),
            refresh_after: rendered.refresh_after,
            bases,
        }
    }
}
