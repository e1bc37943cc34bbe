//! `kiln template`: what can be baked.
//!
//! | file | what it holds |
//! |---|---|
//! | `command` | the commands and what each calls |
//! | `list` | templates, and one of them described |
//! | `render` | the Dockerfile and its context |
//! | `lint` | findings in a template's Dockerfile or in any other |
//! | `update` | lock files made anew |

mod command;
mod lint;
mod list;
mod render;
mod update;

pub(super) use command::{TemplateCommand, run};
