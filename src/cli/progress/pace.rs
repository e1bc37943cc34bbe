//! How far a transfer is, how fast it goes and how long it still takes.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::{ByteSize, human_duration};
use crate::workspace::WorkspaceEvent;

/// 5 s: long enough for a steady number, short enough to see a stall.
const WINDOW_MS: i64 = 5_000;

/// What was told of a transfer so far.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// `save`, `restore` or another job's word.
    pub(super) job: &'static str,
    /// How many bytes there will be, as far as is known.
    pub(super) total_bytes: Option<u64>,
    total_files: Option<u64>,
    files: u64,
    /// Bytes that are done.
    pub(super) bytes: u64,
    moved_bytes: u64,
    samples: VecDeque<(Timestamp, u64)>,
}

impl Pace {
    /// Takes an event.
    pub(super) fn note(&mut self, at: Timestamp, event: &WorkspaceEvent) {
        match event {
            WorkspaceEvent::Began { job, name: _, files, bytes } => {
                *self = Self { job, total_bytes: *bytes, total_files: *files, ..Self::default() };
                self.samples.push_back((at, 0));
            }
            WorkspaceEvent::Totals { files, bytes } => {
                (self.total_files, self.total_bytes) = (Some(*files), Some(*bytes));
            }
            WorkspaceEvent::Progress { files, bytes, moved_bytes } => {
                (self.files, self.bytes, self.moved_bytes) = (*files, *bytes, *moved_bytes);
                self.samples.push_back((at, *bytes));
                while self.samples.len() > 2
                    && self.samples.get(1).is_some_and(|(then, _)| ms_between(*then, at) > WINDOW_MS)
                {
                    self.samples.pop_front();
                }
            }
            WorkspaceEvent::Warning { .. } | WorkspaceEvent::Step { .. } => {}
        }
    }

    /// Returns bytes a second over the last few seconds.
    fn rate(&self) -> Option<u64> {
        let ((began, first), (ended, last)) = (self.samples.front()?, self.samples.back()?);
        let ms = u64::try_from(ms_between(*began, *ended)).ok().filter(|ms| *ms > 0)?;
        Some(last.saturating_sub(*first).saturating_mul(1_000) / ms)
    }

    /// Returns how long the rest takes at this rate.
    fn left(&self) -> Option<Duration> {
        let rest = self.total_bytes?.saturating_sub(self.bytes);
        let rate = self.rate().filter(|rate| *rate > 0)?;
        Some(Duration::from_secs(rest.div_ceil(rate)))
    }

    /// Returns how far it is, for people: bytes, files, rate, time left.
    pub(super) fn status(&self) -> String {
        let of = |done: String, total: Option<String>| match total {
            Some(total) => format!("{done} of {total}"),
            None => done,
        };
        let mut parts = vec![
            of(ByteSize(self.bytes).to_string(), self.total_bytes.map(|total| ByteSize(total).to_string())),
            format!("{} files", of(self.files.to_string(), self.total_files.map(|total| total.to_string()))),
        ];
        if self.moved_bytes > 0 {
            let word = if self.job == "save" { "new" } else { "fetched" };
            parts.push(format!("{} {word}", ByteSize(self.moved_bytes)));
        }
        parts.extend(self.rate().map(|rate| format!("{}/s", ByteSize(rate))));
        parts.extend(self.left().map(|left| format!("{} left", human_duration(left))));
        parts.join(" · ")
    }
}

/// Returns milliseconds from one moment to another.
pub(super) fn ms_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond().saturating_sub(from.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn began(bytes: Option<u64>) -> WorkspaceEvent {
        WorkspaceEvent::Began { job: "restore", name: "app".into(), files: bytes.map(|_| 10), bytes }
    }

    fn progress(files: u64, mib: u64) -> WorkspaceEvent {
        WorkspaceEvent::Progress { files, bytes: mib << 20, moved_bytes: mib << 19 }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_the_time_left_follows_from_it() {
        let mut pace = Pace::default();
        pace.note(at(0), &began(Some(100 << 20)));
        pace.note(at(1_000), &progress(1, 10));
        assert_eq!(
            pace.status(),
            "10.0 MiB of 100.0 MiB · 1 of 10 files · 5.0 MiB fetched · 10.0 MiB/s · 9.0s left"
        );
        for second in 2..=20 {
            pace.note(at(second * 1_000), &progress(1, 10));
        }
        assert_eq!(pace.rate(), Some(0), "a stall is seen");
        assert_eq!(pace.left(), None);
    }

    #[test]
    fn totals_that_come_later_count() {
        let mut pace = Pace::default();
        pace.note(at(0), &began(None));
        pace.note(at(1_000), &progress(1, 10));
        pace.note(at(1_100), &WorkspaceEvent::Totals { files: 20, bytes: 100 << 20 });
        assert_eq!(
            pace.status(),
            "10.0 MiB of 100.0 MiB · 1 of 20 files · 5.0 MiB fetched · 10.0 MiB/s · 9.0s left"
        );
    }

    #[test]
    fn without_totals_nothing_is_foretold() {
        let mut pace = Pace::default();
        pace.note(at(0), &began(None));
        pace.note(at(500), &progress(3, 1));
        assert_eq!(pace.status(), "1.0 MiB · 3 files · 512.0 KiB fetched · 2.0 MiB/s");
        assert_eq!(pace.left(), None);
    }
}
