//! One binary for all integration tests: what the real programs do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set its stage should stop")]

mod dockerfiles;
mod template;
