//! The catalog's promises, over every kind of store.

use std::sync::Arc;

use super::*;
use crate::base::{
    BuildKey, ByteSize, EngineId, ErrorKind, ImageId, Owner, Sha256Digest, SnapshotId, SnapshotKey, now,
};
use crate::docker::{Builder, NetworkMode};
use crate::objects::{DirStore, Key, SimFaults, SimStore};

/// A catalog to try the promises on.
struct Home {
    catalog: Catalog,
    _folder: Option<tempfile::TempDir>,
}

fn in_a_directory() -> Home {
    let folder = tempfile::tempdir().unwrap();
    Home {
        catalog: Catalog::new(Arc::new(DirStore::new(folder.path().join("store")))),
        _folder: Some(folder),
    }
}

fn in_the_simulation() -> Home {
    let store = SimStore::new(1);
    store.set_faults(SimFaults { delay: 300, split_list: 300, ..SimFaults::default() });
    Home { catalog: Catalog::new(Arc::new(store)), _folder: None }
}

async fn in_a_bucket() -> Home {
    Home { catalog: Catalog::new(Arc::new(crate::objects::garage::store().await)), _folder: None }
}

/// Makes tests of promises: one in a directory, one in the simulation, one on a real S3 server.
macro_rules! over_every_store {
    ($($promise:ident),* $(,)?) => {
        mod directory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::in_a_directory()).await;
            })*
        }
        mod simulation {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::in_the_simulation()).await;
            })*
        }
        mod garage {
            $(#[tokio::test]
            #[ignore = "needs Garage"]
            async fn $promise() {
                super::$promise(super::in_a_bucket().await).await;
            })*
        }
    };
}

over_every_store!(
    a_snapshot_reads_back_as_it_was_written,
    who_was_settled_cannot_publish,
    a_name_stands_for_its_newest_active_snapshot,
    a_wrong_name_suggests_the_nearest,
    channels_move_and_remember,
    the_last_mark_of_a_kind_holds,
    of_an_engine_the_last_observation_counts,
    a_log_reads_the_same_while_it_grows_and_afterwards,
    a_record_of_a_newer_version_is_refused,
);

fn record(name: &str) -> SnapshotRecord {
    let digest = Sha256Digest::of(name.as_bytes());
    SnapshotRecord {
        version: 1,
        id: SnapshotId::generate(),
        name: name.parse().unwrap(),
        template: name.into(),
        source: None,
        description: "A test.".into(),
        created: now(),
        owner: Owner::current().unwrap(),
        kiln_version: "0".into(),
        build_key: BuildKey::new(digest),
        snapshot_key: SnapshotKey::new(digest),
        dockerfile: "FROM scratch\n".into(),
        context_digest: digest,
        parameters: [("a".to_owned(), "b".to_owned())].into(),
        components: vec!["x".into()],
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
        build_args: [].into(),
        secret_ids: vec![],
        target: None,
        platform: None,
        network: NetworkMode::Default,
        builder: Builder::Buildkit,
        runtime: crate::template::Runtime::default(),
        resources: crate::template::Resources::default(),
        limits: crate::template::Limits { image: ByteSize(1), ..crate::template::Limits::default() },
        checks: vec![],
        profile: None,
        refresh_after: None,
        labels: [].into(),
    }
}

async fn active(catalog: &Catalog, name: &str) -> SnapshotId {
    let record = record(name);
    catalog.create(&record).await.unwrap();
    for state in [State::Checking, State::Active] {
        assert!(catalog.transition(record.id, &StateEntry::to(state, now())).await.unwrap());
    }
    record.id
}

async fn a_snapshot_reads_back_as_it_was_written(home: Home) {
    let written = record("a");
    home.catalog.create(&written).await.unwrap();
    let snapshot = home.catalog.load(written.id).await.unwrap().unwrap();
    assert_eq!(snapshot.record, written);
    assert_eq!(snapshot.state(), State::Building);
    assert_eq!(home.catalog.of_key(written.snapshot_key).await.unwrap(), std::slice::from_ref(&snapshot));
    assert_eq!(home.catalog.of_build(written.build_key).await.unwrap(), [snapshot]);
    assert!(home.catalog.load(SnapshotId::generate()).await.unwrap().is_none());
}

async fn who_was_settled_cannot_publish(home: Home) {
    let record = record("a");
    home.catalog.create(&record).await.unwrap();
    assert!(home.catalog.transition(record.id, &StateEntry::to(State::Error, now())).await.unwrap());
    assert!(!home.catalog.transition(record.id, &StateEntry::to(State::Active, now())).await.unwrap());
    assert_eq!(home.catalog.state(record.id).await.unwrap(), Some(State::Error));
}

async fn a_name_stands_for_its_newest_active_snapshot(home: Home) {
    let older = active(&home.catalog, "a").await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let newer = active(&home.catalog, "a").await;
    let find = async |text: &str| home.catalog.resolve(&text.parse().unwrap()).await;
    assert_eq!(find("a").await.unwrap().id(), newer);
    assert_eq!(find(&format!("a@{older}")).await.unwrap().id(), older);
    assert_eq!(find(&older.to_string()).await.unwrap().id(), older);
    home.catalog.transition(newer, &StateEntry::to(State::Revoked, now())).await.unwrap();
    assert_eq!(find("a").await.unwrap().id(), older);
    home.catalog.transition(older, &StateEntry::to(State::Inactive, now())).await.unwrap();
    let error = find("a").await.unwrap_err();
    assert!(error.to_string().contains("which is revoked"), "{error}");
}

async fn a_wrong_name_suggests_the_nearest(home: Home) {
    use crate::base::Classify as _;
    active(&home.catalog, "litellm").await;
    let error = home.catalog.resolve(&"litelm".parse().unwrap()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.hint().unwrap().as_str()),
        (ErrorKind::NotFound, "did you mean `litellm`?")
    );
    let error = home.catalog.resolve(&"other:prod".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

async fn channels_move_and_remember(home: Home) {
    let (name, prod) = ("a".parse().unwrap(), "prod".parse().unwrap());
    let (one, two) = (active(&home.catalog, "a").await, active(&home.catalog, "a").await);
    for id in [one, two, two] {
        home.catalog.move_channel(&name, &prod, id, Way::On, now()).await.unwrap();
    }
    let moves = home.catalog.channel_moves(&name, Some(&prod)).await.unwrap();
    assert_eq!(moves.iter().map(|step| step.snapshot).collect::<Vec<_>>(), [one, two]);
    assert_eq!(moves[1].previous, Some(one));
    home.catalog.move_channel(&name, &"latest".parse().unwrap(), one, Way::On, now()).await.unwrap();
    assert_eq!(home.catalog.channels().await.unwrap().len(), 2);
    assert_eq!(home.catalog.resolve(&"a:prod".parse().unwrap()).await.unwrap().id(), two);
}

async fn the_last_mark_of_a_kind_holds(home: Home) {
    let id = active(&home.catalog, "a").await;
    for mark in
        [Mark::Pin, Mark::Unpin, Mark::Pin, Mark::Expire { at: Some(now()) }, Mark::Expire { at: None }]
    {
        home.catalog.mark(id, mark, now()).await.unwrap();
    }
    let marks = home.catalog.load(id).await.unwrap().unwrap().marks;
    assert_eq!(marks, Marks { pinned: true, expires: None });
}

async fn of_an_engine_the_last_observation_counts(home: Home) {
    let id = active(&home.catalog, "a").await;
    let engine: EngineId = "E:1".parse().unwrap();
    for state in [PlaceState::Present, PlaceState::Gone] {
        let place = PlaceRecord {
            version: 1,
            engine: engine.clone(),
            endpoint: "unix:///x".into(),
            image: ImageId::new(Sha256Digest::of(b"")),
            tag: "t".into(),
            state,
            verified_at: now(),
            last_used: None,
        };
        home.catalog.add_place(id, &place).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let at = now();
    home.catalog.touch(id, &engine, at).await.unwrap();
    let snapshot = home.catalog.load(id).await.unwrap().unwrap();
    assert_eq!(snapshot.places.len(), 1);
    assert_eq!((snapshot.places[0].state, snapshot.places[0].last_used), (PlaceState::Gone, Some(at)));
}

async fn a_log_reads_the_same_while_it_grows_and_afterwards(home: Home) {
    let id = SnapshotId::generate();
    let mut writer = LogWriter::new(home.catalog.clone(), id);
    let mut follower = LogReader::new(home.catalog.clone(), id);
    let lines: Vec<String> = (0..40_000).map(|n| format!("{{\"line\":{n}}}")).collect();
    let mut followed = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        writer.push(line);
        writer.flush_if_due().await.unwrap();
        if n % 10_000 == 0 {
            followed.extend(follower.next_lines().await.unwrap());
        }
    }
    assert!(!followed.is_empty(), "parts are seen before the end");
    writer.finish().await.unwrap();
    followed.extend(follower.next_lines().await.unwrap());
    assert_eq!(followed, lines);
    assert_eq!(LogReader::new(home.catalog.clone(), id).next_lines().await.unwrap(), lines);
}

async fn a_record_of_a_newer_version_is_refused(home: Home) {
    let id = active(&home.catalog, "a").await;
    let key = Key::new(format!("snap/record/{id}.json")).unwrap();
    for (bytes, kind) in
        [(r#"{"version":2}"#, "newer"), ("{", "unreadable"), (r#"{"version":1}"#, "unreadable")]
    {
        home.catalog.objects().put(&key, bytes.into()).await.unwrap();
        let error = home.catalog.load(id).await.unwrap_err();
        let found = match error {
            CatalogError::Newer { .. } => "newer",
            CatalogError::Unreadable { .. } => "unreadable",
            _ => "other",
        };
        assert_eq!(found, kind);
    }
}

/// Records of the first released layout must read for ever. The fixture is a whole store as this version wrote it.
#[tokio::test]
async fn the_first_layout_is_read() {
    let store = DirStore::new("tests/fixtures/catalog/v1".into());
    let catalog = Catalog::new(Arc::new(store));
    let snapshots = catalog.list().await.unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0].state(), State::Active);
    assert!(snapshots[0].outcome().is_some());
    assert!(snapshots[0].marks.pinned);
    assert_eq!(catalog.channels().await.unwrap().len(), 1);
}
