//! The names in one directory, sorted.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

/// Bytes read from a directory at once: about 2,000 names a call.
const BUFFER_BYTES: usize = 64 << 10;

/// Names without `.` and `..`, each once, sorted by their bytes and kept in one allocation.
#[derive(Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Where a name begins in `bytes`, and its length without the NUL after it.
    places: Vec<(u32, u32)>,
}

impl Names {
    /// Lists a directory from where its descriptor stands. What was read before an error is kept beside it.
    pub(super) fn list(
        directory: BorrowedFd<'_>,
        buffer: &mut Vec<u8>,
        stop: impl Fn() -> bool,
    ) -> (Self, Option<io::Error>) {
        buffer.clear();
        buffer.reserve(BUFFER_BYTES);
        let mut names = Self::default();
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let mut problem = None;
        while let Some(entry) = entries.next() {
            let added = match entry {
                Ok(entry) => names.add(entry.file_name()),
                // The directory has been removed since it was opened.
                Err(Errno::NOENT) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => Err(errno.into()),
            };
            if let Err(error) = added {
                problem = Some(error);
                break;
            }
            if entries.is_buffer_empty() && stop() {
                break;
            }
        }
        names.sort();
        (names, problem)
    }

    fn add(&mut self, name: &CStr) -> io::Result<()> {
        let name = name.to_bytes_with_nul();
        if name == b".\0" || name == b"..\0" {
            return Ok(());
        }
        let too_many = |_| io::Error::other("the directory holds more than 4 GiB of names");
        let start = u32::try_from(self.bytes.len()).map_err(too_many)?;
        let length = u32::try_from(name.len() - 1).map_err(too_many)?;
        self.bytes.extend_from_slice(name);
        self.places.push((start, length));
        Ok(())
    }

    fn sort(&mut self) {
        let Self { bytes, places } = self;
        let name = |place: &(u32, u32)| slice(bytes, *place, 0);
        places.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        // A directory that is changed while it is listed may name an entry twice.
        places.dedup_by(|a, b| name(a) == name(b));
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns the name at `index`.
    pub(super) fn get(&self, index: usize) -> Option<&CStr> {
        let place = self.places.get(index)?;
        CStr::from_bytes_with_nul(slice(&self.bytes, *place, 1)).ok()
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.places.binary_search_by(|place| slice(&self.bytes, *place, 0).cmp(name)).is_ok()
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u32), more: usize) -> &[u8] {
    let place = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let start = place(start);
    bytes.get(start..start.saturating_add(place(length)).saturating_add(more)).unwrap_or_default()
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("count", &self.places.len()).finish()
    }
}
