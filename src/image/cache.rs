//! Which records of the build cache go: the least recently used, and none that another stands on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Action, Freed, PlanItem, Seen, Subject};
use crate::base::ByteSize;
use crate::base::config::ImageRules;
use crate::docker::CacheRecord;

/// Letters of what made a record that are shown.
const NAMED: usize = 80;

/// Returns the records that go, in the order in which they can.
///
/// Records that an image holds as well are left alone: their bytes are the image's. So are those that a build uses, or did a short
/// while ago.
pub(super) fn decide<'a>(
    cache: &'a [CacheRecord],
    rules: &ImageRules,
    now: Timestamp,
) -> Vec<&'a CacheRecord> {
    let Some(most) = rules.include_cache else { return Vec::new() };
    let mut left: u64 = cache.iter().filter(|record| !record.shared).map(|record| record.size_bytes).sum();
    let mut above: BTreeMap<&str, usize> = BTreeMap::new();
    for parent in cache.iter().flat_map(|record| &record.parents) {
        *above.entry(parent).or_default() += 1;
    }
    let by_id: BTreeMap<&str, &CacheRecord> =
        cache.iter().map(|record| (record.id.as_str(), record)).collect();
    let used = |record: &CacheRecord| record.last_used.or(record.created);
    let may_go = |record: &CacheRecord| {
        let age = used(record).map(|used| now.duration_since(used));
        let is_old = age.is_some_and(|age| !age.is_negative() && age.unsigned_abs() >= rules.min_age().0);
        !record.in_use && !record.shared && is_old
    };
    let is_top = |above: &BTreeMap<&str, usize>, id: &str| above.get(id).is_none_or(|count| *count == 0);
    let mut tops: BTreeSet<(Option<Timestamp>, &str)> = cache
        .iter()
        .filter(|record| may_go(record) && is_top(&above, &record.id))
        .map(|record| (used(record), record.id.as_str()))
        .collect();
    let mut going = Vec::new();
    while left > most.0
        && let Some((_, id)) = tops.pop_first()
        && let Some(record) = by_id.get(id)
    {
        left = left.saturating_sub(record.size_bytes);
        going.push(*record);
        for parent in &record.parents {
            if let Some(count) = above.get_mut(parent.as_str()) {
                *count = count.saturating_sub(1);
            }
            if let Some(parent) = by_id.get(parent.as_str())
                && is_top(&above, &parent.id)
                && may_go(parent)
            {
                tops.insert((used(parent), &parent.id));
            }
        }
    }
    going
}

/// Returns a record as an item of a plan.
pub(super) fn item(record: &CacheRecord, rules: &ImageRules, freed: Freed, turn: usize) -> PlanItem {
    let most = rules.include_cache.unwrap_or(ByteSize(0));
    PlanItem {
        subject: Subject::Cache { id: record.id.clone() },
        name: record.description.chars().filter(|letter| !letter.is_control()).take(NAMED).collect(),
        action: Action::Delete,
        code: "cache".to_owned(),
        reason: format!("least recently used; the build cache takes more than {most}"),
        freed,
        size_bytes: record.size_bytes,
        turn,
        created: record.created,
        used: record.last_used,
        seen: Seen::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + hours * 3_600).unwrap()
    }

    fn record(id: &str, parents: &[&str], size_bytes: u64, used: i64) -> CacheRecord {
        CacheRecord {
            id: id.into(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            kind: "regular".into(),
            description: "d".into(),
            in_use: false,
            shared: false,
            size_bytes,
            created: Some(at(0)),
            last_used: Some(at(used)),
        }
    }

    fn going(cache: &[CacheRecord], most: u64) -> Vec<&str> {
        let rules = ImageRules { include_cache: Some(ByteSize(most)), ..ImageRules::default() };
        decide(cache, &rules, at(100)).into_iter().map(|record| record.id.as_str()).collect()
    }

    #[test]
    fn the_least_recently_used_go_and_none_before_what_stands_on_it() {
        let cache = [
            record("base", &[], 50, 1),
            record("step", &["base"], 30, 2),
            record("old", &[], 5, 3),
            record("new", &[], 40, 50),
        ];
        assert_eq!(going(&cache, 125), [""; 0]);
        assert_eq!(going(&cache, 124), ["step"]);
        assert_eq!(going(&cache, 94), ["step", "base"]);
        assert_eq!(going(&cache, 41), ["step", "base", "old"]);
        assert_eq!(going(&cache, 0), ["step", "base", "old", "new"]);
    }

    #[test]
    fn what_is_used_fresh_or_an_images_is_left_alone() {
        let used = CacheRecord { in_use: true, ..record("used", &["below"], 10, 1) };
        let shared = CacheRecord { shared: true, ..record("shared", &[], 1_000, 1) };
        let cache = [
            record("below", &[], 10, 1),
            used,
            shared,
            record("fresh", &[], 10, 100),
            record("free", &[], 10, 2),
        ];
        assert_eq!(going(&cache, 0), ["free"]);
        assert_eq!(going(&cache, 40), [""; 0], "what an image holds is not counted");
        assert!(decide(&cache, &ImageRules::default(), at(100)).is_empty());
    }
}
