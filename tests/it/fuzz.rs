//! The corpora of the fuzz targets as ordinary tests, and what they are made of.
//!
//! `KILN_UPDATE=1` writes anew what can be made here; what a fuzzer found, or another program wrote, stays.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use kiln::base::{ChunkId, SessionId, Sha256Digest};
use kiln::store::frame::{Codec, FrameBuilder};
use kiln::store::manifest::{ManifestWriter, encode_content};
use kiln::store::pack::{PackInfo, PackKind, PackName, PackTable, TableFrame, WrittenName};
use kiln::store::revision::{Revision, RevisionCounts};
use kiln::store::segment::{self, Location};
use kiln::store::wire::{put_number, put_run};
use kiln::store::{
    Attributes, ChunkRef, Content, Entry, EntryKind, EntryOwner, EntryPath, Extent, FileTime, Xattr,
};
use kiln::workspace::archive::{ArchiveFormat, ArchiveWriter};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the functions of the fuzz targets, which are a crate of their own")]
mod properties;

type Property = fn(&[u8]);

const TARGETS: [(&str, Property); 8] = [
    ("archive", properties::archive),
    ("manifest", properties::manifest),
    ("list", properties::list),
    ("pack", properties::pack),
    ("frame", properties::frame),
    ("segment", properties::segment),
    ("record", properties::record),
    ("patterns", properties::patterns),
];

/// Changes of every input that are tried: enough to notice at once when a check is lost, and done in seconds.
const CHANGES: usize = 60;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(update);
    let folder = Path::new("tests/fixtures/fuzz").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    if target == "archive" {
        paths.extend(fs::read_dir("tests/fixtures/archives").unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Changes bytes as a fuzzer does: bits, bytes, numbers at their limits, cuts, and parts of the input doubled or left out.
fn change(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    const LIMITS: [&[u8]; 6] = [
        &[0; 4],
        &[0xff; 4],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0xff; 8],
        &[0x80; 10],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
    ];
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
        let at = random.usize(..bytes.len());
        let end = (at + random.usize(1..64)).min(bytes.len());
        match random.u8(..7) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, part);
            }
            5 => {
                let limit = random.choice(LIMITS).unwrap();
                let end = (at + limit.len()).min(bytes.len());
                bytes.splice(at..end, limit.iter().copied());
            }
            _ => bytes[at..end].fill(random.u8(..)),
        }
    }
}

#[test]
fn every_input_of_the_corpora_leaves_its_reader_standing() {
    for (target, property) in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() >= 3, "{target} has no corpus");
        for (_path, bytes) in corpus {
            property(&bytes);
        }
    }
}

#[test]
fn changed_inputs_leave_their_readers_standing() {
    for (target, property) in TARGETS {
        for (path, bytes) in corpus(target) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let mut random = fastrand::Rng::with_seed(ChunkId::of(name.as_bytes()).head());
            for change_number in 0..CHANGES {
                let mut bytes = bytes.clone();
                change(&mut random, &mut bytes);
                let outcome = std::panic::catch_unwind(|| property(&bytes));
                assert!(
                    outcome.is_ok(),
                    "{target}: change {change_number} of {}: {}",
                    path.display(),
                    bytes.escape_ascii()
                );
            }
        }
    }
}

/// What is read as valid has to be so: a corpus of nothing but refused inputs would test the first check only.
#[test]
fn the_valid_inputs_are_valid() {
    let read = |target: &str, name: &str| {
        fs::read(Path::new("tests/fixtures/fuzz").join(target).join(name)).unwrap()
    };
    assert!(kiln::workspace::archive::read_untrusted(&read("archive", "all-kinds.tar.zst")).is_ok());
    assert_eq!(kiln::store::manifest::decode_chunk(&read("manifest", "all-kinds")).unwrap(), entries());
    assert!(kiln::store::manifest::decode_list(&read("list", "level-1")).is_ok());
    assert!(PackTable::parse(&read("pack", "two-frames")).is_ok());
    assert!(segment::Segment::open(&read("segment", "seventy-rows")).is_ok());
    assert_eq!(Revision::decode(&read("record", "all-fields")).unwrap(), revision());
    for hostile in ["no-filter", "fences-out-of-order", "frame-too-long"] {
        let open = segment::Segment::open(&read("segment", hostile));
        let read = open.and_then(|open| open.for_each(&mut |_, _| {}));
        assert!(read.is_err(), "{hostile}");
    }
    assert!(Revision::decode(&read("record", "version-0")).is_err());
    assert!(Revision::decode(&read("record", "empty-chunk")).is_err());
}

fn update() {
    if std::env::var_os("KILN_UPDATE").is_none() {
        return;
    }
    for (target, name, bytes) in inputs() {
        let folder = Path::new("tests/fixtures/fuzz").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn inputs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    all.extend(archives().into_iter().map(|(name, bytes)| ("archive", name, bytes)));
    all.extend(manifests().into_iter().map(|(name, bytes)| ("manifest", name, bytes)));
    all.extend(lists().into_iter().map(|(name, bytes)| ("list", name, bytes)));
    all.extend(packs().into_iter().map(|(name, bytes)| ("pack", name, bytes)));
    all.extend(frames().into_iter().map(|(name, bytes)| ("frame", name, bytes)));
    all.extend(segments().into_iter().map(|(name, bytes)| ("segment", name, bytes)));
    all.extend(records().into_iter().map(|(name, bytes)| ("record", name, bytes)));
    for (name, text) in [
        ("plain", "a/b.log\n*.log\n!keep.log\n/a/**\n"),
        ("classes", "a/[x]\n[a-z]/\\[x\\]\n[!a]\n[[]\n"),
        ("nested", "a/a/a/a/a/a/a/a\n**/**/**/**/a\n{a,{b,{c,{d,e}}}}\n"),
        ("broken", "a\n[\n{a\n\\\n"),
    ] {
        all.push(("patterns", name, text.as_bytes().to_vec()));
    }
    all
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes()).unwrap()
}

fn reference(n: u8, length: u32) -> ChunkRef {
    ChunkRef { id: ChunkId::of(&[n]), length }
}

/// One entry of each kind, sorted, with everything that an entry can say.
fn entries() -> Vec<Entry> {
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.as_bytes().into(), value: value.into() };
    let file = |size, refs, extents| EntryKind::File { size, content: Content { level: 0, refs }, extents };
    let extents = vec![Extent { offset: 4096, length: 10 }, Extent { offset: 1 << 20, length: 6 }];
    let kinds = vec![
        ("", EntryKind::Directory),
        ("block", EntryKind::BlockDevice { major: 8, minor: 1 }),
        ("char", EntryKind::CharDevice { major: 1, minor: 3 }),
        ("dir", EntryKind::Directory),
        ("dir/empty", file(0, vec![], None)),
        ("dir/file", file(11, vec![reference(1, 5), reference(2, 6)], None)),
        ("dir/sparse", file(2 << 20, vec![reference(3, 16)], Some(extents))),
        ("fifo", EntryKind::Fifo),
        ("hard", EntryKind::HardLink { target: path("dir/file") }),
        ("soft", EntryKind::Symlink { target: b"../\xff".as_slice().into() }),
    ];
    let owner = EntryOwner {
        uid: 1000,
        gid: 100,
        user: b"user".as_slice().into(),
        group: b"users".as_slice().into(),
    };
    let entry = |(name, kind)| {
        let is_file = matches!(kind, EntryKind::File { .. });
        let xattrs = if is_file { vec![xattr("user.a", b""), xattr("user.b", b"\0=\n")] } else { Vec::new() };
        let mtime = FileTime { seconds: if is_file { -1 } else { 1_700_000_000 }, nanoseconds: 999_999_999 };
        let owner = if is_file { owner.clone() } else { EntryOwner::default() };
        Entry { path: path(name), kind, attributes: Attributes { mode: 0o4755, owner, mtime, xattrs } }
    };
    kinds.into_iter().map(entry).collect()
}

fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let plain = archive_of(ArchiveFormat::Tar);
    let mut huge = plain.clone();
    // The size of the first header, and a checksum that fits.
    huge[124..136].copy_from_slice(b"77777777777\0");
    seal(&mut huge);
    let mut binary = plain.clone();
    binary[124..136].copy_from_slice(&[0xff; 12]);
    seal(&mut binary);
    let zeros = vec![0; 1 << 20];
    vec![
        ("all-kinds.tar", plain.clone()),
        ("all-kinds.tar.gz", archive_of(ArchiveFormat::TarGz)),
        ("all-kinds.tar.zst", archive_of(ArchiveFormat::TarZst)),
        ("cut-in-a-header.tar", plain[..700].to_vec()),
        ("size-too-large.tar", huge[..1024].to_vec()),
        ("size-negative.tar", binary[..1024].to_vec()),
        ("zeros.tar.zst", zstd(&zeros)),
        ("empty.tar", vec![0; 1024]),
    ]
}

fn seal(archive: &mut [u8]) {
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn archive_of(format: ArchiveFormat) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(format.wrap(Vec::new(), None).unwrap());
    for entry in entries() {
        match &entry.kind {
            EntryKind::File { content, .. } => {
                let length: u32 = content.refs.iter().map(|reference| reference.length).sum();
                writer.append_file(&entry, &mut &b"0123456789abcdef"[..length as usize]).unwrap();
            }
            _ => writer.append_plain(&entry).unwrap(),
        }
    }
    writer.finish().unwrap().finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut sink = ArchiveFormat::TarZst.wrap(Vec::new(), None).unwrap();
    sink.write_all(bytes).unwrap();
    sink.finish().unwrap()
}

fn manifest_of(entries: &[Entry]) -> Vec<u8> {
    let mut writer = ManifestWriter::new();
    let cut = entries.iter().find_map(|entry| writer.push(entry));
    cut.or_else(|| writer.finish()).unwrap()
}

fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    let valid = manifest_of(&entries());
    // A long path, and then ten bytes an entry that share it.
    let mut shares = manifest_of(&[Entry {
        path: EntryPath::new([&b"d/".repeat(4_000)[..], b"a"].concat()).unwrap(),
        kind: EntryKind::Fifo,
        attributes: Attributes::default(),
    }]);
    for n in 0..600_u32 {
        put_number(&mut shares, 8_000);
        put_run(&mut shares, format!("b{n:04}").as_bytes());
        shares.extend_from_slice(&[0x16, 0, 0, 0]);
    }
    let mut many = vec![1];
    put_number(&mut many, 0);
    put_run(&mut many, b"file");
    many.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    put_number(&mut many, 5);
    many.push(0);
    put_number(&mut many, u64::MAX);
    vec![
        ("all-kinds", valid.clone()),
        ("one", manifest_of(&entries()[..1])),
        ("cut", valid[..valid.len() / 2].to_vec()),
        ("twice", [&valid[..], &valid[1..]].concat()),
        ("shared-paths", shares),
        ("too-many-references", many),
        ("newer", [&[2], &valid[1..]].concat()),
    ]
}

fn lists() -> Vec<(&'static str, Vec<u8>)> {
    let list = |level, refs| {
        let mut bytes = vec![0x81];
        encode_content(&mut bytes, &Content { level, refs });
        bytes
    };
    let mut too_many = vec![0x81, 0];
    put_number(&mut too_many, u64::MAX);
    vec![
        ("level-0", list(0, (0..40).map(|n| reference(n, 65_536)).collect())),
        ("level-1", list(1, (0..4).map(|n| reference(n, 9_000)).collect())),
        ("level-7", list(7, vec![reference(0, 1)])),
        ("empty-chunk", list(0, vec![reference(0, 0)])),
        ("long-chunk", list(0, vec![reference(0, u32::MAX)])),
        ("too-many", too_many),
    ]
}

fn session() -> SessionId {
    SessionId::from_bytes([7; 16])
}

fn table() -> PackTable {
    let frame = |offset, stored_length, codec, chunks: &[(u8, u32)]| TableFrame {
        offset,
        stored_length,
        codec,
        raw_length: chunks.iter().map(|(_, length)| length).sum(),
        chunks: chunks.iter().map(|(n, length)| (ChunkId::of(&[*n]), *length)).collect(),
    };
    PackTable {
        frames: vec![
            frame(16, 100, Codec::Zstd, &[(1, 4_000), (2, 5_000)]),
            frame(116, 700, Codec::Raw, &[(3, 300), (4, 400)]),
        ],
    }
}

/// The corpus holds whole tails, and tables alone, which get a trailer that fits before they are read.
fn packs() -> Vec<(&'static str, Vec<u8>)> {
    let tail = table().to_tail();
    let body = tail[..tail.len() - 48].to_vec();
    let mut wraps = body.clone();
    let length_of_second = 4 + 9 + 2 * 36 + 9 + 32;
    wraps[length_of_second..length_of_second + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let empty_frames = [&200_u32.to_le_bytes()[..], &[0; 1_800]].concat();
    let mut header = b"KILNPACK".to_vec();
    header.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0]);
    let many = [&u32::MAX.to_le_bytes()[..], &[0; 20]].concat();
    vec![
        ("two-frames", tail.clone()),
        ("table-alone", body),
        ("trailer-alone", tail[tail.len() - 48..].to_vec()),
        ("header", header),
        ("lengths-that-wrap", wraps),
        ("empty-frames", empty_frames),
        ("too-many-frames", many),
        ("none", PackTable::default().to_tail()),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let chunks = [b"text ".repeat(300), b"other text ".repeat(300)];
    let (mut builder, mut stored) = (FrameBuilder::new(3).unwrap(), Vec::new());
    for chunk in &chunks {
        builder.add(ChunkId::of(chunk), chunk, &mut |frame| stored.push(frame.stored)).unwrap();
    }
    builder.finish(&mut |frame| stored.push(frame.stored)).unwrap();
    let stored = stored.pop().unwrap();
    let coded = |stored: &[u8]| [&[1], stored].concat();
    // Frames of RFC 8878 by hand: magic, descriptor (single segment, size of eight bytes), size, a block of one byte repeated.
    let says = |size: u64, block: u32| {
        let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&(1 | 1 << 1 | block << 3).to_le_bytes()[..3]);
        bytes.push(b'x');
        coded(&bytes)
    };
    vec![
        ("text", coded(&stored)),
        ("raw", [&[0], &chunks[0][..100]].concat()),
        ("twice", coded(&stored.repeat(2))),
        ("cut", coded(&stored[..stored.len() / 2])),
        ("run", says(1_000, 1_000)),
        ("says-too-much", says(u64::MAX, 1_000)),
        ("says-too-little", says(10, 1_000)),
        ("says-more-than-it-holds", says(8 << 20, 1_000)),
        ("skippable", coded(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4])),
    ]
}

fn pack_infos() -> Vec<PackInfo> {
    let name = |number| WrittenName { session: session(), number, digest: [9; 8] };
    [(PackKind::Data, 0), (PackKind::Meta, 1)]
        .map(|(kind, number)| PackInfo {
            pack: PackName { kind, name: name(number) },
            size: 1 << 20,
            table_length: 999,
        })
        .to_vec()
}

fn segments() -> Vec<(&'static str, Vec<u8>)> {
    let row = |n: u8| {
        let place = u32::from(n);
        let codec = if n.is_multiple_of(2) { Codec::Raw } else { Codec::Zstd };
        let location = Location {
            pack: place % 2,
            frame_offset: 16 + place,
            frame_length: 500,
            codec,
            offset: 0,
            length: 9,
        };
        (ChunkId::of(&[n]), location)
    };
    let of = |rows: Vec<(ChunkId, Location)>| segment::encode(&pack_infos(), rows);
    let valid = of((0..70).map(row).collect());
    // Header, packs; then the filter and two fences.
    let (filter, length) = (60 + 2 * 41, (70_usize * 10).div_ceil(8));
    let mut no_filter = valid.clone();
    no_filter.drain(filter..filter + length);
    no_filter[24..28].fill(0);
    let mut fences = valid.clone();
    fences[filter + length..filter + length + 16].rotate_left(8);
    let mut too_many = valid.clone();
    too_many[12..28].fill(0xff);
    let mut long = row(1);
    long.1.frame_length = 1 << 30;
    let mut elsewhere = row(1);
    elsewhere.1.pack = 7;
    vec![
        ("seventy-rows", valid),
        ("no-rows", of(Vec::new())),
        ("no-filter", resealed(no_filter)),
        ("fences-out-of-order", resealed(fences)),
        ("too-many-packs", resealed(too_many)),
        ("frame-too-long", of(vec![long])),
        ("pack-that-is-not-listed", of(vec![elsewhere])),
    ]
}

/// Makes both digests of a segment fit: that of the head, which lies in it, and that of all of it.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
    let head = 60_usize.saturating_add(number(12) * 41 + number(24) + number(16).div_ceil(64) * 8);
    if let Some(behind) = bytes.get(60..head) {
        let digest = Sha256Digest::of(&[&bytes[..28], behind].concat());
        bytes[28..60].copy_from_slice(digest.as_bytes());
    }
    let end = bytes.len() - 32;
    let digest = Sha256Digest::of(&bytes[..end]);
    bytes[end..].copy_from_slice(digest.as_bytes());
    bytes
}

fn revision() -> Revision {
    Revision {
        id: "00000000000000000000000001".parse().unwrap(),
        workspace: "some-workspace".parse().unwrap(),
        session: session(),
        parent: Some("00000000000000000000000000".parse().unwrap()),
        created: "2026-01-02T03:04:05.678901234Z".parse().unwrap(),
        source: "directory /work\n\u{1b}[31m".to_owned(),
        labels: BTreeMap::from([("branch".to_owned(), "main".to_owned()), (String::new(), "\"".to_owned())]),
        counts: RevisionCounts { entries: 4, files: 2, directories: 1, bytes: u64::MAX, data_bytes: 7 },
        unsettled: 1,
        manifest: Content { level: 1, refs: vec![reference(1, 9_000), reference(2, 1)] },
        packs: pack_infos(),
    }
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let valid = revision().encode().unwrap();
    let text = String::from_utf8(valid.clone()).unwrap();
    let line = text.find('\n').unwrap();
    // The function under test puts a heading that fits before what follows the first line.
    let body = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to).into_bytes()
    };
    let nested = format!("{}\n{}\n", &text[..line], "[".repeat(2_000));
    let mut empty_chunk = revision();
    empty_chunk.manifest.refs[0].length = 0;
    vec![
        ("all-fields", valid.clone()),
        ("version-0", body("\"version\":1", "\"version\":0")),
        ("version-2", body("\"version\":1", "\"version\":2")),
        ("level-7", body("\"manifest_level\":1", "\"manifest_level\":7")),
        ("empty-chunk", empty_chunk.encode().unwrap()),
        ("key-outside", body("packs/", "../packs/")),
        ("nested", nested.into_bytes()),
        ("far-future", body("2026-01-02", "9999-12-31")),
        ("cut", valid[..line].to_vec()),
    ]
}
