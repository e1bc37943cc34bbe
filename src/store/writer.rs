//! Writing chunks: what is there already is only referenced, what is not goes into packs.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::error::StoreError;
use super::frame::Frame;
use super::pack::{DATA_TARGET, META_TARGET, PackInfo, PackKind, PackWriter, SpooledPack};
use super::segment;
use super::session::Session;
use super::view::View;
use crate::base::{ByteSize, ChunkId, Monotonic, SessionId};
use crate::objects::{Key, ObjectStore};

/// Written packs are indexed once there are this many bytes of them …
const INDEX_EVERY_BYTES: u64 = 256 << 20;
/// … or as many chunks lie in them, so that a segment stays small where chunks are tiny …
const INDEX_EVERY_ROWS: usize = 512 << 10;
/// … or the last time is this long ago, so that the next save finds what an interrupted one wrote.
const INDEX_EVERY: Duration = Duration::from_secs(60);
/// Packs that are on their way to the store at the same time; the spool holds one more.
const UPLOADS: usize = 3;
/// A power of two, so that threads seldom wait for each other.
const SHARDS: usize = 64;
/// The claim of a chunk that is not in a pack yet.
const PENDING: u32 = u32::MAX;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The chunk lies in a pack, by its number in this save.
    Stored(u32),
    /// Somebody in this save has claimed it and is about to append it.
    Pending,
    /// The caller has to append it.
    Mine,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// The sum of the lengths of the new chunks of files.
    pub new_bytes: u64,
    /// The sum of the sizes of the new packs and segments.
    pub stored_bytes: u64,
    /// The number of new packs.
    pub packs: u64,
}

/// Writes chunks in a session. Shared by all threads of a save.
#[derive(Debug)]
pub struct ChunkWriter {
    view: Arc<View>,
    claims: Vec<Mutex<HashMap<ChunkId, u32>>>,
    data: Mutex<Option<OpenPack>>,
    meta: Mutex<Option<OpenPack>>,
    infos: Mutex<Vec<Option<PackInfo>>>,
    uploads: Mutex<JoinSet<()>>,
    slots: Arc<Semaphore>,
    runtime: Handle,
    spool: Option<PathBuf>,
    quota: Option<u64>,
    new_bytes: AtomicU64,
    shared: Arc<Shared>,
}

/// What the uploads share.
#[derive(Debug)]
struct Shared {
    objects: Arc<dyn ObjectStore>,
    session: SessionId,
    numbers: AtomicU32,
    unindexed: Mutex<Unindexed>,
    failure: Mutex<Option<StoreError>>,
    stored_bytes: AtomicU64,
    packs: AtomicU64,
}

#[derive(Debug)]
struct Unindexed {
    packs: Vec<SpooledPack>,
    bytes: u64,
    rows: usize,
    since: Monotonic,
}

#[derive(Debug)]
struct OpenPack {
    /// The pack's number in this save.
    number: u32,
    writer: PackWriter,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked while it held the lock has brought the save down already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChunkWriter {
    /// Makes a writer for a session and what it sees. `quota` is how many bytes of packs the store may hold. Has to be called
    /// inside a runtime, whose threads do the uploads.
    #[must_use]
    pub fn new(session: &Session, view: impl Into<Arc<View>>, quota: Option<u64>) -> Self {
        let objects = Arc::clone(session.objects());
        let spool = objects.spool_dir();
        let shared = Shared {
            objects,
            session: session.id(),
            numbers: AtomicU32::new(0),
            unindexed: Mutex::new(Unindexed {
                packs: Vec::new(),
                bytes: 0,
                rows: 0,
                since: Monotonic::start(),
            }),
            failure: Mutex::new(None),
            stored_bytes: AtomicU64::new(0),
            packs: AtomicU64::new(0),
        };
        Self {
            view: view.into(),
            claims: (0..SHARDS).map(|_| Mutex::default()).collect(),
            data: Mutex::new(None),
            meta: Mutex::new(None),
            infos: Mutex::default(),
            uploads: Mutex::default(),
            slots: Arc::new(Semaphore::new(UPLOADS)),
            runtime: Handle::current(),
            spool,
            quota,
            new_bytes: AtomicU64::new(0),
            shared: Arc::new(shared),
        }
    }

    /// Returns what the session sees.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Asks for a chunk: of all that ask for one that is nowhere, exactly one gets [`Claim::Mine`].
    ///
    /// # Errors
    ///
    /// Fails where a cached segment of the index cannot be read.
    pub fn claim(&self, id: &ChunkId) -> Result<Claim, StoreError> {
        let mut claims = self.shard(id);
        if let Some(number) = claims.get(id) {
            return Ok(if *number == PENDING { Claim::Pending } else { Claim::Stored(*number) });
        }
        let found = self
            .view
            .find(id)
            .map_err(|source| StoreError::Local { action: "read the cached index", source })?;
        let number = found.map_or(PENDING, |location| location.pack);
        claims.insert(*id, number);
        Ok(if number == PENDING { Claim::Mine } else { Claim::Stored(number) })
    }

    /// Returns the number of the pack that holds a chunk, once it was claimed and appended.
    #[must_use]
    pub fn number_of(&self, id: &ChunkId) -> Option<u32> {
        self.shard(id).get(id).copied().filter(|number| *number != PENDING)
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, HashMap<ChunkId, u32>> {
        let shard = usize::from(id.as_bytes()[8]) % SHARDS;
        lock(self.claims.get(shard).unwrap_or_else(|| unreachable!("there is a shard for every remainder")))
    }

    /// Appends a frame to the open pack of its kind; returns the pack's number. Blocks while all uploads are busy, so it must
    /// not be called on a thread of the runtime.
    ///
    /// # Errors
    ///
    /// Fails where the pack cannot be written, the quota would be exceeded, or an upload has failed before.
    pub fn append(&self, kind: PackKind, frame: Frame) -> Result<u32, StoreError> {
        if let Some(failure) = lock(&self.shared.failure).take() {
            return Err(failure);
        }
        let (place, target) = match kind {
            PackKind::Data => (&self.data, DATA_TARGET),
            PackKind::Meta => (&self.meta, META_TARGET),
        };
        let mut place = lock(place);
        let open = match &mut *place {
            Some(open) => open,
            empty => empty.insert(self.begin(kind)?),
        };
        let number = open.number;
        for (id, length) in &frame.chunks {
            self.shard(id).insert(*id, number);
            if kind == PackKind::Data {
                self.new_bytes.fetch_add(u64::from(*length), Ordering::Relaxed);
            }
        }
        open.writer.append(frame).map_err(spooling)?;
        if open.writer.size() >= target
            && let Some(full) = place.take()
        {
            drop(place);
            self.upload(full)?;
        }
        Ok(number)
    }

    /// Returns the number of the open pack of a kind, which is begun when there is none. Where one thread alone appends to that
    /// kind, its next frame goes into this pack.
    ///
    /// # Errors
    ///
    /// Fails where a pack cannot be begun.
    pub fn open_pack(&self, kind: PackKind) -> Result<u32, StoreError> {
        let mut place = match kind {
            PackKind::Data => lock(&self.data),
            PackKind::Meta => lock(&self.meta),
        };
        match &*place {
            Some(open) => Ok(open.number),
            None => Ok(place.insert(self.begin(kind)?).number),
        }
    }

    /// Says in advance which pack a claimed chunk goes into.
    pub fn settle(&self, id: ChunkId, number: u32) {
        self.shard(&id).insert(id, number);
    }

    /// Returns how many packs there are numbers for: those of the view and those of this save.
    #[must_use]
    pub fn pack_count(&self) -> u32 {
        u32::try_from(self.view.packs().len() + lock(&self.infos).len()).unwrap_or(u32::MAX)
    }

    fn begin(&self, kind: PackKind) -> Result<OpenPack, StoreError> {
        let writer = PackWriter::begin(kind, self.shared.session, self.spool.as_ref()).map_err(spooling)?;
        let mut infos = lock(&self.infos);
        infos.push(None);
        let own = infos.len() - 1 + self.view.packs().len();
        Ok(OpenPack { number: u32::try_from(own).unwrap_or(PENDING - 1), writer })
    }

    fn upload(&self, open: OpenPack) -> Result<(), StoreError> {
        let written = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let pack = open.writer.finish(self.shared.session, written).map_err(spooling)?;
        let stored = self.shared.stored_bytes.fetch_add(pack.info.size, Ordering::Relaxed) + pack.info.size;
        self.shared.packs.fetch_add(1, Ordering::Relaxed);
        let needed = self.view.stored_bytes() + stored;
        if let Some(quota) = self.quota
            && needed > quota
        {
            let store = self.shared.objects.place();
            return Err(StoreError::Quota { store, needed: ByteSize(needed), quota: ByteSize(quota) });
        }
        let at = open.number as usize - self.view.packs().len();
        if let Some(info) = lock(&self.infos).get_mut(at) {
            *info = Some(pack.info);
        }
        let slots = Arc::clone(&self.slots);
        let permit = self.runtime.block_on(slots.acquire_owned());
        let permit = permit.map_err(|closed| spooling(io::Error::other(closed)))?;
        let shared = Arc::clone(&self.shared);
        lock(&self.uploads).spawn_on(async move { shared.put(pack, permit).await }, &self.runtime);
        Ok(())
    }

    /// Returns a number that no pack or segment of this session has.
    #[must_use]
    pub fn next_number(&self) -> u32 {
        self.shared.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns a pack's name, size and table by its number.
    #[must_use]
    pub fn info(&self, number: u32) -> Option<PackInfo> {
        let number = number as usize;
        match number.checked_sub(self.view.packs().len()) {
            None => self.view.packs().get(number).copied(),
            Some(own) => lock(&self.infos).get(own).copied().flatten(),
        }
    }

    /// Puts what is open, waits for all uploads, and indexes what is not indexed. After this every appended chunk may be
    /// referenced. Where it is dropped, [`ChunkWriter::index_uploaded`] still ends the uploads.
    ///
    /// # Errors
    ///
    /// As [`ChunkWriter::append`].
    pub async fn flush(self: &Arc<Self>) -> Result<Written, StoreError> {
        let sealing = Arc::clone(self);
        let sealed = tokio::task::spawn_blocking(move || sealing.seal()).await;
        sealed.map_err(|stopped| spooling(io::Error::other(stopped)))??;
        while let Some(ended) = poll_fn(|context| lock(&self.uploads).poll_join_next(context)).await {
            ended.map_err(|stopped| spooling(io::Error::other(stopped)))?;
        }
        if let Some(failure) = lock(&self.shared.failure).take() {
            return Err(failure);
        }
        let packs = std::mem::take(&mut lock(&self.shared.unindexed).packs);
        self.shared.index(packs).await?;
        Ok(self.written())
    }

    /// Sends the open packs on their way.
    fn seal(&self) -> Result<(), StoreError> {
        for place in [&self.data, &self.meta] {
            let open = lock(place).take();
            // What was begun and got no frame is no pack.
            if let Some(open) = open.filter(|open| open.writer.has_frames()) {
                self.upload(open)?;
            }
        }
        Ok(())
    }

    /// Stops the uploads and indexes the packs that the store has, for a save that is given up: the next one need not write them again.
    /// What cannot be indexed is garbage. Nothing is indexed after this: it would name packs of a session that has ended.
    pub async fn index_uploaded(&self) {
        let mut uploads = std::mem::take(&mut *lock(&self.uploads));
        uploads.shutdown().await;
        let packs = std::mem::take(&mut lock(&self.shared.unindexed).packs);
        let _indexed = self.shared.index(packs).await.is_ok();
    }

    /// Returns what was written so far.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            new_bytes: self.new_bytes.load(Ordering::Relaxed),
            stored_bytes: self.shared.stored_bytes.load(Ordering::Relaxed),
            packs: self.shared.packs.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    async fn put(&self, pack: SpooledPack, permit: OwnedSemaphorePermit) {
        let result = self.put_and_index(pack).await;
        drop(permit);
        if let Err(error) = result {
            lock(&self.failure).get_or_insert(error);
        }
    }

    async fn put_and_index(&self, pack: SpooledPack) -> Result<(), StoreError> {
        self.objects.put_file(&pack.info.pack.key()?, &pack.path).await?;
        let due = {
            let mut unindexed = lock(&self.unindexed);
            unindexed.bytes += pack.info.size;
            unindexed.rows += pack.table.frames.iter().map(|frame| frame.chunks.len()).sum::<usize>();
            unindexed.packs.push(pack);
            if unindexed.bytes >= INDEX_EVERY_BYTES
                || unindexed.rows >= INDEX_EVERY_ROWS
                || unindexed.since.elapsed() >= INDEX_EVERY
            {
                (unindexed.bytes, unindexed.rows) = (0, 0);
                unindexed.since = Monotonic::start();
                std::mem::take(&mut unindexed.packs)
            } else {
                Vec::new()
            }
        };
        self.index(due).await
    }

    async fn index(&self, packs: Vec<SpooledPack>) -> Result<(), StoreError> {
        if packs.is_empty() {
            return Ok(());
        }
        let bytes = segment::of_packs(&packs);
        drop(packs);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let name = segment::name(self.session, number, &bytes);
        self.stored_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.objects.put(&Key::new(format!("idx/{name}"))?, bytes.into()).await?;
        Ok(())
    }
}

fn spooling(source: io::Error) -> StoreError {
    StoreError::Local { action: "write a pack to its temporary file", source }
}
