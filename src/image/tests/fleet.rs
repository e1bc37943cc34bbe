//! Inventories made by hand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::base::config::ImageRules;
use crate::base::{ImageId, Length, Sha256Digest, SnapshotId, StoreId};
use crate::catalog::State;
use crate::docker::DiskSpace;
use crate::image::*;

/// Bytes of the layer that all images of a fleet have.
pub(super) const BASE: u64 = 1_000;

/// When the tests are.
pub(super) fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// So many hours before.
pub(super) fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// So many hours.
pub(super) fn hours(hours: u64) -> Length {
    Length::seconds(hours * 3_600)
}

/// A snapshot to be.
#[derive(Debug, Clone)]
pub(super) struct Plain {
    pub(super) name: &'static str,
    /// Hours since its bake.
    pub(super) age: i64,
    /// Hours since its last use.
    pub(super) unused: i64,
    /// Bytes that only it has.
    pub(super) bytes: u64,
    pub(super) state: State,
    /// Hours since it came into that state.
    pub(super) since: i64,
    pub(super) pinned: bool,
    pub(super) channel: Option<Hold>,
    pub(super) container: bool,
    pub(super) expires: Option<i64>,
    /// The place in the fleet of what it stands on.
    pub(super) parent: Option<usize>,
    pub(super) is_cached: bool,
    pub(super) is_elsewhere: bool,
}

/// An active snapshot, so many hours old and as long unused, of 100 bytes.
pub(super) fn plain(name: &'static str, age: i64) -> Plain {
    Plain {
        name,
        age,
        unused: age,
        bytes: 100,
        state: State::Active,
        since: age,
        pinned: false,
        channel: None,
        container: false,
        expires: None,
        parent: None,
        is_cached: false,
        is_elsewhere: false,
    }
}

/// The id of the snapshot at a place of a fleet.
pub(super) fn id(at: usize) -> SnapshotId {
    let mut bytes = [0; 16];
    bytes[15] = u8::try_from(at).unwrap();
    SnapshotId::from_bytes(bytes)
}

fn image_id(at: usize) -> ImageId {
    ImageId::new(Sha256Digest::of(&at.to_le_bytes()))
}

/// Makes an inventory of snapshots that share their lowest layer.
pub(super) fn fleet(snapshots: &[Plain]) -> Inventory {
    let chain = |at: usize| LayerId::chain(&["base".to_owned(), format!("own {at}")]);
    let mut layers: BTreeMap<LayerId, Layer> = BTreeMap::new();
    let (mut items, mut parents) = (Vec::new(), BTreeMap::new());
    for (at, plain) in snapshots.iter().enumerate() {
        let [base, own] = chain(at).try_into().unwrap();
        let layer = |bytes, is_cached| Layer { bytes, holders: BTreeSet::new(), is_cached };
        layers.entry(base).or_insert(layer(BASE, false)).holders.insert(image_id(at));
        layers.entry(own).or_insert(layer(plain.bytes, plain.is_cached)).holders.insert(image_id(at));
        let lives =
            matches!(plain.state, State::Building | State::Active | State::Unchecked | State::Inactive);
        if let Some(parent) = plain.parent.filter(|_| lives) {
            parents.insert(id(at), id(parent));
        }
        let facts = SnapshotFacts {
            id: id(at),
            name: plain.name.parse().unwrap(),
            created: ago(plain.age),
            state: plain.state,
            since: ago(plain.since),
            reason: None,
            pinned: plain.pinned,
            expires: plain.expires.map(ago),
            channels: plain.channel.into_iter().map(|hold| ("prod".parse().unwrap(), hold)).collect(),
            used: ago(plain.unused),
            used_as: Use::Touched,
            elsewhere: plain.is_elsewhere.then(|| "OTHER".parse().unwrap()).into_iter().collect(),
        };
        items.push(Item {
            name: plain.name.to_owned(),
            whose: Whose::Snapshot(Box::new(facts)),
            image: Some(ImageFacts {
                id: image_id(at),
                tag: Some(format!("kiln/{}:{}", plain.name, id(at))),
                beside: vec![],
                size_bytes: BASE + plain.bytes,
                unique_bytes: Some(plain.bytes),
                created: Some(ago(plain.age)),
                layers: chain(at),
                containers: plain.container.then(|| "box".to_owned()).into_iter().collect(),
                runs: plain.container,
            }),
        });
    }
    Inventory {
        taken: now(),
        engine: "ENGINE".parse().unwrap(),
        endpoint: "fake://engine".into(),
        store: StoreId::generate(),
        references: items.iter().filter_map(|item| Some((item.image.as_ref()?.id, 1))).collect(),
        items,
        parents,
        layers_bytes: layers.values().map(|layer| layer.bytes).sum(),
        layers,
        cache: vec![],
        disk: Some(DiskSpace { total_bytes: 100_000, free_bytes: 50_000 }),
        watched_since: Some(ago(100_000)),
    }
}

/// Decides by rules.
pub(super) fn decided(inventory: &Inventory, rules: &ImageRules) -> Plan {
    decide(inventory, &ImagePolicy::new(rules.clone()).unwrap(), now()).unwrap()
}

/// Returns of each snapshot of a fleet, in its order, what becomes of it: the action and the word of the reason.
pub(super) fn told(plan: &Plan, count: usize) -> Vec<String> {
    let of = |at: usize| {
        let item = plan.items.iter().find(|item| item.subject == Subject::Snapshot { id: id(at) }).unwrap();
        format!("{} {}", item.action.as_str(), item.code)
    };
    (0..count).map(of).collect()
}
