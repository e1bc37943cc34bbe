//! Which chunks are needed: one bit for each row of the index.
//!
//! Ids are asked for in sorted batches and joined with the sorted rows, so that a batch costs one pass over the index, however many ids
//! it has; a small batch looks each of its ids up instead.

use std::io;
use std::sync::Arc;

use super::ledger::{Ledger, Standing};
use crate::base::ChunkId;
use crate::store::segment::{Location, Segment};
use crate::store::wire::broken;

/// A batch with fewer ids than a segment has rows, divided by this, is looked up id by id.
const LOOK_UP_SHARE: usize = 128;

/// Fewer ids than this are not worth a thread.
const LEAST_PART: usize = 16 << 10;

/// What a chunk is read as. A chunk may be wanted as several: a file may have the bytes of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Kind(u8);

impl Kind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = 2 * LEVELS;
    /// A chunk of a file.
    pub(super) const DATA: Self = Self(0);

    /// What the references of a file's content are, by its level.
    pub(super) fn of_file(level: u8) -> Self {
        Self(level.min(TOP))
    }

    /// What the references of a manifest are, by its level.
    pub(super) fn of_manifest(level: u8) -> Self {
        Self(LEVELS_U8 + level.min(TOP))
    }

    /// Returns how many lists lie between this and the chunks, and whether those are a manifest's.
    pub(super) fn level(self) -> (u8, bool) {
        if self.0 >= LEVELS_U8 { (self.0 - LEVELS_U8, true) } else { (self.0, false) }
    }

    /// Returns what a list of this kind refers to; `None` for what is no list.
    pub(super) fn below(self) -> Option<Self> {
        let (level, _) = self.level();
        (level > 0).then(|| Self(self.0 - 1))
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Returns all kinds, those that others lead to first.
    pub(super) fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..2 * LEVELS_U8).map(Self)
    }
}

/// Levels 0 to [`crate::store::Content::MAX_LEVEL`].
const TOP: u8 = crate::store::Content::MAX_LEVEL;
const LEVELS_U8: u8 = TOP + 1;
const LEVELS: usize = TOP as usize + 1;

/// Where a needed chunk was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The pack, by its number in the ledger. The location's own pack means nothing.
    pub(super) pack: u32,
    pub(super) location: Location,
}

/// A row of the index: in eight bytes, because there are as many as a batch has ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    segment: u32,
    row: u32,
}

/// What became of a chunk that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// It was not asked for as this kind before. [`Marks::place`] tells where it lies.
    New(Spot),
    /// It was.
    Known,
    /// No pack that is there has it, as far as the index says.
    Missing,
}

/// Bits, all of them zero at first.
#[derive(Debug, Clone, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Sets a bit; returns whether it was not set before.
    fn set(&mut self, at: usize) -> bool {
        let Some(word) = self.0.get_mut(at / 64) else { return false };
        let is_new = *word & (1 << (at % 64)) == 0;
        *word |= 1 << (at % 64);
        is_new
    }

    fn get(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

/// A segment, and the numbers of its packs in the ledger.
#[derive(Debug)]
struct Held {
    segment: Arc<Segment>,
    /// `None` for packs whose rows are taken from another segment, or that are not there.
    packs: Vec<Option<u32>>,
    live: Bits,
}

/// The rows of the index, and which of them are needed.
#[derive(Debug, Default)]
pub(super) struct Marks {
    held: Vec<Held>,
    /// For each kind but [`Kind::DATA`], and each segment, the rows that were asked for as that.
    walked: Vec<Vec<Bits>>,
    /// Which packs have their rows in a segment that was added before.
    owned: std::collections::HashSet<u32>,
}

impl Marks {
    /// Adds a segment. Rows of a pack are taken from the first segment that names it: two of them have the same rows while a
    /// compaction is in work, or after one that died.
    pub(super) fn add(&mut self, segment: Arc<Segment>, ledger: &Ledger) {
        let packs = segment.packs().iter().map(|info| {
            let number = ledger.number(&info.pack)?;
            (ledger.standing(number) != Standing::Gone && !self.owned.contains(&number)).then_some(number)
        });
        let packs: Vec<Option<u32>> = packs.collect();
        self.owned.extend(packs.iter().flatten());
        let count = segment.len();
        self.walked.resize_with(Kind::COUNT, Vec::new);
        for walked in &mut self.walked {
            walked.resize(self.held.len(), Bits::default());
            walked.push(Bits::default());
        }
        self.held.push(Held { segment, packs, live: Bits::new(count) });
    }

    /// Returns whether a segment names a pack.
    pub(super) fn names(&self, pack: u32) -> bool {
        self.owned.contains(&pack)
    }

    /// Marks chunks as needed; `ids` are sorted and each is there once. Of several places the one in the pack of the best standing
    /// is marked, and all others are as good as not there.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read.
    pub(super) fn mark(
        &mut self,
        kind: Kind,
        ids: &[ChunkId],
        ledger: &Ledger,
        take: &mut dyn FnMut(ChunkId, Marked),
    ) -> io::Result<()> {
        let mut found: Vec<Option<Candidate>> = vec![None; ids.len()];
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let part = ids.len().div_ceil(threads).max(LEAST_PART);
        if ids.len() <= part {
            self.join(ids, ledger, &mut found)?;
        } else {
            std::thread::scope(|scope| {
                let parts = ids.chunks(part).zip(found.chunks_mut(part));
                let joining: Vec<_> =
                    parts.map(|(ids, found)| scope.spawn(|| self.join(ids, ledger, found))).collect();
                joining.into_iter().try_for_each(|part| {
                    part.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
                })
            })?;
        }
        for (id, candidate) in ids.iter().zip(found) {
            take(*id, candidate.map_or(Marked::Missing, |candidate| self.set(kind, &candidate)));
        }
        Ok(())
    }

    fn join(&self, ids: &[ChunkId], ledger: &Ledger, found: &mut [Option<Candidate>]) -> io::Result<()> {
        for (number, held) in self.held.iter().enumerate() {
            held.join(number, ids, ledger, found)?;
        }
        Ok(())
    }

    fn set(&mut self, kind: Kind, candidate: &Candidate) -> Marked {
        let Spot { segment, row } = candidate.spot;
        let Some(held) = self.held.get_mut(segment as usize) else { return Marked::Missing };
        let mut is_new = held.live.set(row as usize);
        if kind != Kind::DATA
            && let Some(bits) =
                self.walked.get_mut(kind.index()).and_then(|walked| walked.get_mut(segment as usize))
        {
            if bits.0.is_empty() {
                *bits = Bits::new(held.segment.len());
            }
            is_new = bits.set(row as usize);
        }
        if is_new { Marked::New(candidate.spot) } else { Marked::Known }
    }

    /// Returns where a chunk lies that was marked.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read, and on a row that cannot be.
    pub(super) fn place(&self, spot: Spot) -> io::Result<Place> {
        let mut place = None;
        if let Some(held) = self.held.get(spot.segment as usize) {
            let row = spot.row as usize;
            held.segment.scan(row..row + 1, &mut |_, stored| {
                let location = stored.location(held.packs.len())?;
                let pack = held.packs.get(location.pack as usize).copied().flatten();
                place = pack.map(|pack| Place { pack, location });
                Ok(())
            })?;
        }
        place.ok_or_else(|| broken("a row is gone"))
    }

    /// Counts in the ledger what there is of each pack, and what of it is needed.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read.
    pub(super) fn count(&self, ledger: &mut Ledger) -> io::Result<()> {
        ledger.reset_counts();
        for held in &self.held {
            // A row costs less than a look into the ledger.
            let mut counts = vec![(0_u64, 0_u64, 0_u64); held.packs.len()];
            held.segment.scan(0..held.segment.len(), &mut |row, stored| {
                if let Some((raw, live, chunks)) = counts.get_mut(stored.pack() as usize) {
                    *raw += u64::from(stored.length());
                    if held.live.get(row) {
                        *live += u64::from(stored.length());
                        *chunks += 1;
                    }
                }
                Ok(())
            })?;
            for (number, (raw, live, chunks)) in held.packs.iter().zip(counts) {
                if let Some(pack) = number.and_then(|number| ledger.get_mut(number)) {
                    pack.raw_bytes = raw;
                    pack.live_raw_bytes = live;
                    pack.live_chunks = chunks;
                }
            }
        }
        Ok(())
    }

    /// Hands out every row of packs for which `is_asked`: the chunk, its place, and whether it is needed.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read, and on a row that cannot be.
    pub(super) fn rows_of(
        &self,
        is_asked: &dyn Fn(u32) -> bool,
        take: &mut dyn FnMut(ChunkId, Place, bool),
    ) -> io::Result<()> {
        for held in &self.held {
            if !held.packs.iter().flatten().any(|pack| is_asked(*pack)) {
                continue;
            }
            held.segment.scan(0..held.segment.len(), &mut |row, stored| {
                let pack = held.packs.get(stored.pack() as usize).copied().flatten();
                if let Some(pack) = pack.filter(|pack| is_asked(*pack)) {
                    let location = stored.location(held.packs.len())?;
                    take(stored.id(), Place { pack, location }, held.live.get(row));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Returns every place of a chunk in packs that are there.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read.
    pub(super) fn places(&self, id: &ChunkId) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        for held in &self.held {
            for (_, location) in held.segment.find_rows(id)? {
                if let Some(Some(pack)) = held.packs.get(location.pack as usize) {
                    places.push(Place { pack: *pack, location });
                }
            }
        }
        Ok(places)
    }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    standing: Standing,
    spot: Spot,
}

impl Held {
    fn join(
        &self,
        number: usize,
        ids: &[ChunkId],
        ledger: &Ledger,
        found: &mut [Option<Candidate>],
    ) -> io::Result<()> {
        let segment = u32::try_from(number).unwrap_or(u32::MAX);
        let mut offer = |at: usize, row: usize, pack: u32| {
            let Some(Some(pack)) = self.packs.get(pack as usize) else { return };
            let Ok(row) = u32::try_from(row) else { return };
            let standing = ledger.standing(*pack);
            if let Some(best) = found.get_mut(at)
                && best.is_none_or(|best| standing < best.standing)
            {
                *best = Some(Candidate { standing, spot: Spot { segment, row } });
            }
        };
        if ids.len() < self.segment.len() / LOOK_UP_SHARE {
            for (at, id) in ids.iter().enumerate() {
                for (row, location) in self.segment.find_rows(id)? {
                    offer(at, row, location.pack);
                }
            }
            return Ok(());
        }
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
        let mut at = 0;
        self.segment.scan(self.segment.rows_between(first, last), &mut |row, stored| {
            let id = stored.id();
            while ids.get(at).is_some_and(|wanted| *wanted < id) {
                at += 1;
            }
            if ids.get(at) == Some(&id) {
                offer(at, row, stored.pack());
            }
            Ok(())
        })
    }
}
