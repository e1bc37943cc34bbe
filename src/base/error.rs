//! What a caller can do about an error.

use std::error::Error;

/// The kind of an error: what its reader can do about it. Faces turn kinds into exit codes and statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The input is wrong: a parameter, a file, a template.
    Invalid,
    /// What was named is not there.
    NotFound,
    /// Somebody else's work or an earlier decision stands in the way.
    Conflict,
    /// A service, a disk or a network does not answer; trying again may help.
    Unavailable,
    /// Stored bytes are not what they were.
    Corrupt,
    /// A limit was exceeded, or would be.
    Limit,
    /// A build step or a check failed.
    Failed,
    /// The caller cancelled.
    Cancelled,
    /// A defect of this program.
    Internal,
}

/// An error that says what its reader can do.
///
/// The message names what was being done and to what; it never repeats its cause, because the face prints the chain.
pub trait Classify: Error + Send + Sync + 'static {
    /// Returns the kind.
    fn kind(&self) -> ErrorKind;

    /// Returns a sentence on what to do next, where there is one.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Returns the messages of the causes of `error`, outermost first, without `error` itself.
pub fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}
