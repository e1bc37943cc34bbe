//! Archives made by hand, right and wrong.

use std::io::Read;

use crate::store::Entry;
use crate::workspace::archive::header::{BLOCK, Header, LINK, MODE, MTIME, NAME, SIZE};
use crate::workspace::archive::{ArchiveError, ArchiveLimits, ArchiveReader, ArchiveSummary};

/// An archive in the making.
#[derive(Clone, Default)]
pub(super) struct Tape(pub(super) Vec<u8>);

/// Returns a POSIX header that still needs its checksum.
pub(super) fn header(kind: u8, name: &str, size: u64) -> Header {
    let mut header = Header::posix(kind);
    header.put_text(NAME, name.as_bytes());
    header.put_number(MODE, 0o644);
    header.put_number(SIZE, size);
    header.put_number(MTIME, 1_700_000_000);
    header
}

/// Returns a header of GNU tar before PAX.
pub(super) fn gnu_header(kind: u8, name: &str, size: u64) -> Header {
    let mut header = header(kind, name, size);
    header.0[257..265].copy_from_slice(b"ustar  \0");
    header
}

/// Returns records as they stand in an extension header.
pub(super) fn records(list: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in list {
        let body = key.len() + value.len() + 3;
        let length =
            (1..9).map(|digits| body + digits).find(|all| all.to_string().len() == all - body).unwrap();
        bytes.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    bytes
}

impl Tape {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn sealed(self, mut header: Header) -> Self {
        header.seal();
        self.raw(&header.0)
    }

    pub(super) fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(b'0', name, data)
    }

    pub(super) fn member(self, kind: u8, name: &str, data: &[u8]) -> Self {
        self.sealed(header(kind, name, data.len().try_into().unwrap())).data(data)
    }

    pub(super) fn link(self, kind: u8, name: &str, target: &str) -> Self {
        let mut header = header(kind, name, 0);
        header.put_text(LINK, target.as_bytes());
        self.sealed(header)
    }

    pub(super) fn pax(self, list: &[(&str, &str)]) -> Self {
        self.member(b'x', "PaxHeaders/x", &records(list))
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]).0
    }
}

/// What reading gave: the entries with their data up to an error, then the summary or the error.
pub(super) type Outcome = (Vec<(Entry, Vec<u8>)>, Result<ArchiveSummary, ArchiveError>);

pub(super) fn read_with(stream: impl Read, limits: ArchiveLimits) -> Outcome {
    let mut found = Vec::new();
    let mut reader = ArchiveReader::new(stream, limits);
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                let mut data = Vec::new();
                if entry.data.read_to_end(&mut data).is_ok() {
                    found.push((entry.entry, data));
                }
            }
            Ok(None) => return (found, Ok(reader.summary())),
            Err(error) => {
                assert!(reader.next_entry().unwrap().is_none(), "nothing comes after an error");
                return (found, Err(error));
            }
        }
    }
}

pub(super) fn read(bytes: &[u8]) -> Outcome {
    read_with(bytes, ArchiveLimits::default())
}

/// Reads what must be right.
pub(super) fn read_right(bytes: &[u8]) -> (Vec<(Entry, Vec<u8>)>, ArchiveSummary) {
    let (found, outcome) = read(bytes);
    (found, outcome.unwrap())
}
