//! A store whose every operation waits for its turn, and a stage on which one operation at a time is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::objects::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, SimStore};

/// An operation that somebody waits to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ask {
    /// Who asks.
    pub(super) actor: usize,
    deed: &'static str,
    key: String,
}

/// The operation may be applied. For a listing the number decides whether it is made in two parts, and where it is cut.
type Turn = u32;

/// Where everybody waits.
#[derive(Debug, Default)]
pub(super) struct World {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    asked: BTreeMap<Ask, Vec<oneshot::Sender<Turn>>>,
    dead: BTreeSet<usize>,
}

impl World {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap()
    }

    /// Returns what is asked for, in an order that does not depend on who came first.
    pub(super) fn asked(&self) -> Vec<Ask> {
        let mut waiting = self.waiting();
        for turns in waiting.asked.values_mut() {
            turns.retain(|turn| !turn.is_closed());
        }
        waiting.asked.retain(|_, turns| !turns.is_empty());
        waiting.asked.keys().cloned().collect()
    }

    /// Lets one operation be applied.
    pub(super) fn allow(&self, ask: &Ask, turn: Turn) {
        let mut waiting = self.waiting();
        let turns = waiting.asked.get_mut(ask).unwrap();
        turns.remove(0).send(turn).unwrap();
    }

    /// Lets an actor die: nothing of what it asks, or will ask, is applied.
    pub(super) fn kill(&self, actor: usize) {
        let mut waiting = self.waiting();
        waiting.dead.insert(actor);
        waiting.asked.retain(|ask, _| ask.actor != actor);
    }

    pub(super) fn is_dead(&self, actor: usize) -> bool {
        self.waiting().dead.contains(&actor)
    }
}

/// What an actor does not see: a rule of the protocol that it does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blind {
    /// That packs are condemned.
    Condemnations,
    /// That its own session was evicted.
    Evictions,
    /// That others are at work.
    Sessions,
    /// That anything was saved.
    Revisions,
}

impl Blind {
    fn hides(self, prefix: &Prefix) -> bool {
        let below = match self {
            Self::Condemnations => "gc",
            Self::Evictions => "evict",
            Self::Sessions => "sess",
            Self::Revisions => "rev",
        };
        prefix.as_str().trim_end_matches('/').split('/').next() == Some(below)
    }
}

/// The store as one actor reaches it.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) world: Arc<World>,
    pub(super) actor: usize,
    pub(super) sim: SimStore,
    pub(super) blind: Option<Blind>,
}

impl Turns {
    async fn turn(&self, deed: &'static str, key: &str) -> Result<Turn, ObjectsError> {
        let turn = {
            let mut waiting = self.world.waiting();
            if waiting.dead.contains(&self.actor) {
                return Err(self.died(deed, key));
            }
            let (give, turn) = oneshot::channel();
            let ask = Ask { actor: self.actor, deed, key: key.to_owned() };
            waiting.asked.entry(ask).or_default().push(give);
            turn
        };
        turn.await.map_err(|_gone| self.died(deed, key))
    }

    fn died(&self, action: &'static str, key: &str) -> ObjectsError {
        let source = io::ErrorKind::BrokenPipe.into();
        ObjectsError::Io { action, key: key.to_owned(), store: self.place(), source }
    }
}

#[async_trait]
impl ObjectStore for Turns {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.turn("write", key.as_str()).await?;
        self.sim.put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.turn("write", key.as_str()).await?;
        self.sim.put_file(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.turn("read", key.as_str()).await?;
        if self.blind == Some(Blind::Evictions) && key.as_str().starts_with("sess/") {
            return Ok(Some(Bytes::from_static(b"{}")));
        }
        self.sim.get(key).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.turn("read", key.as_str()).await?;
        self.sim.range(key, offset, length).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        let turn = self.turn("list", prefix.as_str()).await?;
        if self.blind.is_some_and(|blind| blind.hides(prefix)) {
            return Ok(Vec::new());
        }
        let mut first = self.sim.list(prefix).await?;
        let cut = turn as usize % (first.len() + 1);
        // Half of the listings are made in two parts, with room for others in between.
        let Some(cut) = first.get(cut).filter(|_| turn & (1 << 31) == 0).map(|object| object.key.clone())
        else {
            return Ok(first);
        };
        self.turn("list", prefix.as_str()).await?;
        first.retain(|object| object.key < cut);
        first.extend(self.sim.list(prefix).await?.into_iter().filter(|object| object.key >= cut));
        Ok(first)
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        for key in keys {
            self.turn("delete", key.as_str()).await?;
            self.sim.delete(std::slice::from_ref(key)).await?;
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.sim.place()
    }
}
