//! `kiln doctor`: what works here, in one screen.

use serde::Serialize;

use super::exit;
use super::failure::CommandError;
use super::invocation::Invocation;
use super::paint::Paint;
use super::text::table;
use crate::base::ErrorKind;
use crate::toolkit::doctor::{DoctorReport, Subject, Verdict, examine};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln doctor
  kiln doctor --json | jq '.lines[] | select(.verdict != \"ok\")'

Exit code 0 when all that baking needs works, and 6 when something does not; a warning is no failure.";

/// The report on the wire.
#[derive(Debug, Serialize)]
struct DoctorView {
    works: bool,
    lines: Vec<LineView>,
}

/// A line of it.
#[derive(Debug, Serialize)]
struct LineView {
    subject: &'static str,
    verdict: &'static str,
    message: String,
    advice: Option<String>,
}

/// Looks and tells.
pub(super) async fn run(invocation: &Invocation) -> Result<u8, CommandError> {
    let report = examine(&invocation.environment, invocation.global.store.as_deref()).await;
    let view = view(&report);
    invocation.output.answer(&view, |paint| human(&view, paint))?;
    Ok(if view.works { 0 } else { exit::code(ErrorKind::Unavailable) })
}

fn view(report: &DoctorReport) -> DoctorView {
    let lines = report
        .findings
        .iter()
        .map(|finding| LineView {
            subject: subject(finding.subject),
            verdict: verdict(finding.verdict),
            message: finding.message.clone(),
            advice: finding.advice.clone(),
        })
        .collect();
    DoctorView { works: report.works(), lines }
}

fn subject(subject: Subject) -> &'static str {
    match subject {
        Subject::Configuration => "configuration",
        Subject::Engine => "engine",
        Subject::Builder => "builder",
        Subject::Storage => "storage",
        Subject::FreeSpace => "free space",
        Subject::BaseImage => "base image",
        Subject::Store => "store",
        Subject::Certificates => "certificates",
        Subject::Orphans => "orphans",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

fn human(view: &DoctorView, paint: Paint) -> String {
    let mut rows = Vec::new();
    for line in &view.lines {
        let verdict = match line.verdict {
            "ok" => paint.good("ok"),
            "warn" => paint.warn("warn"),
            other => paint.bad(other),
        };
        rows.push(vec![verdict, line.subject.to_owned(), line.message.clone()]);
        rows.extend(
            line.advice
                .iter()
                .map(|advice| vec![String::new(), String::new(), paint.dim(&format!("→ {advice}"))]),
        );
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_is_not_ok_says_what_to_do_below() {
        let line = |verdict, subject, advice: Option<&str>| LineView {
            verdict,
            subject,
            message: "seen".into(),
            advice: advice.map(str::to_owned),
        };
        let view = DoctorView {
            works: false,
            lines: vec![line("ok", "engine", None), line("fail", "store", Some("choose another"))],
        };
        assert_eq!(
            human(&view, Paint::new(false)),
            "ok    engine  seen\nfail  store   seen\n              → choose another\n"
        );
    }
}
