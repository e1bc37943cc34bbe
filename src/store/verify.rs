//! Reading a pack from front to back: every byte counts towards its name, and every chunk is verified.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::error::StoreError;
use super::frame::FrameReader;
use super::pack::{
    PackInfo, PackTable, TRAILER_BYTES, TableFrame, WrittenName, check_header, table_length_of,
};
use crate::base::{ChunkId, Sha256Digest};
use crate::objects::{ObjectStore, ObjectsError};

/// What is fetched at once, in bytes; two of them are in memory for each pack that is read.
const RANGE_BYTES: u64 = 4 << 20;

/// What a pack turned out to be.
#[derive(Debug, Default)]
pub struct PackVerdict {
    /// Its chunks that are what was written.
    pub sound: Vec<ChunkId>,
    /// Its chunks that are not.
    pub damaged: Vec<ChunkId>,
    /// What is wrong beside them, for people: the header, the table, bytes between frames.
    pub faults: Vec<String>,
    /// Whether the table is one of these.
    pub is_table_damaged: bool,
    /// How many bytes were read.
    pub bytes: u64,
}

/// Reads the table of a pack; `None` where the pack is gone, an error inside where it is damaged.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn table_of(
    objects: &dyn ObjectStore,
    info: &PackInfo,
) -> Result<Option<io::Result<PackTable>>, StoreError> {
    let (offset, length) = info.tail();
    let tail = objects.range(&info.pack.key()?, offset, length).await?;
    Ok(tail.map(|tail| PackTable::parse(&tail)))
}

/// Reads the table of a pack of which only the size is known: returns all that is to be known of it, with `None` for a table that is
/// damaged; `None` where the pack is gone.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn find_table(
    objects: &dyn ObjectStore,
    info: PackInfo,
) -> Result<Option<(PackInfo, Option<PackTable>)>, StoreError> {
    let (key, from) = (info.pack.key()?, info.size.saturating_sub(TRAILER_BYTES));
    let Some(tail) = objects.range(&key, from, TRAILER_BYTES).await? else { return Ok(None) };
    let Ok(table_length) = table_length_of(&tail) else { return Ok(Some((info, None))) };
    let info = PackInfo { table_length, ..info };
    let table = table_of(objects, &info).await?;
    Ok(table.map(|table| (info, table.ok())))
}

/// Reads a pack of `size` bytes from front to back; `None` where it is gone. Where its own table is damaged, `table` tells where its
/// chunks lie. `is_going_on` is asked, with the bytes that were read since, whether to go on; `None` as well where it is not.
///
/// # Errors
///
/// Fails where the store does not answer, and where zstd cannot get its memory.
pub async fn verify(
    objects: &Arc<dyn ObjectStore>,
    info: &PackInfo,
    size: u64,
    table: impl FnOnce() -> PackTable,
    is_going_on: impl Fn(u64) -> bool,
) -> Result<Option<PackVerdict>, StoreError> {
    let mut verdict = PackVerdict::default();
    let table = match table_of(&**objects, info).await? {
        None => return Ok(None),
        Some(Ok(table)) => table,
        Some(Err(error)) => {
            verdict.is_table_damaged = true;
            verdict.faults.push(format!("its table: {error}"));
            table()
        }
    };
    let mut frames = table.frames;
    // What a damaged pack is too short for is damaged.
    let behind = frames
        .iter()
        .position(|frame| u64::from(frame.offset) + u64::from(frame.stored_length) > size)
        .unwrap_or(frames.len());
    for frame in frames.drain(behind..) {
        verdict.damaged.extend(frame.chunks.into_iter().map(|(id, _)| id));
    }
    let key = info.pack.key()?;
    let fetch = |range: Range<u64>| -> JoinHandle<Result<Option<Bytes>, ObjectsError>> {
        let (objects, key) = (Arc::clone(objects), key.clone());
        tokio::spawn(async move { objects.range(&key, range.start, range.end - range.start).await })
    };
    let stopped = |stopped| StoreError::Local { action: "read a pack", source: io::Error::other(stopped) };
    let mut parts = parts(frames, size).into_iter().peekable();
    let mut coming = parts.peek().map(|part| fetch(part.range.clone()));
    let mut reading = Reading { hasher: Sha256::new(), verdict };
    while let (Some(part), Some(fetched)) = (parts.next(), coming.take()) {
        let Some(bytes) = fetched.await.map_err(stopped)?? else { return Ok(None) };
        coming = parts.peek().map(|next| fetch(next.range.clone()));
        let read = bytes.len() as u64;
        let work = tokio::task::spawn_blocking(move || reading.take(&part, &bytes));
        reading = work
            .await
            .map_err(stopped)?
            .map_err(|source| StoreError::Local { action: "verify a pack", source })?;
        if !is_going_on(read) {
            return Ok(None);
        }
    }
    let Reading { hasher, mut verdict } = reading;
    let name = info.pack.name;
    let is_named_right = WrittenName::new(name.session, name.number, &Sha256Digest::finish(hasher)) == name;
    if !is_named_right && verdict.faults.is_empty() && verdict.damaged.is_empty() {
        verdict.faults.push("its digest does not match its name".to_owned());
    }
    Ok(Some(verdict))
}

/// A part of a pack that is fetched at once, with the frames that lie in it.
#[derive(Debug)]
struct Part {
    range: Range<u64>,
    frames: Vec<TableFrame>,
}

/// Cuts a pack into parts, from its first byte to its last, between frames.
fn parts(frames: Vec<TableFrame>, size: u64) -> Vec<Part> {
    let mut parts = vec![Part { range: 0..0, frames: Vec::new() }];
    for frame in frames {
        let end = u64::from(frame.offset) + u64::from(frame.stored_length);
        if let Some(open) = parts.last_mut() {
            if open.frames.is_empty() || end - open.range.start <= RANGE_BYTES {
                open.range.end = end;
                open.frames.push(frame);
            } else {
                let start = open.range.end;
                parts.push(Part { range: start..end, frames: vec![frame] });
            }
        }
    }
    // Behind the frames the table lies; of a pack whose frames are not known that is all of it.
    while let Some(end) = parts.last().map(|open| open.range.end).filter(|end| *end < size) {
        parts.push(Part { range: end..size.min(end + RANGE_BYTES), frames: Vec::new() });
    }
    parts.retain(|part| part.range.start < part.range.end);
    parts
}

/// A pack in work.
struct Reading {
    hasher: Sha256,
    verdict: PackVerdict,
}

impl Reading {
    fn take(mut self, part: &Part, bytes: &[u8]) -> io::Result<Self> {
        self.hasher.update(bytes);
        self.verdict.bytes += bytes.len() as u64;
        if part.range.start == 0
            && let Err(error) = check_header(bytes)
        {
            self.verdict.faults.push(format!("its header: {error}"));
        }
        let mut reader = FrameReader::new()?;
        for frame in &part.frames {
            let start = usize::try_from(u64::from(frame.offset).saturating_sub(part.range.start))
                .map_err(io::Error::other)?;
            let stored =
                start.checked_add(frame.stored_length as usize).and_then(|end| bytes.get(start..end));
            let content = stored.and_then(|stored| reader.open(frame.codec, stored).ok());
            let mut offset = 0_usize;
            for (id, length) in &frame.chunks {
                let end = offset.saturating_add(*length as usize);
                let chunk = content.and_then(|content| content.get(offset..end));
                if chunk.is_some_and(|chunk| ChunkId::of(chunk) == *id) {
                    self.verdict.sound.push(*id);
                } else {
                    self.verdict.damaged.push(*id);
                }
                offset = end;
            }
            if content.is_some_and(|content| content.len() != offset) {
                self.verdict.faults.push(format!("the frame at {}: it has another length", frame.offset));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SessionId;
    use crate::objects::SimStore;
    use crate::store::frame::FrameBuilder;
    use crate::store::pack::{PackKind, PackWriter, SpooledPack};

    async fn a_pack() -> (Arc<dyn ObjectStore>, SpooledPack, Bytes) {
        let session = SessionId::generate();
        let mut writer = PackWriter::begin(PackKind::Data, session, None).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut builder = FrameBuilder::new(1).unwrap();
        let mut frames = Vec::new();
        for n in 0..120_u32 {
            let mut chunk = n.to_le_bytes().repeat(2_500);
            if n % 2 == 0 {
                chunk = (0..80_000).map(|_| random.u8(..)).collect();
            }
            builder.add(ChunkId::of(&chunk), &chunk, &mut |frame| frames.push(frame)).unwrap();
        }
        builder.finish(&mut |frame| frames.push(frame)).unwrap();
        for frame in frames {
            writer.append(frame).unwrap();
        }
        let pack = writer.finish(session, 3).unwrap();
        let bytes: Bytes = std::fs::read(&pack.path).unwrap().into();
        let objects: Arc<dyn ObjectStore> = Arc::new(SimStore::new(1));
        (objects, pack, bytes)
    }

    async fn verdict(objects: &Arc<dyn ObjectStore>, pack: &SpooledPack, bytes: Bytes) -> PackVerdict {
        let size = bytes.len() as u64;
        objects.put(&pack.info.pack.key().unwrap(), bytes).await.unwrap();
        verify(objects, &pack.info, size, || pack.table.clone(), |_| true).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_sound_pack_is_read_to_its_last_byte() {
        let (objects, pack, bytes) = a_pack().await;
        let seen = verdict(&objects, &pack, bytes.clone()).await;
        assert_eq!((seen.sound.len(), seen.damaged.len(), seen.bytes), (120, 0, bytes.len() as u64));
        assert_eq!(seen.faults, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_flipped_bit_anywhere_is_seen_and_costs_only_its_frame() {
        let (objects, pack, bytes) = a_pack().await;
        let (tail, _) = pack.info.tail();
        let tail = usize::try_from(tail).unwrap();
        for at in [0, 9, 16, 4_500_000, tail - 1, tail + 50, bytes.len() - 1] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 2;
            let seen = verdict(&objects, &pack, damaged.into()).await;
            assert!(!seen.damaged.is_empty() || !seen.faults.is_empty(), "byte {at}");
            assert_eq!(seen.is_table_damaged, at >= tail, "byte {at}");
            assert_eq!(seen.damaged.is_empty(), !(16..tail).contains(&at), "byte {at}");
            assert_eq!(seen.sound.len() + seen.damaged.len(), 120, "byte {at}");
            assert!(seen.damaged.len() <= 60, "byte {at}");
        }
    }

    #[tokio::test]
    async fn a_pack_that_was_cut_loses_what_lay_behind() {
        let (objects, pack, bytes) = a_pack().await;
        let seen = verdict(&objects, &pack, bytes.slice(..4_400_000)).await;
        assert!(seen.is_table_damaged && !seen.sound.is_empty() && !seen.damaged.is_empty());
        assert_eq!(seen.sound.len() + seen.damaged.len(), 120);
        let empty = verdict(&objects, &pack, Bytes::new()).await;
        assert_eq!((empty.sound.len(), empty.damaged.len()), (0, 120));
    }
}
