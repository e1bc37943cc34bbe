//! Saves that are given up: what they still do, and what they leave.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::scene::{BadRead, Host, Scene, change, noise, plant, quiet, write};
use crate::base::{Classify as _, ErrorKind};
use crate::objects::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, SimDeed, SimStore};
use crate::workspace::contents::POISON;
use crate::workspace::{SaveSpec, WorkspaceError, save};

/// A store whose uploads of files last until their session has ended, or ten seconds.
#[derive(Debug)]
struct Slow {
    inner: SimStore,
    began: AtomicBool,
    ended: AtomicBool,
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.began.store(true, Ordering::SeqCst);
        for _ in 0..1_000 {
            if self.ended.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.inner.put_file(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.inner.get(key).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.inner.range(key, offset, length).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        self.inner.delete(keys).await?;
        self.ended.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// Uploads of a save that was given up once went on behind its back: their packs came into the store after their session had ended, when
/// no collector waits for them any more.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_end_before_the_session_of_a_save_that_is_given_up() {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    plant(&tree, 1);
    // More than a pack, so that an upload begins while the directory is read.
    for number in 0..4 {
        write(&tree.join(format!("large-{number}")), &noise(number, 20 << 20));
    }
    let inner = scene.sim.actor("host");
    let slow = Arc::new(Slow { inner, began: AtomicBool::new(false), ended: AtomicBool::new(false) });
    let host = scene.host_on("host", Arc::clone(&slow) as Arc<dyn ObjectStore>);
    let cancel = CancellationToken::new();
    let (watched, later) = (Arc::clone(&slow), cancel.clone());
    let watching = tokio::spawn(async move {
        while !watched.began.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        later.cancel();
    });
    let spec = SaveSpec::new("w".parse().unwrap());
    let error = save(&host.depot, &tree, &spec, quiet(), &cancel).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    watching.await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let log = scene.sim.log();
    let ended = log
        .iter()
        .position(|operation| operation.deed == SimDeed::Delete && operation.key.starts_with("sess/"))
        .unwrap();
    let late: Vec<_> = log
        .iter()
        .skip(ended)
        .filter(|operation| matches!(operation.deed, SimDeed::Put | SimDeed::PutFile))
        .collect();
    assert!(late.is_empty(), "{late:?}");
}

/// A session once stayed in the store, for a collector to find, where a read failed between the flush and the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_fails_before_its_record_leaves_no_session() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    plant(&tree, 1);
    host.save(&tree, "w").await.unwrap();
    let source = host.revisions().await.pop().unwrap();
    let source = crate::store::revision::read(&*host.depot.objects, &source).await.unwrap().unwrap();
    for is_copy in [false, true] {
        for n in 1..=100_i64 {
            assert!(n < 100, "a job makes fewer reads");
            change(&tree, 100 * u64::from(is_copy) + n.unsigned_abs());
            let revisions = host.revisions().await.len();
            let store = BadRead::new(scene.sim.actor("host"), n);
            let striken = scene.host_on("host", store.clone());
            let result = match is_copy {
                false => striken.save(&tree, "w").await.map(|_| ()),
                true => crate::workspace::copy(&striken.depot, &source, &"v".parse().unwrap(), [].into())
                    .await
                    .map(|_| ()),
            };
            let sessions = host.depot.objects.list(&Prefix::new("sess").unwrap()).await.unwrap();
            let keys: Vec<Key> = sessions.into_iter().map(|session| session.key).collect();
            // Once the record may be there, the session has to stay.
            if result.is_err() && host.revisions().await.len() == revisions {
                assert!(keys.is_empty(), "read {n}, copy: {is_copy}: {keys:?}");
            }
            scene.sim.delete(&keys).await.unwrap();
            if !store.has_struck() {
                result.unwrap();
                break;
            }
        }
    }
}

/// A save once waited for ever for a thread that had stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_stops_ends_its_save_with_an_error() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    plant(&tree, 1);
    for number in 0..2_000 {
        write(&tree.join(format!("file-{number:04}")), format!("{number}").as_bytes());
    }
    write(&tree.join("file-0500"), POISON);
    let save = async |host: &Host, is_archive: bool| -> Result<(), WorkspaceError> {
        let saved = async {
            match is_archive {
                false => host.save(&tree, "w").await,
                true => host.save_archive(&tree, "w").await,
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), saved).await;
        ended.expect("a save that waits for nobody").map(|_| ())
    };
    for is_archive in [false, true] {
        let error = save(&host, is_archive).await.unwrap_err();
        assert!(format!("{error:?}").contains("a thread of this save has stopped"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(host.revisions().await.is_empty());
        assert!(host.depot.objects.list(&Prefix::new("sess").unwrap()).await.unwrap().is_empty());
    }
    write(&tree.join("file-0500"), b"not any more");
    for is_archive in [false, true] {
        save(&host, is_archive).await.unwrap();
    }
}
