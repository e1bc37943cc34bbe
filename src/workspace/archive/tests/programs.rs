//! GNU tar and bsdtar, both ways. Owners, devices and privileged attributes need root: without it, or without one of the
//! programs, a test says so and does nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::SeekFrom;

use super::own::written;
use super::tape::read_right;
use crate::store::{Attributes, Content, Entry, EntryKind, EntryOwner, EntryPath, Extent, FileTime, Xattr};
use crate::workspace::archive::acl::{acl_from_text, acl_to_text};

type Entries = Vec<(Entry, Vec<u8>)>;

fn missing() -> bool {
    let programs = ["tar", "bsdtar", "setfacl", "getfacl", "setfattr"];
    let absent = programs.iter().find(|name| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    });
    if let Some(name) = absent {
        println!("left out: `{name}` is not here");
    }
    let unprivileged = !rustix::process::geteuid().is_root();
    if unprivileged {
        println!("left out: not root");
    }
    absent.is_some() || unprivileged
}

/// Runs a program and returns what it prints.
#[track_caller]
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaints}");
    output.stdout
}

const PLAIN: &str = r"
    mkdir -p a/b empty; printf hello > a/file; : > a/none; ln -s ../x a/link; ln -s /etc/passwd abs
    head -c 100000 /dev/urandom > a/b/big; printf x > 'a b'; printf y > a-b
    chmod 4755 a/file; chmod 1777 empty; chmod 0 'a b'; chown 12:34 a/none; chown -h 5:6 a/link
    ln a/file a/hard; ln a/file zz; ln a/link zlink
    find . -exec touch -h -d '2001-02-03 04:05:06 UTC' {} +
";

/// What GNU's own format can say beyond that.
const GNU: &str = r#"
    mkfifo pipe; mknod null c 1 3; mknod loop b 7 300
    x=$(printf '%0120d' 0); mkdir -p "$x/$x/$x"; printf long > "$x/$x/$x/file"; ln "$x/$x/$x/file" "$x/hard"
    ln -s "$x$x" symlink; printf 1 > "$(printf '\377\376name')"; printf 2 > é; printf 3 > 'new
line'
    printf 4 > ids; chown 3000000:4000000000 ids
    truncate -s 10M middle; printf data | dd of=middle bs=1 seek=5000000 conv=notrunc status=none
    printf data | dd of=middle bs=1 conv=notrunc status=none; truncate -s 5M hole; printf x > tail; truncate -s 1M tail
    truncate -s 1T huge; printf data | dd of=huge bs=1 seek=700000000000 conv=notrunc status=none
    i=0; truncate -s 20M many; while [ $i -lt 60 ]; do printf $i | dd of=many bs=65536 seek=$((i * 5)) conv=notrunc status=none; i=$((i+1)); done
    find . -exec touch -h -d '2001-02-03 04:05:06 UTC' {} +
    touch -d '1950-01-02 03:04:05 UTC' a/file
"#;

/// What only PAX can say.
const PAX: &str = r#"
    setfattr -n user.text -v value a/file; setfattr -n user.empty a/file; setfattr -n user.bytes -v 0x00ff0a3d a/b
    setfattr -n 'user.eq=uals' -v '=x=' a/none; setfattr -n 'user.50%' -v y a/none
    setfattr -h -n trusted.link -v z a/link; setfattr -n user.long -v "$(printf '%03000d' 7)" a-b
    setfacl -m u:51000:rwx,g:52000:r-x,u:51001:--- a/file; setfacl -m u:51000:rx a/b
    setfacl -d -m u:51007:rx,g:52007:w,m:rwx a/b; setfacl -d -m o::r empty
    touch -h -d '2020-01-02 03:04:05.123456789 UTC' a/link ids; touch -d '1969-12-31 23:59:58.5 UTC' a/none
    touch -d '1955-01-01 00:00:00.000000001 UTC' middle; touch -d '2100-01-01 00:00:00.9 UTC' a empty
"#;

/// Makes a tree and returns what lies in it.
fn grow(directory: &Path, scripts: &[&str]) -> Tree {
    let script = format!("set -e\ncd '{}'\n{}", directory.display(), scripts.concat());
    run("sh", &["-c", &script], b"");
    tree_of(&scan(directory))
}

/// An entry as it is on disk, however an archive says it.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    kind: String,
    size: u64,
    /// Blocks of 4 KiB that are not all zeros.
    blocks: BTreeMap<u64, Vec<u8>>,
    extents: Option<Vec<Extent>>,
    attributes: Attributes,
    /// The first name of those that are one file.
    first_name: EntryPath,
}

type Tree = BTreeMap<EntryPath, Node>;

fn tree_of(entries: &Entries) -> Tree {
    let mut tree = Tree::new();
    for (entry, data) in entries {
        let mut node = Node {
            kind: format!("{:?}", entry.kind),
            size: entry.size(),
            blocks: BTreeMap::new(),
            extents: None,
            attributes: entry.attributes.clone(),
            first_name: entry.path.clone(),
        };
        match &entry.kind {
            EntryKind::HardLink { target } => {
                node = tree.get(target).expect("a link comes after its file").clone()
            }
            EntryKind::File { size, extents, .. } => {
                node.kind = "File".to_owned();
                node.extents = extents.clone();
                let whole = [Extent { offset: 0, length: *size }];
                let mut rest = &data[..];
                for Extent { offset, length } in extents.as_deref().unwrap_or(&whole) {
                    let (run, after) = rest.split_at(usize::try_from(*length).unwrap());
                    rest = after;
                    for (at, byte) in (*offset..).zip(run).filter(|(_, byte)| **byte != 0) {
                        let block = node.blocks.entry(at / 4096).or_insert_with(|| vec![0; 4096]);
                        block[usize::try_from(at % 4096).unwrap()] = *byte;
                    }
                }
                assert!(rest.is_empty());
            }
            _ => {}
        }
        // The machine's names for numbers are not what this is about.
        node.attributes.owner.user = Box::default();
        node.attributes.owner.group = Box::default();
        tree.insert(entry.path.clone(), node);
    }
    let mut first: BTreeMap<EntryPath, EntryPath> = BTreeMap::new();
    for (path, node) in &tree {
        first.entry(node.first_name.clone()).or_insert_with(|| path.clone());
    }
    for node in tree.values_mut() {
        node.first_name = first[&node.first_name].clone();
    }
    tree
}

/// Reads a tree from disk, on its own: nothing of what is tested here takes part.
fn scan(directory: &Path) -> Entries {
    let mut found = Vec::new();
    scan_into(directory, &EntryPath::root(), &mut BTreeMap::new(), &mut found);
    found
}

fn scan_into(at: &Path, path: &EntryPath, links: &mut BTreeMap<u64, EntryPath>, found: &mut Entries) {
    let meta = fs::symlink_metadata(at).unwrap();
    let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let mut data = Vec::new();
    let earlier = links.get(&meta.ino()).cloned().filter(|_| !meta.is_dir());
    let kind = if let Some(target) = earlier {
        EntryKind::HardLink { target }
    } else if meta.is_dir() {
        EntryKind::Directory
    } else if meta.is_symlink() {
        EntryKind::Symlink { target: fs::read_link(at).unwrap().as_os_str().as_bytes().into() }
    } else if meta.file_type().is_fifo() {
        EntryKind::Fifo
    } else if meta.file_type().is_char_device() {
        let (major, minor) = device();
        EntryKind::CharDevice { major, minor }
    } else if meta.file_type().is_block_device() {
        let (major, minor) = device();
        EntryKind::BlockDevice { major, minor }
    } else {
        let extents = scan_file(at, meta.len(), &mut data);
        EntryKind::File { size: meta.len(), content: Content::default(), extents }
    };
    links.insert(meta.ino(), path.clone());
    let attributes = Attributes {
        mode: u16::try_from(meta.mode() & 0o7777).unwrap(),
        owner: EntryOwner { uid: meta.uid(), gid: meta.gid(), ..EntryOwner::default() },
        mtime: FileTime { seconds: meta.mtime(), nanoseconds: u32::try_from(meta.mtime_nsec()).unwrap() },
        xattrs: scan_xattrs(at),
    };
    found.push((Entry { path: path.clone(), kind, attributes }, data));
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|child| child.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            scan_into(&at.join(&name), &path.join(name.as_bytes()).unwrap(), links, found);
        }
    }
}

fn scan_file(at: &Path, size: u64, data: &mut Vec<u8>) -> Option<Vec<Extent>> {
    let file = File::open(at).unwrap();
    let (mut extents, mut end) = (Vec::new(), 0);
    while let Ok(offset) = rustix::fs::seek(&file, SeekFrom::Data(end)) {
        end = rustix::fs::seek(&file, SeekFrom::Hole(offset)).unwrap();
        rustix::fs::seek(&file, SeekFrom::Start(offset)).unwrap();
        (&file).take(end - offset).read_to_end(data).unwrap();
        extents.push(Extent { offset, length: end - offset });
    }
    (extents.iter().map(|extent| extent.length).sum::<u64>() < size).then_some(extents)
}

fn scan_xattrs(at: &Path) -> Vec<Xattr> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(at, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut xattrs: Vec<Xattr> = names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(at, OsStr::from_bytes(name), &mut value[..]).unwrap();
            Xattr { name: name.into(), value: value[..length].into() }
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// Compares trees entry by entry, for messages that can be read.
#[track_caller]
fn same(what: &str, found: &Tree, wanted: &Tree) {
    for (path, node) in wanted {
        let other = found.get(path).unwrap_or_else(|| panic!("{what}: {path} is missing"));
        let brief = |node: &Node| format!("{:?}", Node { blocks: BTreeMap::new(), ..node.clone() });
        assert!(brief(other) == brief(node), "{what}: {path}:\n{}\n{}", brief(other), brief(node));
        assert!(other == node, "{what}: {path}: the data differs");
    }
    assert_eq!(found.len(), wanted.len(), "{what}: more than there should be");
}

fn each(tree: &Tree, change: impl Fn(&mut Node)) -> Tree {
    let mut tree = tree.clone();
    tree.values_mut().for_each(change);
    tree
}

/// Returns a tree without the times that bsdtar does not keep: that of the root, and fractions of a second before 1970, where it
/// writes and reads -1.5 as -2.5, the seconds rounded down and the fraction after them.
fn without_lost_times(tree: &Tree, wanted: &Tree) -> Tree {
    let lost = |path: &EntryPath| {
        let time = wanted[path].attributes.mtime;
        path.is_root() || time.seconds < 0 && time.nanoseconds > 0
    };
    let mut tree = tree.clone();
    for (path, node) in tree.iter_mut().filter(|(path, _)| wanted.contains_key(path) && lost(path)) {
        assert!(
            path.is_root()
                || (node.attributes.mtime.seconds - wanted[path].attributes.mtime.seconds).abs() <= 1
        );
        node.attributes.mtime = FileTime::default();
    }
    tree
}

fn packed_by(program: &str, directory: &Path, arguments: &[&str]) -> Tree {
    let directory = directory.to_str().unwrap();
    let mut all = vec!["-c", "-f", "-", "-C", directory, "--numeric-owner"];
    all.extend(arguments);
    all.push(".");
    tree_of(&read_right(&run(program, &all, b"")).0)
}

#[test]
fn what_gnu_tar_writes_in_every_format_is_read() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let plain = grow(home.path(), &[PLAIN]);
    for format in ["v7", "ustar", "oldgnu", "gnu", "pax"] {
        let found = packed_by("tar", home.path(), &["--format", format]);
        same(format, &found, &plain);
    }
    let wanted = grow(home.path(), &[GNU]);
    let dense = each(&wanted, |node| node.extents = None);
    let huge = ["--exclude=./huge"];
    let small = |tree: &Tree| {
        tree.iter()
            .filter(|(path, _)| path.as_bytes() != b"huge")
            .map(|(p, n)| (p.clone(), n.clone()))
            .collect::<Tree>()
    };
    for format in ["oldgnu", "gnu", "pax"] {
        same(format, &packed_by("tar", home.path(), &["--format", format, huge[0]]), &small(&dense));
        for detection in ["--hole-detection=seek", "--hole-detection=raw"] {
            if detection.ends_with("raw") {
                let found =
                    packed_by("tar", home.path(), &["--format", format, "--sparse", detection, huge[0]]);
                same(format, &each(&found, |node| node.extents = None), &small(&dense));
            } else {
                same(
                    format,
                    &packed_by("tar", home.path(), &["--format", format, "--sparse", detection]),
                    &wanted,
                );
            }
        }
    }
    let wanted = grow(home.path(), &[PAX]);
    for version in ["0.0", "0.1", "1.0"] {
        let options = [
            "--format=pax",
            "--sparse",
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--sparse-version",
            version,
        ];
        same(version, &packed_by("tar", home.path(), &options), &wanted);
        for program in ["--gzip", "--zstd"] {
            same(program, &packed_by("tar", home.path(), &[&options[..], &[program]].concat()), &wanted);
        }
    }
}

#[test]
fn what_bsdtar_writes_in_every_format_is_read() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let plain = grow(home.path(), &[PLAIN]);
    for format in ["v7", "ustar", "gnutar", "pax"] {
        same(
            format,
            &packed_by("bsdtar", home.path(), &["--format", format, "--no-acls", "--no-xattrs"]),
            &plain,
        );
    }
    let wanted = grow(home.path(), &[GNU, PAX]);
    let found = packed_by("bsdtar", home.path(), &["--format", "pax", "--acls", "--xattrs"]);
    let (found, wanted) = (without_lost_times(&found, &wanted), without_lost_times(&wanted, &wanted));
    same("pax", &found, &wanted);
}

#[test]
fn what_is_written_is_unpacked_by_both_to_the_same_tree() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let wanted = grow(home.path(), &[PLAIN, GNU, PAX]);
    let entries = scan(home.path());
    let bytes = written(&entries);
    assert!(bytes.len() < 2 << 20, "holes take no room");
    same("own", &tree_of(&read_right(&bytes).0), &wanted);
    let home = home.path().to_str().unwrap();
    let gnu = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"];
    // It would read the whole hole.
    let differences =
        run("tar", &[&["-d", "-f", "-", "-C", home, "--exclude=huge"], &gnu[..]].concat(), &bytes);
    assert_eq!(String::from_utf8_lossy(&differences), "");
    let bsd = ["--numeric-owner", "--xattrs", "--acls", "--same-owner"];
    for (program, options) in [("tar", &gnu), ("bsdtar", &bsd)] {
        let out = tempfile::tempdir().unwrap();
        let place = out.path().to_str().unwrap();
        run(program, &[&["-x", "-p", "-f", "-", "-C", place], &options[..]].concat(), &bytes);
        let mut wanted = wanted.clone();
        if program == "bsdtar" {
            // It does not undo what stands for `=` in an attribute's name.
            let attributes =
                &mut wanted.get_mut(&EntryPath::new(&b"a/none"[..]).unwrap()).unwrap().attributes;
            for xattr in attributes.xattrs.iter_mut().filter(|xattr| *xattr.name == *b"user.eq=uals") {
                xattr.name = (*b"user.eq%3Duals").into();
            }
            attributes.xattrs.sort();
        }
        let found = tree_of(&scan(out.path()));
        if program == "bsdtar" {
            same(program, &without_lost_times(&found, &wanted), &without_lost_times(&wanted, &wanted));
        } else {
            same(program, &found, &wanted);
        }
    }
}

#[test]
fn names_longer_than_a_program_may_name_are_read() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    run(
        "sh",
        &["-c", &format!("cd '{}' && printf x > f && ln f g && ln -s t s", home.path().display())],
        b"",
    );
    let long = format!("{}/end", vec!["d".repeat(200); 25].join("/"));
    for format in ["gnu", "oldgnu", "pax"] {
        let transform = [format!("--transform=s,^f$,{long},"), format!("--transform=s,^t$,{long}x,")];
        let place = home.path().to_str().unwrap();
        let arguments =
            ["-cf", "-", "-C", place, "--format", format, &transform[0], &transform[1], "f", "g", "s"];
        let (found, _) = read_right(&run("tar", &arguments, b""));
        assert_eq!(found[0].0.path.as_bytes(), long.as_bytes(), "{format}");
        let EntryKind::HardLink { target } = &found[1].0.kind else { panic!() };
        assert_eq!(target.as_bytes(), long.as_bytes());
        let EntryKind::Symlink { target } = &found[2].0.kind else { panic!() };
        assert_eq!(**target, *format!("{long}x").as_bytes());
        assert_eq!(read_right(&written(&found)).0, found);
    }
}

#[test]
fn a_name_that_gnu_tar_was_told_twice_is_one_entry() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let place = home.path().to_str().unwrap();
    run("sh", &["-c", &format!("cd '{place}' && printf x > f && ln f g")], b"");
    let (found, summary) = read_right(&run("tar", &["-cf", "-", "-C", place, "f", "f", "g"], b""));
    assert_eq!((found.len(), summary.self_links), (2, 1));
}

#[test]
fn owners_keep_their_names() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let place = home.path().to_str().unwrap();
    for format in ["ustar", "gnu", "pax"] {
        let arguments =
            ["-cf", "-", "-C", place, "--format", format, "--owner=someone:7", "--group=others:8", "."];
        let owner = read_right(&run("tar", &arguments, b"")).0.remove(0).0.attributes.owner;
        let wanted = EntryOwner { uid: 7, gid: 8, user: (*b"someone").into(), group: (*b"others").into() };
        assert_eq!(owner, wanted);
    }
}

#[test]
fn acls_are_what_setfacl_and_getfacl_make_of_them() {
    if missing() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    File::create(&file).unwrap();
    let place = file.to_str().unwrap();
    for text in [
        "user::rw-,user:51000:r-x,group::r--,mask::r-x,other::---",
        "user::rwx,user:1:---,user:51000:rwx,group::---,group:2:-w-,group:52000:--x,mask::rwx,other::r--",
    ] {
        run("setfacl", &["--set", text, place], b"");
        let xattrs = scan_xattrs(&file);
        let [Xattr { name, value }] = &xattrs[..] else { panic!("{xattrs:?}") };
        assert_eq!(&**name, b"system.posix_acl_access");
        assert_eq!(acl_to_text(value).unwrap(), text);
        assert_eq!(acl_from_text(text.as_bytes(), &|_| None).unwrap().binary, **value);
        let shown = run("getfacl", &["-n", "-c", "-a", "-p", place], b"");
        assert_eq!(acl_from_text(&shown, &|_| None).unwrap().binary, **value);
        run("setfacl", &["-b", place], b"");
        let made = acl_from_text(text.as_bytes(), &|_| None).unwrap().binary;
        rustix::fs::lsetxattr(&file, "system.posix_acl_access", &made, rustix::fs::XattrFlags::empty())
            .unwrap();
        assert_eq!(run("getfacl", &["-n", "-c", "-a", "-p", place], b""), shown);
    }
}
