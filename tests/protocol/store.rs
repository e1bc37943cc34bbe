//! What lies in the store, and which of it counts.
//!
//! Everything that may be put has a number from the start, so that a set of objects is a number, too, one bit for each. A *slot* is
//! one try of a saver or one half of a collector's run: one session, and at most one pack, two segments and one record.

use crate::scenario::{Break, Scenario};

/// Slot 0 is what was in the store before.
pub(crate) const SLOTS: usize = 12;
/// Pack 0 and pack 1 were there before; the pack of slot s is s + 1.
pub(crate) const PACKS: usize = SLOTS + 1;
/// Segments 2s and 2s + 1 are of slot s: what it wrote itself, and what it merged.
pub(crate) const SEGMENTS: usize = 2 * SLOTS;
/// Runs of all collectors together.
pub(crate) const RUNS: usize = 4;

/// All of them.
pub(crate) const ALL_RUNS: Runs = 0b1111;

/// A set of chunks.
pub(crate) type Chunks = u8;
/// A set of packs.
pub(crate) type Packs = u16;
/// A set of segments.
pub(crate) type Segments = u32;
/// A set of slots: of their sessions or their records.
pub(crate) type Slots = u16;
/// A set of runs.
pub(crate) type Runs = u8;

/// Hands out the numbers in a set.
pub(crate) fn each(set: impl Into<u32>) -> impl Iterator<Item = usize> {
    let mut rest = set.into();
    std::iter::from_fn(move || {
        let lowest = rest.trailing_zeros() as usize;
        (rest != 0).then(|| {
            rest &= rest - 1;
            lowest
        })
    })
}

/// Whether a number is in a set.
pub(crate) fn has(set: impl Into<u32>, number: usize) -> bool {
    set.into() >> number & 1 == 1
}

/// The objects of the store, and what the people outside were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Store {
    /// `packs/`, and what each holds or held.
    pub(crate) packs: Packs,
    pub(crate) contents: [Chunks; PACKS],
    /// `idx/`, and the packs whose rows each has or had.
    pub(crate) segments: Segments,
    pub(crate) rows: [Packs; SEGMENTS],
    /// `rev/`, and of each record the chunks and the pack table.
    pub(crate) records: Slots,
    pub(crate) chunks: [Chunks; SLOTS],
    pub(crate) tables: [Packs; SLOTS],
    /// `removed/`.
    pub(crate) tombstones: Slots,
    /// `sess/`.
    pub(crate) sessions: Slots,
    /// `gc/`, and what each list condemns or condemned.
    pub(crate) lists: Runs,
    pub(crate) condemns: [Packs; RUNS],
    /// `evict/`: for each run the sessions with a mark, those with an adopt, and what the adopts name.
    pub(crate) marks: [Slots; RUNS],
    pub(crate) adopts: [Slots; RUNS],
    pub(crate) adopted_records: [Slots; RUNS],
    pub(crate) adopted_segments: [Segments; RUNS],
    /// Revisions that somebody was told are saved.
    pub(crate) acknowledged: Slots,
    /// Revisions that somebody removed.
    pub(crate) removed: Slots,
    /// Segments whose PUT was sent twice, where the other one has not arrived yet.
    pub(crate) late: Segments,
    /// A key was put with another meaning (I4).
    pub(crate) two_meanings: bool,
    /// A pack was deleted that no list condemned (I3).
    pub(crate) wrong_delete: bool,
    /// A collector would have called a chunk lost that nobody lost.
    pub(crate) false_alarm: bool,
}

impl Store {
    /// The packs that `gc/` condemns now.
    pub(crate) fn condemned(&self) -> Packs {
        self.condemned_by(self.lists)
    }

    /// The packs that some lists name.
    pub(crate) fn condemned_by(&self, lists: Runs) -> Packs {
        each(lists).fold(0, |packs, run| packs | self.condemns[run])
    }

    /// What the rows of some segments lead to.
    pub(crate) fn rows_of(&self, segments: Segments) -> Packs {
        each(segments).fold(0, |packs, segment| packs | self.rows[segment])
    }

    /// The chunks that some packs hold or held.
    pub(crate) fn chunks_in(&self, packs: Packs) -> Chunks {
        each(packs).fold(0, |chunks, pack| chunks | self.contents[pack])
    }

    /// Whether anybody marked a session.
    pub(crate) fn is_marked(&self, session: usize) -> bool {
        self.marks.iter().any(|marked| has(*marked, session))
    }

    /// Whether a segment counts: only if every mark of its session has an adopt that lists it.
    pub(crate) fn counts(&self, scenario: &Scenario, segment: usize) -> bool {
        let session = scenario.session_of(segment / 2);
        scenario.is(Break::AdoptsNotAsked)
            || (0..RUNS).all(|run| {
                !has(self.marks[run], session)
                    || has(self.adopts[run], session) && has(self.adopted_segments[run], segment)
            })
    }

    /// The segments of a set that count.
    pub(crate) fn counting(&self, scenario: &Scenario, among: Segments) -> Segments {
        each(among)
            .filter(|segment| self.counts(scenario, *segment))
            .fold(0, |set, segment| set | 1 << segment)
    }

    /// The segments of a set that will never count: a completed adopt omits them.
    pub(crate) fn refused_segments(&self, scenario: &Scenario, among: Segments) -> Segments {
        each(among)
            .filter(|segment| {
                let session = scenario.session_of(segment / 2);
                (0..RUNS)
                    .any(|run| has(self.adopts[run], session) && !has(self.adopted_segments[run], *segment))
            })
            .fold(0, |set, segment| set | 1 << segment)
    }

    /// The records that a completed adopt of one of these runs omits.
    pub(crate) fn refused_records(&self, scenario: &Scenario, by: Runs) -> Slots {
        each(self.records)
            .filter(|record| {
                let session = scenario.session_of(*record);
                each(by).any(|run| has(self.adopts[run], session) && !has(self.adopted_records[run], *record))
            })
            .fold(0, |set, record| set | 1 << record)
    }

    /// Whether a record has a mark without an adopt.
    pub(crate) fn is_pending(&self, scenario: &Scenario, record: usize) -> bool {
        let session = scenario.session_of(record);
        (0..RUNS).any(|run| has(self.marks[run] & !self.adopts[run], session))
    }

    /// PUT of a pack. Names carry a digest of the content, so the same name has the same content.
    pub(crate) fn put_pack(&mut self, pack: usize, chunks: Chunks) {
        self.two_meanings |= self.contents[pack] != 0 && self.contents[pack] != chunks;
        self.contents[pack] = chunks;
        self.packs |= 1 << pack;
    }

    /// PUT of a segment.
    pub(crate) fn put_segment(&mut self, segment: usize, packs: Packs) {
        self.two_meanings |= self.rows[segment] != 0 && self.rows[segment] != packs;
        self.rows[segment] = packs;
        self.segments |= 1 << segment;
    }

    /// PUT of a record.
    pub(crate) fn put_record(&mut self, record: usize, chunks: Chunks, table: Packs) {
        self.two_meanings |=
            self.chunks[record] != 0 && (self.chunks[record], self.tables[record]) != (chunks, table);
        (self.chunks[record], self.tables[record]) = (chunks, table);
        self.records |= 1 << record;
    }

    /// DELETE of a pack.
    pub(crate) fn delete_pack(&mut self, pack: usize) {
        self.wrong_delete |= has(self.packs, pack) && !has(self.condemned(), pack);
        self.packs &= !(1 << pack);
    }
}
