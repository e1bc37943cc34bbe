//! The content of one file.

use std::collections::HashSet;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use futures_util::TryStreamExt as _;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::find::nearest;
use super::manifest::{ManifestReader, flatten};
use crate::base::ChunkId;
use crate::store::fetch::{Fetcher, Locations};
use crate::store::pack::{PackInfo, PackKind};
use crate::store::revision::Revision;
use crate::store::{ChunkRef, Entry, EntryKind, EntryPath, Extent, StoreError};

/// Tables of packs that are looked through before it is asked whether all chunks are found.
const PACKS_AT_ONCE: usize = 16;
/// Holes are written in pieces of this many bytes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the content of a file, or the bytes of it in `range`, to `out`: holes as zeros, a further name as the file that it names.
/// Returns how many bytes were written. Every chunk is verified before any of it is written; only those that hold wanted bytes are
/// fetched. A range that ends behind the file ends with it.
///
/// # Errors
///
/// Fails where there is no such file, saying what looks like it; where the path is no file; where the store does not answer, a chunk is
/// damaged or lost, or `out` fails. What was written until then is right.
pub async fn cat(
    depot: &Depot,
    revision: &Revision,
    path: &EntryPath,
    range: Option<Range<u64>>,
    out: &mut (dyn Write + Send),
) -> Result<u64, WorkspaceError> {
    let fetcher = depot.fetcher();
    let manifest = ManifestReader::open(&fetcher, revision).await?;
    let mut entry = entry_at(&manifest, path).await?;
    if let EntryKind::HardLink { target } = &entry.kind {
        entry = entry_at(&manifest, &target.clone()).await?;
    }
    let EntryKind::File { size, content, extents } = entry.kind else {
        let what = if entry.kind == EntryKind::Directory { "a directory" } else { "no regular file" };
        return Err(WorkspaceError::Invalid { reason: format!("`{path}` is {what}") });
    };
    let refs = flatten(&fetcher, manifest.locations(), &content, &mut Vec::new()).await?;
    let extents = extents.unwrap_or_else(|| vec![Extent { offset: 0, length: size }]);
    let plan = Plan::new(size, &extents, &range.unwrap_or(0..size));
    if refs.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>()
        != extents.iter().map(|extent| extent.length).sum::<u64>()
    {
        return Err(damaged(revision, &fetcher, path, "its chunks are not as long as it"));
    }
    let (wanted, skip) = wanted(refs, &plan.data);
    let locations = locate(&fetcher, revision, &wanted).await?;
    let lengths: Vec<u32> = wanted.iter().map(|chunk| chunk.length).collect();
    let mut chunks = Box::pin(fetcher.in_order(&locations, &wanted));
    let mut lengths = lengths.into_iter();
    let (mut open, mut at) = (bytes::Bytes::new(), 0);
    let failed = |source| WorkspaceError::Stream { action: "write", source };
    let mut first_skip = skip;
    for piece in plan.pieces {
        let mut left = piece.length();
        while left > 0 {
            if matches!(piece, Piece::Hole(_)) {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                out.write_all(ZEROS.get(..step).unwrap_or_default()).map_err(failed)?;
                left -= step as u64;
                continue;
            }
            let Some(rest) = open.get(at..).filter(|rest| !rest.is_empty()) else {
                let Some(next) = chunks.try_next().await? else {
                    return Err(damaged(revision, &fetcher, path, "it ends too early"));
                };
                if lengths.next().is_none_or(|length| length as usize != next.len()) {
                    return Err(damaged(revision, &fetcher, path, "a chunk has another length"));
                }
                (open, at) = (next, std::mem::take(&mut first_skip));
                continue;
            };
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            out.write_all(rest.get(..step).unwrap_or_default()).map_err(failed)?;
            at += step;
            left -= step as u64;
        }
    }
    out.flush().map_err(failed)?;
    Ok(plan.total)
}

fn damaged(revision: &Revision, fetcher: &Fetcher, path: &EntryPath, what: &str) -> WorkspaceError {
    StoreError::Damaged {
        key: format!("rev/{}/{}.{}", revision.workspace, revision.id, revision.session),
        store: fetcher.objects().place(),
        source: io::Error::new(io::ErrorKind::InvalidData, format!("`{path}`: {what}")),
    }
    .into()
}

/// Finds an entry.
async fn entry_at(manifest: &ManifestReader, path: &EntryPath) -> Result<Entry, WorkspaceError> {
    let mut block = manifest.block_around(path).await?;
    if let Ok(at) = block.binary_search_by(|entry| entry.path.cmp(path)) {
        return Ok(block.swap_remove(at));
    }
    let names: Vec<String> = block.iter().map(|entry| entry.path.to_string()).collect();
    Err(WorkspaceError::NotFound {
        what: "file",
        name: path.to_string(),
        nearest: nearest(names.iter().map(String::as_str), &path.to_string()),
    })
}

/// Finds the packs that hold chunks, looking no further than necessary.
async fn locate(
    fetcher: &Arc<Fetcher>,
    revision: &Revision,
    wanted: &[ChunkRef],
) -> Result<Locations, StoreError> {
    let mut missing: HashSet<ChunkId> = wanted.iter().map(|chunk| chunk.id).collect();
    let packs = revision.packs.iter().filter(|info| info.pack.kind == PackKind::Data);
    let packs: Vec<PackInfo> = packs.copied().collect();
    let mut locations = Locations::default();
    for some in packs.chunks(PACKS_AT_ONCE) {
        if missing.is_empty() {
            break;
        }
        for (pack, table) in fetcher.tables(some.to_vec()).await? {
            locations.add(pack, &table, &mut |id| missing.remove(id));
        }
    }
    Ok(locations)
}

/// A run of bytes of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Hole(u64),
    Data(u64),
}

impl Piece {
    fn length(self) -> u64 {
        match self {
            Self::Hole(length) | Self::Data(length) => length,
        }
    }
}

/// What is written, and which bytes of the file's data it needs.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    pieces: Vec<Piece>,
    /// Positions in the data without holes.
    data: Range<u64>,
    total: u64,
}

impl Plan {
    fn new(size: u64, extents: &[Extent], range: &Range<u64>) -> Self {
        let (from, to) = (range.start.min(size), range.end.min(size));
        let (mut pieces, mut data) = (Vec::new(), None::<Range<u64>>);
        // Where the next extent's data begins among all data, and up to where the file is planned.
        let (mut data_at, mut at) = (0, from);
        for extent in extents {
            let (start, end) = (extent.offset.max(from), (extent.offset + extent.length).min(to));
            if start < end {
                if at < start {
                    pieces.push(Piece::Hole(start - at));
                }
                pieces.push(Piece::Data(end - start));
                let first = data_at + (start - extent.offset);
                let begin = data.map_or(first, |data| data.start);
                data = Some(begin..first + (end - start));
                at = end;
            }
            data_at += extent.length;
        }
        if at < to {
            pieces.push(Piece::Hole(to - at));
        }
        Self { pieces, data: data.unwrap_or(0..0), total: to.saturating_sub(from) }
    }
}

/// Returns the chunks that hold these bytes of a file's data, and how many bytes of the first one come before them.
fn wanted(refs: Vec<ChunkRef>, data: &Range<u64>) -> (Vec<ChunkRef>, usize) {
    let (mut at, mut skip, mut wanted) = (0, 0, Vec::new());
    for chunk in refs {
        let end = at + u64::from(chunk.length);
        if end > data.start && at < data.end {
            if wanted.is_empty() {
                skip = usize::try_from(data.start - at).unwrap_or(0);
            }
            wanted.push(chunk);
        }
        at = end;
    }
    (wanted, skip)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::base::{Classify as _, ErrorKind};
    use crate::workspace::show;
    use crate::workspace::tests::Place;

    #[test]
    fn a_range_of_a_sparse_file_needs_only_its_own_data() {
        let extents = [Extent { offset: 10, length: 5 }, Extent { offset: 20, length: 5 }];
        let plan = |range| Plan::new(30, &extents, &range);
        assert_eq!(
            plan(0..30).pieces,
            [Piece::Hole(10), Piece::Data(5), Piece::Hole(5), Piece::Data(5), Piece::Hole(5)]
        );
        assert_eq!(plan(0..30).data, 0..10);
        assert_eq!(
            plan(12..22),
            Plan { pieces: vec![Piece::Data(3), Piece::Hole(5), Piece::Data(2)], data: 2..7, total: 10 }
        );
        assert_eq!(plan(26..99), Plan { pieces: vec![Piece::Hole(4)], data: 0..0, total: 4 });
        assert_eq!(plan(40..99).total, 0);
    }

    async fn read(place: &Place, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, WorkspaceError> {
        let revision = show(&place.depot, &place.newest().await).await.unwrap();
        let mut out = Vec::new();
        let path = EntryPath::new(path).unwrap();
        let written = cat(&place.depot, &revision, &path, range, &mut out).await?;
        assert_eq!(written, out.len() as u64);
        Ok(out)
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.u8(..)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_is_written_as_it_was_whole_or_in_part() {
        let place = Place::new();
        // More than 64 chunks, so that lists lead to them.
        let large = noise(1, 12 << 20);
        place.write("tree/dir/large", &large);
        place.write("tree/dir/empty", "");
        fs::hard_link(place.path("tree/dir/large"), place.path("tree/zz")).unwrap();
        let sparse = fs::File::create(place.path("tree/sparse")).unwrap();
        sparse.set_len(9 << 20).unwrap();
        sparse.write_all_at(&noise(2, 300_000), 1 << 20).unwrap();
        sparse.write_all_at(&noise(3, 300_000), 5 << 20).unwrap();
        let holes = fs::read(place.path("tree/sparse")).unwrap();
        place.save("tree").await;
        assert!(read(&place, "dir/large", None).await.unwrap() == large);
        assert!(read(&place, "zz", None).await.unwrap() == large);
        assert!(read(&place, "sparse", None).await.unwrap() == holes);
        assert_eq!(read(&place, "dir/empty", None).await.unwrap(), b"");
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20 {
            for (name, whole) in [("dir/large", &large), ("sparse", &holes)] {
                let from = random.usize(0..whole.len());
                let to = random.usize(from..whole.len());
                let part = read(&place, name, Some(from as u64..to as u64)).await.unwrap();
                assert!(part == whole[from..to], "{name} {from}..{to}");
            }
        }
        let end = large.len() as u64;
        assert_eq!(read(&place, "zz", Some(end - 1..end + 9)).await.unwrap(), large[large.len() - 1..]);
        assert_eq!(read(&place, "zz", Some(end + 1..end + 9)).await.unwrap(), b"");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_file_is_refused_and_what_is_not_there_is_told() {
        let place = Place::new();
        place.write("tree/dir/settings.toml", "x");
        for n in 0..2_000 {
            place.write(&format!("tree/more/{n:04}"), "x");
        }
        place.save("tree").await;
        let error = read(&place, "dir", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let error = read(&place, "dir/setings.toml", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.hint().unwrap(), "did you mean `dir/settings.toml`?");
        for name in ["", "zzz", "dir/settings.toml/below"] {
            let kind = read(&place, name, None).await.unwrap_err().kind();
            assert_eq!(kind, if name.is_empty() { ErrorKind::Invalid } else { ErrorKind::NotFound });
        }
        for n in [0, 1, 999, 1_998, 1_999] {
            assert_eq!(read(&place, &format!("more/{n:04}"), None).await.unwrap(), b"x");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_chunk_is_never_written() {
        let place = Place::new();
        let content = noise(5, 3 << 20);
        place.write("tree/file", &content);
        place.save("tree").await;
        let packs = place.depot.objects.list(&crate::objects::Prefix::new("packs").unwrap()).await.unwrap();
        let key = &packs[0].key;
        let mut bytes = place.depot.objects.get(key).await.unwrap().unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        place.depot.objects.put(key, bytes.into()).await.unwrap();
        let revision = show(&place.depot, &place.newest().await).await.unwrap();
        let (path, mut out) = (EntryPath::new("file").unwrap(), Vec::new());
        let error = cat(&place.depot, &revision, &path, None, &mut out).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(content.starts_with(&out));
    }
}
