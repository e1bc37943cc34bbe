//! The file system's side of a workspace: reading a tree, and writing one safely.
//!
//! Nothing here follows a symbolic link below the root it was given: directories are opened with `openat2` beneath the root and
//! kept as descriptors, and every entry is named relative to one of them.
//!
//! | file | what it holds |
//! |---|---|
//! | `stat` | what the kernel says of an entry |
//! | `position` | an open directory in a tree, however deep |
//! | `listing` | the names in a directory |
//! | `walk` | all entries of a tree in order, with threads that look ahead |
//! | `excludes` | what a save leaves out |
//! | `includes` | what a restore takes |
//! | `source` | reading entries: files, links |
//! | `xattrs` | extended attributes and ACLs |
//! | `extents` | where the data of a sparse file lies |
//! | `names` | names of users and groups |
//! | `staging` | a new tree, which appears at its name when it is whole |
//! | `target` | writing entries |
//! | `attributes` | giving an entry its owner, mode, attributes and times |
//! | `rights` | what a restore may give |
//! | `shortfalls` | what it could not give, counted |
//! | `remove` | removing a tree |

mod attributes;
mod excludes;
mod extents;
mod includes;
mod listing;
mod names;
mod position;
mod remove;
mod rights;
mod shortfalls;
mod source;
mod staging;
mod stat;
mod target;
mod walk;
mod xattrs;

#[cfg(test)]
mod tests;

pub use excludes::{Excludes, PatternError};
pub use extents::extents;
pub use includes::{Includes, Inclusion};
pub use names::Names;
pub use rights::{IdRange, OwnerRule, RestoreRights};
pub use shortfalls::{Shortfall, Shortfalls};
pub use source::{Reader, SourceTree};
pub use staging::{Staging, TargetError};
pub use stat::{Stat, StatKind, stat_of};
pub use target::{TargetTree, Writer};
pub use walk::{Found, Walk, WalkItem, WalkOptions, walk};
pub use xattrs::{is_acl, is_kept};
