//! `kiln gc`: what nothing names is deleted.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::exit;
use super::failure::CommandError;
use super::invocation::Invocation;
use super::paint::Paint;
use super::text::{age, until};
use super::watched::watched;
use crate::base::{ByteSize, ErrorKind, Length, human_duration, now};
use crate::store::gc::{self, CondemnedList, GcPlan, GcReport, GcSpec, PackReason, PlannedPack};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln gc --dry-run
  kiln gc
  kiln gc --grace 7d --max-repack 20GiB
  kiln gc --grace 0s            # at once: nothing that was removed can be brought back

What no revision needs is condemned: nothing new relies on it, and after the grace a later run deletes it. Until then `kiln \
workspace undo` can bring a removed revision back. Saves, restores and other collections may run meanwhile, on any host, and a run \
may be stopped at any moment. Exit code 7 where a chunk that is needed cannot be read: its pack stays.

Run it once a day from one place. Never delete anything under sess/, evict/ or gc/ by hand or by a lifecycle rule of the bucket.";

/// Arguments of `kiln gc`.
#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// Tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long condemned bytes and removed revisions stay
    #[arg(long, value_name = "DUR", default_value = "24h")]
    grace: Length,
    /// Most bytes that are copied because they share packs with garbage [default: any number]
    #[arg(long, value_name = "SIZE")]
    max_repack: Option<ByteSize>,
    /// How many of a hundred stored bytes may be garbage that shares packs with what is needed
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = percent)]
    max_dead: f64,
    /// A save or another collection that gives no sign of life for this long is taken for dead; at worst it tries again
    #[arg(long, value_name = "DUR", default_value = "60s")]
    evict_after: Length,
    /// How long to wait for saves that are in work, before deleting is left to the next run
    #[arg(long, value_name = "DUR", default_value = "1h")]
    wait: Length,
}

fn percent(text: &str) -> Result<f64, super::args::ArgumentError> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number.filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(|| {
        super::args::ArgumentError(format!("`{}` is no part of a hundred", text.escape_debug()))
    })
}

/// A collection on the wire.
#[derive(Debug, Serialize)]
struct GcView {
    dry_run: bool,
    items: Vec<ItemView>,
    /// Packs that wait for the end of their grace, those of this run left out.
    condemned: Vec<ListView>,
    revisions: u64,
    chunks: u64,
    manifest_chunks: u64,
    stored_bytes: u64,
    dead_bytes: u64,
    left_bytes: u64,
    open_sessions: u64,
    segments: u64,
    expired_revisions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneView>,
    lost_chunks: Vec<String>,
    stuck_packs: Vec<String>,
    freed_bytes: u64,
    seconds: f64,
}

/// A pack that goes.
#[derive(Debug, Serialize)]
struct ItemView {
    id: String,
    name: String,
    action: &'static str,
    reason: &'static str,
    bytes: u64,
    live_bytes: u64,
}

/// Packs that were condemned by one run.
#[derive(Debug, Serialize)]
struct ListView {
    id: String,
    condemned: Timestamp,
    due: bool,
    packs: u64,
    bytes: u64,
}

/// What was done.
#[derive(Debug, Serialize)]
struct DoneView {
    condemned_packs: u64,
    condemned_bytes: u64,
    moved_chunks: u64,
    moved_bytes: u64,
    written_bytes: u64,
    deleted_packs: u64,
    deleted_bytes: u64,
    forgotten_revisions: u64,
    evicted_sessions: u64,
    rewritten_segments: u64,
    still_open_sessions: u64,
    swept_files: u64,
    swept_bytes: u64,
}

/// Collects, or tells what would be; returns the exit code.
pub(super) async fn run(invocation: &Invocation, arguments: &GcArgs) -> Result<u8, CommandError> {
    let depot = invocation.toolkit().await?.depot();
    let spec = GcSpec {
        grace: arguments.grace.duration(),
        evict_after: arguments.evict_after.duration(),
        wait: Some(arguments.wait.duration()),
        max_repack: arguments.max_repack.map(|size| size.0),
        max_dead_percent: arguments.max_dead,
        ..GcSpec::default()
    };
    let (objects, cache) = (&depot.objects, depot.index_cache());
    let clock = crate::base::Monotonic::start();
    let report = watched(invocation, async |sink, cancel| {
        if arguments.dry_run {
            let plan = Box::pin(gc::plan(objects, &cache, &spec, &*sink, cancel)).await?;
            return Ok::<_, gc::GcError>(GcReport { plan, ..GcReport::default() });
        }
        Box::pin(gc::collect(objects, &cache, &spec, &*sink, cancel)).await
    })
    .await?;
    let view = GcView::new(&report, arguments.dry_run, clock.elapsed().as_secs_f64());
    invocation.output.answer(&view, |paint| human(&report, arguments, paint))?;
    Ok(if report.lost.is_empty() && report.plan.lost.1 == 0 { 0 } else { exit::code(ErrorKind::Corrupt) })
}

fn reason(reason: PackReason) -> &'static str {
    match reason {
        PackReason::Unreferenced => "unreferenced",
        PackReason::Orphan => "orphan",
        PackReason::HalfDead => "half_dead",
        PackReason::Small => "small",
    }
}

impl GcView {
    fn new(report: &GcReport, dry_run: bool, seconds: f64) -> Self {
        let plan = &report.plan;
        let items = plan.condemn.iter().map(|planned| ItemView {
            id: planned.pack.name.to_string(),
            name: planned.pack.to_string(),
            action: "condemn",
            reason: reason(planned.reason),
            bytes: planned.bytes,
            live_bytes: planned.live_bytes,
        });
        let lists = plan.lists.iter().map(|list| ListView {
            id: list.key.clone(),
            condemned: list.condemned,
            due: list.is_due,
            packs: list.packs,
            bytes: list.bytes,
        });
        let expired = plan.expired.iter().map(|revision| format!("{}@{}", revision.workspace, revision.id));
        Self {
            dry_run,
            items: items.collect(),
            condemned: lists.collect(),
            revisions: plan.revisions,
            chunks: plan.chunks,
            manifest_chunks: plan.manifest_chunks,
            stored_bytes: plan.stored_bytes,
            dead_bytes: plan.dead_bytes,
            left_bytes: plan.left_bytes,
            open_sessions: plan.open_sessions,
            segments: plan.segments,
            expired_revisions: expired.collect(),
            done: (!dry_run).then(|| DoneView::new(report)),
            lost_chunks: report.lost.iter().chain(&plan.lost.0).map(ToString::to_string).collect(),
            stuck_packs: report.stuck.iter().map(ToString::to_string).collect(),
            freed_bytes: report.deleted.1.saturating_sub(report.written_bytes),
            seconds,
        }
    }
}

impl DoneView {
    fn new(report: &GcReport) -> Self {
        Self {
            condemned_packs: report.condemned.0,
            condemned_bytes: report.condemned.1,
            moved_chunks: report.moved.0,
            moved_bytes: report.moved.1,
            written_bytes: report.written_bytes,
            deleted_packs: report.deleted.0,
            deleted_bytes: report.deleted.1,
            forgotten_revisions: report.forgotten,
            evicted_sessions: report.evicted,
            rewritten_segments: report.rewritten_segments.0,
            still_open_sessions: report.still_open,
            swept_files: report.swept.0,
            swept_bytes: report.swept.1,
        }
    }
}

fn human(report: &GcReport, arguments: &GcArgs, paint: Paint) -> String {
    let plan = &report.plan;
    let mut lines = Vec::new();
    let verb = if arguments.dry_run { "would condemn" } else { "condemned" };
    if plan.condemn.is_empty() {
        lines.push("nothing new is garbage".to_owned());
    } else {
        lines.push(format!("{verb} {}: {}", packs(&plan.condemn), reasons(&plan.condemn)));
    }
    if !arguments.dry_run && report.moved.0 > 0 {
        lines.push(format!(
            "moved {} chunks, {}, to new packs of {}",
            report.moved.0,
            ByteSize(report.moved.1),
            ByteSize(report.written_bytes)
        ));
    }
    lines.extend(waiting(plan, arguments));
    let forgets = if arguments.dry_run { plan.expired.len() as u64 } else { report.forgotten };
    if forgets > 0 {
        let verb = if arguments.dry_run { "would forget" } else { "forgot" };
        lines.push(format!("{verb} {forgets} removed revisions for good"));
    }
    if report.evicted > 0 {
        lines.push(format!("{} sessions were taken for dead", report.evicted));
    }
    if report.still_open > 0 {
        lines.push(format!(
            "{} {} sessions are still in work after {}; the next run deletes what is due",
            paint.warn("left:"),
            report.still_open,
            arguments.wait
        ));
    }
    for pack in &report.stuck {
        lines
            .push(format!("{} `{pack}` stays: a chunk that is needed cannot be read", paint.bad("damaged:")));
    }
    if plan.lost.1 > 0 {
        lines.push(format!(
            "{} {} chunks that are needed are in no pack; `kiln store check` tells whose they are",
            paint.bad("lost:"),
            plan.lost.1
        ));
    }
    lines.push(format!(
        "needed: {} chunks of {} revisions; {} stored, {} of it garbage{}",
        plan.chunks,
        plan.revisions,
        ByteSize(plan.stored_bytes),
        ByteSize(plan.dead_bytes),
        if plan.left_bytes > 0 {
            format!(", {} of which stays", ByteSize(plan.left_bytes))
        } else {
            String::new()
        }
    ));
    if !arguments.dry_run {
        let freed = ByteSize(report.deleted.1.saturating_sub(report.written_bytes));
        let took = human_duration(report.took);
        lines.push(format!("{} {} in {took}", paint.good("freed"), freed));
    }
    lines.join("\n") + "\n"
}

fn packs(packs: &[PlannedPack]) -> String {
    format!("{} packs, {}", packs.len(), ByteSize(packs.iter().map(|pack| pack.bytes).sum()))
}

fn reasons(packs: &[PlannedPack]) -> String {
    let kinds = [
        (PackReason::Unreferenced, "unreferenced"),
        (PackReason::Orphan, "of writers that ended early"),
        (PackReason::HalfDead, "partly garbage"),
        (PackReason::Small, "small"),
    ];
    let told = kinds.into_iter().filter_map(|(reason, words)| {
        let of: Vec<&PlannedPack> = packs.iter().filter(|pack| pack.reason == reason).collect();
        let moved: u64 = of.iter().map(|pack| pack.live_bytes).sum();
        let moved = if moved > 0 { format!(" ({} moved first)", ByteSize(moved)) } else { String::new() };
        (!of.is_empty()).then(|| format!("{} {words}{moved}", of.len()))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Tells of what was condemned before this run.
fn waiting(plan: &GcPlan, arguments: &GcArgs) -> Vec<String> {
    let now = now();
    let grace = jiff::SignedDuration::try_from(arguments.grace.duration()).unwrap_or_default();
    let told = |list: &CondemnedList| {
        let when = match (list.is_due, arguments.dry_run) {
            (true, true) => "would be deleted now".to_owned(),
            (true, false) => "due".to_owned(),
            (false, _) => match list.condemned.checked_add(grace) {
                Ok(at) => format!("due {}", until(now, at)),
                Err(_too_late) => "never due".to_owned(),
            },
        };
        format!(
            "condemned {}: {} packs, {}, {when}",
            age(now, list.condemned),
            list.packs,
            ByteSize(list.bytes)
        )
    };
    plan.lists.iter().filter(|list| list.packs > 0).map(told).collect()
}
