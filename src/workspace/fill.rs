//! Filling files with their chunks: fetched in the order of the packs, verified, and written wherever they belong.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::WorkspaceError;
use super::manifest::wrong_length;
use super::remember::Seen;
use super::save::blocking;
use super::tree::{RestoreRights, Shortfalls, Stat, TargetTree, Writer};
use crate::base::ChunkId;
use crate::store::fetch::{Fetcher, Locations, Run, open_run};
use crate::store::pack::PackName;
use crate::store::{Attributes, ChunkRef, EntryPath, Extent, StoreError};

/// Files that are open at the same time because they wait for further chunks.
const OPEN_FILES: usize = 128;
/// Files without chunks that one thread makes at once.
const EMPTY_FILES: usize = 256;
/// Fetches that are ahead of the threads that write.
const AHEAD: usize = 2;
/// Entries whose last look is kept: some 25 MB.
#[cfg(not(test))]
const MOST_SEEN: usize = 192 << 10;
/// In tests few enough that some go without.
#[cfg(test)]
pub(super) const MOST_SEEN: usize = 2 << 10;
/// Damaged files that an error names.
const NAMED: usize = 10;

/// What happens to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileMode {
    /// Nothing is: the file is made.
    Create,
    /// A file is, and gets some of its chunks anew.
    Patch,
}

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct FilePlan {
    path: EntryPath,
    attributes: Attributes,
    size: u64,
    extents: Option<Vec<Extent>>,
    mode: FileMode,
    left: AtomicU32,
}

/// A chunk's place in a file.
#[derive(Debug, Clone, Copy)]
struct Part {
    file: u32,
    /// Where it begins in the file's data, holes left out.
    at: u64,
    length: u32,
}

/// Files that are written together.
#[derive(Debug, Default)]
pub(super) struct FillPlan {
    files: Vec<FilePlan>,
    parts: Vec<Part>,
    wanted: Vec<(ChunkId, u32)>,
    empty: Vec<u32>,
}

impl FillPlan {
    /// Adds a file and those of its chunks that are to be written, each with its place in the file's data.
    pub(super) fn file(
        &mut self,
        path: EntryPath,
        attributes: Attributes,
        size: u64,
        extents: Option<Vec<Extent>>,
        mode: FileMode,
        chunks: impl IntoIterator<Item = (u64, ChunkRef)>,
    ) {
        let file = number(self.files.len());
        let before = self.parts.len();
        for (at, chunk) in chunks {
            self.wanted.push((chunk.id, number(self.parts.len())));
            self.parts.push(Part { file, at, length: chunk.length });
        }
        let left = number(self.parts.len() - before);
        if left == 0 {
            self.empty.push(file);
        }
        self.files.push(FilePlan { path, attributes, size, extents, mode, left: AtomicU32::new(left) });
    }

    /// Returns how many chunks are wanted.
    pub(super) fn chunks(&self) -> usize {
        self.wanted.len()
    }

    /// Returns how many files there are.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// Hands out, file by file, the packs that hold the file's chunks, as often as they come.
    pub(super) fn packs_of_files(&self, locations: &Locations, take: TakePacks<'_>) {
        let mut rest = self.wanted.iter().peekable();
        for file in 0..self.files.len() {
            let mut chunks = std::iter::from_fn(|| {
                let is_own = |(_, part): &&(ChunkId, u32)| {
                    self.parts.get(*part as usize).is_some_and(|part| part.file as usize == file)
                };
                let (id, _) = rest.next_if(is_own)?;
                Some(locations.get(id).and_then(|location| locations.pack(location.pack)).copied())
            });
            take(file, &mut chunks);
            chunks.for_each(drop);
        }
    }

    /// Returns the wanted chunks.
    pub(super) fn ids(&self) -> HashSet<ChunkId> {
        self.wanted.iter().map(|(id, _)| *id).collect()
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Where files are written, and what is counted meanwhile.
#[derive(Debug)]
pub(super) struct Filler {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) tree: TargetTree,
    pub(super) rights: RestoreRights,
    pub(super) shortfalls: Shortfalls,
    pub(super) jobs: usize,
    pub(super) cancel: CancellationToken,
    /// What the kernel said of the entries when they were done, where somebody wants to know.
    seen: Option<Mutex<HashMap<EntryPath, Seen>>>,
    writers: Mutex<Vec<Writer>>,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    fetched: AtomicU64,
}

/// Files that wait for further chunks.
#[derive(Debug, Default)]
struct OpenFiles {
    open: HashMap<u32, Arc<File>>,
    made: HashSet<u32>,
    order: VecDeque<u32>,
}

/// Takes a file's number and its packs; `None` stands for one that is not known.
pub(super) type TakePacks<'a> = &'a mut dyn FnMut(usize, &mut dyn Iterator<Item = Option<PackName>>);

/// What could not be filled.
#[derive(Debug, Default)]
pub(super) struct Losses {
    files: HashSet<EntryPath>,
    first: Vec<EntryPath>,
    source: Option<StoreError>,
}

impl Losses {
    /// Notes a file of which a chunk is damaged or lost, once for all of its chunks.
    fn note(&mut self, path: Option<&EntryPath>, error: StoreError) {
        if let Some(path) = path
            && self.files.insert(path.clone())
            && self.first.len() < NAMED
        {
            self.first.push(path.clone());
        }
        self.source.get_or_insert(error);
    }

    /// Returns the error of the losses, if there are any.
    pub(super) fn into_result(self) -> Result<(), WorkspaceError> {
        match self.source {
            None => Ok(()),
            Some(source) => Err(WorkspaceError::Damaged {
                count: self.files.len() as u64,
                paths: self.first,
                source: Box::new(source),
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Filler {
    /// Makes a filler.
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        tree: TargetTree,
        rights: &RestoreRights,
        jobs: usize,
        cancel: CancellationToken,
    ) -> Self {
        let rights = RestoreRights { owner: Some(rights.owner_rule().clone()), ..rights.clone() };
        Self {
            fetcher,
            tree,
            rights,
            shortfalls: Shortfalls::new(),
            jobs,
            cancel,
            seen: None,
            writers: Mutex::default(),
            files_done: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
        }
    }

    /// Lets it note what the kernel says of the entries when they are done.
    pub(super) fn noting(self) -> Self {
        Self { seen: Some(Mutex::default()), ..self }
    }

    /// Notes what the kernel says of an entry that is done; up to [`MOST_SEEN`] of them.
    pub(super) fn note(&self, path: &EntryPath, stat: &Stat) {
        if let Some(seen) = &self.seen {
            let mut seen = lock(seen);
            if seen.len() < MOST_SEEN {
                seen.insert(path.clone(), Seen::of(stat));
            }
        }
    }

    /// Takes what was noted; nothing where that were too many.
    pub(super) fn take_seen(&self) -> HashMap<EntryPath, Seen> {
        let seen = self.seen.as_ref().map(|seen| std::mem::take(&mut *lock(seen)));
        seen.filter(|seen| seen.len() < MOST_SEEN).unwrap_or_default()
    }

    /// Returns how many files are done, how many bytes were written, and how many were fetched.
    pub(super) fn progress(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.files_done), read(&self.bytes_done), read(&self.fetched))
    }

    /// Lends a writer: each thread has one, and keeps its open directory from run to run.
    pub(super) fn with_writer<T>(&self, act: impl FnOnce(&mut Writer) -> T) -> T {
        let mut writer = lock(&self.writers).pop().unwrap_or_else(|| self.tree.writer());
        let result = act(&mut writer);
        lock(&self.writers).push(writer);
        result
    }

    /// Writes the files of a plan. What is damaged or lost in the store is counted in `losses`, and its files are not finished.
    pub(super) async fn fill(
        self: &Arc<Self>,
        plan: FillPlan,
        locations: &Locations,
        losses: &mut Losses,
    ) -> Result<(), WorkspaceError> {
        let mut plan = plan;
        let (runs, unknown) = Fetcher::plan(locations, std::mem::take(&mut plan.wanted));
        let empty = std::mem::take(&mut plan.empty);
        let job = Arc::new(FillJob {
            filler: Arc::clone(self),
            plan,
            open: Mutex::default(),
            missing: Mutex::new(unknown),
            has_failed: AtomicBool::new(false),
        });
        let empties = empty.chunks(EMPTY_FILES).map(|files| Work::Empty(files.to_vec())).collect::<Vec<_>>();
        self.work(&job, empties.into_iter().chain(runs.into_iter().map(Work::Run))).await?;
        // A collector may have moved what the revision's packs held.
        let missing = std::mem::take(&mut *lock(&job.missing));
        let (runs, unknown) = self.fetcher.replan(missing).await?;
        lock(&job.missing).extend(unknown);
        self.work(&job, runs.into_iter().map(Work::Run)).await?;
        self.rescue(&job, losses).await
    }

    /// Does work on as many threads as there may be.
    async fn work(
        self: &Arc<Self>,
        job: &Arc<FillJob>,
        work: impl Iterator<Item = Work> + Send,
    ) -> Result<(), WorkspaceError> {
        let cores = Arc::new(Semaphore::new(self.jobs.max(1)));
        let mut works = stream::iter(work)
            .map(|work| {
                let (job, cores) = (Arc::clone(job), Arc::clone(&cores));
                async move { tokio::spawn(job.work(work, cores)).await.map_err(stopped)? }
            })
            .buffer_unordered(self.jobs.max(1) + AHEAD);
        let mut ended = Ok(());
        // After a failure nothing is begun, and what is in work comes to its end: nothing is written behind the caller's back.
        while let Some(result) = works.next().await {
            if result.is_err() && ended.is_ok() {
                job.has_failed.store(true, Ordering::Relaxed);
                ended = result;
            }
        }
        ended
    }

    /// Looks for what was not where the revision says, and counts the files of what is nowhere.
    async fn rescue(self: &Arc<Self>, job: &Arc<FillJob>, losses: &mut Losses) -> Result<(), WorkspaceError> {
        let missing = std::mem::take(&mut *lock(&job.missing));
        let mut rescue = self.fetcher.rescue();
        for (id, part) in missing {
            if self.cancel.is_cancelled() {
                return Err(WorkspaceError::Cancelled);
            }
            match rescue.chunk(id).await {
                Ok(content) => {
                    let job = Arc::clone(job);
                    blocking(move || job.filler.with_writer(|writer| job.write(writer, part, &content)))
                        .await??;
                }
                Err(error @ (StoreError::Lost { .. } | StoreError::Damaged { .. })) => {
                    losses.note(job.path_of(part), error);
                }
                Err(error) => return Err(error.into()),
            }
            self.fetched.fetch_add(rescue.take_fetched_bytes(), Ordering::Relaxed);
        }
        Ok(())
    }
}

fn stopped(error: tokio::task::JoinError) -> WorkspaceError {
    StoreError::Local { action: "finish a thread's work", source: io::Error::other(error) }.into()
}

#[derive(Debug)]
enum Work {
    Empty(Vec<u32>),
    Run(Run),
}

#[derive(Debug)]
struct FillJob {
    filler: Arc<Filler>,
    plan: FillPlan,
    open: Mutex<OpenFiles>,
    missing: Mutex<Vec<(ChunkId, u32)>>,
    has_failed: AtomicBool,
}

impl FillJob {
    async fn work(self: Arc<Self>, work: Work, cores: Arc<Semaphore>) -> Result<(), WorkspaceError> {
        if self.filler.cancel.is_cancelled() {
            return Err(WorkspaceError::Cancelled);
        }
        if self.has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = match &work {
            Work::Empty(_) => None,
            Work::Run(run) => match self.filler.fetcher.fetch(run).await? {
                Some(bytes) => Some(bytes),
                None => {
                    let wanted = run.frames.iter().flat_map(|frame| &frame.chunks);
                    lock(&self.missing).extend(wanted.map(|chunk| (chunk.id, chunk.tag)));
                    return Ok(());
                }
            },
        };
        let _core = cores.acquire().await.map_err(|closed| StoreError::Local {
            action: "wait for a thread",
            source: io::Error::other(closed),
        })?;
        let job = Arc::clone(&self);
        blocking(move || {
            job.filler.with_writer(|writer| match (work, bytes) {
                (Work::Empty(files), _) => job.make_empty(writer, &files),
                (Work::Run(run), Some(bytes)) => {
                    job.filler.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    job.write_run(writer, &run, &bytes)
                }
                (Work::Run(_), None) => Ok(()),
            })
        })
        .await?
    }

    fn path_of(&self, part: u32) -> Option<&EntryPath> {
        let part = self.plan.parts.get(part as usize)?;
        self.plan.files.get(part.file as usize).map(|file| &file.path)
    }

    fn make_empty(&self, writer: &mut Writer, files: &[u32]) -> Result<(), WorkspaceError> {
        for number in files {
            let Some(plan) = self.plan.files.get(*number as usize) else { continue };
            let made = match plan.mode {
                FileMode::Create => writer.create_file(&plan.path, plan.attributes.mode),
                FileMode::Patch => writer.open_file(&plan.path),
            };
            let file = made.map_err(|source| failed("write", plan, source))?;
            file.set_len(plan.size).map_err(|source| failed("write", plan, source))?;
            self.finish(writer, plan, &file)?;
        }
        Ok(())
    }

    fn write_run(&self, writer: &mut Writer, run: &Run, bytes: &[u8]) -> Result<(), WorkspaceError> {
        let mut failure = None;
        let opened = open_run(run, bytes, &mut |chunk, content| {
            match content {
                None => lock(&self.missing).push((chunk.id, chunk.tag)),
                Some(content) => {
                    if let Err(error) = self.write(writer, chunk.tag, content) {
                        failure = Some(error);
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                }
            }
            if self.filler.cancel.is_cancelled() {
                failure = Some(WorkspaceError::Cancelled);
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
        match (failure, opened) {
            (Some(error), _) => Err(error),
            (None, Err(source)) => Err(StoreError::Local { action: "take a pack apart", source }.into()),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Writes a verified chunk to its place, and finishes the file when that was its last one.
    fn write(&self, writer: &mut Writer, part: u32, content: &[u8]) -> Result<(), WorkspaceError> {
        let Some(part) = self.plan.parts.get(part as usize) else { return Ok(()) };
        let Some(plan) = self.plan.files.get(part.file as usize) else { return Ok(()) };
        if content.len() as u64 != u64::from(part.length) {
            let source = Box::new(wrong_length(&self.filler.fetcher, "a chunk has another length"));
            return Err(WorkspaceError::Damaged { count: 1, paths: vec![plan.path.clone()], source });
        }
        self.filler.bytes_done.fetch_add(content.len() as u64, Ordering::Relaxed);
        let is_only = part.at == 0 && content.len() as u64 == plan.size && plan.extents.is_none();
        if is_only && plan.mode == FileMode::Create {
            let mut file = writer
                .create_file(&plan.path, plan.attributes.mode)
                .map_err(|source| failed("write", plan, source))?;
            io::Write::write_all(&mut file, content).map_err(|source| failed("write", plan, source))?;
            return self.finish(writer, plan, &file);
        }
        let file = self.open(writer, part.file, plan).map_err(|source| failed("write", plan, source))?;
        write_at(&file, plan.extents.as_deref(), part.at, content)
            .map_err(|source| failed("write", plan, source))?;
        if plan.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            lock(&self.open).open.remove(&part.file);
            return self.finish(writer, plan, &file);
        }
        Ok(())
    }

    fn open(&self, writer: &mut Writer, number: u32, plan: &FilePlan) -> io::Result<Arc<File>> {
        let mut files = lock(&self.open);
        if let Some(file) = files.open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = if plan.mode == FileMode::Patch || files.made.contains(&number) {
            writer.open_file(&plan.path)?
        } else {
            writer.create_file(&plan.path, plan.attributes.mode)?
        };
        if files.made.insert(number) {
            file.set_len(plan.size)?;
        }
        let file = Arc::new(file);
        files.open.insert(number, Arc::clone(&file));
        files.order.push_back(number);
        while files.open.len() > OPEN_FILES {
            let Some(oldest) = files.order.pop_front() else { break };
            files.open.remove(&oldest);
        }
        Ok(file)
    }

    fn finish(&self, writer: &mut Writer, plan: &FilePlan, file: &File) -> Result<(), WorkspaceError> {
        let Filler { rights, shortfalls, .. } = &*self.filler;
        self.filler.files_done.fetch_add(1, Ordering::Relaxed);
        let stat = writer
            .finish_file(file, &plan.path, &plan.attributes, rights, shortfalls)
            .map_err(|source| failed("set the attributes of", plan, source))?;
        self.filler.note(&plan.path, &stat);
        Ok(())
    }
}

fn failed(action: &'static str, plan: &FilePlan, source: io::Error) -> WorkspaceError {
    WorkspaceError::Entry { action, path: plan.path.clone(), source }
}

/// Writes data of a file whose holes are left out: `at` counts data only.
fn write_at(file: &File, extents: Option<&[Extent]>, at: u64, content: &[u8]) -> io::Result<()> {
    let Some(extents) = extents else { return file.write_all_at(content, at) };
    let (mut before, mut at, mut rest) = (0_u64, at, content);
    for extent in extents {
        if rest.is_empty() {
            break;
        }
        let end = before + extent.length;
        if at < end {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(room);
            file.write_all_at(now, extent.offset + (at - before))?;
            at += room as u64;
            rest = later;
        }
        before = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_around_the_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(20).unwrap();
        let extents = [
            Extent { offset: 2, length: 3 },
            Extent { offset: 10, length: 2 },
            Extent { offset: 15, length: 4 },
        ];
        write_at(&file, Some(&extents), 0, b"abcd").unwrap();
        write_at(&file, Some(&extents), 4, b"efghi").unwrap();
        let mut bytes = [0; 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0abc\0\0\0\0\0de\0\0\0fghi\0");
    }
}
