//! A Dockerfile, parsed, with the line of everything.
//!
//! | file | what it holds |
//! |---|---|
//! | `types` | what a parsed Dockerfile is: plain data |
//! | `parse` | text to instructions: directives, comments, continuations, heredocs |
//! | `instruction` | one logical line: keyword, flags, arguments |
//! | `words` | quotes, escapes and variables |
//! | `stages` | stages, the images that they come from, the final user |
//! | `needs` | what a builder must support |
//! | `canonical` | the text without what changes nothing |

mod canonical;
mod instruction;
mod needs;
mod parse;
mod stages;
mod types;
mod words;

pub use needs::Needs;
pub use types::{
    Arguments, Comment, Directive, Dockerfile, DockerfileError, Flag, Heredoc, Instruction, Keyword, Mount,
    Pair, Stage,
};
