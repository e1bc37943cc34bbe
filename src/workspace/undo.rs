//! Removed revisions, and bringing them back while their bytes are still there.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::commit::{Recorded, record};
use super::depot::Depot;
use super::error::WorkspaceError;
use super::find::RevisionReference;
use super::list::RevisionSummary;
use crate::base::{Monotonic, RevisionId, WorkspaceName};
use crate::objects::{Key, Prefix};
use crate::store::revision::{self, Revision, RevisionCounts, RevisionRef, Tombstone};
use crate::store::view::evictions;
use crate::store::{StoreError, small};

/// How many small objects are fetched at the same time.
const FETCHES: usize = 16;

/// A revision that was removed and whose record is still there.
#[derive(Debug)]
pub struct RemovedRevision {
    /// The revision.
    pub revision: RevisionRef,
    /// When it was removed, by the clock of whoever did; `None` where the tombstone cannot be understood.
    pub removed: Option<Timestamp>,
    /// What its record says, or why it cannot be read.
    pub record: Result<RevisionSummary, StoreError>,
}

/// What an undo did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoReport {
    /// The new revision.
    pub revision: RevisionId,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The removed revision, whose content it has.
    pub removed: RevisionId,
    /// What it counts.
    pub counts: RevisionCounts,
    /// Revisions that have been made of the removed one before, and have its content already.
    pub earlier: Vec<RevisionId>,
    /// Bytes of packs that had to be written, because what held the chunks is about to be deleted.
    pub uploaded_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// A removed revision as listings show it, and when it was removed.
type Buried = (RevisionRef, Option<Timestamp>);

/// Lists removed revisions whose records are still there: of one workspace, or of all; those removed last come last, and of those
/// removed together the newest. Whether their bytes are there as well, only an undo finds out.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn removed(
    depot: &Depot,
    workspace: Option<&WorkspaceName>,
) -> Result<Vec<RemovedRevision>, WorkspaceError> {
    let buried = buried(depot, workspace).await?;
    let mut records = stream::iter(buried)
        .map(|(revision, removed)| async move {
            let record = revision::read(&*depot.objects, &revision).await;
            (revision, removed, record)
        })
        .buffered(FETCHES);
    let mut found = Vec::new();
    while let Some((revision, removed, record)) = records.next().await {
        let record = match record {
            Ok(Some(record)) => Ok(RevisionSummary::from(&record)),
            // A collector forgot it meanwhile.
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        found.push(RemovedRevision { revision, removed, record });
    }
    Ok(found)
}

/// Finds the removed revision that is meant: of a bare name the newest of those that were removed last.
///
/// # Errors
///
/// Fails where there is none, or one that was not removed; where the beginning of an id fits several; and where the store does not
/// answer.
pub async fn find_removed(
    depot: &Depot,
    reference: &RevisionReference,
) -> Result<RevisionRef, WorkspaceError> {
    let name = match reference {
        RevisionReference::Name(name) | RevisionReference::NameId(name, _) => name,
    };
    let of_name = buried(depot, Some(name)).await?;
    let found = match reference {
        RevisionReference::Name(_) if !of_name.is_empty() => of_name.last().map(|(last, _)| last.clone()),
        RevisionReference::Name(_) => reference.only_by_id(&refs(buried(depot, None).await?))?,
        RevisionReference::NameId(..) => reference.only_by_id(&refs(of_name))?,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    let is_there = super::find::find(depot, reference).await.is_ok();
    Err(WorkspaceError::NotRemoved { name: reference.to_string(), is_there })
}

fn refs(buried: Vec<Buried>) -> Vec<RevisionRef> {
    buried.into_iter().map(|(revision, _)| revision).collect()
}

/// Reads the tombstones of revisions whose records are there and count.
async fn buried(depot: &Depot, workspace: Option<&WorkspaceName>) -> Result<Vec<Buried>, WorkspaceError> {
    let objects = &depot.objects;
    let below = |top: &str| match workspace {
        Some(name) => Prefix::new(format!("{top}/{name}")),
        None => Prefix::new(top),
    };
    let tombstones =
        objects.list(&below("removed").map_err(StoreError::from)?).await.map_err(StoreError::from)?;
    if tombstones.is_empty() {
        return Ok(Vec::new());
    }
    let mut tombstones: BTreeMap<(String, String), Key> = tombstones
        .into_iter()
        .filter_map(|object| {
            let mut segments = object.key.segments().skip(1);
            Some(((segments.next()?.to_owned(), segments.next()?.to_owned()), object.key.clone()))
        })
        .collect();
    let listed = objects.list(&below("rev").map_err(StoreError::from)?).await.map_err(StoreError::from)?;
    let mut found: Vec<(RevisionRef, Key)> = listed
        .iter()
        .filter_map(|object| RevisionRef::of_key(&object.key))
        .filter_map(|revision| {
            let tombstone = tombstones.remove(&(revision.workspace.to_string(), revision.id.to_string()))?;
            Some((revision, tombstone))
        })
        .collect();
    let evictions =
        evictions(&**objects, &found.iter().map(|(revision, _)| revision.session).collect()).await?;
    found.retain(|(revision, _)| {
        revision.key().is_ok_and(|key| evictions.revision_counts(revision.session, key.as_str()))
    });
    let mut buried: Vec<Buried> = stream::iter(found)
        .map(|(revision, tombstone)| async move {
            let bytes = small::read(&**objects, &tombstone, small::NOTE_BYTES).await?;
            let tombstone = bytes.and_then(|bytes| serde_json::from_slice::<Tombstone>(&bytes).ok());
            Ok::<_, StoreError>((revision, tombstone.map(|tombstone| tombstone.removed)))
        })
        .buffer_unordered(FETCHES)
        .try_collect()
        .await?;
    buried.sort_by(|(one, one_removed), (other, other_removed)| {
        (one_removed, one.id, one).cmp(&(other_removed, other.id, other))
    });
    Ok(buried)
}

/// Brings a removed revision back: its content becomes a new revision of its workspace, with its labels, and therefore the newest one.
/// Nothing is read but what a collector is about to delete. The removed revision itself stays removed.
///
/// The record is the commit point. Before it nothing is there, or packs that nobody names and `kiln gc` reclaims.
///
/// # Errors
///
/// Fails where the record or a chunk is gone, because the collector's grace is over; where a chunk that has to be copied is damaged;
/// and where the store does not answer or cannot be written.
pub async fn undo(depot: &Depot, removed: &RevisionRef) -> Result<UndoReport, WorkspaceError> {
    let clock = Monotonic::start();
    let name = || format!("{}@{}", removed.workspace, removed.id);
    let Some(source) = revision::read(&*depot.objects, removed).await? else {
        return Err(WorkspaceError::NotRemoved { name: name(), is_there: false });
    };
    let earlier = same_content(depot, &source).await?;
    let draft = Revision { parent: Some(source.id), ..source };
    let recorded = record(depot, "undo", draft, 0).await;
    let Recorded { revision, uploaded_bytes } = recorded.map_err(|error| match error {
        WorkspaceError::Store(source @ (StoreError::Lost { .. } | StoreError::NotFound { .. })) => {
            WorkspaceError::Collected { revision: name(), source }
        }
        error => error,
    })?;
    Ok(UndoReport {
        revision: revision.id,
        workspace: revision.workspace,
        removed: removed.id,
        counts: revision.counts,
        earlier,
        uploaded_bytes,
        took: clock.elapsed(),
    })
}

/// Returns the revisions that were made of a removed one and have its content.
async fn same_content(depot: &Depot, removed: &Revision) -> Result<Vec<RevisionId>, WorkspaceError> {
    let mut later = revision::list(&*depot.objects, Some(&removed.workspace)).await?;
    later.retain(|revision| revision.id > removed.id);
    let made = stream::iter(later)
        .map(|later| async move {
            // One that cannot be read is not known to be one.
            let read = revision::read(&*depot.objects, &later).await.ok().flatten();
            let is_such =
                |read: &Revision| read.parent == Some(removed.id) && read.manifest == removed.manifest;
            read.filter(is_such).map(|read| read.id)
        })
        .buffered(FETCHES)
        .filter_map(std::future::ready)
        .collect();
    Ok(made.await)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::base::{Classify as _, Discard, ErrorKind};
    use crate::store::gc::{GcSpec, collect};
    use crate::store::view::Condemned;
    use crate::workspace::tests::{Place, seen};
    use crate::workspace::{RestoreSpec, SaveSpec, Selection, list, remove, show};

    async fn saved(place: &Place, labels: &[(&str, &str)]) -> RevisionRef {
        place.write("tree/a", "text ".repeat(100_000));
        place.write("tree/b/c", "small");
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let spec = SaveSpec { labels, ..SaveSpec::new("w".parse().unwrap()) };
        place.try_save("tree", &spec).await.unwrap();
        place.newest().await
    }

    async fn found(place: &Place, text: &str) -> Result<RevisionRef, WorkspaceError> {
        find_removed(&place.depot, &text.parse().unwrap()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_removed_comes_back_as_the_newest_with_its_labels() {
        let place = Place::new();
        let first = saved(&place, &[("env", "prod")]).await;
        let tree = seen(&place.path("tree"));
        let second = saved(&place, &[]).await;
        remove(&place.depot, &Selection::One(first.clone())).await.unwrap();
        let there = removed(&place.depot, None).await.unwrap();
        assert_eq!(there.len(), 1);
        assert_eq!((&there[0].revision, there[0].record.as_ref().unwrap().counts.files), (&first, 2));
        assert!(there[0].removed.is_some());
        let report = undo(&place.depot, &first).await.unwrap();
        assert_eq!((report.removed, report.uploaded_bytes, report.earlier.len()), (first.id, 0, 0));
        let newest = place.newest().await;
        assert!(newest.id == report.revision && newest.id > second.id);
        let (old, new) =
            (show(&place.depot, &first).await.unwrap(), show(&place.depot, &newest).await.unwrap());
        assert_eq!((&new.labels, &new.source, new.counts), (&old.labels, &old.source, old.counts));
        assert_eq!((new.parent, new.manifest), (Some(first.id), old.manifest));
        // The removed one stays removed, and an undo of it is told that there was one.
        assert_eq!(list(&place.depot, None).await.unwrap().len(), 2);
        let again = undo(&place.depot, &first).await.unwrap();
        assert_eq!(again.earlier, [report.revision]);
        place.try_restore("back", &RestoreSpec::default()).await.unwrap();
        assert_eq!(seen(&place.path("back")), tree);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_means_the_newest_of_those_that_were_removed_last() {
        let place = Place::new();
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(saved(&place, &[]).await);
        }
        remove(&place.depot, &Selection::One(all[3].clone())).await.unwrap();
        std::thread::sleep(Duration::from_millis(5));
        remove(&place.depot, &Selection::All(all[0].workspace.clone())).await.unwrap();
        assert_eq!(found(&place, "w").await.unwrap(), all[2]);
        assert_eq!(found(&place, &format!("w@{}", all[3].id)).await.unwrap(), all[3]);
        assert_eq!(found(&place, &all[0].id.to_string()).await.unwrap(), all[0]);
        let order: Vec<RevisionId> =
            removed(&place.depot, None).await.unwrap().into_iter().map(|it| it.revision.id).collect();
        assert_eq!(order, [all[3].id, all[0].id, all[1].id, all[2].id]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_not_removed_or_is_forgotten_cannot_be_brought_back() {
        let place = Place::new();
        let revision = saved(&place, &[]).await;
        for text in ["w".to_owned(), revision.id.to_string(), format!("w@{}", revision.id)] {
            let error = found(&place, &text).await.unwrap_err();
            assert!(matches!(error, WorkspaceError::NotRemoved { is_there: true, .. }), "{text}: {error:?}");
        }
        let error = found(&place, "none").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        remove(&place.depot, &Selection::One(revision.clone())).await.unwrap();
        place.depot.objects.delete(&[revision.key().unwrap()]).await.unwrap();
        assert!(removed(&place.depot, None).await.unwrap().is_empty());
        assert_eq!(undo(&place.depot, &revision).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn chunks_are_copied_out_of_what_is_condemned_and_missed_where_it_is_deleted() {
        let place = Place::new();
        let revision = saved(&place, &[]).await;
        let record = show(&place.depot, &revision).await.unwrap();
        remove(&place.depot, &Selection::One(revision.clone())).await.unwrap();
        let packs: Vec<Key> = record.packs.iter().map(|info| info.pack.key().unwrap()).collect();
        let list = Condemned {
            version: 1,
            packs: packs.iter().map(ToString::to_string).collect(),
            ..Condemned::default()
        };
        let key = Key::new("gc/run").unwrap();
        let objects = Arc::clone(&place.depot.objects);
        objects.put(&key, serde_json::to_vec(&list).unwrap().into()).await.unwrap();
        let report = undo(&place.depot, &revision).await.unwrap();
        assert!(report.uploaded_bytes > 0);
        let mut out = Vec::new();
        let copied = show(&place.depot, &place.newest().await).await.unwrap();
        assert!(copied.packs.iter().all(|info| !packs.contains(&info.pack.key().unwrap())));
        objects.delete(&packs).await.unwrap();
        let path = crate::store::EntryPath::new("a").unwrap();
        crate::workspace::cat(&place.depot, &copied, &path, None, &mut out).await.unwrap();
        assert_eq!(out.len(), 500_000);
        // Once the copy is gone as well, nothing is left to bring back.
        let copies: Vec<Key> = copied.packs.iter().map(|info| info.pack.key().unwrap()).collect();
        let list =
            Condemned { packs: copies.iter().chain(&packs).map(ToString::to_string).collect(), ..list };
        objects.put(&key, serde_json::to_vec(&list).unwrap().into()).await.unwrap();
        objects.delete(&copies).await.unwrap();
        let error = undo(&place.depot, &revision).await.unwrap_err();
        assert!(matches!(error, WorkspaceError::Collected { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        for prefix in ["sess", "beat"] {
            assert!(objects.list(&Prefix::new(prefix).unwrap()).await.unwrap().is_empty());
        }
    }

    /// The whole way: removed, condemned, brought back, and what is brought back outlives the deletion of what it was made of.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_brought_back_within_the_grace_outlives_it() {
        let place = Place::new();
        let revision = saved(&place, &[]).await;
        let collected = async |grace: Duration| {
            let spec = GcSpec { grace, ..GcSpec::default() };
            let (cache, cancel) = (place.depot.index_cache(), CancellationToken::new());
            collect(&place.depot.objects, &cache, &spec, &Discard, &cancel).await.unwrap()
        };
        remove(&place.depot, &Selection::One(revision.clone())).await.unwrap();
        assert!(collected(Duration::from_hours(1)).await.condemned.0 > 0);
        let report = undo(&place.depot, &revision).await.unwrap();
        assert!(report.uploaded_bytes > 0);
        let second = collected(Duration::ZERO).await;
        assert!(second.deleted.0 > 0 && second.forgotten == 1 && second.lost.is_empty(), "{second:?}");
        place.try_restore("back", &RestoreSpec::default()).await.unwrap();
        assert_eq!(seen(&place.path("back")), seen(&place.path("tree")));
        assert_eq!(undo(&place.depot, &revision).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
