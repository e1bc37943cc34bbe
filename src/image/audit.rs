//! One line for each item that was touched: what, why, and what came of it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::{Action, Freed, ImageError, Plan, PlanItem, PruneOutcome};
use crate::base::fs::{create_dir_durably, open_append};

/// The audit of this host's prunes: a file that only grows, one JSON object a line.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    file: File,
}

/// A line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: Timestamp,
    engine: &'a str,
    endpoint: &'a str,
    store: String,
    id: String,
    name: &'a str,
    image: Option<String>,
    tag: Option<&'a str>,
    action: Action,
    reason: &'a str,
    outcome: &'static str,
    detail: Option<String>,
    #[serde(flatten)]
    freed: Freed,
}

impl Audit {
    /// Opens the audit in a state folder.
    pub(super) fn open(state_dir: &Path) -> Result<Self, ImageError> {
        let folder = state_dir.join("image");
        let path = folder.join("prune.jsonl");
        let opened = create_dir_durably(&folder).and_then(|()| open_append(&path));
        let file = opened.map_err(|source| ImageError::Local { path: path.clone(), source })?;
        Ok(Self { path, file })
    }

    /// Adds a line.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        plan: &Plan,
        item: &PlanItem,
        outcome: &PruneOutcome,
    ) -> Result<(), ImageError> {
        let freed = match outcome {
            PruneOutcome::Done(freed) => *freed,
            PruneOutcome::Spared(_) | PruneOutcome::Failed(_) | PruneOutcome::NotReached => Freed::default(),
        };
        let line = Line {
            at,
            engine: plan.engine.as_str(),
            endpoint: &plan.endpoint,
            store: plan.store.to_string(),
            id: item.subject.id(),
            name: &item.name,
            image: item.seen.image.map(|image| image.to_string()),
            tag: item.seen.tag.as_deref(),
            action: item.action,
            reason: &item.reason,
            outcome: outcome.word(),
            detail: outcome.detail(),
            freed,
        };
        let written = serde_json::to_vec(&line).map_err(io::Error::other).and_then(|mut text| {
            text.push(b'\n');
            self.file.write_all(&text)?;
            self.file.sync_data()
        });
        written.map_err(|source| ImageError::Local { path: self.path.clone(), source })
    }
}
