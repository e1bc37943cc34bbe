//! Directories that are made equal to a revision.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::growth::Growth;
use super::scene::{
    BadRead, Look, Scene, assert_same, everything, let_times_settle, look, noise, quiet, seeds, write,
};
use super::sources::as_nobody;
use crate::base::{Classify as _, ErrorKind};
use crate::store::EntryPath;
use crate::workspace::update;

/// What the host knows of the directory before the update.
#[derive(Debug, Clone, Copy)]
enum Known {
    Nothing,
    /// The state of the revision that is wanted.
    Wanted,
    /// The state of what the directory was made.
    Present,
}

fn inodes(root: &Path, look: &Look) -> BTreeMap<EntryPath, (u64, u64)> {
    let of = |path: &EntryPath| {
        use std::os::unix::ffi::OsStrExt as _;
        let meta = fs::symlink_metadata(root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))).unwrap();
        (meta.ino(), meta.nlink())
    };
    look.keys().map(|path| (path.clone(), of(path))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_makes_any_directory_equal_and_leaves_what_is_equal_alone() {
    for seed in seeds(5) {
        for known in [Known::Nothing, Known::Wanted, Known::Present] {
            let scene = Scene::new(seed);
            let (tree, host) = (scene.path("tree"), scene.host("host"));
            let mut growth = Growth::new(&tree, seed);
            growth.grow(100);
            let_times_settle();
            let report = host.save(&tree, "w").await.unwrap();
            let (wanted, expected) = (host.find(report.revision).await, look(&tree));
            growth.change(30);
            let_times_settle();
            match known {
                Known::Nothing => host.forget_directories(),
                Known::Wanted => {}
                Known::Present => {
                    host.save(&tree, "w").await.unwrap();
                }
            }
            let before = look(&tree);
            let inodes_before = inodes(&tree, &before);
            let report = host
                .update(&wanted, &tree)
                .await
                .unwrap_or_else(|error| panic!("seed {seed}, {known:?}: {error:?}"));
            assert_eq!(report.shortfalls, [], "seed {seed}, {known:?}");
            let found = look(&tree);
            for (path, line) in &expected {
                assert_eq!(found.get(path), Some(line), "seed {seed}, {known:?}: {path}");
            }
            assert_eq!(found.len(), expected.len(), "seed {seed}, {known:?}");
            let inodes_after = inodes(&tree, &found);
            for (path, line) in &expected {
                let (Some(there), Some(now)) = (inodes_before.get(path), inodes_after.get(path)) else {
                    continue;
                };
                // Of names that have become names of several things all but one are made anew.
                let is_plain = there.1 == 1 || line.starts_with("Directory");
                if before.get(path) == Some(line) && is_plain {
                    assert_eq!(now.0, there.0, "seed {seed}, {known:?}: {path} was made anew");
                }
            }
            let_times_settle();
            let again = host.update(&wanted, &tree).await.unwrap();
            assert_eq!((again.made, again.patched, again.removed), (0, 0, 0), "seed {seed}, {known:?}");
            assert_eq!(again.fetched_bytes, 0);
            assert_same(&look(&tree), &expected);
            // What the update remembers is true.
            let saved = host.save(&tree, "w").await.unwrap();
            assert_eq!(saved.written.new_bytes, 0, "seed {seed}, {known:?}");
            let target = scene.path("back");
            scene.stranger().restore(&host.find(saved.revision).await, &target).await.unwrap();
            assert_same(&look(&target), &expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_interrupted_at_any_read_is_ended_by_the_next() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    let mut growth = Growth::new(&tree, 3);
    growth.grow(100);
    let report = host.save(&tree, "w").await.unwrap();
    let (wanted, expected) = (host.find(report.revision).await, look(&tree));
    for n in 1..200 {
        growth.change(25);
        if n % 2 == 0 {
            host.forget_directories();
        }
        let store = BadRead::new(scene.sim.actor("host"), n);
        let result = scene.host_on("host", store.clone()).update(&wanted, &tree).await;
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "read {n}: {error:?}");
            host.update(&wanted, &tree).await.unwrap();
        }
        assert_same(&look(&tree), &expected);
        if !store.has_struck() {
            assert!(n > 4);
            return;
        }
    }
    panic!("an update makes fewer reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_cancelled_is_ended_by_the_next() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    let mut growth = Growth::new(&tree, 4);
    growth.grow(200);
    let report = host.save(&tree, "w").await.unwrap();
    let (wanted, expected) = (host.find(report.revision).await, look(&tree));
    for milliseconds in [0, 2, 5, 10, 20, 40] {
        growth.change(60);
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
            later.cancel();
        });
        let result = update(&host.depot, &wanted, &tree, &everything(), quiet(), &cancel).await;
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
        }
        host.update(&wanted, &tree).await.unwrap();
        assert_same(&look(&tree), &expected);
    }
}

/// An update once took a file for unchanged whose data was the same and lay elsewhere between the holes.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_moves_data_between_holes() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    let sparse = |at: u64| {
        let file = fs::File::create(tree.join("sparse")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&noise(1, 4096), at).unwrap();
    };
    sparse(0);
    let report = host.save(&tree, "w").await.unwrap();
    let (wanted, expected) = (host.find(report.revision).await, look(&tree));
    sparse(512 << 10);
    let_times_settle();
    host.save(&tree, "w").await.unwrap();
    host.update(&wanted, &tree).await.unwrap();
    assert_same(&look(&tree), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_writes_only_the_chunks_that_differ() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    write(&tree.join("large"), &noise(1, 20 << 20));
    write(&tree.join("other"), &noise(2, 1 << 20));
    let_times_settle();
    let report = host.save(&tree, "w").await.unwrap();
    let (wanted, expected) = (host.find(report.revision).await, look(&tree));
    for is_known in [true, false] {
        let file = fs::File::options().write(true).open(tree.join("large")).unwrap();
        file.write_all_at(b"changed", 7 << 20).unwrap();
        if !is_known {
            host.forget_directories();
        }
        let report = host.update(&wanted, &tree).await.unwrap();
        assert_eq!((report.made, report.patched, report.removed), (0, 1, 0));
        assert!(report.fetched_bytes < 8 << 20, "{}", report.fetched_bytes);
        assert_same(&look(&tree), &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_follows_no_symbolic_link_to_the_outside() {
    let scene = Scene::new(1);
    let (tree, outside, host) = (scene.path("tree"), scene.path("outside"), scene.host("host"));
    fs::create_dir_all(tree.join("d/e")).unwrap();
    write(&tree.join("d/e/file"), b"inside");
    write(&tree.join("d/gone"), b"inside");
    write(&tree.join("f"), b"inside");
    let report = host.save(&tree, "w").await.unwrap();
    let (wanted, expected) = (host.find(report.revision).await, look(&tree));
    fs::create_dir_all(outside.join("e")).unwrap();
    write(&outside.join("e/file"), b"outside");
    write(&outside.join("surplus"), b"outside");
    write(&outside.join("f"), b"outside");
    let there = look(&outside);
    for is_known in [true, false] {
        fs::remove_dir_all(tree.join("d")).unwrap();
        symlink(&outside, tree.join("d")).unwrap();
        fs::remove_file(tree.join("f")).unwrap();
        symlink(outside.join("f"), tree.join("f")).unwrap();
        symlink(&outside, tree.join("surplus")).unwrap();
        if !is_known {
            host.forget_directories();
        }
        host.update(&wanted, &tree).await.unwrap();
        assert_same(&look(&tree), &expected);
        assert_same(&look(&outside), &there);
    }
}

/// Two links of the same target were once left as one inode, because each by itself was right.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_parts_names_that_have_become_one() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    for name in ["one", "two"] {
        symlink("target", tree.join(format!("link-{name}"))).unwrap();
        write(&tree.join(format!("file-{name}")), b"the same");
    }
    let report = host.save(&tree, "w").await.unwrap();
    let (wanted, expected) = (host.find(report.revision).await, look(&tree));
    for is_known in [true, false] {
        for kind in ["link", "file"] {
            fs::remove_file(tree.join(format!("{kind}-two"))).unwrap();
            fs::hard_link(tree.join(format!("{kind}-one")), tree.join(format!("{kind}-two"))).unwrap();
        }
        let_times_settle();
        if is_known {
            host.save(&tree, "w").await.unwrap();
        } else {
            host.forget_directories();
        }
        host.update(&wanted, &tree).await.unwrap();
        assert_same(&look(&tree), &expected);
    }
}

/// A directory that could not be listed was once taken for one that the revision does not have, and removed.
#[test]
fn an_update_removes_nothing_that_it_cannot_list() {
    let scene = Scene::new(1);
    fs::set_permissions(scene.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    as_nobody(async || {
        let (tree, host) = (scene.path("tree"), scene.host("host"));
        fs::create_dir_all(tree.join("d")).unwrap();
        write(&tree.join("d/file"), b"content");
        let report = host.save(&tree, "w").await.unwrap();
        let (wanted, expected) = (host.find(report.revision).await, look(&tree));
        fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o0)).unwrap();
        assert!(host.update(&wanted, &tree).await.is_err());
        fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(fs::read(tree.join("d/file")).unwrap(), b"content");
        host.update(&wanted, &tree).await.unwrap();
        assert_same(&look(&tree), &expected);
    });
}

/// An owner's update once failed on a changed file that its mode let nobody write, or read.
#[test]
fn an_owner_updates_files_that_their_modes_close() {
    let scene = Scene::new(1);
    fs::set_permissions(scene.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    as_nobody(async || {
        let (tree, host) = (scene.path("tree"), scene.host("host"));
        fs::create_dir(&tree).unwrap();
        let modes = [0o444, 0o000, 0o200, 0o4511];
        let chmod = |name: &str, mode| {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let fill = |seed: u64, holes: u64| {
            for mode in modes {
                for name in [format!("plain-{mode:o}"), format!("sparse-{mode:o}")] {
                    chmod(&name, 0o600);
                    write(&tree.join(&name), &noise(seed, 300_000));
                }
                let sparse = fs::File::options().write(true).open(tree.join(format!("sparse-{mode:o}")));
                sparse.unwrap().set_len(holes).unwrap();
            }
        };
        for mode in modes {
            write(&tree.join(format!("plain-{mode:o}")), b"");
            write(&tree.join(format!("sparse-{mode:o}")), b"");
        }
        fill(1, 2 << 20);
        let report = host.save(&tree, "w").await.unwrap();
        let (wanted, expected) = (host.find(report.revision).await, look(&tree));
        for is_known in [true, false] {
            fill(2, 3 << 20);
            let_times_settle();
            host.save(&tree, "w").await.unwrap();
            for mode in modes {
                chmod(&format!("plain-{mode:o}"), mode);
                chmod(&format!("sparse-{mode:o}"), mode);
            }
            if !is_known {
                host.forget_directories();
            }
            host.update(&wanted, &tree).await.unwrap();
            assert_same(&look(&tree), &expected);
        }
        // A file that is to be closed to its owner can be made, and left as it is.
        for mode in modes {
            chmod(&format!("plain-{mode:o}"), 0o444);
        }
        let report = host.save(&tree, "w").await.unwrap();
        let (closed, expected) = (host.find(report.revision).await, look(&tree));
        host.update(&wanted, &tree).await.unwrap();
        fill(3, 1 << 20);
        host.forget_directories();
        host.update(&closed, &tree).await.unwrap();
        assert_same(&look(&tree), &expected);
    });
}
