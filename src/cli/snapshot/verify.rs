//! Whether snapshots are what their records say.

use clap::Args;
use serde::Serialize;

use crate::base::{ErrorKind, human_duration};
use crate::catalog::{CheckRecord, SnapshotRef};
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::watched::watched_to_the_end;
use crate::snapshot::{BakeEvent, Verdict, VerifyReport};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot verify litellm:prod
  kiln snapshot verify --all --json | jq -r '.snapshots[] | select(.verdict != \"sound\").reference'

The image must be on this engine under the snapshot's reference, boot, and pass the checks that it was baked with. The exit code is 9 \
where one fails, else 4 where an image is gone or its reference names another one; such a place is recorded as gone, and `kiln snapshot \
ensure` or `kiln build` brings it back. An unchecked snapshot that passes becomes active.";

/// Arguments of `kiln snapshot verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// The snapshot
    #[arg(value_name = "REF", required_unless_present = "all")]
    reference: Option<SnapshotRef>,
    /// Every active snapshot whose image is on this engine
    #[arg(long, conflicts_with = "reference")]
    all: bool,
}

#[derive(Debug, Serialize)]
struct VerifiedView {
    snapshots: Vec<VerdictView>,
}

#[derive(Debug, Serialize)]
struct VerdictView {
    id: String,
    reference: String,
    state: &'static str,
    engine: String,
    image: Option<String>,
    verdict: &'static str,
    reason: Option<String>,
    checks: Vec<CheckRecord>,
    seconds: f64,
}

/// Verifies, and prints what was found. Returns the exit code.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &VerifyArgs,
) -> Result<u8, CommandError> {
    let workbench = toolkit.workbench()?;
    let reports =
        watched_to_the_end::<BakeEvent, _, _>(invocation, async |sink, cancel| match &arguments.reference {
            Some(reference) => Ok(vec![workbench.verify(reference, sink, cancel).await?]),
            None => workbench.verify_all(sink, cancel).await,
        })
        .await?;
    let view = VerifiedView { snapshots: reports.iter().map(VerdictView::new).collect() };
    if reports.is_empty() && !invocation.output.json() {
        invocation.note("no active snapshot has its image on this engine");
    }
    invocation.output.answer(&view, |paint| human(&reports, paint))?;
    let has = |verdict| reports.iter().any(|report| report.verdict == verdict);
    Ok(if has(Verdict::Failed) {
        exit::code(ErrorKind::Failed)
    } else if has(Verdict::Gone) || has(Verdict::Replaced) {
        exit::code(ErrorKind::NotFound)
    } else {
        0
    })
}

impl VerdictView {
    fn new(report: &VerifyReport) -> Self {
        Self {
            id: report.id.to_string(),
            reference: report.reference.clone(),
            state: report.state.as_str(),
            engine: report.engine.to_string(),
            image: report.image.map(|image| image.to_string()),
            verdict: report.verdict.as_str(),
            reason: report.reason.clone(),
            checks: report.checks.clone(),
            seconds: report.took.as_secs_f64(),
        }
    }
}

fn human(reports: &[VerifyReport], paint: Paint) -> String {
    let mut lines = Vec::new();
    for report in reports {
        let verdict = report.verdict.as_str();
        let verdict = match report.verdict {
            Verdict::Sound => paint.good(verdict),
            Verdict::Gone | Verdict::Replaced | Verdict::Failed => paint.bad(verdict),
        };
        let reason = report.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let passed = report.checks.iter().filter(|check| check.passed).count();
        let checks = match report.checks.len() {
            0 => String::new(),
            all if all == passed => format!(", {passed} checks passed"),
            all => format!(", {passed} of {all} checks passed"),
        };
        let took = human_duration(report.took);
        lines.push(format!("{} {verdict}{reason}{checks} ({took})", paint.bold(&report.reference)));
        let failed = report.checks.iter().filter(|check| !check.passed);
        lines.extend(failed.map(|check| {
            format!("  {}: {}", check.name, check.reason.as_deref().unwrap_or("it did not pass"))
        }));
    }
    lines.join("\n")
}
