//! The contract of an engine.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use super::types::*;
use crate::base::{ByteSize, Classify, ErrorKind, ImageId, Sink};

/// A Docker Engine.
///
/// Every method may be called from several tasks at once. Dropping a returned future stops the engine's work on it as soon
/// as the engine notices (BuildKit and the classic builder: within a second).
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Returns what the engine is and can do.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Returns the image that `reference` (a tag, a digest or an id) names; `None` when there is none.
    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError>;

    /// Returns the images that carry `label` (`NAME` or `NAME=value`).
    async fn images(&self, label: &str) -> Result<Vec<ImageInfo>, EngineError>;

    /// Returns an image's history, lowest layer first.
    async fn history(&self, reference: &str) -> Result<Vec<HistoryEntry>, EngineError>;

    /// Pulls an image.
    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<(), EngineError>;

    /// Gives an image a further reference.
    async fn tag(&self, image: &ImageId, reference: &str) -> Result<(), EngineError>;

    /// Takes a reference away; the image goes with its last one unless a container uses it. Never forces. A reference that is
    /// not there is fine.
    async fn untag(&self, reference: &str) -> Result<(), EngineError>;

    /// Builds an image. Holds the limits of the request while it runs; cleans up its own leftovers when it fails or is
    /// cancelled. Events arrive in order.
    async fn build(
        &self,
        request: &BuildRequest,
        sink: &dyn Sink<EngineEvent>,
        cancel: &CancellationToken,
    ) -> Result<Built, EngineError>;

    /// Makes and starts a container; returns its id.
    async fn start(&self, spec: &ContainerSpec) -> Result<String, EngineError>;

    /// Runs a command in a running container. Output lines go to the sink as they come (step zero).
    async fn exec(
        &self,
        container: &str,
        spec: &ExecSpec,
        timeout: Duration,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<ExecReport, EngineError>;

    /// Returns what a container has written so far (standard output and error, the last `tail` lines).
    async fn container_logs(&self, container: &str, tail: usize) -> Result<Vec<String>, EngineError>;

    /// Returns a container; `None` when there is none.
    async fn container(&self, container: &str) -> Result<Option<ContainerInfo>, EngineError>;

    /// Returns the containers that carry `label` (`NAME` or `NAME=value`), running or not.
    async fn containers(&self, label: &str) -> Result<Vec<ContainerInfo>, EngineError>;

    /// Returns all containers of any state, whosever they are, with the images that they hold.
    async fn all_containers(&self) -> Result<Vec<ContainerUse>, EngineError>;

    /// Follows what becomes of containers: from `since` on, as far back as the engine remembers, or from now on. The stream ends
    /// when the engine goes.
    async fn container_events(
        &self,
        since: Option<jiff::Timestamp>,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, EngineError>>, EngineError>;

    /// Returns what takes space: all images with what they share, whosever they are, and the build cache. The engine may take
    /// seconds to count.
    async fn disk_usage(&self) -> Result<DiskUsage, EngineError>;

    /// Returns the space of the file system that holds the engine's data; `None` where that is not on this host.
    async fn disk_space(&self) -> Result<Option<DiskSpace>, EngineError>;

    /// Deletes one record of the build cache; returns the bytes that it had. `None` where it is gone, or stays because a build or
    /// another record needs it.
    async fn delete_cache_record(&self, id: &str) -> Result<Option<u64>, EngineError>;

    /// Kills and removes a container and its anonymous volumes. One that is not there is fine.
    async fn remove_container(&self, container: &str) -> Result<(), EngineError>;

    /// Streams an image as `docker save` gives it.
    async fn save(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError>;

    /// Streams the directory at the absolute `path` of a container, running or not, as a tar whose names begin with `./`.
    ///
    /// A symbolic link to a directory is followed. A whole tar ends with its end marker; an engine that fails in the middle may
    /// end the stream without one.
    async fn read_archive(
        &self,
        container: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError>;

    /// Unpacks a tar into the directory at the absolute `path` of a container, running or not. The directory must be there.
    ///
    /// Owners are the numbers in the tar. What is there already stays or is replaced, but neither a directory by something else
    /// nor something else by a directory. Whatever was unpacked before a failure stays.
    async fn write_archive(
        &self,
        container: &str,
        path: &str,
        archive: ArchiveBody,
    ) -> Result<(), EngineError>;
}

/// Why an engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers.
    #[error("no Docker Engine answers at `{endpoint}`")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The engine is there and this user may not use it.
    #[error("permission denied at the Docker Engine's socket `{endpoint}`")]
    Permission {
        /// The socket.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The address of the engine cannot be used.
    #[error("cannot use the engine address `{endpoint}`: {reason}")]
    Address {
        /// The address.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The engine went away in the middle of something.
    #[error("the Docker Engine went away while {action}")]
    Gone {
        /// What was being done.
        action: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The engine refused.
    #[error("the Docker Engine refused to {action}: {message}")]
    Refused {
        /// What was asked.
        action: String,
        /// The HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// There is no such container.
    #[error("there is no container `{container}`")]
    ContainerMissing {
        /// Its name or id.
        container: String,
    },
    /// A container does not have such a path.
    #[error("there is no `{path}` in the container `{container}`")]
    PathMissing {
        /// The container.
        container: String,
        /// The path in it.
        path: String,
    },
    /// A path of a container is something else than a directory.
    #[error("`{path}` in the container `{container}` is not a directory")]
    NotADirectory {
        /// The container.
        container: String,
        /// The path in it.
        path: String,
    },
    /// Something in a container is not replaced.
    #[error("something is in the way in `{path}` of the container `{container}`: {message}")]
    InTheWay {
        /// The container.
        container: String,
        /// The path that was to be written to.
        path: String,
        /// The engine's words.
        message: String,
    },
    /// A base image is not there and could not be pulled.
    #[error("the base image `{reference}` is not on this engine and cannot be pulled")]
    BaseMissing {
        /// The image.
        reference: String,
        /// The engine's words.
        message: String,
    },
    /// The engine's builders cannot do what the Dockerfile needs.
    #[error("the builder cannot do what the Dockerfile needs: {reason}")]
    Unsupported {
        /// What is needed, what is there.
        reason: String,
    },
    /// The Dockerfile has a mistake.
    #[error("the Dockerfile has a mistake{}: {message}", line.map(|l| format!(" in line {l}")).unwrap_or_default())]
    Dockerfile {
        /// The line, where the engine says it.
        line: Option<u32>,
        /// The engine's words.
        message: String,
    },
    /// A step failed.
    #[error("step {step} `{name}` failed{}", exit_code.map(|c| format!(" with exit code {c}")).unwrap_or_default())]
    Step {
        /// The step.
        step: u32,
        /// Its instruction.
        name: String,
        /// Its exit code, where the engine says it.
        exit_code: Option<i64>,
        /// The engine's words.
        message: String,
        /// The last lines it wrote.
        tail: Vec<String>,
    },
    /// A secret that the Dockerfile requires was not given.
    #[error("the build needs the secret `{id}`, which was not given")]
    SecretMissing {
        /// Its id.
        id: String,
    },
    /// The context is larger than allowed.
    #[error("the build context is larger than allowed: more than {} (limit `context`)", ByteSize(*limit_bytes))]
    ContextTooLarge {
        /// The limit.
        limit_bytes: u64,
        /// The heaviest entries: path (or directory) and bytes.
        heaviest: Vec<(String, u64)>,
    },
    /// The context could not be read.
    #[error("cannot read `{}` of the build context", path.display())]
    Context {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The steps wrote more than allowed.
    #[error("step {step} `{name}` wrote too much: {} so far, allowed are {} (limit `build_write`)", ByteSize(*written_bytes), ByteSize(*limit_bytes))]
    BuildWrite {
        /// The step that was running.
        step: u32,
        /// Its instruction.
        name: String,
        /// What this build had written when it was stopped.
        written_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// The largest directories that the running step wrote: path and bytes.
        heaviest: Vec<(String, u64)>,
    },
    /// The free space fell under the floor.
    #[error("free space on `{}` fell to {}, under the floor of {} (limit `min_free`)", path.display(), ByteSize(*free_bytes), ByteSize(*floor_bytes))]
    FreeSpace {
        /// The file system.
        path: PathBuf,
        /// What was free.
        free_bytes: u64,
        /// The floor.
        floor_bytes: u64,
        /// The step that was running, if one was.
        step: Option<(u32, String)>,
    },
    /// The engine's disk is full.
    #[error("the engine's disk is full{}", step.as_ref().map(|(n, name)| format!(" (step {n} `{name}`)")).unwrap_or_default())]
    DiskFull {
        /// The step that was running, if one was.
        step: Option<(u32, String)>,
        /// The engine's words.
        message: String,
    },
    /// It took longer than allowed.
    #[error("{action} took longer than {} (limit `timeout`)", humantime::format_duration(*limit))]
    Timeout {
        /// What was being done.
        action: String,
        /// The limit.
        limit: Duration,
        /// The step that was running, if one was.
        step: Option<(u32, String)>,
    },
    /// The caller cancelled.
    #[error("cancelled while {action}")]
    Cancelled {
        /// What was being done.
        action: String,
    },
    /// The engine said something that this program does not understand.
    #[error("the Docker Engine's answer to {action} is not understood: {message}")]
    Protocol {
        /// What was asked.
        action: String,
        /// What is wrong with the answer.
        message: String,
    },
}

/// Any error's cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

impl Classify for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Permission { .. } | Self::Gone { .. } => ErrorKind::Unavailable,
            Self::Address { .. }
            | Self::Unsupported { .. }
            | Self::Dockerfile { .. }
            | Self::SecretMissing { .. }
            | Self::NotADirectory { .. }
            | Self::Context { .. } => ErrorKind::Invalid,
            Self::BaseMissing { .. } | Self::ContainerMissing { .. } | Self::PathMissing { .. } => {
                ErrorKind::NotFound
            }
            Self::InTheWay { .. } => ErrorKind::Conflict,
            Self::Refused { status, .. } => match status {
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                400..500 => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            Self::Step { .. } => ErrorKind::Failed,
            Self::ContextTooLarge { .. }
            | Self::BuildWrite { .. }
            | Self::FreeSpace { .. }
            | Self::DiskFull { .. }
            | Self::Timeout { .. } => ErrorKind::Limit,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Protocol { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => {
                Some("start a Docker Engine (`scripts/setup engine` does), or set DOCKER_HOST".into())
            }
            Self::Permission { .. } => {
                Some("run as root, or add this user to the `docker` group and log in again".into())
            }
            Self::BaseMissing { reference, .. } => Some(format!(
                "`scripts/base-image {reference}` makes a Debian or Ubuntu base where no registry can be reached"
            )),
            Self::ContainerMissing { .. } => Some("`docker ps --all` shows the containers".into()),
            Self::PathMissing { container, path } => Some(format!(
                "a directory to restore into is made with `docker exec {container} mkdir -p {path}`"
            )),
            Self::NotADirectory { .. } => Some("name the directory that holds it".into()),
            Self::InTheWay { .. } => Some("restore into an empty directory of the container".into()),
            Self::ContextTooLarge { .. } => {
                Some("list what is not needed in `.dockerignore`, or raise --max-context".into())
            }
            Self::BuildWrite { .. } => Some("make the step write less, or raise --max-build-write".into()),
            Self::FreeSpace { .. } | Self::DiskFull { .. } => {
                Some("free space on the engine's disk (`docker builder prune`), or lower --min-free".into())
            }
            Self::Timeout { .. } => Some("raise --timeout".into()),
            Self::SecretMissing { id } => {
                Some(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=NAME`"))
            }
            Self::Address { .. }
            | Self::Gone { .. }
            | Self::Refused { .. }
            | Self::Unsupported { .. }
            | Self::Dockerfile { .. }
            | Self::Step { .. }
            | Self::Context { .. }
            | Self::Cancelled { .. }
            | Self::Protocol { .. } => None,
        }
    }
}
