//! What a collection tells while it runs.

use serde::Serialize;

/// What happened just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GcEvent {
    /// A step that takes a while began.
    Step {
        /// What is done now: `marking`, `copying`, `condemning`, `waiting`, `marking again`, `deleting`, `rewriting the index`.
        name: &'static str,
    },
    /// It is known what is needed.
    Marked {
        /// Revisions that need something.
        revisions: u64,
        /// Distinct chunks of manifests that were read.
        manifest_chunks: u64,
        /// Distinct chunks that are needed.
        chunks: u64,
    },
    /// Sessions must end before anything is deleted. Told when their number changes.
    Waiting {
        /// How many are open.
        sessions: usize,
    },
    /// Sessions were taken for dead.
    Evicted {
        /// How many.
        sessions: usize,
    },
    /// How much of what has to be moved was copied.
    Copied {
        /// Bytes of chunks, before compression, so far.
        bytes: u64,
        /// Bytes there will be.
        of_bytes: u64,
    },
    /// Something is not as it should be, and the collection goes on.
    Warning {
        /// What.
        message: String,
    },
}
