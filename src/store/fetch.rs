//! Reading chunks: by the pack tables that a revision names, and where those fail, by the index.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Mutex;

use super::cache::IndexCache;
use super::content::ChunkRef;
use super::error::StoreError;
use super::frame::{Codec, FrameReader};
use super::pack::{PackInfo, PackName, PackTable};
use super::segment::{Location, Segment, encode, rows_of};
use super::verify::find_table;
use super::view::View;
use super::wire::broken;
use crate::base::ChunkId;
use crate::objects::{ObjectStore, Prefix};

/// Pack tables that are fetched at the same time.
const TABLES: usize = 8;
/// What is fetched at once, in bytes as they are stored: large enough that a round trip is cheap, small enough that four fit in memory.
const RUN_BYTES: u64 = 8 << 20;
/// Two frames with less than this between them are fetched together, in bytes.
const GAP_BYTES: u64 = 128 << 10;

/// Where the chunks of a revision lie.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    packs: Vec<PackName>,
    chunks: HashMap<ChunkId, Location>,
}

impl Locations {
    /// Puts together what is known from elsewhere: chunks, each with its pack and its place there. The pack of a location means nothing.
    pub(super) fn of(chunks: impl IntoIterator<Item = (ChunkId, PackName, Location)>) -> Self {
        let mut locations = Self::default();
        let mut numbers = HashMap::new();
        for (id, pack, location) in chunks {
            let next = u32::try_from(locations.packs.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(pack).or_insert(next);
            if number == next {
                locations.packs.push(pack);
            }
            locations.chunks.insert(id, Location { pack: number, ..location });
        }
        locations
    }

    /// Returns where a chunk lies.
    #[must_use]
    pub fn get(&self, id: &ChunkId) -> Option<&Location> {
        self.chunks.get(id)
    }

    /// Adds those chunks of a pack for which `is_wanted`; of one that is known already the first place stays.
    pub fn add(&mut self, pack: PackName, table: &PackTable, is_wanted: &mut dyn FnMut(&ChunkId) -> bool) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(pack);
        for frame in &table.frames {
            let mut offset = 0;
            for (id, length) in &frame.chunks {
                if is_wanted(id) {
                    let location = Location {
                        pack: number,
                        frame_offset: frame.offset,
                        frame_length: frame.stored_length,
                        codec: frame.codec,
                        offset,
                        length: *length,
                    };
                    self.chunks.entry(*id).or_insert(location);
                }
                offset += *length;
            }
        }
    }

    /// Returns a pack by its number.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<&PackName> {
        self.packs.get(number as usize)
    }

    /// Returns the number of chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Returns whether no chunk is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// A part of a pack that is fetched at once.
#[derive(Debug, Clone)]
pub struct Run {
    /// The pack.
    pub pack: PackName,
    /// Where it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What is wanted of it, by frames.
    pub frames: Vec<RunFrame>,
}

/// A frame of a run, and what is wanted of it.
#[derive(Debug, Clone)]
pub struct RunFrame {
    /// Where it begins in the run.
    pub start: usize,
    /// Its length as it is stored.
    pub length: usize,
    /// How it is stored.
    pub codec: Codec,
    /// The wanted chunks: where they begin in the frame's content, their lengths and ids, and the caller's number.
    pub chunks: Vec<WantedChunk>,
}

/// A chunk that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct WantedChunk {
    /// Its id.
    pub id: ChunkId,
    /// Where it begins in the content of its frame.
    pub offset: usize,
    /// Its length.
    pub length: usize,
    /// What the caller calls it.
    pub tag: u32,
}

/// Fetches chunks. Shared by all tasks of a reader.
#[derive(Debug)]
pub struct Fetcher {
    objects: Arc<dyn ObjectStore>,
    cache: IndexCache,
    view: Mutex<Option<Arc<View>>>,
    fetched_bytes: AtomicU64,
}

impl Fetcher {
    /// Makes a fetcher.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, cache: IndexCache) -> Self {
        Self { objects, cache, view: Mutex::new(None), fetched_bytes: AtomicU64::new(0) }
    }

    /// Returns how many bytes of packs [`Fetcher::in_order`] and [`Fetcher::chunk`] have fetched so far, tables not counted.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// Returns the store.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Reads the tables of packs and keeps where those chunks lie for which `is_wanted`. A pack that is gone, or whose table is
    /// damaged, has none: its chunks are looked for elsewhere when they are needed.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer.
    pub async fn locate(
        &self,
        packs: impl IntoIterator<Item = PackInfo>,
        mut is_wanted: impl FnMut(&ChunkId) -> bool,
    ) -> Result<Locations, StoreError> {
        let mut locations = Locations::default();
        let mut tables = stream::iter(packs)
            .map(|info| async move { Ok::<_, StoreError>((info, self.table(&info).await?)) })
            .buffered(TABLES);
        while let Some((info, table)) = tables.try_next().await? {
            if let Some(table) = table {
                locations.add(info.pack, &table, &mut is_wanted);
            }
        }
        Ok(locations)
    }

    /// Reads the tables of packs, as [`Fetcher::locate`] does, and keeps them whole.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer.
    pub async fn tables(
        &self,
        packs: impl IntoIterator<Item = PackInfo>,
    ) -> Result<Vec<(PackName, PackTable)>, StoreError> {
        let read = stream::iter(packs)
            .map(|info| async move { Ok::<_, StoreError>((info.pack, self.table(&info).await?)) })
            .buffered(TABLES);
        read.try_filter_map(|(pack, table)| async move { Ok(table.map(|table| (pack, table))) })
            .try_collect()
            .await
    }

    /// Reads a pack's table; `None` where the pack is gone or the table is damaged.
    async fn table(&self, info: &PackInfo) -> Result<Option<PackTable>, StoreError> {
        let (offset, length) = info.tail();
        let tail = self.objects.range(&info.pack.key()?, offset, length).await?;
        Ok(tail.and_then(|tail| PackTable::parse(&tail).ok()))
    }

    /// Puts wanted chunks together to runs, in the order of the packs; those whose place is not known are returned apart.
    #[must_use]
    pub fn plan(
        locations: &Locations,
        wanted: impl IntoIterator<Item = (ChunkId, u32)>,
    ) -> (Vec<Run>, Vec<(ChunkId, u32)>) {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (id, tag) in wanted {
            match locations.get(&id) {
                Some(location) => {
                    known.push((location.pack, location.frame_offset, location.offset, id, tag))
                }
                None => unknown.push((id, tag)),
            }
        }
        known.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        let mut last_frame = None;
        for (pack, frame_offset, _, id, tag) in known {
            let (Some(location), Some(name)) = (locations.get(&id), locations.pack(pack)) else { continue };
            let chunk =
                WantedChunk { id, offset: location.offset as usize, length: location.length as usize, tag };
            if last_frame == Some((pack, frame_offset)) {
                if let Some(frame) = runs.last_mut().and_then(|run| run.frames.last_mut()) {
                    frame.chunks.push(chunk);
                }
                continue;
            }
            last_frame = Some((pack, frame_offset));
            let (from, length) = (u64::from(frame_offset), u64::from(location.frame_length));
            let fits = |run: &&mut Run| {
                let end = run.offset + run.length;
                run.pack == *name
                    && from >= end
                    && from - end <= GAP_BYTES
                    && from + length - run.offset <= RUN_BYTES
            };
            let frame = |start: u64| RunFrame {
                start: usize::try_from(start).unwrap_or(usize::MAX),
                length: location.frame_length as usize,
                codec: location.codec,
                chunks: vec![chunk],
            };
            match runs.last_mut().filter(fits) {
                Some(run) => {
                    run.frames.push(frame(from - run.offset));
                    run.length = from + length - run.offset;
                }
                None => runs.push(Run { pack: *name, offset: from, length, frames: vec![frame(0)] }),
            }
        }
        (runs, unknown)
    }

    /// Fetches a run's bytes; `None` where the pack is gone or shorter than it should be.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer.
    pub async fn fetch(&self, run: &Run) -> Result<Option<Bytes>, StoreError> {
        let bytes = self.objects.range(&run.pack.key()?, run.offset, run.length).await?;
        Ok(bytes.filter(|bytes| bytes.len() as u64 == run.length))
    }

    /// Plans again, by the index: for chunks that are not where the revision says, because a collector moved them. Those that the
    /// index does not know are returned apart. It is read when it is needed first, and not anew after that.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer.
    pub async fn replan(
        &self,
        wanted: Vec<(ChunkId, u32)>,
    ) -> Result<(Vec<Run>, Vec<(ChunkId, u32)>), StoreError> {
        if wanted.is_empty() {
            return Ok((Vec::new(), wanted));
        }
        let view = self.view(false).await?;
        let planned = tokio::task::spawn_blocking(move || {
            let mut found = Vec::with_capacity(wanted.len());
            for (id, _) in &wanted {
                let place = view.places(id)?.into_iter().next();
                found.extend(place.map(|(info, location)| (*id, info.pack, location)));
            }
            Ok(Self::plan(&Locations::of(found), wanted))
        });
        let planned = planned.await.map_err(io::Error::other).and_then(|planned| planned);
        planned.map_err(|source| StoreError::Local { action: "read the cached index", source })
    }

    /// Begins to look for chunks that are not where the revision says.
    #[must_use]
    pub fn rescue(&self) -> Rescue<'_> {
        Rescue { fetcher: self, has_fresh_view: false, unnamed: None, fetched_bytes: 0 }
    }

    /// Reads what no segment that counts names: the segments that do not, and the tables of packs that are in none.
    async fn unnamed(&self, view: &View) -> Result<Vec<Segment>, StoreError> {
        let mut named: HashSet<PackName> = HashSet::new();
        named.extend(view.opened().iter().flat_map(|open| open.segment.packs()).map(|info| info.pack));
        let mut segments = Vec::new();
        for uncounted in view.uncounted() {
            match self.cache.open(&*self.objects, &uncounted.name, &uncounted.key).await {
                Ok(Some(segment)) => {
                    named.extend(segment.packs().iter().map(|info| info.pack));
                    segments.push(segment);
                }
                Ok(None) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut listed = self.objects.list(&Prefix::new("packs")?).await?;
        listed.extend(self.objects.list(&Prefix::new("meta")?).await?);
        let packs = listed.into_iter().filter_map(|object| {
            let pack = PackName::of_key(&object.key).filter(|pack| !named.contains(pack))?;
            Some(PackInfo { pack, size: object.size_bytes, table_length: 0 })
        });
        let tables: Vec<(PackInfo, Option<PackTable>)> = stream::iter(packs)
            .map(|info| find_table(&*self.objects, info))
            .buffer_unordered(TABLES)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        let (mut infos, mut rows) = (Vec::new(), Vec::new());
        for (info, table) in tables {
            if let Some(table) = table {
                rows_of(&table, u32::try_from(infos.len()).unwrap_or(u32::MAX), &mut rows);
                infos.push(info);
            }
        }
        let made = Segment::open(&encode(&infos, rows));
        segments.push(made.map_err(|source| StoreError::Local { action: "index packs", source })?);
        Ok(segments)
    }

    async fn view(&self, is_fresh: bool) -> Result<Arc<View>, StoreError> {
        let mut kept = self.view.lock().await;
        match &*kept {
            Some(view) if !is_fresh => Ok(Arc::clone(view)),
            Some(_) | None => {
                let view = Arc::new(View::load(&*self.objects, &self.cache).await?);
                *kept = Some(Arc::clone(&view));
                Ok(view)
            }
        }
    }

    /// Reads chunks in the order of `refs`, several fetches ahead, each verified.
    pub fn in_order(
        self: &Arc<Self>,
        locations: &Locations,
        refs: &[ChunkRef],
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + use<> {
        let batches = batches(locations, refs);
        let fetcher = Arc::clone(self);
        stream::iter(batches)
            .map(move |batch| {
                let fetcher = Arc::clone(&fetcher);
                async move { tokio::spawn(async move { fetcher.read_batch(batch).await }).await }
            })
            .buffered(4)
            .map(|joined| match joined {
                Ok(result) => result,
                Err(stopped) => {
                    Err(StoreError::Local { action: "read chunks", source: io::Error::other(stopped) })
                }
            })
            .map_ok(|chunks| stream::iter(chunks.into_iter().map(Ok)))
            .try_flatten()
    }

    /// Reads one chunk.
    ///
    /// # Errors
    ///
    /// As [`Rescue::chunk`].
    pub async fn chunk(&self, locations: &Locations, id: ChunkId) -> Result<Bytes, StoreError> {
        let chunks = self.read_batch(Batch::of(locations, &[ChunkRef { id, length: 0 }])).await?;
        chunks.into_iter().next().ok_or_else(|| StoreError::Lost { id, store: self.objects.place() })
    }

    async fn read_batch(&self, batch: Batch) -> Result<Vec<Bytes>, StoreError> {
        let mut found: Vec<Option<Bytes>> = vec![None; batch.ids.len()];
        self.read_runs(batch.runs, &mut found).await?;
        let missing = batch.ids.iter().copied().zip(0..).zip(&found).filter(|(_, found)| found.is_none());
        let (runs, _) = self.replan(missing.map(|(wanted, _)| wanted).collect()).await?;
        self.read_runs(runs, &mut found).await?;
        let mut chunks = Vec::with_capacity(found.len());
        let mut rescue = self.rescue();
        for (id, content) in batch.ids.into_iter().zip(found) {
            chunks.push(match content {
                Some(content) => content,
                None => rescue.chunk(id).await?,
            });
        }
        self.fetched_bytes.fetch_add(rescue.take_fetched_bytes(), Ordering::Relaxed);
        Ok(chunks)
    }

    /// Reads runs; what is sound goes to the places that the tags tell.
    async fn read_runs(&self, runs: Vec<Run>, found: &mut [Option<Bytes>]) -> Result<(), StoreError> {
        for run in runs {
            let Some(bytes) = self.fetch(&run).await? else { continue };
            self.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let opened = tokio::task::spawn_blocking(move || {
                let mut opened = Vec::new();
                open_run(&run, &bytes, &mut |chunk, content| {
                    if let Some(content) = content {
                        opened.push((chunk.tag, Bytes::copy_from_slice(content)));
                    }
                    Ok(())
                })?;
                Ok::<_, io::Error>(opened)
            });
            let opened = opened.await.map_err(io::Error::other).and_then(|opened| opened);
            for (tag, content) in
                opened.map_err(|source| StoreError::Local { action: "read chunks", source })?
            {
                if let Some(place) = found.get_mut(tag as usize) {
                    *place = Some(content);
                }
            }
        }
        Ok(())
    }
}

/// A search for chunks that are not where the revision says. It reads the store's index anew at most once.
#[derive(Debug)]
pub struct Rescue<'a> {
    fetcher: &'a Fetcher,
    has_fresh_view: bool,
    /// What no segment that counts names, once it was looked for.
    unnamed: Option<Vec<Segment>>,
    fetched_bytes: u64,
}

impl Rescue<'_> {
    /// Finds a chunk by the index and fetches it. Every copy that the index knows is tried, those in condemned packs last: they may be
    /// all that is left of a removed revision.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer, and with [`StoreError::Lost`] where a view of the store that is younger than this
    /// search has no sound copy.
    pub async fn chunk(&mut self, id: ChunkId) -> Result<Bytes, StoreError> {
        loop {
            let view = self.fetcher.view(false).await?;
            if let Some(chunk) = self.try_places(&view, id).await? {
                return Ok(chunk);
            }
            if self.has_fresh_view {
                return match self.try_unnamed(&view, id).await? {
                    Some(chunk) => Ok(chunk),
                    None => Err(StoreError::Lost { id, store: self.fetcher.objects.place() }),
                };
            }
            self.fetcher.view(true).await?;
            self.has_fresh_view = true;
        }
    }

    /// Returns how many bytes were fetched since this was asked last.
    pub fn take_fetched_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.fetched_bytes)
    }

    async fn try_places(&mut self, view: &View, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        let places = view
            .places(&id)
            .map_err(|source| StoreError::Local { action: "read the cached index", source })?;
        self.try_each(places, id).await
    }

    /// Looks where a writer could not rely on anything: in segments that do not count, and in packs that no segment names, such as
    /// condemned ones whose rows were left out of the index.
    async fn try_unnamed(&mut self, view: &View, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        let reading = |source| StoreError::Local { action: "read the cached index", source };
        let unnamed = match self.unnamed.take() {
            Some(unnamed) => unnamed,
            None => self.fetcher.unnamed(view).await?,
        };
        let mut places = Vec::new();
        for segment in &unnamed {
            for location in segment.find(&id).map_err(reading)? {
                places.extend(segment.packs().get(location.pack as usize).map(|info| (*info, location)));
            }
        }
        self.unnamed = Some(unnamed);
        self.try_each(places, id).await
    }

    async fn try_each(
        &mut self,
        places: Vec<(PackInfo, Location)>,
        id: ChunkId,
    ) -> Result<Option<Bytes>, StoreError> {
        for (info, location) in places {
            let (from, length) = (u64::from(location.frame_offset), u64::from(location.frame_length));
            let stored = self.fetcher.objects.range(&info.pack.key()?, from, length).await?;
            let Some(stored) = stored else { continue };
            self.fetched_bytes += stored.len() as u64;
            let chunk = tokio::task::spawn_blocking(move || open_chunk(&location, &stored, &id)).await;
            if let Ok(Ok(chunk)) = chunk {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

/// Chunks that are read together; the tags are places in `ids`.
#[derive(Debug)]
struct Batch {
    ids: Vec<ChunkId>,
    runs: Vec<Run>,
}

impl Batch {
    fn of(locations: &Locations, refs: &[ChunkRef]) -> Self {
        let ids: Vec<ChunkId> = refs.iter().map(|reference| reference.id).collect();
        let (runs, _unknown) = Fetcher::plan(locations, ids.iter().copied().zip(0..));
        Self { ids, runs }
    }
}

/// Cuts a sequence of references into batches of about [`RUN_BYTES`] of content.
fn batches(locations: &Locations, refs: &[ChunkRef]) -> Vec<Batch> {
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0_u64);
    for (at, reference) in refs.iter().enumerate() {
        // What a hostile manifest says of a chunk may be less than what the pack has.
        let length = locations.get(&reference.id).map_or(0, |location| location.length);
        bytes += u64::from(reference.length.max(length));
        if bytes >= RUN_BYTES {
            batches.push(Batch::of(locations, refs.get(start..=at).unwrap_or_default()));
            (start, bytes) = (at + 1, 0);
        }
    }
    if let Some(rest) = refs.get(start..).filter(|rest| !rest.is_empty()) {
        batches.push(Batch::of(locations, rest));
    }
    batches
}

/// Takes a wanted chunk and its content, which is `None` where it is not what was written.
pub type TakeChunk<'a> = &'a mut dyn FnMut(&WantedChunk, Option<&[u8]>) -> io::Result<()>;

/// Takes a run apart and hands out each wanted chunk: verified, or `None` where it is not what was written.
///
/// # Errors
///
/// Whatever `take` reports, and where zstd cannot get its memory.
pub fn open_run(run: &Run, bytes: &[u8], take: TakeChunk<'_>) -> io::Result<()> {
    let mut reader = FrameReader::new()?;
    for frame in &run.frames {
        let stored = frame.start.checked_add(frame.length).and_then(|end| bytes.get(frame.start..end));
        let content = stored.and_then(|stored| reader.open(frame.codec, stored).ok());
        // A chunk that is wanted several times is verified once.
        let mut last: Option<(ChunkId, bool)> = None;
        for chunk in &frame.chunks {
            let found = content
                .and_then(|content| content.get(chunk.offset..chunk.offset.checked_add(chunk.length)?));
            let is_sound = match last {
                Some((id, is_sound)) if id == chunk.id => is_sound,
                Some(_) | None => found.is_some_and(|found| ChunkId::of(found) == chunk.id),
            };
            last = Some((chunk.id, is_sound));
            take(chunk, found.filter(|_| is_sound))?;
        }
    }
    Ok(())
}

fn open_chunk(location: &Location, stored: &[u8], id: &ChunkId) -> io::Result<Bytes> {
    let mut reader = FrameReader::new()?;
    let content = reader.open(location.codec, stored)?;
    let (from, length) = (location.offset as usize, location.length as usize);
    let chunk = from.checked_add(length).and_then(|end| content.get(from..end));
    match chunk.filter(|chunk| ChunkId::of(chunk) == *id) {
        Some(chunk) => Ok(Bytes::copy_from_slice(chunk)),
        None => Err(broken("a chunk is not what was written")),
    }
}
