//! What changed between two snapshots.

use clap::Args;

use crate::catalog::SnapshotRef;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::view::{ChangeView, DiffView};
use crate::snapshot;
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot diff litellm:prod litellm
  kiln snapshot diff litellm@01jqz3k5p8 litellm --json | jq '.changes[] | select(.area == \"packages.pip\")'";

/// Arguments of `kiln snapshot diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The older snapshot
    #[arg(value_name = "A")]
    from: SnapshotRef,
    /// The newer one
    #[arg(value_name = "B")]
    to: SnapshotRef,
}

/// Compares two snapshots.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &DiffArgs,
) -> Result<(), CommandError> {
    let catalog = toolkit.catalog();
    let (from, to) = tokio::try_join!(catalog.resolve(&arguments.from), catalog.resolve(&arguments.to))?;
    let view = DiffView::new(&snapshot::diff(&from, &to));
    invocation.output.answer(&view, |paint| human(&view, paint))
}

fn human(view: &DiffView, paint: Paint) -> String {
    let mut text = format!("{} → {}\n", view.from, view.to);
    if view.changes.is_empty() && view.dockerfile.is_empty() {
        text.push_str("no difference\n");
    }
    let mut area = None;
    for change in &view.changes {
        if area != Some(&change.area) {
            text.push_str(&format!("\n{}\n", paint.bold(&change.area)));
            area = Some(&change.area);
        }
        text.push_str(&format!("  {}\n", line(change, paint)));
    }
    if !view.dockerfile.is_empty() {
        text.push_str(&format!("\n{}\n", paint.bold("Dockerfile")));
        for line in &view.dockerfile {
            let painted = match line.as_bytes().first() {
                Some(b'+') => paint.good(line),
                Some(b'-') => paint.bad(line),
                _ => line.clone(),
            };
            text.push_str(&format!("  {painted}\n"));
        }
    }
    text
}

fn line(change: &ChangeView, paint: Paint) -> String {
    let what = &change.what;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{} {what}  {before} → {after}", paint.warn("~")),
        (None, Some(after)) => format!("{} {what}  {after}", paint.good("+")),
        (Some(before), None) => format!("{} {what}  {before}", paint.bad("-")),
        (None, None) => what.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_stand_under_their_area() {
        let change = |area: &str, what: &str, before: Option<&str>, after: Option<&str>| ChangeView {
            area: area.into(),
            what: what.into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let view = DiffView {
            from: "a@1".into(),
            to: "a@2".into(),
            changes: vec![
                change("packages.pip", "litellm", Some("1.0"), Some("1.1")),
                change("packages.pip", "uv", None, Some("2")),
                change("size", "image", Some("1 GiB"), None),
            ],
            dockerfile: vec![" FROM x".into(), "-RUN a".into(), "+RUN b".into()],
        };
        let expected = "a@1 → a@2\n\npackages.pip\n  ~ litellm  1.0 → 1.1\n  + uv  2\n\nsize\n  - image  1 GiB\n\n\
                        Dockerfile\n   FROM x\n  -RUN a\n  +RUN b\n";
        assert_eq!(human(&view, Paint::new(false)), expected);
        let same = DiffView { changes: vec![], dockerfile: vec![], ..view };
        assert_eq!(human(&same, Paint::new(false)), "a@1 → a@2\nno difference\n");
    }
}
