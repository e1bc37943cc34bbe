//! Findings in a template's Dockerfile, or in any other.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::render::RequestArgs;
use crate::base::ErrorKind;
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::template::{self, Dockerfile, Finding, LintContext, LintFeatures, LintInput, Rendered, Severity};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln template lint litellm
  kiln template lint ./Dockerfile --deny warning
  kiln template lint ./app/Dockerfile --format sarif > lint.sarif

A finding of the severity of --deny, or of a higher one, makes the exit code 2; none, or only lower ones, make it 0. \
The comment `# kiln: ignore=ID reason` suppresses a finding.";

/// Arguments of `kiln template lint`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LintArgs {
    /// A shipped template's name, a template folder, or a Dockerfile (a path contains a / or a .)
    #[arg(value_name = "TEMPLATE|DOCKERFILE")]
    subject: String,
    #[command(flatten)]
    request: RequestArgs,
    /// The form of the findings; --json means json
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    format: FormatArg,
    /// The lowest severity that makes the exit code 2
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t)]
    deny: SeverityArg,
}

/// Words of `--format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// A line for each.
    #[default]
    Text,
    /// A JSON document.
    Json,
    /// SARIF 2.1.0, which code hosts show beside the lines.
    Sarif,
}

/// Words of `--deny`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum SeverityArg {
    /// What will not work, or is not safe.
    #[default]
    Error,
    /// What is likely to be a mistake.
    Warning,
    /// What could be better.
    Info,
}

/// What was found.
#[derive(Debug, Serialize)]
struct LintView {
    file: String,
    findings: Vec<FindingView>,
}

/// A finding.
#[derive(Debug, Serialize)]
struct FindingView {
    rule: &'static str,
    name: &'static str,
    severity: &'static str,
    line: u32,
    message: String,
    help: &'static str,
}

/// Looks for mistakes; returns the exit code.
pub(super) fn run(invocation: &Invocation, arguments: &LintArgs) -> Result<u8, CommandError> {
    let Subject { file, text, input } = read(arguments)?;
    let findings = template::lint(&Dockerfile::parse(&text)?, &input);
    let view = LintView { file, findings: findings.iter().map(FindingView::new).collect() };
    let format = if invocation.output.json() && arguments.format == FormatArg::Text {
        FormatArg::Json
    } else {
        arguments.format
    };
    match format {
        FormatArg::Text => invocation.output.text(&human(&view, invocation.output.paint()))?,
        FormatArg::Json => invocation.output.document(&view)?,
        FormatArg::Sarif => invocation.output.document(&template::to_sarif(&view.file, &findings))?,
    }
    let denied = findings.iter().any(|finding| is_denied(finding.severity, arguments.deny));
    Ok(if denied { exit::code(ErrorKind::Invalid) } else { 0 })
}

/// A Dockerfile to look at.
struct Subject {
    /// Its name for messages.
    file: String,
    text: String,
    input: LintInput,
}

/// Reads a Dockerfile, with the folder that it lies in as its context, or renders a template.
fn read(arguments: &LintArgs) -> Result<Subject, CommandError> {
    let path = Path::new(&arguments.subject);
    if path.is_file() {
        let text = std::fs::read_to_string(path).map_err(|error| {
            CommandError::io(ErrorKind::Invalid, format!("cannot read `{}`", path.display()), &error)
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok(Subject {
            file: arguments.subject.clone(),
            text,
            input: LintInput { context: LintContext::Folder(folder.to_owned()), features: None },
        });
    }
    let rendered = arguments.request.render(&arguments.subject)?;
    let context = context_of(&rendered);
    // A template is baked on whatever engine there is, so it is held to what all of them can do.
    let input = LintInput { context, features: Some(LintFeatures::PORTABLE) };
    let folder = rendered.context_root.unwrap_or_else(|| PathBuf::from(&rendered.template));
    Ok(Subject { file: folder.join("Dockerfile").display().to_string(), text: rendered.dockerfile, input })
}

/// Returns what a rendered template's `COPY` can take.
fn context_of(rendered: &Rendered) -> LintContext {
    match &rendered.context_root {
        Some(folder) => LintContext::Folder(folder.clone()),
        None => LintContext::Files(rendered.files.iter().map(|file| file.path.clone()).collect()),
    }
}

fn is_denied(severity: Severity, deny: SeverityArg) -> bool {
    match deny {
        SeverityArg::Error => severity == Severity::Error,
        SeverityArg::Warning => severity != Severity::Info,
        SeverityArg::Info => true,
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

impl FindingView {
    fn new(finding: &Finding) -> Self {
        Self {
            rule: finding.id,
            name: finding.name,
            severity: severity(finding.severity),
            line: finding.line,
            message: finding.message.clone(),
            help: finding.help,
        }
    }
}

fn human(view: &LintView, paint: Paint) -> String {
    if view.findings.is_empty() {
        return format!("{}: nothing found", view.file);
    }
    let mut text = String::new();
    for finding in &view.findings {
        let severity = match finding.severity {
            "error" => paint.bad("error"),
            "warning" => paint.warn("warning"),
            other => paint.dim(other),
        };
        let FindingView { rule, name, line, message, help, .. } = finding;
        text.push_str(&format!("{}:{line}: {severity}: {message} [{rule} {name}]\n", view.file));
        text.push_str(&format!("    {}\n", paint.dim(help)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_includes_what_is_worse() {
        let levels = [Severity::Info, Severity::Warning, Severity::Error];
        for (deny, expected) in [
            (SeverityArg::Error, [false, false, true]),
            (SeverityArg::Warning, [false, true, true]),
            (SeverityArg::Info, [true, true, true]),
        ] {
            assert_eq!(levels.map(|level| is_denied(level, deny)), expected, "{deny:?}");
        }
    }
}
