//! Savers: W1 to W6, copies and undos, what they do after the acknowledgement, and clones of them.

use crate::scenario::{Break, Job, Scenario};
use crate::store::{Chunks, Packs, Segments, has};
use crate::view::{Listing, View};
use crate::world::{Step, Who, World};

/// Where a saver stands: what it does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum At {
    #[default]
    Open,
    View(Listing),
    Source,
    Read,
    Pack,
    Segment,
    Record,
    LookForSession,
    LookForMarks,
    TakeBack,
    Merge,
    LookForSessionAgain,
    LookForMarksAgain,
    DeleteMerged,
    Close {
        good: bool,
    },
    Done,
}

/// A saver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Saver {
    at: At,
    tried: usize,
    view: View,
    /// What the revision holds, and what of it has to be written.
    chunks: Chunks,
    missing: Chunks,
    /// Where it lies.
    table: Packs,
    /// What the merged segment replaces.
    old: Segments,
    /// A clone that was made.
    is_awake: bool,
}

impl Saver {
    /// The slot of the try that it is in.
    pub(crate) fn slot(&self, scenario: &Scenario, number: usize) -> usize {
        scenario.saver_slot(number, self.tried)
    }
}

/// Adds what a saver may do next.
pub(crate) fn steps(scenario: &Scenario, world: &World, number: usize, steps: &mut Vec<Step>) {
    let saver = &world.savers[number];
    let job = scenario.savers[number];
    if let (Job::Clone(chunks), false) = (job, saver.is_awake) {
        wake(scenario, world, number, chunks, steps);
        return;
    }
    let slot = saver.slot(scenario, number);
    let session = scenario.session_of(slot);
    let is_second = matches!(job, Job::Clone(_)) && saver.tried == 0;
    let named = if is_second && scenario.is(Break::NoDigests) { session } else { slot };
    let record = if is_second && scenario.is(Break::SameRecordName) { session } else { slot };
    let mut next = *world;
    let me = &mut next.savers[number];
    let store = &mut next.store;
    let what = match saver.at {
        At::Open => {
            if job == Job::Undo && !has(store.removed, 0) {
                return;
            }
            store.sessions |= 1 << slot;
            me.at = At::View(Listing::First);
            "PUT its session"
        }
        At::View(listing) => {
            let what = me.view.list(scenario, store, listing, 0);
            me.at = match listing {
                Listing::First => At::View(Listing::Second),
                Listing::Second => At::View(Listing::Third),
                Listing::Third => {
                    let wanted = match job {
                        Job::Save(chunks) | Job::Clone(chunks) => chunks,
                        Job::Copy | Job::Undo => scenario.all_chunks(),
                    };
                    me.chunks = wanted;
                    me.table = me.view.places(store, wanted);
                    me.missing = wanted & !store.chunks_in(me.view.reliable(store));
                    if !scenario.merges {
                        me.view = View::default();
                    }
                    match job {
                        Job::Copy | Job::Undo => At::Source,
                        Job::Save(_) | Job::Clone(_) if me.missing != 0 => At::Pack,
                        Job::Save(_) | Job::Clone(_) => At::Record,
                    }
                }
            };
            what
        }
        At::Source => {
            let is_there = has(store.records, 0) && (job == Job::Undo || !has(store.tombstones, 0));
            me.at = match (is_there, me.missing) {
                (false, _) => At::Close { good: true },
                (true, 0) => At::Record,
                (true, _) => At::Read,
            };
            "GET the record it copies"
        }
        At::Read => {
            let is_there = me.missing & !store.chunks_in(store.packs) == 0;
            me.at = if is_there { At::Pack } else { At::Close { good: true } };
            "GET chunks that it may not rely on"
        }
        At::Pack => {
            store.put_pack(named + 1, me.missing);
            me.table |= 1 << (named + 1);
            me.at = At::Segment;
            "PUT a pack"
        }
        At::Segment => {
            store.put_segment(2 * named, 1 << (named + 1));
            if scenario.late && number == 0 && saver.tried == 0 {
                store.late |= 1 << (2 * named);
            }
            me.missing = 0;
            me.at = At::Record;
            "PUT its segment"
        }
        At::Record => {
            store.put_record(record, me.chunks, me.table);
            me.at = At::LookForSession;
            "PUT the record"
        }
        At::LookForSession => {
            let is_there = has(store.sessions, session) || scenario.is(Break::SessionNotLooked);
            me.at = if is_there { At::LookForMarks } else { At::TakeBack };
            "GET its session"
        }
        At::LookForMarks if store.is_marked(session) => {
            me.at = At::TakeBack;
            "LIST its evictions: there are"
        }
        At::LookForMarks => {
            store.acknowledged |= 1 << record;
            me.at = if scenario.merges { At::Merge } else { At::Close { good: true } };
            (me.chunks, me.table) = (0, 0);
            "LIST its evictions: none, acknowledged"
        }
        At::TakeBack => {
            store.records &= !(1 << record);
            me.at = At::Close { good: false };
            "DELETE its record"
        }
        At::Merge => {
            // It may as well leave it.
            let mut left = next;
            left.savers[number].at = At::Close { good: true };
            left.savers[number].view = View::default();
            steps.push(Step::new(Who::Saver(number), "merges nothing", left));
            let (old, rows) = saver.view.merge(scenario, &world.store, None);
            if old == 0 || rows == 0 {
                return;
            }
            next.store.put_segment(2 * slot + 1, rows);
            let me = &mut next.savers[number];
            (me.old, me.view) = (old, View::default());
            let is_sure = scenario.is(Break::MergedUnchecked);
            me.at = if is_sure { At::DeleteMerged } else { At::LookForSessionAgain };
            "PUT a merged segment"
        }
        At::LookForSessionAgain => {
            me.at =
                if has(store.sessions, session) { At::LookForMarksAgain } else { At::Close { good: true } };
            "GET its session again"
        }
        At::LookForMarksAgain => {
            me.at = if store.is_marked(session) { At::Close { good: true } } else { At::DeleteMerged };
            "LIST its evictions again"
        }
        At::DeleteMerged => {
            store.segments &= !me.old;
            me.at = At::Close { good: true };
            "DELETE the merged segments"
        }
        At::Close { good } => {
            store.sessions &= !(1 << session);
            let tried = saver.tried + 1;
            *me = if good || tried == scenario.tries {
                Saver { at: At::Done, is_awake: saver.is_awake, ..Saver::default() }
            } else {
                Saver { tried, is_awake: saver.is_awake, ..Saver::default() }
            };
            "DELETE its session"
        }
        At::Done => return,
    };
    steps.push(Step::new(Who::Saver(number), what, next));
}

/// Clones the machine of the first saver, anywhere in its first try.
fn wake(scenario: &Scenario, world: &World, number: usize, chunks: Chunks, steps: &mut Vec<Step>) {
    let first = &world.savers[0];
    let may = match first.at {
        At::View(_) | At::Pack | At::Segment | At::Record | At::LookForSession | At::LookForMarks => true,
        At::Open
        | At::Source
        | At::Read
        | At::TakeBack
        | At::Merge
        | At::LookForSessionAgain
        | At::LookForMarksAgain
        | At::DeleteMerged
        | At::Close { .. }
        | At::Done => false,
    };
    // After its record was put, a clone holds the same id and the same bytes: it looks at the first one's record.
    let is_after = matches!(first.at, At::LookForSession | At::LookForMarks);
    if !may || first.tried != 0 || is_after && !scenario.is(Break::SameRecordName) {
        return;
    }
    let mut next = *world;
    next.savers[number] = Saver { is_awake: true, ..*first };
    if first.at == At::Pack {
        // Files go on changing after the clone was made.
        next.savers[number].missing = chunks & first.missing;
        next.savers[number].chunks = chunks & first.chunks;
    }
    steps.push(Step::new(Who::Saver(number), "is cloned", next));
}
