//! Why a store did not do what was asked.

use std::error::Error;
use std::io;

use crate::base::{Classify, ErrorKind};

/// What is wrong with a server, as far as its answer or its silence tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerProblem {
    /// No credentials were found, or the server does not know them.
    Credentials,
    /// The credentials are good and may not do this.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// The request cannot be right: another region, a wrong address, a feature that the server lacks.
    Refused,
    /// It does not answer, or not in time.
    Unreachable,
    /// It asked for fewer requests, again and again.
    Throttled,
    /// It answered with a failure of its own, or with something that is no answer.
    Failed,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// Reading or writing failed.
    #[error("cannot {action} `{key}` in the store `{store}`")]
    Io {
        /// `read`, `write`, `list` or `delete`.
        action: &'static str,
        /// The key or prefix.
        key: String,
        /// The store.
        store: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A server refused or failed, after the repetitions that made sense.
    #[error("cannot {action} `{key}` in the store `{store}`")]
    Server {
        /// `read`, `write`, `list`, `delete`, or another thing that was asked of the server.
        action: &'static str,
        /// The key or prefix.
        key: String,
        /// The store.
        store: String,
        /// What is wrong.
        problem: ServerProblem,
        /// What the server said, or what became of the connection.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The settings for reaching a server cannot be used.
    #[error("the store `{store}` cannot be used: {reason}")]
    Settings {
        /// The store.
        store: String,
        /// What is wrong with them.
        reason: String,
        /// Why, where something below failed.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl ObjectsError {
    /// Returns what is wrong with the server, where a server is what failed.
    #[must_use]
    pub fn problem(&self) -> Option<ServerProblem> {
        match self {
            Self::Server { problem, .. } => Some(*problem),
            Self::Io { .. } | Self::Settings { .. } => None,
        }
    }
}

impl Classify for ObjectsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Unavailable,
            Self::Settings { .. } => ErrorKind::Invalid,
            Self::Server { problem, .. } => match problem {
                ServerProblem::Credentials | ServerProblem::Denied | ServerProblem::Refused => {
                    ErrorKind::Invalid
                }
                ServerProblem::NoBucket => ErrorKind::NotFound,
                ServerProblem::Unreachable | ServerProblem::Throttled | ServerProblem::Failed => {
                    ErrorKind::Unavailable
                }
            },
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "choose a store this user may write with --store or KILN_STORE"
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "the disk of the store is full: free some space there, or choose another store with --store or KILN_STORE"
                }
                _ => return None,
            },
            Self::Settings { .. } => return None,
            Self::Server { problem, .. } => match problem {
                ServerProblem::Credentials => {
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that this server knows, and \
                     look at the clock of this host"
                }
                ServerProblem::Denied => {
                    "these credentials may not do this: allow them to list the bucket, and to get, put and delete objects below \
                     the store's prefix"
                }
                ServerProblem::NoBucket => {
                    "make the bucket first, and compare its name, `endpoint` and `region` in the store's URL"
                }
                ServerProblem::Refused => "compare `endpoint`, `region` and `path_style` in the store's URL",
                ServerProblem::Unreachable => {
                    "see whether the endpoint is up and can be reached from here, then try again"
                }
                ServerProblem::Throttled => {
                    "the server asks for fewer requests: try again later, with fewer jobs or a bandwidth cap"
                }
                ServerProblem::Failed => "look at the server's own log, then try again",
            },
        };
        Some(hint.into())
    }
}
