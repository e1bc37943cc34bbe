//! From the revisions to every chunk that they need: each distinct chunk of a manifest is read once, whatever the number of revisions.
//!
//! Ids wait in a buffer for each kind until there are enough for a pass over the index, or nothing else is left; what is then new and
//! leads on is read, the kinds nearest to the data first, so that the buffers stay small.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::error::GcError;
use super::ledger::Ledger;
use super::marks::{Kind, Marked, Marks, Place};
use crate::base::ChunkId;
use crate::store::fetch::{Fetcher, Locations, Run, open_run};
use crate::store::manifest::{decode_chunk, decode_list};
use crate::store::{Content, EntryKind, StoreError};

/// Ids of chunks of files that are joined with the index at once: 16 MiB of them, and twice as much again while they are joined.
const DATA_BATCH: usize = 1 << 19;
/// The same of other kinds, which need their places as well.
const BATCH: usize = 128 << 10;
/// Chunks of manifests that are read before what they lead to is looked at: some 8 MiB of them, and as much again of what they lead to.
const WINDOW: usize = 512;
/// Runs of packs that are fetched at the same time.
const FETCHES: usize = 4;

/// What is on its way from the revisions to the chunks.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    fetcher: &'a Arc<Fetcher>,
    cancel: &'a CancellationToken,
    waiting: Vec<Vec<ChunkId>>,
    /// For each kind how many distinct ids waited when that was last counted.
    distinct: Vec<usize>,
    unread: Vec<Vec<(ChunkId, Place)>>,
    missing: Vec<(Kind, ChunkId)>,
    /// Distinct chunks of manifests, and lists, that were read.
    read: u64,
}

/// The chunks that a chunk leads to.
type Children = Vec<(Kind, ChunkId)>;

impl<'a> Reach<'a> {
    pub(super) fn new(fetcher: &'a Arc<Fetcher>, cancel: &'a CancellationToken) -> Self {
        Self {
            fetcher,
            cancel,
            waiting: vec![Vec::new(); Kind::COUNT],
            distinct: vec![0; Kind::COUNT],
            unread: vec![Vec::new(); Kind::COUNT],
            missing: Vec::new(),
            read: 0,
        }
    }

    /// Adds a revision's manifest.
    pub(super) fn add_manifest(&mut self, manifest: &Content) {
        let kind = Kind::of_manifest(manifest.level);
        for reference in &manifest.refs {
            self.wait(kind, reference.id);
        }
        // Revisions have most of these in common: what waits must not grow with their number.
        let most = self.distinct.get(kind.index()).copied().unwrap_or(0).max(BATCH).saturating_mul(2);
        if let Some(waiting) = self.waiting.get_mut(kind.index())
            && waiting.len() >= most
        {
            waiting.sort_unstable();
            waiting.dedup();
            if let Some(distinct) = self.distinct.get_mut(kind.index()) {
                *distinct = waiting.len();
            }
        }
    }

    /// Asks again for chunks that were missing, after further segments were found.
    pub(super) fn ask_again(&mut self) -> bool {
        let missing = std::mem::take(&mut self.missing);
        let any = !missing.is_empty();
        for (kind, id) in missing {
            self.wait(kind, id);
        }
        any
    }

    /// Returns the chunks that are nowhere, and what they are.
    pub(super) fn missing(&self) -> &[(Kind, ChunkId)] {
        &self.missing
    }

    /// Returns how many distinct chunks of manifests, and lists, were read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    fn wait(&mut self, kind: Kind, id: ChunkId) {
        if let Some(waiting) = self.waiting.get_mut(kind.index()) {
            waiting.push(id);
        }
    }

    fn wait_for_all(&mut self, children: Children) {
        for (kind, id) in children {
            self.wait(kind, id);
        }
    }

    /// Marks everything that was added leads to; what is nowhere is kept apart.
    pub(super) async fn run(&mut self, mut marks: Marks, ledger: &Ledger) -> Result<Marks, GcError> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(GcError::Cancelled);
            }
            let is_full = |kind: &Kind| {
                let cap = if *kind == Kind::DATA { DATA_BATCH } else { BATCH };
                self.waiting.get(kind.index()).is_some_and(|waiting| waiting.len() >= cap)
            };
            if let Some(full) = Kind::all().find(is_full) {
                marks = self.join(full, marks, ledger)?;
                continue;
            }
            let leads_on = |kind: &Kind| self.unread.get(kind.index()).is_some_and(|ids| !ids.is_empty());
            if let Some(kind) = Kind::all().find(leads_on) {
                self.follow(kind, ledger).await?;
                continue;
            }
            let waits = |kind: &Kind| self.waiting.get(kind.index()).is_some_and(|ids| !ids.is_empty());
            match Kind::all().rev().find(waits) {
                Some(kind) => marks = self.join(kind, marks, ledger)?,
                None => return Ok(marks),
            }
        }
    }

    fn join(&mut self, kind: Kind, mut marks: Marks, ledger: &Ledger) -> Result<Marks, GcError> {
        let Some(waiting) = self.waiting.get_mut(kind.index()) else { return Ok(marks) };
        let mut ids = std::mem::take(waiting);
        ids.sort_unstable();
        ids.dedup();
        let (mut new, mut missing) = (Vec::new(), Vec::new());
        let joined = marks.mark(kind, &ids, ledger, &mut |id, marked| match marked {
            Marked::New(spot) if kind != Kind::DATA => new.push((id, spot)),
            Marked::New(_) | Marked::Known => {}
            Marked::Missing => missing.push((kind, id)),
        });
        let unread = |source| StoreError::Local { action: "read the cached index", source };
        joined.map_err(unread)?;
        self.missing.append(&mut missing);
        let places = new.into_iter().map(|(id, spot)| Ok((id, marks.place(spot).map_err(unread)?)));
        let mut new = places.collect::<Result<Vec<_>, StoreError>>()?;
        if let Some(unread) = self.unread.get_mut(kind.index())
            && !new.is_empty()
        {
            unread.append(&mut new);
            // What shares a frame is read together: decompressing it again and again would cost more than all the rest.
            unread.sort_unstable_by_key(|(_, place)| (place.pack, place.location.frame_offset));
        }
        Ok(marks)
    }

    /// Reads some chunks that lead on.
    async fn follow(&mut self, kind: Kind, ledger: &Ledger) -> Result<(), GcError> {
        let Some(unread) = self.unread.get_mut(kind.index()) else { return Ok(()) };
        let window = unread.split_off(unread.len().saturating_sub(WINDOW));
        self.read += window.len() as u64;
        let locations = Locations::of(window.iter().filter_map(|(id, place)| {
            let pack = ledger.get(place.pack)?.info.pack;
            Some((*id, pack, place.location))
        }));
        let (runs, _) = Fetcher::plan(&locations, window.iter().map(|(id, _)| (*id, 0)));
        let fetcher = self.fetcher;
        let mut opened = stream::iter(runs)
            .map(|run| async move { open(fetcher, run, kind).await })
            .buffer_unordered(FETCHES);
        let mut lost = Vec::new();
        while let Some((found, mut damaged)) = opened.try_next().await? {
            self.wait_for_all(found);
            lost.append(&mut damaged);
        }
        for id in lost {
            let unreadable = |source| GcError::Unreadable { source };
            let bytes = fetcher.rescue().chunk(id).await.map_err(unreadable)?;
            self.wait_for_all(children_of(kind, &id, &bytes, fetcher).map_err(unreadable)?);
        }
        Ok(())
    }
}

/// Reads a run; returns what its chunks lead to, and the chunks that are not what was written.
async fn open(fetcher: &Arc<Fetcher>, run: Run, kind: Kind) -> Result<(Children, Vec<ChunkId>), GcError> {
    let wanted = || run.frames.iter().flat_map(|frame| &frame.chunks).map(|chunk| chunk.id);
    let Some(bytes) = fetcher.fetch(&run).await? else { return Ok((Vec::new(), wanted().collect())) };
    let place = Arc::clone(fetcher);
    let work = tokio::task::spawn_blocking(move || {
        let (mut children, mut lost, mut failure) = (Vec::new(), Vec::new(), None);
        let opened = open_run(&run, &bytes, &mut |chunk, content| {
            match content {
                None => lost.push(chunk.id),
                Some(content) => match children_of(kind, &chunk.id, content, &place) {
                    Ok(mut found) => children.append(&mut found),
                    Err(error) => failure = Some(error),
                },
            }
            Ok(())
        });
        opened.map_err(|source| StoreError::Local { action: "take a pack apart", source })?;
        match failure {
            // It is what its id says, so that no other copy says anything else.
            Some(source) => Err(GcError::Unreadable { source }),
            None => Ok((children, lost)),
        }
    });
    work.await.map_err(|stopped| StoreError::Local {
        action: "finish a thread's work",
        source: std::io::Error::other(stopped),
    })?
}

fn children_of(kind: Kind, id: &ChunkId, bytes: &[u8], fetcher: &Fetcher) -> Result<Children, StoreError> {
    let damaged = |source| StoreError::Damaged {
        key: format!("chunk {id} of a manifest"),
        store: fetcher.objects().place(),
        source,
    };
    let mut children = Vec::new();
    match kind.below() {
        Some(below) => {
            let list = decode_list(bytes).map_err(damaged)?;
            if list.level + 1 != kind.level().0 {
                return Err(damaged(std::io::Error::other("it is of another level")));
            }
            children.extend(list.refs.iter().map(|reference| (below, reference.id)));
        }
        None => {
            for entry in decode_chunk(bytes).map_err(damaged)? {
                if let EntryKind::File { content, .. } = entry.kind {
                    let kind = Kind::of_file(content.level);
                    children.extend(content.refs.iter().map(|reference| (kind, reference.id)));
                }
            }
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::StoreId;
    use crate::objects::SimStore;
    use crate::store::ChunkRef;
    use crate::store::cache::IndexCache;

    /// A thousand revisions of one tree once took a thousand times the memory of one.
    #[test]
    fn what_waits_does_not_grow_with_the_number_of_revisions() {
        let home = tempfile::tempdir().unwrap();
        let cache = IndexCache::new(home.path(), StoreId::generate());
        let fetcher = Arc::new(Fetcher::new(Arc::new(SimStore::new(1)), cache));
        let cancel = CancellationToken::new();
        let mut reach = Reach::new(&fetcher, &cancel);
        let shared: Vec<ChunkRef> = (0..4_000_u32)
            .map(|number| ChunkRef { id: ChunkId::of(&number.to_le_bytes()), length: 1 })
            .collect();
        for revision in 0..500_u32 {
            let own = ChunkRef { id: ChunkId::of(&[revision.to_le_bytes(), [1; 4]].concat()), length: 1 };
            let refs = shared.iter().copied().chain([own]).collect();
            reach.add_manifest(&Content { level: 0, refs });
            assert!(reach.waiting[Kind::of_manifest(0).index()].len() < 2 * BATCH + 4_001);
        }
        let mut waiting = std::mem::take(&mut reach.waiting[Kind::of_manifest(0).index()]);
        waiting.sort_unstable();
        waiting.dedup();
        assert_eq!(waiting.len(), 4_500);
    }
}
