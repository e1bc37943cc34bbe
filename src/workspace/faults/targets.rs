//! Places that are hard to write to: full, taken, on another file system; and stores that are full or only read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scene::{Scene, assert_same, is_root, let_times_settle, look, noise, plant, write};
use crate::base::{Classify as _, ErrorKind};
use crate::workspace::fill::MOST_SEEN;

/// A small file system in memory.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    /// Mounts it; `None` where this process may not.
    fn new(place: &Path, options: &str) -> Option<Self> {
        fs::create_dir(place).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "kiln-test"]).arg(place).output();
        let is_mounted = is_root() && mounted.is_ok_and(|output| output.status.success());
        is_mounted.then(|| Self(place.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_full_ends_a_restore_and_holds_nothing_of_it() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    // Each takes a page of 4 KiB there, so that the record's sum does not tell that the room is too small.
    for n in 0..3_000 {
        write(&tree.join(format!("file-{n}")), format!("{n}").as_bytes());
    }
    host.save(&tree, "w").await.unwrap();
    let revision = host.revisions().await.pop().unwrap();
    for (name, options) in
        [("bytes", "size=4m"), ("inodes", "size=64m,nr_inodes=100"), ("none", "nr_inodes=1")]
    {
        let place = scene.path(name);
        let Some(_mount) = Mount::new(&place, options) else { return };
        for target in [place.clone(), place.join("below")] {
            let error = host.restore(&revision, &target).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Limit, "{name} {}: {error:?}", target.display());
            let left: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_too_small_by_the_record_is_refused_before_anything_is_written() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    write(&tree.join("large"), &noise(1, 9 << 20));
    host.save(&tree, "w").await.unwrap();
    let place = scene.path("small");
    let Some(_mount) = Mount::new(&place, "size=4m") else { return };
    let error = host.restore(&host.revisions().await.pop().unwrap(), &place.join("x")).await.unwrap_err();
    assert!(matches!(error, crate::workspace::WorkspaceError::NoRoom { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Limit);
}

/// An update was once refused for want of room that it would have made itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_counts_the_room_that_it_makes() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    write(&tree.join("large"), &noise(1, 9 << 20));
    let report = host.save(&tree, "w").await.unwrap();
    let revision = host.find(report.revision).await;
    let place = scene.path("small");
    let Some(_mount) = Mount::new(&place, "size=16m") else { return };
    fs::create_dir(place.join("surplus")).unwrap();
    write(&place.join("surplus/large"), &noise(2, 12 << 20));
    host.update(&revision, &place).await.unwrap();
    assert_same(&look(&place), &look(&tree));
    // What is beside the directory does not go.
    fs::remove_file(place.join("large")).unwrap();
    fs::create_dir(place.join("below")).unwrap();
    write(&place.join("beside"), &noise(2, 12 << 20));
    let error = host.update(&revision, &place.join("below")).await.unwrap_err();
    assert!(matches!(error, crate::workspace::WorkspaceError::NoRoom { .. }), "{error:?}");
}

/// What others changed during a restore in place was once remembered as what was restored, where no last look had been kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_in_place_remembers_only_what_it_saw_when_it_was_done() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    plant(&tree, 1);
    let report = host.save(&tree, "w").await.unwrap();
    let revision = host.find(report.revision).await;
    let place = scene.path("mounted");
    let Some(mount) = Mount::new(&place, "size=64m") else { return };
    host.restore(&revision, &place).await.unwrap();
    let_times_settle();
    // A file whose further name came after it was done might have been changed between the two.
    let known = host.known(&place);
    assert_eq!(known.get(&b"a/own"[..]), Some(&true), "{known:?}");
    for name in [&b"a/shared"[..], b"z"] {
        assert_eq!(known.get(name), Some(&false), "{known:?}");
    }
    let saved = host.save(&place, "w").await.unwrap();
    assert_eq!(saved.written.new_bytes, 0);
    drop(mount);
    for number in 0..MOST_SEEN {
        write(&tree.join(format!("many-{number}")), b"");
    }
    let report = host.save(&tree, "w").await.unwrap();
    let revision = host.find(report.revision).await;
    let place = scene.path("mounted-too");
    let Some(_mount) = Mount::new(&place, "size=64m") else { return };
    host.restore(&revision, &place).await.unwrap();
    assert_same(&look(&place), &look(&tree));
    // What stands there under the number of the first directory is of nothing that is there now.
    let known = host.known(&place);
    assert!(known.values().all(|is_now| !is_now), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_on_another_file_system_is_as_good() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    plant(&tree, 1);
    let report = host.save(&tree, "w").await.unwrap();
    let revision = host.find(report.revision).await;
    let place = scene.path("other");
    let Some(_mount) = Mount::new(&place, "size=64m") else { return };
    host.restore(&revision, &place.join("below")).await.unwrap();
    assert_same(&look(&place.join("below")), &look(&tree));
    fs::remove_dir_all(place.join("below")).unwrap();
    // The place where it is mounted is an empty directory, too.
    host.restore(&revision, &place).await.unwrap();
    assert_same(&look(&place), &look(&tree));
    host.save(&place, "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_taken_is_left_alone() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    plant(&tree, 1);
    host.save(&tree, "w").await.unwrap();
    let revision = host.revisions().await.pop().unwrap();
    let before = look(&tree);
    write(&scene.path("file"), b"mine");
    std::os::unix::fs::symlink("nowhere", scene.path("link")).unwrap();
    for name in ["tree", "file", "link"] {
        let error = host.restore(&revision, &scene.path(name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{name}: {error:?}");
        scene.assert_no_leftovers();
    }
    assert_same(&look(&tree), &before);
    assert_eq!(fs::read(scene.path("file")).unwrap(), b"mine");
    let error = host.restore(&revision, &scene.path("not/there")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_loses_nothing() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    plant(&tree, 1);
    host.save(&tree, "w").await.unwrap();
    let (revision, before) = (host.revisions().await.pop().unwrap(), look(&tree));
    let mut full = host.clone();
    full.depot.quota_bytes = Some(200_000);
    write(&tree.join("more"), &noise(9, 300_000));
    let error = full.save(&tree, "w").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
    assert_eq!(host.revisions().await, std::slice::from_ref(&revision));
    let target = scene.path("back");
    full.restore(&revision, &target).await.unwrap();
    assert_same(&look(&target), &before);
    host.save(&tree, "w").await.unwrap();
}
