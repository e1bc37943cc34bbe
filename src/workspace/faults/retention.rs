//! Prunes and undos of which anything fails, and pins that come at the worst moment.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::scene::{BadRead, Host, Look, Scene, change, look, plant};
use crate::base::{Classify as _, Discard, ErrorKind, RevisionId, now};
use crate::objects::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, SimStore, SimWhen};
use crate::store::revision::RevisionRef;
use crate::store::view::Condemned;
use crate::workspace::{
    Depot, PolicySet, PruneOutcome, PrunePolicy, PruneReport, PruneRules, PruneScope, Selection,
    WorkspaceError, pin, plan_prune, prune, remove, show, undo,
};

const STROKES: [SimWhen; 2] = [SimWhen::Before, SimWhen::After];

/// Saves a workspace some times; returns what each revision holds.
async fn saves(scene: &Scene, count: u64) -> BTreeMap<RevisionId, Look> {
    let (tree, host, mut saved) = (scene.path("tree"), scene.host("host"), BTreeMap::new());
    plant(&tree, 1);
    for n in 0..count {
        change(&tree, n);
        saved.insert(host.save(&tree, "w").await.unwrap().revision, look(&tree));
    }
    saved
}

/// Keeps the last two.
async fn pruned(depot: &Depot) -> Result<PruneReport, WorkspaceError> {
    let rules = PruneRules { keep_last: NonZeroU32::new(2), ..PruneRules::default() };
    let policies = PolicySet::same(PrunePolicy::new(rules)?)?;
    let plan = plan_prune(depot, &PruneScope::All, &policies, now(), &Discard).await?;
    prune(depot, plan, &Discard, &CancellationToken::new()).await
}

async fn ids(host: &Host) -> Vec<RevisionId> {
    host.revisions().await.into_iter().map(|revision| revision.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_fails_at_any_write_tells_what_stays_and_is_finished_by_the_next() {
    for when in STROKES {
        for n in 1..=3 {
            let scene = Scene::new(n);
            let saved: Vec<RevisionId> = saves(&scene, 4).await.into_keys().collect();
            scene.sim.fail_write(n, when);
            let report = pruned(&scene.host("host").depot).await.unwrap();
            let left = ids(&scene.stranger()).await;
            for (item, outcome) in &report.items {
                let is_there = left.contains(&item.revision.id);
                assert_eq!(is_there, !matches!(outcome, Some(PruneOutcome::Removed)), "{outcome:?}");
            }
            let is_struck = n < 3 && when == SimWhen::Before;
            assert_eq!((report.failed(), report.removed()), if is_struck { (1, 1) } else { (0, 2) });
            pruned(&scene.host("host").depot).await.unwrap();
            assert_eq!(ids(&scene.stranger()).await, saved[2..]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_fails_at_any_read_removes_nothing_that_is_to_stay() {
    for n in 1..40 {
        let scene = Scene::new(1);
        let saved: Vec<RevisionId> = saves(&scene, 4).await.into_keys().collect();
        let store = BadRead::new(scene.sim.actor("host"), n);
        let result = pruned(&scene.host_on("host", store.clone()).depot).await;
        let left = ids(&scene.stranger()).await;
        assert!(saved[2..].iter().all(|id| left.contains(id)), "read {n}: {left:?}");
        match &result {
            Ok(report) => assert_eq!(report.unsure.is_some(), store.has_struck(), "read {n}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "read {n}: {error}");
                assert_eq!(left, saved);
            }
        }
        if !store.has_struck() {
            let report = result.unwrap();
            assert_eq!((report.removed(), report.unsure.is_none()), (2, true));
            assert!(n > 8, "a prune makes more reads than {n}");
            return;
        }
    }
    panic!("a prune makes fewer reads");
}

/// Saves two revisions and removes the second, whose packs are condemned then; returns it, and what both hold.
async fn removed_and_condemned(scene: &Scene) -> (RevisionRef, BTreeMap<RevisionId, Look>) {
    let saved = saves(scene, 2).await;
    let host = scene.host("host");
    let last = host.revisions().await.pop().unwrap();
    let record = show(&host.depot, &last).await.unwrap();
    let own = record.packs.iter().filter(|info| info.pack.name.session == last.session);
    let list = Condemned {
        version: 1,
        packs: own.map(|info| info.pack.key().unwrap().to_string()).collect(),
        ..Condemned::default()
    };
    assert!(!list.packs.is_empty());
    remove(&host.depot, &Selection::One(last.clone())).await.unwrap();
    scene.sim.put(&Key::new("gc/run").unwrap(), serde_json::to_vec(&list).unwrap().into()).await.unwrap();
    (last, saved)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_at_any_write_brings_nothing_broken_back() {
    for when in STROKES {
        for does_die in [false, true] {
            for n in 1.. {
                let scene = Scene::new(n);
                let (last, mut acknowledged) = removed_and_condemned(&scene).await;
                let content = acknowledged.remove(&last.id).unwrap();
                let before = scene.sim.writes();
                if does_die {
                    scene.sim.crash_at_write(n, when)
                } else {
                    scene.sim.fail_write(n, when)
                };
                let result = undo(&scene.host("host").depot, &last).await;
                let is_struck = scene.sim.writes() - before >= n;
                if let Ok(report) = &result {
                    acknowledged.insert(report.revision, content.clone());
                }
                scene.verify(&acknowledged, &[&content]).await;
                if !is_struck {
                    result.unwrap();
                    assert!(n > 5, "an undo makes more writes than {n}");
                    break;
                }
                if let Err(error) = result {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "write {n}: {error}");
                }
                let again = undo(&scene.stranger().depot, &last).await.unwrap();
                acknowledged.insert(again.revision, content.clone());
                scene.verify(&acknowledged, &[&content]).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_at_any_read_brings_nothing_broken_back() {
    for n in 1..60 {
        let scene = Scene::new(1);
        let (last, mut acknowledged) = removed_and_condemned(&scene).await;
        let content = acknowledged.remove(&last.id).unwrap();
        let store = BadRead::new(scene.sim.actor("host"), n);
        let result = undo(&scene.host_on("host", store.clone()).depot, &last).await;
        match &result {
            Ok(report) => {
                acknowledged.insert(report.revision, content.clone());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "read {n}: {error}"),
        }
        scene.verify(&acknowledged, &[&content]).await;
        if !store.has_struck() {
            result.unwrap();
            assert!(n > 8, "an undo makes more reads than {n}");
            return;
        }
    }
    panic!("an undo makes fewer reads");
}

/// A store in which somebody pins a revision just before its tombstone is written.
#[derive(Debug)]
struct PinnedAtBurial {
    inner: SimStore,
    somebody: Depot,
}

#[async_trait]
impl ObjectStore for PinnedAtBurial {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        if key.as_str().starts_with("removed/") {
            let revisions = crate::store::revision::list(&self.inner, None).await.unwrap();
            let pinned = revisions.iter().find(|it| key.as_str().ends_with(&it.id.to_string())).unwrap();
            pin(&self.somebody, pinned, "just now").await.unwrap();
        }
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
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
        self.inner.delete(keys).await
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// The pin was written before the tombstone, so whoever pinned was told that all is well: the prune has to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_tells_of_pins_that_came_while_it_removed() {
    let scene = Scene::new(1);
    let saved: Vec<RevisionId> = saves(&scene, 4).await.into_keys().collect();
    let store = PinnedAtBurial { inner: scene.sim.actor("host"), somebody: scene.host("other").depot };
    let host = scene.host_on("host", Arc::new(store));
    let report = pruned(&host.depot).await.unwrap();
    assert_eq!((report.removed(), report.failed()), (2, 2));
    let told = |outcome: &Option<PruneOutcome>| matches!(outcome, Some(PruneOutcome::RemovedThoughPinned));
    assert_eq!(report.items.iter().filter(|(_, outcome)| told(outcome)).count(), 2);
    let (removed, _) = &report.items[0];
    assert_eq!(removed.revision.id, saved[0]);
    undo(&host.depot, &removed.revision).await.unwrap();
    assert_eq!(ids(&host).await.len(), 3);
}
