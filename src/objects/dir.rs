//! A store in a directory.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix};
use crate::base::fs::{Existing, remove_durably, write_durably};

/// A store in a directory: one file an object, the key is its path below the root.
///
/// A put writes a temporary name, syncs it, renames it and syncs the directory, so several processes may share it, on a local
/// disk or on a network file system whose rename is atomic.
#[derive(Debug, Clone)]
pub struct DirStore {
    root: PathBuf,
}

impl DirStore {
    /// Uses `root`, which need not exist: the first put makes it.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Writes an object unless there is one; returns the one that is there now. Exactly one of several callers at once wins.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::put`].
    pub async fn put_if_absent(&self, key: &Key, bytes: Bytes) -> Result<Bytes, ObjectsError> {
        let path = self.path(key);
        let written = self
            .blocking("write", key.as_str(), move || match write_durably(&path, &bytes, Existing::Keep) {
                Ok(()) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    fs::read(&path).map(|there| Some(there.into()))
                }
                Err(error) => Err(error),
            })
            .await?;
        Ok(written.unwrap_or_default())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Runs `work` where blocking is fine; a missing file becomes `None`.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        key: &str,
        work: impl FnOnce() -> io::Result<Option<T>> + Send + 'static,
    ) -> Result<Option<T>, ObjectsError> {
        let result = match tokio::task::spawn_blocking(work).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound && action == "read" => Ok(None),
            Ok(result) => result,
            Err(stopped) => Err(io::Error::other(stopped)),
        };
        result.map_err(|source| ObjectsError::Io { action, key: key.to_owned(), store: self.place(), source })
    }
}

#[async_trait]
impl ObjectStore for DirStore {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        let path = self.path(key);
        self.blocking("write", key.as_str(), move || {
            write_durably(&path, &bytes, Existing::Replace).map(Some)
        })
        .await?;
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        let path = self.path(key);
        self.blocking("read", key.as_str(), move || fs::read(path).map(|bytes| Some(bytes.into()))).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        let path = self.path(key);
        self.blocking("read", key.as_str(), move || {
            let mut file = fs::File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes)?;
            Ok(Some(bytes.into()))
        })
        .await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        let (root, start) = (self.root.clone(), prefix.as_str().trim_end_matches('/').to_owned());
        let listed = self
            .blocking("list", prefix.as_str(), move || {
                let mut found = Vec::new();
                collect(&root, &start, &mut found)?;
                found.sort_by(|a: &ObjectInfo, b| a.key.cmp(&b.key));
                Ok(Some(found))
            })
            .await?;
        Ok(listed.unwrap_or_default())
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        for key in keys {
            let path = self.path(key);
            self.blocking("delete", key.as_str(), move || remove_durably(&path).map(Some)).await?;
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

/// Adds the objects below the directory `below` (relative to `root`). A directory that is not there, or goes meanwhile, has none.
fn collect(root: &Path, below: &str, found: &mut Vec<ObjectInfo>) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(below)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        // What is no key is not ours: temporary names, `lost+found`, a person's notes.
        let Ok(key) = Key::new(path) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => collect(root, key.as_str(), found)?,
            Ok(metadata) if metadata.is_file() => found.push(ObjectInfo { key, size_bytes: metadata.len() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::conformance;

    #[tokio::test]
    async fn a_directory_keeps_the_contract() {
        let home = tempfile::tempdir().unwrap();
        conformance::all(&DirStore::new(home.path().join("store"))).await;
    }

    #[tokio::test]
    async fn of_many_first_writers_one_wins_and_all_see_it() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().join("store"));
        let key = Key::new("format.json").unwrap();
        let writers = (0..16_u8).map(|n| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.put_if_absent(&key, vec![n].into()).await.unwrap() })
        });
        let seen: Vec<Bytes> =
            futures_util::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
        assert!(seen.iter().all(|bytes| bytes == &seen[0]), "{seen:?}");
    }

    #[tokio::test]
    async fn temporary_names_are_not_listed() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("a")).unwrap();
        fs::File::create(home.path().join("a/.tmp-123")).unwrap();
        let listed = DirStore::new(home.path().to_owned()).list(&Prefix::default()).await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
    }

    #[tokio::test]
    async fn a_root_that_is_a_file_is_an_error_that_names_the_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let store = DirStore::new(file.path().to_owned());
        let error = store.put(&Key::new("a/b").unwrap(), Bytes::new()).await.unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
