//! One binary for all integration tests: what the real programs do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set its stage should stop")]
#![expect(clippy::disallowed_methods, reason = "tests read what scripts/test tells them in the environment")]

mod cli;
mod collecting;
mod dockerfiles;
mod e2e;
mod format;
mod fuzz;
mod help;
mod home;
mod image;
mod kills;
mod library;
mod retention;
mod snapshot;
mod store_fixtures;
mod template;
mod workspace;
