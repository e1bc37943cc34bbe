//! The events of a save or a restore as lines: one when it begins, one every few seconds, and each warning.

use jiff::Timestamp;

use super::lines::Telling;
use super::pace::{Pace, ms_between};
use crate::base::ByteSize;
use crate::cli::text::clean;
use crate::workspace::WorkspaceEvent;

/// 5 s: a log of an hour's job has some 700 lines.
const EVERY_MS: i64 = 5_000;

/// Makes lines of events.
#[derive(Debug)]
pub(in crate::cli) struct TransferLines {
    telling: Telling,
    pace: Pace,
    told: Option<Timestamp>,
}

impl TransferLines {
    /// Begins a story.
    pub(super) fn new(telling: Telling) -> Self {
        Self { telling, pace: Pace::default(), told: None }
    }

    /// Returns the lines that an event adds; often none.
    pub(super) fn tell(&mut self, at: Timestamp, event: &WorkspaceEvent) -> Vec<String> {
        self.pace.note(at, event);
        let line = match event {
            WorkspaceEvent::Began { job, name, files, bytes } => {
                self.told = Some(at);
                let totals: Vec<String> = files
                    .map(|files| format!("{files} files"))
                    .into_iter()
                    .chain(bytes.map(|bytes| ByteSize(bytes).to_string()))
                    .collect();
                let totals =
                    if totals.is_empty() { String::new() } else { format!(": {}", totals.join(", ")) };
                Some(format!("{job} {}{totals}", clean(name)))
            }
            WorkspaceEvent::Progress { .. } => {
                let is_time = self.told.is_none_or(|told| ms_between(told, at) >= EVERY_MS);
                is_time.then(|| {
                    self.told = Some(at);
                    self.pace.status()
                })
            }
            WorkspaceEvent::Totals { .. } => None,
            WorkspaceEvent::Warning { message } => Some(format!("warning: {}", clean(message))),
            WorkspaceEvent::Step { name } => Some(format!("== {name}")),
        };
        line.into_iter().filter(|_| self.telling.tells(event)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(telling: Telling) -> String {
        let mut lines = TransferLines::new(telling);
        let mut story = vec![(
            0,
            WorkspaceEvent::Began {
                job: "restore",
                name: "app@01".into(),
                files: Some(4),
                bytes: Some(80 << 20),
            },
        )];
        story.extend((1..70_u32).map(|tenth| {
            let bytes = u64::from(tenth) << 20;
            (i64::from(tenth) * 100, WorkspaceEvent::Progress { files: 1, bytes, moved_bytes: 0 })
        }));
        story.push((7_000, WorkspaceEvent::Warning { message: "`a\u{1b}[31m` changed".into() }));
        story.push((7_100, WorkspaceEvent::Step { name: "publishing" }));
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        story.iter().flat_map(|(ms, event)| lines.tell(at(*ms), event)).map(|line| line + "\n").collect()
    }

    #[test]
    fn a_restore_tells_a_line_now_and_then() {
        insta::assert_snapshot!(told(Telling::Everything), @"
        restore app@01: 4 files, 80.0 MiB
        50.0 MiB of 80.0 MiB · 1 of 4 files · 10.0 MiB/s · 3.0s left
        warning: `a` changed
        == publishing
        ");
    }

    #[test]
    fn quiet_tells_warnings_only() {
        assert_eq!(told(Telling::Warnings), "warning: `a` changed\n");
    }
}
