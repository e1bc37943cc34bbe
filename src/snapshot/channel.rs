//! Promote, roll back, history.

use super::{BakeError, Workbench};
use crate::base::{ChannelName, SnapshotName, now};
use crate::catalog::{CatalogError, ChannelMove, Snapshot, SnapshotRef, State, Way, held};

impl Workbench {
    /// Moves `channel` to the snapshot that `reference` names. Only an active snapshot can be promoted.
    ///
    /// # Errors
    ///
    /// Fails when there is no such snapshot, it is not active, or the catalog does not answer.
    pub async fn promote(
        &self,
        reference: &SnapshotRef,
        channel: &ChannelName,
    ) -> Result<ChannelMove, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        self.promote_snapshot(&snapshot, channel).await
    }

    pub(super) async fn promote_snapshot(
        &self,
        snapshot: &Snapshot,
        channel: &ChannelName,
    ) -> Result<ChannelMove, BakeError> {
        if snapshot.state() != State::Active {
            let action = format!("promoting it to `{channel}`");
            return Err(CatalogError::State { id: snapshot.id(), state: snapshot.state(), action }.into());
        }
        if let Some(revoked) = self.catalog.revoked_below(snapshot).await? {
            let why = revoked
                .states
                .iter()
                .rfind(|entry| entry.state == State::Revoked)
                .and_then(|entry| entry.reason.as_ref());
            let why = why.map_or_else(String::new, |reason| format!(": {reason}"));
            return Err(BakeError::Conflict(format!(
                "{} is built on {}, which was revoked{why}",
                snapshot.reference(),
                revoked.reference()
            )));
        }
        Ok(self.catalog.move_channel(&snapshot.record.name, channel, snapshot.id(), Way::On, now()).await?)
    }

    /// Moves `channel` back to the last snapshot that it held before the present one and that is still active.
    ///
    /// # Errors
    ///
    /// Fails when the channel has no such snapshot, or the catalog does not answer.
    pub async fn rollback(
        &self,
        name: &SnapshotName,
        channel: &ChannelName,
    ) -> Result<ChannelMove, BakeError> {
        let moves = self.catalog.channel_moves(name, Some(channel)).await?;
        if moves.is_empty() {
            let reference = format!("{name}:{channel}");
            return Err(CatalogError::NotFound {
                reference,
                detail: ", and no such channel".into(),
                nearest: None,
            }
            .into());
        }
        for id in held(&moves).into_iter().rev().skip(1) {
            let Some(snapshot) = self.catalog.load(id).await? else { continue };
            if snapshot.state() == State::Active && self.catalog.revoked_below(&snapshot).await?.is_none() {
                return Ok(self.catalog.move_channel(name, channel, id, Way::Back, now()).await?);
            }
        }
        Err(BakeError::Conflict(format!(
            "the channel `{name}:{channel}` held no other snapshot that is still active"
        )))
    }
}
