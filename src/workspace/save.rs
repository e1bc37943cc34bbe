//! Saving a directory as a revision.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::commit::{Made, commit, give_up};
use super::contents::{
    DataReader, FileOutcome, JOB_BYTES, JOB_FILES, Job, Outcome, PIECE_BYTES, Pipeline, Stored, has_changed,
    lengths_of,
};
use super::count::Counting;
use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::stage::{Draft, Stage, Staged};
use super::state::{Block, Known, StateKey, StateReader, StateWriter};
use super::tree::{
    Excludes, Found, Names, Reader, SourceTree, Stat, StatKind, WalkItem, WalkOptions, extents, stat_of, walk,
};
use crate::base::{ByteSize, Monotonic, RevisionId, Sink, WorkspaceName};
use crate::store::revision::RevisionCounts;
use crate::store::session::Session;
use crate::store::writer::{ChunkWriter, Written};
use crate::store::{Attributes, Content, Entry, EntryKind, EntryOwner, EntryPath, Extent, StoreError, Xattr};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// How often a directory is read for a save: again when a collector took the save for dead and has deleted what it relied on.
const READS: u32 = 3;
/// Most paths that a report names of one kind; it counts all.
const NAMED_PATHS: usize = 100;

/// What is to be saved, and how.
#[derive(Debug, Clone)]
pub struct SaveSpec {
    /// The workspace that the revision is of.
    pub workspace: WorkspaceName,
    /// The revision's labels.
    pub labels: BTreeMap<String, String>,
    /// Patterns of what is left out, as in a `.gitignore`.
    pub excludes: Vec<String>,
    /// Whether `.kilnignore` files in the tree leave something out, too.
    pub ignore_files: bool,
    /// The level of compression: 1 (fast) to 19.
    pub zstd_level: i32,
    /// How many threads read and compress; 0 for one a core.
    pub jobs: usize,
    /// Whether what is mounted in the tree is left out.
    pub one_file_system: bool,
    /// Most bytes of files, holes included.
    pub max_bytes: Option<u64>,
    /// Most entries.
    pub max_entries: Option<u64>,
    /// Whether every file is read, also where the kernel says that it did not change since the last save.
    pub read_everything: bool,
    /// Whether a save that takes a while also counts how much there is, for [`WorkspaceEvent::Totals`]. It then looks at every
    /// entry once more.
    pub foretell: bool,
}

impl SaveSpec {
    /// Makes a specification with the defaults.
    #[must_use]
    pub fn new(workspace: WorkspaceName) -> Self {
        Self {
            workspace,
            labels: BTreeMap::new(),
            excludes: Vec::new(),
            ignore_files: true,
            zstd_level: 1,
            jobs: 0,
            one_file_system: false,
            max_bytes: None,
            max_entries: None,
            read_everything: false,
            foretell: false,
        }
    }

    pub(super) fn threads(&self) -> usize {
        threads(self.jobs)
    }
}

/// Returns how many threads `jobs` asks for; 0 stands for one a core.
pub(super) fn threads(jobs: usize) -> usize {
    match jobs {
        0 => std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(16),
        jobs => jobs.min(64),
    }
}

/// A path that something is to be said of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathNote {
    /// The path.
    pub path: EntryPath,
    /// What is to be said.
    pub reason: String,
}

/// Paths that something is to be said of: all are counted and the first ones named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathNotes {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<PathNote>,
}

impl PathNotes {
    /// Notes a path.
    pub fn note(&mut self, path: EntryPath, reason: String) {
        self.count += 1;
        if self.first.len() < NAMED_PATHS {
            self.first.push(PathNote { path, reason });
        }
    }
}

/// What a save did.
#[derive(Debug, Clone)]
pub struct SaveReport {
    /// The new revision.
    pub revision: RevisionId,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The revision before it, if any.
    pub parent: Option<RevisionId>,
    /// What it counts.
    pub counts: RevisionCounts,
    /// What was written for it.
    pub written: Written,
    /// Files that changed while they were read, each time they were tried. Saved as they were found.
    pub unsettled: PathNotes,
    /// What could not be read, and is not in the revision.
    pub unreadable: PathNotes,
    /// How long it took.
    pub took: Duration,
}

/// Saves a directory as a new revision of a workspace.
///
/// The revision's record is the commit point. What a crash leaves before it are packs that nobody names: the next save of the same
/// content finds the indexed ones, and `gc` deletes the others. Any number of saves, restores and collections may run at once, of
/// one workspace too; each save makes a revision of its own.
///
/// # Errors
///
/// Fails where the directory cannot be listed, a limit is exceeded, the store does not answer or is full, and when `cancel` is
/// cancelled, which is looked at several times a second. Single files that cannot be read are no error: the report names them.
pub async fn save(
    depot: &Depot,
    directory: &Path,
    spec: &SaveSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<SaveReport, WorkspaceError> {
    let clock = Monotonic::start();
    for _ in 1..READS {
        match save_once(depot, directory, spec, Arc::clone(&sink), cancel, clock).await {
            Err(WorkspaceError::Store(StoreError::Evicted { .. })) => {}
            ended => return ended,
        }
    }
    save_once(depot, directory, spec, sink, cancel, clock).await
}

/// Reads the directory once, and records what was read.
async fn save_once(
    depot: &Depot,
    directory: &Path,
    spec: &SaveSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
    clock: Monotonic,
) -> Result<SaveReport, WorkspaceError> {
    let patterns = Excludes::new(&spec.excludes)?;
    let excludes = (spec.ignore_files || !spec.excludes.is_empty()).then(|| Arc::new(patterns));
    let unreadable = |source| WorkspaceError::Tree { action: "read", path: directory.to_owned(), source };
    let tree = SourceTree::open(directory).map_err(unreadable)?;
    let root = tree.root_stat().map_err(unreadable)?;
    let time = tree.file_system_now().map_err(unreadable)?;

    let session = Session::open(Arc::clone(&depot.objects), "save").await?;
    let view = match session.view(&depot.index_cache()).await {
        Ok(view) => view,
        Err(error) => {
            session.abandon().await;
            return Err(error.into());
        }
    };
    let key = StateKey { store: depot.store, dev: root.dev, ino: root.ino };
    let state_path = key.path(&depot.state_dir);
    let known = if spec.read_everything { None } else { StateReader::open(&state_path, &key, Some(&view)) };
    let writer = Arc::new(ChunkWriter::new(&session, view, depot.quota_bytes));

    let job = Walker {
        directory: directory.to_owned(),
        spec: spec.clone(),
        tree,
        excludes,
        writer: Arc::clone(&writer),
        state: StateWriter::begin(state_path, &key, time).ok(),
        known,
        sink: Arc::clone(&sink),
        cancel: cancel.clone(),
    };
    let walked = blocking(move || job.run()).await.and_then(|walked| walked);
    let (draft, state, notes) = match unless_cancelled(uploaded(&writer, walked, cancel).await, cancel) {
        Ok(walked) => walked,
        Err(error) => {
            give_up(session, &writer).await;
            return Err(error);
        }
    };
    let made = Made {
        workspace: spec.workspace.clone(),
        labels: spec.labels.clone(),
        source: directory.display().to_string(),
        draft,
        unsettled: notes.unsettled.count,
        parent: None,
    };
    let committed = commit(depot, session, Arc::clone(&writer), made, state).await?;
    Ok(SaveReport {
        revision: committed.id,
        workspace: spec.workspace.clone(),
        parent: committed.parent,
        counts: committed.counts,
        written: writer.written(),
        unsettled: notes.unsettled,
        unreadable: notes.unreadable,
        took: clock.elapsed(),
    })
}

/// What came out, unless the caller cancelled meanwhile.
pub(super) fn unless_cancelled<T>(
    outcome: Result<T, WorkspaceError>,
    cancel: &CancellationToken,
) -> Result<T, WorkspaceError> {
    if cancel.is_cancelled() { Err(WorkspaceError::Cancelled) } else { outcome }
}

/// What came out, once all that it needs is in the store.
pub(super) async fn uploaded<T>(
    writer: &Arc<ChunkWriter>,
    outcome: Result<T, WorkspaceError>,
    cancel: &CancellationToken,
) -> Result<T, WorkspaceError> {
    let outcome = outcome?;
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(WorkspaceError::Cancelled),
        flushed = writer.flush() => {
            flushed?;
            Ok(outcome)
        }
    }
}

/// Runs what blocks on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkspaceError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|stopped| {
        StoreError::Local { action: "finish the job", source: io::Error::other(stopped) }.into()
    })
}

/// What a save says of single paths.
#[derive(Debug, Default)]
struct Notes {
    unsettled: PathNotes,
    unreadable: PathNotes,
}

/// Everything that the blocking part of a save needs.
struct Walker {
    directory: PathBuf,
    spec: SaveSpec,
    tree: SourceTree,
    excludes: Option<Arc<Excludes>>,
    writer: Arc<ChunkWriter>,
    state: Option<StateWriter>,
    known: Option<StateReader>,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: CancellationToken,
}

/// An entry on its way to the manifest.
enum Waiting {
    /// It is done.
    Done(Staged),
    /// A file among those of a job.
    File { path: EntryPath, job: u64, owner: EntryOwner, is_shared: bool },
    /// A large file whose pieces are jobs of their own.
    Pieces { entry: Box<LargeFile>, next: u64, last: u64, stored: Stored },
}

/// A large file whose data has been handed on.
struct LargeFile {
    path: EntryPath,
    stat: Stat,
    attributes: Attributes,
    extents: Option<Vec<Extent>>,
}

impl Walker {
    fn run(self) -> Result<(Draft, Option<StateWriter>, Notes), WorkspaceError> {
        let Self { directory, spec, tree, excludes, writer, state, known, sink, cancel } = self;
        let starting =
            |source| WorkspaceError::Tree { action: "start reading", path: directory.clone(), source };
        let threads = spec.threads();
        let pipeline =
            Pipeline::start(&writer, Some(&tree), spec.zstd_level, threads, &cancel).map_err(starting)?;
        let stage = Stage::new(Arc::clone(&writer), state).map_err(starting)?;
        let options =
            WalkOptions { threads: threads.min(2), excludes, one_file_system: spec.one_file_system };
        let counting = spec.foretell.then(|| {
            let excludes = options.excludes.clone();
            Counting::start(&tree, excludes, spec.one_file_system, Arc::clone(&sink))
        });
        let items = walk(&tree, options);
        let mut line = Line {
            reader: tree.reader(),
            names: Names::new(),
            pipeline,
            stage,
            waiting: VecDeque::new(),
            files: Vec::new(),
            files_bytes: 0,
            files_done: HashMap::new(),
            pieces_done: HashMap::new(),
            abandoned: Vec::new(),
            writer: Arc::clone(&writer),
            links: HashMap::new(),
            replaced: HashMap::new(),
            old: Old::new(known),
            notes: Notes::default(),
            spec: &spec,
            sink: &*sink,
            cancel: &cancel,
            told: Monotonic::start(),
            entries: 0,
            bytes: 0,
        };
        line.sink.emit(WorkspaceEvent::Began {
            job: "save",
            name: spec.workspace.to_string(),
            files: None,
            bytes: None,
        });
        for item in items {
            line.take(item)?;
        }
        line.drain()?;
        drop(counting);
        let Line { pipeline, stage, notes, .. } = line;
        drop(pipeline);
        if cancel.is_cancelled() {
            return Err(WorkspaceError::Cancelled);
        }
        sink.emit(WorkspaceEvent::Step { name: "uploading" });
        let (draft, state) = stage.finish()?;
        Ok((draft, state, notes))
    }
}

/// The old state beside the walk.
struct Old {
    state: Option<StateReader>,
    block: Option<Arc<Block>>,
    at: usize,
}

impl Old {
    fn new(state: Option<StateReader>) -> Self {
        let mut old = Self { state, block: None, at: 0 };
        old.next_block();
        old
    }

    fn next_block(&mut self) {
        self.block = self.state.as_mut().and_then(StateReader::next_block).map(Arc::new);
        self.at = 0;
    }

    /// Goes forward to `path`; returns its place when it is there.
    fn seek(&mut self, path: &EntryPath) -> Option<(Arc<Block>, usize)> {
        loop {
            let block = self.block.as_ref()?;
            match block.entries().get(self.at) {
                None => self.next_block(),
                Some(entry) if entry.path < *path => self.at += 1,
                Some(entry) if entry.path == *path => return Some((Arc::clone(block), self.at)),
                Some(_) => return None,
            }
        }
    }
}

/// Entries in a line: those in front are done first.
struct Line<'a> {
    reader: Reader,
    names: Names,
    pipeline: Pipeline,
    stage: Stage,
    waiting: VecDeque<Waiting>,
    files: Vec<EntryPath>,
    files_bytes: u64,
    files_done: HashMap<u64, VecDeque<Result<FileOutcome, io::Error>>>,
    pieces_done: HashMap<u64, Stored>,
    abandoned: Vec<Range<u64>>,
    writer: Arc<ChunkWriter>,
    /// The first name of every inode that has several.
    links: HashMap<(u64, u64), EntryPath>,
    /// First names that could not be read, and which later name took their place.
    replaced: HashMap<EntryPath, Option<EntryPath>>,
    old: Old,
    notes: Notes,
    spec: &'a SaveSpec,
    sink: &'a dyn Sink<WorkspaceEvent>,
    cancel: &'a CancellationToken,
    told: Monotonic,
    entries: u64,
    bytes: u64,
}

impl Line<'_> {
    fn take(&mut self, item: WalkItem) -> Result<(), WorkspaceError> {
        match item {
            WalkItem::Found(found) => self.found(found)?,
            WalkItem::Problem { path, action, source } => self.unreadable(path, action, &source),
        }
        self.advance()?;
        self.tell();
        if self.cancel.is_cancelled() { Err(WorkspaceError::Cancelled) } else { Ok(()) }
    }

    fn unreadable(&mut self, path: EntryPath, action: &str, source: &io::Error) {
        // What is gone again was not part of the workspace when it was looked at.
        if source.kind() == io::ErrorKind::NotFound {
            return;
        }
        let message = format!("cannot {action} `{path}`: {source}");
        self.sink.emit(WorkspaceEvent::Warning { message: message.clone() });
        self.notes.unreadable.note(path, format!("cannot {action}: {source}"));
    }

    fn found(&mut self, found: Found) -> Result<(), WorkspaceError> {
        let Found { path, stat } = &found;
        self.entries += 1;
        if let Some(most) = self.spec.max_entries
            && self.entries > most
        {
            return Err(WorkspaceError::TooLarge { limit: format!("{most} entries") });
        }
        let link = if stat.nlink > 1 && stat.kind != StatKind::Directory {
            self.links.get(&(stat.dev, stat.ino)).cloned()
        } else {
            None
        };
        if stat.kind == StatKind::File && link.is_none() {
            self.bytes = self.bytes.saturating_add(stat.size);
            if let Some(most) = self.spec.max_bytes
                && self.bytes > most
            {
                return Err(WorkspaceError::TooLarge { limit: ByteSize(most).to_string() });
            }
        }
        if let Some(staged) = self.unchanged(&found, link.as_ref()) {
            if stat.nlink > 1 && stat.kind != StatKind::Directory && link.is_none() {
                self.links.insert((stat.dev, stat.ino), path.clone());
            }
            self.waiting.push_back(Waiting::Done(staged));
            return Ok(());
        }
        if stat.nlink > 1 && stat.kind != StatKind::Directory && link.is_none() {
            self.links.insert((stat.dev, stat.ino), path.clone());
        }
        let owner = EntryOwner {
            uid: stat.uid,
            gid: stat.gid,
            user: self.names.user(stat.uid),
            group: self.names.group(stat.gid),
        };
        if stat.kind == StatKind::File && link.is_none() {
            return self.file(found, owner);
        }
        match self.describe(&found, link) {
            Ok((kind, xattrs)) => {
                let attributes = Attributes { mode: stat.mode, owner, mtime: stat.mtime, xattrs };
                let entry = Entry { path: path.clone(), kind, attributes };
                let known = Some(Known::of(stat, Vec::new()));
                self.waiting.push_back(Waiting::Done(Staged {
                    entry,
                    known,
                    packs: Vec::new(),
                    origin: None,
                }));
            }
            Err(source) => self.lost(&found, &source),
        }
        Ok(())
    }

    /// Notes an entry that could not be read; a further name of it is taken for its first one.
    fn lost(&mut self, found: &Found, source: &io::Error) {
        let inode = (found.stat.dev, found.stat.ino);
        if self.links.get(&inode) == Some(&found.path) {
            self.links.remove(&inode);
        }
        self.unreadable(found.path.clone(), "read", source);
    }

    /// Returns the entry as the last save had it, if the kernel says that it did not change and its chunks may be relied on.
    fn unchanged(&mut self, found: &Found, link: Option<&EntryPath>) -> Option<Staged> {
        let (block, at) = self.old.seek(&found.path)?;
        let state = self.old.state.as_ref()?;
        if !block.is_unchanged(at, &found.stat, state.time()) {
            return None;
        }
        let (entry, known) = (block.entries().get(at)?, block.known.get(at)?);
        let is_same_kind = match (&entry.kind, found.stat.kind, link) {
            (EntryKind::HardLink { target }, _, Some(link)) => target == link,
            (EntryKind::HardLink { .. }, _, None) | (_, _, Some(_)) => false,
            (EntryKind::Directory, StatKind::Directory, None)
            | (EntryKind::File { .. }, StatKind::File, None)
            | (EntryKind::Symlink { .. }, StatKind::Symlink, None)
            | (EntryKind::CharDevice { .. }, StatKind::CharDevice, None)
            | (EntryKind::BlockDevice { .. }, StatKind::BlockDevice, None)
            | (EntryKind::Fifo, StatKind::Fifo, None)
            | (EntryKind::Socket, StatKind::Socket, None) => true,
            _ => false,
        };
        // What a restore gave to others than the revision says is saved as it is.
        let owner = &entry.attributes.owner;
        if !is_same_kind || (owner.uid, owner.gid) != (found.stat.uid, found.stat.gid) {
            return None;
        }
        let packs = state.numbers_of(known)?;
        let known = Known { packs: packs.clone(), ..known.clone() };
        Some(Staged { entry: entry.clone(), known: Some(known), packs, origin: Some((block, at)) })
    }

    /// Reads what an entry that is no file says beside its stat.
    fn describe(&mut self, found: &Found, link: Option<EntryPath>) -> io::Result<(EntryKind, Vec<Xattr>)> {
        let Found { path, stat } = found;
        let xattrs = self.reader.xattrs(path, stat.kind)?;
        let (major, minor) = stat.rdev;
        let kind = match (link, stat.kind) {
            (Some(target), _) => EntryKind::HardLink { target },
            (None, StatKind::Directory) => EntryKind::Directory,
            (None, StatKind::Symlink) => EntryKind::Symlink { target: self.reader.symlink_target(path)? },
            (None, StatKind::CharDevice) => EntryKind::CharDevice { major, minor },
            (None, StatKind::BlockDevice) => EntryKind::BlockDevice { major, minor },
            (None, StatKind::Fifo) => EntryKind::Fifo,
            (None, StatKind::Socket) => EntryKind::Socket,
            (None, StatKind::File) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok((kind, xattrs))
    }

    fn file(&mut self, found: Found, owner: EntryOwner) -> Result<(), WorkspaceError> {
        if found.stat.size > PIECE_BYTES as u64 {
            self.give_files()?;
            return self.large(&found, owner);
        }
        self.files.push(found.path.clone());
        self.files_bytes += found.stat.size;
        // The job gets its number when it is given; until then no other is given.
        let job = self.pipeline.upcoming();
        let is_shared = found.stat.nlink > 1;
        self.waiting.push_back(Waiting::File { path: found.path, job, owner, is_shared });
        if self.files_bytes >= JOB_BYTES || self.files.len() >= JOB_FILES {
            self.give_files()?;
        }
        Ok(())
    }

    fn give_files(&mut self) -> Result<(), WorkspaceError> {
        if !self.files.is_empty() {
            self.files_bytes = 0;
            let files = std::mem::take(&mut self.files);
            self.pipeline.give(Job::Files(files))?;
        }
        Ok(())
    }

    /// Reads a large file and hands it on in pieces.
    fn large(&mut self, found: &Found, owner: EntryOwner) -> Result<(), WorkspaceError> {
        let path = &found.path;
        let opened = self.reader.open_file(path).and_then(|file| Ok((stat_of(&file)?, file)));
        let (mut before, mut file) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                self.lost(found, &source);
                return Ok(());
            }
        };
        for attempt in 1.. {
            let read = self.read_pieces(&mut file, &before, path)?;
            let (first, last, xattrs, extents, is_short) = match read {
                Ok(read) => read,
                Err(source) => {
                    self.lost(found, &source);
                    return Ok(());
                }
            };
            let after = match stat_of(&file) {
                Ok(stat) => stat,
                Err(source) => {
                    self.lost(found, &source);
                    return Ok(());
                }
            };
            let is_unsettled = is_short || has_changed(&before, &after);
            if is_unsettled && attempt < 3 {
                self.abandoned.push(first..last);
                before = after;
                if let Err(source) = file.seek(SeekFrom::Start(0)) {
                    self.lost(found, &source);
                    return Ok(());
                }
                continue;
            }
            if is_unsettled {
                self.unsettled(path.clone());
            }
            let stat = Stat { size: before.size, ..after };
            let attributes = Attributes { mode: stat.mode, owner, mtime: stat.mtime, xattrs };
            let entry = Box::new(LargeFile { path: path.clone(), stat, attributes, extents });
            self.waiting.push_back(Waiting::Pieces { entry, next: first, last, stored: Stored::default() });
            return Ok(());
        }
        Ok(())
    }

    fn unsettled(&mut self, path: EntryPath) {
        self.sink.emit(WorkspaceEvent::Warning { message: format!("`{path}` changed while it was read") });
        self.notes.unsettled.note(path, "changed while it was read".into());
    }

    #[expect(clippy::type_complexity, reason = "the outer error ends the save, the inner one this file")]
    fn read_pieces(
        &mut self,
        file: &mut File,
        stat: &Stat,
        path: &EntryPath,
    ) -> Result<io::Result<(u64, u64, Vec<Xattr>, Option<Vec<Extent>>, bool)>, WorkspaceError> {
        let described = self
            .reader
            .xattrs(path, StatKind::File)
            .and_then(|xattrs| Ok((xattrs, extents(file, stat.size, stat.blocks_512)?)));
        let (xattrs, extents) = match described {
            Ok(described) => described,
            Err(error) => return Ok(Err(error)),
        };
        let first = self.pipeline.upcoming();
        let mut source = DataReader::new(file, extents.as_deref(), stat.size);
        let mut carried = Vec::new();
        let mut is_whole = true;
        loop {
            let mut window = Vec::with_capacity(PIECE_BYTES);
            window.append(&mut carried);
            let is_end = match source.fill(&mut window, PIECE_BYTES) {
                Ok(is_end) => is_end,
                Err(error) => {
                    self.abandoned.push(first..self.pipeline.upcoming());
                    return Ok(Err(error));
                }
            };
            let lengths = lengths_of(&window, is_end, is_whole);
            is_whole = false;
            let end: usize = lengths.iter().sum();
            carried = window.split_off(end.min(window.len()));
            if !lengths.is_empty() {
                self.pipeline.give(Job::Piece { bytes: window, lengths })?;
            }
            if is_end {
                break;
            }
            self.gather()?;
            if self.cancel.is_cancelled() {
                return Err(WorkspaceError::Cancelled);
            }
            self.tell();
        }
        let is_short = source.is_short();
        Ok(Ok((first, self.pipeline.upcoming(), xattrs, extents, is_short)))
    }

    /// Takes what the pipeline has finished.
    fn gather(&mut self) -> Result<(), WorkspaceError> {
        while let Some((job, outcome)) = self.pipeline.try_next()? {
            self.note_outcome(job, outcome);
        }
        Ok(())
    }

    fn note_outcome(&mut self, job: u64, outcome: Outcome) {
        // Pieces of a file that was tried again belong to nobody: what they stored is garbage.
        if self.abandoned.iter().any(|jobs| jobs.contains(&job)) {
            return;
        }
        match outcome {
            Outcome::Files(files) => {
                self.files_done.insert(job, files.into());
            }
            Outcome::Piece(piece) => {
                self.pieces_done.insert(job, piece);
            }
        }
    }

    /// Moves what is done from the front of the line to the manifest.
    fn advance(&mut self) -> Result<(), WorkspaceError> {
        self.gather()?;
        while let Some(front) = self.waiting.pop_front() {
            if let Some(front) = self.step(front)? {
                self.waiting.push_front(front);
                break;
            }
        }
        Ok(())
    }

    /// Moves one entry to the manifest; returns it when it is not done yet.
    fn step(&mut self, front: Waiting) -> Result<Option<Waiting>, WorkspaceError> {
        match front {
            Waiting::Done(staged) => return self.done(staged),
            Waiting::File { path, job, owner, is_shared } => {
                let outcome = self.files_done.get_mut(&job).and_then(|files| {
                    let outcome = files.pop_front();
                    outcome.map(|outcome| (outcome, files.is_empty()))
                });
                let Some((outcome, is_last)) = outcome else {
                    return Ok(Some(Waiting::File { path, job, owner, is_shared }));
                };
                if is_last {
                    self.files_done.remove(&job);
                }
                match outcome {
                    Ok(outcome) => self.small(path, outcome, owner)?,
                    Err(source) => {
                        if is_shared {
                            self.replaced.insert(path.clone(), None);
                        }
                        self.unreadable(path, "read", &source);
                    }
                }
            }
            Waiting::Pieces { entry, mut next, last, mut stored } => {
                while next < last {
                    match self.pieces_done.remove(&next) {
                        Some(piece) => stored.extend(piece),
                        None => return Ok(Some(Waiting::Pieces { entry, next, last, stored })),
                    }
                    next += 1;
                }
                let LargeFile { path, stat, attributes, extents } = *entry;
                self.stage_file(path, &stat, attributes, extents, stored)?;
            }
        }
        Ok(None)
    }

    /// Moves an entry to the manifest. A further name whose first name could not be read is read in its place.
    fn done(&mut self, mut staged: Staged) -> Result<Option<Waiting>, WorkspaceError> {
        if self.replaced.is_empty() {
            self.stage.push(staged)?;
            return Ok(None);
        }
        if let EntryKind::HardLink { target } = &mut staged.entry.kind {
            let mut first = target.clone();
            while let Some(instead) = self.replaced.get(&first) {
                match instead {
                    Some(instead) => first = instead.clone(),
                    None => {
                        let Entry { path, attributes, .. } = staged.entry;
                        self.replaced.insert(first, Some(path.clone()));
                        self.give_files()?;
                        let job = self.pipeline.give(Job::Files(vec![path.clone()]))?;
                        let owner = attributes.owner;
                        return Ok(Some(Waiting::File { path, job, owner, is_shared: true }));
                    }
                }
            }
            if first != *target {
                *target = first;
                staged.origin = None;
            }
        }
        self.stage.push(staged)?;
        Ok(None)
    }

    fn small(
        &mut self,
        path: EntryPath,
        outcome: FileOutcome,
        owner: EntryOwner,
    ) -> Result<(), WorkspaceError> {
        let FileOutcome { stat, xattrs, extents, stored, is_unsettled } = outcome;
        if is_unsettled {
            self.unsettled(path.clone());
        }
        let owner = if (stat.uid, stat.gid) == (owner.uid, owner.gid) {
            owner
        } else {
            let (user, group) = (self.names.user(stat.uid), self.names.group(stat.gid));
            EntryOwner { uid: stat.uid, gid: stat.gid, user, group }
        };
        let attributes = Attributes { mode: stat.mode, owner, mtime: stat.mtime, xattrs };
        self.stage_file(path, &stat, attributes, extents, stored)
    }

    fn stage_file(
        &mut self,
        path: EntryPath,
        stat: &Stat,
        attributes: Attributes,
        extents: Option<Vec<Extent>>,
        mut stored: Stored,
    ) -> Result<(), WorkspaceError> {
        self.pipeline.settle(&mut stored)?;
        let (content, lists): (Content, Vec<u32>) = self.stage.content(stored.refs)?;
        let mut packs = stored.packs;
        packs.extend(lists);
        packs.sort_unstable();
        packs.dedup();
        let entry = Entry { path, kind: EntryKind::File { size: stat.size, content, extents }, attributes };
        let known = Some(Known::of(stat, packs.clone()));
        self.stage.push(Staged { entry, known, packs, origin: None })
    }

    /// Waits until the line is empty.
    fn drain(&mut self) -> Result<(), WorkspaceError> {
        self.give_files()?;
        loop {
            self.advance()?;
            if self.waiting.is_empty() {
                return Ok(());
            }
            if self.cancel.is_cancelled() {
                return Err(WorkspaceError::Cancelled);
            }
            if let Some((job, outcome)) = self.pipeline.next()? {
                self.note_outcome(job, outcome);
            }
            self.tell();
        }
    }

    fn tell(&mut self) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Monotonic::start();
            let counts = self.stage.counts();
            let moved_bytes = self.writer.written().new_bytes;
            self.sink.emit(WorkspaceEvent::Progress {
                files: counts.files,
                bytes: counts.bytes,
                moved_bytes,
            });
        }
    }
}
