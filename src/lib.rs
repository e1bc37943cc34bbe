//! Kiln bakes images that sandboxes start from: a Dockerfile template becomes a checked, registered snapshot. And it keeps
//! workspaces: a directory becomes a deduplicated revision in a directory or on S3, and is restored anywhere.
//!
//! # The floors
//!
//! Each looks only down; `tests/architecture.rs` holds the map.
//!
//! ```text
//! cli                                faces: parse, call, print
//! toolkit                            opens everything once
//! snapshot  workspace  image         jobs: bake, gate, check, record; save, restore, compare; prune images
//! catalog  store                     keepers: records of snapshots and channels; chunks, packs, index, revisions
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
//! # The journey of a save
//!
//! `workspace::save` opens a session and reads what it may rely on. A walk goes over the tree beside what this host knows of it;
//! files that may have changed go through `contents` (read, cut, hash, compare, compress, pack) and come out in order in `stage`,
//! which writes the manifest. `commit` writes the record, which is the commit point once nobody has evicted the session.
//! `workspace::restore` goes the other way: record, manifest, a plan by packs, `fill`, and a rename.
//!
//! # The journey of a prune
//!
//! `image::Inventory` looks at an engine and a store, images before records and containers last. `image::decide` is pure: guards,
//! then rules, then the least recently used until there is room; a reason for each item, and what it frees counted by layers.
//! `image::ImageBench::apply` does what the plan says, looks at each item again just before, and never forces.
//!
//! # Words
//!
//! A *template* is a folder that becomes a Dockerfile and is made of *components*. A *snapshot* is a registered image that
//! sandboxes start from, named `name@id`; a *channel* is its moving name. A *place* is an engine that has its image. The
//! *store* keeps what lasts. A *workspace* is a directory tree that a sandbox works in, a *revision* one saved state of it; a
//! *chunk* is a run of content addressed by its SHA-256, a *frame* the unit of compression, a *pack* an object of many
//! frames. *Remove* drops a name, *delete* destroys bytes.

pub mod base;
pub mod catalog;
pub mod cli;
pub mod docker;
pub mod image;
pub mod objects;
pub mod snapshot;
pub mod store;
pub mod template;
pub mod toolkit;
pub mod workspace;
