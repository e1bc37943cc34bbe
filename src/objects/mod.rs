//! Where bytes lie: a small trait over keys, and the stores that keep it.
//!
//! | file | what it holds |
//! |---|---|
//! | `key` | [`Key`] and [`Prefix`]: names that every store can hold |
//! | `contract` | the [`ObjectStore`] trait: the contract |
//! | `failure` | [`ObjectsError`]: why a store did not do what was asked |
//! | `dir` | [`DirStore`]: a directory, atomic and synced, safe with several processes |
//! | `s3` | [`S3Store`]: a bucket of an S3 server, or a prefix in one |
//! | `sim` | [`SimStore`]: objects in memory and faults by plan and by seed, for tests |
//! | `throttle` | [`Throttled`]: any store within a bandwidth |
//! | `url` | [`StoreUrl`]: where a store is |
//! | `open` | [`open()`]: the store at a URL |
//! | `probe` | [`probe()`]: what a store really does |
//! | `conformance` | what every store must pass, as functions over the trait |

#[cfg(test)]
mod conformance;
mod contract;
mod dir;
mod failure;
mod key;
mod open;
mod probe;
mod s3;
mod sim;
mod throttle;
mod url;

pub use contract::{ObjectInfo, ObjectStore, Swept};
pub use dir::DirStore;
pub use failure::{ObjectsError, ServerProblem};
pub use key::{Key, KeyError, Prefix};
pub use open::open;
pub use probe::{Checks, Latency, ProbeReport, S3Report, probe, probe_at, probe_s3};
#[cfg(test)]
pub(crate) use s3::garage;
pub use s3::{Conditional, IncompleteUpload, S3Options, S3Patience, S3Store, Switch};
pub use sim::{SimDeed, SimFate, SimFaults, SimOperation, SimStore, SimWhen};
pub use throttle::{Bandwidth, Throttled};
pub use url::{S3Url, StoreUrl, StoreUrlError};
