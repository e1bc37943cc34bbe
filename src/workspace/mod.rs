//! Workspaces: directory trees that sandboxes work in, saved as revisions and restored anywhere.
//!
//! | file | what it holds |
//! |---|---|
//! | `depot` | [`Depot`]: the store, and this host's notes on it |
//! | `save` | a directory becomes a revision |
//! | `contents` | files on their way into packs |
//! | `stage` | entries on their way into the manifest |
//! | `state` | what this host remembers of a directory |
//! | `commit` | the record, and another try |
//! | `rebase` | a revision made of another's content |
//! | `manifest` | reading a revision's entries |
//! | `archive` | tar streams in and out |
//! | `restore` | a revision becomes a directory |
//! | `update` | a directory is made equal to a revision |
//! | `fill` | chunks on their way into files |
//! | `remember` | what a restore leaves for the next save |
//! | `stream_in` | an archive becomes a revision |
//! | `stream_out` | a revision becomes an archive |
//! | `find` | how people name revisions |
//! | `list` | the revisions that there are |
//! | `show` | what a record says, and its entries |
//! | `cat` | the content of one file |
//! | `diff` | what differs between two revisions |
//! | `copy` | a revision becomes one of another workspace |
//! | `count` | counting a tree beside its save, for the time left |
//! | `mark` | pins, and when a revision was used |
//! | `remove` | revisions that nobody finds any more |
//! | `undo` | removed revisions that are brought back |
//! | `policy` | which revisions are kept |
//! | `prune` | what no policy keeps is removed |
//! | `stats` | what a store holds, and what of it is needed |
//! | `check` | looking for damage |
//! | `container` | straight from and to containers |
//! | `damage` | what can be wrong with a store |
//! | `tree` | the file system's side: walking, reading and writing a tree |

pub mod archive;
mod cat;
mod check;
mod commit;
mod container;
mod contents;
mod copy;
mod count;
mod damage;
mod depot;
mod diff;
mod error;
mod event;
#[cfg(test)]
mod faults;
mod fill;
mod find;
mod list;
mod manifest;
mod mark;
mod policy;
mod prune;
mod rebase;
mod remember;
mod remove;
mod restore;
mod save;
mod show;
mod stage;
mod state;
mod stats;
mod stream_in;
mod stream_out;
#[cfg(test)]
mod tests;
pub mod tree;
mod undo;
mod update;

pub use cat::cat;
pub use check::{CheckReport, CheckSpec, check};
pub use container::{restore_container, save_container};
pub use copy::{CopyReport, copy};
pub use damage::{Damage, Note, Problem, Touched};
pub use depot::Depot;
pub use diff::{Change, Difference, KindName, Side, diff};
pub use error::WorkspaceError;
pub use event::WorkspaceEvent;
pub use find::{IdPrefix, RevisionReference, find};
pub use list::{ListedRevision, RevisionSummary, WorkspaceSummary, list, summarize};
pub use manifest::ManifestReader;
pub use mark::{Pin, Pins, pin, pins, touch, touched, touches, unpin};
pub use policy::{
    Candidate, CandidateRecord, KeepReason, Period, PolicySet, PrunePolicy, PruneRules, RemoveReason,
    Verdict, decide,
};
pub use prune::{PruneItem, PruneOutcome, PrunePlan, PruneReport, PruneScope, plan_prune, prune};
pub use remove::{Selection, remove};
pub use restore::{RestoreReport, RestoreSpec, restore};
pub use save::{PathNote, PathNotes, SaveReport, SaveSpec, save};
pub use show::{files, show};
pub use stats::{StatsReport, Trend, TrendPoint, WorkspaceStats, stats};
pub use stream_in::save_archive;
pub use stream_out::restore_archive;
pub use undo::{RemovedRevision, UndoReport, find_removed, removed, undo};
pub use update::{UpdateReport, update};
