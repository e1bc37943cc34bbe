//! The end of every save: the record, the look whether the session still counts, and another try where it does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::rebase::rebase;
use super::stage::{Draft, finish_state};
use super::state::StateWriter;
use crate::base::{RevisionId, WorkspaceName, now};
use crate::store::StoreError;
use crate::store::compact::compact;
use crate::store::pack::PackInfo;
use crate::store::revision::{self, Revision, RevisionCounts};
use crate::store::session::{Session, Standing};
use crate::store::writer::ChunkWriter;

/// How often a save that a collector took for dead is tried again.
const TRIES: u32 = 5;

/// What is to be recorded.
#[derive(Debug)]
pub(super) struct Made {
    /// The workspace.
    pub(super) workspace: WorkspaceName,
    /// The revision's labels.
    pub(super) labels: BTreeMap<String, String>,
    /// What was saved, for people.
    pub(super) source: String,
    /// The manifest and its packs.
    pub(super) draft: Draft,
    /// How many files changed while they were read.
    pub(super) unsettled: u64,
    /// What it was made from, where that is not the workspace's newest revision.
    pub(super) parent: Option<RevisionId>,
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Committed {
    /// The revision.
    pub(super) id: RevisionId,
    /// The revision before it, or that it was made from.
    pub(super) parent: Option<RevisionId>,
    /// What it counts.
    pub(super) counts: RevisionCounts,
}

/// Records a revision: the commit point of a save. `writer` has been flushed.
pub(super) async fn commit(
    depot: &Depot,
    session: Session,
    writer: Arc<ChunkWriter>,
    made: Made,
    state: Option<StateWriter>,
) -> Result<Committed, WorkspaceError> {
    let (newest, packs) = match prepare(depot, &writer, &made).await {
        Ok(prepared) => prepared,
        Err(error) => {
            give_up(session, &writer).await;
            return Err(error.into());
        }
    };
    let revision = Revision {
        id: RevisionId::after(newest, now()),
        workspace: made.workspace,
        session: session.id(),
        parent: made.parent.or(newest),
        created: now(),
        source: made.source,
        labels: made.labels,
        counts: made.draft.counts,
        unsettled: made.unsettled,
        manifest: made.draft.manifest,
        packs,
    };
    // Where this fails the record may be there all the same, and then needs the session until a collector has seen both.
    let standing = session.commit(&revision).await?;
    if standing == Standing::Good {
        // The revision is acknowledged, and a long list of segments is only slow.
        let _compacted = compact(&session, writer.view(), writer.next_number()).await.is_ok();
    }
    // A session that stays is ended by a collector; the revision is acknowledged all the same.
    let _closed = session.close().await.is_ok();
    if standing == Standing::Good {
        finish_state(state, &writer, revision.id);
        return Ok(Committed { id: revision.id, parent: revision.parent, counts: revision.counts });
    }
    drop(state);
    let again = record(depot, "save", revision, 1).await?;
    Ok(Committed { id: again.revision.id, parent: again.revision.parent, counts: again.revision.counts })
}

/// Returns what the record needs: the newest revision, and what the packs are.
async fn prepare(
    depot: &Depot,
    writer: &ChunkWriter,
    made: &Made,
) -> Result<(Option<RevisionId>, Vec<PackInfo>), StoreError> {
    let newest = newest_of(depot, &made.workspace).await?;
    let infos: Option<Vec<_>> = made.draft.packs.iter().map(|number| writer.info(*number)).collect();
    let packs = infos.ok_or_else(|| StoreError::Local {
        action: "name a pack of this save",
        source: std::io::Error::other("it was not written"),
    })?;
    Ok((newest, packs))
}

/// A revision that was recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The revision.
    pub(super) revision: Revision,
    /// Bytes of packs that had to be written for it.
    pub(super) uploaded_bytes: u64,
}

/// Records a revision of content that is in the store already, each time in a session of its own until one still counts. `tried` of
/// the tries were made before, by a save, which can read its source again.
pub(super) async fn record(
    depot: &Depot,
    job: &'static str,
    mut draft: Revision,
    tried: u32,
) -> Result<Recorded, WorkspaceError> {
    let (mut times, mut uploaded_bytes) = (tried, 0);
    while times < TRIES {
        times += 1;
        let session = Session::open(Arc::clone(&depot.objects), job).await?;
        draft = match rebase(depot, &session, draft).await {
            Ok(draft) => draft,
            Err(error) => {
                session.abandon().await;
                match error {
                    // What a save relied on was deleted after it was taken for dead: only reading everything again helps. Of what is not
                    // read from anywhere else it is lost.
                    WorkspaceError::Store(StoreError::Lost { .. }) if tried > 0 => break,
                    error => return Err(error),
                }
            }
        };
        let own = draft.packs.iter().filter(|info| info.pack.name.session == session.id());
        uploaded_bytes += own.map(|info| info.size).sum::<u64>();
        let (newest, now) = match newest_of(depot, &draft.workspace).await {
            Ok(newest) => (newest, now()),
            Err(error) => {
                session.abandon().await;
                return Err(error.into());
            }
        };
        draft = Revision { id: RevisionId::after(newest, now), session: session.id(), created: now, ..draft };
        // Where this fails the record may be there all the same, and then needs the session until a collector has seen both.
        let standing = session.commit(&draft).await?;
        session.abandon().await;
        if standing == Standing::Good {
            return Ok(Recorded { revision: draft, uploaded_bytes });
        }
    }
    Err(StoreError::Evicted { store: depot.objects.place(), times }.into())
}

/// Ends a save that failed or was cancelled. What it stored is indexed as far as it is in the store, so that the next one finds it.
pub(super) async fn give_up(session: Session, writer: &ChunkWriter) {
    writer.index_uploaded().await;
    session.abandon().await;
}

/// Returns the newest revision of a workspace by its key, removed ones included: a new one has to be later than all.
async fn newest_of(depot: &Depot, workspace: &WorkspaceName) -> Result<Option<RevisionId>, StoreError> {
    revision::newest_key(&*depot.objects, workspace).await
}
