//! From entries in order to a manifest in the store: chunks that the last save made are taken over whole, the others are written.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::error::WorkspaceError;
use super::state::{Block, Known, StateWriter};
use crate::base::{ChunkId, RevisionId};
use crate::store::frame::{Frame, FrameBuilder, MAX_CHUNK};
use crate::store::manifest::{MAX, ManifestWriter, content_of};
use crate::store::pack::PackKind;
use crate::store::revision::RevisionCounts;
use crate::store::writer::{ChunkWriter, Claim};
use crate::store::{ChunkRef, Content, Entry, EntryKind, StoreError};

/// Manifests compress well, and are read more often than written.
const ZSTD_LEVEL: i32 = 3;

/// An entry that is done.
#[derive(Debug)]
pub(super) struct Staged {
    /// The entry.
    pub(super) entry: Entry,
    /// What is known of it, with its packs by their numbers in this save; `None` when nothing is, as of a stream's entries.
    pub(super) known: Option<Known>,
    /// The packs that hold its chunks.
    pub(super) packs: Vec<u32>,
    /// Where in the old state it stands unchanged: the block and the place in it.
    pub(super) origin: Option<(Arc<Block>, usize)>,
}

/// What was made of the entries.
#[derive(Debug)]
pub(super) struct Draft {
    /// The manifest.
    pub(super) manifest: Content,
    /// The packs that hold the revision's chunks, by their numbers in this save.
    pub(super) packs: BTreeSet<u32>,
    /// What the entries count.
    pub(super) counts: RevisionCounts,
}

/// Puts entries into the store's manifest chunks.
#[derive(Debug)]
pub(super) struct Stage {
    writer: Arc<ChunkWriter>,
    builder: FrameBuilder,
    manifest: ManifestWriter,
    /// The entries of the chunk that is open.
    open: Vec<Known>,
    /// Unchanged entries of one block of the old state, from its first one on: perhaps all of it is taken over.
    run: Vec<Staged>,
    chunks: Vec<ChunkRef>,
    packs: BTreeSet<u32>,
    counts: RevisionCounts,
    state: Option<StateWriter>,
    is_state_broken: bool,
}

impl Stage {
    /// Begins a manifest; what is known of its entries goes into `state`.
    pub(super) fn new(writer: Arc<ChunkWriter>, state: Option<StateWriter>) -> io::Result<Self> {
        Ok(Self {
            writer,
            builder: FrameBuilder::in_order(ZSTD_LEVEL)?,
            manifest: ManifestWriter::new(),
            open: Vec::new(),
            run: Vec::new(),
            chunks: Vec::new(),
            packs: BTreeSet::new(),
            counts: RevisionCounts::default(),
            state,
            is_state_broken: false,
        })
    }

    /// Returns what was counted so far.
    pub(super) fn counts(&self) -> RevisionCounts {
        self.counts
    }

    /// Takes the next entry.
    pub(super) fn push(&mut self, staged: Staged) -> Result<(), WorkspaceError> {
        self.counts.entries += 1;
        match &staged.entry.kind {
            EntryKind::Directory => self.counts.directories += 1,
            EntryKind::File { size, extents, .. } => {
                let data = extents
                    .as_ref()
                    .map_or(*size, |extents| extents.iter().map(|extent| extent.length).sum());
                self.counts.files += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(*size);
                self.counts.data_bytes = self.counts.data_bytes.saturating_add(data);
            }
            EntryKind::Symlink { .. }
            | EntryKind::HardLink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Socket => {}
        }
        let continues = match (&staged.origin, self.run.last()) {
            (Some((block, at)), Some(last)) => last
                .origin
                .as_ref()
                .is_some_and(|(open, before)| Arc::ptr_eq(open, block) && before + 1 == *at),
            (Some((_, 0)), None) => self.manifest.is_at_cut(),
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        if continues {
            self.run.push(staged);
            return Ok(self.take_over()?);
        }
        self.give_up_run()?;
        if matches!(&staged.origin, Some((_, 0))) && self.manifest.is_at_cut() {
            self.run.push(staged);
            return Ok(self.take_over()?);
        }
        self.write(staged)
    }

    /// Takes the block over when the run has reached its end, and the end was a cut.
    fn take_over(&mut self) -> Result<(), StoreError> {
        let Some((block, at)) = self.run.last().and_then(|last| last.origin.as_ref()) else { return Ok(()) };
        if !block.has_cut || at + 1 != block.entries().len() {
            return Ok(());
        }
        let block = Arc::clone(block);
        self.reuse(&block)
    }

    fn reuse(&mut self, block: &Block) -> Result<(), StoreError> {
        let run = std::mem::take(&mut self.run);
        let known: Option<Vec<Known>> = run.iter().map(|staged| staged.known.clone()).collect();
        for staged in &run {
            self.packs.extend(&staged.packs);
        }
        let number = self.store(block.chunk.id, &block.bytes)?;
        self.packs.insert(number);
        self.chunks.push(block.chunk);
        self.note(block.chunk, &block.bytes, block.has_cut, known.as_deref());
        Ok(())
    }

    fn give_up_run(&mut self) -> Result<(), WorkspaceError> {
        for staged in std::mem::take(&mut self.run) {
            self.write(staged)?;
        }
        Ok(())
    }

    fn write(&mut self, staged: Staged) -> Result<(), WorkspaceError> {
        self.packs.extend(&staged.packs);
        match staged.known {
            Some(known) => self.open.push(known),
            None => self.is_state_broken = true,
        }
        match self.manifest.push(&staged.entry) {
            // An entry ends the chunk that it makes too long.
            Some(bytes) if bytes.len() > MAX_CHUNK => Err(WorkspaceError::Entry {
                action: "save",
                path: staged.entry.path,
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("its attributes and holes take more than {} bytes", MAX_CHUNK - MAX),
                ),
            }),
            Some(bytes) => Ok(self.close(&bytes, true)?),
            None => Ok(()),
        }
    }

    fn close(&mut self, bytes: &[u8], has_cut: bool) -> Result<(), StoreError> {
        let chunk = self.list(bytes)?;
        self.chunks.push(chunk);
        let known = std::mem::take(&mut self.open);
        self.note(chunk, bytes, has_cut, Some(&known));
        Ok(())
    }

    /// A state that cannot be written is given up: it only saves time.
    fn note(&mut self, chunk: ChunkRef, bytes: &[u8], has_cut: bool, known: Option<&[Known]>) {
        let written = match (&mut self.state, known) {
            (Some(state), Some(known)) => state.push(chunk, bytes, has_cut, known).is_ok(),
            (Some(_), None) => false,
            (None, _) => true,
        };
        self.is_state_broken |= !written;
    }

    /// Stores the bytes of a manifest chunk, or of a list, and counts its pack in; returns the reference.
    pub(super) fn list(&mut self, bytes: &[u8]) -> Result<ChunkRef, StoreError> {
        let id = ChunkId::of(bytes);
        let number = self.store(id, bytes)?;
        self.packs.insert(number);
        Ok(ChunkRef { id, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) })
    }

    /// Makes a content of references; returns it with the packs of the lists that it took.
    pub(super) fn content(&mut self, refs: Vec<ChunkRef>) -> Result<(Content, Vec<u32>), StoreError> {
        let mut packs = Vec::new();
        let content = content_of(refs, &mut |bytes: Vec<u8>| {
            let id = ChunkId::of(&bytes);
            packs.push(self.store(id, &bytes)?);
            Ok::<_, StoreError>(ChunkRef { id, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) })
        })?;
        Ok((content, packs))
    }

    /// Stores a chunk of the manifest; returns the number of its pack. Only this stage appends to packs of the manifest, and one frame
    /// is open at most, so the pack that is open now is the one that the frame will go into.
    fn store(&mut self, id: ChunkId, bytes: &[u8]) -> Result<u32, StoreError> {
        match self.writer.claim(&id)? {
            Claim::Stored(number) => return Ok(number),
            // Nobody but this stage claims such chunks, unless a file holds the very bytes; then they are stored twice.
            Claim::Pending | Claim::Mine => {}
        }
        let mut frames = Vec::new();
        let compressing = |source| StoreError::Local { action: "compress the manifest", source };
        self.builder.add(id, bytes, &mut |frame| frames.push(frame)).map_err(compressing)?;
        self.append(frames)?;
        let number = self.writer.open_pack(PackKind::Meta)?;
        self.writer.settle(id, number);
        Ok(number)
    }

    fn append(&self, frames: Vec<Frame>) -> Result<(), StoreError> {
        for frame in frames {
            self.writer.append(PackKind::Meta, frame)?;
        }
        Ok(())
    }

    /// Ends the manifest. The state is returned apart: it takes its place once the revision is acknowledged.
    pub(super) fn finish(mut self) -> Result<(Draft, Option<StateWriter>), WorkspaceError> {
        match self.run.last().and_then(|last| last.origin.clone()) {
            Some((block, at)) if at + 1 == block.entries().len() => self.reuse(&block)?,
            Some(_) | None => {
                self.give_up_run()?;
            }
        }
        if let Some(bytes) = self.manifest.finish() {
            self.close(&bytes, false)?;
        }
        let chunks = std::mem::take(&mut self.chunks);
        let (manifest, packs) = self.content(chunks)?;
        self.packs.extend(packs);
        let mut frames = Vec::new();
        let compressing = |source| StoreError::Local { action: "compress the manifest", source };
        self.builder.finish(&mut |frame| frames.push(frame)).map_err(compressing)?;
        self.append(frames)?;
        let state = self.state.filter(|_| !self.is_state_broken);
        Ok((Draft { manifest, packs: self.packs, counts: self.counts }, state))
    }
}

/// Ends a state after its revision was acknowledged. A state that cannot be written only costs time later.
pub(super) fn finish_state(state: Option<StateWriter>, writer: &ChunkWriter, revision: RevisionId) {
    if let Some(state) = state {
        let infos: Option<Vec<_>> = (0..writer.pack_count()).map(|number| writer.info(number)).collect();
        let _written = infos.is_some_and(|infos| state.finish(revision, &infos).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify as _, ErrorKind};
    use crate::store::pack::PackTable;
    use crate::store::session::Session;
    use crate::store::{Attributes, EntryPath, Extent};
    use crate::workspace::tests::Place;

    /// The error once named neither the entry nor what was wrong with it.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_that_is_too_large_for_a_manifest_is_refused_by_name() {
        let place = Place::new();
        let session = Session::open(Arc::clone(&place.depot.objects), "save").await.unwrap();
        let view = session.view(&place.depot.index_cache()).await.unwrap();
        let mut stage = Stage::new(Arc::new(ChunkWriter::new(&session, view, None)), None).unwrap();
        let extents = (0..3_000_000).map(|at| Extent { offset: at << 20, length: 1 }).collect();
        let kind =
            EntryKind::File { size: 3_000_000 << 20, content: Content::default(), extents: Some(extents) };
        let path = EntryPath::new(b"holes".as_slice()).unwrap();
        let entry = Entry { path, kind, attributes: Attributes::default() };
        let pushed = stage.push(Staged { entry, known: None, packs: Vec::new(), origin: None });
        let error = pushed.unwrap_err();
        assert!(error.to_string().contains("`holes`"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        session.abandon().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_chunk_of_a_manifest_lies_in_the_pack_that_it_was_said_to() {
        let place = Place::new();
        let session = Session::open(Arc::clone(&place.depot.objects), "save").await.unwrap();
        let view = session.view(&place.depot.index_cache()).await.unwrap();
        let writer = Arc::new(ChunkWriter::new(&session, view, None));
        let making = Arc::clone(&writer);
        let said = tokio::task::spawn_blocking(move || {
            let mut stage = Stage::new(Arc::clone(&making), None).unwrap();
            let mut random = fastrand::Rng::with_seed(3);
            let mut said = Vec::new();
            // Lists of chunks do not compress, and what lies between them does, to more than a pack.
            for round in 0..3 {
                let list: Vec<u8> = (0..8 << 10).map(|_| random.u8(..)).collect();
                said.push((ChunkId::of(&list), stage.store(ChunkId::of(&list), &list).unwrap()));
                for _ in 0..if round == 2 { 0 } else { 200 } {
                    let digits: Vec<u8> =
                        (0..64 << 10).map(|_| b"0123456789abcdef"[random.usize(..16)]).collect();
                    said.push((ChunkId::of(&digits), stage.store(ChunkId::of(&digits), &digits).unwrap()));
                }
            }
            let (draft, _) = stage.finish().unwrap();
            assert!(said.iter().map(|(_, number)| number).collect::<BTreeSet<_>>().len() > 1);
            (said, draft)
        });
        let (said, _draft) = said.await.unwrap();
        writer.flush().await.unwrap();
        for (id, number) in said {
            let info = writer.info(number).unwrap();
            let pack = place.depot.objects.get(&info.pack.key().unwrap()).await.unwrap().unwrap();
            let tail = pack.len() - info.table_length as usize - 48;
            let table = PackTable::parse(&pack[tail..]).unwrap();
            let is_there = table.frames.iter().flat_map(|frame| &frame.chunks).any(|(there, _)| *there == id);
            assert!(is_there, "{id} is not in pack {number}");
        }
        session.abandon().await;
    }
}
