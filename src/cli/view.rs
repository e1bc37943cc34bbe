//! What JSON answers look like. A field may be added; none is renamed or taken away.
//!
//! These are structs of their own, so that renaming a field in a record or a job cannot change what programs read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::base::{ErrorKind, SnapshotId};
use crate::catalog::{
    ChannelMove, CheckRecord, Failure, PlaceRecord, PlaceState, Snapshot, SnapshotRecord, StateEntry, lost,
};
use crate::docker::{Builder, StepReport};
use crate::snapshot::{Change, RemoveReport, SnapshotDiff};
use crate::template::{CaSummary, Limits, Resources, Runtime};

/// A snapshot with everything that its records say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SnapshotView {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) state: &'static str,
    /// Why it is in that state, where somebody gave a reason.
    pub(super) reason: Option<String>,
    /// Whether this call found it baked already; false when it is only shown.
    pub(super) reused: bool,
    pub(super) image: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) size_bytes: Option<u64>,
    pub(super) places: Vec<PlaceView>,
    pub(super) template: String,
    pub(super) description: String,
    pub(super) created: Timestamp,
    pub(super) kiln_version: String,
    pub(super) build_key: String,
    pub(super) snapshot_key: String,
    pub(super) context_digest: String,
    pub(super) dockerfile: String,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) components: Vec<String>,
    pub(super) base: BaseView,
    pub(super) distro: Option<DistroView>,
    pub(super) baked_cas: Vec<CaView>,
    pub(super) build_cas: Vec<CaView>,
    pub(super) checkout: Option<CheckoutView>,
    pub(super) build_args: BTreeMap<String, String>,
    pub(super) secret_ids: Vec<String>,
    pub(super) target: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) network: &'static str,
    pub(super) builder: &'static str,
    pub(super) runtime: RuntimeView,
    pub(super) resources: ResourcesView,
    pub(super) limits: LimitsView,
    pub(super) profile: Option<String>,
    pub(super) refresh_after_seconds: Option<u64>,
    pub(super) checks: Vec<CheckView>,
    pub(super) layers: Vec<LayerView>,
    pub(super) packages: PackagesView,
    pub(super) timings: Option<TimingsView>,
    pub(super) steps: Vec<StepView>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) pinned: bool,
    pub(super) expires: Option<Timestamp>,
    pub(super) channels: Vec<String>,
    pub(super) states: Vec<StateView>,
    pub(super) failure: Option<FailureView>,
    /// What should be known and stopped nothing; only after a build.
    pub(super) notices: Vec<String>,
}

/// A snapshot in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SnapshotRowView {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) state: &'static str,
    pub(super) template: String,
    pub(super) image: Option<String>,
    pub(super) size_bytes: Option<u64>,
    pub(super) created: Timestamp,
    pub(super) channels: Vec<String>,
    pub(super) pinned: bool,
    pub(super) expires: Option<Timestamp>,
    /// The nearest snapshot that it is built on and that was revoked.
    pub(super) revoked_base: Option<String>,
    pub(super) places: Vec<PlaceView>,
    pub(super) labels: BTreeMap<String, String>,
}

/// A list of snapshots.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SnapshotListView {
    pub(super) snapshots: Vec<SnapshotRowView>,
}

/// An engine that has the image, or no longer has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PlaceView {
    pub(super) engine: String,
    pub(super) endpoint: String,
    pub(super) image: String,
    pub(super) tag: String,
    pub(super) state: &'static str,
    pub(super) verified_at: Timestamp,
    pub(super) last_used: Option<Timestamp>,
}

/// The base image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct BaseView {
    pub(super) reference: String,
    pub(super) image: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) origin: String,
    pub(super) snapshot: Option<String>,
}

/// The base's release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DistroView {
    pub(super) family: String,
    pub(super) codename: String,
    pub(super) version: String,
    pub(super) python: String,
    pub(super) postgres: String,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CaView {
    pub(super) subject: String,
    pub(super) fingerprint: String,
    pub(super) expires: Timestamp,
    pub(super) file: PathBuf,
}

/// A git repository in the image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CheckoutView {
    pub(super) url: String,
    pub(super) reference: String,
    pub(super) commit: String,
}

/// How a sandbox runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RuntimeView {
    pub(super) user: String,
    pub(super) uid: Option<u32>,
    pub(super) workdir: String,
    pub(super) entrypoint: Vec<String>,
    pub(super) start: Option<String>,
    pub(super) ready: Option<ReadyView>,
    pub(super) ports: Vec<u16>,
    pub(super) env: BTreeMap<String, String>,
}

/// How to see that the services answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ReadyView {
    pub(super) cmd: String,
    pub(super) timeout_ms: u64,
    pub(super) interval_ms: u64,
}

/// What a sandbox is given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ResourcesView {
    pub(super) cpu: u32,
    pub(super) memory_bytes: u64,
    pub(super) disk_bytes: u64,
}

/// What the build may use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LimitsView {
    pub(super) image_bytes: u64,
    pub(super) build_write_bytes: u64,
    pub(super) context_bytes: u64,
    pub(super) timeout_seconds: u64,
}

/// A check and how it went; `passed` is absent when it did not come to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CheckView {
    pub(super) name: String,
    pub(super) cmd: Option<String>,
    pub(super) user: Option<String>,
    pub(super) network: bool,
    pub(super) passed: Option<bool>,
    pub(super) ms: Option<u64>,
    pub(super) reason: Option<String>,
}

/// A layer, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LayerView {
    pub(super) instruction: String,
    pub(super) size_bytes: u64,
}

/// Packages by kind: name → version.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct PackagesView {
    pub(super) dpkg: BTreeMap<String, String>,
    pub(super) pip: BTreeMap<String, String>,
    pub(super) npm: BTreeMap<String, String>,
}

/// Milliseconds by phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TimingsView {
    pub(super) prepare_ms: u64,
    pub(super) build_ms: u64,
    pub(super) gate_ms: u64,
    pub(super) check_ms: u64,
    pub(super) inventory_ms: u64,
    pub(super) total_ms: u64,
}

/// A build step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct StepView {
    pub(super) name: String,
    pub(super) cached: bool,
    pub(super) ms: u64,
}

/// A transition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct StateView {
    pub(super) state: &'static str,
    pub(super) at: Timestamp,
    pub(super) reason: Option<String>,
}

/// Why a bake failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FailureView {
    pub(super) kind: ErrorKind,
    pub(super) messages: Vec<String>,
    pub(super) hint: Option<String>,
}

/// A move of a channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MoveView {
    pub(super) name: String,
    pub(super) channel: String,
    pub(super) snapshot: String,
    pub(super) previous: Option<String>,
    pub(super) at: Timestamp,
    /// Whether another move was made at the same time, and counts instead.
    pub(super) lost: bool,
}

/// Moves of channels, oldest first by channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MovesView {
    pub(super) moves: Vec<MoveView>,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RemovedView {
    pub(super) reference: String,
    pub(super) state: &'static str,
    pub(super) untagged: Option<String>,
    pub(super) image_deleted: bool,
    pub(super) left_on: Vec<String>,
}

/// What changed between two snapshots.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DiffView {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) changes: Vec<ChangeView>,
    pub(super) dockerfile: Vec<String>,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ChangeView {
    pub(super) area: String,
    pub(super) what: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// Returns a builder's word.
pub(super) fn builder(builder: Builder) -> &'static str {
    match builder {
        Builder::Buildkit => "buildkit",
        Builder::Classic => "classic",
    }
}

/// Returns the channels that hold a snapshot, of what all channels hold.
fn channels_of(id: SnapshotId, channels: &[ChannelMove]) -> Vec<String> {
    channels.iter().filter(|step| step.snapshot == id).map(|step| step.channel.to_string()).collect()
}

impl SnapshotView {
    /// Makes the view; `channels` are what all channels hold now.
    pub(super) fn new(snapshot: &Snapshot, channels: &[ChannelMove]) -> Self {
        let record = &snapshot.record;
        let outcome = snapshot.outcome();
        let failure = snapshot.last().and_then(|entry| entry.failure.as_ref());
        let results = match (outcome, failure) {
            (Some(outcome), _) => outcome.checks.as_slice(),
            (None, Some(failure)) => failure.checks.as_slice(),
            (None, None) => &[],
        };
        let places: Vec<_> = snapshot.places.iter().map(PlaceView::new).collect();
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            reference: snapshot.reference(),
            state: snapshot.state().as_str(),
            reason: snapshot.last().and_then(|entry| entry.reason.clone()),
            reused: false,
            image: outcome.map(|outcome| outcome.image.to_string()),
            tag: places.first().map(|place| place.tag.clone()),
            size_bytes: outcome.map(|outcome| outcome.size_bytes),
            places,
            template: record.template.clone(),
            description: record.description.clone(),
            created: record.created,
            kiln_version: record.kiln_version.clone(),
            build_key: record.build_key.to_string(),
            snapshot_key: record.snapshot_key.to_string(),
            context_digest: record.context_digest.to_string(),
            dockerfile: record.dockerfile.clone(),
            parameters: record.parameters.clone(),
            components: record.components.clone(),
            base: BaseView::new(record),
            distro: record.distro.as_ref().map(|distro| DistroView {
                family: distro.family.clone(),
                codename: distro.codename.clone(),
                version: distro.version.clone(),
                python: distro.python.clone(),
                postgres: distro.postgres.clone(),
            }),
            baked_cas: record.baked_cas.iter().map(CaView::new).collect(),
            build_cas: record.build_cas.iter().map(CaView::new).collect(),
            checkout: record.checkout.as_ref().map(|checkout| CheckoutView {
                url: checkout.url.clone(),
                reference: checkout.reference.clone(),
                commit: checkout.commit.clone(),
            }),
            build_args: record.build_args.clone(),
            secret_ids: record.secret_ids.clone(),
            target: record.target.clone(),
            platform: record.platform.clone(),
            network: record.network.as_str(),
            builder: builder(record.builder),
            runtime: RuntimeView::new(&record.runtime),
            resources: ResourcesView::new(record.resources),
            limits: LimitsView::new(record.limits),
            profile: record.profile.clone(),
            refresh_after_seconds: record.refresh_after.map(|length| length.duration().as_secs()),
            checks: checks(record, results),
            layers: outcome.map_or_else(Vec::new, |outcome| {
                outcome
                    .layers
                    .iter()
                    .map(|layer| LayerView {
                        instruction: layer.instruction.clone(),
                        size_bytes: layer.size_bytes,
                    })
                    .collect()
            }),
            packages: outcome.map(|outcome| &outcome.inventory).map_or_else(
                PackagesView::default,
                |inventory| PackagesView {
                    dpkg: inventory.dpkg.clone(),
                    pip: inventory.pip.clone(),
                    npm: inventory.npm.clone(),
                },
            ),
            timings: outcome.map(|outcome| TimingsView {
                prepare_ms: outcome.timings.prepare_ms,
                build_ms: outcome.timings.build_ms,
                gate_ms: outcome.timings.gate_ms,
                check_ms: outcome.timings.check_ms,
                inventory_ms: outcome.timings.inventory_ms,
                total_ms: outcome.timings.total_ms,
            }),
            steps: outcome.map_or_else(Vec::new, |outcome| outcome.steps.iter().map(StepView::new).collect()),
            labels: record.labels.clone(),
            pinned: snapshot.marks.pinned,
            expires: snapshot.marks.expires,
            channels: channels_of(record.id, channels),
            states: snapshot.states.iter().map(StateView::new).collect(),
            failure: failure.map(FailureView::new),
            notices: Vec::new(),
        }
    }
}

/// Joins what was asked for with how it went, in the order of asking. A result without a check, such as the boot, comes last.
fn checks(record: &SnapshotRecord, results: &[CheckRecord]) -> Vec<CheckView> {
    let asked = record.checks.iter().map(|check| {
        let result = results.iter().find(|result| result.name == check.name);
        CheckView {
            name: check.name.clone(),
            cmd: Some(check.cmd.clone()),
            user: check.user.clone(),
            network: check.network,
            passed: result.map(|result| result.passed),
            ms: result.map(|result| result.ms),
            reason: result.and_then(|result| result.reason.clone()),
        }
    });
    let further = results
        .iter()
        .filter(|result| record.checks.iter().all(|check| check.name != result.name))
        .map(|result| CheckView {
            name: result.name.clone(),
            cmd: None,
            user: None,
            network: false,
            passed: Some(result.passed),
            ms: Some(result.ms),
            reason: result.reason.clone(),
        });
    asked.chain(further).collect()
}

impl SnapshotRowView {
    /// Makes the row; `channels` are what all channels hold now.
    pub(super) fn new(snapshot: &Snapshot, channels: &[ChannelMove]) -> Self {
        let record = &snapshot.record;
        let outcome = snapshot.outcome();
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            reference: snapshot.reference(),
            state: snapshot.state().as_str(),
            template: record.template.clone(),
            image: outcome.map(|outcome| outcome.image.to_string()),
            size_bytes: outcome.map(|outcome| outcome.size_bytes),
            created: record.created,
            channels: channels_of(record.id, channels),
            pinned: snapshot.marks.pinned,
            expires: snapshot.marks.expires,
            revoked_base: None,
            places: snapshot.places.iter().map(PlaceView::new).collect(),
            labels: record.labels.clone(),
        }
    }
}

impl PlaceView {
    fn new(place: &PlaceRecord) -> Self {
        Self {
            engine: place.engine.to_string(),
            endpoint: place.endpoint.clone(),
            image: place.image.to_string(),
            tag: place.tag.clone(),
            state: match place.state {
                PlaceState::Present => "present",
                PlaceState::Gone => "gone",
            },
            verified_at: place.verified_at,
            last_used: place.last_used,
        }
    }
}

impl BaseView {
    fn new(record: &SnapshotRecord) -> Self {
        let base = &record.base;
        Self {
            reference: base.reference.clone(),
            image: base.image.map(|image| image.to_string()),
            digest: base.digest.clone(),
            origin: base.origin.clone(),
            snapshot: base.snapshot.map(|snapshot| snapshot.to_string()),
        }
    }
}

impl CaView {
    fn new(ca: &CaSummary) -> Self {
        Self {
            subject: ca.subject.clone(),
            fingerprint: ca.fingerprint.clone(),
            expires: ca.expires,
            file: ca.file.clone(),
        }
    }
}

impl RuntimeView {
    pub(super) fn new(runtime: &Runtime) -> Self {
        Self {
            user: runtime.user.clone(),
            uid: runtime.uid,
            workdir: runtime.workdir.clone(),
            entrypoint: runtime.entrypoint.clone(),
            start: runtime.start.clone(),
            ready: runtime.ready.as_ref().map(|ready| ReadyView {
                cmd: ready.cmd.clone(),
                timeout_ms: ms(ready.timeout.duration()),
                interval_ms: ms(ready.interval.duration()),
            }),
            ports: runtime.ports.clone(),
            env: runtime.env.clone(),
        }
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl ResourcesView {
    pub(super) fn new(resources: Resources) -> Self {
        Self {
            cpu: resources.cpu,
            memory_bytes: resources.memory.bytes(),
            disk_bytes: resources.disk.bytes(),
        }
    }
}

impl LimitsView {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            image_bytes: limits.image.bytes(),
            build_write_bytes: limits.build_write.bytes(),
            context_bytes: limits.context.bytes(),
            timeout_seconds: limits.timeout.duration().as_secs(),
        }
    }
}

impl StepView {
    fn new(step: &StepReport) -> Self {
        Self { name: step.name.clone(), cached: step.cached, ms: step.ms }
    }
}

impl StateView {
    fn new(entry: &StateEntry) -> Self {
        Self { state: entry.state.as_str(), at: entry.at, reason: entry.reason.clone() }
    }
}

impl FailureView {
    fn new(failure: &Failure) -> Self {
        Self { kind: failure.kind, messages: failure.messages.clone(), hint: failure.hint.clone() }
    }
}

impl MoveView {
    /// Makes the view.
    pub(super) fn new(step: &ChannelMove) -> Self {
        Self {
            name: step.name.to_string(),
            channel: step.channel.to_string(),
            snapshot: step.snapshot.to_string(),
            previous: step.previous.map(|previous| previous.to_string()),
            at: step.at,
            lost: false,
        }
    }

    /// Makes the views of moves, oldest first by channel, with what is known of each among them.
    pub(super) fn all(moves: &[ChannelMove]) -> Vec<Self> {
        let by_channel = moves.chunk_by(|a, b| (&a.name, &a.channel) == (&b.name, &b.channel));
        let with_lost = by_channel.flat_map(|moves| moves.iter().zip(lost(moves)));
        with_lost.map(|(step, lost)| Self { lost, ..Self::new(step) }).collect()
    }
}

impl RemovedView {
    /// Makes the view.
    pub(super) fn new(report: &RemoveReport) -> Self {
        Self {
            reference: report.reference.clone(),
            state: report.state.as_str(),
            untagged: report.untagged.clone(),
            image_deleted: report.image_deleted,
            left_on: report.left_on.iter().map(ToString::to_string).collect(),
        }
    }
}

impl DiffView {
    /// Makes the view.
    pub(super) fn new(diff: &SnapshotDiff) -> Self {
        Self {
            from: diff.from.clone(),
            to: diff.to.clone(),
            changes: diff.changes.iter().map(ChangeView::new).collect(),
            dockerfile: diff.dockerfile.clone(),
        }
    }
}

impl ChangeView {
    fn new(change: &Change) -> Self {
        Self {
            area: change.area.clone(),
            what: change.what.clone(),
            before: change.before.clone(),
            after: change.after.clone(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::{ByteSize, ImageId, Length, Owner, Sha256Digest};
    use crate::catalog::{
        BaseRecord, Inventory, LayerRecord, Marks, Outcome, State, StateEntry as Entry, Timings,
    };
    use crate::docker::NetworkMode;
    use crate::template::{CheckSpec, Distro};

    /// The instant that samples are relative to.
    pub(in crate::cli) fn sample_now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn hours_before(hours: i64) -> Timestamp {
        sample_now() - jiff::SignedDuration::from_hours(hours)
    }

    fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    /// Returns an active snapshot with a value in every field.
    pub(in crate::cli) fn sample() -> Snapshot {
        let digest = Sha256Digest::of(b"sample");
        let image = ImageId::new(digest);
        let check = |name: &str, cmd: &str| CheckSpec {
            name: name.into(),
            cmd: cmd.into(),
            user: None,
            network: false,
            timeout: Length::seconds(30),
            expect: None,
        };
        let record = SnapshotRecord {
            version: 1,
            id: "01jqzzzzzzzzzzzzzzzzzzzzzz".parse().unwrap(),
            name: "litellm".parse().unwrap(),
            template: "litellm".into(),
            source: None,
            description: "LiteLLM with Postgres".into(),
            created: hours_before(3),
            owner: Owner { host: "h".into(), boot: "b".into(), pid: 1, started_ticks: 2 },
            kiln_version: "0.1.0".into(),
            build_key: digest.to_string().parse().unwrap(),
            snapshot_key: digest.to_string().parse().unwrap(),
            dockerfile: "FROM debian:bookworm-slim\nRUN apt-get update\n".into(),
            context_digest: digest,
            parameters: map([("prisma", "false")]),
            components: vec!["apt".into(), "postgres".into()],
            base: BaseRecord {
                reference: "debian:bookworm-slim".into(),
                image: Some(image),
                digest: None,
                origin: "local debootstrap".into(),
                snapshot: None,
            },
            distro: Some(Distro {
                family: "debian".into(),
                codename: "bookworm".into(),
                version: "12".into(),
                python: "3.11".into(),
                postgres: "15".into(),
            }),
            baked_cas: vec![CaSummary {
                subject: "CN=Corp".into(),
                fingerprint: "ab".repeat(32),
                expires: "2030-01-02T00:00:00Z".parse().unwrap(),
                file: "/cas/corp.crt".into(),
            }],
            build_cas: vec![],
            checkout: None,
            build_args: map([]),
            secret_ids: vec![],
            target: None,
            platform: None,
            network: NetworkMode::Default,
            builder: Builder::Buildkit,
            runtime: Runtime {
                user: "user".into(),
                uid: Some(1000),
                workdir: "/home/user".into(),
                entrypoint: vec!["/usr/local/bin/kiln-entrypoint".into()],
                ports: vec![4000],
                ..Runtime::default()
            },
            resources: Resources::default(),
            limits: Limits::default(),
            checks: vec![
                check("postgres-query", "psql -c 'select 1'"),
                check("litellm", "litellm --version"),
            ],
            profile: Some("daytona".into()),
            refresh_after: Some(Length::seconds(30 * 86_400)),
            labels: map([("team", "ml")]),
        };
        let outcome = Outcome {
            built: None,
            image,
            size_bytes: 1_300 * ByteSize::MIB,
            layers: vec![
                LayerRecord { instruction: "FROM debian".into(), size_bytes: 100 * ByteSize::MIB },
                LayerRecord { instruction: "RUN apt-get update".into(), size_bytes: 1_200 * ByteSize::MIB },
            ],
            inventory: Inventory {
                dpkg: map([("postgresql-15", "15.6-0"), ("tini", "0.19.0-1")]),
                pip: map([("litellm", "1.60.0")]),
                npm: map([]),
            },
            checks: vec![
                CheckRecord { name: "boot".into(), passed: true, ms: 900, reason: None },
                CheckRecord { name: "postgres-query".into(), passed: true, ms: 120, reason: None },
                CheckRecord { name: "litellm".into(), passed: true, ms: 2_300, reason: None },
            ],
            steps: vec![StepReport { name: "RUN apt-get update".into(), cached: false, ms: 42_000 }],
            timings: Timings {
                prepare_ms: 80,
                build_ms: 125_000,
                gate_ms: 900,
                check_ms: 8_000,
                inventory_ms: 700,
                total_ms: 134_680,
            },
        };
        Snapshot {
            states: vec![
                Entry::to(State::Building, record.created),
                Entry { outcome: Some(Box::new(outcome)), ..Entry::to(State::Active, hours_before(2)) },
            ],
            places: vec![PlaceRecord {
                version: 1,
                engine: "ABCD:EFGH".parse().unwrap(),
                endpoint: "unix:///var/run/docker.sock".into(),
                image,
                tag: "kiln/litellm:01jqzzzzzz".into(),
                state: PlaceState::Present,
                verified_at: hours_before(2),
                last_used: Some(hours_before(1)),
            }],
            marks: Marks { pinned: true, expires: Some(sample_now() + jiff::SignedDuration::from_hours(50)) },
            record,
        }
    }

    /// Returns the channels of the sample.
    pub(in crate::cli) fn sample_channels() -> Vec<ChannelMove> {
        vec![ChannelMove {
            version: 1,
            name: "litellm".parse().unwrap(),
            channel: "prod".parse().unwrap(),
            snapshot: sample().id(),
            previous: None,
            way: crate::catalog::Way::On,
            at: hours_before(1),
        }]
    }

    #[test]
    fn the_contract_of_a_snapshot_is_kept() {
        let view = SnapshotView::new(&sample(), &sample_channels());
        let json = serde_json::to_string_pretty(&view).unwrap();
        insta::with_settings!({ snapshot_path => "../../tests/fixtures/cli", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("snapshot_view", json);
        });
    }

    #[test]
    fn a_check_that_was_not_asked_for_is_shown_after_those_that_were() {
        let view = SnapshotView::new(&sample(), &[]);
        let names: Vec<_> = view.checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["postgres-query", "litellm", "boot"]);
    }

    #[test]
    fn a_failed_bake_tells_its_checks_and_why() {
        let mut snapshot = sample();
        snapshot.states.truncate(1);
        snapshot.states.push(Entry {
            failure: Some(Failure {
                kind: ErrorKind::Failed,
                messages: vec!["1 of 2 checks failed".into()],
                hint: None,
                checks: vec![CheckRecord {
                    name: "litellm".into(),
                    passed: false,
                    ms: 5,
                    reason: Some("x".into()),
                }],
            }),
            ..Entry::to(State::Error, sample_now())
        });
        let view = SnapshotView::new(&snapshot, &[]);
        assert_eq!((view.state, view.image), ("error", None));
        assert_eq!(view.checks.iter().map(|check| check.passed).collect::<Vec<_>>(), [None, Some(false)]);
        assert_eq!(view.failure.unwrap().messages, ["1 of 2 checks failed"]);
    }
}
