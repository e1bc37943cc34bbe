//! What the real programs do with a real Docker Engine. Ignored unless asked for: `scripts/test` runs them.

mod bad_luck;
mod ca;
mod drift;
mod harness;
mod journey;
mod layers;
mod limits;
mod pruning;
mod repo;
mod secrets;
mod shipped;
