//! What everybody was told, and what must therefore hold after every write.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::TryStreamExt as _;

use crate::base::{ChunkId, RevisionId};
use crate::objects::{Key, SimStore};
use crate::store::EntryKind;
use crate::store::pack::{PackInfo, PackName};
use crate::store::revision::{self, RevisionRef};
use crate::store::verify::find_table;
use crate::workspace::Depot;
use crate::workspace::faults::scene::Host;
use crate::workspace::manifest::{ManifestReader, content_refs};

/// A revision that somebody was told is saved, and nobody removed.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Which tree it is of.
    pub(super) tree: usize,
    /// Its record, and the chunks that it needs: once somebody looked.
    needs: Option<(Key, BTreeSet<ChunkId>)>,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) saves: u64,
    pub(super) failed_saves: u64,
    pub(super) copies: u64,
    pub(super) removals: u64,
    pub(super) undone: u64,
    pub(super) restores: u64,
    pub(super) collections: u64,
    pub(super) given_up_collections: u64,
    pub(super) deleted_packs: u64,
    pub(super) moved_chunks: u64,
    pub(super) rewritten_segments: u64,
    pub(super) evictions: u64,
    pub(super) kills: u64,
    pub(super) pauses: u64,
    pub(super) refused: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            steps,
            saves,
            failed_saves,
            copies,
            removals,
            undone,
            restores,
            collections,
            given_up_collections,
            deleted_packs,
            moved_chunks,
            rewritten_segments,
            evictions,
            kills,
            pauses,
            refused,
        } = other;
        self.steps += steps;
        self.saves += saves;
        self.failed_saves += failed_saves;
        self.copies += copies;
        self.removals += removals;
        self.undone += undone;
        self.restores += restores;
        self.collections += collections;
        self.given_up_collections += given_up_collections;
        self.deleted_packs += deleted_packs;
        self.moved_chunks += moved_chunks;
        self.rewritten_segments += rewritten_segments;
        self.evictions += evictions;
        self.kills += kills;
        self.pauses += pauses;
        self.refused += refused;
    }
}

/// What everybody was told.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) kept: BTreeMap<RevisionId, Kept>,
    pub(super) removed: BTreeMap<RevisionId, (RevisionRef, usize)>,
    /// What should not have happened.
    pub(super) complaints: Vec<String>,
    pub(super) tally: Tally,
}

impl Notes {
    pub(super) fn keep(&mut self, id: RevisionId, tree: usize) {
        self.kept.insert(id, Kept { tree, needs: None });
    }
}

/// The notes, which all actors write.
#[derive(Debug, Clone, Default)]
pub(super) struct Book(Arc<Mutex<Notes>>);

impl Book {
    pub(super) fn open(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap()
    }

    pub(super) fn complain(&self, what: String) {
        self.open().complaints.push(what);
    }
}

/// Looks at the store after every write, past all turns and faults.
#[derive(Debug)]
pub(super) struct Witness {
    host: Host,
    sim: SimStore,
    book: Book,
    tables: HashMap<PackName, BTreeSet<ChunkId>>,
}

impl Witness {
    pub(super) fn new(host: Host, sim: SimStore, book: Book) -> Self {
        Self { host, sim, book, tables: HashMap::new() }
    }

    /// Complains unless every revision that is kept has its record, and each of its chunks lies in a pack that is there (I1).
    pub(super) async fn look(&mut self) {
        let contents = self.sim.contents();
        let copy = SimStore::from_contents(0, contents.clone());
        let unread: Vec<RevisionId> = {
            let notes = self.book.open();
            notes.kept.iter().filter(|(_, kept)| kept.needs.is_none()).map(|(id, _)| *id).collect()
        };
        for id in unread {
            match self.needs(&copy, id, contents.keys()).await {
                Ok(needs) => {
                    if let Some(kept) = self.book.open().kept.get_mut(&id) {
                        kept.needs = Some(needs);
                    }
                }
                Err(problem) => return self.book.complain(format!("{id}: {problem}")),
            }
        }
        let mut there = BTreeSet::new();
        for (key, bytes) in &contents {
            let Some(pack) = PackName::of_key(key) else { continue };
            if let Entry::Vacant(unread) = self.tables.entry(pack) {
                let info = PackInfo { pack, size: bytes.len() as u64, table_length: 0 };
                let (_, table) = find_table(&copy, info).await.unwrap().unwrap();
                let frames = table.unwrap().frames;
                let chunks = frames.iter().flat_map(|frame| &frame.chunks).map(|(id, _)| *id).collect();
                unread.insert(chunks);
            }
            there.extend(self.tables.get(&pack).unwrap());
        }
        let mut notes = self.book.open();
        let mut problems = Vec::new();
        for (id, kept) in &notes.kept {
            let Some((record, chunks)) = &kept.needs else { continue };
            let lost = chunks.difference(&there).count();
            if lost > 0 || !contents.contains_key(record) {
                problems.push(format!("{id}: {lost} of {} chunks are gone, or its record", chunks.len()));
            }
        }
        notes.complaints.append(&mut problems);
    }

    async fn needs<'a>(
        &self,
        copy: &SimStore,
        id: RevisionId,
        keys: impl Iterator<Item = &'a Key>,
    ) -> Result<(Key, BTreeSet<ChunkId>), String> {
        let said = |error: &dyn std::fmt::Debug| format!("{error:?}");
        let mut revisions = keys.filter_map(RevisionRef::of_key);
        let found = revisions.find(|revision| revision.id == id).ok_or("it has no record")?;
        let record = revision::read(copy, &found).await.map_err(|error| said(&error))?;
        let record = record.ok_or("its record is gone")?;
        let depot = Depot { objects: Arc::new(copy.clone()), ..self.host.depot.clone() };
        let fetcher = depot.fetcher();
        let manifest = ManifestReader::open(&fetcher, &record).await.map_err(|error| said(&error))?;
        let mut chunks: BTreeSet<ChunkId> = manifest.chunks().collect();
        let mut entries = Box::pin(manifest.entries());
        while let Some(entry) = entries.try_next().await.map_err(|error| said(&error))? {
            let EntryKind::File { content, .. } = &entry.kind else { continue };
            let refs = content_refs(&fetcher, manifest.locations(), content).await;
            chunks.extend(refs.map_err(|error| said(&error))?.into_iter().map(|(_, id)| id));
        }
        Ok((found.key().map_err(|error| said(&error))?, chunks))
    }
}
