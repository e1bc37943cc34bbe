//! What a session sees: three listings, one after the other (W2).

use crate::scenario::{Break, Scenario};
use crate::store::{Chunks, Packs, Segments, Store, each, has};

/// A view that is being read, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct View {
    /// What `gc/` condemned.
    condemned: Packs,
    /// What `idx/` listed; after the last listing only what counts.
    segments: Segments,
    /// What `idx/` listed and does not count, but may be deleted by who works off these packs: it was refused, or names no others.
    idle: Segments,
}

/// The three listings, in the order of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Listing {
    First,
    Second,
    Third,
}

impl View {
    /// Does one listing. `mine` are the packs that the reader is about to delete.
    pub(crate) fn list(
        &mut self,
        scenario: &Scenario,
        store: &Store,
        listing: Listing,
        mine: Packs,
    ) -> &'static str {
        match (listing, scenario.is(Break::IndexFirst)) {
            (Listing::First, false) | (Listing::Second, true) => {
                self.condemned = store.condemned();
                "LIST gc/"
            }
            (Listing::Second, false) | (Listing::First, true) => {
                self.segments = store.segments;
                "LIST idx/"
            }
            (Listing::Third, _) => {
                let all = self.segments;
                self.segments = store.counting(scenario, all);
                if mine != 0 {
                    let others =
                        each(all & !self.segments).filter(|segment| store.rows[*segment] & !mine == 0);
                    let kept = scenario.is(Break::PendingKept);
                    self.idle = others.filter(|_| !kept).fold(0, |set, segment| set | 1 << segment)
                        | store.refused_segments(scenario, all & !self.segments);
                    if scenario.is(Break::RefusedRewritten) {
                        (self.segments, self.idle) = (all, 0);
                    }
                }
                self.condemned |= mine;
                "LIST evict/"
            }
        }
    }

    /// The packs that may be relied on (W3).
    pub(crate) fn reliable(&self, store: &Store) -> Packs {
        store.rows_of(self.segments) & !self.condemned
    }

    /// One reliable pack for each of these chunks that has any.
    pub(crate) fn places(&self, store: &Store, chunks: Chunks) -> Packs {
        let reliable = self.reliable(store);
        each(chunks)
            .filter_map(|chunk| each(reliable).find(|pack| has(store.contents[*pack], chunk)))
            .fold(0, |packs, pack| packs | 1 << pack)
    }

    /// The segments that are replaced by a merged one, and the rows of that one.
    pub(crate) fn merge(
        &self,
        scenario: &Scenario,
        store: &Store,
        touching: Option<Packs>,
    ) -> (Segments, Packs) {
        let old = each(self.segments)
            .filter(|segment| touching.is_none_or(|packs| store.rows[*segment] & packs != 0))
            .fold(0, |set, segment| set | 1 << segment);
        let left_out = match touching {
            _ if !scenario.is(Break::MergedKeepsCondemned) => self.condemned,
            Some(mine) => mine,
            None => 0,
        };
        (old, store.rows_of(old) & !left_out)
    }

    /// The segments that do not count and may go with the packs.
    pub(crate) fn idle(&self) -> Segments {
        self.idle
    }
}
