//! Entries as a PAX archive, the same bytes for the same entries.

use std::fmt;
use std::io::{self, Read, Write};

use crate::store::{Entry, EntryKind, Extent};

use super::header::{
    BLOCK, Field, GID, GROUP, Header, LINK, MAJOR, MINOR, MODE, MTIME, NAME, PREFIX, SIZE, UID, USER, largest,
};
use super::pax::{AclForm, RecordWriter};
use super::sparse;

/// Writes entries as a tar stream that GNU tar, bsdtar and every program that knows PAX read.
///
/// A header alone where it says everything, PAX records before it where it does not; files with holes in GNU's sparse
/// format 1.0; ACLs as text with numbers for names, unless asked for as attributes. The stream depends on nothing but the entries and their order, which
/// is the caller's: parents before children, files before their hard links. Sockets are left out and counted. Nothing is
/// written on drop: an archive without its end marker shows that it is not whole.
pub struct ArchiveWriter<W: Write> {
    inner: W,
    acls: AclForm,
    sockets: u64,
    /// Bytes of the file at hand that are still to come, and those that pad its last block.
    open: Option<(u64, usize)>,
}

impl<W: Write> fmt::Debug for ArchiveWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner: _, acls, sockets, open } = self;
        f.debug_struct("ArchiveWriter")
            .field("acls", acls)
            .field("sockets", sockets)
            .field("open", open)
            .finish_non_exhaustive()
    }
}

impl<W: Write> ArchiveWriter<W> {
    /// Starts; nothing is written yet.
    pub fn new(inner: W) -> Self {
        Self::with_acls(inner, AclForm::Text)
    }

    /// Starts, with ACLs in a form of the caller's choice.
    pub fn with_acls(inner: W, acls: AclForm) -> Self {
        Self { inner, acls, sockets: 0, open: None }
    }

    /// Returns how many sockets were left out.
    #[must_use]
    pub fn sockets(&self) -> u64 {
        self.sockets
    }

    /// Writes a file with its data, holes left out, as many bytes as its extents or its size say.
    ///
    /// # Errors
    ///
    /// As [`ArchiveWriter::begin_file`] and [`ArchiveWriter::write_data`]; fails also where `data` ends early or does not end.
    pub fn append_file(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        self.begin_file(entry)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match data.read(&mut buffer) {
                Ok(0) => return self.end_file(),
                Ok(count) => self.write_data(buffer.get(..count).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the headers of a file, and the map of one with holes. Its data follows through [`ArchiveWriter::write_data`].
    ///
    /// # Errors
    ///
    /// Fails where the entry is no file, where its extents are not what [`EntryKind::File`] promises, where a name holds a
    /// NUL, while another file is open, and with what the writer reports.
    pub fn begin_file(&mut self, entry: &Entry) -> io::Result<()> {
        let EntryKind::File { size, extents, .. } = &entry.kind else {
            return Err(refused(entry, "is no file"));
        };
        let map = extents.as_deref().map(|extents| checked_map(entry, extents, *size)).transpose()?;
        let data = extents.as_deref().map_or(*size, |all| all.iter().map(|extent| extent.length).sum());
        let map_bytes = map.as_deref().map_or(0, length_of);
        let in_range = |size: &u64| i64::try_from(*size).is_ok();
        let stored = data.checked_add(map_bytes).filter(|stored| in_range(stored) && in_range(size));
        let stored = stored.ok_or_else(|| refused(entry, "is too large"))?;
        self.headers(entry, b'0', stored, map.is_some())?;
        self.inner.write_all(map.as_deref().unwrap_or_default())?;
        let padding = usize::try_from(data.next_multiple_of(512) - data).unwrap_or_default();
        self.open = Some((data, padding));
        Ok(())
    }

    /// Writes the next bytes of the open file's data.
    ///
    /// # Errors
    ///
    /// Fails where no file is open, where there is more data than its entry says, and with what the writer reports.
    pub fn write_data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((left, _)) = &mut self.open else { return Err(misuse("no file is open")) };
        let rest = left.checked_sub(length_of(bytes));
        *left = rest.ok_or_else(|| misuse("a file has more data than its entry says"))?;
        self.inner.write_all(bytes)
    }

    /// Ends the open file.
    ///
    /// # Errors
    ///
    /// Fails where no file is open, where data is missing, and with what the writer reports.
    pub fn end_file(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((0, padding)) => self.inner.write_all([0; BLOCK].get(..padding).unwrap_or_default()),
            Some((left, _)) => Err(misuse(&format!("{left} bytes of a file's data are missing"))),
            None => Err(misuse("no file is open")),
        }
    }

    /// Writes an entry that has no data: everything but a file, and a file without a byte of data.
    ///
    /// # Errors
    ///
    /// Fails where the entry is a file with data, where a name holds a NUL, while a file is open, and with what the writer
    /// reports.
    pub fn append_plain(&mut self, entry: &Entry) -> io::Result<()> {
        let kind = match &entry.kind {
            EntryKind::File { .. } => {
                self.begin_file(entry)?;
                return self.end_file();
            }
            EntryKind::Socket => {
                self.sockets += 1;
                return Ok(());
            }
            EntryKind::HardLink { .. } => b'1',
            EntryKind::Symlink { .. } => b'2',
            EntryKind::CharDevice { .. } => b'3',
            EntryKind::BlockDevice { .. } => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        self.headers(entry, kind, 0, false)
    }

    /// Writes the end marker, flushes and returns the writer.
    ///
    /// # Errors
    ///
    /// Fails while a file is open, and with what the writer reports.
    pub fn finish(mut self) -> io::Result<W> {
        if self.open.is_some() {
            return Err(misuse("a file is still open"));
        }
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn headers(&mut self, entry: &Entry, kind: u8, stored: u64, is_sparse: bool) -> io::Result<()> {
        if self.open.is_some() {
            return Err(misuse("a file is still open"));
        }
        if kind == b'5' || !entry.path.is_root() {
            let (records, header) = headers(entry, kind, stored, is_sparse, self.acls)?;
            if !records.is_empty() {
                let name = [b"PaxHeaders/", entry.path.name()].concat();
                let mut extension = Header::posix(b'x');
                extension.put_text(NAME, &printable(&name));
                extension.put_number(MODE, 0o644);
                for field in [UID, GID, MTIME, MAJOR, MINOR] {
                    extension.put_number(field, 0);
                }
                extension.put_number(SIZE, length_of(&records));
                extension.seal();
                self.inner.write_all(&extension.0)?;
                self.inner.write_all(&records)?;
                let padding = records.len().next_multiple_of(BLOCK) - records.len();
                self.inner.write_all([0; BLOCK].get(..padding).unwrap_or_default())?;
            }
            return self.inner.write_all(&header.0);
        }
        Err(refused(entry, "is no directory"))
    }
}

/// Returns a length in memory as a number of the archive.
fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn misuse(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

fn refused(entry: &Entry, problem: &str) -> io::Error {
    misuse(&format!("`{}` {problem}", entry.path))
}

/// Returns the map of a file with holes as it stands before the data.
fn checked_map(entry: &Entry, extents: &[Extent], size: u64) -> io::Result<Vec<u8>> {
    let mut end = None;
    for Extent { offset, length } in extents {
        let apart = end.is_none_or(|end| *offset > end);
        let next = offset.checked_add(*length).filter(|next| *next <= size && *length > 0 && apart);
        end = Some(next.ok_or_else(|| refused(entry, "has extents that overlap or leave it"))?);
    }
    Ok(sparse::to_lines(extents, size))
}

/// Makes the records and the header of an entry; the records are empty where the header says it all.
fn headers(
    entry: &Entry,
    kind: u8,
    stored: u64,
    is_sparse: bool,
    acls: AclForm,
) -> io::Result<(Vec<u8>, Header)> {
    let Entry { path, attributes, .. } = entry;
    let owner = &attributes.owner;
    let (mut header, mut records) = (Header::posix(kind), RecordWriter::new(acls));

    let name = match (path.is_root(), kind) {
        (true, _) => b"./".to_vec(),
        (false, b'5') => [path.as_bytes(), b"/"].concat(),
        (false, _) => path.as_bytes().to_vec(),
    };
    if is_sparse {
        records.put(b"GNU.sparse.major", b"1");
        records.put(b"GNU.sparse.minor", b"0");
        records.put_text("GNU.sparse.name", &name);
        records.put(b"GNU.sparse.realsize", entry.size().to_string().as_bytes());
        header.put_text(NAME, &printable(&[b"GNUSparseFile.0/", path.name()].concat()));
    } else if let Some((prefix, name)) = split_name(&name) {
        header.put_text(PREFIX, prefix);
        header.put_text(NAME, name);
    } else {
        records.put_text("path", &name);
        header.put_text(NAME, &printable(&name));
    }

    let target: &[u8] = match &entry.kind {
        EntryKind::Symlink { target } => target,
        EntryKind::HardLink { target } => target.as_bytes(),
        EntryKind::Directory
        | EntryKind::File { .. }
        | EntryKind::CharDevice { .. }
        | EntryKind::BlockDevice { .. }
        | EntryKind::Fifo
        | EntryKind::Socket => b"",
    };
    if target.contains(&0) || target.is_empty() && matches!(kind, b'1' | b'2') {
        return Err(refused(entry, "has a target that is none"));
    }
    put_text(&mut header, &mut records, LINK, "linkpath", target, LINK.len());

    header.put_number(MODE, u64::from(attributes.mode & 0o7777));
    for (field, key, value) in [(UID, "uid", u64::from(owner.uid)), (GID, "gid", u64::from(owner.gid))] {
        put_number(&mut header, &mut records, field, key, value);
    }
    put_number(&mut header, &mut records, SIZE, "size", stored);

    let mtime = attributes.mtime;
    if mtime.nanoseconds > 999_999_999 {
        return Err(refused(entry, "has a time with more nanoseconds than a second"));
    }
    let seconds = u64::try_from(mtime.seconds).unwrap_or_default();
    header.put_number(MTIME, seconds);
    if mtime.nanoseconds != 0 || mtime.seconds < 0 || seconds > largest(&MTIME) {
        records.put_time("mtime", mtime);
    }
    for (field, key, name) in [(USER, "uname", &owner.user), (GROUP, "gname", &owner.group)] {
        if name.contains(&0) {
            return Err(refused(entry, "has an owner whose name holds a NUL"));
        }
        // These fields end with a NUL.
        let room = field.len() - 1;
        put_text(&mut header, &mut records, field, key, name, room);
    }
    let (major, minor) = match &entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => (*major, *minor),
        EntryKind::Directory
        | EntryKind::File { .. }
        | EntryKind::Symlink { .. }
        | EntryKind::HardLink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket => (0, 0),
    };
    put_number(&mut header, &mut records, MAJOR, "SCHILY.devmajor", u64::from(major));
    put_number(&mut header, &mut records, MINOR, "SCHILY.devminor", u64::from(minor));
    for xattr in &attributes.xattrs {
        if xattr.name.is_empty() || xattr.name.contains(&0) {
            return Err(refused(entry, "has an attribute whose name is none"));
        }
        records.put_xattr(&xattr.name, &xattr.value);
    }
    header.seal();
    Ok((records.finish(), header))
}

/// Writes a text where it fits, and a record where it does not.
fn put_text(
    header: &mut Header,
    records: &mut RecordWriter,
    field: Field,
    key: &str,
    text: &[u8],
    room: usize,
) {
    if text.len() <= room && text.is_ascii() {
        header.put_text(field, text);
    } else {
        records.put_text(key, text);
        let shown = printable(text);
        header.put_text(field.start..field.start + room, &shown);
    }
}

/// Writes a number where it fits, and a record beside the largest number that fits where it does not: what cannot read
/// records stumbles there, and does not take the data for headers.
fn put_number(header: &mut Header, records: &mut RecordWriter, field: Field, key: &str, value: u64) {
    if value > largest(&field) {
        records.put(key.as_bytes(), value.to_string().as_bytes());
    }
    header.put_number(field, value);
}

/// Splits a name into the header's two fields; `None` where it fits neither way.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= NAME.len() {
        return Some((b"", name));
    }
    let split = |at: usize| Some((name.get(..at)?, name.get(at + 1..)?));
    let fits = |(prefix, rest): &(&[u8], &[u8])| {
        prefix.len() <= PREFIX.len() && rest.len() <= NAME.len() && !prefix.is_empty() && !rest.is_empty()
    };
    memchr::memchr_iter(b'/', name).filter_map(split).find(fits)
}

/// Returns a text for programs that do not read records: what is not printable ASCII as `_`.
fn printable(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if (b' '..=b'~').contains(byte) { *byte } else { b'_' }).collect()
}
