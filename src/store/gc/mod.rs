//! The collector: what nothing names is deleted, beside any number of saves and restores.
//!
//! The protocol, why each of its rules is there, and the model that was explored for it are in `docs/protocol.md`.
//!
//! | file | what it holds |
//! |---|---|
//! | `collect` | a run, from looking to deleting |
//! | `survey` | what there is, and what of it is needed |
//! | `roots` | the revisions that must stay readable |
//! | `reach` | from the revisions to every chunk that they need |
//! | `marks` | one bit for each row of the index |
//! | `ledger` | what is known of each pack |
//! | `plan` | which packs are to go |
//! | `carry` | needed chunks are copied out of packs that are to go |
//! | `quiesce` | waiting for sessions, and evicting dead ones |
//! | `sweep` | deleting packs, rows and lists |
//! | `tally` | how much of what there is is needed |
//! | `repair` | the index made true again, damaged packs condemned |
//! | `report` | what is asked for, planned and done |
//! | `event` | what a run tells |
//! | `error` | why it ends early |

mod carry;
mod collect;
mod error;
mod event;
mod ledger;
mod marks;
mod plan;
mod quiesce;
mod reach;
mod repair;
mod report;
mod roots;
mod survey;
mod sweep;
mod tally;

pub use collect::{collect, plan};
pub use error::GcError;
pub use event::GcEvent;
pub use repair::{RepairReport, RepairSpec, repair};
pub use report::{CondemnedList, GcPlan, GcReport, GcSpec, PackReason, PlannedPack};
pub use tally::{PackState, PackTally, Tally, tally};
