//! What lies in an image: its layers, what later layers overwrote or deleted, and what weighs most.
//!
//! The image is streamed from the engine and never unpacked. The layers come in any order, and which is which stands at the end, so
//! that the paths of each are kept, once for all layers, until the last one is there: some hundred bytes for each path.
//!
//! | file | what it holds |
//! |---|---|
//! | `examine` | the job |
//! | `pieces` | the engine's stream as something to read |
//! | `export` | the archive: its layouts, its layers, its configuration |
//! | `paths` | the paths of all layers, in little memory |
//! | `merge` | one layer on top of another: what is left, what is wasted |
//! | `weigh` | what weighs most, and a map of it |
//! | `error` | why an image could not be examined |

mod error;
mod examine;
mod export;
mod merge;
mod paths;
mod pieces;
#[cfg(test)]
mod tests;
mod weigh;

pub use error::ContentsError;
pub use examine::{ImageContents, LayerContents, examine};
pub use merge::WastedPath;
pub use weigh::{HeavyPath, MapNode};
