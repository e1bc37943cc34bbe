//! Making an existing directory equal to a revision, writing only what differs.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::contents::DataReader;
use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::fill::{FileMode, FillPlan, Filler, Losses};
use super::manifest::{ManifestReader, chunks_of, flatten};
use super::mark::touch;
use super::remember::{Memory, Seen};
use super::restore::{
    Limits, Packs, RestoreSpec, finish_directories, has_room, linkable, make_others, placed, read, rows, tell,
};
use super::save::{blocking, threads};
use super::state::{Block, StateKey, StateReader};
use super::tree::{
    Found, Names, OwnerRule, Reader, SourceTree, Stat, StatKind, TargetTree, WalkItem, WalkOptions, extents,
    walk,
};
use crate::base::{ChunkId, Monotonic, RevisionId, Sink, WorkspaceName};
use crate::store::fetch::Fetcher;
use crate::store::pack::{PackKind, PackName};
use crate::store::revision::{Revision, RevisionCounts, RevisionRef};
use crate::store::{Attributes, ChunkRef, Content, Entry, EntryKind, EntryPath, Extent};

/// What an update did.
#[derive(Debug, Clone)]
pub struct UpdateReport {
    /// The revision.
    pub revision: RevisionId,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// What the revision counts.
    pub counts: RevisionCounts,
    /// Entries that were made or made anew.
    pub made: u64,
    /// Files of which some chunks were written.
    pub patched: u64,
    /// Entries that only got other attributes, or were looked at because nothing was known of them.
    pub adjusted: u64,
    /// Entries that were removed; of a directory, all that lay in it counts as one.
    pub removed: u64,
    /// Bytes of packs that were fetched.
    pub fetched_bytes: u64,
    /// What entries could not be given: the reason, how many, and the first of them.
    pub shortfalls: Vec<(String, u64, String)>,
    /// How long it took.
    pub took: Duration,
}

/// Makes an existing directory equal to a revision: what is not in the revision is removed, and only what differs is written.
///
/// What differs is known from the last save or restore on this host where the kernel says that nothing changed since; other
/// files are read and compared. Files are changed in place, so this is not atomic: after an interruption the directory is
/// somewhere between, and the next update ends the work.
///
/// # Errors
///
/// As [`restore`](fn@super::restore). Patterns of what is restored are refused.
pub async fn update(
    depot: &Depot,
    revision: &RevisionRef,
    target: &Path,
    spec: &RestoreSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<UpdateReport, WorkspaceError> {
    let clock = Monotonic::start();
    if !spec.includes.is_empty() {
        let reason =
            "an update makes the whole directory equal to the revision: it takes no --include".to_owned();
        return Err(WorkspaceError::Invalid { reason });
    }
    let record = read(depot, revision).await?;
    Limits::of(spec).check(&record.counts)?;
    sink.emit(WorkspaceEvent::Began {
        job: "update",
        name: format!("{}@{}", record.workspace, record.id),
        files: Some(record.counts.files),
        bytes: None,
    });
    let opening = |source| WorkspaceError::Tree { action: "open", path: target.to_owned(), source };
    let tree = TargetTree::open(target).map_err(opening)?;
    let source = SourceTree::open(target).map_err(opening)?;
    let fetcher = depot.fetcher();
    let filler =
        Arc::new(Filler::new(Arc::clone(&fetcher), tree, &spec.rights, threads(spec.jobs), cancel.clone()));
    let manifest = ManifestReader::open(&fetcher, &record).await?;
    // What changes from here on is not believed to be as it was left: this update's work, and that of others meanwhile.
    let time = source.file_system_now().map_err(opening)?;
    let comparing = Comparing {
        target: target.to_owned(),
        depot: depot.clone(),
        record: record.clone(),
        fetcher: Arc::clone(&fetcher),
        manifest,
        owner: spec.rights.owner_rule().clone(),
        names: Names::new(),
        cancel: cancel.clone(),
    };
    let handle = Handle::current();
    let plan = blocking(move || comparing.run(&source, &handle)).await??;
    // What is removed goes before anything is written.
    has_room(target, plan.new_bytes.saturating_sub(plan.freed_bytes))?;
    let told = tell(Arc::clone(&filler), sink);
    let mut report = UpdateReport {
        revision: record.id,
        workspace: record.workspace.clone(),
        counts: record.counts,
        made: plan.made,
        patched: plan.patched,
        adjusted: plan.adjust.len() as u64,
        removed: plan.remove.len() as u64,
        fetched_bytes: 0,
        shortfalls: Vec::new(),
        took: Duration::ZERO,
    };
    let recall = apply(&filler, &fetcher, &record, plan).await?;
    told.abort();
    if let Some(Recall { memory, root, seen, .. }) = recall.filter(|_| filler.shortfalls.is_empty()) {
        let depot = depot.clone();
        blocking(move || memory.write_seen(&depot, &root, time, &seen)).await?;
    }
    if !spec.unnoted {
        touch(depot, revision).await;
    }
    (_, _, report.fetched_bytes) = filler.progress();
    report.shortfalls = rows(&filler.shortfalls);
    report.took = clock.elapsed();
    Ok(report)
}

/// What is to be done to a directory, in this order.
#[derive(Debug, Default)]
struct UpdatePlan {
    remove: Vec<EntryPath>,
    directories: Vec<EntryPath>,
    others: Vec<Entry>,
    fill: FillPlan,
    links: Vec<(EntryPath, EntryPath)>,
    adjust: Vec<(EntryPath, StatKind, Attributes)>,
    /// Directories that get their attributes at the end.
    finish: Vec<(EntryPath, Attributes)>,
    made: u64,
    patched: u64,
    new_bytes: u64,
    /// What the removed files take on the disk.
    freed_bytes: u64,
    recall: Option<Recall>,
}

/// What is remembered of the directory for the next save or update.
#[derive(Debug)]
struct Recall {
    memory: Memory,
    root: Stat,
    /// For each file what tells in which packs its chunks lie.
    files: Vec<FilePacks>,
    /// For each entry of the revision what was there before.
    seen: Vec<Seen>,
}

/// What tells in which packs the chunks of a file lie.
#[derive(Debug)]
enum FilePacks {
    /// The host knew it, and the revision names these packs, too.
    Known(Vec<PackName>),
    /// These chunks are looked up.
    Of(Vec<ChunkId>),
}

async fn apply(
    filler: &Arc<Filler>,
    fetcher: &Arc<Fetcher>,
    record: &Revision,
    plan: UpdatePlan,
) -> Result<Option<Recall>, WorkspaceError> {
    let UpdatePlan { remove, directories, others, fill, links, adjust, finish, recall, .. } = plan;
    let act = Arc::clone(filler);
    let unmade = blocking(move || {
        act.with_writer(|writer| {
            for path in remove {
                writer.remove(&path).map_err(|source| WorkspaceError::Entry {
                    action: "remove",
                    path,
                    source,
                })?;
            }
            for path in directories {
                writer.create_dir(&path).map_err(|source| WorkspaceError::Entry {
                    action: "make",
                    path,
                    source,
                })?;
            }
            make_others(&act, writer, others)
        })
    })
    .await??;
    let packs = Packs::of(fetcher, record).await?;
    let mut losses = Losses::default();
    let locations = packs.locate(fetcher, &fill).await?;
    filler.fill(fill, &locations, &mut losses).await?;
    losses.into_result()?;
    let act = Arc::clone(filler);
    let links = linkable(filler, links, &unmade.into_iter().collect());
    blocking(move || {
        act.with_writer(|writer| {
            for (path, target) in links {
                writer.hard_link(&target, &path).map_err(|source| WorkspaceError::Entry {
                    action: "link",
                    path,
                    source,
                })?;
            }
            for (path, kind, attributes) in adjust {
                writer.finish_path(&path, kind, &attributes, &act.rights, &act.shortfalls).map_err(
                    |source| WorkspaceError::Entry { action: "set the attributes of", path, source },
                )?;
            }
            finish_directories(&act, writer, &finish)
        })
    })
    .await??;
    match recall {
        Some(recall) => Ok(Some(with_packs(recall, fetcher, record, &packs).await?)),
        None => Ok(None),
    }
}

/// Looks up in which packs the files' chunks lie, where the host does not know it.
async fn with_packs(
    mut recall: Recall,
    fetcher: &Arc<Fetcher>,
    record: &Revision,
    packs: &Packs,
) -> Result<Recall, WorkspaceError> {
    let files = std::mem::take(&mut recall.files);
    let wanted: HashSet<ChunkId> = files.iter().flat_map(FilePacks::chunks).copied().collect();
    let data = packs.locate_ids(fetcher, wanted.clone()).await?;
    let lists = record.packs.iter().copied().filter(|info| info.pack.kind == PackKind::Meta);
    let lists = fetcher.locate(lists, |id| wanted.contains(id)).await?;
    let place = |id: &ChunkId| {
        let place = data.get(id).and_then(|location| data.pack(location.pack));
        place.or_else(|| lists.get(id).and_then(|location| lists.pack(location.pack))).copied()
    };
    for file in files {
        match file {
            FilePacks::Known(names) => recall.memory.file(names.into_iter().map(Some)),
            FilePacks::Of(chunks) => recall.memory.file(chunks.iter().map(place)),
        }
    }
    Ok(recall)
}

impl FilePacks {
    fn chunks(&self) -> &[ChunkId] {
        match self {
            Self::Known(_) => &[],
            Self::Of(chunks) => chunks,
        }
    }
}

/// Files above this many entries are not remembered one by one.
const MOST_REMEMBERED: u64 = 96 << 10;

/// A comparison of a directory with a revision. It only reads and decides.
struct Comparing {
    target: PathBuf,
    depot: Depot,
    record: Revision,
    fetcher: Arc<Fetcher>,
    manifest: ManifestReader,
    owner: OwnerRule,
    names: Names,
    cancel: CancellationToken,
}

/// A name that several entries share, as the directory has it.
type Inode = (u64, u64);

struct Comparison<'a> {
    of: &'a Comparing,
    handle: &'a Handle,
    reader: Reader,
    old: Option<StateReader>,
    block: Option<Arc<Block>>,
    at: usize,
    plan: UpdatePlan,
    /// Files that stay, and which inode they are: what further names must be names of.
    kept: HashMap<EntryPath, Inode>,
    kept_inodes: HashSet<Inode>,
    touched: HashSet<EntryPath>,
    all_directories: Vec<(EntryPath, Attributes, bool)>,
    /// What of the directory goes, so that what lies in it needs no look.
    gone: Option<EntryPath>,
}

/// Where the host's notes have an entry.
#[derive(Debug, Clone)]
struct Place {
    block: Arc<Block>,
    at: usize,
    /// Whether the revision's chunk at hand is the very one of the notes, so that the entries are the same.
    is_same: bool,
}

impl Place {
    fn entry(&self) -> Option<&Entry> {
        self.block.entries().get(self.at)
    }
}

impl Comparing {
    fn run(&self, source: &SourceTree, handle: &Handle) -> Result<UpdatePlan, WorkspaceError> {
        let reading = |source| WorkspaceError::Tree { action: "read", path: self.target.clone(), source };
        let root = source.root_stat().map_err(reading)?;
        let key = StateKey { store: self.depot.store, dev: root.dev, ino: root.ino };
        let old = StateReader::open(&key.path(&self.depot.state_dir), &key, None);
        let mut comparison = Comparison {
            of: self,
            handle,
            reader: source.reader(),
            old,
            block: None,
            at: 0,
            plan: UpdatePlan::default(),
            kept: HashMap::new(),
            kept_inodes: HashSet::new(),
            touched: HashSet::new(),
            all_directories: Vec::new(),
            gone: None,
        };
        comparison.next_block();
        let is_remembered = self.record.counts.entries <= MOST_REMEMBERED;
        comparison.plan.recall = is_remembered.then(|| Recall {
            memory: Memory::new(&self.record),
            root,
            files: Vec::new(),
            seen: Vec::new(),
        });
        let mut items =
            walk(source, WalkOptions { threads: 2, excludes: None, one_file_system: false }).peekable();
        let mut blocks = Box::pin(self.manifest.blocks());
        while let Some((chunk, bytes, entries)) = handle.block_on(blocks.try_next())? {
            if self.cancel.is_cancelled() {
                return Err(WorkspaceError::Cancelled);
            }
            if let Some(recall) = &mut comparison.plan.recall {
                recall.memory.block(chunk, &bytes);
            }
            let met = entries.first().and_then(|entry| comparison.meet(chunk, &entry.path));
            let met = met.filter(|block| block.known.len() == entries.len());
            for (at, entry) in entries.into_iter().enumerate() {
                while let Some(item) = items.next_if(|item| path_of(item) < &entry.path) {
                    comparison.surplus(item)?;
                }
                let item = items.next_if(|item| *path_of(item) == entry.path);
                if let Some(recall) = &mut comparison.plan.recall {
                    recall.seen.push(match &item {
                        Some(WalkItem::Found(found)) => Seen::of(&found.stat),
                        Some(WalkItem::Problem { .. }) | None => Seen::NOTHING,
                    });
                }
                match item {
                    Some(WalkItem::Found(found)) => {
                        comparison.both(entry, &found.stat, met.as_ref().map(|block| (block, at)))?;
                    }
                    Some(WalkItem::Problem { path, source, .. }) => {
                        return Err(WorkspaceError::Entry { action: "read", path, source });
                    }
                    None => comparison.missing(entry)?,
                }
            }
        }
        for item in items {
            comparison.surplus(item)?;
        }
        Ok(comparison.finish())
    }
}

fn path_of(item: &WalkItem) -> &EntryPath {
    match item {
        WalkItem::Found(found) => &found.path,
        WalkItem::Problem { path, .. } => path,
    }
}

impl Comparison<'_> {
    fn next_block(&mut self) {
        self.block = self.old.as_mut().and_then(StateReader::next_block).map(Arc::new);
        self.at = 0;
    }

    /// Returns the block of the notes that is this very chunk of the revision, whose first entry is at `first`; and goes past it.
    fn meet(&mut self, chunk: ChunkRef, first: &EntryPath) -> Option<Arc<Block>> {
        loop {
            let block = self.block.as_ref()?;
            if self.at == 0 && block.chunk == chunk {
                let met = Arc::clone(block);
                self.next_block();
                return Some(met);
            }
            match block.entries().get(self.at) {
                None => self.next_block(),
                Some(entry) if entry.path < *first => self.at += 1,
                Some(_) => return None,
            }
        }
    }

    /// Returns the place of the entry as this host knows it, if the kernel says that it is still so. `same` is where the notes have
    /// this very entry.
    fn known(&mut self, entry: &Entry, stat: &Stat, same: Option<(&Arc<Block>, usize)>) -> Option<Place> {
        let time = self.old.as_ref()?.time();
        if let Some((block, at)) = same {
            let is_still = block.known.get(at)?.is_still(entry, stat, time);
            return is_still.then(|| Place { block: Arc::clone(block), at, is_same: true });
        }
        loop {
            match self.block.as_ref()?.entries().get(self.at) {
                None => self.next_block(),
                Some(known) if known.path < entry.path => self.at += 1,
                Some(known) if known.path == entry.path => break,
                Some(_) => return None,
            }
        }
        let block = self.block.as_ref()?;
        let is_still = block.is_unchanged(self.at, stat, time);
        is_still.then(|| Place { block: Arc::clone(block), at: self.at, is_same: false })
    }

    /// Notes what the directory has and the revision has not.
    fn surplus(&mut self, item: WalkItem) -> Result<(), WorkspaceError> {
        match item {
            WalkItem::Found(Found { path, stat }) => {
                self.free(&stat);
                self.remove(path);
            }
            // A directory that the revision has, too, and that cannot be listed: what lies in it is not known.
            WalkItem::Problem { path, source, .. } if self.stays(&path) => {
                return Err(WorkspaceError::Entry { action: "read", path, source });
            }
            WalkItem::Problem { path, .. } => self.remove(path),
        }
        Ok(())
    }

    fn keep(&mut self, path: &EntryPath, inode: Inode) {
        self.kept.insert(path.clone(), inode);
        self.kept_inodes.insert(inode);
    }

    fn stays(&self, directory: &EntryPath) -> bool {
        self.all_directories.iter().rev().any(|(path, _, _)| path == directory)
    }

    fn remove(&mut self, path: EntryPath) {
        if self.gone.as_ref().is_some_and(|gone| path.is_within(gone)) {
            return;
        }
        self.touch(&path);
        self.gone = Some(path.clone());
        self.plan.remove.push(path);
    }

    /// Counts what a file that goes takes on the disk. One with further names may stay under them.
    fn free(&mut self, stat: &Stat) {
        if stat.kind == StatKind::File && stat.nlink == 1 {
            let bytes = stat.blocks_512.saturating_mul(512);
            self.plan.freed_bytes = self.plan.freed_bytes.saturating_add(bytes);
        }
    }

    /// Notes that something in the directory of `path` changes, and with it the directory's time.
    fn touch(&mut self, path: &EntryPath) {
        if let Some(parent) = path.parent() {
            self.touched.insert(parent);
        }
    }

    fn missing(&mut self, entry: Entry) -> Result<(), WorkspaceError> {
        self.touch(&entry.path);
        self.plan.made += 1;
        let Entry { path, kind, attributes } = entry;
        match kind {
            EntryKind::Directory => {
                self.plan.directories.push(path.clone());
                self.all_directories.push((path, attributes, true));
            }
            EntryKind::File { size, content, extents } => {
                let refs = self.refs(&path, (&content, size, extents.as_deref()))?;
                self.remember(&content)?;
                self.plan.new_bytes += refs.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>();
                self.plan.fill.file(path, attributes, size, extents, FileMode::Create, placed(refs));
            }
            EntryKind::HardLink { target } => self.plan.links.push((path, target)),
            kind => self.plan.others.push(Entry { path, kind, attributes }),
        }
        Ok(())
    }

    fn both(
        &mut self,
        entry: Entry,
        stat: &Stat,
        same: Option<(&Arc<Block>, usize)>,
    ) -> Result<(), WorkspaceError> {
        let place = self.known(&entry, stat, same);
        let is_same = place.as_ref().is_some_and(|place| place.is_same);
        // The notes say what was saved, which need not be to whom a restore gave it.
        let is_owned = self.of.owner.is_given(&entry.attributes.owner, stat, &self.of.names);
        let known = place.as_ref().filter(|_| !(is_same && is_owned)).and_then(Place::entry);
        let is_as_known = is_owned && (is_same || known == Some(&entry));
        let inode = (stat.dev, stat.ino);
        // Two names of one inode that the revision has as two things are parted.
        let is_shared = stat.nlink > 1
            && !matches!(entry.kind, EntryKind::Directory | EntryKind::HardLink { .. })
            && self.kept_inodes.contains(&inode);
        match (&entry.kind, stat.kind) {
            _ if is_shared => {}
            (EntryKind::Directory, StatKind::Directory) => {
                self.all_directories.push((entry.path, entry.attributes, !is_as_known));
                return Ok(());
            }
            (EntryKind::File { size, content, extents }, StatKind::File) => {
                // The data alone does not say where the holes are.
                let same_content = matches!(
                    known,
                    Some(Entry { kind: EntryKind::File { size: known_size, content: known, extents: holes }, .. })
                        if known == content && known_size == size && holes == extents
                );
                if is_as_known || same_content {
                    self.remember_as_known(content, place.as_ref())?;
                    self.keep(&entry.path, inode);
                    if !is_as_known {
                        self.plan.adjust.push((entry.path, StatKind::File, entry.attributes));
                    }
                    return Ok(());
                }
                // A file with several names is not changed in place: the others need not be meant.
                if stat.nlink == 1 && extents.is_none() {
                    let (size, content) = (*size, content.clone());
                    return self.patch(entry, size, &content, place.as_ref(), inode, stat);
                }
                if stat.size == *size && self.is_equal(&entry.path, content, extents.as_deref(), stat)? {
                    self.remember(content)?;
                    self.keep(&entry.path, inode);
                    self.plan.adjust.push((entry.path, StatKind::File, entry.attributes));
                    return Ok(());
                }
            }
            (EntryKind::HardLink { target }, kind)
                if kind != StatKind::Directory && self.kept.get(target) == Some(&inode) =>
            {
                return Ok(());
            }
            (EntryKind::Symlink { target }, StatKind::Symlink) => {
                let is_same = is_as_known
                    || self.reader.symlink_target(&entry.path).is_ok_and(|there| there == *target);
                if is_same {
                    self.keep(&entry.path, inode);
                    if !is_as_known {
                        self.plan.adjust.push((entry.path, StatKind::Symlink, entry.attributes));
                    }
                    return Ok(());
                }
            }
            (EntryKind::Fifo, StatKind::Fifo) => {
                self.keep(&entry.path, inode);
                self.plan.adjust.push((entry.path, StatKind::Fifo, entry.attributes));
                return Ok(());
            }
            (EntryKind::CharDevice { major, minor }, StatKind::CharDevice)
            | (EntryKind::BlockDevice { major, minor }, StatKind::BlockDevice)
                if stat.rdev == (*major, *minor) =>
            {
                self.keep(&entry.path, inode);
                self.plan.adjust.push((entry.path, stat.kind, entry.attributes));
                return Ok(());
            }
            (EntryKind::Socket, StatKind::Socket) => return Ok(()),
            _ => {}
        }
        self.replace(entry, stat)
    }

    /// Plans to remove what is there and to make the entry anew.
    fn replace(&mut self, entry: Entry, stat: &Stat) -> Result<(), WorkspaceError> {
        self.free(stat);
        self.remove(entry.path.clone());
        self.missing(entry)
    }

    /// Plans to write those chunks of a file that differ.
    fn patch(
        &mut self,
        entry: Entry,
        size: u64,
        content: &Content,
        known: Option<&Place>,
        inode: Inode,
        stat: &Stat,
    ) -> Result<(), WorkspaceError> {
        let refs = self.refs(&entry.path, (content, size, None))?;
        let wanted: Vec<(u64, ChunkRef)> = match known.and_then(Place::entry) {
            Some(Entry { kind: EntryKind::File { content: old, extents: None, size }, .. }) => {
                let old = self.refs(&entry.path, (old, *size, None))?;
                let old: HashSet<(u64, ChunkRef)> = placed(old).collect();
                placed(refs).filter(|chunk| !old.contains(chunk)).collect()
            }
            _ => {
                let file = self.reader.open_file(&entry.path);
                match file.and_then(|file| differing(&file, placed(refs), stat.size)) {
                    Ok(wanted) => wanted,
                    // What may not be read is as good as different.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        return self.replace(entry, stat);
                    }
                    Err(source) => {
                        return Err(WorkspaceError::Entry { action: "read", path: entry.path, source });
                    }
                }
            }
        };
        self.remember(content)?;
        let Entry { path, attributes, .. } = entry;
        self.keep(&path, inode);
        if wanted.is_empty() && size == stat.size {
            self.plan.adjust.push((path, StatKind::File, attributes));
            return Ok(());
        }
        self.plan.patched += 1;
        self.plan.new_bytes += size.saturating_sub(stat.size);
        self.plan.fill.file(path, attributes, size, None, FileMode::Patch, wanted);
        Ok(())
    }

    /// Reads a file and returns whether it has this content, with the same holes.
    fn is_equal(
        &mut self,
        path: &EntryPath,
        content: &Content,
        holes: Option<&[Extent]>,
        stat: &Stat,
    ) -> Result<bool, WorkspaceError> {
        let refs = self.refs(path, (content, stat.size, holes))?;
        let compare = || -> io::Result<bool> {
            let mut file = self.reader.open_file(path)?;
            if holes.is_some() && extents(&file, stat.size, stat.blocks_512)?.as_deref() != holes {
                return Ok(false);
            }
            let (mut data, mut buffer) = (DataReader::new(&mut file, holes, stat.size), Vec::new());
            for chunk in refs {
                buffer.clear();
                data.fill(&mut buffer, chunk.length as usize)?;
                if ChunkId::of(&buffer) != chunk.id {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match compare() {
            // What may not be read is as good as different.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            compared => compared.map_err(|source| WorkspaceError::Entry {
                action: "read",
                path: path.clone(),
                source,
            }),
        }
    }

    fn refs(
        &self,
        path: &EntryPath,
        file: (&Content, u64, Option<&[Extent]>),
    ) -> Result<Vec<ChunkRef>, WorkspaceError> {
        // Lists of another revision need not lie in this one's packs; they are found by the index then.
        let (locations, mut lists) = (self.of.manifest.locations(), Vec::new());
        self.handle.block_on(chunks_of(&self.of.fetcher, locations, path, file, &mut lists))
    }

    /// Notes where the chunks of the next file lie, as the host knows it.
    fn remember_as_known(&mut self, content: &Content, place: Option<&Place>) -> Result<(), WorkspaceError> {
        let packs = place.and_then(|place| self.old.as_ref()?.packs_of(place.block.known.get(place.at)?));
        match (packs, &mut self.plan.recall) {
            (Some(packs), Some(recall)) if recall.memory.names_all(&packs) => {
                recall.files.push(FilePacks::Known(packs));
                Ok(())
            }
            _ => self.remember(content),
        }
    }

    /// Notes that the chunks of the next file, and of the lists of them, are to be looked up.
    fn remember(&mut self, content: &Content) -> Result<(), WorkspaceError> {
        if self.plan.recall.is_none() {
            return Ok(());
        }
        let mut lists = Vec::new();
        let refs = if content.level == 0 {
            content.refs.clone()
        } else {
            let flattening = flatten(&self.of.fetcher, self.of.manifest.locations(), content, &mut lists);
            self.handle.block_on(flattening)?
        };
        let chunks = refs.into_iter().map(|chunk| chunk.id).chain(lists).collect();
        if let Some(recall) = &mut self.plan.recall {
            recall.files.push(FilePacks::Of(chunks));
        }
        Ok(())
    }

    fn finish(self) -> UpdatePlan {
        let Self { mut plan, all_directories, touched, .. } = self;
        plan.finish = all_directories
            .into_iter()
            .filter(|(path, _, differs)| *differs || touched.contains(path))
            .map(|(path, attributes, _)| (path, attributes))
            .collect();
        plan
    }
}

/// Returns those chunks that the file does not have at their places.
fn differing(
    mut file: &File,
    chunks: impl Iterator<Item = (u64, ChunkRef)>,
    size: u64,
) -> io::Result<Vec<(u64, ChunkRef)>> {
    let (mut wanted, mut buffer) = (Vec::new(), Vec::new());
    for (at, chunk) in chunks {
        if at + u64::from(chunk.length) > size {
            wanted.push((at, chunk));
            continue;
        }
        buffer.clear();
        (&mut file).take(u64::from(chunk.length)).read_to_end(&mut buffer)?;
        if ChunkId::of(&buffer) != chunk.id {
            wanted.push((at, chunk));
        }
    }
    Ok(wanted)
}
