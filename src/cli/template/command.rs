//! The commands, and what each calls. None of them opens a store or asks an engine.

use clap::Subcommand;

use super::lint::LintArgs;
use super::list::ShowArgs;
use super::render::RenderArgs;
use super::update::UpdateArgs;
use super::{lint, list, render, update};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;

/// The commands of `kiln template`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TemplateCommand {
    /// List the shipped templates
    #[command(after_help = list::LIST_EXAMPLES)]
    List,
    /// Show a template: parameters, resources, limits, checks, bases
    #[command(after_help = list::SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Render a template into a Dockerfile that plain `docker build` accepts
    #[command(after_help = render::EXAMPLES)]
    Render(RenderArgs),
    /// Look for mistakes in a template's Dockerfile, or in any Dockerfile
    #[command(after_help = lint::EXAMPLES)]
    Lint(LintArgs),
    /// Make the lock files of a template anew, with the newest versions that its inputs allow
    #[command(after_help = update::EXAMPLES)]
    Update(UpdateArgs),
}

/// Runs a command; returns the exit code.
pub(in crate::cli) async fn run(
    invocation: &Invocation,
    command: &TemplateCommand,
) -> Result<u8, CommandError> {
    match command {
        TemplateCommand::List => list::list(invocation).map(|()| 0),
        TemplateCommand::Show(arguments) => list::show(invocation, arguments).map(|()| 0),
        TemplateCommand::Render(arguments) => render::run(invocation, arguments).map(|()| 0),
        TemplateCommand::Lint(arguments) => lint::run(invocation, arguments),
        TemplateCommand::Update(arguments) => update::run(invocation, arguments).await.map(|()| 0),
    }
}
