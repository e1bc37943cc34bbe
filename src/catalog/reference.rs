//! How people name snapshots.

use std::fmt;
use std::str::FromStr;

use super::CatalogError;
use crate::base::{ChannelName, SnapshotName};

/// A name for a snapshot: `name`, `name@id`, `name:channel` or `id`; ids may be shortened to eight characters or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRef {
    /// The newest active snapshot of a name. An id is also taken here, when no snapshot has that name.
    Name(SnapshotName),
    /// A snapshot of a name, by (the beginning of) its id.
    NameId(SnapshotName, IdPrefix),
    /// The snapshot that a channel holds.
    Channel(SnapshotName, ChannelName),
}

/// The beginning of a snapshot id, eight characters or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    /// Returns the characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes `text` as the beginning of an id, if it can be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        // Crockford's base 32 has no i, l, o, u.
        let valid = (8..=26).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"ilou".contains(&b)));
        valid.then_some(Self(text))
    }
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::NameId(name, id) => write!(f, "{name}@{}", id.as_str()),
            Self::Channel(name, channel) => write!(f, "{name}:{channel}"),
        }
    }
}

impl FromStr for SnapshotRef {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        let parsed = if let Some((name, id)) = text.split_once('@') {
            name.parse().ok().zip(IdPrefix::parse(id)).map(|(name, id)| Self::NameId(name, id))
        } else if let Some((name, channel)) = text.split_once(':') {
            name.parse().ok().zip(channel.parse().ok()).map(|(name, channel)| Self::Channel(name, channel))
        } else {
            text.to_ascii_lowercase().parse().ok().map(Self::Name)
        };
        parsed.ok_or_else(|| CatalogError::Reference(text.escape_debug().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_what_they_print() {
        for text in ["litellm", "litellm@01jdabcd", "litellm:prod", "01jdabcd00"] {
            assert_eq!(text.parse::<SnapshotRef>().unwrap().to_string(), text);
        }
        for wrong in ["", "a@b", "a:", "@01jdabcd", "a b", "a@01jdabcu", "a:b:c"] {
            assert!(wrong.parse::<SnapshotRef>().is_err(), "{wrong}");
        }
    }
}
