//! The revisions that must stay readable, and those whose time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::error::GcError;
use crate::base::{RevisionId, WorkspaceName};
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::revision::{self, Revision, RevisionRef, Tombstone};
use crate::store::small;
use crate::store::view::evictions;

/// Records that are read at the same time.
const READS: usize = 16;

/// Revisions as a listing shows them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Every record, those included that were removed or are refused.
    pub(super) revisions: Vec<RevisionRef>,
    /// When the removed ones were removed; `None` where the tombstone cannot be understood.
    pub(super) removed: BTreeMap<Removed, Option<Timestamp>>,
    /// Those that a completed adopt omits: nobody acknowledged them, and nobody will.
    pub(super) refused: BTreeSet<RevisionRef>,
}

/// What a tombstone is of.
type Removed = (WorkspaceName, RevisionId);

impl Listing {
    /// Reads the tombstones, then lists the records, then reads the adopts: in this order a revision that is removed and collected
    /// meanwhile is not taken for one that lacks everything.
    pub(super) async fn read(objects: &dyn ObjectStore) -> Result<Self, GcError> {
        let tombstones = objects.list(&Prefix::new("removed")?).await?;
        let removed = stream::iter(tombstones)
            .map(|object| async move {
                let mut segments = object.key.segments().skip(1);
                let of = segments.next().zip(segments.next());
                let of = of.and_then(|(name, id)| Some((name.parse().ok()?, id.parse().ok()?)));
                let bytes = small::read(objects, &object.key, small::NOTE_BYTES).await?;
                let when = bytes.and_then(|bytes| serde_json::from_slice::<Tombstone>(&bytes).ok());
                Ok::<_, StoreError>(of.map(|of| (of, when.map(|tombstone| tombstone.removed))))
            })
            .buffer_unordered(READS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        let listed = objects.list(&Prefix::new("rev")?).await?;
        let revisions: Vec<RevisionRef> =
            listed.iter().filter_map(|object| RevisionRef::of_key(&object.key)).collect();
        let sessions = revisions.iter().map(|revision| revision.session).collect();
        let evictions = evictions(objects, &sessions).await?;
        let is_refused = |revision: &&RevisionRef| {
            revision.key().is_ok_and(|key| !evictions.revision_counts(revision.session, key.as_str()))
        };
        let refused = revisions.iter().filter(is_refused).cloned().collect();
        Ok(Self { revisions, removed, refused })
    }

    /// Returns when a revision was removed, if it was: inside `None` where the tombstone cannot be understood.
    fn removed(&self, revision: &RevisionRef) -> Option<Option<Timestamp>> {
        self.removed.get(&(revision.workspace.clone(), revision.id)).copied()
    }

    /// Returns the revisions that were removed longer than `grace` ago. One whose tombstone cannot be understood is not among them.
    pub(super) fn expired(&self, grace: Duration, now: Timestamp) -> Vec<RevisionRef> {
        let is_over = |revision: &&RevisionRef| {
            self.removed(revision).flatten().is_some_and(|removed| is_older(removed, grace, now))
        };
        self.revisions.iter().filter(is_over).cloned().collect()
    }

    /// Returns the revisions that nobody removed.
    pub(super) fn kept(&self) -> Vec<RevisionRef> {
        let is_kept =
            |revision: &&RevisionRef| self.removed(revision).is_none() && !self.refused.contains(*revision);
        self.revisions.iter().filter(is_kept).cloned().collect()
    }

    /// Returns the revisions that must stay readable when bytes are deleted: also those that were removed less than `grace` ago.
    pub(super) fn restorable(&self, grace: Duration, now: Timestamp) -> Vec<RevisionRef> {
        let expired: BTreeSet<RevisionRef> = self.expired(grace, now).into_iter().collect();
        let stays =
            |revision: &&RevisionRef| !expired.contains(*revision) && !self.refused.contains(*revision);
        self.revisions.iter().filter(stays).cloned().collect()
    }

    /// Returns the tombstones that were made longer than `age` ago and whose records are gone.
    pub(super) fn spent_tombstones(&self, age: Duration, now: Timestamp) -> Result<Vec<Key>, GcError> {
        let there: BTreeSet<Removed> =
            self.revisions.iter().map(|revision| (revision.workspace.clone(), revision.id)).collect();
        let spent = self.removed.iter().filter(|(of, removed)| {
            !there.contains(*of) && removed.is_some_and(|removed| is_older(removed, age, now))
        });
        let keys = spent.map(|((workspace, id), _)| Ok(Key::new(format!("removed/{workspace}/{id}"))?));
        keys.collect()
    }
}

/// Whether something that happened at `then` is at least `grace` ago. A clock that was set back makes the wait longer.
pub(super) fn is_older(then: Timestamp, grace: Duration, now: Timestamp) -> bool {
    let grace = jiff::SignedDuration::try_from(grace).unwrap_or(jiff::SignedDuration::MAX);
    now.duration_since(then) >= grace
}

/// Reads the records of revisions; those that went meanwhile are left out.
///
/// A record that cannot be understood is an error: nobody knows what it needs.
pub(super) async fn read(
    objects: &dyn ObjectStore,
    revisions: &[RevisionRef],
    take: &mut (dyn FnMut(Revision) + Send),
) -> Result<(), GcError> {
    let mut records = stream::iter(revisions.to_vec())
        .map(|revision| async move { revision::read(objects, &revision).await })
        .buffer_unordered(READS);
    while let Some(record) = records.try_next().await? {
        if let Some(record) = record {
            take(record);
        }
    }
    Ok(())
}

/// Returns the keys of everything that a removed revision leaves, but for its tombstone: without that, a write of the record that a
/// server applies late would bring it back.
pub(super) async fn keys_of(objects: &dyn ObjectStore, revision: &RevisionRef) -> Result<Vec<Key>, GcError> {
    let RevisionRef { workspace, id, .. } = revision;
    let mut keys = vec![revision.key()?, Key::new(format!("touch/{workspace}/{id}"))?];
    let pins = objects.list(&Prefix::new(format!("pin/{workspace}/{id}"))?).await?;
    keys.extend(pins.into_iter().map(|object| object.key));
    Ok(keys)
}
