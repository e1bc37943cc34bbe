//! A plan becomes true: each item is looked at again, and what has changed since is left alone.
//!
//! The order for one snapshot: the transition to `removing`, the reference on the engine, the place, the transition to `removed`. A
//! crash in between leaves it `removing`, which the next plan takes whatever its rules are. An image goes by its reference and never
//! by force; the engine decides whether it goes with it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::policy::{Deciding, seen};
use super::{Action, Freed, ImageError, ImagePolicy, Inventory, Item, Plan, PlanItem, Subject, decide};
use crate::base::{HostLock, ImageId, Sha256Digest, Sink, SnapshotId, StoreId, chain, now};
use crate::catalog::{Catalog, PlaceRecord, PlaceState, State, StateEntry, held};
use crate::docker::Engine;

/// What the jobs on images work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageBench {
    /// Records.
    pub catalog: Catalog,
    /// The engine that holds images.
    pub engine: Arc<dyn Engine>,
    /// The store's id: images carry it, and only those that do are ours.
    pub store: StoreId,
    /// The folder for locks, notes and the audit on this host.
    pub state_dir: PathBuf,
}

/// What happens while a plan is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PruneEvent {
    /// A step begins.
    Step {
        /// Its name.
        name: &'static str,
    },
    /// Something was done to an item, or was not.
    Item {
        /// The item's id.
        id: String,
        /// Its name.
        name: String,
        /// What was to be done.
        action: &'static str,
        /// `done`, `spared` or `failed`.
        outcome: &'static str,
        /// Why it was not done.
        detail: Option<String>,
    },
    /// Something the reader should know that stops nothing.
    Warning {
        /// A sentence.
        message: String,
    },
}

/// What became of an item.
#[derive(Debug)]
pub enum PruneOutcome {
    /// It was done, and freed so much.
    Done(Freed),
    /// It was left alone, because this has changed since the plan was made.
    Spared(String),
    /// It could not be done.
    Failed(ImageError),
    /// The prune was cancelled before.
    NotReached,
}

impl PruneOutcome {
    /// Returns its word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Spared(_) => "spared",
            Self::Failed(_) => "failed",
            Self::NotReached => "not_reached",
        }
    }

    /// Returns why it was not done; an error with its causes in one line.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Done(_) | Self::NotReached => None,
            Self::Spared(why) => Some(why.clone()),
            Self::Failed(error) => {
                let words = std::iter::once(error.to_string()).chain(chain(error));
                Some(words.collect::<Vec<_>>().join(": "))
            }
        }
    }
}

/// What a prune did.
#[derive(Debug)]
pub struct PruneReport {
    /// The plan.
    pub plan: Plan,
    /// What became of each of its items, in their order; `None` of those that were to stay.
    pub outcomes: Vec<Option<PruneOutcome>>,
    /// What was freed, as counted by layers.
    pub freed: Freed,
    /// By how many bytes all layers of all images on the engine are less than before, as the engine counts them. Others work on it too.
    pub measured_bytes: Option<i64>,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// Why the audit is not whole.
    pub unaudited: Option<ImageError>,
}

impl PruneReport {
    /// Returns how many items could not be done.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, PruneOutcome::Failed(_)))
    }

    /// Returns how many items have an outcome of a kind.
    #[must_use]
    pub fn count(&self, is_such: impl Fn(&PruneOutcome) -> bool) -> usize {
        self.outcomes.iter().flatten().filter(|outcome| is_such(outcome)).count()
    }
}

impl ImageBench {
    /// Looks at the engine and the store.
    ///
    /// # Errors
    ///
    /// As [`Inventory::take`].
    pub async fn look(&self, now: Timestamp) -> Result<Inventory, ImageError> {
        Inventory::take(&*self.engine, &self.catalog, self.store, &self.state_dir, now).await
    }

    /// Decides what goes. Changes nothing.
    ///
    /// # Errors
    ///
    /// As [`ImageBench::look`] and [`decide`].
    pub async fn plan(&self, policy: &ImagePolicy, now: Timestamp) -> Result<Plan, ImageError> {
        decide(&self.look(now).await?, policy, now)
    }

    /// Does what a plan says. Cancelling ends it after the item in hand.
    ///
    /// # Errors
    ///
    /// Fails before anything is touched: where the plan is for another engine or store, another prune works, the audit cannot be
    /// written, or the engine or the store does not answer. What fails afterwards is an item's outcome.
    pub async fn apply(
        &self,
        plan: Plan,
        sink: &dyn Sink<PruneEvent>,
        cancel: &CancellationToken,
    ) -> Result<PruneReport, ImageError> {
        let info = self.engine.info().await?;
        if (&plan.engine, plan.store) != (&info.id, self.store) {
            let reason = format!("it is for the engine {} and the store {}", plan.engine, plan.store);
            return Err(ImageError::Plan { reason });
        }
        let _lock = self.lock(&info.endpoint)?;
        let (mut audit, mut unaudited) = match Audit::open(&self.state_dir) {
            Ok(audit) => (Some(audit), None),
            // A full disk is what a prune is for.
            Err(error) if error.is_full_disk() => (None, Some(error)),
            Err(error) => return Err(error),
        };
        sink.emit(PruneEvent::Step { name: "looking again" });
        let inventory = self.look(now()).await?;
        let mut applying = Applying {
            bench: self,
            inventory: &inventory,
            deciding: Deciding::new(&inventory, &plan.rules, now()),
            endpoint: &info.endpoint,
            gone: BTreeSet::new(),
        };
        let mut order: Vec<usize> = (0..plan.items.len()).collect();
        order.retain(|at| plan.items.get(*at).is_some_and(|item| item.action.acts()));
        // The build cache first: its records go without one of ours being written, which a full disk would not let.
        let is_cache = |item: &PlanItem| matches!(item.subject, Subject::Cache { .. });
        order.sort_by_key(|at| plan.items.get(*at).map(|item| (!is_cache(item), item.turn)));
        sink.emit(PruneEvent::Step { name: "pruning" });
        let mut outcomes: Vec<Option<PruneOutcome>> = plan.items.iter().map(|_| None).collect();
        let (mut ledger, mut freed) = (inventory.ledger(), Freed::default());
        for at in order {
            let (Some(item), Some(place)) = (plan.items.get(at), outcomes.get_mut(at)) else { continue };
            if cancel.is_cancelled() {
                *place = Some(PruneOutcome::NotReached);
                continue;
            }
            let outcome = match applying.one(item).await {
                Ok(Ok(())) => {
                    if let Subject::Snapshot { id } = item.subject {
                        applying.gone.insert(id);
                    }
                    let item_freed = match (item.action, &item.subject) {
                        (Action::Delete, Subject::Cache { .. }) => item.freed,
                        (Action::Delete, _) => applying.count(item, &mut ledger),
                        _ => Freed::default(),
                    };
                    freed += item_freed;
                    PruneOutcome::Done(item_freed)
                }
                Ok(Err(why)) => PruneOutcome::Spared(why),
                Err(error) => PruneOutcome::Failed(error),
            };
            let added = audit.as_mut().map(|audit| audit.add(now(), &plan, item, &outcome));
            if let Some(Err(error)) = added {
                unaudited = Some(error);
            }
            sink.emit(PruneEvent::Item {
                id: item.subject.id(),
                name: item.name.clone(),
                action: item.action.as_str(),
                outcome: outcome.word(),
                detail: outcome.detail(),
            });
            *place = Some(outcome);
        }
        if let Some(error) = &unaudited {
            sink.emit(PruneEvent::Warning { message: format!("the audit is not whole: {error}") });
        }
        let measured_bytes = match self.engine.disk_usage().await {
            Ok(usage) => i64::try_from(inventory.layers_bytes)
                .ok()
                .zip(i64::try_from(usage.layers_bytes).ok())
                .map(|(before, after)| before - after),
            Err(error) => {
                let message = format!("what was freed could not be measured: {error}");
                sink.emit(PruneEvent::Warning { message });
                None
            }
        };
        let cancelled = outcomes.iter().flatten().any(|outcome| matches!(outcome, PruneOutcome::NotReached));
        Ok(PruneReport { plan, outcomes, freed, measured_bytes, cancelled, unaudited })
    }

    /// Takes the right to prune on an engine.
    fn lock(&self, endpoint: &str) -> Result<HostLock, ImageError> {
        let name = Sha256Digest::of(endpoint.as_bytes()).to_string();
        let path = self.state_dir.join("locks").join(format!("image-prune-{}", &name[..16]));
        let taken = HostLock::try_take(&path).map_err(|source| ImageError::Local { path, source })?;
        taken.ok_or_else(|| ImageError::Busy { endpoint: endpoint.to_owned() })
    }
}

/// Why an item is left alone.
type Spared = String;

struct Applying<'a> {
    bench: &'a ImageBench,
    inventory: &'a Inventory,
    deciding: Deciding<'a>,
    endpoint: &'a str,
    /// Snapshots that are away by now, or put aside.
    gone: BTreeSet<SnapshotId>,
}

impl Applying<'_> {
    /// Counts what an item has freed that is gone.
    fn count(&self, planned: &PlanItem, ledger: &mut super::Ledger<'_>) -> Freed {
        let found = self.deciding.find(planned, &self.gone);
        let image = found.and_then(|(item, _)| item.image.as_ref());
        image.map_or_else(Freed::default, |image| ledger.take(image.id, &image.layers))
    }

    /// Does what was planned for one item, unless something has changed.
    async fn one(&self, planned: &PlanItem) -> Result<Result<(), Spared>, ImageError> {
        if let Subject::Cache { id } = &planned.subject {
            let deleted = self.bench.engine.delete_cache_record(id).await?;
            return Ok(deleted.map(drop).ok_or_else(|| "it is in use, or gone".to_owned()));
        }
        let Some((item, guard)) = self.deciding.find(planned, &self.gone) else {
            return Ok(Err("it is gone".to_owned()));
        };
        if let Some(guard) = guard {
            return Ok(Err(guard.to_string()));
        }
        let is = seen(item);
        if is != planned.seen {
            let why = match () {
                () if is.image != planned.seen.image => "it has another image now",
                () if is.state != planned.seen.state => "its state has changed",
                () if is.used != planned.seen.used => "it was used meanwhile",
                () => "it has changed",
            };
            return Ok(Err(why.to_owned()));
        }
        match &planned.subject {
            Subject::Snapshot { id } => self.snapshot(*id, item, planned).await,
            Subject::Leftover { image } => self.leftover(*image, item).await,
            Subject::Foreign { .. } => Ok(Err("it is another store's".to_owned())),
            Subject::Cache { .. } => Ok(Ok(())),
        }
    }

    async fn snapshot(
        &self,
        id: SnapshotId,
        item: &Item,
        planned: &PlanItem,
    ) -> Result<Result<(), Spared>, ImageError> {
        let catalog = &self.bench.catalog;
        let Some(fresh) = catalog.load(id).await? else { return Ok(Err("it is gone".to_owned())) };
        let state = fresh.state();
        if Some(state) != planned.seen.state {
            return Ok(Err(format!("it is {state} by now")));
        }
        if fresh.marks.pinned && state != State::Removing {
            return Ok(Err("it was pinned meanwhile".to_owned()));
        }
        if state != State::Removing && self.is_held(id, &fresh.record.name).await? {
            return Ok(Err("a channel was moved to it meanwhile".to_owned()));
        }
        let reason = Some(format!("image prune: {}", planned.reason));
        let to = |state| StateEntry { reason: reason.clone(), ..StateEntry::to(state, now()) };
        if planned.action == Action::Deactivate {
            let counted = catalog.transition(id, &to(State::Inactive)).await?;
            return Ok(if counted { Ok(()) } else { Err("somebody else changed its state".to_owned()) });
        }
        let mine = item.snapshot().is_none_or(|facts| facts.elsewhere.is_empty());
        if let Some(why) = self.is_changed_here(item).await? {
            return Ok(Err(why));
        }
        if mine && state != State::Removing && !catalog.transition(id, &to(State::Removing)).await? {
            return Ok(Err("somebody else changed its state".to_owned()));
        }
        if let Some((image, tag)) = item.image.as_ref().and_then(|it| Some((it.id, it.tag.clone()?))) {
            self.bench.engine.untag(&tag).await?;
            let place = PlaceRecord {
                version: 1,
                engine: self.inventory.engine.clone(),
                endpoint: self.endpoint.to_owned(),
                image,
                tag,
                state: PlaceState::Gone,
                verified_at: now(),
                last_used: None,
            };
            catalog.add_place(id, &place).await?;
        }
        if mine {
            catalog.transition(id, &to(State::Removed)).await?;
        }
        Ok(Ok(()))
    }

    /// Returns whether a channel holds a snapshot, or would go back to it.
    async fn is_held(&self, id: SnapshotId, name: &crate::base::SnapshotName) -> Result<bool, ImageError> {
        let moves = self.bench.catalog.channel_moves(name, None).await?;
        let channels: BTreeSet<_> = moves.iter().map(|step| step.channel.clone()).collect();
        Ok(channels.into_iter().any(|channel| {
            let own: Vec<_> = moves.iter().filter(|step| step.channel == channel).cloned().collect();
            held(&own).into_iter().rev().take(2).any(|held| held == id)
        }))
    }

    /// Says what has changed on the engine since it was last looked at, if something has.
    async fn is_changed_here(&self, item: &Item) -> Result<Option<String>, ImageError> {
        let Some(image) = &item.image else { return Ok(None) };
        if let Some(tag) = &image.tag {
            let named = self.bench.engine.image(tag).await?;
            let ours = self.bench.store.to_string();
            if named.is_none_or(|it| it.id != image.id || it.labels.get("kiln.store") != Some(&ours)) {
                return Ok(Some(format!("`{tag}` names another image, or none, by now")));
            }
        }
        let containers = self.bench.engine.all_containers().await?;
        let user = containers.iter().find(|container| container.image == Some(image.id));
        Ok(user.map(|container| format!("the container `{}` holds it", container.name)))
    }

    async fn leftover(&self, id: ImageId, item: &Item) -> Result<Result<(), Spared>, ImageError> {
        let engine = &self.bench.engine;
        if let Some(why) = self.is_changed_here(item).await? {
            return Ok(Err(why));
        }
        if let Some(tag) = item.image.as_ref().and_then(|image| image.tag.clone()) {
            engine.untag(&tag).await?;
            return Ok(Ok(()));
        }
        let Some(fresh) = engine.image(&id.to_string()).await? else {
            return Ok(Err("it is gone".to_owned()));
        };
        if let Some(tag) = fresh.tags.first() {
            return Ok(Err(format!("`{tag}` names it by now")));
        }
        // By its id it would go although somebody names it at this moment; by a name of our own only when nobody does.
        let tag = format!("kiln/leftover:{}", SnapshotId::generate());
        engine.tag(&id, &tag).await?;
        engine.untag(&tag).await?;
        Ok(Ok(()))
    }
}
