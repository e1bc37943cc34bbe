//! Plays: a seed decides who plays, whose operation is next, who pauses, who dies and what fails. The same seed is the same play.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::actors::{Actor, Trees, in_memory};
use super::book::{Book, Tally, Witness};
use super::turns::{Blind, Turns, World};
use crate::base::Rehearsal;
use crate::objects::{ObjectStore as _, Prefix, SimFaults, SimOperation};
use crate::store::gc::GcSpec;
use crate::store::revision::RevisionRef;
use crate::workspace::faults::collections::at_once;
use crate::workspace::faults::scene::{Scene, look, seeds};

/// A play that takes more steps goes round in circles.
const MOST_STEPS: u64 = 60_000;

/// What some do not see, to prove that a play would show what that leads to.
#[derive(Debug, Clone, Copy, Default)]
struct Eyes {
    writers: Option<Blind>,
    collectors: Option<Blind>,
}

#[derive(Debug)]
struct Played {
    log: Vec<SimOperation>,
    complaints: Vec<String>,
    tally: Tally,
}

/// Plays one seed on a runtime whose clock goes on only when everybody waits.
fn play(trees: &Arc<Trees>, seed: u64, eyes: Eyes) -> Played {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(perform(Arc::clone(trees), seed, eyes))
}

async fn perform(trees: Arc<Trees>, seed: u64, eyes: Eyes) -> Played {
    let rehearsal = Rehearsal::begin(seed);
    let mut luck = fastrand::Rng::with_seed(seed);
    let scene = Scene::within(in_memory(), seed);
    let (world, book) = (Arc::new(World::default()), Book::default());
    let is_faulty = luck.u8(..3) == 0;
    let has_deaths = luck.bool();
    let grace = Duration::from_millis([0, 0, 100, 1_000][luck.usize(..4)]);
    let mut actor = |number: usize, name: &str, blind| {
        let sim = scene.sim.actor(name);
        let turns = Turns { world: Arc::clone(&world), actor: number, sim: sim.clone(), blind };
        let objects: Arc<dyn crate::objects::ObjectStore> =
            if name == "before" { Arc::new(sim) } else { Arc::new(turns) };
        Actor {
            number,
            host: scene.host_on(name, objects),
            world: Arc::clone(&world),
            book: book.clone(),
            trees: Arc::clone(&trees),
            is_faulty,
            luck: luck.fork(),
        }
    };
    let mut before = actor(usize::MAX, "before", None);
    let cast = [
        actor(0, "writer", eyes.writers),
        actor(1, "other writer", eyes.writers),
        actor(2, "collector", eyes.collectors),
        actor(3, "other collector", eyes.collectors),
        actor(4, "reader", None),
    ];
    for _ in 0..luck.u8(2..=4) {
        before.save().await;
        rehearsal.pass(1);
    }
    for _ in 0..luck.u8(..=2) {
        before.remove().await;
    }
    if is_faulty {
        scene.sim.set_faults(SimFaults {
            fail_before: 8,
            fail_after: 8,
            late: 8,
            tear: 4,
            throttle: 8,
            ..SimFaults::default()
        });
    }
    let mut playing = Vec::new();
    for actor in cast {
        playing.push(match actor.number {
            0 | 1 => tokio::spawn(actor.write()),
            2 | 3 => tokio::spawn(actor.collect(grace)),
            _ => tokio::spawn(actor.read()),
        });
    }
    let mut witness = Witness::new(scene.stranger(), scene.sim.clone(), book.clone());
    let weights: Vec<u32> = playing.iter().map(|_| luck.u32(1..=4)).collect();
    let mut pauses: BTreeMap<usize, u64> = BTreeMap::new();
    let mut writes = 0;
    let mut step = 0;
    while !playing.iter().all(tokio::task::JoinHandle::is_finished) {
        // The clock goes on, and this returns, only when everybody else waits: for their turn, or for the clock.
        tokio::time::sleep(Duration::from_millis(1)).await;
        rehearsal.pass(1);
        step += 1;
        if scene.sim.writes() > writes {
            writes = scene.sim.writes();
            witness.look().await;
        }
        if !book.open().complaints.is_empty() {
            break;
        }
        if step > MOST_STEPS {
            book.complain("it does not end".to_owned());
            break;
        }
        pauses.retain(|_, until| *until > step);
        let chosen = luck.usize(..playing.len());
        if luck.u8(..50) == 0 {
            book.open().tally.pauses += 1;
            pauses.insert(chosen, step + luck.u64(20..800));
        } else if has_deaths && luck.u16(..400) == 0 && !world.is_dead(chosen) {
            book.open().tally.kills += 1;
            world.kill(chosen);
        }
        let mut asked = world.asked();
        asked.retain(|ask| !pauses.contains_key(&ask.actor));
        let total: u32 = asked.iter().map(|ask| weights[ask.actor]).sum();
        if total == 0 {
            continue;
        }
        let mut drawn = luck.u32(..total);
        let next = asked.iter().find(|ask| {
            let is_next = drawn < weights[ask.actor];
            drawn = drawn.saturating_sub(weights[ask.actor]);
            is_next
        });
        world.allow(next.unwrap(), luck.u32(..));
    }
    book.open().tally.steps += step;
    for task in playing {
        task.abort();
        if let Err(error) = task.await
            && error.is_panic()
        {
            book.complain(format!("{error:?}"));
        }
    }
    scene.sim.set_faults(SimFaults::default());
    scene.sim.land_late_writes();
    witness.look().await;
    // What comes after this runs without turns, so that the order of its reads is anybody's.
    let log = scene.sim.log();
    if book.open().complaints.is_empty() {
        aftermath(&scene, &trees, &book, &mut witness, &rehearsal).await;
    }
    let mut notes = book.open();
    Played { log, complaints: std::mem::take(&mut notes.complaints), tally: notes.tally }
}

/// What was left open is ended by further collections, which leave nothing that is not needed; and everything kept comes back.
async fn aftermath(scene: &Scene, trees: &Trees, book: &Book, witness: &mut Witness, rehearsal: &Rehearsal) {
    let host = scene.stranger();
    let spec = GcSpec { max_dead_percent: 0.0, ..at_once() };
    let refused = host.keys("evict").await.len();
    for _ in 0..4 {
        rehearsal.pass(10);
        match host.collect(&spec).await {
            Ok(report) if report.lost.is_empty() => {}
            ended => book.complain(format!("a last collection: {ended:?}")),
        }
        witness.look().await;
    }
    let left = host.plan(&spec).await.unwrap();
    if (left.dead_bytes, left.condemn.len(), left.lists.len(), left.open_sessions) != (0, 0, 0, 0) {
        book.complain(format!("collections leave {left:?}"));
    }
    for problem in host.check().await.problems {
        book.complain(format!("a check: {problem:?}"));
    }
    let kept: Vec<_> = book.open().kept.iter().map(|(id, kept)| (*id, kept.tree)).collect();
    let visible: Vec<RevisionRef> = host.revisions().await;
    for (id, tree) in kept {
        let Some(revision) = visible.iter().find(|revision| revision.id == id) else {
            book.complain(format!("{id} is invisible"));
            continue;
        };
        let target = scene.new_path();
        match host.restore(revision, &target).await {
            Ok(_) if look(&target) == *trees.look(tree) => {}
            ended => book.complain(format!("{id} in the end: {ended:?}")),
        }
    }
    let records = scene.sim.list(&Prefix::new("rev").unwrap()).await.unwrap().len();
    let mut notes = book.open();
    notes.tally.refused += refused as u64;
    if records != visible.len() {
        let said = format!("{records} records are left of {} revisions", visible.len());
        notes.complaints.push(said);
    }
}

/// Plays seeds, and tells the first that shows a mistake.
fn play_all(seeds: impl Iterator<Item = u64>) -> Tally {
    let trees = Arc::new(Trees::plant());
    let mut sum = Tally::default();
    for seed in seeds {
        let played = play(&trees, seed, Eyes::default());
        if !played.complaints.is_empty() {
            for operation in &played.log {
                eprintln!(
                    "{:16} {:?} {} {:?}",
                    operation.actor, operation.deed, operation.key, operation.fate
                );
            }
            panic!("seed {seed} (KILN_TEST_SEED={seed} plays it alone): {:#?}", played.complaints);
        }
        sum.add(&played.tally);
    }
    sum
}

/// Returns every fourth of the seeds that are played, or the one that is asked for.
#[expect(clippy::disallowed_methods, reason = "only tests look at this variable")]
fn quarter(number: u64) -> Vec<u64> {
    match std::env::var("KILN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => [seed].into_iter().filter(|seed| seed % 4 == number).collect(),
        None => seeds(2_000).filter(|seed| seed % 4 == number).collect(),
    }
}

fn play_quarter(number: u64) {
    let seeds = quarter(number);
    let count = seeds.len();
    let sum = play_all(seeds.into_iter());
    println!("{count} plays: {sum:?}");
    if count < 100 {
        return;
    }
    // A play in which nothing happens proves nothing.
    let Tally { saves, copies, removals, undone, restores, deleted_packs, moved_chunks, .. } = sum;
    let Tally { evictions, kills, pauses, failed_saves, rewritten_segments, collections, .. } = sum;
    for (what, times) in [
        ("saves", saves),
        ("copies", copies),
        ("removals", removals),
        ("undone", undone),
        ("restores", restores),
        ("collections", collections),
        ("deleted packs", deleted_packs),
        ("moved chunks", moved_chunks),
        ("rewritten segments", rewritten_segments),
        ("evictions", evictions),
        ("kills", kills),
        ("pauses", pauses),
        ("failed saves", failed_saves),
    ] {
        assert!(times >= 10, "{times} {what} in {count} plays");
    }
}

#[test]
fn nothing_is_lost_in_the_first_quarter_of_the_plays() {
    play_quarter(0);
}

#[test]
fn nothing_is_lost_in_the_second_quarter_of_the_plays() {
    play_quarter(1);
}

#[test]
fn nothing_is_lost_in_the_third_quarter_of_the_plays() {
    play_quarter(2);
}

#[test]
fn nothing_is_lost_in_the_last_quarter_of_the_plays() {
    play_quarter(3);
}

#[test]
fn the_same_seed_is_the_same_play() {
    let trees = Arc::new(Trees::plant());
    for seed in 1..=20 {
        let (first, again) = (play(&trees, seed, Eyes::default()), play(&trees, seed, Eyes::default()));
        for (at, (one, other)) in first.log.iter().zip(&again.log).enumerate() {
            let before = &first.log[at.saturating_sub(12)..at];
            assert_eq!(one, other, "seed {seed}, operation {at}, after {before:#?}");
        }
        assert_eq!((first.log.len(), first.tally), (again.log.len(), again.tally), "seed {seed}");
    }
}

/// Plays seeds until one shows that somebody does not follow a rule.
fn is_found_out(eyes: Eyes) {
    let trees = Arc::new(Trees::plant());
    let found = (1..=3_000).find(|seed| !play(&trees, *seed, eyes).complaints.is_empty());
    println!("{eyes:?} is found out by seed {found:?}");
    assert!(found.is_some(), "{eyes:?} is never found out");
}

#[test]
fn writers_that_rely_on_what_is_condemned_are_found_out() {
    is_found_out(Eyes { writers: Some(Blind::Condemnations), collectors: None });
}

#[test]
fn writers_that_do_not_see_that_they_were_evicted_are_found_out() {
    is_found_out(Eyes { writers: Some(Blind::Evictions), collectors: None });
}

#[test]
fn collectors_that_wait_for_nobody_are_found_out() {
    is_found_out(Eyes { writers: None, collectors: Some(Blind::Sessions) });
}

#[test]
fn collectors_that_see_no_revisions_are_found_out() {
    is_found_out(Eyes { writers: None, collectors: Some(Blind::Revisions) });
}
