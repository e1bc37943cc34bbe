//! An archive as entries with their data, one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use crate::store::{Entry, EntryKind, EntryPath, Extent};

use super::compression::{ArchiveFormat, Unpacked};
use super::error::ArchiveError;
use super::header::{BLOCK, Header, SIZE, until_nul};
use super::member::{Extensions, Member, SparseMap};
use super::pax;
use super::sparse::{self, LineMap};

/// 16 MiB of unpacked bytes after the end marker are read, for a checksum behind them and a writer that waits; the rest is left.
const MAX_AFTER_END: u64 = 16 << 20;

/// 64 KiB of records for all entries: they are applied to each, so that a few bytes more cost much time.
const MAX_GLOBAL_BYTES: usize = 64 << 10;

/// How much an archive may ask for before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// The most entries, extension headers for all entries counted as such.
    pub max_entries: u64,
    /// The most bytes of data in all, as the headers declare them. Holes do not count.
    pub max_bytes: u64,
    /// The most bytes in a path, and in a link's target.
    pub max_path_bytes: usize,
    /// The most bytes of extension records before one entry; those that hold for all may have 64 KiB of it.
    pub max_metadata_bytes: usize,
    /// The most components in a path.
    pub max_depth: usize,
}

impl Default for ArchiveLimits {
    /// Grants any number of entries and bytes, 1 MiB of records, and paths as long as a workspace may have, 1,024 deep.
    fn default() -> Self {
        Self {
            max_entries: u64::MAX,
            max_bytes: u64::MAX,
            max_path_bytes: EntryPath::MAX_BYTES,
            max_metadata_bytes: 1 << 20,
            max_depth: 1024,
        }
    }
}

/// One entry on its way out of an archive.
pub struct ArchivedEntry<'a> {
    /// The entry. A file's content is empty, to be filled by who reads the data; its size and extents are right.
    ///
    /// Of a hard link, the attributes are what its own header says: some programs leave out the extended attributes there.
    pub entry: Entry,
    /// The file's data, holes left out; empty for everything else. What is not read of it is skipped. Its errors carry an
    /// [`ArchiveError`] inside.
    pub data: &'a mut dyn Read,
}

impl fmt::Debug for ArchivedEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedEntry").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// How an archive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveEnd {
    /// It was not read to its end.
    #[default]
    Unread,
    /// With the end marker, two blocks of zeros.
    Marked,
    /// With one block of zeros.
    HalfMarked,
    /// After a whole entry, without a marker: some programs leave it out, and a transfer that broke at this very place looks
    /// the same.
    Unmarked,
}

/// What was noticed while reading an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// How it is compressed.
    pub format: ArchiveFormat,
    /// How many entries were handed out.
    pub entries: u64,
    /// How many bytes of data the headers declared, extension records included.
    pub data_bytes: u64,
    /// How many names began with a slash, which was taken away.
    pub absolute_names: u64,
    /// How many names began with `./`, which was taken away.
    pub dotted_names: u64,
    /// How many entries were left out because they are hard links to themselves.
    pub self_links: u64,
    /// How many entries of an unknown kind were read as files.
    pub unknown_kinds: u64,
    /// How many entries of ACLs were left out because their names are not known.
    pub unknown_acl_names: u64,
    /// How it ended.
    pub end: ArchiveEnd,
}

/// Hands `visit` the entries of an archive in their order, plain or compressed with gzip or zstd; duplicates as they come.
///
/// Memory is bounded by the limits and does not grow with the archive.
///
/// # Errors
///
/// Fails with what `visit` fails with, and on an archive that is refused; entries before that were handed out.
pub fn read_archive<R: Read, E: From<ArchiveError>>(
    stream: R,
    limits: ArchiveLimits,
    visit: &mut dyn FnMut(ArchivedEntry<'_>) -> Result<(), E>,
) -> Result<ArchiveSummary, E> {
    let mut reader = ArchiveReader::new(stream, limits);
    while let Some(entry) = reader.next_entry()? {
        visit(entry)?;
    }
    Ok(reader.summary())
}

/// Reads an archive in memory with small limits, data included.
///
/// # Errors
///
/// Fails on an archive that is refused. It must never do anything else: this is where a fuzzer begins.
pub fn read_untrusted(bytes: &[u8]) -> Result<ArchiveSummary, ArchiveError> {
    let limits = ArchiveLimits {
        max_entries: 1000,
        max_bytes: 4 << 20,
        max_path_bytes: 4096,
        max_metadata_bytes: 64 << 10,
        max_depth: 64,
    };
    let mut reader = ArchiveReader::new(bytes, limits);
    while let Some(entry) = reader.next_entry()? {
        // A failure of the data is found again by the next step.
        if io::copy(entry.data, &mut io::sink()).is_err() {
            continue;
        }
    }
    Ok(reader.summary())
}

/// Reads an archive entry by entry, without seeking. After an error there are no more entries.
pub struct ArchiveReader<R: Read> {
    body: Body<R>,
    limits: ArchiveLimits,
    globals: BTreeMap<Vec<u8>, Vec<u8>>,
    global_bytes: usize,
    members: u64,
    summary: ArchiveSummary,
    done: bool,
}

impl<R: Read> fmt::Debug for ArchiveReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReader")
            .field("limits", &self.limits)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

impl<R: Read> ArchiveReader<R> {
    /// Starts; nothing is read yet.
    pub fn new(stream: R, limits: ArchiveLimits) -> Self {
        let summary = ArchiveSummary {
            format: ArchiveFormat::Tar,
            entries: 0,
            data_bytes: 0,
            absolute_names: 0,
            dotted_names: 0,
            self_links: 0,
            unknown_kinds: 0,
            unknown_acl_names: 0,
            end: ArchiveEnd::Unread,
        };
        let body = Body {
            source: Unpacked::new(stream),
            position: 0,
            remaining: 0,
            padding: 0,
            place: String::new(),
        };
        Self { body, limits, globals: BTreeMap::new(), global_bytes: 0, members: 0, summary, done: false }
    }

    /// Returns the next entry, `None` after the last one. What was not read of the one before is skipped.
    ///
    /// # Errors
    ///
    /// Fails on an archive that is refused, and where the stream fails.
    pub fn next_entry(&mut self) -> Result<Option<ArchivedEntry<'_>>, ArchiveError> {
        if self.done {
            return Ok(None);
        }
        self.done = true;
        let Some(entry) = self.advance()? else { return Ok(None) };
        self.done = false;
        self.summary.entries += 1;
        Ok(Some(ArchivedEntry { entry, data: &mut self.body }))
    }

    /// Returns what was noticed so far; complete once there are no more entries.
    #[must_use]
    pub fn summary(&self) -> ArchiveSummary {
        ArchiveSummary { format: self.body.source.format(), ..self.summary }
    }

    /// Reads up to the data of the next entry.
    fn advance(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut before = Extensions::default();
        loop {
            self.body.skip()?;
            self.body.place = format!("the header at byte {}", self.body.position);
            let header = self.body.block()?.map(Header);
            let Some(header) = header.as_ref().filter(|header| !header.is_zero()) else {
                if !before.is_empty() {
                    return Err(self.malformed("nothing follows the extension header before it"));
                }
                self.end(header.is_some())?;
                return Ok(None);
            };
            if !header.checksum_fits() {
                let first = self.body.position == u64::try_from(BLOCK).unwrap_or_default();
                return Err(self.malformed(if first {
                    "this is no tar archive: its first checksum is wrong"
                } else {
                    "its checksum is wrong"
                }));
            }
            match header.kind() {
                b'x' | b'X' => {
                    let data = self.extension(header, self.limits.max_metadata_bytes)?;
                    let records = pax::records(&data).map_err(|problem| self.malformed(problem))?;
                    if before.pax.replace(records).is_some() {
                        return Err(self.malformed("a second PAX header for the same entry"));
                    }
                }
                b'g' => {
                    self.count_member()?;
                    self.global(header)?;
                }
                b'L' => {
                    let name = self.long_text(header)?;
                    if before.long_name.replace(name).is_some() {
                        return Err(self.malformed("a second long name for the same entry"));
                    }
                }
                b'K' => {
                    let link = self.long_text(header)?;
                    if before.long_link.replace(link).is_some() {
                        return Err(self.malformed("a second long link for the same entry"));
                    }
                }
                // A volume's label.
                b'V' => {
                    if !before.is_empty() {
                        return Err(self.malformed("an extension header before a volume's label"));
                    }
                    self.count_member()?;
                    let size = self.stated_size(header)?;
                    self.declare(size)?;
                }
                // What these say about the entries around them would be lost, and their data taken for a file's.
                kind @ (b'M' | b'N' | b'A' | b'E' | b'I') => {
                    let what = match kind {
                        b'M' => "the continuation of a file from another volume",
                        b'N' => "an old GNU list of long names",
                        b'A' => "a Solaris ACL",
                        b'E' => "a Solaris extended attribute",
                        _ => "an inode's metadata",
                    };
                    return Err(ArchiveError::Unsupported {
                        place: self.body.place.clone(),
                        what: what.to_owned(),
                    });
                }
                _ => {
                    self.count_member()?;
                    let before = std::mem::take(&mut before);
                    if let Some(entry) = self.entry(header, before)? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }

    /// Makes the entry of a header, and brings the stream to its data. `None` where the entry is left out.
    fn entry(&mut self, header: &Header, before: Extensions) -> Result<Option<Entry>, ArchiveError> {
        let member =
            Member::new(header, before, &self.globals, &self.limits, &self.body.place, &mut self.summary)?;
        let Member { mut entry, size, sparse, is_self_link } = member;
        self.body.place = format!("`{}`", entry.path);
        let found = match sparse {
            Some(SparseMap::Old(mut old)) => {
                while old.goes_on {
                    let block = self.body.block()?.ok_or_else(|| self.body.cut_off())?;
                    old.extend(&block).map_err(|problem| self.malformed(problem))?;
                }
                self.declare(size)?;
                Some((old.size, old.map))
            }
            Some(SparseMap::Records(records)) => {
                self.declare(size)?;
                let map = match records.map {
                    Some(map) => map,
                    None => self.line_map()?,
                };
                Some((records.size, map))
            }
            None => {
                self.declare(size)?;
                None
            }
        };
        if let Some((real, map)) = found {
            let extents = self.extents(real, &map)?;
            if let EntryKind::File { size, extents: slot, .. } = &mut entry.kind {
                (*size, *slot) = (real, extents);
            }
        }
        if !matches!(entry.kind, EntryKind::File { .. }) {
            // A GNU directory lists its names here.
            self.body.skip()?;
        }
        if is_self_link {
            self.summary.self_links += 1;
            return Ok(None);
        }
        Ok(Some(entry))
    }

    fn extents(&self, size: u64, map: &[u64]) -> Result<Option<Vec<Extent>>, ArchiveError> {
        if i64::try_from(size).is_err() {
            return Err(self.malformed(format!("a size of {size} bytes is out of range")));
        }
        sparse::extents(map, size, self.body.remaining).map_err(|problem| self.malformed(problem))
    }

    /// Reads the map that stands before the data.
    fn line_map(&mut self) -> Result<Vec<u64>, ArchiveError> {
        let mut lines = LineMap::default();
        let mut block = [0; BLOCK];
        loop {
            let full = u64::try_from(BLOCK).is_ok_and(|block| block <= self.body.remaining);
            if !full {
                return Err(self.malformed("the sparse map is longer than the data"));
            }
            self.body.read_exact(&mut block).map_err(|error| self.body.explain(error))?;
            if let Some(map) = lines.extend(&block).map_err(|problem| self.malformed(problem))? {
                return Ok(map);
            }
        }
    }

    /// Reads records that hold for all entries after them.
    fn global(&mut self, header: &Header) -> Result<(), ArchiveError> {
        let limit = self.limits.max_metadata_bytes.min(MAX_GLOBAL_BYTES);
        let data = self.extension(header, limit)?;
        for record in pax::records(&data).map_err(|problem| self.malformed(problem))? {
            // Some programs would apply it to every entry and some to none, and disagree on where the entries begin.
            if record.key == b"size" || record.key.starts_with(b"GNU.sparse.") {
                let key = record.key.escape_ascii();
                return Err(self.malformed(format!("`{key}` cannot hold for all entries")));
            }
            self.global_bytes += record.key.len() + record.value.len();
            if let Some(old) = self.globals.insert(record.key.clone(), record.value) {
                self.global_bytes -= record.key.len() + old.len();
            }
            if self.global_bytes > limit {
                return Err(self.metadata_limit(limit));
            }
        }
        Ok(())
    }

    /// Reads the text of a GNU long name: it ends with its first NUL, and nothing but NULs may follow.
    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let mut data = self.extension(header, self.limits.max_path_bytes.saturating_add(BLOCK))?;
        let length = until_nul(&data).len();
        if length == 0 || data.iter().skip(length).any(|byte| *byte != 0) {
            return Err(self.malformed("a long name that is empty or goes on after its end"));
        }
        data.truncate(length);
        Ok(data)
    }

    /// Reads the data of an extension header. Its size is what its own header says, whatever a PAX header before it says.
    fn extension(&mut self, header: &Header, limit: usize) -> Result<Vec<u8>, ArchiveError> {
        let size = self.stated_size(header)?;
        let length = usize::try_from(size)
            .ok()
            .filter(|size| *size <= limit)
            .ok_or_else(|| self.metadata_limit(limit))?;
        self.declare(size)?;
        let mut data = vec![0; length];
        self.body.read_exact(&mut data).map_err(|error| self.body.explain(error))?;
        self.body.skip()?;
        Ok(data)
    }

    fn stated_size(&self, header: &Header) -> Result<u64, ArchiveError> {
        let size = header.number(SIZE).map_err(|error| self.malformed(format!("its size {error}")))?;
        u64::try_from(size.unwrap_or_default()).map_err(|_reason| self.malformed("its size is negative"))
    }

    /// Counts `size` bytes of data that follow, and makes them the body.
    fn declare(&mut self, size: u64) -> Result<(), ArchiveError> {
        self.summary.data_bytes = self.summary.data_bytes.saturating_add(size);
        if self.summary.data_bytes > self.limits.max_bytes {
            return Err(self.limit("bytes of data in all", self.limits.max_bytes));
        }
        self.body.remaining = size;
        self.body.padding = size.next_multiple_of(512) - size;
        Ok(())
    }

    fn count_member(&mut self) -> Result<(), ArchiveError> {
        self.members = self.members.saturating_add(1);
        if self.members > self.limits.max_entries {
            return Err(self.limit("entries", self.limits.max_entries));
        }
        Ok(())
    }

    /// Reads what follows the last entry: the second half of the marker, and whatever stands behind it.
    fn end(&mut self, marked: bool) -> Result<(), ArchiveError> {
        if self.body.position == 0 {
            return Err(ArchiveError::Empty);
        }
        "the end marker".clone_into(&mut self.body.place);
        self.summary.end = ArchiveEnd::Unmarked;
        if marked {
            // What follows one block of zeros is no entry, with or without the second: every tar stops here.
            let mut second = [0; BLOCK];
            let whole = self.body.fill(&mut second)? == BLOCK && Header(second).is_zero();
            self.summary.end = if whole { ArchiveEnd::Marked } else { ArchiveEnd::HalfMarked };
        }
        let mut left = MAX_AFTER_END;
        self.body.discard(&mut left)
    }

    fn malformed(&self, problem: impl Into<String>) -> ArchiveError {
        ArchiveError::malformed(&self.body.place, problem)
    }

    fn limit(&self, what: &'static str, limit: u64) -> ArchiveError {
        ArchiveError::Limit { place: self.body.place.clone(), what, limit }
    }

    fn metadata_limit(&self, limit: usize) -> ArchiveError {
        self.limit("bytes of names and attributes", u64::try_from(limit).unwrap_or(u64::MAX))
    }
}

/// The unpacked stream, and how much of it belongs to the entry at hand.
struct Body<R: Read> {
    source: Unpacked<R>,
    /// Bytes read so far.
    position: u64,
    /// Bytes of data that are left.
    remaining: u64,
    /// Bytes up to the next block after that.
    padding: u64,
    /// What is being read, for messages.
    place: String,
}

impl<R: Read> Body<R> {
    fn cut_off(&self) -> ArchiveError {
        ArchiveError::CutOff { place: self.place.clone() }
    }

    /// Returns the archive's error inside what [`Read`] had to wrap.
    fn explain(&self, error: io::Error) -> ArchiveError {
        match error.downcast::<ArchiveError>() {
            Ok(inner) => inner,
            Err(error) => self.source.explain(error, &self.place),
        }
    }

    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        loop {
            match self.source.read(buffer) {
                Ok(count) => {
                    self.position = self.position.saturating_add(u64::try_from(count).unwrap_or_default());
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.source.explain(error, &self.place)),
            }
        }
    }

    /// Reads a block; `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.cut_off()),
        }
    }

    /// Reads as much of a block as there is.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.pull(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// Skips what is left of the data, and the padding.
    fn skip(&mut self) -> Result<(), ArchiveError> {
        let mut left = self.remaining.saturating_add(self.padding);
        (self.remaining, self.padding) = (0, 0);
        self.discard(&mut left)?;
        if left > 0 { Err(self.cut_off()) } else { Ok(()) }
    }

    /// Reads `left` bytes and forgets them; stops earlier where the stream ends.
    fn discard(&mut self, left: &mut u64) -> Result<(), ArchiveError> {
        let mut buffer = [0; 16 << 10];
        while *left > 0 {
            let wanted = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let count = self.pull(buffer.get_mut(..wanted).unwrap_or_default())?;
            if count == 0 {
                break;
            }
            *left -= u64::try_from(count).unwrap_or_default();
        }
        Ok(())
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let wrap = |error: ArchiveError| {
            let kind = match &error {
                ArchiveError::CutOff { .. } => io::ErrorKind::UnexpectedEof,
                ArchiveError::Read(source) => source.kind(),
                _ => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, error)
        };
        match self.pull(buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) => Err(wrap(self.cut_off())),
            Ok(count) => {
                self.remaining -= u64::try_from(count).unwrap_or_default();
                Ok(count)
            }
            Err(error) => Err(wrap(error)),
        }
    }
}
