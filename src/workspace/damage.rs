//! What can be wrong with a store.

use std::fmt;

use crate::base::ChunkId;
use crate::store::EntryPath;
use crate::store::revision::RevisionRef;

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object; of a lost chunk the record that needs it first.
    pub key: String,
    /// What is wrong with it.
    pub damage: Damage,
    /// More about it, for people.
    pub detail: String,
    /// The revisions that cannot be restored whole because of it.
    pub touches: Vec<Touched>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.damage)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// `format.json` is missing or cannot be understood.
    Format,
    /// A revision's record is not what was written.
    Record,
    /// A segment of the index is not what was written.
    Segment,
    /// A list of condemned packs, or of what a collector adopted, is not what was written.
    Protocol,
    /// A pack that a record or the index names is not there.
    PackMissing,
    /// A pack has another size than the index or a record says.
    PackSize,
    /// The table of a pack is not what was written; its chunks are found by the index.
    PackTable,
    /// Bytes of a pack are not what was written, but none that hold a chunk.
    PackBytes,
    /// Chunks of a pack are not what was written.
    Chunks(Vec<ChunkId>),
    /// Chunks that a revision needs are nowhere.
    Lost(Vec<ChunkId>),
    /// A manifest, or a list of chunks, is what was written and makes no sense.
    Manifest,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "the store's description cannot be used",
            Self::Record => "the record is damaged",
            Self::Segment => "the segment of the index is damaged",
            Self::Protocol => "the list is damaged",
            Self::PackMissing => "the pack is missing",
            Self::PackSize => "the pack has another size",
            Self::PackTable => "the pack's table is damaged",
            Self::PackBytes => "bytes of the pack are damaged",
            Self::Chunks(_) => "chunks of the pack are damaged",
            Self::Lost(_) => "chunks are lost",
            Self::Manifest => "the manifest makes no sense",
        })
    }
}

/// A revision that a problem touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The revision.
    pub revision: RevisionRef,
    /// How many of its files cannot be restored; 0 where it is not known which, because the manifest itself is damaged.
    pub files: u64,
    /// The first of them.
    pub paths: Vec<EntryPath>,
}

/// Something that is no damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Packs that no segment names: of a save that was interrupted, or is running. A collector reclaims them.
    OrphanPacks {
        /// How many.
        count: u64,
        /// Their sizes together.
        bytes: u64,
    },
    /// Sessions that are open: saves that are running, or were interrupted.
    OpenSessions(u64),
    /// Packs that a collector has condemned and not deleted yet.
    CondemnedPacks(u64),
    /// Revisions that were removed and not collected yet.
    RemovedRevisions(u64),
    /// Segments that do not count, because a collector took their session for dead.
    RefusedSegments(u64),
}
