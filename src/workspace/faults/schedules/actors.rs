//! Who plays: writers, readers and collectors, each one job after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::turns::World;
use crate::base::RevisionId;
use crate::store::gc::{GcError, GcSpec};
use crate::store::revision::RevisionRef;
use crate::workspace::faults::scene::{Host, Look, let_times_settle, look, noise, quiet, write};
use crate::workspace::remove::{Selection, remove};
use crate::workspace::{SaveSpec, WorkspaceError, copy, save, show, undo};

/// Directories that are saved again and again, and what one sees of each.
#[derive(Debug)]
pub(super) struct Trees {
    home: tempfile::TempDir,
    looks: Vec<Look>,
}

/// Files that each tree has some of.
const FILES: u64 = 10;
/// For each tree which of the files it has: each shares some with each.
const HAS: [u64; 5] = [0b11_1111_0000, 0b10_0111_1100, 0b01_1001_0111, 0b11_0000_1111, 0b00_1111_0110];

impl Trees {
    pub(super) fn plant() -> Self {
        let home = in_memory();
        let mut looks = Vec::new();
        for (number, has) in HAS.iter().enumerate() {
            let tree = home.path().join(number.to_string());
            std::fs::create_dir(&tree).unwrap();
            for file in (0..FILES).filter(|file| has & (1 << file) != 0) {
                let length = usize::try_from(1_000 + file * 900).unwrap();
                write(&tree.join(format!("file-{file}")), &noise(file, length));
            }
            looks.push(look(&tree));
        }
        let_times_settle();
        Self { home, looks }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.home.path().join(number.to_string())
    }

    pub(super) fn look(&self, number: usize) -> &Look {
        &self.looks[number]
    }

    pub(super) fn count(&self) -> usize {
        self.looks.len()
    }
}

/// Makes a folder that costs no disk, where there is such a place.
pub(super) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// One who plays.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) number: usize,
    pub(super) host: Host,
    pub(super) world: Arc<World>,
    pub(super) book: Book,
    pub(super) trees: Arc<Trees>,
    /// Whether the store fails now and then.
    pub(super) is_faulty: bool,
    pub(super) luck: fastrand::Rng,
}

impl Actor {
    /// Notes an error that nothing excuses.
    fn mind(&self, what: &str, error: &dyn std::fmt::Debug) {
        if !self.is_faulty && !self.world.is_dead(self.number) {
            self.book.complain(format!("{what} of {}: {error:?}", self.number));
        }
    }

    fn any_kept(&mut self) -> Option<(RevisionId, usize)> {
        let notes = self.book.open();
        let at = self.luck.usize(..notes.kept.len().max(1));
        notes.kept.iter().nth(at).map(|(id, kept)| (*id, kept.tree))
    }

    /// Finds a revision that is kept; `None` where it was removed meanwhile.
    async fn find(&self, id: RevisionId) -> Option<RevisionRef> {
        let listed = crate::store::revision::list(&*self.host.depot.objects, None).await;
        match listed {
            Ok(listed) => {
                let found = listed.into_iter().find(|revision| revision.id == id);
                if found.is_none() && self.book.open().kept.contains_key(&id) {
                    self.mind("a listing", &"it does not show what is kept");
                }
                found
            }
            Err(error) => {
                self.mind("a listing", &error);
                None
            }
        }
    }

    pub(super) async fn write(mut self) {
        for _ in 0..self.luck.u8(2..=4) {
            match self.luck.u8(..10) {
                0..=4 => self.save().await,
                5 | 6 => self.copy().await,
                7 | 8 => self.remove().await,
                _ => self.undo().await,
            }
        }
    }

    pub(super) async fn save(&mut self) {
        let tree = self.luck.usize(..self.trees.count());
        let workspace = if self.luck.bool() { "one" } else { "two" };
        let spec = SaveSpec { jobs: 1, ..SaveSpec::new(workspace.parse().unwrap()) };
        let path = self.trees.path(tree);
        let saved = save(&self.host.depot, &path, &spec, quiet(), &CancellationToken::new()).await;
        let mut notes = self.book.open();
        match saved {
            Ok(report) => {
                notes.tally.saves += 1;
                notes.keep(report.revision, tree);
            }
            Err(error) => {
                notes.tally.failed_saves += 1;
                drop(notes);
                self.mind("a save", &error);
            }
        }
    }

    async fn copy(&mut self) {
        let Some((id, tree)) = self.any_kept() else { return };
        let Some(found) = self.find(id).await else { return };
        let copied = match show(&self.host.depot, &found).await {
            Ok(record) => copy(&self.host.depot, &record, &"fork".parse().unwrap(), Default::default()).await,
            Err(error) => Err(error),
        };
        let mut notes = self.book.open();
        match copied {
            Ok(report) => {
                notes.tally.copies += 1;
                notes.keep(report.revision, tree);
            }
            Err(error) => {
                let is_kept = notes.kept.contains_key(&id);
                drop(notes);
                if is_kept {
                    self.mind("a copy", &error);
                }
            }
        }
    }

    pub(super) async fn remove(&mut self) {
        let Some((id, tree)) = self.any_kept() else { return };
        let Some(found) = self.find(id).await else { return };
        // From here on it may be removed, whatever comes back.
        self.book.open().kept.remove(&id);
        match remove(&self.host.depot, &Selection::One(found.clone())).await {
            Ok(_) => {
                let mut notes = self.book.open();
                notes.tally.removals += 1;
                notes.removed.insert(id, (found, tree));
            }
            // Another one removed it before.
            Err(WorkspaceError::NotFound { .. }) => {}
            Err(error) => self.mind("a removal", &error),
        }
    }

    async fn undo(&mut self) {
        let chosen = {
            let notes = self.book.open();
            let at = self.luck.usize(..notes.removed.len().max(1));
            notes.removed.values().nth(at).cloned()
        };
        let Some((revision, tree)) = chosen else { return };
        match undo(&self.host.depot, &revision).await {
            Ok(report) => {
                let mut notes = self.book.open();
                notes.tally.undone += 1;
                notes.keep(report.revision, tree);
            }
            // It comes too late.
            Err(WorkspaceError::Collected { .. } | WorkspaceError::NotRemoved { .. }) => {}
            Err(error) => self.mind("an undo", &error),
        }
    }

    pub(super) async fn read(mut self) {
        for _ in 0..2 {
            let Some((id, tree)) = self.any_kept() else { continue };
            let Some(found) = self.find(id).await else { continue };
            let home = in_memory();
            let target = home.path().join("restored");
            match self.host.restore(&found, &target).await {
                Ok(_) => {
                    self.book.open().tally.restores += 1;
                    if look(&target) != *self.trees.look(tree) {
                        self.book.complain(format!("{id} came back as something else"));
                    }
                }
                Err(error) => {
                    if self.book.open().kept.contains_key(&id) {
                        self.mind("a restore", &error);
                    }
                }
            }
        }
    }

    pub(super) async fn collect(mut self, grace: Duration) {
        for _ in 0..self.luck.u8(1..=3) {
            let spec = GcSpec {
                grace,
                keep_lists: if self.is_faulty || self.luck.bool() {
                    Duration::from_hours(1)
                } else {
                    Duration::ZERO
                },
                evict_after: Duration::from_millis([20, 40, 100, 2_000][self.luck.usize(..4)]),
                wait: Some(Duration::from_secs(5)),
                max_dead_percent: if self.luck.bool() { 0.0 } else { 100.0 },
                max_repack: None,
            };
            let collected = self.host.collect(&spec).await;
            let mut notes = self.book.open();
            match collected {
                Ok(report) => {
                    notes.tally.collections += 1;
                    notes.tally.deleted_packs += report.deleted.0;
                    notes.tally.moved_chunks += report.moved.0;
                    notes.tally.rewritten_segments += report.rewritten_segments.0;
                    notes.tally.evictions += report.evicted;
                    if !report.lost.is_empty() || !report.stuck.is_empty() {
                        let said = format!("a collection misses {:?} of {:?}", report.lost, report.stuck);
                        notes.complaints.push(said);
                    }
                }
                Err(error) => {
                    notes.tally.given_up_collections += 1;
                    drop(notes);
                    if !matches!(error, GcError::Evicted) {
                        self.mind("a collection", &error);
                    }
                }
            }
        }
    }
}
