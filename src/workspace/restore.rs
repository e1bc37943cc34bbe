//! Restoring a revision to a directory.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio_util::sync::CancellationToken;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::fill::{FileMode, FillPlan, Filler, Losses};
use super::manifest::{ManifestReader, chunks_of};
use super::mark::touch;
use super::remember::Memory;
use super::save::{blocking, threads};
use super::tree::{Includes, Inclusion, RestoreRights, Shortfall, Shortfalls, StatKind, TargetTree, Writer};
use crate::base::{ByteSize, ChunkId, Monotonic, RevisionId, Sink, WorkspaceName, fs::free_space};
use crate::store::fetch::{Fetcher, Locations};
use crate::store::pack::{PackKind, PackName, PackTable};
use crate::store::revision::{self, Revision, RevisionCounts, RevisionRef};
use crate::store::{Attributes, ChunkRef, Content, Entry, EntryKind, EntryPath, Extent, StoreError};

/// Entries that are planned and written together: some 40 MB of plan.
const WINDOW_ENTRIES: usize = 96 << 10;
/// Chunks of such a window.
const WINDOW_CHUNKS: usize = 192 << 10;
/// Tables of packs are kept from window to window while they are not larger than this, in bytes.
const KEPT_TABLES: u64 = 64 << 20;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How a revision is to be restored.
#[derive(Debug, Clone, Default)]
pub struct RestoreSpec {
    /// Patterns of what is restored; without any, everything is.
    pub includes: Vec<String>,
    /// What entries may be given.
    pub rights: RestoreRights,
    /// How many threads decompress and write; 0 for one a core.
    pub jobs: usize,
    /// Most bytes of files, holes included.
    pub max_bytes: Option<u64>,
    /// Most entries.
    pub max_entries: Option<u64>,
    /// Whether the store is not told of the use. Rules that remove what nobody used then know nothing of it.
    pub unnoted: bool,
}

/// What a restore did.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The revision.
    pub revision: RevisionId,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// What was restored.
    pub counts: RevisionCounts,
    /// Bytes of packs that were fetched.
    pub fetched_bytes: u64,
    /// What entries could not be given: the reason, how many, and the first of them.
    pub shortfalls: Vec<(String, u64, String)>,
    /// How long it took.
    pub took: Duration,
}

/// Restores a revision to a directory that does not exist yet, or is empty.
///
/// Publishing by a rename is the commit point: before it nothing stands under the final name, and what a crash leaves is a directory
/// `.<name>.restore-…` beside it. An empty directory that cannot be replaced, since something is mounted on it, this process stands in
/// it or the directory above may not be changed, is written in place: there is no commit point then, a restore that fails clears it, and a crash leaves half a tree in it. Every
/// chunk is verified. Needs no right to write to the store; where there is one, the use is noted
/// ([`touch`]).
///
/// # Errors
///
/// Fails where the target is occupied or too small, a limit is exceeded, the store does not answer, anything is damaged or lost
/// (nothing is published then), and when `cancel` is cancelled.
pub async fn restore(
    depot: &Depot,
    revision: &RevisionRef,
    target: &Path,
    spec: &RestoreSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, WorkspaceError> {
    let clock = Monotonic::start();
    let record = read(depot, revision).await?;
    let includes = if spec.includes.is_empty() { None } else { Some(Includes::new(&spec.includes)?) };
    let limits = Limits::of(spec);
    if includes.is_none() {
        limits.check(&record.counts)?;
        has_room(target, record.counts.data_bytes)?;
    }
    sink.emit(WorkspaceEvent::Began {
        job: "restore",
        name: format!("{}@{}", record.workspace, record.id),
        files: Some(record.counts.files),
        bytes: Some(record.counts.data_bytes),
    });
    let staging = TargetTree::create(target)?;
    let fetcher = depot.fetcher();
    let filler = Filler::new(
        Arc::clone(&fetcher),
        staging.tree().clone(),
        &spec.rights,
        threads(spec.jobs),
        cancel.clone(),
    );
    let filler = Arc::new(if includes.is_none() { filler.noting() } else { filler });
    let told = tell(Arc::clone(&filler), Arc::clone(&sink));
    let mut job = Restoring::new(&fetcher, Arc::clone(&filler), &record, includes, limits).await?;
    let written = job.run().await;
    told.abort();
    if let Err(error) = written {
        return Err(of_lost(depot, revision, error).await);
    }
    let counts = job.counts;
    if cancel.is_cancelled() {
        return Err(WorkspaceError::Cancelled);
    }
    sink.emit(WorkspaceEvent::Step { name: "publishing" });
    // In a fresh tree nobody else could change anything so far.
    let time = staging.tree().file_system_now().ok();
    let publishing = target.to_owned();
    blocking(move || staging.publish()).await?.map_err(|source| WorkspaceError::Tree {
        action: "publish",
        path: publishing,
        source,
    })?;
    let seen = filler.take_seen();
    // Where others could write meanwhile, a later look says nothing of what this restore wrote.
    let is_remembered = filler.shortfalls.is_empty() && (filler.tree.is_fresh() || !seen.is_empty());
    let memory = job.memory.take().filter(|_| is_remembered);
    if let Some((memory, time)) = memory.zip(time) {
        let (depot, target) = (depot.clone(), target.to_owned());
        blocking(move || memory.write(&depot, &target, time, seen)).await?;
    }
    if !spec.unnoted {
        touch(depot, revision).await;
    }
    let (_, _, fetched_bytes) = filler.progress();
    Ok(RestoreReport {
        revision: record.id,
        workspace: record.workspace.clone(),
        counts,
        fetched_bytes,
        shortfalls: rows(&filler.shortfalls),
        took: clock.elapsed(),
    })
}

/// Reads a revision's record.
pub(super) async fn read(depot: &Depot, revision: &RevisionRef) -> Result<Revision, WorkspaceError> {
    let found = revision::read(&*depot.objects, revision).await?;
    found.ok_or_else(|| WorkspaceError::NotFound {
        what: "revision",
        name: format!("{}@{}", revision.workspace, revision.id),
        nearest: None,
    })
}

/// What a chunk that is lost means: of a revision that was removed meanwhile, that it is not there any more.
pub(super) async fn of_lost(depot: &Depot, revision: &RevisionRef, error: WorkspaceError) -> WorkspaceError {
    let is_damage =
        matches!(&error, WorkspaceError::Damaged { .. } | WorkspaceError::Store(StoreError::Lost { .. }));
    match is_damage {
        true => read(depot, revision).await.err().unwrap_or(error),
        false => error,
    }
}

/// Tells how far a restore is, until the task is aborted.
pub(super) fn tell(
    filler: Arc<Filler>,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
) -> tokio_util::task::AbortOnDropHandle<()> {
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let (files, bytes, moved_bytes) = filler.progress();
            sink.emit(WorkspaceEvent::Progress { files, bytes, moved_bytes });
        }
    }))
}

pub(super) fn rows(shortfalls: &Shortfalls) -> Vec<(String, u64, String)> {
    shortfalls.rows().map(|(what, count, first)| (what.to_string(), count, first.to_string())).collect()
}

/// The caller's limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    bytes: Option<u64>,
    entries: Option<u64>,
}

impl Limits {
    pub(super) fn of(spec: &RestoreSpec) -> Self {
        Self { bytes: spec.max_bytes, entries: spec.max_entries }
    }

    /// Checks what a record says, or what was met so far.
    pub(super) fn check(self, counts: &RevisionCounts) -> Result<(), WorkspaceError> {
        let within = |most: Option<u64>, found| most.filter(|most| found > *most);
        if let Some(most) = within(self.entries, counts.entries) {
            return Err(WorkspaceError::TooLarge { limit: format!("{most} entries") });
        }
        match within(self.bytes, counts.bytes) {
            Some(most) => Err(WorkspaceError::TooLarge { limit: ByteSize(most).to_string() }),
            None => Ok(()),
        }
    }
}

/// Checks that the file system of `target` has room for this many bytes.
pub(super) fn has_room(target: &Path, needed: u64) -> Result<(), WorkspaceError> {
    let mut place = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    while !place.exists() {
        if !place.pop() {
            return Ok(());
        }
    }
    match free_space(&place) {
        Ok(free) if free < needed => {
            Err(WorkspaceError::NoRoom { path: place, free: ByteSize(free), needed: ByteSize(needed) })
        }
        // What cannot be asked is seen when it is full.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A restore in work.
struct Restoring {
    fetcher: Arc<Fetcher>,
    filler: Arc<Filler>,
    manifest: ManifestReader,
    packs: Packs,
    includes: Option<Includes>,
    limits: Limits,
    counts: RevisionCounts,
    directories: Vec<(EntryPath, Attributes)>,
    links: Vec<(EntryPath, EntryPath)>,
    /// Entries that could not be made, or may not.
    unmade: HashSet<EntryPath>,
    memory: Option<Memory>,
}

impl Restoring {
    async fn new(
        fetcher: &Arc<Fetcher>,
        filler: Arc<Filler>,
        record: &Revision,
        includes: Option<Includes>,
        limits: Limits,
    ) -> Result<Self, WorkspaceError> {
        let manifest = ManifestReader::open(fetcher, record).await?;
        let packs = Packs::of(fetcher, record).await?;
        let memory = includes.is_none().then(|| Memory::new(record));
        Ok(Self {
            fetcher: Arc::clone(fetcher),
            filler,
            manifest,
            packs,
            includes,
            limits,
            counts: RevisionCounts::default(),
            directories: Vec::new(),
            links: Vec::new(),
            unmade: HashSet::new(),
            memory,
        })
    }

    async fn run(&mut self) -> Result<(), WorkspaceError> {
        let mut losses = Losses::default();
        let mut blocks = Box::pin(self.manifest.blocks());
        let mut window = Window::default();
        while let Some((chunk, bytes, entries)) = blocks.try_next().await? {
            if self.filler.cancel.is_cancelled() {
                return Err(WorkspaceError::Cancelled);
            }
            if let Some(memory) = &mut self.memory {
                memory.block(chunk, &bytes);
            }
            for entry in entries {
                self.take(entry, &mut window).await?;
                if window.entries >= WINDOW_ENTRIES || window.fill.chunks() >= WINDOW_CHUNKS {
                    self.write(std::mem::take(&mut window), &mut losses).await?;
                }
            }
        }
        drop(blocks);
        self.write(window, &mut losses).await?;
        losses.into_result()?;
        let filler = Arc::clone(&self.filler);
        let links = linkable(&filler, std::mem::take(&mut self.links), &self.unmade);
        let directories = std::mem::take(&mut self.directories);
        blocking(move || {
            filler.with_writer(|writer| {
                for (path, target) in &links {
                    writer.hard_link(target, path).map_err(|source| WorkspaceError::Entry {
                        action: "link",
                        path: path.clone(),
                        source,
                    })?;
                }
                // Each further name changed the first one's time of change. Where others could write meanwhile, so could they.
                let names = links.iter().flat_map(|(path, target)| [path, target]);
                for name in names.filter(|_| filler.tree.is_fresh()) {
                    let stat = writer.stat(name).map_err(|source| WorkspaceError::Entry {
                        action: "look at",
                        path: name.clone(),
                        source,
                    })?;
                    filler.note(name, &stat);
                }
                finish_directories(&filler, writer, &directories)
            })
        })
        .await?
    }

    async fn take(&mut self, entry: Entry, window: &mut Window) -> Result<(), WorkspaceError> {
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        match self.includes.as_ref().map(|includes| includes.matches(&entry.path, is_directory)) {
            None | Some(Inclusion::Yes) => {}
            Some(Inclusion::Parent) if is_directory => {}
            Some(Inclusion::Parent | Inclusion::No) => return Ok(()),
        }
        window.entries += 1;
        self.counts.entries += 1;
        let Entry { path, kind, attributes } = entry;
        match kind {
            EntryKind::Directory => {
                self.counts.directories += 1;
                window.directories.push(path.clone());
                self.directories.push((path, attributes));
            }
            EntryKind::File { size, content, extents } => {
                self.counts.files += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(size);
                let data =
                    extents.as_ref().map_or(size, |extents| extents.iter().map(|extent| extent.length).sum());
                self.counts.data_bytes = self.counts.data_bytes.saturating_add(data);
                let refs = self.refs(&path, (&content, size, extents.as_deref()), window).await?;
                window.fill.file(path, attributes, size, extents, FileMode::Create, placed(refs));
            }
            // The file it is a name of may be left out, and then there is nothing to link to.
            EntryKind::HardLink { target } => match &self.includes {
                Some(includes) if includes.matches(&target, false) != Inclusion::Yes => {
                    self.filler.shortfalls.count(Shortfall::Link, &path);
                }
                Some(_) | None => self.links.push((path, target)),
            },
            kind => window.others.push(Entry { path, kind, attributes }),
        }
        // Of a part the record does not tell how much it is.
        self.limits.check(&self.counts)
    }

    /// Returns the chunks of a file.
    async fn refs(
        &self,
        path: &EntryPath,
        file: (&Content, u64, Option<&[Extent]>),
        window: &mut Window,
    ) -> Result<Vec<ChunkRef>, WorkspaceError> {
        let (locations, mut lists) = (self.manifest.locations(), Vec::new());
        let refs = chunks_of(&self.fetcher, locations, path, file, &mut lists).await?;
        if lists.is_empty() {
            return Ok(refs);
        }
        let pack_of =
            |id: &ChunkId| locations.get(id).and_then(|location| locations.pack(location.pack)).copied();
        window.lists.insert(window.fill.files(), lists.iter().map(pack_of).collect());
        Ok(refs)
    }

    async fn write(&mut self, window: Window, losses: &mut Losses) -> Result<(), WorkspaceError> {
        let Window { directories, others, fill, lists, entries: _ } = window;
        let filler = Arc::clone(&self.filler);
        let unmade = blocking(move || {
            filler.with_writer(|writer| {
                for path in directories {
                    writer.create_dir(&path).map_err(|source| WorkspaceError::Entry {
                        action: "make",
                        path,
                        source,
                    })?;
                }
                make_others(&filler, writer, others)
            })
        })
        .await??;
        self.unmade.extend(unmade);
        let locations = self.packs.locate(&self.fetcher, &fill).await?;
        if let Some(memory) = &mut self.memory {
            fill.packs_of_files(&locations, &mut |file, packs| {
                memory.file(packs.chain(lists.get(&file).into_iter().flatten().copied()));
            });
        }
        self.filler.fill(fill, &locations, losses).await
    }
}

/// Entries that are written together.
#[derive(Debug, Default)]
struct Window {
    entries: usize,
    directories: Vec<EntryPath>,
    others: Vec<Entry>,
    fill: FillPlan,
    /// Of files whose chunks stand in lists, the packs of these, by the file's number.
    lists: HashMap<usize, Vec<Option<PackName>>>,
}

/// Puts the chunks of a file at their places in its data.
pub(super) fn placed(refs: Vec<ChunkRef>) -> impl Iterator<Item = (u64, ChunkRef)> {
    let mut at = 0;
    refs.into_iter().map(move |chunk| {
        let place = at;
        at += u64::from(chunk.length);
        (place, chunk)
    })
}

/// Makes what is neither a directory nor a file nor a further name of one; returns whether it is there now. What is not was counted.
pub(super) fn make_other(
    filler: &Filler,
    writer: &mut Writer,
    entry: &Entry,
) -> Result<bool, WorkspaceError> {
    let Entry { path, kind, attributes } = entry;
    let Filler { rights, shortfalls, .. } = filler;
    let device = |writer: &mut Writer, kind, major, minor| {
        if !rights.devices {
            return Ok(None);
        }
        match writer.device(path, kind, major, minor) {
            Ok(()) => Ok(Some(kind)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(error),
        }
    };
    let made = match kind {
        EntryKind::Symlink { target } => writer.symlink(path, target).map(|()| Some(StatKind::Symlink)),
        EntryKind::Fifo => writer.fifo(path).map(|()| Some(StatKind::Fifo)),
        EntryKind::CharDevice { major, minor } => device(writer, StatKind::CharDevice, *major, *minor),
        EntryKind::BlockDevice { major, minor } => device(writer, StatKind::BlockDevice, *major, *minor),
        EntryKind::Socket => {
            shortfalls.count(Shortfall::Socket, path);
            return Ok(false);
        }
        EntryKind::Directory | EntryKind::File { .. } | EntryKind::HardLink { .. } => return Ok(false),
    };
    let failed = |action| move |source| WorkspaceError::Entry { action, path: path.clone(), source };
    match made.map_err(failed("make"))? {
        None => {
            shortfalls.count(Shortfall::Device, path);
            Ok(false)
        }
        Some(kind) => {
            let stat = writer
                .finish_path(path, kind, attributes, rights, shortfalls)
                .map_err(failed("set the attributes of"))?;
            filler.note(path, &stat);
            Ok(true)
        }
    }
}

/// As [`make_other`], for several; returns those that are not there, which have no further names either.
pub(super) fn make_others(
    filler: &Filler,
    writer: &mut Writer,
    others: Vec<Entry>,
) -> Result<Vec<EntryPath>, WorkspaceError> {
    let mut unmade = Vec::new();
    for entry in others {
        if !make_other(filler, writer, &entry)? {
            unmade.push(entry.path);
        }
    }
    Ok(unmade)
}

/// Leaves out further names of what is not there, and counts them.
pub(super) fn linkable(
    filler: &Filler,
    links: Vec<(EntryPath, EntryPath)>,
    unmade: &HashSet<EntryPath>,
) -> Vec<(EntryPath, EntryPath)> {
    let (lost, links): (Vec<_>, Vec<_>) = links.into_iter().partition(|(_, target)| unmade.contains(target));
    for (path, _) in &lost {
        filler.shortfalls.count(Shortfall::Link, path);
    }
    links
}

/// Gives directories their attributes, the deepest first.
pub(super) fn finish_directories(
    filler: &Filler,
    writer: &mut Writer,
    directories: &[(EntryPath, Attributes)],
) -> Result<(), WorkspaceError> {
    for (path, attributes) in directories.iter().rev() {
        let stat = writer
            .finish_path(path, StatKind::Directory, attributes, &filler.rights, &filler.shortfalls)
            .map_err(|source| WorkspaceError::Entry {
                action: "set the attributes of",
                path: path.clone(),
                source,
            })?;
        filler.note(path, &stat);
    }
    Ok(())
}

/// The packs that hold a revision's files.
#[derive(Debug)]
pub(super) struct Packs {
    infos: Vec<crate::store::pack::PackInfo>,
    /// The tables, when several windows need them.
    kept: Option<Vec<(PackName, PackTable)>>,
}

impl Packs {
    /// Takes the packs of a revision's data.
    pub(super) async fn of(fetcher: &Arc<Fetcher>, record: &Revision) -> Result<Self, StoreError> {
        let infos: Vec<_> =
            record.packs.iter().copied().filter(|info| info.pack.kind == PackKind::Data).collect();
        let total: u64 = infos.iter().map(|info| u64::from(info.table_length)).sum();
        let is_small = record.counts.entries <= WINDOW_ENTRIES as u64;
        let kept = if !is_small && total <= KEPT_TABLES {
            Some(fetcher.tables(infos.iter().copied()).await?)
        } else {
            None
        };
        Ok(Self { infos, kept })
    }

    /// Finds the chunks of a plan.
    pub(super) async fn locate(
        &self,
        fetcher: &Arc<Fetcher>,
        plan: &FillPlan,
    ) -> Result<Locations, StoreError> {
        self.locate_ids(fetcher, plan.ids()).await
    }

    /// Finds chunks.
    pub(super) async fn locate_ids(
        &self,
        fetcher: &Arc<Fetcher>,
        wanted: HashSet<ChunkId>,
    ) -> Result<Locations, StoreError> {
        if wanted.is_empty() {
            return Ok(Locations::default());
        }
        match &self.kept {
            Some(tables) => {
                let mut locations = Locations::default();
                for (pack, table) in tables {
                    locations.add(*pack, table, &mut |id| wanted.contains(id));
                }
                Ok(locations)
            }
            None => fetcher.locate(self.infos.iter().copied(), |id| wanted.contains(id)).await,
        }
    }
}
