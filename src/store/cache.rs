//! The host's copies of index segments: disposable, shared by all processes of a user.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::pack::WrittenName;
use super::segment::Segment;
use super::small;
use super::wire::broken;
use crate::base::fs::{Existing, write_durably_with};
use crate::base::{Sha256Digest, StoreId};
use crate::objects::{Key, ObjectStore};

/// Cached files that were not used longest go once there is more than this.
const CAP_BYTES: u64 = 2 << 30;

/// The host's copies of index segments. Whatever lies in it may be deleted at any time.
#[derive(Debug, Clone)]
pub struct IndexCache {
    directory: PathBuf,
}

impl IndexCache {
    /// Uses a folder below `cache_dir` that is this store's own.
    #[must_use]
    pub fn new(cache_dir: &Path, store: StoreId) -> Self {
        Self { directory: cache_dir.join("index").join(store.to_string()) }
    }

    /// Opens a segment, fetched and verified when it is not here yet; `None` when the store has it no more.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer, and on a segment that is not what was written.
    pub async fn open(
        &self,
        objects: &dyn ObjectStore,
        name: &WrittenName,
        key: &Key,
    ) -> Result<Option<Segment>, StoreError> {
        let path = self.directory.join(name.to_string());
        if let Ok(file) = File::open(&path) {
            // A copy that cannot be opened is fetched again; it proves nothing about the store.
            let touched = file.set_modified(std::time::SystemTime::from(crate::base::now()));
            if let (Ok(segment), Ok(()) | Err(_)) = (Segment::open_file(file), touched) {
                return Ok(Some(segment));
            }
        }
        let Some(bytes) = small::read(objects, key, small::SEGMENT_BYTES).await? else { return Ok(None) };
        let damaged = |source| StoreError::Damaged { key: key.to_string(), store: objects.place(), source };
        if WrittenName::new(name.session, name.number, &Sha256Digest::of(&bytes)) != *name {
            return Err(damaged(broken("its digest does not match its name")));
        }
        let segment = Segment::open(&bytes).map_err(damaged)?;
        // Without room for a copy the save still works, from memory.
        match self.keep(&path, &bytes) {
            Ok(Some(copy)) => Ok(Some(copy)),
            Ok(None) | Err(_) => Ok(Some(segment)),
        }
    }

    fn keep(&self, path: &Path, bytes: &[u8]) -> io::Result<Option<Segment>> {
        write_durably_with(path, Existing::Replace, |file| io::Write::write_all(file, bytes))?;
        self.shrink()?;
        Segment::open_file(File::open(path)?).map(Some)
    }

    /// Deletes what was not used longest until the cap is kept.
    fn shrink(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (_, size, path) in files {
            if total <= CAP_BYTES {
                break;
            }
            match std::fs::remove_file(path) {
                Ok(()) => total -= size,
                Err(error) if error.kind() == io::ErrorKind::NotFound => total -= size,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
