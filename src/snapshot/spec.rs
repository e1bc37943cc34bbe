//! What is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::config::Profile;
use crate::base::{ByteSize, ChannelName, Length, SnapshotName};
use crate::catalog::SnapshotRef;
use crate::docker::{Builder, NetworkMode, SecretValue};

/// A bake as the user asks for it.
#[derive(Debug, Clone, Default)]
pub struct BakeSpec {
    /// A shipped template's name, a template folder, or a folder with a Dockerfile.
    pub template: String,
    /// The snapshot's name; the template's when absent.
    pub name: Option<SnapshotName>,
    /// Parameters of the template.
    pub parameters: BTreeMap<String, String>,
    /// The base image; the template's own when absent.
    pub base: Option<BaseChoice>,
    /// When to pull the base.
    pub pull: PullPolicy,
    /// The platform, such as `linux/amd64`.
    pub platform: Option<String>,
    /// Certificates that stay in the image: files or folders.
    pub ca_certs: Vec<PathBuf>,
    /// Certificates that are trusted while building only: files or folders.
    pub build_cas: Vec<PathBuf>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretValue>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build.
    pub target: Option<String>,
    /// A folder that is the context, in place of the template's own.
    pub context: Option<PathBuf>,
    /// The Dockerfile's path, in place of `Dockerfile`; only for a plain Dockerfile folder.
    pub file: Option<PathBuf>,
    /// The provider profile it is held to, with its name.
    pub profile: Option<(String, Profile)>,
    /// Resources and limits that take the place of the template's.
    pub sizing: Sizing,
    /// Free space that must stay on the engine's disk.
    pub min_free: Option<ByteSize>,
    /// Who builds.
    pub builder: BuilderChoice,
    /// The network of the build's steps.
    pub network: NetworkMode,
    /// Bake also when there is an active snapshot, without the engine's cache.
    pub rebuild: bool,
    /// Bake anew, without the engine's cache, when the snapshot is older; the template's `refresh_after` when absent.
    pub max_age: Option<Length>,
    /// Register it as `unchecked`, without booting it.
    pub skip_checks: bool,
    /// Channels that then hold it.
    pub channels: Vec<ChannelName>,
    /// After how long it is not needed.
    pub ttl: Option<Length>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}

/// Resources and limits that take the place of the template's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizing {
    /// CPUs of a sandbox.
    pub cpu: Option<u32>,
    /// Memory of a sandbox.
    pub memory: Option<ByteSize>,
    /// Disk of a sandbox.
    pub disk: Option<ByteSize>,
    /// Largest image.
    pub max_image: Option<ByteSize>,
    /// Largest context.
    pub max_context: Option<ByteSize>,
    /// Most that the steps may write.
    pub max_build_write: Option<ByteSize>,
    /// Longest build.
    pub timeout: Option<Length>,
}

/// What to build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseChoice {
    /// An image by its reference.
    Image(String),
    /// A snapshot of this store.
    Snapshot(SnapshotRef),
}

/// When to pull the base.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When it is not on the engine.
    #[default]
    Missing,
    /// Before every bake.
    Always,
    /// Never.
    Never,
}

/// Who builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BuilderChoice {
    /// BuildKit where the engine has it, else the classic builder if it can do what the Dockerfile needs.
    #[default]
    Auto,
    /// This one, or a refusal.
    Only(Builder),
}
