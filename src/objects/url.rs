//! Where a store is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::base::{Classify, ErrorKind};

/// Why a text is no store URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// It is neither a path nor a URL that this version knows.
    #[error("`{0}` is not a store: give a path, or `file:///path`")]
    Unknown(String),
    /// S3 is not there yet.
    #[error("the store `{0}` is on S3, which this version cannot use yet: give a path, or `file:///path`")]
    S3(String),
}

impl Classify for StoreUrlError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Where a store is: a path or `file:///path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    path: PathBuf,
}

impl StoreUrl {
    /// Takes a path as it is.
    #[must_use]
    pub fn of_path(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the store's directory.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        match text.split_once("://") {
            None if text.is_empty() => Err(StoreUrlError::Unknown(text.to_owned())),
            None => Ok(Self { path: text.into() }),
            Some(("file", path)) if path.starts_with('/') => Ok(Self { path: path.into() }),
            Some(("s3", _)) => Err(StoreUrlError::S3(text.to_owned())),
            Some(_) => Err(StoreUrlError::Unknown(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_name_directories() {
        for (text, path) in [("/a/b", "/a/b"), ("a", "a"), ("file:///a", "/a")] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().path(), &PathBuf::from(path));
        }
        for wrong in ["", "file://host/a", "s3://bucket/x", "gs://bucket"] {
            assert!(wrong.parse::<StoreUrl>().is_err(), "{wrong}");
        }
    }
}
