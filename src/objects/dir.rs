//! A store in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, Swept};
use crate::base::SessionId;
use crate::base::fs::{Existing, is_absence, move_durably, remove_all_durably, write_durably};

/// A store in a directory: one file an object, the key is its path below the root.
///
/// A put writes a temporary name (`.tmp-`, the last segment of the key, random letters), syncs it, renames it and syncs the
/// directory, so several processes may share it, on a local disk or on a network file system whose rename is atomic.
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

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Runs `work` where blocking is fine. For a reader, what is missing or a directory is no object: `None`.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        key: &str,
        work: impl FnOnce() -> io::Result<Option<T>> + Send + 'static,
    ) -> Result<Option<T>, ObjectsError> {
        let result = match tokio::task::spawn_blocking(work).await {
            Ok(Err(error)) if action == "read" && is_no_object(&error) => Ok(None),
            Ok(result) => result,
            Err(stopped) => Err(io::Error::other(stopped)),
        };
        result.map_err(|source| self.failure(action, key, source))
    }

    fn failure(&self, action: &'static str, key: &str, source: io::Error) -> ObjectsError {
        ObjectsError::Io { action, key: key.to_owned(), store: self.place(), source }
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

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        let (target, file) = (self.path(key), path.to_owned());
        self.blocking("write", key.as_str(), move || move_durably(&file, &target).map(Some)).await?;
        Ok(())
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        Some(self.root.join(SPOOL))
    }

    async fn put_if_absent(&self, key: &Key, bytes: Bytes) -> Result<Bytes, ObjectsError> {
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

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        let path = self.path(key);
        self.blocking("read", key.as_str(), move || fs::read(path).map(|bytes| Some(bytes.into()))).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        let path = self.path(key);
        self.blocking("read", key.as_str(), move || {
            let mut file = fs::File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Ok(None);
            }
            let there = metadata.len().saturating_sub(offset).min(length);
            if there == 0 {
                return Ok(Some(Bytes::new()));
            }
            file.seek(SeekFrom::Start(offset))?;
            // Room for all of it at once: growing would copy, and a buffer of zeros would be written twice.
            let mut bytes = Vec::with_capacity(usize::try_from(there).map_err(io::Error::other)?);
            file.take(there).read_to_end(&mut bytes)?;
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
        let Some(first) = keys.first().cloned() else { return Ok(()) };
        let of_paths: BTreeMap<PathBuf, Key> = keys.iter().map(|key| (self.path(key), key.clone())).collect();
        let work = move || {
            remove_all_durably(of_paths.keys().map(PathBuf::as_path))
                .map_err(|(path, error)| (of_paths.get(path).cloned(), error))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((key, source))) => Err(self.failure("delete", key.unwrap_or(first).as_str(), source)),
            Err(stopped) => Err(self.failure("delete", first.as_str(), io::Error::other(stopped))),
        }
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, ObjectsError> {
        let root = self.root.clone();
        let swept = self.blocking("sweep", "/", move || sweep(&root, older_than).map(Some)).await?;
        Ok(swept.unwrap_or_default())
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

/// Tells whether a failed read says that there is no object: nothing is there, or a directory is.
fn is_no_object(error: &io::Error) -> bool {
    is_absence(error) || error.kind() == io::ErrorKind::IsADirectory
}

/// Adds the objects below the directory `below` (relative to `root`). A directory that is not there, or goes meanwhile, has none.
fn collect(root: &Path, below: &str, found: &mut Vec<ObjectInfo>) -> io::Result<()> {
    // A file in the place of a directory is an object of this name, which has nothing below it; in the place of the root it is
    // no store.
    let is_empty = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::NotADirectory => !below.is_empty(),
        _ => false,
    };
    let entries = match fs::read_dir(root.join(below)) {
        Ok(entries) => entries,
        Err(error) if is_empty(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if is_empty(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        // What is no key is not ours: temporary names, `lost+found`, a person's notes.
        let Ok(key) = Key::new(path) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => collect(root, key.as_str(), found)?,
            Ok(metadata) if metadata.is_file() => found.push(ObjectInfo { key, size_bytes: metadata.len() }),
            Ok(_) => {}
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where files for [`ObjectStore::put_file`] are made. A name that begins with a dot is no key, so a listing passes it by.
const SPOOL: &str = ".spool";

/// Deletes temporary files that are older than `older_than` by the file system's clock. One that names a session which is still open is
/// left.
fn sweep(root: &Path, older_than: Duration) -> io::Result<Swept> {
    let clock = match tempfile::Builder::new().prefix(".tmp-sweep-").tempfile_in(root) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Swept::default()),
        Err(error) => return Err(error),
    };
    let now = clock.as_file().metadata()?.modified()?;
    let mut swept = Swept::default();
    let mut directories = vec![root.to_owned(), root.join(SPOOL)];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() && Key::new(name.clone()).is_ok() {
                directories.push(entry.path());
            }
            let is_old = now.duration_since(metadata.modified()?).is_ok_and(|age| age >= older_than);
            if !metadata.is_file() || !is_old || !is_temporary(&name) || is_of_open_session(root, &name) {
                continue;
            }
            match fs::remove_file(entry.path()) {
                Ok(()) => {
                    swept.count += 1;
                    swept.bytes += metadata.len();
                }
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(swept)
}

/// Tells whether a file has the name of a temporary one: `.tmp-`, perhaps what it was to become, six random letters.
fn is_temporary(name: &str) -> bool {
    let end = name.strip_prefix(".tmp-").map(|rest| rest.rsplit_once('-').map_or(rest, |(_, end)| end));
    end.is_some_and(|end| end.len() == 6 && end.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn is_of_open_session(root: &Path, name: &str) -> bool {
    let session = name.strip_prefix(".tmp-").and_then(|rest| rest.split('-').next());
    session
        .and_then(|session| session.parse::<SessionId>().ok())
        .is_some_and(|session| root.join("sess").join(session.to_string()).exists())
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
    async fn what_is_below_an_object_or_above_objects_is_no_object() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().to_owned());
        store.put(&Key::new("a/b").unwrap(), "b".into()).await.unwrap();
        for name in ["a", "a/b/c"] {
            assert_eq!(store.get(&Key::new(name).unwrap()).await.unwrap(), None, "{name}");
            assert_eq!(store.range(&Key::new(name).unwrap(), 0, 9).await.unwrap(), None, "{name}");
        }
        assert!(store.list(&Prefix::new("a/b").unwrap()).await.unwrap().is_empty());
        store.delete(&[Key::new("a/b/c").unwrap()]).await.unwrap();
    }

    #[tokio::test]
    async fn a_listing_survives_files_that_vanish() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().to_owned());
        let keys: Vec<Key> = (0..40).map(|n| Key::new(format!("a/{n}/x")).unwrap()).collect();
        let churn = {
            let (root, keys) = (home.path().to_owned(), keys.clone());
            tokio::task::spawn_blocking(move || {
                for _ in 0..20 {
                    for key in &keys {
                        let path = root.join(key.as_str());
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::File::create(&path).unwrap();
                    }
                    fs::remove_dir_all(root.join("a")).unwrap();
                }
            })
        };
        while !churn.is_finished() {
            store.list(&Prefix::default()).await.unwrap();
        }
        churn.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart() {
        use crate::base::Classify as _;
        let store = DirStore::new("/nonexistent".into());
        let error = store.failure("write", "a", io::ErrorKind::StorageFull.into());
        assert_eq!(error.kind(), crate::base::ErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains("full"));
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

    #[tokio::test]
    async fn what_killed_writers_left_is_swept_by_age() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().join("s"));
        let day = Duration::from_secs(86_400);
        assert_eq!(store.sweep(day).await.unwrap(), Swept::default());
        let (open, dead) = (SessionId::generate(), SessionId::generate());
        store.put(&Key::new(format!("sess/{open}")).unwrap(), "{}".into()).await.unwrap();
        store.put(&Key::new("packs/x").unwrap(), "pack".into()).await.unwrap();
        fs::create_dir(store.root.join(".spool")).unwrap();
        let make = |name: String, age: Duration| {
            let file = fs::File::create_new(store.root.join(&name)).unwrap();
            file.set_len(10).unwrap();
            file.set_modified(std::time::SystemTime::from(crate::base::now()) - age).unwrap();
            name
        };
        let (old, young) = (day + Duration::from_secs(60), day - Duration::from_secs(60));
        let goes = [
            make("packs/.tmp-x-aB3dE6".into(), old),
            make("packs/.tmp-aB3dE6".into(), old),
            make(format!(".spool/.tmp-{dead}-aB3dE6"), old),
        ];
        let stays = [
            make("packs/.tmp-x-bB3dE6".into(), young),
            make(format!(".spool/.tmp-{open}-aB3dE6"), old),
            make(format!(".spool/.tmp-{dead}-bB3dE6"), young),
            make("packs/.tmp-notes".into(), old),
            make("packs/notes".into(), old),
            make(".tmp-x.y.z".into(), old),
        ];
        assert_eq!(store.sweep(day).await.unwrap(), Swept { count: 3, bytes: 30 });
        assert!(goes.iter().all(|name| !store.root.join(name).exists()));
        assert!(stays.iter().all(|name| store.root.join(name).exists()));
        assert_eq!(store.get(&Key::new("packs/x").unwrap()).await.unwrap(), Some("pack".into()));
    }
}
