//! What the jobs work with.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::StoreId;
use crate::catalog::Catalog;
use crate::docker::Engine;
use crate::template::Library;

/// What the jobs on snapshots work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workbench {
    /// Records.
    pub catalog: Catalog,
    /// The engine that builds and holds images.
    pub engine: Arc<dyn Engine>,
    /// The store's id: images carry it, and only those that do are ours.
    pub store: StoreId,
    /// Templates.
    pub library: Arc<Library>,
    /// The folder for locks on this host.
    pub state_dir: PathBuf,
}
