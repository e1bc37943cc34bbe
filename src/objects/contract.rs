//! The contract of an object store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Key, ObjectsError, Prefix};

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What [`ObjectStore::sweep`] deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many files or uploads.
    pub count: u64,
    /// What they took, where the store says it; an S3 server does not.
    pub bytes: u64,
}

/// Objects under keys. Every method may be called from several tasks and processes at once.
///
/// After `put` has returned, every later `get` and `list`, from any process, sees the object; after `delete`, none does.
/// There is no conditional put, because not every S3 server keeps its promise of one.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Writes an object, whole or not at all, durable when this returns; takes the place of an earlier one.
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError>;

    /// Writes an object from the file at `path`, as [`ObjectStore::put`] does; needs only a part of it in memory at a time.
    /// The file is the store's from now on: it may be moved, and is gone when this returns without an error.
    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError>;

    /// Returns the directory in which files for [`ObjectStore::put_file`] are best made, where there is one better than
    /// another: on the file system of the store a file is moved and not copied. It may not be there yet.
    fn spool_dir(&self) -> Option<PathBuf>;

    /// Writes an object unless there is one; returns the one that is there now. In a directory exactly one of several callers
    /// at once wins; elsewhere the last one may, so nothing that must hold rests on it.
    async fn put_if_absent(&self, key: &Key, bytes: Bytes) -> Result<Bytes, ObjectsError> {
        if let Some(there) = self.get(key).await? {
            return Ok(there);
        }
        self.put(key, bytes.clone()).await?;
        Ok(self.get(key).await?.unwrap_or(bytes))
    }

    /// Returns an object; `None` when there is none.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError>;

    /// Returns up to `length` bytes from `offset`; fewer at the end of the object, `None` when there is no object.
    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError>;

    /// Returns an object; of one that is longer than `most_bytes` no more than its first `most_bytes` + 1 bytes, so that whatever
    /// somebody put under the key takes no more memory than that. `None` when there is no object.
    async fn get_up_to(&self, key: &Key, most_bytes: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.range(key, 0, most_bytes.saturating_add(1)).await
    }

    /// Returns the objects whose keys begin with `prefix`, sorted by key. An object written or deleted while this runs may
    /// or may not be among them.
    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError>;

    /// Deletes objects, durable when this returns. A key without an object is fine. After an error some may be gone.
    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError>;

    /// Deletes what killed writers have left that is no object, where it is older than `older_than` by the store's own clock:
    /// temporary files of a directory, incomplete uploads of an S3 server. Give more time than any write takes. After an error some
    /// may be gone.
    async fn sweep(&self, older_than: Duration) -> Result<Swept, ObjectsError> {
        let _nothing_is_left_behind = older_than;
        Ok(Swept::default())
    }

    /// Returns where the store is, for messages.
    fn place(&self) -> String;
}

#[async_trait]
impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.as_ref().put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.as_ref().put_file(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        self.as_ref().spool_dir()
    }

    async fn put_if_absent(&self, key: &Key, bytes: Bytes) -> Result<Bytes, ObjectsError> {
        self.as_ref().put_if_absent(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.as_ref().get(key).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.as_ref().range(key, offset, length).await
    }

    async fn get_up_to(&self, key: &Key, most_bytes: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.as_ref().get_up_to(key, most_bytes).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, ObjectsError> {
        self.as_ref().sweep(older_than).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        self.as_ref().list(prefix).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        self.as_ref().delete(keys).await
    }

    fn place(&self) -> String {
        self.as_ref().place()
    }
}
