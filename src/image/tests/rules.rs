//! Tables: each guard and each rule.

use super::fleet::*;
use crate::base::ByteSize;
use crate::base::config::ImageRules;
use crate::catalog::State;
use crate::docker::DiskSpace;
use crate::image::*;

fn rules(change: impl FnOnce(&mut ImageRules)) -> ImageRules {
    let mut rules = ImageRules { min_age: Some(hours(1)), grace: Some(hours(24)), ..ImageRules::default() };
    change(&mut rules);
    rules
}

fn of(snapshots: &[Plain], change: impl FnOnce(&mut ImageRules)) -> Vec<String> {
    told(&decided(&fleet(snapshots), &rules(change)), snapshots.len())
}

#[test]
fn the_first_guard_in_the_order_is_the_reason() {
    let everything = || Plain {
        state: State::Building,
        container: true,
        pinned: true,
        channel: Some(Hold::Present),
        age: 0,
        unused: 0,
        ..plain("a", 0)
    };
    let child = Plain { parent: Some(0), pinned: true, ..plain("b", 500) };
    let mut subject = everything();
    let mut words = Vec::new();
    let take_away: [fn(&mut Plain); 6] = [
        |_| (),
        |plain| plain.state = State::Active,
        |plain| plain.container = false,
        |plain| plain.pinned = false,
        |plain| plain.channel = Some(Hold::Previous),
        |plain| plain.channel = None,
    ];
    for next in take_away {
        next(&mut subject);
        words.push(of(&[subject.clone(), child.clone()], |it| it.max_age = Some(hours(2)))[0].clone());
    }
    assert_eq!(
        words,
        ["keep in_work", "keep container", "keep pinned", "keep channel", "keep channel", "keep parent"]
    );
    let young = of(std::slice::from_ref(&subject), |it| it.max_age = Some(hours(2)));
    assert_eq!(young, ["keep min_age"]);
    let old = Plain { age: 500, ..subject };
    let last = of(std::slice::from_ref(&old), |it| {
        (it.max_age, it.keep_last) = (Some(hours(2)), "1".parse().ok());
    });
    assert_eq!(last, ["keep keep_last"]);
    assert_eq!(of(std::slice::from_ref(&old), |it| it.max_age = Some(hours(2))), ["deactivate max_age"]);
    let other = of(&[everything()], |it| {
        (it.expired, it.name) = (true, vec!["b*".parse().unwrap()]);
    });
    assert_eq!(other, ["keep name"]);
    let left_out = of(&[old], |it| (it.expired, it.not_name) = (true, vec!["a".parse().unwrap()]));
    assert_eq!(left_out, ["keep name"]);
}

#[test]
fn the_last_of_each_name_are_kept_and_alone_say_what_goes() {
    let five = [plain("a", 10), plain("a", 30), plain("a", 20), plain("b", 500), plain("b", 400)];
    let last = |count: &'static str| move |it: &mut ImageRules| it.keep_last = count.parse().ok();
    assert_eq!(
        of(&five, last("1")),
        [
            "keep keep_last",
            "deactivate over_keep_last",
            "deactivate over_keep_last",
            "deactivate over_keep_last",
            "keep keep_last"
        ]
    );
    assert_eq!(of(&five, last("2"))[1..3], ["deactivate over_keep_last", "keep keep_last"]);
    // Beside a rule of its own kind it only keeps.
    let told = of(&five, |it| (it.keep_last, it.unused_for) = ("1".parse().ok(), Some(hours(400))));
    assert_eq!(
        told,
        ["keep keep_last", "keep no_rule", "keep no_rule", "deactivate unused", "keep keep_last"]
    );
}

#[test]
fn what_is_revoked_expired_or_failed_goes_by_any_rules() {
    let aside = |state, since| Plain { state, since, ..plain("a", 500) };
    let told = of(
        &[
            aside(State::Revoked, 30),
            aside(State::Revoked, 3),
            aside(State::Error, 30),
            Plain { expires: Some(1), ..plain("a", 500) },
            Plain { expires: Some(-1), ..plain("a", 500) },
            Plain { expires: Some(1), state: State::Inactive, since: 30, ..plain("a", 500) },
            aside(State::Removing, 0),
        ],
        |it| it.expired = true,
    );
    assert_eq!(
        told,
        [
            "delete revoked",
            "wait revoked",
            "delete failed",
            "deactivate expired",
            "keep no_rule",
            "delete expired",
            "delete unfinished"
        ]
    );
}

#[test]
fn what_goes_is_put_aside_first_and_deleted_after_the_grace() {
    let aside = |state, since| Plain { state, since, ..plain("a", 500) };
    let snapshots = [
        aside(State::Active, 500),
        aside(State::Unchecked, 500),
        aside(State::Inactive, 23),
        aside(State::Inactive, 24),
        Plain { is_elsewhere: true, ..plain("a", 500) },
    ];
    let plan = decided(&fleet(&snapshots), &rules(|it| it.max_age = Some(hours(100))));
    let actions: Vec<String> = told(&plan, 5).iter().map(|told| told.replace(" max_age", "")).collect();
    assert_eq!(actions, ["deactivate", "deactivate", "wait", "delete", "delete"]);
    assert_eq!(plan.totals.freed.now_bytes, 200);
    assert_eq!(plan.totals.later.now_bytes, 300 + BASE, "the last one takes the shared layer with it");
    let waiting = plan.items.iter().find(|item| item.action == Action::Wait).unwrap();
    assert!(waiting.reason.ends_with("deleted after 2026-11-23 13:00 UTC"), "{}", waiting.reason);
}

#[test]
fn time_in_which_nobody_watched_counts_as_use() {
    let unwatched = |since: Option<i64>, trust: bool| {
        let inventory = Inventory { watched_since: since.map(ago), ..fleet(&[plain("a", 500)]) };
        let rules = rules(|it| (it.unused_for, it.trust_created) = (Some(hours(100)), trust));
        told(&decided(&inventory, &rules), 1).remove(0)
    };
    assert_eq!(unwatched(None, false), "keep unwatched");
    assert_eq!(unwatched(Some(99), false), "keep unwatched");
    assert_eq!(unwatched(Some(100), false), "deactivate unused");
    assert_eq!(unwatched(None, true), "deactivate unused");
}

#[test]
fn a_clock_that_was_set_back_takes_nothing() {
    let future = Plain { age: -5, unused: -5, since: -5, ..plain("a", 0) };
    let told = of(&[future], |it| {
        (it.min_age, it.max_age, it.unused_for) = (Some(hours(0)), Some(hours(1)), Some(hours(1)));
    });
    assert_eq!(told, ["keep min_age"]);
}

#[test]
fn whoever_uses_a_snapshot_uses_what_it_stands_on() {
    let chain = [
        plain("base", 900),
        Plain { parent: Some(0), unused: 700, ..plain("mid", 800) },
        Plain { parent: Some(1), unused: 10, ..plain("top", 700) },
    ];
    let unused = |it: &mut ImageRules| it.unused_for = Some(hours(100));
    assert_eq!(of(&chain, unused), ["keep parent", "keep parent", "keep no_rule"]);
    let [base, mid, top] = chain;
    let asleep = [base, mid, Plain { unused: 100, ..top }];
    assert_eq!(of(&asleep, unused), ["deactivate unused", "deactivate unused", "deactivate unused"]);
    // For room the top goes first, and what is below it only then.
    let total = |most| move |it: &mut ImageRules| it.max_total = Some(ByteSize(most));
    assert_eq!(of(&asleep, total(1_250)), ["keep parent", "keep parent", "deactivate max_total"]);
    assert_eq!(of(&asleep, total(1_150)), ["keep parent", "deactivate max_total", "deactivate max_total"]);
    let fixed = [asleep[0].clone(), asleep[1].clone(), Plain { pinned: true, ..asleep[2].clone() }];
    assert_eq!(of(&fixed, total(0)), ["keep parent", "keep parent", "keep pinned"]);
}

#[test]
fn records_that_claim_a_circle_are_decided_on_like_any() {
    let circle = [Plain { parent: Some(1), ..plain("a", 500) }, Plain { parent: Some(0), ..plain("b", 400) }];
    let told = of(&circle, |it| (it.max_age, it.max_total) = (Some(hours(100)), Some(ByteSize(0))));
    assert_eq!(told, ["keep parent", "keep parent"]);
}

#[test]
fn room_is_made_by_the_least_recently_used() {
    let snapshots = [
        Plain { unused: 10, ..plain("a", 500) },
        Plain { unused: 90, bytes: 50, ..plain("b", 400) },
        Plain { unused: 300, pinned: true, ..plain("c", 300) },
        Plain { unused: 200, is_cached: true, ..plain("d", 300) },
    ];
    let count = |change: &dyn Fn(&mut ImageRules)| {
        let plan = decided(&fleet(&snapshots), &rules(change));
        let told = told(&plan, 4);
        let going: Vec<&str> = ["a", "b", "c", "d"]
            .into_iter()
            .zip(&told)
            .filter(|(_, it)| !it.starts_with("keep"))
            .map(|(name, _)| name)
            .collect();
        (going.join(""), plan.totals.missing_bytes)
    };
    // 1,350 bytes together.
    for (most, going, missing) in [
        (1_350, "", 0),
        (1_349, "d", 0),
        (1_250, "d", 0),
        (1_249, "bd", 0),
        (1_200, "bd", 0),
        (1_199, "abd", 0),
        (1_099, "abd", 1),
    ] {
        let rule = move |it: &mut ImageRules| it.max_total = Some(ByteSize(most));
        assert_eq!(count(&rule), (going.to_owned(), missing), "{most}");
    }
    let disk = |free_bytes| DiskSpace { total_bytes: 10_000, free_bytes };
    for (free, going) in
        [(2_000, ""), (1_999, "d"), (1_951, "d"), (1_900, "bd"), (1_850, "bd"), (1_800, "abd")]
    {
        let inventory = Inventory { disk: Some(disk(free)), ..fleet(&snapshots) };
        let plan = decided(&inventory, &rules(|it| (it.high, it.low) = (Some(80), Some(80 - 1))));
        let told = told(&plan, 4);
        let gone =
            ["a", "b", "c", "d"].into_iter().zip(&told).filter(|(_, it)| *it == "deactivate watermark");
        let gone: String = gone.map(|(name, _)| name).collect();
        // Down to 79 percent: 2,100 bytes free.
        let expected = match 2_100_u64.saturating_sub(free) {
            _ if free >= 2_000 => "",
            0..=100 => "d",
            101..=150 => "bd",
            _ => "abd",
        };
        assert_eq!(gone, expected, "{free} {going}");
    }
}

#[test]
fn too_little_free_space_waives_the_grace_for_the_least_recently_used() {
    let snapshots = [
        Plain { unused: 10, ..plain("a", 500) },
        Plain { unused: 90, ..plain("b", 400) },
        Plain { unused: 300, pinned: true, ..plain("c", 300) },
        Plain { unused: 95, state: State::Inactive, since: 1, ..plain("d", 300) },
    ];
    let with_free = |free_bytes, change: &dyn Fn(&mut ImageRules)| {
        let disk = Some(DiskSpace { total_bytes: 10_000, free_bytes });
        let plan = decided(&Inventory { disk, ..fleet(&snapshots) }, &rules(change));
        (told(&plan, 4), plan)
    };
    let least = |it: &mut ImageRules| it.min_free = Some(ByteSize(500));
    assert_eq!(with_free(500, &least).0, ["keep no_rule", "keep no_rule", "keep pinned", "keep no_rule"]);
    assert_eq!(with_free(450, &least).0, ["keep no_rule", "keep no_rule", "keep pinned", "delete min_free"]);
    let (told, plan) = with_free(350, &least);
    assert_eq!(told, ["keep no_rule", "delete min_free", "keep pinned", "delete min_free"]);
    assert!(plan.items.iter().any(|item| item.reason.ends_with("so the grace is waived")));
    let aged = |it: &mut ImageRules| {
        (it.min_free, it.max_age) = (Some(ByteSize(500)), Some(hours(350)));
    };
    assert_eq!(
        with_free(500, &aged).0,
        ["deactivate max_age", "deactivate max_age", "keep pinned", "keep no_rule"]
    );
    assert_eq!(
        with_free(350, &aged).0,
        ["deactivate max_age", "delete min_free", "keep pinned", "delete min_free"]
    );
    assert_eq!(with_free(0, &least).1.totals.missing_bytes, 200);
    let unseen = Inventory { disk: None, ..fleet(&snapshots) };
    let policy = ImagePolicy::new(rules(least)).unwrap();
    assert!(matches!(decide(&unseen, &policy, now()), Err(ImageError::DiskUnseen { .. })));
}

#[test]
fn bytes_are_told_twice() {
    let snapshots = [
        Plain { is_cached: true, state: State::Inactive, since: 48, ..plain("a", 500) },
        Plain { bytes: 7, state: State::Inactive, since: 48, ..plain("a", 400) },
    ];
    let plan = decided(&fleet(&snapshots), &rules(|it| it.max_age = Some(hours(100))));
    assert_eq!(plan.totals.freed, Freed { now_bytes: 7 + BASE, with_cache_bytes: 107 + BASE });
    assert_eq!(plan.totals.own_bytes, 107 + BASE);
    let by_item: Vec<u64> = plan.items.iter().map(|item| item.freed.with_cache_bytes).collect();
    assert_eq!(by_item.iter().sum::<u64>(), 107 + BASE, "a shared layer is counted once");
}

#[test]
fn images_of_others_and_without_snapshots_are_told_apart() {
    let mut inventory =
        fleet(&[plain("a", 500), plain("b", 500), plain("c", 500), plain("d", 500), plain("e", 500)]);
    inventory.items[0].whose = Whose::Foreign { store: "other".into() };
    inventory.items[1].whose = Whose::Leftover { in_work: None };
    inventory.items[2].whose = Whose::Leftover { in_work: Some(id(2)) };
    inventory.items[3].whose = Whose::Leftover { in_work: None };
    let image = inventory.items[3].image.as_mut().unwrap();
    (image.tag, image.beside) = (None, vec!["mine:1".into()]);
    inventory.items[4].image = None;
    let plan = decided(&inventory, &rules(|it| it.max_age = Some(hours(100))));
    let told: Vec<String> =
        plan.items.iter().map(|it| format!("{} {}", it.action.as_str(), it.code)).collect();
    assert_eq!(
        told,
        ["foreign foreign", "delete leftover", "keep in_work", "keep named_otherwise", "keep vanished"]
    );
}

#[test]
fn rules_that_contradict_each_other_are_refused() {
    let refused = |change: &dyn Fn(&mut ImageRules)| {
        ImagePolicy::new(rules(change)).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(&|_| ()).contains("no rule"));
    assert!(refused(&|it| it.high = Some(80)).contains("no low"));
    assert!(refused(&|it| it.low = Some(80)).contains("no high"));
    assert!(refused(&|it| (it.high, it.low) = (Some(80), Some(80))).contains("not below"));
    assert!(refused(&|it| (it.high, it.low) = (Some(100), Some(80))).contains("1 to 99"));
    assert!(refused(&|it| it.max_age = Some(hours(1))).contains("younger"));
    assert_eq!(refused(&|it| it.max_age = Some(hours(2))), "");
}
