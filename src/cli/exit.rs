//! Kinds of errors as exit codes: the one table. Code 0 is done, and 3 is done in part.

use crate::base::ErrorKind;

/// The code after a second Ctrl-C, and of whatever was cancelled: 128 + SIGINT, as shells have it.
pub(super) const CANCELLED: u8 = 130;

/// The code of a job that did what it could, and named the rest.
pub(super) const IN_PART: u8 = 3;

/// Returns the exit code of an error.
pub(super) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Internal => 1,
        ErrorKind::Invalid => 2,
        ErrorKind::NotFound => 4,
        ErrorKind::Conflict => 5,
        ErrorKind::Unavailable => 6,
        ErrorKind::Corrupt => 7,
        ErrorKind::Limit => 8,
        ErrorKind::Failed => 9,
        ErrorKind::Cancelled => CANCELLED,
    }
}

/// The table as people read it, for the end of the program's help.
pub(super) const HELP: &str = "\
Exit codes: 0 done, 1 internal error, 2 invalid input, 3 done in part, 4 not found, 5 conflict, 6 unavailable, \
7 corrupt, 8 limit exceeded, 9 build step or check failed, 130 cancelled.";
