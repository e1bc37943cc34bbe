//! Templates: where they come from, what they declare, and the Dockerfile that they become.
//!
//! | file | what it holds |
//! |---|---|
//! | `types` | what a rendered template is: plain data |
//! | `error` | why a template could not be found, read or rendered |
//! | `manifest` | `template.toml` and `component.toml`, as read |
//! | `tree` | the files of a folder in memory, embedded or read without leaving the folder |
//! | `source` | finding a template: shipped (embedded) or a folder on disk; the nearest name when there is none |
//! | `plain` | a folder with a Dockerfile as a template |
//! | `parameter` | declared parameters and their values |
//! | `distro` | which release a base image is, and what it brings |
//! | `ca` | certificate files: split, checked, described |
//! | `merge` | a template with what it extends, and values for all parameters |
//! | `order` | the order of components |
//! | `expand` | one text expanded, strictly |
//! | `quote` | filters that make a value safe in a shell, an `ENV`, JSON |
//! | `render` | parts by phase, files collected: the Dockerfile |
//! | `checkout` | the git repository that a template puts into its context |
//! | `lock` | lock files, and what they are made from |
//! | `export` | a rendered template written to a folder |
//! | `summary` | a template described, for people who choose one |
//! | `dockerfile` | a Dockerfile parser that keeps line numbers |
//! | `lint` | rules over a parsed Dockerfile; text, JSON and SARIF are the face's |

mod ca;
mod checkout;
mod distro;
mod dockerfile;
mod error;
mod expand;
mod export;
mod lint;
mod lock;
mod manifest;
mod merge;
mod order;
mod parameter;
mod plain;
mod quote;
mod render;
mod source;
mod summary;
mod tree;
mod types;

pub use ca::{CaCertificate, CaSet};
pub use checkout::CheckoutSpec;
pub use dockerfile::{
    Arguments, Comment, Directive, Dockerfile, DockerfileError, Flag, Heredoc, Instruction, Keyword, Mount,
    Needs, Pair, Stage,
};
pub use error::TemplateError;
pub use export::export;
pub use lint::{Finding, LintContext, LintFeatures, LintInput, Rule, Severity, lint, rules, to_sarif};
pub use lock::{LockKind, LockSpec, lock_inputs};
pub use parameter::ParameterType;
pub use render::{RenderRequest, render};
pub use source::{Library, Template};
pub use summary::{BaseSummary, ParameterSummary, TemplateSummary};
pub use types::*;
