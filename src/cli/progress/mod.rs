//! The story of a job on standard error: live, as lines, or as JSON lines. Also how a kept log is shown.
//!
//! | file | what it holds |
//! |---|---|
//! | `teller` | [`Progress`]: the sink that a job speaks to |
//! | `lines` | events as lines, for files, CI and `snapshot logs` |
//! | `tty` | events as a live tree, for terminals |
//! | `story` | [`Story`]: what can be told, and in which forms |
//! | `transfer_lines` | saves and restores as lines |
//! | `transfer_bar` | saves and restores as one live line |
//! | `collection` | collections as lines, and as one live line |
//! | `pruning` | prunes of images as lines, and as one live line |
//! | `pace` | how far a transfer is, how fast, how long still |

mod collection;
mod lines;
mod pace;
mod pruning;
mod story;
mod teller;
mod transfer_bar;
mod transfer_lines;
mod tty;

pub(super) use lines::{Lines, Telling};
pub(super) use story::Story;
pub(super) use teller::{LogFormat, Progress};
