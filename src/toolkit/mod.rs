//! Opens the environment, the configuration, the store and the engine once, and hands them down as values.
//!
//! | file | what it holds |
//! |---|---|
//! | `open` | [`Toolkit`]: opened fast, without touching the engine |
//! | `doctor` | what works here, and what to do about the rest |

pub mod doctor;
mod open;

pub use open::{Toolkit, ToolkitError};
