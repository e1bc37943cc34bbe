//! How much of what there is is needed, pack by pack.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::error::GcError;
use super::event::GcEvent;
use super::ledger::Standing;
use super::roots::Listing;
use super::survey::Surveyor;
use crate::base::Sink;
use crate::objects::ObjectStore;
use crate::store::cache::IndexCache;
use crate::store::pack::PackInfo;
use crate::store::revision::RevisionRef;

/// What a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackState {
    /// The index names it, and nobody condemned it.
    Sound,
    /// Its session is open: what is not needed yet may be in a moment.
    InWork,
    /// No segment of the index names it, and its session has ended.
    Orphan,
    /// A collector condemned it: it is deleted after the grace.
    Condemned,
}

/// A pack that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackTally {
    /// The pack.
    pub info: PackInfo,
    /// What it is.
    pub state: PackState,
    /// How many of its chunks are needed.
    pub live_chunks: u64,
    /// Their bytes before compression.
    pub live_raw_bytes: u64,
    /// About how many of the pack's bytes that is: as large a share as of its chunks' bytes before compression.
    pub live_bytes: u64,
}

/// What there is, and how much of it is needed.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The packs that are there.
    pub packs: Vec<PackTally>,
    /// How many revisions need something.
    pub revisions: u64,
    /// How many were removed and are not forgotten yet. What only they need counts as not needed.
    pub removed: u64,
    /// Sessions that are open.
    pub open_sessions: u64,
    /// Segments of the index.
    pub segments: u64,
    /// Distinct chunks of manifests that were read for this.
    pub manifest_chunks: u64,
    /// How many needed chunks no pack has.
    pub lost_chunks: u64,
}

/// Looks at the store and tells how much of each pack the revisions that nobody removed need, but for those that are `left_out`. Changes nothing, opens no session, and may
/// run beside anything; what is saved or collected meanwhile may be seen or not. The memory is as of [`super::plan()`].
///
/// # Errors
///
/// As [`super::plan()`].
pub async fn tally(
    objects: &Arc<dyn ObjectStore>,
    cache: &IndexCache,
    left_out: &BTreeSet<RevisionRef>,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
) -> Result<Tally, GcError> {
    sink.emit(GcEvent::Step { name: "marking" });
    let roots = |listing: &Listing, left_out: &BTreeSet<RevisionRef>| {
        listing.kept().into_iter().filter(|revision| !left_out.contains(revision)).collect()
    };
    let surveyor = Surveyor { objects, cache, sink, cancel };
    let survey = surveyor.survey(None, |listing| roots(listing, left_out)).await?;
    let packs = survey.ledger.packs().filter_map(|(_, pack)| {
        let is_open = survey.open.contains(&pack.info.pack.name.session);
        let state = match pack.standing {
            Standing::Gone => return None,
            Standing::Condemned => PackState::Condemned,
            Standing::Sound | Standing::Unindexed if is_open => PackState::InWork,
            Standing::Sound => PackState::Sound,
            Standing::Unindexed => PackState::Orphan,
        };
        Some(PackTally {
            info: pack.info,
            state,
            live_chunks: pack.live_chunks,
            live_raw_bytes: pack.live_raw_bytes,
            live_bytes: pack.live_bytes(),
        })
    });
    let is_removed = |revision: &&RevisionRef| {
        survey.listing.removed.contains_key(&(revision.workspace.clone(), revision.id))
    };
    Ok(Tally {
        packs: packs.collect(),
        revisions: survey.revisions,
        removed: survey.listing.revisions.iter().filter(is_removed).count() as u64,
        open_sessions: survey.open.len() as u64,
        segments: survey.view.segments().count() as u64,
        manifest_chunks: survey.manifest_chunks,
        lost_chunks: survey.lost.1,
    })
}
