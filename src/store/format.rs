//! `format.json`: the first object of a store, written once.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::{ByteSize, Classify, ErrorKind, StoreId};
use crate::objects::{Key, KeyError, ObjectStore, ObjectsError};

/// What a store is. Written once, when the store is made, and never again.
///
/// The settings that were not there in the first releases have as defaults what those releases did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Always `kiln-store`.
    pub kind: String,
    /// Version of the layout. A reader refuses a higher one than it knows.
    pub version: u32,
    /// The store's id.
    pub id: StoreId,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// What names a chunk; always `sha256`.
    #[serde(default = "sha256")]
    pub hash: String,
    /// How content is cut.
    #[serde(default)]
    pub chunker: ChunkerFormat,
    /// Most uncompressed bytes of a frame that holds more than one chunk.
    #[serde(default = "frame_bytes")]
    pub frame_bytes: u32,
    /// What compresses a frame; always `zstd`.
    #[serde(default = "zstd")]
    pub compression: String,
    /// What seals frames; this version knows none and refuses any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<serde_json::Value>,
    /// Most bytes that the store may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
}

/// How the content of files is cut into chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkerFormat {
    /// Always `fastcdc2020`.
    pub name: String,
    /// Least bytes of a chunk, but for the last one of a file.
    pub min_bytes: u32,
    /// What the bytes of a chunk are near to; a power of two.
    pub average_bytes: u32,
    /// Most bytes of a chunk.
    pub max_bytes: u32,
    /// How strongly lengths keep to the average, from 0 to 3.
    pub normalization: u8,
    /// Most bytes of a file that is one chunk as it is.
    pub whole_file_max_bytes: u32,
}

impl Default for ChunkerFormat {
    fn default() -> Self {
        Self {
            name: FASTCDC.into(),
            min_bytes: 16 << 10,
            average_bytes: 64 << 10,
            max_bytes: 256 << 10,
            normalization: 1,
            whole_file_max_bytes: 128 << 10,
        }
    }
}

impl ChunkerFormat {
    /// Returns the settings by their names, for comparison.
    fn settings(&self) -> [(&'static str, u32); 5] {
        let Self { name: _, min_bytes, average_bytes, max_bytes, normalization, whole_file_max_bytes } = self;
        [
            ("chunker.min_bytes", *min_bytes),
            ("chunker.average_bytes", *average_bytes),
            ("chunker.max_bytes", *max_bytes),
            ("chunker.normalization", u32::from(*normalization)),
            ("chunker.whole_file_max_bytes", *whole_file_max_bytes),
        ]
    }
}

/// 1 MiB: a thousand times what is written.
const MOST_BYTES: u64 = 1 << 20;

/// The only chunker: FastCDC as its paper of 2020 has it.
const FASTCDC: &str = "fastcdc2020";

fn sha256() -> String {
    "sha256".into()
}

fn zstd() -> String {
    "zstd".into()
}

fn frame_bytes() -> u32 {
    512 << 10
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The store does not answer.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// A key is wrong, which is a defect of this program.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The object is no description of a store.
    #[error("`format.json` of the store `{store}` cannot be understood")]
    Unreadable {
        /// The store.
        store: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The layout is newer than this program.
    #[error(
        "the store `{store}` has layout version {found}, and this program knows up to {}",
        Format::VERSION
    )]
    Newer {
        /// The store.
        store: String,
        /// Its version.
        found: u32,
    },
    /// Something in it is not known to this program.
    #[error("the store `{store}` has the {what} `{found}`, which this program does not know")]
    Unknown {
        /// The store.
        store: String,
        /// `kind`, `hash`, `chunker`, `compression` or `cipher`.
        what: &'static str,
        /// What it says.
        found: String,
    },
    /// A setting has another value than the only one that this program works with.
    #[error(
        "the store `{store}` has `{field}` {found} in `format.json`, and this program supports only {supported}"
    )]
    Unsupported {
        /// The store.
        store: String,
        /// The setting.
        field: &'static str,
        /// What it says.
        found: u32,
        /// What this program works with.
        supported: u32,
    },
    /// There is no store yet.
    #[error("there is no store at `{store}` yet")]
    Missing {
        /// Where.
        store: String,
    },
    /// There is a store already.
    #[error("there is a store at `{store}` already, with the id {id}")]
    Exists {
        /// Where.
        store: String,
        /// Its id.
        id: StoreId,
    },
}

impl Classify for FormatError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Objects(error) => error.kind(),
            Self::Key(_) => ErrorKind::Internal,
            Self::Unreadable { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } | Self::Unknown { .. } | Self::Unsupported { .. } => ErrorKind::Invalid,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Objects(error) => error.hint(),
            Self::Newer { .. } | Self::Unknown { .. } | Self::Unsupported { .. } => {
                Some("use a newer Kiln for this store".into())
            }
            Self::Missing { store } => Some(format!("make it with `kiln store init --store '{store}'`")),
            Self::Key(_) | Self::Unreadable { .. } | Self::Exists { .. } => None,
        }
    }
}

impl Format {
    /// The version that this program writes, and the highest that it reads.
    pub const VERSION: u32 = 1;

    /// Opens a store.
    ///
    /// # Errors
    ///
    /// Fails when there is none, when it cannot be read, or when this program does not know what it is.
    pub async fn open(store: &dyn ObjectStore) -> Result<Self, FormatError> {
        // A longer one is cut off, and then cannot be understood.
        match store.get_up_to(&key()?, MOST_BYTES).await? {
            Some(bytes) => Self::read(store, &bytes),
            None => Err(FormatError::Missing { store: store.place() }),
        }
    }

    /// Makes a store. In a directory exactly one of several callers at once makes it; on S3 this is for one operator to do once.
    ///
    /// # Errors
    ///
    /// Fails when there is one already, or when the store cannot be written.
    pub async fn init(
        store: &dyn ObjectStore,
        quota: Option<ByteSize>,
        now: jiff::Timestamp,
    ) -> Result<Self, FormatError> {
        let format = Self::new(quota, now);
        let there = Self::read(store, &store.put_if_absent(&key()?, format.written(store)?).await?)?;
        if there.id == format.id {
            Ok(there)
        } else {
            Err(FormatError::Exists { store: store.place(), id: there.id })
        }
    }

    /// Opens a store; makes it when there is none. For directories: of several first users one makes it.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read or written, or this program does not know what it is.
    pub async fn open_or_init(store: &dyn ObjectStore, now: jiff::Timestamp) -> Result<Self, FormatError> {
        match Self::open(store).await {
            Err(FormatError::Missing { .. }) => {
                let written = Self::new(None, now).written(store)?;
                Self::read(store, &store.put_if_absent(&key()?, written).await?)
            }
            opened => opened,
        }
    }

    fn new(quota: Option<ByteSize>, now: jiff::Timestamp) -> Self {
        Self {
            kind: KIND.into(),
            version: Self::VERSION,
            id: StoreId::generate(),
            created: now,
            hash: sha256(),
            chunker: ChunkerFormat::default(),
            frame_bytes: frame_bytes(),
            compression: zstd(),
            cipher: None,
            quota_bytes: quota.map(|quota| quota.0),
        }
    }

    fn written(&self, store: &dyn ObjectStore) -> Result<Bytes, FormatError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| unreadable(store, source))?;
        Ok(bytes.into())
    }

    fn read(store: &dyn ObjectStore, bytes: &[u8]) -> Result<Self, FormatError> {
        // The version first: a later one may have other fields.
        let header: Header = serde_json::from_slice(bytes).map_err(|source| unreadable(store, source))?;
        let unknown = |what, found: &dyn std::fmt::Display| FormatError::Unknown {
            store: store.place(),
            what,
            found: found.to_string(),
        };
        if header.kind != KIND {
            return Err(unknown("kind", &header.kind));
        }
        if header.version > Self::VERSION {
            return Err(FormatError::Newer { store: store.place(), found: header.version });
        }
        let format: Self = serde_json::from_slice(bytes).map_err(|source| unreadable(store, source))?;
        if let Some(cipher) = &format.cipher {
            let name = cipher.get("name").and_then(|name| name.as_str()).or_else(|| cipher.as_str());
            return Err(unknown("cipher", &name.unwrap_or("without a name")));
        }
        if format.hash != sha256() {
            return Err(unknown("hash", &format.hash));
        }
        if format.compression != zstd() {
            return Err(unknown("compression", &format.compression));
        }
        if format.chunker.name != FASTCDC {
            return Err(unknown("chunker", &format.chunker.name));
        }
        // This version cuts and packs in one way: chunks that are cut in another would never be found to be the same.
        let found = format.chunker.settings().into_iter().chain([("frame_bytes", format.frame_bytes)]);
        let supported =
            ChunkerFormat::default().settings().into_iter().chain([("frame_bytes", frame_bytes())]);
        for ((field, found), (_, supported)) in found.zip(supported) {
            if found != supported {
                return Err(FormatError::Unsupported { store: store.place(), field, found, supported });
            }
        }
        Ok(format)
    }
}

/// What tells a store from any other object of this name.
const KIND: &str = "kiln-store";

/// What every version of the format begins with.
#[derive(Deserialize)]
struct Header {
    kind: String,
    version: u32,
}

fn key() -> Result<Key, KeyError> {
    Key::new("format.json")
}

fn unreadable(store: &dyn ObjectStore, source: serde_json::Error) -> FormatError {
    FormatError::Unreadable { store: store.place(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::now;
    use crate::objects::{DirStore, SimStore};

    #[tokio::test]
    async fn a_store_keeps_its_id() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().join("s"));
        let first = Format::open_or_init(&store, now()).await.unwrap();
        assert_eq!(Format::open_or_init(&store, now()).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_newer_or_damaged_store_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().to_owned());
        let key = Key::new("format.json").unwrap();
        let newer = format!(
            r#"{{"kind":"kiln-store","version":2,"id":"{}","created":"2026-01-01T00:00:00Z"}}"#,
            StoreId::generate()
        );
        for (bytes, kind) in [(newer.as_str(), ErrorKind::Invalid), ("{", ErrorKind::Corrupt)] {
            store.put(&key, bytes.to_owned().into()).await.unwrap();
            assert_eq!(Format::open_or_init(&store, now()).await.unwrap_err().kind(), kind);
        }
    }

    #[tokio::test]
    async fn a_store_is_made_once_and_not_by_opening_it() {
        let store = SimStore::new(1);
        let error = Format::open(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().unwrap().contains("kiln store init"));
        let made = Format::init(&store, Some(ByteSize(5 << 30)), now()).await.unwrap();
        assert_eq!(made.quota_bytes, Some(5 << 30));
        assert_eq!(Format::open(&store).await.unwrap(), made);
        assert_eq!(Format::init(&store, None, now()).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(Format::open_or_init(&store, now()).await.unwrap(), made);
    }

    #[tokio::test]
    async fn a_store_of_the_first_release_has_todays_settings() {
        let store = SimStore::new(1);
        let id = StoreId::generate();
        let old =
            format!(r#"{{"kind":"kiln-store","version":1,"id":"{id}","created":"2026-01-01T00:00:00Z"}}"#);
        store.put(&key().unwrap(), old.into()).await.unwrap();
        let format = Format::open(&store).await.unwrap();
        assert_eq!(Format { created: format.created, id, ..Format::new(None, now()) }, format);
    }

    #[tokio::test]
    async fn what_is_not_known_is_refused_by_name() {
        let chunker = |name, average| {
            serde_json::json!({"name": name, "min_bytes": 16384, "average_bytes": average,
                "max_bytes": 262_144, "normalization": 1, "whole_file_max_bytes": 131_072})
        };
        for (field, value, word) in [
            ("kind", serde_json::json!("other-store"), "other-store"),
            ("hash", serde_json::json!("blake9"), "blake9"),
            ("compression", serde_json::json!("lz9"), "lz9"),
            ("cipher", serde_json::json!("aes"), "aes"),
            ("cipher", serde_json::json!({"name": "chacha", "key": 1}), "chacha"),
            ("chunker", chunker("rabin", 65536), "rabin"),
            ("chunker", chunker("fastcdc2020", 131_072), "`chunker.average_bytes` 131072"),
            ("frame_bytes", serde_json::json!(1_048_576), "`frame_bytes` 1048576"),
            ("frame_bytes", serde_json::json!(1), "only 524288"),
        ] {
            let store = SimStore::new(1);
            let mut format = serde_json::to_value(Format::new(None, now())).unwrap();
            format[field] = value;
            store.put(&key().unwrap(), format.to_string().into()).await.unwrap();
            let error = Format::open(&store).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{field}: {error}");
            assert!(error.to_string().contains(word), "{field}: {error}");
        }
    }
}
