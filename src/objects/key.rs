//! Names of objects.

use std::fmt;

use crate::base::{Classify, ErrorKind};

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a key of a store", .0.escape_debug())]
pub struct KeyError(String);

impl Classify for KeyError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The name of an object: segments of ASCII letters, digits, `.`, `_`, `-` between slashes, none beginning with a dot.
///
/// Such names mean the same in a directory on any file system and in an S3 bucket, and leave no room for `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Makes a key.
    ///
    /// # Errors
    ///
    /// Fails on an empty text, on other characters and on a segment that is empty, begins with a dot or is longer than
    /// 200 bytes (file systems allow 255, and a temporary name adds to it).
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if text.split('/').all(is_segment) { Ok(Self(text)) } else { Err(KeyError(text)) }
    }

    /// Returns the key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last segment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The beginning of keys, whole segments: it ends with a slash, or is empty for all keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefix(String);

impl Prefix {
    /// Makes a prefix of whole segments, written without the closing slash.
    ///
    /// # Errors
    ///
    /// As [`Key::new`].
    pub fn new(segments: impl Into<String>) -> Result<Self, KeyError> {
        Key::new(segments).map(|key| Self(key.0 + "/"))
    }

    /// Returns the prefix's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_segment(segment: &str) -> bool {
    (1..=200).contains(&segment.len())
        && !segment.starts_with('.')
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_no_way_out_of_a_directory() {
        for right in ["a", "snap/rec/01j.json", "a-b_c.d/e"] {
            assert!(Key::new(right).is_ok(), "{right}");
        }
        for wrong in ["", "/a", "a/", "a//b", "..", "a/../b", ".tmp-x", "a b", "a\\b", "é", "a\n"] {
            assert!(Key::new(wrong).is_err(), "{wrong}");
        }
    }
}
