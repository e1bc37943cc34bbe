//! The journey's promises, over a directory and an engine in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::base::{Classify as _, Discard, ErrorKind, Length, Owner, StoreId, now};
use crate::catalog::{Catalog, State, StateEntry};
use crate::docker::fake::{FakeBuild, FakeEngine, FakeExec, FakeGate, FakeImage};
use crate::docker::{BuilderFeatures, EngineError, SecretValue};
use crate::objects::{DirStore, Key, ObjectInfo, ObjectStore, ObjectsError, Prefix};
use crate::template::Library;

/// A workbench over a folder, and a plain Dockerfile to bake.
struct Shop {
    bench: Workbench,
    engine: FakeEngine,
    home: tempfile::TempDir,
}

fn shop() -> Shop {
    let home = tempfile::tempdir().unwrap();
    let objects = Arc::new(DirStore::new(home.path().join("store")));
    over(home, objects, FakeEngine::new())
}

fn over(home: tempfile::TempDir, objects: Arc<dyn ObjectStore>, engine: FakeEngine) -> Shop {
    engine.add_image("base:1", FakeImage::of_layer("base"));
    write(&home, "app/Dockerfile", "FROM base:1\nRUN something\n");
    write(
        &home,
        "checked/template.toml",
        "schema = 1\nname = \"checked\"\ndescription = \"A test.\"\nbase = \"debian:bookworm-slim\"\n[[check]]\nname = \"works\"\ncmd = \"probe\"\ntimeout = \"1s\"\nexpect = \"fine\"\n",
    );
    write(&home, "checked/root.dockerfile", "RUN something\n");
    engine.add_image("debian:bookworm-slim", FakeImage::of_layer("debian"));
    let bench = Workbench {
        catalog: Catalog::new(objects),
        engine: Arc::new(engine.clone()),
        store: StoreId::generate(),
        library: Arc::new(Library::shipped()),
        state_dir: home.path().join("state"),
    };
    Shop { bench, engine, home }
}

fn write(home: &tempfile::TempDir, path: &str, text: &str) {
    let path = home.path().join(path);
    crate::base::fs::write_durably(&path, text.as_bytes(), crate::base::fs::Existing::Replace).unwrap();
}

impl Shop {
    fn spec(&self, template: &str) -> BakeSpec {
        BakeSpec { template: self.home.path().join(template).display().to_string(), ..BakeSpec::default() }
    }

    async fn bake(&self, spec: &BakeSpec) -> Result<BakeReport, BakeError> {
        self.bench.bake(spec, &Discard, &CancellationToken::new()).await
    }

    async fn states(&self) -> Vec<State> {
        self.bench.catalog.list().await.unwrap().iter().map(|snapshot| snapshot.state()).collect()
    }

    /// References on the engine but for the bases.
    fn made(&self) -> Vec<String> {
        self.engine.references().into_iter().filter(|reference| reference.starts_with("kiln/")).collect()
    }
}

fn succeeds(layer: &'static str) -> FakeBuild {
    FakeBuild::Succeeds(FakeImage::of_layer(layer))
}

#[tokio::test]
async fn the_same_input_is_built_once() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    let again = shop.bake(&shop.spec("app")).await.unwrap();
    assert_eq!((first.reused, again.reused), (false, true));
    assert_eq!(first.snapshot.id(), again.snapshot.id());
    assert_eq!(shop.engine.requests().len(), 1);
    assert_eq!(shop.states().await, [State::Active]);
}

#[tokio::test]
async fn another_base_makes_another_snapshot() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    shop.engine.add_image("base:1", FakeImage::of_layer("a newer base"));
    shop.engine.next_build(succeeds("two"));
    let second = shop.bake(&shop.spec("app")).await.unwrap();
    assert_ne!(first.snapshot.id(), second.snapshot.id());
}

#[tokio::test]
async fn on_another_engine_the_snapshot_gets_a_place() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    let other = FakeEngine::new().described(|info| info.id = "OTHER".parse().unwrap());
    other.add_image("base:1", FakeImage::of_layer("base"));
    other.next_build(succeeds("one"));
    let bench = Workbench { engine: Arc::new(other), ..shop.bench.clone() };
    let second = bench.bake(&shop.spec("app"), &Discard, &CancellationToken::new()).await.unwrap();
    assert_eq!(first.snapshot.id(), second.snapshot.id());
    assert_eq!(second.snapshot.places.len(), 2);
    assert!(bench.bake(&shop.spec("app"), &Discard, &CancellationToken::new()).await.unwrap().reused);
}

#[tokio::test]
async fn a_failed_further_place_leaves_the_snapshot_active() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    shop.engine.lose_image(&first.image);
    shop.engine.next_build(FakeBuild::Fails(EngineError::Cancelled { action: "building".into() }));
    shop.bake(&shop.spec("app")).await.unwrap_err();
    assert_eq!(shop.states().await, [State::Active]);
    shop.engine.next_build(succeeds("one"));
    let back = shop.bake(&shop.spec("app")).await.unwrap();
    assert_eq!((back.snapshot.id(), back.reused), (first.snapshot.id(), false));
}

#[tokio::test]
async fn an_image_that_somebody_else_put_under_the_tag_is_not_taken_for_ours() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    shop.engine.add_image(&first.tag, FakeImage::of_layer("foreign"));
    shop.engine.next_build(succeeds("one"));
    assert!(!shop.bake(&shop.spec("app")).await.unwrap().reused);
}

#[tokio::test]
async fn an_old_snapshot_is_baked_anew_without_the_cache() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    shop.bake(&shop.spec("app")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let spec = BakeSpec { max_age: Some(Length(Duration::from_millis(1))), ..shop.spec("app") };
    shop.engine.next_build(succeeds("two"));
    assert!(!shop.bake(&spec).await.unwrap().reused);
    assert!(shop.engine.requests()[1].no_cache);
}

/// Gating an old image again once made it young: a chain of such snapshots could keep it for ever.
#[tokio::test]
async fn an_image_that_is_gated_again_is_as_old_as_its_build() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    let spec = BakeSpec { sizing: Sizing { cpu: Some(1), ..Sizing::default() }, ..shop.spec("app") };
    let second = shop.bake(&spec).await.unwrap();
    assert_eq!(second.snapshot.built(), first.snapshot.built());
}

#[tokio::test]
async fn a_failed_build_is_recorded_and_leaves_nothing() {
    for (error, kind) in [
        (EngineError::Gone { action: "building".into(), source: "reset".into() }, ErrorKind::Unavailable),
        (
            EngineError::Step {
                step: 1,
                name: "RUN x".into(),
                exit_code: Some(7),
                message: "m".into(),
                tail: vec!["t".into()],
            },
            ErrorKind::Failed,
        ),
        (EngineError::DiskFull { step: None, message: "m".into() }, ErrorKind::Limit),
    ] {
        let shop = shop();
        shop.engine.next_build(FakeBuild::Fails(error));
        assert_eq!(shop.bake(&shop.spec("app")).await.unwrap_err().kind(), kind);
        let snapshots = shop.bench.catalog.list().await.unwrap();
        let failure = snapshots[0].last().unwrap().failure.clone().unwrap();
        assert_eq!((snapshots[0].state(), failure.kind), (State::Error, kind));
        assert!(shop.made().is_empty());
        assert!(shop.bench.catalog.beating().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_unreachable_engine_leaves_no_record() {
    let shop = shop();
    shop.engine.set_unreachable(true);
    assert_eq!(shop.bake(&shop.spec("app")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(shop.states().await.is_empty());
}

#[tokio::test]
async fn a_cancelled_build_is_recorded_and_leaves_nothing() {
    let shop = shop();
    let gate = FakeGate::default();
    shop.engine.next_build(FakeBuild::Waits(gate.clone(), Box::new(succeeds("one"))));
    let cancel = CancellationToken::new();
    let spec = shop.spec("app");
    let (result, ()) = tokio::join!(shop.bench.bake(&spec, &Discard, &cancel), async {
        gate.reached().await;
        assert_eq!(shop.states().await, [State::Building]);
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(shop.states().await, [State::Error]);
    assert!(shop.made().is_empty());
}

#[tokio::test]
async fn who_was_taken_for_dead_does_not_publish() {
    let shop = shop();
    let gate = FakeGate::default();
    shop.engine.next_build(FakeBuild::Waits(gate.clone(), Box::new(succeeds("one"))));
    let spec = shop.spec("app");
    let (result, ()) = tokio::join!(shop.bake(&spec), async {
        gate.reached().await;
        let id = shop.bench.catalog.list().await.unwrap()[0].id();
        shop.bench.catalog.transition(id, &StateEntry::to(State::Error, now())).await.unwrap();
        gate.open();
    });
    assert!(matches!(result, Err(BakeError::Overtaken { .. })));
    assert_eq!(shop.states().await, [State::Error]);
    assert!(shop.made().is_empty());
}

#[tokio::test]
async fn the_orphan_of_a_dead_process_is_settled() {
    let shop = shop();
    let gate = FakeGate::default();
    shop.engine.next_build(FakeBuild::Waits(gate.clone(), Box::new(succeeds("one"))));
    let (bench, spec) = (shop.bench.clone(), shop.spec("app"));
    let task = tokio::spawn(async move { bench.bake(&spec, &Discard, &CancellationToken::new()).await });
    gate.reached().await;
    task.abort();
    task.await.unwrap_err();
    let orphan = shop.bench.catalog.list().await.unwrap().remove(0);
    assert!(shop.bench.settle().await.unwrap().settled.is_empty(), "this process lives");
    // The same record, by a process of an earlier boot of this host.
    let owner = Owner { boot: "earlier".into(), ..Owner::current().unwrap() };
    let dead = crate::catalog::SnapshotRecord { owner, ..orphan.record.clone() };
    let key = Key::new(format!("snap/record/{}.json", orphan.id())).unwrap();
    shop.bench.catalog.objects().put(&key, serde_json::to_vec(&dead).unwrap().into()).await.unwrap();
    let label = ("kiln.store".to_owned(), shop.bench.store.to_string());
    let image = FakeImage { labels: [label].into(), ..FakeImage::of_layer("half") };
    shop.engine.add_image(&format!("kiln/app:{}", orphan.id()), image);
    assert_eq!(shop.bench.settle().await.unwrap().settled, [orphan.reference()]);
    assert_eq!(shop.states().await, [State::Error]);
    assert!(shop.made().is_empty());
    assert!(shop.bench.settle().await.unwrap().settled.is_empty());
}

#[tokio::test]
async fn a_silent_bake_of_another_host_is_settled_after_ten_minutes_of_this_ones_clock() {
    let shop = shop();
    let gate = FakeGate::default();
    shop.engine.next_build(FakeBuild::Waits(gate.clone(), Box::new(succeeds("one"))));
    let (bench, spec) = (shop.bench.clone(), shop.spec("app"));
    let task = tokio::spawn(async move { bench.bake(&spec, &Discard, &CancellationToken::new()).await });
    gate.reached().await;
    task.abort();
    task.await.unwrap_err();
    let orphan = shop.bench.catalog.list().await.unwrap().remove(0);
    let owner = Owner { host: "elsewhere".into(), ..Owner::current().unwrap() };
    let record = crate::catalog::SnapshotRecord { owner, ..orphan.record.clone() };
    let key = Key::new(format!("snap/record/{}.json", orphan.id())).unwrap();
    shop.bench.catalog.objects().put(&key, serde_json::to_vec(&record).unwrap().into()).await.unwrap();
    shop.bench.catalog.beat(orphan.id(), 7).await.unwrap();
    let settled_after =
        async |minutes: u64| shop.bench.settle_at(Duration::from_secs(60 * minutes)).await.unwrap().settled;
    assert!(settled_after(1).await.is_empty(), "seen for the first time");
    shop.bench.catalog.beat(orphan.id(), 8).await.unwrap();
    assert!(settled_after(12).await.is_empty(), "it has moved");
    assert!(settled_after(21).await.is_empty(), "nine minutes are not ten");
    assert_eq!(settled_after(22).await, [orphan.reference()]);
    assert_eq!(shop.states().await, [State::Error]);
}

#[tokio::test]
async fn checks_decide_and_all_of_them_are_recorded() {
    let shop = shop();
    shop.engine.on_command_ends("probe", 0, "all is fine\n");
    shop.engine.next_build(succeeds("one"));
    let good = shop.bake(&shop.spec("checked")).await.unwrap();
    assert!(good.snapshot.outcome().unwrap().checks[0].passed);
    for (outcome, reason) in [
        (FakeExec::Hangs, "no end after 1s"),
        (
            FakeExec::Ends(crate::docker::ExecReport {
                exit_code: 3,
                stdout: "fine".into(),
                stderr: "why".into(),
            }),
            "exit code 3",
        ),
        (
            FakeExec::Ends(crate::docker::ExecReport {
                exit_code: 0,
                stdout: "other".into(),
                stderr: String::new(),
            }),
            "has no `fine`",
        ),
    ] {
        shop.engine.on_command("probe", outcome);
        shop.engine.next_build(succeeds("one"));
        let error = shop.bake(&BakeSpec { rebuild: true, ..shop.spec("checked") }).await.unwrap_err();
        let BakeError::Checks { checks, .. } = &error else { panic!("{error}") };
        assert!(checks[0].reason.as_ref().unwrap().contains(reason), "{checks:?}");
        assert_eq!(error.kind(), ErrorKind::Failed);
    }
    // The older snapshot and its image are as they were.
    let kept = shop.bench.catalog.resolve(&"checked".parse().unwrap()).await.unwrap();
    assert_eq!(kept.id(), good.snapshot.id());
    assert_eq!(shop.made(), [good.tag]);
}

#[tokio::test]
async fn a_secret_in_a_layer_is_found_and_one_that_nothing_reads_refused() {
    let shop = shop();
    let secrets: BTreeMap<String, SecretValue> =
        [("token".to_owned(), SecretValue::new(b"hunter2-hunter2".to_vec()))].into();
    let spec = BakeSpec { secrets, ..shop.spec("app") };
    assert!(matches!(shop.bake(&spec).await, Err(BakeError::SecretUnused { .. })));
    write(&shop.home, "app/Dockerfile", "FROM base:1\nRUN --mount=type=secret,id=token something\n");
    shop.engine.next_build(succeeds("clean"));
    shop.bake(&spec).await.unwrap();
    shop.engine.next_build(succeeds("before hunter2-hunter2 after"));
    let error = shop.bake(&BakeSpec { rebuild: true, ..spec }).await.unwrap_err();
    assert!(matches!(error, BakeError::SecretLeaked { .. }), "{error}");
    assert_eq!(shop.made().len(), 1);
}

#[tokio::test]
async fn the_builder_is_chosen_by_what_the_file_needs_and_the_engine_can() {
    let home = tempfile::tempdir().unwrap();
    let objects = Arc::new(DirStore::new(home.path().join("store")));
    let shop = over(home, objects, FakeEngine::with_features(BuilderFeatures::default()));
    shop.engine.next_build(succeeds("one"));
    let built = shop.bake(&shop.spec("app")).await.unwrap();
    assert_eq!(built.snapshot.record.builder, crate::docker::Builder::Classic);
    write(&shop.home, "app/Dockerfile", "FROM base:1\nRUN --mount=type=cache,target=/x something\n");
    let error = shop.bake(&shop.spec("app")).await.unwrap_err();
    assert!(error.to_string().contains("`RUN --mount` (line 2)"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_revoked_input_is_refused_until_it_is_baked_anew() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    shop.bake(&shop.spec("app")).await.unwrap();
    shop.bench.revoke(&"app".parse().unwrap(), "it is broken").await.unwrap();
    let error = shop.bake(&shop.spec("app")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    shop.engine.next_build(succeeds("two"));
    shop.bake(&BakeSpec { rebuild: true, ..shop.spec("app") }).await.unwrap();
    assert!(shop.bake(&shop.spec("app")).await.unwrap().reused);
}

#[tokio::test]
async fn a_revocation_outlasts_removal_and_holds_for_every_name() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let baked = shop.bake(&shop.spec("app")).await.unwrap();
    shop.bench.revoke(&"app".parse().unwrap(), "it is broken").await.unwrap();
    shop.bench.remove(&format!("app@{}", baked.snapshot.id()).parse().unwrap()).await.unwrap();
    let renamed = BakeSpec { name: Some("other".parse().unwrap()), ..shop.spec("app") };
    for spec in [shop.spec("app"), renamed] {
        assert!(matches!(shop.bake(&spec).await, Err(BakeError::Revoked { .. })));
    }
}

#[tokio::test]
async fn a_rollback_goes_back_step_by_step() {
    let shop = shop();
    let (name, prod) = ("app".parse().unwrap(), "prod".parse().unwrap());
    let mut ids = Vec::new();
    for layer in ["one", "two", "three"] {
        shop.engine.next_build(succeeds(layer));
        let baked = shop.bake(&BakeSpec { rebuild: true, ..shop.spec("app") }).await.unwrap();
        shop.bench.promote_snapshot(&baked.snapshot, &prod).await.unwrap();
        ids.push(baked.snapshot.id());
    }
    for expected in [ids[1], ids[0]] {
        assert_eq!(shop.bench.rollback(&name, &prod).await.unwrap().snapshot, expected);
    }
    assert_eq!(shop.bench.rollback(&name, &prod).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn removing_takes_the_tag_and_keeps_what_others_hold() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let first = shop.bake(&shop.spec("app")).await.unwrap();
    let spec = BakeSpec { sizing: Sizing { cpu: Some(1), ..Sizing::default() }, ..shop.spec("app") };
    let second = shop.bake(&spec).await.unwrap();
    assert_eq!(first.image, second.image, "the same build is not built again");
    let one = shop.bench.remove(&format!("app@{}", first.snapshot.id()).parse().unwrap()).await.unwrap();
    assert_eq!((one.state, one.image_deleted), (State::Removed, false));
    let two = shop.bench.remove(&format!("app@{}", second.snapshot.id()).parse().unwrap()).await.unwrap();
    assert_eq!((two.state, two.image_deleted), (State::Removed, true));
}

/// A store whose n-th write fails.
#[derive(Debug)]
struct FailingOnce {
    inner: DirStore,
    left: AtomicUsize,
}

#[async_trait]
impl ObjectStore for FailingOnce {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        // The heartbeat comes whenever it comes, and may be missed; it is not counted.
        if !key.as_str().starts_with("beat/") && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(ObjectsError::Io {
                action: "write",
                key: key.to_string(),
                store: self.place(),
                source,
            });
        }
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.inner.put_file(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        self.inner.spool_dir()
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

/// Every write of a bake fails once: the error is told, nothing is half registered, and the next bake succeeds.
#[tokio::test]
async fn whichever_write_fails_nothing_is_half_registered() {
    for n in 1..40 {
        let home = tempfile::tempdir().unwrap();
        let inner = DirStore::new(home.path().join("store"));
        let failing = Arc::new(FailingOnce { inner, left: AtomicUsize::new(n) });
        let shop = over(home, failing.clone(), FakeEngine::new());
        shop.engine.on_command_ends("probe", 0, "fine");
        shop.engine.next_build(succeeds("one"));
        let result = shop.bake(&shop.spec("checked")).await;
        let states = shop.states().await;
        let all_written = (1..=n).contains(&failing.left.load(Ordering::SeqCst));
        match result {
            // Also where the failing write was a part of the log, which is tried again.
            Ok(report) => {
                assert_eq!(states, [State::Active], "write {n}");
                assert_eq!(shop.made(), [report.tag]);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "write {n}: {error}");
                assert!(
                    states.iter().all(|state| *state == State::Error || state.in_work()),
                    "write {n}: {states:?}"
                );
                assert!(shop.made().is_empty(), "write {n}");
                shop.engine.next_build(succeeds("one"));
                let next = shop.bake(&shop.spec("checked")).await.unwrap();
                assert_eq!(next.snapshot.state(), State::Active, "write {n}");
            }
        }
        if all_written {
            assert!(n > 8, "a bake writes more than {n} objects");
            return;
        }
    }
    panic!("a bake of so many writes is not expected");
}

impl Shop {
    async fn verify(&self, reference: &str) -> Result<VerifyReport, BakeError> {
        self.bench.verify(&reference.parse().unwrap(), &Discard, &CancellationToken::new()).await
    }
}

#[tokio::test]
async fn a_snapshot_is_verified_as_it_was_baked() {
    let shop = shop();
    shop.engine.on_command_ends("probe", 0, "all is fine\n");
    shop.engine.next_build(succeeds("one"));
    let baked = shop.bake(&shop.spec("checked")).await.unwrap();
    let report = shop.verify("checked").await.unwrap();
    assert_eq!((report.verdict, report.image), (Verdict::Sound, Some(baked.image)));
    assert_eq!(report.checks.len(), 1);
    let place = shop.bench.catalog.load(baked.snapshot.id()).await.unwrap().unwrap().places.remove(0);
    assert!(place.verified_at > baked.snapshot.places[0].verified_at);
    // What no longer passes is told, and changes no state.
    shop.engine.on_command_ends("probe", 1, "");
    let report = shop.verify("checked").await.unwrap();
    assert_eq!((report.verdict, report.checks[0].passed), (Verdict::Failed, false));
    assert!(report.reason.unwrap().contains("works"));
    assert_eq!(shop.states().await, [State::Active]);
    let all = shop.bench.verify_all(&Discard, &CancellationToken::new()).await.unwrap();
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn an_image_that_vanished_is_drift_and_is_baked_again() {
    for replaced in [false, true] {
        let shop = shop();
        shop.engine.next_build(succeeds("one"));
        let baked = shop.bake(&shop.spec("app")).await.unwrap();
        if replaced {
            shop.engine.add_image(&baked.tag, FakeImage::of_layer("foreign"));
        } else {
            shop.engine.lose_image(&baked.image);
        }
        let name = "app".parse().unwrap();
        assert!(matches!(shop.bench.stand_up(&name).await.unwrap(), Standing::Missing(_)));
        let report = shop.verify("app").await.unwrap();
        assert_eq!(report.verdict, if replaced { Verdict::Replaced } else { Verdict::Gone });
        assert!(report.reason.unwrap().contains(&baked.tag));
        let known = shop.bench.catalog.load(baked.snapshot.id()).await.unwrap().unwrap();
        assert_eq!((known.state(), known.is_anywhere()), (State::Active, false));
        assert_eq!(shop.bench.verify_all(&Discard, &CancellationToken::new()).await.unwrap(), []);
        shop.engine.next_build(succeeds("one"));
        let again = shop.bake(&shop.spec("app")).await.unwrap();
        assert_eq!((again.snapshot.id(), again.reused), (baked.snapshot.id(), false));
        assert!(matches!(shop.bench.stand_up(&name).await.unwrap(), Standing::Ready(_)));
    }
}

#[tokio::test]
async fn an_unchecked_snapshot_that_passes_its_checks_is_active() {
    let shop = shop();
    shop.engine.on_command_ends("probe", 0, "all is fine\n");
    shop.engine.next_build(succeeds("one"));
    let spec = BakeSpec { skip_checks: true, ..shop.spec("checked") };
    let id = shop.bake(&spec).await.unwrap().snapshot.id();
    let reference = format!("checked@{id}");
    let report = shop.verify(&reference).await.unwrap();
    assert_eq!((report.verdict, report.state), (Verdict::Sound, State::Active));
    let known = shop.bench.catalog.load(id).await.unwrap().unwrap();
    assert_eq!((known.state(), known.outcome().unwrap().checks.len()), (State::Active, 1));
    let revoked = shop.bench.revoke(&reference.parse().unwrap(), "no").await.unwrap();
    assert_eq!(revoked.state(), State::Revoked);
    assert_eq!(shop.verify(&reference).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_was_put_aside_is_active_again_while_its_image_is_here() {
    let shop = shop();
    shop.engine.next_build(succeeds("one"));
    let baked = shop.bake(&shop.spec("app")).await.unwrap();
    let aside = StateEntry::to(State::Inactive, now());
    assert!(shop.bench.catalog.transition(baked.snapshot.id(), &aside).await.unwrap());
    let Standing::Ready(report) = shop.bench.stand_up(&"app".parse().unwrap()).await.unwrap() else {
        panic!("it is here")
    };
    assert_eq!((report.image, report.tag), (baked.image, baked.tag));
    assert_eq!(shop.states().await, [State::Active]);
    assert_eq!(report.snapshot.outcome(), baked.snapshot.outcome());
    let nobody = shop.bench.stand_up(&"nobody".parse().unwrap()).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_built_on_a_revoked_snapshot_is_not_promoted() {
    let shop = shop();
    for name in ["lower", "upper", "top"] {
        let manifest = format!(
            "schema = 1\nname = \"{name}\"\ndescription = \"A test.\"\nbase = \"debian:bookworm-slim\"\n"
        );
        write(&shop.home, &format!("{name}/template.toml"), &manifest);
        write(&shop.home, &format!("{name}/root.dockerfile"), &format!("RUN {name}\n"));
    }
    shop.engine.next_build(succeeds("one"));
    let below = shop.bake(&shop.spec("lower")).await.unwrap();
    let mut last = below.snapshot.clone();
    for (name, layer) in [("upper", "two"), ("top", "three")] {
        let base = BaseChoice::Snapshot(last.reference().parse().unwrap());
        shop.engine.next_build(succeeds(layer));
        last = shop.bake(&BakeSpec { base: Some(base), ..shop.spec(name) }).await.unwrap().snapshot;
    }
    let (reference, prod) = (last.reference().parse().unwrap(), "prod".parse().unwrap());
    shop.bench.promote(&reference, &prod).await.unwrap();
    shop.bench.revoke(&below.snapshot.reference().parse().unwrap(), "a hole").await.unwrap();
    let error = shop.bench.promote(&reference, &"next".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&below.snapshot.reference()), "{error}");
    assert!(error.to_string().ends_with("revoked: a hole"), "{error}");
}
