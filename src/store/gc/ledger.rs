//! What is known of each pack: that it is there, whether it may be relied on, and how much of it is needed.

use std::collections::HashMap;

use crate::store::pack::{PackInfo, PackName};

/// What a pack is to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is there, a segment that counts names it, and nobody condemned it: its chunks may be relied on.
    Sound,
    /// It is there, and no segment that counts names it.
    Unindexed,
    /// It is there and condemned.
    Condemned,
    /// It is not there.
    Gone,
}

/// A pack.
#[derive(Debug, Clone)]
pub(super) struct PackEntry {
    pub(super) info: PackInfo,
    pub(super) standing: Standing,
    /// The sum of the lengths of its chunks, before compression; 0 where its table is not known.
    pub(super) raw_bytes: u64,
    /// The same of those that are needed.
    pub(super) live_raw_bytes: u64,
    /// How many chunks of it are needed.
    pub(super) live_chunks: u64,
}

impl PackEntry {
    /// About how many of its bytes are needed: as large a share as of its chunks' bytes before compression.
    pub(super) fn live_bytes(&self) -> u64 {
        if self.raw_bytes == 0 {
            return 0;
        }
        let share = u128::from(self.info.size) * u128::from(self.live_raw_bytes) / u128::from(self.raw_bytes);
        u64::try_from(share).unwrap_or(u64::MAX).min(self.info.size)
    }

    /// About how many of its bytes nobody needs.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.info.size - self.live_bytes()
    }
}

/// All packs, by numbers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    packs: Vec<PackEntry>,
    numbers: HashMap<PackName, u32>,
}

impl Ledger {
    /// Adds a pack, or returns the number of one that is known.
    pub(super) fn add(&mut self, info: PackInfo, standing: Standing) -> u32 {
        *self.numbers.entry(info.pack).or_insert_with(|| {
            self.packs.push(PackEntry { info, standing, raw_bytes: 0, live_raw_bytes: 0, live_chunks: 0 });
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn number(&self, pack: &PackName) -> Option<u32> {
        self.numbers.get(pack).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&PackEntry> {
        self.packs.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut PackEntry> {
        self.packs.get_mut(number as usize)
    }

    /// Returns what a pack is; one that is not known is gone.
    pub(super) fn standing(&self, number: u32) -> Standing {
        self.get(number).map_or(Standing::Gone, |pack| pack.standing)
    }

    /// Returns the packs with their numbers.
    pub(super) fn packs(&self) -> impl Iterator<Item = (u32, &PackEntry)> {
        (0..).zip(&self.packs)
    }

    /// Forgets what was counted.
    pub(super) fn reset_counts(&mut self) {
        for pack in &mut self.packs {
            (pack.raw_bytes, pack.live_raw_bytes, pack.live_chunks) = (0, 0, 0);
        }
    }
}
