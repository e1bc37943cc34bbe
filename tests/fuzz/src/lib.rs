//! What holds for every input of a reader, whoever wrote it: it does not panic, memory stays in proportion, and what is
//! accepted says the same after it was written and read again.
//!
//! One function for each target. `tests/it/fuzz.rs` runs the corpora through them as ordinary tests.
//!
//! Digests in the store have no key: who can write to a store can make ones that match, and a fuzzer cannot guess them. So
//! where an object carries digests, the input is tried as it is and once more with digests that fit.

use kiln::base::{ChunkId, Sha256Digest};
use kiln::store::frame::{Codec, FrameReader, MAX_CHUNK};
use kiln::store::manifest::{ManifestWriter, decode_chunk, decode_list, encode_content};
use kiln::store::pack::{PackTable, check_header, table_length_of};
use kiln::store::revision::Revision;
use kiln::store::segment::{self, Segment};
use kiln::store::{Content, Entry, EntryKind, EntryPath};
use kiln::workspace::archive::{ArchiveError, ArchiveLimits, ArchiveReader, ArchiveWriter, read_untrusted};
use kiln::workspace::tree::Excludes;

/// What a manifest chunk may unfold to beside a multiple of its length, in bytes.
const UNFOLDED: usize = 24 << 20;

/// An archive from anywhere: read, written and read again.
pub fn archive(bytes: &[u8]) {
    let summary = read_untrusted(bytes);
    let limits = ArchiveLimits {
        max_entries: 1000,
        max_bytes: 4 << 20,
        max_path_bytes: 4096,
        max_metadata_bytes: 64 << 10,
        max_depth: 64,
    };
    let first = members(bytes, limits);
    assert_eq!(first.is_ok(), summary.is_ok(), "two ways of reading disagree");
    let Ok(first) = first else { return };
    let mut writer = ArchiveWriter::new(Vec::new());
    for (entry, data) in &first {
        let written = match entry.kind {
            EntryKind::File { .. } => writer.append_file(entry, &mut &data[..]),
            _ => writer.append_plain(entry),
        };
        written.expect("what was read can be written");
    }
    let again = writer.finish().expect("a vector takes everything");
    // Records of holes, names and attributes may take more room than they had; the caps are on what strangers send.
    let again = members(&again, ArchiveLimits { max_metadata_bytes: 1 << 20, max_bytes: 16 << 20, ..limits });
    assert_eq!(first, again.expect("what was written can be read"), "an archive changed on its way");
}

fn members(bytes: &[u8], limits: ArchiveLimits) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut reader = ArchiveReader::new(bytes, limits);
    let mut members = Vec::new();
    while let Some(archived) = reader.next_entry()? {
        let mut data = Vec::new();
        // A failure of the data is found again by the next step.
        if archived.data.read_to_end(&mut data).is_ok() {
            members.push((archived.entry, data));
        }
    }
    Ok(members)
}

/// A chunk of a manifest.
pub fn manifest(bytes: &[u8]) {
    let Ok(entries) = decode_chunk(bytes) else { return };
    let held: usize = entries.iter().map(held).sum();
    assert!(held <= UNFOLDED + 64 * bytes.len(), "{} bytes unfold to {held}", bytes.len());
    let mut writer = ManifestWriter::new();
    let mut chunks: Vec<Vec<u8>> = entries.iter().filter_map(|entry| writer.push(entry)).collect();
    chunks.extend(writer.finish());
    let again: Vec<Entry> =
        chunks.iter().flat_map(|chunk| decode_chunk(chunk).expect("what was written can be read")).collect();
    assert!(entries == again, "entries changed on their way");
}

/// Bytes of the heap that an entry holds, with itself.
fn held(entry: &Entry) -> usize {
    let kind = match &entry.kind {
        EntryKind::File { content, extents, .. } => {
            size_of_val(&content.refs[..]) + extents.as_ref().map_or(0, |extents| size_of_val(&extents[..]))
        }
        EntryKind::Symlink { target } => target.len(),
        EntryKind::HardLink { target } => target.as_bytes().len(),
        EntryKind::Directory
        | EntryKind::CharDevice { .. }
        | EntryKind::BlockDevice { .. }
        | EntryKind::Fifo
        | EntryKind::Socket => 0,
    };
    let attributes = &entry.attributes;
    let xattrs = size_of_val(&attributes.xattrs[..])
        + attributes.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum::<usize>();
    let owner = attributes.owner.user.len() + attributes.owner.group.len();
    size_of::<Entry>() + entry.path.as_bytes().len() + kind + xattrs + owner
}

/// A list of references.
pub fn list(bytes: &[u8]) {
    let Ok(content) = decode_list(bytes) else { return };
    assert!(content.level <= Content::MAX_LEVEL);
    assert!(size_of_val(&content.refs[..]) <= 2 * bytes.len());
    assert!(content.refs.iter().all(|reference| (1..=MAX_CHUNK).contains(&(reference.length as usize))));
    let mut again = vec![0x81];
    encode_content(&mut again, &content);
    assert_eq!(decode_list(&again).expect("what was written can be read"), content);
}

/// A pack's header, trailer and table.
pub fn pack(bytes: &[u8]) {
    for read in [check_header(bytes).map(drop), table_length_of(bytes).map(drop)] {
        drop(read);
    }
    if let Some(at) = bytes.len().checked_sub(48) {
        drop(table_length_of(&bytes[at..]));
    }
    for tail in [bytes.to_vec(), with_trailer(bytes)] {
        let Ok(table) = PackTable::parse(&tail) else { continue };
        for frame in &table.frames {
            let length: usize = frame.chunks.iter().map(|(_, length)| *length as usize).sum();
            assert!(length == frame.raw_length as usize && length <= MAX_CHUNK);
            assert!(!frame.chunks.is_empty() && frame.stored_length as usize <= MAX_CHUNK);
        }
        let _where_it_ends: u64 = table.offset();
        let mut rows = Vec::new();
        segment::rows_of(&table, 0, &mut rows);
        assert!(rows.len() * 36 <= tail.len(), "{} rows of {} bytes", rows.len(), tail.len());
        assert_eq!(PackTable::parse(&table.to_tail()).expect("what was written can be read"), table);
    }
}

/// Returns a table with a trailer that fits.
fn with_trailer(table: &[u8]) -> Vec<u8> {
    let mut tail = table.to_vec();
    tail.extend_from_slice(&u32::try_from(table.len()).unwrap_or(u32::MAX).to_le_bytes());
    tail.extend_from_slice(&[0; 4]);
    tail.extend_from_slice(Sha256Digest::of(table).as_bytes());
    tail.extend_from_slice(b"KILNPEND");
    tail
}

/// Frames: the first byte is the codec, and the input is read after another one, which leaves a buffer behind.
pub fn frame(bytes: &[u8]) {
    let Some((codec, stored)) = bytes.split_first() else { return };
    let Some(codec) = Codec::from_number(codec & 1) else { return };
    let mut reader = FrameReader::new().expect("zstd has memory");
    let first = reader.open(codec, stored).map(<[u8]>::to_vec).ok();
    if let (Codec::Zstd, Some(content)) = (codec, &first) {
        assert!(content.len() <= MAX_CHUNK);
    }
    let again = reader.open(codec, stored).map(<[u8]>::to_vec).ok();
    assert_eq!(first, again, "a frame says something else the second time");
}

/// A segment of the index.
pub fn segment(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_digests(bytes)] {
        let Ok(open) = Segment::open(&bytes) else { continue };
        let mut rows = Vec::new();
        let read = open.for_each(&mut |id, location| rows.push((id, location)));
        for (id, _) in rows.iter().take(64) {
            drop(open.find(id));
        }
        drop(open.find(&ChunkId::of(&bytes)));
        drop(open.find(&ChunkId::from_bytes([0; 32])));
        drop(open.find(&ChunkId::from_bytes([0xff; 32])));
        if read.is_err() {
            continue;
        }
        let again = Segment::open(&segment::encode(open.packs(), rows.clone()))
            .expect("what was written can be read");
        assert_eq!(again.packs(), open.packs());
        let mut written = Vec::new();
        again.for_each(&mut |id, location| written.push((id, location))).expect("the rows are sound");
        assert!(written.iter().all(|row| rows.contains(row)), "a row came from nowhere");
        for (id, location) in written.iter().take(64) {
            assert!(again.find(id).expect("the rows are sound").contains(location), "a row is not found");
        }
    }
}

/// Returns a segment with digests that fit, where it says lengths that fit.
fn with_digests(bytes: &[u8]) -> Vec<u8> {
    const HEADER: usize = 60;
    const DIGEST: usize = 32;
    let mut bytes = bytes.to_vec();
    let number = |at: usize| {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        field.map_or(0, |field| u32::from_le_bytes(*field) as usize)
    };
    // Rows are counted in eight bytes, of which the lower four say what can be here.
    let head = HEADER + number(12) * 41 + number(24) + number(16).div_ceil(64) * 8;
    if let Some(behind) = bytes.get(HEADER..head) {
        let digest = Sha256Digest::of(&[&bytes[..HEADER - DIGEST], behind].concat());
        bytes[HEADER - DIGEST..HEADER].copy_from_slice(digest.as_bytes());
    }
    if let Some(end) = bytes.len().checked_sub(DIGEST) {
        let digest = Sha256Digest::of(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_bytes());
    }
    bytes
}

/// The record of a revision: whole, and its body alone under a heading that fits.
pub fn record(bytes: &[u8]) {
    let body = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes, |line| &bytes[line + 1..]);
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let heading =
        format!("{{\"kind\":\"kiln-revision\",\"version\":1,\"sha256\":\"{}\"}}\n", Sha256Digest::of(body));
    for bytes in [bytes.to_vec(), [heading.as_bytes(), body, b"\n"].concat()] {
        let Ok(revision) = Revision::decode(&bytes) else { continue };
        revision.key().expect("every record has a key");
        let lengths = || revision.manifest.refs.iter().map(|reference| reference.length as usize);
        assert!(revision.manifest.level <= Content::MAX_LEVEL);
        assert!(lengths().all(|length| (1..=MAX_CHUNK).contains(&length)));
        let again = revision.encode().expect("a record can be written");
        assert_eq!(Revision::decode(&again).expect("what was written can be read"), revision);
    }
}

/// Patterns: the first line is a path, the others are patterns.
pub fn patterns(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines().map(str::to_owned);
    let Ok(path) = EntryPath::new(lines.next().unwrap_or_default()) else { return };
    let Ok(excludes) = Excludes::new(&lines.collect::<Vec<_>>()) else { return };
    let _answers = [excludes.is_excluded(&path, false), excludes.is_excluded(&path, true)];
}
