//! Images on an engine: what is there and whose, which go by a policy, and that they go as was shown; and what lies in them.
//!
//! `inventory` looks, `policy` decides and touches nothing, `prune` does what the plan says. Only images that carry this store's
//! label are ever touched, always by their reference, never by force.
//!
//! | file | what it holds |
//! |---|---|
//! | `inventory` | what an engine and a store hold at one instant: plain values |
//! | `layers` | the layers of images, and what is freed when images go |
//! | `watched` | since when somebody has watched an engine |
//! | `policy` | which images go, and why; pure |
//! | `pressure` | the least recently used, until there is room |
//! | `cache` | which records of the build cache go |
//! | `plan` | what was decided, as it is shown, saved and applied |
//! | `prune` | a plan becomes true |
//! | `audit` | one line for each item that was touched |
//! | `contents` | the layers of an image, what they waste and what weighs in it |
//! | `error` | why it did not work |

mod audit;
mod cache;
pub mod contents;
mod error;
mod inventory;
mod layers;
mod plan;
mod policy;
mod pressure;
mod prune;
#[cfg(test)]
mod tests;
mod watched;

pub use error::ImageError;
pub use inventory::{Hold, ImageFacts, Inventory, Item, SnapshotFacts, Use, Whose};
pub use layers::{Freed, Layer, LayerId, Ledger};
pub use plan::{Action, Plan, PlanItem, Seen, Subject, Totals};
pub use policy::{Guard, ImagePolicy, Keep, Rule, decide};
pub use prune::{ImageBench, PruneEvent, PruneOutcome, PruneReport};
pub use watched::WatchNote;
