//! Reading a revision's manifest: its entries in order, a few chunks at a time in memory.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::error::WorkspaceError;
use crate::base::ChunkId;
use crate::store::fetch::{Fetcher, Locations};
use crate::store::manifest::{decode_chunk, decode_list};
use crate::store::pack::PackKind;
use crate::store::revision::Revision;
use crate::store::{ChunkRef, Content, Entry, EntryPath, Extent, StoreError};

/// More references than this are refused: a file of a tebibyte has as many. Lists that repeat each other would lead to any number.
const MOST_REFS: usize = 16 << 20;

/// A revision's manifest.
#[derive(Debug)]
pub struct ManifestReader {
    fetcher: Arc<Fetcher>,
    locations: Locations,
    refs: Vec<ChunkRef>,
    lists: Vec<ChunkId>,
    place: String,
}

impl ManifestReader {
    /// Finds the chunks of a revision's manifest.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer, and on lists that are damaged or lost.
    pub async fn open(fetcher: &Arc<Fetcher>, revision: &Revision) -> Result<Self, WorkspaceError> {
        let packs = revision.packs.iter().copied().filter(|info| info.pack.kind == PackKind::Meta);
        // Every chunk of these packs is located, because lists of chunks lie there, too; such packs are small.
        let locations = fetcher.locate(packs, |_| true).await?;
        let mut lists = Vec::new();
        let refs = flatten(fetcher, &locations, &revision.manifest, &mut lists).await?;
        Ok(Self { fetcher: Arc::clone(fetcher), locations, refs, lists, place: revision.key()?.to_string() })
    }

    /// Returns where the chunks of the revision's packs of manifests lie.
    #[must_use]
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// Returns the manifest's chunks, lists included.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.lists.iter().copied().chain(self.refs.iter().map(|reference| reference.id))
    }

    /// Returns the references to the manifest's chunks, in order.
    #[must_use]
    pub fn refs(&self) -> &[ChunkRef] {
        &self.refs
    }

    /// Reads the manifest chunk by chunk: each with its reference, its bytes and its entries.
    pub fn blocks(
        &self,
    ) -> impl Stream<Item = Result<(ChunkRef, bytes::Bytes, Vec<Entry>), WorkspaceError>> + use<> {
        let (place, store) = (self.place.clone(), self.fetcher.objects().place());
        let refs = self.refs.clone();
        self.fetcher.in_order(&self.locations, &self.refs).zip(stream::iter(refs)).map(
            move |(bytes, chunk)| {
                let bytes = bytes?;
                let entries = decode_chunk(&bytes).map_err(|source| StoreError::Damaged {
                    key: place.clone(),
                    store: store.clone(),
                    source,
                })?;
                Ok((chunk, bytes, entries))
            },
        )
    }

    /// Reads the entries of the chunk that a path stands in, if it stands anywhere: a binary search over the chunks.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer, and where a chunk is damaged or lost.
    pub async fn block_around(&self, path: &EntryPath) -> Result<Vec<Entry>, WorkspaceError> {
        let (mut from, mut to) = (0, self.refs.len());
        let mut found = Vec::new();
        while let Some(chunk) = self.refs.get(from + (to - from) / 2).filter(|_| from < to) {
            let middle = from + (to - from) / 2;
            let bytes = self.fetcher.chunk(&self.locations, chunk.id).await?;
            let entries = decode_chunk(&bytes).map_err(|source| StoreError::Damaged {
                key: self.place.clone(),
                store: self.fetcher.objects().place(),
                source,
            })?;
            if entries.first().is_some_and(|first| first.path <= *path) {
                let is_here = entries.last().is_some_and(|last| last.path >= *path);
                (found, from) = (entries, middle + 1);
                if is_here {
                    break;
                }
            } else {
                to = middle;
            }
        }
        Ok(found)
    }

    /// Reads the entries in order.
    pub fn entries(&self) -> impl Stream<Item = Result<Entry, WorkspaceError>> + use<> {
        self.blocks().map_ok(|(_, _, entries)| stream::iter(entries.into_iter().map(Ok))).try_flatten()
    }
}

/// Follows the lists of a content down to its chunks; the lists are added to `lists`.
pub(super) async fn flatten(
    fetcher: &Arc<Fetcher>,
    locations: &Locations,
    content: &Content,
    lists: &mut Vec<ChunkId>,
) -> Result<Vec<ChunkRef>, WorkspaceError> {
    let mut content = content.clone();
    while content.level > 0 {
        lists.extend(content.refs.iter().map(|reference| reference.id));
        let (level, mut refs) = (content.level - 1, Vec::new());
        let mut below = Box::pin(fetcher.in_order(locations, &content.refs));
        while let Some(list) = below.try_next().await? {
            let damaged = |source| StoreError::Damaged {
                key: "a list of chunks".into(),
                store: fetcher.objects().place(),
                source,
            };
            let list = decode_list(&list).map_err(damaged)?;
            if list.level != level {
                return Err(damaged(std::io::Error::other("it is of another level")).into());
            }
            refs.extend(list.refs);
            if refs.len() > MOST_REFS {
                return Err(damaged(std::io::Error::other("its lists lead to too many chunks")).into());
            }
        }
        content = Content { level, refs };
    }
    Ok(content.refs)
}

/// Returns the chunks of a file of `size` bytes, as [`flatten`] does. What is wrong with them is told with the file's path: also where
/// the manifest says that they are longer or shorter than the file's data.
pub(super) async fn chunks_of(
    fetcher: &Arc<Fetcher>,
    locations: &Locations,
    path: &EntryPath,
    (content, size, extents): (&Content, u64, Option<&[Extent]>),
    lists: &mut Vec<ChunkId>,
) -> Result<Vec<ChunkRef>, WorkspaceError> {
    let damaged = |source| WorkspaceError::Damaged { count: 1, paths: vec![path.clone()], source };
    let refs = match flatten(fetcher, locations, content, lists).await {
        Err(WorkspaceError::Store(error @ (StoreError::Lost { .. } | StoreError::Damaged { .. }))) => {
            return Err(damaged(Box::new(error)));
        }
        flattened => flattened?,
    };
    let expected = extents.map_or(size, |extents| extents.iter().map(|extent| extent.length).sum());
    if refs.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>() != expected {
        return Err(damaged(Box::new(wrong_length(fetcher, "its chunks are not as long as a file"))));
    }
    Ok(refs)
}

/// The error of a manifest that says another length than there is: believed, it would fill more than was allowed.
pub(super) fn wrong_length(fetcher: &Fetcher, problem: &str) -> StoreError {
    StoreError::Damaged {
        key: "a manifest".to_owned(),
        store: fetcher.objects().place(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, problem.to_owned()),
    }
}

/// Returns every chunk of a content: whether it is a list, and its id.
pub(super) async fn content_refs(
    fetcher: &Arc<Fetcher>,
    locations: &Locations,
    content: &Content,
) -> Result<HashSet<(bool, ChunkId)>, WorkspaceError> {
    let mut lists = Vec::new();
    let refs = flatten(fetcher, locations, content, &mut lists).await?;
    let lists = lists.into_iter().map(|id| (true, id));
    Ok(lists.chain(refs.into_iter().map(|reference| (false, reference.id))).collect())
}
