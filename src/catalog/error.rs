//! Why the catalog did not do what was asked.

use crate::base::{Classify, ErrorKind, SnapshotId};
use crate::catalog::State;
use crate::objects::{KeyError, ObjectsError};

/// Why the catalog did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The store does not answer.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// A key is wrong, which is a defect of this program.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An object cannot be understood.
    #[error("the record `{key}` cannot be understood")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An object is newer than this program.
    #[error("the record `{key}` has version {found}, and this program knows version 1")]
    Newer {
        /// Its key.
        key: String,
        /// Its version.
        found: u32,
    },
    /// Nothing has this name.
    #[error("there is no snapshot `{reference}`{detail}")]
    NotFound {
        /// What was asked for.
        reference: String,
        /// What is there instead, beginning with a comma or a parenthesis; empty when there is nothing to say.
        detail: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A shortened id fits several snapshots.
    #[error("`{reference}` fits {count} snapshots")]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// How many fit.
        count: usize,
    },
    /// The text is no reference.
    #[error("`{0}` does not name a snapshot (name, name@id, name:channel or id)")]
    Reference(String),
    /// The state does not allow it.
    #[error("snapshot {id} is {state}, which does not allow {action}")]
    State {
        /// The snapshot.
        id: SnapshotId,
        /// Its state.
        state: State,
        /// What was asked.
        action: String,
    },
    /// A move of a channel lost against another one that was made at the same time.
    #[error("`{channel}` was moved to {snapshot} at the same time, which counts")]
    Overtaken {
        /// The channel, with the name.
        channel: String,
        /// What it holds.
        snapshot: SnapshotId,
    },
    /// A log is damaged.
    #[error("the log of snapshot {id} is damaged")]
    Log {
        /// The snapshot.
        id: SnapshotId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Classify for CatalogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Objects(error) => error.kind(),
            Self::Key(_) => ErrorKind::Internal,
            Self::Unreadable { .. } | Self::Log { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } | Self::Reference(_) | Self::Ambiguous { .. } => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::State { .. } | Self::Overtaken { .. } => ErrorKind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Objects(error) => error.hint(),
            Self::NotFound { nearest: Some(name), .. } => Some(format!("did you mean `{name}`?")),
            Self::NotFound { nearest: None, .. } => Some("`kiln snapshot list` shows what there is".into()),
            Self::Ambiguous { .. } => Some("give more characters of the id".into()),
            Self::Overtaken { .. } => {
                Some("look at `kiln snapshot history`, and move it again if it should".into())
            }
            Self::Newer { .. } => Some("use a newer Kiln for this store".into()),
            Self::Key(_)
            | Self::Unreadable { .. }
            | Self::Reference(_)
            | Self::State { .. }
            | Self::Log { .. } => None,
        }
    }
}
