//! One binary for all integration tests: what the real programs do.
