//! Why a collection ended early. Whatever it did by then is safe, and the next one goes on.

use crate::base::{Classify, ErrorKind};
use crate::objects::{KeyError, ObjectsError};
use crate::store::StoreError;

/// Why a collection ended early. Nothing that anybody needs was deleted, and the next run goes on where this one stopped.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store does not answer, or has an object that is not what was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of a manifest cannot be read, so that nobody knows what is needed.
    #[error("a part of a manifest cannot be read, so nothing may be deleted: what it names is not known")]
    Unreadable {
        /// Which, and why.
        #[source]
        source: StoreError,
    },
    /// Another collector took this one for dead.
    #[error("another collection took this one for dead, and goes on in its place")]
    Evicted,
    /// The caller cancelled it.
    #[error("cancelled")]
    Cancelled,
}

impl From<ObjectsError> for GcError {
    fn from(error: ObjectsError) -> Self {
        Self::Store(error.into())
    }
}

impl From<KeyError> for GcError {
    fn from(error: KeyError) -> Self {
        Self::Store(error.into())
    }
}

impl Classify for GcError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Unreadable { .. } => ErrorKind::Corrupt,
            Self::Evicted => ErrorKind::Conflict,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Unreadable { .. } => Some(
                "`kiln store check` tells which revisions it touches; `kiln store repair` may find a copy, and once those \
                 revisions are removed for longer than the grace, the rest can be collected"
                    .into(),
            ),
            Self::Evicted => Some("run `kiln gc` again when the other one has ended".into()),
            Self::Cancelled => None,
        }
    }
}
