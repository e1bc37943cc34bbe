//! What was decided, as it is shown, saved and applied.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Freed, ImageError};
use crate::base::config::ImageRules;
use crate::base::fs::{Existing, write_durably};
use crate::base::{EngineId, ImageId, SnapshotId, StoreId};
use crate::catalog::State;

/// What a prune would do: every item that was looked at, and what becomes of it. Applying consumes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of a saved plan: 1.
    pub version: u32,
    /// When it was made.
    pub made: Timestamp,
    /// The engine that it is for.
    pub engine: EngineId,
    /// How that was reached.
    pub endpoint: String,
    /// The store that it is for.
    pub store: StoreId,
    /// The rules by which it was made.
    pub rules: ImageRules,
    /// The items, sorted by name, the newest of a name first; what is kept is among them.
    pub items: Vec<PlanItem>,
    /// What all of it comes to.
    pub totals: Totals,
}

/// An item, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanItem {
    /// What it is.
    pub subject: Subject,
    /// Its name: a snapshot's, an image's repository, or what made a record of the build cache.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// Why, as one word for programs.
    pub code: String,
    /// Why, for people.
    pub reason: String,
    /// What its deletion frees, together with what goes before it; of what is kept, what it would free alone.
    pub freed: Freed,
    /// Bytes of all its layers, those included that others have too.
    pub size_bytes: u64,
    /// The place of its deletion among the others: nothing goes before what stands on it.
    pub turn: usize,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it was last used, as far as is known.
    pub used: Option<Timestamp>,
    /// How it was when the plan was made; what has changed since is left alone.
    pub seen: Seen,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// A snapshot's image here.
    Snapshot {
        /// The snapshot.
        id: SnapshotId,
    },
    /// An image of this store that is no snapshot's.
    Leftover {
        /// The image.
        image: ImageId,
    },
    /// Another store's image.
    Foreign {
        /// The image.
        image: ImageId,
        /// The store, as the label has it.
        store: String,
    },
    /// A record of the build cache.
    Cache {
        /// Its id.
        id: String,
    },
}

impl Subject {
    /// Returns the id of what it is, as text.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Snapshot { id } => id.to_string(),
            Self::Leftover { image } | Self::Foreign { image, .. } => image.to_string(),
            Self::Cache { id } => id.clone(),
        }
    }
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It stays.
    Keep,
    /// It is another store's, and stays.
    Foreign,
    /// It was put aside and waits for the end of the grace.
    Wait,
    /// It is put aside: chosen no more, and its image stays for the grace.
    Deactivate,
    /// Its image is deleted here.
    Delete,
}

impl Action {
    /// Returns its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Foreign => "foreign",
            Self::Wait => "wait",
            Self::Deactivate => "deactivate",
            Self::Delete => "delete",
        }
    }

    /// Returns whether something is done.
    #[must_use]
    pub fn acts(self) -> bool {
        match self {
            Self::Deactivate | Self::Delete => true,
            Self::Keep | Self::Foreign | Self::Wait => false,
        }
    }
}

/// How an item was when the plan was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The image.
    pub image: Option<ImageId>,
    /// The reference by which it goes.
    pub tag: Option<String>,
    /// The snapshot's state.
    pub state: Option<State>,
    /// After when it is not needed.
    pub expires: Option<Timestamp>,
    /// When it was last used, as was noted.
    pub used: Option<Timestamp>,
}

/// What a plan comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// What the deletions free.
    pub freed: Freed,
    /// What is freed later, when the grace of what is put aside is over.
    pub later: Freed,
    /// Bytes of this store's images before, each layer counted once.
    pub own_bytes: u64,
    /// Bytes that the rules for room ask for and that nothing is left for: everything that may go does.
    pub missing_bytes: u64,
}

impl Plan {
    /// Returns how many items have an action.
    #[must_use]
    pub fn count(&self, action: Action) -> usize {
        self.items.iter().filter(|item| item.action == action).count()
    }

    /// Writes the plan to a file, in place of what is there.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ImageError> {
        let local = |source| ImageError::Local { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| local(std::io::Error::other(error)))?;
        write_durably(path, &text, Existing::Replace).map_err(local)
    }

    /// Reads a plan from a file.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, is no plan, or one of a later version.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let text =
            std::fs::read(path).map_err(|source| ImageError::Local { path: path.to_owned(), source })?;
        let no_plan = |error: serde_json::Error| ImageError::Plan {
            reason: format!("`{}` holds none: {error}", path.display()),
        };
        let Versioned { version } = serde_json::from_slice(&text).map_err(no_plan)?;
        if version != 1 {
            return Err(ImageError::Plan { reason: format!("it has version {version}, and 1 is known") });
        }
        serde_json::from_slice(&text).map_err(no_plan)
    }
}
