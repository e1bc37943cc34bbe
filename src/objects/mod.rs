//! Where bytes lie: a small trait over keys, and the stores that keep it.
//!
//! | file | what it holds |
//! |---|---|
//! | `key` | [`Key`] and [`Prefix`]: names that every store can hold |
//! | `contract` | the [`ObjectStore`] trait: the contract |
//! | `dir` | [`DirStore`]: a directory, atomic and synced, safe with several processes |
//! | `url` | [`StoreUrl`]: where a store is |
//! | `conformance` | what every store must pass, as functions over the trait |

#[cfg(test)]
mod conformance;
mod contract;
mod dir;
mod key;
mod url;

pub use contract::{ObjectInfo, ObjectStore, ObjectsError};
pub use dir::DirStore;
pub use key::{Key, KeyError, Prefix};
pub use url::{StoreUrl, StoreUrlError};
