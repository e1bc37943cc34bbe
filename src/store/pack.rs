//! Packs: immutable objects of many frames, with a table of them at the end.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use tempfile::TempPath;

use super::frame::{Codec, Frame, MAX_CHUNK};
use super::wire::{Reader, broken};
use crate::base::{ChunkId, IdError, SessionId, Sha256Digest};
use crate::objects::{Key, KeyError};

/// A pack is closed by the frame that brings it past this many bytes.
pub const DATA_TARGET: u64 = 64 << 20;
/// The same for packs of manifest chunks.
pub const META_TARGET: u64 = 8 << 20;

const MAGIC: &[u8; 8] = b"KILNPACK";
const END_MAGIC: &[u8; 8] = b"KILNPEND";
const VERSION: u8 = 1;
/// Magic, version, kind, six bytes of zero.
pub const HEADER_BYTES: u64 = 16;
/// Length of the table, four bytes of zero, SHA-256 of the table, magic.
pub const TRAILER_BYTES: u64 = 48;
/// A table of more than this is refused: 128 MiB of the shortest chunks that a writer makes stay far below it.
const MAX_TABLE: u32 = 64 << 20;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    /// Chunks of files.
    Data,
    /// Chunks of manifests and lists.
    Meta,
}

impl PackKind {
    /// Returns the kind's number on disk.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Meta => 1,
        }
    }

    /// Returns the kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Data),
            1 => Some(Self::Meta),
            _ => None,
        }
    }

    /// Returns the first segment of the keys of such packs.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Data => "packs",
            Self::Meta => "meta",
        }
    }
}

/// The name of something that a session wrote: `<session>-<n>-<digest16>`. Two clones of one machine cannot give the same name to
/// different bytes, because the name holds the first eight bytes of their SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrittenName {
    /// The session.
    pub session: SessionId,
    /// Counts what the session wrote of this kind.
    pub number: u32,
    /// The first eight bytes of the SHA-256 of all of its bytes.
    pub digest: [u8; 8],
}

impl WrittenName {
    /// Names what a session wrote.
    #[must_use]
    pub fn new(session: SessionId, number: u32, digest: &Sha256Digest) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        Self { session, number, digest: [a, b, c, d, e, f, g, h] }
    }
}

impl fmt::Display for WrittenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:016x}", self.session, self.number, u64::from_be_bytes(self.digest))
    }
}

impl FromStr for WrittenName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let mut parts = text.split('-');
            let (session, number, digest) = (parts.next()?, parts.next()?, parts.next()?);
            let name = Self {
                session: session.parse().ok()?,
                number: number.parse().ok()?,
                digest: u64::from_str_radix(digest, 16).ok()?.to_be_bytes(),
            };
            // Only what is printed is read: no signs, leading zeros, capitals or further parts.
            (name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| IdError::of(text, "a name of the store's (session-number-digest)"))
    }
}

/// A pack: where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    /// What it holds.
    pub kind: PackKind,
    /// Its name.
    pub name: WrittenName,
}

impl PackName {
    /// Returns its key: `packs/<hh>/<name>` or `meta/<hh>/<name>`, where `hh` is the first byte of the SHA-256 of `<session>-<n>`.
    ///
    /// # Errors
    ///
    /// Never, for the names that there are.
    pub fn key(&self) -> Result<Key, KeyError> {
        let spread = Sha256Digest::of(format!("{}-{}", self.name.session, self.name.number).as_bytes());
        Key::new(format!("{}/{:02x}/{}", self.kind.directory(), spread.as_bytes()[0], self.name))
    }

    /// Reads a key.
    #[must_use]
    pub fn of_key(key: &Key) -> Option<Self> {
        let mut segments = key.segments();
        let kind = match segments.next()? {
            "packs" => PackKind::Data,
            "meta" => PackKind::Meta,
            _ => return None,
        };
        let pack = Self { kind, name: key.name().parse().ok()? };
        (pack.key().ok()? == *key).then_some(pack)
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.directory(), self.name)
    }
}

/// A pack, and where its table of frames lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackInfo {
    /// The pack.
    pub pack: PackName,
    /// Its size in bytes.
    pub size: u64,
    /// Length in bytes of its table, which ends [`TRAILER_BYTES`] before the pack does.
    pub table_length: u32,
}

impl PackInfo {
    /// Returns the range of its table and trailer: offset and length in bytes.
    #[must_use]
    pub fn tail(&self) -> (u64, u64) {
        let length = u64::from(self.table_length) + TRAILER_BYTES;
        (self.size.saturating_sub(length), length)
    }
}

/// A frame as a pack's table says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFrame {
    /// Where it begins in the pack.
    pub offset: u32,
    /// How many bytes it has there.
    pub stored_length: u32,
    /// How they are stored.
    pub codec: Codec,
    /// The sum of its chunks' lengths.
    pub raw_length: u32,
    /// Its chunks in order, with their lengths.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// The frames of a pack, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackTable {
    /// The frames.
    pub frames: Vec<TableFrame>,
}

impl PackTable {
    /// Reads the end of a pack: the table and the trailer, as [`PackInfo::tail`] says where.
    ///
    /// # Errors
    ///
    /// Fails where a byte is not what was written.
    pub fn parse(tail: &[u8]) -> io::Result<Self> {
        let trailer_length = usize::try_from(TRAILER_BYTES).unwrap_or(usize::MAX);
        let (table, trailer) = tail
            .len()
            .checked_sub(trailer_length)
            .and_then(|at| tail.split_at_checked(at))
            .ok_or_else(|| broken("it is too short"))?;
        if table_length_of(trailer)? as usize != table.len() {
            return Err(broken("the length of the table is another"));
        }
        if trailer.get(8..40) != Some(Sha256Digest::of(table).as_bytes()) {
            return Err(broken("the table's digest does not match"));
        }
        let mut reader = Reader::new(table);
        let count = reader.u32()?;
        let mut offset = u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX);
        let mut frames = Vec::new();
        for _ in 0..count {
            let (stored_length, codec, chunk_count) = (reader.u32()?, reader.u8()?, reader.u32()?);
            let codec = Codec::from_number(codec).ok_or_else(|| broken("a frame's codec is unknown"))?;
            if (chunk_count as usize).saturating_mul(36) > reader.left() {
                return Err(broken("it ends too early"));
            }
            let mut chunks = Vec::with_capacity(chunk_count as usize);
            let mut raw_length = 0_u32;
            for _ in 0..chunk_count {
                let (id, length) = (ChunkId::from_bytes(reader.array()?), reader.u32()?);
                raw_length = raw_length.checked_add(length).ok_or_else(|| broken("a frame is too long"))?;
                chunks.push((id, length));
            }
            if chunks.is_empty() {
                return Err(broken("a frame holds nothing"));
            }
            if raw_length.max(stored_length) as usize > MAX_CHUNK {
                return Err(broken("a frame is too long"));
            }
            if codec == Codec::Raw && stored_length != raw_length {
                return Err(broken("a frame has another length than its chunks"));
            }
            frames.push(TableFrame { offset, stored_length, codec, raw_length, chunks });
            offset = offset.checked_add(stored_length).ok_or_else(|| broken("a frame is too long"))?;
        }
        if reader.is_empty() { Ok(Self { frames }) } else { Err(broken("there is more than was announced")) }
    }

    /// Returns the table and the trailer as they stand at the end of a pack.
    #[must_use]
    pub fn to_tail(&self) -> Vec<u8> {
        let mut table = Vec::new();
        table.extend_from_slice(&count(self.frames.len()).to_le_bytes());
        for frame in &self.frames {
            table.extend_from_slice(&frame.stored_length.to_le_bytes());
            table.push(frame.codec.number());
            table.extend_from_slice(&count(frame.chunks.len()).to_le_bytes());
            for (id, length) in &frame.chunks {
                table.extend_from_slice(id.as_bytes());
                table.extend_from_slice(&length.to_le_bytes());
            }
        }
        let digest = Sha256Digest::of(&table);
        let length = count(table.len());
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(&[0; 4]);
        table.extend_from_slice(digest.as_bytes());
        table.extend_from_slice(END_MAGIC);
        table
    }

    /// Returns where the frames end and the table begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.frames.last().map_or(HEADER_BYTES, |last| u64::from(last.offset) + u64::from(last.stored_length))
    }
}

/// Reads the length of the table out of a pack's trailer.
///
/// # Errors
///
/// Fails where these bytes are no trailer.
pub fn table_length_of(trailer: &[u8]) -> io::Result<u32> {
    let mut reader = Reader::new(trailer);
    let length = reader.u32()?;
    let zeros: [u8; 4] = reader.array()?;
    let _digest: [u8; 32] = reader.array()?;
    if reader.array::<8>()? != *END_MAGIC || zeros != [0; 4] || length > MAX_TABLE {
        return Err(broken("it does not end as a pack does"));
    }
    Ok(length)
}

/// Checks the first bytes of a pack.
///
/// # Errors
///
/// Fails where they are another object's, or a newer version's.
pub fn check_header(bytes: &[u8]) -> io::Result<PackKind> {
    let mut reader = Reader::new(bytes);
    if reader.array::<8>()? != *MAGIC {
        return Err(broken("it does not begin as a pack does"));
    }
    if reader.u8()? != VERSION {
        return Err(broken("its version is unknown"));
    }
    let kind = PackKind::from_number(reader.u8()?).ok_or_else(|| broken("its kind is unknown"))?;
    if reader.array::<6>()? == [0; 6] { Ok(kind) } else { Err(broken("its header is damaged")) }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A pack that is being written: to a temporary file, never whole in memory.
#[derive(Debug)]
pub struct PackWriter {
    kind: PackKind,
    file: io::BufWriter<File>,
    path: TempPath,
    hasher: Sha256,
    table: PackTable,
    size: u64,
}

/// A written pack whose object is still to be put.
#[derive(Debug)]
pub struct SpooledPack {
    /// Its name, size and table.
    pub info: PackInfo,
    /// Its frames.
    pub table: PackTable,
    /// The file that holds it, deleted when this is dropped.
    pub path: TempPath,
}

impl PackWriter {
    /// Begins a pack in a temporary file in `directory`, which is made when it is missing, or in the system's place for them.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn begin(kind: PackKind, session: SessionId, directory: Option<&PathBuf>) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".tmp-{session}-");
        builder.prefix(&prefix);
        let file = match directory {
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                builder.tempfile_in(directory)?
            }
            None => builder.tempfile()?,
        };
        let (file, path) = file.into_parts();
        let mut writer = Self {
            kind,
            file: io::BufWriter::with_capacity(256 << 10, file),
            path,
            hasher: Sha256::new(),
            table: PackTable::default(),
            size: 0,
        };
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&[VERSION, kind.number(), 0, 0, 0, 0, 0, 0]);
        writer.write(&header)?;
        Ok(writer)
    }

    /// Returns how many bytes the pack has so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns whether a frame was appended.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        !self.table.frames.is_empty()
    }

    /// Appends a frame.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn append(&mut self, frame: Frame) -> io::Result<()> {
        let too_long = |_| broken("a pack would grow past 4 GiB");
        let offset = u32::try_from(self.size).map_err(too_long)?;
        let stored_length = u32::try_from(frame.stored.len()).map_err(too_long)?;
        self.write(&frame.stored)?;
        let Frame { codec, raw_length, chunks, stored: _ } = frame;
        self.table.frames.push(TableFrame { offset, stored_length, codec, raw_length, chunks });
        Ok(())
    }

    /// Writes the table and names the pack. Nothing is synced: the store does that when it puts the file.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn finish(mut self, session: SessionId, number: u32) -> io::Result<SpooledPack> {
        let tail = self.table.to_tail();
        self.write(&tail)?;
        self.file.flush()?;
        let digest = Sha256Digest::finish(self.hasher);
        let name = WrittenName::new(session, number, &digest);
        let table_length = count(tail.len()) - u32::try_from(TRAILER_BYTES).unwrap_or(0);
        let info = PackInfo { pack: PackName { kind: self.kind, name }, size: self.size, table_length };
        Ok(SpooledPack { info, table: self.table, path: self.path })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod tests {
    use super::*;
    use crate::store::frame::FrameBuilder;

    fn a_pack() -> (SpooledPack, Vec<u8>) {
        let session = SessionId::generate();
        let mut writer = PackWriter::begin(PackKind::Data, session, None).unwrap();
        let mut builder = FrameBuilder::new(1).unwrap();
        let mut frames = Vec::new();
        for n in 0..100_u32 {
            let chunk = n.to_le_bytes().repeat(2_500);
            builder.add(ChunkId::of(&chunk), &chunk, &mut |frame| frames.push(frame)).unwrap();
        }
        builder.finish(&mut |frame| frames.push(frame)).unwrap();
        for frame in frames {
            writer.append(frame).unwrap();
        }
        let pack = writer.finish(session, 3).unwrap();
        let bytes = std::fs::read(&pack.path).unwrap();
        (pack, bytes)
    }

    #[test]
    fn a_pack_tells_its_table_from_its_end() {
        let (pack, bytes) = a_pack();
        assert_eq!(bytes.len() as u64, pack.info.size);
        assert_eq!(check_header(&bytes).unwrap(), PackKind::Data);
        let (offset, length) = pack.info.tail();
        let tail = &bytes[offset as usize..];
        assert_eq!(tail.len() as u64, length);
        assert_eq!(PackTable::parse(tail).unwrap(), pack.table);
        assert_eq!(table_length_of(&bytes[bytes.len() - 48..]).unwrap(), pack.info.table_length);
        assert_eq!(pack.table.offset(), offset);
    }

    #[test]
    fn a_flipped_bit_of_the_table_is_seen() {
        let (pack, bytes) = a_pack();
        let tail = bytes[pack.info.tail().0 as usize..].to_vec();
        for at in 0..tail.len() {
            let mut damaged = tail.clone();
            damaged[at] ^= 1;
            assert!(PackTable::parse(&damaged).is_err(), "byte {at}");
        }
        for end in 0..tail.len() {
            assert!(PackTable::parse(&tail[..end]).is_err());
        }
    }

    /// A table of frames without chunks took six times its length in memory, and lengths that no reader accepts were believed.
    #[test]
    fn a_table_that_no_writer_makes_is_refused() {
        let frame = |stored_length, codec, chunks: &[u32]| TableFrame {
            offset: 16,
            stored_length,
            codec,
            raw_length: chunks.iter().sum(),
            chunks: chunks.iter().map(|length| (ChunkId::of(b"a chunk"), *length)).collect(),
        };
        let parse = |frame| PackTable::parse(&PackTable { frames: vec![frame] }.to_tail());
        let too_long = u32::try_from(MAX_CHUNK).unwrap() + 1;
        assert!(parse(frame(9, Codec::Raw, &[4, 5])).is_ok());
        assert!(parse(frame(7, Codec::Zstd, &[4, 5])).is_ok());
        assert!(parse(frame(0, Codec::Raw, &[])).is_err());
        assert!(parse(frame(8, Codec::Raw, &[4, 5])).is_err());
        assert!(parse(frame(9, Codec::Zstd, &[too_long])).is_err());
        assert!(parse(frame(too_long, Codec::Zstd, &[9])).is_err());
    }

    #[test]
    fn names_and_keys_are_read_back_and_nothing_else_is() {
        let (pack, _bytes) = a_pack();
        let pack = pack.info.pack;
        assert_eq!(PackName::of_key(&pack.key().unwrap()), Some(pack));
        let text = pack.name.to_string();
        assert_eq!(text.parse(), Ok(pack.name));
        for wrong in
            [text.to_uppercase(), format!("{text}-"), text.replace("-3-", "-03-"), text[1..].to_owned()]
        {
            assert!(wrong.parse::<WrittenName>().is_err(), "{wrong}");
        }
        assert_eq!(PackName::of_key(&Key::new(format!("packs/zz/{text}")).unwrap()), None);
    }
}
