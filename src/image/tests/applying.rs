//! Plans that become true on a fake engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::fleet::hours;
use crate::base::config::ImageRules;
use crate::base::{
    BuildKey, ByteSize, Classify as _, Discard, ErrorKind, HostLock, ImageId, Length, Owner, Sha256Digest,
    SnapshotId, SnapshotKey, StoreId, now,
};
use crate::catalog::*;
use crate::docker::fake::{FakeEngine, FakeImage};
use crate::docker::{Builder, CacheRecord, ContainerSpec, DiskSpace, Engine as _, HistoryEntry, NetworkMode};
use crate::image::*;
use crate::objects::{DirStore, Key, ObjectStore, SimStore, SimWhen};

/// A store, an engine and a state folder.
struct Home {
    bench: ImageBench,
    engine: FakeEngine,
    folder: tempfile::TempDir,
}

fn entry(created_by: &str, size_bytes: u64) -> HistoryEntry {
    HistoryEntry { created_by: created_by.into(), size_bytes, created: None }
}

fn record(id: SnapshotId, name: &str, created: jiff::Timestamp) -> SnapshotRecord {
    let digest = Sha256Digest::of(id.to_string().as_bytes());
    SnapshotRecord {
        version: 1,
        id,
        name: name.parse().unwrap(),
        template: name.into(),
        source: None,
        description: String::new(),
        created,
        owner: Owner::current().unwrap(),
        kiln_version: "0".into(),
        build_key: BuildKey::new(digest),
        snapshot_key: SnapshotKey::new(digest),
        dockerfile: "FROM scratch\n".into(),
        context_digest: digest,
        parameters: BTreeMap::new(),
        components: vec![],
        base: BaseRecord {
            reference: "scratch".into(),
            image: None,
            digest: None,
            origin: "scratch".into(),
            snapshot: None,
        },
        distro: None,
        baked_cas: vec![],
        build_cas: vec![],
        checkout: None,
        build_args: BTreeMap::new(),
        secret_ids: vec![],
        target: None,
        platform: None,
        network: NetworkMode::Default,
        builder: Builder::Buildkit,
        runtime: crate::template::Runtime::default(),
        resources: crate::template::Resources::default(),
        limits: crate::template::Limits::default(),
        checks: vec![],
        profile: None,
        refresh_after: None,
        labels: BTreeMap::new(),
    }
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = Arc::new(DirStore::new(folder.path().join("store")));
        Self::over(objects, folder)
    }

    fn over(objects: Arc<dyn ObjectStore>, folder: tempfile::TempDir) -> Self {
        let engine = FakeEngine::new();
        let bench = ImageBench {
            catalog: Catalog::new(objects),
            engine: Arc::new(engine.clone()),
            store: StoreId::generate(),
            state_dir: folder.path().join("state"),
        };
        Self { bench, engine, folder }
    }

    fn image(&self, id: SnapshotId, bytes: usize) -> FakeImage {
        let own = id.to_string().repeat(bytes / 26 + 1);
        let layers = vec![Bytes::from(vec![7; 1_000]), Bytes::from(own[..bytes].to_owned())];
        FakeImage {
            size_bytes: 1_000 + bytes as u64,
            layers,
            history: vec![entry("", 1_000), entry("ENV A=b", 0), entry("RUN make # buildkit", bytes as u64)],
            labels: BTreeMap::from([
                ("kiln.managed".into(), "true".into()),
                ("kiln.store".into(), self.bench.store.to_string()),
                ("kiln.snapshot".into(), id.to_string()),
            ]),
            created: Some(now() - SignedDuration::from_hours(100)),
            ..FakeImage::default()
        }
    }

    /// Bakes a snapshot of a thousand bytes that all have and so many of its own.
    async fn bake(&self, name: &str, age: i64, bytes: usize) -> SnapshotId {
        let id = SnapshotId::generate();
        let created = now() - SignedDuration::from_hours(age);
        let catalog = &self.bench.catalog;
        catalog.create(&record(id, name, created)).await.unwrap();
        for state in [State::Checking, State::Active] {
            assert!(catalog.transition(id, &StateEntry::to(state, created)).await.unwrap());
        }
        let tag = format!("kiln/{name}:{id}");
        let image = self.engine.add_image(&tag, self.image(id, bytes));
        self.place(id, image, &tag, "FAKE:ENGINE").await;
        id
    }

    async fn place(&self, id: SnapshotId, image: ImageId, tag: &str, engine: &str) {
        let place = PlaceRecord {
            version: 1,
            engine: engine.parse().unwrap(),
            endpoint: "fake://engine".into(),
            image,
            tag: tag.to_owned(),
            state: PlaceState::Present,
            verified_at: now(),
            last_used: None,
        };
        self.bench.catalog.add_place(id, &place).await.unwrap();
    }

    async fn plan(&self, rules: &ImageRules) -> Plan {
        self.bench.plan(&ImagePolicy::new(rules.clone()).unwrap(), now()).await.unwrap()
    }

    async fn apply(&self, plan: Plan) -> PruneReport {
        self.bench.apply(plan, &Discard, &CancellationToken::new()).await.unwrap()
    }

    async fn prune(&self, rules: &ImageRules) -> PruneReport {
        let plan = self.plan(rules).await;
        self.apply(plan).await
    }

    async fn state(&self, id: SnapshotId) -> State {
        self.bench.catalog.state(id).await.unwrap().unwrap()
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("state/image/prune.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Everything that is older than 10 hours, without a grace.
fn aged() -> ImageRules {
    ImageRules { max_age: Some(hours(10)), grace: Some(Length::default()), ..ImageRules::default() }
}

fn words(report: &PruneReport) -> Vec<&'static str> {
    report.outcomes.iter().flatten().map(PruneOutcome::word).collect()
}

#[tokio::test]
async fn a_snapshot_is_put_aside_and_then_deleted() {
    let home = Home::new();
    let (old, new) = (home.bake("app", 100, 50).await, home.bake("app", 5, 60).await);
    let plan = home.plan(&aged()).await;
    assert_eq!((plan.count(Action::Deactivate), plan.count(Action::Keep)), (1, 1));
    assert_eq!(home.state(old).await, State::Active, "a plan changes nothing");
    let report = home.apply(plan).await;
    assert_eq!((words(&report), report.freed), (vec!["done"], Freed::default()));
    assert_eq!((home.state(old).await, home.engine.references().len()), (State::Inactive, 2));

    let kept = home.plan(&ImageRules { grace: Some(hours(1)), ..aged() }).await;
    assert_eq!((kept.count(Action::Wait), kept.count(Action::Delete)), (1, 0));

    let report = home.prune(&aged()).await;
    assert_eq!((words(&report), report.measured_bytes), (vec!["done"], Some(50)));
    assert_eq!(report.freed, Freed { now_bytes: 50, with_cache_bytes: 50 });
    assert_eq!((home.state(old).await, home.state(new).await), (State::Removed, State::Active));
    assert_eq!(home.engine.references(), [format!("kiln/app:{new}")]);
    let gone = home.bench.catalog.load(old).await.unwrap().unwrap();
    assert_eq!(gone.places[0].state, PlaceState::Gone);
    assert_eq!(gone.last().unwrap().reason.as_deref(), Some("image prune: older than 10h"));
    let audit = home.audit();
    let lines: Vec<_> = audit
        .iter()
        .map(|it| (it["action"].as_str().unwrap(), it["outcome"].as_str().unwrap(), it["now_bytes"].as_u64()))
        .collect();
    assert_eq!(lines, [("deactivate", "done", Some(0)), ("delete", "done", Some(50))]);
    assert_eq!(
        (audit[1]["id"].as_str(), audit[1]["reason"].as_str()),
        (Some(&*old.to_string()), Some("older than 10h"))
    );
    assert!(home.plan(&aged()).await.items.iter().all(|item| item.action == Action::Keep));
}

#[tokio::test]
async fn what_changed_since_the_plan_is_left_alone() {
    let home = Home::new();
    let mut ids = Vec::new();
    for bytes in 10..18 {
        ids.push(home.bake("app", 100, bytes).await);
    }
    home.prune(&aged()).await;
    let plan = home.plan(&aged()).await;
    assert_eq!(plan.count(Action::Delete), 8);
    let catalog = &home.bench.catalog;
    let engine: crate::base::EngineId = "FAKE:ENGINE".parse().unwrap();
    catalog.mark(ids[0], Mark::Pin, now()).await.unwrap();
    catalog.touch(ids[1], &engine, now()).await.unwrap();
    catalog.transition(ids[2], &StateEntry::to(State::Active, now())).await.unwrap();
    let (app, prod) = ("app".parse().unwrap(), "prod".parse().unwrap());
    catalog.move_channel(&app, &prod, ids[3], Way::On, now()).await.unwrap();
    let spec = ContainerSpec {
        image: format!("kiln/app:{}", ids[4]),
        name: "box".into(),
        ..ContainerSpec::default()
    };
    home.engine.start(&spec).await.unwrap();
    let moved = home.engine.image(&format!("kiln/app:{}", ids[6])).await.unwrap().unwrap();
    home.engine.untag(&format!("kiln/app:{}", ids[5])).await.unwrap();
    home.engine.tag(&moved.id, &format!("kiln/app:{}", ids[5])).await.unwrap();
    let child = SnapshotId::generate();
    let mut above = record(child, "top", now());
    above.base.snapshot = Some(ids[7]);
    catalog.create(&above).await.unwrap();
    let report = home.apply(plan).await;
    let why: BTreeMap<String, String> = report
        .plan
        .items
        .iter()
        .zip(&report.outcomes)
        .filter_map(|(item, outcome)| {
            Some((item.subject.id(), outcome.as_ref()?.detail().unwrap_or_default()))
        })
        .collect();
    let told: Vec<&str> = ids.iter().map(|id| why[&id.to_string()].as_str()).collect();
    assert_eq!(
        told,
        [
            "pinned",
            "it was used meanwhile",
            "its state has changed",
            "the channel `prod` holds it",
            "the container `box` holds it",
            "it has another image now",
            "",
            &format!("{} is baked on it", child.short()),
        ]
    );
    assert_eq!(report.count(|it| matches!(it, PruneOutcome::Spared(_))), 7);
    assert_eq!(home.state(ids[6]).await, State::Removed);
}

#[tokio::test]
async fn one_failure_hides_no_other_and_the_next_run_finishes() {
    let home = Home::new();
    let (a, b) = (home.bake("a", 100, 50).await, home.bake("b", 100, 60).await);
    home.prune(&aged()).await;
    home.engine.hold_reference(&format!("kiln/a:{a}"), Some("device or resource busy"));
    let report = home.prune(&aged()).await;
    assert_eq!((words(&report), report.failed()), (vec!["failed", "done"], 1));
    assert!(report.outcomes[0].as_ref().unwrap().detail().unwrap().contains("device or resource busy"));
    assert_eq!((home.state(a).await, home.state(b).await), (State::Removing, State::Removed));
    assert_eq!(report.freed.with_cache_bytes, 60, "the layer that both have is still there");
    home.engine.hold_reference(&format!("kiln/a:{a}"), None);
    // What was begun is finished whatever the rules are.
    let other = ImageRules { expired: true, ..ImageRules::default() };
    let plan = home.plan(&other).await;
    assert_eq!((plan.items[0].action, plan.items[0].code.as_str()), (Action::Delete, "unfinished"));
    assert_eq!(home.apply(plan).await.freed.with_cache_bytes, 1_050);
    assert_eq!((home.state(a).await, home.engine.references().len()), (State::Removed, 0));
}

#[tokio::test]
async fn a_crash_after_the_image_went_is_finished_too() {
    let home = Home::new();
    let id = home.bake("a", 100, 50).await;
    home.bench.catalog.transition(id, &StateEntry::to(State::Removing, now())).await.unwrap();
    home.engine.untag(&format!("kiln/a:{id}")).await.unwrap();
    let report = home.prune(&aged()).await;
    assert_eq!((words(&report), home.state(id).await), (vec!["done"], State::Removed));
}

#[tokio::test]
async fn an_engine_that_goes_in_the_middle_is_told_for_each_item() {
    let home = Home::new();
    let id = home.bake("a", 100, 50).await;
    home.prune(&aged()).await;
    home.bake("b", 100, 50).await;
    let plan = home.plan(&aged()).await;
    let engine = home.engine.clone();
    let events = Mutex::new(Vec::new());
    let sink = |event: PruneEvent| {
        if event == (PruneEvent::Step { name: "pruning" }) {
            engine.set_unreachable(true);
        }
        events.lock().unwrap().push(event);
    };
    let report = home.bench.apply(plan, &sink, &CancellationToken::new()).await.unwrap();
    assert_eq!((words(&report), report.measured_bytes), (vec!["failed", "done"], None));
    assert_eq!(home.state(id).await, State::Inactive, "nothing was begun");
    home.engine.set_unreachable(false);
    assert_eq!(words(&home.prune(&aged()).await), ["done", "done"]);
}

#[tokio::test]
async fn images_of_another_store_and_of_nobody_are_never_touched() {
    let (home, other) = (Home::new(), Home::new());
    let theirs = other.image(SnapshotId::generate(), 40);
    home.engine.add_image("kiln/app:01m84bjv92hf3124jt9etdjmtt", theirs);
    home.engine.add_image("debian:12", FakeImage::of_layer("debian"));
    let id = home.bake("app", 100, 50).await;
    let image = home.engine.image(&format!("kiln/app:{id}")).await.unwrap().unwrap().id;
    home.engine.tag(&image, "kiln/app:mine").await.unwrap();
    home.prune(&aged()).await;
    let plan = home.plan(&aged()).await;
    let told: Vec<_> = plan.items.iter().map(|it| (it.action, it.freed.with_cache_bytes)).collect();
    assert_eq!(told, [(Action::Delete, 0), (Action::Foreign, 40)]);
    assert!(
        plan.items[0].reason.ends_with("`kiln/app:mine` names the image, too"),
        "{}",
        plan.items[0].reason
    );
    home.apply(plan).await;
    assert_eq!(
        home.engine.references(),
        ["debian:12", "kiln/app:01m84bjv92hf3124jt9etdjmtt", "kiln/app:mine"]
    );
}

#[tokio::test]
async fn images_without_records_go_after_the_grace_and_only_by_name() {
    let home = Home::new();
    let lost = SnapshotId::generate();
    let tagged = home.engine.add_image(&format!("kiln/app:{lost}"), home.image(lost, 30));
    let bare = home.engine.add_image("x:1", home.image(SnapshotId::generate(), 31));
    home.engine.add_image("x:1", FakeImage::of_layer("another"));
    let report = home.prune(&ImageRules { grace: Some(hours(101)), ..aged() }).await;
    assert_eq!((report.outcomes.iter().flatten().count(), report.plan.count(Action::Wait)), (0, 2));
    let plan = home.plan(&aged()).await;
    assert_eq!(plan.count(Action::Delete), 2);
    assert_eq!(home.apply(plan).await.freed.with_cache_bytes, 1_061);
    for image in [tagged, bare] {
        assert!(home.engine.image(&image.to_string()).await.unwrap().is_none());
    }
    assert_eq!(home.engine.references(), ["x:1"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_aborts_the_plan() {
    let home = Home::new();
    home.bake("a", 100, 50).await;
    let id = home.bake("b", 100, 50).await;
    let policy = ImagePolicy::new(aged()).unwrap();
    let store = home.bench.catalog.objects();
    let key = Key::new(format!("snap/record/{id}.json")).unwrap();
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    let error = home.bench.plan(&policy, now()).await.unwrap_err();
    assert!(matches!(error, ImageError::RecordMissing { .. }), "{error}");
    store.put(&key, Bytes::from_static(b"{\"version\":1}")).await.unwrap();
    let error = home.bench.plan(&policy, now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    store.put(&key, Bytes::from_static(b"{\"version\":9}")).await.unwrap();
    assert!(home.bench.plan(&policy, now()).await.is_err());
}

#[tokio::test]
async fn one_of_two_prunes_works_and_the_other_says_so() {
    let home = Home::new();
    home.bake("a", 100, 50).await;
    let plan = home.plan(&aged()).await;
    let name = Sha256Digest::of(plan.endpoint.as_bytes()).to_string();
    let path = home.bench.state_dir.join("locks").join(format!("image-prune-{}", &name[..16]));
    let held = HostLock::try_take(&path).unwrap().unwrap();
    let error = home.bench.apply(plan.clone(), &Discard, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    drop(held);
    assert_eq!(words(&home.apply(plan).await), ["done"]);
}

#[tokio::test]
async fn a_plan_is_saved_and_applied_where_it_belongs() {
    let (home, other) = (Home::new(), Home::new());
    let id = home.bake("a", 100, 50).await;
    home.prune(&aged()).await;
    let plan = home.plan(&aged()).await;
    let path = home.folder.path().join("plan.json");
    plan.save(&path).unwrap();
    let read = Plan::read(&path).unwrap();
    assert_eq!(read, plan);
    let error = other.bench.apply(plan, &Discard, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, ImageError::Plan { .. }), "{error}");
    // Only what the plan says: what is old enough by now stays.
    let later = home.bake("b", 100, 50).await;
    home.apply(read.clone()).await;
    assert_eq!((home.state(id).await, home.state(later).await), (State::Removed, State::Active));
    assert_eq!(words(&home.apply(read).await), ["spared"], "a plan is good for once");
    for wrong in ["", "{}", "{\"version\":2}", "[]"] {
        crate::base::fs::write_durably(&path, wrong.as_bytes(), crate::base::fs::Existing::Replace).unwrap();
        assert!(matches!(Plan::read(&path), Err(ImageError::Plan { .. })), "{wrong}");
    }
}

#[tokio::test]
async fn a_snapshot_that_another_engine_has_too_stays_as_it_is() {
    let home = Home::new();
    let id = home.bake("a", 100, 50).await;
    let tag = format!("kiln/a:{id}");
    let image = home.engine.image(&tag).await.unwrap().unwrap().id;
    home.place(id, image, &tag, "OTHER").await;
    let report = home.prune(&aged()).await;
    assert_eq!((words(&report), home.state(id).await), (vec!["done"], State::Active));
    assert!(home.engine.references().is_empty());
    let snapshot = home.bench.catalog.load(id).await.unwrap().unwrap();
    assert!(
        snapshot.is_anywhere()
            && snapshot.place(&"FAKE:ENGINE".parse().unwrap()).unwrap().state == PlaceState::Gone
    );
}

#[tokio::test]
async fn an_image_that_vanished_is_told_and_left_to_others() {
    let home = Home::new();
    let id = home.bake("a", 100, 50).await;
    let image = home.engine.image(&format!("kiln/a:{id}")).await.unwrap().unwrap().id;
    home.engine.lose_image(&image);
    let plan = home.plan(&aged()).await;
    assert_eq!((plan.items[0].action, plan.items[0].code.as_str()), (Action::Keep, "vanished"));
}

#[tokio::test]
async fn the_build_cache_goes_down_to_its_limit_with_a_full_disk_before_images() {
    let home = Home::new();
    let id = home.bake("a", 100, 50).await;
    let record = |id: &str, size_bytes, shared| CacheRecord {
        id: id.into(),
        parents: vec![],
        kind: "regular".into(),
        description: "mount / from exec /bin/sh -c make".into(),
        in_use: false,
        shared,
        size_bytes,
        created: Some(now() - SignedDuration::from_hours(50)),
        last_used: None,
    };
    home.engine.put_cache_record(record("free", 400, false));
    home.engine.put_cache_record(record("held", 50, true));
    home.engine.set_disk_space(Some(DiskSpace { total_bytes: 10_000, free_bytes: 100 }));
    let rules = ImageRules {
        include_cache: Some(ByteSize(0)),
        min_free: Some(ByteSize(500)),
        ..ImageRules::default()
    };
    let report = home.prune(&rules).await;
    assert_eq!((words(&report), report.freed.now_bytes), (vec!["done"], 400));
    assert_eq!(home.state(id).await, State::Active);
    home.engine.set_disk_space(Some(DiskSpace { total_bytes: 10_000, free_bytes: 499 }));
    let plan = home.plan(&rules).await;
    assert_eq!((plan.items[0].code.as_str(), plan.items[0].action), ("min_free", Action::Delete));
    assert_eq!(plan.totals.freed, Freed { now_bytes: 1_000, with_cache_bytes: 1_050 });
    home.apply(plan).await;
    assert_eq!(home.state(id).await, State::Removed, "without a grace");
}

#[tokio::test]
async fn a_cancelled_prune_ends_after_the_item_in_hand() {
    let home = Home::new();
    home.bake("a", 100, 50).await;
    home.bake("b", 100, 50).await;
    let cancel = CancellationToken::new();
    let sink = |event: PruneEvent| {
        if matches!(event, PruneEvent::Item { .. }) {
            cancel.cancel();
        }
    };
    let plan = home.plan(&aged()).await;
    let report = home.bench.apply(plan, &sink, &cancel).await.unwrap();
    assert_eq!((words(&report), report.cancelled), (vec!["done", "not_reached"], true));
    assert_eq!(words(&home.prune(&ImageRules { grace: Some(hours(1)), ..aged() }).await), ["done"]);
}

/// A store that dies at its n-th write of a prune, or only refuses it; whatever was begun, the next prunes finish.
async fn cut_short(n: u64, when: SimWhen, dies: bool) -> bool {
    let store = SimStore::new(n);
    let mut home = Home::over(Arc::new(store.actor("first")), tempfile::tempdir().unwrap());
    for (name, bytes) in [("a", 50), ("b", 60)] {
        let id = home.bake(name, 100, bytes).await;
        home.bench.catalog.transition(id, &StateEntry::to(State::Inactive, now())).await.unwrap();
    }
    let kept = home.bake("c", 5, 70).await;
    let plan = home.plan(&aged()).await;
    assert_eq!(plan.count(Action::Delete), 2);
    let before = store.writes();
    if dies {
        store.crash_at_write(n, when)
    } else {
        store.fail_write(n, when)
    }
    let report = home.apply(plan).await;
    let reached = store.writes() - before >= n;
    if reached && !dies {
        assert!(report.failed() <= 1, "one failure hides no other: {:?}", words(&report));
    }
    home.bench.catalog = Catalog::new(Arc::new(store.actor("next")));
    for _ in 0..2 {
        assert_eq!(home.prune(&aged()).await.failed(), 0);
    }
    assert_eq!(home.engine.references(), [format!("kiln/c:{kept}")], "write {n} {when:?}");
    for snapshot in home.bench.catalog.list().await.unwrap() {
        let state = if snapshot.id() == kept { State::Active } else { State::Removed };
        assert_eq!(snapshot.state(), state, "write {n} {when:?}");
    }
    reached
}

#[tokio::test]
async fn whatever_write_a_prune_dies_at_the_next_one_finishes() {
    for when in [SimWhen::Before, SimWhen::After] {
        for dies in [true, false] {
            let mut n = 1;
            while cut_short(n, when, dies).await {
                n += 1;
            }
            // Three of each: removing, the place, removed.
            assert_eq!(n - 1, 6, "{when:?}");
        }
    }
}
