//! Tar streams in and out: what an archive says as entries, and entries as an archive.
//!
//! | file | what it holds |
//! |---|---|
//! | `read` | an archive as entries with their data, one after the other |
//! | `member` | headers and extension records together make one entry |
//! | `write` | entries as a PAX archive, the same bytes for the same entries |
//! | `header` | the 512 bytes before every member |
//! | `pax` | extension records: reading, overriding, writing |
//! | `sparse` | where the data of a file with holes lies, in the four ways that tar knows |
//! | `acl` | ACLs as text and as the kernel keeps them |
//! | `compression` | gzip and zstd around an archive |
//! | `error` | why an archive is refused |
//!
//! # What is refused, and why
//!
//! Programs that read one archive differently are the root of most attacks with tar. Wherever two readings are in use, the
//! archive is refused with the name of the entry: a directory, link or device that claims to have data; a PAX path beside
//! another GNU long name; extension headers that nothing follows, or two of one kind in a row; a size or a sparse map that
//! claims to hold for all entries; a sparse map that does not add up. A PAX size always governs the entry it stands before,
//! and extension headers have only their own.

pub mod acl;
mod compression;
mod error;
mod header;
mod member;
mod pax;
mod read;
mod sparse;
#[cfg(test)]
mod tests;
mod write;

pub use compression::{ArchiveFormat, ArchiveSink};
pub use error::ArchiveError;
pub use pax::AclForm;
pub use read::{
    ArchiveEnd, ArchiveLimits, ArchiveReader, ArchiveSummary, ArchivedEntry, read_archive, read_untrusted,
};
pub use write::ArchiveWriter;
