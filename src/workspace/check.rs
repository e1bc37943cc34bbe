//! Looking for damage.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::damage::{Damage, Note, Problem, Touched};
use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::save::threads;
use crate::base::{ChunkId, Classify as _, ErrorKind, Monotonic, Sha256Digest, Sink};
use crate::objects::{Key, ObjectsError, Prefix};
use crate::store::fetch::{Fetcher, Locations};
use crate::store::manifest::{decode_chunk, decode_list};
use crate::store::pack::{PackInfo, PackKind, PackName, PackTable, TableFrame, WrittenName};
use crate::store::revision::{self, RevisionCounts, RevisionRef};
use crate::store::segment::Segment;
use crate::store::verify::{PackVerdict, table_of, verify};
use crate::store::view::{Evictions, View, condemned, evictions};
use crate::store::{ChunkRef, Content, Entry, EntryKind, EntryPath, Format, FormatError, StoreError};

/// How many small objects are fetched at the same time.
const FETCHES: usize = 16;
/// How many manifest chunks are read together.
const BLOCKS_AT_ONCE: usize = 512;
/// How many paths a problem names of each revision.
const PATHS_SHOWN: usize = 10;
/// Segments larger than this are looked up in this host's copy instead of in memory, in bytes.
const SEGMENT_IN_MEMORY: usize = 1 << 20;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How a store is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CheckSpec {
    /// Whether every byte of every pack is read and every chunk verified, not only what says where they lie.
    pub read_data: bool,
    /// Instead of every pack, about this many of a hundred, by chance. Only with [`CheckSpec::read_data`] or alone.
    pub sample_percent: Option<f64>,
    /// How many threads decompress and verify; 0 for one a core.
    pub jobs: usize,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Revisions whose manifests were read.
    pub revisions: u64,
    /// Segments of the index that were read.
    pub segments: u64,
    /// Packs that there are.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Chunks of manifests and files that the revisions need, each once.
    pub chunks: u64,
    /// Bytes that were read from packs.
    pub bytes_read: u64,
    /// What is damaged. Empty where the store is sound.
    pub problems: Vec<Problem>,
    /// What is no damage, and is said all the same.
    pub notes: Vec<Note>,
    /// How long it took.
    pub took: Duration,
}

/// Checks the whole store: that every revision's manifest is there and makes sense, that every chunk it names lies in a pack that is
/// there, that the index is what was written; and with [`CheckSpec::read_data`] every byte of every pack. Changes nothing, and may run
/// while others save and collect. Needs about 50 bytes of memory for each chunk of the store.
///
/// # Errors
///
/// Fails where the store does not answer, and when `cancel` is cancelled. Damage is no error: it stands in the report.
pub async fn check(
    depot: &Depot,
    spec: &CheckSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<CheckReport, WorkspaceError> {
    if spec.sample_percent.is_some_and(|percent| !(percent > 0.0 && percent <= 100.0)) {
        return Err(WorkspaceError::Invalid {
            reason: "a sample is more than 0 and up to 100 percent".into(),
        });
    }
    let mut checking = Checking::new(depot, *spec, sink, cancel);
    checking.format().await?;
    checking.step("reading records")?;
    checking.records().await?;
    checking.step("reading the index")?;
    checking.index().await?;
    checking.step("reading packs")?;
    checking.packs().await?;
    checking.step("reading manifests")?;
    checking.manifests().await?;
    checking.finish().await
}

/// A pack and the size of its object.
type SizedPack = (PackInfo, u64);

/// A record, without what is not needed any more.
#[derive(Debug)]
struct Record {
    revision: RevisionRef,
    key: String,
    manifest: Content,
    counts: RevisionCounts,
    /// Its manifest chunks, by their numbers.
    blocks: Vec<u32>,
    /// Lists of its manifest that are damaged or lost.
    bad: Vec<ChunkId>,
}

/// What is known of a manifest chunk.
#[derive(Debug, Default)]
struct Block {
    id: Option<ChunkId>,
    first: EntryPath,
    last: EntryPath,
    counts: RevisionCounts,
    /// Files that cannot be restored, and the chunks they lack.
    bad: Vec<(EntryPath, Vec<ChunkId>)>,
    is_bad: bool,
}

/// A check in work.
struct Checking<'a> {
    depot: &'a Depot,
    spec: CheckSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &'a CancellationToken,
    clock: Monotonic,
    fetcher: Arc<Fetcher>,
    records: Vec<Record>,
    segments: Vec<Arc<Segment>>,
    /// Packs that segments name, and those that records name.
    indexed: BTreeMap<PackName, PackInfo>,
    recorded: BTreeMap<PackName, PackInfo>,
    /// Sizes of the packs that are there.
    listed: BTreeMap<PackName, u64>,
    condemned: HashSet<PackName>,
    /// The beginnings of the ids of chunks that lie somewhere, and whether a revision needs them.
    chunks: HashMap<u128, bool>,
    meta: Locations,
    blocks: Vec<Block>,
    block_numbers: HashMap<ChunkId, u32>,
    sound_lists: HashSet<ChunkId>,
    /// Chunks that cannot be read, and the problem that says so.
    bad: HashMap<ChunkId, usize>,
    /// Chunks of files that lay in no pack when the packs were read.
    absent: HashSet<ChunkId>,
    /// Problems that a collection may be the reason of, as it ran meanwhile: they are told when they turn out to be true.
    supposed: BTreeSet<usize>,
    problems: Vec<Problem>,
    notes: Vec<Note>,
    segments_read: u64,
    packs_read: u64,
    bytes_read: Arc<AtomicU64>,
}

/// Half of an id is enough to tell chunks apart that nobody made up, and half of the memory.
fn beginning(id: &ChunkId) -> u128 {
    id.as_bytes().first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

impl<'a> Checking<'a> {
    fn new(
        depot: &'a Depot,
        spec: CheckSpec,
        sink: Arc<dyn Sink<WorkspaceEvent>>,
        cancel: &'a CancellationToken,
    ) -> Self {
        sink.emit(WorkspaceEvent::Began {
            job: "check",
            name: depot.objects.place(),
            files: None,
            bytes: None,
        });
        Self {
            depot,
            spec,
            sink,
            cancel,
            clock: Monotonic::start(),
            fetcher: depot.fetcher(),
            records: Vec::new(),
            segments: Vec::new(),
            indexed: BTreeMap::new(),
            recorded: BTreeMap::new(),
            listed: BTreeMap::new(),
            condemned: HashSet::new(),
            chunks: HashMap::new(),
            meta: Locations::default(),
            blocks: Vec::new(),
            block_numbers: HashMap::new(),
            sound_lists: HashSet::new(),
            bad: HashMap::new(),
            absent: HashSet::new(),
            supposed: BTreeSet::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            segments_read: 0,
            packs_read: 0,
            bytes_read: Arc::default(),
        }
    }

    fn step(&self, name: &'static str) -> Result<(), WorkspaceError> {
        self.sink.emit(WorkspaceEvent::Step { name });
        self.go_on()
    }

    fn go_on(&self) -> Result<(), WorkspaceError> {
        if self.cancel.is_cancelled() { Err(WorkspaceError::Cancelled) } else { Ok(()) }
    }

    fn problem(&mut self, key: impl Into<String>, damage: Damage, detail: impl Into<String>) -> usize {
        let problem = Problem { key: key.into(), damage, detail: detail.into(), touches: Vec::new() };
        self.sink.emit(WorkspaceEvent::Warning { message: problem.to_string() });
        self.problems.push(problem);
        self.problems.len() - 1
    }

    /// Notes what may turn out to be no problem at the end.
    fn suppose(&mut self, key: String, damage: Damage, detail: &str) -> usize {
        self.problems.push(Problem { key, damage, detail: detail.into(), touches: Vec::new() });
        self.supposed.insert(self.problems.len() - 1);
        self.problems.len() - 1
    }

    async fn list(&self, below: &str) -> Result<Vec<Key>, StoreError> {
        let listed = self.depot.objects.list(&Prefix::new(below)?).await?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    async fn format(&mut self) -> Result<(), WorkspaceError> {
        match Format::open(&*self.depot.objects).await {
            Ok(format) if format.id == self.depot.store => {}
            Ok(format) => {
                self.problem("format.json", Damage::Format, format!("it has another id: {}", format.id));
            }
            Err(FormatError::Objects(error)) => return Err(StoreError::from(error).into()),
            Err(error) => {
                self.problem("format.json", Damage::Format, told(&error));
            }
        }
        Ok(())
    }

    async fn records(&mut self) -> Result<(), WorkspaceError> {
        let objects = &self.depot.objects;
        let found = match revision::list(&**objects, None).await {
            Ok(found) => found,
            Err(StoreError::Damaged { key, source, .. }) => {
                self.problem(key, Damage::Protocol, source.to_string());
                let all = self.list("rev").await?.iter().filter_map(RevisionRef::of_key).collect::<Vec<_>>();
                let removed: BTreeSet<String> =
                    self.list("removed").await?.iter().map(ToString::to_string).collect();
                let is_removed =
                    |it: &RevisionRef| removed.contains(&format!("removed/{}/{}", it.workspace, it.id));
                all.into_iter().filter(|revision| !is_removed(revision)).collect()
            }
            Err(error) => return Err(error.into()),
        };
        // A tombstone stays for a while after its record.
        let tombstones: BTreeSet<String> =
            self.list("removed").await?.iter().map(ToString::to_string).collect();
        let records = self.list("rev").await?;
        let records = records.iter().filter_map(RevisionRef::of_key);
        let is_removed =
            |it: &RevisionRef| tombstones.contains(&format!("removed/{}/{}", it.workspace, it.id));
        self.note(records.filter(is_removed).count() as u64, Note::RemovedRevisions);
        let mut read = stream::iter(found)
            .map(|found| async move {
                let record = revision::read(&**objects, &found).await;
                (found, record)
            })
            .buffered(FETCHES);
        while let Some((revision, record)) = read.next().await {
            let key = revision.key()?.to_string();
            match record {
                Ok(Some(record)) => {
                    self.recorded.extend(record.packs.iter().map(|info| (info.pack, *info)));
                    self.records.push(Record {
                        revision,
                        key,
                        manifest: record.manifest,
                        counts: record.counts,
                        blocks: Vec::new(),
                        bad: Vec::new(),
                    });
                }
                // It was removed and collected since it was listed.
                Ok(None) => {}
                Err(StoreError::Damaged { source, .. }) => {
                    let at = self.problem(key, Damage::Record, source.to_string());
                    if let Some(problem) = self.problems.get_mut(at) {
                        problem.touches.push(Touched { revision, files: 0, paths: Vec::new() });
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn note(&mut self, count: u64, note: fn(u64) -> Note) {
        if count > 0 {
            self.notes.push(note(count));
        }
    }

    async fn index(&mut self) -> Result<(), WorkspaceError> {
        let mut done = BTreeSet::new();
        let mut refused = 0;
        // A segment that goes between the listing and the reading was compacted: its rows stand in a younger one.
        for _ in 0..3 {
            let mut has_vanished = false;
            let names: Vec<(WrittenName, Key)> = self
                .list("idx")
                .await?
                .into_iter()
                .filter_map(|key| Some((key.name().parse().ok()?, key)))
                .filter(|(name, _)| !done.contains(name))
                .collect();
            let evictions = self.evictions(&names).await?;
            let mut counting = Vec::new();
            for (name, key) in names {
                done.insert(name);
                if evictions.segment_counts(name.session, key.as_str()) {
                    counting.push((name, key));
                } else {
                    refused += 1;
                }
            }
            let objects = &self.depot.objects;
            let mut read = stream::iter(counting)
                .map(|(name, key)| async move {
                    let bytes = objects.get(&key).await?;
                    Ok::<_, ObjectsError>((name, key, bytes))
                })
                .buffered(2);
            while let Some((name, key, bytes)) = read.try_next().await.map_err(StoreError::from)? {
                self.go_on()?;
                match bytes {
                    Some(bytes) => self.segment(name, &key, &bytes).await?,
                    None => has_vanished = true,
                }
            }
            if !has_vanished {
                break;
            }
        }
        self.note(refused, Note::RefusedSegments);
        for below in ["packs", "meta"] {
            for object in self
                .depot
                .objects
                .list(&Prefix::new(below).map_err(StoreError::from)?)
                .await
                .map_err(StoreError::from)?
            {
                if let Some(pack) = PackName::of_key(&object.key) {
                    self.listed.insert(pack, object.size_bytes);
                }
            }
        }
        let sessions = self.list("sess").await?.len() as u64;
        self.note(sessions, Note::OpenSessions);
        // After the packs: what was deleted before they were listed is still condemned now.
        self.condemned = match condemned(&*self.depot.objects).await {
            Ok(condemned) => condemned,
            Err(StoreError::Damaged { key, source, .. }) => {
                self.problem(key, Damage::Protocol, source.to_string());
                HashSet::new()
            }
            Err(error) => return Err(error.into()),
        };
        let condemned = self.listed.keys().filter(|pack| self.condemned.contains(pack)).count() as u64;
        self.note(condemned, Note::CondemnedPacks);
        Ok(())
    }

    async fn evictions(&mut self, names: &[(WrittenName, Key)]) -> Result<Evictions, WorkspaceError> {
        let sessions = names.iter().map(|(name, _)| name.session).collect();
        match evictions(&*self.depot.objects, &sessions).await {
            Ok(evictions) => Ok(evictions),
            Err(StoreError::Damaged { key, source, .. }) => {
                if self.problems.iter().all(|problem| problem.key != key) {
                    self.problem(key, Damage::Protocol, source.to_string());
                }
                Ok(Evictions::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn segment(&mut self, name: WrittenName, key: &Key, bytes: &[u8]) -> Result<(), WorkspaceError> {
        self.segments_read += 1;
        if WrittenName::new(name.session, name.number, &Sha256Digest::of(bytes)) != name {
            self.problem(key.as_str(), Damage::Segment, "its digest does not match its name");
            return Ok(());
        }
        let mut segment = match Segment::open(bytes) {
            Ok(segment) => segment,
            Err(error) => {
                self.problem(key.as_str(), Damage::Segment, error.to_string());
                return Ok(());
            }
        };
        self.indexed.extend(segment.packs().iter().map(|info| (info.pack, *info)));
        if bytes.len() > SEGMENT_IN_MEMORY {
            let cache = self.depot.index_cache();
            if let Some(copy) = cache.open(&*self.depot.objects, &name, key).await? {
                segment = copy;
            }
        }
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    /// Reads what the packs hold: their tables, and of those that are to be read all of it.
    async fn packs(&mut self) -> Result<(), WorkspaceError> {
        let mut infos = self.recorded.clone();
        infos.extend(&self.indexed);
        let orphans: Vec<u64> =
            self.listed.iter().filter(|(pack, _)| !infos.contains_key(pack)).map(|(_, size)| *size).collect();
        if !orphans.is_empty() {
            self.notes.push(Note::OrphanPacks { count: orphans.len() as u64, bytes: orphans.iter().sum() });
        }
        let mut there = Vec::new();
        for (pack, info) in infos {
            match self.listed.get(&pack).copied() {
                // A record may name a pack that was collected since: its chunks were copied, and the index knows where.
                None if self.condemned.contains(&pack) || !self.indexed.contains_key(&pack) => {}
                None => {
                    self.problem(key_of(&pack)?, Damage::PackMissing, "the index names it");
                }
                Some(size) => {
                    if size != info.size {
                        let detail = format!("it has {size} bytes and was written with {}", info.size);
                        self.problem(key_of(&pack)?, Damage::PackSize, detail);
                    }
                    there.push((info, size));
                }
            }
        }
        let (read, looked) = self.choose(there);
        self.look(looked).await?;
        self.read(read).await
    }

    /// Returns the packs that are read whole, the largest first, and those of which only the table is.
    fn choose(&self, mut packs: Vec<SizedPack>) -> (Vec<SizedPack>, Vec<SizedPack>) {
        packs.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        match self.spec.sample_percent {
            Some(percent) => {
                fastrand::shuffle(&mut packs);
                // At least one, and the whole of a small store.
                let share = |count: u32| f64::from(count) / 100.0 * percent;
                let count = u32::try_from(packs.len()).unwrap_or(u32::MAX);
                let most = (1..=count).find(|n| f64::from(*n) >= share(count)).unwrap_or(0);
                let rest = packs.split_off(most as usize);
                (packs, rest)
            }
            None if self.spec.read_data => (packs, Vec::new()),
            None => (Vec::new(), packs),
        }
    }

    async fn look(&mut self, packs: Vec<SizedPack>) -> Result<(), WorkspaceError> {
        let objects = &self.depot.objects;
        let mut tables = stream::iter(packs)
            .map(|(info, _)| async move { Ok::<_, StoreError>((info, table_of(&**objects, &info).await?)) })
            .buffer_unordered(FETCHES);
        while let Some((info, table)) = tables.try_next().await? {
            self.go_on()?;
            let table = match table {
                None => {
                    self.vanished(&info).await?;
                    continue;
                }
                Some(Ok(table)) => table,
                Some(Err(error)) => {
                    self.problem(key_of(&info.pack)?, Damage::PackTable, error.to_string());
                    table_by_index(&self.segments, &info.pack)?
                }
            };
            for frame in &table.frames {
                for (id, _) in &frame.chunks {
                    self.chunks.insert(beginning(id), false);
                }
            }
            if info.pack.kind == PackKind::Meta {
                self.meta.add(info.pack, &table, &mut |_| true);
            }
        }
        Ok(())
    }

    async fn read(&mut self, packs: Vec<SizedPack>) -> Result<(), WorkspaceError> {
        let total: u64 = packs.iter().map(|(_, size)| size).sum();
        self.sink.emit(WorkspaceEvent::Began {
            job: "check",
            name: self.depot.objects.place(),
            files: Some(packs.len() as u64),
            bytes: Some(total),
        });
        let (objects, segments) = (Arc::clone(&self.depot.objects), self.segments.clone());
        let (sink, cancel, bytes_read) =
            (Arc::clone(&self.sink), self.cancel.clone(), Arc::clone(&self.bytes_read));
        let (done, told) = (AtomicU64::new(0), std::sync::Mutex::new(Monotonic::start()));
        let is_going_on = |bytes| {
            let bytes = bytes_read.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let is_due = told.lock().is_ok_and(|mut last| {
                let is_due = last.elapsed() >= TELL_EVERY;
                if is_due {
                    *last = Monotonic::start();
                }
                is_due
            });
            if is_due {
                let files = done.load(Ordering::Relaxed);
                sink.emit(WorkspaceEvent::Progress { files, bytes, moved_bytes: bytes });
            }
            !cancel.is_cancelled()
        };
        let (objects, segments, is_going_on) = (&objects, &segments, &is_going_on);
        let mut reading = stream::iter(packs)
            .map(|(info, size)| async move {
                let by_index = || table_by_index(segments, &info.pack).unwrap_or_default();
                let verdict = verify(objects, &info, size, by_index, is_going_on).await?;
                Ok::<_, StoreError>((info, verdict))
            })
            .buffer_unordered(threads(self.spec.jobs));
        while let Some((info, verdict)) = reading.try_next().await? {
            self.go_on()?;
            done.fetch_add(1, Ordering::Relaxed);
            match verdict {
                Some(verdict) => self.take(&info, verdict).await?,
                None => self.vanished(&info).await?,
            }
        }
        Ok(())
    }

    /// Takes what was found in a pack.
    async fn take(&mut self, info: &PackInfo, verdict: PackVerdict) -> Result<(), WorkspaceError> {
        self.packs_read += 1;
        let PackVerdict { sound, mut damaged, faults, is_table_damaged, bytes: _ } = verdict;
        for id in &sound {
            self.chunks.insert(beginning(id), false);
        }
        if info.pack.kind == PackKind::Meta {
            let table = match table_of(&*self.depot.objects, info).await? {
                Some(Ok(table)) => table,
                Some(Err(_)) | None => table_by_index(&self.segments, &info.pack)?,
            };
            let sound: HashSet<&ChunkId> = sound.iter().collect();
            self.meta.add(info.pack, &table, &mut |id| sound.contains(id));
        }
        let detail = faults.join("; ");
        if !damaged.is_empty() {
            damaged.sort_unstable();
            damaged.dedup();
            let detail = if detail.is_empty() {
                format!("{} of its {} chunks", damaged.len(), damaged.len() + sound.len())
            } else {
                format!("{} of its {} chunks; {detail}", damaged.len(), damaged.len() + sound.len())
            };
            let at = self.problem(key_of(&info.pack)?, Damage::Chunks(damaged.clone()), detail);
            self.bad.extend(damaged.into_iter().map(|id| (id, at)));
        } else if is_table_damaged {
            self.problem(key_of(&info.pack)?, Damage::PackTable, detail);
        } else if !detail.is_empty() {
            self.problem(key_of(&info.pack)?, Damage::PackBytes, detail);
        }
        Ok(())
    }

    /// Looks why a pack that was listed is not there any more.
    async fn vanished(&mut self, info: &PackInfo) -> Result<(), WorkspaceError> {
        let is_condemned = condemned(&*self.depot.objects).await?.contains(&info.pack);
        if !is_condemned && self.indexed.contains_key(&info.pack) {
            self.problem(key_of(&info.pack)?, Damage::PackMissing, "it went while this check ran");
        }
        Ok(())
    }

    async fn manifests(&mut self) -> Result<(), WorkspaceError> {
        for at in 0..self.records.len() {
            self.go_on()?;
            let Some(manifest) = self.records.get(at).map(|record| record.manifest.clone()) else { break };
            let (refs, bad) = self.refs(manifest, at).await?;
            let new: Vec<ChunkRef> =
                refs.iter().filter(|chunk| !self.block_numbers.contains_key(&chunk.id)).copied().collect();
            for some in new.chunks(BLOCKS_AT_ONCE) {
                self.go_on()?;
                for (chunk, bytes) in some.iter().zip(self.fetch(some).await?) {
                    self.block(chunk.id, bytes, at).await?;
                }
            }
            let blocks: Vec<u32> =
                refs.iter().filter_map(|chunk| self.block_numbers.get(&chunk.id).copied()).collect();
            let fault = self.sequence_fault(&blocks, at).filter(|_| bad.is_empty());
            if let Some(record) = self.records.get_mut(at) {
                (record.blocks, record.bad) = (blocks, bad);
            }
            if let (Some(fault), Some(record)) = (fault, self.records.get(at)) {
                let (key, revision) = (record.key.clone(), record.revision.clone());
                let problem = self.problem(key, Damage::Manifest, fault);
                if let Some(problem) = self.problems.get_mut(problem) {
                    problem.touches.push(Touched { revision, files: 0, paths: Vec::new() });
                }
            }
        }
        Ok(())
    }

    /// Returns what is wrong with a manifest whose chunks can all be read.
    fn sequence_fault(&self, blocks: &[u32], record: usize) -> Option<&'static str> {
        let blocks: Vec<&Block> = blocks.iter().filter_map(|at| self.blocks.get(*at as usize)).collect();
        if blocks.iter().any(|block| block.is_bad) {
            return None;
        }
        if !blocks.is_sorted_by(|one, next| one.last < next.first) {
            return Some("its manifest chunks are out of order");
        }
        let expected = self.records.get(record)?.counts;
        let counts = blocks.iter().fold(RevisionCounts::default(), |sum, block| RevisionCounts {
            entries: sum.entries + block.counts.entries,
            files: sum.files + block.counts.files,
            directories: sum.directories + block.counts.directories,
            bytes: sum.bytes.saturating_add(block.counts.bytes),
            data_bytes: expected.data_bytes,
        });
        (counts != expected).then_some("it counts other entries than its manifest has")
    }

    /// Follows a manifest's lists; returns its chunks, and the lists that cannot be read.
    async fn refs(
        &mut self,
        content: Content,
        record: usize,
    ) -> Result<(Vec<ChunkRef>, Vec<ChunkId>), WorkspaceError> {
        let (mut content, mut bad) = (content, Vec::new());
        while content.level > 0 {
            let mut below = Vec::new();
            for (list, bytes) in content.refs.iter().zip(self.fetch(&content.refs).await?) {
                match self.open_list(list.id, bytes, content.level, record)? {
                    Some(list) => below.extend(list.refs),
                    None => bad.push(list.id),
                }
            }
            content = Content { level: content.level - 1, refs: below };
        }
        Ok((content.refs, bad))
    }

    /// Opens a list that stands below a content of this level; `None`, and a problem, where that cannot be done.
    fn open_list(
        &mut self,
        id: ChunkId,
        bytes: Option<Bytes>,
        level: u8,
        record: usize,
    ) -> Result<Option<Content>, WorkspaceError> {
        self.need(&id);
        let Some(bytes) = bytes else {
            self.blame(id, record)?;
            return Ok(None);
        };
        match decode_list(&bytes) {
            Ok(list) if list.level + 1 == level => Ok(Some(list)),
            Ok(_) => {
                self.senseless(id, "a list is of another level", record);
                Ok(None)
            }
            Err(error) => {
                self.senseless(id, &error.to_string(), record);
                Ok(None)
            }
        }
    }

    /// Says that a chunk of a manifest is what was written and makes no sense.
    fn senseless(&mut self, id: ChunkId, detail: &str, record: usize) {
        if self.bad.contains_key(&id) {
            return;
        }
        let pack = self.meta.get(&id).and_then(|location| self.meta.pack(location.pack)).copied();
        let key =
            pack.and_then(|pack| key_of(&pack).ok()).or_else(|| Some(self.records.get(record)?.key.clone()));
        let at = self.problem(key.unwrap_or_default(), Damage::Manifest, format!("chunk {id}: {detail}"));
        self.bad.insert(id, at);
    }

    /// Reads chunks of manifests; `None` for one that is damaged or lost.
    async fn fetch(&self, refs: &[ChunkRef]) -> Result<Vec<Option<Bytes>>, WorkspaceError> {
        let together: Result<Vec<Bytes>, StoreError> =
            self.fetcher.in_order(&self.meta, refs).try_collect().await;
        match together {
            Ok(chunks) => return Ok(chunks.into_iter().map(Some).collect()),
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error.into()),
        }
        let mut chunks = Vec::with_capacity(refs.len());
        for chunk in refs {
            chunks.push(match self.fetcher.chunk(&self.meta, chunk.id).await {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == ErrorKind::Corrupt => None,
                Err(error) => return Err(error.into()),
            });
        }
        Ok(chunks)
    }

    /// Notes that a revision needs a chunk; returns whether it lies anywhere.
    fn need(&mut self, id: &ChunkId) -> bool {
        match self.chunks.get_mut(&beginning(id)) {
            Some(is_needed) => {
                *is_needed = true;
                true
            }
            None => false,
        }
    }

    /// Takes a manifest chunk that was not seen before.
    async fn block(
        &mut self,
        id: ChunkId,
        bytes: Option<Bytes>,
        record: usize,
    ) -> Result<(), WorkspaceError> {
        self.need(&id);
        let mut block = Block { id: Some(id), ..Block::default() };
        let entries = match bytes.map(|bytes| decode_chunk(&bytes)) {
            Some(Ok(entries)) => entries,
            Some(Err(error)) => {
                self.senseless(id, &error.to_string(), record);
                block.is_bad = true;
                Vec::new()
            }
            None => {
                self.blame(id, record)?;
                block.is_bad = true;
                Vec::new()
            }
        };
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            (block.first, block.last) = (first.path.clone(), last.path.clone());
        }
        for entry in entries {
            self.entry(entry, &mut block, record).await?;
        }
        let number = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        self.block_numbers.insert(id, number);
        self.blocks.push(block);
        Ok(())
    }

    async fn entry(&mut self, entry: Entry, block: &mut Block, record: usize) -> Result<(), WorkspaceError> {
        block.counts.entries += 1;
        match entry.kind {
            EntryKind::Directory => block.counts.directories += 1,
            EntryKind::File { size, content, .. } => {
                block.counts.files += 1;
                block.counts.bytes = block.counts.bytes.saturating_add(size);
                let bad = self.bad_below(content, record).await?;
                if !bad.is_empty() {
                    block.bad.push((entry.path, bad));
                }
            }
            EntryKind::Symlink { .. }
            | EntryKind::HardLink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Socket => {}
        }
        Ok(())
    }

    /// Returns the chunks of a file that are damaged or lost, its lists included.
    async fn bad_below(&mut self, content: Content, record: usize) -> Result<Vec<ChunkId>, WorkspaceError> {
        let (mut bad, mut lists, mut open) = (Vec::new(), Vec::new(), vec![content]);
        while let Some(Content { level, refs }) = open.pop() {
            if level == 0 {
                for chunk in refs {
                    if !self.need(&chunk.id) {
                        self.absent.insert(chunk.id);
                        self.blame(chunk.id, record)?;
                        bad.push(chunk.id);
                    }
                }
                continue;
            }
            // A list that was followed before and led to sound chunks does so again.
            let new: Vec<ChunkRef> =
                refs.into_iter().filter(|list| !self.sound_lists.contains(&list.id)).collect();
            for (list, bytes) in new.iter().zip(self.fetch(&new).await?) {
                match self.open_list(list.id, bytes, level, record)? {
                    Some(below) => open.push(below),
                    None => bad.push(list.id),
                }
                lists.push(list.id);
            }
        }
        if bad.is_empty() {
            self.sound_lists.extend(lists);
        }
        Ok(bad)
    }

    /// Finds or makes the problem that says that a chunk cannot be read.
    fn blame(&mut self, id: ChunkId, record: usize) -> Result<(), WorkspaceError> {
        if self.bad.contains_key(&id) {
            return Ok(());
        }
        let mut packs: Vec<PackName> = self
            .meta
            .get(&id)
            .and_then(|location| self.meta.pack(location.pack))
            .copied()
            .into_iter()
            .collect();
        for segment in &self.segments {
            let found = segment
                .find(&id)
                .map_err(|source| StoreError::Local { action: "read the cached index", source })?;
            packs.extend(found.iter().filter_map(|row| Some(segment.packs().get(row.pack as usize)?.pack)));
        }
        let mut keys = Vec::new();
        for pack in &packs {
            keys.push(key_of(pack)?);
        }
        // A pack that has a problem anyway is the reason.
        let known = self.problems.iter().position(|problem| keys.contains(&problem.key));
        let at = match (known, keys.into_iter().next()) {
            (Some(at), _) => at,
            (None, Some(key)) => {
                self.suppose(key, Damage::Chunks(Vec::new()), "chunks are not what was written")
            }
            (None, None) => {
                let key = self.records.get(record).map(|record| record.key.clone()).unwrap_or_default();
                let known = self
                    .problems
                    .iter()
                    .position(|problem| problem.key == key && matches!(problem.damage, Damage::Lost(_)));
                known.unwrap_or_else(|| {
                    self.suppose(key, Damage::Lost(Vec::new()), "chunks that it needs are nowhere")
                })
            }
        };
        if let Some(Problem { damage: Damage::Chunks(ids) | Damage::Lost(ids), .. }) =
            self.problems.get_mut(at)
        {
            ids.push(id);
        }
        self.bad.insert(id, at);
        Ok(())
    }

    /// Says which revisions each problem touches.
    fn touch(&mut self) {
        for record in &self.records {
            let mut touched: BTreeMap<usize, Touched> = BTreeMap::new();
            let fresh = || Touched { revision: record.revision.clone(), files: 0, paths: Vec::new() };
            let blocks: Vec<&Block> =
                record.blocks.iter().filter_map(|at| self.blocks.get(*at as usize)).collect();
            let lost = blocks.iter().filter(|block| block.is_bad).filter_map(|block| block.id);
            for id in lost.chain(record.bad.iter().copied()) {
                if let Some(at) = self.bad.get(&id) {
                    touched.entry(*at).or_insert_with(fresh);
                }
            }
            for (path, ids) in blocks.iter().flat_map(|block| &block.bad) {
                let problems: BTreeSet<usize> =
                    ids.iter().filter_map(|id| self.bad.get(id).copied()).collect();
                for at in problems {
                    let touched = touched.entry(at).or_insert_with(fresh);
                    touched.files += 1;
                    if touched.paths.len() < PATHS_SHOWN {
                        touched.paths.push(path.clone());
                    }
                }
            }
            for (at, touched) in touched {
                if let Some(problem) = self.problems.get_mut(at) {
                    problem.touches.push(touched);
                }
            }
        }
    }

    /// Takes back that chunks are lost which a collection moved while this ran: they lie in packs that are younger than the index that
    /// was read. What cannot be read in an index that is damaged itself stays a problem.
    async fn settle(&mut self) -> Result<(), WorkspaceError> {
        self.absent.retain(|id| self.bad.get(id).is_some_and(|at| self.supposed.contains(at)));
        if self.absent.is_empty() {
            return Ok(());
        }
        let view = match View::load(&*self.depot.objects, &self.depot.index_cache()).await {
            Ok(view) => view,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut there: HashSet<PackName> = HashSet::new();
        for below in ["packs", "meta"] {
            there.extend(self.list(below).await?.iter().filter_map(PackName::of_key));
        }
        for id in std::mem::take(&mut self.absent) {
            let places = view
                .places(&id)
                .map_err(|source| StoreError::Local { action: "read the cached index", source })?;
            let is_younger = |pack| !self.indexed.contains_key(pack) && !self.recorded.contains_key(pack);
            if !places.iter().any(|(info, _)| there.contains(&info.pack) && is_younger(&info.pack)) {
                continue;
            }
            self.chunks.insert(beginning(&id), true);
            let problem = self.bad.remove(&id).and_then(|at| self.problems.get_mut(at));
            if let Some(Problem { damage: Damage::Chunks(ids) | Damage::Lost(ids), .. }) = problem {
                ids.retain(|other| *other != id);
            }
        }
        Ok(())
    }

    /// Tells the supposed problems that are true. What was removed while this ran, and perhaps collected, is nobody's loss.
    async fn judge(&mut self) {
        let is_of_chunks = |problem: &Problem| matches!(problem.damage, Damage::Lost(_) | Damage::Chunks(_));
        if self.problems.iter().any(is_of_chunks)
            && let Ok(still) = revision::list(&*self.depot.objects, None).await
        {
            let still: BTreeSet<RevisionRef> = still.into_iter().collect();
            for problem in self.problems.iter_mut().filter(|problem| is_of_chunks(problem)) {
                problem.touches.retain(|touched| still.contains(&touched.revision));
            }
        }
        let mut at = 0..;
        self.problems.retain(|problem| {
            if !at.next().is_some_and(|at| self.supposed.contains(&at)) {
                return true;
            }
            if !problem.touches.is_empty() {
                self.sink.emit(WorkspaceEvent::Warning { message: problem.to_string() });
            }
            !problem.touches.is_empty()
        });
    }

    async fn finish(mut self) -> Result<CheckReport, WorkspaceError> {
        self.settle().await?;
        self.touch();
        self.judge().await;
        Ok(CheckReport {
            revisions: self.records.len() as u64,
            segments: self.segments_read,
            packs: self.listed.len() as u64,
            packs_read: self.packs_read,
            chunks: self.chunks.values().filter(|is_needed| **is_needed).count() as u64,
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            problems: self.problems,
            notes: self.notes,
            took: self.clock.elapsed(),
        })
    }
}

/// Returns a pack's key, for messages.
fn key_of(pack: &PackName) -> Result<String, StoreError> {
    Ok(pack.key()?.to_string())
}

/// Tells an error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        told.push_str(": ");
        told.push_str(&cause.to_string());
        next = cause.source();
    }
    told
}

/// Makes a pack's table out of the rows of the index: for one whose own is damaged.
fn table_by_index(segments: &[Arc<Segment>], pack: &PackName) -> Result<PackTable, StoreError> {
    let mut frames: BTreeMap<u32, TableFrame> = BTreeMap::new();
    let mut chunks: BTreeMap<(u32, u32), (ChunkId, u32)> = BTreeMap::new();
    for segment in segments {
        let Some(number) = segment.packs().iter().position(|info| info.pack == *pack) else { continue };
        let reading = segment.for_each(&mut |id, location| {
            if location.pack as usize == number {
                chunks.insert((location.frame_offset, location.offset), (id, location.length));
                frames.entry(location.frame_offset).or_insert_with(|| TableFrame {
                    offset: location.frame_offset,
                    stored_length: location.frame_length,
                    codec: location.codec,
                    raw_length: 0,
                    chunks: Vec::new(),
                });
            }
        });
        reading.map_err(|source: io::Error| StoreError::Local { action: "read the cached index", source })?;
    }
    for ((frame, _), (id, length)) in chunks {
        if let Some(frame) = frames.get_mut(&frame) {
            frame.raw_length = frame.raw_length.saturating_add(length);
            frame.chunks.push((id, length));
        }
    }
    Ok(PackTable { frames: frames.into_values().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Discard, now};
    use crate::store::gc::{self, GcSpec};
    use crate::workspace::remove::{Selection, remove};
    use crate::workspace::show;
    use crate::workspace::tests::Place;

    const ALL: CheckSpec = CheckSpec { read_data: true, sample_percent: None, jobs: 2 };

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.u8(..)).collect()
    }

    /// A store with two revisions: `text` and `large` are in both, `more` only in the second.
    async fn a_store() -> Place {
        let mut place = Place::new();
        let format = Format::init(&*place.depot.objects, None, now()).await.unwrap();
        place.depot.store = format.id;
        place.write("tree/text", "text ".repeat(9_000));
        place.write("tree/large", noise(1, 2 << 20));
        place.save("tree").await;
        place.write("tree/more", noise(2, 100_000));
        place.save("tree").await;
        place
    }

    async fn checked(place: &Place, spec: &CheckSpec) -> CheckReport {
        check(&place.depot, spec, Arc::new(Discard), &CancellationToken::new()).await.unwrap()
    }

    async fn objects(place: &Place, below: &str) -> Vec<crate::objects::ObjectInfo> {
        place.depot.objects.list(&Prefix::new(below).unwrap()).await.unwrap()
    }

    async fn flipped(place: &Place, key: &Key, at: usize) -> Bytes {
        let bytes = place.depot.objects.get(key).await.unwrap().unwrap();
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        place.depot.objects.put(key, damaged.into()).await.unwrap();
        bytes
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sound_store_has_no_problems_and_every_byte_was_read() {
        let place = a_store().await;
        let report = checked(&place, &ALL).await;
        assert_eq!(report.problems, []);
        assert_eq!(report.notes, []);
        let mut packs = objects(&place, "packs").await;
        packs.extend(objects(&place, "meta").await);
        assert_eq!(report.bytes_read, packs.iter().map(|pack| pack.size_bytes).sum::<u64>());
        let count = packs.len() as u64;
        assert_eq!((report.revisions, report.packs, report.packs_read), (2, count, count));
        assert!(report.chunks > 25 && report.segments == 2, "{report:?}");
        let structure = checked(&place, &CheckSpec::default()).await;
        assert_eq!((structure.problems.len(), structure.packs_read, structure.chunks), (0, 0, report.chunks));
        let sample = CheckSpec { sample_percent: Some(30.0), ..CheckSpec::default() };
        let sampled = checked(&place, &sample).await;
        assert_eq!((sampled.problems.len(), sampled.packs_read), (0, 2));
        for percent in [0.0, -1.0, 101.0, f64::NAN] {
            let spec = CheckSpec { sample_percent: Some(percent), ..ALL };
            let refused = check(&place.depot, &spec, Arc::new(Discard), &CancellationToken::new()).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flipped_bit_of_any_object_is_named_with_what_it_touches() {
        let place = a_store().await;
        let mut all = Vec::new();
        for below in ["packs", "meta", "idx", "rev"] {
            all.extend(objects(&place, below).await);
        }
        for object in all {
            let size = usize::try_from(object.size_bytes).unwrap();
            for at in [1, size / 2, size - 3] {
                let before = flipped(&place, &object.key, at).await;
                let report = checked(&place, &ALL).await;
                place.depot.objects.put(&object.key, before).await.unwrap();
                let told = format!("{} {at}: {:?}", object.key, report.problems);
                let [problem] = &report.problems[..] else { panic!("{told}") };
                assert_eq!(problem.key, object.key.to_string(), "{told}");
                let paths: BTreeSet<String> = problem
                    .touches
                    .iter()
                    .flat_map(|touched| touched.paths.iter().map(ToString::to_string))
                    .collect();
                match (object.key.segments().next().unwrap(), &problem.damage) {
                    ("packs", Damage::Chunks(ids)) => {
                        assert!(!ids.is_empty() && !paths.is_empty(), "{told}");
                    }
                    ("meta", Damage::Chunks(_)) => assert!(!problem.touches.is_empty(), "{told}"),
                    ("packs" | "meta", Damage::PackTable | Damage::PackBytes) | ("idx", Damage::Segment) => {
                        assert_eq!(problem.touches, [], "{told}");
                    }
                    ("rev", Damage::Record) => {
                        let touched = &problem.touches[0].revision;
                        assert_eq!(touched.key().unwrap(), object.key, "{told}");
                    }
                    _ => panic!("{told}"),
                }
            }
        }
        assert_eq!(checked(&place, &ALL).await.problems, []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_manifest_is_seen_without_reading_the_data() {
        let place = a_store().await;
        for object in objects(&place, "meta").await {
            let before = flipped(&place, &object.key, 40).await;
            let report = checked(&place, &CheckSpec::default()).await;
            place.depot.objects.put(&object.key, before).await.unwrap();
            let keys: Vec<&str> = report.problems.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(keys, [object.key.as_str()]);
            assert!(!report.problems[0].touches.is_empty());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_missing_pack_tells_the_files_that_lack_it() {
        let place = a_store().await;
        let newest = show(&place.depot, &place.newest().await).await.unwrap();
        let older =
            show(&place.depot, &revision::list(&*place.depot.objects, None).await.unwrap()[0]).await.unwrap();
        let own =
            newest.packs.iter().find(|info| info.pack.kind == PackKind::Data && !older.packs.contains(info));
        let key = own.unwrap().pack.key().unwrap();
        place.depot.objects.delete(std::slice::from_ref(&key)).await.unwrap();
        for spec in [ALL, CheckSpec::default()] {
            let report = checked(&place, &spec).await;
            let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
            assert_eq!((problem.key.as_str(), &problem.damage), (key.as_str(), &Damage::PackMissing));
            let [touched] = &problem.touches[..] else { panic!("{problem:?}") };
            assert_eq!((touched.revision.id, touched.files), (newest.id, 1));
            assert_eq!(touched.paths, [EntryPath::new("more").unwrap()]);
        }
        // What nobody needs any more is nobody's loss, but the index is still wrong.
        remove(&place.depot, &Selection::One(touched_by(&newest))).await.unwrap();
        let report = checked(&place, &ALL).await;
        assert_eq!(report.problems[0].touches, []);
        assert!(report.notes.contains(&Note::RemovedRevisions(1)));
    }

    fn touched_by(revision: &revision::Revision) -> RevisionRef {
        RevisionRef { workspace: revision.workspace.clone(), id: revision.id, session: revision.session }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leftovers_are_noted_and_are_no_damage() {
        let place = a_store().await;
        let other = Place::new();
        other.write("tree/x", noise(9, 5_000));
        other.save("tree").await;
        for object in objects(&other, "packs").await {
            let bytes = other.depot.objects.get(&object.key).await.unwrap().unwrap();
            place.depot.objects.put(&object.key, bytes).await.unwrap();
        }
        let session = Key::new(format!("sess/{}", crate::base::SessionId::generate())).unwrap();
        place.depot.objects.put(&session, "{}".into()).await.unwrap();
        let report = checked(&place, &ALL).await;
        assert_eq!(report.problems, []);
        assert!(matches!(report.notes[0], Note::OpenSessions(1)), "{:?}", report.notes);
        assert!(matches!(report.notes[1], Note::OrphanPacks { count: 1, .. }), "{:?}", report.notes);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_guards_the_store_is_checked_too() {
        let place = a_store().await;
        for (key, damage) in [("gc/run", Damage::Protocol), ("format.json", Damage::Format)] {
            let key = Key::new(key).unwrap();
            let before = place.depot.objects.get(&key).await.unwrap();
            place.depot.objects.put(&key, "{".into()).await.unwrap();
            let report = checked(&place, &CheckSpec::default()).await;
            assert_eq!(report.problems.iter().map(|it| &it.damage).collect::<Vec<_>>(), [&damage]);
            match before {
                Some(bytes) => place.depot.objects.put(&key, bytes).await.unwrap(),
                None => place.depot.objects.delete(&[key]).await.unwrap(),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn saves_and_removals_beside_a_check_are_no_damage() {
        let place = a_store().await;
        for round in 0..4 {
            place.write("one/x", noise(100 + round, 300_000));
            place.write("other/x", noise(200 + round, 300_000));
            let spec = |name: &str| crate::workspace::SaveSpec::new(name.parse().unwrap());
            let (one, other) = (spec("w"), spec("w"));
            let oldest = revision::list(&*place.depot.objects, None).await.unwrap().swap_remove(0);
            let removal = Selection::One(oldest);
            let (report, one, other, removed) = tokio::join!(
                checked(&place, &ALL),
                place.try_save("one", &one),
                place.try_save("other", &other),
                remove(&place.depot, &removal)
            );
            assert_eq!(report.problems, []);
            assert!(one.unwrap().revision != other.unwrap().revision && removed.is_ok());
        }
        let report = checked(&place, &ALL).await;
        assert_eq!((report.problems, report.revisions), (Vec::new(), 2 + 8 - 4));
        assert_eq!(report.notes, [Note::RemovedRevisions(4)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cancelled_check_ends() {
        let place = a_store().await;
        let cancel = CancellationToken::new();
        cancel.cancel();
        let ended = check(&place.depot, &ALL, Arc::new(Discard), &cancel).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    }

    /// Checks, and at the step of that name removes a revision and lets a collection run to its end: as of a check that is slow, or was
    /// stopped for a while.
    async fn checked_around_a_collection(
        place: &Place,
        spec: &CheckSpec,
        at: &'static str,
        removed: Option<RevisionRef>,
    ) -> CheckReport {
        let depot = place.depot.clone();
        let collects = move |event: WorkspaceEvent| {
            assert!(!matches!(event, WorkspaceEvent::Warning { .. }), "{event:?}");
            if !matches!(event, WorkspaceEvent::Step { name } if name == at) {
                return;
            }
            let spec = GcSpec { grace: Duration::ZERO, max_dead_percent: 0.0, ..GcSpec::default() };
            let (depot, removed) = (depot.clone(), removed.clone());
            let collecting = std::thread::spawn(move || {
                tokio::runtime::Runtime::new().unwrap().block_on(async {
                    if let Some(revision) = removed {
                        remove(&depot, &Selection::One(revision)).await.unwrap();
                    }
                    let (cache, cancel) = (depot.index_cache(), CancellationToken::new());
                    gc::collect(&depot.objects, &cache, &spec, &Discard, &cancel).await.unwrap()
                })
            });
            assert!(collecting.join().unwrap().deleted.0 > 0);
        };
        check(&place.depot, spec, Arc::new(collects), &CancellationToken::new()).await.unwrap()
    }

    // A check that was stopped while a collection ran blamed packs of revisions that had been removed meanwhile, and chunks that had
    // been moved were said to be lost.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_collection_moves_or_deletes_while_a_check_runs_is_no_damage() {
        for spec in [CheckSpec::default(), ALL] {
            for at in ["reading the index", "reading packs", "reading manifests"] {
                let place = a_store().await;
                std::fs::remove_file(place.path("tree/large")).unwrap();
                place.save("tree").await;
                let all = revision::list(&*place.depot.objects, None).await.unwrap();
                // `text` is moved out of the pack that it shares with `large`.
                for revision in all.into_iter().take(2) {
                    remove(&place.depot, &Selection::One(revision)).await.unwrap();
                }
                let report = checked_around_a_collection(&place, &spec, at, None).await;
                assert_eq!((report.problems, report.revisions), (vec![], 1), "{at}, {spec:?}");
                place.write("tree/again", noise(3, 300_000));
                place.save("tree").await;
                let newest = Some(place.newest().await);
                let report = checked_around_a_collection(&place, &spec, at, newest).await;
                assert_eq!((report.problems, report.revisions), (vec![], 2), "{at}, {spec:?}");
            }
        }
    }
}
