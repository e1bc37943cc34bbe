//! What a rendered template is: plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::{ByteSize, Length};

/// A template made concrete: everything a build needs, nothing that depends on an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendered {
    /// The template's name; for a plain Dockerfile folder, the folder's name.
    pub template: String,
    /// What it is for, in a sentence.
    pub description: String,
    /// The whole Dockerfile.
    pub dockerfile: String,
    /// Files of the context, sorted by path. The Dockerfile is not among them.
    #[serde(skip)]
    pub files: Vec<RenderedFile>,
    /// A folder whose content is the context, for a plain Dockerfile folder.
    pub context_root: Option<PathBuf>,
    /// The base image of the (last) `FROM`.
    pub base: String,
    /// Which release the base is, where that is known.
    pub distro: Option<Distro>,
    /// Components in the order of use.
    pub components: Vec<String>,
    /// All parameters with their final values, as text.
    pub parameters: BTreeMap<String, String>,
    /// Certificates that stay in the image.
    pub baked_cas: Vec<CaSummary>,
    /// Certificates that are trusted while building only.
    pub build_cas: Vec<CaSummary>,
    /// How a sandbox runs.
    pub runtime: Runtime,
    /// What a sandbox is given.
    pub resources: Resources,
    /// What the build may use.
    pub limits: Limits,
    /// Secrets that the build takes.
    pub secrets: Vec<SecretSpec>,
    /// What must hold in the finished image.
    pub checks: Vec<CheckSpec>,
    /// After how long an image should be built anew.
    pub refresh_after: Option<Length>,
}

/// A file of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Path in the context, with `/` between segments.
    pub path: String,
    /// Permission bits: 0755 or 0644.
    pub mode: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// A release of Debian or Ubuntu and what it brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distro {
    /// `debian` or `ubuntu`.
    pub family: String,
    /// Such as `bookworm`.
    pub codename: String,
    /// Such as `12` or `22.04`.
    pub version: String,
    /// The version of its `python3`, such as `3.11`.
    pub python: String,
    /// The major version of its PostgreSQL, such as `15`.
    pub postgres: String,
}

/// A certificate, described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaSummary {
    /// Whom it names.
    pub subject: String,
    /// SHA-256 of its DER bytes, hex.
    pub fingerprint: String,
    /// Until when it is valid.
    pub expires: jiff::Timestamp,
    /// The file that it was read from.
    pub file: PathBuf,
}

/// How a sandbox of a snapshot runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// The user; the image's own when empty.
    pub user: String,
    /// The user's id.
    pub uid: Option<u32>,
    /// The working directory; the image's own when empty.
    pub workdir: String,
    /// The entrypoint; the image's own when empty.
    pub entrypoint: Vec<String>,
    /// The command that starts the services without making an identity.
    pub start: Option<String>,
    /// How to see that the services answer.
    pub ready: Option<ReadySpec>,
    /// Ports that services listen on.
    pub ports: Vec<u16>,
    /// Variables of the image.
    pub env: BTreeMap<String, String>,
}

/// A command that succeeds once the services answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadySpec {
    /// The command, for `sh -c`.
    pub cmd: String,
    /// For how long it is tried.
    pub timeout: Length,
    /// Pause between two tries.
    pub interval: Length,
}

/// What a sandbox is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs.
    pub cpu: u32,
    /// Memory.
    pub memory: ByteSize,
    /// Disk.
    pub disk: ByteSize,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: 2, memory: ByteSize(4 * ByteSize::GIB), disk: ByteSize(10 * ByteSize::GIB) }
    }
}

/// What a build may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest image, all layers uncompressed.
    pub image: ByteSize,
    /// Most bytes that the steps may write together.
    pub build_write: ByteSize,
    /// Largest context.
    pub context: ByteSize,
    /// Longest build.
    pub timeout: Length,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image: ByteSize(10 * ByteSize::GIB),
            build_write: ByteSize(20 * ByteSize::GIB),
            context: ByteSize(ByteSize::GIB),
            timeout: Length::seconds(1800),
        }
    }
}

/// A secret that a build takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// Its id.
    pub id: String,
    /// Whether the build cannot go without.
    pub required: bool,
}

/// A command that must succeed in a container of the finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// Its name.
    pub name: String,
    /// The command, for `sh -c`.
    pub cmd: String,
    /// The user; the runtime's when absent.
    pub user: Option<String>,
    /// Whether it needs the network.
    pub network: bool,
    /// How long it may take.
    pub timeout: Length,
    /// What its standard output must contain.
    pub expect: Option<String>,
}
