//! Why images could not be listed or pruned.

use std::path::PathBuf;

use crate::base::{Classify, ErrorKind};
use crate::catalog::CatalogError;
use crate::docker::EngineError;

/// Why images could not be listed or pruned.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine did not do what was asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The records cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A record is missing that must be there.
    #[error("the snapshot {id} has transitions and no record, so that nobody knows what it is")]
    RecordMissing {
        /// The snapshot.
        id: String,
    },
    /// A policy cannot be followed.
    #[error("the policy {reason}")]
    Policy {
        /// Why.
        reason: String,
    },
    /// A policy asks for the disk, which cannot be seen.
    #[error(
        "the free space of the engine at `{endpoint}` cannot be seen from here, and the policy asks for it"
    )]
    DiskUnseen {
        /// The engine.
        endpoint: String,
    },
    /// Another prune works on the engine.
    #[error("another prune works on the engine at `{endpoint}`")]
    Busy {
        /// The engine.
        endpoint: String,
    },
    /// A plan is not for this engine, this store or this program.
    #[error("the plan cannot be applied: {reason}")]
    Plan {
        /// Why.
        reason: String,
    },
    /// A file of this host could not be read or written.
    #[error("cannot use `{}`", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ImageError {
    /// Returns whether it is that this host's disk has no room left.
    pub(super) fn is_full_disk(&self) -> bool {
        matches!(self, Self::Local { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    }
}

impl Classify for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::RecordMissing { .. } => ErrorKind::Corrupt,
            Self::Policy { .. } | Self::DiskUnseen { .. } => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Conflict,
            Self::Plan { .. } => ErrorKind::Invalid,
            Self::Local { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::Local { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::RecordMissing { .. } => {
                Some("nothing is planned while a record cannot be read; see `kiln snapshot list`".into())
            }
            Self::DiskUnseen { .. } => {
                Some("run it on the engine's host, or use --max-total, which needs no disk".into())
            }
            Self::Busy { .. } => Some("wait until it has ended".into()),
            Self::Plan { .. } => Some("make a new plan".into()),
            Self::Policy { .. } | Self::Local { .. } => None,
        }
    }
}
