//! Pruning: a policy says which revisions are kept, and the names of the others go. Their bytes stay until they are collected.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::list::{ListedRevision, RevisionSummary, list_or_fail};
use super::mark::{pins, touches};
use super::policy::{Candidate, CandidateRecord, KeepReason, PolicySet, Verdict, decide};
use super::remove::{WRITES, bury};
use crate::base::{RevisionId, Sink, WorkspaceName, now};
use crate::store::StoreError;
use crate::store::revision::{self, RevisionRef, tombstone_key};

/// Which workspaces are pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneScope {
    /// All that there are.
    All,
    /// These.
    Named(BTreeSet<WorkspaceName>),
}

/// A revision, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneItem {
    /// The revision.
    pub revision: RevisionRef,
    /// What its record says, where it can be read.
    pub record: Option<RevisionSummary>,
    /// What is to become of it.
    pub verdict: Verdict,
}

/// What a pruning would do: every revision that was looked at, sorted by workspace and id.
#[derive(Debug)]
pub struct PrunePlan {
    items: Vec<PruneItem>,
}

impl PrunePlan {
    /// Returns the revisions, those included that are kept.
    #[must_use]
    pub fn items(&self) -> &[PruneItem] {
        &self.items
    }
}

/// What became of a revision that was to be removed.
#[derive(Debug)]
pub enum PruneOutcome {
    /// It is removed.
    Removed,
    /// Somebody else removed it meanwhile.
    Gone,
    /// It stays, because something changed since the plan was made.
    Spared {
        /// What.
        why: &'static str,
    },
    /// It is removed, and was pinned at the same moment. Who pinned it was told; `undo` brings it back.
    RemovedThoughPinned,
    /// It could not be removed.
    Failed(StoreError),
}

/// What a pruning did.
#[derive(Debug)]
pub struct PruneReport {
    /// Every revision of the plan, and what became of it where it was to be removed.
    pub items: Vec<(PruneItem, Option<PruneOutcome>)>,
    /// Why it could not be looked whether some of them were pinned at the same moment.
    pub unsure: Option<WorkspaceError>,
}

impl PruneReport {
    /// Returns how many revisions were removed.
    #[must_use]
    pub fn removed(&self) -> usize {
        self.count(|outcome| matches!(outcome, PruneOutcome::Removed | PruneOutcome::RemovedThoughPinned))
    }

    /// Returns how many ended as nobody wanted: they could not be removed, or were pinned at the same moment.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, PruneOutcome::Failed(_) | PruneOutcome::RemovedThoughPinned))
    }

    fn count(&self, is_such: impl Fn(&PruneOutcome) -> bool) -> usize {
        self.items
            .iter()
            .filter_map(|(_, outcome)| outcome.as_ref())
            .filter(|outcome| is_such(outcome))
            .count()
    }
}

/// Looks at revisions and decides which of them go. Changes nothing. Reads every record once, sixteen at a time, and where a policy
/// asks for uses the notes of those.
///
/// # Errors
///
/// Fails where a workspace that is named has no revision, and where the store does not answer. A damaged record is no error: its
/// revision is kept.
pub async fn plan_prune(
    depot: &Depot,
    scope: &PruneScope,
    policies: &PolicySet,
    now: Timestamp,
    sink: &dyn Sink<WorkspaceEvent>,
) -> Result<PrunePlan, WorkspaceError> {
    sink.emit(WorkspaceEvent::Step { name: "reading records" });
    let mut listed = Vec::new();
    match scope {
        PruneScope::All => listed = list_or_fail(depot, None).await?,
        PruneScope::Named(names) => {
            for name in names {
                let mut found = list_or_fail(depot, Some(name)).await?;
                if found.is_empty() {
                    return Err(WorkspaceError::NotFound {
                        what: "workspace",
                        name: name.to_string(),
                        nearest: None,
                    });
                }
                listed.append(&mut found);
            }
        }
    }
    let mut uses = BTreeMap::new();
    if policies.asks_for_uses() {
        sink.emit(WorkspaceEvent::Step { name: "reading when revisions were used" });
        let asked: BTreeSet<&WorkspaceName> = listed.iter().map(|it| &it.revision.workspace).collect();
        uses = match (scope, asked.first()) {
            (PruneScope::Named(_), Some(only)) if asked.len() == 1 => touches(depot, Some(only)).await?,
            (_, _) => touches(depot, None).await?,
        };
    }
    Ok(PrunePlan { items: decide_all(listed, &uses, policies, now) })
}

/// Decides workspace by workspace; `listed` is sorted by workspace.
fn decide_all(
    listed: Vec<ListedRevision>,
    uses: &BTreeMap<(WorkspaceName, RevisionId), Timestamp>,
    policies: &PolicySet,
    now: Timestamp,
) -> Vec<PruneItem> {
    let mut verdicts = Vec::with_capacity(listed.len());
    for of_one in listed.chunk_by(|one, next| one.revision.workspace == next.revision.workspace) {
        let policy = of_one.first().and_then(|first| policies.of(&first.revision.workspace));
        let Some(policy) = policy else {
            verdicts.extend(of_one.iter().map(|_| Verdict::Keep(vec![KeepReason::NoPolicy])));
            continue;
        };
        let candidates: Vec<Candidate> = of_one
            .iter()
            .map(|ListedRevision { revision, pin, record }| Candidate {
                id: revision.id,
                is_pinned: pin.is_some(),
                used: uses.get(&(revision.workspace.clone(), revision.id)).copied(),
                record: record
                    .as_ref()
                    .ok()
                    .map(|record| CandidateRecord { saved: record.created, labels: record.labels.clone() }),
            })
            .collect();
        verdicts.extend(decide(policy, &candidates, now));
    }
    let item = |(listed, verdict): (ListedRevision, Verdict)| PruneItem {
        revision: listed.revision,
        record: listed.record.ok(),
        verdict,
    };
    listed.into_iter().zip(verdicts).map(item).collect()
}

/// Removes what a plan says. Each is looked at again first: what was pinned meanwhile stays, and so do revisions of a workspace whose
/// newest one, which was to stay, is gone. One that cannot be removed hides no other.
///
/// The tombstone is the commit point of each: after a crash, or when `cancel` is cancelled, those that have one are removed and the
/// others are not.
///
/// # Errors
///
/// Fails where the store does not answer before anything is removed, and when `cancel` is cancelled.
pub async fn prune(
    depot: &Depot,
    plan: PrunePlan,
    sink: &dyn Sink<WorkspaceEvent>,
    cancel: &CancellationToken,
) -> Result<PruneReport, WorkspaceError> {
    let doomed: Vec<RevisionRef> = plan
        .items
        .iter()
        .filter(|item| matches!(item.verdict, Verdict::Remove(_)))
        .map(|item| item.revision.clone())
        .collect();
    let (mut outcomes, mut unsure) = (BTreeMap::new(), None);
    if !doomed.is_empty() {
        sink.emit(WorkspaceEvent::Step { name: "removing" });
        let only = only_workspace(&doomed).cloned();
        let still_safe = look_again(depot, &plan, doomed, only.as_ref(), &mut outcomes).await?;
        let at = now();
        let mut burying = stream::iter(still_safe)
            .map(|revision| async move {
                if cancel.is_cancelled() {
                    return None;
                }
                let buried = match bury(depot, &revision, at).await {
                    // What the store does not acknowledge may be there all the same.
                    Err(error) if !is_buried(depot, &revision).await => PruneOutcome::Failed(error),
                    Ok(()) | Err(_) => PruneOutcome::Removed,
                };
                Some((revision, buried))
            })
            .buffer_unordered(WRITES);
        while let Some(buried) = burying.next().await {
            let Some((revision, outcome)) = buried else { return Err(WorkspaceError::Cancelled) };
            outcomes.insert(revision, outcome);
        }
        drop(burying);
        // Whoever pins at the same time looks for the tombstone after the pin is written, so that one of the two is told.
        match pins(depot, only.as_ref()).await {
            Ok(pins) => {
                for (revision, outcome) in &mut outcomes {
                    let is_pinned = pins.contains_key(&(revision.workspace.clone(), revision.id));
                    if is_pinned && matches!(outcome, PruneOutcome::Removed) {
                        *outcome = PruneOutcome::RemovedThoughPinned;
                    }
                }
            }
            Err(error) => unsure = Some(error),
        }
    }
    let with_outcome = |item: PruneItem| {
        let outcome = outcomes.remove(&item.revision);
        (item, outcome)
    };
    Ok(PruneReport { items: plan.items.into_iter().map(with_outcome).collect(), unsure })
}

/// Looks whether a revision has a tombstone.
async fn is_buried(depot: &Depot, revision: &RevisionRef) -> bool {
    let Ok(key) = tombstone_key(revision) else { return false };
    matches!(depot.objects.get(&key).await, Ok(Some(_)))
}

/// Returns what may be removed still; the outcomes of the rest are noted.
async fn look_again(
    depot: &Depot,
    plan: &PrunePlan,
    doomed: Vec<RevisionRef>,
    only: Option<&WorkspaceName>,
    outcomes: &mut BTreeMap<RevisionRef, PruneOutcome>,
) -> Result<Vec<RevisionRef>, WorkspaceError> {
    let there: BTreeSet<RevisionRef> = revision::list(&*depot.objects, only).await?.into_iter().collect();
    let pins = pins(depot, only).await?;
    let headless: BTreeSet<&WorkspaceName> = plan
        .items
        .iter()
        .filter(|item| {
            let is_newest =
                matches!(&item.verdict, Verdict::Keep(reasons) if reasons.contains(&KeepReason::Newest));
            is_newest && !there.contains(&item.revision)
        })
        .map(|item| &item.revision.workspace)
        .collect();
    let mut safe = Vec::with_capacity(doomed.len());
    for revision in doomed {
        let outcome = if !there.contains(&revision) {
            PruneOutcome::Gone
        } else if pins.contains_key(&(revision.workspace.clone(), revision.id)) {
            PruneOutcome::Spared { why: "it was pinned meanwhile" }
        } else if headless.contains(&revision.workspace) {
            PruneOutcome::Spared { why: "the newest revision of its workspace was removed meanwhile" }
        } else {
            safe.push(revision);
            continue;
        };
        outcomes.insert(revision, outcome);
    }
    Ok(safe)
}

/// Returns the workspace of all of these, where it is one.
fn only_workspace(revisions: &[RevisionRef]) -> Option<&WorkspaceName> {
    let first = &revisions.first()?.workspace;
    revisions.iter().all(|revision| revision.workspace == *first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify as _, Discard, ErrorKind};
    use crate::workspace::policy::{PrunePolicy, PruneRules};
    use crate::workspace::tests::Place;
    use crate::workspace::{SaveSpec, Selection, pin, remove, undo};

    fn last(count: u32) -> PolicySet {
        let rules = PruneRules { keep_last: std::num::NonZeroU32::new(count), ..PruneRules::default() };
        PolicySet::same(PrunePolicy::new(rules).unwrap()).unwrap()
    }

    async fn a_history(place: &Place, saves: usize) -> Vec<RevisionRef> {
        place.write("tree/a", "12345");
        for _ in 0..saves {
            place.save("tree").await;
        }
        revision::list(&*place.depot.objects, None).await.unwrap()
    }

    async fn planned(place: &Place, policies: &PolicySet) -> PrunePlan {
        plan_prune(&place.depot, &PruneScope::All, policies, now(), &Discard).await.unwrap()
    }

    fn doomed(plan: &PrunePlan) -> Vec<RevisionId> {
        let doomed = plan.items().iter().filter(|item| matches!(item.verdict, Verdict::Remove(_)));
        doomed.map(|item| item.revision.id).collect()
    }

    async fn left(place: &Place) -> Vec<RevisionId> {
        let left = revision::list(&*place.depot.objects, None).await.unwrap();
        left.into_iter().map(|revision| revision.id).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_plan_changes_nothing_and_a_pruning_does_what_it_says() {
        let place = Place::new();
        let saved = a_history(&place, 4).await;
        pin(&place.depot, &saved[0], "first").await.unwrap();
        let plan = planned(&place, &last(2)).await;
        assert_eq!(plan.items().len(), 4);
        assert_eq!(plan.items()[1].record.as_ref().unwrap().counts.bytes, 5);
        assert_eq!(doomed(&plan), [saved[1].id]);
        assert_eq!(left(&place).await.len(), 4);
        let report = prune(&place.depot, plan, &Discard, &CancellationToken::new()).await.unwrap();
        assert_eq!((report.removed(), report.failed(), report.items.len()), (1, 0, 4));
        assert_eq!(left(&place).await, [saved[0].id, saved[2].id, saved[3].id]);
        assert!(doomed(&planned(&place, &last(2)).await).is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_changes_between_plan_and_pruning_is_seen() {
        let place = Place::new();
        let saved = a_history(&place, 4).await;
        let plan = planned(&place, &last(1)).await;
        pin(&place.depot, &saved[0], "kept").await.unwrap();
        remove(&place.depot, &Selection::One(saved[1].clone())).await.unwrap();
        let report = prune(&place.depot, plan, &Discard, &CancellationToken::new()).await.unwrap();
        let outcomes: Vec<_> = report.items.iter().map(|(_, outcome)| outcome).collect();
        assert!(matches!(
            outcomes.as_slice(),
            [Some(PruneOutcome::Spared { .. }), Some(PruneOutcome::Gone), Some(PruneOutcome::Removed), None]
        ));
        assert_eq!(left(&place).await, [saved[0].id, saved[3].id]);
    }

    /// A pruning that ran beside the removal of the newest revision left a workspace without any.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_workspace_does_not_lose_its_last_revision_to_a_pruning() {
        let place = Place::new();
        let saved = a_history(&place, 3).await;
        let plan = planned(&place, &last(1)).await;
        remove(&place.depot, &Selection::One(saved[2].clone())).await.unwrap();
        let report = prune(&place.depot, plan, &Discard, &CancellationToken::new()).await.unwrap();
        assert_eq!(report.removed(), 0);
        assert_eq!(left(&place).await, [saved[0].id, saved[1].id]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_record_is_kept_and_one_workspace_does_not_count_for_another() {
        let place = Place::new();
        let saved = a_history(&place, 3).await;
        let spec = SaveSpec::new("other".parse().unwrap());
        place.try_save("tree", &spec).await.unwrap();
        place.depot.objects.put(&saved[1].key().unwrap(), "{".into()).await.unwrap();
        let plan = planned(&place, &last(1)).await;
        assert_eq!(doomed(&plan), [saved[0].id]);
        let only = PruneScope::Named(["other".parse().unwrap()].into());
        let plan = plan_prune(&place.depot, &only, &last(1), now(), &Discard).await.unwrap();
        assert_eq!((plan.items().len(), doomed(&plan).len()), (1, 0));
        let none = PruneScope::Named(["none".parse().unwrap()].into());
        let error = plan_prune(&place.depot, &none, &last(1), now(), &Discard).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_workspace_without_a_policy_keeps_everything() {
        let place = Place::new();
        a_history(&place, 3).await;
        let plan = planned(&place, &PolicySet::of_config(&[]).unwrap()).await;
        assert!(plan.items().iter().all(|item| item.verdict == Verdict::Keep(vec![KeepReason::NoPolicy])));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_restored_lately_is_used() {
        let place = Place::new();
        let saved = a_history(&place, 3).await;
        crate::workspace::touch(&place.depot, &saved[0]).await;
        let rules = PruneRules { unused_for: Some("1d".parse().unwrap()), ..PruneRules::default() };
        let policies = PolicySet::same(PrunePolicy::new(rules).unwrap()).unwrap();
        let used_at = now();
        let later = used_at.checked_add(jiff::SignedDuration::from_hours(25)).unwrap();
        assert!(doomed(&planned(&place, &policies).await).is_empty());
        let key = format!("touch/w/{}", saved[0].id).as_str().to_owned();
        let key = crate::objects::Key::new(key).unwrap();
        let touched = later.checked_sub(jiff::SignedDuration::from_hours(1)).unwrap();
        let record = format!("{{\"version\":1,\"touched\":\"{touched}\"}}");
        place.depot.objects.put(&key, record.into()).await.unwrap();
        let plan = plan_prune(&place.depot, &PruneScope::All, &policies, later, &Discard).await.unwrap();
        assert_eq!(doomed(&plan), [saved[1].id]);
        // A note that cannot be understood is a use.
        place.depot.objects.put(&key, "{".into()).await.unwrap();
        let plan = plan_prune(&place.depot, &PruneScope::All, &policies, later, &Discard).await.unwrap();
        assert_eq!(doomed(&plan), [saved[1].id]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_pruned_can_be_brought_back() {
        let place = Place::new();
        let saved = a_history(&place, 2).await;
        let plan = planned(&place, &last(1)).await;
        prune(&place.depot, plan, &Discard, &CancellationToken::new()).await.unwrap();
        let report = undo(&place.depot, &saved[0]).await.unwrap();
        assert_eq!(left(&place).await, [saved[1].id, report.revision]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cancelled_pruning_removes_nothing_more() {
        let place = Place::new();
        a_history(&place, 3).await;
        let plan = planned(&place, &last(1)).await;
        let cancel = CancellationToken::new();
        cancel.cancel();
        let error = prune(&place.depot, plan, &Discard, &cancel).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(left(&place).await.len(), 3);
    }
}
