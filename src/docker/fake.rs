//! An engine in memory, for tests of what stands on an engine.
//!
//! It keeps the contract of [`Engine`] for images, tags, containers and cancelling; what a build or a command gives is scripted.
//! Without a script every build succeeds and every command exits with zero.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::types::*;
use super::{Engine, EngineError};
use crate::base::{EngineId, ImageId, Sha256Digest, Sink};

/// An engine in memory. Clones are the same engine.
#[derive(Debug, Clone)]
pub struct FakeEngine {
    info: EngineInfo,
    state: Arc<Mutex<State>>,
    happened: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<ImageId, FakeImage>,
    /// References and the images that they name.
    tags: BTreeMap<String, ImageId>,
    containers: BTreeMap<String, ContainerInfo>,
    /// By a container's id and a path in it: the directory's tar, or `None` where a file is.
    paths: BTreeMap<(String, String), Option<Bytes>>,
    transfer: Option<FakeTransfer>,
    logs: BTreeMap<String, Vec<String>>,
    builds: VecDeque<FakeBuild>,
    commands: Vec<(String, FakeExec)>,
    pulls: BTreeMap<String, FakeImage>,
    requests: Vec<BuildRequest>,
    started: Vec<ContainerSpec>,
    calls: BTreeMap<&'static str, u64>,
    unreachable: bool,
    made: u64,
    cache: Vec<CacheRecord>,
    space: Option<DiskSpace>,
    events: Vec<ContainerEvent>,
    /// By the name of a reference: what untagging it fails with.
    holding: BTreeMap<String, String>,
}

/// An image that a fake engine has or makes.
#[derive(Debug, Clone, Default)]
pub struct FakeImage {
    /// Bytes of all its layers.
    pub size_bytes: u64,
    /// Its layers as tars, lowest first; what [`Engine::save`] gives.
    pub layers: Vec<Bytes>,
    /// Its history, lowest first.
    pub history: Vec<HistoryEntry>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Its labels; those of the build request come on top.
    pub labels: BTreeMap<String, String>,
    /// Its entrypoint.
    pub entrypoint: Vec<String>,
    /// Its user.
    pub user: String,
    /// Its working directory.
    pub workdir: String,
    /// Its registry digests.
    pub repo_digests: Vec<String>,
    /// When it was made.
    pub created: Option<jiff::Timestamp>,
}

/// How a build goes.
#[derive(Debug)]
pub enum FakeBuild {
    /// It gives this image.
    Succeeds(FakeImage),
    /// It prints these lines in its one step and then goes on as told.
    Prints(Vec<String>, Box<Self>),
    /// It fails in this way.
    Fails(EngineError),
    /// It runs until the gate opens, and then goes on as told. It can be cancelled meanwhile.
    Waits(FakeGate, Box<Self>),
}

/// How a command goes.
#[derive(Debug, Clone)]
pub enum FakeExec {
    /// It ends like this.
    Ends(ExecReport),
    /// It runs until its timeout.
    Hangs,
}

/// How a transfer of an archive goes wrong, after so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeTransfer {
    /// The connection breaks.
    Breaks(usize),
    /// The engine ends it as if that were all; in the other direction, it refuses.
    Ends(usize),
    /// Nothing goes on.
    Stalls(usize),
}

/// Holds a build up until the test opens it. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct FakeGate {
    reached: Arc<Notify>,
    opened: CancellationToken,
}

impl FakeGate {
    /// Waits until a build has come to the gate.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the build go on.
    pub fn open(&self) {
        self.opened.cancel();
    }
}

impl FakeImage {
    /// Returns an image of one layer with the given bytes.
    #[must_use]
    pub fn of_layer(layer: impl Into<Bytes>) -> Self {
        let layer = layer.into();
        let size_bytes = layer.len() as u64;
        let entry = HistoryEntry { created_by: "RUN something".to_owned(), size_bytes, created: None };
        Self { size_bytes, layers: vec![layer], history: vec![entry], ..Self::default() }
    }

    /// Returns the digests of its layers.
    fn layer_digests(&self) -> Vec<String> {
        self.layers.iter().map(|layer| format!("sha256:{}", Sha256Digest::of(layer))).collect()
    }

    /// Returns its configuration as JSON; its id is the digest of that, so equal images have equal ids, as on an engine.
    fn config(&self) -> Vec<u8> {
        serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": self.env, "Labels": self.labels, "Entrypoint": self.entrypoint,
                "User": self.user, "WorkingDir": self.workdir,
            },
            "history": self.history.iter().map(|entry| &entry.created_by).collect::<Vec<_>>(),
            "rootfs": { "type": "layers", "diff_ids": self.layer_digests() },
            "size": self.size_bytes,
        })
        .to_string()
        .into_bytes()
    }

    fn id(&self) -> ImageId {
        ImageId::new(Sha256Digest::of(&self.config()))
    }
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeEngine {
    /// Makes an engine without images, with the features of Docker 20.10.
    #[must_use]
    pub fn new() -> Self {
        Self::with_features(BuilderFeatures { buildkit: true, session: true, ..BuilderFeatures::default() })
    }

    /// Makes an engine without images and with the given features.
    #[must_use]
    pub fn with_features(builders: BuilderFeatures) -> Self {
        let info = EngineInfo {
            id: "FAKE:ENGINE".parse::<EngineId>().expect("the id is valid"),
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            architecture: "amd64".to_owned(),
            operating_system: "Fake Linux".to_owned(),
            storage_driver: "overlay2".to_owned(),
            data_root: "/nonexistent".into(),
            local: false,
            endpoint: "fake://engine".to_owned(),
            builders,
        };
        Self { info, state: Arc::default(), happened: Arc::default() }
    }

    /// Changes what the engine says of itself.
    #[must_use]
    pub fn described(mut self, change: impl FnOnce(&mut EngineInfo)) -> Self {
        change(&mut self.info);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked with the lock held has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self, name: &'static str) -> Result<MutexGuard<'_, State>, EngineError> {
        let mut state = self.state();
        *state.calls.entry(name).or_default() += 1;
        if state.unreachable {
            return Err(EngineError::Unreachable {
                endpoint: self.info.endpoint.clone(),
                source: "the test says so".into(),
            });
        }
        Ok(state)
    }

    /// Puts an image on the engine, as somebody else would have; returns its id.
    pub fn add_image(&self, reference: &str, image: FakeImage) -> ImageId {
        let mut state = self.state();
        let id = image.id();
        state.images.insert(id, image);
        state.tags.insert(full(reference), id);
        id
    }

    /// Takes an image and all its references off the engine, as `docker rmi --force` by somebody else would.
    pub fn lose_image(&self, id: &ImageId) {
        let mut state = self.state();
        state.images.remove(id);
        state.tags.retain(|_, tagged| tagged != id);
    }

    /// Makes an image pullable.
    pub fn offer(&self, reference: &str, image: FakeImage) {
        self.state().pulls.insert(full(reference), image);
    }

    /// Says how the next build goes that no earlier call has spoken of.
    pub fn next_build(&self, build: FakeBuild) {
        self.state().builds.push_back(build);
    }

    /// Says how commands go whose words, joined by blanks, contain `part`. The latest that fits counts.
    pub fn on_command(&self, part: &str, outcome: FakeExec) {
        self.state().commands.push((part.to_owned(), outcome));
    }

    /// As [`Self::on_command`], for a command that ends by itself.
    pub fn on_command_ends(&self, part: &str, exit_code: i64, stdout: &str) {
        let report = ExecReport { exit_code, stdout: stdout.to_owned(), stderr: String::new() };
        self.on_command(part, FakeExec::Ends(report));
    }

    /// Ends a container's main process, with what it printed.
    pub fn end_container(&self, container: &str, exit_code: i64, printed: &[&str]) {
        let mut state = self.state();
        let Some(id) = state.container_id(container) else { return };
        if let Some(info) = state.containers.get_mut(&id) {
            (info.running, info.exit_code) = (false, Some(exit_code));
        }
        let ended = state.containers.get(&id).cloned();
        state.logs.insert(id, printed.iter().map(|line| (*line).to_owned()).collect());
        drop(state);
        if let Some(info) = ended {
            let reference = info.image.map_or_else(String::new, |image| image.to_string());
            self.happens(&info, &reference, &[ContainerAction::Ended]);
        }
    }

    /// Puts a directory into a container: the tar of what it holds.
    pub fn put_directory(&self, container: &str, path: &str, tar: impl Into<Bytes>) {
        let mut state = self.state();
        let Some(id) = state.container_id(container) else { return };
        state.paths.insert((id, path.to_owned()), Some(tar.into()));
    }

    /// Returns the tar that a directory of a container was made of: all of what was sent, also before a failure.
    #[must_use]
    pub fn directory(&self, container: &str, path: &str) -> Option<Bytes> {
        let state = self.state();
        state.paths.get(&(state.container_id(container)?, path.to_owned()))?.clone()
    }

    /// Says how all further transfers of archives go wrong.
    pub fn on_transfer(&self, transfer: Option<FakeTransfer>) {
        self.state().transfer = transfer;
    }

    /// Puts a record into the build cache, or takes the place of one of the same id.
    pub fn put_cache_record(&self, record: CacheRecord) {
        let mut state = self.state();
        state.cache.retain(|other| other.id != record.id);
        state.cache.push(record);
    }

    /// Says what space the engine's file system has; without it the engine is on another host.
    pub fn set_disk_space(&self, space: Option<DiskSpace>) {
        self.state().space = space;
    }

    /// Makes taking `reference` away fail with the engine's `words`; without words it works again.
    pub fn hold_reference(&self, reference: &str, words: Option<&str>) {
        let mut state = self.state();
        match words {
            Some(words) => state.holding.insert(full(reference), words.to_owned()),
            None => state.holding.remove(&full(reference)),
        };
    }

    fn happens(&self, info: &ContainerInfo, reference: &str, actions: &[ContainerAction]) {
        let mut labels = info.labels.clone();
        let mut state = self.state();
        if let Some(image) = info.image.and_then(|id| state.images.get(&id)) {
            labels.extend(image.labels.clone());
        }
        for action in actions {
            state.events.push(ContainerEvent {
                at: crate::base::now(),
                action: *action,
                container: info.id.clone(),
                name: info.name.clone(),
                image: reference.to_owned(),
                labels: labels.clone(),
            });
        }
        drop(state);
        self.happened.notify_waiters();
    }

    /// Makes the engine unreachable, or reachable again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.state().unreachable = unreachable;
    }

    /// Returns how often the method called `name` was called.
    #[must_use]
    pub fn calls(&self, name: &str) -> u64 {
        self.state().calls.get(name).copied().unwrap_or(0)
    }

    /// Returns the build requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<BuildRequest> {
        self.state().requests.clone()
    }

    /// Returns the containers asked for so far.
    #[must_use]
    pub fn started(&self) -> Vec<ContainerSpec> {
        self.state().started.clone()
    }

    /// Returns all references on the engine.
    #[must_use]
    pub fn references(&self) -> Vec<String> {
        self.state().tags.keys().cloned().collect()
    }

    async fn play(
        &self,
        mut build: FakeBuild,
        request: &BuildRequest,
        sink: &dyn Sink<EngineEvent>,
        cancel: &CancellationToken,
    ) -> Result<Built, EngineError> {
        let name = "[1/1] RUN something".to_owned();
        let step = |state, ms| EngineEvent::Step { step: 1, name: name.clone(), state, ms };
        let context = ContextSent { bytes: 1024, entries: 1 };
        sink.emit(EngineEvent::Context { bytes: context.bytes, entries: context.entries, done: true });
        sink.emit(step(StepState::Running, None));
        let outcome = loop {
            build = match build {
                _ if cancel.is_cancelled() => {
                    break Err(EngineError::Cancelled { action: "building".to_owned() });
                }
                FakeBuild::Prints(lines, then) => {
                    for line in lines {
                        sink.emit(EngineEvent::Log { step: 1, stream: OutputStream::Stdout, line });
                    }
                    *then
                }
                FakeBuild::Waits(gate, then) => {
                    gate.reached.notify_one();
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = gate.opened.cancelled() => {}
                    }
                    *then
                }
                FakeBuild::Fails(error) => break Err(error),
                FakeBuild::Succeeds(image) => break Ok(image),
            };
        };
        let state = if outcome.is_ok() { StepState::Done } else { StepState::Failed };
        sink.emit(step(state, Some(1)));
        let mut image = outcome?;
        image.labels.extend(request.labels.clone());
        let id = image.id();
        let mut state = self.state();
        state.images.insert(id, image);
        for tag in &request.tags {
            state.tags.insert(full(tag), id);
        }
        Ok(Built { image: id, context, steps: vec![StepReport { name, cached: false, ms: 1 }] })
    }
}

impl State {
    fn find(&self, reference: &str) -> Option<ImageId> {
        if let Ok(id) = reference.parse::<ImageId>() {
            return self.images.contains_key(&id).then_some(id);
        }
        self.tags.get(&full(reference)).copied().or_else(|| {
            let holds = |image: &FakeImage| image.repo_digests.iter().any(|digest| digest == reference);
            self.images.iter().find(|(_, image)| holds(image)).map(|(id, _)| *id)
        })
    }

    fn describe(&self, id: &ImageId) -> Option<ImageInfo> {
        let image = self.images.get(id)?;
        Some(ImageInfo {
            id: *id,
            tags: self.tags.iter().filter(|(_, tagged)| *tagged == id).map(|(tag, _)| tag.clone()).collect(),
            repo_digests: image.repo_digests.clone(),
            size_bytes: image.size_bytes,
            created: image.created,
            labels: image.labels.clone(),
            env: image.env.clone(),
            entrypoint: image.entrypoint.clone(),
            cmd: Vec::new(),
            user: image.user.clone(),
            workdir: image.workdir.clone(),
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            layers: image.layer_digests(),
        })
    }

    /// Returns the id of a container and the tar of a directory in it.
    fn directory(&self, container: &str, path: &str) -> Result<(String, Bytes), EngineError> {
        let (container, path) = (container.to_owned(), path.to_owned());
        let Some(id) = self.container_id(&container) else {
            return Err(EngineError::ContainerMissing { container });
        };
        match self.paths.get(&(id.clone(), path.clone())) {
            Some(Some(tar)) => Ok((id, tar.clone())),
            Some(None) => Err(EngineError::NotADirectory { container, path }),
            None => Err(EngineError::PathMissing { container, path }),
        }
    }

    fn container_id(&self, name_or_id: &str) -> Option<String> {
        let known = |info: &&ContainerInfo| info.id == name_or_id || info.name == name_or_id;
        self.containers.values().find(known).map(|info| info.id.clone())
    }
}

/// Returns a reference with its tag.
fn full(reference: &str) -> String {
    let (repository, tag) = super::tags::split(reference);
    format!("{repository}:{tag}")
}

/// Says whether labels fit a filter: `NAME` or `NAME=value`.
fn fits(labels: &BTreeMap<String, String>, filter: &str) -> bool {
    match filter.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|seen| seen == value),
        None => labels.contains_key(filter),
    }
}

fn broken() -> EngineError {
    EngineError::Gone { action: "moving an archive".to_owned(), source: "the test says so".into() }
}

fn refused(action: &str, status: u16, message: String) -> EngineError {
    EngineError::Refused { action: action.to_owned(), status, message }
}

/// Returns what `docker save` would give.
fn saved(id: &ImageId, image: &FakeImage) -> std::io::Result<Bytes> {
    let config = format!("{}.json", id.digest());
    let layers: Vec<String> = (0..image.layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let manifest = serde_json::json!([{ "Config": config, "RepoTags": [], "Layers": layers }]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes)
    };
    for (path, layer) in layers.iter().zip(&image.layers) {
        add(path, layer)?;
    }
    add(&config, &image.config())?;
    add("manifest.json", manifest.as_bytes())?;
    Ok(tar.into_inner()?.into())
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        drop(self.called("info")?);
        Ok(self.info.clone())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        let state = self.called("image")?;
        Ok(state.find(reference).and_then(|id| state.describe(&id)))
    }

    async fn images(&self, label: &str) -> Result<Vec<ImageInfo>, EngineError> {
        let state = self.called("images")?;
        let fitting = state.images.iter().filter(|(_, image)| fits(&image.labels, label));
        Ok(fitting.filter_map(|(id, _)| state.describe(id)).collect())
    }

    async fn history(&self, reference: &str) -> Result<Vec<HistoryEntry>, EngineError> {
        let state = self.called("history")?;
        let image = state.find(reference).and_then(|id| state.images.get(&id));
        image
            .map(|image| image.history.clone())
            .ok_or_else(|| refused("give an image's history", 404, format!("No such image: {reference}")))
    }

    async fn pull(
        &self,
        reference: &str,
        _platform: Option<&str>,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<(), EngineError> {
        let mut state = self.called("pull")?;
        let Some(image) = state.pulls.get(&full(reference)).cloned() else {
            let message = "dial tcp: no such host".to_owned();
            return Err(EngineError::BaseMissing { reference: reference.to_owned(), message });
        };
        let id = image.id();
        state.images.insert(id, image);
        state.tags.insert(full(reference), id);
        drop(state);
        sink.emit(EngineEvent::Pull { status: format!("Pulled {reference}") });
        Ok(())
    }

    async fn tag(&self, image: &ImageId, reference: &str) -> Result<(), EngineError> {
        let mut state = self.called("tag")?;
        if !state.images.contains_key(image) {
            return Err(refused("tag an image", 404, format!("No such image: {image}")));
        }
        state.tags.insert(full(reference), *image);
        Ok(())
    }

    async fn untag(&self, reference: &str) -> Result<(), EngineError> {
        let mut state = self.called("untag")?;
        if let Some(words) = state.holding.get(&full(reference)) {
            return Err(refused("remove an image", 500, words.clone()));
        }
        let Some(id) = state.tags.get(&full(reference)).copied() else { return Ok(()) };
        if state.tags.values().filter(|tagged| **tagged == id).count() == 1 {
            if let Some(container) = state.containers.values().find(|info| info.image == Some(id)) {
                let message =
                    format!("container {} is using its referenced image {}", container.id, id.short());
                return Err(refused("remove an image", 409, message));
            }
            state.images.remove(&id);
        }
        state.tags.remove(&full(reference));
        Ok(())
    }

    async fn build(
        &self,
        request: &BuildRequest,
        sink: &dyn Sink<EngineEvent>,
        cancel: &CancellationToken,
    ) -> Result<Built, EngineError> {
        let build = {
            let mut state = self.called("build")?;
            state.requests.push(request.clone());
            state.builds.pop_front()
        };
        if cancel.is_cancelled() {
            return Err(EngineError::Cancelled { action: "building".to_owned() });
        }
        if request.builder == Builder::Classic && !request.secrets.is_empty() {
            let reason = "the classic builder takes no secrets; BuildKit does".to_owned();
            return Err(EngineError::Unsupported { reason });
        }
        let build = build.unwrap_or_else(|| FakeBuild::Succeeds(FakeImage::of_layer("a layer")));
        self.play(build, request, sink, cancel).await
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let mut state = self.called("start")?;
        let Some(image) = state.find(&spec.image) else {
            return Err(refused("make a container", 404, format!("No such image: {}", spec.image)));
        };
        if state.containers.values().any(|info| !spec.name.is_empty() && info.name == spec.name) {
            return Err(refused("make a container", 409, format!("the name {} is in use", spec.name)));
        }
        state.made += 1;
        let id = Sha256Digest::of(&state.made.to_le_bytes()).to_string();
        let info = ContainerInfo {
            id: id.clone(),
            name: spec.name.clone(),
            image: Some(image),
            labels: spec.labels.clone(),
            running: true,
            exit_code: None,
        };
        state.containers.insert(id.clone(), info.clone());
        // Two blocks of zeros are the tar of an empty directory.
        state.paths.insert((id.clone(), "/mnt".to_owned()), Some(vec![0; 1024].into()));
        state.paths.insert((id.clone(), "/etc/passwd".to_owned()), None);
        state.started.push(spec.clone());
        drop(state);
        self.happens(&info, &spec.image, &[ContainerAction::Created, ContainerAction::Started]);
        Ok(id)
    }

    async fn exec(
        &self,
        container: &str,
        spec: &ExecSpec,
        timeout: Duration,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<ExecReport, EngineError> {
        const ACTION: &str = "run a command in a container";
        let words = spec.cmd.join(" ");
        let outcome = {
            let state = self.called("exec")?;
            let info = state.container_id(container).and_then(|id| state.containers.get(&id).cloned());
            match info {
                None => return Err(refused(ACTION, 404, format!("No such container: {container}"))),
                Some(info) if !info.running => {
                    return Err(refused(ACTION, 409, format!("container {container} is not running")));
                }
                Some(_) => {}
            }
            let fitting = state.commands.iter().rev().find(|(part, _)| words.contains(part));
            fitting.map(|(_, outcome)| outcome.clone())
        };
        match outcome {
            None => Ok(ExecReport { exit_code: 0, stdout: String::new(), stderr: String::new() }),
            Some(FakeExec::Hangs) => {
                tokio::time::sleep(timeout).await;
                Err(EngineError::Timeout { action: words, limit: timeout, step: None })
            }
            Some(FakeExec::Ends(report)) => {
                for (stream, text) in
                    [(OutputStream::Stdout, &report.stdout), (OutputStream::Stderr, &report.stderr)]
                {
                    for line in text.lines() {
                        sink.emit(EngineEvent::Log { step: 0, stream, line: line.to_owned() });
                    }
                }
                Ok(report)
            }
        }
    }

    async fn container_logs(&self, container: &str, tail: usize) -> Result<Vec<String>, EngineError> {
        let state = self.called("container_logs")?;
        let Some(id) = state.container_id(container) else {
            return Err(refused("give a container's output", 404, format!("No such container: {container}")));
        };
        let lines = state.logs.get(&id).cloned().unwrap_or_default();
        Ok(lines.iter().skip(lines.len().saturating_sub(tail)).cloned().collect())
    }

    async fn container(&self, container: &str) -> Result<Option<ContainerInfo>, EngineError> {
        let state = self.called("container")?;
        Ok(state.container_id(container).and_then(|id| state.containers.get(&id).cloned()))
    }

    async fn containers(&self, label: &str) -> Result<Vec<ContainerInfo>, EngineError> {
        let state = self.called("containers")?;
        Ok(state.containers.values().filter(|info| fits(&info.labels, label)).cloned().collect())
    }

    async fn all_containers(&self) -> Result<Vec<ContainerUse>, EngineError> {
        let state = self.called("all_containers")?;
        let container = |info: &ContainerInfo| ContainerUse {
            id: info.id.clone(),
            name: info.name.clone(),
            image: info.image,
            reference: info.image.map_or_else(String::new, |image| image.to_string()),
            running: info.running,
        };
        Ok(state.containers.values().map(container).collect())
    }

    async fn container_events(
        &self,
        since: Option<jiff::Timestamp>,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, EngineError>>, EngineError> {
        let state = self.called("container_events")?;
        let first = match since {
            Some(since) => state.events.iter().filter(|event| event.at < since).count(),
            None => state.events.len(),
        };
        drop(state);
        let events = futures_util::stream::unfold((self.clone(), first), |(engine, at)| async move {
            loop {
                // Asked for before the look, so that nothing happens unseen in between.
                let happened = engine.happened.notified();
                let next = {
                    let state = engine.state();
                    if state.unreachable {
                        return None;
                    }
                    state.events.get(at).cloned()
                };
                if let Some(event) = next {
                    return Some((Ok(event), (engine.clone(), at + 1)));
                }
                happened.await;
            }
        });
        Ok(events.boxed())
    }

    async fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        let state = self.called("disk_usage")?;
        let mut holders: BTreeMap<&Bytes, u64> = BTreeMap::new();
        for image in state.images.values() {
            let own: std::collections::BTreeSet<&Bytes> = image.layers.iter().collect();
            own.into_iter().for_each(|layer| *holders.entry(layer).or_default() += 1);
        }
        let bytes_of = |layer: &&Bytes| layer.len() as u64;
        let images = state.images.iter().filter_map(|(id, image)| {
            let info = state.describe(id)?;
            let shared = image.layers.iter().filter(|layer| holders.get(layer).is_some_and(|held| *held > 1));
            Some(ImageUsage {
                id: *id,
                tags: info.tags,
                labels: info.labels,
                size_bytes: info.size_bytes,
                shared_bytes: Some(shared.map(|layer| bytes_of(&layer)).sum()),
            })
        });
        Ok(DiskUsage {
            images: images.collect(),
            layers_bytes: holders.keys().map(bytes_of).sum(),
            cache: state.cache.clone(),
        })
    }

    async fn disk_space(&self) -> Result<Option<DiskSpace>, EngineError> {
        Ok(self.called("disk_space")?.space)
    }

    async fn delete_cache_record(&self, id: &str) -> Result<Option<u64>, EngineError> {
        let mut state = self.called("delete_cache_record")?;
        let needed = state.cache.iter().any(|record| record.parents.iter().any(|parent| parent == id));
        let found = state.cache.iter().position(|record| record.id == id && !record.in_use && !needed);
        Ok(found.map(|at| state.cache.remove(at).size_bytes))
    }

    async fn remove_container(&self, container: &str) -> Result<(), EngineError> {
        let mut state = self.called("remove_container")?;
        let Some(id) = state.container_id(container) else { return Ok(()) };
        let info = state.containers.remove(&id);
        state.logs.remove(&id);
        state.paths.retain(|(container, _), _| *container != id);
        drop(state);
        if let Some(info) = info {
            let reference = info.image.map_or_else(String::new, |image| image.to_string());
            self.happens(&info, &reference, &[ContainerAction::Removed]);
        }
        Ok(())
    }

    async fn save(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        let state = self.called("save")?;
        let found = state.find(reference).and_then(|id| Some((id, state.images.get(&id)?)));
        let Some((id, image)) = found else {
            return Err(refused("save an image", 404, format!("No such image: {reference}")));
        };
        let bytes = saved(&id, image).map_err(|error| refused("save an image", 500, error.to_string()))?;
        // In pieces, so that a reader which counts on whole messages is found out.
        let pieces: Vec<Bytes> = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
        Ok(futures_util::stream::iter(pieces.into_iter().map(Ok)).boxed())
    }

    async fn read_archive(
        &self,
        container: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        let state = self.called("read_archive")?;
        let (_, mut tar) = state.directory(container, path)?;
        let transfer = state.transfer;
        if let Some(FakeTransfer::Breaks(at) | FakeTransfer::Ends(at) | FakeTransfer::Stalls(at)) = transfer {
            tar.truncate(at);
        }
        let pieces: Vec<Bytes> = tar.chunks(1000).map(Bytes::copy_from_slice).collect();
        let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok));
        Ok(match transfer {
            Some(FakeTransfer::Breaks(_)) => {
                pieces.chain(futures_util::stream::once(async { Err(broken()) })).boxed()
            }
            Some(FakeTransfer::Stalls(_)) => pieces.chain(futures_util::stream::pending()).boxed(),
            Some(FakeTransfer::Ends(_)) | None => pieces.boxed(),
        })
    }

    async fn write_archive(
        &self,
        container: &str,
        path: &str,
        mut archive: ArchiveBody,
    ) -> Result<(), EngineError> {
        let (id, transfer) = {
            let state = self.called("write_archive")?;
            (state.directory(container, path)?.0, state.transfer)
        };
        let key = (id, path.to_owned());
        let mut tar = Vec::new();
        while let Some(piece) = archive.next().await {
            let Ok(piece) = piece else { return Err(broken()) };
            tar.extend_from_slice(&piece);
            self.state().paths.insert(key.clone(), Some(tar.clone().into()));
            match transfer {
                Some(FakeTransfer::Breaks(at)) if tar.len() >= at => return Err(broken()),
                Some(FakeTransfer::Ends(at)) if tar.len() >= at => {
                    let message = "no space left on device".to_owned();
                    return Err(EngineError::DiskFull { step: None, message });
                }
                Some(FakeTransfer::Stalls(at)) if tar.len() >= at => std::future::pending().await,
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Discard;
    use crate::docker::conformance;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        let engine = FakeEngine::new();
        engine.add_image(conformance::BASE, FakeImage::of_layer("base"));
        engine.on_command_ends("echo out; exit 3", 3, "out\n");
        engine.on_command("sleep 60", FakeExec::Hangs);
        for builder in [Builder::Buildkit, Builder::Classic] {
            for outcome in [
                FakeBuild::Prints(
                    vec!["a line".into()],
                    Box::new(FakeBuild::Succeeds(FakeImage::of_layer("x"))),
                ),
                FakeBuild::Fails(EngineError::Step {
                    step: 1,
                    name: "RUN".into(),
                    exit_code: Some(7),
                    message: String::new(),
                    tail: vec!["last words".into()],
                }),
                FakeBuild::Prints(
                    vec!["go".into()],
                    Box::new(FakeBuild::Waits(
                        FakeGate::default(),
                        Box::new(FakeBuild::Succeeds(FakeImage::default())),
                    )),
                ),
            ] {
                engine.next_build(outcome);
            }
            conformance::builds(&engine, builder).await;
            conformance::a_cancelled_build(&engine, builder).await;
        }
        conformance::references(&engine).await;
        conformance::containers(&engine).await;
        conformance::archives(&engine).await;
        conformance::what_is_not_there(&engine).await;
        conformance::holdings(&engine).await;
        assert_eq!(engine.references(), [conformance::BASE]);
    }

    #[tokio::test]
    async fn a_gate_holds_a_build_until_it_is_opened() {
        let (engine, gate) = (FakeEngine::new(), FakeGate::default());
        let then = Box::new(FakeBuild::Succeeds(FakeImage::of_layer("x")));
        engine.next_build(FakeBuild::Waits(gate.clone(), then));
        let request = conformance::request(Builder::Buildkit, "RUN true\n");
        let (builder, tag) = (engine.clone(), request.tags[0].clone());
        let build =
            tokio::spawn(async move { builder.build(&request, &Discard, &CancellationToken::new()).await });
        gate.reached().await;
        assert!(!build.is_finished() && engine.image(&tag).await.unwrap().is_none());
        gate.open();
        let built = build.await.unwrap().unwrap();
        assert_eq!(engine.image(&tag).await.unwrap().unwrap().id, built.image);
        assert_eq!((engine.calls("build"), engine.calls("image"), engine.calls("pull")), (1, 2, 0));
    }

    #[tokio::test]
    async fn equal_images_have_equal_ids() {
        let engine = FakeEngine::new();
        let one = engine.add_image("a:1", FakeImage::of_layer("x"));
        assert_eq!(one, engine.add_image("b:1", FakeImage::of_layer("x")));
        assert_eq!(engine.image("a:1").await.unwrap().unwrap().tags, ["a:1", "b:1"]);
        engine.lose_image(&one);
        assert!(engine.references().is_empty());
    }

    #[tokio::test]
    async fn an_unreachable_engine_says_so() {
        let engine = FakeEngine::new();
        engine.set_unreachable(true);
        assert!(matches!(engine.info().await, Err(EngineError::Unreachable { .. })));
    }
}
