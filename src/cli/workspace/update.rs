//! What `kiln workspace restore --update` answers.

use super::restore::shortfalls;
use super::view::UpdateView;
use crate::base::{ByteSize, human_duration};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::workspace::UpdateReport;

/// Prints what an update did.
pub(super) fn answer(invocation: &Invocation, report: &UpdateReport) -> Result<(), CommandError> {
    invocation.output.answer(&UpdateView::new(report), |paint| human(report, paint))
}

fn human(report: &UpdateReport, paint: Paint) -> String {
    let reference = format!("{}@{}", report.workspace, report.revision);
    let mut text = format!("{} restored by an update\n", paint.bold(&reference));
    let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    row("files", format!("{}, {}", report.counts.files, ByteSize(report.counts.bytes)));
    row(
        "changed",
        format!(
            "{} made, {} patched, {} looked at or adjusted, {} removed",
            report.made, report.patched, report.adjusted, report.removed
        ),
    );
    row("fetched", ByteSize(report.fetched_bytes).to_string());
    row("time", human_duration(report.took));
    for line in shortfalls(&report.shortfalls) {
        row("note", line);
    }
    text
}
