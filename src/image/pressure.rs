//! Room: how many bytes must go, and the shortest row of least recently used images that gives them.

use super::{Freed, Inventory, Rule};
use crate::base::config::ImageRules;

/// Bytes that must go, and the rule that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) rule: Rule,
}

impl Need {
    /// Returns what the rules ask for beside what goes anyway. What the build cache holds as well counts: it is in nobody's way once
    /// the cache is pruned, and an engine whose cache holds everything would lose all its images and still have no room.
    pub(super) fn of(
        rules: &ImageRules,
        inventory: &Inventory,
        going: Freed,
        cache_bytes: u64,
    ) -> Option<Self> {
        let mut needs = Vec::new();
        if let Some(most) = rules.max_total {
            let left = inventory.own_bytes().saturating_sub(going.with_cache_bytes);
            needs.push(Self { bytes: left.saturating_sub(most.0), rule: Rule::MaxTotal(most) });
        }
        if let (Some(high), Some(low), Some(disk)) = (rules.high, rules.low, inventory.disk) {
            let used = disk.total_bytes.saturating_sub(disk.free_bytes);
            if used > percent(disk.total_bytes, high) {
                let freed = going.with_cache_bytes.saturating_add(cache_bytes);
                let bytes = used.saturating_sub(percent(disk.total_bytes, low)).saturating_sub(freed);
                needs.push(Self { bytes, rule: Rule::Watermark(high) });
            }
        }
        // The larger need is met, and with it the other one.
        needs.into_iter().filter(|need| need.bytes > 0).max_by_key(|need| need.bytes)
    }

    /// Returns what must be free at once and is not.
    pub(super) fn at_once(rules: &ImageRules, inventory: &Inventory) -> Option<Self> {
        let (least, disk) = (rules.min_free?, inventory.disk?);
        let bytes = least.0.saturating_sub(disk.free_bytes);
        (bytes > 0).then_some(Self { bytes, rule: Rule::MinFree(least) })
    }
}

/// Returns so many percent of a number of bytes.
fn percent(bytes: u64, percent: u8) -> u64 {
    let part = u128::from(bytes) * u128::from(percent) / 100;
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Takes from the front until `bytes` are reached; returns what was taken, and the bytes that are still missing.
pub(super) fn take<T: Copy>(bytes: u64, row: &[T], mut frees: impl FnMut(T) -> u64) -> (Vec<T>, u64) {
    let (mut taken, mut missing) = (Vec::new(), bytes);
    for item in row {
        if missing == 0 {
            break;
        }
        missing = missing.saturating_sub(frees(*item));
        taken.push(*item);
    }
    (taken, missing)
}
