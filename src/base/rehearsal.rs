//! Time and ids of a rehearsal: for tests in which everything has to happen again in the same way.
//!
//! A rehearsal is of one thread. What other threads ask for meanwhile, they get as ever.

use std::cell::RefCell;

thread_local! {
    static REHEARSAL: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// 2026-01-01, in milliseconds: a rehearsal begins then.
const BEGIN_MS: i64 = 1_767_225_600_000;

struct Plan {
    random: fastrand::Rng,
    now_ms: i64,
}

/// A rehearsal, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Rehearsal(());

impl Rehearsal {
    /// Lets this thread's clock stand still, and its ids follow from the seed.
    pub(crate) fn begin(seed: u64) -> Self {
        REHEARSAL.set(Some(Plan { random: fastrand::Rng::with_seed(seed), now_ms: BEGIN_MS }));
        Self(())
    }

    /// Puts the clock forward.
    pub(crate) fn pass(&self, milliseconds: i64) {
        REHEARSAL.with_borrow_mut(|plan| plan.iter_mut().for_each(|plan| plan.now_ms += milliseconds));
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        REHEARSAL.set(None);
    }
}

/// Returns the time, where this thread rehearses.
pub(super) fn now() -> Option<jiff::Timestamp> {
    let now_ms = REHEARSAL.with_borrow(|plan| plan.as_ref().map(|plan| plan.now_ms))?;
    jiff::Timestamp::from_millisecond(now_ms).ok()
}

/// Returns the next id, where this thread rehearses.
pub(super) fn ulid() -> Option<ulid::Ulid> {
    REHEARSAL.with_borrow_mut(|plan| {
        let plan = plan.as_mut()?;
        Some(ulid::Ulid::from_parts(u64::try_from(plan.now_ms).ok()?, plan.random.u128(..)))
    })
}
