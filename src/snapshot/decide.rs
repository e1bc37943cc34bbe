//! Decides what a bake has to do: nothing, add a place, gate again, or build; and with which builder.

use super::prepare::Prepared;
use super::{BakeError, BakeSpec, BuilderChoice, Workbench};
use crate::base::{ImageId, Length, now};
use crate::catalog::{Snapshot, State};
use crate::docker::{Builder, EngineError, EngineInfo};

/// What is to be done for a key.
#[derive(Debug)]
pub(super) enum Decision {
    /// The snapshot is active and its image is here.
    Reuse(Box<Snapshot>, ImageId),
    /// The snapshot is active and its image is not here: bake it here and add a place.
    Place(Box<Snapshot>),
    /// Another snapshot has the same build, and its image is here: gate and check again.
    Regate { image: ImageId, built: jiff::Timestamp, reason: String },
    /// Build.
    Build { no_cache: bool, reason: String },
}

impl Workbench {
    /// Decides what is to be done, by what the catalog and the engine hold now.
    pub(super) async fn decide(&self, spec: &BakeSpec, prepared: &Prepared) -> Result<Decision, BakeError> {
        if spec.rebuild {
            return Ok(Decision::Build { no_cache: true, reason: "a rebuild was asked for".into() });
        }
        let max_age = spec.max_age.or(prepared.rendered.refresh_after);
        let same_key = self.catalog.of_key(prepared.snapshot_key).await?;
        for snapshot in same_key.iter().rev() {
            // A revocation is for the input, whatever name it was baked under, also after the snapshot was removed.
            if let Some(entry) = snapshot.states.iter().find(|entry| entry.state == State::Revoked) {
                return Err(BakeError::Revoked { id: snapshot.id(), reason: entry.reason.clone() });
            }
            let usable = match snapshot.state() {
                State::Active => true,
                State::Unchecked => spec.skip_checks,
                State::Building
                | State::Checking
                | State::Error
                | State::Inactive
                | State::Revoked
                | State::Removing
                | State::Removed => false,
            };
            // A snapshot of another name is another snapshot.
            if !usable || snapshot.record.name != prepared.name {
                continue;
            }
            if let Some(reason) = too_old(snapshot, max_age) {
                return Ok(Decision::Build { no_cache: true, reason });
            }
            return Ok(match self.present(snapshot).await? {
                Some(image) => Decision::Reuse(Box::new(snapshot.clone()), image.id),
                None if spec.skip_checks => Decision::Build {
                    no_cache: false,
                    reason: "the checked image is not on this engine, and this one is not to be checked"
                        .into(),
                },
                None => Decision::Place(Box::new(snapshot.clone())),
            });
        }
        let mut stale = None;
        for snapshot in self.catalog.of_build(prepared.build_key).await?.iter().rev() {
            if snapshot.states.iter().any(|entry| entry.state == State::Revoked) {
                stale = Some(format!("{} has the same build and was revoked", snapshot.reference()));
                break;
            }
            if !matches!(snapshot.state(), State::Active | State::Unchecked | State::Inactive) {
                continue;
            }
            if let Some(reason) = too_old(snapshot, max_age) {
                stale = Some(reason);
                continue;
            }
            if let Some(image) = self.present(snapshot).await? {
                let reason =
                    format!("{} has the same build; only what surrounds it differs", snapshot.reference());
                return Ok(Decision::Regate { image: image.id, built: snapshot.built(), reason });
            }
        }
        // What the engine has cached is as old as the build that made it.
        let reason = stale.clone().unwrap_or_else(|| "there is no snapshot of this input yet".into());
        Ok(Decision::Build { no_cache: stale.is_some(), reason })
    }

    /// Returns the newest active snapshot of the key and name whose image is here, and that image.
    pub(super) async fn decide_reuse(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<(Snapshot, ImageId)>, BakeError> {
        for snapshot in self.catalog.of_key(prepared.snapshot_key).await?.into_iter().rev() {
            let ours = snapshot.state() == State::Active && snapshot.record.name == prepared.name;
            if ours && let Some(image) = self.present(&snapshot).await? {
                return Ok(Some((snapshot, image.id)));
            }
        }
        Ok(None)
    }
}

fn too_old(snapshot: &Snapshot, max_age: Option<Length>) -> Option<String> {
    let max_age = max_age?;
    let age = now().duration_since(snapshot.built());
    (age.unsigned_abs() > max_age.0 && age.is_positive())
        .then(|| format!("{} is older than {max_age}", snapshot.reference()))
}

/// Chooses the builder by what the engine can do and what the Dockerfile needs.
pub(super) fn choose_builder(
    spec: &BakeSpec,
    prepared: &Prepared,
    info: &EngineInfo,
) -> Result<Builder, BakeError> {
    let features = &info.builders;
    let candidates = match spec.builder {
        BuilderChoice::Only(builder) => vec![builder],
        BuilderChoice::Auto => vec![Builder::Buildkit, Builder::Classic],
    };
    let mut reasons = Vec::new();
    for builder in candidates {
        let missing = match builder {
            Builder::Buildkit if !features.buildkit => {
                Some(format!("engine {} has no BuildKit", info.version))
            }
            Builder::Buildkit => prepared.inspected.missing_in_buildkit(features),
            Builder::Classic => prepared.inspected.missing_in_classic(),
        };
        match missing {
            None => return Ok(builder),
            Some(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    Err(EngineError::Unsupported { reason: reasons.join("; ") }.into())
}
