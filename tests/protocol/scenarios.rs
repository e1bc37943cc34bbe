//! What holds, whoever comes when.

use crate::explore::holds;
use crate::scenario::{Break, Job, Scenario};

const SMALL: Scenario = Scenario::SMALL;
const TWICE: Scenario = Scenario { runs: &[2], ..SMALL };

#[test]
fn a_saver_that_tries_twice_beside_a_collector() {
    holds(Scenario { tries: 2, ..SMALL });
}

#[test]
fn a_saver_of_two_chunks_that_tries_twice_beside_a_collector() {
    holds(Scenario { savers: &[Job::Save(0b11)], chunks: 2, tries: 2, ..SMALL });
}

#[test]
fn a_saver_beside_a_collector_that_deletes_in_a_later_run() {
    holds(TWICE);
}

#[test]
fn a_saver_of_something_new_beside_a_collector_that_deletes_in_a_later_run() {
    holds(Scenario { savers: &[Job::Save(0b10)], ..TWICE });
}

#[test]
fn a_collector_that_copies_before_it_condemns() {
    holds(Scenario { copies: true, ..TWICE });
}

#[test]
fn an_undo_beside_a_collector() {
    holds(Scenario { savers: &[Job::Undo], tries: 2, ..TWICE });
}

#[test]
fn a_copy_beside_a_collector_and_a_removal() {
    holds(Scenario { savers: &[Job::Copy], ..TWICE });
}

#[test]
fn a_saver_that_merges_segments_beside_a_collector() {
    holds(Scenario { merges: true, ..TWICE });
}

#[test]
fn two_savers_beside_a_collector() {
    holds(Scenario { savers: &[Job::Save(0b1), Job::Save(0b1)], ..SMALL });
}

#[test]
fn two_savers_that_merge_the_same_segments() {
    holds(Scenario { savers: &[Job::Save(0b1), Job::Save(0b1)], merges: true, removes: false, ..SMALL });
}

#[test]
fn a_saver_and_its_clone_beside_a_collector() {
    holds(Scenario { savers: &[Job::Save(0b11), Job::Clone(0b01)], chunks: 2, removes: false, ..SMALL });
}

#[test]
fn a_request_that_arrives_twice_before_the_list_goes() {
    holds(Scenario { savers: &[Job::Save(0b10)], late: true, removes: false, ..TWICE });
}

/// G0 is there for deduplication: whatever it does too late, G5 does.
#[test]
fn condemning_before_copying_loses_nothing() {
    holds(Scenario { copies: true, ..TWICE }.breaking(&[Break::CondemnedBeforeCopied]));
}

/// Either W2 lists `gc/` before `idx/`, or a list outlives every session that saw its packs in the index. Both is asked for.
#[test]
fn listing_the_index_first_loses_nothing_while_lists_go_in_later_runs() {
    holds(TWICE.breaking(&[Break::IndexFirst]));
}

/// The other way round.
#[test]
fn lists_that_go_in_the_same_run_lose_nothing_while_gc_is_listed_first() {
    holds(TWICE.breaking(&[Break::ListInSameRun]));
}

/// Merged segments that keep the rows of condemned packs are found by the run that would let their list go.
#[test]
fn merged_rows_of_condemned_packs_lose_nothing_while_lists_go_in_later_runs() {
    holds(Scenario { merges: true, ..TWICE }.breaking(&[Break::MergedKeepsCondemned]));
}

/// What comes out of the wrong order is looked at again before it is called lost.
#[test]
fn listing_records_before_tombstones_raises_no_alarm() {
    holds(TWICE.breaking(&[Break::RecordsBeforeTombstones]));
}

mod larger {
    //! Minutes each, and gigabytes of memory: by hand.

    use super::*;

    #[test]
    #[ignore = "6 million states"]
    fn a_saver_of_two_chunks_that_tries_twice_beside_a_collector_of_two_runs() {
        holds(Scenario { savers: &[Job::Save(0b11)], chunks: 2, tries: 2, ..TWICE });
    }

    #[test]
    #[ignore = "8 million states"]
    fn two_savers_that_try_twice_beside_a_collector() {
        holds(Scenario { savers: &[Job::Save(0b1), Job::Save(0b1)], tries: 2, ..SMALL });
    }

    #[test]
    #[ignore = "15 million states"]
    fn a_saver_of_two_chunks_that_merges_beside_a_collector_of_two_runs() {
        holds(Scenario { savers: &[Job::Save(0b11)], chunks: 2, tries: 2, merges: true, ..TWICE });
    }

    #[test]
    #[ignore = "17 million states"]
    fn a_saver_beside_two_collectors() {
        holds(Scenario { runs: &[1, 1], removes: false, ..SMALL });
    }
}
