//! Where the data of a sparse file lies.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::store::Extent;

/// Returns where the data of a file of `size` bytes lies; `None` when it has no holes, or none that the file system tells of.
///
/// A file that takes as much storage as it is long, in units of 512 bytes, is not asked at all. The file's position is 0 afterwards.
///
/// # Errors
///
/// Whatever `lseek` reports.
pub fn extents(file: &File, size: u64, blocks_512: u64) -> io::Result<Option<Vec<Extent>>> {
    if blocks_512.saturating_mul(512) >= size {
        return Ok(None);
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        if start < end {
            found.push(Extent { offset: start, length: end - start });
        }
        at = end.max(at + 1);
    }
    seek(file, SeekFrom::Start(0))?;
    let whole = found.first().is_some_and(|only| only.offset == 0 && only.length == size);
    Ok(if whole { None } else { Some(found) })
}
