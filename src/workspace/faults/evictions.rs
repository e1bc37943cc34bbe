//! A collector takes a save for dead while it is only slow.

use std::collections::{BTreeMap, BTreeSet};

use super::collector::Run;
use super::scene::{Look, Scene, look, noise, plant, write};
use crate::base::{RevisionId, SessionId};
use crate::objects::{Key, ObjectStore as _, Prefix};
use crate::store::revision;
use crate::store::view::{View, condemned};
use crate::workspace::{SaveReport, WorkspaceError};

/// A store with packs that a collector condemns: the first revision shares content with what is saved next, and is gone.
async fn a_scene_with_garbage() -> (Scene, BTreeMap<RevisionId, Look>) {
    let scene = Scene::new(1);
    let (old, kept) = (scene.path("old"), scene.path("kept"));
    plant(&old, 1);
    plant(&kept, 2);
    let host = scene.host("before");
    // Each revision gets packs of its own: neither save sees what the other wrote.
    let kept_report = host.save(&kept, "kept").await.unwrap();
    let hidden = scene.sim.list(&Prefix::new("idx").unwrap()).await.unwrap().remove(0).key;
    let segment = scene.sim.get(&hidden).await.unwrap().unwrap();
    scene.sim.delete(std::slice::from_ref(&hidden)).await.unwrap();
    let gone = host.save(&old, "gone").await.unwrap();
    scene.sim.put(&hidden, segment).await.unwrap();
    let key = host.find(gone.revision).await.key().unwrap();
    scene.sim.delete(&[key]).await.unwrap();
    (scene, BTreeMap::from([(kept_report.revision, look(&kept))]))
}

type Saving = tokio::task::JoinHandle<Result<SaveReport, WorkspaceError>>;

fn begin(scene: &Scene) -> (Saving, Look) {
    let tree = scene.path("tree");
    // Some of it lies in the garbage alone, some in a pack that stays, and some is new.
    plant(&tree, 1);
    write(&tree.join("new"), &noise(7, 10_000));
    let (host, expected) = (scene.host("writer"), look(&tree));
    (tokio::spawn(async move { host.save(&tree, "w").await }), expected)
}

/// Waits until the writer stands still or is done.
async fn wait(scene: &Scene, saving: &Saving) {
    while !scene.sim.is_stalled("writer") && !saving.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

async fn end(
    scene: &Scene,
    saving: Saving,
    expected: Look,
    mut acknowledged: BTreeMap<RevisionId, Look>,
    step: &str,
) {
    scene.sim.resume("writer");
    let report = saving.await.unwrap().unwrap_or_else(|error| panic!("{step}: {error:?}"));
    acknowledged.insert(report.revision, expected);
    scene.verify(&acknowledged, &[]).await;
    // A further collection takes nothing that is needed.
    Run::begin(scene.stranger()).finish().await.unwrap();
    scene.verify(&acknowledged, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn condemned_packs_are_no_targets() {
    let (scene, mut acknowledged) = a_scene_with_garbage().await;
    let mut run = Run::begin(scene.host("collector"));
    run.condemn().await.unwrap();
    let (saving, expected) = begin(&scene);
    let report = saving.await.unwrap().unwrap();
    acknowledged.insert(report.revision, expected);
    let objects = &scene.host("any").depot.objects;
    let condemned = condemned(&**objects).await.unwrap();
    assert!(!condemned.is_empty());
    let found = scene.host("any").find(report.revision).await;
    let record = revision::read(&**objects, &found).await.unwrap().unwrap();
    assert!(record.packs.iter().all(|info| !condemned.contains(&info.pack)));
    run.mark().await.unwrap();
    run.adopt().await.unwrap();
    run.delete().await.unwrap();
    scene.verify(&acknowledged, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_is_evicted_at_any_step_is_acknowledged_and_visible_in_the_end() {
    for step in 0..100 {
        let (scene, acknowledged) = a_scene_with_garbage().await;
        scene.sim.stall_after("writer", step);
        let (saving, expected) = begin(&scene);
        wait(&scene, &saving).await;
        let is_over = saving.is_finished();
        Run::begin(scene.host("collector")).finish().await.unwrap();
        end(&scene, saving, expected, acknowledged, &format!("step {step}")).await;
        if is_over {
            assert!(step > 12, "a save takes more than {step} steps");
            return;
        }
    }
    panic!("a save takes fewer steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_goes_on_in_the_middle_of_its_eviction_is_acknowledged_and_visible_in_the_end() {
    for step in (0..100).step_by(5) {
        let mut is_over = false;
        for (phase, more) in [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1), (3, 4)] {
            let (scene, acknowledged) = a_scene_with_garbage().await;
            scene.sim.stall_after("writer", step);
            let (saving, expected) = begin(&scene);
            wait(&scene, &saving).await;
            is_over = saving.is_finished();
            let mut run = Run::begin(scene.host("collector"));
            for at in 1..=4 {
                match at {
                    1 => run.condemn().await.unwrap(),
                    2 => run.mark().await.unwrap(),
                    3 => run.adopt().await.unwrap(),
                    _ => run.delete().await.unwrap(),
                }
                if at == phase {
                    scene.sim.resume("writer");
                    scene.sim.stall_after("writer", more);
                    wait(&scene, &saving).await;
                }
            }
            let name = format!("step {step}, {more} more after phase {phase}");
            end(&scene, saving, expected, acknowledged, &name).await;
        }
        if is_over {
            return;
        }
    }
    panic!("a save takes fewer steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_segment_of_an_evicted_session_does_not_count() {
    for step in 0..100 {
        let (scene, acknowledged) = a_scene_with_garbage().await;
        scene.sim.stall_after("writer", step);
        let (saving, expected) = begin(&scene);
        wait(&scene, &saving).await;
        let before: BTreeSet<Key> = keys(&scene, "idx").await;
        let mut run = Run::begin(scene.host("collector"));
        run.mark().await.unwrap();
        run.adopt().await.unwrap();
        let evicted: BTreeSet<SessionId> = keys(&scene, "evict")
            .await
            .iter()
            .filter_map(|key| key.segments().nth(1).and_then(|id| id.parse().ok()))
            .collect();
        end(&scene, saving, expected, acknowledged, &format!("step {step}")).await;
        let of_evicted = |key: &&Key| evicted.iter().any(|id| key.name().starts_with(&id.to_string()));
        let now = keys(&scene, "idx").await;
        let late: Vec<&Key> = now.difference(&before).filter(of_evicted).collect();
        if late.is_empty() {
            continue;
        }
        let host = scene.stranger();
        let view = View::load(&scene.sim, &host.depot.index_cache()).await.unwrap();
        assert!(view.packs().iter().all(|info| !evicted.contains(&info.pack.name.session)));
        return;
    }
    panic!("no segment came late");
}

async fn keys(scene: &Scene, prefix: &str) -> BTreeSet<Key> {
    let listed = scene.sim.list(&Prefix::new(prefix).unwrap()).await.unwrap();
    listed.into_iter().map(|object| object.key).collect()
}
