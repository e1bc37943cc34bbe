//! `kiln snapshot`: records of what was baked.
//!
//! | file | what it holds |
//! |---|---|
//! | `command` | the commands and what each calls |
//! | `list` | the table of snapshots |
//! | `show` | one snapshot on one screen |
//! | `logs` | a kept log, also while it grows |
//! | `diff` | what changed between two |
//! | `verify` | whether snapshots are what their records say |
//! | `ensure` | a name that is wanted now |
//! | `export` | the image as a file or a stream |

mod command;
mod diff;
mod ensure;
mod export;
mod list;
mod logs;
mod show;
mod verify;

pub(super) use command::{SnapshotCommand, channels_of_name, painted_state, run};
