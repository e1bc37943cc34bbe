//! Any store within a bandwidth.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, Swept};

/// How many bytes a second may go each way. `None` is as many as will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// Written bytes a second.
    pub up: Option<u64>,
    /// Read bytes a second.
    pub down: Option<u64>,
}

/// A store that keeps another one within a bandwidth, over all its callers. It counts the bytes of objects, not of requests.
///
/// An object goes at full speed, and the next one waits until it is paid for: the average is kept, over times that are longer
/// than one object takes.
#[derive(Debug)]
pub struct Throttled<S> {
    inner: S,
    up: Lane,
    down: Lane,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    bytes_per_second: Option<u64>,
    /// When everything is paid for that has gone so far.
    free_at: Mutex<Option<Instant>>,
}

impl Lane {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.map(|rate| rate.max(1)), free_at: Mutex::new(None) }
    }

    /// Adds the price of `bytes` to what is owed, and waits until what was owed before is paid.
    async fn charge(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let start = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let start = free_at.unwrap_or_else(Instant::now).max(Instant::now());
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
            *free_at = Some(start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4)));
            start
        };
        sleep_until(start).await;
    }
}

impl<S: ObjectStore> Throttled<S> {
    /// Keeps `inner` within `bandwidth`.
    #[must_use]
    pub fn new(inner: S, bandwidth: Bandwidth) -> Self {
        Self { inner, up: Lane::new(bandwidth.up), down: Lane::new(bandwidth.down) }
    }

    async fn paid(&self, bytes: Option<Bytes>) -> Option<Bytes> {
        // The size is known only now; who reads next waits for it.
        self.down.charge(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)).await;
        bytes
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Throttled<S> {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.up.charge(bytes.len() as u64).await;
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        // A file that cannot be asked for its size is the store's to complain about.
        let length = tokio::fs::metadata(path).await.map_or(0, |metadata| metadata.len());
        self.up.charge(length).await;
        self.inner.put_file(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        self.inner.spool_dir()
    }

    async fn put_if_absent(&self, key: &Key, bytes: Bytes) -> Result<Bytes, ObjectsError> {
        self.inner.put_if_absent(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.down.charge(0).await;
        let bytes = self.inner.get(key).await?;
        Ok(self.paid(bytes).await)
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.down.charge(0).await;
        let bytes = self.inner.range(key, offset, length).await?;
        Ok(self.paid(bytes).await)
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        self.inner.list(prefix).await
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, ObjectsError> {
        self.inner.sweep(older_than).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        self.inner.delete(keys).await
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::Monotonic;
    use crate::objects::{SimStore, conformance};

    #[tokio::test]
    async fn a_bandwidth_leaves_the_contract_as_it_is() {
        let inner: Arc<dyn ObjectStore> = Arc::new(SimStore::new(1));
        let bandwidth = Bandwidth { up: Some(1 << 30), down: None };
        conformance::all(&Throttled::new(inner, bandwidth)).await;
    }

    #[tokio::test]
    async fn the_average_is_kept_each_way_over_all_callers() {
        let store =
            Throttled::new(SimStore::new(1), Bandwidth { up: Some(1_000_000), down: Some(2_000_000) });
        let keys: Vec<Key> = (0..6).map(|n| Key::new(format!("{n}")).unwrap()).collect();
        let start = Monotonic::start();
        futures_util::future::join_all(keys.iter().map(|key| store.put(key, vec![0; 50_000].into()))).await;
        // Six objects of 50 ms each, the last of which is still to be paid for.
        assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
        let start = Monotonic::start();
        for key in &keys {
            store.get(key).await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(125), "{:?}", start.elapsed());
    }
}
