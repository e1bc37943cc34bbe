//! The command line: one file per noun; the only place that prints.
//!
//! A command parses, calls a job and hands the result to `output`. The answer goes to standard output, the story to
//! standard error.
//!
//! | file | what it holds |
//! |---|---|
//! | `run` | from arguments to an exit code |
//! | `args` | the commands, and pieces that they share |
//! | `build` | `kiln build`, which is also `build-snapshot` |
//! | `template` | `kiln template …` |
//! | `snapshot` | `kiln snapshot …` |
//! | `image` | `kiln image …` |
//! | `workspace` | `kiln workspace …` |
//! | `store` | `kiln store …` |
//! | `gc` | `kiln gc` |
//! | `doctor` | `kiln doctor` |
//! | `completions` | `kiln completions` |
//! | `man` | `kiln man` |
//! | `invocation` | what every command is given: environment, global options, output |
//! | `output` | the only printer of answers: text or JSON |
//! | `progress` | the story: a live tree, lines, or JSON lines |
//! | `view` | what JSON answers look like |
//! | `failure` | an error as a face shows it |
//! | `exit` | kinds of errors as exit codes: the one table |
//! | `signals` | Ctrl-C and SIGTERM cancel; a second one ends at once |
//! | `watched` | a job is watched, and can be cancelled |
//! | `summary` | what a CI service is told: an outputs file and a job summary |
//! | `paint` | color, where it is wanted |
//! | `text` | tables, ages, widths: how people read values |

mod args;
mod build;
mod completions;
mod doctor;
mod exit;
mod failure;
mod gc;
mod image;
mod invocation;
mod man;
mod output;
mod paint;
mod progress;
mod run;
mod signals;
mod snapshot;
mod store;
mod summary;
mod template;
mod text;
mod view;
mod watched;
mod workspace;

pub use args::command;
pub use run::{Program, start};
