//! Making, finding and listing snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reference::IdPrefix;
use super::{
    Beat, CatalogError, MarkEntry, Marks, Outcome, PlaceRecord, PlaceState, SnapshotRecord, SnapshotRef,
    State, StateEntry, Touch, fold,
};
use crate::base::{BuildKey, EngineId, ImageId, Sha256Digest, SnapshotId, SnapshotKey, SnapshotName};
use crate::objects::{Key, ObjectInfo, ObjectStore, Prefix};

/// How many objects are read at once.
const READS_AT_ONCE: usize = 16;

/// The records of a store. Cheap to clone; may be used from several tasks and processes at once.
#[derive(Debug, Clone)]
pub struct Catalog {
    objects: Arc<dyn ObjectStore>,
}

/// A snapshot as its records tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What was asked for.
    pub record: SnapshotRecord,
    /// The transitions that count, oldest first; never empty.
    pub states: Vec<StateEntry>,
    /// One entry for each engine: what was seen last.
    pub places: Vec<PlaceRecord>,
    /// Pins and expiry.
    pub marks: Marks,
}

impl Snapshot {
    /// Returns the snapshot's id.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.record.id
    }

    /// Returns `name@id`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}@{}", self.record.name, self.record.id)
    }

    /// Returns the state it is in.
    #[must_use]
    pub fn state(&self) -> State {
        self.states.last().map_or(State::Building, |entry| entry.state)
    }

    /// Returns what the bake gave, when it succeeded.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.states.iter().rev().find_map(|entry| entry.outcome.as_deref())
    }

    /// Returns when its image was built.
    #[must_use]
    pub fn built(&self) -> jiff::Timestamp {
        self.outcome().and_then(|outcome| outcome.built).unwrap_or(self.record.created)
    }

    /// Returns the transition to the state it is in.
    #[must_use]
    pub fn last(&self) -> Option<&StateEntry> {
        self.states.last()
    }

    /// Returns what was last seen on `engine`.
    #[must_use]
    pub fn place(&self, engine: &EngineId) -> Option<&PlaceRecord> {
        self.places.iter().find(|place| place.engine == *engine)
    }

    /// Returns whether an engine has its image, as far as was last seen.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.places.iter().any(|place| place.state == PlaceState::Present)
    }
}

impl Catalog {
    /// Uses the records in `objects`.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    /// Returns the store below.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Records that a bake has begun: the record, its indices, the state `building`.
    ///
    /// The first transition is the commit point: before it nobody sees the snapshot.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn create(&self, record: &SnapshotRecord) -> Result<(), CatalogError> {
        let id = record.id;
        self.write(&Key::new(format!("snap/record/{id}.json"))?, record).await?;
        for index in [
            format!("snap/name/{}/{id}", record.name),
            format!("snap/key/{}/{id}", record.snapshot_key),
            format!("snap/build/{}/{id}", record.build_key),
        ] {
            self.objects.put(&Key::new(index)?, Bytes::new()).await?;
        }
        self.transition(id, &StateEntry::to(State::Building, record.created)).await?;
        Ok(())
    }

    /// Adds a transition; returns whether it took effect, which it does not when the state before it does not allow it, also
    /// when somebody else was faster.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read or written.
    pub async fn transition(&self, id: SnapshotId, entry: &StateEntry) -> Result<bool, CatalogError> {
        let sequence = self.transitions(id).await?.last().map_or(1, |last| last.sequence + 1);
        let unique = SnapshotId::generate();
        let key = Key::new(format!("snap/state/{id}/{sequence:04}-{unique}-{}.json", entry.state))?;
        self.write(&key, entry).await?;
        let all = self.transitions(id).await?;
        let counted = fold(&all.iter().map(|transition| transition.state).collect::<Vec<_>>());
        Ok(counted.iter().any(|&index| all[index].key == key))
    }

    /// Returns the state that a snapshot is in, by the names of its transitions alone; `None` when there is no such snapshot.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn state(&self, id: SnapshotId) -> Result<Option<State>, CatalogError> {
        let states: Vec<State> =
            self.transitions(id).await?.iter().map(|transition| transition.state).collect();
        Ok(fold(&states).last().map(|&index| states[index]))
    }

    /// Returns a snapshot; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read, or a record cannot be understood.
    pub async fn load(&self, id: SnapshotId) -> Result<Option<Snapshot>, CatalogError> {
        let (record, transitions) = tokio::try_join!(
            async { self.read::<SnapshotRecord>(&Key::new(format!("snap/record/{id}.json"))?).await },
            self.transitions(id),
        )?;
        let states: Vec<State> = transitions.iter().map(|transition| transition.state).collect();
        let counted = fold(&states);
        let Some(record) = record.filter(|_| !counted.is_empty()) else { return Ok(None) };
        let (entries, places, marks) = tokio::try_join!(
            self.read_all::<StateEntry>(
                counted.iter().map(|&index| transitions[index].key.clone()).collect()
            ),
            self.places(id),
            self.read_below::<MarkEntry>(format!("snap/mark/{id}")),
        )?;
        Ok(Some(Snapshot { record, states: entries, places, marks: Marks::fold(&marks) }))
    }

    /// Returns all snapshots, oldest first.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read, or a record cannot be understood.
    pub async fn list(&self) -> Result<Vec<Snapshot>, CatalogError> {
        let listed = self.objects.list(&Prefix::new("snap/record")?).await?;
        let ids = ids_in(&listed);
        self.load_all(ids).await
    }

    /// Returns the snapshots of a name, oldest first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::list`].
    pub async fn of_name(&self, name: &SnapshotName) -> Result<Vec<Snapshot>, CatalogError> {
        self.load_all(self.indexed(format!("snap/name/{name}")).await?).await
    }

    /// Returns the snapshots of a snapshot key, oldest first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::list`].
    pub async fn of_key(&self, key: SnapshotKey) -> Result<Vec<Snapshot>, CatalogError> {
        self.load_all(self.indexed(format!("snap/key/{key}")).await?).await
    }

    /// Returns the snapshots of a build key, oldest first.
    ///
    /// # Errors
    ///
    /// As [`Catalog::list`].
    pub async fn of_build(&self, key: BuildKey) -> Result<Vec<Snapshot>, CatalogError> {
        self.load_all(self.indexed(format!("snap/build/{key}")).await?).await
    }

    /// Returns the names that snapshots have, removed ones included.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn names(&self) -> Result<Vec<SnapshotName>, CatalogError> {
        let listed = self.objects.list(&Prefix::new("snap/name")?).await?;
        let mut names: Vec<SnapshotName> =
            listed.iter().filter_map(|object| object.key.segments().nth(2)?.parse().ok()).collect();
        names.dedup();
        Ok(names)
    }

    /// Returns the snapshot that `reference` names. A name stands for its newest active snapshot; where no snapshot has that
    /// name, the text is tried as an id.
    ///
    /// # Errors
    ///
    /// [`CatalogError::NotFound`] with the nearest name, [`CatalogError::Ambiguous`], or a store that cannot be read.
    pub async fn resolve(&self, reference: &SnapshotRef) -> Result<Snapshot, CatalogError> {
        match reference {
            SnapshotRef::Name(name) => self.resolve_name(name).await,
            SnapshotRef::NameId(name, prefix) => {
                let ids = self.indexed(format!("snap/name/{name}")).await?;
                self.one_of(reference, ids, prefix).await
            }
            SnapshotRef::Channel(name, channel) => {
                let held = self.channel(name, channel).await?;
                let id = held.ok_or_else(|| not_found(reference, ", and no such channel", None))?.snapshot;
                self.load(id).await?.ok_or_else(|| not_found(reference, "", None))
            }
        }
    }

    async fn resolve_name(&self, name: &SnapshotName) -> Result<Snapshot, CatalogError> {
        let reference = SnapshotRef::Name(name.clone());
        let ids = self.indexed(format!("snap/name/{name}")).await?;
        // By the names of transitions alone: a name may have thousands of snapshots.
        for id in ids.iter().rev() {
            if self.state(*id).await? == Some(State::Active)
                && let Some(newest) = self.load(*id).await?
            {
                return Ok(newest);
            }
        }
        let newest = match ids.last() {
            Some(id) => self.load(*id).await?,
            None => None,
        };
        if let Some(newest) = newest {
            let detail =
                format!(" that is active; the newest is {}, which is {}", newest.reference(), newest.state());
            return Err(not_found(&reference, &detail, None));
        }
        if let Some(prefix) = IdPrefix::parse(name.as_str()) {
            let listed = self.objects.list(&Prefix::new("snap/record")?).await?;
            let ids = ids_in(&listed);
            match self.one_of(&reference, ids, &prefix).await {
                Err(CatalogError::NotFound { .. }) => {}
                found => return found,
            }
        }
        let nearest = self
            .names()
            .await?
            .into_iter()
            .map(|other| (strsim::damerau_levenshtein(other.as_str(), name.as_str()), other))
            .filter(|(distance, other)| *distance <= 1 + other.as_str().len() / 4)
            .min()
            .map(|(_, other)| other.to_string());
        Err(not_found(&reference, "", nearest))
    }

    async fn one_of(
        &self,
        reference: &SnapshotRef,
        ids: Vec<SnapshotId>,
        prefix: &IdPrefix,
    ) -> Result<Snapshot, CatalogError> {
        let fits: Vec<SnapshotId> =
            ids.into_iter().filter(|id| id.to_string().starts_with(prefix.as_str())).collect();
        match fits.as_slice() {
            [] => Err(not_found(reference, "", None)),
            [id] => self.load(*id).await?.ok_or_else(|| not_found(reference, "", None)),
            several => {
                Err(CatalogError::Ambiguous { reference: reference.to_string(), count: several.len() })
            }
        }
    }

    /// Returns the nearest snapshot that this one is built on, at whatever distance, and that was revoked, also if it was removed since.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn revoked_below(&self, snapshot: &Snapshot) -> Result<Option<Snapshot>, CatalogError> {
        let mut below = snapshot.record.base.snapshot;
        let mut seen = BTreeSet::new();
        while let Some(id) = below.filter(|id| seen.insert(*id)) {
            let Some(base) = self.load(id).await? else { return Ok(None) };
            if base.states.iter().any(|entry| entry.state == State::Revoked) {
                return Ok(Some(base));
            }
            below = base.record.base.snapshot;
        }
        Ok(None)
    }

    /// Records what was seen on an engine.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn add_place(&self, id: SnapshotId, place: &PlaceRecord) -> Result<(), CatalogError> {
        self.write(&Key::new(format!("snap/place/{id}/{}.json", SnapshotId::generate()))?, place).await
    }

    /// Records that the image was used on `engine` at `at`.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn touch(
        &self,
        id: SnapshotId,
        engine: &EngineId,
        at: jiff::Timestamp,
    ) -> Result<(), CatalogError> {
        self.write(&touch_key(id, engine)?, &Touch { version: 1, at }).await
    }

    /// Records that the owner of a bake lives.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn beat(&self, id: SnapshotId, counter: u64) -> Result<(), CatalogError> {
        self.write(&Key::new(format!("beat/snap/{id}.json"))?, &Beat { version: 1, counter }).await
    }

    /// Returns the last heartbeat of a bake.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn last_beat(&self, id: SnapshotId) -> Result<Option<Beat>, CatalogError> {
        self.read(&Key::new(format!("beat/snap/{id}.json"))?).await
    }

    /// Returns the snapshots that have a heartbeat: those in work, and those whose process has died.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn beating(&self) -> Result<Vec<SnapshotId>, CatalogError> {
        let listed = self.objects.list(&Prefix::new("beat/snap")?).await?;
        Ok(ids_in(&listed))
    }

    /// Returns every snapshot that has a transition, whether its record is there or not.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn with_transitions(&self) -> Result<Vec<SnapshotId>, CatalogError> {
        let listed = self.objects.list(&Prefix::new("snap/state")?).await?;
        let mut ids: Vec<SnapshotId> =
            listed.iter().filter_map(|object| object.key.segments().nth(2)?.parse().ok()).collect();
        ids.dedup();
        Ok(ids)
    }

    /// Takes the heartbeat of a finished bake away.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn end_beat(&self, id: SnapshotId) -> Result<(), CatalogError> {
        Ok(self.objects.delete(&[Key::new(format!("beat/snap/{id}.json"))?]).await?)
    }

    async fn places(&self, id: SnapshotId) -> Result<Vec<PlaceRecord>, CatalogError> {
        let seen = self.read_below::<PlaceRecord>(format!("snap/place/{id}")).await?;
        // Later observations have higher keys and take the place of earlier ones.
        // Clones of a host share an engine id and not their images, so an image is part of a place.
        let latest: BTreeMap<(String, ImageId), PlaceRecord> =
            seen.into_iter().map(|place| ((place.engine.to_string(), place.image), place)).collect();
        stream::iter(latest.into_values())
            .map(|mut place| async move {
                let touch = self.read::<Touch>(&touch_key(id, &place.engine)?).await?;
                place.last_used = touch.map(|touch| touch.at).or(place.last_used);
                Ok(place)
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn transitions(&self, id: SnapshotId) -> Result<Vec<Transition>, CatalogError> {
        let listed = self.objects.list(&Prefix::new(format!("snap/state/{id}"))?).await?;
        Ok(listed.into_iter().filter_map(|object| Transition::parse(object.key)).collect())
    }

    async fn indexed(&self, index: String) -> Result<Vec<SnapshotId>, CatalogError> {
        let listed = self.objects.list(&Prefix::new(index)?).await?;
        Ok(listed.iter().filter_map(|object| object.key.name().parse().ok()).collect())
    }

    async fn load_all(&self, ids: Vec<SnapshotId>) -> Result<Vec<Snapshot>, CatalogError> {
        let loaded: Vec<Option<Snapshot>> =
            stream::iter(ids).map(|id| self.load(id)).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(loaded.into_iter().flatten().collect())
    }

    pub(super) async fn write<T: Serialize + Sync>(&self, key: &Key, value: &T) -> Result<(), CatalogError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|source| CatalogError::Unreadable { key: key.to_string(), source })?;
        Ok(self.objects.put(key, bytes.into()).await?)
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, CatalogError> {
        let Some(bytes) = self.objects.get(key).await? else { return Ok(None) };
        let unreadable = |source| CatalogError::Unreadable { key: key.to_string(), source };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version > 1 => Err(CatalogError::Newer {
                key: key.to_string(),
                found: u32::try_from(version).unwrap_or(u32::MAX),
            }),
            _ => serde_json::from_value(value).map(Some).map_err(unreadable),
        }
    }

    async fn read_all<T: DeserializeOwned>(&self, keys: Vec<Key>) -> Result<Vec<T>, CatalogError> {
        let read: Vec<Option<T>> = stream::iter(keys)
            .map(|key| async move { self.read(&key).await })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(read.into_iter().flatten().collect())
    }

    pub(super) async fn read_below<T: DeserializeOwned>(
        &self,
        prefix: String,
    ) -> Result<Vec<T>, CatalogError> {
        let listed = self.objects.list(&Prefix::new(prefix)?).await?;
        self.read_all(listed.into_iter().map(|object| object.key).collect()).await
    }
}

/// Returns the key behind those listed below `prefix`: `<highest sequence + 1>-<ulid>.json`.
pub(super) fn next_key(prefix: &str, listed: &[ObjectInfo]) -> Result<Key, CatalogError> {
    let highest = listed.last().and_then(|object| object.key.name().split_once('-')?.0.parse::<u32>().ok());
    Ok(Key::new(format!("{prefix}/{:08}-{}.json", highest.unwrap_or(0) + 1, SnapshotId::generate()))?)
}

/// Returns the ids that stand in `<id>.json` at the end of keys.
fn ids_in(listed: &[ObjectInfo]) -> Vec<SnapshotId> {
    listed.iter().filter_map(|object| object.key.name().strip_suffix(".json")?.parse().ok()).collect()
}

/// A transition as its key tells it.
#[derive(Debug)]
struct Transition {
    key: Key,
    sequence: u32,
    state: State,
}

impl Transition {
    /// Reads `<seq>-<ulid>-<state>.json`; a listing is already in the order of (sequence, ULID).
    fn parse(key: Key) -> Option<Self> {
        let (sequence, rest) = key.name().strip_suffix(".json")?.split_once('-')?;
        let (_, state) = rest.split_once('-')?;
        Some(Self { sequence: sequence.parse().ok()?, state: state.parse().ok()?, key })
    }
}

fn touch_key(id: SnapshotId, engine: &EngineId) -> Result<Key, CatalogError> {
    // Engine ids hold colons, which no key may; their digest holds none.
    let engine = Sha256Digest::of(engine.as_str().as_bytes()).to_string();
    Ok(Key::new(format!("touch/{id}/{}.json", &engine[..16]))?)
}

fn not_found(reference: &SnapshotRef, detail: &str, nearest: Option<String>) -> CatalogError {
    CatalogError::NotFound { reference: reference.to_string(), detail: detail.to_owned(), nearest }
}
