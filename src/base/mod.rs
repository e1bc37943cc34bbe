//! The ground floor: values and rules that know nothing of engines, stores or templates.

mod clock;
pub mod config;
mod error;
mod event;
pub mod fs;
mod host;
mod id;
mod lock;
mod pattern;
#[cfg(test)]
mod rehearsal;
mod size;

pub use clock::{Monotonic, now, uptime};
pub use error::{Classify, ErrorKind, chain};
pub use event::{Discard, Sink};
pub use host::{Liveness, Owner};
pub use id::{
    BuildKey, ChannelName, ChunkId, EngineId, IdError, ImageId, RevisionId, SessionId, Sha256Digest,
    SnapshotId, SnapshotKey, SnapshotName, StoreId, WorkspaceName,
};
pub use lock::HostLock;
pub use pattern::{LabelPattern, NamePattern};
#[cfg(test)]
pub(crate) use rehearsal::Rehearsal;
pub use size::{ByteSize, Length, SizeError, human_duration};
