//! What a collection is asked for, what it plans and what it did.

use std::time::Duration;

use crate::base::ChunkId;
use crate::store::pack::PackName;
use crate::store::revision::RevisionRef;

/// Lost chunks that are named; the rest are only counted.
pub(super) const NAMED: usize = 20;

/// How to collect.
#[derive(Debug, Clone)]
pub struct GcSpec {
    /// How long condemned bytes and removed revisions stay. They can be brought back until then; safety does not rest on it.
    pub grace: Duration,
    /// How long the lists of packs that are deleted stay, and the tombstones of revisions that are: against writes that a server
    /// applies long after their writers gave them up. Counts from the condemnation, or the removal.
    pub keep_lists: Duration,
    /// How long the counter of a session stands still, by this process's clock, before it is taken for dead.
    pub evict_after: Duration,
    /// How long to wait for sessions that live, before deleting is left to the next run; `None` for as long as it takes.
    pub wait: Option<Duration>,
    /// Most bytes of packs that are copied because half of them is garbage; `None` for any number.
    pub max_repack: Option<u64>,
    /// How many of a hundred stored bytes may be garbage that shares a pack with what is needed, before such packs are rewritten.
    pub max_dead_percent: f64,
}

impl Default for GcSpec {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(24),
            keep_lists: Duration::from_hours(7 * 24),
            evict_after: Duration::from_secs(60),
            wait: Some(Duration::from_hours(1)),
            max_repack: None,
            max_dead_percent: 3.0,
        }
    }
}

/// Why a pack is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackReason {
    /// No revision needs a chunk of it.
    Unreferenced,
    /// Its writer ended before it was indexed, or was taken for dead.
    Orphan,
    /// So much of it is garbage that the rest is moved.
    HalfDead,
    /// There are many packs that are this small.
    Small,
}

/// A pack that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPack {
    /// The pack.
    pub pack: PackName,
    /// Why.
    pub reason: PackReason,
    /// Its size in bytes.
    pub bytes: u64,
    /// About how many of them are moved first, because somebody needs them.
    pub live_bytes: u64,
}

/// Packs that an earlier run, or this one, condemned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CondemnedList {
    /// The key of the list.
    pub key: String,
    /// When they were condemned, by the clock of that run.
    pub condemned: jiff::Timestamp,
    /// Whether the grace is over.
    pub is_due: bool,
    /// How many of the packs are still there.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a collection would do.
#[derive(Debug, Clone, Default)]
pub struct GcPlan {
    /// How many revisions need something.
    pub revisions: u64,
    /// Distinct chunks of manifests that were read for this.
    pub manifest_chunks: u64,
    /// Distinct chunks that are needed, those of manifests included.
    pub chunks: u64,
    /// The bytes of all packs.
    pub stored_bytes: u64,
    /// About how many of them nobody needs, and are not condemned yet.
    pub dead_bytes: u64,
    /// About how many of these stay, because they share packs with what is needed.
    pub left_bytes: u64,
    /// Packs that are condemned by this run, those with the most to gain first.
    pub condemn: Vec<PlannedPack>,
    /// Packs that are condemned already.
    pub lists: Vec<CondemnedList>,
    /// Revisions that were removed longer than the grace ago.
    pub expired: Vec<RevisionRef>,
    /// Sessions that are open.
    pub open_sessions: u64,
    /// Segments of the index.
    pub segments: u64,
    /// Needed chunks that no pack has: the first of them, and how many there are.
    pub lost: (Vec<ChunkId>, u64),
}

/// What a collection did.
#[derive(Debug, Clone, Default)]
pub struct GcReport {
    /// What it planned to do.
    pub plan: GcPlan,
    /// Packs that it condemned, and their bytes.
    pub condemned: (u64, u64),
    /// Chunks that it moved, and their bytes before compression.
    pub moved: (u64, u64),
    /// Bytes of the packs and segments that it wrote for that.
    pub written_bytes: u64,
    /// Packs that it deleted, and their bytes.
    pub deleted: (u64, u64),
    /// Revisions whose records it deleted.
    pub forgotten: u64,
    /// Sessions that it took for dead.
    pub evicted: u64,
    /// Segments of the index that it put together, and how many came of them.
    pub rewritten_segments: (u64, u64),
    /// Sessions that lived on for so long that deleting is left to the next run; 0 where nothing had to wait.
    pub still_open: u64,
    /// Packs that stay because a chunk that is needed cannot be read.
    pub stuck: Vec<PackName>,
    /// The first of those chunks, and of those that no pack has.
    pub lost: Vec<ChunkId>,
    /// Files that killed saves left behind, and their bytes.
    pub swept: (u64, u64),
    /// How long it took.
    pub took: Duration,
}
