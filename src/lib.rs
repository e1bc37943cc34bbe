//! Kiln bakes images that sandboxes start from: a Dockerfile template becomes a checked, registered snapshot.
//!
//! # The floors
//!
//! Each looks only down; `tests/architecture.rs` holds the map.
//!
//! ```text
//! cli                                faces: parse, call, print
//! toolkit                            opens everything once
//! snapshot                           jobs: bake, gate, check, record
//! catalog  store                     keepers: records of snapshots and channels; what a store is
//! objects  docker  template          drivers: bytes, engines, Dockerfiles
//! base                               ids, sizes, clock, errors, events, durable writes
//! ```
//!
//! # The journey of a bake
//!
//! `snapshot::prepare` reads and decides (template, certificates, base, context, keys), `snapshot::decide` says what is to
//! be done, `snapshot::bake` does it: build, gate, check, list packages, record. The transition to `active` is the commit
//! point; what a crash leaves before it, `snapshot::settle` clears.
//!
//! # Words
//!
//! A *template* is a folder that becomes a Dockerfile and is made of *components*. A *snapshot* is a registered image that
//! sandboxes start from, named `name@id`; a *channel* is its moving name. A *place* is an engine that has its image. The
//! *store* keeps what lasts. *Remove* drops a name, *delete* destroys bytes.

pub mod base;
pub mod catalog;
pub mod cli;
pub mod docker;
pub mod objects;
pub mod snapshot;
pub mod store;
pub mod template;
pub mod toolkit;
