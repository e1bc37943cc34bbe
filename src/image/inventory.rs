//! What an engine and a store hold at one instant, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::layers::{Layer, LayerId, Ledger, Share, is_cached, shares};
use super::{ImageError, WatchNote};
use crate::base::{ChannelName, EngineId, ImageId, SnapshotId, SnapshotName, StoreId};
use crate::catalog::{Catalog, ChannelMove, PlaceState, Snapshot, State, held};
use crate::docker::{CacheRecord, ContainerUse, DiskSpace, Engine, ImageInfo};

/// How many images are asked for at once.
const ASKED_AT_ONCE: usize = 8;

/// The label that says which store an image is of.
const STORE_LABEL: &str = "kiln.store";

/// The label that says which snapshot an image was made for.
const SNAPSHOT_LABEL: &str = "kiln.snapshot";

/// What an engine and a store hold at one instant.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// When it was looked at.
    pub taken: Timestamp,
    /// The engine.
    pub engine: EngineId,
    /// How it is reached.
    pub endpoint: String,
    /// The store.
    pub store: StoreId,
    /// The images with a store's label, one item for each of our references; and records that should have an image here.
    pub items: Vec<Item>,
    /// The layers of our images, and who holds them.
    pub layers: BTreeMap<LayerId, Layer>,
    /// By image: how many references it has, whosever they are.
    pub references: BTreeMap<ImageId, usize>,
    /// Of each snapshot that stands on another: the other. Removed, revoked and failed ones are left out.
    pub parents: BTreeMap<SnapshotId, SnapshotId>,
    /// The build cache.
    pub cache: Vec<CacheRecord>,
    /// Bytes of all layers of all images on the engine, ours or not.
    pub layers_bytes: u64,
    /// The file system of the engine's data, where it is on this host.
    pub disk: Option<DiskSpace>,
    /// Since when somebody has watched what runs on the engine; `None` where nobody does.
    pub watched_since: Option<Timestamp>,
}

/// An image by one of its references, or a record whose image should be here.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Whose it is.
    pub whose: Whose,
    /// The name that rules group by: the snapshot's, or the image's repository.
    pub name: String,
    /// The image; `None` where it is not on the engine.
    pub image: Option<ImageFacts>,
}

/// Whose an item is.
#[derive(Debug, Clone, PartialEq)]
pub enum Whose {
    /// A snapshot's of this store.
    Snapshot(Box<SnapshotFacts>),
    /// This store's, and no snapshot's: left by a bake that died, or of one that was removed.
    Leftover {
        /// The bake that it was made for, if that is still in work.
        in_work: Option<SnapshotId>,
    },
    /// Another store's. Shown, and never touched.
    Foreign {
        /// That store's id, as the label has it.
        store: String,
    },
}

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The image.
    pub id: ImageId,
    /// The reference that this item stands for; `None` where it has none of ours.
    pub tag: Option<String>,
    /// Its other references, which keep it when this one goes.
    pub beside: Vec<String>,
    /// Bytes of all its layers.
    pub size_bytes: u64,
    /// Bytes that no other image has, where the engine counts them.
    pub unique_bytes: Option<u64>,
    /// When it was made, by the engine's clock.
    pub created: Option<Timestamp>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerId>,
    /// The names of the containers that hold it, running or not.
    pub containers: Vec<String>,
    /// Whether one of them runs.
    pub runs: bool,
}

/// What the records say of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotFacts {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its name.
    pub name: SnapshotName,
    /// When its bake began.
    pub created: Timestamp,
    /// The state it is in.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why it is in that state, where somebody said so.
    pub reason: Option<String>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// After when it is not needed.
    pub expires: Option<Timestamp>,
    /// The channels that hold it.
    pub channels: Vec<(ChannelName, Hold)>,
    /// When it was last used here, as far as was noted; its bake counts.
    pub used: Timestamp,
    /// How it was used then.
    pub used_as: Use,
    /// Other engines that have its image, as far as was last seen.
    pub elsewhere: Vec<EngineId>,
}

/// How a channel holds a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// It is what the channel holds now.
    Present,
    /// It is what the channel held before, and would hold after a roll-back.
    Previous,
}

/// How a snapshot was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// It was baked, or made active again.
    Baked,
    /// Somebody said that it was used.
    Touched,
    /// A channel was moved to it.
    Promoted,
    /// Another snapshot was baked on it.
    Base,
}

impl Item {
    /// Returns the snapshot, where it is one's.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotFacts> {
        match &self.whose {
            Whose::Snapshot(facts) => Some(facts),
            Whose::Leftover { .. } | Whose::Foreign { .. } => None,
        }
    }
}

impl Inventory {
    /// Looks at an engine and a store.
    ///
    /// Images are listed before records, so that an image without a record is no bake's that has just begun; containers after both,
    /// so that one which was just started is seen.
    ///
    /// # Errors
    ///
    /// Fails when the engine or the store does not answer, and when any record cannot be understood: nobody can say then what is
    /// needed.
    pub async fn take(
        engine: &dyn Engine,
        catalog: &Catalog,
        store: StoreId,
        state_dir: &Path,
        now: Timestamp,
    ) -> Result<Self, ImageError> {
        let info = engine.info().await?;
        let usage = engine.disk_usage().await?;
        let images: Vec<ImageInfo> = stream::iter(usage.images.iter().map(|image| image.id))
            .map(async |id| engine.image(&id.to_string()).await)
            .buffered(ASKED_AT_ONCE)
            .try_filter_map(async |image| Ok(image))
            .try_collect()
            .await?;
        let layers = layers(engine, &images, &usage.cache, store, |id| {
            let image = usage.images.iter().find(|image| image.id == *id)?;
            Some(image.size_bytes.saturating_sub(image.shared_bytes?))
        })
        .await?;
        let records = Records::read(catalog, info.id.clone()).await?;
        let containers = engine.all_containers().await?;
        let disk = engine.disk_space().await?;
        let references = images.iter().map(|image| (image.id, image.tags.len().max(1))).collect();
        let unique = usage
            .images
            .iter()
            .filter_map(|image| Some((image.id, image.size_bytes.saturating_sub(image.shared_bytes?))));
        let look = Look { store, images: &images, containers: &containers, unique: unique.collect() };
        let items = look.items(&records)?;
        Ok(Self {
            taken: now,
            engine: info.id,
            watched_since: WatchNote::read(state_dir, &info.endpoint)?.and_then(|note| note.since_until(now)),
            endpoint: info.endpoint,
            store,
            items,
            layers,
            references,
            parents: records.parents(),
            cache: usage.cache,
            layers_bytes: usage.layers_bytes,
            disk,
        })
    }

    /// Begins to count what goes.
    #[must_use]
    pub fn ledger(&self) -> Ledger<'_> {
        Ledger::new(&self.layers, self.references.clone())
    }

    /// Returns the bytes of the layers that this store's images hold, each counted once.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.layers.values().map(|layer| layer.bytes).sum()
    }
}

/// Returns the layers of this store's images with their bytes, and everybody who holds them.
async fn layers(
    engine: &dyn Engine,
    images: &[ImageInfo],
    cache: &[CacheRecord],
    store: StoreId,
    unique_bytes: impl Fn(&ImageId) -> Option<u64>,
) -> Result<BTreeMap<LayerId, Layer>, ImageError> {
    let ours = images.iter().filter(|image| is_of(image, store));
    let histories: Vec<Option<Vec<Share>>> = stream::iter(ours.clone())
        .map(async |image| match engine.history(&image.id.to_string()).await {
            Ok(history) => Ok(shares(&history, &image.layers)),
            // It went while the others were looked at.
            Err(crate::docker::EngineError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let mut layers: BTreeMap<LayerId, Layer> = BTreeMap::new();
    let mut untold = Vec::new();
    for (image, told) in ours.zip(histories) {
        let chain = LayerId::chain(&image.layers);
        match told {
            Some(told) => {
                for (id, share) in chain.iter().zip(told) {
                    layers.entry(*id).or_insert_with(|| Layer {
                        bytes: share.bytes,
                        holders: BTreeSet::new(),
                        is_cached: is_cached(&share, cache),
                    });
                }
            }
            None => untold.push((image.id, chain)),
        }
    }
    // Of an image whose history does not fit, only what the engine counts as its own is known.
    for (image, chain) in untold {
        let mut bytes = unique_bytes(&image).unwrap_or(0);
        for id in chain.iter().rev() {
            layers
                .entry(*id)
                .or_insert_with(|| Layer { bytes: std::mem::take(&mut bytes), ..Layer::default() });
        }
    }
    for image in images {
        for id in LayerId::chain(&image.layers) {
            if let Some(layer) = layers.get_mut(&id) {
                layer.holders.insert(image.id);
            }
        }
    }
    Ok(layers)
}

fn is_of(image: &ImageInfo, store: StoreId) -> bool {
    image.labels.get(STORE_LABEL).is_some_and(|label| *label == store.to_string())
}

/// What the records say.
#[derive(Debug)]
struct Records {
    engine: EngineId,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    moves: Vec<ChannelMove>,
    /// Snapshots with transitions and without a record.
    headless: BTreeSet<SnapshotId>,
}

impl Records {
    async fn read(catalog: &Catalog, engine: EngineId) -> Result<Self, ImageError> {
        let snapshots: BTreeMap<SnapshotId, Snapshot> =
            catalog.list().await?.into_iter().map(|snapshot| (snapshot.id(), snapshot)).collect();
        let names: BTreeSet<&SnapshotName> =
            snapshots.values().map(|snapshot| &snapshot.record.name).collect();
        let mut moves = Vec::new();
        for name in names {
            moves.extend(catalog.channel_moves(name, None).await?);
        }
        let known = catalog.with_transitions().await?;
        let headless = known.into_iter().filter(|id| !snapshots.contains_key(id)).collect();
        Ok(Self { engine, snapshots, moves, headless })
    }

    /// Returns who stands on whom.
    fn parents(&self) -> BTreeMap<SnapshotId, SnapshotId> {
        let living = self.snapshots.values().filter(|snapshot| lives(snapshot.state()));
        living.filter_map(|snapshot| Some((snapshot.id(), snapshot.record.base.snapshot?))).collect()
    }

    /// Returns what holds a snapshot: of each channel of its name, what it held last and before that.
    fn channels(&self, snapshot: &Snapshot) -> Vec<(ChannelName, Hold)> {
        let mut by_channel: BTreeMap<&ChannelName, Vec<ChannelMove>> = BTreeMap::new();
        for step in self.moves.iter().filter(|step| step.name == snapshot.record.name) {
            by_channel.entry(&step.channel).or_default().push(step.clone());
        }
        let hold = |moves: &[ChannelMove]| {
            let mut newest = held(moves).into_iter().rev();
            match (newest.next(), newest.next()) {
                (Some(id), _) if id == snapshot.id() => Some(Hold::Present),
                (_, Some(id)) if id == snapshot.id() => Some(Hold::Previous),
                _ => None,
            }
        };
        by_channel.into_iter().filter_map(|(channel, moves)| Some((channel.clone(), hold(&moves)?))).collect()
    }

    fn facts(&self, snapshot: &Snapshot) -> SnapshotFacts {
        let id = snapshot.id();
        let mut uses = vec![(snapshot.record.created, Use::Baked)];
        uses.extend(
            snapshot.states.iter().filter(|entry| entry.state == State::Active).map(|it| (it.at, Use::Baked)),
        );
        let here = snapshot.places.iter().filter(|place| place.engine == self.engine);
        uses.extend(here.filter_map(|place| Some((place.last_used?, Use::Touched))));
        let moves = self.moves.iter().filter(|step| step.snapshot == id);
        uses.extend(moves.map(|step| (step.at, Use::Promoted)));
        let children = self.snapshots.values().filter(|other| other.record.base.snapshot == Some(id));
        uses.extend(children.map(|child| (child.record.created, Use::Base)));
        let (used, used_as) =
            uses.into_iter().max_by_key(|(at, _)| *at).unwrap_or((snapshot.record.created, Use::Baked));
        let last = snapshot.last();
        SnapshotFacts {
            id,
            name: snapshot.record.name.clone(),
            created: snapshot.record.created,
            state: snapshot.state(),
            since: last.map_or(snapshot.record.created, |entry| entry.at),
            reason: last.and_then(|entry| entry.reason.clone()),
            pinned: snapshot.marks.pinned,
            expires: snapshot.marks.expires,
            channels: self.channels(snapshot),
            used,
            used_as,
            elsewhere: snapshot
                .places
                .iter()
                .filter(|place| place.state == PlaceState::Present && place.engine != self.engine)
                .map(|place| place.engine.clone())
                .collect(),
        }
    }
}

/// Returns whether somebody may still want a snapshot in this state.
fn lives(state: State) -> bool {
    match state {
        State::Building | State::Checking | State::Active | State::Unchecked | State::Inactive => true,
        State::Error | State::Revoked | State::Removing | State::Removed => false,
    }
}

/// What was seen of the engine.
struct Look<'a> {
    store: StoreId,
    images: &'a [ImageInfo],
    containers: &'a [ContainerUse],
    unique: BTreeMap<ImageId, u64>,
}

impl Look<'_> {
    fn items(&self, records: &Records) -> Result<Vec<Item>, ImageError> {
        let (mut items, mut here) = (Vec::new(), BTreeSet::new());
        for image in self.images {
            match image.labels.get(STORE_LABEL) {
                None => {}
                Some(store) if *store != self.store.to_string() => {
                    let tag = image.tags.first().cloned();
                    let name = tag.as_deref().map_or_else(String::new, repository);
                    let name = name.trim_start_matches("kiln/").to_owned();
                    let facts = Some(self.facts(image, tag));
                    items.push(Item { whose: Whose::Foreign { store: store.clone() }, name, image: facts });
                }
                Some(_) => self.own(image, records, &mut items, &mut here)?,
            }
        }
        // A record whose image should be here: it vanished, or its removal was begun.
        for snapshot in records.snapshots.values().filter(|snapshot| !here.contains(&snapshot.id())) {
            let place = snapshot.place(&records.engine);
            let vanished = place.is_some_and(|place| place.state == PlaceState::Present);
            if snapshot.state() == State::Removing || (vanished && lives(snapshot.state())) {
                let facts = records.facts(snapshot);
                items.push(Item {
                    name: facts.name.to_string(),
                    whose: Whose::Snapshot(Box::new(facts)),
                    image: None,
                });
            }
        }
        Ok(items)
    }

    /// Adds an item for each reference that is ours of an image that is.
    fn own(
        &self,
        image: &ImageInfo,
        records: &Records,
        items: &mut Vec<Item>,
        here: &mut BTreeSet<SnapshotId>,
    ) -> Result<(), ImageError> {
        let made_for: Option<SnapshotId> = image.labels.get(SNAPSHOT_LABEL).and_then(|id| id.parse().ok());
        // What else somebody tagged below `kiln/` is theirs.
        let id_of = |tag: &str| tag.strip_prefix("kiln/")?.rsplit_once(':')?.1.parse::<SnapshotId>().ok();
        let ours: Vec<(&String, SnapshotId)> =
            image.tags.iter().filter_map(|tag| Some((tag, id_of(tag)?))).collect();
        for (tag, id) in &ours {
            if records.headless.contains(id) {
                return Err(ImageError::RecordMissing { id: id.to_string() });
            }
            let snapshot = records.snapshots.get(id).filter(|snapshot| {
                let is_its = repository(tag) == format!("kiln/{}", snapshot.record.name);
                is_its && snapshot.state() != State::Removed
            });
            let (whose, name) = match snapshot {
                Some(snapshot) => {
                    here.insert(snapshot.id());
                    let facts = Box::new(records.facts(snapshot));
                    let name = facts.name.to_string();
                    (Whose::Snapshot(facts), name)
                }
                None => {
                    let name = repository(tag).trim_start_matches("kiln/").to_owned();
                    (Whose::Leftover { in_work: None }, name)
                }
            };
            items.push(Item { whose, name, image: Some(self.facts(image, Some((*tag).clone()))) });
        }
        if ours.is_empty() {
            if let Some(id) = made_for.filter(|id| records.headless.contains(id)) {
                return Err(ImageError::RecordMissing { id: id.to_string() });
            }
            let maker = made_for.and_then(|id| records.snapshots.get(&id));
            let in_work = maker.filter(|maker| maker.state().in_work()).map(Snapshot::id);
            let name = maker.map_or_else(String::new, |maker| maker.record.name.to_string());
            items.push(Item {
                whose: Whose::Leftover { in_work },
                name,
                image: Some(self.facts(image, None)),
            });
        }
        Ok(())
    }

    fn facts(&self, image: &ImageInfo, tag: Option<String>) -> ImageFacts {
        let users = || self.containers.iter().filter(|container| container.image == Some(image.id));
        ImageFacts {
            id: image.id,
            beside: image.tags.iter().filter(|other| Some(*other) != tag.as_ref()).cloned().collect(),
            tag,
            size_bytes: image.size_bytes,
            unique_bytes: self.unique.get(&image.id).copied(),
            created: image.created,
            layers: LayerId::chain(&image.layers),
            containers: users().map(|container| container.name.clone()).collect(),
            runs: users().any(|container| container.running),
        }
    }
}

/// Returns a reference without its tag.
fn repository(reference: &str) -> String {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
        Some(_) | None => reference.to_owned(),
    }
}
