//! The events of a collection: as lines, and as one live line.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::lines::Telling;
use super::pace::ms_between;
use crate::base::ByteSize;
use crate::cli::paint::Paint;
use crate::cli::text::clean;
use crate::store::gc::GcEvent;

/// 5 s: a log of an hour's job has some 700 lines.
const EVERY_MS: i64 = 5_000;
/// The pause between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// Returns an event in words.
fn said(event: &GcEvent) -> String {
    match event {
        GcEvent::Step { name } => (*name).to_owned(),
        GcEvent::Marked { revisions, manifest_chunks, chunks } => {
            format!("{revisions} revisions need {chunks} chunks ({manifest_chunks} chunks of manifests read)")
        }
        GcEvent::Waiting { sessions } => format!("waiting for {sessions} sessions"),
        GcEvent::Evicted { sessions } => format!("{sessions} sessions taken for dead"),
        GcEvent::Copied { bytes, of_bytes } => {
            format!("copied {} of {}", ByteSize(*bytes), ByteSize(*of_bytes))
        }
        GcEvent::Warning { message } => clean(message),
    }
}

/// Makes lines of events.
#[derive(Debug)]
pub(in crate::cli) struct CollectionLines {
    telling: Telling,
    told: Option<Timestamp>,
}

impl CollectionLines {
    /// Begins a story.
    pub(super) fn new(telling: Telling) -> Self {
        Self { telling, told: None }
    }

    /// Returns the lines that an event adds; often none.
    pub(super) fn tell(&mut self, at: Timestamp, event: &GcEvent) -> Vec<String> {
        let line = match event {
            GcEvent::Copied { .. } => {
                let is_time = self.told.is_none_or(|told| ms_between(told, at) >= EVERY_MS);
                is_time.then(|| {
                    self.told = Some(at);
                    said(event)
                })
            }
            GcEvent::Step { .. } => Some(format!("== {}", said(event))),
            GcEvent::Warning { .. } => Some(format!("warning: {}", said(event))),
            GcEvent::Marked { .. } | GcEvent::Waiting { .. } | GcEvent::Evicted { .. } => Some(said(event)),
        };
        line.into_iter().filter(|_| self.telling.tells(event)).collect()
    }
}

/// A live line.
#[derive(Debug)]
pub(in crate::cli) struct CollectionBar {
    bar: ProgressBar,
    paint: Paint,
}

impl CollectionBar {
    /// Makes a line on standard error, which is a terminal.
    pub(super) fn on_stderr(paint: Paint) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{spinner} {msg}");
        let bar = bar.with_style(style.expect("the template is part of this program"));
        bar.enable_steady_tick(TICK);
        Self { bar, paint }
    }

    /// Shows an event; returns whether the terminal is still there.
    pub(super) fn tell(&mut self, event: &GcEvent) -> bool {
        match event {
            GcEvent::Warning { .. } => {
                self.bar.println(format!("{} {}", self.paint.warn("warning:"), said(event)));
            }
            GcEvent::Evicted { .. } => self.bar.println(said(event)),
            _ => self.bar.set_message(said(event)),
        }
        true
    }

    /// Takes the line off the screen.
    pub(super) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_tells_its_steps_and_a_copy_now_and_then() {
        let mut lines = CollectionLines::new(Telling::Everything);
        let mut story = vec![
            (0, GcEvent::Step { name: "marking" }),
            (1, GcEvent::Marked { revisions: 2, manifest_chunks: 3, chunks: 4 }),
        ];
        story.extend(
            (2..80).map(|tenth| (tenth * 100, GcEvent::Copied { bytes: 1 << 20, of_bytes: 2 << 20 })),
        );
        story.push((9_000, GcEvent::Waiting { sessions: 1 }));
        story.push((9_100, GcEvent::Warning { message: "odd".into() }));
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let told: Vec<String> = story.iter().flat_map(|(ms, event)| lines.tell(at(*ms), event)).collect();
        insta::assert_snapshot!(told.join("\n"), @"
        == marking
        2 revisions need 4 chunks (3 chunks of manifests read)
        copied 1.0 MiB of 2.0 MiB
        copied 1.0 MiB of 2.0 MiB
        waiting for 1 sessions
        warning: odd
        ");
        let mut quiet = CollectionLines::new(Telling::Warnings);
        let told: Vec<String> = story.iter().flat_map(|(ms, event)| quiet.tell(at(*ms), event)).collect();
        assert_eq!(told, ["warning: odd"]);
    }
}
