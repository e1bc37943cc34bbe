//! What is stored, as it is stored. A field may be added; none is renamed or taken away without a new version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{
    BuildKey, EngineId, ErrorKind, ImageId, Length, Owner, Sha256Digest, SnapshotId, SnapshotKey,
    SnapshotName,
};
use crate::docker::{Builder, NetworkMode, StepReport};
use crate::template::{CaSummary, CheckSpec, Distro, Limits, Resources, Runtime};

/// What was asked for: written once, when a bake begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Version of this record: 1.
    pub version: u32,
    /// The snapshot.
    pub id: SnapshotId,
    /// Its name.
    pub name: SnapshotName,
    /// The template it was baked from.
    pub template: String,
    /// What was asked for: a shipped template's name, or the absolute path of a folder on the host that baked it.
    #[serde(default)]
    pub source: Option<String>,
    /// What it is for.
    pub description: String,
    /// When the bake began.
    pub created: jiff::Timestamp,
    /// The process that bakes it.
    pub owner: Owner,
    /// Version of the program that bakes it.
    pub kiln_version: String,
    /// What goes into the build.
    pub build_key: BuildKey,
    /// What goes into the snapshot.
    pub snapshot_key: SnapshotKey,
    /// The rendered Dockerfile.
    pub dockerfile: String,
    /// Digest of the context.
    pub context_digest: Sha256Digest,
    /// Parameters with their final values.
    pub parameters: BTreeMap<String, String>,
    /// Components in the order of use.
    pub components: Vec<String>,
    /// The base image.
    pub base: BaseRecord,
    /// Which release the base is, where that is known.
    pub distro: Option<Distro>,
    /// Certificates that stay in the image.
    pub baked_cas: Vec<CaSummary>,
    /// Certificates that were trusted while building only.
    pub build_cas: Vec<CaSummary>,
    /// The git repository that was checked out, for templates that do.
    pub checkout: Option<CheckoutRecord>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// Ids of the secrets that were given.
    pub secret_ids: Vec<String>,
    /// The stage that was built.
    pub target: Option<String>,
    /// The platform.
    pub platform: Option<String>,
    /// The network of the build's steps.
    pub network: NetworkMode,
    /// Who builds.
    pub builder: Builder,
    /// How a sandbox runs.
    pub runtime: Runtime,
    /// What a sandbox is given.
    pub resources: Resources,
    /// What the build may use.
    pub limits: Limits,
    /// What must hold in the finished image.
    pub checks: Vec<CheckSpec>,
    /// The provider profile it was held to.
    pub profile: Option<String>,
    /// After how long it should be built anew.
    pub refresh_after: Option<Length>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}

/// A base image as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// What the Dockerfile names.
    pub reference: String,
    /// The image that it was.
    pub image: Option<ImageId>,
    /// Its registry digest, where there is one.
    pub digest: Option<String>,
    /// Where it came from: `registry`, `local debootstrap`, `snapshot` or `local`.
    pub origin: String,
    /// The snapshot that it is, for a `snapshot:` base.
    pub snapshot: Option<SnapshotId>,
}

/// A git repository as it was checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutRecord {
    /// Where it came from, without credentials.
    pub url: String,
    /// What was asked for.
    pub reference: String,
    /// The commit that it was.
    pub commit: String,
}

/// What a bake gave; part of the transition to `active` or `unchecked`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The image.
    pub image: ImageId,
    /// When it was built, which is before this snapshot was begun where another snapshot has the same build.
    #[serde(default)]
    pub built: Option<jiff::Timestamp>,
    /// Bytes of all layers.
    pub size_bytes: u64,
    /// Layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// Packages found in the image.
    pub inventory: Inventory,
    /// How the checks went.
    pub checks: Vec<CheckRecord>,
    /// How the steps went.
    pub steps: Vec<StepReport>,
    /// How long each phase took.
    pub timings: Timings,
}

/// A layer, or an instruction that made none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The instruction, with secrets redacted.
    pub instruction: String,
    /// Bytes that it added.
    pub size_bytes: u64,
}

/// Packages in an image, by kind: name → version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Debian packages.
    pub dpkg: BTreeMap<String, String>,
    /// Python packages.
    pub pip: BTreeMap<String, String>,
    /// Node packages.
    pub npm: BTreeMap<String, String>,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// Milliseconds it took.
    pub ms: u64,
    /// Why it did not pass.
    pub reason: Option<String>,
}

/// Milliseconds by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Rendering, keys and looking at the engine.
    pub prepare_ms: u64,
    /// Building.
    pub build_ms: u64,
    /// Sizes and the search for secrets.
    pub gate_ms: u64,
    /// Booting and checking.
    pub check_ms: u64,
    /// Listing packages.
    pub inventory_ms: u64,
    /// All together.
    pub total_ms: u64,
}

/// Why a bake failed; part of the transition to `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub kind: ErrorKind,
    /// The message and its causes, one line each.
    pub messages: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
    /// How the checks went, when it came to them.
    #[serde(default)]
    pub checks: Vec<CheckRecord>,
}

/// An engine that has the image, or no longer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRecord {
    /// Version of this record: 1.
    pub version: u32,
    /// The engine.
    pub engine: EngineId,
    /// How it was reached, for people.
    pub endpoint: String,
    /// The image there.
    pub image: ImageId,
    /// Its reference there.
    pub tag: String,
    /// Whether it was there when somebody looked.
    pub state: PlaceState,
    /// When somebody looked.
    pub verified_at: jiff::Timestamp,
    /// When it was last used there, filled in from the touches when read.
    #[serde(default)]
    pub last_used: Option<jiff::Timestamp>,
}

/// Whether an image is on an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceState {
    /// It was there.
    Present,
    /// It was gone.
    Gone,
}

/// When an image was last used on an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// Version of this record: 1.
    pub version: u32,
    /// When.
    pub at: jiff::Timestamp,
}

/// A heartbeat of a bake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Version of this record: 1.
    pub version: u32,
    /// Counts up.
    pub counter: u64,
}
