//! The journey: a template becomes a checked, registered snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::check::CheckJob;
use super::decide::{Decision, choose_builder};
use super::journal::{Journal, Story};
use super::prepare::Prepared;
use super::{BakeError, BakeEvent, BakeSpec, Phase, StageEvent, Workbench, gate, inventory, lock};
use crate::base::{
    ByteSize, Classify as _, EngineId, ImageId, Monotonic, Owner, Sink, SnapshotId, chain, fs, now,
};
use crate::catalog::{
    ChannelMove, CheckRecord, Failure, Inventory, LogWriter, Mark, Outcome, PlaceRecord, PlaceState,
    Snapshot, SnapshotRecord, State, StateEntry, Timings,
};
use crate::docker::{BuildLimits, BuildRequest, Builder, EngineError, EngineEvent, EngineInfo};

/// Free space that stays on the engine's disk when the user does not say: enough for its containers to go on writing.
const MIN_FREE: ByteSize = ByteSize(2 * ByteSize::GIB);

/// 4 s: how long a failed bake cleans up at most, so that Ctrl-C ends within five; what is left the next bake clears.
const CLEAR_WITHIN: Duration = Duration::from_secs(4);

/// What a bake gave.
#[derive(Debug, Clone, PartialEq)]
pub struct BakeReport {
    /// The snapshot as it is now.
    pub snapshot: Snapshot,
    /// Whether there was nothing to do.
    pub reused: bool,
    /// Its image on this engine.
    pub image: ImageId,
    /// The image's reference on this engine.
    pub tag: String,
    /// The engine.
    pub engine: EngineId,
    /// The channels that now hold it.
    pub channels: Vec<ChannelMove>,
    /// Sentences that the user should read.
    pub notices: Vec<String>,
}

/// What a successful firing hands to the record.
struct Fired {
    image: ImageId,
    outcome: Outcome,
}

impl Workbench {
    /// Bakes what `spec` asks for, or returns the snapshot that is it already.
    ///
    /// The transition to `active` is the commit point. Before it, whatever ends the bake (an error, a limit, `cancel`) deletes
    /// what was made on the engine and records the snapshot as failed; an older snapshot and its image stay as they were. After
    /// a crash, [`Workbench::settle`] does the same. Several processes may bake at once: one builds on an engine, the others
    /// wait and then look again whether there is still something to do.
    ///
    /// # Errors
    ///
    /// Every way in which a bake can fail; see [`BakeError`].
    pub async fn bake(
        &self,
        spec: &BakeSpec,
        sink: &dyn Sink<BakeEvent>,
        cancel: &CancellationToken,
    ) -> Result<BakeReport, BakeError> {
        let started = Monotonic::start();
        check_labels(&spec.labels)?;
        if spec.skip_checks && !spec.channels.is_empty() {
            let message = "an unchecked snapshot is never promoted: drop --channel or --skip-checks";
            return Err(BakeError::Input(message.into()));
        }
        sink.emit(StageEvent::Phase { phase: Phase::Prepare }.into());
        let engine_sink = |event: EngineEvent| sink.emit(event.into());
        let mut prepared = self.prepare(spec, &engine_sink, cancel).await?;
        if let Decision::Reuse(snapshot, image) = self.decide(spec, &prepared).await? {
            return self.reuse(spec, &prepared, *snapshot, image).await;
        }
        let info = self.engine.info().await?;
        let mut builder = choose_builder(spec, &prepared, &info)?;
        let permit = lock::acquire(&self.state_dir, info.id.as_str(), cancel, || {
            let message = "another build runs on this engine; waiting for it".to_owned();
            sink.emit(StageEvent::Waiting { message }.into());
        })
        .await?;
        if permit.waited {
            // Files and bases may have changed meanwhile; the keys must be those of what is built.
            prepared = self.prepare(spec, &engine_sink, cancel).await?;
            builder = choose_builder(spec, &prepared, &info)?;
        }
        if let Err(error) = self.settle().await {
            // What another bake left is no reason to refuse this one.
            let message =
                format!("what earlier bakes left could not be settled: {}", super::error::one_line(&error));
            sink.emit(StageEvent::Notice { code: "unsettled".into(), message }.into());
        }
        let mut decision = self.decide(spec, &prepared).await?;
        if permit.waited && spec.rebuild {
            // A rebuild asks for one, not for one more than somebody else made while this one waited.
            decision = match self.decide_reuse(&prepared).await? {
                Some((snapshot, image)) if snapshot.record.created > started_at(started) => {
                    Decision::Reuse(Box::new(snapshot), image)
                }
                _ => decision,
            };
        }
        let job = match decision {
            Decision::Reuse(snapshot, image) => return self.reuse(spec, &prepared, *snapshot, image).await,
            Decision::Place(snapshot) => {
                let reason = "the snapshot is active, and its image is not on this engine".to_owned();
                Job {
                    id: snapshot.id(),
                    name: snapshot.record.name.clone(),
                    existing: Some(*snapshot),
                    regate: None,
                    no_cache: false,
                    reason,
                }
            }
            Decision::Regate { image, built, reason } => {
                Job::new(&prepared, Some((image, built)), false, reason)
            }
            Decision::Build { no_cache, reason } => Job::new(&prepared, None, no_cache, reason),
        };
        let report = Box::pin(self.work(spec, &prepared, &info, builder, job, started, sink, cancel)).await;
        drop(permit);
        report
    }

    async fn reuse(
        &self,
        spec: &BakeSpec,
        prepared: &Prepared,
        snapshot: Snapshot,
        image: ImageId,
    ) -> Result<BakeReport, BakeError> {
        if let Some(outcome) = snapshot.outcome() {
            // The profile is not part of the key.
            let profile = spec.profile.as_ref().map(|(_, profile)| profile);
            gate::check_size(
                outcome.size_bytes,
                &outcome.layers,
                &prepared.limits,
                &prepared.resources,
                profile,
            )?;
        }
        let place = snapshot
            .places
            .iter()
            .find(|place| place.image == image && place.state == PlaceState::Present)
            .cloned()
            .ok_or_else(|| {
                BakeError::Internal(format!("{} has no place of its image", snapshot.reference()))
            })?;
        // Whoever asks for it anew uses it, and a prune must know.
        self.catalog.touch(snapshot.id(), &place.engine, now()).await?;
        let (snapshot, channels) = self.surround(spec, snapshot).await?;
        Ok(BakeReport {
            snapshot,
            reused: true,
            image,
            tag: place.tag,
            engine: place.engine,
            channels,
            notices: Vec::new(),
        })
    }

    /// Applies what a bake adds to a snapshot without baking, channels and expiry; returns it as it is then.
    async fn surround(
        &self,
        spec: &BakeSpec,
        snapshot: Snapshot,
    ) -> Result<(Snapshot, Vec<ChannelMove>), BakeError> {
        let mut moves = Vec::new();
        for channel in &spec.channels {
            moves.push(self.promote_snapshot(&snapshot, channel).await?);
        }
        let Some(ttl) = spec.ttl else { return Ok((snapshot, moves)) };
        let at =
            now().checked_add(ttl.0).map_err(|source| BakeError::Input(format!("--ttl {ttl}: {source}")))?;
        self.catalog.mark(snapshot.id(), Mark::Expire { at: Some(at) }, now()).await?;
        Ok((self.reload(snapshot.id()).await?, moves))
    }

    /// Bakes under a record: begins it, works, and ends it in a terminal state whatever happens.
    #[expect(clippy::too_many_arguments, reason = "the pieces of one bake, put together in one place")]
    async fn work(
        &self,
        spec: &BakeSpec,
        prepared: &Prepared,
        info: &EngineInfo,
        builder: Builder,
        job: Job,
        started: Monotonic,
        sink: &dyn Sink<BakeEvent>,
        cancel: &CancellationToken,
    ) -> Result<BakeReport, BakeError> {
        let tag = self.tag_of(&job.name, job.id);
        preflight_space(spec, prepared, info)?;
        let is_new = job.existing.is_none();
        let log = if is_new {
            self.catalog.beat(job.id, 0).await?;
            self.catalog.create(&record(spec, prepared, &job, builder)?).await?;
            LogWriter::new(self.catalog.clone(), job.id)
        } else {
            self.clear(job.id, &tag).await?;
            self.catalog.touch(job.id, &info.id, now()).await?;
            LogWriter::of_place(self.catalog.clone(), job.id)
        };
        let journal = Journal::begin(&self.catalog, job.id, log, is_new);
        let story = journal.story(sink);
        story.emit(planned(prepared, &job, builder));
        let fired = Box::pin(self.fire(spec, prepared, builder, &job, &tag, started, &story, cancel)).await;
        let fired = match fired {
            // The last moment at which a cancellation counts: after this the snapshot is published.
            Ok(_) if cancel.is_cancelled() => {
                Err(BakeError::Cancelled { action: "recording the snapshot".into() })
            }
            fired => fired,
        };
        let ended = match &fired {
            Ok(_) if spec.skip_checks && is_new => (State::Unchecked, Vec::new()),
            Ok(_) => (State::Active, Vec::new()),
            Err(error) => (State::Error, messages(error)),
        };
        story.emit(BakeEvent::from(StageEvent::Ended { state: ended.0.to_string(), messages: ended.1 }));
        drop(story);
        let logged = journal.finish().await;
        let published = match (fired, logged) {
            (Ok(fired), Ok(())) => self.publish(spec, info, &job, &tag, fired).await,
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(error), _) => Err(error),
        };
        match published {
            Ok(image) => {
                let (snapshot, channels) = self.surround(spec, self.reload(job.id).await?).await?;
                let engine = info.id.clone();
                Ok(BakeReport { snapshot, reused: false, image, tag, engine, channels, notices: Vec::new() })
            }
            Err(error) => {
                self.fail(&job, &tag, &error).await;
                Err(error)
            }
        }
    }

    /// Builds, gates, checks and lists. Leaves a tagged image behind, also when it fails.
    #[expect(clippy::too_many_arguments, reason = "the pieces of one bake, put together in one place")]
    async fn fire(
        &self,
        spec: &BakeSpec,
        prepared: &Prepared,
        builder: Builder,
        job: &Job,
        tag: &str,
        started: Monotonic,
        story: &Story<'_>,
        cancel: &CancellationToken,
    ) -> Result<Fired, BakeError> {
        let mut timings = Timings { prepare_ms: started.elapsed_ms(), ..Timings::default() };
        let phase = |phase| story.emit(BakeEvent::from(StageEvent::Phase { phase }));
        let clock = Monotonic::start();
        let (image, built, steps) = match job.regate {
            Some((image, built)) => {
                self.engine.tag(&image, tag).await?;
                (image, built, Vec::new())
            }
            None => {
                phase(Phase::Build);
                let request = self.request(spec, prepared, builder, job, tag);
                let built = self.engine.build(&request, story, cancel).await?;
                (built.image, now(), built.steps)
            }
        };
        timings.build_ms = clock.elapsed_ms();

        phase(Phase::Gate);
        let clock = Monotonic::start();
        let missing = || EngineError::Protocol {
            action: "inspecting the new image".into(),
            message: "it is not there".into(),
        };
        let found = self.engine.image(tag).await?.ok_or_else(missing)?;
        let layers = gate::layers(&self.engine.history(tag).await?);
        let profile = spec.profile.as_ref().map(|(_, profile)| profile);
        gate::check_size(found.size_bytes, &layers, &prepared.limits, &prepared.resources, profile)?;
        gate::search_secrets(&*self.engine, tag, &spec.secrets, cancel).await?;
        timings.gate_ms = clock.elapsed_ms();

        let clock = Monotonic::start();
        let mut checks = Vec::new();
        let nothing_to_check =
            prepared.rendered.checks.is_empty() && prepared.rendered.runtime.ready.is_none();
        if spec.skip_checks {
            // The state says it: unchecked.
        } else if nothing_to_check {
            let message =
                "the template declares no checks: the image was built and measured, and never booted"
                    .to_owned();
            story.emit(BakeEvent::from(StageEvent::Notice { code: "no_checks".into(), message }));
        } else {
            phase(Phase::Check);
            if job.existing.is_none() {
                self.catalog.transition(job.id, &StateEntry::to(State::Checking, now())).await?;
            }
            let check = CheckJob {
                engine: &*self.engine,
                store: self.store,
                id: job.id,
                image: tag,
                boots_itself: !found.entrypoint.is_empty(),
                runtime: &prepared.rendered.runtime,
                resources: &prepared.resources,
                checks: &prepared.rendered.checks,
            };
            checks = check.run(story, cancel).await?;
        }
        timings.check_ms = clock.elapsed_ms();

        phase(Phase::Inventory);
        let clock = Monotonic::start();
        let inventory = self.inventory(job.id, tag, story, cancel).await?;
        timings.inventory_ms = clock.elapsed_ms();
        timings.total_ms = started.elapsed_ms();
        phase(Phase::Record);
        let size_bytes = found.size_bytes;
        Ok(Fired {
            image,
            outcome: Outcome {
                image,
                built: Some(built),
                size_bytes,
                layers,
                inventory,
                checks,
                steps,
                timings,
            },
        })
    }

    async fn inventory(
        &self,
        id: SnapshotId,
        tag: &str,
        story: &Story<'_>,
        cancel: &CancellationToken,
    ) -> Result<Inventory, BakeError> {
        match inventory::list(&*self.engine, self.store, id, tag, cancel).await {
            Ok(Some(inventory)) => Ok(inventory),
            Ok(None) => Err(BakeError::Cancelled { action: "listing packages".into() }),
            Err(error @ (EngineError::Gone { .. } | EngineError::Unreachable { .. })) => Err(error.into()),
            Err(error) => {
                // An image without a shell has no package managers either.
                let message = format!("packages cannot be listed: {}", super::error::one_line(&error));
                story.emit(BakeEvent::from(StageEvent::Notice { code: "no_inventory".into(), message }));
                Ok(Inventory::default())
            }
        }
    }

    fn request(
        &self,
        spec: &BakeSpec,
        prepared: &Prepared,
        builder: Builder,
        job: &Job,
        tag: &str,
    ) -> BuildRequest {
        let mut labels = spec.labels.clone();
        // The unique id keeps a fully cached rebuild from having the same image id as an older snapshot.
        labels.extend(
            [
                ("kiln.managed", "true".to_owned()),
                ("kiln.store", self.store.to_string()),
                ("kiln.snapshot", job.id.to_string()),
                ("kiln.key", prepared.snapshot_key.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        BuildRequest {
            builder,
            context: prepared.context.clone(),
            dockerfile: prepared.dockerfile_path.clone(),
            tags: vec![tag.to_owned()],
            labels,
            build_args: spec.build_args.clone(),
            target: spec.target.clone(),
            platform: spec.platform.clone(),
            network: spec.network,
            no_cache: job.no_cache,
            mounts_secrets: prepared.inspected.mounts_secrets(),
            secrets: match builder {
                Builder::Buildkit => spec.secrets.clone(),
                Builder::Classic => BTreeMap::new(),
            },
            limits: BuildLimits {
                context_bytes: prepared.limits.context.0,
                write_bytes: prepared.limits.build_write.0,
                min_free_bytes: spec.min_free.unwrap_or(MIN_FREE).0,
                timeout: prepared.limits.timeout.0,
            },
        }
    }

    /// Records the place, then the state; returns the image.
    async fn publish(
        &self,
        spec: &BakeSpec,
        info: &EngineInfo,
        job: &Job,
        tag: &str,
        fired: Fired,
    ) -> Result<ImageId, BakeError> {
        let place = PlaceRecord {
            version: 1,
            engine: info.id.clone(),
            endpoint: info.endpoint.clone(),
            image: fired.image,
            tag: tag.to_owned(),
            state: PlaceState::Present,
            verified_at: now(),
            last_used: None,
        };
        self.catalog.add_place(job.id, &place).await?;
        if job.existing.is_none() {
            let state = if spec.skip_checks { State::Unchecked } else { State::Active };
            let entry = StateEntry { outcome: Some(Box::new(fired.outcome)), ..StateEntry::to(state, now()) };
            if !self.catalog.transition(job.id, &entry).await? {
                return Err(BakeError::Overtaken { id: job.id });
            }
            // Published: nothing after this may fail the bake. A beat that stays is taken away by a later settling.
            self.catalog.end_beat(job.id).await.unwrap_or_default();
        } else {
            self.catalog.touch(job.id, &info.id, now()).await?;
        }
        Ok(fired.image)
    }

    /// Records the failure and deletes what the bake made: in this order, so that an image of a snapshot that did become active is
    /// never touched. What cannot be done now is done by the next bake on this host: the heartbeat stays as its sign.
    async fn fail(&self, job: &Job, tag: &str, error: &BakeError) {
        if job.existing.is_some() {
            // Whose image could not be recorded is not there for anybody; the next bake of it clears what stays.
            tokio::time::timeout(CLEAR_WITHIN, self.clear(job.id, tag))
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default();
            return;
        }
        let checks: Vec<CheckRecord> = match error {
            BakeError::Checks { checks, .. } => checks.clone(),
            _ => Vec::new(),
        };
        let failure = Failure { kind: error.kind(), messages: messages(error), hint: error.hint(), checks };
        let entry = StateEntry { failure: Some(failure), ..StateEntry::to(State::Error, now()) };
        let recorded = matches!(self.catalog.transition(job.id, &entry).await, Ok(true));
        let state = self.catalog.state(job.id).await;
        // Also where the store took no record: then nobody is offered the snapshot, and its image is of no use.
        let active = matches!(state, Ok(Some(State::Active | State::Unchecked)));
        if active || (!recorded && state.is_err()) {
            return;
        }
        let cleared = tokio::time::timeout(CLEAR_WITHIN, self.clear(job.id, tag)).await;
        if matches!(cleared, Ok(Ok(()))) && matches!(state, Ok(Some(State::Error))) {
            self.catalog.end_beat(job.id).await.unwrap_or_default();
        }
    }
}

/// One bake: which snapshot, and how.
#[derive(Debug)]
struct Job {
    id: SnapshotId,
    name: crate::base::SnapshotName,
    /// The active snapshot that gets a further place.
    existing: Option<Snapshot>,
    /// The image to gate and check again, in place of a build, and when it was built.
    regate: Option<(ImageId, jiff::Timestamp)>,
    no_cache: bool,
    reason: String,
}

impl Job {
    fn new(
        prepared: &Prepared,
        regate: Option<(ImageId, jiff::Timestamp)>,
        no_cache: bool,
        reason: String,
    ) -> Self {
        Self {
            id: SnapshotId::generate(),
            name: prepared.name.clone(),
            existing: None,
            regate,
            no_cache,
            reason,
        }
    }
}

fn messages(error: &BakeError) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    messages.extend(chain(error));
    messages.extend(error.details());
    messages
}

fn started_at(started: Monotonic) -> jiff::Timestamp {
    now().checked_sub(started.elapsed()).unwrap_or(jiff::Timestamp::MIN)
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), BakeError> {
    match labels.keys().find(|name| name.starts_with("kiln.")) {
        Some(name) => {
            Err(BakeError::Input(format!("the label `{name}` begins with `kiln.`, which is Kiln's own")))
        }
        None => Ok(()),
    }
}

/// Holds the free space to the floor plus what the build will need: twice the context (the engine keeps the tar and its files).
fn preflight_space(spec: &BakeSpec, prepared: &Prepared, info: &EngineInfo) -> Result<(), BakeError> {
    if !info.local {
        return Ok(());
    }
    let Ok(free_bytes) = fs::free_space(&info.data_root) else { return Ok(()) };
    let context: u64 =
        prepared.rendered.files.iter().map(|file| u64::try_from(file.bytes.len()).unwrap_or(u64::MAX)).sum();
    let floor_bytes = spec.min_free.unwrap_or(MIN_FREE).0.saturating_add(2 * context);
    if free_bytes < floor_bytes {
        let path = info.data_root.clone();
        return Err(EngineError::FreeSpace { path, free_bytes, floor_bytes, step: None }.into());
    }
    Ok(())
}

fn planned(prepared: &Prepared, job: &Job, builder: Builder) -> BakeEvent {
    StageEvent::Planned {
        id: job.id,
        name: job.name.clone(),
        template: prepared.rendered.template.clone(),
        base: prepared.base.reference.clone(),
        origin: prepared.base.origin.clone(),
        python: prepared.rendered.distro.as_ref().map(|distro| distro.python.clone()),
        builder,
        baked_cas: prepared.rendered.baked_cas.clone(),
        build_cas: prepared.rendered.build_cas.clone(),
        reason: job.reason.clone(),
    }
    .into()
}

fn record(
    spec: &BakeSpec,
    prepared: &Prepared,
    job: &Job,
    builder: Builder,
) -> Result<SnapshotRecord, BakeError> {
    let owner = Owner::current().map_err(|source| BakeError::Local { path: "/proc".into(), source })?;
    let rendered = &prepared.rendered;
    Ok(SnapshotRecord {
        version: 1,
        id: job.id,
        name: job.name.clone(),
        template: rendered.template.clone(),
        source: Some(source_of(&spec.template)),
        description: rendered.description.clone(),
        created: now(),
        owner,
        kiln_version: env!("CARGO_PKG_VERSION").to_owned(),
        build_key: prepared.build_key,
        snapshot_key: prepared.snapshot_key,
        dockerfile: rendered.dockerfile.clone(),
        context_digest: prepared.context_digest,
        parameters: rendered.parameters.clone(),
        components: rendered.components.clone(),
        base: prepared.base.clone(),
        distro: rendered.distro.clone(),
        baked_cas: rendered.baked_cas.clone(),
        build_cas: rendered.build_cas.clone(),
        checkout: prepared.checkout.as_ref().map(|checkout| checkout.record.clone()),
        build_args: spec.build_args.clone(),
        secret_ids: spec.secrets.keys().cloned().collect(),
        target: spec.target.clone(),
        platform: spec.platform.clone(),
        network: spec.network,
        builder,
        runtime: rendered.runtime.clone(),
        resources: prepared.resources,
        limits: prepared.limits,
        checks: rendered.checks.clone(),
        profile: spec.profile.as_ref().map(|(name, _)| name.clone()),
        refresh_after: rendered.refresh_after,
        labels: spec.labels.clone(),
    })
}

/// Returns what finds the template again from any folder of this host.
fn source_of(template: &str) -> String {
    if !template.contains(['/', '.']) {
        return template.to_owned();
    }
    std::path::absolute(template).map_or_else(|_| template.to_owned(), |path| path.display().to_string())
}
