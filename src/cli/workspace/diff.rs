//! `kiln workspace diff`: what differs between two revisions.

use clap::Args;

use super::view::{DiffView, DifferenceView, SideView};
use crate::base::ByteSize;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::toolkit::Toolkit;
use crate::workspace::{self, RevisionReference};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace diff app@01jqz3k5p8 app
  kiln workspace diff app app-fork --json | jq -r '.changes[] | select(.change == \"added\") | .path'";

/// Arguments of `kiln workspace diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The older revision
    #[arg(value_name = "A")]
    from: RevisionReference,
    /// The newer one
    #[arg(value_name = "B")]
    to: RevisionReference,
}

/// Compares two revisions.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &DiffArgs,
) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let read = async |reference| {
        let revision = workspace::find(&depot, reference).await?;
        workspace::show(&depot, &revision).await
    };
    let (from, to) = tokio::try_join!(read(&arguments.from), read(&arguments.to))?;
    let differences = Box::pin(workspace::diff(&depot, &from, &to)).await?;
    let reference = |record: &crate::store::revision::Revision| format!("{}@{}", record.workspace, record.id);
    let view = DiffView::new(reference(&from), reference(&to), &differences);
    invocation.output.answer(&view, |paint| human(&view, paint))
}

fn human(view: &DiffView, paint: Paint) -> String {
    let mut text = format!("{} → {}\n", view.from, view.to);
    if view.changes.is_empty() {
        text.push_str("no difference\n");
        return text;
    }
    for change in &view.changes {
        text.push_str(&line(change, paint));
        text.push('\n');
    }
    text.push_str(&format!("{} added, {} removed, {} changed\n", view.added, view.removed, view.changed));
    text
}

fn line(change: &DifferenceView, paint: Paint) -> String {
    let path = &change.path;
    match (&change.before, &change.after) {
        (None, Some(after)) => format!("{} {path}  {}", paint.good("+"), sized(after)),
        (Some(before), None) => format!("{} {path}  {}", paint.bad("-"), sized(before)),
        (Some(before), Some(after)) => {
            format!("{} {path}  {}", paint.warn("~"), differing(change, before, after).join(", "))
        }
        (None, None) => path.clone(),
    }
}

fn sized(side: &SideView) -> String {
    if side.kind == "file" { ByteSize(side.size).to_string() } else { side.kind.to_owned() }
}

/// Returns what is not as it was, in words.
fn differing(change: &DifferenceView, before: &SideView, after: &SideView) -> Vec<String> {
    let mut words = Vec::new();
    if change.kind {
        words.push(format!("{} → {}", before.kind, after.kind));
    }
    if change.content && !change.kind {
        words.push(if before.size == after.size {
            "content".to_owned()
        } else {
            format!("content, {} → {}", ByteSize(before.size), ByteSize(after.size))
        });
    }
    if before.mode != after.mode {
        words.push(format!("mode {} → {}", before.mode, after.mode));
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        words.push(format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid));
    }
    if words.is_empty() && change.attributes {
        let is_time = before.mtime != after.mtime;
        words.push(if is_time { "time" } else { "attributes" }.to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_is_not_as_it_was() {
        let side = |kind, size, mode: &str| SideView {
            kind,
            size,
            mode: mode.to_owned(),
            uid: 0,
            gid: 0,
            mtime: None,
        };
        let change = |path: &str, before: Option<SideView>, after: Option<SideView>| DifferenceView {
            path: path.to_owned(),
            path_base64: None,
            change: "changed",
            kind: before.as_ref().zip(after.as_ref()).is_some_and(|(a, b)| a.kind != b.kind),
            content: true,
            attributes: true,
            before,
            after,
        };
        let view = DiffView {
            from: "app@1".into(),
            to: "app@2".into(),
            added: 1,
            removed: 1,
            changed: 2,
            changes: vec![
                change("a", None, Some(side("file", 2048, "0644"))),
                change("b", Some(side("directory", 0, "0755")), None),
                change("c", Some(side("file", 1024, "0644")), Some(side("file", 2048, "0755"))),
                change("d", Some(side("file", 1024, "0644")), Some(side("symlink", 0, "0644"))),
            ],
        };
        let expected = "app@1 → app@2\n+ a  2.0 KiB\n- b  directory\n\
                        ~ c  content, 1.0 KiB → 2.0 KiB, mode 0644 → 0755\n~ d  file → symlink\n\
                        1 added, 1 removed, 2 changed\n";
        assert_eq!(human(&view, Paint::new(false)), expected);
        let same = DiffView { changes: vec![], ..view };
        assert_eq!(human(&same, Paint::new(false)), "app@1 → app@2\nno difference\n");
    }
}
