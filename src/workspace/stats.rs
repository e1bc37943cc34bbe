//! What a store holds, what of it is needed, and how it grew.

use std::time::Duration;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use tokio_util::sync::CancellationToken;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::list::{ListedRevision, list_or_fail};
use super::policy::Period;
use crate::base::{Monotonic, Sink, WorkspaceName};
use crate::objects::Prefix;
use crate::store::StoreError;
use crate::store::gc::{GcEvent, PackState, PackTally, Tally, tally};
use crate::store::pack::PackKind;

/// Days and weeks of a trend before longer periods are taken.
const MOST_PERIODS: i64 = 14;
/// Months of a trend; what is older is left out.
const MOST_MONTHS: usize = 24;

/// What a store holds. All sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// The sum of what all revisions hold, holes left out.
    pub logical_bytes: u64,
    /// The same, each chunk counted once.
    pub unique_bytes: u64,
    /// Chunks of manifests, each counted once: what it takes to say which file has which content.
    pub manifest_bytes: u64,
    /// All packs. It is the sum of the next four.
    pub stored_bytes: u64,
    /// About what of the packs revisions need.
    pub live_bytes: u64,
    /// About what of them nobody needs and nobody condemned yet.
    pub dead_bytes: u64,
    /// Packs that are deleted after the collector's grace.
    pub condemned_bytes: u64,
    /// What nobody needs yet of packs whose sessions are open.
    pub pending_bytes: u64,
    /// About what of the packs' bytes files' needed chunks take, those of manifests left out.
    pub live_data_bytes: u64,
    /// The index.
    pub index_bytes: u64,
    /// Distinct chunks that are needed.
    pub chunks: u64,
    /// Needed chunks that no pack has.
    pub lost_chunks: u64,
    /// Packs that are there.
    pub packs: u64,
    /// How many of them are condemned.
    pub condemned_packs: u64,
    /// Segments of the index.
    pub segments: u64,
    /// Sessions that are open.
    pub open_sessions: u64,
    /// Small objects that evictions of sessions left for good.
    pub eviction_marks: u64,
    /// Revisions.
    pub revisions: u64,
    /// How many of them have records that cannot be read, so that what only they need is among what nobody needs. A collector deletes
    /// nothing while there is one.
    pub damaged_revisions: u64,
    /// Revisions that were removed and not forgotten yet. What only they need is among what nobody needs.
    pub removed_revisions: u64,
    /// Every workspace, sorted by name.
    pub workspaces: Vec<WorkspaceStats>,
    /// How the store grew; empty where it holds nothing.
    pub trend: Option<Trend>,
    /// How long it took to find out.
    pub took: Duration,
}

impl StatsReport {
    /// Returns how many times larger what the revisions hold is than its distinct chunks; `None` where there are none.
    #[must_use]
    pub fn dedup_ratio(&self) -> Option<f64> {
        ratio(self.logical_bytes, self.unique_bytes)
    }

    /// Returns how many times larger the distinct chunks of files are than what the packs need for them; `None` where there are none.
    #[must_use]
    pub fn compression_ratio(&self) -> Option<f64> {
        ratio(self.unique_bytes, self.live_data_bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people has a few digits")]
fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

/// A workspace's part in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceStats {
    /// Its name.
    pub workspace: WorkspaceName,
    /// How many revisions it has.
    pub revisions: u64,
    /// The sum of what they hold, in bytes, holes left out.
    pub logical_bytes: u64,
    /// What the newest one holds.
    pub newest_bytes: u64,
    /// When that was saved.
    pub newest_saved: Option<Timestamp>,
}

/// How a store grew, period by period, the last one that of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trend {
    /// How long each period is.
    pub period: Period,
    /// The periods, oldest first, those included in which nothing happened.
    pub points: Vec<TrendPoint>,
}

/// What happened in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrendPoint {
    /// Its first day, in UTC.
    pub from: Date,
    /// Revisions saved in it that are still there.
    pub saves: u64,
    /// Bytes of packs written in it that are still there. A collection that rewrites packs writes them anew.
    pub written_bytes: u64,
}

/// Looks at the whole store. Changes nothing. Reads every record and each distinct chunk of a manifest once, and needs no more memory
/// for more chunks than a few bits each.
///
/// # Errors
///
/// Fails where the store does not answer, where a part of a manifest cannot be read, and when `cancel` is cancelled. Damaged records are
/// counted.
pub async fn stats(
    depot: &Depot,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
    now: Timestamp,
) -> Result<StatsReport, WorkspaceError> {
    let clock = Monotonic::start();
    let listed = list_or_fail(depot, None).await?;
    let is_damaged = |it: &&ListedRevision| it.record.is_err();
    let damaged = listed.iter().filter(is_damaged).map(|it| it.revision.clone()).collect();
    let tally = Box::pin(tally(&depot.objects, &depot.index_cache(), &damaged, sink, cancel)).await?;
    let prefix = |text| Prefix::new(text).map_err(StoreError::from);
    let index = depot.objects.list(&prefix("idx")?).await.map_err(StoreError::from)?;
    let marks = depot.objects.list(&prefix("evict")?).await.map_err(StoreError::from)?;
    Ok(StatsReport {
        index_bytes: index.iter().map(|object| object.size_bytes).sum(),
        eviction_marks: marks.len() as u64,
        took: clock.elapsed(),
        ..report(&listed, &tally, now)
    })
}

/// Sums up. Pure.
fn report(listed: &[ListedRevision], tally: &Tally, now: Timestamp) -> StatsReport {
    let mut report = StatsReport {
        revisions: listed.len() as u64,
        damaged_revisions: listed.iter().filter(|it| it.record.is_err()).count() as u64,
        removed_revisions: tally.removed,
        segments: tally.segments,
        open_sessions: tally.open_sessions,
        lost_chunks: tally.lost_chunks,
        packs: tally.packs.len() as u64,
        workspaces: workspaces(listed),
        ..StatsReport::default()
    };
    report.logical_bytes = report.workspaces.iter().map(|workspace| workspace.logical_bytes).sum();
    for pack in &tally.packs {
        count(pack, &mut report);
    }
    let saves: Vec<Timestamp> =
        listed.iter().filter_map(|it| Some(it.record.as_ref().ok()?.created)).collect();
    let written: Vec<(Timestamp, u64)> =
        tally.packs.iter().map(|pack| (pack.info.pack.name.session.timestamp(), pack.info.size)).collect();
    report.trend = trend(&saves, &written, now);
    report
}

fn count(pack: &PackTally, report: &mut StatsReport) {
    report.stored_bytes += pack.info.size;
    report.chunks += pack.live_chunks;
    match pack.info.pack.kind {
        PackKind::Data => {
            report.unique_bytes += pack.live_raw_bytes;
            report.live_data_bytes += pack.live_bytes;
        }
        PackKind::Meta => report.manifest_bytes += pack.live_raw_bytes,
    }
    let rest = pack.info.size - pack.live_bytes.min(pack.info.size);
    match pack.state {
        PackState::Condemned => {
            // Whatever is needed of it is moved before it is deleted.
            report.condemned_packs += 1;
            report.condemned_bytes += pack.info.size;
        }
        PackState::InWork => {
            report.live_bytes += pack.live_bytes;
            report.pending_bytes += rest;
        }
        PackState::Sound | PackState::Orphan => {
            report.live_bytes += pack.live_bytes;
            report.dead_bytes += rest;
        }
    }
}

/// Sums up by workspace; `listed` is sorted by workspace and id.
fn workspaces(listed: &[ListedRevision]) -> Vec<WorkspaceStats> {
    let mut found: Vec<WorkspaceStats> = Vec::new();
    for ListedRevision { revision, record, .. } in listed {
        if found.last().is_none_or(|last| last.workspace != revision.workspace) {
            found.push(WorkspaceStats {
                workspace: revision.workspace.clone(),
                revisions: 0,
                logical_bytes: 0,
                newest_bytes: 0,
                newest_saved: None,
            });
        }
        let Some(last) = found.last_mut() else { continue };
        last.revisions += 1;
        if let Ok(record) = record {
            // The first records did not count what holes take.
            let counts = &record.counts;
            let bytes = if counts.data_bytes == 0 { counts.bytes } else { counts.data_bytes };
            last.logical_bytes = last.logical_bytes.saturating_add(bytes);
            (last.newest_bytes, last.newest_saved) = (bytes, Some(record.created));
        }
    }
    found
}

/// Counts by days, weeks or months, whichever are few enough. What a clock that was ahead dates later than now counts as of now.
fn trend(saves: &[Timestamp], written: &[(Timestamp, u64)], now: Timestamp) -> Option<Trend> {
    let day_of = |time: Timestamp| time.min(now).to_zoned(TimeZone::UTC).date();
    let times = saves.iter().copied().chain(written.iter().map(|(time, _)| *time));
    let (first, today) = (day_of(times.min()?), day_of(now));
    let days = first.until(today).map_or(i64::MAX, |span| i64::from(span.get_days()));
    let period = match days {
        0..MOST_PERIODS => Period::Day,
        days if days / 7 < MOST_PERIODS => Period::Week,
        _ => Period::Month,
    };
    let mut points: Vec<TrendPoint> = Vec::new();
    let mut from = begin_of(period, today);
    while points.len() < MOST_MONTHS {
        points.push(TrendPoint { from, saves: 0, written_bytes: 0 });
        if from <= first {
            break;
        }
        let Ok(day_before) = from.yesterday() else { break };
        from = begin_of(period, day_before);
    }
    points.reverse();
    let point_of = |time: Timestamp, points: &[TrendPoint]| {
        points.partition_point(|point| point.from <= day_of(time)).checked_sub(1)
    };
    for save in saves {
        if let Some(point) = point_of(*save, &points).and_then(|at| points.get_mut(at)) {
            point.saves += 1;
        }
    }
    for (time, bytes) in written {
        if let Some(point) = point_of(*time, &points).and_then(|at| points.get_mut(at)) {
            point.written_bytes += bytes;
        }
    }
    Some(Trend { period, points })
}

/// Returns the first day of the period that a day lies in.
fn begin_of(period: Period, day: Date) -> Date {
    match period {
        Period::Hour | Period::Day => day,
        Period::Week => {
            let behind_monday = day.weekday().since(Weekday::Monday);
            day.checked_sub(Span::new().days(behind_monday)).unwrap_or(day)
        }
        Period::Month => day.first_of_month(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{Discard, now};
    use crate::objects::Key;
    use crate::store::gc::{GcSpec, collect};
    use crate::workspace::tests::Place;
    use crate::workspace::{SaveSpec, Selection, remove};

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.u8(..)).collect()
    }

    async fn seen(place: &Place) -> StatsReport {
        let report = stats(&place.depot, &Discard, &CancellationToken::new(), now()).await.unwrap();
        let parts = report.live_bytes + report.dead_bytes + report.condemned_bytes + report.pending_bytes;
        assert_eq!(parts, report.stored_bytes);
        report
    }

    async fn save_as(place: &Place, name: &str) {
        place.try_save("tree", &SaveSpec::new(name.parse().unwrap())).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_empty_store_has_nothing() {
        let place = Place::new();
        let report = seen(&place).await;
        assert_eq!((report.stored_bytes, report.revisions, report.trend.as_ref()), (0, 0, None));
        assert_eq!((report.dedup_ratio(), report.compression_ratio()), (None, None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_saved_twice_is_logical_twice_and_unique_once() {
        let place = Place::new();
        place.write("tree/noise", noise(1, 1 << 20));
        place.write("tree/text", "text that repeats\n".repeat(60_000));
        save_as(&place, "one").await;
        save_as(&place, "one").await;
        save_as(&place, "two").await;
        let size = (1 << 20) + 60_000 * 18;
        let report = seen(&place).await;
        assert_eq!((report.revisions, report.logical_bytes), (3, 3 * size));
        // Chunks of the text repeat, too.
        assert!(report.unique_bytes > 1 << 20 && report.unique_bytes <= size, "{report:?}");
        assert_eq!((report.dead_bytes, report.condemned_bytes, report.pending_bytes), (0, 0, 0));
        assert!(report.live_bytes > 1 << 20 && report.index_bytes > 0 && report.chunks > 2);
        assert!(report.dedup_ratio().unwrap() >= 3.0 && report.compression_ratio().unwrap() >= 1.0);
        let named: Vec<(&str, u64, u64)> = report
            .workspaces
            .iter()
            .map(|it| (it.workspace.as_str(), it.revisions, it.logical_bytes))
            .collect();
        assert_eq!(named, [("one", 2, 2 * size), ("two", 1, size)]);
        let trend = report.trend.unwrap();
        assert_eq!((trend.period, trend.points.len()), (Period::Day, 1));
        assert_eq!((trend.points[0].saves, trend.points[0].written_bytes), (3, report.stored_bytes));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_removed_is_dead_then_condemned_then_gone() {
        let place = Place::new();
        place.write("tree/a", noise(1, 3 << 20));
        save_as(&place, "stays").await;
        place.write("tree/a", noise(2, 2 << 20));
        save_as(&place, "goes").await;
        remove(&place.depot, &Selection::All("goes".parse().unwrap())).await.unwrap();
        let before = seen(&place).await;
        assert!(before.dead_bytes >= 2 << 20 && before.dead_bytes < 3 << 20, "{before:?}");
        assert_eq!((before.revisions, before.removed_revisions), (1, 1));
        let spec = GcSpec { grace: Duration::from_hours(1), ..GcSpec::default() };
        let collected = async |spec: &GcSpec| {
            let objects = Arc::clone(&place.depot.objects);
            let cache = place.depot.index_cache();
            collect(&objects, &cache, spec, &Discard, &CancellationToken::new()).await.unwrap();
        };
        collected(&spec).await;
        let condemned = seen(&place).await;
        assert_eq!((condemned.dead_bytes, condemned.condemned_bytes), (0, before.dead_bytes));
        assert!(condemned.condemned_packs > 0);
        collected(&GcSpec { grace: Duration::ZERO, ..spec }).await;
        let gone = seen(&place).await;
        assert_eq!((gone.stored_bytes, gone.removed_revisions), (gone.live_bytes, 0));
        assert_eq!(gone.live_bytes, before.live_bytes);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_record_is_counted_and_hides_nothing_else() {
        let place = Place::new();
        place.write("tree/a", noise(1, 1 << 20));
        save_as(&place, "sound").await;
        place.write("tree/a", noise(2, 2 << 20));
        save_as(&place, "zz").await;
        let damaged = place.newest().await;
        place.depot.objects.put(&damaged.key().unwrap(), "{".into()).await.unwrap();
        let report = seen(&place).await;
        assert_eq!((report.revisions, report.damaged_revisions, report.logical_bytes), (2, 1, 1 << 20));
        assert!(report.live_bytes > 1 << 20 && report.dead_bytes > 2 << 20, "{report:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn packs_of_an_open_session_are_in_work_and_not_dead() {
        let place = Place::new();
        place.write("tree/a", noise(1, 1 << 20));
        save_as(&place, "w").await;
        let revision = place.newest().await;
        place.depot.objects.delete(&[revision.key().unwrap()]).await.unwrap();
        let dead = seen(&place).await;
        assert!(dead.dead_bytes > 1 << 20 && dead.pending_bytes == 0, "{dead:?}");
        let key = Key::new(format!("sess/{}", revision.session)).unwrap();
        place.depot.objects.put(&key, "{}".into()).await.unwrap();
        let pending = seen(&place).await;
        assert_eq!((pending.dead_bytes, pending.pending_bytes), (0, dead.dead_bytes));
        assert_eq!(pending.open_sessions, 1);
    }

    #[test]
    fn a_trend_has_days_then_weeks_then_months() {
        let time = |text: &str| format!("{text}T10:00:00Z").parse::<Timestamp>().unwrap();
        let now = time("2026-11-23");
        for (first, period, points, from) in [
            ("2026-11-22", Period::Day, 2, "2026-11-22"),
            ("2026-11-10", Period::Day, 14, "2026-11-10"),
            ("2026-11-09", Period::Week, 3, "2026-11-09"),
            ("2026-08-20", Period::Week, 15, "2026-08-17"),
            ("2026-08-17", Period::Month, 4, "2026-08-01"),
            ("2020-01-01", Period::Month, 24, "2024-12-01"),
        ] {
            let found = trend(&[time(first), time("2026-11-22")], &[(time("2027-02-01"), 7)], now).unwrap();
            assert_eq!((found.period, found.points.len()), (period, points), "{first}");
            assert_eq!(found.points[0].from.to_string(), from, "{first}");
            // What a clock that was ahead dates later counts as of now.
            assert_eq!(found.points.last().unwrap().written_bytes, 7, "{first}");
            let is_shown = first != "2020-01-01";
            assert_eq!(found.points.iter().map(|point| point.saves).sum::<u64>(), 1 + u64::from(is_shown));
        }
        assert_eq!(trend(&[], &[], now), None);
    }
}
