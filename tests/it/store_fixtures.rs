//! Stores that earlier versions wrote, read by this one.
//!
//! A folder `tests/fixtures/store-vN` is written once, by the version whose format it shows, and never again: with
//! `KILN_UPDATE=1`, and only where there is none.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kiln::base::{Discard, now};
use kiln::objects::DirStore;
use kiln::store::{Format, revision};
use kiln::workspace::{Depot, RestoreSpec, SaveSpec, restore, save};
use tokio_util::sync::CancellationToken;

const FIXTURE: &str = "tests/fixtures/store-v1";

/// Seconds since 1970 at which everything in the tree was changed.
const CHANGED: u64 = 1_700_000_000;

/// The files of the tree: path, mode, content. Together they take every way that contents are kept: in one chunk, in several, and
/// in more than an entry holds references to.
fn files() -> Vec<(&'static str, u32, Vec<u8>)> {
    let lines: String = (0..20_000).map(|n| format!("{}\n", n % 97)).collect();
    vec![
        ("README", 0o644, b"a workspace of version 1\n".to_vec()),
        ("bin/tool", 0o755, b"#!/bin/sh\nexit 0\n".to_vec()),
        ("deep/er/empty", 0o600, Vec::new()),
        ("deep/er/lines", 0o640, lines.repeat(6).into_bytes()),
        ("deep/zeros", 0o400, vec![0; 20 << 20]),
    ]
}

fn write_tree(root: &Path) {
    let set = |path: &Path| {
        File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(CHANGED)).unwrap()
    };
    for (name, mode, content) in files() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().write_all(&content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        set(&path);
    }
    symlink("../README", root.join("bin/link")).unwrap();
    fs::hard_link(root.join("README"), root.join("same")).unwrap();
    for directory in ["deep/er", "deep", "bin", ""] {
        set(&root.join(directory));
    }
}

fn check_tree(root: &Path) {
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    for (name, mode, content) in files() {
        assert!(fs::read(root.join(name)).unwrap() == content, "{name}");
        assert_eq!(meta(name).mode() & 0o7777, mode, "{name}");
        assert_eq!(meta(name).mtime().cast_unsigned(), CHANGED, "{name}");
    }
    assert_eq!(fs::read_link(root.join("bin/link")).unwrap(), Path::new("../README"));
    assert_eq!(meta("same").ino(), meta("README").ino());
    for directory in ["deep/er", "deep", "bin", ""] {
        assert_eq!(meta(directory).mtime().cast_unsigned(), CHANGED, "{directory}");
    }
    let mut names = Vec::new();
    below(root, &mut names);
    assert_eq!(names.len(), files().len() + 2 + 3, "{names:?}");
}

fn below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            below(&path, found);
        }
        found.push(path);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

async fn depot(store: &Path, home: &Path) -> Depot {
    let objects = Arc::new(DirStore::new(store.to_owned()));
    let format = Format::open(&*objects).await.unwrap();
    Depot {
        objects,
        store: format.id,
        quota_bytes: format.quota_bytes,
        cache_dir: home.join("cache"),
        state_dir: home.join("state"),
    }
}

async fn save_tree(depot: &Depot, tree: &Path) {
    let spec = SaveSpec::new("fixture".parse().unwrap());
    save(depot, tree, &spec, Arc::new(Discard), &CancellationToken::new()).await.unwrap();
}

async fn restore_newest(depot: &Depot, target: &Path) {
    let newest = revision::list(&*depot.objects, None).await.unwrap().pop().unwrap();
    let (spec, cancel) = (RestoreSpec::default(), CancellationToken::new());
    restore(depot, &newest, target, &spec, Arc::new(Discard), &cancel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_version_1_is_restored_byte_for_byte_and_saved_to() {
    let home = tempfile::tempdir().unwrap();
    if std::env::var_os("KILN_UPDATE").is_some() && !Path::new(FIXTURE).exists() {
        let tree = home.path().join("tree");
        write_tree(&tree);
        let store = home.path().join("new");
        Format::init(&DirStore::new(store.clone()), None, now()).await.unwrap();
        save_tree(&depot(&store, home.path()).await, &tree).await;
        copy(&store, Path::new(FIXTURE));
    }
    let store = home.path().join("store");
    copy(Path::new(FIXTURE), &store);
    let depot = depot(&store, home.path()).await;
    let target = home.path().join("target");
    restore_newest(&depot, &target).await;
    check_tree(&target);

    // The same tree again takes no new content, so chunks are still cut and named as they were.
    let data = |store: &Path| {
        let mut packs = Vec::new();
        below(&store.join("packs"), &mut packs);
        packs.len()
    };
    let before = data(&store);
    save_tree(&depot, &target).await;
    assert_eq!(data(&store), before);
    assert_eq!(revision::list(&*depot.objects, None).await.unwrap().len(), 2);
    let again = home.path().join("again");
    restore_newest(&depot, &again).await;
    check_tree(&again);
}
