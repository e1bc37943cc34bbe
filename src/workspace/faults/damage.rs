//! A flipped bit is never restored as content, and is named.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::scene::{Host, Look, Scene, assert_same, change, everything, look, noise, plant, quiet, write};
use crate::base::{Classify as _, ErrorKind};
use crate::objects::{Key, ObjectStore as _, Prefix};
use crate::store::pack::{HEADER_BYTES, TRAILER_BYTES};
use crate::store::revision::{self, RevisionRef};
use crate::store::view::Condemned;
use crate::workspace::{WorkspaceError, restore};

fn story(error: &dyn Error) -> String {
    let mut story = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        story = format!("{story}: {error}");
        cause = error.source();
    }
    story
}

struct Damaged {
    scene: Scene,
    host: Host,
    revision: RevisionRef,
    expected: Look,
}

async fn saved() -> Damaged {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    plant(&tree, 1);
    write(&tree.join("more"), &noise(5, 300_000));
    let host = scene.host("host");
    host.save(&tree, "w").await.unwrap();
    change(&tree, 1);
    host.save(&tree, "w").await.unwrap();
    let revision = host.revisions().await.pop().unwrap();
    Damaged { host, revision, expected: look(&tree), scene }
}

async fn keys_of(scene: &Scene, prefix: &str) -> Vec<(Key, usize)> {
    let listed = scene.sim.list(&Prefix::new(prefix).unwrap()).await.unwrap();
    listed.into_iter().map(|object| (object.key, usize::try_from(object.size_bytes).unwrap())).collect()
}

impl Damaged {
    async fn keys(&self, prefix: &str) -> Vec<(Key, usize)> {
        keys_of(&self.scene, prefix).await
    }

    /// Flips a bit, and restores: what comes back is right, or nothing does. Returns what was said.
    async fn flip(&self, key: &Key, at: usize) -> Option<String> {
        assert!(self.scene.sim.corrupt(key, at));
        let target = self.scene.new_path();
        let result = self.scene.stranger().restore(&self.revision, &target).await;
        let said = match result {
            Ok(_) => {
                assert_same(&look(&target), &self.expected);
                fs::remove_dir_all(&target).unwrap();
                None
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{key} at {at}: {error:?}");
                assert!(!target.exists());
                self.scene.assert_no_leftovers();
                Some(format!("{} {}", story(&error), error.hint().unwrap_or_default()))
            }
        };
        assert!(self.scene.sim.corrupt(key, at));
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_any_part_of_a_pack_is_never_restored() {
    let damaged = saved().await;
    let record = revision::read(&damaged.scene.sim, &damaged.revision).await.unwrap().unwrap();
    for info in &record.packs {
        let key = info.pack.key().unwrap();
        let size = usize::try_from(info.size).unwrap();
        let header = usize::try_from(HEADER_BYTES).unwrap();
        let trailer = size - usize::try_from(TRAILER_BYTES).unwrap();
        let table = trailer - info.table_length as usize;
        let mut places: Vec<usize> = (0..header).step_by(5).collect();
        places.extend((header..table).step_by(((table - header) / 12).max(1)));
        places.extend([header, table - 1]);
        places.extend((table..trailer).step_by((info.table_length as usize / 12).max(1)));
        places.extend((trailer..size).step_by(4));
        let mut said_nothing = 0;
        for at in places.iter().copied() {
            match damaged.flip(&key, at).await {
                // Somewhere the damaged chunk, pack or path is named.
                Some(said) => assert!(said.contains("chunk") || said.contains(key.name()), "{said}"),
                None => said_nothing += 1,
            }
        }
        assert!(said_nothing < places.len(), "no damage to {key} was seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_record_is_named() {
    let damaged = saved().await;
    let key = damaged.revision.key().unwrap();
    let size = damaged.keys("rev").await.into_iter().find(|(there, _)| *there == key).unwrap().1;
    for at in 0..size {
        let said = damaged.flip(&key, at).await;
        let said = said.unwrap_or_else(|| panic!("byte {at} of a record means nothing"));
        assert!(said.contains(key.as_str()), "{at}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_index_leads_no_save_astray() {
    let damaged = saved().await;
    for (key, size) in damaged.keys("idx").await {
        for at in (0..size).step_by((size / 40).max(1)) {
            // A restore that needs no index does not see it.
            assert_eq!(damaged.flip(&key, at).await, None);
            assert!(damaged.scene.sim.corrupt(&key, at));
            let host = damaged.scene.stranger();
            match host.save(&damaged.scene.path("tree"), "other").await {
                Ok(report) => {
                    let revision = host.find(report.revision).await;
                    let target = damaged.scene.new_path();
                    host.restore(&revision, &target).await.unwrap();
                    assert_same(&look(&target), &damaged.expected);
                    fs::remove_dir_all(&target).unwrap();
                    damaged.scene.sim.delete(&[revision.key().unwrap()]).await.unwrap();
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{key} at {at}: {error:?}");
                    assert!(story(&error).contains(key.as_str()), "{}", story(&error));
                }
            }
            assert!(damaged.scene.sim.corrupt(&key, at));
        }
    }
    damaged.host.save(&damaged.scene.path("tree"), "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_cut_off_or_is_another_is_never_restored() {
    let damaged = saved().await;
    let mut keys = damaged.keys("packs").await;
    keys.extend(damaged.keys("meta").await);
    keys.push((damaged.revision.key().unwrap(), 0));
    let some = damaged.scene.sim.contents();
    for (key, _) in &keys {
        let whole = some.get(key).unwrap();
        let other = keys.iter().map(|(other, _)| other).find(|other| *other != key).unwrap();
        let wrong = [whole.slice(..whole.len() / 2), whole.slice(..0), some.get(other).unwrap().clone()];
        for bytes in wrong {
            damaged.scene.sim.put(key, bytes).await.unwrap();
            let target = damaged.scene.new_path();
            match damaged.scene.stranger().restore(&damaged.revision, &target).await {
                Ok(_) => assert_same(&look(&target), &damaged.expected),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{key}: {error:?}");
                    assert!(!target.exists());
                }
            }
        }
        damaged.scene.sim.put(key, whole.clone()).await.unwrap();
    }
}

/// A reader once tried one copy of a chunk only, and none in a condemned pack: what was removed could not be taken back.
#[tokio::test(flavor = "multi_thread")]
async fn every_copy_that_the_index_knows_is_tried_and_condemned_ones_too() {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    plant(&tree, 1);
    let host = scene.host("host");
    let first = host.save(&tree, "w").await.unwrap();
    let revision = host.find(first.revision).await;
    // A second copy of everything: the save cannot see the first one's segment.
    let (segment, _) = keys_of(&scene, "idx").await.remove(0);
    let bytes = scene.sim.get(&segment).await.unwrap().unwrap();
    scene.sim.delete(std::slice::from_ref(&segment)).await.unwrap();
    scene.stranger().save(&tree, "copy").await.unwrap();
    scene.sim.put(&segment, bytes).await.unwrap();
    let record = revision::read(&scene.sim, &revision).await.unwrap().unwrap();
    let own: Vec<Key> = record.packs.iter().map(|info| info.pack.key().unwrap()).collect();
    let mut others = keys_of(&scene, "packs").await;
    others.extend(keys_of(&scene, "meta").await);
    others.retain(|(key, _)| !own.contains(key));
    let packs = others.iter().map(|(key, _)| key.to_string()).collect();
    let list = serde_json::to_vec(&Condemned { version: 1, condemned: None, packs }).unwrap();
    scene.sim.put(&Key::new("gc/run").unwrap(), list.into()).await.unwrap();
    for key in &own {
        let size = scene.sim.get(key).await.unwrap().unwrap().len();
        assert!((16..size).step_by(50).all(|at| scene.sim.corrupt(key, at)));
    }
    let target = scene.path("back");
    scene.stranger().restore(&revision, &target).await.unwrap();
    assert_same(&look(&target), &look(&tree));
    fs::remove_dir_all(&target).unwrap();
    scene.sim.delete(&own).await.unwrap();
    scene.stranger().restore(&revision, &target).await.unwrap();
    assert_same(&look(&target), &look(&tree));
}

/// A restore once read the whole index anew for every chunk that was lost, counted chunks as files, and did not count what it fetched.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_where_the_revision_says_is_looked_for_once() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    write(&tree.join("large"), &noise(1, 3 << 20));
    for number in 0..20 {
        write(&tree.join(format!("small-{number}")), &noise(number + 10, 3_000));
    }
    let report = host.save(&tree, "w").await.unwrap();
    let (revision, expected) = (host.find(report.revision).await, look(&tree));
    let first = scene.sim.contents();
    let of = |top: &str, contents: &BTreeMap<Key, Bytes>| -> Vec<Key> {
        contents.keys().filter(|key| key.as_str().starts_with(top)).cloned().collect()
    };
    // Another host that does not see the first one's index stores everything once more.
    let hidden = of("idx/", &first);
    scene.sim.delete(&hidden).await.unwrap();
    scene.stranger().save(&tree, "other").await.unwrap();
    for key in &hidden {
        scene.sim.put(key, first[key].clone()).await.unwrap();
    }
    scene.sim.delete(&of("packs/", &first)).await.unwrap();
    let target = scene.path("back");
    let report = scene.stranger().restore(&revision, &target).await.unwrap();
    assert_same(&look(&target), &expected);
    assert!(report.fetched_bytes > 3 << 20, "{}", report.fetched_bytes);
    // And now nothing is left.
    scene.sim.delete(&of("packs/", &scene.sim.contents())).await.unwrap();
    scene.sim.forget_log();
    let error = scene.stranger().restore(&revision, &scene.path("nothing")).await.unwrap_err();
    let WorkspaceError::Damaged { count, paths, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*count, paths.len()), (21, 10));
    let readings = scene.sim.log().into_iter().filter(|operation| operation.key == "idx").count();
    assert!(readings <= 2, "the index was read {readings} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_lost_chunks_can_be_cancelled() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    for number in 0..300 {
        write(&tree.join(format!("file-{number}")), &noise(number, 500));
    }
    let report = host.save(&tree, "w").await.unwrap();
    let revision = host.find(report.revision).await;
    for (key, length) in keys_of(&scene, "packs").await {
        for at in (0..length).step_by(100) {
            assert!(scene.sim.corrupt(&key, at));
        }
    }
    let target = scene.path("back");
    let search = async |cancel: CancellationToken| {
        restore(&scene.host("reader").depot, &revision, &target, &everything(), quiet(), &cancel).await
    };
    scene.sim.forget_log();
    let error = search(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let all = scene.sim.log().len();
    assert!(all > 300, "{all}");
    scene.sim.forget_log();
    scene.sim.stall_after("reader", u64::try_from(all).unwrap() - 250);
    let cancel = CancellationToken::new();
    let watch = async {
        while !scene.sim.is_stalled("reader") {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        cancel.cancel();
        scene.sim.resume("reader");
    };
    let (result, ()) = tokio::join!(search(cancel.clone()), watch);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(scene.sim.log().len() < all - 200);
}
