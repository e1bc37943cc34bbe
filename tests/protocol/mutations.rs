//! What no longer holds without a rule: each of these must find a broken promise, else the model does not see what the rule is for.

use crate::explore::breaks;
use crate::scenario::{Break, Job, Scenario};

const SMALL: Scenario = Scenario::SMALL;
const TWICE: Scenario = Scenario { runs: &[2], ..SMALL };
const CLONED: Scenario = Scenario { savers: &[Job::Save(0b11), Job::Clone(0b01)], chunks: 2, ..SMALL };
const NEW: Scenario = Scenario { savers: &[Job::Save(0b10)], ..TWICE };

#[test]
fn a_saver_lists_the_index_before_gc_and_lists_go_in_the_same_run() {
    breaks("I1", SMALL.breaking(&[Break::IndexFirst, Break::ListInSameRun]));
}

#[test]
fn a_saver_does_not_look_for_its_session() {
    breaks("I1", CLONED.breaking(&[Break::SessionNotLooked]));
}

#[test]
fn names_carry_no_digest() {
    breaks("I4", CLONED.breaking(&[Break::NoDigests]));
}

/// Digests do not help against a clone that was made between the drawing of the record's id and W5: no machine is cloned then.
#[test]
fn a_clone_uses_the_same_record() {
    breaks("I4", CLONED.breaking(&[Break::SameRecordName]));
}

#[test]
fn a_mark_hides_a_revision() {
    breaks("I1b", SMALL.breaking(&[Break::PendingHides]));
}

#[test]
fn a_removal_is_undone_in_place() {
    breaks("I1", SMALL.breaking(&[Break::UndoInPlace]));
}

#[test]
fn somebody_tidies_evictions() {
    breaks("I1", Scenario { tries: 2, ..SMALL }.breaking(&[Break::EvictionsTidied]));
}

#[test]
fn segments_of_the_evicted_count() {
    breaks("I1c", SMALL.breaking(&[Break::AdoptsNotAsked]));
}

#[test]
fn packs_are_condemned_after_the_wait() {
    breaks("I1", SMALL.breaking(&[Break::WaitBeforeCondemning]));
}

#[test]
fn the_copy_before_condemning_is_taken_for_the_rescue() {
    breaks("I1", Scenario { copies: true, ..SMALL }.breaking(&[Break::CopyIsRescue]));
}

#[test]
fn an_evictor_lists_before_it_marks() {
    breaks("I1b", SMALL.breaking(&[Break::ListBeforeMark]));
}

#[test]
fn revisions_that_another_run_refused_are_roots() {
    let two = Scenario { savers: &[Job::Save(0b11)], chunks: 2, ..TWICE };
    breaks("I6", two.breaking(&[Break::OnlyOwnRefusals]));
}

#[test]
fn a_list_goes_before_the_rows() {
    breaks("I2", SMALL.breaking(&[Break::ListBeforeRows]));
}

#[test]
fn a_list_goes_while_segments_name_its_packs() {
    breaks("I2", TWICE.breaking(&[Break::ListUnchecked]));
}

#[test]
fn a_list_goes_while_its_packs_are_there() {
    breaks("I2", TWICE.breaking(&[Break::ListBeforeBytes]));
}

#[test]
fn segments_that_do_not_count_are_rewritten() {
    breaks("I1c", Scenario { removes: false, ..TWICE }.breaking(&[Break::RefusedRewritten]));
}

#[test]
fn a_tombstone_goes_before_its_record() {
    breaks("I5", SMALL.breaking(&[Break::TombstoneFirst]));
}

#[test]
fn a_merge_deletes_without_a_look() {
    breaks("I1c", Scenario { merges: true, ..TWICE }.breaking(&[Break::MergedUnchecked]));
}

#[test]
fn merged_segments_keep_condemned_rows_and_lists_go_in_the_same_run() {
    let merging = Scenario { merges: true, ..TWICE };
    breaks("I2", merging.breaking(&[Break::MergedKeepsCondemned, Break::ListInSameRun]));
}

#[test]
fn a_list_goes_before_a_repeated_request_arrived() {
    breaks("I2", Scenario { late: true, ..NEW }.breaking(&[Break::ListBeforeLate]));
}

#[test]
fn readers_do_not_look_into_segments_that_a_mark_hides() {
    breaks("I1c", Scenario { runs: &[1, 1], removes: false, ..SMALL }.breaking(&[Break::ReadersAskAdopts]));
}

#[test]
fn a_rescue_is_not_told_that_it_was_evicted() {
    breaks("I1c", Scenario { runs: &[1, 1], removes: false, ..SMALL }.breaking(&[Break::RescueUnchecked]));
}

#[test]
fn a_rescue_has_no_session() {
    breaks("I2", Scenario { savers: &[], runs: &[1, 2], ..SMALL }.breaking(&[Break::RescueWithoutSession]));
}

#[test]
fn replaced_segments_are_deleted_without_a_look() {
    let two = Scenario { savers: &[], runs: &[1, 1], chunks: 2, removes: false, ..SMALL };
    breaks("I1c", two.breaking(&[Break::DroppedUnchecked]));
}
