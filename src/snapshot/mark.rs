//! Pin, unpin, touch, expire, revoke.

use super::{BakeError, Workbench};
use crate::base::{Length, SnapshotId, now};
use crate::catalog::{CatalogError, Mark, Snapshot, SnapshotRef, State, StateEntry};

impl Workbench {
    /// Pins a snapshot: no policy takes it away.
    ///
    /// # Errors
    ///
    /// Fails when there is no such snapshot, or the catalog does not answer.
    pub async fn pin(&self, reference: &SnapshotRef) -> Result<Snapshot, BakeError> {
        self.mark(reference, Mark::Pin).await
    }

    /// Takes the pin back.
    ///
    /// # Errors
    ///
    /// As [`Workbench::pin`].
    pub async fn unpin(&self, reference: &SnapshotRef) -> Result<Snapshot, BakeError> {
        self.mark(reference, Mark::Unpin).await
    }

    /// Says that a snapshot is not needed after a time from now.
    ///
    /// # Errors
    ///
    /// As [`Workbench::pin`].
    pub async fn expire(&self, reference: &SnapshotRef, after: Length) -> Result<Snapshot, BakeError> {
        let at = now()
            .checked_add(after.0)
            .map_err(|source| BakeError::Input(format!("{after} from now is too far away: {source}")))?;
        self.mark(reference, Mark::Expire { at: Some(at) }).await
    }

    /// Records that the snapshot's image was used on this engine now.
    ///
    /// # Errors
    ///
    /// As [`Workbench::pin`]; also when the engine does not answer.
    pub async fn touch(&self, reference: &SnapshotRef) -> Result<Snapshot, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        let engine = self.engine.info().await?.id;
        self.catalog.touch(snapshot.id(), &engine, now()).await?;
        self.reload(snapshot.id()).await
    }

    /// Revokes a snapshot: it is chosen no more, and its input is refused until it is baked anew with `rebuild`.
    ///
    /// # Errors
    ///
    /// As [`Workbench::pin`]; also when its state does not allow it.
    pub async fn revoke(&self, reference: &SnapshotRef, reason: &str) -> Result<Snapshot, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        let entry = StateEntry { reason: Some(reason.to_owned()), ..StateEntry::to(State::Revoked, now()) };
        self.transition(&snapshot, &entry, "revoking it").await?;
        self.reload(snapshot.id()).await
    }

    async fn mark(&self, reference: &SnapshotRef, mark: Mark) -> Result<Snapshot, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        self.catalog.mark(snapshot.id(), mark, now()).await?;
        self.reload(snapshot.id()).await
    }

    /// Makes a transition, or says that the state does not allow it.
    pub(super) async fn transition(
        &self,
        snapshot: &Snapshot,
        entry: &StateEntry,
        action: &str,
    ) -> Result<(), BakeError> {
        let refused = |state| CatalogError::State { id: snapshot.id(), state, action: action.to_owned() };
        if !snapshot.state().allows(entry.state) {
            return Err(refused(snapshot.state()).into());
        }
        if !self.catalog.transition(snapshot.id(), entry).await? {
            let state = self.catalog.state(snapshot.id()).await?.unwrap_or(State::Removed);
            return Err(refused(state).into());
        }
        Ok(())
    }

    pub(super) async fn reload(&self, id: SnapshotId) -> Result<Snapshot, BakeError> {
        let loaded = self.catalog.load(id).await?;
        loaded.ok_or_else(|| BakeError::Internal(format!("the record of {id} is gone")))
    }
}
