//! Bakes whose process has died.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::CHECK_LABEL;
use super::{BakeError, Workbench};
use crate::base::fs::{Existing, remove_durably, write_durably};
use crate::base::{ErrorKind, Liveness, Owner, SnapshotId, now, uptime};
use crate::catalog::{Failure, Snapshot, State, StateEntry};

/// 10 min: a hundred missed beats, longer than any pause of a store or a machine that is still going to come back.
const SILENT_FOR: Duration = Duration::from_secs(600);

/// A heartbeat of another host as this one saw it first.
#[derive(Debug, Serialize, Deserialize)]
struct SeenBeat {
    counter: u64,
    boot: String,
    uptime_seconds: u64,
}

/// What settling did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettleReport {
    /// The snapshots that were settled as failed, as `name@id`.
    pub settled: Vec<String>,
}

impl Workbench {
    /// Finds bakes whose process has died on this host, or is silent for ten minutes on another, records them as failed and deletes what they left on the engine.
    ///
    /// The transition to `error` comes after the deletions, so that a settling which is cut short is done again.
    ///
    /// # Errors
    ///
    /// Fails when the catalog or the engine does not answer.
    pub async fn settle(&self) -> Result<SettleReport, BakeError> {
        let uptime = uptime().map_err(|source| BakeError::Local { path: "/proc/uptime".into(), source })?;
        self.settle_at(uptime).await
    }

    /// As [`Workbench::settle`], with this host's time since boot.
    pub(super) async fn settle_at(&self, uptime: Duration) -> Result<SettleReport, BakeError> {
        let mut report = SettleReport::default();
        // Every bake beats before it builds and takes the beat away at its end, so the beats name all that may need settling.
        for id in self.catalog.beating().await? {
            let Some(snapshot) = self.catalog.load(id).await? else { continue };
            let owner = &snapshot.record.owner;
            let liveness =
                owner.liveness().map_err(|source| BakeError::Local { path: "/proc".into(), source })?;
            let reason = match liveness {
                Liveness::Alive => continue,
                Liveness::Dead => "the process that baked it has ended",
                Liveness::Elsewhere if self.stands_still(id, uptime).await? => {
                    "the process that baked it, on another host, is silent"
                }
                Liveness::Elsewhere => continue,
            };
            if snapshot.state().in_work() {
                self.settle_one(&snapshot, reason).await?;
                report.settled.push(snapshot.reference());
            } else {
                if snapshot.state() == State::Error {
                    // It failed and could not clean up, because the engine was gone.
                    self.clear(id, &self.tag_of(&snapshot.record.name, id)).await?;
                }
                self.catalog.end_beat(id).await?;
            }
        }
        Ok(report)
    }

    /// Returns whether the heartbeat of a bake on another host has stood still for [`SILENT_FOR`] by this host's clock, which is
    /// compared with itself alone: between two looks, also of two processes, the counter must not have moved.
    async fn stands_still(&self, id: SnapshotId, uptime: Duration) -> Result<bool, BakeError> {
        let Some(beat) = self.catalog.last_beat(id).await? else { return Ok(false) };
        let path = self.state_dir.join("beats").join(id.to_string());
        let local = |source| BakeError::Local { path: path.clone(), source };
        let boot = Owner::current().map_err(local)?.boot;
        let seen =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<SeenBeat>(&bytes).ok());
        match seen.filter(|seen| seen.counter == beat.counter && seen.boot == boot) {
            Some(seen) if uptime.as_secs().saturating_sub(seen.uptime_seconds) >= SILENT_FOR.as_secs() => {
                remove_durably(&path).map_err(local)?;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => {
                let seen = SeenBeat { counter: beat.counter, boot, uptime_seconds: uptime.as_secs() };
                let bytes = serde_json::to_vec(&seen).map_err(|error| local(error.into()))?;
                write_durably(&path, &bytes, Existing::Replace).map_err(local)?;
                Ok(false)
            }
        }
    }

    /// Records `snapshot` as failed and deletes its containers and its image here.
    pub(super) async fn settle_one(&self, snapshot: &Snapshot, reason: &str) -> Result<(), BakeError> {
        self.clear(snapshot.id(), &self.tag_of(&snapshot.record.name, snapshot.id())).await?;
        let failure = Failure {
            kind: ErrorKind::Cancelled,
            messages: vec![reason.to_owned()],
            hint: Some("bake it again".into()),
            checks: Vec::new(),
        };
        let entry = StateEntry { failure: Some(failure), ..StateEntry::to(State::Error, now()) };
        self.catalog.transition(snapshot.id(), &entry).await?;
        self.catalog.end_beat(snapshot.id()).await?;
        Ok(())
    }

    /// Deletes what a bake leaves on the engine: the containers of its checks, and its tag.
    pub(super) async fn clear(&self, id: SnapshotId, tag: &str) -> Result<(), BakeError> {
        for container in self.engine.containers(&format!("{CHECK_LABEL}={id}")).await? {
            self.engine.remove_container(&container.id).await?;
        }
        self.engine.untag(tag).await?;
        Ok(())
    }
}
