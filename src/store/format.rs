//! `format.json`: the first object of a store, written once.

use serde::{Deserialize, Serialize};

use crate::base::{Classify, ErrorKind, StoreId};
use crate::objects::{DirStore, Key, KeyError, ObjectStore, ObjectsError};

/// What a store is. Written once, when the store is made, and never again.
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
}

impl Classify for FormatError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Objects(error) => error.kind(),
            Self::Key(_) => ErrorKind::Internal,
            Self::Unreadable { .. } => ErrorKind::Corrupt,
            Self::Newer { .. } => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Objects(error) => error.hint(),
            Self::Newer { .. } => Some("use a newer Kiln for this store".into()),
            Self::Key(_) | Self::Unreadable { .. } => None,
        }
    }
}

impl Format {
    /// The version that this program writes, and the highest that it reads.
    pub const VERSION: u32 = 1;

    /// Opens the store in a directory; makes it when there is none. Of several first users one makes it.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be read or written, or holds a store that this program does not know.
    pub async fn open_or_init(store: &DirStore, now: jiff::Timestamp) -> Result<Self, FormatError> {
        let key = Key::new("format.json")?;
        let bytes = match store.get(&key).await? {
            Some(bytes) => bytes,
            None => {
                let format = Self {
                    kind: "kiln-store".into(),
                    version: Self::VERSION,
                    id: StoreId::generate(),
                    created: now,
                };
                let bytes = serde_json::to_vec_pretty(&format).map_err(|source| unreadable(store, source))?;
                store.put_if_absent(&key, bytes.into()).await?
            }
        };
        let format: Self = serde_json::from_slice(&bytes).map_err(|source| unreadable(store, source))?;
        if format.version > Self::VERSION {
            return Err(FormatError::Newer { store: store.place(), found: format.version });
        }
        Ok(format)
    }
}

fn unreadable(store: &DirStore, source: serde_json::Error) -> FormatError {
    FormatError::Unreadable { store: store.place(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::now;

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
}
