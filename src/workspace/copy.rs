//! A revision of another workspace with the same content: a fork that uploads nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::commit::{Recorded, record};
use super::depot::Depot;
use super::error::WorkspaceError;
use crate::base::{Monotonic, RevisionId, WorkspaceName};
use crate::store::revision::{Revision, RevisionCounts};

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyReport {
    /// The new revision.
    pub revision: RevisionId,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The revision that it is a copy of.
    pub parent: RevisionId,
    /// What it counts.
    pub counts: RevisionCounts,
    /// Bytes of packs that had to be written, because what held the chunks is about to be deleted: mostly none.
    pub uploaded_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Records the content of a revision as a new revision, of the same workspace or of another. `labels` are the new one's own.
///
/// The record is the commit point. Before it nothing is there, or packs that nobody names and `kiln gc` reclaims.
///
/// # Errors
///
/// Fails where the store does not answer or cannot be written, and where a chunk that has to be copied is damaged or lost.
pub async fn copy(
    depot: &Depot,
    source: &Revision,
    workspace: &WorkspaceName,
    labels: BTreeMap<String, String>,
) -> Result<CopyReport, WorkspaceError> {
    let clock = Monotonic::start();
    let draft = Revision {
        workspace: workspace.clone(),
        parent: Some(source.id),
        source: format!("{}@{}", source.workspace, source.id),
        labels,
        ..source.clone()
    };
    let Recorded { revision, uploaded_bytes } = record(depot, "copy", draft, 0).await?;
    Ok(CopyReport {
        revision: revision.id,
        workspace: revision.workspace,
        parent: source.id,
        counts: revision.counts,
        uploaded_bytes,
        took: clock.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::objects::Prefix;
    use crate::workspace::tests::Place;
    use crate::workspace::{find, show};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_uploads_nothing_and_lives_on_its_own() {
        let place = Place::new();
        place.write("tree/a", "text ".repeat(100_000));
        place.save("tree").await;
        let source = place.newest().await;
        let record = show(&place.depot, &source).await.unwrap();
        let stored = |below: &'static str| {
            let objects = Arc::clone(&place.depot.objects);
            async move { objects.list(&Prefix::new(below).unwrap()).await.unwrap().len() }
        };
        let before = (stored("packs").await, stored("meta").await, stored("idx").await);
        let labels = BTreeMap::from([("fork".to_owned(), "yes".to_owned())]);
        let fork = "fork".parse().unwrap();
        let report = copy(&place.depot, &record, &fork, labels.clone()).await.unwrap();
        assert_eq!((report.uploaded_bytes, report.parent), (0, source.id));
        assert_eq!((stored("packs").await, stored("meta").await, stored("idx").await), before);
        assert_eq!((stored("sess").await, stored("beat").await), (0, 0));
        let found = find(&place.depot, &"fork".parse().unwrap()).await.unwrap();
        let copied = show(&place.depot, &found).await.unwrap();
        assert_eq!(copied.id, report.revision);
        assert_eq!((copied.labels, copied.parent), (labels, Some(source.id)));
        assert_eq!((copied.manifest, copied.packs), (record.manifest.clone(), record.packs.clone()));
        // A copy into the same workspace is its newest revision.
        let again = copy(&place.depot, &record, &source.workspace, BTreeMap::new()).await.unwrap();
        assert!(again.revision > source.id);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_of_what_is_condemned_is_written_anew() {
        let place = Place::new();
        place.write("tree/a", "text ".repeat(100_000));
        place.save("tree").await;
        let record = show(&place.depot, &place.newest().await).await.unwrap();
        let packs = record.packs.iter().map(|info| info.pack.key().unwrap().to_string()).collect();
        let list = crate::store::view::Condemned { version: 1, condemned: None, packs };
        let key = crate::objects::Key::new("gc/run").unwrap();
        place.depot.objects.put(&key, serde_json::to_vec(&list).unwrap().into()).await.unwrap();
        let report = copy(&place.depot, &record, &"fork".parse().unwrap(), BTreeMap::new()).await.unwrap();
        assert!(report.uploaded_bytes > 0);
        for info in &record.packs {
            place.depot.objects.delete(&[info.pack.key().unwrap()]).await.unwrap();
        }
        let found = find(&place.depot, &"fork".parse().unwrap()).await.unwrap();
        let copied = show(&place.depot, &found).await.unwrap();
        let path = crate::store::EntryPath::new("a").unwrap();
        let mut out = Vec::new();
        crate::workspace::cat(&place.depot, &copied, &path, None, &mut out).await.unwrap();
        assert_eq!(out.len(), 500_000);
    }
}
