//! Where workspaces are kept: a store, and this host's notes on it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::StoreId;
use crate::objects::ObjectStore;
use crate::store::cache::IndexCache;
use crate::store::fetch::Fetcher;

/// Where workspaces are kept. Cheap to clone; the jobs of this module take one.
#[derive(Debug, Clone)]
pub struct Depot {
    /// The store.
    pub objects: Arc<dyn ObjectStore>,
    /// The store's id.
    pub store: StoreId,
    /// How many bytes of packs the store may hold.
    pub quota_bytes: Option<u64>,
    /// A folder for what can be fetched again: the index.
    pub cache_dir: PathBuf,
    /// A folder for what this host knows of directories it saved or restored.
    pub state_dir: PathBuf,
}

impl Depot {
    /// Returns this host's copies of the index.
    #[must_use]
    pub fn index_cache(&self) -> IndexCache {
        IndexCache::new(&self.cache_dir, self.store)
    }

    pub(super) fn fetcher(&self) -> Arc<Fetcher> {
        Arc::new(Fetcher::new(Arc::clone(&self.objects), self.index_cache()))
    }
}
