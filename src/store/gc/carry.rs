//! Copying needed chunks out of packs that are to go: read, verified, and written to new packs of the collector's own session.
//!
//! A frame of which every chunk is needed goes over as it is; of others the needed chunks are compressed anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::error::GcError;
use super::event::GcEvent;
use super::ledger::{Ledger, Standing};
use super::marks::{Marks, Place};
use crate::base::{ChunkId, Sink};
use crate::store::StoreError;
use crate::store::fetch::{Fetcher, Locations, Run};
use crate::store::frame::{Frame, FrameBuilder, FrameReader};
use crate::store::pack::PackKind;
use crate::store::writer::ChunkWriter;

/// What frames are compressed with that cannot go over as they are. They stay for long, and few bytes come here.
const ZSTD_LEVEL: i32 = 3;
/// Rows that are held at once.
const GROUP_ROWS: u64 = 256 << 10;
/// Runs that are fetched ahead.
const AHEAD: usize = 3;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Chunks that were copied.
    pub(super) chunks: u64,
    /// Their bytes, before compression.
    pub(super) raw_bytes: u64,
    /// Packs that hold a needed chunk that could not be copied: they must stay.
    pub(super) stuck: BTreeSet<u32>,
    /// The first of those chunks.
    pub(super) lost: Vec<ChunkId>,
}

/// A chunk to be copied.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    id: ChunkId,
    place: Place,
}

/// Copies every needed chunk of the packs in `doomed` that has no place elsewhere to rely on.
pub(super) async fn carry(
    fetcher: &Arc<Fetcher>,
    writer: &Arc<ChunkWriter>,
    marks: &Marks,
    ledger: &Ledger,
    doomed: &BTreeSet<u32>,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
) -> Result<Carried, GcError> {
    let mut carried = Carried::default();
    let live = |pack: &u32| ledger.get(*pack).map_or(0, |pack| pack.live_chunks);
    let of_bytes = doomed.iter().filter_map(|pack| ledger.get(*pack)).map(|pack| pack.live_raw_bytes).sum();
    let mut group = BTreeSet::new();
    let mut rows = 0;
    let mut groups = Vec::new();
    for pack in doomed.iter().filter(|pack| live(pack) > 0) {
        rows += live(pack);
        group.insert(*pack);
        if rows >= GROUP_ROWS {
            groups.push(std::mem::take(&mut group));
            rows = 0;
        }
    }
    groups.push(group);
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        for kind in [PackKind::Data, PackKind::Meta] {
            let is_asked = |pack: u32| {
                group.contains(&pack) && ledger.get(pack).is_some_and(|pack| pack.info.pack.kind == kind)
            };
            let (wanted, whole) = choose(marks, ledger, doomed, &is_asked)?;
            let mut copying = Copying { kind, fetcher, writer, ledger, carried: &mut carried, builder: None };
            copying.copy(wanted, &whole, of_bytes, sink, cancel).await?;
        }
    }
    Ok(carried)
}

/// The frames, by pack and offset, whose chunks are all to be copied.
type WholeFrames = HashSet<(u32, u32)>;

/// Chooses what has to be copied.
fn choose(
    marks: &Marks,
    ledger: &Ledger,
    doomed: &BTreeSet<u32>,
    is_asked: &dyn Fn(u32) -> bool,
) -> Result<(Vec<Wanted>, WholeFrames), GcError> {
    let reading = |source| StoreError::Local { action: "read the cached index", source };
    let (mut wanted, mut partly) = (Vec::new(), HashSet::new());
    marks
        .rows_of(is_asked, &mut |id, place, is_live| {
            if is_live {
                wanted.push(Wanted { id, place });
            } else {
                partly.insert((place.pack, place.location.frame_offset));
            }
        })
        .map_err(reading)?;
    let mut kept = Vec::with_capacity(wanted.len());
    for chunk in wanted {
        // Another place may have been passed over only because this one was met first.
        let places = marks.places(&chunk.id).map_err(reading)?;
        let is_elsewhere = places
            .iter()
            .any(|place| !doomed.contains(&place.pack) && ledger.standing(place.pack) == Standing::Sound);
        if is_elsewhere {
            partly.insert((chunk.place.pack, chunk.place.location.frame_offset));
        } else {
            kept.push(chunk);
        }
    }
    let whole = kept.iter().map(|chunk| (chunk.place.pack, chunk.place.location.frame_offset));
    let whole = whole.filter(|frame| !partly.contains(frame)).collect();
    Ok((kept, whole))
}

struct Copying<'a> {
    kind: PackKind,
    fetcher: &'a Arc<Fetcher>,
    writer: &'a Arc<ChunkWriter>,
    ledger: &'a Ledger,
    carried: &'a mut Carried,
    builder: Option<FrameBuilder>,
}

impl Copying<'_> {
    async fn copy(
        &mut self,
        wanted: Vec<Wanted>,
        whole: &WholeFrames,
        of_bytes: u64,
        sink: &dyn Sink<GcEvent>,
        cancel: &CancellationToken,
    ) -> Result<(), GcError> {
        let pack_of: BTreeMap<ChunkId, u32> =
            wanted.iter().map(|chunk| (chunk.id, chunk.place.pack)).collect();
        let locations = Locations::of(wanted.iter().filter_map(|Wanted { id, place }| {
            Some((*id, self.ledger.get(place.pack)?.info.pack, place.location))
        }));
        let (runs, _) = Fetcher::plan(&locations, wanted.iter().map(|chunk| (chunk.id, 0)));
        drop(wanted);
        let fetcher = Arc::clone(self.fetcher);
        let mut fetched = stream::iter(runs)
            .map(|run| {
                let fetcher = Arc::clone(&fetcher);
                async move {
                    let bytes = fetcher.fetch(&run).await?;
                    Ok::<_, StoreError>((run, bytes))
                }
            })
            .buffered(AHEAD);
        while let Some((run, bytes)) = fetched.try_next().await? {
            if cancel.is_cancelled() {
                return Err(GcError::Cancelled);
            }
            let wanted = run.frames.iter().flat_map(|frame| &frame.chunks);
            let raw: u64 = wanted.clone().map(|chunk| chunk.length as u64).sum();
            let lost = match bytes {
                Some(bytes) => self.take(run, bytes, whole, &pack_of).await?,
                None => wanted.map(|chunk| chunk.id).collect(),
            };
            for id in lost {
                self.rescue(id, &pack_of).await?;
            }
            self.carried.raw_bytes += raw;
            sink.emit(GcEvent::Copied { bytes: self.carried.raw_bytes, of_bytes });
        }
        let rest = self.builder.take();
        self.append(move || {
            let mut frames = Vec::new();
            if let Some(mut builder) = rest {
                builder.finish(&mut |frame| frames.push(frame))?;
            }
            Ok(((), frames))
        })
        .await
    }

    /// Runs `make` on a thread that may block, and appends the frames that it makes.
    async fn append<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> std::io::Result<(T, Vec<Frame>)> + Send + 'static,
    ) -> Result<T, GcError> {
        let (writer, kind) = (Arc::clone(self.writer), self.kind);
        let work = tokio::task::spawn_blocking(move || {
            let compressing = |source| StoreError::Local { action: "copy chunks", source };
            let (made, frames) = make().map_err(compressing)?;
            for frame in frames {
                writer.append(kind, frame)?;
            }
            Ok::<_, StoreError>(made)
        });
        let stopped = |stopped| StoreError::Local {
            action: "finish a thread's work",
            source: std::io::Error::other(stopped),
        };
        Ok(work.await.map_err(stopped)??)
    }

    /// Copies what is sound of a run; returns the chunks that are not.
    async fn take(
        &mut self,
        run: Run,
        bytes: Bytes,
        whole: &WholeFrames,
        pack_of: &BTreeMap<ChunkId, u32>,
    ) -> Result<Vec<ChunkId>, GcError> {
        let is_whole: Vec<bool> = run
            .frames
            .iter()
            .map(|frame| {
                let pack = frame.chunks.first().and_then(|chunk| pack_of.get(&chunk.id));
                let offset = u32::try_from(run.offset + frame.start as u64).ok();
                pack.zip(offset).is_some_and(|(pack, offset)| whole.contains(&(*pack, offset)))
            })
            .collect();
        let builder = self.builder.take();
        let made = self.append(move || {
            let mut frames = Vec::new();
            let mut builder = match builder {
                Some(builder) => builder,
                None => FrameBuilder::new(ZSTD_LEVEL)?,
            };
            let (mut reader, mut lost) = (FrameReader::new()?, Vec::new());
            for (frame, is_whole) in run.frames.iter().zip(is_whole) {
                let stored =
                    frame.start.checked_add(frame.length).and_then(|end| bytes.get(frame.start..end));
                let content = stored.and_then(|stored| reader.open(frame.codec, stored).ok());
                let sound: Vec<_> = frame
                    .chunks
                    .iter()
                    .filter_map(|chunk| {
                        let found = content
                            .and_then(|content| content.get(chunk.offset..chunk.offset + chunk.length));
                        let found = found.filter(|found| ChunkId::of(found) == chunk.id);
                        if found.is_none() {
                            lost.push(chunk.id);
                        }
                        found.map(|found| (chunk, found))
                    })
                    .collect();
                let all: usize = sound.iter().map(|(chunk, _)| chunk.length).sum();
                match (stored, content) {
                    (Some(stored), Some(content)) if is_whole && all == content.len() => {
                        let length = |length: usize| u32::try_from(length).map_err(std::io::Error::other);
                        let chunks = sound.iter().map(|(chunk, _)| Ok((chunk.id, length(chunk.length)?)));
                        frames.push(Frame {
                            codec: frame.codec,
                            stored: stored.to_vec(),
                            raw_length: length(all)?,
                            chunks: chunks.collect::<std::io::Result<_>>()?,
                        });
                    }
                    _ => {
                        for (chunk, found) in sound {
                            builder.add(chunk.id, found, &mut |frame| frames.push(frame))?;
                        }
                    }
                }
            }
            Ok(((builder, lost, run), frames))
        });
        let (builder, lost, run) = made.await?;
        self.builder = Some(builder);
        let count = run.frames.iter().map(|frame| frame.chunks.len()).sum::<usize>() - lost.len();
        self.carried.chunks += count as u64;
        Ok(lost)
    }

    /// Looks for another copy of a chunk that is not what was written. Where there is none its pack must stay.
    async fn rescue(&mut self, id: ChunkId, pack_of: &BTreeMap<ChunkId, u32>) -> Result<(), GcError> {
        match self.fetcher.rescue().chunk(id).await {
            Ok(content) => {
                let builder = self.builder.take();
                let made = self.append(move || {
                    let mut frames = Vec::new();
                    let mut builder = match builder {
                        Some(builder) => builder,
                        None => FrameBuilder::new(ZSTD_LEVEL)?,
                    };
                    builder.add(id, &content, &mut |frame| frames.push(frame))?;
                    Ok((builder, frames))
                });
                self.builder = Some(made.await?);
                self.carried.chunks += 1;
                Ok(())
            }
            Err(StoreError::Lost { .. } | StoreError::Damaged { .. }) => {
                self.carried.stuck.extend(pack_of.get(&id));
                if self.carried.lost.len() < super::report::NAMED {
                    self.carried.lost.push(id);
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
