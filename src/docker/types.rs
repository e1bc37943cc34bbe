//! What is asked of an engine and what it answers: plain data.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::base::{EngineId, ImageId};

/// What an engine is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// The engine's own id. Cloned hosts share it.
    pub id: EngineId,
    /// Version of the engine, such as `20.10.24`.
    pub version: String,
    /// The API version in use.
    pub api_version: String,
    /// Architecture as images name it, such as `amd64`.
    pub architecture: String,
    /// Operating system of the engine's host.
    pub operating_system: String,
    /// Storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// The engine's data folder, on its host.
    pub data_root: std::path::PathBuf,
    /// Whether the data folder is on this host, so that free space and a step's writes can be seen.
    pub local: bool,
    /// How the engine is reached, such as `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// What its builders can do.
    pub builders: BuilderFeatures,
}

/// What the engine's builders can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderFeatures {
    /// BuildKit is there.
    pub buildkit: bool,
    /// BuildKit takes secrets over a session.
    pub session: bool,
    /// Here-documents in `RUN` and `COPY`. Absent from the frontend of engine 20.10.
    pub heredoc: bool,
    /// `COPY --link`. Absent from the frontend of engine 20.10.
    pub copy_link: bool,
    /// `RUN --mount=type=secret,env=…`. Absent from the frontend of engines before 27.
    pub secret_env: bool,
    /// `RUN --network=…` without a labs frontend.
    pub run_network: bool,
}

/// An image on an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The image's id.
    pub id: ImageId,
    /// Its references, `repository:tag`.
    pub tags: Vec<String>,
    /// Its registry digests, `repository@sha256:…`; empty until pushed or pulled.
    pub repo_digests: Vec<String>,
    /// Bytes of all its layers, uncompressed.
    pub size_bytes: u64,
    /// When it was made.
    pub created: Option<jiff::Timestamp>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Its entrypoint.
    pub entrypoint: Vec<String>,
    /// Its command.
    pub cmd: Vec<String>,
    /// Its user.
    pub user: String,
    /// Its working directory.
    pub workdir: String,
    /// Its architecture.
    pub architecture: String,
    /// Its operating system.
    pub os: String,
    /// Digests of its uncompressed layers, lowest first.
    pub layers: Vec<String>,
}

/// One entry of an image's history, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The instruction that made it.
    pub created_by: String,
    /// Bytes that it added; zero for instructions that only change the configuration.
    pub size_bytes: u64,
    /// When it was made.
    pub created: Option<jiff::Timestamp>,
}

/// Which builder does a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Builder {
    /// BuildKit inside the engine.
    Buildkit,
    /// The classic builder.
    Classic,
}

/// A secret's bytes. Printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    /// Returns the bytes, for the one who hands them to the engine or searches for them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// A build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Who builds.
    pub builder: Builder,
    /// What is sent. The Dockerfile is part of it.
    pub context: super::Context,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// References the image gets.
    pub tags: Vec<String>,
    /// Labels the image gets.
    pub labels: BTreeMap<String, String>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; the last one when absent.
    pub target: Option<String>,
    /// The platform, such as `linux/amd64`.
    pub platform: Option<String>,
    /// Network of `RUN` steps: `default`, `host` or `none`.
    pub network: NetworkMode,
    /// Build every step anew.
    pub no_cache: bool,
    /// Secrets by id. Only BuildKit takes them.
    pub secrets: BTreeMap<String, SecretValue>,
    /// Whether a step mounts secrets, given or not: BuildKit wants a session even for an optional one.
    pub mounts_secrets: bool,
    /// Limits held while building.
    pub limits: BuildLimits,
}

/// Limits held while a build runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLimits {
    /// Most bytes that the context's files may have.
    pub context_bytes: u64,
    /// Most bytes that the steps of this build may write together.
    pub write_bytes: u64,
    /// The free space, in bytes, that must stay on the engine's file system.
    pub min_free_bytes: u64,
    /// How long the build may take.
    pub timeout: Duration,
}

/// The network of a build step or a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The engine's bridge.
    #[default]
    Default,
    /// The engine host's own network.
    Host,
    /// Loopback only.
    None,
}

impl NetworkMode {
    /// Returns the engine's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// What a build gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: ImageId,
    /// What was sent.
    pub context: ContextSent,
    /// Steps in order, with their times.
    pub steps: Vec<StepReport>,
}

/// What was sent as the build context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSent {
    /// Bytes of the tar.
    pub bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The instruction, shortened to one line.
    pub name: String,
    /// Whether its result came from the cache.
    pub cached: bool,
    /// Milliseconds it ran.
    pub ms: u64,
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// It runs.
    Running,
    /// It is done.
    Done,
    /// Its result came from the cache.
    Cached,
    /// It failed.
    Failed,
}

/// Where a log line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happens while an engine works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EngineEvent {
    /// A part of the context was sent. Emitted at most ten times a second, and once at the end.
    Context {
        /// Bytes sent so far.
        bytes: u64,
        /// Entries sent so far.
        entries: u64,
        /// Whether that was all.
        done: bool,
    },
    /// A step changed its state. A step is emitted once as running (unless cached) and once at its end.
    Step {
        /// Identifies the step within the build; starts at 1, in the order of appearance.
        step: u32,
        /// The instruction.
        name: String,
        /// Its state now.
        state: StepState,
        /// Milliseconds it ran, at its end.
        ms: Option<u64>,
    },
    /// A line of output, without its line break, with secrets redacted.
    Log {
        /// The step; zero where the engine does not say.
        step: u32,
        /// Where it was written to.
        stream: OutputStream,
        /// The line.
        line: String,
    },
    /// A pull went on.
    Pull {
        /// What the engine says, one line.
        status: String,
    },
    /// What the running steps have written, and what is free. Emitted at each look, at most twice a second.
    Disk {
        /// Bytes written by this build, where they can be seen.
        written_bytes: Option<u64>,
        /// Bytes free on the engine's file system, where it is on this host.
        free_bytes: Option<u64>,
    },
    /// Something the reader should know that stops nothing, such as clipped output.
    Warning {
        /// A stable word: `output_clipped`, `watchdog_degraded`, `foreign_build`, …
        code: String,
        /// A sentence.
        message: String,
    },
}

/// A container to run.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// The image.
    pub image: String,
    /// The container's name.
    pub name: String,
    /// Arguments given to the entrypoint; the image's own when absent.
    pub cmd: Option<Vec<String>>,
    /// The entrypoint; the image's own when absent.
    pub entrypoint: Option<Vec<String>>,
    /// The user; the image's own when absent.
    pub user: Option<String>,
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its network.
    pub network: NetworkMode,
    /// Most memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPUs in billionths.
    pub nano_cpus: Option<u64>,
    /// Most processes.
    pub pids: Option<u32>,
    /// Host files mounted read-only: (host path, container path).
    pub binds: Vec<(String, String)>,
}

/// A container on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image it was made of.
    pub image: Option<ImageId>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code, once it has ended.
    pub exit_code: Option<i64>,
}

/// A container and the image that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUse {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image it was made of.
    pub image: Option<ImageId>,
    /// How it names its image: a reference, or an id.
    pub reference: String,
    /// Whether it runs, or is paused.
    pub running: bool,
}

/// What takes space on an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of all layers of all images, each layer counted once.
    pub layers_bytes: u64,
    /// The images, without those that only stand below others.
    pub images: Vec<ImageUsage>,
    /// The records of the build cache.
    pub cache: Vec<CacheRecord>,
}

/// What an image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub id: ImageId,
    /// Its references, `repository:tag`.
    pub tags: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes of all its layers.
    pub size_bytes: u64,
    /// Bytes of those that other images have too, where the engine counts them.
    pub shared_bytes: Option<u64>,
}

/// A record of the build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// Its id.
    pub id: String,
    /// The records that it stands on.
    pub parents: Vec<String>,
    /// The engine's word for its kind: `regular`, `source.local`, `exec.cachemount`, …
    pub kind: String,
    /// What made it.
    pub description: String,
    /// Whether a build uses it now.
    pub in_use: bool,
    /// Whether an image has the same layer, so that deleting one of both frees nothing.
    pub shared: bool,
    /// Its bytes.
    pub size_bytes: u64,
    /// When it was made.
    pub created: Option<jiff::Timestamp>,
    /// When a build used it last.
    pub last_used: Option<jiff::Timestamp>,
}

/// The space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpace {
    /// Its bytes, without those that only root may fill.
    pub total_bytes: u64,
    /// Its free bytes, for any user.
    pub free_bytes: u64,
}

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// When, by the engine's clock.
    pub at: jiff::Timestamp,
    /// What.
    pub action: ContainerAction,
    /// The container's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// How it names its image: a reference, or an id.
    pub image: String,
    /// Its labels, its image's included, and what else the engine says of it.
    pub labels: BTreeMap<String, String>,
}

/// What can become of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerAction {
    /// It was made.
    Created,
    /// It was started.
    Started,
    /// Its main process ended.
    Ended,
    /// It was removed.
    Removed,
}

/// A tar on its way to an engine. An error in it ends the transfer, so that the engine never takes a part of it for the whole.
pub type ArchiveBody = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// A command to run in a running container.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// The command and its arguments.
    pub cmd: Vec<String>,
    /// The user; the container's own when absent.
    pub user: Option<String>,
    /// The working directory; the container's own when absent.
    pub workdir: Option<String>,
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecReport {
    /// Its exit code.
    pub exit_code: i64,
    /// What it wrote to standard output; the first 1 MiB.
    pub stdout: String,
    /// What it wrote to standard error; the first 1 MiB.
    pub stderr: String,
}
