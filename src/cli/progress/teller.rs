//! The sink that a job speaks to.

use std::sync::{Mutex, MutexGuard};

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::lines::Telling;
use super::story::Story;
use crate::base::{Monotonic, Sink, now};
use crate::cli::output::to_stderr;
use crate::cli::paint::Paint;

/// The form of the story.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    /// The live tree on a terminal, else lines.
    #[default]
    Auto,
    /// A live tree.
    Tty,
    /// Lines, as in a build log.
    Plain,
    /// One event a line, as JSON.
    Json,
}

/// Tells the story of a job on standard error. Every line is written as its event comes.
#[derive(Debug)]
pub(in crate::cli) struct Progress<E: Story> {
    began: Timestamp,
    clock: Monotonic,
    teller: Mutex<Teller<E>>,
}

#[derive(Debug)]
enum Teller<E: Story> {
    Lines(E::Lines),
    Screen(E::Screen),
    Json(Telling),
    /// Standard error is gone: there is nobody left to tell.
    Nobody,
}

/// An event on the wire.
#[derive(Debug, Serialize)]
struct Told<E> {
    at: Timestamp,
    #[serde(flatten)]
    event: E,
}

impl<E: Story> Progress<E> {
    /// Chooses a form. `live` says whether standard error is a terminal that can move its cursor.
    pub(in crate::cli) fn new(format: LogFormat, quiet: bool, live: bool, paint: Paint) -> Self {
        let telling = if quiet { Telling::Warnings } else { Telling::Everything };
        let teller = match (format, live, quiet) {
            (LogFormat::Json, ..) => Teller::Json(telling),
            (LogFormat::Tty | LogFormat::Auto, true, false) => Teller::Screen(E::screen(paint)),
            // A tree that was asked for and has no terminal would be escape codes in a file.
            (LogFormat::Tty | LogFormat::Auto | LogFormat::Plain, ..) => Teller::Lines(E::lines(telling)),
        };
        Self { began: now(), clock: Monotonic::start(), teller: Mutex::new(teller) }
    }

    /// Ends the story: what is live leaves the screen, what was printed stays.
    pub(in crate::cli) fn finish(&self) {
        if let Teller::Screen(screen) = &mut *self.lock() {
            E::leave(screen);
        }
    }

    /// Says something beside the job.
    pub(in crate::cli) fn notice(&self, code: &'static str, message: &str) {
        self.emit(E::notice(code, message));
    }

    /// Returns the time by the monotonic clock, so that a step's length is true though the wall clock jumps.
    fn time(&self) -> Timestamp {
        SignedDuration::try_from(self.clock.elapsed())
            .ok()
            .and_then(|elapsed| self.began.checked_add(elapsed).ok())
            .unwrap_or(self.began)
    }

    fn lock(&self) -> MutexGuard<'_, Teller<E>> {
        // A teller that panicked in one event can still tell the next.
        self.teller.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<E: Story> Sink<E> for Progress<E> {
    fn emit(&self, event: E) {
        let at = self.time();
        let mut teller = self.lock();
        let heard = match &mut *teller {
            Teller::Lines(lines) => write_lines(&event.to_lines(lines, at)),
            Teller::Screen(screen) => event.to_screen(screen, at),
            Teller::Json(telling) if !telling.tells(&event) => true,
            Teller::Json(_) => match serde_json::to_string(&Told { at, event }) {
                Ok(line) => write_lines(&[line]),
                Err(error) => write_lines(&[format!("an event cannot be written as JSON: {error}")]),
            },
            Teller::Nobody => true,
        };
        if !heard {
            *teller = Teller::Nobody;
        }
    }
}

/// Writes lines at once, each whole; returns whether somebody still reads.
fn write_lines(lines: &[String]) -> bool {
    if lines.is_empty() {
        return true;
    }
    to_stderr(&lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>())
}
