//! Which packs are to go. Pure: what is known of the packs goes in, what to do with them comes out.

use std::collections::BTreeSet;

use super::ledger::{Ledger, PackEntry, Standing};
use super::report::{GcSpec, PackReason, PlannedPack};
use crate::base::SessionId;
use crate::store::pack::{DATA_TARGET, META_TARGET, PackKind};

/// Packs of less than this part of what a pack is closed at are small …
const SMALL_PART: u64 = 8;
/// … and are put together once there are this many of them.
const MANY_SMALL: usize = 256;

/// What is to go.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The packs, by their numbers in the ledger, those with the most to gain for what they cost first.
    pub(super) packs: Vec<(u32, PlannedPack)>,
    /// About how many bytes nobody needs.
    pub(super) dead_bytes: u64,
    /// About how many of them stay.
    pub(super) left_bytes: u64,
}

/// Chooses the packs that are to go. Packs of sessions that are `open` stay: their writers may be about to name them. So do those in
/// `unreadable`: nobody knows what they hold.
pub(super) fn choose(
    ledger: &Ledger,
    open: &BTreeSet<SessionId>,
    unreadable: &BTreeSet<u32>,
    spec: &GcSpec,
) -> Choice {
    let mut choice = Choice::default();
    let (mut mixed, mut stored) = (Vec::new(), 0_u64);
    for (number, pack) in ledger.packs() {
        if matches!(pack.standing, Standing::Condemned | Standing::Gone)
            || open.contains(&pack.info.pack.name.session)
            || unreadable.contains(&number)
        {
            continue;
        }
        choice.dead_bytes += pack.dead_bytes();
        let reason = match pack.standing {
            Standing::Unindexed => PackReason::Orphan,
            _ if pack.live_chunks == 0 => PackReason::Unreferenced,
            _ => {
                stored += pack.info.size;
                mixed.push((number, pack));
                continue;
            }
        };
        choice.packs.push((number, planned(pack, reason)));
    }
    choice.packs.sort_by_key(|(_, pack)| (pack.live_bytes, std::cmp::Reverse(pack.bytes)));
    let mut budget = spec.max_repack.unwrap_or(u64::MAX);
    let mut left: u64 = mixed.iter().map(|(_, pack)| pack.dead_bytes()).sum();
    // The most gain for the least cost first.
    mixed.sort_by(|(_, a), (_, b)| {
        let gain = |pack: &PackEntry, other: &PackEntry| {
            u128::from(pack.dead_bytes()) * u128::from(other.live_bytes().max(1))
        };
        gain(b, a).cmp(&gain(a, b))
    });
    let many_small = [PackKind::Data, PackKind::Meta].map(|kind| {
        mixed.iter().filter(|(_, pack)| pack.info.pack.kind == kind && is_small(pack)).count() >= MANY_SMALL
    });
    for (number, pack) in mixed {
        #[expect(clippy::cast_precision_loss, reason = "a part of a hundred need not be exact")]
        let is_too_much = left as f64 > stored as f64 * spec.max_dead_percent / 100.0;
        let is_one_of_many = is_small(pack)
            && match pack.info.pack.kind {
                PackKind::Data => many_small[0],
                PackKind::Meta => many_small[1],
            };
        let reason = if is_too_much && pack.dead_bytes() > 0 {
            PackReason::HalfDead
        } else if is_one_of_many {
            PackReason::Small
        } else {
            continue;
        };
        let cost = pack.live_bytes();
        if cost > budget {
            continue;
        }
        budget -= cost;
        left -= pack.dead_bytes().min(left);
        stored -= pack.dead_bytes().min(stored);
        choice.packs.push((number, planned(pack, reason)));
    }
    choice.left_bytes = left;
    choice
}

fn is_small(pack: &PackEntry) -> bool {
    let target = match pack.info.pack.kind {
        PackKind::Data => DATA_TARGET,
        PackKind::Meta => META_TARGET,
    };
    pack.info.size < target / SMALL_PART
}

fn planned(pack: &PackEntry, reason: PackReason) -> PlannedPack {
    PlannedPack { pack: pack.info.pack, reason, bytes: pack.info.size, live_bytes: pack.live_bytes() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::pack::{PackInfo, PackName, WrittenName};

    fn a_ledger(packs: &[(u64, u64, Standing)]) -> Ledger {
        let mut ledger = Ledger::default();
        let session = SessionId::from_bytes([7; 16]);
        for (number, (size, live_percent, standing)) in (0..).zip(packs) {
            let name = WrittenName { session, number, digest: [0; 8] };
            let info =
                PackInfo { pack: PackName { kind: PackKind::Data, name }, size: *size, table_length: 9 };
            let added = ledger.add(info, *standing);
            let pack = ledger.get_mut(added).unwrap();
            (pack.raw_bytes, pack.live_raw_bytes) = (size * 2, size * 2 * live_percent / 100);
            pack.live_chunks = u64::from(*live_percent > 0);
        }
        ledger
    }

    fn chosen(ledger: &Ledger, spec: &GcSpec) -> Vec<(u32, PackReason)> {
        let choice = choose(ledger, &BTreeSet::new(), &BTreeSet::new(), spec);
        choice.packs.iter().map(|(number, pack)| (*number, pack.reason)).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_nobody_needs_goes_and_what_is_mostly_needed_stays() {
        let ledger = a_ledger(&[
            (64 * MIB, 100, Standing::Sound),
            (64 * MIB, 0, Standing::Sound),
            (64 * MIB, 99, Standing::Sound),
            (64 * MIB, 20, Standing::Sound),
            (64 * MIB, 0, Standing::Unindexed),
            (64 * MIB, 0, Standing::Condemned),
            (64 * MIB, 0, Standing::Gone),
        ]);
        use PackReason::{HalfDead, Orphan, Unreferenced};
        assert_eq!(chosen(&ledger, &GcSpec::default()), [(1, Unreferenced), (4, Orphan), (3, HalfDead)]);
        let none = GcSpec { max_repack: Some(0), ..GcSpec::default() };
        assert_eq!(chosen(&ledger, &none), [(1, Unreferenced), (4, Orphan)]);
        let all = GcSpec { max_dead_percent: 0.0, ..GcSpec::default() };
        assert_eq!(chosen(&ledger, &all).len(), 4);
    }

    #[test]
    fn packs_of_open_sessions_and_unreadable_ones_stay() {
        let ledger = a_ledger(&[(MIB, 0, Standing::Sound), (MIB, 0, Standing::Unindexed)]);
        let open = BTreeSet::from([SessionId::from_bytes([7; 16])]);
        assert!(choose(&ledger, &open, &BTreeSet::new(), &GcSpec::default()).packs.is_empty());
        let unreadable = BTreeSet::from([1]);
        let choice = choose(&ledger, &BTreeSet::new(), &unreadable, &GcSpec::default());
        assert_eq!(choice.packs.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn many_small_packs_are_put_together_and_a_few_are_not() {
        let few = vec![(MIB, 100, Standing::Sound); MANY_SMALL - 1];
        assert!(chosen(&a_ledger(&few), &GcSpec::default()).is_empty());
        let mut many = vec![(MIB, 100, Standing::Sound); MANY_SMALL];
        many.push((64 * MIB, 100, Standing::Sound));
        let chosen = chosen(&a_ledger(&many), &GcSpec::default());
        assert_eq!(chosen.len(), MANY_SMALL);
        assert!(chosen.iter().all(|(_, reason)| *reason == PackReason::Small));
    }

    proptest! {
        #[test]
        fn what_is_left_is_within_the_share_and_the_cost_within_the_budget(
            packs in proptest::collection::vec((1..64 * MIB, 0..=100_u64), 0..40),
            percent in 0.0..50.0_f64,
            budget in proptest::option::of(0..512 * MIB),
        ) {
            let packs: Vec<_> =
                packs.into_iter().map(|(size, live)| (size, live, Standing::Sound)).collect();
            let ledger = a_ledger(&packs);
            let spec = GcSpec { max_dead_percent: percent, max_repack: budget, ..GcSpec::default() };
            let choice = choose(&ledger, &BTreeSet::new(), &BTreeSet::new(), &spec);
            let cost: u64 = choice.packs.iter().map(|(_, pack)| pack.live_bytes).sum();
            prop_assert!(budget.is_none_or(|budget| cost <= budget));
            let numbers: BTreeSet<u32> = choice.packs.iter().map(|(number, _)| *number).collect();
            prop_assert_eq!(numbers.len(), choice.packs.len());
            let stays = || ledger.packs().filter(|(number, _)| !numbers.contains(number));
            prop_assert_eq!(stays().map(|(_, pack)| pack.dead_bytes()).sum::<u64>(), choice.left_bytes);
            if budget.is_none() {
                let rewritten: u64 = choice.packs.iter().map(|(_, pack)| pack.live_bytes).sum();
                let stored: u64 = stays().map(|(_, pack)| pack.info.size).sum::<u64>() + rewritten;
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let is_within = choice.left_bytes as f64 <= stored as f64 * percent / 100.0 + 1.0;
                prop_assert!(is_within);
            }
        }
    }
}
