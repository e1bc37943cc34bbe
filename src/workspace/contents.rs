//! The contents of files on their way into packs: read, cut, hashed, compared with what is there, compressed, in the order of paths.
//!
//! Threads take jobs as they come; one thread puts what they made into packs in the order in which the jobs were given, so that
//! what lies together in the tree lies together in the store.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio_util::sync::CancellationToken;

use super::tree::{Reader, SourceTree, Stat, StatKind, extents, stat_of};
use crate::base::ChunkId;
use crate::store::chunker::{self, WHOLE_FILE_MAX};
use crate::store::frame::{Frame, FrameBuilder};
use crate::store::pack::PackKind;
use crate::store::writer::{ChunkWriter, Claim};
use crate::store::{ChunkRef, EntryPath, Extent, StoreError, Xattr};

/// A job has about this many bytes: a thread is busy with it for some 20 ms.
pub(super) const JOB_BYTES: u64 = 4 << 20;
/// A job has at most this many files.
pub(super) const JOB_FILES: usize = 512;
/// Files larger than this are read by the caller and given as pieces, so that several threads work on one file.
pub(super) const PIECE_BYTES: usize = 4 << 20;
/// A file that changes while it is read is read this often before it is taken as it is.
const TRIES: u32 = 3;

/// A content at which a thread panics, for the tests of what becomes of the save then.
#[cfg(test)]
pub(super) const POISON: &[u8] = b"a thread that reads this panics";

/// What a thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// To read files of the tree.
    Files(Vec<EntryPath>),
    /// To store chunks that are at hand, one behind the other.
    Piece {
        /// Their bytes.
        bytes: Vec<u8>,
        /// Their lengths.
        lengths: Vec<usize>,
    },
}

/// What became of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Of the files, in order.
    Files(Vec<Result<FileOutcome, io::Error>>),
    /// Of the chunks.
    Piece(Stored),
}

/// Chunks that are stored.
#[derive(Debug, Default, Clone)]
pub(super) struct Stored {
    /// The chunks, in order.
    pub(super) refs: Vec<ChunkRef>,
    /// The packs they lie in, sorted, each once; complete only once [`Pipeline::settle`] has been called.
    pub(super) packs: Vec<u32>,
    /// Chunks whose pack is not known yet, because another thread is about to store them.
    pub(super) pending: Vec<ChunkId>,
}

impl Stored {
    /// Adds what follows.
    pub(super) fn extend(&mut self, behind: Self) {
        self.refs.extend(behind.refs);
        self.pending.extend(behind.pending);
        self.packs.extend(behind.packs);
        self.packs.sort_unstable();
        self.packs.dedup();
    }

    fn note(&mut self, number: u32) {
        if let Err(at) = self.packs.binary_search(&number) {
            self.packs.insert(at, number);
        }
    }
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct FileOutcome {
    /// What the kernel said of it when it had been read.
    pub(super) stat: Stat,
    /// Its extended attributes.
    pub(super) xattrs: Vec<Xattr>,
    /// Where its data lies, when there are holes.
    pub(super) extents: Option<Vec<Extent>>,
    /// Its data.
    pub(super) stored: Stored,
    /// Whether it changed during each try, so that what was stored may be of no moment of its life.
    pub(super) is_unsettled: bool,
}

/// The threads between a walk and the packs.
#[derive(Debug)]
pub(super) struct Pipeline {
    writer: Arc<ChunkWriter>,
    jobs: Option<Sender<(u64, Job)>>,
    outcomes: Receiver<Result<(u64, Outcome), StoreError>>,
    finished: VecDeque<(u64, Outcome)>,
    threads: Vec<JoinHandle<()>>,
    next_job: u64,
    in_flight: usize,
    most_in_flight: usize,
}

type Made = (u64, Result<(Outcome, Vec<Frame>), StoreError>);

impl Pipeline {
    /// Starts `threads` threads that read and compress, and one that packs.
    pub(super) fn start(
        writer: &Arc<ChunkWriter>,
        tree: Option<&SourceTree>,
        zstd_level: i32,
        threads: usize,
        cancel: &CancellationToken,
    ) -> io::Result<Self> {
        let (jobs, job_receiver) = unbounded::<(u64, Job)>();
        let (made_sender, made) = unbounded::<Made>();
        let (outcome_sender, outcomes) = unbounded();
        let mut handles = Vec::new();
        for number in 0..threads.max(1) {
            let (jobs, made, writer) = (job_receiver.clone(), made_sender.clone(), Arc::clone(writer));
            let (reader, cancel) = (tree.map(SourceTree::reader), cancel.clone());
            let builder = FrameBuilder::new(zstd_level)?;
            let work =
                move || Worker { reader, writer, builder, buffer: Vec::new() }.run(&jobs, &made, &cancel);
            handles.push(std::thread::Builder::new().name(format!("save-{number}")).spawn(work)?);
        }
        let packing = Arc::clone(writer);
        let pack = move || pack(&packing, &made, &outcome_sender);
        handles.push(std::thread::Builder::new().name("pack".into()).spawn(pack)?);
        Ok(Self {
            writer: Arc::clone(writer),
            jobs: Some(jobs),
            outcomes,
            finished: VecDeque::new(),
            threads: handles,
            next_job: 0,
            in_flight: 0,
            // One in work and one waiting for each thread, and what the packer holds: about 12 MiB of memory each.
            most_in_flight: 2 * threads.max(1) + 1,
        })
    }

    /// Gives a job; waits while there are too many. Returns its number; jobs end in the order of their numbers.
    pub(super) fn give(&mut self, job: Job) -> Result<u64, StoreError> {
        while self.in_flight >= self.most_in_flight {
            self.wait()?;
        }
        let number = self.next_job;
        self.next_job += 1;
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send((number, job)).is_ok());
        if !sent {
            return Err(stopped());
        }
        self.in_flight += 1;
        Ok(number)
    }

    /// Returns the number that the next job will have.
    pub(super) fn upcoming(&self) -> u64 {
        self.next_job
    }

    /// Returns the next job that ended, if one has.
    pub(super) fn try_next(&mut self) -> Result<Option<(u64, Outcome)>, StoreError> {
        while let Ok(ended) = self.outcomes.try_recv() {
            self.in_flight -= 1;
            self.finished.push_back(ended?);
        }
        Ok(self.finished.pop_front())
    }

    /// Waits for the next job to end; `None` when none is in work.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Outcome)>, StoreError> {
        if self.finished.is_empty() && self.in_flight > 0 {
            self.wait()?;
        }
        Ok(self.finished.pop_front())
    }

    fn wait(&mut self) -> Result<(), StoreError> {
        let ended = self.outcomes.recv().map_err(|_closed| stopped())?;
        self.in_flight -= 1;
        self.finished.push_back(ended?);
        Ok(())
    }

    /// Waits until the packs of all of these chunks are known.
    pub(super) fn settle(&mut self, stored: &mut Stored) -> Result<(), StoreError> {
        while let Some(id) = stored.pending.pop() {
            loop {
                if let Some(number) = self.writer.number_of(&id) {
                    stored.note(number);
                    break;
                }
                if self.in_flight == 0 {
                    return Err(stopped());
                }
                self.wait()?;
            }
        }
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so itself; whoever waits for its outcome gets an error.
            let _ended = thread.join().is_ok();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Local { action: "read on", source: io::Error::other("a thread of this save has stopped") }
}

/// Puts frames into packs in the order of the jobs.
fn pack(writer: &ChunkWriter, made: &Receiver<Made>, outcomes: &Sender<Result<(u64, Outcome), StoreError>>) {
    let (mut waiting, mut next) = (BTreeMap::new(), 0);
    for (number, result) in made {
        waiting.insert(number, result);
        while let Some(result) = waiting.remove(&next) {
            let packed = result.and_then(|(outcome, frames)| {
                for frame in frames {
                    writer.append(PackKind::Data, frame)?;
                }
                Ok((next, outcome))
            });
            let failed = packed.is_err();
            // Nobody listens any more when the save was given up.
            if outcomes.send(packed).is_err() || failed {
                return;
            }
            next += 1;
        }
    }
}

/// An outcome that is owed. Dropped before it was given, it becomes an error.
struct Promise<'a> {
    made: &'a Sender<Made>,
    number: u64,
    is_kept: bool,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nobody listens any more when the save was given up.
            let _told = self.made.send((self.number, Err(stopped()))).is_ok();
        }
    }
}

struct Worker {
    reader: Option<Reader>,
    writer: Arc<ChunkWriter>,
    builder: FrameBuilder,
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<(u64, Job)>, made: &Sender<Made>, cancel: &CancellationToken) {
        for (number, job) in jobs {
            // Whoever waits for this job's outcome gets one, whatever happens to this thread.
            let mut promise = Promise { made, number, is_kept: false };
            if cancel.is_cancelled() {
                return;
            }
            let mut frames = Vec::new();
            let result = self.work(job, &mut frames).map(|outcome| (outcome, frames));
            promise.is_kept = true;
            if made.send((number, result)).is_err() {
                return;
            }
        }
    }

    fn work(&mut self, job: Job, frames: &mut Vec<Frame>) -> Result<Outcome, StoreError> {
        let outcome = match job {
            Job::Files(paths) => {
                let mut outcomes = Vec::with_capacity(paths.len());
                for path in &paths {
                    outcomes.push(self.file(path, frames)?);
                }
                Outcome::Files(outcomes)
            }
            Job::Piece { bytes, lengths } => {
                let mut stored = Stored::default();
                let mut rest = &bytes[..];
                for length in lengths {
                    let (chunk, behind) = rest.split_at(length.min(rest.len()));
                    self.chunk(chunk, &mut stored, frames)?;
                    rest = behind;
                }
                Outcome::Piece(stored)
            }
        };
        self.builder.finish(&mut |frame| frames.push(frame)).map_err(compressing)?;
        Ok(outcome)
    }

    fn file(
        &mut self,
        path: &EntryPath,
        frames: &mut Vec<Frame>,
    ) -> Result<Result<FileOutcome, io::Error>, StoreError> {
        let Some(reader) = &mut self.reader else { return Ok(Err(io::ErrorKind::NotFound.into())) };
        let mut opened = match reader.open_file(path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.read_once(&mut opened, path, frames)? {
                Ok(outcome) if outcome.is_unsettled && tries < TRIES => {
                    if let Err(error) = opened.seek(SeekFrom::Start(0)) {
                        return Ok(Err(error));
                    }
                }
                ended => return Ok(ended),
            }
        }
    }

    fn read_once(
        &mut self,
        file: &mut File,
        path: &EntryPath,
        frames: &mut Vec<Frame>,
    ) -> Result<Result<FileOutcome, io::Error>, StoreError> {
        let mut stored = Stored::default();
        let mut read = || -> Result<io::Result<FileOutcome>, StoreError> {
            let before = match stat_of(file) {
                Ok(stat) => stat,
                Err(error) => return Ok(Err(error)),
            };
            let described = (|| {
                let reader = self.reader.as_mut().ok_or(io::ErrorKind::NotFound)?;
                let xattrs = reader.xattrs(path, StatKind::File)?;
                Ok((xattrs, extents(file, before.size, before.blocks_512)?))
            })();
            let (xattrs, extents) = match described {
                Ok(described) => described,
                Err(error) => return Ok(Err(error)),
            };
            let mut source = DataReader::new(file, extents.as_deref(), before.size);
            let mut is_whole = true;
            loop {
                let end = match source.fill(&mut self.buffer, PIECE_BYTES) {
                    Ok(end) => end,
                    Err(error) => return Ok(Err(error)),
                };
                let lengths = lengths_of(&self.buffer, end, is_whole);
                is_whole = false;
                let buffer = std::mem::take(&mut self.buffer);
                let mut start = 0;
                for length in lengths {
                    let chunk = buffer.get(start..start + length).unwrap_or_default();
                    self.chunk(chunk, &mut stored, frames)?;
                    start += length;
                }
                self.buffer = buffer;
                self.buffer.drain(..start);
                if end {
                    break;
                }
            }
            let is_short = source.is_short();
            let after = match stat_of(file) {
                Ok(stat) => stat,
                Err(error) => return Ok(Err(error)),
            };
            let is_unsettled = is_short || has_changed(&before, &after);
            let stat = Stat { size: before.size, ..after };
            Ok(Ok(FileOutcome { stat, xattrs, extents, stored: std::mem::take(&mut stored), is_unsettled }))
        };
        let outcome = read();
        self.buffer.clear();
        outcome
    }

    fn chunk(
        &mut self,
        content: &[u8],
        stored: &mut Stored,
        frames: &mut Vec<Frame>,
    ) -> Result<(), StoreError> {
        #[cfg(test)]
        assert!(content != POISON, "a test asked for this");
        let id = ChunkId::of(content);
        match self.writer.claim(&id)? {
            Claim::Stored(number) => stored.note(number),
            Claim::Pending => stored.pending.push(id),
            Claim::Mine => {
                self.builder.add(id, content, &mut |frame| frames.push(frame)).map_err(compressing)?;
                stored.pending.push(id);
            }
        }
        stored.refs.push(ChunkRef { id, length: u32::try_from(content.len()).unwrap_or(u32::MAX) });
        Ok(())
    }
}

/// Returns the lengths of the chunks of a window: all of it where it is a whole small file, else what the chunker settles.
pub(super) fn lengths_of(window: &[u8], is_end: bool, is_whole: bool) -> Vec<usize> {
    match window.len() {
        0 => Vec::new(),
        length if is_whole && is_end && length <= WHOLE_FILE_MAX => vec![length],
        _ => chunker::cut(window, is_end),
    }
}

/// Returns whether a file changed between two looks at it.
pub(super) fn has_changed(before: &Stat, after: &Stat) -> bool {
    before.size != after.size || before.mtime != after.mtime || before.ctime != after.ctime
}

fn compressing(source: io::Error) -> StoreError {
    StoreError::Local { action: "compress", source }
}

/// Reads the data of a file, holes left out. A file that became shorter meanwhile is filled up with zeros, so that the size that
/// was recorded holds.
#[derive(Debug)]
pub(super) struct DataReader<'a> {
    file: &'a mut File,
    extents: Option<&'a [Extent]>,
    next_extent: usize,
    left: u64,
    is_short: bool,
}

impl<'a> DataReader<'a> {
    /// Reads `size` bytes of `file`, or its extents.
    pub(super) fn new(file: &'a mut File, extents: Option<&'a [Extent]>, size: u64) -> Self {
        let left = if extents.is_some() { 0 } else { size };
        Self { file, extents, next_extent: 0, left, is_short: false }
    }

    /// Fills `buffer` up to `target` bytes; returns whether the data has ended.
    pub(super) fn fill(&mut self, buffer: &mut Vec<u8>, target: usize) -> io::Result<bool> {
        loop {
            if self.left == 0 && !self.next_extent()? {
                return Ok(true);
            }
            let room = target.saturating_sub(buffer.len()) as u64;
            if room == 0 {
                return Ok(false);
            }
            let wanted = room.min(self.left);
            let got = (&mut *self.file).take(wanted).read_to_end(buffer)? as u64;
            self.left -= got;
            if got < wanted {
                self.is_short = true;
                let missing = wanted - got;
                buffer.resize(buffer.len() + usize::try_from(missing).map_err(io::Error::other)?, 0);
                self.left -= missing;
            }
        }
    }

    /// Returns whether the file ended before it should have.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    fn next_extent(&mut self) -> io::Result<bool> {
        let Some(extent) = self.extents.and_then(|extents| extents.get(self.next_extent)) else {
            return Ok(false);
        };
        self.next_extent += 1;
        self.file.seek(SeekFrom::Start(extent.offset))?;
        self.left = extent.length;
        Ok(true)
    }
}
