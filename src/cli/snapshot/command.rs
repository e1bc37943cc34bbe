//! The commands, and what each calls.

use clap::{Args, Subcommand};

use super::diff::DiffArgs;
use super::ensure::EnsureArgs;
use super::export::ExportArgs;
use super::list::ListArgs;
use super::logs::LogsArgs;
use super::show::ShowArgs;
use super::verify::VerifyArgs;
use super::{diff, ensure, export, list, logs, show, verify};
use crate::base::{ChannelName, Length, SnapshotName, now};
use crate::catalog::{Catalog, CatalogError, ChannelMove, Snapshot, SnapshotRef};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{moment, table, until};
use crate::cli::view::{MoveView, MovesView, RemovedView, SnapshotView};
use crate::toolkit::Toolkit;

/// How a snapshot is named, for the ends of helps.
const REFERENCES: &str =
    "REF is a name (its newest active snapshot), name@id, name:channel or an id; ids may be shortened.";

/// The commands of `kiln snapshot`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SnapshotCommand {
    /// List snapshots
    #[command(after_help = list::EXAMPLES)]
    List(ListArgs),
    /// Show what was baked
    #[command(after_help = format!("{}\n\n{REFERENCES}", show::EXAMPLES))]
    Show(ShowArgs),
    /// Print the log of a bake
    #[command(after_help = logs::EXAMPLES)]
    Logs(LogsArgs),
    /// Tell what changed between two snapshots
    #[command(after_help = format!("{}\n\n{REFERENCES}", diff::EXAMPLES))]
    Diff(DiffArgs),
    /// Look whether a snapshot is what its record says: its image is here, boots and passes the checks
    #[command(after_help = format!("{}\n\n{REFERENCES}", verify::EXAMPLES))]
    Verify(VerifyArgs),
    /// Make sure that a name has an active snapshot whose image is here
    #[command(after_help = ensure::EXAMPLES)]
    Ensure(EnsureArgs),
    /// Write a snapshot's image to a file or to standard output, for `docker load`
    #[command(after_help = format!("{}\n\n{REFERENCES}", export::EXAMPLES))]
    Export(ExportArgs),
    /// Let a channel hold a snapshot
    #[command(after_help = format!("\
Examples:
  kiln snapshot promote litellm prod
  kiln snapshot promote litellm:staging prod

{REFERENCES}"))]
    Promote(PromoteArgs),
    /// Let a channel hold again what it held before
    #[command(after_help = "\
Examples:
  kiln snapshot rollback litellm prod")]
    Rollback(RollbackArgs),
    /// Show the moves of a name's channels
    #[command(after_help = "\
Examples:
  kiln snapshot history litellm
  kiln snapshot history litellm prod --json")]
    History(HistoryArgs),
    /// Keep a snapshot, whatever a policy says
    #[command(after_help = format!("\
Examples:
  kiln snapshot pin litellm:prod

{REFERENCES}"))]
    Pin(ReferenceArgs),
    /// Take a pin back
    #[command(after_help = format!("\
Examples:
  kiln snapshot unpin litellm:prod

{REFERENCES}"))]
    Unpin(ReferenceArgs),
    /// Record that a snapshot was used on this engine now
    #[command(after_help = format!("\
Examples:
  kiln snapshot touch litellm

{REFERENCES}"))]
    Touch(ReferenceArgs),
    /// Say after when a snapshot is not needed
    #[command(after_help = format!("\
Examples:
  kiln snapshot expire litellm@01jqz3k5p8 --in 7d

{REFERENCES}"))]
    Expire(ExpireArgs),
    /// Say that a snapshot must not be used any more; its input is then only baked with --rebuild
    #[command(after_help = format!("\
Examples:
  kiln snapshot revoke litellm@01jqz3k5p8 --reason \"CVE in libpq\"

{REFERENCES}"))]
    Revoke(RevokeArgs),
    /// Remove a snapshot: its image on this engine, then its name
    #[command(after_help = format!("\
Examples:
  kiln snapshot remove litellm@01jqz3k5p8

A snapshot that is pinned, held by a channel or used by a container is refused (exit code 5). \
{REFERENCES}"))]
    Remove(ReferenceArgs),
}

/// Arguments of commands on one snapshot.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReferenceArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
}

/// Arguments of `promote`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PromoteArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
    /// The channel
    #[arg(value_name = "CHANNEL")]
    channel: ChannelName,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RollbackArgs {
    /// The snapshots' name
    #[arg(value_name = "NAME")]
    name: SnapshotName,
    /// The channel
    #[arg(value_name = "CHANNEL")]
    channel: ChannelName,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// The snapshots' name
    #[arg(value_name = "NAME")]
    name: SnapshotName,
    /// One channel [default: all]
    #[arg(value_name = "CHANNEL")]
    channel: Option<ChannelName>,
}

/// Arguments of `expire`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExpireArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
    /// After how long it is not needed, such as 7d
    #[arg(long = "in", value_name = "DURATION")]
    after: Length,
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
    /// Why, in a sentence
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs a command; returns the exit code.
pub(in crate::cli) async fn run(
    invocation: &Invocation,
    command: &SnapshotCommand,
) -> Result<u8, CommandError> {
    let toolkit = invocation.toolkit().await?;
    let done = match command {
        SnapshotCommand::Verify(arguments) => return verify::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::Export(arguments) => export::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::Ensure(arguments) => ensure::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::List(arguments) => list::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::Show(arguments) => show::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::Logs(arguments) => logs::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::Diff(arguments) => diff::run(invocation, &toolkit, arguments).await,
        SnapshotCommand::Promote(PromoteArgs { reference, channel }) => {
            let step = toolkit.workbench()?.promote(reference, channel).await?;
            moved(invocation, &step)
        }
        SnapshotCommand::Rollback(RollbackArgs { name, channel }) => {
            let step = toolkit.workbench()?.rollback(name, channel).await?;
            moved(invocation, &step)
        }
        SnapshotCommand::History(arguments) => history(invocation, &toolkit, arguments).await,
        SnapshotCommand::Pin(ReferenceArgs { reference }) => {
            let snapshot = toolkit.workbench()?.pin(reference).await?;
            changed(invocation, &toolkit, &snapshot, "pinned").await
        }
        SnapshotCommand::Unpin(ReferenceArgs { reference }) => {
            let snapshot = toolkit.workbench()?.unpin(reference).await?;
            changed(invocation, &toolkit, &snapshot, "not pinned").await
        }
        SnapshotCommand::Touch(ReferenceArgs { reference }) => {
            let snapshot = toolkit.workbench()?.touch(reference).await?;
            changed(invocation, &toolkit, &snapshot, "used just now").await
        }
        SnapshotCommand::Expire(ExpireArgs { reference, after }) => {
            let snapshot = toolkit.workbench()?.expire(reference, *after).await?;
            let when =
                snapshot.marks.expires.map_or_else(String::new, |at| format!("expires {}", until(now(), at)));
            changed(invocation, &toolkit, &snapshot, &when).await
        }
        SnapshotCommand::Revoke(RevokeArgs { reference, reason }) => {
            let snapshot = toolkit.workbench()?.revoke(reference, reason).await?;
            changed(invocation, &toolkit, &snapshot, &format!("revoked: {reason}")).await
        }
        SnapshotCommand::Remove(ReferenceArgs { reference }) => {
            let report = toolkit.workbench()?.remove(reference).await?;
            let view = RemovedView::new(&report);
            invocation.output.answer(&view, |_| removed(&view))
        }
    };
    done.map(|()| 0)
}

async fn changed(
    invocation: &Invocation,
    toolkit: &Toolkit,
    snapshot: &Snapshot,
    what: &str,
) -> Result<(), CommandError> {
    let channels = channels_of_name(toolkit.catalog(), &snapshot.record.name).await?;
    invocation
        .output
        .answer(&SnapshotView::new(snapshot, &channels), |_| format!("{} {what}", snapshot.reference()))
}

fn moved(invocation: &Invocation, step: &ChannelMove) -> Result<(), CommandError> {
    invocation.output.answer(&MoveView::new(step), |_| {
        let before =
            step.previous.map_or_else(String::new, |previous| format!(", before {}@{previous}", step.name));
        format!("{}:{} holds {}@{}{before}", step.name, step.channel, step.name, step.snapshot)
    })
}

async fn history(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &HistoryArgs,
) -> Result<(), CommandError> {
    let moves = toolkit.catalog().channel_moves(&arguments.name, arguments.channel.as_ref()).await?;
    let view = MovesView { moves: MoveView::all(&moves) };
    if moves.is_empty() && !invocation.output.json() {
        let channel = arguments
            .channel
            .as_ref()
            .map_or_else(|| "no channel".to_owned(), |name| format!("no channel `{name}`"));
        invocation.note(&format!("`{}` has {channel}", arguments.name));
    }
    invocation.output.answer(&view, |_| {
        let rows: Vec<Vec<String>> = moves
            .iter()
            .zip(&view.moves)
            .map(|(step, told)| {
                let before = match step.previous {
                    _ if told.lost => "lost: moved at the same time as the next one".to_owned(),
                    Some(previous) => format!("before {previous}"),
                    None => String::new(),
                };
                vec![
                    format!("{}:{}", step.name, step.channel),
                    moment(step.at),
                    step.snapshot.to_string(),
                    before,
                ]
            })
            .collect();
        table(&rows)
    })
}

fn removed(view: &RemovedView) -> String {
    let mut lines = vec![format!("{} {}", view.reference, view.state)];
    if let Some(tag) = &view.untagged {
        let image =
            if view.image_deleted { "and the image deleted" } else { "the image is still used and stays" };
        lines.push(format!("  {tag} removed, {image}"));
    }
    lines.extend(
        view.left_on.iter().map(|engine| format!("  still on the engine {engine}: remove it there too")),
    );
    lines.join("\n")
}

/// Returns what the channels of a name hold now.
pub(in crate::cli) async fn channels_of_name(
    catalog: &Catalog,
    name: &SnapshotName,
) -> Result<Vec<ChannelMove>, CatalogError> {
    let mut held: Vec<ChannelMove> = Vec::new();
    // Oldest first by channel: a later move takes the place of an earlier one.
    for step in catalog.channel_moves(name, None).await? {
        held.retain(|earlier| earlier.channel != step.channel);
        held.push(step);
    }
    Ok(held)
}

/// Returns a state's word, painted.
pub(in crate::cli) fn painted_state(state: &str, paint: Paint) -> String {
    match state {
        "active" => paint.good(state),
        "error" | "revoked" => paint.bad(state),
        "building" | "checking" | "unchecked" => paint.warn(state),
        _ => paint.dim(state),
    }
}
