//! Why a workspace could not be saved, restored or found.

use std::io;
use std::path::PathBuf;

use super::archive::ArchiveError;
use super::tree::{PatternError, TargetError};
use crate::base::{ByteSize, Classify, ErrorKind};
use crate::docker::EngineError;
use crate::store::gc::GcError;
use crate::store::{EntryPath, StoreError};

/// Why a job on a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is needed could not be told from what is not.
    #[error(transparent)]
    Gc(#[from] GcError),
    /// The container's engine could not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A pattern is wrong.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The target could not be made.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The tree could not be read or written as a whole.
    #[error("cannot {action} `{}`", path.display())]
    Tree {
        /// What was being done.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry could not be written.
    #[error("cannot {action} `{path}`")]
    Entry {
        /// What was being done.
        action: &'static str,
        /// The entry.
        path: EntryPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such workspace or revision.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// `workspace` or `revision`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What is there and looks like it.
        nearest: Option<String>,
    },
    /// The beginning of an id fits several revisions.
    #[error("`{id}` is the beginning of {count} revisions: `{first}`, `{second}`{}", if *count > 2 { ", …" } else { "" })]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// How many it fits.
        count: usize,
        /// The first of them.
        first: String,
        /// The second.
        second: String,
    },
    /// The revision is pinned, so it is not removed.
    #[error("`{revision}` is pinned{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Pinned {
        /// The revision.
        revision: String,
        /// Why it is pinned.
        reason: String,
    },
    /// There is no such removed revision.
    #[error("there is no removed revision `{name}`{}", if *is_there { ": it was not removed" } else { "" })]
    NotRemoved {
        /// What was asked for.
        name: String,
        /// Whether there is one that was not removed.
        is_there: bool,
    },
    /// A removed revision cannot be brought back, because a collector deleted what it needs.
    #[error("`{revision}` cannot be brought back: parts of it were deleted after the collector's grace")]
    Collected {
        /// The revision.
        revision: String,
        /// What is missing.
        #[source]
        source: StoreError,
    },
    /// A limit of the caller's was exceeded.
    #[error("the workspace has more than {limit}")]
    TooLarge {
        /// The limit, with its unit.
        limit: String,
    },
    /// There is not enough room where the workspace is to be restored.
    #[error("`{}` has {free} free, and the workspace needs {needed}", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What is free there.
        free: ByteSize,
        /// What is needed.
        needed: ByteSize,
    },
    /// Contents are damaged or lost; everything sound was handed over only where the caller asked for it.
    #[error("{count} of the workspace's files cannot be restored as they were saved")]
    Damaged {
        /// How many.
        count: u64,
        /// The first of them.
        paths: Vec<EntryPath>,
        /// What is wrong with the first.
        #[source]
        source: Box<StoreError>,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// An archive is refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A stream could not be read or written.
    #[error("cannot {action} the stream")]
    Stream {
        /// `read` or `write`.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was asked for makes no sense.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
}

impl Classify for WorkspaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Gc(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Pattern(error) => error.kind(),
            Self::Target(error) => error.kind(),
            Self::Tree { source, .. } | Self::Entry { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Limit,
                io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            Self::NotFound { .. } | Self::NotRemoved { .. } | Self::Collected { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Invalid,
            Self::Pinned { .. } => ErrorKind::Conflict,
            Self::TooLarge { .. } | Self::NoRoom { .. } => ErrorKind::Limit,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Archive(error) => error.kind(),
            Self::Stream { .. } => ErrorKind::Unavailable,
            Self::Invalid { .. } => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Gc(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Pattern(error) => error.hint(),
            Self::Target(error) => error.hint(),
            Self::NotFound { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::NotFound { nearest: None, .. } => Some("`kiln workspace list` shows what there is".into()),
            Self::NotRemoved { is_there: true, .. } => None,
            Self::NotRemoved { is_there: false, .. } => Some(
                "`kiln workspace undo --list` shows what can be brought back; what a collector forgot cannot"
                    .into(),
            ),
            Self::Collected { .. } => {
                Some("a longer `kiln gc --grace` keeps what is removed for longer".into())
            }
            Self::Ambiguous { .. } => Some("write more of the id".into()),
            Self::Pinned { revision, .. } => {
                Some(format!("`kiln workspace unpin {revision}` takes the pin back"))
            }
            Self::TooLarge { .. } => {
                Some("exclude something with --exclude or a .kilnignore file, or raise the limit".into())
            }
            Self::NoRoom { .. } => Some("free space there, or restore elsewhere".into()),
            Self::Damaged { paths, .. } => {
                let shown: Vec<String> = paths.iter().map(ToString::to_string).collect();
                Some(format!(
                    "`kiln store check --read-data` tells all of it; the first: {}",
                    shown.join(", ")
                ))
            }
            Self::Archive(error) => error.hint(),
            Self::Tree { .. }
            | Self::Entry { .. }
            | Self::Cancelled
            | Self::Stream { .. }
            | Self::Invalid { .. } => None,
        }
    }
}
