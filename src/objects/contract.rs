//! The contract of an object store.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Key, Prefix};
use crate::base::{Classify, ErrorKind};

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Objects under keys. Every method may be called from several tasks and processes at once.
///
/// After `put` has returned, every later `get` and `list`, from any process, sees the object; after `delete`, none does.
/// There is no conditional put, because not every S3 server keeps its promise of one.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Writes an object, whole or not at all, durable when this returns; takes the place of an earlier one.
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError>;

    /// Returns an object; `None` when there is none.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError>;

    /// Returns up to `length` bytes from `offset`; fewer at the end of the object, `None` when there is no object.
    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError>;

    /// Returns the objects whose keys begin with `prefix`, sorted by key. An object written or deleted while this runs may
    /// or may not be among them.
    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError>;

    /// Deletes objects, durable when this returns. A key without an object is fine. After an error some may be gone.
    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError>;

    /// Returns where the store is, for messages.
    fn place(&self) -> String;
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
        source: std::io::Error,
    },
}

impl Classify for ObjectsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("choose a store this user may write with --store or KILN_STORE".into())
            }
            Self::Io { .. } => None,
        }
    }
}
