//! Makes sure that a name has an active snapshot whose image is on this engine.

use super::{BakeError, BakeReport, Workbench};
use crate::base::{SnapshotName, now};
use crate::catalog::{CatalogError, PlaceState, Snapshot, State, StateEntry};

/// What stands in the way of using a name now.
#[derive(Debug)]
pub enum Standing {
    /// Nothing: the newest snapshot is active, perhaps again, and its image is here.
    Ready(Box<BakeReport>),
    /// The image is not here: the snapshot has to be baked again, from what its record says.
    Missing(Box<Snapshot>),
}

impl Workbench {
    /// Looks for the newest snapshot of a name that is active or was put aside; one that was put aside, and whose image is here, is made
    /// active again.
    ///
    /// # Errors
    ///
    /// Fails where the name has no such snapshot, and where the engine or the catalog does not answer.
    pub async fn stand_up(&self, name: &SnapshotName) -> Result<Standing, BakeError> {
        let snapshots = self.catalog.of_name(name).await?;
        let newest =
            snapshots.iter().rfind(|snapshot| matches!(snapshot.state(), State::Active | State::Inactive));
        let Some(newest) = newest else {
            let detail = match snapshots.last() {
                Some(last) => format!(
                    " that can be used; the newest is {}, which is {}",
                    last.reference(),
                    last.state()
                ),
                None => String::new(),
            };
            return Err(CatalogError::NotFound { reference: name.to_string(), detail, nearest: None }.into());
        };
        let Some(image) = self.present(newest).await? else {
            return Ok(Standing::Missing(Box::new(newest.clone())));
        };
        let mut snapshot = newest.clone();
        if newest.state() == State::Inactive {
            let reason = Some("it is needed again".to_owned());
            let entry = StateEntry { reason, ..StateEntry::to(State::Active, now()) };
            self.transition(newest, &entry, "making it active again").await?;
            snapshot = self.reload(newest.id()).await?;
        }
        let place = snapshot
            .places
            .iter()
            .find(|place| place.image == image.id && place.state == PlaceState::Present)
            .cloned();
        let place = place.ok_or_else(|| {
            BakeError::Internal(format!("{} has no place of its image", snapshot.reference()))
        })?;
        Ok(Standing::Ready(Box::new(BakeReport {
            snapshot,
            reused: true,
            image: image.id,
            tag: place.tag,
            engine: place.engine,
            channels: Vec::new(),
            notices: Vec::new(),
        })))
    }
}
