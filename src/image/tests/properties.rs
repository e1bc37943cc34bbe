//! What holds of any inventory and any rules.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fleet::*;
use crate::base::config::ImageRules;
use crate::base::{ByteSize, SnapshotId};
use crate::catalog::State;
use crate::docker::DiskSpace;
use crate::image::*;

fn snapshots() -> impl Strategy<Value = Vec<Plain>> {
    let one = (
        (prop::sample::select(vec!["a", "b", "c"]), 0_i64..200, 0_i64..200, 0_u64..200),
        prop::sample::select(vec![
            State::Active,
            State::Active,
            State::Active,
            State::Inactive,
            State::Unchecked,
            State::Building,
            State::Revoked,
            State::Error,
        ]),
        (
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.1),
        ),
        prop::option::weighted(0.1, prop::sample::select(vec![Hold::Present, Hold::Previous])),
        (prop::option::weighted(0.1, -50_i64..50), prop::option::weighted(0.3, 0_usize..12)),
    );
    let one = one.prop_map(|((name, age, idle, bytes), state, flags, channel, (expires, parent))| {
        let (pinned, container, is_cached, is_elsewhere) = flags;
        let unused = idle.min(age);
        let since = age.min(30);
        Plain {
            name,
            age,
            unused,
            bytes,
            state,
            since,
            pinned,
            channel,
            container,
            expires,
            parent,
            is_cached,
            is_elsewhere,
        }
    });
    prop::collection::vec(one, 0..12).prop_map(|mut all| {
        for (at, plain) in all.iter_mut().enumerate() {
            // What a snapshot stands on was there before.
            plain.parent = plain.parent.filter(|parent| *parent < at);
        }
        all
    })
}

fn rules() -> impl Strategy<Value = ImageRules> {
    let ages = (0_u64..50, prop::option::of(50_u64..200), prop::option::of(1_u64..200), 0_u64..60);
    let room = (
        prop::option::of(0_u64..3_000),
        prop::option::of((2_u8..99, 1_u8..99)),
        prop::option::of(0_u64..2_000),
    );
    (ages, prop::option::of(1_u32..4), room, prop::bool::ANY)
        .prop_map(|(ages, last, room, expired)| {
            let (min_age, max_age, unused_for, grace) = ages;
            let (total, marks, free) = room;
            let marks = marks.map(|(high, low)| (high, low.min(high - 1)));
            ImageRules {
                min_age: Some(hours(min_age)),
                max_age: max_age.map(hours),
                unused_for: unused_for.map(hours),
                grace: Some(hours(grace)),
                keep_last: last.and_then(std::num::NonZeroU32::new),
                max_total: total.map(ByteSize),
                high: marks.map(|(high, _)| high),
                low: marks.map(|(_, low)| low),
                min_free: free.map(ByteSize),
                expired,
                ..ImageRules::default()
            }
        })
        .prop_filter("something is taken", |rules| rules.contradiction().is_none())
}

fn without_room(rules: ImageRules) -> ImageRules {
    ImageRules { max_total: None, high: None, low: None, min_free: None, ..rules }
}

fn going(plan: &Plan) -> BTreeSet<SnapshotId> {
    let goes = |item: &&PlanItem| matches!(item.action, Action::Delete | Action::Deactivate | Action::Wait);
    plan.items
        .iter()
        .filter(goes)
        .filter_map(|item| match item.subject {
            Subject::Snapshot { id } => Some(id),
            _ => None,
        })
        .collect()
}

/// What this store's images take without some of them.
fn own_without(snapshots: &[Plain], gone: &BTreeSet<SnapshotId>) -> u64 {
    let stays: Vec<&Plain> =
        snapshots.iter().enumerate().filter(|(at, _)| !gone.contains(&id(*at))).map(|(_, it)| it).collect();
    let base = if stays.is_empty() { 0 } else { BASE };
    base + stays.iter().map(|plain| plain.bytes).sum::<u64>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_guarded_is_ever_touched(snapshots in snapshots(), rules in rules(), free in 0_u64..20_000) {
        let disk = Some(DiskSpace { total_bytes: 20_000, free_bytes: free });
        let inventory = Inventory { disk, ..fleet(&snapshots) };
        let plan = decided(&inventory, &rules);
        let going = going(&plan);
        for (at, plain) in snapshots.iter().enumerate().filter(|(at, _)| going.contains(&id(*at))) {
            prop_assert!(!plain.pinned && !plain.container && plain.channel.is_none(), "{at}");
            prop_assert!(plain.state != State::Building && hours(plain.age.unsigned_abs()) >= rules.min_age());
            if let Some(last) = rules.keep_last && matches!(plain.state, State::Active | State::Unchecked | State::Inactive) {
                let newer = snapshots.iter().enumerate().filter(|(other, it)| {
                    it.name == plain.name && matches!(it.state, State::Active | State::Unchecked | State::Inactive)
                        && (std::cmp::Reverse(it.age), id(*other)) > (std::cmp::Reverse(plain.age), id(at))
                });
                prop_assert!(newer.count() >= last.get() as usize);
            }
            for (child, _) in inventory.parents.iter().filter(|(_, parent)| **parent == id(at)) {
                prop_assert!(going.contains(child), "what stands on it stays");
            }
        }
    }

    #[test]
    fn longer_ages_and_more_to_keep_never_take_more(snapshots in snapshots(), rules in rules(), more in 1_u64..100) {
        let mut rules = without_room(rules);
        rules.expired = true;
        let inventory = fleet(&snapshots);
        let before = going(&decided(&inventory, &rules));
        let longer = |length: Option<crate::base::Length>| length.map(|it| crate::base::Length(it.0 + hours(more).0));
        for other in [
            ImageRules { max_age: longer(rules.max_age), ..rules.clone() },
            ImageRules { unused_for: longer(rules.unused_for), ..rules.clone() },
            ImageRules { min_age: longer(rules.min_age), max_age: None, ..rules.clone() },
            ImageRules { keep_last: rules.keep_last.and_then(|it| it.checked_add(1)), ..rules.clone() },
        ] {
            let after = going(&decided(&inventory, &other));
            prop_assert!(after.is_subset(&before), "{other:?}: {after:?} {before:?}");
        }
        // A longer grace only waits longer.
        let graced = ImageRules { grace: longer(rules.grace), ..rules.clone() };
        let plan = decided(&inventory, &graced);
        prop_assert_eq!(&going(&plan), &before);
        prop_assert!(plan.count(Action::Delete) <= decided(&inventory, &rules).count(Action::Delete));
    }

    #[test]
    fn room_is_made_by_the_shortest_row_of_the_least_recently_used(snapshots in snapshots(), most in 0_u64..3_000) {
        let rules = ImageRules { max_total: Some(ByteSize(most)), min_age: Some(hours(1)), ..ImageRules::default() };
        let plan = decided(&fleet(&snapshots), &rules);
        let all = going(&plan);
        let taken: Vec<&PlanItem> = plan.items.iter().filter(|item| item.code == "max_total").collect();
        let left = own_without(&snapshots, &all);
        let missing = plan.totals.missing_bytes;
        prop_assert_eq!(left.saturating_sub(most), missing);
        let stays: Vec<&PlanItem> = plan.items.iter().filter(|item| item.code == "no_rule").collect();
        prop_assert!(missing == 0 || stays.is_empty(), "it stopped too early");
        if let Some(last) = taken.iter().max_by_key(|item| item.turn) {
            for item in &stays {
                prop_assert!(item.turn > last.turn, "{} was used less recently", item.subject.id());
            }
            let Subject::Snapshot { id } = last.subject else { unreachable!() };
            let mut fewer = all.clone();
            fewer.remove(&id);
            prop_assert!(own_without(&snapshots, &fewer) > most, "the last one was not needed");
        }
    }

    #[test]
    fn what_items_free_is_what_their_layers_take(snapshots in snapshots(), rules in rules()) {
        let plan = decided(&fleet(&snapshots), &rules);
        let going = going(&plan);
        let freed = plan.totals.freed.with_cache_bytes + plan.totals.later.with_cache_bytes;
        prop_assert_eq!(freed, plan.totals.own_bytes - own_without(&snapshots, &going));
        let deleted = plan.items.iter().filter(|item| item.action == Action::Delete);
        prop_assert_eq!(deleted.map(|item| item.freed.with_cache_bytes).sum::<u64>(), plan.totals.freed.with_cache_bytes);
        prop_assert!(plan.totals.freed.now_bytes <= plan.totals.freed.with_cache_bytes);
        prop_assert_eq!(plan.items.len(), snapshots.len());
    }
}
