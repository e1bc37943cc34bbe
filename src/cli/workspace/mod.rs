//! `kiln workspace …`: directory trees become revisions, and revisions become trees.
//!
//! | file | what it holds |
//! |---|---|
//! | `command` | the commands, and the small ones among them |
//! | `save` | a directory or a stream becomes a revision |
//! | `restore` | a revision becomes a directory or a stream |
//! | `update` | what an update of an existing directory answers |
//! | `list` | the tables of workspaces and of revisions |
//! | `show` | what is recorded of a revision |
//! | `files` | the entries of a revision |
//! | `cat` | the bytes of one file |
//! | `diff` | what differs between two revisions |
//! | `remove` | revisions that nobody finds any more |
//! | `prune` | what no policy keeps is removed |
//! | `undo` | removed revisions that are brought back |
//! | `place` | where a tree comes from or goes to |
//! | `view` | what JSON answers look like |

mod cat;
mod command;
mod diff;
mod files;
mod list;
mod place;
mod prune;
mod remove;
mod restore;
mod save;
mod show;
mod undo;
mod update;
mod view;

pub(super) use command::{WorkspaceCommand, run};
