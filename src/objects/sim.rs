//! A store in memory whose luck is planned: for tests of everything that is built on [`ObjectStore`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, ServerProblem};

/// When a planned fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimWhen {
    /// Before the operation was applied.
    Before,
    /// After it was applied: the caller hears of a failure and the effect is there.
    After,
}

/// How often each kind of bad luck strikes, in operations of a thousand. All zero is a store that never fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimFaults {
    /// An error, and nothing was applied.
    pub fail_before: u16,
    /// An error from a write, although it was applied.
    pub fail_after: u16,
    /// An error from a write that is applied all the same, some operations of others later.
    pub late: u16,
    /// An error from a put whose bytes were cut off on the way: nothing of them is seen.
    pub tear: u16,
    /// An error that asks for fewer requests; nothing was applied.
    pub throttle: u16,
    /// No error, but other tasks get their turns before it is applied.
    pub delay: u16,
    /// A listing in two parts with turns of other tasks in between, so that it shows some of what happens meanwhile.
    pub split_list: u16,
}

/// What was asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SimDeed {
    /// [`ObjectStore::put`].
    Put,
    /// [`ObjectStore::put_file`].
    PutFile,
    /// [`ObjectStore::get`].
    Get,
    /// [`ObjectStore::range`].
    Range,
    /// [`ObjectStore::list`].
    List,
    /// [`ObjectStore::delete`], one for each key.
    Delete,
}

impl SimDeed {
    fn writes(self) -> bool {
        matches!(self, Self::Put | Self::PutFile | Self::Delete)
    }

    fn action(self) -> &'static str {
        match self {
            Self::Put | Self::PutFile => "write",
            Self::Get | Self::Range => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SimFate {
    /// It was applied, and the caller knows.
    Applied,
    /// It was not applied.
    FailedBefore,
    /// It was applied, and the caller was told of a failure.
    FailedAfter,
    /// The caller was told of a failure, and it is applied later.
    Late,
    /// It was cut off on the way.
    Torn,
    /// It was refused for now.
    Throttled,
    /// The process is dead.
    Crashed,
}

/// One operation, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimOperation {
    /// Who asked.
    pub actor: String,
    /// What was asked.
    pub deed: SimDeed,
    /// The key or prefix.
    pub key: String,
    /// What became of it.
    pub fate: SimFate,
}

/// A store in memory, **for tests**, whose faults are decided by a plan and a seed.
///
/// Clones and [`SimStore::actor`]s are handles on the same objects. With the same seed, plan and order of calls everything
/// happens again in the same way; on a current-thread runtime the order of calls is itself repeatable.
#[derive(Debug, Clone)]
pub struct SimStore {
    shared: Arc<Shared>,
    actor: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    resumed: Notify,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<Key, Bytes>,
    random: fastrand::Rng,
    faults: SimFaults,
    planned: BTreeMap<u64, SimWhen>,
    crash: Option<(u64, SimWhen)>,
    crashed: BTreeSet<String>,
    stalled: BTreeSet<String>,
    /// Operations of an actor left before it stalls by itself.
    stall_after: BTreeMap<String, u64>,
    late: Vec<(u64, Effect)>,
    writes: u64,
    log: Vec<SimOperation>,
}

#[derive(Debug, Clone)]
enum Effect {
    Put(Key, Bytes),
    Delete(Key),
}

impl State {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Put(key, bytes) => {
                self.objects.insert(key, bytes);
            }
            Effect::Delete(key) => {
                self.objects.remove(&key);
            }
        }
    }

    /// Applies late effects whose time has come: it is counted in operations.
    fn apply_late(&mut self) {
        let now = self.log.len() as u64;
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        let due: Vec<(u64, Effect)> = due;
        for (_, effect) in due {
            self.apply(effect);
        }
    }

    fn strikes(&mut self, per_thousand: u16) -> bool {
        // No number is drawn for what cannot happen, so that switching one fault on does not change the others' luck.
        per_thousand > 0 && self.random.u16(0..1000) < per_thousand
    }

    /// Decides what becomes of an operation.
    fn fate(&mut self, actor: &str, deed: SimDeed) -> SimFate {
        if self.crashed.contains(actor) {
            return SimFate::Crashed;
        }
        if deed.writes() {
            self.writes += 1;
            if let Some((_, when)) = self.crash.filter(|(n, _)| *n == self.writes) {
                self.crashed.insert(actor.to_owned());
                return if when == SimWhen::Before { SimFate::Crashed } else { SimFate::FailedAfter };
            }
            match self.planned.remove(&self.writes) {
                Some(SimWhen::Before) => return SimFate::FailedBefore,
                Some(SimWhen::After) => return SimFate::FailedAfter,
                None => {}
            }
        }
        let faults = self.faults;
        if self.strikes(faults.fail_before) {
            return SimFate::FailedBefore;
        }
        if self.strikes(faults.throttle) {
            return SimFate::Throttled;
        }
        if deed.writes() && self.strikes(faults.fail_after) {
            return SimFate::FailedAfter;
        }
        if deed.writes() && self.strikes(faults.late) {
            return SimFate::Late;
        }
        if deed.writes() && deed != SimDeed::Delete && self.strikes(faults.tear) {
            return SimFate::Torn;
        }
        SimFate::Applied
    }
}

impl SimStore {
    /// Makes an empty store that never fails.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_contents(seed, BTreeMap::new())
    }

    /// Makes a store that holds `contents` and never fails.
    #[must_use]
    pub fn from_contents(seed: u64, contents: BTreeMap<Key, Bytes>) -> Self {
        let state = State {
            objects: contents,
            random: fastrand::Rng::with_seed(seed),
            faults: SimFaults::default(),
            planned: BTreeMap::new(),
            crash: None,
            crashed: BTreeSet::new(),
            stalled: BTreeSet::new(),
            stall_after: BTreeMap::new(),
            late: Vec::new(),
            writes: 0,
            log: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared { state: Mutex::new(state), resumed: Notify::new() }),
            actor: "main".into(),
        }
    }

    /// Returns a handle on the same objects under another name, which can be stalled and crashed by itself.
    #[must_use]
    pub fn actor(&self, name: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), actor: name.into() }
    }

    /// Sets how often what strikes.
    pub fn set_faults(&self, faults: SimFaults) {
        self.state().faults = faults;
    }

    /// Makes the `n`-th write from now on fail (1 is the next one). A put, a put of a file and each key deleted are one write.
    pub fn fail_write(&self, n: u64, when: SimWhen) {
        let mut state = self.state();
        let at = state.writes + n;
        state.planned.insert(at, when);
    }

    /// Makes the actor that comes to the `n`-th write from now on die there: this write and whatever it asks afterwards fail.
    pub fn crash_at_write(&self, n: u64, when: SimWhen) {
        let mut state = self.state();
        state.crash = Some((state.writes + n, when));
    }

    /// Lets no operation of `actor` begin until [`SimStore::resume`].
    pub fn stall(&self, actor: &str) {
        self.state().stalled.insert(actor.to_owned());
    }

    /// Stalls `actor` once it has begun `operations` more operations.
    pub fn stall_after(&self, actor: &str, operations: u64) {
        self.state().stall_after.insert(actor.to_owned(), operations);
    }

    /// Lets `actor` go on.
    pub fn resume(&self, actor: &str) {
        let mut state = self.state();
        state.stalled.remove(actor);
        state.stall_after.remove(actor);
        drop(state);
        self.shared.resumed.notify_waiters();
    }

    /// Tells whether `actor` is stalled now.
    #[must_use]
    pub fn is_stalled(&self, actor: &str) -> bool {
        self.state().stalled.contains(actor)
    }

    /// Lets every late write land now.
    pub fn land_late_writes(&self) {
        let mut state = self.state();
        for (_, effect) in std::mem::take(&mut state.late) {
            state.apply(effect);
        }
    }

    /// Flips one bit of the byte at `offset` of an object; says whether there is such a byte.
    #[must_use]
    pub fn corrupt(&self, key: &Key, offset: usize) -> bool {
        let mut state = self.state();
        let Some(bytes) = state.objects.get(key) else { return false };
        let mut bytes = bytes.to_vec();
        let Some(byte) = bytes.get_mut(offset) else { return false };
        *byte ^= 1;
        state.objects.insert(key.clone(), bytes.into());
        true
    }

    /// Returns everything that the store holds now.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<Key, Bytes> {
        self.state().objects.clone()
    }

    /// Returns how many writes have been asked for, failed ones included.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Returns every operation since the beginning or the last [`SimStore::forget_log`], in the order in which their fates
    /// were decided.
    #[must_use]
    pub fn log(&self) -> Vec<SimOperation> {
        self.state().log.clone()
    }

    /// Returns how many operations of a kind are in the log.
    #[must_use]
    pub fn count(&self, deed: SimDeed) -> usize {
        self.state().log.iter().filter(|operation| operation.deed == deed).count()
    }

    /// Empties the log. Writes that are late land first, because their time is counted by it.
    pub fn forget_log(&self) {
        self.land_late_writes();
        self.state().log.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere has not left the objects half changed.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while this actor is stalled, and for a while where the seed says so.
    async fn turn(&self) {
        loop {
            let resumed = self.shared.resumed.notified();
            tokio::pin!(resumed);
            resumed.as_mut().enable();
            {
                let mut state = self.state();
                match state.stall_after.get_mut(&*self.actor) {
                    Some(0) => {
                        state.stall_after.remove(&*self.actor);
                        state.stalled.insert(self.actor.to_string());
                    }
                    Some(left) => *left -= 1,
                    None => {}
                }
                if !state.stalled.contains(&*self.actor) {
                    break;
                }
            }
            resumed.await;
        }
        let yields = {
            let mut state = self.state();
            let delay = state.faults.delay;
            if state.strikes(delay) { state.random.u8(1..=8) } else { 0 }
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
    }

    /// Decides the fate of an operation, logs it and applies its effect as far as it says so.
    fn settle(&self, deed: SimDeed, key: &str, effect: Option<Effect>) -> Result<(), ObjectsError> {
        let mut state = self.state();
        state.apply_late();
        let fate = state.fate(&self.actor, deed);
        state.log.push(SimOperation { actor: self.actor.to_string(), deed, key: key.to_owned(), fate });
        match (fate, effect) {
            (SimFate::Applied | SimFate::FailedAfter, Some(effect)) => state.apply(effect),
            (SimFate::Late, Some(effect)) => {
                let due = state.log.len() as u64 + state.random.u64(1..=6);
                state.late.push((due, effect));
            }
            (SimFate::FailedBefore | SimFate::Torn | SimFate::Throttled | SimFate::Crashed, _)
            | (_, None) => {}
        }
        drop(state);
        let source = match fate {
            SimFate::Applied => return Ok(()),
            SimFate::Throttled => {
                return Err(ObjectsError::Server {
                    action: deed.action(),
                    key: key.to_owned(),
                    store: self.place(),
                    problem: ServerProblem::Throttled,
                    source: "slow down".into(),
                });
            }
            SimFate::FailedBefore | SimFate::FailedAfter | SimFate::Late => {
                io::Error::from(io::ErrorKind::ConnectionReset)
            }
            SimFate::Torn => io::ErrorKind::UnexpectedEof.into(),
            SimFate::Crashed => io::ErrorKind::BrokenPipe.into(),
        };
        Err(self.failure(deed, key, source))
    }

    fn failure(&self, deed: SimDeed, key: &str, source: io::Error) -> ObjectsError {
        ObjectsError::Io { action: deed.action(), key: key.to_owned(), store: self.place(), source }
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.turn().await;
        self.settle(SimDeed::Put, key.as_str(), Some(Effect::Put(key.clone(), bytes)))
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.turn().await;
        let failure = |source| self.failure(SimDeed::PutFile, key.as_str(), source);
        // Blocking on purpose: another thread would make the order of events depend on the machine.
        let bytes = std::fs::read(path).map_err(failure)?;
        self.settle(SimDeed::PutFile, key.as_str(), Some(Effect::Put(key.clone(), bytes.into())))?;
        std::fs::remove_file(path).map_err(failure)
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.turn().await;
        self.settle(SimDeed::Get, key.as_str(), None)?;
        Ok(self.state().objects.get(key).cloned())
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.turn().await;
        self.settle(SimDeed::Range, key.as_str(), None)?;
        Ok(self.state().objects.get(key).map(|bytes| {
            let whole = bytes.len() as u64;
            let (start, end) = (offset.min(whole), offset.saturating_add(length).min(whole));
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(start), Ok(end)) => bytes.slice(start..end),
                // Both are at most the length of something in memory.
                _ => Bytes::new(),
            }
        }))
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        self.turn().await;
        self.settle(SimDeed::List, prefix.as_str(), None)?;
        let listed = |found: &BTreeMap<Key, Bytes>| {
            found
                .iter()
                .filter(|(key, _)| key.as_str().starts_with(prefix.as_str()))
                .map(|(key, bytes)| ObjectInfo { key: key.clone(), size_bytes: bytes.len() as u64 })
                .collect::<Vec<_>>()
        };
        let (mut first, pivot, yields) = {
            let mut state = self.state();
            let first = listed(&state.objects);
            let split = state.faults.split_list;
            if first.is_empty() || !state.strikes(split) {
                return Ok(first);
            }
            let at = state.random.usize(0..first.len());
            let pivot = first.get(at).map(|object| object.key.clone());
            (first, pivot, state.random.u8(1..=8))
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        let second = listed(&self.state().objects);
        first.retain(|object| Some(&object.key) < pivot.as_ref());
        first.extend(second.into_iter().filter(|object| Some(&object.key) >= pivot.as_ref()));
        Ok(first)
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        for key in keys {
            self.turn().await;
            self.settle(SimDeed::Delete, key.as_str(), Some(Effect::Delete(key.clone())))?;
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("sim:{}", self.actor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::conformance;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[tokio::test]
    async fn the_simulated_store_keeps_the_contract() {
        conformance::all(&SimStore::new(1)).await;
    }

    #[tokio::test]
    async fn delays_and_split_listings_keep_the_contract_too() {
        let store = SimStore::new(2);
        store.set_faults(SimFaults { delay: 300, split_list: 500, ..SimFaults::default() });
        conformance::all(&store).await;
    }

    #[tokio::test]
    async fn the_planned_write_fails_before_or_after_it_is_applied() {
        let store = SimStore::new(3);
        store.fail_write(2, SimWhen::Before);
        store.fail_write(3, SimWhen::After);
        store.put(&key("a"), "1".into()).await.unwrap();
        store.put(&key("b"), "2".into()).await.unwrap_err();
        store.put(&key("c"), "3".into()).await.unwrap_err();
        store.put(&key("d"), "4".into()).await.unwrap();
        let there: Vec<String> = store.contents().keys().map(Key::to_string).collect();
        assert_eq!(there, ["a", "c", "d"]);
        assert_eq!((store.writes(), store.count(SimDeed::Put)), (4, 4));
    }

    #[tokio::test]
    async fn a_crashed_actor_does_nothing_more_and_others_go_on() {
        let store = SimStore::new(4);
        let (victim, other) = (store.actor("victim"), store.actor("other"));
        store.crash_at_write(1, SimWhen::After);
        victim.put(&key("a"), "1".into()).await.unwrap_err();
        victim.put(&key("b"), "2".into()).await.unwrap_err();
        victim.get(&key("a")).await.unwrap_err();
        assert_eq!(other.get(&key("a")).await.unwrap(), Some("1".into()));
        assert_eq!(other.get(&key("b")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_stalled_actor_waits_until_it_is_resumed() {
        let store = SimStore::new(5);
        let slow = store.actor("slow");
        store.stall_after("slow", 1);
        let task = tokio::spawn(async move {
            slow.put(&key("one"), Bytes::new()).await.unwrap();
            slow.put(&key("two"), Bytes::new()).await.unwrap();
        });
        while !store.is_stalled("slow") {
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(store.contents().len(), 1);
        store.resume("slow");
        task.await.unwrap();
        assert_eq!(store.contents().len(), 2);
    }

    #[tokio::test]
    async fn a_late_write_lands_after_its_caller_was_told_of_a_failure() {
        let store = SimStore::new(6);
        store.set_faults(SimFaults { late: 1000, ..SimFaults::default() });
        store.put(&key("late"), "x".into()).await.unwrap_err();
        assert_eq!(store.get(&key("late")).await.unwrap(), None);
        let mut waited = 0;
        while store.get(&key("late")).await.unwrap().is_none() {
            waited += 1;
            assert!(waited < 10);
        }
    }

    #[tokio::test]
    async fn the_same_seed_has_the_same_luck_and_the_log_tells_it() {
        let run = async |seed| {
            let store = SimStore::new(seed);
            store.set_faults(SimFaults {
                fail_before: 100,
                fail_after: 100,
                late: 100,
                tear: 100,
                throttle: 100,
                delay: 100,
                split_list: 500,
            });
            for n in 0..200 {
                let key = key(&format!("k/{}", n % 7));
                drop(store.put(&key, format!("{n}").into()).await);
                drop(store.delete(&[key]).await);
                drop(store.list(&Prefix::default()).await);
            }
            (store.log(), store.contents())
        };
        let (log, contents) = run(7).await;
        assert_eq!((log.clone(), contents), run(7).await);
        assert_ne!(log, run(8).await.0);
        for fate in [
            SimFate::Applied,
            SimFate::FailedBefore,
            SimFate::FailedAfter,
            SimFate::Late,
            SimFate::Torn,
            SimFate::Throttled,
        ] {
            assert!(log.iter().any(|operation| operation.fate == fate), "{fate:?}");
        }
    }

    #[tokio::test]
    async fn a_split_listing_shows_some_of_what_happens_meanwhile() {
        let mut seen_new = false;
        for seed in 0..20 {
            let store = SimStore::new(seed);
            for n in 0..10 {
                store.put(&key(&format!("a{n}")), Bytes::new()).await.unwrap();
            }
            store.set_faults(SimFaults { split_list: 1000, ..SimFaults::default() });
            let prefix = Prefix::default();
            let z = key("z");
            let (listed, written) = tokio::join!(store.list(&prefix), store.put(&z, Bytes::new()));
            written.unwrap();
            let listed = listed.unwrap();
            assert!(listed.iter().filter(|object| object.key.as_str() != "z").count() == 10);
            seen_new |= listed.len() == 11;
        }
        assert!(seen_new);
    }

    #[tokio::test]
    async fn a_corrupted_byte_is_read_as_such() {
        let store = SimStore::new(9);
        store.put(&key("a"), "abc".into()).await.unwrap();
        assert!(store.corrupt(&key("a"), 1));
        assert!(!store.corrupt(&key("a"), 3));
        assert_eq!(store.get(&key("a")).await.unwrap(), Some("acc".into()));
        let copy = SimStore::from_contents(0, store.contents());
        assert_eq!(copy.get(&key("a")).await.unwrap(), Some("acc".into()));
    }
}
