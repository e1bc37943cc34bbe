//! `kiln store probe`: what a store really does.

use crate::base::ErrorKind;
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::table;
use crate::objects::{Checks, Conditional, Latency, ProbeReport, S3Report, Switch};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln store probe
  kiln store probe --store \"s3://bucket/kiln?endpoint=http://127.0.0.1:3900&region=garage\" --json

A few small objects are written below probe/ and deleted again. The exit code is 9 where the store does not do what Kiln \
relies on.";

/// Probes, and prints what was found.
pub(super) async fn run(invocation: &Invocation) -> Result<u8, CommandError> {
    let store = invocation.global.store.as_deref();
    let report = Box::pin(Toolkit::probe(&invocation.environment, store)).await?;
    invocation.output.answer(&report, |paint| human(&report, paint))?;
    Ok(if report.checks.all_hold() { 0 } else { exit::code(ErrorKind::Failed) })
}

fn human(report: &ProbeReport, paint: Paint) -> String {
    let Checks {
        get_after_put,
        list_after_put,
        get_after_overwrite,
        range,
        get_after_delete,
        list_after_delete,
    } = report.checks;
    let holds = |what: &str, holds: bool| {
        vec![if holds { paint.good("ok") } else { paint.bad("WRONG") }, what.to_owned()]
    };
    let mut rows = vec![
        holds("a get sees an object right after its put", get_after_put),
        holds("a listing shows it right after its put", list_after_put),
        holds("a get sees the newer of two puts", get_after_overwrite),
        holds("a range is what stands there", range),
        holds("a get sees no object right after its deletion", get_after_delete),
        holds("a listing shows none right after its deletion", list_after_delete),
    ];
    let Latency { put_us, get_us, list_us } = report.latency;
    let note = |text: String| vec![paint.dim("--"), text];
    rows.push(note(format!(
        "put {}, get {}, list {}",
        shown_us(put_us),
        shown_us(get_us),
        shown_us(list_us)
    )));
    if let Some(s3) = &report.s3 {
        rows.extend(server(s3).into_iter().map(note));
    }
    format!("{}\n{}", paint.bold(&report.store), table(&rows))
}

fn server(report: &S3Report) -> Vec<String> {
    let S3Report {
        conditional_put,
        versioning,
        object_lock,
        lifecycle_rules,
        incomplete_uploads,
        clock_ahead_seconds,
    } = report;
    let mut lines = vec![
        match conditional_put {
            Conditional::Honoured => "conditional puts are kept (Kiln relies on none)".to_owned(),
            Conditional::Ignored => "conditional puts are ignored (Kiln relies on none)".to_owned(),
            Conditional::Refused => "conditional puts are refused (Kiln relies on none)".to_owned(),
        },
        format!("versioning: {}", switch(*versioning)),
        format!("object lock: {}", switch(*object_lock)),
    ];
    lines.push(match lifecycle_rules.as_deref() {
        None => "lifecycle rules: not told".to_owned(),
        Some([]) => "lifecycle rules: none that touches this store".to_owned(),
        Some(rules) => {
            format!("lifecycle rules that delete or move objects of this store: {}", rules.join(", "))
        }
    });
    lines.push(match incomplete_uploads {
        None => "incomplete uploads: not told".to_owned(),
        Some(count) => format!("incomplete uploads: {count}"),
    });
    lines.extend(clock_ahead_seconds.map(|seconds| match seconds {
        0 => "the server's clock agrees with this host's".to_owned(),
        1.. => format!("the server's clock is {seconds}s ahead of this host's"),
        _ => format!("the server's clock is {}s behind this host's", seconds.unsigned_abs()),
    }));
    lines
}

fn switch(switch: Switch) -> &'static str {
    match switch {
        Switch::On => "on",
        Switch::Off => "off",
        Switch::Unknown => "not told",
    }
}

fn shown_us(us: u64) -> String {
    if us < 1_000 { format!("{us}µs") } else { format!("{}.{}ms", us / 1_000, us % 1_000 / 100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_list() {
        let checks = Checks {
            get_after_put: true,
            list_after_put: true,
            get_after_overwrite: true,
            range: true,
            get_after_delete: false,
            list_after_delete: true,
        };
        let report = ProbeReport {
            store: "s3://bucket".into(),
            checks,
            latency: Latency { put_us: 850, get_us: 1_250, list_us: 20_000 },
            s3: Some(S3Report {
                conditional_put: Conditional::Ignored,
                versioning: Switch::Off,
                object_lock: Switch::Unknown,
                lifecycle_rules: Some(vec!["expire-all".into()]),
                incomplete_uploads: Some(2),
                clock_ahead_seconds: Some(-3),
            }),
        };
        insta::assert_snapshot!(human(&report, Paint::new(false)), @"
        s3://bucket
        ok     a get sees an object right after its put
        ok     a listing shows it right after its put
        ok     a get sees the newer of two puts
        ok     a range is what stands there
        WRONG  a get sees no object right after its deletion
        ok     a listing shows none right after its deletion
        --     put 850µs, get 1.2ms, list 20.0ms
        --     conditional puts are ignored (Kiln relies on none)
        --     versioning: off
        --     object lock: not told
        --     lifecycle rules that delete or move objects of this store: expire-all
        --     incomplete uploads: 2
        --     the server's clock is 3s behind this host's
        ");
    }
}
