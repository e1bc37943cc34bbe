//! Collectors: G0 to G6, run after run.

use crate::scenario::{Break, Scenario};
use crate::store::{ALL_RUNS, Chunks, Packs, Runs, Segments, Slots, Store, each, has};
use crate::view::{Listing, View};
use crate::world::{Step, Who, World};

/// Where a collector stands: what it does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum At {
    #[default]
    Choose,
    CopySession,
    CopyPack,
    CopySegment,
    CopyClose,
    Condemn,
    Grace,
    Sessions,
    Wait,
    Found,
    Adopt,
    End,
    Tombstones,
    Records,
    Refused,
    RescueSession,
    View(Listing),
    Read,
    RescuePack,
    RescueSegment,
    LookForSession,
    LookForMarks,
    Packs,
    Merge,
    LookForMarksAgain,
    DeleteReplaced,
    DeleteRemoved,
    DeleteRest,
    DeleteRefused,
    Close,
    Tidy,
    DeleteLists,
    Done,
}

/// A collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Collector {
    at: At,
    run: usize,
    /// The packs that it is about to condemn, and then those that it is about to delete.
    mine: Packs,
    /// The lists it saw, and those of them that it works off.
    seen: Runs,
    taken: Runs,
    /// The wait-set, and whom it is evicting.
    waits: Slots,
    evicted: usize,
    found_records: Slots,
    found_segments: Segments,
    /// What G4 saw.
    tombstones: Slots,
    records: Slots,
    /// What has to be readable elsewhere, and what of it is not.
    live: Chunks,
    missing: Chunks,
    view: View,
    old: Segments,
}

impl Collector {
    /// How many runs it has ended or is in.
    pub(crate) fn run(&self) -> usize {
        self.run
    }

    /// Whether it is between runs.
    pub(crate) fn rests(&self) -> bool {
        matches!(self.at, At::Choose | At::Done)
    }

    /// Whether a crash now differs from an end, or from a crash before.
    fn is_at_work(&self) -> bool {
        !matches!(
            self.at,
            At::Choose
                | At::CopySession
                | At::Condemn
                | At::Grace
                | At::Sessions
                | At::Tidy
                | At::DeleteLists
                | At::Done
        )
    }

    /// The run is over: what it remembered goes.
    fn end(&mut self, runs: usize) {
        let run = self.run + 1;
        *self = Self { run, at: if run == runs { At::Done } else { At::Choose }, ..Self::default() };
    }
}

/// Hands out the subsets of a set.
fn subsets(of: u16) -> impl Iterator<Item = u16> {
    let mut next = Some(0_u16);
    std::iter::from_fn(move || {
        let subset = next?;
        // Counts up within the bits of the set.
        next = (subset != of).then(|| (subset | !of).wrapping_add(1) & of);
        Some(subset)
    })
}

/// Adds what a collector may do next.
pub(crate) fn steps(scenario: &Scenario, world: &World, number: usize, steps: &mut Vec<Step>) {
    let collector = &world.collectors[number];
    let who = Who::Collector(number);
    if collector.at == At::Done {
        return;
    }
    let run = scenario.run_number(number, collector.run);
    let runs = scenario.runs[number];
    if collector.run + 1 < runs && collector.is_at_work() {
        let mut crashed = *world;
        crashed.collectors[number].end(runs);
        steps.push(Step::new(who, "crashes, a new one begins", crashed));
    }
    match collector.at {
        At::Choose => choose(scenario, world, number, steps),
        At::Grace => {
            // The bytes are deleted by a later run, or by this one.
            let mut later = *world;
            later.collectors[number].end(runs);
            if collector.run + 1 < runs {
                steps.push(Step::new(who, "leaves it to a later run", later));
            }
            take(world, number, steps);
        }
        At::Wait if collector.waits & world.store.sessions != collector.waits => {
            let mut next = *world;
            next.collectors[number].waits &= world.store.sessions;
            steps.push(Step::new(who, "sees that a session is gone", next));
        }
        At::Wait if collector.waits != 0 => {
            for session in each(collector.waits) {
                let mut next = *world;
                let me = &mut next.collectors[number];
                me.evicted = session;
                if scenario.is(Break::ListBeforeMark) {
                    (me.found_records, me.found_segments) = found(scenario, &world.store, session);
                    me.at = At::Found;
                    steps.push(Step::on(
                        who,
                        "LIST what is there, before the mark, of session",
                        session,
                        next,
                    ));
                } else {
                    me.at = At::Found;
                    next.store.marks[run] |= 1 << session;
                    steps.push(Step::on(who, "PUT a mark for session", session, next));
                }
            }
        }
        _ => {
            let mut next = *world;
            if let Some(what) = act(scenario, &mut next, number, run) {
                steps.push(Step::new(who, what, next));
            }
        }
    }
}

/// Everything that leaves no choice.
fn act(scenario: &Scenario, next: &mut World, number: usize, run: usize) -> Option<&'static str> {
    let World { store, collectors, .. } = next;
    let me = &mut collectors[number];
    let runs = scenario.runs[number];
    let copying = scenario.collector_slot(run, false);
    let own = scenario.collector_slot(run, true);
    Some(match me.at {
        At::Choose | At::Grace | At::Done => return None,
        At::CopySession => {
            store.sessions |= 1 << copying;
            me.at = At::CopyPack;
            "PUT a session to copy in"
        }
        At::CopyPack => {
            let chunks = store.chunks_in(me.mine & store.packs);
            if chunks == 0 {
                me.at = At::CopyClose;
                "finds nothing to copy"
            } else {
                store.put_pack(copying + 1, chunks);
                me.at = At::CopySegment;
                "PUT a copy of packs"
            }
        }
        At::CopySegment => {
            store.put_segment(2 * copying, 1 << (copying + 1));
            me.at = At::CopyClose;
            "PUT the copy's segment"
        }
        At::CopyClose => {
            store.sessions &= !(1 << copying);
            me.at = if scenario.is(Break::CondemnedBeforeCopied) { At::Grace } else { At::Condemn };
            "DELETE the copying session"
        }
        At::Condemn => {
            store.condemns[run] = me.mine;
            store.lists |= 1 << run;
            me.at = At::Grace;
            if scenario.is(Break::CondemnedBeforeCopied) {
                me.at = At::CopySession;
            }
            if scenario.is(Break::WaitBeforeCondemning) {
                (me.seen, me.taken) = (1 << run, 1 << run);
                me.at = At::Tombstones;
            } else if me.at == At::Grace {
                me.mine = 0;
            }
            "PUT its list"
        }
        At::Sessions => {
            me.waits = store.sessions;
            me.at = At::Wait;
            "LIST sess/"
        }
        At::Wait => {
            // The wait-set is empty here.
            me.at = match me.mine {
                _ if scenario.is(Break::WaitBeforeCondemning) && me.taken == 0 => At::Condemn,
                0 => At::Tidy,
                _ => At::Tombstones,
            };
            "has waited for all"
        }
        At::Found => {
            if scenario.is(Break::ListBeforeMark) {
                store.marks[run] |= 1 << me.evicted;
                me.at = At::Adopt;
                "PUT a mark"
            } else {
                (me.found_records, me.found_segments) = found(scenario, store, me.evicted);
                me.at = At::Adopt;
                "LIST what is there of that session"
            }
        }
        At::Adopt => {
            store.adopts[run] |= 1 << me.evicted;
            store.adopted_records[run] |= me.found_records;
            store.adopted_segments[run] |= me.found_segments;
            (me.found_records, me.found_segments) = (0, 0);
            me.at = At::End;
            "PUT its adopt"
        }
        At::End => {
            store.sessions &= !(1 << me.evicted);
            me.waits &= !(1 << me.evicted);
            me.evicted = 0;
            me.at = At::Wait;
            "DELETE the evicted session"
        }
        At::Tombstones if scenario.is(Break::RecordsBeforeTombstones) && me.records == 0 => {
            me.records = store.records;
            "LIST rev/"
        }
        At::Tombstones => {
            me.tombstones = store.tombstones;
            me.at = if me.records == 0 { At::Records } else { At::Refused };
            "LIST removed/"
        }
        At::Records => {
            me.records = store.records;
            me.at = At::Refused;
            "LIST rev/"
        }
        At::Refused => {
            let by = if scenario.is(Break::OnlyOwnRefusals) { 1 << run } else { ALL_RUNS };
            // A record that went since it was listed was taken back or collected.
            let roots = me.records & !me.tombstones & !store.refused_records(scenario, by);
            me.live = each(roots).fold(0, |live, record| live | store.chunks[record]);
            me.records = roots;
            me.at = At::RescueSession;
            "LIST evict/, marks"
        }
        At::RescueSession => {
            if !scenario.is(Break::RescueWithoutSession) {
                store.sessions |= 1 << own;
            }
            me.at = At::View(Listing::First);
            "PUT its session"
        }
        At::View(listing) => {
            let what = me.view.list(scenario, store, listing, me.mine);
            me.at = match listing {
                Listing::First => At::View(Listing::Second),
                Listing::Second => At::View(Listing::Third),
                Listing::Third => {
                    me.missing = me.live & !store.chunks_in(me.view.reliable(store));
                    match me.missing {
                        0 => At::LookForSession,
                        _ if scenario.is(Break::CopyIsRescue) => At::LookForSession,
                        _ => At::Read,
                    }
                }
            };
            what
        }
        At::Read => {
            if me.missing & !store.chunks_in(store.packs) == 0 {
                me.at = At::RescuePack;
                "GET what must be rescued"
            } else {
                // Whoever it was a root for may be gone since: only what still stands is worth an alarm.
                let by = if scenario.is(Break::OnlyOwnRefusals) { 1 << run } else { ALL_RUNS };
                let stands = store.records & !store.tombstones & !store.refused_records(scenario, by);
                store.false_alarm |= each(me.records & stands)
                    .any(|record| store.chunks[record] & me.missing & !store.chunks_in(store.packs) != 0);
                (me.view, me.live, me.missing, me.records) = (View::default(), 0, 0, 0);
                me.at = At::Tombstones;
                "GET what must be rescued: gone, looks again"
            }
        }
        At::RescuePack => {
            store.put_pack(own + 1, me.missing);
            me.at = At::RescueSegment;
            "PUT a rescue pack"
        }
        At::RescueSegment => {
            store.put_segment(2 * own, 1 << (own + 1));
            me.at = At::LookForSession;
            "PUT the rescue segment"
        }
        At::LookForSession => {
            (me.live, me.missing, me.records) = (0, 0, 0);
            if scenario.is(Break::RescueWithoutSession) || scenario.is(Break::RescueUnchecked) {
                me.at = At::Packs;
                "goes on unlooked"
            } else if has(store.sessions, own) {
                me.at = At::LookForMarks;
                "GET its session"
            } else {
                me.end(runs);
                "GET its session: gone, stops"
            }
        }
        At::LookForMarks if store.is_marked(own) => {
            me.end(runs);
            "LIST its evictions: there are, stops"
        }
        At::LookForMarks => {
            me.at = At::Packs;
            "LIST its evictions: none"
        }
        At::Packs => match each(me.mine & store.packs).next() {
            Some(pack) => {
                store.delete_pack(pack);
                "DELETE a condemned pack"
            }
            None => {
                if scenario.is(Break::ListBeforeRows) {
                    store.lists &= !me.taken;
                }
                me.at = At::Merge;
                "has deleted the packs"
            }
        },
        At::Merge => {
            let (old, rows) = me.view.merge(scenario, store, Some(me.mine));
            me.old = old | me.view.idle();
            me.view = View::default();
            me.at = match (old, rows) {
                (0, _) if me.old == 0 => At::DeleteRemoved,
                (_, 0) => At::DeleteReplaced,
                _ if scenario.is(Break::DroppedUnchecked) => At::DeleteReplaced,
                _ => At::LookForMarksAgain,
            };
            if rows == 0 {
                "has no rows to keep"
            } else {
                store.put_segment(2 * own + 1, rows);
                "PUT a segment without their rows"
            }
        }
        At::LookForMarksAgain if store.is_marked(own) || !has(store.sessions, own) => {
            me.end(runs);
            "LIST its evictions again: there are, stops"
        }
        At::LookForMarksAgain => {
            me.at = At::DeleteReplaced;
            "LIST its evictions again: none"
        }
        At::DeleteReplaced => {
            store.segments &= !me.old;
            me.old = 0;
            me.at = At::DeleteRemoved;
            "DELETE the replaced segments"
        }
        At::DeleteRemoved => {
            if scenario.is(Break::TombstoneFirst) {
                store.tombstones &= !me.tombstones;
            } else {
                store.records &= !me.tombstones;
            }
            me.at = At::DeleteRest;
            "DELETE the records of removed revisions"
        }
        At::DeleteRest => {
            if scenario.is(Break::TombstoneFirst) {
                store.records &= !me.tombstones;
            } else {
                store.tombstones &= !me.tombstones;
            }
            me.tombstones = 0;
            me.at = At::DeleteRefused;
            "DELETE their tombstones"
        }
        At::DeleteRefused => {
            store.records &= !store.refused_records(scenario, ALL_RUNS);
            me.at = At::Close;
            "DELETE the records of refused revisions"
        }
        At::Close => {
            store.sessions &= !(1 << own);
            me.at = At::Tidy;
            "DELETE its session"
        }
        At::Tidy => {
            let mut done = if scenario.is(Break::ListInSameRun) {
                me.seen
            } else if scenario.is(Break::ListWithoutWait) {
                store.lists
            } else {
                me.seen & !me.taken
            };
            let names = if scenario.is(Break::ListUnchecked) {
                0
            } else if scenario.is(Break::ListPendingIgnored) {
                store.rows_of(store.counting(scenario, store.segments))
            } else {
                store.rows_of(store.segments & !store.refused_segments(scenario, store.segments))
            };
            for list in each(done) {
                let packs = store.condemns[list];
                let bytes = if scenario.is(Break::ListBeforeBytes) { 0 } else { store.packs };
                if packs & (bytes | names) != 0 || store.late != 0 && !scenario.is(Break::ListBeforeLate) {
                    done &= !(1 << list);
                }
            }
            me.seen = done & store.lists;
            me.at = At::DeleteLists;
            if me.seen == 0 {
                me.end(runs);
            }
            "LIST idx/, packs/ for lists that are worked off"
        }
        At::DeleteLists => {
            store.lists &= !me.seen;
            me.end(runs);
            "DELETE lists"
        }
    })
}

/// What an evictor finds of a session.
fn found(scenario: &Scenario, store: &Store, session: usize) -> (Slots, Segments) {
    let of = |slot: usize| scenario.session_of(slot) == session;
    let records = each(store.records).filter(|record| of(*record)).fold(0, |set, record| set | 1 << record);
    let segments =
        each(store.segments).filter(|segment| of(segment / 2)).fold(0, |set, segment| set | 1 << segment);
    (records, segments)
}

/// The begin of a run: what is condemned, copied before or not, or nothing.
fn choose(scenario: &Scenario, world: &World, number: usize, steps: &mut Vec<Step>) {
    let who = Who::Collector(number);
    for chosen in subsets(world.store.packs & !world.store.condemned()).filter(|chosen| *chosen != 0) {
        let mut next = *world;
        next.collectors[number].mine = chosen;
        if scenario.is(Break::WaitBeforeCondemning) {
            next.collectors[number].at = At::Sessions;
            steps.push(Step::on(who, "chooses packs", usize::from(chosen), next));
            continue;
        }
        next.collectors[number].at = At::Condemn;
        steps.push(Step::on(who, "chooses packs", usize::from(chosen), next));
        if scenario.copies && !scenario.is(Break::CondemnedBeforeCopied) {
            next.collectors[number].at = At::CopySession;
            steps.push(Step::on(who, "chooses packs to copy", usize::from(chosen), next));
        }
    }
    take(world, number, steps);
}

/// G2 begins: which of the lists are worked off; with none the run only looks for lists that may go.
fn take(world: &World, number: usize, steps: &mut Vec<Step>) {
    let lists = world.store.lists;
    if lists == 0 {
        return;
    }
    for taken in subsets(u16::from(lists)) {
        let mut next = *world;
        let me = &mut next.collectors[number];
        let taken = lists & taken.to_le_bytes()[0];
        (me.seen, me.taken, me.mine) = (lists, taken, world.store.condemned_by(taken));
        me.at = At::Sessions;
        steps.push(Step::on(Who::Collector(number), "LIST gc/, works off lists", usize::from(taken), next));
    }
}
