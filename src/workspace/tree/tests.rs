//! Trees as nasty as they come: walked, written again, and attacked.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags, mkdirat, openat, setxattr, utimensat,
};

use super::{
    Excludes, Names, OwnerRule, RestoreRights, Shortfall, Shortfalls, SourceTree, Stat, StatKind,
    TargetError, TargetTree, WalkItem, WalkOptions, Writer, extents, stat_of, walk,
};
use crate::store::{Attributes, EntryOwner, EntryPath, Extent, FileTime, Xattr};

fn path(bytes: impl AsRef<[u8]>) -> EntryPath {
    EntryPath::new(bytes.as_ref()).unwrap()
}

fn write(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `act` in a thread that has the rights of an ordinary user, and whose threads have them too.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if is_root() {
                    let (uid, gid) =
                        (rustix::process::Uid::from_raw(65_534), rustix::process::Gid::from_raw(65_534));
                    set_thread_groups(&[]).unwrap();
                    set_thread_res_gid(gid, gid, gid).unwrap();
                    set_thread_res_uid(uid, uid, uid).unwrap();
                }
                act()
            })
            .join()
            .unwrap()
    })
}

fn open_home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    home
}

type Problems = Vec<(EntryPath, String)>;

/// The entries of a walk, and its problems.
fn walked(tree: &Path, options: WalkOptions) -> (Vec<(EntryPath, Stat)>, Problems) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for item in walk(&SourceTree::open(tree).unwrap(), options) {
        match item {
            WalkItem::Found(entry) => found.push((entry.path, entry.stat)),
            WalkItem::Problem { path, action, source } => {
                problems.push((path, format!("{action}: {source}")))
            }
        }
    }
    (found, problems)
}

fn paths(tree: &Path, options: WalkOptions) -> Vec<String> {
    let (found, problems) = walked(tree, options);
    assert_eq!(problems, []);
    found.into_iter().map(|(path, _)| path.to_string()).collect()
}

fn with_threads(threads: usize) -> WalkOptions {
    WalkOptions { threads, ..WalkOptions::default() }
}

/// Some thousand entries whose names do not sort as their paths do.
fn bushy(home: &Path) {
    for a in ["a", "a-b", "a.b", "b", "b0", "\u{e9}", "zz"] {
        for b in 0..40 {
            let directory = home.join(a).join(format!("d{b}")).join("x-y");
            fs::create_dir_all(&directory).unwrap();
            for c in 0..5 {
                File::create(directory.join(format!("f{c}"))).unwrap();
            }
            File::create(home.join(a).join(format!("d{b}-f"))).unwrap();
            File::create(home.join(a).join(format!("d{b}.f"))).unwrap();
        }
    }
}

#[test]
fn a_walk_is_sorted_and_the_same_with_any_number_of_threads() {
    let home = tempfile::tempdir().unwrap();
    bushy(home.path());
    let (alone, problems) = walked(home.path(), with_threads(0));
    assert_eq!(problems, []);
    assert_eq!(alone.len(), 1 + 7 * (1 + 40 * (2 + 5 + 2)));
    assert!(alone.first().is_some_and(|(path, _)| path.is_root()));
    assert!(alone.is_sorted_by(|(a, _), (b, _)| a < b));
    for threads in [1, 2, 8] {
        assert_eq!(walked(home.path(), with_threads(threads)).0, alone, "{threads} threads");
    }
}

#[test]
fn a_large_flat_directory_is_walked_in_parts() {
    let home = tempfile::tempdir().unwrap();
    for number in 0..5_000 {
        File::create(home.path().join(format!("{number}"))).unwrap();
    }
    fs::create_dir(home.path().join("3000-d")).unwrap();
    File::create(home.path().join("3000-d/x")).unwrap();
    let (alone, _) = walked(home.path(), with_threads(0));
    assert_eq!(alone.len(), 5_003);
    assert!(alone.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(walked(home.path(), with_threads(3)).0, alone);
}

#[test]
fn a_walk_that_is_dropped_ends_its_threads() {
    let home = tempfile::tempdir().unwrap();
    bushy(home.path());
    let mut walk = walk(&SourceTree::open(home.path()).unwrap(), with_threads(4));
    for _ in 0..10 {
        walk.next().unwrap();
    }
    drop(walk);
}

#[test]
fn what_is_removed_during_a_walk_is_skipped() {
    let home = tempfile::tempdir().unwrap();
    bushy(home.path());
    let mut found = 0;
    for item in walk(&SourceTree::open(home.path()).unwrap(), with_threads(0)) {
        match item {
            WalkItem::Found(_) => found += 1,
            WalkItem::Problem { path, action, source } => panic!("{action} {path}: {source}"),
        }
        if found == 3 {
            fs::remove_dir_all(home.path().join("a")).unwrap();
            fs::remove_dir_all(home.path().join("zz")).unwrap();
        }
    }
    assert!(found > 5 * 40 * 9);
}

#[test]
fn an_ordinary_user_sees_what_cannot_be_listed_and_everything_else() {
    let home = open_home();
    for name in ["a", "locked", "z"] {
        fs::create_dir(home.path().join(name)).unwrap();
        File::create(home.path().join(name).join("x")).unwrap();
    }
    fs::set_permissions(home.path().join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    for threads in [0, 2] {
        let (found, problems) = as_nobody(|| walked(home.path(), with_threads(threads)));
        let found: Vec<_> = found.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(found, [".", "a", "a/x", "locked", "z", "z/x"]);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].0, path("locked"));
        assert!(problems[0].1.starts_with("list: "), "{}", problems[0].1);
    }
}

#[test]
fn excluded_directories_are_not_entered_and_a_deeper_file_of_patterns_wins() {
    let home = tempfile::tempdir().unwrap();
    for directory in ["node_modules/m", "src/gen", "src/node_modules"] {
        fs::create_dir_all(home.path().join(directory)).unwrap();
    }
    for file in ["a.log", "src/b.log", "src/gen/c.log", "src/main.rs", "node_modules/m/x"] {
        File::create(home.path().join(file)).unwrap();
    }
    write(&home.path().join(".kilnignore"), b"*.log\n");
    write(&home.path().join("src/.kilnignore"), b"!b.log\ngen[\n");
    let excludes = Some(Arc::new(Excludes::new(&["node_modules/".to_owned()]).unwrap()));
    for threads in [0, 2] {
        let options = WalkOptions { threads, excludes: excludes.clone(), one_file_system: true };
        let (found, problems) = walked(home.path(), options);
        let found: Vec<_> = found.iter().map(|(path, _)| path.to_string()).collect();
        let expected = [".", ".kilnignore", "src", "src/.kilnignore", "src/b.log", "src/gen", "src/main.rs"];
        assert_eq!(found, expected);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].0, path("src/.kilnignore"));
    }
    assert_eq!(paths(home.path(), WalkOptions::default()).len(), 13);
}

#[test]
fn a_file_of_patterns_that_is_no_file_is_a_problem() {
    let home = tempfile::tempdir().unwrap();
    symlink("/etc/passwd", home.path().join(".kilnignore")).unwrap();
    File::create(home.path().join("x")).unwrap();
    let excludes = Some(Arc::new(Excludes::new(&[]).unwrap()));
    let (found, problems) = walked(home.path(), WalkOptions { excludes, ..WalkOptions::default() });
    assert_eq!((found.len(), problems.len()), (3, 1));
}

/// Makes directories in each other, to paths longer than a program may name, with a file in each hundredth.
fn deep(root: &Path, levels: usize, name: &str) {
    let mut fd: OwnedFd = File::open(root).unwrap().into();
    for level in 0..levels {
        mkdirat(&fd, name, Mode::RWXU).unwrap();
        fd = openat(&fd, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        if level % 100 == 99 {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            drop(openat(&fd, "zfile", flags, Mode::RUSR | Mode::WUSR).unwrap());
        }
    }
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_walked_copied_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    fs::create_dir(&source).unwrap();
    deep(&source, 700, "component");
    for threads in [0, 3] {
        assert_eq!(walked(&source, with_threads(threads)).0.len(), 708);
    }
    let copy = home.path().join("copy");
    let shortfalls = copy_tree(&source, &copy, &RestoreRights::default());
    assert!(shortfalls.is_empty());
    assert_eq!(described(&source), described(&copy));
    let mut writer = TargetTree::open(home.path()).unwrap().writer();
    writer.remove(&path("copy")).unwrap();
    writer.remove(&path("source")).unwrap();
    assert!(fs::read_dir(home.path()).unwrap().next().is_none());
}

/// Reads all that a save would of each entry.
fn described(tree: &Path) -> BTreeMap<EntryPath, Described> {
    let source = SourceTree::open(tree).unwrap();
    let mut reader = source.reader();
    let mut all = BTreeMap::new();
    for item in walk(&source, with_threads(1)) {
        let WalkItem::Found(found) = item else { panic!("{item:?}") };
        all.insert(found.path.clone(), describe(&mut reader, &found.path, &found.stat));
    }
    all
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    kind: StatKind,
    attributes: Attributes,
    nlink: u32,
    rdev: (u32, u32),
    content: Vec<u8>,
    extents: Option<Vec<Extent>>,
}

fn describe(reader: &mut super::Reader, path: &EntryPath, stat: &Stat) -> Described {
    let mut content = Vec::new();
    let mut holes = None;
    match stat.kind {
        StatKind::File => {
            let file = reader.open_file(path).unwrap();
            assert_eq!(stat_of(&file).unwrap(), *stat);
            assert_eq!(reader.xattrs_of(&file).unwrap(), reader.xattrs(path, stat.kind).unwrap());
            holes = extents(&file, stat.size, stat.blocks_512).unwrap();
            io::Read::read_to_end(&mut &file, &mut content).unwrap();
        }
        StatKind::Symlink => content = reader.symlink_target(path).unwrap().into(),
        StatKind::Directory
        | StatKind::CharDevice
        | StatKind::BlockDevice
        | StatKind::Fifo
        | StatKind::Socket => {}
    }
    assert_eq!(reader.stat(path).unwrap().ino, stat.ino);
    Described {
        kind: stat.kind,
        attributes: Attributes {
            mode: stat.mode,
            owner: EntryOwner { uid: stat.uid, gid: stat.gid, ..EntryOwner::default() },
            mtime: stat.mtime,
            xattrs: reader.xattrs(path, stat.kind).unwrap(),
        },
        nlink: stat.nlink,
        rdev: stat.rdev,
        content,
        extents: holes,
    }
}

/// Writes a tree again as a restore does: entries, then hard links, then what directories say.
fn copy_tree(from: &Path, to: &Path, rights: &RestoreRights) -> Shortfalls {
    let staging = TargetTree::create(to).unwrap();
    let mut writer = staging.tree().writer();
    let shortfalls = write_tree(from, &mut writer, rights);
    assert!(from == to || !to.exists() || fs::read_dir(to).unwrap().next().is_none());
    staging.publish().unwrap();
    shortfalls
}

fn write_tree(from: &Path, writer: &mut Writer, rights: &RestoreRights) -> Shortfalls {
    let shortfalls = Shortfalls::new();
    let source = SourceTree::open(from).unwrap();
    let mut reader = source.reader();
    let (mut directories, mut seen) = (Vec::new(), BTreeMap::new());
    for item in walk(&source, with_threads(2)) {
        let WalkItem::Found(found) = item else { panic!("{item:?}") };
        let (path, stat) = (found.path, found.stat);
        let described = describe(&mut reader, &path, &stat);
        let attributes = &described.attributes;
        if stat.nlink > 1 && stat.kind != StatKind::Directory {
            if let Some(first) = seen.get(&stat.ino) {
                writer.hard_link(first, &path).unwrap();
                continue;
            }
            seen.insert(stat.ino, path.clone());
        }
        match stat.kind {
            StatKind::Directory => {
                writer.create_dir(&path).unwrap();
                directories.push((path, described));
                continue;
            }
            StatKind::File => {
                let file = writer.create_file(&path, stat.mode).unwrap();
                file.set_len(stat.size).unwrap();
                let whole = vec![Extent { offset: 0, length: stat.size }];
                let again = writer.open_file(&path).unwrap();
                for extent in described.extents.as_ref().unwrap_or(&whole) {
                    let (start, length) =
                        (usize::try_from(extent.offset).unwrap(), usize::try_from(extent.length).unwrap());
                    again.write_all_at(&described.content[start..start + length], extent.offset).unwrap();
                }
                writer.finish_file(&file, &path, attributes, rights, &shortfalls).unwrap();
                continue;
            }
            StatKind::Symlink => writer.symlink(&path, &described.content).unwrap(),
            StatKind::Fifo => writer.fifo(&path).unwrap(),
            StatKind::CharDevice | StatKind::BlockDevice => {
                if !rights.devices {
                    shortfalls.count(Shortfall::Device, &path);
                    continue;
                }
                writer.device(&path, stat.kind, stat.rdev.0, stat.rdev.1).unwrap();
            }
            StatKind::Socket => {
                shortfalls.count(Shortfall::Socket, &path);
                continue;
            }
        }
        writer.finish_path(&path, stat.kind, attributes, rights, &shortfalls).unwrap();
    }
    for (path, described) in directories.iter().rev() {
        writer.finish_path(path, StatKind::Directory, &described.attributes, rights, &shortfalls).unwrap();
    }
    shortfalls
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything that a tree may hold and an ordinary user may make.
fn nasty(home: &Path) {
    let at = |name: &str| home.join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("read-only")).unwrap();
    let odd = home.join(OsString::from_vec(b"\xff\xfe \n\\".to_vec()));
    write(&odd, b"odd");
    symlink(OsStr::from_bytes(b"/nowhere/\xff"), at("dangling")).unwrap();
    symlink("../../..", at("up")).unwrap();
    write(&at("read-only/x"), b"x");
    write(&at("plain"), b"plain");
    fs::hard_link(at("plain"), at("read-only/again")).unwrap();
    fs::hard_link(at("dangling"), at("dangling-again")).unwrap();
    write(&at("nothing"), b"");
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(&[7; 4096], 1 << 20).unwrap();
    sparse.write_all_at(&[8; 5000], 3 << 20).unwrap();
    drop(sparse);
    File::create(at("all-hole")).unwrap().set_len(1 << 20).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    fs::create_dir(at("acl")).unwrap();
    write(&at("acl/x"), b"x");
    chmod(&at("acl/x"), 0o600);
    let acl = |arguments: &[&str], name: &str| {
        assert!(Command::new("setfacl").args(arguments).arg(at(name)).status().unwrap().success());
    };
    acl(&["-m", "u:12345:rw,g:54321:r"], "acl/x");
    acl(&["-d", "-m", "u:12345:rwx"], "acl");
    for (name, value) in [("user.a", b"1".as_slice()), ("user.empty", b""), ("user.b", &[0; 1000])] {
        setxattr(at("plain"), name, value, XattrFlags::empty()).unwrap();
        setxattr(at("acl"), name, value, XattrFlags::empty()).unwrap();
    }
    chmod(&at("plain"), 0o640);
    chmod(&at("read-only/x"), 0o400);
    fs::create_dir(at("sticky")).unwrap();
    chmod(&at("sticky"), 0o3777);
    deep(home, 600, "component");
    set_mtime(&at("plain"), -1, 999_999_999);
    set_mtime(&at("nothing"), -1_000_000, 1);
    set_mtime(&at("dangling"), 12, 345_678_901);
    set_mtime(&at("fifo"), 1, 2);
    set_mtime(&odd, 1_700_000_000, 123_456_789);
    set_mtime(&at("read-only"), 7, 8);
    set_mtime(&at("empty"), 0, 0);
    chmod(&at("read-only"), 0o555);
    set_mtime(home, 99, 1);
    chmod(home, 0o755);
}

#[test]
fn an_ordinary_users_tree_comes_back_as_it_was() {
    let home = open_home();
    let (source, copy) = (home.path().join("source"), home.path().join("copy"));
    as_nobody(|| {
        fs::create_dir(&source).unwrap();
        nasty(&source);
        let before = described(&source);
        assert_eq!(
            before[&path("plain")].attributes.mtime,
            FileTime { seconds: -1, nanoseconds: 999_999_999 }
        );
        assert_eq!(before[&path("plain")].attributes.xattrs.len(), 3);
        assert_eq!(before[&path("acl")].attributes.xattrs.len(), 4);
        assert_eq!(before[&path("sparse")].extents.as_ref().map(Vec::len), Some(2));
        assert_eq!(before[&path("all-hole")].extents, Some(vec![]));
        assert_eq!(before[&path("nothing")].extents, None);
        assert_eq!(before[&path("sticky")].attributes.mode, 0o3777);
        let shortfalls = copy_tree(&source, &copy, &RestoreRights::default());
        assert!(shortfalls.is_empty(), "{shortfalls:?}");
        assert_eq!(described(&copy), before);
        // The copy can be removed although a directory in it is read-only.
        TargetTree::open(home.path()).unwrap().writer().remove(&path("copy")).unwrap();
        assert!(!copy.exists());
    });
}

#[test]
fn roots_tree_comes_back_with_owners_devices_and_privileged_attributes() {
    if !is_root() {
        println!("not run: it takes root to make owners and devices");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (source, copy) = (home.path().join("source"), home.path().join("copy"));
    fs::create_dir(&source).unwrap();
    nasty(&source);
    let own = |name: &str, uid, gid| {
        std::os::unix::fs::lchown(source.join(name), Some(uid), Some(gid)).unwrap();
    };
    own("plain", 1_234, 5_678);
    own("dangling", 1_235, 0);
    own("read-only", 9, 9);
    write(&source.join("setuid"), b"#!");
    own("setuid", 1_234, 1_234);
    chmod(&source.join("setuid"), 0o6755);
    write(&source.join("capable"), b"#!");
    own("capable", 1, 1);
    // The kernel's form of cap_net_raw=ep.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(source.join("capable"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    setxattr(source.join("empty"), "trusted.x", b"y", XattrFlags::empty()).unwrap();
    let mut maker = TargetTree::open(&source).unwrap().writer();
    let has_devices = maker.device(&path("null"), StatKind::CharDevice, 1, 3).is_ok();
    let before = described(&source);

    let all = RestoreRights {
        special_bits: true,
        devices: true,
        privileged_xattrs: true,
        ..RestoreRights::default()
    };
    assert_eq!(all.owner, None);
    let shortfalls = copy_tree(&source, &copy, &all);
    assert!(shortfalls.is_empty(), "{shortfalls:?}");
    assert_eq!(described(&copy), before);

    let careful = home.path().join("careful");
    let shortfalls = copy_tree(&source, &careful, &RestoreRights::default());
    let rows: Vec<_> = shortfalls.rows().map(|(kind, count, _)| (kind, count)).collect();
    let mut expected = vec![(Shortfall::ModeBits, 1), (Shortfall::Xattr, 2)];
    if has_devices {
        expected.push((Shortfall::Device, 1));
    }
    assert_eq!(rows, expected);
    let after = described(&careful);
    assert_eq!(after[&path("setuid")].attributes.mode, 0o755);
    assert_eq!(after[&path("capable")].attributes.xattrs, []);
    assert_eq!(after[&path("setuid")].attributes.owner.uid, 1_234);
}

#[test]
fn an_ordinary_user_is_told_what_could_not_be_given() {
    let home = open_home();
    as_nobody(|| {
        let staging = TargetTree::create(&home.path().join("x")).unwrap();
        let mut writer = staging.tree().writer();
        let rights = RestoreRights {
            owner: Some(OwnerRule::Keep),
            special_bits: true,
            devices: true,
            privileged_xattrs: true,
        };
        let shortfalls = Shortfalls::new();
        let attributes = Attributes {
            mode: 0o4755,
            owner: EntryOwner { uid: 12, gid: 34, ..EntryOwner::default() },
            mtime: FileTime { seconds: 5, nanoseconds: 6 },
            xattrs: vec![Xattr { name: b"trusted.x".as_slice().into(), value: b"y".as_slice().into() }],
        };
        let file = writer.create_file(&path("f"), 0o755).unwrap();
        writer.finish_file(&file, &path("f"), &attributes, &rights, &shortfalls).unwrap();
        let rows: Vec<_> =
            shortfalls.rows().map(|(kind, count, path)| (kind, count, path.to_string())).collect();
        let one = |kind| (kind, 1, "f".to_owned());
        assert_eq!(rows, [one(Shortfall::Owner), one(Shortfall::ModeBits), one(Shortfall::Xattr)]);
        // Nobody else's setuid file has become mine.
        let stat = stat_of(&file).unwrap();
        assert_eq!((stat.mode, stat.mtime), (0o755, attributes.mtime));
        let refused = writer.device(&path("d"), StatKind::BlockDevice, 7, 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn what_a_killed_restore_left_goes_with_the_next_one_and_what_is_at_work_stays() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("x");
    let leftover = |name: &str, mtime: i64| {
        fs::create_dir_all(home.path().join(name).join("a")).unwrap();
        write(&home.path().join(name).join("a/b"), b"half");
        set_mtime(&home.path().join(name), mtime, 0);
    };
    leftover(".x.restore-0123456789abcdef", 5);
    leftover(".x.restore-somebody-elses", 5);
    leftover(".y.restore-0123456789abcdef", 5);
    leftover(".x.restore-00000000000000ab", i64::from(u32::MAX));
    let at_work = TargetTree::create(&target).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let mine: Vec<_> = names()
        .into_iter()
        .filter(|name| name.starts_with(".x.restore-") && !name.ends_with("0ab"))
        .collect();
    let [mine, _theirs] = mine.as_slice() else { panic!("{mine:?}") };
    set_mtime(&home.path().join(mine), 5, 0);
    drop(TargetTree::create(&target).unwrap());
    let mut left = vec![
        mine.clone(),
        ".x.restore-somebody-elses".to_owned(),
        ".y.restore-0123456789abcdef".to_owned(),
        ".x.restore-00000000000000ab".to_owned(),
    ];
    left.sort();
    assert_eq!(names(), left);
    drop(at_work);
}

#[test]
fn nothing_is_written_through_a_directory_that_became_a_symlink() {
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    fs::create_dir_all(outside.join("b")).unwrap();
    write(&outside.join("b/victim"), b"whole");
    set_mtime(&outside.join("b/victim"), 1, 1);
    let target = home.path().join("target");
    fs::create_dir_all(target.join("a/b")).unwrap();
    let tree = TargetTree::open(&target).unwrap();
    let mut used = tree.writer();
    used.create_file(&path("a/b/first"), 0o644).unwrap();

    fs::remove_dir_all(target.join("a")).unwrap();
    symlink(&outside, target.join("a")).unwrap();
    symlink(outside.join("b/victim"), target.join("link")).unwrap();
    let (rights, shortfalls) = (RestoreRights::default(), Shortfalls::new());
    for mut writer in [used, tree.writer()] {
        for attacked in ["a/b/x", "a/x"] {
            let attacked = path(attacked);
            assert!(writer.create_file(&attacked, 0o644).is_err());
            assert!(writer.create_dir(&attacked).is_err());
            assert!(writer.symlink(&attacked, b"t").is_err());
            assert!(writer.fifo(&attacked).is_err());
            assert!(writer.hard_link(&path("link"), &attacked).is_err());
        }
        let victim = path("a/b/victim");
        assert!(writer.open_file(&victim).is_err());
        assert!(writer.remove(&victim).is_err());
        assert!(writer.hard_link(&victim, &path("mine")).is_err());
        let attributes = Attributes { mode: 0o7777, ..Attributes::default() };
        for kind in [StatKind::File, StatKind::Directory, StatKind::Fifo] {
            assert!(writer.finish_path(&victim, kind, &attributes, &rights, &shortfalls).is_err());
            assert!(writer.finish_path(&path("link"), kind, &attributes, &rights, &shortfalls).is_err());
            assert!(writer.finish_path(&path("a"), kind, &attributes, &rights, &shortfalls).is_err());
        }
        assert!(writer.open_file(&path("link")).is_err());
        assert!(writer.create_file(&path("link"), 0o644).is_err());
        writer.finish_path(&path("link"), StatKind::Symlink, &attributes, &rights, &shortfalls).unwrap();
    }
    let mut writer = tree.writer();
    writer.remove(&path("a")).unwrap();
    writer.remove(&path("link")).unwrap();
    assert!(!target.join("a").exists());
    let victim = fs::metadata(outside.join("b/victim")).unwrap();
    assert_eq!((victim.mtime(), victim.mtime_nsec(), victim.len(), victim.mode() & 0o7777), (1, 1, 5, 0o644));
    assert_eq!(fs::read_dir(outside.join("b")).unwrap().count(), 1);
}

#[test]
fn a_reader_follows_no_symlink_and_opens_only_files() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("d")).unwrap();
    write(&home.path().join("d/x"), b"x");
    symlink("d", home.path().join("link")).unwrap();
    symlink("d/x", home.path().join("file-link")).unwrap();
    assert!(Command::new("mkfifo").arg(home.path().join("fifo")).status().unwrap().success());
    let mut reader = SourceTree::open(&home.path().join("link/..")).unwrap().reader();
    assert!(reader.open_file(&path("d/x")).is_ok());
    for refused in ["link/x", "file-link", "fifo", "d", ""] {
        assert!(reader.open_file(&path(refused)).is_err(), "{refused}");
    }
    assert_eq!(reader.stat(&path("file-link")).unwrap().kind, StatKind::Symlink);
    assert_eq!(&*reader.symlink_target(&path("file-link")).unwrap(), b"d/x");
    assert!(reader.stat(&path("link/x")).is_err());
    assert!(reader.xattrs(&path("link/x"), StatKind::File).is_err());
    assert!(SourceTree::open(&home.path().join("link")).is_ok());
    assert!(SourceTree::open(&home.path().join("file-link")).is_err());
}

#[test]
fn the_file_systems_clock_is_not_behind_what_was_written() {
    for home in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        let tree = SourceTree::open(home.path()).unwrap();
        let before = tree.file_system_now().unwrap();
        write(&home.path().join("x"), b"x");
        let written = tree.reader().stat(&path("x")).unwrap().ctime;
        let after = tree.file_system_now().unwrap();
        assert!(before <= written && written <= after, "{before:?} {written:?} {after:?}");
    }
}

#[test]
fn a_tree_appears_at_its_name_only_when_it_is_published() {
    let home = tempfile::tempdir().unwrap();
    let (new, empty, full) = (home.path().join("new"), home.path().join("empty"), home.path().join("full"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&full).unwrap();
    write(&full.join("x"), b"x");
    symlink("nowhere", home.path().join("dangling")).unwrap();
    for taken in [&full, &full.join("x"), &home.path().join("dangling")] {
        assert!(matches!(TargetTree::create(taken), Err(TargetError::Occupied { .. })), "{taken:?}");
    }
    assert!(matches!(TargetTree::create(&home.path().join("no/such")), Err(TargetError::Make { .. })));
    for name in [&new, &empty] {
        let staging = TargetTree::create(name).unwrap();
        staging.tree().writer().create_file(&path("f"), 0o644).unwrap();
        assert!(!name.join("f").exists());
        drop(staging);
        let staging = TargetTree::create(name).unwrap();
        staging.tree().writer().create_file(&path("f"), 0o644).unwrap();
        staging.publish().unwrap();
        assert!(name.join("f").exists());
    }
    let late = TargetTree::create(&home.path().join("late")).unwrap();
    write(&home.path().join("late"), b"somebody else's");
    assert!(late.publish().is_err());
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
}

#[test]
fn a_directory_that_is_mounted_on_is_filled_in_place() {
    if !is_root() {
        println!("not run: it takes root to mount");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mount = home.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("not run: mounting is not allowed here");
        return;
    }
    let staging = TargetTree::create(&mount).unwrap();
    staging.tree().writer().create_file(&path("f"), 0o644).unwrap();
    drop(staging);
    let cleared = fs::read_dir(&mount).unwrap().next().is_none();
    let staging = TargetTree::create(&mount).unwrap();
    staging.tree().writer().create_file(&path("f"), 0o644).unwrap();
    staging.publish().unwrap();
    let filled = mount.join("f").exists();
    let inside = |one_file_system| paths(home.path(), WalkOptions { one_file_system, ..with_threads(1) });
    let (one, all) = (inside(true), inside(false));
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    assert!(cleared && filled);
    assert_eq!(one, [".", "mount"]);
    assert_eq!(all, [".", "mount", "mount/f"]);
}

#[test]
fn a_new_tree_inherits_nothing_from_the_directory_above() {
    let home = tempfile::tempdir().unwrap();
    let set = Command::new("setfacl").args(["-d", "-m", "u:12345:rwx"]).arg(home.path()).status().unwrap();
    assert!(set.success());
    chmod(home.path(), 0o2777);
    let source = tempfile::tempdir().unwrap();
    bushy(source.path());
    let copy = home.path().join("copy");
    assert!(copy_tree(source.path(), &copy, &RestoreRights::default()).is_empty());
    assert_eq!(described(&copy), described(source.path()));
}

#[test]
fn finishing_in_a_tree_that_was_there_takes_away_what_is_not_asked_for() {
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join("f"), b"f");
    setxattr(home.path().join("f"), "user.old", b"1", XattrFlags::empty()).unwrap();
    setxattr(home.path().join("f"), "user.same", b"1", XattrFlags::empty()).unwrap();
    let set = Command::new("setfacl").args(["-m", "u:12345:rwx"]).arg(home.path().join("f")).status();
    assert!(set.unwrap().success());
    let attributes = Attributes {
        mode: 0o600,
        owner: EntryOwner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..EntryOwner::default()
        },
        mtime: FileTime::default(),
        xattrs: vec![Xattr { name: b"user.same".as_slice().into(), value: b"1".as_slice().into() }],
    };
    let (rights, shortfalls) = (RestoreRights::default(), Shortfalls::new());
    let mut writer = TargetTree::open(home.path()).unwrap().writer();
    writer.finish_path(&path("f"), StatKind::File, &attributes, &rights, &shortfalls).unwrap();
    assert!(shortfalls.is_empty());
    assert_eq!(described(home.path())[&path("f")].attributes, attributes);
}

#[test]
fn an_owner_changes_what_is_read_only_and_gives_it_its_mode_again() {
    let home = open_home();
    let target = home.path().join("target");
    as_nobody(|| {
        fs::create_dir_all(target.join("d/e")).unwrap();
        write(&target.join("d/e/x"), b"x");
        chmod(&target.join("d/e"), 0o000);
        chmod(&target.join("d"), 0o555);
        let mut writer = TargetTree::open(&target).unwrap().writer();
        writer.create_file(&path("d/new"), 0o644).unwrap();
        writer.remove(&path("d/e")).unwrap();
        writer.create_dir(&path("d/e")).unwrap();
        writer.create_file(&path("d/e/x"), 0o644).unwrap();
        let attributes = Attributes { mode: 0o111, ..Attributes::default() };
        let (rights, shortfalls) = (RestoreRights::default(), Shortfalls::new());
        for name in ["d/e", "d", ""] {
            // Twice: what is not readable any more can still be finished.
            for _ in 0..2 {
                let finished =
                    writer.finish_path(&path(name), StatKind::Directory, &attributes, &rights, &shortfalls);
                finished.unwrap();
            }
        }
        assert_eq!(fs::metadata(target.join("d")).unwrap().mode() & 0o7777, 0o111);
    });
}

#[test]
fn a_directory_removed_and_made_again_is_found_by_every_writer() {
    let home = tempfile::tempdir().unwrap();
    let tree = TargetTree::open(home.path()).unwrap();
    let (mut one, mut other) = (tree.writer(), tree.writer());
    one.create_dir(&path("d")).unwrap();
    other.create_file(&path("d/x"), 0o644).unwrap();
    one.create_file(&path("d/y"), 0o644).unwrap();
    one.remove(&path("d")).unwrap();
    one.remove(&path("d")).unwrap();
    one.create_dir(&path("d")).unwrap();
    other.create_file(&path("d/x"), 0o644).unwrap();
    one.hard_link(&path("d/x"), &path("d/z")).unwrap();
    assert_eq!(fs::read_dir(home.path().join("d")).unwrap().count(), 2);
}

#[test]
fn names_of_this_host_are_known() {
    let names = Names::new();
    assert_eq!(&*names.user(0), b"root");
    assert_eq!((names.uid(b"root"), names.gid(b"root")), (Some(0), Some(0)));
}
