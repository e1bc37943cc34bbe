//! Why an archive is refused.

use std::io;

use crate::base::{Classify, ErrorKind};

/// Why an archive cannot be read further. Nothing that came before it is taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The stream that brings the archive failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The compressed bytes around the archive are damaged.
    #[error("cannot unpack the archive's {format} stream")]
    Unpack {
        /// How it is compressed.
        format: &'static str,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// The stream ends where it must not: a transfer was cut off or the program that writes it failed.
    #[error("the archive ends within {place}")]
    CutOff {
        /// Where.
        place: String,
    },
    /// The stream holds not a single byte.
    #[error("the archive is empty: not even an end marker")]
    Empty,
    /// The archive breaks the rules of its format, or says something that programs read in different ways.
    #[error("{place}: {problem}")]
    Malformed {
        /// The entry, or where its header stands.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The archive needs something that is not read here.
    #[error("{place}: {what} cannot be read")]
    Unsupported {
        /// The entry, or where its header stands.
        place: String,
        /// What it needs.
        what: String,
    },
    /// A name leads out of the tree or cannot be a name.
    #[error("{place}: {problem}")]
    Path {
        /// The entry.
        place: String,
        /// What is wrong with its name or with the name of its link's target.
        problem: String,
    },
    /// The archive is larger than the reader allows.
    #[error("{place}: more than {limit} {what}")]
    Limit {
        /// The entry where the limit was passed, or where its header stands.
        place: String,
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

impl ArchiveError {
    /// Makes an error about what `place` says.
    pub(super) fn malformed(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { place: place.into(), problem: problem.into() }
    }
}

impl Classify for ArchiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(_) => ErrorKind::Unavailable,
            Self::Limit { .. } => ErrorKind::Limit,
            Self::Unpack { .. }
            | Self::CutOff { .. }
            | Self::Empty
            | Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::Path { .. } => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::CutOff { .. } | Self::Empty => {
                Some("see whether the program that writes the archive failed".to_owned())
            }
            Self::Malformed { .. } | Self::Unsupported { .. } => {
                Some("write the archive anew, with `tar --format=pax`".to_owned())
            }
            Self::Path { .. } => Some("names must stay inside the tree, without `..`".to_owned()),
            Self::Read(_) | Self::Unpack { .. } | Self::Limit { .. } => None,
        }
    }
}
