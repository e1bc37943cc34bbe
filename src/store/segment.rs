//! Segments of the index: which chunk lies in which pack, and where.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::frame::{Codec, MAX_CHUNK};
use super::pack::{PackInfo, PackKind, PackName, SpooledPack, WrittenName};
use super::wire::{Reader, broken};
use crate::base::{ChunkId, SessionId, Sha256Digest};

const MAGIC: &[u8; 8] = b"KILNINDX";
const VERSION: u8 = 1;
/// Magic, version, three bytes of zero, number of packs, number of rows (8 bytes), length of the filter, SHA-256 of the head.
const HEADER_BYTES: usize = 60;
const PACK_BYTES: usize = 1 + 16 + 4 + 8 + 8 + 4;
const ROW_BYTES: usize = 52;
const DIGEST_BYTES: usize = 32;
/// One fence key stands for this many rows: what a look-up reads at once.
const FENCE_ROWS: usize = 64;
/// Bits of the filter for a row: with six probes about 1 % of absent chunks pass.
const FILTER_BITS: usize = 10;
const FILTER_PROBES: u64 = 6;
/// The high bit of a frame's stored length says that it is stored as it is.
const RAW_BIT: u32 = 1 << 31;
/// Segments up to this many bytes are held in memory whole.
const SMALL: u64 = 256 << 10;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack, by its place in the list of packs that goes with this.
    pub pack: u32,
    /// Where its frame begins in the pack.
    pub frame_offset: u32,
    /// How many bytes the frame has there.
    pub frame_length: u32,
    /// How the frame is stored.
    pub codec: Codec,
    /// Where the chunk begins in the frame's content.
    pub offset: u32,
    /// The chunk's length.
    pub length: u32,
}

/// A row: a chunk and where it lies.
pub type Row = (ChunkId, Location);

/// Adds the rows of a pack's table. `pack` is the pack's place in the list of packs.
pub fn rows_of(table: &super::pack::PackTable, pack: u32, rows: &mut Vec<Row>) {
    for frame in &table.frames {
        let mut offset = 0;
        for (id, length) in &frame.chunks {
            let location = Location {
                pack,
                frame_offset: frame.offset,
                frame_length: frame.stored_length,
                codec: frame.codec,
                offset,
                length: *length,
            };
            rows.push((*id, location));
            offset += *length;
        }
    }
}

/// Returns the bytes of a segment over packs that were just written.
#[must_use]
pub fn of_packs(packs: &[SpooledPack]) -> Vec<u8> {
    let mut rows = Vec::new();
    for (number, pack) in (0..).zip(packs) {
        rows_of(&pack.table, number, &mut rows);
    }
    let infos: Vec<PackInfo> = packs.iter().map(|pack| pack.info).collect();
    encode(&infos, rows)
}

/// Returns the bytes of a segment. Rows may come in any order; of a chunk's rows in one pack the first counts.
#[must_use]
pub fn encode(packs: &[PackInfo], mut rows: Vec<Row>) -> Vec<u8> {
    rows.sort_by_key(|(id, location)| (*id, location.pack));
    rows.dedup_by(|a, b| a.0 == b.0 && a.1.pack == b.1.pack);
    let filter = filter_of(&rows);
    let mut out = Vec::with_capacity(
        HEADER_BYTES + packs.len() * PACK_BYTES + filter.len() + rows.len() * (ROW_BYTES + 1),
    );
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&count(packs.len()).to_le_bytes());
    out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    out.extend_from_slice(&count(filter.len()).to_le_bytes());
    out.extend_from_slice(&[0; DIGEST_BYTES]);
    for info in packs {
        out.push(info.pack.kind.number());
        out.extend_from_slice(&info.pack.name.session.to_bytes());
        out.extend_from_slice(&info.pack.name.number.to_le_bytes());
        out.extend_from_slice(&info.pack.name.digest);
        out.extend_from_slice(&info.size.to_le_bytes());
        out.extend_from_slice(&info.table_length.to_le_bytes());
    }
    out.extend_from_slice(&filter);
    for block in rows.chunks(FENCE_ROWS) {
        let first = block.first().map_or(0, |(id, _)| id.head());
        out.extend_from_slice(&first.to_le_bytes());
    }
    let head = head_digest(&out);
    if let Some(place) = out.get_mut(HEADER_BYTES - DIGEST_BYTES..HEADER_BYTES) {
        place.copy_from_slice(head.as_bytes());
    }
    for (id, location) in &rows {
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&location.pack.to_le_bytes());
        out.extend_from_slice(&location.frame_offset.to_le_bytes());
        let raw = match location.codec {
            Codec::Raw => RAW_BIT,
            Codec::Zstd => 0,
        };
        out.extend_from_slice(&(location.frame_length | raw).to_le_bytes());
        out.extend_from_slice(&location.offset.to_le_bytes());
        out.extend_from_slice(&location.length.to_le_bytes());
    }
    let digest = Sha256Digest::of(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// Names a segment's bytes.
#[must_use]
pub fn name(session: SessionId, number: u32, bytes: &[u8]) -> WrittenName {
    WrittenName::new(session, number, &Sha256Digest::of(bytes))
}

/// The digest over the head without the bytes that hold it.
fn head_digest(head: &[u8]) -> Sha256Digest {
    let (before, behind) = head.split_at(head.len().min(HEADER_BYTES));
    let before = before.get(..HEADER_BYTES - DIGEST_BYTES).unwrap_or_default();
    let mut all = before.to_vec();
    all.extend_from_slice(behind);
    Sha256Digest::of(&all)
}

/// Ids are as good as random, so their own bits serve as hashes (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", 2008).
fn probes(id: &ChunkId, bits: u64) -> impl Iterator<Item = u64> {
    let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
    let step = u64::from_be_bytes([a, b, c, d, e, f, g, h]) | 1;
    let start = id.head().rotate_left(17);
    (0..FILTER_PROBES).map(move |n| start.wrapping_add(n.wrapping_mul(step)) % bits)
}

fn filter_of(rows: &[Row]) -> Vec<u8> {
    let bytes = (rows.len() * FILTER_BITS).div_ceil(8).max(8);
    let mut filter = vec![0_u8; bytes];
    let bits = bytes as u64 * 8;
    for (id, _) in rows {
        for bit in probes(id, bits) {
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| filter.get_mut(at)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    filter
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// An open segment: the head in memory, the rows in a file or, where they are few, in memory as well.
#[derive(Debug)]
pub struct Segment {
    packs: Vec<PackInfo>,
    filter: Vec<u8>,
    fences: Vec<u64>,
    rows: Rows,
    row_count: usize,
}

#[derive(Debug)]
enum Rows {
    Memory(Vec<u8>),
    File { file: File, offset: u64 },
}

impl Segment {
    /// Opens a segment's bytes.
    ///
    /// # Errors
    ///
    /// Fails where a byte is not what was written.
    pub fn open(bytes: &[u8]) -> io::Result<Self> {
        let (content, digest) = bytes
            .len()
            .checked_sub(DIGEST_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or_else(|| broken("it is too short"))?;
        if Sha256Digest::of(content).as_bytes() != digest {
            return Err(broken("its digest does not match"));
        }
        let (mut segment, head_length) = Self::parse_head(content)?;
        let rows = content.get(head_length..).unwrap_or_default();
        if rows.len() != segment.row_count * ROW_BYTES {
            return Err(broken("it has another length than it says"));
        }
        segment.rows = Rows::Memory(rows.to_vec());
        Ok(segment)
    }

    /// Opens a segment in a file whose digest was checked when it was written there.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read or its head is not what was written.
    pub fn open_file(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        if size <= SMALL {
            let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            return Self::open(&bytes);
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let head_length = head_length(&header)?;
        if head_length as u64 > size {
            return Err(broken("it is too short"));
        }
        let mut head = vec![0; head_length];
        file.read_exact_at(&mut head, 0)?;
        let (mut segment, head_length) = Self::parse_head(&head)?;
        if size != (head_length + segment.row_count * ROW_BYTES + DIGEST_BYTES) as u64 {
            return Err(broken("it has another length than it says"));
        }
        segment.rows = Rows::File { file, offset: head_length as u64 };
        Ok(segment)
    }

    fn parse_head(bytes: &[u8]) -> io::Result<(Self, usize)> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| broken("it is too short"))?;
        let length = head_length(header)?;
        let head = bytes.get(..length).ok_or_else(|| broken("it is too short"))?;
        if header.get(HEADER_BYTES - DIGEST_BYTES..) != Some(head_digest(head).as_bytes()) {
            return Err(broken("the digest of its head does not match"));
        }
        let mut reader = Reader::new(head);
        reader.bytes(12)?;
        let (pack_count, row_count, filter_length) = (reader.u32()?, reader.u64()?, reader.u32()?);
        reader.bytes(DIGEST_BYTES)?;
        let mut packs = Vec::with_capacity(pack_count as usize);
        for _ in 0..pack_count {
            let kind =
                PackKind::from_number(reader.u8()?).ok_or_else(|| broken("a pack's kind is unknown"))?;
            let name = WrittenName {
                session: SessionId::from_bytes(reader.array()?),
                number: reader.u32()?,
                digest: reader.array()?,
            };
            packs.push(PackInfo {
                pack: PackName { kind, name },
                size: reader.u64()?,
                table_length: reader.u32()?,
            });
        }
        let filter = reader.bytes(filter_length as usize)?.to_vec();
        if filter.is_empty() {
            return Err(broken("it has no filter"));
        }
        let mut fences = Vec::with_capacity(reader.left() / 8);
        while !reader.is_empty() {
            fences.push(reader.u64()?);
        }
        if !fences.is_sorted() {
            return Err(broken("its rows are out of order"));
        }
        let row_count = usize::try_from(row_count).map_err(io::Error::other)?;
        Ok((Self { packs, filter, fences, rows: Rows::Memory(Vec::new()), row_count }, length))
    }

    /// Returns the packs that the rows name, in the order of their numbers.
    #[must_use]
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// Returns every location of a chunk. Reads about 3 KiB where the chunk may be there, and mostly nothing where it is not.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read, and on a row that cannot be.
    pub fn find(&self, id: &ChunkId) -> io::Result<Vec<Location>> {
        let mut found = Vec::new();
        self.read_steps(self.rows_around(id), &mut |row_id, location| {
            if row_id == *id {
                found.push(location);
            }
        })?;
        Ok(found)
    }

    /// Hands out every row, sorted by chunk.
    ///
    /// # Errors
    ///
    /// As [`Segment::find`].
    pub fn for_each(&self, take: &mut dyn FnMut(ChunkId, Location)) -> io::Result<()> {
        self.read_steps(0..self.row_count, take)
    }

    fn read_steps(&self, rows: Range<usize>, take: &mut dyn FnMut(ChunkId, Location)) -> io::Result<()> {
        self.scan(rows, &mut |_, row| {
            take(row.id(), row.location(self.packs.len())?);
            Ok(())
        })
    }

    /// Returns every row of a chunk, with its number.
    ///
    /// # Errors
    ///
    /// As [`Segment::find`].
    pub(super) fn find_rows(&self, id: &ChunkId) -> io::Result<Vec<(usize, Location)>> {
        let mut found = Vec::new();
        self.scan(self.rows_around(id), &mut |number, row| {
            if row.id() == *id {
                found.push((number, row.location(self.packs.len())?));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Hands out rows as they are stored, with their numbers: a look at a row costs a few nanoseconds.
    ///
    /// # Errors
    ///
    /// Whatever `take` reports, and where the file cannot be read.
    pub(super) fn scan(
        &self,
        rows: Range<usize>,
        take: &mut dyn FnMut(usize, StoredRow<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        const STEP: usize = 16 << 10;
        let mut buffer = Vec::new();
        for from in rows.clone().step_by(STEP) {
            let to = (from + STEP).min(rows.end);
            let bytes = match &self.rows {
                Rows::Memory(bytes) => {
                    bytes.get(from * ROW_BYTES..to * ROW_BYTES).ok_or_else(|| broken("it ends too early"))?
                }
                Rows::File { file, offset } => {
                    buffer.resize((to - from) * ROW_BYTES, 0);
                    file.read_exact_at(&mut buffer, offset + (from * ROW_BYTES) as u64)?;
                    &buffer
                }
            };
            let (stored, _) = bytes.as_chunks::<ROW_BYTES>();
            for (number, row) in (from..).zip(stored) {
                take(number, StoredRow(row))?;
            }
        }
        Ok(())
    }

    /// Returns the rows among which a chunk's are: none where it is not in this segment.
    fn rows_around(&self, id: &ChunkId) -> Range<usize> {
        let bits = self.filter.len() as u64 * 8;
        let absent = |bit: u64| {
            let byte = usize::try_from(bit / 8).ok().and_then(|at| self.filter.get(at));
            byte.is_none_or(|byte| byte & (1 << (bit % 8)) == 0)
        };
        if self.is_empty() || probes(id, bits).any(absent) {
            return 0..0;
        }
        self.rows_between(id, id)
    }

    /// Returns the rows among which those of the chunks from `first` to `last` are.
    pub(super) fn rows_between(&self, first: &ChunkId, last: &ChunkId) -> Range<usize> {
        // The rows with this head may begin in the block before the first fence that is not below it.
        let first = self.fences.partition_point(|fence| *fence < first.head()).saturating_sub(1);
        let last = self.fences.partition_point(|fence| *fence <= last.head());
        first * FENCE_ROWS..(last * FENCE_ROWS).min(self.row_count)
    }
}

/// A row as it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredRow<'a>(&'a [u8; ROW_BYTES]);

impl StoredRow<'_> {
    /// Returns the chunk.
    pub(super) fn id(self) -> ChunkId {
        let (id, _) = self.0.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
        ChunkId::from_bytes(*id)
    }

    /// Returns the pack by its place in the segment's list, whatever that has.
    pub(super) fn pack(self) -> u32 {
        self.number(32)
    }

    /// Returns the chunk's length, whatever it says.
    pub(super) fn length(self) -> u32 {
        self.number(48)
    }

    /// Returns where the chunk lies, in a segment of so many packs.
    ///
    /// # Errors
    ///
    /// Fails on a row that cannot be.
    pub(super) fn location(self, packs: usize) -> io::Result<Location> {
        let (pack, frame_offset, stored) = (self.pack(), self.number(36), self.number(40));
        let (offset, length) = (self.number(44), self.length());
        if pack as usize >= packs {
            return Err(broken("a row names a pack that is not listed"));
        }
        let codec = if stored & RAW_BIT == 0 { Codec::Zstd } else { Codec::Raw };
        let frame_length = stored & !RAW_BIT;
        let end = offset.checked_add(length).filter(|end| *end as usize <= MAX_CHUNK);
        if end.is_none() || frame_length as usize > MAX_CHUNK {
            return Err(broken("a row names a frame that is too long"));
        }
        Ok(Location { pack, frame_offset, frame_length, codec, offset, length })
    }

    fn number(self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    }
}

/// Reads how long the head is: header, packs, filter, fences.
fn head_length(header: &[u8; HEADER_BYTES]) -> io::Result<usize> {
    let mut reader = Reader::new(header);
    if reader.array::<8>()? != *MAGIC {
        return Err(broken("it does not begin as a segment of the index does"));
    }
    if reader.array::<4>()? != [VERSION, 0, 0, 0] {
        return Err(broken("its version is unknown"));
    }
    let (packs, rows, filter) = (reader.u32()?, reader.u64()?, reader.u32()?);
    let fences = rows.div_ceil(FENCE_ROWS as u64);
    let length = u128::from(packs) * PACK_BYTES as u128 + u128::from(filter) + u128::from(fences) * 8;
    usize::try_from(length + HEADER_BYTES as u128)
        .ok()
        .filter(|_| rows < 1 << 40)
        .ok_or_else(|| broken("it says that it is too long"))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn id(n: u64) -> ChunkId {
        ChunkId::of(&n.to_le_bytes())
    }

    fn packs(n: u32) -> Vec<PackInfo> {
        let session = SessionId::generate();
        (0..n)
            .map(|number| {
                let name = WrittenName { session, number, digest: [7; 8] };
                PackInfo { pack: PackName { kind: PackKind::Data, name }, size: 1 << 20, table_length: 999 }
            })
            .collect()
    }

    fn row(n: u64, pack: u32) -> Row {
        let n32 = u32::try_from(n).unwrap();
        let codec = if n.is_multiple_of(2) { Codec::Raw } else { Codec::Zstd };
        (id(n), Location { pack, frame_offset: n32, frame_length: 500 + n32, codec, offset: 3, length: 9 })
    }

    fn both_ways(bytes: &[u8]) -> [Segment; 2] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        [Segment::open(bytes).unwrap(), Segment::open_file(file).unwrap()]
    }

    #[test]
    fn rows_are_found_and_absent_ones_are_not() {
        for rows in [0_u64, 1, 63, 64, 65, 20_000] {
            let bytes = encode(&packs(4), (0..rows).map(|n| row(n, (n % 4) as u32)).collect());
            for segment in both_ways(&bytes) {
                assert_eq!(segment.len() as u64, rows);
                for n in (0..rows).step_by(7) {
                    assert_eq!(segment.find(&id(n)).unwrap(), [row(n, (n % 4) as u32).1]);
                }
                for n in rows..rows + 200 {
                    assert!(segment.find(&id(n)).unwrap().is_empty());
                }
            }
        }
    }

    #[test]
    fn a_chunk_in_two_packs_is_found_in_both() {
        let bytes = encode(&packs(2), vec![row(5, 1), row(5, 0), row(5, 0)]);
        assert_eq!(Segment::open(&bytes).unwrap().find(&id(5)).unwrap(), [row(5, 0).1, row(5, 1).1]);
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_seen() {
        let bytes = encode(&packs(2), (0..100).map(|n| row(n, 1)).collect());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Segment::open(&damaged).is_err(), "byte {at}");
        }
        for end in (0..bytes.len()).step_by(11) {
            assert!(Segment::open(&bytes[..end]).is_err());
        }
    }

    /// Digests have no key, so whoever can write to a store can make ones that match.
    fn sealed(bytes: &mut [u8]) {
        let (packs, rows) = (u32_at(bytes, 12), u64::from(u32_at(bytes, 16)));
        let head = HEADER_BYTES
            + packs as usize * PACK_BYTES
            + u32_at(bytes, 24) as usize
            + rows.div_ceil(FENCE_ROWS as u64) as usize * 8;
        let digest = head_digest(&bytes[..head]);
        bytes[HEADER_BYTES - DIGEST_BYTES..HEADER_BYTES].copy_from_slice(digest.as_bytes());
        let end = bytes.len() - DIGEST_BYTES;
        let digest = Sha256Digest::of(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_bytes());
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
    }

    /// An empty filter made a look-up divide by zero.
    #[test]
    fn a_segment_without_a_filter_is_refused() {
        let mut bytes = encode(&packs(1), vec![row(1, 0)]);
        let filter = u32_at(&bytes, 24) as usize;
        let at = HEADER_BYTES + PACK_BYTES;
        bytes.drain(at..at + filter);
        bytes[24..28].fill(0);
        sealed(&mut bytes);
        assert!(Segment::open(&bytes).is_err());
    }

    /// Fences that go down made the end of what a look-up reads come before its beginning.
    #[test]
    fn fences_out_of_order_are_refused() {
        let mut bytes = encode(&packs(1), (0..300).map(|n| row(n, 0)).collect());
        let at = HEADER_BYTES + PACK_BYTES + u32_at(&bytes, 24) as usize;
        bytes[at..at + 40].rotate_left(8);
        sealed(&mut bytes);
        assert!(Segment::open(&bytes).is_err());
    }

    /// A reader reserved what a row said of its frame, up to 2 GiB.
    #[test]
    fn a_row_that_says_too_much_is_refused() {
        let far = Location { frame_length: 1 << 30, ..row(1, 0).1 };
        let long = Location { length: 1 << 30, ..row(1, 0).1 };
        let beyond = Location { offset: u32::MAX, ..row(1, 0).1 };
        for location in [far, long, beyond] {
            let bytes = encode(&packs(1), vec![(id(1), location)]);
            assert!(Segment::open(&bytes).unwrap().find(&id(1)).is_err(), "{location:?}");
        }
    }

    #[test]
    fn the_filter_lets_few_absent_chunks_pass() {
        let bytes = encode(&packs(1), (0..10_000).map(|n| row(n, 0)).collect());
        let segment = Segment::open(&bytes).unwrap();
        let bits = segment.filter.len() as u64 * 8;
        let passing = (10_000..20_000_u64)
            .filter(|n| {
                probes(&id(*n), bits).all(|bit| segment.filter[(bit / 8) as usize] & (1 << (bit % 8)) != 0)
            })
            .count();
        assert!(passing < 300, "{passing} of 10,000");
    }
}
