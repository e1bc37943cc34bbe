//! An error as a face shows it: its kind, its message, its causes, what belongs under it, and what to do.

use std::any::Any;

use crate::base::{Classify, ErrorKind, chain};
use crate::snapshot::BakeError;

/// An error as a face shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandError {
    /// What its reader can do.
    pub(super) kind: ErrorKind,
    /// What was being done.
    pub(super) message: String,
    /// Why it failed, outermost first.
    pub(super) causes: Vec<String>,
    /// What belongs under the message: the last lines of a step, the heaviest layers.
    pub(super) details: Vec<String>,
    /// What to do next.
    pub(super) hint: Option<String>,
}

impl CommandError {
    /// Makes an error of wrong input.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Invalid, message)
    }

    /// Makes an error without causes.
    pub(super) fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), details: Vec::new(), hint: None }
    }

    /// Makes an error of a file that could not be read or written.
    pub(super) fn io(kind: ErrorKind, message: impl Into<String>, cause: &std::io::Error) -> Self {
        Self { causes: vec![cause.to_string()], ..Self::of(kind, message) }
    }

    /// Says what to do next.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl<E: Classify> From<E> for CommandError {
    fn from(error: E) -> Self {
        // A bake's error has lines of its own; all others are whole with their chain of causes.
        let details = (&error as &dyn Any).downcast_ref().map_or_else(Vec::new, BakeError::details);
        Self {
            kind: error.kind(),
            message: error.to_string(),
            causes: chain(&error),
            details,
            hint: error.hint(),
        }
    }
}
