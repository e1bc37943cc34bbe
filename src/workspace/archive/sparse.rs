//! Where the data of a file with holes lies, in the four ways that tar knows.

use crate::store::Extent;

use super::header::{self, GNU_MAP, GNU_MAP_GOES_ON, GNU_REAL_SIZE, Header};
use super::pax::{Record, decimal};

/// A pair of numbers in an old GNU map.
const PAIR: usize = 24;

/// The most extents that a map may have: 16 MiB of memory.
pub(super) const MAX_EXTENTS: usize = 1 << 20;

/// What the `GNU.sparse.` records of an entry say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SparseRecords {
    /// The file's size, holes included.
    pub(super) size: u64,
    /// The file's name, where the entry's own is made up.
    pub(super) name: Option<Vec<u8>>,
    /// The map, pairs one after the other; `None` where it stands before the data.
    pub(super) map: Option<Vec<u64>>,
}

/// Reads the records; the reason where they contradict each other or are none of versions 0.0, 0.1 and 1.0.
pub(super) fn from_records(records: &[Record]) -> Result<Option<SparseRecords>, String> {
    if records.is_empty() {
        return Ok(None);
    }
    let (mut size, mut real_size, mut name, mut count) = (None, None, None, None);
    let (mut major, mut minor) = (None, None);
    let (mut listed, mut pairs): (Option<Vec<u64>>, Vec<u64>) = (None, Vec::new());
    for Record { key, value } in records {
        let wrong =
            || format!("`{}` is no value for `GNU.sparse.{}`", value.escape_ascii(), key.escape_ascii());
        let number = || decimal(value).ok_or_else(wrong);
        match key.as_slice() {
            b"size" => size = Some(number()?),
            b"realsize" => real_size = Some(number()?),
            b"numblocks" => count = Some(number()?),
            b"major" => major = Some(number()?),
            b"minor" => minor = Some(number()?),
            b"name" if value.is_empty() || value.contains(&0) => return Err(wrong()),
            b"name" => name = Some(value.clone()),
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                let numbers: Option<Vec<u64>> =
                    if value.is_empty() { Some(Vec::new()) } else { numbers.collect() };
                listed = Some(numbers.ok_or_else(wrong)?);
            }
            b"offset" if pairs.len().is_multiple_of(2) => pairs.push(number()?),
            b"numbytes" if !pairs.len().is_multiple_of(2) => pairs.push(number()?),
            b"offset" | b"numbytes" => {
                return Err("the sparse map's offsets and lengths take no turns".to_owned());
            }
            key => return Err(format!("`GNU.sparse.{}` is not known", key.escape_ascii())),
        }
    }
    let map = match (major, minor) {
        (Some(1), Some(0)) => None,
        (None, None) | (Some(0), Some(0 | 1)) => Some(match listed.take() {
            Some(listed) if pairs.is_empty() => listed,
            Some(_) => return Err("there are two sparse maps".to_owned()),
            None => std::mem::take(&mut pairs),
        }),
        _ => return Err("the sparse map is of a version that is not known".to_owned()),
    };
    if map.is_none() && (listed.is_some() || !pairs.is_empty()) {
        return Err("there are two sparse maps".to_owned());
    }
    if let Some(map) = &map {
        let stated = count.ok_or("the sparse map does not say how long it is")?;
        if u64::try_from(map.len()) != Ok(stated.saturating_mul(2)) {
            return Err("the sparse map is not as long as it says".to_owned());
        }
    }
    let size = match (size, real_size) {
        (Some(a), Some(b)) if a != b => return Err("a sparse file has two sizes".to_owned()),
        (a, b) => a.or(b).ok_or("a sparse file has no size")?,
    };
    Ok(Some(SparseRecords { size, name, map }))
}

/// The begin of an old GNU map, read from a header.
#[derive(Debug)]
pub(super) struct OldMap {
    /// The file's size, holes included.
    pub(super) size: u64,
    /// The pairs so far.
    pub(super) map: Vec<u64>,
    /// Whether another block of the map follows.
    pub(super) goes_on: bool,
}

impl OldMap {
    /// Reads the part in the header.
    pub(super) fn from_header(header: &Header) -> Result<Self, String> {
        let size = header.number(GNU_REAL_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        let mut map =
            Self { size: size.ok_or("a sparse file has no size")?, map: Vec::new(), goes_on: false };
        map.take(&header.0[GNU_MAP], header.0[GNU_MAP_GOES_ON])?;
        Ok(map)
    }

    /// Reads another block.
    pub(super) fn extend(&mut self, block: &[u8; header::BLOCK]) -> Result<(), String> {
        self.take(&block[..21 * PAIR], block[21 * PAIR])
    }

    fn take(&mut self, pairs: &[u8], goes_on: u8) -> Result<(), String> {
        for pair in pairs.chunks_exact(PAIR) {
            let number = |field| {
                let number = header::number(field).map_err(|error| format!("the sparse map {error}"))?;
                number
                    .map(u64::try_from)
                    .transpose()
                    .map_err(|_reason| "the sparse map is negative".to_owned())
            };
            let (offset, length) = pair.split_at(PAIR / 2);
            // The first blank pair ends the map.
            let (Some(offset), Some(length)) = (number(offset)?, number(length)?) else { break };
            self.map.extend([offset, length]);
        }
        self.goes_on = goes_on != 0;
        if self.map.len() / 2 > MAX_EXTENTS { Err(too_many()) } else { Ok(()) }
    }
}

pub(super) fn too_many() -> String {
    format!("the sparse map has more than {MAX_EXTENTS} extents")
}

/// Reads a map of version 1.0, which stands in lines before the data: the number of pairs, then the pairs.
#[derive(Debug, Default)]
pub(super) struct LineMap {
    expected: Option<u64>,
    map: Vec<u64>,
    line: Vec<u8>,
}

impl LineMap {
    /// Takes in the next block; returns the pairs once they are complete. What is left of the block is padding.
    pub(super) fn extend(&mut self, block: &[u8]) -> Result<Option<Vec<u64>>, String> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err("a line of the sparse map is no number".to_owned());
                }
                continue;
            }
            let number = decimal(&self.line).ok_or("a line of the sparse map is no number")?;
            self.line.clear();
            match self.expected {
                None if number > u64::try_from(MAX_EXTENTS).unwrap_or(u64::MAX) => return Err(too_many()),
                None => self.expected = Some(number * 2),
                Some(_) => self.map.push(number),
            }
            if self.expected.is_some_and(|expected| u64::try_from(self.map.len()) == Ok(expected)) {
                return Ok(Some(std::mem::take(&mut self.map)));
            }
        }
        Ok(None)
    }
}

/// Returns the lines of a map of version 1.0, padded to whole blocks. The map ends where the file ends.
pub(super) fn to_lines(extents: &[Extent], size: u64) -> Vec<u8> {
    let end = extents.last().map_or(0, |extent| extent.offset.saturating_add(extent.length));
    let closing = (end < size).then_some(Extent { offset: size, length: 0 });
    let mut lines = format!("{}\n", extents.len() + usize::from(closing.is_some()));
    for extent in extents.iter().chain(&closing) {
        lines.push_str(&format!("{}\n{}\n", extent.offset, extent.length));
    }
    let mut lines = lines.into_bytes();
    lines.resize(lines.len().next_multiple_of(header::BLOCK), 0);
    lines
}

/// Makes extents of pairs: empty ones dropped, neighbours joined; the reason where they are out of order, overlap, leave the
/// file or are not as long as the data. A file that turns out to have no holes gets `None`.
pub(super) fn extents(map: &[u64], size: u64, data: u64) -> Result<Option<Vec<Extent>>, String> {
    if map.len() / 2 > MAX_EXTENTS {
        return Err(too_many());
    }
    let mut extents: Vec<Extent> = Vec::new();
    let (mut end, mut total) = (0_u64, 0_u64);
    for pair in map.chunks(2) {
        let [offset, length] = *pair else { return Err("the sparse map lacks a length".to_owned()) };
        if offset < end {
            return Err("the sparse map overlaps itself or is out of order".to_owned());
        }
        let next = offset.checked_add(length).filter(|next| *next <= size);
        let next = next.ok_or("the sparse map leaves the file")?;
        if length > 0 {
            match extents.last_mut().filter(|_| offset == end) {
                Some(last) => last.length += length,
                None => extents.push(Extent { offset, length }),
            }
            end = next;
        }
        total += length;
    }
    if total != data {
        return Err(format!("the sparse map names {total} bytes, and {data} are there"));
    }
    let whole = total == size;
    Ok((!whole).then_some(extents))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(&str, &str)]) -> Vec<Record> {
        list.iter().map(|(key, value)| Record { key: (*key).into(), value: (*value).into() }).collect()
    }

    #[test]
    fn extents_are_sorted_apart_inside_and_as_long_as_the_data() {
        let extent = |offset, length| Extent { offset, length };
        assert_eq!(
            extents(&[0, 5, 5, 5, 20, 1, 30, 0], 30, 11),
            Ok(Some(vec![extent(0, 10), extent(20, 1)]))
        );
        assert_eq!(extents(&[10, 0], 10, 0), Ok(Some(vec![])));
        assert_eq!(extents(&[0, 10], 10, 10), Ok(None));
        assert_eq!(extents(&[], 0, 0), Ok(None));
        for (map, size, data) in [
            (&[0, 5, 4, 5][..], 30, 10),
            (&[10, 5, 0, 5], 30, 10),
            (&[0, 31], 30, 31),
            (&[u64::MAX, 2], u64::MAX, 2),
            (&[0, 5], 30, 6),
            (&[0, 5, 6], 30, 5),
            (&[], 0, 1),
        ] {
            assert!(extents(map, size, data).is_err(), "{map:?}");
        }
    }

    #[test]
    fn each_version_of_the_records_is_told_apart() {
        let old = [("size", "9"), ("numblocks", "1"), ("offset", "1"), ("numbytes", "2")];
        let read = from_records(&records(&old)).unwrap().unwrap();
        assert_eq!(read, SparseRecords { size: 9, name: None, map: Some(vec![1, 2]) });
        let middle = [("size", "9"), ("numblocks", "2"), ("map", "1,2,9,0"), ("name", "n")];
        let read = from_records(&records(&middle)).unwrap().unwrap();
        assert_eq!(read.map, Some(vec![1, 2, 9, 0]));
        let new = [("major", "1"), ("minor", "0"), ("name", "n"), ("realsize", "9")];
        let read = from_records(&records(&new)).unwrap().unwrap();
        assert_eq!((read.size, read.map), (9, None));
        for wrong in [
            &[("name", "n")][..],
            &[("major", "1"), ("minor", "0"), ("name", "n")],
            &[("major", "1"), ("minor", "1"), ("realsize", "9")],
            &[("major", "2"), ("minor", "0"), ("realsize", "9")],
            &[("major", "1"), ("minor", "0"), ("realsize", "9"), ("map", "1,2")],
            &[("size", "9"), ("realsize", "8"), ("numblocks", "0")],
            &[("size", "9"), ("numblocks", "2"), ("map", "1,2")],
            &[("size", "9"), ("numblocks", "18446744073709551615"), ("map", "1,2")],
            &[("size", "9"), ("map", "1,2")],
            &[("size", "9"), ("numblocks", "1"), ("map", "1,")],
            &[("size", "9"), ("numblocks", "1"), ("numbytes", "2"), ("offset", "1")],
            &[("size", "9"), ("numblocks", "1"), ("offset", "1"), ("offset", "1")],
            &[("size", "-9"), ("numblocks", "0")],
            &[("what", "9")],
        ] {
            assert!(from_records(&records(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_map_in_lines_is_read_back() {
        let list: Vec<Extent> = (0..100).map(|n| Extent { offset: n * 10_000, length: 7 }).collect();
        let lines = to_lines(&list, 5_000_000);
        assert!(lines.len().is_multiple_of(512) && lines.len() > 512);
        let mut reader = LineMap::default();
        let mut found = None;
        for block in lines.chunks(512) {
            assert_eq!(found, None);
            found = reader.extend(block).unwrap();
        }
        assert_eq!(extents(&found.unwrap(), 5_000_000, 700), Ok(Some(list)));
        for wrong in ["x\n", "999999999\n", "111111111111111111111111", "1\n-1\n", "1\n\n"] {
            assert!(LineMap::default().extend(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
