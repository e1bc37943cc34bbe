//! Collections: what nobody needs goes, what somebody needs stays, whatever happened before.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::scene::{Host, Look, Scene, change, let_times_settle, look, noise, plant, write};
use crate::base::{ChunkId, Discard, RevisionId};
use crate::objects::{Key, ObjectStore as _, Prefix, SimDeed};
use crate::store::gc::{
    GcError, GcPlan, GcReport, GcSpec, PackReason, RepairReport, RepairSpec, collect, plan, repair,
};
use crate::store::pack::{PackKind, PackName};
use crate::store::session::Session;
use crate::workspace::check::{CheckReport, CheckSpec, check};
use crate::workspace::remove::{Selection, remove};
use crate::workspace::show;

/// Collects at once, and does not wait long for anybody.
pub(super) fn at_once() -> GcSpec {
    GcSpec {
        grace: Duration::ZERO,
        keep_lists: Duration::ZERO,
        evict_after: Duration::from_millis(40),
        wait: Some(Duration::from_secs(20)),
        ..GcSpec::default()
    }
}

impl Host {
    pub(super) async fn collect(&self, spec: &GcSpec) -> Result<GcReport, GcError> {
        let cache = self.depot.index_cache();
        collect(&self.depot.objects, &cache, spec, &Discard, &CancellationToken::new()).await
    }

    pub(super) async fn plan(&self, spec: &GcSpec) -> Result<GcPlan, GcError> {
        let cache = self.depot.index_cache();
        plan(&self.depot.objects, &cache, spec, &Discard, &CancellationToken::new()).await
    }

    pub(super) async fn remove(&self, id: RevisionId) {
        let revision = self.find(id).await;
        remove(&self.depot, &Selection::One(revision)).await.unwrap();
    }

    pub(super) async fn check(&self) -> CheckReport {
        let spec = CheckSpec { read_data: true, sample_percent: None, jobs: 2 };
        let checked = check(&self.depot, &spec, super::scene::quiet(), &CancellationToken::new()).await;
        let mut report = checked.unwrap();
        // These stores were never made, only used.
        report.problems.retain(|problem| problem.damage != crate::workspace::Damage::Format);
        report
    }

    pub(super) async fn keys(&self, below: &str) -> Vec<Key> {
        let listed = self.depot.objects.list(&Prefix::new(below).unwrap()).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    async fn packs(&self) -> Vec<Key> {
        let mut packs = self.keys("packs").await;
        packs.extend(self.keys("meta").await);
        packs
    }
}

/// Three saves of a tree that changes; returns what each looked like.
async fn three_saves(scene: &Scene, host: &Host) -> Vec<(RevisionId, Look)> {
    let tree = scene.path("tree");
    plant(&tree, 1);
    let mut saved = Vec::new();
    for round in 0..3 {
        if round > 0 {
            change(&tree, round);
            write(&tree.join("large"), &noise(round + 50, 400_000));
        }
        let_times_settle();
        saved.push((host.save(&tree, "w").await.unwrap().revision, look(&tree)));
    }
    saved
}

fn known(saved: &[(RevisionId, Look)]) -> BTreeMap<RevisionId, Look> {
    saved.iter().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_stays_and_nothing_is_written_for_it() {
    let scene = Scene::new(1);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    let before = scene.sim.contents();
    let report = host.collect(&at_once()).await.unwrap();
    assert_eq!((report.condemned, report.deleted, report.moved), ((0, 0), (0, 0), (0, 0)), "{report:?}");
    assert_eq!((report.plan.revisions, report.plan.dead_bytes), (3, 0));
    assert_eq!(scene.sim.contents(), before);
    scene.verify(&known(&saved), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_goes_and_what_is_left_comes_back_as_it_was() {
    let scene = Scene::new(2);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    for (id, _) in &saved[..2] {
        host.remove(*id).await;
    }
    let before: u64 = host.check().await.bytes_read;
    let report = host.collect(&GcSpec { max_dead_percent: 0.0, ..at_once() }).await.unwrap();
    assert!(report.deleted.0 > 0 && report.moved.0 > 0, "{report:?}");
    assert_eq!(report.forgotten, 2);
    scene.verify(&known(&saved[2..]), &[]).await;
    let after = host.check().await;
    assert_eq!(after.problems, []);
    assert_eq!(after.notes, []);
    assert!(after.bytes_read < before - 400_000, "{} {before}", after.bytes_read);
    let left = host.plan(&at_once()).await.unwrap();
    assert_eq!((left.dead_bytes, left.condemn.len()), (0, 0));
    // The list of what was deleted has done its work.
    let again = host.collect(&at_once()).await.unwrap();
    assert_eq!((again.deleted, again.condemned), ((0, 0), (0, 0)));
    for below in ["gc", "removed", "sess", "beat"] {
        assert_eq!(host.keys(below).await, [], "{below}");
    }
    assert_eq!(host.keys("rev").await.len(), 1);
    // A host that knew the old packs saves and restores.
    let tree = scene.path("tree");
    change(&tree, 9);
    let_times_settle();
    let next = host.save(&tree, "w").await.unwrap();
    let mut all = known(&saved[2..]);
    all.insert(next.revision, look(&tree));
    scene.verify(&all, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_is_what_is_done() {
    let scene = Scene::new(3);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    host.remove(saved[0].0).await;
    host.remove(saved[1].0).await;
    let before = scene.sim.contents();
    let planned = host.plan(&at_once()).await.unwrap();
    assert_eq!(scene.sim.contents(), before);
    assert!(!planned.condemn.is_empty() && planned.dead_bytes > 0);
    assert_eq!(planned.expired.len(), 2);
    let report = host.collect(&at_once()).await.unwrap();
    assert_eq!(report.plan.condemn, planned.condemn);
    assert_eq!(report.condemned.0, planned.condemn.len() as u64);
    assert_eq!(report.condemned.1, planned.condemn.iter().map(|pack| pack.bytes).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn condemned_bytes_stay_for_the_grace_and_no_save_relies_on_them() {
    let scene = Scene::new(4);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    let patient = GcSpec { grace: Duration::from_hours(1), ..at_once() };
    for (id, _) in &saved {
        host.remove(*id).await;
    }
    let packs = host.packs().await;
    let first = host.collect(&patient).await.unwrap();
    assert_eq!((first.condemned.0, first.deleted.0, first.forgotten), (packs.len() as u64, 0, 0));
    assert_eq!(host.packs().await, packs);
    let again = host.collect(&patient).await.unwrap();
    assert_eq!((again.condemned.0, again.deleted.0), (0, 0));
    assert_eq!(again.plan.lists.len(), 1);
    assert!(!again.plan.lists[0].is_due && again.plan.lists[0].packs == packs.len() as u64);
    // The same content again is written again.
    let other = scene.host("two");
    let tree = scene.path("tree");
    let report = other.save(&tree, "w").await.unwrap();
    assert!(report.written.stored_bytes > 400_000, "{report:?}");
    let last = host.collect(&at_once()).await.unwrap();
    assert_eq!((last.deleted.0, last.forgotten), (packs.len() as u64, 3));
    scene.verify(&BTreeMap::from([(report.revision, look(&tree))]), &[]).await;
    assert_eq!(host.check().await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crashed_save_left_goes_once_its_session_is_over() {
    let scene = Scene::new(5);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    let orphan = scene.host("crashed");
    // The pack of a save that got no further, and its session.
    let session = Session::open(std::sync::Arc::clone(&orphan.depot.objects), "save").await.unwrap();
    let id = session.id();
    let tree = scene.path("other");
    fs::create_dir_all(&tree).unwrap();
    write(&tree.join("x"), &noise(77, 90_000));
    let made = scene.host("maker").save(&tree, "x").await.unwrap();
    let record = show(&host.depot, &host.find(made.revision).await).await.unwrap();
    let name = record.packs.iter().find(|info| info.pack.kind == PackKind::Data).unwrap().pack;
    let bytes = host.depot.objects.get(&name.key().unwrap()).await.unwrap().unwrap();
    let lost = PackName { name: crate::store::pack::WrittenName { session: id, ..name.name }, ..name };
    host.depot.objects.put(&lost.key().unwrap(), bytes).await.unwrap();
    let open = host.plan(&at_once()).await.unwrap();
    assert!(open.condemn.is_empty() && open.open_sessions == 1, "{open:?}");
    drop(session);
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let mut spec = at_once();
        // Old enough to be looked at: the session's own time is now.
        spec.grace = Duration::ZERO;
        let report = host.collect(&spec).await.unwrap();
        reasons.extend(report.plan.condemn.iter().map(|pack| pack.reason));
    }
    assert_eq!(reasons, [PackReason::Orphan]);
    assert!(host.depot.objects.get(&lost.key().unwrap()).await.unwrap().is_none());
    assert_eq!(host.keys("sess").await, []);
    let mut all = known(&saved);
    all.insert(made.revision, look(&tree));
    scene.verify(&all, &[]).await;
}

/// The file is saved first, so that its chunk is marked as data before it is met as a part of a manifest.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_the_bytes_of_a_manifest_hides_nothing() {
    let scene = Scene::new(6);
    let host = scene.host("one");
    let tree = scene.path("tree");
    plant(&tree, 1);
    let saved = host.save(&tree, "w").await.unwrap().revision;
    let expected = look(&tree);
    let record = show(&host.depot, &host.find(saved).await).await.unwrap();
    assert_eq!(record.manifest.level, 0);
    let fetcher = host.depot.fetcher();
    let locations = fetcher.locate(record.packs.iter().copied(), |_| true).await.unwrap();
    let evil = scene.path("evil");
    fs::create_dir_all(&evil).unwrap();
    for (number, reference) in record.manifest.refs.iter().enumerate() {
        let chunk = fetcher.chunk(&locations, reference.id).await.unwrap();
        assert_eq!(ChunkId::of(&chunk), reference.id);
        write(&evil.join(format!("{number}")), &chunk);
    }
    let copy = host.save(&evil, "a").await.unwrap().revision;
    for round in 0..2 {
        let report = host.collect(&at_once()).await.unwrap();
        assert_eq!(report.deleted.0, 0, "{round}");
    }
    scene.verify(&[(saved, expected), (copy, look(&evil))].into(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_segment_of_the_index_costs_nothing_that_is_needed() {
    for lost in 0..3 {
        let scene = Scene::new(7);
        let host = scene.host("one");
        let saved = three_saves(&scene, &host).await;
        host.remove(saved[1].0).await;
        let segments = host.keys("idx").await;
        assert_eq!(segments.len(), 3);
        host.depot.objects.delete(&segments[lost..=lost]).await.unwrap();
        for _ in 0..2 {
            let report = scene.stranger().collect(&at_once()).await.unwrap();
            assert_eq!(report.lost, []);
        }
        scene.verify(&known(&[saved[0].clone(), saved[2].clone()]), &[]).await;
        assert_eq!(host.check().await.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_keeps_its_pack_and_is_named() {
    let scene = Scene::new(8);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    host.remove(saved[0].0).await;
    host.remove(saved[1].0).await;
    // A pack that has to be rewritten, and does not let itself be read.
    let spec = GcSpec { max_dead_percent: 0.0, ..at_once() };
    let planned = host.plan(&spec).await.unwrap();
    let half = planned
        .condemn
        .iter()
        .find(|pack| pack.reason == PackReason::HalfDead && pack.pack.kind == PackKind::Data)
        .unwrap();
    let key = half.pack.key().unwrap();
    let size = usize::try_from(half.bytes).unwrap();
    for offset in (20..size - 300).step_by(50) {
        assert!(scene.sim.corrupt(&key, offset));
    }
    for _ in 0..2 {
        let report = host.collect(&spec).await.unwrap();
        assert!(!report.lost.is_empty(), "{report:?}");
        assert_eq!(report.stuck, [half.pack]);
    }
    assert!(host.depot.objects.get(&key).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_cannot_be_read_stops_the_collection_before_anything_is_deleted() {
    let scene = Scene::new(9);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    host.remove(saved[0].0).await;
    let record = show(&host.depot, &host.find(saved[2].0).await).await.unwrap();
    for info in record.packs.iter().filter(|info| info.pack.kind == PackKind::Meta) {
        assert!(scene.sim.corrupt(&info.pack.key().unwrap(), 40));
    }
    let before = scene.sim.contents();
    let error = host.collect(&at_once()).await.unwrap_err();
    assert!(matches!(error, GcError::Unreadable { .. }), "{error:?}");
    assert_eq!(scene.sim.contents(), before);
    let unreadable = host.find(saved[2].0).await.key().unwrap();
    assert!(scene.sim.corrupt(&unreadable, 200));
    assert!(host.collect(&at_once()).await.is_err());
}

/// Old records name packs that are gone; what was in them is read by the index, many chunks at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_what_a_collection_moved_asks_no_more_often_than_before() {
    let scene = Scene::new(12);
    let host = scene.host("one");
    let tree = scene.path("tree");
    fs::create_dir_all(&tree).unwrap();
    for number in 0..400 {
        write(&tree.join(format!("{number}")), &noise(number, 2_000));
    }
    write(&tree.join("half"), &noise(999, 1 << 20));
    let first = host.save(&tree, "w").await.unwrap().revision;
    fs::remove_file(tree.join("half")).unwrap();
    let_times_settle();
    let second = host.save(&tree, "w").await.unwrap().revision;
    let expected = look(&tree);
    let reads = async || {
        let stranger = scene.stranger();
        let revision = stranger.find(second).await;
        scene.sim.forget_log();
        let target = scene.new_path();
        stranger.restore(&revision, &target).await.unwrap();
        super::scene::assert_same(&look(&target), &expected);
        scene.sim.count(SimDeed::Range) + scene.sim.count(SimDeed::Get)
    };
    let before = reads().await;
    host.remove(first).await;
    let report = host.collect(&at_once()).await.unwrap();
    assert!(report.moved.0 >= 400 && report.deleted.0 > 0, "{report:?}");
    let after = reads().await;
    assert!(after <= before + 8, "{after} reads, and {before} before");
}

/// After a collection moved chunks only the index knows where they are; and it may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_segment_names_is_found_in_the_tables_of_the_packs() {
    let scene = Scene::new(13);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    host.remove(saved[0].0).await;
    host.remove(saved[1].0).await;
    let report = host.collect(&GcSpec { max_dead_percent: 0.0, ..at_once() }).await.unwrap();
    assert!(report.moved.0 > 0 && report.deleted.0 > 0, "{report:?}");
    let segments = host.keys("idx").await;
    host.depot.objects.delete(&segments).await.unwrap();
    scene.verify(&known(&saved[2..]), &[]).await;
}

/// What another run refused is no root: its chunks may be gone, and nobody acknowledged it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_record_of_an_evicted_session_is_no_revision_and_goes() {
    let scene = Scene::new(14);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    let victim = host.find(saved[2].0).await;
    let record = host.depot.objects.get(&victim.key().unwrap()).await.unwrap().unwrap();
    host.depot.objects.delete(&[victim.key().unwrap()]).await.unwrap();
    // A collector evicted the session, found no revision, and deleted what the session had written.
    let evicted = format!("evict/{}/{}", victim.session, crate::base::SessionId::generate());
    let adopt = crate::store::view::Adopted { version: 1, ..Default::default() };
    for (end, bytes) in [("mark", b"{}".to_vec()), ("adopt", serde_json::to_vec(&adopt).unwrap())] {
        host.depot.objects.put(&Key::new(format!("{evicted}.{end}")).unwrap(), bytes.into()).await.unwrap();
    }
    for key in host.packs().await {
        if PackName::of_key(&key).unwrap().name.session == victim.session {
            host.depot.objects.delete(&[key]).await.unwrap();
        }
    }
    // Then its late write of the record lands.
    host.depot.objects.put(&victim.key().unwrap(), record.clone()).await.unwrap();
    host.remove(saved[0].0).await;
    for _ in 0..2 {
        let report = scene.stranger().collect(&at_once()).await.unwrap();
        assert_eq!((&report.lost[..], report.plan.lost.1), (&[][..], 0));
    }
    assert!(host.depot.objects.get(&victim.key().unwrap()).await.unwrap().is_none());
    scene.verify(&known(&saved[1..2]), &[]).await;
    // It lands once more, when there is nothing else to do.
    host.depot.objects.put(&victim.key().unwrap(), record).await.unwrap();
    host.collect(&at_once()).await.unwrap();
    assert!(host.depot.objects.get(&victim.key().unwrap()).await.unwrap().is_none());
    assert_eq!(host.check().await.problems, []);
}

/// A server may apply a write long after its writer gave it up; what was deleted must still be known as deleted then.
#[tokio::test(flavor = "multi_thread")]
async fn lists_and_tombstones_outlive_what_they_are_of() {
    let scene = Scene::new(15);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    let removed = host.find(saved[0].0).await.key().unwrap();
    let record = host.depot.objects.get(&removed).await.unwrap().unwrap();
    for (id, _) in &saved[..2] {
        host.remove(*id).await;
    }
    let segment = host.keys("idx").await.swap_remove(1);
    let rows = host.depot.objects.get(&segment).await.unwrap().unwrap();
    let spec = GcSpec { keep_lists: Duration::from_hours(1), ..at_once() };
    for _ in 0..3 {
        host.collect(&spec).await.unwrap();
    }
    assert_eq!((host.keys("gc").await.len(), host.keys("removed").await.len()), (1, 2));
    host.depot.objects.put(&segment, rows).await.unwrap();
    host.depot.objects.put(&removed, record).await.unwrap();
    // Nothing that is gone is relied on, and what was removed stays so.
    let other = scene.host("two");
    let tree = scene.path("tree");
    let again = other.save(&tree, "w").await.unwrap();
    let mut all = known(&saved[2..]);
    all.insert(again.revision, look(&tree));
    for _ in 0..3 {
        let report = host.collect(&at_once()).await.unwrap();
        assert_eq!((&report.lost[..], report.plan.lost.1), (&[][..], 0));
    }
    scene.verify(&all, &[]).await;
    assert_eq!(host.keys("gc").await, []);
    assert_eq!(host.check().await.problems, []);
}

impl Host {
    async fn repair(&self, read_data: bool) -> RepairReport {
        let cache = self.depot.index_cache();
        let spec = RepairSpec { read_data, dry_run: false };
        repair(&self.depot.objects, &cache, &spec, &Discard, &CancellationToken::new()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_damaged_is_made_again_out_of_the_packs() {
    let scene = Scene::new(10);
    let host = scene.host("one");
    let saved = three_saves(&scene, &host).await;
    assert!(host.repair(true).await.is_sound());
    let segments = host.keys("idx").await;
    assert!(scene.sim.corrupt(&segments[0], 200));
    host.depot.objects.delete(&segments[1..2]).await.unwrap();
    let stranger = scene.stranger();
    assert!(stranger.save(&scene.path("tree"), "w").await.is_err());
    let report = stranger.repair(false).await;
    assert_eq!((report.dropped_segments, report.indexed.len()), (segments[..1].to_vec(), 4));
    assert_eq!((report.gone, report.condemned), (vec![], vec![]));
    assert!(stranger.repair(false).await.is_sound());
    assert_eq!(host.check().await.problems, []);
    // What is indexed again is relied on again.
    let again = stranger.save(&scene.path("tree"), "w").await.unwrap();
    assert_eq!(again.written.new_bytes, 0);
    scene.verify(&known(&saved), &[&saved[2].1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_save_of_what_was_damaged_heals_the_revisions_that_need_it() {
    for lost in [false, true] {
        let scene = Scene::new(11);
        let host = scene.host("one");
        let saved = three_saves(&scene, &host).await;
        let record = show(&host.depot, &host.find(saved[2].0).await).await.unwrap();
        let name = record.packs.iter().rfind(|info| info.pack.kind == PackKind::Data).unwrap().pack;
        if lost {
            host.depot.objects.delete(&[name.key().unwrap()]).await.unwrap();
        } else {
            assert!(scene.sim.corrupt(&name.key().unwrap(), 5_000));
        }
        let stranger = scene.stranger();
        let revision = host.find(saved[2].0).await;
        stranger.restore(&revision, &scene.new_path()).await.unwrap_err();
        let report = stranger.repair(true).await;
        match lost {
            true => assert_eq!((report.gone, report.condemned), (vec![name], vec![])),
            false => assert_eq!((report.gone, report.condemned), (vec![], vec![name])),
        }
        let again = stranger.save(&scene.path("tree"), "w").await.unwrap();
        assert!(again.written.new_bytes > 0);
        scene.verify(&known(&saved[..]), &[&saved[2].1]).await;
        for _ in 0..3 {
            let report = host.collect(&at_once()).await.unwrap();
            assert_eq!(report.lost, []);
        }
        scene.verify(&known(&saved[..]), &[&saved[2].1]).await;
        assert_eq!(host.check().await.problems, []);
    }
}

/// Every write of a collection fails once, before and after it was applied, or the process dies at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_dies_anywhere_loses_nothing_and_the_next_one_ends_it() {
    use crate::objects::SimWhen;
    for when in [SimWhen::Before, SimWhen::After] {
        for crash in [false, true] {
            for nth in 1.. {
                let scene = Scene::new(nth);
                let host = scene.host("one");
                let saved = three_saves(&scene, &host).await;
                host.remove(saved[0].0).await;
                host.remove(saved[1].0).await;
                let spec = GcSpec { max_dead_percent: 0.0, ..at_once() };
                let sick = scene.host("sick");
                let writes = scene.sim.writes();
                if crash {
                    scene.sim.crash_at_write(nth, when);
                } else {
                    scene.sim.fail_write(nth, when);
                }
                let ended = sick.collect(&spec).await;
                let is_over = scene.sim.writes() - writes < nth;
                let context = format!("{when:?} {crash} {nth}: {ended:?}");
                let survivors = known(&saved[2..]);
                scene.verify(&survivors, &[]).await;
                if is_over {
                    assert!(ended.is_ok() && nth > 10, "{context}");
                    break;
                }
                for _ in 0..3 {
                    host.collect(&spec).await.unwrap_or_else(|error| panic!("{context}: {error:?}"));
                }
                scene.verify(&survivors, &[]).await;
                let check = host.check().await;
                assert_eq!(check.problems, [], "{context}");
                let left = host.plan(&spec).await.unwrap();
                assert_eq!((left.dead_bytes, left.condemn.len(), left.lists.len()), (0, 0, 0), "{context}");
                assert_eq!(host.keys("rev").await.len(), 1, "{context}");
            }
        }
    }
}
