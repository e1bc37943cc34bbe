//! What a run of bytes is made of: references to chunks, or to lists of references where there are many.

use crate::base::ChunkId;

/// One chunk of a content, or one list of such references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The chunk.
    pub id: ChunkId,
    /// The chunk's own length in bytes: at a level above 0 that of the list, not of what the list leads to.
    pub length: u32,
}

/// A run of bytes as a tree of chunks. At level 0 the references are the chunks of the bytes, in order; at level n they are
/// chunks that hold lists of references of level n − 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Content {
    /// How many lists lie between this and the bytes.
    pub level: u8,
    /// The references, in order.
    pub refs: Vec<ChunkRef>,
}

impl Content {
    /// The highest level that a reader accepts: at 16 KiB a list, more than any file can hold.
    pub const MAX_LEVEL: u8 = 6;
}
