//! Which images go, and why. Pure: what is there goes in, an action with its reason for each item comes out.
//!
//! Guards first, in this order; the first that holds is the reason: outside the names asked for, in work, used by a container, pinned,
//! held by a channel, below something kept, younger than the least age, among the last N of its name. Then what is revoked, expired
//! or left over goes; what is older than the most age, or was not used for long; and, where no other rule takes anything, what is
//! over the last N. Then, while there is not enough room, the least recently used.
//!
//! What goes is put aside first; its image is deleted once it has been aside for the grace. What other engines have as well is deleted
//! here at once, since its record stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use super::inventory::{Hold, ImageFacts, Inventory, Item, SnapshotFacts, Whose};
use super::pressure::{self, Need};
use super::{Action, Freed, ImageError, Plan, PlanItem, Seen, Subject, Totals, cache};
use crate::base::config::ImageRules;
use crate::base::{ByteSize, ChannelName, Length, SnapshotId};
use crate::catalog::State;

/// Rules that can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePolicy(ImageRules);

impl ImagePolicy {
    /// Makes a policy.
    ///
    /// # Errors
    ///
    /// Fails where no rule takes anything, and where rules contradict each other.
    pub fn new(rules: ImageRules) -> Result<Self, ImageError> {
        match rules.contradiction() {
            Some(reason) => Err(ImageError::Policy { reason }),
            None => Ok(Self(rules)),
        }
    }

    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &ImageRules {
        &self.0
    }
}

/// What protects an item, whatever the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Its name is not among those asked for.
    Name,
    /// It is being baked.
    InWork,
    /// These containers hold its image.
    Containers(Vec<String>),
    /// It is pinned.
    Pinned,
    /// A channel holds it.
    Channel(ChannelName, Hold),
    /// This snapshot stands on it, and stays.
    Parent(SnapshotId),
    /// It is younger.
    MinAge(Length),
    /// It is one of the newest so many of its name.
    Last(u32),
    /// Somebody gave the image other references.
    NamedOtherwise(String),
    /// Other engines have its image, and its removal ends there.
    EndsElsewhere,
}

impl Guard {
    /// Returns one word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::InWork => "in_work",
            Self::Containers(_) => "container",
            Self::Pinned => "pinned",
            Self::Channel(..) => "channel",
            Self::Parent(_) => "parent",
            Self::MinAge(_) => "min_age",
            Self::Last(_) => "keep_last",
            Self::NamedOtherwise(_) => "named_otherwise",
            Self::EndsElsewhere => "elsewhere",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not one of the names asked for"),
            Self::InWork => f.write_str("being baked"),
            Self::Containers(names) => match names.as_slice() {
                [name] => write!(f, "the container `{name}` holds it"),
                names => write!(f, "{} containers hold it", names.len()),
            },
            Self::Pinned => f.write_str("pinned"),
            Self::Channel(channel, Hold::Present) => write!(f, "the channel `{channel}` holds it"),
            Self::Channel(channel, Hold::Previous) => {
                write!(f, "the channel `{channel}` would go back to it")
            }
            Self::Parent(child) => write!(f, "{} is baked on it", child.short()),
            Self::MinAge(length) => write!(f, "younger than {length}"),
            Self::Last(1) => f.write_str("the newest of its name"),
            Self::Last(count) => write!(f, "one of the last {count} of its name"),
            Self::NamedOtherwise(reference) => write!(f, "`{reference}` names it"),
            Self::EndsElsewhere => f.write_str("being removed; other engines still have its image"),
        }
    }
}

/// Why an unguarded item stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// No rule takes it.
    NoRule,
    /// It would go if it had not been used for so long; and nobody watched, which counts as use.
    Unwatched,
    /// Its image is not on the engine.
    Vanished,
}

impl Keep {
    /// Returns one word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::Unwatched => "unwatched",
            Self::Vanished => "vanished",
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no rule takes it",
            Self::Unwatched => {
                "nobody watched the engine, which counts as use; --trust-created goes by the records alone"
            }
            Self::Vanished => "its image is not on this engine",
        })
    }
}

/// Why an item goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Its removal was begun.
    Unfinished,
    /// It is revoked, for this reason.
    Revoked(Option<String>),
    /// It was needed until then.
    Expired(Timestamp),
    /// Its bake failed.
    Failed,
    /// It is no snapshot's.
    Leftover,
    /// It is older.
    MaxAge(Length),
    /// It was last used then.
    Unused(Timestamp),
    /// So many newer ones of its name are kept.
    OverLast(u32),
    /// This store's images take more than this.
    MaxTotal(ByteSize),
    /// More of the disk is in use than so many percent.
    Watermark(u8),
    /// Less of the disk is free than this.
    MinFree(ByteSize),
}

impl Rule {
    /// Returns one word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Revoked(_) => "revoked",
            Self::Expired(_) => "expired",
            Self::Failed => "failed",
            Self::Leftover => "leftover",
            Self::MaxAge(_) => "max_age",
            Self::Unused(_) => "unused",
            Self::OverLast(_) => "over_keep_last",
            Self::MaxTotal(_) => "max_total",
            Self::Watermark(_) => "watermark",
            Self::MinFree(_) => "min_free",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("its removal was begun"),
            Self::Revoked(Some(reason)) => write!(f, "revoked: {reason}"),
            Self::Revoked(None) => f.write_str("revoked"),
            Self::Expired(at) => write!(f, "expired on {}", at.strftime("%Y-%m-%d")),
            Self::Failed => f.write_str("its bake failed"),
            Self::Leftover => f.write_str("no snapshot has this image"),
            Self::MaxAge(length) => write!(f, "older than {length}"),
            Self::Unused(since) => write!(f, "unused since {}", since.strftime("%Y-%m-%d")),
            Self::OverLast(count) => write!(f, "not one of the last {count} of its name"),
            Self::MaxTotal(most) => write!(f, "least recently used; the images take more than {most}"),
            Self::Watermark(high) => {
                write!(f, "least recently used; more than {high} % of the disk is in use")
            }
            Self::MinFree(least) => {
                write!(
                    f,
                    "least recently used; less than {least} of the disk is free, so the grace is waived"
                )
            }
        }
    }
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A guard holds it.
    Guarded(Guard),
    /// Nothing takes it.
    Kept(Keep),
    /// A rule takes it.
    Goes(Rule),
    /// Another store's.
    Foreign(String),
}

/// What the deciding knows of an item.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) item: &'a Item,
    /// When it was last used by the records, that of what stands on it included.
    pub(super) used: Timestamp,
    /// How many snapshots stand between it and the first one below: what stands on most goes first.
    depth: usize,
}

impl<'a> Candidate<'a> {
    fn id(&self) -> Option<SnapshotId> {
        self.item.snapshot().map(|facts| facts.id)
    }

    pub(super) fn image(&self) -> Option<&'a ImageFacts> {
        self.item.image.as_ref()
    }

    /// The order in which items go when there is no room: least recently used first, what stands on another before that, then older
    /// before newer.
    pub(super) fn turn(&self) -> impl Ord + use<'a> {
        let created = created(self.item);
        (self.used, std::cmp::Reverse(self.depth), created, self.id(), self.image().map(|image| image.id))
    }
}

/// Returns when an item was made.
fn created(item: &Item) -> Option<Timestamp> {
    match item.snapshot() {
        Some(facts) => Some(facts.created),
        None => item.image.as_ref().and_then(|image| image.created),
    }
}

/// Returns whether `at` is at least `length` before `now`; a time that is still to come is not.
fn is_past(at: Timestamp, length: Length, now: Timestamp) -> bool {
    let age = now.duration_since(at);
    !age.is_negative() && age.unsigned_abs() >= length.0
}

/// Returns whether rules are for a name.
fn is_asked_for(rules: &ImageRules, name: &str) -> bool {
    let fits = |patterns: &[crate::base::NamePattern]| patterns.iter().any(|pattern| pattern.fits(name));
    (rules.name.is_empty() || fits(&rules.name)) && !fits(&rules.not_name)
}

/// Decides on every item of an inventory. `now` is when; nothing is read, and nothing is done.
///
/// # Errors
///
/// Fails where the policy asks for the engine's disk and that could not be seen.
pub fn decide(inventory: &Inventory, policy: &ImagePolicy, now: Timestamp) -> Result<Plan, ImageError> {
    let rules = policy.rules();
    if rules.asks_for_disk() && inventory.disk.is_none() {
        return Err(ImageError::DiskUnseen { endpoint: inventory.endpoint.clone() });
    }
    let deciding = Deciding::new(inventory, rules, now);
    let mut verdicts = deciding.by_rules();
    let cache = cache::decide(&inventory.cache, rules, now);
    let cache_bytes: u64 = cache.iter().map(|record| record.size_bytes).sum();

    // What goes anyway counts before anything is taken for room.
    let mut ledger = inventory.ledger();
    let mut going = Freed::default();
    for candidate in deciding.in_turn() {
        if matches!(verdicts.get(candidate), Some(Verdict::Goes(_)))
            && let Some(image) = deciding.image(candidate)
        {
            going += ledger.take(image.id, &image.layers);
        }
    }
    let mut missing_bytes = 0;
    if let Some(need) = Need::of(rules, inventory, going, cache_bytes) {
        let row = deciding.row(&verdicts, |verdict| matches!(verdict, Verdict::Kept(_)));
        let (taken, left) = pressure::take(need.bytes, &row, |at| {
            deciding.image(at).map_or(0, |image| ledger.take(image.id, &image.layers).with_cache_bytes)
        });
        missing_bytes = left;
        for at in taken {
            if let Some(verdict) = verdicts.get_mut(at) {
                *verdict = Verdict::Goes(need.rule.clone());
            }
        }
    }
    let mut actions: Vec<Action> =
        verdicts.iter().enumerate().map(|(at, verdict)| deciding.action(at, verdict)).collect();
    if let Some(need) = Need::at_once(rules, inventory) {
        let mut ledger = inventory.ledger();
        let mut freed = cache_bytes;
        for at in deciding.in_turn() {
            if actions.get(at) == Some(&Action::Delete)
                && let Some(image) = deciding.image(at)
            {
                freed = freed.saturating_add(ledger.take(image.id, &image.layers).with_cache_bytes);
            }
        }
        let mut row =
            deciding.row(&verdicts, |verdict| matches!(verdict, Verdict::Kept(_) | Verdict::Goes(_)));
        row.retain(|at| actions.get(*at) != Some(&Action::Delete));
        let (taken, left) = pressure::take(need.bytes.saturating_sub(freed), &row, |at| {
            deciding.image(at).map_or(0, |image| ledger.take(image.id, &image.layers).with_cache_bytes)
        });
        missing_bytes = missing_bytes.max(left);
        for at in taken {
            if let (Some(verdict), Some(action)) = (verdicts.get_mut(at), actions.get_mut(at)) {
                *verdict = Verdict::Goes(need.rule.clone());
                *action = Action::Delete;
            }
        }
    }
    let mut plan = deciding.plan(&verdicts, &actions);
    plan.totals.missing_bytes = missing_bytes;
    for record in cache {
        let freed = Freed { now_bytes: record.size_bytes, with_cache_bytes: record.size_bytes };
        plan.totals.freed += freed;
        let turn = plan.items.len();
        plan.items.push(cache::item(record, rules, freed, turn));
    }
    Ok(plan)
}

/// What deciding works on.
pub(super) struct Deciding<'a> {
    inventory: &'a Inventory,
    rules: &'a ImageRules,
    now: Timestamp,
    candidates: Vec<Candidate<'a>>,
    /// The rank of a snapshot among those of its name, the newest first.
    ranks: BTreeMap<SnapshotId, u32>,
    children: BTreeMap<SnapshotId, Vec<SnapshotId>>,
}

impl<'a> Deciding<'a> {
    pub(super) fn new(inventory: &'a Inventory, rules: &'a ImageRules, now: Timestamp) -> Self {
        let depths = depths(&inventory.parents);
        let mut candidates: Vec<Candidate<'a>> = inventory
            .items
            .iter()
            .map(|item| Candidate {
                item,
                used: item.snapshot().map_or_else(|| created(item).unwrap_or(now), |facts| facts.used),
                depth: item.snapshot().and_then(|facts| depths.get(&facts.id)).copied().unwrap_or(0),
            })
            .collect();
        // Whoever uses a snapshot uses what it stands on.
        let mut used: BTreeMap<SnapshotId, Timestamp> = BTreeMap::new();
        let mut deepest_first: Vec<usize> = (0..candidates.len()).collect();
        deepest_first.sort_by_key(|at| std::cmp::Reverse(candidates.get(*at).map(|it| it.depth)));
        for at in deepest_first {
            let Some(candidate) = candidates.get_mut(at) else { continue };
            let Some(id) = candidate.id() else { continue };
            if let Some(above) = used.get(&id) {
                candidate.used = candidate.used.max(*above);
            }
            if let Some(parent) = inventory.parents.get(&id) {
                let latest = used.entry(*parent).or_insert(candidate.used);
                *latest = (*latest).max(candidate.used);
            }
        }
        let mut children: BTreeMap<SnapshotId, Vec<SnapshotId>> = BTreeMap::new();
        for (child, parent) in &inventory.parents {
            children.entry(*parent).or_default().push(*child);
        }
        Self { inventory, rules, now, candidates, ranks: ranks(&inventory.items), children }
    }

    /// Returns the item that a plan's item was made of, and what guards it now where `gone` are snapshots that are away already.
    pub(super) fn find(
        &self,
        planned: &PlanItem,
        gone: &BTreeSet<SnapshotId>,
    ) -> Option<(&'a Item, Option<Guard>)> {
        let is_it = |candidate: &Candidate<'_>| {
            let same = subject(candidate.item) == planned.subject;
            same && candidate.image().and_then(|image| image.tag.as_ref()) == planned.seen.tag.as_ref()
        };
        let at = self.candidates.iter().position(is_it)?;
        Some((self.candidates.get(at)?.item, self.guard(at, &|id| !gone.contains(id))))
    }

    fn image(&self, at: usize) -> Option<&'a ImageFacts> {
        self.candidates.get(at).and_then(Candidate::image)
    }

    /// Returns the items in the order in which they go: by last use, and nothing before what stands on it.
    fn in_turn(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by_key(|at| self.candidates.get(*at).map(Candidate::turn));
        order
    }

    /// Returns the images that may go for room, the least recently used first: those that `may` says, and what nothing guards but
    /// such as stand on it, whose turn comes before.
    fn row(&self, verdicts: &[Verdict], may: impl Fn(&Verdict) -> bool) -> Vec<usize> {
        let mut row = self.in_turn();
        row.retain(|at| {
            self.image(*at).is_some()
                && verdicts.get(*at).is_some_and(|verdict| match verdict {
                    Verdict::Guarded(Guard::Parent(_)) => self.stands_below_free(*at),
                    verdict => may(verdict),
                })
        });
        row
    }

    /// Decides by guards and by the rules that look at one snapshot, or one name.
    fn by_rules(&self) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Kept(Keep::NoRule); self.candidates.len()];
        let mut going: BTreeSet<SnapshotId> = BTreeSet::new();
        let mut deepest_first: Vec<usize> = (0..self.candidates.len()).collect();
        deepest_first.sort_by_key(|at| std::cmp::Reverse(self.candidates.get(*at).map(|it| it.depth)));
        for at in deepest_first {
            let verdict = self.verdict(at, &going);
            if let (Verdict::Goes(_), Some(id)) = (&verdict, self.candidates.get(at).and_then(Candidate::id))
            {
                going.insert(id);
            }
            if let Some(place) = verdicts.get_mut(at) {
                *place = verdict;
            }
        }
        verdicts
    }

    fn verdict(&self, at: usize, going: &BTreeSet<SnapshotId>) -> Verdict {
        let Some(candidate) = self.candidates.get(at) else { return Verdict::Kept(Keep::NoRule) };
        if let Whose::Foreign { store } = &candidate.item.whose {
            return Verdict::Foreign(store.clone());
        }
        if let Some(guard) = self.guard(at, &|id| !going.contains(id)) {
            return Verdict::Guarded(guard);
        }
        self.unguarded(at)
    }

    /// Returns whether everything that stands on a snapshot may go for room, all the way up.
    fn stands_below_free(&self, at: usize) -> bool {
        let nobody = |_: &SnapshotId| false;
        let Some(id) = self.candidates.get(at).and_then(Candidate::id) else { return false };
        if self.guard(at, &nobody).is_some() {
            return false;
        }
        let children = self.children.get(&id).map_or(&[][..], Vec::as_slice);
        children.iter().all(|child| {
            let here = self.candidates.iter().position(|other| other.id() == Some(*child));
            // Deeper each time, so that a record which claims a circle ends.
            let depth = |at: usize| self.candidates.get(at).map(|candidate| candidate.depth);
            here.is_some_and(|child| {
                depth(child) > depth(at) && self.image(child).is_some() && self.stands_below_free(child)
            })
        })
    }

    /// Returns the first guard that holds an item; `stays` says which snapshots stay.
    fn guard(&self, at: usize, stays: &dyn Fn(&SnapshotId) -> bool) -> Option<Guard> {
        let candidate = self.candidates.get(at)?;
        let (item, rules) = (candidate.item, self.rules);
        let facts = match &item.whose {
            Whose::Snapshot(facts) => Some(&**facts),
            Whose::Leftover { in_work: Some(_) } => return Some(Guard::InWork),
            Whose::Leftover { in_work: None } | Whose::Foreign { .. } => None,
        };
        if !is_asked_for(rules, &item.name) {
            return Some(Guard::Name);
        }
        if facts.is_some_and(|facts| facts.state.in_work()) {
            return Some(Guard::InWork);
        }
        if let Some(image) = item.image.as_ref().filter(|image| !image.containers.is_empty()) {
            return Some(Guard::Containers(image.containers.clone()));
        }
        if facts.is_some_and(|facts| facts.state == State::Removing) {
            // Somebody has decided; what is left of it protects nobody.
            let ends_elsewhere =
                item.image.is_none() && facts.is_some_and(|facts| !facts.elsewhere.is_empty());
            return ends_elsewhere.then_some(Guard::EndsElsewhere);
        }
        if facts.is_some_and(|facts| facts.pinned) {
            return Some(Guard::Pinned);
        }
        if let Some((channel, hold)) =
            facts.and_then(|facts| facts.channels.iter().min_by_key(|(_, hold)| *hold))
        {
            return Some(Guard::Channel(channel.clone(), *hold));
        }
        let children = facts.and_then(|facts| self.children.get(&facts.id));
        if let Some(child) = children.and_then(|children| children.iter().find(|child| stays(child))) {
            return Some(Guard::Parent(*child));
        }
        if created(item).is_none_or(|created| !is_past(created, rules.min_age(), self.now)) {
            return Some(Guard::MinAge(rules.min_age()));
        }
        if let Some(count) = rules.keep_last
            && let Some(rank) = facts.and_then(|facts| self.ranks.get(&facts.id))
            && *rank < count.get()
        {
            return Some(Guard::Last(count.get()));
        }
        let nameless = item.image.as_ref().filter(|image| image.tag.is_none());
        nameless.and_then(|image| image.beside.first()).map(|other| Guard::NamedOtherwise(other.clone()))
    }

    /// Says which rule takes an unguarded item.
    fn unguarded(&self, at: usize) -> Verdict {
        let Some(candidate) = self.candidates.get(at) else { return Verdict::Kept(Keep::NoRule) };
        let Some(facts) = candidate.item.snapshot() else { return Verdict::Goes(Rule::Leftover) };
        match facts.state {
            State::Removing => return Verdict::Goes(Rule::Unfinished),
            _ if candidate.item.image.is_none() => return Verdict::Kept(Keep::Vanished),
            State::Revoked => return Verdict::Goes(Rule::Revoked(facts.reason.clone())),
            State::Error => return Verdict::Goes(Rule::Failed),
            State::Building
            | State::Checking
            | State::Active
            | State::Unchecked
            | State::Inactive
            | State::Removed => {}
        }
        if let Some(at) = facts.expires.filter(|at| *at <= self.now) {
            return Verdict::Goes(Rule::Expired(at));
        }
        if let Some(length) = self.rules.max_age.filter(|length| is_past(facts.created, *length, self.now)) {
            return Verdict::Goes(Rule::MaxAge(length));
        }
        if let Some(length) = self.rules.unused_for
            && is_past(candidate.used, length, self.now)
        {
            // What happened while nobody watched is not known, and may have been a use.
            let watched = self.rules.trust_created
                || self.inventory.watched_since.is_some_and(|since| is_past(since, length, self.now));
            return if watched {
                Verdict::Goes(Rule::Unused(candidate.used))
            } else {
                Verdict::Kept(Keep::Unwatched)
            };
        }
        match self.rules.keep_last {
            Some(count) if !self.rules.takes_by_itself() => Verdict::Goes(Rule::OverLast(count.get())),
            Some(_) | None => Verdict::Kept(Keep::NoRule),
        }
    }

    /// Says what is done to an item now: what goes is put aside first.
    fn action(&self, at: usize, verdict: &Verdict) -> Action {
        match verdict {
            Verdict::Guarded(_) | Verdict::Kept(_) => Action::Keep,
            Verdict::Foreign(_) => Action::Foreign,
            Verdict::Goes(_) => self.step(at),
        }
    }

    fn step(&self, at: usize) -> Action {
        let Some(candidate) = self.candidates.get(at) else { return Action::Keep };
        let aside_since = match candidate.item.snapshot() {
            Some(facts) => match facts.state {
                State::Active | State::Unchecked if facts.elsewhere.is_empty() => return Action::Deactivate,
                State::Inactive | State::Revoked | State::Error if facts.elsewhere.is_empty() => facts.since,
                State::Building
                | State::Checking
                | State::Active
                | State::Unchecked
                | State::Inactive
                | State::Revoked
                | State::Error
                | State::Removing
                | State::Removed => return Action::Delete,
            },
            None => match created(candidate.item) {
                Some(created) => created,
                None => return Action::Wait,
            },
        };
        if is_past(aside_since, self.rules.grace(), self.now) { Action::Delete } else { Action::Wait }
    }

    fn plan(&self, verdicts: &[Verdict], actions: &[Action]) -> Plan {
        let mut totals = Totals { own_bytes: self.inventory.own_bytes(), ..Totals::default() };
        let mut ledger = self.inventory.ledger();
        let mut items = Vec::with_capacity(self.candidates.len());
        let order = self.in_turn();
        let alone = self.inventory.ledger();
        // Deletions first: what is put aside frees its bytes after them.
        for now in [true, false] {
            for (turn, at) in order.iter().enumerate() {
                let (Some(candidate), Some(verdict), Some(action)) =
                    (self.candidates.get(*at), verdicts.get(*at), actions.get(*at))
                else {
                    continue;
                };
                if (*action == Action::Delete) != now {
                    continue;
                }
                let freed = candidate.image().map_or_else(Freed::default, |image| match action {
                    Action::Keep => alone.clone().take(image.id, &image.layers),
                    // Of these only the engine's own count is known.
                    Action::Foreign => {
                        let bytes = image.unique_bytes.unwrap_or(0);
                        Freed { now_bytes: bytes, with_cache_bytes: bytes }
                    }
                    Action::Wait | Action::Deactivate | Action::Delete => {
                        ledger.take(image.id, &image.layers)
                    }
                });
                match action {
                    Action::Delete => totals.freed += freed,
                    Action::Deactivate | Action::Wait => totals.later += freed,
                    Action::Keep | Action::Foreign => {}
                }
                items.push(self.item(candidate, verdict, *action, freed, turn));
            }
        }
        items.sort_by(|a: &PlanItem, b| {
            (&a.name, b.created, a.subject.id()).cmp(&(&b.name, a.created, b.subject.id()))
        });
        Plan {
            version: 1,
            made: self.now,
            engine: self.inventory.engine.clone(),
            endpoint: self.inventory.endpoint.clone(),
            store: self.inventory.store,
            rules: self.rules.clone(),
            items,
            totals,
        }
    }

    fn item(
        &self,
        candidate: &Candidate<'_>,
        verdict: &Verdict,
        action: Action,
        freed: Freed,
        turn: usize,
    ) -> PlanItem {
        let item = candidate.item;
        let facts = item.snapshot();
        let (code, mut reason) = match verdict {
            Verdict::Guarded(guard) => (guard.word(), guard.to_string()),
            Verdict::Kept(keep) => (keep.word(), keep.to_string()),
            Verdict::Goes(rule) => (rule.word(), rule.to_string()),
            Verdict::Foreign(store) => ("foreign", format!("of the store {store}")),
        };
        if let (Action::Wait, Some(since)) = (action, facts.map(|facts| facts.since).or(created(item))) {
            let until = since.checked_add(self.rules.grace().0).unwrap_or(Timestamp::MAX);
            reason = format!("{reason}; deleted after {}", until.strftime("%Y-%m-%d %H:%M UTC"));
        }
        if action.acts() {
            if let Some(other) = item.image.as_ref().and_then(|image| image.beside.first()) {
                reason = format!("{reason}; `{other}` names the image, too");
            }
            if action == Action::Delete
                && facts.is_some_and(|facts| !facts.elsewhere.is_empty() && facts.state != State::Removing)
            {
                reason = format!("{reason}; other engines have it");
            }
        }
        PlanItem {
            subject: subject(item),
            name: item.name.clone(),
            action,
            code: code.to_owned(),
            reason,
            freed,
            size_bytes: item.image.as_ref().map_or(0, |image| image.size_bytes),
            turn,
            created: created(item),
            used: facts.map(|_| candidate.used),
            seen: seen(item),
        }
    }
}

/// Says what an item is.
pub(super) fn subject(item: &Item) -> Subject {
    match (&item.whose, &item.image) {
        (Whose::Snapshot(facts), _) => Subject::Snapshot { id: facts.id },
        (Whose::Foreign { store }, Some(image)) => Subject::Foreign { image: image.id, store: store.clone() },
        (Whose::Leftover { .. }, Some(image)) => Subject::Leftover { image: image.id },
        // Only a snapshot is listed without an image.
        (Whose::Foreign { .. } | Whose::Leftover { .. }, None) => Subject::Cache { id: String::new() },
    }
}

/// Says how an item is.
pub(super) fn seen(item: &Item) -> Seen {
    let facts = item.snapshot();
    Seen {
        image: item.image.as_ref().map(|image| image.id),
        tag: item.image.as_ref().and_then(|image| image.tag.clone()),
        state: facts.map(|facts| facts.state),
        expires: facts.and_then(|facts| facts.expires),
        used: facts.map(|facts| facts.used),
    }
}

/// Returns of each snapshot how many others it stands on, one on the other.
fn depths(parents: &BTreeMap<SnapshotId, SnapshotId>) -> BTreeMap<SnapshotId, usize> {
    let depth = |id: &SnapshotId| {
        let mut seen = BTreeSet::from([*id]);
        let mut next = parents.get(id);
        while let Some(parent) = next {
            // A circle cannot be baked; a record that says so does not hang the plan.
            if !seen.insert(*parent) {
                break;
            }
            next = parents.get(parent);
        }
        seen.len() - 1
    };
    parents.keys().map(|id| (*id, depth(id))).collect()
}

/// Ranks the snapshots of each name that somebody may want, the newest first.
fn ranks(items: &[Item]) -> BTreeMap<SnapshotId, u32> {
    let mut by_name: BTreeMap<&str, Vec<&SnapshotFacts>> = BTreeMap::new();
    for facts in items.iter().filter(|item| item.image.is_some()).filter_map(Item::snapshot) {
        if matches!(facts.state, State::Active | State::Unchecked | State::Inactive) {
            by_name.entry(facts.name.as_str()).or_default().push(facts);
        }
    }
    let mut ranks = BTreeMap::new();
    for mut snapshots in by_name.into_values() {
        snapshots.sort_by_key(|facts| std::cmp::Reverse((facts.created, facts.id)));
        ranks.extend((0..).zip(snapshots).map(|(rank, facts)| (facts.id, rank)));
    }
    ranks
}
