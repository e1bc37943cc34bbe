//! The store at a URL.

use std::sync::Arc;

use super::{DirStore, ObjectStore, ObjectsError, S3Store, StoreUrl};

/// Returns the store at a URL. Reads and writes nothing in it.
///
/// # Errors
///
/// As [`S3Store::connect`]; a directory always opens.
pub async fn open(url: &StoreUrl) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    Ok(match url {
        StoreUrl::Directory(path) => Arc::new(DirStore::new(path.clone())),
        StoreUrl::S3(url) => Arc::new(S3Store::connect(url).await?),
    })
}
