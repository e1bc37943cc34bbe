//! The story of a bake on standard error: a live tree, lines, or JSON lines. Also how a kept log is shown.
//!
//! | file | what it holds |
//! |---|---|
//! | `teller` | [`Progress`]: the sink that a job speaks to |
//! | `lines` | events as lines, for files, CI and `snapshot logs` |
//! | `tty` | events as a live tree, for terminals |

mod lines;
mod teller;
mod tty;

pub(super) use lines::{Lines, Telling};
pub(super) use teller::{LogFormat, Progress};
