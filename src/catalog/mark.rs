//! Pins and expiry.

use serde::{Deserialize, Serialize};

use super::snapshots::next_key;
use super::{Catalog, CatalogError};
use crate::base::SnapshotId;
use crate::objects::Prefix;

/// What somebody said of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mark", rename_all = "lowercase")]
pub enum Mark {
    /// Keep it, whatever a policy says.
    Pin,
    /// Take the pin back.
    Unpin,
    /// It is not needed after this time; `None` takes an earlier expiry back.
    Expire {
        /// The time.
        at: Option<jiff::Timestamp>,
    },
}

/// A mark as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkEntry {
    /// Version of this record: 1.
    pub version: u32,
    /// The mark.
    #[serde(flatten)]
    pub mark: Mark,
    /// When it was made.
    pub made: jiff::Timestamp,
}

/// What all marks of a snapshot come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Whether it is pinned.
    pub pinned: bool,
    /// After when it is not needed.
    pub expires: Option<jiff::Timestamp>,
}

impl Marks {
    /// Folds marks in their order.
    #[must_use]
    pub fn fold(entries: &[MarkEntry]) -> Self {
        entries.iter().fold(Self::default(), |marks, entry| match entry.mark {
            Mark::Pin => Self { pinned: true, ..marks },
            Mark::Unpin => Self { pinned: false, ..marks },
            Mark::Expire { at } => Self { expires: at, ..marks },
        })
    }
}

impl Catalog {
    /// Marks a snapshot.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read or written.
    pub async fn mark(&self, id: SnapshotId, mark: Mark, made: jiff::Timestamp) -> Result<(), CatalogError> {
        let prefix = format!("snap/mark/{id}");
        let listed = self.objects().list(&Prefix::new(prefix.clone())?).await?;
        let key = next_key(&prefix, &listed)?;
        self.write(&key, &MarkEntry { version: 1, mark, made }).await
    }
}
