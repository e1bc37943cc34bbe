//! Manifests: the entries of a workspace in order, cut into chunks where the paths say so.

use std::io;

use super::content::{ChunkRef, Content};
use super::entry::{Attributes, Entry, EntryKind, EntryOwner, EntryPath, Extent, FileTime, Xattr};
use super::frame::MAX_CHUNK;
use super::wire::{Reader, broken, put_number, put_run, put_signed};
use crate::base::ChunkId;

/// No cut before a manifest chunk has this many bytes.
pub const MIN: usize = 4 << 10;
/// Bytes behind [`MIN`] after which a cut comes on average.
const AVERAGE_REST: u64 = 12 << 10;
/// A manifest chunk is closed by the entry that brings it past this many bytes.
pub const MAX: usize = 64 << 10;

/// A manifest chunk is closed by the entry that brings its paths and the names of its owners past this many bytes, each written out
/// for every entry; a reader refuses an entry behind that. Without it a few bytes that share a long path would unfold to gigabytes.
pub const MAX_UNFOLDED: usize = 4 << 20;

/// References that an entry, or a record, holds itself; more go into lists.
pub const INLINE_REFS: usize = 64;
/// A list is closed at an id that ends with nine zero bits, once it has this many references …
const LIST_MIN: usize = 64;
/// … and at this many in any case.
const LIST_MAX: usize = 2048;

const VERSION: u8 = 1;
const LIST_VERSION: u8 = 0x81;

const SAME_OWNER: u8 = 0x10;
const HAS_XATTRS: u8 = 0x20;
const HAS_EXTENTS: u8 = 0x40;

/// Puts entries into manifest chunks. The cuts depend on the paths and on the lengths of the entries since the last cut, so equal
/// runs of entries give equal chunks, whatever stands before and behind them.
#[derive(Debug, Default)]
pub struct ManifestWriter {
    chunk: Vec<u8>,
    last_path: Vec<u8>,
    last_owner: Option<EntryOwner>,
    unfolded: usize,
}

impl ManifestWriter {
    /// Makes a writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether the next entry begins a chunk.
    #[must_use]
    pub fn is_at_cut(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Appends an entry, whose path must sort behind those before it; returns a chunk where it ends one.
    pub fn push(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        if self.chunk.is_empty() {
            self.chunk.push(VERSION);
        }
        let before = self.chunk.len();
        let path = entry.path.as_bytes();
        let shared = path.iter().zip(&self.last_path).take_while(|(a, b)| a == b).count();
        put_number(&mut self.chunk, shared as u64);
        put_run(&mut self.chunk, path.get(shared..).unwrap_or_default());
        let same_owner = self.last_owner.as_ref() == Some(&entry.attributes.owner);
        encode_rest(&mut self.chunk, entry, same_owner);
        if !same_owner {
            self.last_owner = Some(entry.attributes.owner.clone());
        }
        self.last_path.clear();
        self.last_path.extend_from_slice(path);
        // The whole path counts, shared or not, so that the weight does not depend on the entry before.
        let weight = (self.chunk.len() - before + shared) as u64;
        self.unfolded = self.unfolded.saturating_add(unfolded(entry));
        let is_cut = self.chunk.len() >= MAX
            || self.unfolded >= MAX_UNFOLDED
            || self.chunk.len() >= MIN && spread(path) < (u64::MAX / AVERAGE_REST).saturating_mul(weight);
        if is_cut { Some(self.cut()) } else { None }
    }

    /// Returns the last chunk, if there is one.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.chunk.is_empty() { None } else { Some(self.cut()) }
    }

    fn cut(&mut self) -> Vec<u8> {
        self.last_path.clear();
        self.last_owner = None;
        self.unfolded = 0;
        std::mem::take(&mut self.chunk)
    }
}

/// Returns how many bytes an entry takes in memory of what may be written once for many.
fn unfolded(entry: &Entry) -> usize {
    let owner = &entry.attributes.owner;
    entry.path.as_bytes().len() + owner.user.len() + owner.group.len()
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo), and the finaliser of SplitMix64 behind it, because the test is on the high bits.
fn spread(path: &[u8]) -> u64 {
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn encode_rest(out: &mut Vec<u8>, entry: &Entry, same_owner: bool) {
    let attributes = &entry.attributes;
    let kind: u8 = match &entry.kind {
        EntryKind::Directory => 0,
        EntryKind::File { .. } => 1,
        EntryKind::Symlink { .. } => 2,
        EntryKind::HardLink { .. } => 3,
        EntryKind::CharDevice { .. } => 4,
        EntryKind::BlockDevice { .. } => 5,
        EntryKind::Fifo => 6,
        EntryKind::Socket => 7,
    };
    let mut flags = kind;
    if same_owner {
        flags |= SAME_OWNER;
    }
    if !attributes.xattrs.is_empty() {
        flags |= HAS_XATTRS;
    }
    if matches!(&entry.kind, EntryKind::File { extents: Some(_), .. }) {
        flags |= HAS_EXTENTS;
    }
    out.push(flags);
    put_number(out, u64::from(attributes.mode));
    if !same_owner {
        let EntryOwner { uid, gid, user, group } = &attributes.owner;
        put_number(out, u64::from(*uid));
        put_number(out, u64::from(*gid));
        put_run(out, user);
        put_run(out, group);
    }
    put_signed(out, attributes.mtime.seconds);
    put_number(out, u64::from(attributes.mtime.nanoseconds));
    match &entry.kind {
        EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
        EntryKind::File { size, content, extents } => {
            put_number(out, *size);
            encode_content(out, content);
            if let Some(extents) = extents {
                put_number(out, extents.len() as u64);
                let mut end = 0;
                for Extent { offset, length } in extents {
                    put_number(out, offset - end);
                    put_number(out, *length);
                    end = offset + length;
                }
            }
        }
        EntryKind::Symlink { target } => put_run(out, target),
        EntryKind::HardLink { target } => put_run(out, target.as_bytes()),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            put_number(out, u64::from(*major));
            put_number(out, u64::from(*minor));
        }
    }
    if !attributes.xattrs.is_empty() {
        put_number(out, attributes.xattrs.len() as u64);
        for Xattr { name, value } in &attributes.xattrs {
            put_run(out, name);
            put_run(out, value);
        }
    }
}

/// Writes references: level, number, and for each the id and the length.
pub fn encode_content(out: &mut Vec<u8>, content: &Content) {
    out.push(content.level);
    put_number(out, content.refs.len() as u64);
    for ChunkRef { id, length } in &content.refs {
        out.extend_from_slice(id.as_bytes());
        put_number(out, u64::from(*length));
    }
}

/// Reads references.
///
/// # Errors
///
/// Fails on bytes that are none, and on a level above [`Content::MAX_LEVEL`].
pub fn decode_content(reader: &mut Reader<'_>) -> io::Result<Content> {
    let level = reader.u8()?;
    if level > Content::MAX_LEVEL {
        return Err(broken("its lists are nested too deep"));
    }
    let count = reader.count(33)?;
    let mut refs = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, length) = (ChunkId::from_bytes(reader.array()?), reader.small()?);
        refs.push(ChunkRef { id, length });
    }
    let content = Content { level, refs };
    check_lengths(&content)?;
    Ok(content)
}

/// Checks that every reference of a content is to a chunk that a writer makes: neither empty nor longer than [`MAX_CHUNK`].
pub(super) fn check_lengths(content: &Content) -> io::Result<()> {
    let lengths = || content.refs.iter().map(|reference| reference.length as usize);
    if lengths().any(|length| length > MAX_CHUNK) {
        return Err(broken("a chunk is too long"));
    }
    if lengths().any(|length| length == 0) {
        return Err(broken("a chunk is empty"));
    }
    Ok(())
}

/// Makes a content of references to chunks: as they are where they are few, else through lists, which `store` puts somewhere.
///
/// # Errors
///
/// Whatever `store` reports.
pub fn content_of<E>(
    refs: Vec<ChunkRef>,
    store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkRef, E>,
) -> Result<Content, E> {
    let mut content = Content { level: 0, refs };
    while content.refs.len() > INLINE_REFS {
        let (mut above, mut list) = (Vec::new(), Vec::new());
        for reference in std::mem::take(&mut content.refs) {
            let ends = list.len() + 1 >= LIST_MIN && reference.id.head() % 512 == 0;
            list.push(reference);
            if ends || list.len() >= LIST_MAX {
                above.push(store(encode_list(content.level, &mut list))?);
            }
        }
        if !list.is_empty() {
            above.push(store(encode_list(content.level, &mut list))?);
        }
        content = Content { level: content.level + 1, refs: above };
    }
    Ok(content)
}

fn encode_list(level: u8, list: &mut Vec<ChunkRef>) -> Vec<u8> {
    let content = Content { level, refs: std::mem::take(list) };
    let mut out = vec![LIST_VERSION];
    encode_content(&mut out, &content);
    out
}

/// Reads a list of references.
///
/// # Errors
///
/// Fails on bytes that are none.
pub fn decode_list(bytes: &[u8]) -> io::Result<Content> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != LIST_VERSION {
        return Err(broken("it is not a list of references that this version knows"));
    }
    let content = decode_content(&mut reader)?;
    if reader.is_empty() { Ok(content) } else { Err(broken("there is more than was announced")) }
}

/// Reads a manifest chunk.
///
/// # Errors
///
/// Fails on bytes that are none; whatever they are, no more memory is taken than about forty times their length and
/// [`MAX_UNFOLDED`].
pub fn decode_chunk(bytes: &[u8]) -> io::Result<Vec<Entry>> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(broken("it is not a manifest chunk that this version knows"));
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut owner: Option<EntryOwner> = None;
    let mut held = 0_usize;
    while !reader.is_empty() {
        if held >= MAX_UNFOLDED {
            return Err(broken("its paths and owners take too much room"));
        }
        let entry = decode_entry(&mut reader, entries.last().map(|entry| &entry.path), &mut owner)?;
        held = held.saturating_add(unfolded(&entry));
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_entry(
    reader: &mut Reader<'_>,
    last: Option<&EntryPath>,
    owner: &mut Option<EntryOwner>,
) -> io::Result<Entry> {
    let wrong_path = |_| broken("a path is not one");
    let shared: usize = reader.small()?;
    let suffix = reader.run()?;
    let last_bytes = last.map_or(&[][..], |path| path.as_bytes());
    let mut path =
        last_bytes.get(..shared).ok_or_else(|| broken("a path begins with what is not there"))?.to_vec();
    path.extend_from_slice(suffix);
    let path = EntryPath::new(path).map_err(wrong_path)?;
    if last.is_some_and(|last| *last >= path) {
        return Err(broken("its entries are out of order"));
    }
    let flags = reader.u8()?;
    if flags & 0x88 != 0 {
        return Err(broken("an entry has a flag that this version does not know"));
    }
    let mode = reader.small::<u16>()?;
    if mode > 0o7777 {
        return Err(broken("a mode is too large"));
    }
    let entry_owner = if flags & SAME_OWNER == 0 {
        let read = EntryOwner {
            uid: reader.small()?,
            gid: reader.small()?,
            user: reader.run()?.into(),
            group: reader.run()?.into(),
        };
        owner.insert(read).clone()
    } else {
        owner.clone().ok_or_else(|| broken("an owner is that of no entry"))?
    };
    let mtime = FileTime { seconds: reader.signed()?, nanoseconds: reader.small()? };
    if mtime.nanoseconds >= 1_000_000_000 {
        return Err(broken("a time has too many nanoseconds"));
    }
    let kind = decode_kind(reader, flags)?;
    let mut xattrs = Vec::new();
    if flags & HAS_XATTRS != 0 {
        for _ in 0..reader.count(2)? {
            xattrs.push(Xattr { name: reader.run()?.into(), value: reader.run()?.into() });
        }
        if xattrs.is_empty() || !xattrs.is_sorted_by(|a, b| a.name < b.name) {
            return Err(broken("attributes are out of order"));
        }
    }
    Ok(Entry { path, kind, attributes: Attributes { mode, owner: entry_owner, mtime, xattrs } })
}

fn decode_kind(reader: &mut Reader<'_>, flags: u8) -> io::Result<EntryKind> {
    let kind = flags & 0x07;
    if kind != 1 && flags & HAS_EXTENTS != 0 {
        return Err(broken("what is no file has holes"));
    }
    Ok(match kind {
        0 => EntryKind::Directory,
        1 => {
            let size: u64 = reader.number()?;
            let content = decode_content(reader)?;
            let extents = if flags & HAS_EXTENTS == 0 { None } else { Some(decode_extents(reader, size)?) };
            if content.level == 0 {
                let length: u64 = content.refs.iter().map(|reference| u64::from(reference.length)).sum();
                let expected =
                    extents.as_ref().map_or(size, |extents| extents.iter().map(|extent| extent.length).sum());
                if length != expected {
                    return Err(broken("a file has another size than its chunks"));
                }
            }
            EntryKind::File { size, content, extents }
        }
        2 => EntryKind::Symlink { target: reader.run()?.into() },
        3 => EntryKind::HardLink {
            target: EntryPath::new(reader.run()?).map_err(|_wrong| broken("a link's target is no path"))?,
        },
        4 => EntryKind::CharDevice { major: reader.small()?, minor: reader.small()? },
        5 => EntryKind::BlockDevice { major: reader.small()?, minor: reader.small()? },
        6 => EntryKind::Fifo,
        _ => EntryKind::Socket,
    })
}

fn decode_extents(reader: &mut Reader<'_>, size: u64) -> io::Result<Vec<Extent>> {
    let count = reader.count(2)?;
    let mut extents = Vec::with_capacity(count);
    let mut end = 0_u64;
    for n in 0..count {
        let (gap, length) = (reader.number()?, reader.number()?);
        let offset = end.checked_add(gap).ok_or_else(|| broken("a hole is too large"))?;
        let behind = offset.checked_add(length).filter(|behind| *behind <= size);
        end = behind.ok_or_else(|| broken("data lies behind the end of a file"))?;
        if length == 0 || gap == 0 && n > 0 {
            return Err(broken("a file's holes are not written as they should be"));
        }
        extents.push(Extent { offset, length });
    }
    Ok(extents)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
pub(crate) mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn bytes(range: std::ops::Range<usize>) -> impl Strategy<Value = Box<[u8]>> {
        vec(any::<u8>(), range).prop_map(Into::into)
    }

    fn reference() -> impl Strategy<Value = ChunkRef> {
        (any::<[u8; 32]>(), 1..MAX_CHUNK as u32)
            .prop_map(|(id, length)| ChunkRef { id: ChunkId::from_bytes(id), length })
    }

    fn file() -> impl Strategy<Value = EntryKind> {
        (vec(reference(), 0..5), any::<bool>(), 1..1_000_u64).prop_map(|(refs, sparse, gap)| {
            let length: u64 = refs.iter().map(|reference| u64::from(reference.length)).sum();
            let content = Content { level: 0, refs };
            if sparse && length > 1 {
                let extents = vec![
                    Extent { offset: gap - 1, length: 1 },
                    Extent { offset: 2 * gap, length: length - 1 },
                ];
                let size = 2 * gap + length + 5;
                EntryKind::File { size, content, extents: Some(extents) }
            } else {
                EntryKind::File { size: length, content, extents: None }
            }
        })
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Directory),
            file(),
            bytes(1..40).prop_map(|target| EntryKind::Symlink { target }),
            path().prop_map(|target| EntryKind::HardLink { target }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
            Just(EntryKind::Fifo),
            Just(EntryKind::Socket),
        ]
    }

    fn path() -> impl Strategy<Value = EntryPath> {
        vec("[a-c]{1,3}|\\PC{1,5}", 0..5).prop_map(|parts| {
            let joined =
                parts.iter().map(|part| part.replace(['/', '\0'], "_")).collect::<Vec<_>>().join("/");
            EntryPath::new(joined.as_bytes()).unwrap_or_default()
        })
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        let owner = (any::<u32>(), any::<u32>(), bytes(0..9), bytes(0..9))
            .prop_map(|(uid, gid, user, group)| EntryOwner { uid, gid, user, group });
        let owner = prop_oneof![Just(EntryOwner::default()), owner];
        let xattrs = btree_map(bytes(1..20), bytes(0..50), 0..4)
            .prop_map(|map| map.into_iter().map(|(name, value)| Xattr { name, value }).collect());
        (0..0o10000_u16, owner, any::<i64>(), 0..1_000_000_000_u32, xattrs).prop_map(
            |(mode, owner, seconds, nanoseconds, xattrs)| Attributes {
                mode,
                owner,
                mtime: FileTime { seconds, nanoseconds },
                xattrs,
            },
        )
    }

    pub(crate) fn entries(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Entry>> {
        btree_map(path(), (kind(), attributes()), count).prop_map(|map| {
            map.into_iter().map(|(path, (kind, attributes))| Entry { path, kind, attributes }).collect()
        })
    }

    fn write(entries: &[Entry]) -> Vec<Vec<u8>> {
        let mut writer = ManifestWriter::new();
        let mut chunks: Vec<Vec<u8>> = entries.iter().filter_map(|entry| writer.push(entry)).collect();
        chunks.extend(writer.finish());
        chunks
    }

    fn plain(n: usize) -> Entry {
        Entry {
            path: EntryPath::new(format!("dir{:03}/file{:05}", n / 100, n).into_bytes()).unwrap(),
            kind: EntryKind::File { size: 0, content: Content::default(), extents: None },
            attributes: Attributes { mode: 0o644, ..Attributes::default() },
        }
    }

    proptest! {
        #[test]
        fn entries_come_back(entries in entries(0..60)) {
            let back: Vec<Entry> = write(&entries).iter().flat_map(|chunk| decode_chunk(chunk).unwrap()).collect();
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let mut chunk = vec![VERSION];
            chunk.extend_from_slice(&bytes);
            let _entries = decode_chunk(&chunk);
            chunk[0] = LIST_VERSION;
            let _list = decode_list(&chunk);
        }
    }

    #[test]
    fn a_change_touches_the_chunks_around_it_only() {
        let mut entries: Vec<Entry> = (0..20_000).map(plain).collect();
        let before = write(&entries);
        entries[10_000].attributes.mode = 0o600;
        entries.remove(5_000);
        let after = write(&entries);
        let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
        assert!(before.len() > 20, "{}", before.len());
        assert!(new <= 4, "{new} of {}", after.len());
        let largest = before.iter().map(Vec::len).max();
        assert!(largest <= Some(MAX + 100), "{largest:?}");
    }

    /// Ten bytes can name a path of 64 KiB, most of it shared with the entry before: 1 MiB of them took 4 GiB of memory.
    #[test]
    fn a_chunk_does_not_unfold_to_many_times_its_length() {
        let mut long = b"d/".repeat(EntryPath::MAX_BYTES / 2 - 4);
        long.pop();
        let mut entry = plain(0);
        let mut chunk = Vec::new();
        let mut chunks = Vec::new();
        for n in 0..2_000_u32 {
            let suffix =
                [b'/', b'a' + (n / 26 / 26) as u8, b'a' + (n / 26 % 26) as u8, b'a' + (n % 26) as u8];
            entry.path = EntryPath::new([&long[..], &suffix].concat()).unwrap();
            let path = entry.path.as_bytes();
            if chunk.is_empty() {
                chunk.push(VERSION);
                put_number(&mut chunk, 0);
                put_run(&mut chunk, path);
                encode_rest(&mut chunk, &entry, false);
            } else {
                put_number(&mut chunk, long.len() as u64);
                put_run(&mut chunk, &suffix);
                encode_rest(&mut chunk, &entry, true);
            }
            chunks.push(entry.clone());
        }
        assert!(chunk.len() < 128 << 10);
        assert!(decode_chunk(&chunk).is_err());
        // What a writer makes of the same entries is read.
        let back: Vec<Entry> = write(&chunks).iter().flat_map(|chunk| decode_chunk(chunk).unwrap()).collect();
        assert!(back == chunks);
    }

    /// An owner's names are written once and hold for the entries behind it: the same, by another field.
    #[test]
    fn a_long_owner_is_not_repeated_without_end() {
        let mut entry = plain(0);
        entry.attributes.owner.user = vec![b'u'; 1 << 20].into();
        let mut chunk = vec![VERSION];
        for n in 0..2_000_usize {
            put_number(&mut chunk, 0);
            put_run(&mut chunk, format!("{n:05}").as_bytes());
            encode_rest(&mut chunk, &entry, n > 0);
        }
        assert!(decode_chunk(&chunk).is_err());
    }

    /// References to nothing add nothing to a file's size, so no size bounds what lists of them unfold to.
    #[test]
    fn a_reference_to_no_bytes_is_refused() {
        let nothing = ChunkRef { id: ChunkId::of(b""), length: 0 };
        assert!(decode_list(&encode_list(0, &mut vec![nothing])).is_err());
    }

    #[test]
    fn many_references_go_into_lists_and_an_edit_touches_few() {
        let refs = |n: u64| {
            (0..n).map(|n| ChunkRef { id: ChunkId::of(&n.to_le_bytes()), length: 65_536 }).collect::<Vec<_>>()
        };
        let mut lists = std::collections::HashMap::new();
        let mut build = |refs: Vec<ChunkRef>| {
            content_of(refs, &mut |bytes: Vec<u8>| {
                let reference = ChunkRef { id: ChunkId::of(&bytes), length: bytes.len() as u32 };
                lists.insert(reference.id, bytes);
                Ok::<_, std::convert::Infallible>(reference)
            })
            .unwrap()
        };
        assert_eq!(build(refs(64)).level, 0);
        let content = build(refs(200_000));
        assert!(content.level >= 1 && content.refs.len() <= INLINE_REFS);
        let mut changed = refs(200_000);
        changed.remove(100_000);
        let other = build(changed);
        let mut flat = content.clone();
        while flat.level > 0 {
            let below: Vec<Content> =
                flat.refs.iter().map(|list| decode_list(&lists[&list.id]).unwrap()).collect();
            flat = Content {
                level: flat.level - 1,
                refs: below.into_iter().flat_map(|list| list.refs).collect(),
            };
        }
        assert_eq!(flat.refs, refs(200_000));
        let kept = content.refs.iter().filter(|list| other.refs.contains(list)).count();
        assert!(kept + 2 >= content.refs.len(), "{kept} of {}", content.refs.len());
    }
}
