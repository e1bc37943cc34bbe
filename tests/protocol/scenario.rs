//! Who is at work, and which rule of the protocol is broken on purpose.

use crate::store::{Chunks, SLOTS};

/// What a saver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Saves these chunks, which it has at hand.
    Save(Chunks),
    /// Copies the first revision: it has the record alone.
    Copy,
    /// Undoes the removal of the first revision: it has the record alone.
    Undo,
    /// Is a clone of the first saver's machine, made somewhere in mid-save; saves these chunks where they were not decided yet.
    Clone(Chunks),
}

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// W2 lists `idx/` before `gc/`.
    IndexFirst,
    /// W5 does not look for its own session.
    SessionNotLooked,
    /// Names carry no digest of the content.
    NoDigests,
    /// The record's id was drawn before the machine was cloned.
    SameRecordName,
    /// A mark without an adopt hides a revision.
    PendingHides,
    /// Removal is undone by taking the tombstone back.
    UndoInPlace,
    /// Somebody tidies `evict/`.
    EvictionsTidied,
    /// A segment counts whoever was evicted.
    AdoptsNotAsked,
    /// Readers find chunks through counting segments alone.
    ReadersAskAdopts,
    /// G0 condemns before it has copied.
    CondemnedBeforeCopied,
    /// G5 copies nothing: G0 has.
    CopyIsRescue,
    /// G2 and G3 come before G1.
    WaitBeforeCondemning,
    /// An evictor lists what is there before it puts the mark.
    ListBeforeMark,
    /// G4 lists records, then tombstones.
    RecordsBeforeTombstones,
    /// G4 leaves out the revisions alone that its own run refused.
    OnlyOwnRefusals,
    /// G5 works without a session.
    RescueWithoutSession,
    /// G5 does not look whether it was evicted.
    RescueUnchecked,
    /// G6 takes its list back before it drops the rows.
    ListBeforeRows,
    /// G6 rewrites segments that do not count.
    RefusedRewritten,
    /// G6 leaves segments that a mark hides, though all their packs go.
    PendingKept,
    /// G6 deletes the replaced segments without looking whether it was evicted.
    DroppedUnchecked,
    /// A list goes in the run that worked it off, where bytes and rows are gone.
    ListInSameRun,
    /// A list goes in a later run that does not look for segments that name its packs.
    ListUnchecked,
    /// A list goes in a later run that looks at counting segments alone.
    ListPendingIgnored,
    /// A list goes in a later run though its packs are there.
    ListBeforeBytes,
    /// A list goes in a run that began before it was put.
    ListWithoutWait,
    /// A removed revision's tombstone is deleted before its record.
    TombstoneFirst,
    /// A compaction deletes the old segments without looking whether it was evicted.
    MergedUnchecked,
    /// Merged segments keep the rows of condemned packs.
    MergedKeepsCondemned,
    /// Lists go though a request that its client gave up has not arrived yet.
    ListBeforeLate,
}

/// Who is at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// What is being done.
    pub(crate) savers: &'static [Job],
    /// Tries of each saver, each in a session of its own.
    pub(crate) tries: usize,
    /// Runs of each collector, one after the other: between any two there may be the grace.
    pub(crate) runs: &'static [usize],
    /// One or two, each in a pack of its own.
    pub(crate) chunks: u32,
    /// Collectors may copy packs before they condemn them (G0).
    pub(crate) copies: bool,
    /// Savers may merge segments after they acknowledged.
    pub(crate) merges: bool,
    /// People may remove revisions, and collectors delete the records of those.
    pub(crate) removes: bool,
    /// The first saver's PUT of a segment may be repeated by something on the way, arbitrarily late.
    pub(crate) late: bool,
    /// What is broken.
    pub(crate) broken: &'static [Break],
}

impl Scenario {
    /// One saver, one collector with one run, one chunk: all others are told apart from this.
    pub(crate) const SMALL: Self = Self {
        savers: &[Job::Save(0b1)],
        tries: 1,
        runs: &[1],
        chunks: 1,
        copies: false,
        merges: false,
        removes: true,
        late: false,
        broken: &[],
    };

    /// The same with rules broken.
    pub(crate) const fn breaking(self, broken: &'static [Break]) -> Self {
        Self { broken, ..self }
    }

    /// Whether this rule is broken.
    pub(crate) fn is(&self, rule: Break) -> bool {
        self.broken.contains(&rule)
    }

    /// All chunks.
    pub(crate) fn all_chunks(&self) -> Chunks {
        if self.chunks == 1 { 0b1 } else { 0b11 }
    }

    /// The slot of a saver's try.
    pub(crate) fn saver_slot(&self, saver: usize, tried: usize) -> usize {
        1 + saver * self.tries + tried
    }

    /// A run's number among the runs of all collectors.
    pub(crate) fn run_number(&self, collector: usize, run: usize) -> usize {
        self.runs[..collector].iter().sum::<usize>() + run
    }

    /// The slot of a run's copying (G0) or of its rescue (G5).
    pub(crate) fn collector_slot(&self, run_number: usize, is_rescue: bool) -> usize {
        let slot = 1 + self.savers.len() * self.tries + 2 * run_number + usize::from(is_rescue);
        assert!(slot < SLOTS, "too many actors for the model");
        slot
    }

    /// The session of a slot: a clone's first is the one of the saver that it is a clone of.
    pub(crate) fn session_of(&self, slot: usize) -> usize {
        match self.savers.get(1) {
            Some(Job::Clone(_)) if slot == self.saver_slot(1, 0) => self.saver_slot(0, 0),
            _ => slot,
        }
    }
}
