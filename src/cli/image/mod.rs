//! `kiln image`: images on an engine.
//!
//! | file | what it holds |
//! |---|---|
//! | `command` | the commands and what each calls |
//! | `layers` | what lies in an image; `page.html` is its page |

mod command;
mod layers;

pub(super) use command::{ImageCommand, run};
