//! A walk over a tree: every entry once, in the order of its path, with threads that look ahead.
//!
//! A *unit* is a directory to list, or a run of names of a large one to look at. Whoever does a unit gets its entries and the
//! units below them. Threads take the unit whose entries are wanted first; the reader of the walk takes what is done, waits for
//! what is being done, and does itself what nobody has taken. Looking ahead stops at [`AHEAD`] entries.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::excludes::{Excludes, Rules};
use super::listing::Names;
use super::position::Position;
use super::source::{SourceTree, read_small_file};
use super::stat::{Stat, StatKind, stat_at};
use crate::store::EntryPath;

/// Entries that are looked at before they are wanted: some 15 MB.
const AHEAD: usize = 64 << 10;

/// Names of a directory that make one unit: about 2 ms of looking.
const UNIT_NAMES: usize = 1_024;

/// The largest `.kilnignore` file, in bytes.
const RULES_BYTES: u64 = 1 << 20;

/// How a tree is walked.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    /// How many threads look ahead of the reader; with 0 the reader does everything.
    pub threads: usize,
    /// What is left out. With `None` nothing is, and `.kilnignore` files are files like any other.
    pub excludes: Option<Arc<Excludes>>,
    /// Whether what is mounted in the tree is left out; the directory that it is mounted on is kept, as an empty one.
    pub one_file_system: bool,
}

/// An entry of a tree.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is in the tree.
    pub path: EntryPath,
    /// What the kernel says of it.
    pub stat: Stat,
}

/// What a walk comes by.
#[derive(Debug)]
pub enum WalkItem {
    /// An entry.
    Found(Found),
    /// Something that could not be done; the walk goes on without it.
    Problem {
        /// What it was to be done to.
        path: EntryPath,
        /// What was to be done, to be read after "cannot".
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Walks a tree: the root first, each directory right before what lies in it, in the order of [`EntryPath`].
///
/// Names that vanish during the walk are skipped. What cannot be listed or looked at is a [`WalkItem::Problem`].
pub fn walk(tree: &SourceTree, options: WalkOptions) -> Walk {
    let threads = options.threads;
    let job = Arc::new(Job { tree: tree.clone(), options, stop: AtomicBool::new(false) });
    let board = Arc::new(Board::default());
    let mut first = Vec::new();
    match tree.root_stat() {
        Ok(stat) => {
            first.push(Piece::Item(WalkItem::Found(Found { path: EntryPath::root(), stat })));
            let work = Work::List { directory: EntryPath::root(), device: stat.dev, rules: None };
            board.post(&mut first, vec![(1, work)]);
        }
        Err(source) => first.push(problem(EntryPath::root(), "look at", source)),
    }
    let workers = (0..threads).filter_map(|number| {
        let (job, board) = (Arc::clone(&job), Arc::clone(&board));
        let name = format!("walk-{number}");
        // Without a thread the walk is slower and not wrong.
        std::thread::Builder::new().name(name).spawn(move || look_ahead(&job, &board)).ok()
    });
    let workers = workers.collect();
    Walk { hands: Hands::new(&job.tree), job, board, workers, stack: vec![first.into_iter()] }
}

/// A walk over a tree, made by [`walk`]. Dropping it stops its threads.
#[derive(Debug)]
pub struct Walk {
    job: Arc<Job>,
    board: Arc<Board>,
    hands: Hands,
    workers: Vec<JoinHandle<()>>,
    /// What is left of the units that the reader stands in, the innermost last.
    stack: Vec<std::vec::IntoIter<Piece>>,
}

impl Iterator for Walk {
    type Item = WalkItem;

    fn next(&mut self) -> Option<WalkItem> {
        loop {
            match self.stack.last_mut()?.next() {
                Some(Piece::Item(item)) => return Some(item),
                Some(Piece::Unit(id)) => {
                    let pieces = match self.board.claim(id) {
                        Claim::Done(pieces) => pieces,
                        Claim::Do(work) => {
                            let outcome = self.hands.work(&self.job, work);
                            let mut pieces = outcome.pieces;
                            self.board.post(&mut pieces, outcome.units);
                            pieces
                        }
                    };
                    self.stack.push(pieces.into_iter());
                }
                None => {
                    self.stack.pop();
                }
            }
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.job.stop.store(true, Ordering::Relaxed);
        self.board.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                // The unit it had was handed back as a problem; see `Unfinished`.
                continue;
            }
        }
    }
}

/// What is the same for all threads of a walk.
#[derive(Debug)]
struct Job {
    tree: SourceTree,
    options: WalkOptions,
    stop: AtomicBool,
}

type UnitId = u64;

/// A part of the order: an entry, or the place of the entries of a unit.
#[derive(Debug)]
enum Piece {
    Item(WalkItem),
    Unit(UnitId),
}

fn problem(path: EntryPath, action: &'static str, source: io::Error) -> Piece {
    Piece::Item(WalkItem::Problem { path, action, source })
}

/// What there is to do in a unit.
#[derive(Debug)]
enum Work {
    List { directory: EntryPath, device: u64, rules: Option<Arc<Rules>> },
    Look { listing: Arc<Listing>, from: usize },
}

/// A directory that has been listed.
#[derive(Debug)]
struct Listing {
    directory: EntryPath,
    device: u64,
    names: Names,
    rules: Option<Arc<Rules>>,
}

impl Work {
    /// Returns the path of the first entry that it leads to, which says when it is wanted.
    fn wanted_at(&self) -> EntryPath {
        match self {
            Self::List { directory, .. } => directory.clone(),
            Self::Look { listing, from } => {
                let name = listing.names.get(*from).unwrap_or_default();
                listing.directory.join(name.to_bytes()).unwrap_or_else(|_| listing.directory.clone())
            }
        }
    }
}

/// What came of a unit: the pieces in order, and the units to be put in before the piece of the given number.
#[derive(Debug, Default)]
struct Outcome {
    pieces: Vec<Piece>,
    units: Vec<(usize, Work)>,
}

impl Outcome {
    fn unit(&mut self, work: Work) {
        self.units.push((self.pieces.len(), work));
    }
}

/// The units of a walk that are not yet read. Flat, so that a deep tree needs no deep stack.
#[derive(Debug, Default)]
struct Board {
    table: Mutex<Table>,
    /// There may be a unit to take.
    posted: Condvar,
    /// A unit has been finished.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    next_id: UnitId,
    units: HashMap<UnitId, Unit>,
    /// Units that wait, by when they are wanted.
    waiting: BTreeMap<EntryPath, UnitId>,
    /// Entries that are done and not yet read.
    ahead: usize,
    closed: bool,
}

#[derive(Debug)]
enum Unit {
    Waiting(Work),
    Taken,
    Done(Vec<Piece>),
}

enum Claim {
    Done(Vec<Piece>),
    Do(Work),
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts units up, and their places between the pieces.
    fn post(&self, pieces: &mut Vec<Piece>, units: Vec<(usize, Work)>) {
        if units.is_empty() {
            return;
        }
        let mut table = self.lock();
        table.post(pieces, units);
        drop(table);
        self.posted.notify_all();
    }

    /// Takes a unit off, for the reader.
    fn claim(&self, id: UnitId) -> Claim {
        let mut table = self.lock();
        loop {
            match table.units.remove(&id) {
                Some(Unit::Waiting(work)) => {
                    table.waiting.remove(&work.wanted_at());
                    return Claim::Do(work);
                }
                Some(Unit::Done(pieces)) => {
                    let was_full = table.ahead >= AHEAD;
                    table.ahead = table.ahead.saturating_sub(pieces.len());
                    if was_full {
                        self.posted.notify_all();
                    }
                    return Claim::Done(pieces);
                }
                Some(Unit::Taken) => {
                    table.units.insert(id, Unit::Taken);
                    table = self.finished.wait(table).unwrap_or_else(PoisonError::into_inner);
                }
                None => return Claim::Done(Vec::new()),
            }
        }
    }

    /// Takes the unit that is wanted first, for a thread; waits while there is none or enough is done. `None` at the end.
    fn take(&self) -> Option<(UnitId, Work)> {
        let mut table = self.lock();
        loop {
            if table.closed {
                return None;
            }
            if table.ahead < AHEAD
                && let Some((_, id)) = table.waiting.pop_first()
            {
                match table.units.insert(id, Unit::Taken) {
                    Some(Unit::Waiting(work)) => return Some((id, work)),
                    // Never so: a unit leaves `waiting` when it is claimed.
                    Some(other) => drop(table.units.insert(id, other)),
                    None => drop(table.units.remove(&id)),
                }
                continue;
            }
            table = self.posted.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, id: UnitId, outcome: Outcome) {
        let mut pieces = outcome.pieces;
        let mut table = self.lock();
        let more = !outcome.units.is_empty();
        table.post(&mut pieces, outcome.units);
        table.ahead += pieces.len();
        table.units.insert(id, Unit::Done(pieces));
        drop(table);
        self.finished.notify_all();
        if more {
            self.posted.notify_all();
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.posted.notify_all();
    }
}

impl Table {
    fn post(&mut self, pieces: &mut Vec<Piece>, units: Vec<(usize, Work)>) {
        if units.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(pieces.len() + units.len());
        let mut rest = std::mem::take(pieces).into_iter();
        let mut passed = 0;
        for (before, work) in units {
            merged.extend(rest.by_ref().take(before - passed));
            passed = before;
            let id = self.next_id;
            self.next_id += 1;
            merged.push(Piece::Unit(id));
            self.waiting.insert(work.wanted_at(), id);
            self.units.insert(id, Unit::Waiting(work));
        }
        merged.extend(rest);
        *pieces = merged;
    }
}

/// Hands a unit back when its thread does not: the reader waits for it.
struct Unfinished<'a> {
    board: &'a Board,
    id: Option<UnitId>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let stopped = io::Error::other("a thread of the walk ended");
            let pieces = vec![problem(EntryPath::root(), "walk a part of", stopped)];
            self.board.finish(id, Outcome { pieces, units: Vec::new() });
        }
    }
}

/// What a thread of the walk does until the walk ends.
fn look_ahead(job: &Job, board: &Board) {
    let mut hands = Hands::new(&job.tree);
    while let Some((id, work)) = board.take() {
        let mut unfinished = Unfinished { board, id: Some(id) };
        let outcome = hands.work(job, work);
        unfinished.id = None;
        board.finish(id, outcome);
    }
}

/// What one thread needs to do units.
#[derive(Debug)]
struct Hands {
    position: Position,
    buffer: Vec<u8>,
}

impl Hands {
    fn new(tree: &SourceTree) -> Self {
        Self { position: Position::listing(tree.root()), buffer: Vec::new() }
    }

    fn work(&mut self, job: &Job, work: Work) -> Outcome {
        let mut outcome = Outcome::default();
        match work {
            Work::List { directory, device, rules } => {
                self.list(job, directory, device, rules, &mut outcome);
            }
            Work::Look { listing, from } => self.look(job, &listing, from, &mut outcome),
        }
        outcome
    }

    fn list(
        &mut self,
        job: &Job,
        directory: EntryPath,
        device: u64,
        mut rules: Option<Arc<Rules>>,
        outcome: &mut Outcome,
    ) {
        let fd = match self.position.open(directory.as_bytes()) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(source) => return outcome.pieces.push(problem(directory, "list", source)),
        };
        let (names, source) = Names::list(fd.as_fd(), &mut self.buffer, || job.stop.load(Ordering::Relaxed));
        if let Some(source) = source {
            outcome.pieces.push(problem(directory.clone(), "list", source));
        }
        if job.options.excludes.is_some() && names.contains(Excludes::FILE.as_bytes()) {
            rules = read_rules(&fd, &directory, rules, outcome);
        }
        self.position.stand_in(directory.as_bytes(), fd);
        let listing = Arc::new(Listing { directory, device, names, rules });
        if listing.names.len() <= UNIT_NAMES {
            return self.look(job, &listing, 0, outcome);
        }
        for from in (0..listing.names.len()).step_by(UNIT_NAMES) {
            outcome.unit(Work::Look { listing: Arc::clone(&listing), from });
        }
    }

    fn look(&mut self, job: &Job, listing: &Listing, from: usize, outcome: &mut Outcome) {
        let fd = match self.position.enter(listing.directory.as_bytes()) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(source) => return outcome.pieces.push(problem(listing.directory.clone(), "list", source)),
        };
        for index in from..listing.names.len().min(from + UNIT_NAMES) {
            let Some(name) = listing.names.get(index) else { continue };
            let path = match listing.directory.join(name.to_bytes()) {
                Ok(path) => path,
                Err(error) => {
                    let source = io::Error::new(io::ErrorKind::InvalidFilename, error);
                    outcome.pieces.push(problem(listing.directory.clone(), "name an entry of", source));
                    continue;
                }
            };
            let stat = match stat_at(fd, name) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => {
                    outcome.pieces.push(problem(path, "look at", source));
                    continue;
                }
            };
            let is_dir = stat.kind == StatKind::Directory;
            if let Some(excludes) = &job.options.excludes
                && excludes.exclude(listing.rules.as_deref(), &path, is_dir)
            {
                continue;
            }
            let descend = is_dir && !(job.options.one_file_system && stat.dev != listing.device);
            if descend {
                let (directory, rules) = (path.clone(), listing.rules.clone());
                outcome.pieces.push(Piece::Item(WalkItem::Found(Found { path, stat })));
                outcome.unit(Work::List { directory, device: stat.dev, rules });
            } else {
                outcome.pieces.push(Piece::Item(WalkItem::Found(Found { path, stat })));
            }
        }
    }
}

fn read_rules(
    fd: &OwnedFd,
    directory: &EntryPath,
    above: Option<Arc<Rules>>,
    outcome: &mut Outcome,
) -> Option<Arc<Rules>> {
    const READ: &str = "read the patterns of";
    let path = directory.join(Excludes::FILE.as_bytes()).unwrap_or_else(|_| directory.clone());
    match read_small_file(fd.as_fd(), Excludes::FILE, RULES_BYTES) {
        Ok(text) => {
            let (rules, problems) = Rules::read(directory, &text, above);
            outcome.pieces.extend(problems.into_iter().map(|source| problem(path.clone(), READ, source)));
            Some(rules)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => above,
        Err(source) => {
            outcome.pieces.push(problem(path, READ, source));
            above
        }
    }
}
