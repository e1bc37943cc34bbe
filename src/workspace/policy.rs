//! Which revisions of a workspace are kept. Pure: what is known of them goes in, a verdict with its reasons on each comes out.
//!
//! A revision is kept by whatever rule holds it. Of the rest all go, or, where the policy has `unused_for`, those that nobody used for
//! so long. Whatever the rules say, pinned revisions stay, those whose records cannot be read, and the newest one that can.
//!
//! Revisions are newer or older by their ids; hours, days, weeks (from Monday, as ISO 8601 counts them) and months are those of the
//! times at which they were saved, in UTC. So a clock that was wrong for a while moves a few of them into other periods, and never
//! makes an older revision pass for the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};

use super::error::WorkspaceError;
use crate::base::config::PruneConfig;
use crate::base::{LabelPattern, Length, NamePattern, RevisionId, WorkspaceName};

/// The rules of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRules {
    /// The newest so many are kept.
    pub keep_last: Option<NonZeroU32>,
    /// Those saved so long ago or later are kept.
    pub keep_within: Option<Length>,
    /// Of each of the last so many hours that have revisions, the newest one is kept.
    pub keep_hourly: Option<NonZeroU32>,
    /// The same of days.
    pub keep_daily: Option<NonZeroU32>,
    /// The same of weeks.
    pub keep_weekly: Option<NonZeroU32>,
    /// The same of months.
    pub keep_monthly: Option<NonZeroU32>,
    /// Those that have one of these labels are kept.
    pub keep_label: Vec<LabelPattern>,
    /// Of what no other rule keeps, only those go that were not saved or used within this time.
    pub unused_for: Option<Length>,
}

impl From<&PruneConfig> for PruneRules {
    fn from(config: &PruneConfig) -> Self {
        Self {
            keep_last: config.keep_last,
            keep_within: config.keep_within,
            keep_hourly: config.keep_hourly,
            keep_daily: config.keep_daily,
            keep_weekly: config.keep_weekly,
            keep_monthly: config.keep_monthly,
            keep_label: config.keep_label.clone(),
            unused_for: config.unused_for,
        }
    }
}

/// A policy: rules, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunePolicy(PruneRules);

impl PrunePolicy {
    /// Makes a policy.
    ///
    /// # Errors
    ///
    /// Fails where there is no rule: it would remove everything.
    pub fn new(rules: PruneRules) -> Result<Self, WorkspaceError> {
        if rules == PruneRules::default() {
            return Err(WorkspaceError::Invalid {
                reason: "a policy without a rule would remove everything but the newest revisions".into(),
            });
        }
        Ok(Self(rules))
    }

    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &PruneRules {
        &self.0
    }
}

/// Which workspaces have which policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet(Vec<(Vec<NamePattern>, PrunePolicy)>);

impl PolicySet {
    /// Makes a set in which every workspace has the same policy.
    ///
    /// # Errors
    ///
    /// Never: `*` is a pattern.
    pub fn same(policy: PrunePolicy) -> Result<Self, WorkspaceError> {
        let any = "*".parse().map_err(|error| WorkspaceError::Invalid { reason: format!("{error}") })?;
        Ok(Self(vec![(vec![any], policy)]))
    }

    /// Makes a set of what stands in `kiln.toml`.
    ///
    /// # Errors
    ///
    /// Fails where a policy has no rule, which reading the file refuses, too.
    pub fn of_config(tables: &[PruneConfig]) -> Result<Self, WorkspaceError> {
        let policies =
            tables.iter().map(|table| Ok((table.workspaces.clone(), PrunePolicy::new(table.into())?)));
        Ok(Self(policies.collect::<Result<_, WorkspaceError>>()?))
    }

    /// Returns the policy of a workspace: the first whose patterns its name fits, if there is one.
    #[must_use]
    pub fn of(&self, workspace: &WorkspaceName) -> Option<&PrunePolicy> {
        let fits = |patterns: &[NamePattern]| patterns.iter().any(|it| it.fits(workspace.as_str()));
        self.0.iter().find(|(patterns, _)| fits(patterns)).map(|(_, policy)| policy)
    }

    /// Returns whether a policy of the set asks when revisions were used.
    #[must_use]
    pub fn asks_for_uses(&self) -> bool {
        self.0.iter().any(|(_, policy)| policy.0.unused_for.is_some())
    }
}

/// What a policy knows of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: RevisionId,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// When it was used last, as far as it was noted. Its save counts as a use.
    pub used: Option<Timestamp>,
    /// What its record says; `None` for one that cannot be read.
    pub record: Option<CandidateRecord>,
}

/// What a policy knows of a revision's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateRecord {
    /// When it was saved, by its writer's clock.
    pub saved: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A length of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week from Monday, as ISO 8601 counts them.
    Week,
    /// A month.
    Month,
}

impl Period {
    /// Returns the period that a time lies in, in UTC: `2026-11-23T09`, `2026-11-23`, `2026-W48`, `2026-11`.
    fn of(self, time: Timestamp) -> String {
        let format = match self {
            Self::Hour => "%Y-%m-%dT%H",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-W%V",
            Self::Month => "%Y-%m",
        };
        time.strftime(format).to_string()
    }

    /// Returns its name: `hour`, `day`, `week`, `month`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// Why a revision is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// It is pinned.
    Pinned,
    /// It is the newest of its workspace.
    Newest,
    /// It is one of the newest so many.
    Last(NonZeroU32),
    /// It was saved within this time.
    Within(Length),
    /// It is the newest of a period.
    NewestOf(Period, String),
    /// It has a label.
    Label(LabelPattern),
    /// No other rule keeps it, but it was saved or used within this time.
    Used(Length),
    /// Its record cannot be read, so that nobody knows what it is.
    Unreadable,
    /// No policy is for its workspace.
    NoPolicy,
}

impl KeepReason {
    /// Returns one word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Newest => "newest",
            Self::Last(_) => "last",
            Self::Within(_) => "within",
            Self::NewestOf(Period::Hour, _) => "hourly",
            Self::NewestOf(Period::Day, _) => "daily",
            Self::NewestOf(Period::Week, _) => "weekly",
            Self::NewestOf(Period::Month, _) => "monthly",
            Self::Label(_) => "label",
            Self::Used(_) => "used",
            Self::Unreadable => "unreadable",
            Self::NoPolicy => "no_policy",
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::Newest => f.write_str("the newest"),
            Self::Last(count) => write!(f, "one of the last {count}"),
            Self::Within(length) => write!(f, "saved within {length}"),
            Self::NewestOf(period, name) => write!(f, "newest of {} {name}", period.name()),
            Self::Label(label) => write!(f, "label {label}"),
            Self::Used(length) => write!(f, "used within {length}"),
            Self::Unreadable => f.write_str("its record cannot be read"),
            Self::NoPolicy => f.write_str("no policy is for this workspace"),
        }
    }
}

/// Why a revision goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoveReason {
    /// No rule keeps it.
    NoRule,
    /// No rule keeps it, and it was used last at this time.
    Unused(Timestamp),
}

impl RemoveReason {
    /// Returns one word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::Unused(_) => "unused",
        }
    }
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule keeps it"),
            Self::Unused(since) => write!(f, "unused since {}", since.strftime("%Y-%m-%d")),
        }
    }
}

/// What becomes of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for these reasons; there is at least one.
    Keep(Vec<KeepReason>),
    /// It goes.
    Remove(RemoveReason),
}

/// Decides on the revisions of one workspace, in the order in which they are given; that order means nothing.
#[must_use]
pub fn decide(policy: &PrunePolicy, revisions: &[Candidate], now: Timestamp) -> Vec<Verdict> {
    let mut reasons = vec![Vec::new(); revisions.len()];
    let mut newest_first: Vec<(usize, &Candidate, &CandidateRecord)> = Vec::new();
    for (at, revision) in revisions.iter().enumerate() {
        if let Some(record) = &revision.record {
            newest_first.push((at, revision, record));
        } else if let Some(reasons) = reasons.get_mut(at) {
            // It takes nobody's place: it may be of no use.
            reasons.push(KeepReason::Unreadable);
        }
    }
    newest_first.sort_by_key(|(_, revision, _)| std::cmp::Reverse(revision.id));
    let mut deciding = Deciding { rules: &policy.0, now, seen: BTreeMap::new() };
    for (rank, (at, revision, record)) in newest_first.iter().enumerate() {
        if let Some(reasons) = reasons.get_mut(*at) {
            deciding.hold(rank, revision, record, reasons);
        }
    }
    let verdict = |(revision, reasons): (&Candidate, Vec<KeepReason>)| match &revision.record {
        Some(record) if reasons.is_empty() => deciding.without_rule(revision, record),
        Some(_) | None => Verdict::Keep(reasons),
    };
    revisions.iter().zip(reasons).map(verdict).collect()
}

struct Deciding<'a> {
    rules: &'a PruneRules,
    now: Timestamp,
    /// The periods of each length whose newest revision was seen.
    seen: BTreeMap<Period, BTreeSet<String>>,
}

impl Deciding<'_> {
    /// Adds what holds a revision; those of a workspace come newest first.
    fn hold(
        &mut self,
        rank: usize,
        revision: &Candidate,
        record: &CandidateRecord,
        reasons: &mut Vec<KeepReason>,
    ) {
        if revision.is_pinned {
            reasons.push(KeepReason::Pinned);
        }
        if rank == 0 {
            reasons.push(KeepReason::Newest);
        }
        if let Some(count) = self.rules.keep_last
            && rank < count.get() as usize
        {
            reasons.push(KeepReason::Last(count));
        }
        if let Some(length) = self.rules.keep_within
            && is_within(record.saved, length, self.now)
        {
            reasons.push(KeepReason::Within(length));
        }
        for (period, count) in [
            (Period::Hour, self.rules.keep_hourly),
            (Period::Day, self.rules.keep_daily),
            (Period::Week, self.rules.keep_weekly),
            (Period::Month, self.rules.keep_monthly),
        ] {
            let Some(count) = count else { continue };
            let seen = self.seen.entry(period).or_default();
            let name = period.of(record.saved);
            if seen.len() < count.get() as usize && seen.insert(name.clone()) {
                reasons.push(KeepReason::NewestOf(period, name));
            }
        }
        let fitting = self.rules.keep_label.iter().find(|label| label.fits(&record.labels));
        reasons.extend(fitting.cloned().map(KeepReason::Label));
    }

    /// Decides on a revision that no rule holds.
    fn without_rule(&self, revision: &Candidate, record: &CandidateRecord) -> Verdict {
        let Some(length) = self.rules.unused_for else { return Verdict::Remove(RemoveReason::NoRule) };
        let used = revision.used.map_or(record.saved, |used| used.max(record.saved));
        if is_within(used, length, self.now) {
            Verdict::Keep(vec![KeepReason::Used(length)])
        } else {
            Verdict::Remove(RemoveReason::Unused(used))
        }
    }
}

/// Whether something happened no longer than `length` ago. What lies in the future did: a clock was wrong.
fn is_within(then: Timestamp, length: Length, now: Timestamp) -> bool {
    SignedDuration::try_from(length.0).map_or(true, |length| now.duration_since(then) <= length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{Classify as _, ErrorKind};

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// An id as it is given to what is saved at this time, behind `newest`.
    fn saved(text: &str, newest: Option<RevisionId>) -> Candidate {
        let saved = time(text);
        Candidate {
            id: RevisionId::after(newest, saved),
            is_pinned: false,
            used: None,
            record: Some(CandidateRecord { saved, labels: BTreeMap::new() }),
        }
    }

    fn history(times: &[&str]) -> Vec<Candidate> {
        let mut newest = None;
        let made = times.iter().map(|text| {
            let made = saved(text, newest);
            newest = Some(made.id);
            made
        });
        made.collect()
    }

    fn count(count: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(count)
    }

    fn length(text: &str) -> Option<Length> {
        Some(text.parse().unwrap())
    }

    const NOW: &str = "2026-11-23T12:00:00Z";

    /// Returns, oldest first, the words of the reasons that keep each revision; `-` for one that goes.
    fn words(rules: PruneRules, revisions: &[Candidate]) -> Vec<String> {
        let verdicts = decide(&PrunePolicy::new(rules).unwrap(), revisions, time(NOW));
        let word = |verdict: &Verdict| match verdict {
            Verdict::Keep(reasons) => reasons.iter().map(KeepReason::word).collect::<Vec<_>>().join(" "),
            Verdict::Remove(_) => "-".to_owned(),
        };
        verdicts.iter().map(word).collect()
    }

    #[test]
    fn a_policy_without_a_rule_is_refused() {
        assert_eq!(PrunePolicy::new(PruneRules::default()).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn the_last_ones_are_counted_from_the_newest() {
        let revisions = history(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
        let rules = |n| PruneRules { keep_last: count(n), ..PruneRules::default() };
        assert_eq!(words(rules(1), &revisions), ["-", "-", "newest last"]);
        assert_eq!(words(rules(2), &revisions), ["-", "last", "newest last"]);
        assert_eq!(words(rules(99), &revisions), ["last", "last", "newest last"]);
    }

    #[test]
    fn what_is_as_old_as_the_rule_says_is_within_it_and_the_future_is() {
        let revisions = history(&[
            "2026-11-22T11:59:59Z",
            "2026-11-22T12:00:00Z",
            "2026-11-23T11:00:00Z",
            "2027-05-01T00:00:00Z",
        ]);
        let rules = PruneRules { keep_within: length("1d"), ..PruneRules::default() };
        assert_eq!(words(rules, &revisions), ["-", "within", "within", "newest within"]);
    }

    #[test]
    fn the_newest_of_each_of_the_last_periods_is_kept() {
        let table: &[(Period, &[&str], &[&str])] = &[
            (
                Period::Hour,
                &[
                    "2026-11-23T08:59:59Z",
                    "2026-11-23T09:00:00Z",
                    "2026-11-23T09:59:59Z",
                    "2026-11-23T11:00:00Z",
                ],
                &["-", "-", "hourly", "newest hourly"],
            ),
            (
                Period::Day,
                &[
                    "2026-11-21T23:59:59Z",
                    "2026-11-22T00:00:00Z",
                    "2026-11-22T23:59:59Z",
                    "2026-11-23T00:00:00Z",
                ],
                &["-", "-", "daily", "newest daily"],
            ),
            // 2020-12-31, a Thursday, and 2021-01-03, a Sunday, lie in week 53 of 2020; 2021-01-04 begins week 1.
            (
                Period::Week,
                &[
                    "2020-12-27T23:59:59Z",
                    "2020-12-31T00:00:00Z",
                    "2021-01-03T23:59:59Z",
                    "2021-01-04T00:00:00Z",
                ],
                &["-", "-", "weekly", "newest weekly"],
            ),
            // 2018-12-31, a Monday, begins week 1 of 2019.
            (
                Period::Week,
                &[
                    "2018-12-23T12:00:00Z",
                    "2018-12-30T12:00:00Z",
                    "2018-12-31T12:00:00Z",
                    "2019-01-06T12:00:00Z",
                ],
                &["-", "weekly", "-", "newest weekly"],
            ),
            (
                Period::Month,
                &[
                    "2024-01-31T23:59:59Z",
                    "2024-02-01T00:00:00Z",
                    "2024-02-29T23:59:59Z",
                    "2024-03-01T00:00:00Z",
                ],
                &["-", "-", "monthly", "newest monthly"],
            ),
        ];
        for (period, times, expected) in table {
            let rules = PruneRules {
                keep_hourly: count(2).filter(|_| *period == Period::Hour),
                keep_daily: count(2).filter(|_| *period == Period::Day),
                keep_weekly: count(2).filter(|_| *period == Period::Week),
                keep_monthly: count(2).filter(|_| *period == Period::Month),
                ..PruneRules::default()
            };
            assert_eq!(words(rules, &history(times)), *expected, "{period:?} {times:?}");
        }
    }

    #[test]
    fn periods_without_revisions_are_not_counted() {
        let revisions = history(&["2020-01-01T00:00:00Z", "2023-06-01T00:00:00Z", "2026-11-01T00:00:00Z"]);
        let rules = PruneRules { keep_daily: count(3), ..PruneRules::default() };
        assert_eq!(words(rules, &revisions), ["daily", "daily", "newest daily"]);
    }

    /// A host whose clock was a year ahead saved once; ids behind it stay ahead as well, but their records tell their days.
    #[test]
    fn a_clock_that_was_ahead_costs_one_period_and_no_more() {
        let mut revisions = history(&["2026-11-19T00:00:00Z", "2027-11-20T00:00:00Z"]);
        for day in ["2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"] {
            let newest = revisions.last().map(|it| it.id);
            revisions.push(saved(day, newest));
        }
        assert!(revisions.is_sorted_by_key(|it| it.id));
        let rules = PruneRules { keep_daily: count(3), ..PruneRules::default() };
        assert_eq!(words(rules, &revisions), ["-", "-", "daily", "daily", "newest daily"]);
        let rules = PruneRules { keep_last: count(2), ..PruneRules::default() };
        assert_eq!(words(rules, &revisions), ["-", "-", "-", "last", "newest last"]);
    }

    #[test]
    fn labels_pins_and_the_newest_are_kept_and_unreadable_records_take_no_place() {
        let mut revisions = history(&[
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
            "2026-01-03T00:00:00Z",
            "2026-01-04T00:00:00Z",
            "2026-01-05T00:00:00Z",
        ]);
        revisions[0].is_pinned = true;
        revisions[1].record.as_mut().unwrap().labels.insert("env".into(), "prod".into());
        revisions[2].record.as_mut().unwrap().labels.insert("env".into(), "test".into());
        revisions[4].record = None;
        let rules = PruneRules { keep_label: vec!["env=prod".parse().unwrap()], ..PruneRules::default() };
        assert_eq!(words(rules, &revisions), ["pinned", "label", "-", "newest", "unreadable"]);
    }

    #[test]
    fn what_no_rule_keeps_goes_once_it_is_unused_for_so_long() {
        let mut revisions = history(&[
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
            "2026-11-20T00:00:00Z",
            "2026-11-21T00:00:00Z",
            "2026-11-22T00:00:00Z",
        ]);
        revisions[1].used = Some(time("2026-11-20T00:00:00Z"));
        let unused = PruneRules { unused_for: length("7d"), ..PruneRules::default() };
        assert_eq!(words(unused.clone(), &revisions), ["-", "used", "used", "used", "newest"]);
        let both = PruneRules { keep_last: count(2), ..unused };
        assert_eq!(words(both, &revisions), ["-", "used", "used", "last", "newest last"]);
        let policy = PrunePolicy::new(PruneRules { unused_for: length("7d"), ..PruneRules::default() });
        let verdict = decide(&policy.unwrap(), &revisions, time(NOW)).remove(0);
        assert_eq!(verdict, Verdict::Remove(RemoveReason::Unused(time("2026-01-01T00:00:00Z"))));
    }

    #[test]
    fn the_first_policy_that_fits_a_workspace_counts() {
        let table = |pattern: &str, last| PruneConfig {
            workspaces: vec![pattern.parse().unwrap()],
            keep_last: count(last),
            keep_within: None,
            keep_hourly: None,
            keep_daily: None,
            keep_weekly: None,
            keep_monthly: None,
            keep_label: Vec::new(),
            unused_for: None,
        };
        let set = PolicySet::of_config(&[table("ci-*", 1), table("c*", 2)]).unwrap();
        let last = |name: &str| set.of(&name.parse().unwrap()).and_then(|policy| policy.rules().keep_last);
        assert_eq!([last("ci-7"), last("cd"), last("app")], [count(1), count(2), None]);
        assert!(!set.asks_for_uses());
    }

    fn some_rules() -> impl Strategy<Value = PruneRules> {
        let few = || proptest::option::of((1..5_u32).prop_map(|n| NonZeroU32::new(n).unwrap()));
        let days = || proptest::option::of((1..60_u64).prop_map(|days| Length::seconds(days * 43_200)));
        let labels = proptest::sample::subsequence(vec!["a", "b=1"], 0..=2)
            .prop_map(|texts| texts.into_iter().map(|text| text.parse().unwrap()).collect());
        (few(), days(), few(), few(), few(), few(), labels, days()).prop_map(
            |(
                keep_last,
                keep_within,
                keep_hourly,
                keep_daily,
                keep_weekly,
                keep_monthly,
                keep_label,
                unused_for,
            )| {
                PruneRules {
                    keep_last,
                    keep_within,
                    keep_hourly,
                    keep_daily,
                    keep_weekly,
                    keep_monthly,
                    keep_label,
                    unused_for,
                }
            },
        )
    }

    fn some_revisions() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (
            0..3_000_000_i64,
            0..20_i64,
            any::<bool>(),
            proptest::option::of(0..3_000_000_i64),
            0..4_u8,
            proptest::bool::weighted(0.1),
        );
        proptest::collection::vec(one, 0..25).prop_map(|made| {
            let start = time("2026-10-20T00:00:00Z");
            let at = |seconds: i64| start.checked_add(SignedDuration::from_secs(seconds)).unwrap();
            let mut newest = None;
            let mut sorted = made;
            // Mostly in their order, as saves are; some by a clock that was off.
            sorted.sort_by_key(|it| it.0 / 500_000);
            let candidate = |(seconds, off, is_pinned, used, label, is_damaged): (
                i64,
                i64,
                bool,
                Option<i64>,
                u8,
                bool,
            )| {
                let saved = at(if off == 0 { seconds + 40_000_000 } else { seconds });
                let id = RevisionId::after(newest, saved);
                newest = Some(id);
                let labels = match label {
                    0 => BTreeMap::from([("a".to_owned(), "x".to_owned())]),
                    1 => BTreeMap::from([("b".to_owned(), "1".to_owned())]),
                    2 => BTreeMap::from([("b".to_owned(), "2".to_owned())]),
                    _ => BTreeMap::new(),
                };
                Candidate {
                    id,
                    is_pinned: is_pinned && off < 4,
                    used: used.map(at),
                    record: (!is_damaged).then_some(CandidateRecord { saved, labels }),
                }
            };
            sorted.into_iter().map(candidate).collect()
        })
    }

    fn removed(rules: &PruneRules, revisions: &[Candidate]) -> BTreeSet<RevisionId> {
        let Ok(policy) = PrunePolicy::new(rules.clone()) else { return BTreeSet::new() };
        let verdicts = decide(&policy, revisions, time(NOW));
        revisions
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| matches!(verdict, Verdict::Remove(_)))
            .map(|(revision, _)| revision.id)
            .collect()
    }

    proptest! {
        #[test]
        fn adding_or_enlarging_a_rule_never_removes_more(
            rules in some_rules(), more in some_rules(), revisions in some_revisions(),
        ) {
            prop_assume!(rules != PruneRules::default());
            let larger = PruneRules {
                keep_last: rules.keep_last.max(more.keep_last),
                keep_within: rules.keep_within.max(more.keep_within),
                keep_hourly: rules.keep_hourly.max(more.keep_hourly),
                keep_daily: rules.keep_daily.max(more.keep_daily),
                keep_weekly: rules.keep_weekly.max(more.keep_weekly),
                keep_monthly: rules.keep_monthly.max(more.keep_monthly),
                keep_label: rules.keep_label.iter().chain(&more.keep_label).cloned().collect(),
                unused_for: rules.unused_for.max(more.unused_for),
            };
            prop_assert!(removed(&larger, &revisions).is_subset(&removed(&rules, &revisions)));
        }

        #[test]
        fn pinned_unreadable_and_newest_revisions_stay_and_the_order_means_nothing(
            rules in some_rules(), revisions in some_revisions(), seed in any::<u64>(),
        ) {
            let gone = removed(&rules, &revisions);
            for revision in revisions.iter().filter(|it| it.is_pinned || it.record.is_none()) {
                prop_assert!(!gone.contains(&revision.id));
            }
            let newest = revisions.iter().filter(|it| it.record.is_some()).map(|it| it.id).max();
            prop_assert!(newest.is_none_or(|newest| !gone.contains(&newest)));
            let mut shuffled = revisions.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert_eq!(removed(&rules, &shuffled), gone);
        }

        #[test]
        fn pruning_again_removes_nothing(rules in some_rules(), revisions in some_revisions()) {
            let gone = removed(&rules, &revisions);
            let left: Vec<Candidate> =
                revisions.into_iter().filter(|revision| !gone.contains(&revision.id)).collect();
            prop_assert_eq!(removed(&rules, &left), BTreeSet::new());
        }

        #[test]
        fn a_pin_changes_nothing_for_the_others(
            rules in some_rules(), revisions in some_revisions(), at in any::<proptest::sample::Index>(),
        ) {
            prop_assume!(!revisions.is_empty());
            let mut pinned = revisions.clone();
            let chosen = at.index(pinned.len());
            pinned[chosen].is_pinned = true;
            let mut expected = removed(&rules, &revisions);
            expected.remove(&pinned[chosen].id);
            prop_assert_eq!(removed(&rules, &pinned), expected);
        }
    }
}
