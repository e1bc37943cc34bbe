//! Removing revisions: their names go, their bytes stay until they are collected.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::depot::Depot;
use super::error::WorkspaceError;
use super::mark::pins;
use crate::base::{WorkspaceName, now};
use crate::store::StoreError;
use crate::store::revision::{self, RevisionRef, Tombstone, tombstone_key};

/// How many tombstones are written at the same time.
pub(super) const WRITES: usize = 16;

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One revision.
    One(RevisionRef),
    /// Every revision of a workspace.
    All(WorkspaceName),
}

/// Removes revisions; returns them. From then on nobody finds them, and a collector takes their bytes after its grace. Until then
/// they can be brought back by `undo`.
///
/// A tombstone is the commit point of each: after a crash those that have one are removed.
///
/// # Errors
///
/// Fails where one of them is pinned (nothing is removed then, unless it was pinned at the same moment), where there is none, and where the store does not answer.
pub async fn remove(depot: &Depot, selection: &Selection) -> Result<Vec<RevisionRef>, WorkspaceError> {
    let (workspace, id) = match selection {
        Selection::One(one) => (&one.workspace, Some(one.id)),
        Selection::All(name) => (name, None),
    };
    let mut chosen = revision::list(&*depot.objects, Some(workspace)).await?;
    chosen.retain(|revision| id.is_none_or(|id| revision.id == id));
    if chosen.is_empty() {
        return Err(WorkspaceError::NotFound {
            what: if id.is_some() { "revision" } else { "workspace" },
            name: id.map_or_else(|| workspace.to_string(), |id| format!("{workspace}@{id}")),
            nearest: None,
        });
    }
    none_is_pinned(depot, workspace, &chosen).await?;
    // Those that are removed together have one time, so that an undo of the last removal knows them all.
    let at = now();
    stream::iter(chosen.clone())
        .map(|revision| async move { bury(depot, &revision, at).await })
        .buffer_unordered(WRITES)
        .try_collect::<()>()
        .await?;
    // Whoever pins at the same time looks for the tombstone after the pin is written, so that one of the two is told.
    none_is_pinned(depot, workspace, &chosen).await?;
    Ok(chosen)
}

async fn none_is_pinned(
    depot: &Depot,
    workspace: &WorkspaceName,
    chosen: &[RevisionRef],
) -> Result<(), WorkspaceError> {
    let mut pins = pins(depot, Some(workspace)).await?;
    for revision in chosen {
        if let Some(pin) = pins.remove(&(revision.workspace.clone(), revision.id)) {
            return Err(WorkspaceError::Pinned {
                revision: format!("{}@{}", revision.workspace, revision.id),
                reason: pin.reason,
            });
        }
    }
    Ok(())
}

/// Writes a revision's tombstone.
pub(super) async fn bury(
    depot: &Depot,
    revision: &RevisionRef,
    removed: jiff::Timestamp,
) -> Result<(), StoreError> {
    let key = tombstone_key(revision)?;
    let bytes = serde_json::to_vec(&Tombstone { version: 1, removed })
        .map_err(|source| StoreError::Local { action: "write a tombstone", source: source.into() })?;
    Ok(depot.objects.put(&key, bytes.into()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify as _, ErrorKind};
    use crate::workspace::mark::{pin, unpin};
    use crate::workspace::tests::Place;
    use crate::workspace::{find, list, show};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_removed_revision_is_not_found_and_its_record_stays() {
        let place = Place::new();
        place.write("tree/a", "1");
        place.save("tree").await;
        let first = place.newest().await;
        place.save("tree").await;
        let second = place.newest().await;
        let removed = remove(&place.depot, &Selection::One(second.clone())).await.unwrap();
        assert_eq!(removed, std::slice::from_ref(&second));
        assert_eq!(find(&place.depot, &"w".parse().unwrap()).await.unwrap(), first);
        for text in [format!("w@{}", second.id), second.id.to_string()] {
            let error = find(&place.depot, &text.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        assert_eq!(list(&place.depot, None).await.unwrap().len(), 1);
        let again = remove(&place.depot, &Selection::One(second.clone())).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
        // Until it is collected it can be brought back, and a later save is later still.
        assert_eq!(show(&place.depot, &second).await.unwrap().id, second.id);
        assert!(place.save("tree").await.revision > second.id);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pinned_revision_is_not_removed_nor_is_any_with_it() {
        let place = Place::new();
        place.write("tree/a", "1");
        place.save("tree").await;
        let first = place.newest().await;
        place.save("tree").await;
        pin(&place.depot, &first, "the golden one").await.unwrap();
        let all = Selection::All(first.workspace.clone());
        for selection in [Selection::One(first.clone()), all.clone()] {
            let error = remove(&place.depot, &selection).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.to_string().contains("the golden one"), "{error}");
        }
        assert_eq!(list(&place.depot, None).await.unwrap().len(), 2);
        unpin(&place.depot, &first).await.unwrap();
        assert_eq!(remove(&place.depot, &all).await.unwrap().len(), 2);
        assert_eq!(remove(&place.depot, &all).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Pinning and removing at once could both succeed, which left a pinned revision without a name.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_pin_of_what_is_removed_is_refused() {
        let place = Place::new();
        place.write("tree/a", "1");
        place.save("tree").await;
        let revision = place.newest().await;
        bury(&place.depot, &revision, now()).await.unwrap();
        let error = pin(&place.depot, &revision, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
