//! `kiln store stats`: what a store holds, what of it is needed, and how it grew.

use jiff::Timestamp;
use serde::Serialize;

use crate::base::{ByteSize, now};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::cli::watched::watched;
use crate::workspace::{self, StatsReport, Trend};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln store stats
  kiln store stats --json | jq '.dedup_ratio, .dead_bytes'

Logical is what the revisions hold, holes left out; unique is the same with each chunk counted once; stored is the packs' bytes. Live \
bytes are those that revisions need, dead ones those that `kiln gc` would condemn, condemned ones go once its grace is over, and \
packs of saves that are in work may be needed in a moment. Of a pack that is needed in part, as large a share counts as live as of its chunks' \
bytes before compression. What only removed revisions need is dead, though they can still be brought back.

Every record and manifest is read, as for a collection; nothing is changed.";

/// Cells of the bar.
const BAR: usize = 50;

/// Statistics on the wire.
#[derive(Debug, Serialize)]
struct StatsView {
    store: String,
    id: String,
    quota_bytes: Option<u64>,
    logical_bytes: u64,
    unique_bytes: u64,
    manifest_bytes: u64,
    stored_bytes: u64,
    live_bytes: u64,
    dead_bytes: u64,
    condemned_bytes: u64,
    pending_bytes: u64,
    index_bytes: u64,
    dedup_ratio: Option<f64>,
    compression_ratio: Option<f64>,
    revisions: u64,
    damaged_revisions: u64,
    removed_revisions: u64,
    chunks: u64,
    lost_chunks: u64,
    packs: u64,
    condemned_packs: u64,
    segments: u64,
    open_sessions: u64,
    eviction_marks: u64,
    workspaces: Vec<WorkspaceView>,
    trend: Option<TrendView>,
    seconds: f64,
}

/// A workspace's part on the wire.
#[derive(Debug, Serialize)]
struct WorkspaceView {
    workspace: String,
    revisions: u64,
    logical_bytes: u64,
    newest_bytes: u64,
    newest_saved: Option<Timestamp>,
}

/// How the store grew, on the wire.
#[derive(Debug, Serialize)]
struct TrendView {
    /// `day`, `week` or `month`.
    period: &'static str,
    points: Vec<PointView>,
}

/// What happened in a period.
#[derive(Debug, Serialize)]
struct PointView {
    /// Its first day, in UTC.
    from: String,
    saves: u64,
    written_bytes: u64,
}

/// Looks at the store, and prints what it holds.
pub(super) async fn run(invocation: &Invocation) -> Result<u8, CommandError> {
    let toolkit = invocation.toolkit().await?;
    let depot = toolkit.depot();
    let report = watched(invocation, async |sink, cancel| {
        Box::pin(workspace::stats(&depot, &*sink, cancel, now())).await
    })
    .await?;
    let view = StatsView {
        store: toolkit.url().to_string(),
        id: toolkit.format().id.to_string(),
        quota_bytes: toolkit.format().quota_bytes,
        ..StatsView::new(&report)
    };
    invocation.output.answer(&view, |paint| human(&view, now(), paint))?;
    Ok(0)
}

impl StatsView {
    fn new(report: &StatsReport) -> Self {
        let rounded = |ratio: f64| (ratio * 100.0).round() / 100.0;
        let workspaces = report.workspaces.iter().map(|it| WorkspaceView {
            workspace: it.workspace.to_string(),
            revisions: it.revisions,
            logical_bytes: it.logical_bytes,
            newest_bytes: it.newest_bytes,
            newest_saved: it.newest_saved,
        });
        Self {
            store: String::new(),
            id: String::new(),
            quota_bytes: None,
            logical_bytes: report.logical_bytes,
            unique_bytes: report.unique_bytes,
            manifest_bytes: report.manifest_bytes,
            stored_bytes: report.stored_bytes,
            live_bytes: report.live_bytes,
            dead_bytes: report.dead_bytes,
            condemned_bytes: report.condemned_bytes,
            pending_bytes: report.pending_bytes,
            index_bytes: report.index_bytes,
            dedup_ratio: report.dedup_ratio().map(rounded),
            compression_ratio: report.compression_ratio().map(rounded),
            revisions: report.revisions,
            damaged_revisions: report.damaged_revisions,
            removed_revisions: report.removed_revisions,
            chunks: report.chunks,
            lost_chunks: report.lost_chunks,
            packs: report.packs,
            condemned_packs: report.condemned_packs,
            segments: report.segments,
            open_sessions: report.open_sessions,
            eviction_marks: report.eviction_marks,
            workspaces: workspaces.collect(),
            trend: report.trend.as_ref().map(TrendView::new),
            seconds: report.took.as_secs_f64(),
        }
    }
}

impl TrendView {
    fn new(trend: &Trend) -> Self {
        let points = trend.points.iter().map(|point| PointView {
            from: point.from.to_string(),
            saves: point.saves,
            written_bytes: point.written_bytes,
        });
        Self { period: trend.period.name(), points: points.collect() }
    }
}

fn human(view: &StatsView, now: Timestamp, paint: Paint) -> String {
    let size = |bytes| ByteSize(bytes).to_string();
    let times =
        |ratio: Option<f64>, word| ratio.map_or_else(String::new, |ratio| format!("{word} {ratio:.1} times"));
    let removed = match view.removed_revisions {
        0 => String::new(),
        count => format!("{count} more are removed and wait for the end of the grace"),
    };
    let quota = view.quota_bytes.map_or_else(String::new, |quota| {
        format!("{} of the quota of {}", percent(view.stored_bytes, quota), ByteSize(quota))
    });
    let compressed = times(view.compression_ratio, "compressed");
    let row = |name: &str, value: String, said: String| vec![paint.bold(name), value, said];
    let of = format!("of {} workspaces", view.workspaces.len());
    let joined =
        |parts: [String; 2]| parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    let mut text = format!("{}\n", paint.bold(&view.store));
    text.push_str(&table(&[
        row("revisions", view.revisions.to_string(), joined([of, removed])),
        row("logical", size(view.logical_bytes), "what the revisions hold, holes left out".to_owned()),
        row("unique", size(view.unique_bytes), times(view.dedup_ratio, "deduplicated")),
        row("stored", size(view.stored_bytes), joined([compressed, quota])),
        row("index", size(view.index_bytes), format!("{} segments, {} chunks", view.segments, view.chunks)),
    ]));
    text.push('\n');
    text.push_str(&picture(view, paint));
    text.push_str(&told(view, paint));
    if let Some(trend) = &view.trend {
        text.push_str(&growth(trend, paint));
    }
    if !view.workspaces.is_empty() {
        text.push('\n');
        text.push_str(&workspaces(view, now, paint));
    }
    text
}

/// A part of the stored bytes.
struct Part {
    name: &'static str,
    bytes: u64,
    /// A cell of the bar: drawn where somebody looks, and plain.
    cell: [&'static str; 2],
    paint: fn(Paint, &str) -> String,
    said: &'static str,
}

/// Draws a bar of live, dead, condemned and pending bytes, with a line on each.
fn picture(view: &StatsView, paint: Paint) -> String {
    if view.stored_bytes == 0 {
        return "the store holds no packs\n".to_owned();
    }
    let part = |name, bytes, cell, paint, said| Part { name, bytes, cell, paint, said };
    let parts: [Part; 4] = [
        part("live", view.live_bytes, ["█", "#"], Paint::good, "revisions need them"),
        part("dead", view.dead_bytes, ["▓", "x"], Paint::bad, "nothing needs them; `kiln gc` condemns them"),
        part(
            "condemned",
            view.condemned_bytes,
            ["▒", "o"],
            Paint::warn,
            "deleted once the grace of `kiln gc` is over",
        ),
        part("in work", view.pending_bytes, ["░", "?"], Paint::dim, "of saves that have not ended"),
    ];
    let cells = cells(&parts.each_ref().map(|part| part.bytes), BAR);
    let drawn = |part: &Part, count: usize| match count {
        0 => String::new(),
        count => {
            let [drawn, plain] = part.cell;
            (part.paint)(paint, &if paint.is_on() { drawn } else { plain }.repeat(count))
        }
    };
    let bar: String = parts.iter().zip(cells).map(|(part, count)| drawn(part, count)).collect();
    let rows: Vec<Vec<String>> = parts
        .iter()
        .filter(|part| part.bytes > 0)
        .map(|part| {
            let share = percent(part.bytes, view.stored_bytes);
            let size = ByteSize(part.bytes).to_string();
            vec![drawn(part, 1), part.name.to_owned(), size, share, part.said.to_owned()]
        })
        .collect();
    format!("[{bar}]\n{}", table(&rows))
}

/// Shares cells out: what there is of has one at least, and all together have `width`.
fn cells(parts: &[u64; 4], width: usize) -> [usize; 4] {
    let total: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    if total == 0 {
        return [0; 4];
    }
    let share = |part: u64| {
        let cells = (u128::from(part) * width as u128 + total / 2) / total;
        usize::try_from(cells).unwrap_or(width).max(usize::from(part > 0))
    };
    let mut cells = parts.map(share);
    // Rounding is made up for where it is seen least.
    let (others, widest) = (cells.iter().sum::<usize>(), cells.iter_mut().max());
    if let Some(widest) = widest {
        *widest = (*widest + width).saturating_sub(others);
    }
    cells
}

/// Returns how many of a hundred `part` is.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    match u128::from(part) * 1000 / u128::from(whole) {
        0 if part > 0 => "<0.1%".to_owned(),
        thousandths => format!("{}.{}%", thousandths / 10, thousandths % 10),
    }
}

/// Tells what is not as on most days.
fn told(view: &StatsView, paint: Paint) -> String {
    let mut text = String::new();
    if view.damaged_revisions > 0 {
        text.push_str(&format!(
            "{} {} revisions have records that cannot be read: what only they need is called dead, and `kiln gc` deletes nothing\n",
            paint.bad("damaged:"),
            view.damaged_revisions
        ));
    }
    if view.lost_chunks > 0 {
        text.push_str(&format!(
            "{} {} chunks that are needed are in no pack; `kiln store check` tells whose they are\n",
            paint.bad("lost:"),
            view.lost_chunks
        ));
    }
    if view.open_sessions > 0 {
        text.push_str(&format!("{} saves or collections are in work, or ended early\n", view.open_sessions));
    }
    text
}

/// Draws what was written in each period.
fn growth(trend: &TrendView, paint: Paint) -> String {
    const STEPS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let Some(first) = trend.points.first() else { return String::new() };
    let most = trend.points.iter().map(|point| point.written_bytes).max().unwrap_or(0).max(1);
    let bar = |point: &PointView| match point.written_bytes {
        0 => " ",
        bytes => {
            let step = u128::from(bytes) * (STEPS.len() as u128 - 1) / u128::from(most);
            usize::try_from(step).ok().and_then(|step| STEPS.get(step)).copied().unwrap_or("█")
        }
    };
    let (all, last) = (
        trend.points.iter().map(|point| point.written_bytes).sum::<u64>(),
        trend.points.last().map_or(0, |point| point.written_bytes),
    );
    let drawn: String = match paint.is_on() {
        true => format!(" |{}|", trend.points.iter().map(bar).collect::<String>()),
        false => String::new(),
    };
    let now = match trend.period {
        "day" => "today".to_owned(),
        period => format!("this {period}"),
    };
    format!(
        "\n{} {} since {}, {} of it {now}{drawn}; packs that are still there\n",
        paint.bold("written"),
        ByteSize(all),
        first.from,
        ByteSize(last),
    )
}

fn workspaces(view: &StatsView, now: Timestamp, paint: Paint) -> String {
    let head = ["WORKSPACE", "REVISIONS", "LOGICAL", "NEWEST", "SAVED"];
    let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
    rows.extend(view.workspaces.iter().map(|it| {
        vec![
            it.workspace.clone(),
            it.revisions.to_string(),
            ByteSize(it.logical_bytes).to_string(),
            ByteSize(it.newest_bytes).to_string(),
            it.newest_saved.map_or_else(|| paint.bad("damaged"), |saved| age(now, saved)),
        ]
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_as_it_should_be_and_shows_whatever_there_is() {
        for (parts, expected) in [
            ([100, 0, 0, 0], [50, 0, 0, 0]),
            ([50, 50, 0, 0], [25, 25, 0, 0]),
            ([1_000_000, 1, 1, 1], [47, 1, 1, 1]),
            ([1, 1, 1, 0], [17, 17, 16, 0]),
            ([0, 0, 0, 0], [0, 0, 0, 0]),
            ([u64::MAX, u64::MAX, 0, 0], [25, 25, 0, 0]),
        ] {
            let mut got = cells(&parts, BAR);
            if parts[0] == parts[1] {
                got.sort_unstable_by(|a, b| b.cmp(a));
            }
            assert_eq!(got, expected, "{parts:?}");
        }
    }

    #[test]
    fn shares_have_one_digit_behind_the_point() {
        assert_eq!(
            [percent(1, 3), percent(0, 3), percent(1, 1_000_000), percent(3, 3), percent(1, 0)],
            ["33.3%", "0.0%", "<0.1%", "100.0%", "-"]
        );
    }

    #[test]
    fn the_picture_is_legible_without_color() {
        let report = StatsReport {
            logical_bytes: 30 << 30,
            unique_bytes: 3 << 30,
            stored_bytes: 1 << 30,
            live_data_bytes: 1 << 29,
            live_bytes: 1 << 29,
            dead_bytes: 1 << 28,
            condemned_bytes: 1 << 28,
            ..StatsReport::default()
        };
        let view = StatsView { quota_bytes: Some(2 << 30), ..StatsView::new(&report) };
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let text = human(&view, now, Paint::new(false));
        assert!(text.contains("[########################xxxxxxxxxxxxxooooooooooooo]"), "{text}");
        assert!(
            text.contains("deduplicated 10.0 times")
                && text.contains("compressed 6.0 times; 50.0% of the quota"),
            "{text}"
        );
        assert!(text.is_ascii(), "{text}");
        assert!(human(&view, now, Paint::new(true)).contains('█'));
    }
}
