//! The store: chunks in packs, an index over them, manifests of chunks, a record for each revision.
//!
//! | file | what it holds |
//! |---|---|
//! | `format` | `format.json`: the store's id, version and settings |
//! | `chunker` | where contents are cut |
//! | `frame` | chunks that are compressed together |
//! | `pack` | objects of many frames, and their tables |
//! | `segment` | the index: which chunk lies where |
//! | `view` | what a session may rely on |
//! | `session` | how a writer makes itself known, and its commit |
//! | `compact` | many small segments become one |
//! | `gc` | the collector |
//! | `writer` | chunks on their way into packs |
//! | `verify` | a pack from front to back |
//! | `fetch` | chunks on their way out |
//! | `entry` | what a workspace is made of |
//! | `content` | references to chunks |
//! | `manifest` | entries and lists as bytes |
//! | `revision` | the record of a saved state |
//! | `cache` | this host's copies of the index |
//! | `small` | small objects, read whole within a limit |
//! | `wire` | numbers and runs as bytes |
//! | `error` | what can go wrong |
#![doc = include_str!("FORMAT.md")]

pub mod cache;
pub mod chunker;
pub mod compact;
mod content;
mod entry;
mod error;
pub mod fetch;
mod format;
pub mod frame;
pub mod gc;
pub mod manifest;
pub mod pack;
pub mod revision;
pub mod segment;
pub mod session;
pub mod small;
pub mod verify;
pub mod view;
pub mod wire;
pub mod writer;

pub use content::{ChunkRef, Content};
pub use entry::{
    Attributes, Entry, EntryKind, EntryOwner, EntryPath, EntryPathError, Extent, FileTime, Xattr,
};
pub use error::StoreError;
pub use format::{ChunkerFormat, Format, FormatError};
