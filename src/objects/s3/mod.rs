//! A store in a bucket of an S3 server.
//!
//! | file | what it holds |
//! |---|---|
//! | `store` | [`S3Store`]: the contract of an object store in requests to a server |
//! | `connect` | settings, credentials, certificates, repetitions and timeouts of a client |
//! | `upload` | a file as an object: in one request, or in parts |
//! | `incomplete` | uploads in parts that were never completed: listed and aborted |
//! | `features` | what else the server does with the bucket: versions, locks, lifecycle rules, conditional writes |
//! | `answer` | what an answer, or none, says about the server |

mod answer;
mod connect;
mod features;
#[cfg(test)]
pub(crate) mod garage;
mod incomplete;
mod store;
#[cfg(test)]
mod tests;
mod upload;

pub use connect::{S3Options, S3Patience};
pub use features::{Conditional, Switch};
pub use incomplete::IncompleteUpload;
pub use store::S3Store;
