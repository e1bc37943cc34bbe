//! The revisions that there are.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};

use super::depot::Depot;
use super::error::WorkspaceError;
use super::mark::{Pin, pins};
use crate::base::{Classify as _, ErrorKind, RevisionId, WorkspaceName};
use crate::store::StoreError;
use crate::store::revision::{self, Revision, RevisionCounts, RevisionRef};

/// How many records are fetched at the same time.
const FETCHES: usize = 16;

/// A revision as a list shows it.
#[derive(Debug)]
pub struct ListedRevision {
    /// The revision.
    pub revision: RevisionRef,
    /// The pin that holds it, if one does.
    pub pin: Option<Pin>,
    /// What its record says, or why it cannot be read.
    pub record: Result<RevisionSummary, StoreError>,
}

/// What a record says, without the lists of chunks and packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionSummary {
    /// The revision that it was made from, if any.
    pub parent: Option<RevisionId>,
    /// When it was saved, by its writer's clock.
    pub created: jiff::Timestamp,
    /// What was saved, for people.
    pub source: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it counts.
    pub counts: RevisionCounts,
    /// How many files changed while they were read.
    pub unsettled: u64,
    /// How many packs hold its chunks. Others hold chunks in the same packs.
    pub packs: u64,
    /// The sum of the sizes of these packs, in bytes.
    pub pack_bytes: u64,
}

impl From<&Revision> for RevisionSummary {
    fn from(record: &Revision) -> Self {
        Self {
            parent: record.parent,
            created: record.created,
            source: record.source.clone(),
            labels: record.labels.clone(),
            counts: record.counts,
            unsettled: record.unsettled,
            packs: record.packs.len() as u64,
            pack_bytes: record.packs.iter().map(|info| info.size).sum(),
        }
    }
}

/// A workspace as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSummary {
    /// Its name.
    pub workspace: WorkspaceName,
    /// Its newest revision.
    pub newest: RevisionRef,
    /// How many revisions it has.
    pub revisions: u64,
    /// How many of them are pinned.
    pub pinned: u64,
    /// How many of their records cannot be read.
    pub damaged: u64,
    /// The sum of the sizes of the files of its newest readable revision, holes included.
    pub bytes: u64,
    /// How many files that one has.
    pub files: u64,
}

/// Lists revisions, sorted by workspace and id: of one workspace, or of all. A record that is damaged is listed as such and hides
/// no other. One that is removed meanwhile is left out.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn list(
    depot: &Depot,
    workspace: Option<&WorkspaceName>,
) -> Result<Vec<ListedRevision>, WorkspaceError> {
    let found = revision::list(&*depot.objects, workspace).await?;
    let mut pins = pins(depot, workspace).await?;
    let mut records = stream::iter(found)
        .map(|found| async move {
            let record = revision::read(&*depot.objects, &found).await;
            (found, record)
        })
        .buffered(FETCHES);
    let mut listed = Vec::new();
    while let Some((revision, record)) = records.next().await {
        let record = match record {
            Ok(Some(record)) => Ok(RevisionSummary::from(&record)),
            Ok(None) => continue,
            // Whatever is wrong with one record hides no other.
            Err(error) => Err(error),
        };
        let pin = pins.remove(&(revision.workspace.clone(), revision.id));
        listed.push(ListedRevision { revision, pin, record });
    }
    Ok(listed)
}

/// Lists revisions for whoever decides by what their records say: as [`list`], but where a record could not be read although it may be
/// sound, because the store does not answer, that is an error.
///
/// # Errors
///
/// Fails where the store does not answer.
pub(super) async fn list_or_fail(
    depot: &Depot,
    workspace: Option<&WorkspaceName>,
) -> Result<Vec<ListedRevision>, WorkspaceError> {
    let listed = list(depot, workspace).await?.into_iter().map(|listed| match listed.record {
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(error.into()),
        Ok(_) | Err(_) => Ok(listed),
    });
    listed.collect()
}

/// Sums a list up by workspace, sorted by name.
#[must_use]
pub fn summarize(listed: &[ListedRevision]) -> Vec<WorkspaceSummary> {
    let mut summaries: Vec<WorkspaceSummary> = Vec::new();
    for ListedRevision { revision, pin, record } in listed {
        if summaries.last().is_none_or(|last| last.workspace != revision.workspace) {
            summaries.push(WorkspaceSummary {
                workspace: revision.workspace.clone(),
                newest: revision.clone(),
                revisions: 0,
                pinned: 0,
                damaged: 0,
                bytes: 0,
                files: 0,
            });
        }
        let Some(summary) = summaries.last_mut() else { continue };
        summary.newest = revision.clone();
        summary.revisions += 1;
        summary.pinned += u64::from(pin.is_some());
        match record {
            Ok(record) => (summary.bytes, summary.files) = (record.counts.bytes, record.counts.files),
            Err(_damaged) => summary.damaged += 1,
        }
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::SaveSpec;
    use crate::workspace::mark::pin;
    use crate::workspace::tests::Place;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_record_is_listed_as_such_and_hides_no_other() {
        let place = Place::new();
        place.write("tree/a", "12345");
        place.save("tree").await;
        let damaged = place.newest().await;
        let key = damaged.key().unwrap();
        let mut bytes = place.depot.objects.get(&key).await.unwrap().unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        place.depot.objects.put(&key, bytes.into()).await.unwrap();
        place.save("tree").await;
        let spec = SaveSpec {
            labels: [("task".to_owned(), "7".to_owned())].into(),
            ..SaveSpec::new("v".parse().unwrap())
        };
        place.try_save("tree", &spec).await.unwrap();
        let newest = place.newest().await;
        pin(&place.depot, &newest, "a release").await.unwrap();
        let listed = list(&place.depot, None).await.unwrap();
        let shown: Vec<(&str, bool)> =
            listed.iter().map(|it| (it.revision.workspace.as_str(), it.record.is_ok())).collect();
        assert_eq!(shown, [("v", true), ("w", false), ("w", true)]);
        assert_eq!(listed[0].record.as_ref().unwrap().labels["task"], "7");
        assert_eq!(listed[2].pin.as_ref().unwrap().reason, "a release");
        let summaries = summarize(&listed);
        let w = &summaries[1];
        assert_eq!((w.revisions, w.damaged, w.pinned, w.bytes, w.files), (2, 1, 1, 5, 1));
        assert_eq!(w.newest, newest);
        assert_eq!(list(&place.depot, Some(&"v".parse().unwrap())).await.unwrap().len(), 1);
        assert_eq!(list(&place.depot, Some(&"none".parse().unwrap())).await.unwrap().len(), 0);
    }
}
