//! The only printer of answers: text or one JSON document on standard output; errors where their reader looks.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::failure::CommandError;
use super::paint::Paint;
use crate::base::ErrorKind;

/// Prints answers.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    paint: Paint,
    error_paint: Paint,
    closed: AtomicBool,
}

/// An error on the wire.
#[derive(Debug, Serialize)]
struct ErrorView<'a> {
    kind: ErrorKind,
    message: &'a str,
    causes: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [String],
    hint: Option<&'a str>,
}

/// The document that holds it.
#[derive(Debug, Serialize)]
struct ErrorDocument<'a> {
    error: ErrorView<'a>,
}

impl Output {
    /// Makes a printer; `paint` is for standard output and `error_paint` for standard error.
    pub(super) fn new(json: bool, paint: Paint, error_paint: Paint) -> Self {
        Self { json, paint, error_paint, closed: AtomicBool::new(false) }
    }

    /// Returns whether answers are JSON.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Returns the painter of standard output.
    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// Returns whether the reader has gone away, so that whoever prints for long may stop.
    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Prints an answer: the view as a JSON document, or what `human` makes of it.
    pub(super) fn answer<T: Serialize>(
        &self,
        view: &T,
        human: impl FnOnce(Paint) -> String,
    ) -> Result<(), CommandError> {
        if self.json { self.document(view) } else { self.text(&human(self.paint)) }
    }

    /// Prints a JSON document.
    pub(super) fn document<T: Serialize>(&self, view: &T) -> Result<(), CommandError> {
        let text = serde_json::to_string_pretty(view).map_err(|error| {
            CommandError::of(ErrorKind::Internal, format!("cannot write the answer as JSON: {error}"))
        })?;
        self.text(&text)
    }

    /// Prints text, ended by a line break. A reader that has gone away is no error.
    pub(super) fn text(&self, text: &str) -> Result<(), CommandError> {
        if text.is_empty() || self.closed() {
            return Ok(());
        }
        let mut bytes = text.as_bytes().to_vec();
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        self.raw(&bytes)
    }

    /// Prints bytes as they are. A reader that has gone away is no error.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                Err(CommandError::io(ErrorKind::Unavailable, "cannot write to standard output", &error))
            }
        }
    }

    /// Prints an error: for people on standard error, as JSON on standard output.
    pub(super) fn error(&self, error: &CommandError) {
        let printed = if self.json {
            self.document(&ErrorDocument {
                error: ErrorView {
                    kind: error.kind,
                    message: &error.message,
                    causes: &error.causes,
                    details: &error.details,
                    hint: error.hint.as_deref(),
                },
            })
            .is_ok()
        } else {
            false
        };
        if !printed {
            to_stderr(&human(error, self.error_paint));
        }
    }
}

/// Prints to standard error. Where that cannot be written there is nobody left to tell, and the exit code says the rest.
pub(super) fn to_stderr(text: &str) -> bool {
    io::stderr().lock().write_all(text.as_bytes()).is_ok()
}

fn human(error: &CommandError, paint: Paint) -> String {
    let mut lines = vec![format!("{} {}", paint.bad("error:"), error.message)];
    lines.extend(error.causes.iter().map(|cause| format!("  caused by: {cause}")));
    lines.extend(error.details.iter().map(|line| paint.dim(&format!("    {line}"))));
    lines.extend(error.hint.iter().map(|hint| format!("{} {hint}", paint.bold("hint:"))));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_for_people_has_causes_details_and_a_hint_each_on_its_line() {
        let error = CommandError {
            kind: ErrorKind::Failed,
            message: "step 3 `RUN false` failed".into(),
            causes: vec!["exit code 1".into()],
            details: vec!["last line".into()],
            hint: Some("look at it".into()),
        };
        assert_eq!(
            human(&error, Paint::new(false)),
            "error: step 3 `RUN false` failed\n  caused by: exit code 1\n    last line\nhint: look at it\n"
        );
    }
}
