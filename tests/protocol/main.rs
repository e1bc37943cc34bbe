//! The store's protocol (`docs/protocol.md`), explored: every order of the requests of savers, collectors and people, with a crash
//! possible anywhere and live actors evicted at will.
//!
//! | file | what it holds |
//! |---|---|
//! | `store` | what lies in the store, and which of it counts |
//! | `view` | what a session sees |
//! | `saver` | W1 to W6, merging, clones |
//! | `collector` | G0 to G6, run after run |
//! | `world` | all of them, and the promises |
//! | `scenario` | who is at work, and which rule is broken |
//! | `explore` | all states, or the shortest way to a broken promise |
//! | `scenarios` | what holds |
//! | `mutations` | what no longer holds without a rule |
//!
//! `cargo test --test protocol -- --nocapture` prints the numbers of states and the traces; `--ignored` runs the larger scenarios,
//! best with `--release`.

#![expect(clippy::print_stdout, reason = "the numbers of states and the traces are what one runs it for")]

mod collector;
mod explore;
mod mutations;
mod saver;
mod scenario;
mod scenarios;
mod store;
mod view;
mod world;
