//! `kiln workspace undo`: removed revisions that are brought back.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::base::{ByteSize, now};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::toolkit::Toolkit;
use crate::workspace::{self, RemovedRevision, RevisionReference, UndoReport};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace undo --list
  kiln workspace undo app@01jqz3k5p8
  kiln workspace undo app

The content comes back as a new revision with the same labels, which is then the newest of its workspace; the removed one itself \
stays removed. Nothing is uploaded but what a collector was about to delete. That works until the grace of `kiln gc` is over, 24 \
hours unless it is told otherwise; after that the exit code is 4.

REF is name@id, an id, or a workspace's name: then the newest of those of it that were removed last. Ids may be shortened.";

/// Characters of an id in the table.
const SHORT_ID: usize = 10;

/// Arguments of `kiln workspace undo`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UndoArgs {
    /// The removed revision; without one, those that can be brought back are listed
    #[arg(value_name = "REF")]
    reference: Option<RevisionReference>,
    /// List what can be brought back: of this workspace, or of all
    #[arg(long)]
    list: bool,
}

/// An undo on the wire.
#[derive(Debug, Serialize)]
struct UndoView {
    revision: String,
    workspace: String,
    reference: String,
    /// The removed revision.
    parent: String,
    entries: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    uploaded_bytes: u64,
    /// References to revisions that have the same content, because it was brought back before.
    earlier: Vec<String>,
    seconds: f64,
}

/// What can be brought back, on the wire.
#[derive(Debug, Serialize)]
struct RemovedListView {
    removed: Vec<RemovedItemView>,
}

/// A removed revision on the wire.
#[derive(Debug, Serialize)]
struct RemovedItemView {
    revision: String,
    workspace: String,
    reference: String,
    /// When it was removed, where that can be read. The collector's grace counts from here.
    removed: Option<Timestamp>,
    saved: Option<Timestamp>,
    files: Option<u64>,
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
}

impl RemovedItemView {
    fn new(item: &RemovedRevision) -> Self {
        let RemovedRevision { revision, removed, record } = item;
        let known = record.as_ref().ok();
        Self {
            revision: revision.id.to_string(),
            workspace: revision.workspace.to_string(),
            reference: format!("{}@{}", revision.workspace, revision.id),
            removed: *removed,
            saved: known.map(|record| record.created),
            files: known.map(|record| record.counts.files),
            bytes: known.map(|record| record.counts.bytes),
            damaged: record.as_ref().err().map(ToString::to_string),
        }
    }
}

impl UndoView {
    fn new(report: &UndoReport) -> Self {
        let reference = |id| format!("{}@{id}", report.workspace);
        Self {
            revision: report.revision.to_string(),
            workspace: report.workspace.to_string(),
            reference: reference(report.revision),
            parent: report.removed.to_string(),
            entries: report.counts.entries,
            files: report.counts.files,
            directories: report.counts.directories,
            bytes: report.counts.bytes,
            uploaded_bytes: report.uploaded_bytes,
            earlier: report.earlier.iter().copied().map(reference).collect(),
            seconds: report.took.as_secs_f64(),
        }
    }
}

/// Brings a revision back, or lists those that can be.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &UndoArgs,
) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let reference = match (&arguments.reference, arguments.list) {
        (Some(reference), false) => reference,
        (None, _) => return list(invocation, toolkit, None).await,
        (Some(RevisionReference::Name(name)), true) => return list(invocation, toolkit, Some(name)).await,
        (Some(RevisionReference::NameId(..)), true) => {
            return Err(CommandError::invalid("--list takes a workspace's name, not a revision"));
        }
    };
    let removed = workspace::find_removed(&depot, reference).await?;
    let report = Box::pin(workspace::undo(&depot, &removed)).await?;
    let view = UndoView::new(&report);
    for earlier in &view.earlier {
        invocation.note(&format!("it was brought back before: {earlier} has the same content"));
    }
    invocation.output.answer(&view, |paint| {
        let from = format!("{}@{}", view.workspace, view.parent);
        format!("{} brought back from {from}, and the newest now", paint.bold(&view.reference))
    })
}

async fn list(
    invocation: &Invocation,
    toolkit: &Toolkit,
    of: Option<&crate::base::WorkspaceName>,
) -> Result<(), CommandError> {
    let removed = workspace::removed(&toolkit.depot(), of).await?;
    let view = RemovedListView { removed: removed.iter().map(RemovedItemView::new).collect() };
    if view.removed.is_empty() && !invocation.output.json() {
        invocation.note("nothing was removed that could be brought back");
    }
    invocation.output.answer(&view, |paint| human(&view, now(), paint))
}

fn human(view: &RemovedListView, now: Timestamp, paint: Paint) -> String {
    if view.removed.is_empty() {
        return String::new();
    }
    let head = ["REVISION", "REMOVED", "SAVED", "FILES", "SIZE"];
    let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
    let dash = || "-".to_owned();
    rows.extend(view.removed.iter().map(|item| {
        vec![
            format!("{}@{}", item.workspace, item.revision.chars().take(SHORT_ID).collect::<String>()),
            item.removed.map_or_else(dash, |removed| age(now, removed)),
            item.saved.map_or_else(|| paint.bad("damaged"), |saved| age(now, saved)),
            item.files.map_or_else(dash, |files| files.to_string()),
            item.bytes.map_or_else(dash, |bytes| ByteSize(bytes).to_string()),
        ]
    }));
    table(&rows)
}
