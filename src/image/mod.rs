//! Images on an engine: what lies in them.
//!
//! | file | what it holds |
//! |---|---|
//! | `contents` | the layers of an image, and what weighs in it |

pub mod contents;
