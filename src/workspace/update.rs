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
use super::manifest::{ManifestReader, flatten};
use super::mark::touch;
use super::remember::Memory;
use super::restore::{
    Limits, Packs, RestoreSpec, finish_directories, has_room, make_other, placed, read, rows, tell,
};
use super::save::{blocking, threads};
use super::state::{Block, StateKey, StateReader};
use super::tree::{
    Found, Reader, SourceTree, Stat, StatKind, TargetTree, WalkItem, WalkOptions, extents, walk,
};
use crate::base::{ChunkId, Monotonic, RevisionId, Sink, WorkspaceName};
use crate::store::fetch::Fetcher;
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
    let filler = Arc::new(Filler::new(
        Arc::clone(&fetcher),
        tree,
        spec.rights.clone(),
        threads(spec.jobs),
        cancel.clone(),
    ));
    let manifest = ManifestReader::open(&fetcher, &record).await?;
    // What changes from here on is not believed to be as it was left: this update's work, and that of others meanwhile.
    let time = source.file_system_now().map_err(opening)?;
    let comparing = Comparing {
        target: target.to_owned(),
        depot: depot.clone(),
        record: record.clone(),
        fetcher: Arc::clone(&fetcher),
        manifest,
        cancel: cancel.clone(),
    };
    let handle = Handle::current();
    let plan = blocking(move || comparing.run(&source, &handle)).await??;
    let needed = plan.new_bytes;
    has_room(target, needed)?;
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
    let memory = apply(&filler, &fetcher, &record, plan).await?;
    told.abort();
    if let Some(memory) = memory.filter(|_| filler.shortfalls.is_empty()) {
        let (depot, target) = (depot.clone(), target.to_owned());
        blocking(move || memory.write(&depot, &target, time)).await?;
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
    memory: Option<(Memory, Vec<Vec<ChunkId>>)>,
}

async fn apply(
    filler: &Arc<Filler>,
    fetcher: &Arc<Fetcher>,
    record: &Revision,
    plan: UpdatePlan,
) -> Result<Option<Memory>, WorkspaceError> {
    let UpdatePlan { remove, directories, others, fill, links, adjust, finish, memory, .. } = plan;
    let act = Arc::clone(filler);
    blocking(move || {
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
            others.iter().try_for_each(|entry| make_other(&act, writer, entry))
        })
    })
    .await??;
    let packs = Packs::of(fetcher, record).await?;
    let mut losses = Losses::default();
    let locations = packs.locate(fetcher, &fill).await?;
    filler.fill(fill, &locations, &mut losses).await?;
    losses.into_result()?;
    let act = Arc::clone(filler);
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
    let Some((mut memory, files)) = memory else { return Ok(None) };
    let all = packs.locate_ids(fetcher, files.iter().flatten().copied().collect()).await?;
    let lists = fetcher
        .locate(
            record.packs.iter().copied().filter(|info| info.pack.kind == crate::store::pack::PackKind::Meta),
            |_| true,
        )
        .await?;
    for ids in files {
        memory.file(ids.iter().map(|id| {
            let place = all.get(id).and_then(|location| all.pack(location.pack));
            place.or_else(|| lists.get(id).and_then(|location| lists.pack(location.pack))).copied()
        }));
    }
    Ok(Some(memory))
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
    cancel: CancellationToken,
}

/// A name that several entries share, as the directory has it.
type Inode = (u64, u64);

struct Comparison<'a> {
    of: &'a Comparing,
    handle: &'a Handle,
    reader: Reader,
    old: Option<StateReader>,
    block: Option<Block>,
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
        comparison.plan.memory = is_remembered.then(|| (Memory::new(&self.record), Vec::new()));
        let mut items =
            walk(source, WalkOptions { threads: 2, excludes: None, one_file_system: false }).peekable();
        let mut blocks = Box::pin(self.manifest.blocks());
        while let Some((chunk, bytes, entries)) = handle.block_on(blocks.try_next())? {
            if self.cancel.is_cancelled() {
                return Err(WorkspaceError::Cancelled);
            }
            if let Some((memory, _)) = &mut comparison.plan.memory {
                memory.block(chunk, &bytes);
            }
            for entry in entries {
                while let Some(item) = items.next_if(|item| path_of(item) < &entry.path) {
                    comparison.surplus(item)?;
                }
                match items.next_if(|item| *path_of(item) == entry.path) {
                    Some(WalkItem::Found(found)) => comparison.both(entry, &found)?,
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
        self.block = self.old.as_mut().and_then(StateReader::next_block);
        self.at = 0;
    }

    /// Returns the entry as this host knows it, if the kernel says that it is still so.
    fn known(&mut self, found: &Found) -> Option<Entry> {
        loop {
            let entry = self.block.as_ref()?.entries.get(self.at);
            match entry {
                None => self.next_block(),
                Some(entry) if entry.path < found.path => self.at += 1,
                Some(entry) if entry.path == found.path => break,
                Some(_) => return None,
            }
        }
        let (block, time) = (self.block.as_ref()?, self.old.as_ref()?.time());
        if block.is_unchanged(self.at, &found.stat, time) {
            block.entries.get(self.at).cloned()
        } else {
            None
        }
    }

    /// Notes what the directory has and the revision has not.
    fn surplus(&mut self, item: WalkItem) -> Result<(), WorkspaceError> {
        match item {
            WalkItem::Found(Found { path, .. }) => self.remove(path),
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
                let refs = self.refs(&content)?;
                self.remember(&content, &refs)?;
                self.plan.new_bytes += refs.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>();
                self.plan.fill.file(path, attributes, size, extents, FileMode::Create, placed(refs));
            }
            EntryKind::HardLink { target } => self.plan.links.push((path, target)),
            kind => self.plan.others.push(Entry { path, kind, attributes }),
        }
        Ok(())
    }

    fn both(&mut self, entry: Entry, found: &Found) -> Result<(), WorkspaceError> {
        let known = self.known(found);
        let stat = &found.stat;
        let is_as_known = known.as_ref() == Some(&entry);
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
                    &known,
                    Some(Entry { kind: EntryKind::File { size: known_size, content: known, extents: holes }, .. })
                        if known == content && known_size == size && holes == extents
                );
                if is_as_known || same_content {
                    let refs = self.remembered(content)?;
                    self.remember(content, &refs)?;
                    self.keep(&entry.path, inode);
                    if !is_as_known {
                        self.plan.adjust.push((entry.path, StatKind::File, entry.attributes));
                    }
                    return Ok(());
                }
                // A file with several names is not changed in place: the others need not be meant.
                if stat.nlink == 1 && extents.is_none() {
                    let (size, content) = (*size, content.clone());
                    return self.patch(entry, size, &content, known, inode, stat);
                }
                if stat.size == *size && self.is_equal(&entry.path, content, extents.as_deref(), stat)? {
                    let refs = self.remembered(content)?;
                    self.remember(content, &refs)?;
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
        self.remove(entry.path.clone());
        self.missing(entry)
    }

    /// Plans to write those chunks of a file that differ.
    fn patch(
        &mut self,
        entry: Entry,
        size: u64,
        content: &Content,
        known: Option<Entry>,
        inode: Inode,
        stat: &Stat,
    ) -> Result<(), WorkspaceError> {
        let refs = self.refs(content)?;
        self.remember(content, &refs)?;
        let Entry { path, attributes, .. } = entry;
        let wanted: Vec<(u64, ChunkRef)> = match known {
            Some(Entry { kind: EntryKind::File { content: old, extents: None, .. }, .. }) => {
                let old: HashSet<(u64, ChunkRef)> = placed(self.refs(&old)?).collect();
                placed(refs).filter(|chunk| !old.contains(chunk)).collect()
            }
            _ => {
                let reading = |source| WorkspaceError::Entry { action: "read", path: path.clone(), source };
                let file = self.reader.open_file(&path).map_err(reading)?;
                differing(&file, placed(refs), stat.size).map_err(reading)?
            }
        };
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
        let refs = self.refs(content)?;
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
        compare().map_err(|source| WorkspaceError::Entry { action: "read", path: path.clone(), source })
    }

    fn refs(&self, content: &Content) -> Result<Vec<ChunkRef>, WorkspaceError> {
        if content.level == 0 {
            return Ok(content.refs.clone());
        }
        // Lists of another revision need not lie in this one's packs; they are found by the index then.
        let mut lists = Vec::new();
        let flattening = flatten(&self.of.fetcher, self.of.manifest.locations(), content, &mut lists);
        self.handle.block_on(flattening)
    }

    /// The chunks of a file that stays, which only the memory wants.
    fn remembered(&self, content: &Content) -> Result<Vec<ChunkRef>, WorkspaceError> {
        if self.plan.memory.is_some() { self.refs(content) } else { Ok(Vec::new()) }
    }

    fn remember(&mut self, content: &Content, refs: &[ChunkRef]) -> Result<(), WorkspaceError> {
        let Some((_, files)) = &mut self.plan.memory else { return Ok(()) };
        let mut ids: Vec<ChunkId> = refs.iter().map(|chunk| chunk.id).collect();
        if content.level > 0 {
            let mut lists = Vec::new();
            let flattening = flatten(&self.of.fetcher, self.of.manifest.locations(), content, &mut lists);
            self.handle.block_on(flattening)?;
            ids.extend(lists);
        }
        files.push(ids);
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
