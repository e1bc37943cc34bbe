//! Why the store could not do what was asked.

use std::io;

use crate::base::{ChunkId, Classify, ErrorKind};
use crate::objects::{KeyError, ObjectsError};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// A key is wrong, which is a defect of this program.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An object is not what was written.
    #[error("`{key}` of the store `{store}` is damaged")]
    Damaged {
        /// The object.
        key: String,
        /// The store.
        store: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A chunk is not where it should be, and nowhere else.
    #[error("chunk {id} is missing from the store `{store}`")]
    Lost {
        /// The chunk.
        id: ChunkId,
        /// The store.
        store: String,
    },
    /// A temporary or cached file could not be written or read.
    #[error("cannot {action}")]
    Local {
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is asked for is not there.
    #[error("there is no {what} in the store `{store}`")]
    NotFound {
        /// What was named.
        what: String,
        /// The store.
        store: String,
    },
    /// The store may not grow past its quota.
    #[error("the store `{store}` would grow to {needed} and its quota is {quota}")]
    Quota {
        /// The store.
        store: String,
        /// Bytes of packs there would be.
        needed: crate::base::ByteSize,
        /// Bytes of packs there may be.
        quota: crate::base::ByteSize,
    },
    /// A collector took the session for dead, and again each time it was tried.
    #[error("the store `{store}` took this save for dead {times} times")]
    Evicted {
        /// The store.
        store: String,
        /// How often.
        times: u32,
    },
}

impl Classify for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Objects(error) => error.kind(),
            Self::Key(_) => ErrorKind::Internal,
            Self::Damaged { .. } | Self::Lost { .. } => ErrorKind::Corrupt,
            Self::Local { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorKind::Limit,
            Self::Local { .. } | Self::Evicted { .. } => ErrorKind::Unavailable,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Quota { .. } => ErrorKind::Limit,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Objects(error) => error.hint(),
            Self::Damaged { .. } | Self::Lost { .. } => Some(
                "`kiln store check --read-data` tells what else is damaged, and which revisions it touches"
                    .into(),
            ),
            Self::Local { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free space where the store, or TMPDIR, is".into())
            }
            Self::Quota { .. } => {
                Some("remove revisions and run `kiln gc`, or make the store's quota larger".into())
            }
            Self::Evicted { .. } => {
                Some("run `kiln gc` with a longer --evict-after, or look whether this host was paused".into())
            }
            Self::Key(_) | Self::Local { .. } | Self::NotFound { .. } => None,
        }
    }
}
