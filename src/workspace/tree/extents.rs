//! Where the data of a sparse file lies.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::store::Extent;

/// Most runs of data of a file. A manifest's entry holds them all, and has to fit into a chunk whole: these take 2 MB at most.
const MOST_EXTENTS: usize = 100_000;

/// Returns where the data of a file of `size` bytes lies; `None` when it has no holes, or none that the file system tells of.
///
/// A file that takes as much storage as it is long, in units of 512 bytes, is not asked at all. Of more than 100,000 runs of data the
/// nearest are joined: the smallest holes count as data. The file's position is 0 afterwards.
///
/// # Errors
///
/// Whatever `lseek` reports.
pub fn extents(file: &File, size: u64, blocks_512: u64) -> io::Result<Option<Vec<Extent>>> {
    extents_up_to(file, size, blocks_512, MOST_EXTENTS)
}

fn extents_up_to(file: &File, size: u64, blocks_512: u64, most: usize) -> io::Result<Option<Vec<Extent>>> {
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
        // Not all at once, so that memory does not grow with the file.
        if found.len() >= 4 * most {
            join_nearest(&mut found, 2 * most);
        }
        at = end.max(at + 1);
    }
    seek(file, SeekFrom::Start(0))?;
    join_nearest(&mut found, most);
    let whole = found.first().is_some_and(|only| only.offset == 0 && only.length == size);
    Ok(if whole { None } else { Some(found) })
}

/// Joins those neighbours between which the smallest holes lie, until `most` are left.
fn join_nearest(extents: &mut Vec<Extent>, most: usize) {
    let excess = extents.len().saturating_sub(most.max(1));
    if excess == 0 {
        return;
    }
    let end = |extent: &Extent| extent.offset + extent.length;
    let pairs = extents.iter().zip(extents.iter().skip(1));
    let mut holes: Vec<(u64, usize)> =
        pairs.enumerate().map(|(at, (left, right))| (right.offset - end(left), at + 1)).collect();
    holes.select_nth_unstable(excess - 1);
    let mut filled = vec![false; extents.len()];
    for (_, at) in holes.iter().take(excess) {
        if let Some(filled) = filled.get_mut(*at) {
            *filled = true;
        }
    }
    let mut joined: Vec<Extent> = Vec::with_capacity(most);
    for (extent, is_filled) in extents.iter().zip(filled) {
        match joined.last_mut().filter(|_| is_filled) {
            Some(last) => last.length = end(extent) - last.offset,
            None => joined.push(*extent),
        }
    }
    *extents = joined;
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn of_too_many_runs_the_nearest_are_joined() {
        let runs = [extent(0, 1), extent(10, 1), extent(13, 1), extent(30, 5), extent(36, 1), extent(90, 9)];
        for (most, expected) in [
            (6, runs.to_vec()),
            (5, vec![runs[0], runs[1], runs[2], extent(30, 7), runs[5]]),
            (4, vec![runs[0], extent(10, 4), extent(30, 7), runs[5]]),
            (2, vec![extent(0, 37), runs[5]]),
            (1, vec![extent(0, 99)]),
        ] {
            let mut joined = runs.to_vec();
            join_nearest(&mut joined, most);
            assert_eq!(joined, expected, "{most}");
        }
    }

    #[test]
    fn a_file_of_many_holes_has_no_more_runs_than_an_entry_may_hold() {
        let file = tempfile::tempfile().unwrap();
        let (step, count) = (64 << 10, 200);
        for number in 0..count {
            file.write_all_at(b"data", number * step).unwrap();
        }
        file.set_len(count * step).unwrap();
        let look =
            |most| extents_up_to(&file, count * step, file.metadata().unwrap().blocks(), most).unwrap();
        // Where the file system tells of no holes, there is nothing to join.
        let Some(all) = look(usize::MAX / 4).filter(|all| all.len() > 100) else { return };
        for most in [1, 7, 100] {
            let joined = look(most).unwrap();
            assert!(joined.len() <= most);
            assert!(all.iter().all(|data| joined.iter().any(|run| {
                run.offset <= data.offset && data.offset + data.length <= run.offset + run.length
            })));
        }
    }
}
