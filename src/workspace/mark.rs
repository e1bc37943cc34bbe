//! Pins, and when a revision was used last.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::depot::Depot;
use super::error::WorkspaceError;
use crate::base::{RevisionId, WorkspaceName, now};
use crate::objects::{Key, Prefix};
use crate::store::revision::{RevisionRef, tombstone_key};
use crate::store::{StoreError, small};

/// Version of the objects that this file writes, and the highest that it reads.
const VERSION: u32 = 1;
/// A use is written at most this often for one revision: a policy asks for days, not minutes.
const TOUCH_EVERY: Duration = Duration::from_hours(1);
/// How long a use may take to be written: whoever waits for a workspace does not wait for this.
const TOUCH_WITHIN: Duration = Duration::from_secs(2);
/// How many small objects are fetched at the same time.
const FETCHES: usize = 8;
/// The same of the notes of uses: a whole store may have tens of thousands.
const TOUCHES: usize = 32;

/// A pin that holds: the revision is neither removed nor pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Why, as the one who pinned it said; may be empty.
    pub reason: String,
    /// When it was pinned, by the clock of whoever did.
    pub made: jiff::Timestamp,
}

/// The pins that hold, by workspace and revision.
pub type Pins = BTreeMap<(WorkspaceName, RevisionId), Pin>;

/// What stands in `pin/<workspace>/<revision>/<seq>-<ulid>-<pin|unpin>`. Never changed.
#[derive(Debug, Serialize, Deserialize)]
struct PinRecord {
    version: u32,
    #[serde(default)]
    reason: String,
    made: jiff::Timestamp,
}

/// What stands in `touch/<workspace>/<revision>`. Overwritten; no rule of safety reads it.
#[derive(Debug, Serialize, Deserialize)]
struct TouchRecord {
    version: u32,
    touched: jiff::Timestamp,
}

/// Whether a mark makes a pin or takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pin,
    Unpin,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
        }
    }
}

/// A mark as its key tells it.
#[derive(Debug)]
struct Mark {
    of: (WorkspaceName, RevisionId),
    sequence: u32,
    kind: Kind,
    key: Key,
}

impl Mark {
    fn of_key(key: &Key) -> Option<Self> {
        let mut segments = key.segments().skip(1);
        let of = (segments.next()?.parse().ok()?, segments.next()?.parse().ok()?);
        let mut parts = segments.next()?.splitn(3, '-');
        let sequence = parts.next()?.parse().ok()?;
        let kind = match (parts.next()?, parts.next()?) {
            (_, "pin") => Kind::Pin,
            (_, "unpin") => Kind::Unpin,
            (_, _) => return None,
        };
        segments.next().is_none().then_some(())?;
        Some(Self { of, sequence, kind, key: key.clone() })
    }
}

/// Pins a revision: it is neither removed nor pruned until the pin is taken back. Pinning what is pinned changes the reason.
///
/// # Errors
///
/// Fails where the store does not answer, and where the revision was removed meanwhile.
pub async fn pin(depot: &Depot, revision: &RevisionRef, reason: &str) -> Result<(), WorkspaceError> {
    mark(depot, revision, Kind::Pin, reason).await?;
    // Whoever removes it at the same time looks for pins after the tombstone is written, so that one of the two is told.
    let tombstone = depot
        .objects
        .get_up_to(&tombstone_key(revision)?, small::NOTE_BYTES)
        .await
        .map_err(StoreError::from)?;
    match tombstone {
        None => Ok(()),
        Some(_) => Err(WorkspaceError::NotFound {
            what: "revision",
            name: format!("{}@{}", revision.workspace, revision.id),
            nearest: None,
        }),
    }
}

/// Takes the pin of a revision back. Without a pin nothing is written.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn unpin(depot: &Depot, revision: &RevisionRef) -> Result<(), WorkspaceError> {
    mark(depot, revision, Kind::Unpin, "").await
}

async fn mark(depot: &Depot, revision: &RevisionRef, kind: Kind, reason: &str) -> Result<(), WorkspaceError> {
    let below = format!("pin/{}/{}", revision.workspace, revision.id);
    let last = marks(depot, &Prefix::new(below.clone()).map_err(StoreError::from)?).await?.pop();
    if kind == Kind::Unpin && last.as_ref().is_none_or(|last| last.kind == Kind::Unpin) {
        return Ok(());
    }
    let sequence = last.map_or(0, |last| last.sequence).saturating_add(1);
    // Two at once give one sequence; both stay, and the one with the higher ULID holds.
    let name = format!("{below}/{sequence:08}-{}-{}", RevisionId::after(None, now()), kind.name());
    let record = PinRecord { version: VERSION, reason: reason.to_owned(), made: now() };
    put(depot, &Key::new(name).map_err(StoreError::from)?, &record).await
}

/// Returns the marks below a prefix, those of one revision in their order.
async fn marks(depot: &Depot, below: &Prefix) -> Result<Vec<Mark>, WorkspaceError> {
    let listed = depot.objects.list(below).await.map_err(StoreError::from)?;
    Ok(listed.into_iter().filter_map(|object| Mark::of_key(&object.key)).collect())
}

/// Returns the pins that hold: of one workspace, or of all. A pin whose object cannot be understood holds, too.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn pins(depot: &Depot, workspace: Option<&WorkspaceName>) -> Result<Pins, WorkspaceError> {
    let below = match workspace {
        Some(name) => Prefix::new(format!("pin/{name}")),
        None => Prefix::new("pin"),
    };
    let mut last = BTreeMap::new();
    for mark in marks(depot, &below.map_err(StoreError::from)?).await? {
        last.insert(mark.of.clone(), mark);
    }
    stream::iter(last.into_values().filter(|mark| mark.kind == Kind::Pin))
        .map(|mark| async move {
            let bytes =
                depot.objects.get_up_to(&mark.key, small::NOTE_BYTES).await.map_err(StoreError::from)?;
            let record: Option<PinRecord> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let pin = match record {
                Some(PinRecord { reason, made, .. }) => Pin { reason, made },
                None => Pin { reason: "its reason cannot be read".to_owned(), made: mark.of.1.timestamp() },
            };
            Ok((mark.of, pin))
        })
        .buffer_unordered(FETCHES)
        .try_collect()
        .await
}

/// Notes that a revision was used. At most one write an hour; a store that cannot be written, as with credentials that only read,
/// or does not answer within two seconds is fine, because no rule of safety needs the note.
pub async fn touch(depot: &Depot, revision: &RevisionRef) {
    let _noted = tokio::time::timeout(TOUCH_WITHIN, try_touch(depot, revision)).await.is_ok();
}

async fn try_touch(depot: &Depot, revision: &RevisionRef) {
    let Ok(key) = Key::new(format!("touch/{}/{}", revision.workspace, revision.id)) else { return };
    let now = now();
    let last = read_touch(depot, &key).await;
    let is_recent = last.is_some_and(|last| {
        let age = now.duration_since(last);
        !age.is_negative() && age.unsigned_abs() < TOUCH_EVERY
    });
    if !is_recent {
        let _noted = put(depot, &key, &TouchRecord { version: VERSION, touched: now }).await.is_ok();
    }
}

/// Returns when a revision was used last, as far as it was noted.
pub async fn touched(depot: &Depot, revision: &RevisionRef) -> Option<jiff::Timestamp> {
    read_touch(depot, &Key::new(format!("touch/{}/{}", revision.workspace, revision.id)).ok()?).await
}

/// Returns when revisions were used last, as far as it was noted: of one workspace, or of all. A note that cannot be understood counts
/// as one of a time that is never over, [`jiff::Timestamp::MAX`].
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn touches(
    depot: &Depot,
    workspace: Option<&WorkspaceName>,
) -> Result<BTreeMap<(WorkspaceName, RevisionId), jiff::Timestamp>, WorkspaceError> {
    let below = match workspace {
        Some(name) => Prefix::new(format!("touch/{name}")),
        None => Prefix::new("touch"),
    };
    let below = below.map_err(StoreError::from)?;
    let listed = depot.objects.list(&below).await.map_err(StoreError::from)?;
    let noted = listed.into_iter().filter_map(|object| {
        let mut segments = object.key.segments().skip(1);
        let of = (segments.next()?.parse().ok()?, segments.next()?.parse().ok()?);
        Some((of, object.key.clone()))
    });
    stream::iter(noted.collect::<Vec<_>>())
        .map(|(of, key)| async move {
            let bytes = depot.objects.get_up_to(&key, small::NOTE_BYTES).await.map_err(StoreError::from)?;
            let note = bytes.map(|bytes| serde_json::from_slice::<TouchRecord>(&bytes).ok());
            let used = note.map(|note| {
                let known = note.filter(|note| note.version <= VERSION);
                known.map_or(jiff::Timestamp::MAX, |note| note.touched)
            });
            Ok::<_, WorkspaceError>(used.map(|used| (of, used)))
        })
        .buffer_unordered(TOUCHES)
        .try_filter_map(|found| std::future::ready(Ok(found)))
        .try_collect()
        .await
}

async fn read_touch(depot: &Depot, key: &Key) -> Option<jiff::Timestamp> {
    let bytes = depot.objects.get_up_to(key, small::NOTE_BYTES).await.ok().flatten()?;
    let record: TouchRecord = serde_json::from_slice(&bytes).ok()?;
    (record.version <= VERSION).then_some(record.touched)
}

async fn put<T: Serialize + Sync>(depot: &Depot, key: &Key, record: &T) -> Result<(), WorkspaceError> {
    let bytes = serde_json::to_vec(record)
        .map_err(|source| StoreError::Local { action: "write a mark", source: source.into() })?;
    Ok(depot.objects.put(key, bytes.into()).await.map_err(StoreError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::Place;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pin_holds_until_it_is_taken_back_and_tells_its_last_reason() {
        let place = Place::new();
        place.write("tree/a", "1");
        place.save("tree").await;
        let revision = place.newest().await;
        let held = || async {
            pins(&place.depot, Some(&revision.workspace))
                .await
                .unwrap()
                .into_values()
                .map(|pin| pin.reason)
                .collect::<Vec<_>>()
        };
        unpin(&place.depot, &revision).await.unwrap();
        assert!(place.depot.objects.list(&Prefix::new("pin").unwrap()).await.unwrap().is_empty());
        pin(&place.depot, &revision, "one").await.unwrap();
        pin(&place.depot, &revision, "two").await.unwrap();
        assert_eq!(held().await, ["two"]);
        unpin(&place.depot, &revision).await.unwrap();
        assert_eq!(held().await, Vec::<String>::new());
        pin(&place.depot, &revision, "three").await.unwrap();
        assert_eq!(held().await, ["three"]);
        assert_eq!(place.depot.objects.list(&Prefix::new("pin").unwrap()).await.unwrap().len(), 4);
        // What cannot be understood holds: rather kept too long than lost.
        let last = place.depot.objects.list(&Prefix::new("pin").unwrap()).await.unwrap().pop().unwrap();
        place.depot.objects.put(&last.key, "{".into()).await.unwrap();
        assert_eq!(held().await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_use_is_noted_once_an_hour() {
        let place = Place::new();
        place.write("tree/a", "1");
        place.save("tree").await;
        let revision = place.newest().await;
        assert_eq!(touched(&place.depot, &revision).await, None);
        touch(&place.depot, &revision).await;
        let first = touched(&place.depot, &revision).await.unwrap();
        touch(&place.depot, &revision).await;
        assert_eq!(touched(&place.depot, &revision).await, Some(first));
        let key = Key::new(format!("touch/w/{}", revision.id)).unwrap();
        let long_ago = TouchRecord { version: 1, touched: "2020-01-01T00:00:00Z".parse().unwrap() };
        put(&place.depot, &key, &long_ago).await.unwrap();
        touch(&place.depot, &revision).await;
        assert!(touched(&place.depot, &revision).await.unwrap() >= first);
    }
}
