//! The Docker Engine: what Kiln needs of it, as a trait, and what speaks to a real one.
//!
//! | file | what it holds |
//! |---|---|
//! | `types` | requests, answers and events, plain data |
//! | `engine` | the [`Engine`] trait: the contract that the real engine and the fake keep |
//! | `real` | [`DockerEngine`]: bollard for images and containers, `http` for what bollard cannot do |
//! | `http` | one HTTP/1.1 request on the engine's socket, upgrades included |
//! | `build` | a build from its request to its image: upload, stream, limits, cleanup |
//! | `upload` | sends the context while it is read |
//! | `session` | hands secrets to BuildKit over an own `/session` |
//! | `wire` | one line of a build's stream |
//! | `buildkit` | what BuildKit says while it builds |
//! | `classic` | what the classic builder says while it builds |
//! | `steps` | the steps of a running build: numbers, states, lines |
//! | `failure` | what an engine's words about a failed build mean |
//! | `logs` | lines out of byte streams, secrets redacted |
//! | `disk` | what the running steps write, and what stays free |
//! | `usage` | bytes that a folder takes |
//! | `holdings` | what an engine holds: images, build cache, containers |
//! | `leftovers` | what a BuildKit build leaves behind that nobody will use again |
//! | `tags` | the tags of a build as they were before it |
//! | `pull` | pulling an image |
//! | `exec` | commands in running containers |
//! | `archive` | directories of containers as tars, in and out |
//! | `context` | the build context as a deterministic, streamed tar, and its digest |
//! | `ignore` | `.dockerignore` with Docker's semantics |
//! | `fake` | an engine in memory, for tests |
//!
//! `conformance` is what every engine must keep; `real_engine`, `bad_engine` and `recorded` are tests against a real engine,
//! a socket that misbehaves, and recordings.

mod archive;
#[cfg(test)]
mod bad_engine;
mod build;
mod buildkit;
mod classic;
#[cfg(test)]
mod conformance;
mod context;
mod disk;
mod engine;
mod exec;
mod failure;
pub mod fake;
mod holdings;
mod http;
mod ignore;
mod leftovers;
mod logs;
mod pull;
mod real;
#[cfg(test)]
mod real_engine;
#[cfg(test)]
mod recorded;
mod session;
mod steps;
mod tags;
mod types;
mod upload;
mod usage;
mod wire;

pub use context::{Context, ContextFile};
pub use engine::{Cause, Engine, EngineError};
pub use real::DockerEngine;
pub use types::*;
