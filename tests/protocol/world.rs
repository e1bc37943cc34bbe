//! The model: what may happen next, and what must hold whatever happens.

use std::fmt;

use stateright::{Model, Property};

use crate::collector::{self, Collector};
use crate::saver::{self, Saver};
use crate::scenario::{Break, Job, Scenario};
use crate::store::{ALL_RUNS, RUNS, Store, each, has};

/// The store, everybody at work, and nothing else: who crashes just never moves again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) savers: [Saver; 2],
    pub(crate) collectors: [Collector; 2],
}

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Saver(usize),
    Collector(usize),
    Somebody,
}

/// One request to the store, or one decision.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Step {
    who: Who,
    what: &'static str,
    on: Option<usize>,
    next: World,
}

impl Step {
    pub(crate) fn new(who: Who, what: &'static str, next: World) -> Self {
        Self { who, what, on: None, next }
    }

    pub(crate) fn on(who: Who, what: &'static str, on: usize, next: World) -> Self {
        Self { who, what, on: Some(on), next }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Saver(number) => write!(f, "saver {number}")?,
            Who::Collector(number) => write!(f, "collector {number}")?,
            Who::Somebody => write!(f, "somebody")?,
        }
        write!(f, ": {}", self.what)?;
        self.on.map_or(Ok(()), |on| write!(f, " {on:#b}"))
    }
}

impl World {
    /// The store before anybody came: each chunk in a pack of its own, all in one segment, and one acknowledged revision. Its table
    /// is no help any more: an earlier collector has moved everything, so that readers depend on the index.
    fn first(scenario: &Scenario) -> Self {
        let mut world = Self::default();
        let store = &mut world.store;
        for chunk in 0..scenario.chunks as usize {
            store.put_pack(chunk, 1 << chunk);
        }
        store.put_segment(0, store.packs);
        store.put_record(0, scenario.all_chunks(), 0);
        store.acknowledged = 1;
        world
    }

    /// The revisions that somebody relies on.
    fn relied_on(&self) -> impl Iterator<Item = usize> {
        each(self.store.acknowledged & !self.store.removed)
    }

    /// I1: each is there, and each of its chunks in a pack that is there.
    fn nothing_is_lost(&self) -> bool {
        let stored = self.store.chunks_in(self.store.packs);
        self.relied_on()
            .all(|record| has(self.store.records, record) && self.store.chunks[record] & !stored == 0)
    }

    /// I1b: each is shown to readers.
    fn nothing_is_hidden(&self, scenario: &Scenario) -> bool {
        let refused = self.store.refused_records(scenario, ALL_RUNS);
        let hidden = |record| scenario.is(Break::PendingHides) && self.store.is_pending(scenario, record);
        self.relied_on().all(|record| !has(self.store.tombstones | refused, record) && !hidden(record))
    }

    /// I1c: readers find each chunk, by the record's table or by the index.
    fn everything_is_found(&self, scenario: &Scenario) -> bool {
        let store = &self.store;
        let read = if scenario.is(Break::ReadersAskAdopts) {
            store.counting(scenario, store.segments)
        } else {
            store.segments & !store.refused_segments(scenario, store.segments)
        };
        let indexed = store.rows_of(read);
        self.relied_on().all(|record| {
            let found = store.chunks_in(store.packs & (indexed | store.tables[record]));
            store.chunks[record] & !found == 0
        })
    }

    /// I2: a pack that was ever condemned still is, or its bytes and its rows are gone for good.
    fn condemned_stays_condemned(&self, scenario: &Scenario) -> bool {
        let store = &self.store;
        let free = store.condemned_by(ALL_RUNS) & !store.condemned();
        free & store.packs == 0
            && free & store.rows_of(store.segments & !store.refused_segments(scenario, store.segments)) == 0
    }

    /// What was removed does not come back by itself.
    fn removed_stays_removed(&self) -> bool {
        let store = &self.store;
        store.removed & store.records & !store.tombstones == 0
    }

    fn somebody(&self, scenario: &Scenario, steps: &mut Vec<Step>) {
        let store = &self.store;
        if scenario.removes {
            for record in each(store.acknowledged & !store.removed & store.records) {
                let mut next = *self;
                next.store.removed |= 1 << record;
                next.store.tombstones |= 1 << record;
                steps.push(Step::on(Who::Somebody, "removes revision", record, next));
            }
        }
        if scenario.is(Break::UndoInPlace) {
            for record in each(store.tombstones & store.records) {
                let mut next = *self;
                next.store.removed &= !(1 << record);
                next.store.tombstones &= !(1 << record);
                steps.push(Step::on(Who::Somebody, "takes back the tombstone of", record, next));
            }
        }
        let rests = self.collectors[..scenario.runs.len()].iter().all(Collector::rests);
        if scenario.is(Break::EvictionsTidied) && rests && store.marks != [0; RUNS] {
            let mut next = *self;
            (next.store.marks, next.store.adopts) = ([0; RUNS], [0; RUNS]);
            (next.store.adopted_records, next.store.adopted_segments) = ([0; RUNS], [0; RUNS]);
            steps.push(Step::new(Who::Somebody, "tidies evict/", next));
        }
        for segment in each(store.late) {
            let mut next = *self;
            next.store.late &= !(1 << segment);
            next.store.segments |= 1 << segment;
            steps.push(Step::on(Who::Somebody, "delivers once more segment", segment, next));
        }
    }
}

/// A scenario as `stateright` explores it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol(pub(crate) Scenario);

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::first(&self.0)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.somebody(&self.0, steps);
        for number in 0..self.0.savers.len() {
            saver::steps(&self.0, world, number, steps);
        }
        for number in 0..self.0.runs.len() {
            collector::steps(&self.0, world, number, steps);
        }
    }

    fn next_state(&self, _before: &World, step: Step) -> Option<World> {
        Some(step.next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let scenario = &self.0;
        let mut properties = vec![
            Property::<Self>::always("I1 nothing is lost", |_, world| world.nothing_is_lost()),
            Property::<Self>::always("I1b nothing is hidden", |model, world| {
                world.nothing_is_hidden(&model.0)
            }),
            Property::<Self>::always("I1c everything is found", |model, world| {
                world.everything_is_found(&model.0)
            }),
            Property::<Self>::always("I2 condemned stays condemned", |model, world| {
                world.condemned_stays_condemned(&model.0)
            }),
            Property::<Self>::always("I3 only the condemned is deleted", |_, world| {
                !world.store.wrong_delete
            }),
            Property::<Self>::always("I4 no key has two meanings", |_, world| !world.store.two_meanings),
            Property::<Self>::always("I5 removed stays removed", |_, world| world.removed_stays_removed()),
            Property::<Self>::always("I6 no false alarm", |_, world| !world.store.false_alarm),
            Property::<Self>::sometimes("a pack is deleted", |_, world| world.store.packs & 1 == 0),
            Property::<Self>::sometimes("an eviction completes", |_, world| {
                world.store.adopts.iter().any(|adopted| *adopted != 0)
            }),
        ];
        properties.extend(sometimes(scenario));
        properties
    }
}

/// What has to happen in some run of a scenario, so that what it proves is not empty.
fn sometimes(scenario: &Scenario) -> Vec<Property<Protocol>> {
    let mut properties = Vec::new();
    if !scenario.savers.is_empty() {
        properties.push(Property::<Protocol>::sometimes("a save is acknowledged", |_, world| {
            world.store.acknowledged != 1
        }));
    }
    if scenario.tries > 1 && !scenario.savers.is_empty() {
        properties.push(Property::<Protocol>::sometimes(
            "an evicted saver is acknowledged later",
            |model, world| has(world.store.acknowledged, model.0.saver_slot(0, 1)),
        ));
    }
    if scenario.savers.contains(&Job::Undo) {
        properties.push(Property::<Protocol>::sometimes(
            "an undo succeeds after its pack was deleted",
            |model, world| {
                has(world.store.removed, 0)
                    && world.store.packs & 1 == 0
                    && has(world.store.acknowledged, model.0.saver_slot(0, 0))
            },
        ));
    }
    if scenario.runs.iter().sum::<usize>() > 1 {
        properties.push(Property::<Protocol>::sometimes("a list goes", |_, world| {
            world.collectors.iter().any(|collector| collector.run() > 0)
                && world
                    .store
                    .condemns
                    .iter()
                    .enumerate()
                    .any(|(run, packs)| *packs != 0 && !has(world.store.lists, run))
        }));
    }
    if scenario.merges {
        properties.push(Property::<Protocol>::sometimes(
            "segments are merged and deleted",
            |model, world| {
                let slot = model.0.saver_slot(0, 0);
                has(world.store.segments, 2 * slot + 1) && world.store.segments & 1 == 0
            },
        ));
    }
    if scenario.removes {
        properties.push(Property::<Protocol>::sometimes("a removed revision is collected", |_, world| {
            has(world.store.removed, 0) && !has(world.store.records, 0) && !has(world.store.tombstones, 0)
        }));
    }
    if matches!(scenario.savers, [Job::Save(_), Job::Clone(_)]) {
        properties.push(Property::<Protocol>::sometimes(
            "a saver and its clone are both acknowledged",
            |model, world| {
                (0..model.0.tries).any(|tried| has(world.store.acknowledged, model.0.saver_slot(1, tried)))
                    && has(world.store.acknowledged, model.0.saver_slot(0, 0))
            },
        ));
    }
    properties
}
