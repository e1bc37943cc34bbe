//! The events of a prune of images: as lines, and as one live line.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::Telling;
use crate::cli::paint::Paint;
use crate::cli::text::clean;
use crate::image::PruneEvent;

/// The pause between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// Returns an event in words.
fn said(event: &PruneEvent) -> String {
    match event {
        PruneEvent::Step { name } => (*name).to_owned(),
        PruneEvent::Item { id, name, action, outcome, detail } => {
            let why = detail.as_ref().map_or_else(String::new, |why| format!(": {}", clean(why)));
            format!("{action} {}@{id}: {outcome}{why}", clean(name))
        }
        PruneEvent::Warning { message } => clean(message),
    }
}

/// Returns the line that an event adds, where it is told.
pub(super) fn line(telling: Telling, event: &PruneEvent) -> Option<String> {
    let line = match event {
        PruneEvent::Step { .. } => format!("== {}", said(event)),
        PruneEvent::Warning { .. } => format!("warning: {}", said(event)),
        PruneEvent::Item { .. } => said(event),
    };
    telling.tells(event).then_some(line)
}

/// A live line.
#[derive(Debug)]
pub(in crate::cli) struct PruneBar {
    bar: ProgressBar,
    paint: Paint,
}

impl PruneBar {
    /// Makes a line on standard error, which is a terminal.
    pub(super) fn on_stderr(paint: Paint) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{spinner} {msg}");
        let bar = bar.with_style(style.expect("the template is part of this program"));
        bar.enable_steady_tick(TICK);
        Self { bar, paint }
    }

    /// Shows an event; returns whether the terminal is still there.
    pub(super) fn tell(&mut self, event: &PruneEvent) -> bool {
        match event {
            PruneEvent::Warning { .. } => {
                self.bar.println(format!("{} {}", self.paint.warn("warning:"), said(event)));
            }
            PruneEvent::Step { .. } | PruneEvent::Item { .. } => self.bar.set_message(said(event)),
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
    fn a_prune_tells_its_items_and_to_the_quiet_only_warnings() {
        let item = |detail: Option<&str>| PruneEvent::Item {
            id: "01x".into(),
            name: "app".into(),
            action: "delete",
            outcome: if detail.is_some() { "spared" } else { "done" },
            detail: detail.map(str::to_owned),
        };
        let story = [
            PruneEvent::Step { name: "pruning" },
            item(None),
            item(Some("pinned")),
            PruneEvent::Warning { message: "odd".into() },
        ];
        let told = |telling| story.iter().filter_map(|event| line(telling, event)).collect::<Vec<_>>();
        assert_eq!(
            told(Telling::Everything),
            ["== pruning", "delete app@01x: done", "delete app@01x: spared: pinned", "warning: odd"]
        );
        assert_eq!(told(Telling::Warnings), ["warning: odd"]);
    }
}
