//! Directories that are hard to read: they change meanwhile, forbid it, or are of an odd shape.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::scene::{Scene, assert_same, is_root, let_times_settle, look, noise, plant, write};

async fn comes_back(scene: &Scene, tree: &Path) {
    let host = scene.stranger();
    let report = host.save(tree, "w").await.unwrap();
    assert_eq!((report.unreadable.count, report.unsettled.count), (0, 0));
    let target = scene.new_path();
    host.restore(&host.find(report.revision).await, &target).await.unwrap();
    assert_same(&look(&target), &look(tree));
}

/// Changes a tree without rest: files grow, shrink, vanish, come back, and become directories.
fn disturb(tree: &Path, is_over: &AtomicBool, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !is_over.load(Ordering::Relaxed) {
        let path = tree.join(format!("busy-{}", random.u8(0..24)));
        match random.u8(0..6) {
            0 => drop(fs::remove_file(&path)),
            1 => drop(fs::remove_dir_all(&path)),
            2 => drop(fs::create_dir(&path)),
            3 => drop(File::options().append(true).open(&path).map(|mut file| {
                std::io::Write::write_all(&mut file, &noise(1, 70_000)).unwrap();
            })),
            4 => {
                drop(File::options().write(true).open(&path).map(|file| file.set_len(random.u64(0..100_000))))
            }
            _ => drop(File::create(&path).map(|file| file.write_all_at(&noise(2, 6 << 20), 0).unwrap())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_changes_meanwhile_is_saved_and_restored() {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    plant(&tree, 1);
    let host = scene.host("host");
    let is_over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|seed| {
            let (tree, is_over) = (tree.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || disturb(&tree, &is_over, seed))
        })
        .collect();
    for _ in 0..5 {
        let report = host.save(&tree, "w").await.unwrap();
        let target = scene.new_path();
        host.restore(&host.find(report.revision).await, &target).await.unwrap();
        // What nobody touched is as it was.
        let (there, back) = (look(&tree.join("a")), look(&target.join("a")));
        assert_same(&back, &there);
        fs::remove_dir_all(target).unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let_times_settle();
    comes_back(&scene, &tree).await;
    let report = host.save(&tree, "w").await.unwrap();
    let target = scene.new_path();
    host.restore(&host.find(report.revision).await, &target).await.unwrap();
    assert_same(&look(&target), &look(&tree));
}

/// Runs a job with the rights of an ordinary user, its threads included.
pub(super) fn as_nobody<F: Future<Output = T>, T: Send>(job: impl FnOnce() -> F + Send) -> T {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            if is_root() {
                let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
                set_thread_groups(&[]).unwrap();
                set_thread_res_gid(gid, gid, gid).unwrap();
                set_thread_res_uid(uid, uid, uid).unwrap();
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(job())
        });
        job.join().unwrap()
    })
}

/// A file that could not be read once left its further names behind, as links to nothing: no restore of the revision succeeded.
#[test]
fn a_file_of_several_names_that_cannot_be_read_is_left_out_with_all_of_them() {
    let scene = Scene::new(1);
    fs::set_permissions(scene.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    let tree = scene.path("tree");
    fs::create_dir_all(tree.join("secret")).unwrap();
    for (name, length) in [("small", 100), ("large", 5 << 20)] {
        write(&tree.join(name), &noise(1, length));
        fs::hard_link(tree.join(name), tree.join(format!("{name}-again"))).unwrap();
        fs::hard_link(tree.join(name), tree.join(format!("{name}-once-more"))).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o0)).unwrap();
    }
    write(&tree.join("secret/file"), b"secret");
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    write(&tree.join("readable"), b"readable");
    if is_root() {
        // Somebody else's.
        assert_eq!(fs::metadata(tree.join("secret")).unwrap().uid(), 0);
    }
    as_nobody(async || {
        let host = scene.host("host");
        let report = host.save(&tree, "w").await.unwrap();
        assert_eq!(report.unreadable.count, 7, "{:?}", report.unreadable);
        let target = scene.path("back");
        host.restore(&host.find(report.revision).await, &target).await.unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["readable", "secret"]);
    });
}

/// The first name of a file was once recorded although it had vanished, and a second name as a link to it.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_vanish_take_no_other_names_along() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    for n in 0..40 {
        write(&tree.join(format!("kept-{n:02}")), &noise(n, 2_000));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let (vanishing, over) = (tree.clone(), Arc::clone(&is_over));
    let thread = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            for n in 0..40 {
                let name = vanishing.join(format!("first-{n:02}"));
                fs::hard_link(vanishing.join(format!("kept-{n:02}")), &name).unwrap();
            }
            for n in 0..40 {
                fs::remove_file(vanishing.join(format!("first-{n:02}"))).unwrap();
            }
        }
    });
    for _ in 0..40 {
        let report = host.save(&tree, "w").await.unwrap();
        let target = scene.path("back");
        host.restore(&host.find(report.revision).await, &target).await.unwrap();
        for n in 0..40 {
            let name = format!("kept-{n:02}");
            assert_eq!(fs::read(target.join(&name)).unwrap(), noise(n, 2_000), "{name}");
        }
        fs::remove_dir_all(target).unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_shapes_come_back() {
    let scene = Scene::new(1);
    let empty = scene.path("empty");
    fs::create_dir(&empty).unwrap();
    comes_back(&scene, &empty).await;

    let odd = scene.path("odd");
    fs::create_dir(&odd).unwrap();
    for name in [&b"\xff\xfe"[..], b"new\nline", b" ", b"-rf", b"\x1b[31m", b"\\", &[b'n'; 255]] {
        write(&odd.join(OsStr::from_bytes(name)), name);
    }
    drop(std::os::unix::net::UnixListener::bind(odd.join("socket")).unwrap());
    comes_back(&scene, &odd).await;

    // 40 directories of 200 bytes each: no system call takes such a path.
    let deep = scene.path("deep");
    fs::create_dir(&deep).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = openat(rustix::fs::CWD, &deep, flags, Mode::empty()).unwrap();
    for level in 0..40 {
        let name = format!("{level:03}-{}", "d".repeat(196));
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let file = openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    std::io::Write::write_all(&mut File::from(file), b"deep").unwrap();
    comes_back(&scene, &deep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_names_of_one_file_come_back() {
    let scene = Scene::new(1);
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    write(&tree.join("first"), b"one inode");
    for n in 0..20_000 {
        fs::hard_link(tree.join("first"), tree.join(format!("link-{n}"))).unwrap();
    }
    let host = scene.host("host");
    for _ in 0..2 {
        let report = host.save(&tree, "w").await.unwrap();
        assert_eq!((report.counts.files, report.counts.entries), (1, 20_002));
        let_times_settle();
    }
    let target = scene.path("back");
    host.restore(&host.revisions().await.pop().unwrap(), &target).await.unwrap();
    assert_eq!(fs::metadata(target.join("first")).unwrap().nlink(), 20_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_sparse_file_costs_what_its_data_costs() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    let size = 4 << 40;
    let file = File::create(tree.join("huge")).unwrap();
    file.set_len(size).unwrap();
    for at in [0, 1 << 40, size - 4096] {
        file.write_all_at(&noise(at, 4096), at).unwrap();
    }
    let report = host.save(&tree, "w").await.unwrap();
    assert!(report.written.new_bytes < 1 << 20);
    let target = scene.path("back");
    host.restore(&host.find(report.revision).await, &target).await.unwrap();
    let back = File::open(target.join("huge")).unwrap();
    let meta = back.metadata().unwrap();
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() < 1_000, "{}", meta.blocks());
    for at in [0, 1 << 40, size - 4096] {
        let mut bytes = [0; 4096];
        back.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes[..], noise(at, 4096));
    }
}
