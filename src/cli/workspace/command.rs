//! The commands, and what each calls.

use clap::{Args, Subcommand};

use super::cat::CatArgs;
use super::diff::DiffArgs;
use super::files::FilesArgs;
use super::list::ListArgs;
use super::prune::PruneArgs;
use super::remove::RemoveArgs;
use super::restore::RestoreArgs;
use super::save::SaveArgs;
use super::undo::UndoArgs;
use super::view::CopyView;
use super::{cat, diff, files, list, prune, remove, restore, save, show, undo};
use crate::base::WorkspaceName;
use crate::cli::args::{KeyValue, by_name};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::toolkit::Toolkit;
use crate::workspace::{self, RevisionReference};

/// How a revision is named, for the ends of helps.
const REFERENCES: &str =
    "REF is a workspace's name (its newest revision), name@id or an id; ids may be shortened.";

/// The commands of `kiln workspace`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WorkspaceCommand {
    /// Save a directory, a tar stream or a container's directory as a new revision of a workspace
    #[command(after_help = save::EXAMPLES)]
    Save(Box<SaveArgs>),
    /// Restore a revision to a directory, a tar stream or a container's directory
    #[command(after_help = format!("{}\n\n{REFERENCES}", restore::EXAMPLES))]
    Restore(Box<RestoreArgs>),
    /// Record the content of a revision as one of another workspace; nothing is uploaded
    #[command(after_help = format!("\
Examples:
  kiln workspace copy app app-fork
  kiln workspace copy app@01jqz3k5p8 app --label restored-from=yesterday

{REFERENCES}"))]
    Copy(CopyArgs),
    /// List workspaces, or the revisions of one
    #[command(after_help = list::EXAMPLES)]
    List(ListArgs),
    /// Show what is recorded of a revision
    #[command(after_help = format!("{}\n\n{REFERENCES}", show::EXAMPLES))]
    Show(ReferenceArgs),
    /// List the entries of a revision
    #[command(after_help = format!("{}\n\n{REFERENCES}", files::EXAMPLES))]
    Files(FilesArgs),
    /// Print a file of a revision
    #[command(after_help = format!("{}\n\n{REFERENCES}", cat::EXAMPLES))]
    Cat(CatArgs),
    /// Tell what differs between two revisions
    #[command(after_help = format!("{}\n\n{REFERENCES}", diff::EXAMPLES))]
    Diff(DiffArgs),
    /// Keep a revision, whatever a policy says
    #[command(after_help = format!("\
Examples:
  kiln workspace pin app --reason \"before the upgrade\"

{REFERENCES}"))]
    Pin(PinArgs),
    /// Take a pin back
    #[command(after_help = format!("\
Examples:
  kiln workspace unpin app@01jqz3k5p8

{REFERENCES}"))]
    Unpin(ReferenceArgs),
    /// Remove a revision, or all of a workspace
    #[command(after_help = remove::EXAMPLES)]
    Remove(RemoveArgs),
    /// Remove the revisions that a policy does not keep; only tells which, unless --apply is given
    #[command(after_help = prune::EXAMPLES)]
    Prune(Box<PruneArgs>),
    /// Bring a removed revision back as the newest one of its workspace, or list what can be
    #[command(after_help = undo::EXAMPLES)]
    Undo(UndoArgs),
}

/// Arguments of commands on one revision.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReferenceArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: RevisionReference,
}

/// Arguments of `copy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: RevisionReference,
    /// The workspace that gets the new revision
    #[arg(value_name = "NEWNAME")]
    name: WorkspaceName,
    /// Give the new revision a label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<KeyValue>,
}

/// Arguments of `pin`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PinArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: RevisionReference,
    /// Why, in a sentence
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Runs a command; returns the exit code.
pub(in crate::cli) async fn run(
    invocation: &Invocation,
    command: &WorkspaceCommand,
) -> Result<u8, CommandError> {
    let toolkit = match command {
        WorkspaceCommand::Prune(arguments) => arguments.toolkit(invocation).await?,
        _ => invocation.toolkit().await?,
    };
    match command {
        WorkspaceCommand::Save(arguments) => return save::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Restore(arguments) => restore::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Copy(arguments) => copy(invocation, &toolkit, arguments).await,
        WorkspaceCommand::List(arguments) => list::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Show(ReferenceArgs { reference }) => {
            show::run(invocation, &toolkit, reference).await
        }
        WorkspaceCommand::Files(arguments) => files::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Cat(arguments) => cat::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Diff(arguments) => diff::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Pin(PinArgs { reference, reason }) => {
            pin(invocation, &toolkit, reference, Some(reason)).await
        }
        WorkspaceCommand::Unpin(ReferenceArgs { reference }) => {
            pin(invocation, &toolkit, reference, None).await
        }
        WorkspaceCommand::Remove(arguments) => remove::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Prune(arguments) => return prune::run(invocation, &toolkit, arguments).await,
        WorkspaceCommand::Undo(arguments) => undo::run(invocation, &toolkit, arguments).await,
    }
    .map(|()| 0)
}

/// Pins a revision for a reason, or takes its pin back.
async fn pin(
    invocation: &Invocation,
    toolkit: &Toolkit,
    reference: &RevisionReference,
    reason: Option<&String>,
) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let revision = workspace::find(&depot, reference).await?;
    match reason {
        Some(reason) => workspace::pin(&depot, &revision, reason).await?,
        None => workspace::unpin(&depot, &revision).await?,
    }
    let view = show::view_of(&depot, &revision).await?;
    let what = if reason.is_some() { "pinned" } else { "not pinned" };
    invocation.output.answer(&view, |_| format!("{} {what}", view.reference))
}

async fn copy(invocation: &Invocation, toolkit: &Toolkit, arguments: &CopyArgs) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let revision = workspace::find(&depot, &arguments.reference).await?;
    let record = workspace::show(&depot, &revision).await?;
    let labels = by_name(&arguments.labels);
    let report = Box::pin(workspace::copy(&depot, &record, &arguments.name, labels)).await?;
    let view = CopyView::new(&report);
    invocation.output.answer(&view, |paint| {
        format!("{} copied from {}@{}", paint.bold(&view.reference), record.workspace, record.id)
    })
}
