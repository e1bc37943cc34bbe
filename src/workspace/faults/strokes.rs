//! Every write and every read of a job fails once.

use std::collections::BTreeMap;

use super::scene::{BadRead, Host, Scene, assert_same, change, let_times_settle, look, plant};
use crate::base::{Classify as _, ErrorKind};
use crate::objects::{ObjectStore as _, SimDeed, SimWhen};

/// How a save is struck.
#[derive(Debug, Clone, Copy)]
enum Stroke {
    /// One write fails, and the process goes on.
    Fails(SimWhen),
    /// The process dies at a write.
    Dies(SimWhen),
}

/// What is saved.
#[derive(Debug, Clone, Copy)]
enum Source {
    Directory,
    Archive,
}

/// More writes than any of these saves makes.
const MOST_WRITES: u64 = 40;

async fn strike_each_write(source: Source, has_parent: bool, stroke: Stroke) {
    for n in 1..=MOST_WRITES {
        let scene = Scene::new(n);
        let host = scene.host("host");
        let (tree, mut acknowledged) = (scene.path("tree"), BTreeMap::new());
        plant(&tree, 1);
        let save = async |host: &Host| match source {
            Source::Directory => host.save(&tree, "w").await,
            Source::Archive => host.save_archive(&tree, "w").await,
        };
        if has_parent {
            let_times_settle();
            let first = save(&host).await.unwrap();
            acknowledged.insert(first.revision, look(&tree));
            change(&tree, 1);
            let_times_settle();
        }
        let tried = look(&tree);
        let before = scene.sim.writes();
        match stroke {
            Stroke::Fails(when) => scene.sim.fail_write(n, when),
            Stroke::Dies(when) => scene.sim.crash_at_write(n, when),
        }
        let result = save(&host).await;
        let is_struck = scene.sim.writes() - before >= n;
        if let Ok(report) = &result {
            acknowledged.insert(report.revision, tried.clone());
        }
        scene.verify(&acknowledged, &[&tried]).await;
        if !is_struck {
            result.unwrap();
            assert!(n > 6, "a save makes more writes than {n}");
            return;
        }
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "write {n}: {error}");
        }
        // The next process of the same host finds the state and the cache of the one that failed.
        let next = scene.host_on("host", std::sync::Arc::new(scene.sim.actor("next")));
        let report = save(&next).await.unwrap_or_else(|error| panic!("after write {n}: {error:?}"));
        acknowledged.insert(report.revision, tried.clone());
        scene.verify(&acknowledged, &[&tried]).await;
    }
    panic!("a save makes fewer writes");
}

const STROKES: [Stroke; 4] = [
    Stroke::Fails(SimWhen::Before),
    Stroke::Fails(SimWhen::After),
    Stroke::Dies(SimWhen::Before),
    Stroke::Dies(SimWhen::After),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_first_save_that_fails_at_any_write_harms_nothing() {
    for stroke in STROKES {
        strike_each_write(Source::Directory, false, stroke).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_save_that_fails_at_any_write_harms_nothing() {
    for stroke in STROKES {
        strike_each_write(Source::Directory, true, stroke).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_of_an_archive_that_fails_at_any_write_harms_nothing() {
    for stroke in STROKES {
        strike_each_write(Source::Archive, true, stroke).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_fails_at_any_read_harms_nothing() {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    plant(&tree, 1);
    let mut acknowledged = BTreeMap::new();
    acknowledged.insert(scene.host("host").save(&tree, "w").await.unwrap().revision, look(&tree));
    for n in 1..100 {
        change(&tree, n);
        let tried = look(&tree);
        let store = BadRead::new(scene.sim.actor("host"), i64::try_from(n).unwrap());
        let result = scene.host_on("host", store.clone()).save(&tree, "w").await;
        match &result {
            Ok(report) => {
                acknowledged.insert(report.revision, tried.clone());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "read {n}: {error}"),
        }
        scene.verify(&acknowledged, &[&tried]).await;
        // What may have been recorded without an acknowledgement is acknowledged by the next save.
        if !store.has_struck() {
            result.unwrap();
            assert!(n > 5, "a save makes more reads than {n}");
            return;
        }
        let report = scene.host("host").save(&tree, "w").await.unwrap();
        acknowledged.clear();
        acknowledged.insert(report.revision, tried);
        let newest = scene.host("host").find(report.revision).await.key().unwrap();
        for revision in scene.host("host").revisions().await {
            let key = revision.key().unwrap();
            if key != newest {
                scene.sim.delete(&[key]).await.unwrap();
            }
        }
    }
    panic!("a save makes fewer reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_at_any_read_leaves_nothing_and_writes_nothing_to_the_store() {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    plant(&tree, 1);
    let host = scene.host("host");
    host.save(&tree, "w").await.unwrap();
    change(&tree, 1);
    host.save(&tree, "w").await.unwrap();
    let (newest, expected) = (host.revisions().await.pop().unwrap(), look(&tree));
    scene.sim.forget_log();
    for n in 1..100 {
        let store = BadRead::new(scene.sim.actor("reader"), n);
        let target = scene.path("back");
        let result = scene.host_on("reader", store.clone()).restore(&newest, &target).await;
        scene.assert_no_leftovers();
        match result {
            Ok(_) => {
                assert_same(&look(&target), &expected);
                std::fs::remove_dir_all(&target).unwrap();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "read {n}: {error}");
                assert!(!target.exists());
            }
        }
        if !store.has_struck() {
            assert!(n > 4, "a restore makes more reads than {n}");
            for deed in [SimDeed::Put, SimDeed::PutFile, SimDeed::Delete] {
                assert_eq!(scene.sim.count(deed), 0);
            }
            return;
        }
    }
    panic!("a restore makes fewer reads");
}
