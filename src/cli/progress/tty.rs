//! Events as a live tree: running steps at the bottom, finished ones above them.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::{human_ms, planned};
use crate::base::ByteSize;
use crate::cli::paint::Paint;
use crate::cli::text::{clean, cut};
use crate::docker::{EngineEvent, StepState};
use crate::snapshot::{BakeEvent, CheckState, StageEvent};

/// 10 a second: a line is seen within 100 ms, and a terminal over a slow network keeps up.
const FRAMES_PER_SECOND: u8 = 10;

/// The pause between two frames of a spinner.
const TICK: Duration = Duration::from_millis(100);

/// What stands left of a step's name: spinner, elapsed time, spaces.
const MARGIN: usize = 12;

/// A terminal whose width is unknown.
const USUAL_WIDTH: usize = 80;

/// A live tree of what runs.
#[derive(Debug)]
pub(in crate::cli) struct Tree {
    bars: MultiProgress,
    paint: Paint,
    width: Width,
    running: BTreeMap<Running, ProgressBar>,
    status: ProgressBar,
    seen: Seen,
}

/// What has a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Running {
    Step(u32),
    Check(String),
}

/// How wide the tree may be.
#[derive(Debug, Clone, Copy)]
enum Width {
    /// As wide as the terminal is at that moment.
    OfStderr,
    /// Always this.
    #[cfg(test)]
    Fixed(usize),
}

/// What the status line tells.
#[derive(Debug, Default)]
struct Seen {
    phase: &'static str,
    context: Option<(u64, bool)>,
    written: Option<u64>,
    free: Option<u64>,
}

impl Tree {
    /// Makes a tree on standard error, which is a terminal.
    pub(super) fn on_stderr(paint: Paint) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND), Width::OfStderr, paint)
    }

    fn on(target: ProgressDrawTarget, width: Width, paint: Paint) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let status = bars.add(ProgressBar::new_spinner().with_style(style("{msg}")));
        Self { bars, paint, width, running: BTreeMap::new(), status, seen: Seen::default() }
    }

    /// Shows an event; returns whether the terminal is still there.
    pub(super) fn tell(&mut self, event: &BakeEvent) -> bool {
        match event {
            BakeEvent::Engine(event) => self.engine(event),
            BakeEvent::Stage(event) => self.stage(event),
        }
    }

    /// Takes what is live off the screen.
    pub(super) fn finish(&mut self) {
        for bar in std::mem::take(&mut self.running).into_values() {
            bar.finish_and_clear();
        }
        self.status.finish_and_clear();
    }

    fn engine(&mut self, event: &EngineEvent) -> bool {
        match event {
            EngineEvent::Context { bytes, done, .. } => {
                self.seen.context = Some((*bytes, *done));
                self.show_status();
                true
            }
            EngineEvent::Disk { written_bytes, free_bytes } => {
                self.seen.written = *written_bytes;
                self.seen.free = *free_bytes;
                self.show_status();
                true
            }
            EngineEvent::Step { step, name, state, ms } => {
                let name = clean(name);
                let key = Running::Step(*step);
                match state {
                    StepState::Running => self.begin(key, &name),
                    StepState::Cached => self.end(&key, &self.paint.dim("="), "cached", &name),
                    StepState::Done => self.end(&key, &self.paint.good("✓"), &took(*ms), &name),
                    StepState::Failed => self.end(&key, &self.paint.bad("✗"), &took(*ms), &name),
                }
            }
            EngineEvent::Log { step, line, .. } => self.output(&Running::Step(*step), line),
            EngineEvent::Pull { status } => {
                self.status.set_message(cut(&format!("pull: {}", clean(status)), self.columns()));
                true
            }
            EngineEvent::Warning { code: _, message } => {
                self.print(&format!("{} {}", self.paint.warn("warning:"), clean(message)))
            }
        }
    }

    fn stage(&mut self, event: &StageEvent) -> bool {
        match event {
            StageEvent::Phase { phase } => {
                self.seen.phase = phase.as_str();
                self.show_status();
                true
            }
            StageEvent::Planned { .. } => planned(event).iter().all(|line| self.print(line)),
            StageEvent::Waiting { message } => self.print(&format!("waiting: {}", clean(message))),
            StageEvent::Check { name, state, ms, reason } => {
                let key = Running::Check(name.clone());
                let why = reason.as_ref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
                let shown = format!("check {name}{why}");
                match state {
                    CheckState::Running => self.begin(key, &shown),
                    CheckState::Passed => self.end(&key, &self.paint.good("✓"), &took(*ms), &shown),
                    CheckState::Failed => self.end(&key, &self.paint.bad("✗"), &took(*ms), &shown),
                }
            }
            StageEvent::CheckOutput { check, line } => self.output(&Running::Check(check.clone()), line),
            StageEvent::Notice { code: _, message } => self.print(&format!("note: {}", clean(message))),
            // The answer, or the error, tells it right after.
            StageEvent::Ended { .. } => true,
        }
    }

    fn begin(&mut self, key: Running, name: &str) -> bool {
        let style = style("{spinner} {elapsed:>6}  {prefix}{msg}");
        let bar = self.bars.insert_before(&self.status, ProgressBar::new_spinner().with_style(style));
        bar.set_prefix(cut(name, self.columns().saturating_sub(MARGIN)));
        bar.enable_steady_tick(TICK);
        self.running.insert(key, bar);
        true
    }

    fn end(&mut self, key: &Running, mark: &str, took: &str, name: &str) -> bool {
        if let Some(bar) = self.running.remove(key) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        self.print(&cut(&format!("{mark} {took:>6}  {name}"), self.columns()))
    }

    /// Shows the last line that a step wrote below its name.
    fn output(&self, key: &Running, line: &str) -> bool {
        if let Some(bar) = self.running.get(key) {
            let line = cut(&clean(line), self.columns().saturating_sub(MARGIN));
            bar.set_message(format!("\n{:MARGIN$}{}", "", self.paint.dim(&line)));
        }
        true
    }

    fn show_status(&self) {
        let seen = &self.seen;
        let mut parts = vec![seen.phase.to_owned()];
        parts.extend(
            seen.context
                .map(|(bytes, done)| format!("context {}{}", ByteSize(bytes), if done { "" } else { " …" })),
        );
        parts.extend(seen.written.map(|bytes| format!("written {}", ByteSize(bytes))));
        parts.extend(seen.free.map(|bytes| format!("free {}", ByteSize(bytes))));
        let line = cut(&parts.join(" · "), self.columns());
        self.status.set_message(self.paint.dim(&line));
    }

    /// Prints a line above what is live. One that is wider than the terminal is wrapped by it: a warning is read whole.
    fn print(&self, line: &str) -> bool {
        self.bars.println(line).is_ok()
    }

    fn columns(&self) -> usize {
        match self.width {
            Width::OfStderr => console::Term::stderr()
                .size_checked()
                .map_or(USUAL_WIDTH, |(_, columns)| usize::from(columns)),
            #[cfg(test)]
            Width::Fixed(columns) => columns,
        }
    }
}

fn took(ms: Option<u64>) -> String {
    ms.map(human_ms).unwrap_or_default()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is part of this program")
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use crate::cli::progress::lines::tests::story;

    /// A terminal that remembers what was written and forgets where the cursor was.
    #[derive(Debug, Clone, Default)]
    pub(in crate::cli::progress) struct Recorder(Arc<Mutex<String>>);

    impl Recorder {
        /// Returns what was written.
        pub(in crate::cli::progress) fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl TermLike for Recorder {
        fn width(&self) -> u16 {
            60
        }
        fn move_cursor_up(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn drawn(events: impl IntoIterator<Item = BakeEvent>) -> String {
        let recorder = Recorder::default();
        let target = ProgressDrawTarget::term_like(Box::new(recorder.clone()));
        let mut tree = Tree::on(target, Width::Fixed(60), Paint::new(false));
        for event in events {
            assert!(tree.tell(&event));
        }
        tree.finish();
        recorder.text()
    }

    #[test]
    fn finished_steps_and_checks_are_printed_with_their_time() {
        let text = drawn(story().into_iter().map(|(_, event)| event));
        for line in [
            "= cached  FROM debian:bookworm-slim",
            "✓   4.2s  RUN apt-get update",
            "✗   0.2s  RUN false",
            "✓   0.2s  check postgres",
            "✗   0.3s  check postgres: exit code 1",
            "warning: output was clipped",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn no_step_and_no_output_is_wider_than_the_terminal() {
        let name = "RUN ".to_owned() + &"x".repeat(500);
        let step = |state| EngineEvent::Step { step: 1, name: name.clone(), state, ms: Some(1) }.into();
        let log =
            EngineEvent::Log { step: 1, stream: crate::docker::OutputStream::Stdout, line: "y".repeat(500) };
        let text = drawn([step(StepState::Running), log.into(), step(StepState::Done)]);
        assert!(text.contains('x'), "{text}");
        for line in text.lines() {
            assert!(!line.contains(&"x".repeat(60)) && !line.contains(&"y".repeat(60)), "{line}");
        }
    }
}
