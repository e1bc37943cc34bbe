//! The events of a save or a restore as one live line: a bar where the end is known, and bytes, files, rate, time left.

use jiff::Timestamp;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::pace::Pace;
use crate::cli::paint::Paint;
use crate::cli::text::{clean, cut};
use crate::workspace::WorkspaceEvent;

/// 10 a second, as often as events come.
const FRAMES_PER_SECOND: u8 = 10;

/// The pause between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// What stands left of the text when the end is known: spinner, bar, per cent, spaces.
const BAR: usize = 34;

/// What stands left of it otherwise.
const SPINNER: usize = 2;

/// A terminal whose width is unknown.
const USUAL_WIDTH: usize = 80;

/// A live line.
#[derive(Debug)]
pub(in crate::cli) struct TransferBar {
    bar: ProgressBar,
    paint: Paint,
    pace: Pace,
    step: Option<&'static str>,
    columns: Option<usize>,
}

impl TransferBar {
    /// Makes a line on standard error, which is a terminal.
    pub(super) fn on_stderr(paint: Paint) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND), None, paint)
    }

    fn on(target: ProgressDrawTarget, columns: Option<usize>, paint: Paint) -> Self {
        let bar = ProgressBar::with_draw_target(None, target).with_style(style("{spinner} {msg}"));
        Self { bar, paint, pace: Pace::default(), step: None, columns }
    }

    /// Shows an event; returns whether the terminal is still there.
    pub(super) fn tell(&mut self, at: Timestamp, event: &WorkspaceEvent) -> bool {
        self.pace.note(at, event);
        match event {
            WorkspaceEvent::Began { bytes, .. } => {
                self.bar.enable_steady_tick(TICK);
                self.end_known(*bytes);
            }
            WorkspaceEvent::Totals { bytes, .. } => self.end_known(Some(*bytes)),
            WorkspaceEvent::Progress { bytes, .. } => {
                // Files may have grown since they were counted.
                self.bar.set_position((*bytes).min(self.pace.total_bytes.unwrap_or(*bytes)));
            }
            WorkspaceEvent::Step { name } => self.step = Some(name),
            WorkspaceEvent::Warning { message } => {
                self.bar.println(format!("{} {}", self.paint.warn("warning:"), clean(message)));
                return true;
            }
        }
        let status = match self.step {
            Some(step) => format!("{step} · {}", self.pace.status()),
            None => self.pace.status(),
        };
        let margin = if self.bar.length().is_some() { BAR } else { SPINNER };
        self.bar.set_message(cut(&status, self.columns().saturating_sub(margin)));
        true
    }

    /// Shows a bar from here on, where there is an end.
    fn end_known(&self, bytes: Option<u64>) {
        if let Some(total) = bytes.filter(|total| *total > 0) {
            self.bar.set_style(style("{spinner} {bar:24.dim} {percent:>3}%  {msg}"));
            self.bar.set_length(total);
        }
    }

    /// Takes the line off the screen.
    pub(super) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    fn columns(&self) -> usize {
        self.columns.unwrap_or_else(|| {
            console::Term::stderr().size_checked().map_or(USUAL_WIDTH, |(_, columns)| usize::from(columns))
        })
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is part of this program")
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::tty::tests::Recorder;

    #[test]
    fn the_line_has_a_bar_and_fits_the_terminal_and_warnings_stay() {
        let recorder = Recorder::default();
        let target = ProgressDrawTarget::term_like(Box::new(recorder.clone()));
        let mut bar = TransferBar::on(target, Some(60), Paint::new(false));
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let began = WorkspaceEvent::Began {
            job: "restore",
            name: "app".into(),
            files: Some(4),
            bytes: Some(100 << 20),
        };
        assert!(bar.tell(at(0), &began));
        let progress = WorkspaceEvent::Progress { files: 2, bytes: 50 << 20, moved_bytes: 0 };
        assert!(bar.tell(at(1_000), &progress));
        bar.bar.tick();
        assert!(bar.tell(at(1_100), &WorkspaceEvent::Warning { message: "`x` changed".into() }));
        bar.finish();
        let text = recorder.text();
        assert!(text.contains(" 50%  50.0 MiB of 100.0 MiB"), "{text}");
        assert!(text.contains("warning: `x` changed"), "{text}");
        assert!(!text.contains("left"), "cut at the terminal's width: {text}");
    }
}
