//! `kiln store …`: making a store, and looking at what it does and holds.
//!
//! | file | what it holds |
//! |---|---|
//! | `command` | the commands, and `init` |
//! | `check` | looking for damage |
//! | `repair` | the index made true again |
//! | `stats` | what it holds, and what of it is needed |
//! | `probe` | what a store really does |

mod check;
mod command;
mod probe;
mod repair;
mod stats;

pub(super) use command::{StoreCommand, run};
