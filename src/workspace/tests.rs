//! Saving and restoring, as one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::archive::ArchiveFormat;
use super::tree::{IdRange, OwnerRule};
use super::*;
use crate::base::{Classify as _, Discard, ErrorKind, Sink, StoreId};
use crate::objects::{DirStore, Prefix};
use crate::store::revision::RevisionRef;

pub(super) struct Place {
    home: tempfile::TempDir,
    pub(super) depot: Depot,
}

impl Place {
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let depot = Depot {
            objects: Arc::new(DirStore::new(home.path().join("store"))),
            store: StoreId::generate(),
            quota_bytes: None,
            cache_dir: home.path().join("cache"),
            state_dir: home.path().join("state"),
        };
        Self { home, depot }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, content.as_ref()).unwrap();
        path
    }

    pub(super) async fn save(&self, directory: &str) -> SaveReport {
        self.try_save(directory, &SaveSpec::new("w".parse().unwrap())).await.unwrap()
    }

    pub(super) async fn try_save(
        &self,
        directory: &str,
        spec: &SaveSpec,
    ) -> Result<SaveReport, WorkspaceError> {
        let sink: Arc<dyn Sink<WorkspaceEvent>> = Arc::new(Discard);
        save(&self.depot, &self.path(directory), spec, sink, &CancellationToken::new()).await
    }

    pub(super) async fn newest(&self) -> RevisionRef {
        crate::store::revision::list(&*self.depot.objects, None).await.unwrap().pop().unwrap()
    }

    pub(super) async fn try_restore(
        &self,
        target: &str,
        spec: &RestoreSpec,
    ) -> Result<RestoreReport, WorkspaceError> {
        let sink: Arc<dyn Sink<WorkspaceEvent>> = Arc::new(Discard);
        let revision = self.newest().await;
        restore(&self.depot, &revision, &self.path(target), spec, sink, &CancellationToken::new()).await
    }
}

/// Everything that one sees of a tree, by path: kind, mode, owner, size, time, links, content.
pub(super) fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(
        root: &Path,
        at: &Path,
        inodes: &mut BTreeMap<u64, PathBuf>,
        seen: &mut BTreeMap<PathBuf, String>,
    ) {
        let meta = fs::symlink_metadata(at).unwrap();
        let name = at.strip_prefix(root).unwrap().to_owned();
        let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let content = if meta.is_file() {
            crate::base::Sha256Digest::of(&fs::read(at).unwrap()).to_string()
        } else if meta.is_symlink() {
            format!("{:?}", fs::read_link(at).unwrap())
        } else {
            String::new()
        };
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let what = format!(
            "{:o} {} {} {size} {}.{} {first:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        seen.insert(name, what);
        if meta.is_dir() {
            for entry in fs::read_dir(at).unwrap() {
                walk(root, &entry.unwrap().path(), inodes, seen);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut BTreeMap::new(), &mut found);
    found
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

fn a_tree(place: &Place) {
    place.write("tree/a/small.txt", "hello");
    place.write("tree/a/empty", "");
    place.write("tree/a/same", "hello");
    place.write("tree/b/large.bin", noise(1, 9 << 20));
    place.write("tree/b/medium.txt", "some text that repeats\n".repeat(20_000));
    place.write("tree/b-c/d/e/f", "deep");
    fs::create_dir(place.path("tree/nothing")).unwrap();
    symlink("../nowhere", place.path("tree/a/link")).unwrap();
    fs::hard_link(place.path("tree/b/medium.txt"), place.path("tree/z-link")).unwrap();
    fs::set_permissions(place.path("tree/a/small.txt"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(place.path("tree/nothing"), fs::Permissions::from_mode(0o1750)).unwrap();
    let done = Command::new("touch")
        .args(["-d", "1969-12-31T23:59:58.123456789Z"])
        .arg(place.path("tree/a/same"))
        .status();
    assert!(done.unwrap().success());
    let sparse = fs::File::create(place.path("tree/b/sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(2, 200_000), 10 << 20).unwrap();
}

fn everything() -> RestoreSpec {
    let mut spec = RestoreSpec::default();
    spec.rights.special_bits = true;
    spec.rights.privileged_xattrs = true;
    spec.rights.devices = true;
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_what_was_saved() {
    let place = Place::new();
    a_tree(&place);
    let report = place.save("tree").await;
    assert_eq!((report.unsettled.count, report.unreadable.count), (0, 0));
    let restored = place.try_restore("back", &everything()).await.unwrap();
    assert_eq!(restored.shortfalls, []);
    assert_eq!(restored.counts.entries, report.counts.entries);
    assert_eq!(seen(&place.path("back")), seen(&place.path("tree")));
    let blocks = |name: &str| fs::metadata(place.path(name)).unwrap().blocks();
    assert!(blocks("back/b/sparse") < 2_000, "{}", blocks("back/b/sparse"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_save_stores_next_to_nothing_and_a_save_after_a_restore_too() {
    let place = Place::new();
    a_tree(&place);
    let first = place.save("tree").await;
    assert!(first.written.new_bytes > 9 << 20);
    let second = place.save("tree").await;
    assert_eq!((second.written.new_bytes, second.written.packs), (0, 0));
    assert_eq!(second.parent, Some(first.revision));
    place.try_restore("back", &everything()).await.unwrap();
    let third = place.save("back").await;
    assert_eq!(third.written.new_bytes, 0);
    assert_eq!(third.counts, first.counts);
    let revisions = crate::store::revision::list(&*place.depot.objects, None).await.unwrap();
    assert_eq!(revisions.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_saved_whatever_its_time_says() {
    let place = Place::new();
    a_tree(&place);
    place.save("tree").await;
    place.write("tree/a/small.txt", "jello");
    place.write("tree/a/small2.txt", "new");
    fs::remove_file(place.path("tree/b-c/d/e/f")).unwrap();
    place.save("tree").await;
    place.try_restore("back", &everything()).await.unwrap();
    assert_eq!(seen(&place.path("back")), seen(&place.path("tree")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_leaves_no_session_and_no_temporary_file() {
    let place = Place::new();
    a_tree(&place);
    place.save("tree").await;
    for prefix in ["sess", "beat"] {
        let left = place.depot.objects.list(&Prefix::new(prefix).unwrap()).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
    let spool = fs::read_dir(place.path("store/.spool")).unwrap().count();
    assert_eq!(spool, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_a_save_and_leave_no_revision() {
    let place = Place::new();
    a_tree(&place);
    for spec in [
        SaveSpec { max_bytes: Some(1 << 20), ..SaveSpec::new("w".parse().unwrap()) },
        SaveSpec { max_entries: Some(5), ..SaveSpec::new("w".parse().unwrap()) },
    ] {
        let error = place.try_save("tree", &spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
    }
    let quota = Place {
        depot: Depot { quota_bytes: Some(1 << 20), ..place.depot.clone() },
        home: tempfile::tempdir().unwrap(),
    };
    let sink: Arc<dyn Sink<WorkspaceEvent>> = Arc::new(Discard);
    let spec = SaveSpec::new("w".parse().unwrap());
    let error =
        save(&quota.depot, &place.path("tree"), &spec, sink, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(crate::store::revision::list(&*place.depot.objects, None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_a_part_of_a_revision_too() {
    let place = Place::new();
    place.write("tree/part/a", "12345");
    place.write("tree/part/b", "12345");
    place.write("tree/rest", "1".repeat(1000));
    place.save("tree").await;
    let part = RestoreSpec { includes: vec!["/part".to_owned()], ..everything() };
    for spec in [
        RestoreSpec { max_bytes: Some(9), ..part.clone() },
        RestoreSpec { max_entries: Some(3), ..part.clone() },
    ] {
        let error = place.try_restore("back", &spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        assert!(!place.path("back").exists());
        let error = streamed(&place, &spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    }
    let spec = RestoreSpec { max_bytes: Some(10), max_entries: Some(4), ..part };
    assert_eq!(place.try_restore("back", &spec).await.unwrap().counts.files, 2);
    streamed(&place, &spec).await.unwrap();
}

/// Restores the newest revision as an archive; returns it.
async fn streamed(place: &Place, spec: &RestoreSpec) -> Result<Vec<u8>, WorkspaceError> {
    Ok(streamed_with_report(place, spec).await?.0)
}

/// As [`streamed`], with what is said of it.
async fn streamed_with_report(
    place: &Place,
    spec: &RestoreSpec,
) -> Result<(Vec<u8>, RestoreReport), WorkspaceError> {
    let (revision, sink): (_, Arc<dyn Sink<WorkspaceEvent>>) = (place.newest().await, Arc::new(Discard));
    let (out, cancel) = (place.path("archive.tar"), CancellationToken::new());
    let file = Box::new(fs::File::create(&out).unwrap());
    let format = ArchiveFormat::Tar;
    let report = restore_archive(&place.depot, &revision, file, format, spec, sink, &cancel).await?;
    Ok((fs::read(&out).unwrap(), report))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_names_the_owners_that_were_asked_for() {
    let place = Place::new();
    place.write("tree/a", "12345");
    place.save("tree").await;
    let owners = async |owner: Option<OwnerRule>| {
        let mut spec = everything();
        spec.rights.owner = owner;
        let archive = streamed(&place, &spec).await.unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let owners = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let user = String::from_utf8(header.username_bytes().unwrap().to_vec()).unwrap();
            (header.uid().unwrap(), header.gid().unwrap(), user)
        });
        let mut owners: Vec<_> = owners.collect();
        owners.dedup();
        assert_eq!(owners.len(), 1, "{owners:?}");
        owners.remove(0)
    };
    let metadata = fs::metadata(place.path("tree/a")).unwrap();
    let (uid, gid) = (u64::from(metadata.uid()), u64::from(metadata.gid()));
    let saved = owners(None).await;
    assert_eq!((saved.0, saved.1), (uid, gid));
    assert_eq!(owners(Some(OwnerRule::Keep)).await, saved);
    assert_eq!(owners(Some(OwnerRule::Fixed { uid: 7, gid: 8 })).await, (7, 8, String::new()));
    let users = vec![IdRange { from: metadata.uid(), to: 100_000, count: 1 }];
    let nobody = OwnerRule::Map { users, groups: vec![] };
    assert_eq!(owners(Some(nobody)).await, (100_000, 65_534, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_name_of_what_is_not_restored_is_left_out_and_counted() {
    let place = Place::new();
    place.write("tree/file", "12345");
    let socket = std::os::unix::net::UnixListener::bind(place.path("tree/a-socket")).unwrap();
    fs::hard_link(place.path("tree/a-socket"), place.path("tree/its-name")).unwrap();
    drop(socket);
    place.save("tree").await;
    let report = place.try_restore("back", &everything()).await.unwrap();
    assert_eq!(
        report.shortfalls.iter().map(|(_, count, _)| count).sum::<u64>(),
        2,
        "{:?}",
        report.shortfalls
    );
    let left = || {
        fs::read_dir(place.path("back")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(left(), vec!["file"]);
    let (_, of_stream) = streamed_with_report(&place, &everything()).await.unwrap();
    assert_eq!(of_stream.shortfalls, report.shortfalls);
    let (revision, cancel) = (place.newest().await, CancellationToken::new());
    let sink: Arc<dyn Sink<WorkspaceEvent>> = Arc::new(Discard);
    update(&place.depot, &revision, &place.path("back"), &everything(), sink, &cancel).await.unwrap();
    assert_eq!(left(), vec!["file"]);
    let archive = streamed(&place, &everything()).await.unwrap();
    let spec = SaveSpec::new("from-archive".parse().unwrap());
    let (sink, stream): (Arc<dyn Sink<WorkspaceEvent>>, _) =
        (Arc::new(Discard), std::io::Cursor::new(archive));
    let saved = save_archive(&place.depot, Box::new(stream), "a test".to_owned(), &spec, sink, &cancel).await;
    assert_eq!(saved.unwrap().counts.entries, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_that_a_restore_changed_are_saved_and_updated_as_they_are() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    a_tree(&place);
    place.save("tree").await;
    let given = |uid: u32| {
        let mut spec = everything();
        spec.rights.owner = Some(OwnerRule::Fixed { uid, gid: uid });
        spec
    };
    let owners = |name: &str| {
        let mut owners: Vec<u32> =
            walkdir(&place.path(name)).into_iter().map(|metadata| metadata.uid()).collect();
        owners.dedup();
        owners
    };
    place.try_restore("back", &given(1_234)).await.unwrap();
    assert_eq!(owners("back"), [1_234]);
    std::thread::sleep(std::time::Duration::from_millis(30));
    let (revision, cancel) = (place.newest().await, CancellationToken::new());
    let quiet = || -> Arc<dyn Sink<WorkspaceEvent>> { Arc::new(Discard) };
    update(&place.depot, &revision, &place.path("back"), &given(4_321), quiet(), &cancel).await.unwrap();
    assert_eq!(owners("back"), [4_321]);
    std::thread::sleep(std::time::Duration::from_millis(30));
    place.save("back").await;
    place.try_restore("again", &everything()).await.unwrap();
    assert_eq!(owners("again"), [4_321]);
}

/// What stands in a tree, the root first.
fn walkdir(root: &Path) -> Vec<fs::Metadata> {
    let mut found = vec![fs::symlink_metadata(root).unwrap()];
    if found[0].is_dir() {
        for entry in fs::read_dir(root).unwrap() {
            found.extend(walkdir(&entry.unwrap().path()));
        }
    }
    found
}

/// A stream once reported what it wrote as what it had fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reports_what_was_fetched_for_it() {
    let place = Place::new();
    place.write("tree/text", "the same line again\n".repeat(100_000));
    place.save("tree").await;
    let (archive, report) = streamed_with_report(&place, &everything()).await.unwrap();
    assert!(archive.len() > 2_000_000);
    assert!((1..500_000).contains(&report.fetched_bytes), "{}", report.fetched_bytes);
    assert_eq!(report.fetched_bytes, place.try_restore("back", &everything()).await.unwrap().fetched_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_noted_unless_asked_not_to() {
    let place = Place::new();
    place.write("tree/a", "12345");
    place.save("tree").await;
    let revision = place.newest().await;
    place.try_restore("one", &RestoreSpec { unnoted: true, ..everything() }).await.unwrap();
    assert_eq!(touched(&place.depot, &revision).await, None);
    place.try_restore("two", &RestoreSpec::default()).await.unwrap();
    assert!(touched(&place.depot, &revision).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_restored_as_content() {
    let place = Place::new();
    place.write("tree/file", noise(3, 300_000));
    place.write("tree/text", "text ".repeat(1000));
    place.save("tree").await;
    let objects = &place.depot.objects;
    for prefix in ["packs", "meta", "rev"] {
        let there = objects.list(&Prefix::new(prefix).unwrap()).await.unwrap();
        let key = &there.first().unwrap().key;
        let bytes = objects.get(key).await.unwrap().unwrap();
        for at in [20, bytes.len() / 2, bytes.len() - 60] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 4;
            objects.put(key, damaged.into()).await.unwrap();
            match place.try_restore("back", &everything()).await {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{prefix} {at}: {error}");
                    assert!(!place.path("back").exists());
                }
                // A table of a pack is not the only way to a chunk: the index knows it, too.
                Ok(_) => {
                    assert_eq!(seen(&place.path("back")), seen(&place.path("tree")), "{prefix} {at}");
                    fs::remove_dir_all(place.path("back")).unwrap();
                }
            }
        }
        objects.put(key, bytes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_saves_at_once_both_land() {
    let place = Place::new();
    a_tree(&place);
    place.write("other/x", "other");
    let (one, two) = tokio::join!(place.save("tree"), place.save("other"));
    assert_ne!(one.revision, two.revision);
    let revisions = crate::store::revision::list(&*place.depot.objects, None).await.unwrap();
    assert_eq!(revisions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_leaves_nothing() {
    let place = Place::new();
    a_tree(&place);
    place.save("tree").await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let sink: Arc<dyn Sink<WorkspaceEvent>> = Arc::new(Discard);
    let revision = place.newest().await;
    let error = restore(&place.depot, &revision, &place.path("back"), &everything(), sink, &cancel)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let left: Vec<_> =
        fs::read_dir(place.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("back")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_saves_do_not_make_many_segments() {
    let place = Place::new();
    for n in 0..40 {
        place.write(&format!("tree/{n}"), format!("content {n}"));
        place.save("tree").await;
    }
    let segments = place.depot.objects.list(&Prefix::new("idx").unwrap()).await.unwrap();
    assert!(segments.len() < 20, "{}", segments.len());
    place.try_restore("back", &everything()).await.unwrap();
    assert_eq!(seen(&place.path("back")), seen(&place.path("tree")));
    // Every chunk is still known by the index: the same content costs nothing.
    fs::remove_dir_all(place.path("state")).unwrap();
    assert_eq!(place.save("tree").await.written.new_bytes, 0);
}
