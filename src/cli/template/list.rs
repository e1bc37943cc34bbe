//! Templates, and one of them described.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::base::ByteSize;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::table;
use crate::cli::view::{LimitsView, ResourcesView, RuntimeView};
use crate::template::{BaseSummary, Library, ParameterSummary, ParameterType, TemplateSummary};

/// Examples for the help of `list`.
pub(super) const LIST_EXAMPLES: &str = "\
Examples:
  kiln template list
  kiln template list --json | jq -r '.templates[].name'";

/// Examples for the help of `show`.
pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  kiln template show litellm
  kiln template show ./my-template --json";

/// Arguments of `kiln template show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// A shipped template's name, a template folder, or a folder with a Dockerfile (a path contains a / or a .)
    #[arg(value_name = "TEMPLATE")]
    template: String,
}

/// A list of templates.
#[derive(Debug, Serialize)]
struct TemplateListView {
    templates: Vec<TemplateView>,
}

/// A template, described with its defaults.
#[derive(Debug, Serialize)]
struct TemplateView {
    name: String,
    description: String,
    folder: Option<PathBuf>,
    extends: Option<String>,
    base: String,
    components: Vec<String>,
    parameters: Vec<ParameterView>,
    runtime: RuntimeView,
    resources: ResourcesView,
    limits: LimitsView,
    secrets: Vec<SecretView>,
    checks: Vec<String>,
    refresh_after_seconds: Option<u64>,
    bases: Vec<ReleaseView>,
}

/// A parameter.
#[derive(Debug, Serialize)]
struct ParameterView {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    default: Option<String>,
    pattern: Option<String>,
    values: Vec<String>,
    description: String,
    secret: bool,
    computed: bool,
    global: bool,
}

/// A secret.
#[derive(Debug, Serialize)]
struct SecretView {
    id: String,
    required: bool,
}

/// A release that a template may be based on.
#[derive(Debug, Serialize)]
struct ReleaseView {
    image: String,
    python: String,
    postgres: String,
    refused: Option<String>,
}

/// Lists the shipped templates.
pub(super) fn list(invocation: &Invocation) -> Result<(), CommandError> {
    let library = Library::shipped();
    let mut templates = Vec::new();
    for name in library.list() {
        templates.push(TemplateView::new(library.locate(&name)?.describe()?));
    }
    let view = TemplateListView { templates };
    invocation.output.answer(&view, |paint| {
        let rows: Vec<Vec<String>> = view
            .templates
            .iter()
            .map(|template| vec![paint.bold(&template.name), template.description.clone()])
            .collect();
        table(&rows)
    })
}

/// Describes a template.
pub(super) fn show(invocation: &Invocation, arguments: &ShowArgs) -> Result<(), CommandError> {
    let summary = Library::shipped().locate(&arguments.template)?.describe()?;
    let view = TemplateView::new(summary);
    invocation.output.answer(&view, |paint| human(&view, paint))
}

impl TemplateView {
    fn new(summary: TemplateSummary) -> Self {
        Self {
            name: summary.name,
            description: summary.description,
            folder: summary.folder,
            extends: summary.extends,
            base: summary.base,
            components: summary.components,
            parameters: summary.parameters.into_iter().map(ParameterView::new).collect(),
            runtime: RuntimeView::new(&summary.runtime),
            resources: ResourcesView::new(summary.resources),
            limits: LimitsView::new(summary.limits),
            secrets: summary
                .secrets
                .into_iter()
                .map(|secret| SecretView { id: secret.id, required: secret.required })
                .collect(),
            checks: summary.checks,
            refresh_after_seconds: summary.refresh_after.map(|length| length.duration().as_secs()),
            bases: summary.bases.into_iter().map(ReleaseView::new).collect(),
        }
    }
}

impl ParameterView {
    fn new(summary: ParameterSummary) -> Self {
        Self {
            name: summary.name,
            kind: match summary.kind {
                ParameterType::String => "string",
                ParameterType::Int => "int",
                ParameterType::Bool => "bool",
                ParameterType::Size => "size",
                ParameterType::Version => "version",
                ParameterType::Enum => "enum",
            },
            default: summary.default,
            pattern: summary.pattern,
            values: summary.values,
            description: summary.description,
            secret: summary.secret,
            computed: summary.computed,
            global: summary.global,
        }
    }

    /// Returns what a value looks like, for people.
    fn form(&self) -> String {
        if self.values.is_empty() { self.kind.to_owned() } else { self.values.join("|") }
    }

    /// Returns what holds when nothing is given, for people.
    fn otherwise(&self) -> String {
        match &self.default {
            _ if self.computed => "found out by the build".to_owned(),
            Some(default) if default.is_empty() => "\"\"".to_owned(),
            Some(default) => default.clone(),
            None => "must be given".to_owned(),
        }
    }
}

impl ReleaseView {
    fn new(summary: BaseSummary) -> Self {
        Self {
            image: summary.image,
            python: summary.python,
            postgres: summary.postgres,
            refused: summary.refused,
        }
    }
}

fn human(view: &TemplateView, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&view.name));
    if !view.description.is_empty() {
        text.push_str(&format!("{}\n", view.description));
    }
    text.push('\n');
    let resources = &view.resources;
    let limits = &view.limits;
    let runtime = &view.runtime;
    let rows = [
        ("base", view.base.clone()),
        ("extends", view.extends.clone().unwrap_or_default()),
        ("components", view.components.join(", ")),
        (
            "user",
            if runtime.user.is_empty() {
                String::new()
            } else {
                format!("{} in {}", runtime.user, runtime.workdir)
            },
        ),
        ("entrypoint", runtime.entrypoint.join(" ")),
        ("start", runtime.start.clone().unwrap_or_default()),
        ("ports", runtime.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")),
        (
            "resources",
            format!(
                "{} CPU, {} memory, {} disk",
                resources.cpu,
                ByteSize(resources.memory_bytes),
                ByteSize(resources.disk_bytes)
            ),
        ),
        (
            "limits",
            format!(
                "image {}, build writes {}, context {}, {} s",
                ByteSize(limits.image_bytes),
                ByteSize(limits.build_write_bytes),
                ByteSize(limits.context_bytes),
                limits.timeout_seconds
            ),
        ),
        ("checks", view.checks.join(", ")),
    ];
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{} {value}\n", paint.dim(&format!("{name:<11}"))));
    }
    let parameters = view.parameters.iter().map(|parameter| {
        vec![
            format!("  --set {}=", parameter.name),
            parameter.form(),
            parameter.otherwise(),
            parameter.description.clone(),
        ]
    });
    section(&mut text, "Parameters", parameters, paint);
    let secrets = view.secrets.iter().map(|secret| {
        let needed = if secret.required { "required" } else { "optional" };
        vec![format!("  --secret id={},…", secret.id), needed.to_owned()]
    });
    section(&mut text, "Secrets", secrets, paint);
    let bases = view.bases.iter().map(|base| {
        let refused =
            base.refused.as_ref().map(|reason| paint.warn(&format!("refused: {reason}"))).unwrap_or_default();
        vec![
            format!("  --base {}", base.image),
            format!("Python {}", base.python),
            format!("PostgreSQL {}", base.postgres),
            refused,
        ]
    });
    section(&mut text, "Bases", bases, paint);
    text
}

fn section(text: &mut String, title: &str, rows: impl Iterator<Item = Vec<String>>, paint: Paint) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{}\n{}", paint.bold(title), table(&rows)));
    }
}
