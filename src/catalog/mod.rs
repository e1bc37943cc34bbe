//! Records of snapshots, places, channels and marks: create-only, versioned, the newest found by (sequence, ULID).
//!
//! `FORMAT.md` lists the keys and the order of writes. Nothing here knows an engine; presence is an observation that the jobs
//! above make and that is recorded as a place.
//!
//! | file | what it holds |
//! |---|---|
//! | `record` | what is stored, as it is stored |
//! | `state` | which state a snapshot is in: a fold over its transitions |
//! | `snapshots` | [`Catalog`]: making, finding and listing snapshots |
//! | `channel` | channels and their moves |
//! | `mark` | pins, expiry and last use |
//! | `reference` | how people name snapshots: `name`, `name@id`, `name:channel`, id |
//! | `log` | build logs: segments while a build runs, one object afterwards |

#![doc = include_str!("FORMAT.md")]

mod channel;
mod error;
mod log;
mod mark;
mod record;
mod reference;
mod snapshots;
mod state;
#[cfg(test)]
mod tests;

pub use channel::{ChannelMove, Way, held, lost};
pub use error::CatalogError;
pub use log::{LogReader, LogWriter};
pub use mark::{Mark, MarkEntry, Marks};
pub use record::*;
pub use reference::SnapshotRef;
pub use snapshots::{Catalog, Snapshot};
pub use state::{State, StateEntry, fold};
