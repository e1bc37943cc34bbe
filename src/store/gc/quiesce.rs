//! Waiting until every session that may not know of a condemnation has ended, or was evicted (protocol, G2 and G3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::GcError;
use super::event::GcEvent;
use crate::base::{Liveness, Owner, SessionId, Sink};
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::pack::WrittenName;
use crate::store::revision::RevisionRef;
use crate::store::session::{Beat, SessionRecord};
use crate::store::small::NOTE_BYTES;
use crate::store::view::Adopted;

/// How often one looks again, at most.
const POLL: Duration = Duration::from_secs(2);
/// Small objects that are fetched at the same time.
const FETCHES: usize = 8;

/// How long a collector waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long a session's counter stands still before it is taken for dead.
    pub(super) evict_after: Duration,
    /// How long all of it may take; `None` for as long as sessions live.
    pub(super) wait: Option<Duration>,
}

/// What became of the wait.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Whether every session of the wait-set is gone.
    pub(super) is_quiet: bool,
    /// The sessions that were evicted.
    pub(super) evicted: Vec<SessionId>,
    /// Those of their revisions that were adopted; a later one of theirs is refused.
    pub(super) adopted: BTreeSet<Key>,
}

impl Quiet {
    /// Returns whether this run refused a revision.
    pub(super) fn refuses(&self, revision: &RevisionRef) -> bool {
        self.evicted.contains(&revision.session)
            && !revision.key().is_ok_and(|key| self.adopted.contains(&key))
    }
}

/// What is watched of a session.
#[derive(Debug)]
struct Watched {
    beat: Option<Bytes>,
    /// How long the counter has stood still while this process was looking.
    still: Duration,
    owner: Option<Owner>,
}

/// Lists the sessions that are open.
pub(super) async fn sessions(objects: &dyn ObjectStore) -> Result<BTreeSet<SessionId>, GcError> {
    let listed = objects.list(&Prefix::new("sess")?).await?;
    Ok(listed.iter().filter_map(|object| object.key.name().parse().ok()).collect())
}

/// Waits until each of the sessions has ended or was evicted in the name of `run`.
pub(super) async fn quiesce(
    objects: &dyn ObjectStore,
    run: SessionId,
    of: BTreeSet<SessionId>,
    patience: Patience,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
) -> Result<Quiet, GcError> {
    let mut quiet = Quiet::default();
    let mut waiting: BTreeMap<SessionId, Watched> = BTreeMap::new();
    for session in of {
        waiting.insert(session, Watched::of(objects, session).await?);
    }
    let start = Instant::now();
    let mut last = start;
    let mut told = usize::MAX;
    let poll = POLL.min(patience.evict_after / 4).max(Duration::from_millis(1));
    loop {
        let open = sessions(objects).await?;
        waiting.retain(|session, _| open.contains(session));
        let looked = Instant::now();
        // What this process slept through says nothing about others.
        let passed = looked.duration_since(last).min(poll * 2);
        last = looked;
        look(objects, &mut waiting, passed).await?;
        let dead: Vec<SessionId> = waiting
            .iter()
            .filter(|(_, watched)| watched.still >= patience.evict_after || watched.is_dead())
            .map(|(session, _)| *session)
            .collect();
        if !dead.is_empty() {
            evict(objects, run, &dead, &mut quiet).await?;
            waiting.retain(|session, _| !dead.contains(session));
            sink.emit(GcEvent::Evicted { sessions: dead.len() });
        }
        if waiting.is_empty() {
            quiet.is_quiet = true;
            return Ok(quiet);
        }
        if cancel.is_cancelled() {
            return Err(GcError::Cancelled);
        }
        if patience.wait.is_some_and(|most| start.elapsed() >= most) {
            return Ok(quiet);
        }
        if told != waiting.len() {
            told = waiting.len();
            sink.emit(GcEvent::Waiting { sessions: told });
        }
        tokio::select! {
            () = tokio::time::sleep(poll) => {}
            () = cancel.cancelled() => {}
        }
    }
}

impl Watched {
    async fn of(objects: &dyn ObjectStore, session: SessionId) -> Result<Self, GcError> {
        let record = objects.get_up_to(&Key::new(format!("sess/{session}"))?, NOTE_BYTES).await?;
        let record = record.and_then(|bytes| serde_json::from_slice::<SessionRecord>(&bytes).ok());
        Ok(Self { beat: None, still: Duration::ZERO, owner: record.and_then(|record| record.owner) })
    }

    /// Whether the session's process is known to have ended: it ran on this host since its last boot. Machines that were cloned may
    /// share all but the boot, so nothing is concluded from another one.
    fn is_dead(&self) -> bool {
        let Some((owner, own)) = self.owner.as_ref().zip(Owner::current().ok()) else { return false };
        owner.boot == own.boot && owner.liveness().is_ok_and(|liveness| liveness == Liveness::Dead)
    }
}

/// Reads the counters; those that did not move stood still for what has `passed`.
async fn look(
    objects: &dyn ObjectStore,
    waiting: &mut BTreeMap<SessionId, Watched>,
    passed: Duration,
) -> Result<(), GcError> {
    let sessions: Vec<SessionId> = waiting.keys().copied().collect();
    let beats: Vec<(SessionId, Option<Bytes>)> = stream::iter(sessions)
        .map(|session| async move {
            let key = Key::new(format!("beat/{session}"))?;
            Ok::<_, GcError>((session, objects.get_up_to(&key, NOTE_BYTES).await?))
        })
        .buffer_unordered(FETCHES)
        .try_collect()
        .await?;
    for (session, beat) in beats {
        let Some(watched) = waiting.get_mut(&session) else { continue };
        if beat == watched.beat {
            watched.still += passed;
            continue;
        }
        watched.still = Duration::ZERO;
        let read = beat.as_ref().and_then(|bytes| serde_json::from_slice::<Beat>(bytes).ok());
        if let Some(owner) = read.and_then(|beat| beat.owner) {
            watched.owner = Some(owner);
        }
        watched.beat = beat;
    }
    Ok(())
}

/// Evicts sessions: mark, list what they have, adopt it, end them. From the mark on they cannot acknowledge anything.
async fn evict(
    objects: &dyn ObjectStore,
    run: SessionId,
    dead: &[SessionId],
    quiet: &mut Quiet,
) -> Result<(), GcError> {
    for session in dead {
        let key = Key::new(format!("evict/{session}/{run}.mark"))?;
        objects.put(&key, Bytes::from_static(b"{\"version\":1}")).await?;
    }
    // A revision is written after the segments that it needs, so what is listed first was written last.
    let revisions = objects.list(&Prefix::new("rev")?).await?;
    let segments = objects.list(&Prefix::new("idx")?).await?;
    for session in dead {
        let own_revisions = revisions
            .iter()
            .map(|object| &object.key)
            .filter(|key| RevisionRef::of_key(key).is_some_and(|revision| revision.session == *session));
        let own_segments = segments
            .iter()
            .map(|object| &object.key)
            .filter(|key| key.name().parse::<WrittenName>().is_ok_and(|name| name.session == *session));
        let adopted = Adopted {
            version: 1,
            revisions: own_revisions.clone().map(ToString::to_string).collect(),
            segments: own_segments.map(ToString::to_string).collect(),
        };
        let bytes = serde_json::to_vec(&adopted)
            .map_err(|source| StoreError::Local { action: "write an adopt", source: source.into() })?;
        objects.put(&Key::new(format!("evict/{session}/{run}.adopt"))?, bytes.into()).await?;
        quiet.adopted.extend(own_revisions.cloned());
        let keys = [Key::new(format!("sess/{session}"))?, Key::new(format!("beat/{session}"))?];
        objects.delete(&keys).await?;
        quiet.evicted.push(*session);
    }
    Ok(())
}
