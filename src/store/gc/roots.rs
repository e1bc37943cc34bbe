//! The revisions that must stay readable, and those whose time is over.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::error::GcError;
use crate::base::{RevisionId, WorkspaceName};
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::revision::{self, Revision, RevisionRef, Tombstone};

/// Records that are read at the same time.
const READS: usize = 16;

/// Revisions as a listing shows them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Every record, those included that were removed or are refused.
    pub(super) revisions: Vec<RevisionRef>,
    /// When the removed ones were removed; `None` where the tombstone cannot be understood.
    pub(super) removed: BTreeMap<(WorkspaceName, RevisionId), Option<Timestamp>>,
}

impl Listing {
    /// Lists the records and reads the tombstones.
    pub(super) async fn read(objects: &dyn ObjectStore) -> Result<Self, GcError> {
        let listed = objects.list(&Prefix::new("rev")?).await?;
        let revisions: Vec<RevisionRef> =
            listed.iter().filter_map(|object| RevisionRef::of_key(&object.key)).collect();
        let tombstones = objects.list(&Prefix::new("removed")?).await?;
        let removed = stream::iter(tombstones)
            .map(|object| async move {
                let mut segments = object.key.segments().skip(1);
                let of = segments.next().zip(segments.next());
                let of = of.and_then(|(name, id)| Some((name.parse().ok()?, id.parse().ok()?)));
                let bytes = objects.get(&object.key).await?;
                let when = bytes.and_then(|bytes| serde_json::from_slice::<Tombstone>(&bytes).ok());
                Ok::<_, StoreError>(of.map(|of| (of, when.map(|tombstone| tombstone.removed))))
            })
            .buffer_unordered(READS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        Ok(Self { revisions, removed })
    }

    /// Returns the revisions that were removed longer than `grace` ago. One whose tombstone cannot be understood is not among them.
    pub(super) fn expired(&self, grace: Duration, now: Timestamp) -> Vec<RevisionRef> {
        let is_over = |revision: &&RevisionRef| {
            let removed = self.removed.get(&(revision.workspace.clone(), revision.id));
            removed.is_some_and(|removed| removed.is_some_and(|removed| is_older(removed, grace, now)))
        };
        self.revisions.iter().filter(is_over).cloned().collect()
    }

    /// Returns the revisions that nobody removed.
    pub(super) fn kept(&self) -> Vec<RevisionRef> {
        let is_kept =
            |revision: &&RevisionRef| !self.removed.contains_key(&(revision.workspace.clone(), revision.id));
        self.revisions.iter().filter(is_kept).cloned().collect()
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
    take: &mut dyn FnMut(Revision),
) -> Result<(), GcError> {
    let mut records =
        stream::iter(revisions).map(|revision| revision::read(objects, revision)).buffer_unordered(READS);
    while let Some(record) = records.try_next().await? {
        if let Some(record) = record {
            take(record);
        }
    }
    Ok(())
}

/// Returns the keys of everything that a removed revision leaves: in the order in which they have to go, because a record without its
/// tombstone would be a revision again.
pub(super) async fn keys_of(
    objects: &dyn ObjectStore,
    revision: &RevisionRef,
) -> Result<(Key, Vec<Key>), GcError> {
    let RevisionRef { workspace, id, .. } = revision;
    let mut behind = vec![revision::tombstone_key(revision)?, Key::new(format!("touch/{workspace}/{id}"))?];
    let pins = objects.list(&Prefix::new(format!("pin/{workspace}/{id}"))?).await?;
    behind.extend(pins.into_iter().map(|object| object.key));
    Ok((revision.key()?, behind))
}
