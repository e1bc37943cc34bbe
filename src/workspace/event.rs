//! What the jobs on workspaces tell while they run.

use serde::Serialize;

/// What happened just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkspaceEvent {
    /// A job began.
    Began {
        /// What is done: `save`, `restore`, `update`, `copy`.
        job: &'static str,
        /// The workspace or revision.
        name: String,
        /// How many files there will be, where that is known.
        files: Option<u64>,
        /// How many bytes there will be, where that is known.
        bytes: Option<u64>,
    },
    /// A save counted beside its work how much there is. Told at most once, and only of jobs of more than a moment.
    Totals {
        /// How many files there are.
        files: u64,
        /// How many bytes they have, holes included.
        bytes: u64,
    },
    /// How far the job is. Told about ten times a second.
    Progress {
        /// Files that are done.
        files: u64,
        /// Bytes that are done.
        bytes: u64,
        /// Bytes that had to be stored, or fetched.
        moved_bytes: u64,
    },
    /// Something is not as it should be, and the job goes on.
    Warning {
        /// What, and to which path.
        message: String,
    },
    /// A step that takes a while began.
    Step {
        /// What is done now: `uploading`, `publishing`, …
        name: &'static str,
    },
}
