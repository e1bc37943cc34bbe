//! Drops a snapshot, and its image on this engine.

use serde::Serialize;

use super::{BakeError, Workbench};
use crate::base::{EngineId, SnapshotId, SnapshotName, now};
use crate::catalog::{PlaceRecord, PlaceState, SnapshotRef, State, StateEntry};

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoveReport {
    /// The snapshot, as `name@id`.
    pub reference: String,
    /// The state that it is in now: `removed`, or `removing` while other engines have its image.
    pub state: State,
    /// The reference that was taken away on this engine.
    pub untagged: Option<String>,
    /// Whether the image went with it; it stays where another reference or a snapshot of the same build holds it.
    pub image_deleted: bool,
    /// Other engines that have its image.
    pub left_on: Vec<EngineId>,
}

impl Workbench {
    /// Removes a snapshot: its image on this engine first, its name after that. A crash in between leaves it `removing`, and
    /// removing it again goes on.
    ///
    /// # Errors
    ///
    /// Refuses a snapshot that is being baked, is pinned or (unless revoked) held by a channel, or whose image a container uses.
    pub async fn remove(&self, reference: &SnapshotRef) -> Result<RemoveReport, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        let (id, name) = (snapshot.id(), snapshot.record.name.clone());
        if snapshot.marks.pinned {
            return Err(BakeError::Conflict(format!(
                "{} is pinned; `kiln snapshot unpin` takes the pin back",
                snapshot.reference()
            )));
        }
        // A revoked snapshot may go although a channel holds it: nobody is offered it any more.
        let held = self.catalog.channels().await?.into_iter().find(|held| held.snapshot == id);
        if let Some(held) = held.filter(|_| snapshot.state() != State::Revoked) {
            let channel = held.channel;
            return Err(BakeError::Conflict(format!(
                "{} is held by the channel `{name}:{channel}`; promote another snapshot first",
                snapshot.reference()
            )));
        }
        let info = self.engine.info().await?;
        let tag = self.tag_of(&name, id);
        let image = self.own_image(&tag).await?;
        if let Some(image) = &image {
            // A container inherits the labels of its image. The engine would refuse as well, but only after the state had changed.
            let ours = self.engine.containers(&format!("kiln.store={}", self.store)).await?;
            if let Some(user) = ours.iter().find(|container| container.image == Some(image.id)) {
                let message =
                    format!("the container `{}` uses the image of {}", user.name, snapshot.reference());
                return Err(BakeError::Conflict(message));
            }
        }
        if !matches!(snapshot.state(), State::Removing | State::Removed) {
            self.transition(&snapshot, &StateEntry::to(State::Removing, now()), "removing it").await?;
        }
        let mut untagged = None;
        let mut image_deleted = false;
        if let Some(image) = image {
            self.engine.untag(&tag).await?;
            image_deleted = self.engine.image(&image.id.to_string()).await?.is_none();
            untagged = Some(tag.clone());
            let place = PlaceRecord {
                version: 1,
                engine: info.id.clone(),
                endpoint: info.endpoint.clone(),
                image: image.id,
                tag,
                state: PlaceState::Gone,
                verified_at: now(),
                last_used: None,
            };
            self.catalog.add_place(id, &place).await?;
        }
        let left_on: Vec<EngineId> = snapshot
            .places
            .iter()
            .filter(|place| place.state == PlaceState::Present && place.engine != info.id)
            .map(|place| place.engine.clone())
            .collect();
        let mut state = State::Removing;
        if left_on.is_empty() {
            self.catalog.transition(id, &StateEntry::to(State::Removed, now())).await?;
            state = State::Removed;
        }
        Ok(RemoveReport { reference: snapshot.reference(), state, untagged, image_deleted, left_on })
    }

    /// Returns the reference that the image of a snapshot has on every engine.
    pub(super) fn tag_of(&self, name: &SnapshotName, id: SnapshotId) -> String {
        format!("kiln/{name}:{id}")
    }

    /// Returns the image that `reference` names, if it is there and carries this store's label; one of another store is foreign.
    pub(super) async fn own_image(
        &self,
        reference: &str,
    ) -> Result<Option<crate::docker::ImageInfo>, BakeError> {
        let image = self.engine.image(reference).await?;
        let ours = self.store.to_string();
        Ok(image.filter(|image| image.labels.get("kiln.store") == Some(&ours)))
    }
}
