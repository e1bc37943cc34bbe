//! Identities are types: no function takes a bare string as an id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{input}` is not {expected}")]
pub struct IdError {
    input: String,
    expected: &'static str,
}

impl IdError {
    /// Says that `input` is not `expected`, for ids that other floors define.
    #[must_use]
    pub fn of(input: &str, expected: &'static str) -> Self {
        Self::new(input, expected)
    }

    fn new(input: &str, expected: &'static str) -> Self {
        let mut shown: String = input.chars().take(80).collect();
        if shown.len() < input.len() {
            shown.push('…');
        }
        Self { input: shown.escape_debug().to_string(), expected }
    }
}

impl super::Classify for IdError {
    fn kind(&self) -> super::ErrorKind {
        super::ErrorKind::Invalid
    }
}

/// A SHA-256 digest. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// Returns the digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Takes the digest that `hasher` has reached.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Returns the digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Sha256Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::new(text, "a SHA-256 digest (64 hex digits)");
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).ok().ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

/// Serialises a type through `Display` and `FromStr`.
macro_rules! text_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_serde!(Sha256Digest);

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Sha256Digest);

        impl $name {
            /// Wraps a digest.
            #[must_use]
            pub fn new(digest: Sha256Digest) -> Self {
                Self(digest)
            }

            /// Returns the digest.
            #[must_use]
            pub fn digest(&self) -> Sha256Digest {
                self.0
            }

            /// Returns the first twelve hex digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.0.to_string().chars().take(12).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(|hex| hex.parse().ok())
                    .map(Self)
                    .ok_or_else(|| IdError::new(text, $expected))
            }
        }

        text_serde!($name);
    };
}

digest_id!(
    /// The id of an image on an engine: the digest of its configuration, not a registry's digest.
    ImageId, "sha256:", "an image id (sha256:…)"
);
digest_id!(
    /// What goes into a build: equal keys give interchangeable images.
    BuildKey, "", "a build key (64 hex digits)"
);
digest_id!(
    /// What goes into a snapshot: the build key, and the runtime, resources, limits and checks around it.
    SnapshotKey, "", "a snapshot key (64 hex digits)"
);

digest_id!(
    /// The id of a chunk: the SHA-256 of its content.
    ChunkId, "", "a chunk id (64 hex digits)"
);

impl ChunkId {
    /// Returns the id of a chunk with this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256Digest::of(content))
    }

    /// Takes an id as it is stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Sha256Digest(bytes))
    }

    /// Returns the id as it is stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }

    /// Returns the first eight bytes, big endian: ids sort by it first, and it is as good as random.
    #[must_use]
    pub const fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

fn fresh_ulid() -> ulid::Ulid {
    #[cfg(test)]
    if let Some(ulid) = super::rehearsal::ulid() {
        return ulid;
    }
    ulid::Ulid::generate()
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ulid::Ulid);

        impl $name {
            /// Makes a new, unique id; ids made later sort later, as far as the clock goes.
            #[must_use]
            pub fn generate() -> Self {
                Self(fresh_ulid())
            }

            /// Returns the first ten characters, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(10).collect()
            }

            /// Takes an id as binary objects hold it.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(ulid::Ulid(u128::from_be_bytes(bytes)))
            }

            /// Returns the id as binary objects hold it.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Lower case, because image tags and label values are read by people.
                f.write_str(&self.0.to_string().to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != 26 {
                    return Err(IdError::new(text, $expected));
                }
                text.parse().map(Self).ok().ok_or_else(|| IdError::new(text, $expected))
            }
        }

        text_serde!($name);
    };
}

ulid_id!(
    /// The id of a snapshot.
    SnapshotId, "a snapshot id (26 characters)"
);
ulid_id!(
    /// The id of a store, made when the store is made.
    StoreId, "a store id (26 characters)"
);

ulid_id!(
    /// The id of a session: one save, or one collection, of one process.
    SessionId, "a session id (26 characters)"
);
ulid_id!(
    /// The id of a revision of a workspace; a later revision of the same workspace has a higher one.
    RevisionId, "a revision id (26 characters)"
);

impl SessionId {
    /// Returns the time in the id: when the session was begun, by its owner's clock.
    #[must_use]
    pub fn timestamp(&self) -> jiff::Timestamp {
        let milliseconds = i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl RevisionId {
    /// Makes an id of `now`, or of the millisecond after `newest` where that is later, so that a slow clock hides nothing.
    #[must_use]
    pub fn after(newest: Option<Self>, now: jiff::Timestamp) -> Self {
        let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let least = newest.map_or(0, |newest| newest.0.timestamp_ms() + 1);
        Self(ulid::Ulid::from_parts(now.max(least), fresh_ulid().random()))
    }

    /// Returns the time in the id: when the revision was recorded, by its writer's clock.
    #[must_use]
    pub fn timestamp(&self) -> jiff::Timestamp {
        let milliseconds = i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX)
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $max:literal, $valid:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Returns the name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if text.is_empty() || text.len() > $max || !valid(text) {
                    return Err(IdError::new(text, $expected));
                }
                Ok(Self(text.to_owned()))
            }
        }

        text_serde!($name);
    };
}

/// A segment of an image repository name: lower-case letters and digits, with single `.`, `_` or `-` between them.
fn is_slug(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        && !bytes.windows(2).any(|w| w.iter().all(|b| b"._-".contains(b)))
}

name_type!(
    /// The name of a snapshot, which is also the last part of its image's repository on an engine.
    SnapshotName, 63, is_slug,
    "a snapshot name (1 to 63 lower-case letters, digits, and single `.`, `_` or `-` between them)"
);
name_type!(
    /// The name of a channel of a snapshot, such as `latest` or `prod`.
    ChannelName, 63, is_slug,
    "a channel name (1 to 63 lower-case letters, digits, and single `.`, `_` or `-` between them)"
);
name_type!(
    /// The name of a workspace.
    WorkspaceName, 128,
    |text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !text.starts_with(['.', '-']),
    "a workspace name (1 to 128 ASCII letters, digits, `.`, `_` or `-`, beginning with a letter, a digit or `_`)"
);
name_type!(
    /// The id that an engine gives itself. Cloned hosts share it, so presence is looked at and never inferred.
    EngineId, 128,
    |text| text.bytes().all(|b| b.is_ascii_graphic() && b != b'/'),
    "an engine id (1 to 128 printable characters without `/`)"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_parse_only_what_they_print() {
        let digest = Sha256Digest::of(b"");
        assert_eq!(digest.to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "e3", &digest.to_string().to_uppercase(), &"g".repeat(64), &"é".repeat(32)] {
            assert!(wrong.parse::<Sha256Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_follow_the_rules_of_image_repositories() {
        for right in ["a", "litellm", "my-app.v2", "a_b", "0"] {
            assert!(right.parse::<SnapshotName>().is_ok(), "{right}");
        }
        for wrong in ["", "-a", "a-", "A", "a--b", "a b", "a/b", "a:b", "a\n", &"a".repeat(64)] {
            assert!(wrong.parse::<SnapshotName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn snapshot_ids_are_lower_case_and_sort_by_time() {
        let first = SnapshotId::generate();
        let text = first.to_string();
        assert_eq!(text, text.to_ascii_lowercase());
        assert_eq!(text.parse(), Ok(first));
        assert!("01j".parse::<SnapshotId>().is_err());
    }

    #[test]
    fn an_id_error_shows_the_input_without_its_control_characters() {
        let error = "a\nb".parse::<SnapshotName>().expect_err("a newline is no part of a name");
        assert!(error.to_string().starts_with("`a\\nb` is not a snapshot name"), "{error}");
    }
}
