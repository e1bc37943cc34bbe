//! Why an image could not be examined.

use crate::base::{Classify, ErrorKind};
use crate::docker::EngineError;

/// Why an image could not be examined.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The engine did not hand it out.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What it handed out is not an image.
    #[error("the archive of the image `{reference}` cannot be read")]
    Archive {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled while reading the image")]
    Cancelled,
}

impl Classify for ContentsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Archive { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge => {
                ErrorKind::Limit
            }
            Self::Archive { .. } => ErrorKind::Corrupt,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Archive { .. } | Self::Cancelled => None,
        }
    }
}
