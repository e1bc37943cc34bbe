//! What a session sees of the store: the index, without what is condemned or does not count.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::cache::IndexCache;
use super::error::StoreError;
use super::pack::{PackInfo, PackName, WrittenName};
use super::segment::{Location, Segment};
use super::small;
use super::wire::broken;
use crate::base::{ChunkId, SessionId};
use crate::objects::{Key, ObjectStore, Prefix};

/// How many small objects are fetched at the same time.
const FETCHES: usize = 8;
/// Segments that are fetched at the same time have at most this many KiB together; a larger one is fetched alone.
const FETCHED_KIB: usize = 32 << 10;

/// What a collector condemned in one run: `gc/<run>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Condemned {
    /// Version of this object.
    pub version: u32,
    /// When they were condemned, by the collector's clock. A collector's grace counts from here; no safety rests on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned: Option<jiff::Timestamp>,
    /// Keys of packs.
    pub packs: Vec<String>,
}

/// What a collector found of a session when it evicted it: `evict/<session>/<run>.adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Adopted {
    /// Version of this object.
    pub version: u32,
    /// Keys of the session's revisions.
    pub revisions: Vec<String>,
    /// Keys of the session's segments.
    pub segments: Vec<String>,
}

/// The evictions of sessions, as `evict/` lists them.
#[derive(Debug, Clone, Default)]
pub struct Evictions {
    /// For each session the runs that marked it, and what each adopted, once it has.
    sessions: BTreeMap<SessionId, BTreeMap<String, Option<Adopted>>>,
}

impl Evictions {
    /// Returns whether a session's revision counts: unless a completed adopt omits it. A mark without an adopt hides nothing.
    #[must_use]
    pub fn revision_counts(&self, session: SessionId, key: &str) -> bool {
        let runs = self.sessions.get(&session).into_iter().flat_map(BTreeMap::values).flatten();
        runs.into_iter().all(|adopted| adopted.revisions.iter().any(|there| there == key))
    }

    /// Returns whether a session's segment counts: only if every mark has an adopt that lists it.
    #[must_use]
    pub fn segment_counts(&self, session: SessionId, key: &str) -> bool {
        let mut runs = self.sessions.get(&session).into_iter().flat_map(BTreeMap::values);
        runs.all(|adopted| {
            adopted.as_ref().is_some_and(|adopted| adopted.segments.iter().any(|there| there == key))
        })
    }

    /// Returns whether a segment will never count: a completed adopt omits it.
    #[must_use]
    pub fn segment_is_refused(&self, session: SessionId, key: &str) -> bool {
        let runs = self.sessions.get(&session).into_iter().flat_map(BTreeMap::values).flatten();
        runs.into_iter().any(|adopted| !adopted.segments.iter().any(|there| there == key))
    }

    /// Returns whether anybody marked the session.
    #[must_use]
    pub fn is_marked(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }
}

/// Reads the evictions of some sessions.
///
/// # Errors
///
/// Fails where the store does not answer, and on an adopt that is not what was written.
pub async fn evictions(objects: &dyn ObjectStore, of: &BTreeSet<SessionId>) -> Result<Evictions, StoreError> {
    let mut only = of.iter();
    let prefix = match (only.next(), only.next()) {
        (None, _) => return Ok(Evictions::default()),
        (Some(session), None) => Prefix::new(format!("evict/{session}"))?,
        (Some(_), Some(_)) => Prefix::new("evict")?,
    };
    let mut evictions = Evictions::default();
    let mut reads = Vec::new();
    for object in objects.list(&prefix).await? {
        let mut segments = object.key.segments().skip(1);
        let Some(session) = segments.next().and_then(|text| text.parse::<SessionId>().ok()) else { continue };
        if !of.contains(&session) {
            continue;
        }
        let Some((run, kind)) = segments.next().and_then(|name| name.rsplit_once('.')) else { continue };
        let runs = evictions.sessions.entry(session).or_default();
        runs.entry(run.to_owned()).or_default();
        if kind == "adopt" {
            reads.push((session, run.to_owned(), object.key.clone()));
        }
    }
    let mut read = stream::iter(reads)
        .map(|(session, run, key)| async move {
            let adopted: Option<Adopted> = read_json(objects, &key).await?;
            Ok::<_, StoreError>((session, run, adopted))
        })
        .buffer_unordered(FETCHES);
    while let Some((session, run, adopted)) = read.try_next().await? {
        evictions.sessions.entry(session).or_default().insert(run, adopted);
    }
    Ok(evictions)
}

async fn read_json<T: for<'de> Deserialize<'de>>(
    objects: &dyn ObjectStore,
    key: &Key,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = small::read(objects, key, small::LIST_BYTES).await? else { return Ok(None) };
    let damaged = |source: serde_json::Error| StoreError::Damaged {
        key: key.to_string(),
        store: objects.place(),
        source: source.into(),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// How often a view is read anew because a segment went meanwhile.
const LOADS: u32 = 4;

/// Whether every listed segment could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    All,
    Some,
}

/// What a session sees of the store. May be asked from several threads at once.
#[derive(Debug)]
pub struct View {
    packs: Vec<PackInfo>,
    by_name: HashMap<PackName, u32>,
    segments: Vec<OpenSegment>,
    uncounted: Vec<Uncounted>,
}

/// A segment that does not count.
#[derive(Debug, Clone)]
pub(super) struct Uncounted {
    pub(super) name: WrittenName,
    pub(super) key: Key,
    /// Whether it never will, because a completed adopt omits it. Another may count once the adopts that are to come list it.
    pub(super) is_refused: bool,
}

/// A segment that counts.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) key: Key,
    pub(super) segment: Arc<Segment>,
    /// For each pack of the segment its number in the view; `None` for one that is condemned.
    pub(super) numbers: Vec<Option<u32>>,
}

impl View {
    /// Reads what the store shows: `gc/`, then `idx/`, then `evict/`, in this order (protocol, W2).
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer, and on objects that are not what was written.
    pub async fn load(objects: &dyn ObjectStore, cache: &IndexCache) -> Result<Self, StoreError> {
        // A segment that goes between the listing and the reading was compacted: its rows are in one that is younger than the
        // listing. Where that happens again and again, what is not seen is only written again, or looked for again.
        Self::load_with(objects, cache, &mut Err).await
    }

    /// Reads what the store shows, as [`View::load`] does, without the segments that are damaged; those are returned apart.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer, and on a list or an adopt that is not what was written.
    pub(super) async fn load_sound(
        objects: &dyn ObjectStore,
        cache: &IndexCache,
    ) -> Result<(Self, Vec<Key>), StoreError> {
        let mut damaged = BTreeSet::new();
        let mut judge = |error| match error {
            StoreError::Damaged { key, .. } if key.starts_with("idx/") => {
                damaged.insert(Key::new(key)?);
                Ok(())
            }
            error => Err(error),
        };
        let view = Self::load_with(objects, cache, &mut judge).await?;
        Ok((view, damaged.into_iter().collect()))
    }

    async fn load_with(
        objects: &dyn ObjectStore,
        cache: &IndexCache,
        judge: &mut (dyn FnMut(StoreError) -> Result<(), StoreError> + Send),
    ) -> Result<Self, StoreError> {
        for _ in 1..LOADS {
            if let (view, Seen::All) = Self::load_once(objects, cache, judge).await? {
                return Ok(view);
            }
        }
        Ok(Self::load_once(objects, cache, judge).await?.0)
    }

    /// Reads what the store shows; `judge` says whether an error of a segment ends it.
    async fn load_once(
        objects: &dyn ObjectStore,
        cache: &IndexCache,
        judge: &mut (dyn FnMut(StoreError) -> Result<(), StoreError> + Send),
    ) -> Result<(Self, Seen), StoreError> {
        let condemned = condemned(objects).await?;
        let listed = objects.list(&Prefix::new("idx")?).await?;
        let named: Vec<(u64, WrittenName, Key)> = listed
            .into_iter()
            .filter_map(|object| Some((object.size_bytes, object.key.name().parse().ok()?, object.key)))
            .collect();
        let evictions = evictions(objects, &named.iter().map(|(_, name, _)| name.session).collect()).await?;
        let (counting, uncounted): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|(_, name, key)| evictions.segment_counts(name.session, key.as_str()));
        let room = Arc::new(Semaphore::new(FETCHED_KIB));
        let opened: Vec<(Key, Result<Option<Segment>, StoreError>)> = stream::iter(counting)
            .map(|(size, name, key)| {
                let room = Arc::clone(&room);
                async move {
                    let needed = usize::try_from(size >> 10).unwrap_or(FETCHED_KIB).clamp(1, FETCHED_KIB);
                    let _held = room.acquire_many(u32::try_from(needed).unwrap_or(1)).await;
                    let segment = cache.open(objects, &name, &key).await;
                    (key, segment)
                }
            })
            .buffered(FETCHES)
            .collect()
            .await;
        let uncounted = uncounted.into_iter().map(|(_, name, key)| Uncounted {
            is_refused: evictions.segment_is_refused(name.session, key.as_str()),
            name,
            key,
        });
        let uncounted = uncounted.collect();
        let mut view = Self { packs: Vec::new(), by_name: HashMap::new(), segments: Vec::new(), uncounted };
        let mut seen = Seen::All;
        for (key, segment) in opened {
            match segment {
                Ok(Some(segment)) => view.add(key, Arc::new(segment), &condemned),
                Ok(None) => seen = Seen::Some,
                Err(error) => judge(error)?,
            }
        }
        Ok((view, seen))
    }

    fn add(&mut self, key: Key, segment: Arc<Segment>, condemned: &HashSet<PackName>) {
        let mut numbers = Vec::with_capacity(segment.packs().len());
        for info in segment.packs() {
            numbers.push(if condemned.contains(&info.pack) {
                None
            } else {
                Some(*self.by_name.entry(info.pack).or_insert_with(|| {
                    self.packs.push(*info);
                    u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
                }))
            });
        }
        self.segments.push(OpenSegment { key, segment, numbers });
    }

    /// Returns the packs that may be relied on, by their numbers in this view.
    #[must_use]
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// Returns a pack's number, if it may be relied on.
    #[must_use]
    pub fn number_of(&self, pack: &PackName) -> Option<u32> {
        self.by_name.get(pack).copied()
    }

    /// Returns every place where a chunk may be read: those that may be relied on first, then those in packs that are condemned
    /// and perhaps not deleted yet.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read.
    pub fn places(&self, id: &ChunkId) -> io::Result<Vec<(PackInfo, Location)>> {
        let (mut places, mut condemned) = (Vec::new(), Vec::new());
        for open in &self.segments {
            for location in open.segment.find(id)? {
                let at = location.pack as usize;
                let unknown = || broken("a row names a pack that is not listed");
                let info = *open.segment.packs().get(at).ok_or_else(unknown)?;
                match open.numbers.get(at).ok_or_else(unknown)? {
                    Some(_) => places.push((info, location)),
                    None => condemned.push((info, location)),
                }
            }
        }
        places.append(&mut condemned);
        Ok(places)
    }

    /// Returns where a chunk lies that may be referenced without being written (protocol, W3). The location's pack is a number in
    /// this view.
    ///
    /// # Errors
    ///
    /// Fails where a cached segment cannot be read.
    pub fn find(&self, id: &ChunkId) -> io::Result<Option<Location>> {
        for open in &self.segments {
            for location in open.segment.find(id)? {
                let number = open.numbers.get(location.pack as usize);
                let number = *number.ok_or_else(|| broken("a row names a pack that is not listed"))?;
                if let Some(pack) = number {
                    return Ok(Some(Location { pack, ..location }));
                }
            }
        }
        Ok(None)
    }

    /// Returns the segments that count, opened.
    pub(super) fn opened(&self) -> &[OpenSegment] {
        &self.segments
    }

    /// Returns the segments that do not count: a collector marked their session, and has not said yet, or not said at all, that it
    /// found them. They prove nothing to whoever wants to rely on a chunk, and may still tell a reader where it lies.
    pub(super) fn uncounted(&self) -> &[Uncounted] {
        &self.uncounted
    }

    /// Returns the segments, each with its key. Compaction keeps their number small.
    pub fn segments(&self) -> impl Iterator<Item = (&Key, &Segment)> {
        self.segments.iter().map(|open| (&open.key, &*open.segment))
    }

    /// Hands out the rows of a segment whose packs may be relied on. Their packs are numbers in this view.
    ///
    /// # Errors
    ///
    /// As [`View::find`].
    pub fn for_each_row(&self, segment: &Key, take: &mut dyn FnMut(ChunkId, Location)) -> io::Result<()> {
        for open in self.segments.iter().filter(|open| open.key == *segment) {
            open.segment.for_each(&mut |id, location| {
                if let Some(Some(pack)) = open.numbers.get(location.pack as usize) {
                    take(id, Location { pack: *pack, ..location });
                }
            })?;
        }
        Ok(())
    }

    /// Returns the bytes of all packs that the index names.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.packs.iter().map(|info| info.size).sum()
    }
}

/// Reads which packs are condemned.
///
/// # Errors
///
/// Fails where the store does not answer, and on a list that is not what was written: what cannot be read could condemn anything.
pub async fn condemned(objects: &dyn ObjectStore) -> Result<HashSet<PackName>, StoreError> {
    let listed = objects.list(&Prefix::new("gc")?).await?;
    let lists: Vec<Option<Condemned>> = stream::iter(listed)
        .map(|object| async move { read_json(objects, &object.key).await })
        .buffer_unordered(FETCHES)
        .try_collect()
        .await?;
    let keys: BTreeSet<String> = lists.into_iter().flatten().flat_map(|list| list.packs).collect();
    Ok(keys.into_iter().filter_map(|key| Key::new(key).ok().and_then(|key| PackName::of_key(&key))).collect())
}
