//! What is written is what is read.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::tape::{read, read_right};
use crate::store::{Attributes, Content, Entry, EntryKind, EntryOwner, EntryPath, Extent, FileTime, Xattr};
use crate::workspace::archive::acl::{acl_from_text, acl_permissions};
use crate::workspace::archive::{ArchiveWriter, read_untrusted};

pub(super) fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new());
    for (entry, data) in entries {
        match entry.kind {
            EntryKind::File { .. } => writer.append_file(entry, &mut &data[..]).unwrap(),
            _ => writer.append_plain(entry).unwrap(),
        }
    }
    writer.finish().unwrap()
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{1,12}".prop_map(String::into_bytes),
        "[a-z =%:,\n]{1,40}".prop_map(String::into_bytes),
        "\\PC{1,20}".prop_map(String::into_bytes),
        vec(1_u8..=255, 1..255),
        (1_usize..=255).prop_map(|length| vec![b'n'; length]),
    ]
    .prop_map(|mut name| {
        name.retain(|byte| !matches!(byte, 0 | b'/'));
        name.truncate(255);
        if name.is_empty() || name == b"." || name == b".." { b"x".to_vec() } else { name }
    })
}

fn path() -> impl Strategy<Value = EntryPath> {
    vec(name(), 1..6).prop_map(|parts| EntryPath::new(parts.join(&b'/')).unwrap())
}

fn owner_name() -> impl Strategy<Value = Box<[u8]>> {
    prop_oneof![Just(Vec::new()), name(), Just(vec![b'u'; 31]), Just(vec![b'u'; 32])]
        .prop_map(Vec::into_boxed_slice)
}

fn acl() -> impl Strategy<Value = Vec<u8>> {
    (vec((any::<bool>(), 0_u16..8, 0_u32..u32::MAX), 1..6), 0_u16..8).prop_map(|(named, mask)| {
        let mut text = format!("user::6,group::4,other::0,mask::{mask}");
        for (user, permissions, id) in named {
            let tag = if user { "user" } else { "group" };
            text.push_str(&format!(",{tag}:{id}:{permissions}"));
        }
        acl_from_text(text.as_bytes(), &|_| None).unwrap().binary
    })
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let value = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 900..1100)];
    let plain = name().prop_map(|name| [b"user.", &name[..]].concat());
    let acls = btree_map(
        prop_oneof![Just(b"system.posix_acl_access".to_vec()), Just(b"system.posix_acl_default".to_vec())],
        prop_oneof![acl(), vec(any::<u8>(), 0..30)],
        0..2,
    );
    (btree_map(plain, value, 0..4), acls).prop_map(|(mut all, acls)| {
        all.extend(acls);
        all.into_iter().map(|(name, value)| Xattr { name: name.into(), value: value.into() }).collect()
    })
}

fn time() -> impl Strategy<Value = FileTime> {
    let seconds =
        prop_oneof![0..2_000_000_000_i64, any::<i64>(), -5..5_i64, 8_589_934_590..8_589_934_593_i64];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000_u32, Just(999_999_999)];
    (seconds, nanoseconds).prop_map(|(seconds, nanoseconds)| FileTime { seconds, nanoseconds })
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![0..2000_u32, any::<u32>(), 2_097_150..2_097_153_u32]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (0_u16..0o10000, id(), id(), owner_name(), owner_name(), time(), xattrs()).prop_map(
        |(mut mode, uid, gid, user, group, mtime, xattrs)| {
            // No file has an ACL that says something else than its mode.
            let acl = xattrs.iter().find(|xattr| *xattr.name == *b"system.posix_acl_access");
            if let Some(permissions) = acl.and_then(|acl| acl_permissions(&acl.value)) {
                mode = mode & 0o7000 | permissions;
            }
            Attributes { mode, owner: EntryOwner { uid, gid, user, group }, mtime, xattrs }
        },
    )
}

/// Extents with gaps of at least a byte, and the size of their file.
fn extents() -> impl Strategy<Value = (Vec<Extent>, u64)> {
    let gap = prop_oneof![1_u64..10_000, 1_u64..1 << 40];
    (vec((gap.clone(), 1_u64..600), 0..40), gap, any::<bool>()).prop_map(|(runs, tail, at_start)| {
        let mut end = 0;
        let mut extents = Vec::new();
        for (number, (gap, length)) in runs.into_iter().enumerate() {
            let offset = if number == 0 && at_start { 0 } else { end + gap };
            extents.push(Extent { offset, length });
            end = offset + length;
        }
        let whole = extents.len() == 1 && extents[0].offset == 0 || extents.is_empty();
        (extents, end + if whole { tail } else { tail % 2 * tail })
    })
}

fn kind() -> impl Strategy<Value = (EntryKind, Vec<u8>)> {
    let plain = |kind| (kind, Vec::new());
    prop_oneof![
        3 => vec(any::<u8>(), 0..1500).prop_map(|data| {
            let size = data.len() as u64;
            (EntryKind::File { size, content: Content::default(), extents: None }, data)
        }),
        2 => extents().prop_map(|(extents, size)| {
            let length: u64 = extents.iter().map(|extent| extent.length).sum();
            let data = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            (EntryKind::File { size, content: Content::default(), extents: Some(extents) }, data)
        }),
        1 => Just(plain(EntryKind::Directory)),
        1 => Just(plain(EntryKind::Fifo)),
        1 => prop_oneof![vec(1_u8..=255, 1..300), "[a-z/.]{1,120}".prop_map(String::into_bytes)]
            .prop_map(move |target| plain(EntryKind::Symlink { target: target.into() })),
        1 => path().prop_map(move |target| plain(EntryKind::HardLink { target })),
        1 => (any::<u32>(), any::<u32>()).prop_map(move |(major, minor)| plain(EntryKind::CharDevice { major, minor })),
        1 => (0..300_u32, 0..1_048_576_u32).prop_map(move |(major, minor)| plain(EntryKind::BlockDevice { major, minor })),
    ]
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    (path(), kind(), attributes()).prop_filter_map("a link to itself", |(path, (kind, data), attributes)| {
        let to_itself = matches!(&kind, EntryKind::HardLink { target } if *target == path);
        (!to_itself).then_some((Entry { path, kind, attributes }, data))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_and_written_the_same_again(entries in vec(entry(), 0..8), root in attributes()) {
        let root = Entry { path: EntryPath::root(), kind: EntryKind::Directory, attributes: root };
        let all: Vec<(Entry, Vec<u8>)> = std::iter::once((root, Vec::new())).chain(entries).collect();
        let bytes = written(&all);
        let (found, _) = read_right(&bytes);
        prop_assert_eq!(&found, &all);
        prop_assert_eq!(written(&found), bytes);
    }

    #[test]
    fn a_changed_byte_never_panics_or_hangs(
        entries in vec(entry(), 1..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = written(&entries);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
            // With a checksum that fits, what comes after it is reached.
            let block = at / 512 * 512;
            let mut header = crate::workspace::archive::header::Header(bytes[block..block + 512].try_into().unwrap());
            if bytes[block + 257..].starts_with(b"ustar") {
                header.seal();
                bytes[block..block + 512].copy_from_slice(&header.0);
            }
        }
        let cut = cut.index(bytes.len());
        for bytes in [&bytes[..], &bytes[..cut]] {
            drop(read_untrusted(bytes));
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in vec(any::<u8>(), 0..3000)) {
        drop(read_untrusted(&bytes));
        drop(read_untrusted(&[&b"\x1f\x8b\x08\0"[..], &bytes].concat()));
        drop(read_untrusted(&[&b"\x28\xb5\x2f\xfd"[..], &bytes].concat()));
    }
}

fn file(size: u64, extents: Option<Vec<Extent>>) -> Entry {
    Entry {
        path: EntryPath::new(&b"file"[..]).unwrap(),
        kind: EntryKind::File { size, content: Content::default(), extents },
        attributes: Attributes::default(),
    }
}

#[test]
fn what_a_header_can_say_needs_no_records() {
    let entries = [(file(5, None), b"12345".to_vec())];
    let bytes = written(&entries);
    assert_eq!(bytes.len(), 512 + 512 + 1024);
    assert_eq!(bytes[156], b'0');
    assert_eq!(read(&bytes).0, entries);
}

#[test]
fn sockets_are_left_out_and_counted() {
    let mut writer = ArchiveWriter::new(Vec::new());
    writer.append_plain(&Entry { kind: EntryKind::Socket, ..file(0, None) }).unwrap();
    assert_eq!(writer.sockets(), 1);
    assert_eq!(writer.finish().unwrap(), [0; 1024]);
}

#[test]
fn a_writer_refuses_what_it_could_not_read_back() {
    let attempt = |entry: &Entry| ArchiveWriter::new(Vec::new()).append_plain(entry).unwrap_err().to_string();
    let base = file(0, None);
    for (kind, wanted) in [
        (EntryKind::Symlink { target: Box::default() }, "a target that is none"),
        (EntryKind::Symlink { target: (*b"a\0b").into() }, "a target that is none"),
        (EntryKind::HardLink { target: EntryPath::root() }, "a target that is none"),
    ] {
        assert!(attempt(&Entry { kind, ..base.clone() }).contains(wanted));
    }
    let fifo_root = Entry { path: EntryPath::root(), kind: EntryKind::Fifo, ..base.clone() };
    assert!(attempt(&fifo_root).contains("is no directory"));
    let extent = |offset, length| Extent { offset, length };
    for wrong in [
        vec![extent(0, 0)],
        vec![extent(0, 5), extent(5, 5)],
        vec![extent(5, 5), extent(0, 1)],
        vec![extent(95, 6)],
        vec![extent(u64::MAX, 1)],
    ] {
        let mut writer = ArchiveWriter::new(Vec::new());
        assert!(writer.begin_file(&file(100, Some(wrong))).unwrap_err().to_string().contains("extents"));
    }
    let mut writer = ArchiveWriter::new(Vec::new());
    assert!(writer.write_data(b"x").is_err() && writer.end_file().is_err());
    writer.begin_file(&file(5, None)).unwrap();
    assert!(writer.write_data(b"123456").unwrap_err().to_string().contains("more data"));
    assert!(writer.begin_file(&base).unwrap_err().to_string().contains("still open"));
    assert!(writer.append_plain(&base).unwrap_err().to_string().contains("still open"));
    writer.write_data(b"1234").unwrap();
    assert!(writer.end_file().unwrap_err().to_string().contains("1 bytes"));
    let mut writer = ArchiveWriter::new(Vec::new());
    writer.begin_file(&file(5, None)).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("still open"));
}
