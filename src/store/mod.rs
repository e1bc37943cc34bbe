//! The store as a whole: what it is and which version of its layout it has.
//!
//! | file | what it holds |
//! |---|---|
//! | `format` | `format.json`: the store's id and version |

mod format;

pub use format::{Format, FormatError};
