//! Jobs on snapshots: bake, gate, check, record; then promote, pin, revoke, remove.
//!
//! A bake is `prepare` (only reads and decides: what would be built, under which keys) and `bake` (acts). The transition to
//! `active` is its commit point: before it nobody is offered the snapshot, and what a crash leaves is settled by the next bake.
//!
//! | file | what it holds |
//! |---|---|
//! | `workbench` | what the jobs work with: catalog, engine, store id, state folder |
//! | `spec` | what is asked for |
//! | `event` | what happens meanwhile |
//! | `error` | why it was not done |
//! | `profile` | what providers allow |
//! | `prepare` | template, certificates, base, context, keys |
//! | `checkout` | a git reference becomes a commit and a repository for the context |
//! | `dockerfile` | what a Dockerfile needs of a builder |
//! | `key` | build key and snapshot key |
//! | `decide` | nothing to do, a further place, gate again, or build |
//! | `lock` | one build per engine and host |
//! | `bake` | the journey |
//! | `journal` | the log of a bake, and its heartbeat |
//! | `gate` | sizes, and the search for secrets in the finished image |
//! | `check` | boot as providers boot, then the template's checks |
//! | `inventory` | packages in the image |
//! | `settle` | bakes whose process has died |
//! | `channel` | promote, roll back, history |
//! | `mark` | pin, unpin, touch, expire, revoke |
//! | `verify` | is a snapshot what its record says? |
//! | `ensure` | a name is wanted now |
//! | `export` | the image as a file |
//! | `remove` | drop a snapshot and its image here |
//! | `diff` | what changed between two |

mod bake;
mod channel;
mod check;
mod checkout;
mod decide;
mod diff;
mod dockerfile;
mod ensure;
mod error;
mod event;
mod export;
mod gate;
mod inventory;
mod journal;
mod key;
mod lock;
mod mark;
mod prepare;
mod profile;
mod remove;
mod settle;
mod spec;
#[cfg(test)]
mod tests;
mod verify;
mod workbench;

pub use bake::BakeReport;
pub use checkout::COMPUTED_PARAMETERS;
pub use diff::{Change, SnapshotDiff, diff};
pub use ensure::Standing;
pub use error::BakeError;
pub use event::{BakeEvent, CheckState, LogEntry, Phase, StageEvent};
pub use export::{ExportReport, ExportTarget};
pub use key::BuildInputs;
pub use profile::{ProfileBreach, built_in_profile, built_in_profiles, check_resources};
pub use remove::RemoveReport;
pub use settle::SettleReport;
pub use spec::{BakeSpec, BaseChoice, BuilderChoice, PullPolicy, Sizing};
pub use verify::{Verdict, VerifyReport};
pub use workbench::Workbench;
