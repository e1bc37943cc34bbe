//! What a revision's record says, and its entries.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::manifest::ManifestReader;
use crate::store::Entry;
use crate::store::revision::{Revision, RevisionRef};

/// Reads a revision's record.
///
/// # Errors
///
/// Fails where it is not there (any more), where it is damaged, and where the store does not answer.
pub async fn show(depot: &Depot, revision: &RevisionRef) -> Result<Revision, WorkspaceError> {
    super::restore::read(depot, revision).await
}

/// Reads a revision's entries in the order of their paths, some manifest chunks ahead. Needs no more memory for a larger tree than
/// the references to its manifest's chunks.
///
/// # Errors
///
/// Fails where the store does not answer, and where the manifest is damaged or lost; the stream does, too.
pub async fn files(
    depot: &Depot,
    revision: &Revision,
) -> Result<BoxStream<'static, Result<Entry, WorkspaceError>>, WorkspaceError> {
    let manifest = ManifestReader::open(&depot.fetcher(), revision).await?;
    Ok(manifest.entries().boxed())
}
