//! What this host remembers of a directory that it saved or restored: which entries had which content, and by what one sees that
//! they still have it. It proves content, never that the store still has it.
//!
//! The file is the manifest's chunks, each with what the kernel said of its entries and in which packs their chunks lay, and a
//! table of the packs at its end. It is disposable: every block has a checksum, and whatever is wrong means reading the files.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::tree::{Stat, StatKind};
use crate::base::{ChunkId, RevisionId, SessionId, Sha256Digest, StoreId};
use crate::store::manifest::decode_chunk;
use crate::store::pack::{PackInfo, PackKind, PackName, WrittenName};
use crate::store::view::View;
use crate::store::wire::{Reader, put_number, put_run, put_signed};
use crate::store::{ChunkRef, Entry, FileTime};

const MAGIC: &[u8; 8] = b"KILNSTA1";
/// A file system stamps times in steps of up to this: what changed within it before the last look may have changed after it, too.
const RACY_NANOSECONDS: i128 = 20_000_000;
/// The same where a stamp has no part of a second: FAT counts in steps of 2 s.
const COARSE_RACY_NANOSECONDS: i128 = 2_000_000_000;
/// No block is longer than this, in bytes: a manifest chunk and what is known of its entries.
const MAX_BLOCK: u32 = 64 << 20;

/// Which directory a state is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StateKey {
    /// The store.
    pub(super) store: StoreId,
    /// The device of the directory.
    pub(super) dev: u64,
    /// Its inode.
    pub(super) ino: u64,
}

impl StateKey {
    /// Returns where the state is kept.
    pub(super) fn path(&self, state_dir: &Path) -> PathBuf {
        let name = format!("{:x}-{:x}.state", self.dev, self.ino);
        state_dir.join("workspaces").join(self.store.to_string()).join(name)
    }
}

/// What is known of an entry beside what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// When it changed last, by the file system's clock.
    pub(super) ctime: FileTime,
    /// Its inode.
    pub(super) ino: u64,
    /// Its device.
    pub(super) dev: u64,
    /// The packs that hold its chunks, by their numbers in the state.
    pub(super) packs: Vec<u32>,
}

impl Known {
    /// Returns what is known of an entry.
    pub(super) fn of(stat: &Stat, packs: Vec<u32>) -> Self {
        Self { ctime: stat.ctime, ino: stat.ino, dev: stat.dev, packs }
    }

    /// Returns whether the entry that this is known of is as it was, as far as the kernel's word goes. `time` is when the state was
    /// begun.
    pub(super) fn is_still(&self, entry: &Entry, stat: &Stat, time: FileTime) -> bool {
        let is_same_size = match stat.kind {
            StatKind::File => {
                entry.size() == stat.size || matches!(entry.kind, crate::store::EntryKind::HardLink { .. })
            }
            StatKind::Directory
            | StatKind::Symlink
            | StatKind::CharDevice
            | StatKind::BlockDevice
            | StatKind::Fifo
            | StatKind::Socket => true,
        };
        let margin = if self.ctime.nanoseconds == 0 { COARSE_RACY_NANOSECONDS } else { RACY_NANOSECONDS };
        is_same_size
            && entry.attributes.mtime == stat.mtime
            && self.ctime == stat.ctime
            && self.ino == stat.ino
            && self.dev == stat.dev
            && nanoseconds(self.ctime) < nanoseconds(time) - margin
    }
}

/// A manifest chunk, and what is known of its entries.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The chunk.
    pub(super) chunk: ChunkRef,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether the chunk ended where the paths said so, and not with the manifest.
    pub(super) has_cut: bool,
    /// Its entries, once somebody asked for them.
    entries: OnceLock<Vec<Entry>>,
    /// What is known of them, in the same order.
    pub(super) known: Vec<Known>,
}

impl Block {
    /// Returns its entries; none where its bytes are not what they should be.
    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.get_or_init(|| {
            let entries = decode_chunk(&self.bytes).unwrap_or_default();
            if entries.len() == self.known.len() { entries } else { Vec::new() }
        })
    }

    /// Returns whether an entry is as it was, as far as the kernel's word goes. `time` is when the state was begun.
    pub(super) fn is_unchanged(&self, at: usize, stat: &Stat, time: FileTime) -> bool {
        match (self.entries().get(at), self.known.get(at)) {
            (Some(entry), Some(known)) => known.is_still(entry, stat, time),
            _ => false,
        }
    }
}

fn nanoseconds(time: FileTime) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}

/// Reads a state, block by block.
#[derive(Debug)]
pub(super) struct StateReader {
    file: BufReader<File>,
    blocks_end: u64,
    position: u64,
    time: FileTime,
    names: Vec<PackName>,
    /// For each pack of the state its number in the view; `None` for one that may not be relied on.
    numbers: Vec<Option<u32>>,
}

impl StateReader {
    /// Opens the state of a directory; `None` when there is none that can be used. Without a view no pack may be relied on.
    pub(super) fn open(path: &Path, key: &StateKey, view: Option<&View>) -> Option<Self> {
        Self::try_open(path, key, view).ok().flatten()
    }

    fn try_open(path: &Path, key: &StateKey, view: Option<&View>) -> io::Result<Option<Self>> {
        let mut file = BufReader::with_capacity(256 << 10, File::open(path)?);
        let mut header = [0; 8 + 16 + 8 + 8 + 8 + 4 + 16];
        file.read_exact(&mut header)?;
        let mut reader = Reader::new(&header);
        let is_ours = reader.array::<8>()? == *MAGIC
            && reader.array::<16>()? == key.store.to_bytes()
            && reader.u64()? == key.dev
            && reader.u64()? == key.ino;
        if !is_ours {
            return Ok(None);
        }
        let time = FileTime { seconds: reader.u64()?.cast_signed(), nanoseconds: reader.u32()? };
        let size = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(size.saturating_sub(16)))?;
        let mut end = [0; 16];
        file.read_exact(&mut end)?;
        let mut reader = Reader::new(&end);
        let (blocks_end, magic) = (reader.u64()?, reader.array::<8>()?);
        if magic != *MAGIC || blocks_end > size {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(blocks_end))?;
        let mut table = Vec::new();
        (&mut file).take(size - 16 - blocks_end).read_to_end(&mut table)?;
        let Some(names) = read_packs(&table)? else { return Ok(None) };
        let numbers = names.iter().map(|pack| view.and_then(|view| view.number_of(pack))).collect();
        let position = header.len() as u64;
        file.seek(SeekFrom::Start(position))?;
        Ok(Some(Self { file, blocks_end, position, time, names, numbers }))
    }

    /// Returns the time, by the file system's clock, when what is known began to be gathered.
    pub(super) fn time(&self) -> FileTime {
        self.time
    }

    /// Returns the numbers in the view of an entry's packs; `None` when one of them may not be relied on.
    pub(super) fn numbers_of(&self, known: &Known) -> Option<Vec<u32>> {
        known.packs.iter().map(|pack| self.numbers.get(*pack as usize).copied().flatten()).collect()
    }

    /// Returns the names of an entry's packs, whether they may be relied on or not.
    pub(super) fn packs_of(&self, known: &Known) -> Option<Vec<PackName>> {
        known.packs.iter().map(|pack| self.names.get(*pack as usize).copied()).collect()
    }

    /// Returns the next block; `None` at the end, and from the first one on that is damaged.
    pub(super) fn next_block(&mut self) -> Option<Block> {
        if self.position >= self.blocks_end {
            return None;
        }
        match self.read_block() {
            Ok(block) => Some(block),
            Err(_damaged) => {
                self.position = self.blocks_end;
                None
            }
        }
    }

    fn read_block(&mut self) -> io::Result<Block> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_BLOCK {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length as usize];
        let mut checksum = [0; 8];
        self.file.read_exact(&mut payload)?;
        self.file.read_exact(&mut checksum)?;
        self.position += u64::from(length) + 12;
        if Sha256Digest::of(&payload).as_bytes().first_chunk() != Some(&checksum) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        decode_block(&payload)
    }
}

fn decode_block(payload: &[u8]) -> io::Result<Block> {
    let mut reader = Reader::new(payload);
    let chunk = ChunkRef { id: ChunkId::from_bytes(reader.array()?), length: reader.u32()? };
    let has_cut = reader.u8()? == 1;
    let bytes = reader.run()?.to_vec();
    let mut known = Vec::new();
    while !reader.is_empty() {
        let ctime = FileTime { seconds: reader.signed()?, nanoseconds: reader.small()? };
        let (ino, dev) = (reader.number()?, reader.number()?);
        let packs = (0..reader.count(1)?).map(|_| reader.small()).collect::<io::Result<_>>()?;
        known.push(Known { ctime, ino, dev, packs });
    }
    Ok(Block { chunk, bytes, has_cut, entries: OnceLock::new(), known })
}

fn read_packs(table: &[u8]) -> io::Result<Option<Vec<PackName>>> {
    let Some((body, checksum)) = table.len().checked_sub(8).and_then(|at| table.split_at_checked(at)) else {
        return Ok(None);
    };
    if Sha256Digest::of(body).as_bytes().get(..8) != Some(checksum) {
        return Ok(None);
    }
    let mut reader = Reader::new(body);
    let count = reader.count(29)?;
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(kind) = PackKind::from_number(reader.u8()?) else { return Ok(None) };
        let name = WrittenName {
            session: SessionId::from_bytes(reader.array()?),
            number: reader.u32()?,
            digest: reader.array()?,
        };
        names.push(PackName { kind, name });
    }
    Ok(Some(names))
}

/// Writes a state beside the old one, which it replaces once it is whole.
#[derive(Debug)]
pub(super) struct StateWriter {
    file: BufWriter<tempfile::NamedTempFile>,
    path: PathBuf,
    position: u64,
}

impl StateWriter {
    /// Begins a state. `time` is the file system's clock before the first entry was looked at.
    pub(super) fn begin(path: PathBuf, key: &StateKey, time: FileTime) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(directory)?;
        let mut writer = Self { file: BufWriter::with_capacity(256 << 10, file), path, position: 0 };
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&key.store.to_bytes());
        header.extend_from_slice(&key.dev.to_le_bytes());
        header.extend_from_slice(&key.ino.to_le_bytes());
        header.extend_from_slice(&time.seconds.to_le_bytes());
        header.extend_from_slice(&time.nanoseconds.to_le_bytes());
        header.extend_from_slice(&[0; 16]);
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends a manifest chunk and what is known of its entries.
    pub(super) fn push(
        &mut self,
        chunk: ChunkRef,
        bytes: &[u8],
        has_cut: bool,
        known: &[Known],
    ) -> io::Result<()> {
        let mut payload = Vec::with_capacity(bytes.len() + known.len() * 24 + 48);
        payload.extend_from_slice(chunk.id.as_bytes());
        payload.extend_from_slice(&chunk.length.to_le_bytes());
        payload.push(u8::from(has_cut));
        put_run(&mut payload, bytes);
        for Known { ctime, ino, dev, packs } in known {
            put_signed(&mut payload, ctime.seconds);
            put_number(&mut payload, u64::from(ctime.nanoseconds));
            put_number(&mut payload, *ino);
            put_number(&mut payload, *dev);
            put_number(&mut payload, packs.len() as u64);
            for pack in packs {
                put_number(&mut payload, u64::from(*pack));
            }
        }
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.write(&length.to_le_bytes())?;
        self.write(&payload)?;
        let digest = Sha256Digest::of(&payload);
        self.write(digest.as_bytes().get(..8).unwrap_or_default())
    }

    /// Writes the table of packs, whose numbers the blocks used, and takes the old state's place. Nothing is synced: a state that
    /// a crash tears is not believed.
    pub(super) fn finish(mut self, revision: RevisionId, packs: &[PackInfo]) -> io::Result<()> {
        let blocks_end = self.position;
        let mut table = Vec::new();
        put_number(&mut table, packs.len() as u64);
        for PackInfo { pack, .. } in packs {
            table.push(pack.kind.number());
            table.extend_from_slice(&pack.name.session.to_bytes());
            table.extend_from_slice(&pack.name.number.to_le_bytes());
            table.extend_from_slice(&pack.name.digest);
        }
        let digest = Sha256Digest::of(&table);
        table.extend_from_slice(digest.as_bytes().get(..8).unwrap_or_default());
        self.write(&table)?;
        self.write(&blocks_end.to_le_bytes())?;
        self.write(MAGIC)?;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file_mut().seek(SeekFrom::Start(8 + 16 + 8 + 8 + 8 + 4))?;
        file.as_file_mut().write_all(&revision.to_bytes())?;
        file.persist(&self.path).map_err(|failed| failed.error)?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Attributes, EntryKind, EntryPath};

    /// FAT counts in steps of 2 s: a file that was changed a second after the last look had the same stamp.
    #[test]
    fn a_coarse_stamp_is_trusted_only_after_its_step() {
        let at = |seconds, nanoseconds| FileTime { seconds, nanoseconds };
        let is_still = |ctime: FileTime, time| {
            let known = Known { ctime, ino: 1, dev: 1, packs: Vec::new() };
            let stat = Stat {
                kind: StatKind::Fifo,
                mode: 0,
                uid: 0,
                gid: 0,
                size: 0,
                blocks_512: 0,
                mtime: FileTime::default(),
                ctime,
                ino: 1,
                dev: 1,
                nlink: 1,
                rdev: (0, 0),
            };
            let path = EntryPath::new(b"x".as_slice()).unwrap();
            let entry = Entry { path, kind: EntryKind::Fifo, attributes: Attributes::default() };
            known.is_still(&entry, &stat, time)
        };
        assert!(!is_still(at(10, 0), at(11, 999_999_999)));
        assert!(!is_still(at(10, 0), at(12, 0)));
        assert!(is_still(at(10, 0), at(12, 1)));
        assert!(!is_still(at(10, 1), at(10, 20_000_001)));
        assert!(is_still(at(10, 1), at(10, 20_000_002)));
    }
}
