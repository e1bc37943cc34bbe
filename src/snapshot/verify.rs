//! Looks whether snapshots are what their records say: the image is on this engine, boots and passes the checks.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::check::CheckJob;
use super::{BakeError, BakeEvent, Phase, StageEvent, Workbench, lock};
use crate::base::{EngineId, ImageId, Monotonic, Sink, SnapshotId, now};
use crate::catalog::{
    CheckRecord, Outcome, PlaceRecord, PlaceState, Snapshot, SnapshotRef, State, StateEntry,
};
use crate::docker::ImageInfo;

/// What was found of a snapshot on this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its image is here and passes the checks.
    Sound,
    /// Its image is not here, although the record said so. The place is recorded as gone.
    Gone,
    /// Its reference names another image. The place is recorded as gone.
    Replaced,
    /// The image is here and does not boot, or a check fails.
    Failed,
}

impl Verdict {
    /// Returns the verdict's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Gone => "gone",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
        }
    }
}

/// What was found of a snapshot, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyReport {
    /// The snapshot.
    pub id: SnapshotId,
    /// As `name@id`.
    pub reference: String,
    /// The state that it is in now: an unchecked snapshot that passes its checks is active.
    pub state: State,
    /// The engine that was looked at.
    pub engine: EngineId,
    /// The image that its reference names there.
    pub image: Option<ImageId>,
    /// What was found.
    pub verdict: Verdict,
    /// Why it is not sound.
    pub reason: Option<String>,
    /// How the checks went. Empty where the template has none: then the image was only looked for.
    pub checks: Vec<CheckRecord>,
    /// How long it took.
    pub took: Duration,
}

impl Workbench {
    /// Verifies a snapshot on this engine. Only one that is active, inactive or unchecked can be verified.
    ///
    /// No build runs on this engine meanwhile, from this host. What fails changes no state: whether a snapshot is to be revoked is for
    /// people to say.
    ///
    /// # Errors
    ///
    /// Fails where there is no such snapshot or its state does not allow it, where the engine or the catalog does not answer, and when
    /// `cancel` is cancelled. An image that is gone or fails is no error: the report says it.
    pub async fn verify(
        &self,
        reference: &SnapshotRef,
        sink: &dyn Sink<BakeEvent>,
        cancel: &CancellationToken,
    ) -> Result<VerifyReport, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        if !matches!(snapshot.state(), State::Active | State::Inactive | State::Unchecked) {
            let (reference, state) = (snapshot.reference(), snapshot.state());
            return Err(BakeError::Conflict(format!("{reference} is {state}: there is nothing to verify")));
        }
        self.verify_snapshot(&snapshot, sink, cancel).await
    }

    /// Verifies every active snapshot whose image is on this engine by its record, oldest first.
    ///
    /// # Errors
    ///
    /// As [`Workbench::verify`].
    pub async fn verify_all(
        &self,
        sink: &dyn Sink<BakeEvent>,
        cancel: &CancellationToken,
    ) -> Result<Vec<VerifyReport>, BakeError> {
        let engine = self.engine.info().await?.id;
        let mut reports = Vec::new();
        for snapshot in self.catalog.list().await? {
            let is_here = snapshot.place(&engine).is_some_and(|place| place.state == PlaceState::Present);
            if snapshot.state() == State::Active && is_here {
                reports.push(self.verify_snapshot(&snapshot, sink, cancel).await?);
            }
        }
        Ok(reports)
    }

    async fn verify_snapshot(
        &self,
        snapshot: &Snapshot,
        sink: &dyn Sink<BakeEvent>,
        cancel: &CancellationToken,
    ) -> Result<VerifyReport, BakeError> {
        let clock = Monotonic::start();
        let info = self.engine.info().await?;
        // A bake of a further place checks under the names of this snapshot's containers.
        let permit = lock::acquire(&self.state_dir, info.id.as_str(), cancel, || {
            let message = "a build runs on this engine; waiting for it".to_owned();
            sink.emit(StageEvent::Waiting { message }.into());
        })
        .await?;
        let tag = self.tag_of(&snapshot.record.name, snapshot.id());
        let there = self.engine.image(&tag).await?;
        let found = self.present(snapshot).await?;
        let image = there.as_ref().map(|image| image.id);
        let mut report = VerifyReport {
            id: snapshot.id(),
            reference: snapshot.reference(),
            state: snapshot.state(),
            engine: info.id.clone(),
            image,
            verdict: Verdict::Sound,
            reason: None,
            checks: Vec::new(),
            took: Duration::ZERO,
        };
        match (&found, image) {
            (Some(image), _) => self.check_again(snapshot, image, &tag, &mut report, sink, cancel).await?,
            (None, None) => {
                report.verdict = Verdict::Gone;
                report.reason = Some(format!("`{tag}` is not on the engine {}", info.id));
            }
            (None, Some(other)) => {
                report.verdict = Verdict::Replaced;
                report.reason = Some(format!("`{tag}` is {other}, which no record of it names"));
            }
        }
        drop(permit);
        let recorded = snapshot.place(&info.id);
        let last = recorded.map(|place| place.image).or_else(|| found.as_ref().map(|image| image.id));
        if let Some(image) = last {
            let state = if found.is_some() { PlaceState::Present } else { PlaceState::Gone };
            let is_known_gone = recorded.is_some_and(|place| place.state == PlaceState::Gone);
            if state == PlaceState::Present || !is_known_gone {
                let (engine, endpoint) = (info.id.clone(), info.endpoint.clone());
                let verified_at = now();
                let place = PlaceRecord {
                    version: 1,
                    engine,
                    endpoint,
                    image,
                    tag,
                    state,
                    verified_at,
                    last_used: None,
                };
                self.catalog.add_place(snapshot.id(), &place).await?;
            }
        }
        if report.verdict == Verdict::Sound && report.state == State::Unchecked && !report.checks.is_empty() {
            report.state = self.activate_checked(snapshot, &report.checks).await?;
        }
        report.took = clock.elapsed();
        Ok(report)
    }

    /// Boots the image and runs the checks, as the bake did.
    async fn check_again(
        &self,
        snapshot: &Snapshot,
        image: &ImageInfo,
        tag: &str,
        report: &mut VerifyReport,
        sink: &dyn Sink<BakeEvent>,
        cancel: &CancellationToken,
    ) -> Result<(), BakeError> {
        let record = &snapshot.record;
        if record.checks.is_empty() && record.runtime.ready.is_none() {
            let message = format!("{} has no checks: its image was only looked for", snapshot.reference());
            sink.emit(StageEvent::Notice { code: "no_checks".into(), message }.into());
            return Ok(());
        }
        sink.emit(StageEvent::Phase { phase: Phase::Check }.into());
        let check = CheckJob {
            engine: &*self.engine,
            store: self.store,
            id: snapshot.id(),
            image: tag,
            boots_itself: !image.entrypoint.is_empty(),
            runtime: &record.runtime,
            resources: &record.resources,
            checks: &record.checks,
        };
        let stages = |event: StageEvent| sink.emit(event.into());
        match check.run(&stages, cancel).await {
            Ok(checks) => report.checks = checks,
            Err(BakeError::Checks { checks, tail }) => {
                let error = BakeError::Checks { checks: checks.clone(), tail };
                report.verdict = Verdict::Failed;
                report.reason = Some(error.to_string());
                report.checks = checks;
            }
            Err(error @ BakeError::Boot { .. }) => {
                report.verdict = Verdict::Failed;
                report.reason = Some(super::error::one_line(&error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Records that an unchecked snapshot passed its checks; returns the state that it is in then.
    async fn activate_checked(
        &self,
        snapshot: &Snapshot,
        checks: &[CheckRecord],
    ) -> Result<State, BakeError> {
        let outcome = snapshot.outcome().map(|outcome| {
            let checks = checks.to_vec();
            Box::new(Outcome { checks, ..outcome.clone() })
        });
        let reason = Some("it passed its checks".to_owned());
        let entry = StateEntry { outcome, reason, ..StateEntry::to(State::Active, now()) };
        self.transition(snapshot, &entry, "activating it").await?;
        Ok(State::Active)
    }
}
