//! A revision that is made of another's content without reading files: a copy, or a second try of a save.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::TryStreamExt as _;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::manifest::{ManifestReader, content_refs};
use super::save::blocking;
use crate::base::ChunkId;
use crate::store::frame::FrameBuilder;
use crate::store::pack::{PackInfo, PackKind};
use crate::store::revision::Revision;
use crate::store::session::Session;
use crate::store::writer::{ChunkWriter, Claim};
use crate::store::{ChunkRef, StoreError};

/// Packs that are written again are compressed as a save compresses by default.
const ZSTD_LEVEL: i32 = 1;

/// Makes a revision's packs ones that the session may rely on (protocol, W3): where each of them may be, nothing is read; else every
/// chunk is looked for, and copied out of the old packs where it is nowhere else.
pub(super) async fn rebase(
    depot: &Depot,
    session: &Session,
    revision: Revision,
) -> Result<Revision, WorkspaceError> {
    let view = session.view(&depot.index_cache()).await?;
    if revision.packs.iter().all(|info| view.number_of(&info.pack).is_some()) {
        return Ok(revision);
    }
    let fetcher = depot.fetcher();
    let manifest = ManifestReader::open(&fetcher, &revision).await?;
    let mut chunks: BTreeSet<(PackKind, ChunkId)> =
        manifest.chunks().map(|id| (PackKind::Meta, id)).collect();
    let mut entries = Box::pin(manifest.entries());
    while let Some(entry) = entries.try_next().await? {
        if let crate::store::EntryKind::File { content, .. } = &entry.kind {
            for (is_list, id) in content_refs(&fetcher, manifest.locations(), content).await? {
                chunks.insert((if is_list { PackKind::Meta } else { PackKind::Data }, id));
            }
        }
    }
    drop(entries);
    let locations = fetcher.locate(revision.packs.iter().copied(), |_| true).await?;
    let writer = Arc::new(ChunkWriter::new(session, view, depot.quota_bytes));
    let mut packs = BTreeSet::new();
    let mut missing = Vec::new();
    for (kind, id) in chunks {
        match writer.claim(&id)? {
            Claim::Stored(number) => {
                packs.insert(number);
            }
            Claim::Pending | Claim::Mine => missing.push((kind, id)),
        }
    }
    for kind in [PackKind::Data, PackKind::Meta] {
        let refs: Vec<ChunkRef> = missing
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, id)| ChunkRef {
                id: *id,
                length: locations.get(id).map_or(0, |location| location.length),
            })
            .collect();
        let ids: Vec<ChunkId> = refs.iter().map(|reference| reference.id).collect();
        let mut contents = Box::pin(fetcher.in_order(&locations, &refs));
        let mut batch = Vec::new();
        for id in ids {
            let Some(content) = contents.try_next().await? else { break };
            batch.push((id, content));
            if batch.len() >= 64 {
                packs.extend(write(&writer, kind, std::mem::take(&mut batch)).await?);
            }
        }
        packs.extend(write(&writer, kind, batch).await?);
    }
    writer.flush().await?;
    let infos: Option<Vec<PackInfo>> = packs.into_iter().map(|number| writer.info(number)).collect();
    let packs = infos.ok_or_else(|| StoreError::Local {
        action: "name a pack of this save",
        source: std::io::Error::other("it was not written"),
    })?;
    Ok(Revision { packs, ..revision })
}

async fn write(
    writer: &Arc<ChunkWriter>,
    kind: PackKind,
    batch: Vec<(ChunkId, bytes::Bytes)>,
) -> Result<Vec<u32>, WorkspaceError> {
    let writer = Arc::clone(writer);
    let written = blocking(move || {
        let compressing = |source| StoreError::Local { action: "compress", source };
        let mut builder = FrameBuilder::new(ZSTD_LEVEL).map_err(compressing)?;
        let (mut frames, mut numbers) = (Vec::new(), Vec::new());
        for (id, content) in &batch {
            builder.add(*id, content, &mut |frame| frames.push(frame)).map_err(compressing)?;
        }
        builder.finish(&mut |frame| frames.push(frame)).map_err(compressing)?;
        for frame in frames {
            numbers.push(writer.append(kind, frame)?);
        }
        Ok::<_, StoreError>(numbers)
    });
    Ok(written.await??)
}
