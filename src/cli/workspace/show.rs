//! `kiln workspace show`: what is recorded of a revision.

use super::view::RevisionView;
use crate::base::{ByteSize, now};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, clean, moment};
use crate::store::revision::RevisionRef;
use crate::toolkit::Toolkit;
use crate::workspace::{self, Depot, RevisionReference, WorkspaceError};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace show app
  kiln workspace show app@01jqz3k5p8 --json | jq .labels";

/// Shows a revision.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    reference: &RevisionReference,
) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let view = view_of(&depot, &workspace::find(&depot, reference).await?).await?;
    invocation.output.answer(&view, |paint| human(&view, paint))
}

/// Reads what is recorded of a revision.
pub(super) async fn view_of(depot: &Depot, revision: &RevisionRef) -> Result<RevisionView, WorkspaceError> {
    let (record, mut pins) = tokio::try_join!(
        workspace::show(depot, revision),
        workspace::pins(depot, Some(&revision.workspace))
    )?;
    let pin = pins.remove(&(revision.workspace.clone(), revision.id));
    let touched = workspace::touched(depot, revision).await;
    Ok(RevisionView::new(&record, pin.as_ref(), touched))
}

fn human(view: &RevisionView, paint: Paint) -> String {
    let mut rows = vec![
        ("saved", format!("{}, {}", moment(view.created), age(now(), view.created))),
        ("source", clean(&view.source)),
        ("files", format!("{}, {}", view.files, ByteSize(view.bytes))),
        ("entries", format!("{}, {} of them directories", view.entries, view.directories)),
        ("packs", format!("{}, {}, shared with other revisions", view.packs, ByteSize(view.pack_bytes))),
    ];
    if view.data_bytes < view.bytes {
        rows.push(("holes", ByteSize(view.bytes.saturating_sub(view.data_bytes)).to_string()));
    }
    rows.extend(view.parent.iter().map(|parent| ("parent", parent.clone())));
    rows.extend(view.labels.iter().map(|(key, value)| ("label", format!("{key}={}", clean(value)))));
    rows.extend(view.last_used.map(|at| ("used", age(now(), at))));
    if view.pinned {
        let reason = view.pin_reason.as_deref().filter(|reason| !reason.is_empty());
        rows.push(("pinned", reason.map_or_else(|| "yes".to_owned(), clean)));
    }
    if view.unsettled > 0 {
        rows.push(("note", format!("{} files changed while they were read", view.unsettled)));
    }
    let mut text = format!("{}\n", paint.bold(&view.reference));
    for (name, value) in rows {
        text.push_str(&format!("  {name:<9} {value}\n"));
    }
    text
}
