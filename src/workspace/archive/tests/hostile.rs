//! What must be refused, and how.

use std::fs;
use std::path::Path;

use super::tape::{Outcome, Tape, gnu_header, header, read, read_right, read_with, records};
use crate::base::{Classify, ErrorKind};
use crate::store::{EntryKind, EntryPath};
use crate::workspace::archive::header::{CHECKSUM, GID, LINK, MAJOR, MINOR, MTIME, NAME, SIZE, UID};
use crate::workspace::archive::{ArchiveError, ArchiveLimits, read_untrusted};

fn message(outcome: &Outcome) -> String {
    match &outcome.1 {
        Ok(summary) => format!("no error: {summary:?}"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn refused(tape: Tape, wanted: &str) {
    let bytes = tape.end();
    let outcome = read(&bytes);
    assert!(message(&outcome).contains(wanted), "{} lacks: {wanted}", message(&outcome));
    assert!(read_untrusted(&bytes).is_err());
    assert_ne!(outcome.1.unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "..", "a/..", "/../x", "./../x", "a//../x", "../"] {
        refused(Tape::new().file(name, b""), "holds `..`");
        refused(Tape::new().link(b'1', "link", name), "holds `..`");
        refused(Tape::new().pax(&[("path", name)]).file("good", b""), "holds `..`");
        let long = Tape::new().member(b'L', "././@LongLink", name.as_bytes());
        refused(long.file("good", b""), "holds `..`");
        let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "0")];
        let sparse = [&sparse[..], &[("GNU.sparse.name", name)]].concat();
        refused(Tape::new().pax(&sparse).file("good", b"0\n"), "holds `..`");
    }
    // In the prefix.
    let mut split = header(b'0', "x", 0);
    split.put_text(345..500, b"a/../..");
    refused(Tape::new().sealed(split), "holds `..`");
    // Dots that are no way up.
    let (found, _) = read_right(&Tape::new().file("..a/b../...", b"").end());
    assert_eq!(found[0].0.path.to_string(), "..a/b../...");
}

#[test]
fn absolute_and_dotted_names_come_out_relative_and_are_counted() {
    let tape = Tape::new().member(b'5', "./", b"").file("/etc/passwd", b"x").file("./a//./b", b"");
    let tape =
        tape.file("//x", b"").link(b'1', "y", "/./x").link(b'2', "z", "/etc/passwd").member(b'5', "d//", b"");
    let (found, summary) = read_right(&tape.end());
    let names: Vec<String> = found.iter().map(|(entry, _)| entry.path.to_string()).collect();
    assert_eq!(names, [".", "etc/passwd", "a/b", "x", "y", "z", "d"]);
    assert_eq!((summary.absolute_names, summary.dotted_names), (2, 1));
    let target = EntryPath::new(&b"x"[..]).unwrap();
    assert_eq!(found[4].0.kind, EntryKind::HardLink { target });
    // A symlink's target is nobody's path until somebody follows it.
    assert_eq!(found[5].0.kind, EntryKind::Symlink { target: (*b"/etc/passwd").into() });
    assert_eq!(found[6].0.kind, EntryKind::Directory);
}

#[test]
fn names_that_cannot_be_are_refused() {
    refused(Tape::new().pax(&[("path", "a\0b")]).file("x", b""), "no value for `path`");
    refused(Tape::new().pax(&[("linkpath", "a\0b")]).link(b'2', "x", "y"), "no value for `linkpath`");
    refused(Tape::new().member(b'L', "l", b"a\0b").file("x", b""), "goes on after its end");
    refused(Tape::new().member(b'L', "l", b"").file("x", b""), "is empty");
    let long = "a".repeat(256);
    refused(Tape::new().pax(&[("path", &long)]).file("x", b""), "more than 255");
    refused(Tape::new().link(b'2', "x", ""), "without a target");
    refused(Tape::new().link(b'1', "x", ""), "without a target");
    refused(Tape::new().link(b'1', "x", "./"), "hard link to the root");
    refused(Tape::new().link(b'2', ".", "/etc"), "the root is no directory");
    refused(Tape::new().file("./.", b"x"), "the root is no directory");
    let deep = "a/".repeat(1025);
    refused(Tape::new().pax(&[("path", &deep)]).file("x", b""), "directories above each other");
    let long = "a/".repeat(40_000);
    refused(Tape::new().pax(&[("path", &long)]).file("x", b""), "bytes in a name");
    refused(Tape::new().pax(&[("linkpath", &long)]).link(b'2', "x", "y"), "bytes in a link target");
}

#[test]
fn what_only_a_restore_can_judge_is_passed_on_as_it_stands() {
    for (name, tape) in judged_by_a_restore() {
        let bytes = tape.end();
        read_right(&bytes);
        // The same archives, for the tests of a restore.
        let file = Path::new("tests/fixtures/archives").join(name).with_extension("tar");
        assert_eq!(fs::read(&file).unwrap(), bytes, "{}", file.display());
    }
}

/// Archives without a fault in their form that do harm where a restore follows them blindly.
fn judged_by_a_restore() -> Vec<(&'static str, Tape)> {
    let device = |kind, name| {
        let mut header = header(kind, name, 0);
        header.put_number(MAJOR, 1);
        header.put_number(MINOR, 3);
        header
    };
    let mut setuid = header(b'0', "shell", 2);
    setuid.put_number(100..108, 0o6755);
    vec![
        ("symlink-then-write-through", Tape::new().link(b'2', "a", "/tmp").file("a/escaped", b"x")),
        ("symlink-up-then-write-through", Tape::new().link(b'2', "a", "..").file("a/escaped", b"x")),
        ("symlink-chain", Tape::new().link(b'2', "a", "b").link(b'2', "b", "..").file("a/escaped", b"x")),
        ("symlink-then-directory", Tape::new().link(b'2', "a", "/tmp").member(b'5', "a/", b"")),
        ("symlink-then-file", Tape::new().link(b'2', "a", "/tmp/escaped").file("a", b"x")),
        (
            "hard-link-to-symlink",
            Tape::new().link(b'2', "a", "/etc/passwd").link(b'1', "b", "a").file("b", b"x"),
        ),
        ("hard-link-through-symlink", Tape::new().link(b'2', "a", "/etc").link(b'1', "b", "a/passwd")),
        ("hard-link-outside", Tape::new().link(b'1', "a", "/etc/passwd").file("a", b"x")),
        ("hard-link-to-nothing", Tape::new().link(b'1', "a", "b")),
        ("hard-links-in-a-circle", Tape::new().link(b'1', "a", "b").link(b'1', "b", "a")),
        ("hard-link-to-a-directory", Tape::new().member(b'5', "d/", b"").link(b'1', "a", "d")),
        ("file-above-a-file", Tape::new().file("a", b"x").file("a/b", b"y")),
        ("directory-then-file", Tape::new().member(b'5', "a/", b"").file("a/b", b"x").file("a", b"y")),
        ("same-name-twice", Tape::new().file("a", b"first").file("a", b"second").file("./a", b"third")),
        (
            "devices",
            Tape::new().sealed(device(b'3', "null")).sealed(device(b'4', "disk")).member(b'6', "pipe", b""),
        ),
        ("setuid", Tape::new().sealed(setuid).data(b"#!")),
        ("attributes-of-the-system", {
            let list =
                [("SCHILY.xattr.trusted.overlay.opaque", "y"), ("SCHILY.xattr.security.capability", "x")];
            Tape::new().pax(&list).file("a", b"x")
        }),
    ]
}

#[test]
fn duplicates_and_devices_come_as_they_stand() {
    let tapes = judged_by_a_restore();
    let tape = |name| tapes.iter().find(|(other, _)| *other == name).unwrap().1.clone().end();
    let (found, _) = read_right(&tape("same-name-twice"));
    let data: Vec<&[u8]> = found.iter().map(|(_, data)| &data[..]).collect();
    assert_eq!(data, [b"first", &b"second"[..], b"third"]);
    assert!(found.iter().all(|(entry, _)| entry.path.as_bytes() == b"a"));
    let (found, _) = read_right(&tape("devices"));
    assert_eq!(found[0].0.kind, EntryKind::CharDevice { major: 1, minor: 3 });
    assert_eq!(found[1].0.kind, EntryKind::BlockDevice { major: 1, minor: 3 });
    assert_eq!(found[2].0.kind, EntryKind::Fifo);
    let (found, _) = read_right(&tape("setuid"));
    assert_eq!(found[0].0.attributes.mode, 0o6755);
}

/// CVE-2025-62518: a header says 0 and PAX says more; who believes the header reads the inner archive as entries.
#[test]
fn a_pax_size_governs_its_entry_in_both_directions() {
    let inner = Tape::new().file("smuggled", b"evil").0;
    let size = inner.len().to_string();
    let lie = Tape::new().pax(&[("size", &size)]).sealed(header(b'0', "inner.tar", 0)).data(&inner);
    let (found, _) = read_right(&lie.file("after", b"x").end());
    let names: Vec<String> = found.iter().map(|(entry, _)| entry.path.to_string()).collect();
    assert_eq!(names, ["inner.tar", "after"]);
    assert_eq!((found[0].0.size(), found[0].1.len()), (inner.len() as u64, inner.len()));
    // CVE-2026-33055, the other way: the header's size is large, PAX says 0.
    let lie = Tape::new().pax(&[("size", "0")]).sealed(header(b'0', "empty", 512)).file("after", b"x");
    let (found, _) = read_right(&lie.end());
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].0.size(), 0);
    // And at once in a later record of the same header, which wins.
    let twice = Tape::new().pax(&[("size", "9"), ("size", "1")]).file("a", b"x");
    assert_eq!(read_right(&twice.end()).0[0].1, b"x");
}

/// GHSA-3cv2-h65g-fgmm: a PAX size that is applied to the extension header after it moves all that follows.
#[test]
fn pax_never_applies_to_extension_headers() {
    let name = "n".repeat(120);
    for kind in [b'L', b'K', b'g'] {
        let extension =
            if kind == b'g' { records(&[("comment", "x")]) } else { [name.as_bytes(), b"\0"].concat() };
        let tape = Tape::new().pax(&[("size", "5"), ("uid", "7"), ("mtime", "1.5")]);
        let tape =
            tape.member(kind, "././@LongLink", &extension).sealed(header(b'0', "a", 1024)).data(b"12345");
        let (found, _) = read_right(&tape.file("after", b"x").end());
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0].1[..], found[0].0.attributes.owner.uid), (&b"12345"[..], 7));
        assert_eq!(found[0].0.path.as_bytes(), if kind == b'L' { name.as_bytes() } else { b"a" });
        assert_eq!(found[1].0.path.as_bytes(), b"after");
        assert_eq!(found[1].0.attributes.owner.uid, 0);
    }
    refused(Tape::new().pax(&[("size", "5")]).pax(&[("path", "x")]).file("a", b"x"), "a second PAX header");
    refused(
        Tape::new().member(b'L', "l", b"x\0").member(b'L', "l", b"y\0").file("a", b"x"),
        "a second long name",
    );
    refused(
        Tape::new().member(b'K', "l", b"x\0").member(b'K', "l", b"y\0").file("a", b"x"),
        "a second long link",
    );
    refused(Tape::new().pax(&[("path", "x")]).member(b'V', "volume", b"").file("a", b""), "volume's label");
}

/// RUSTSEC-2026-0112: two programs take two names for one entry.
#[test]
fn two_names_for_one_entry_are_refused_unless_they_agree() {
    let both =
        |a: &str, b: &str| Tape::new().pax(&[("path", a)]).member(b'L', "l", b.as_bytes()).file("c", b"");
    refused(both("one", "two\0"), "two long names that differ");
    assert_eq!(read_right(&both("one", "one\0").end()).0[0].0.path.as_bytes(), b"one");
    let both = |a: &str, b: &str| {
        Tape::new().member(b'K', "l", b.as_bytes()).pax(&[("linkpath", a)]).link(b'2', "c", "x")
    };
    refused(both("one", "two"), "two long links that differ");
    assert_eq!(read_right(&both("one", "one").end()).0.len(), 1);
}

#[test]
fn extension_headers_that_nothing_follows_are_refused() {
    for tape in [
        Tape::new().file("a", b"").pax(&[("path", "b")]),
        Tape::new().file("a", b"").member(b'L', "l", b"b\0"),
        Tape::new().file("a", b"").member(b'K', "l", b"b\0"),
    ] {
        let bytes = tape.clone().0;
        assert!(message(&read(&bytes)).contains("nothing follows"));
        refused(tape, "nothing follows");
    }
    // One for all entries may stand alone.
    read_right(&Tape::new().member(b'g', "g", &records(&[("comment", "x")])).end());
}

#[test]
fn records_with_wrong_lengths_are_refused() {
    for wrong in
        ["8 path=a\n", "11 path=a\n", "path=a\n", "10 path=a\n\0", "10 path\0a\n", "0 \n", "-1 a=b\n", "\0"]
    {
        let outcome = Tape::new().member(b'x', "x", wrong.as_bytes()).file("a", b"");
        if wrong == "10 path\0a\n" {
            refused(outcome, "no key and value")
        } else {
            refused(outcome, "no right length")
        }
    }
    for (key, value) in [
        ("size", "-1"),
        ("size", ""),
        ("size", "0x10"),
        ("size", "99999999999999999999"),
        ("uid", "-1"),
        ("mtime", "soon"),
        ("LIBARCHIVE.xattr.user.a", "!"),
        ("LIBARCHIVE.xattr.user.%zz", "MQ"),
    ] {
        refused(Tape::new().pax(&[(key, value)]).file("a", b""), "is no value for");
    }
    refused(Tape::new().pax(&[("size", "9223372036854775808")]).file("a", b""), "out of range");
    refused(Tape::new().pax(&[("uid", "4294967296")]).file("a", b""), "its owner is out of range");
    refused(Tape::new().pax(&[("SCHILY.xattr.", "x")]).file("a", b""), "no name of an attribute");
    refused(Tape::new().pax(&[("SCHILY.acl.access", "user::rwx")]).file("a", b""), "the ACL has 0 entries");
}

#[test]
fn data_where_only_a_file_has_some_is_refused() {
    let inner = Tape::new().file("smuggled", b"evil").0;
    for kind in *b"12345" {
        let mut header = header(kind, "a", inner.len() as u64);
        header.put_text(LINK, b"b");
        refused(Tape::new().sealed(header.clone()).data(&inner), "which only a file has");
        let tape = Tape::new().pax(&[("size", "2048")]);
        header.put_number(SIZE, 0);
        refused(tape.sealed(header).data(&inner), "which only a file has");
    }
    refused(Tape::new().member(b'0', "directory/", b"data"), "which only a file has");
    // GNU's list of a directory's names is data that is skipped.
    let (found, _) = read_right(&Tape::new().member(b'D', "d/", b"Yname\0\0").file("after", b"x").end());
    assert_eq!((found.len(), &found[0].0.kind, &found[0].1[..]), (2, &EntryKind::Directory, &b""[..]));
}

#[test]
fn what_would_hold_for_all_entries_must_not_move_them() {
    for key in ["size", "GNU.sparse.map", "GNU.sparse.major"] {
        let tape = Tape::new().member(b'g', "g", &records(&[(key, "1")]));
        refused(tape.file("a", b"x"), "cannot hold for all entries");
    }
    let tape = Tape::new().member(b'g', "g", &records(&[("uid", "5"), ("gname", "all"), ("mtime", "-1.5")]));
    let tape = tape.file("a", b"").pax(&[("uid", "6"), ("gname", "")]).file("b", b"");
    let tape = tape.member(b'g', "g", &records(&[("uid", "7")])).pax(&[("mtime", "")]).file("c", b"");
    let (found, _) = read_right(&tape.end());
    let uids: Vec<u32> = found.iter().map(|(entry, _)| entry.attributes.owner.uid).collect();
    let groups: Vec<&[u8]> = found.iter().map(|(entry, _)| &*entry.attributes.owner.group).collect();
    let times: Vec<i64> = found.iter().map(|(entry, _)| entry.attributes.mtime.seconds).collect();
    assert_eq!(uids, [5, 6, 7]);
    assert_eq!(groups, [&b"all"[..], b"", b"all"]);
    assert_eq!(times, [-2, -2, 1_700_000_000]);
}

#[test]
fn numbers_that_are_none_are_refused() {
    for (field, bytes, wanted) in [
        (SIZE, &b"-1         "[..], "its size is no number"),
        (SIZE, b"9          ", "its size is no number"),
        (SIZE, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "its size is negative"),
        (SIZE, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "its size is no number"),
        (UID, b"\xff\xff\xff\xff\xff\xff\xff\xff", "its owner is out of range"),
        (GID, b"\x80\0\0\x01\0\0\0\0", "its group is out of range"),
        (MTIME, b"yesterday   ", "its time is no number"),
    ] {
        let mut header = header(b'0', "a", 0);
        header.0[field.start..field.start + bytes.len()].copy_from_slice(bytes);
        refused(Tape::new().sealed(header), wanted);
    }
    for kind in *b"LKxgV" {
        let mut header = header(kind, "a", 0);
        header.0[SIZE].fill(0xff);
        refused(Tape::new().sealed(header).file("a", b""), "its size is negative");
    }
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut bytes = Tape::new().file("a", b"").file("b", b"").end();
    bytes[512] ^= 1;
    assert_eq!(message(&read(&bytes)), "the header at byte 512: its checksum is wrong");
    bytes[0] ^= 1;
    assert!(message(&read(&bytes)).contains("this is no tar archive"));
    assert!(message(&read(b"#!/bin/sh\necho no archive")).contains("ends within"));
    // The sum over signed bytes is one, too.
    let mut signed = header(b'0', "\u{e9}", 0);
    signed.seal();
    let sum: i64 = signed
        .0
        .iter()
        .enumerate()
        .map(|(at, byte)| if CHECKSUM.contains(&at) { 32 } else { i64::from(byte.cast_signed()) })
        .sum();
    signed.put_text(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    read_right(&Tape::new().raw(&signed.0).end());
}

#[test]
fn unknown_kinds_are_files_and_lost_contexts_are_refused() {
    let (found, summary) = read_right(&Tape::new().member(b'Q', "a", b"data").member(b'7', "b", b"x").end());
    assert_eq!((found.len(), &found[0].1[..], summary.unknown_kinds), (2, &b"data"[..], 1));
    for kind in *b"MNAEI" {
        refused(Tape::new().member(kind, "a", b"data"), "cannot be read");
    }
    let (found, _) = read_right(&Tape::new().member(b'V', "label", b"").file("a", b"").end());
    assert_eq!(found.len(), 1);
}

fn sparse_file(map: &str, count: &str, size: &str, data: &[u8]) -> Tape {
    let list = [("GNU.sparse.size", size), ("GNU.sparse.numblocks", count), ("GNU.sparse.map", map)];
    Tape::new().pax(&list).file("a", data)
}

#[test]
fn sparse_maps_that_do_not_add_up_are_refused() {
    refused(sparse_file("0,5,4,5", "2", "100", b"1234567890"), "overlaps itself");
    refused(sparse_file("50,5,0,5", "2", "100", b"1234567890"), "out of order");
    refused(sparse_file("95,10", "1", "100", b"1234567890"), "leaves the file");
    refused(sparse_file("18446744073709551615,10", "1", "100", b"1234567890"), "leaves the file");
    refused(sparse_file("0,9", "1", "100", b"1234567890"), "names 9 bytes, and 10 are there");
    refused(sparse_file("0,11", "1", "100", b"1234567890"), "names 11 bytes, and 10 are there");
    refused(sparse_file("0,10", "2", "100", b"1234567890"), "not as long as it says");
    refused(sparse_file("0,10", "1", "18446744073709551615", b"1234567890"), "out of range");
    refused(Tape::new().pax(&[("GNU.sparse.name", "x")]).file("a", b""), "does not say how long");
    let new = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")];
    refused(Tape::new().pax(&new).member(b'5', "a/", b""), "which only a file has");
    refused(Tape::new().pax(&new).file("a", b"1\n0\n"), "longer than the data");
    refused(Tape::new().pax(&new).file("a", &[b'1'; 512]), "is no number");
    let huge = [b"1048577\n".to_vec(), vec![0; 504]].concat();
    refused(Tape::new().pax(&new).file("a", &huge), "more than 1048576 extents");
    refused(Tape::new().member(b'S', "a", b""), "an archive of another kind");
    let mut old = gnu_header(b'S', "a", 10);
    old.0[386..398].copy_from_slice(b"00000000000\0");
    old.0[398..410].copy_from_slice(b"00000000013\0");
    old.0[483..495].copy_from_slice(b"00000000144\0");
    refused(Tape::new().sealed(old.clone()).data(b"1234567890"), "names 11 bytes, and 10 are there");
    old.0[398..410].fill(0xff);
    refused(Tape::new().sealed(old).data(b"1234567890"), "is negative");
}

#[test]
fn a_sparse_map_without_end_is_refused_before_it_fills_memory() {
    let mut old = gnu_header(b'S', "a", 0);
    old.0[483..495].copy_from_slice(b"00000000144\0");
    old.0[482] = 1;
    let mut block = [b'0'; 512];
    block[504] = 1;
    let mut tape = Tape::new().sealed(old);
    for pair in block[..504].chunks_exact_mut(12) {
        pair[11] = 0;
    }
    for _ in 0..50_000 {
        tape = tape.raw(&block);
    }
    refused(tape, "more than 1048576 extents");
    // A million that are right are read.
    let count = 1_000_000;
    let mut lines = format!("{count}\n");
    for at in 0..count {
        lines.push_str(&format!("{}\n1\n", at * 2));
    }
    let mut data = lines.into_bytes();
    data.resize(data.len().next_multiple_of(512) + count, b'x');
    let new = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "2000000")];
    let bytes = Tape::new().pax(&new).file("a", &data).end();
    let (found, _) = read_right(&bytes);
    let EntryKind::File { extents: Some(extents), size: 2_000_000, .. } = &found[0].0.kind else { panic!() };
    assert_eq!((extents.len(), found[0].1.len()), (count, count));
    assert!(read_untrusted(&bytes).is_err());
}

#[test]
fn limits_stop_what_has_no_end() {
    let limits = ArchiveLimits {
        max_entries: 3,
        max_bytes: 100,
        max_path_bytes: 20,
        max_metadata_bytes: 64,
        max_depth: 3,
    };
    let stopped = |tape: Tape, wanted: &str| {
        let outcome = read_with(&tape.end()[..], limits);
        assert!(message(&outcome).contains(wanted), "{}", message(&outcome));
        let Err(error @ ArchiveError::Limit { .. }) = outcome.1 else { panic!("{:?}", outcome.1) };
        assert_eq!(error.kind(), ErrorKind::Limit);
    };
    let many = |tape: &dyn Fn(Tape) -> Tape| (0..4).fold(Tape::new(), |all, _| tape(all));
    stopped(many(&|tape| tape.file("a", b"")), "more than 3 entries");
    stopped(many(&|tape| tape.member(b'g', "g", b"")), "more than 3 entries");
    stopped(many(&|tape| tape.member(b'V', "v", b"")), "more than 3 entries");
    stopped(many(&|tape| tape.link(b'1', "a", "a")), "more than 3 entries");
    stopped(Tape::new().file("a", &[0; 60]).file("b", &[0; 60]), "`b`: more than 100 bytes of data");
    stopped(Tape::new().pax(&[("size", "101")]).file("a", b""), "more than 100 bytes of data");
    stopped(Tape::new().file("a/b/c/d", b""), "more than 3 directories");
    stopped(Tape::new().file("aaaaaaaaaaaaaaaaaaaaa", b""), "more than 20 bytes in a name");
    stopped(Tape::new().pax(&[("comment", &"x".repeat(100))]).file("a", b""), "more than 64 bytes of names");
    // The size is looked at before anything is read or made room for.
    for kind in *b"xgLK" {
        stopped(Tape::new().sealed(header(kind, "a", 0o777_7777_7777)), "bytes of names and attributes");
    }
    let some = |n: u32| records(&[(&format!("k{n}"), &"v".repeat(20))]);
    stopped(
        Tape::new()
            .member(b'g', "g", &some(1))
            .member(b'g', "g", &some(2))
            .member(b'g', "g", &some(3))
            .file("a", b""),
        "bytes of",
    );
}

#[test]
fn a_link_to_itself_is_left_out_and_counted() {
    let (found, summary) =
        read_right(&Tape::new().file("a", b"x").link(b'1', "./a", "a").file("b", b"").end());
    assert_eq!((found.len(), summary.self_links), (2, 1));
}

#[test]
fn old_headers_and_every_prefix_are_read() {
    let mut old = header(b'\0', "old", 1);
    old.0[257..].fill(0);
    old.put_text(265..297, b"no name");
    let mut directory = header(b'\0', "dir/", 0);
    directory.0[257..].fill(0);
    let mut posix = header(b'0', "name", 0);
    posix.put_text(345..500, "p/".repeat(77).as_bytes());
    let mut star = header(b'0', "name", 0);
    star.put_text(345..476, b"star");
    star.put_text(476..488, b"12345670123 ");
    star.put_text(508..512, b"tar\0");
    let mut gnu = gnu_header(b'0', "name", 0);
    gnu.put_text(345..357, b"12345670123 ");
    let mut full = header(b'0', "", 0);
    full.put_text(NAME, "n".repeat(100).as_bytes());
    let tape = Tape::new()
        .sealed(old)
        .data(b"x")
        .sealed(directory)
        .sealed(posix)
        .sealed(star)
        .sealed(gnu)
        .sealed(full);
    let (found, _) = read_right(&tape.end());
    let names: Vec<String> = found.iter().map(|(entry, _)| entry.path.to_string()).collect();
    assert_eq!(names[..2], ["old", "dir"]);
    assert_eq!(names[2], format!("{}name", "p/".repeat(77)));
    assert_eq!(names[3..5], ["star/name", "name"]);
    assert_eq!(names[5].len(), 100);
    assert_eq!((&*found[0].0.attributes.owner.user, &found[1].0.kind), (&b""[..], &EntryKind::Directory));
}

#[test]
fn acls_keep_names_with_numbers_and_count_the_others() {
    let text =
        "user::rwx\nuser:joe:r-x:1001\nuser:ann:rwx\nuser:owner:r--\ngroup::r-x\nmask::rwx\nother::---\n";
    let tape =
        Tape::new().pax(&[("SCHILY.acl.access", text), ("uname", "owner"), ("uid", "9")]).file("a", b"");
    let tape = tape.pax(&[("SCHILY.acl.access", "user::rw-,group::r--,other::r--")]).file("b", b"");
    let (found, summary) = read_right(&tape.end());
    assert_eq!(summary.unknown_acl_names, 1);
    let [acl] = &found[0].0.attributes.xattrs[..] else { panic!() };
    assert_eq!(&*acl.name, b"system.posix_acl_access");
    let text = crate::workspace::archive::acl::acl_to_text(&acl.value).unwrap();
    assert_eq!(text, "user::rwx,user:1001:r-x,user:9:r--,group::r-x,mask::rwx,other::---");
    assert!(found[1].0.attributes.xattrs.is_empty());
}
