//! `kiln image …`: images on the engine.
//!
//! | file | what it holds |
//! |---|---|
//! | `command` | the commands, and what each calls |
//! | `layers` | what lies in an image; `page.html` is its page |
//! | `list` | the table of images |
//! | `prune` | what no policy keeps goes |

mod command;
mod layers;
mod list;
mod prune;

pub(super) use command::{ImageCommand, run};
