//! Which state a snapshot is in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Failure, Outcome};

/// The state of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its image is being built.
    Building,
    /// Its image is being checked.
    Checking,
    /// Its image passed the checks.
    Active,
    /// Its image was not checked, because the user said so. Never promoted.
    Unchecked,
    /// It failed. Terminal.
    Error,
    /// It is put aside: not chosen, not deleted.
    Inactive,
    /// It must not be used any more. Only removal follows.
    Revoked,
    /// Its images are being deleted.
    Removing,
    /// It is gone. Terminal.
    Removed,
}

impl State {
    /// Returns whether `self` may become `next`.
    #[must_use]
    pub fn allows(self, next: Self) -> bool {
        use State::{Active, Building, Checking, Error, Inactive, Removed, Removing, Revoked, Unchecked};
        match self {
            Building => matches!(next, Checking | Active | Unchecked | Error),
            Checking => matches!(next, Active | Unchecked | Error),
            Active => matches!(next, Inactive | Revoked | Removing),
            Unchecked => matches!(next, Active | Inactive | Revoked | Removing),
            Inactive => matches!(next, Active | Revoked | Removing),
            Error | Revoked => matches!(next, Removing),
            Removing => matches!(next, Removed),
            Removed => false,
        }
    }

    /// Returns whether a bake is under way.
    #[must_use]
    pub fn in_work(self) -> bool {
        matches!(self, Self::Building | Self::Checking)
    }

    /// Returns the state's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Checking => "checking",
            Self::Active => "active",
            Self::Unchecked => "unchecked",
            Self::Error => "error",
            Self::Inactive => "inactive",
            Self::Revoked => "revoked",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }

    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Building,
        Self::Checking,
        Self::Active,
        Self::Unchecked,
        Self::Error,
        Self::Inactive,
        Self::Revoked,
        Self::Removing,
        Self::Removed,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a state"))
    }
}

/// A transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Version of this record: 1.
    pub version: u32,
    /// The state that begins.
    pub state: State,
    /// When.
    pub at: jiff::Timestamp,
    /// Why, in a sentence, where somebody gave a reason.
    pub reason: Option<String>,
    /// What the bake gave, when it succeeded.
    pub outcome: Option<Box<Outcome>>,
    /// Why the bake failed, when it did.
    pub failure: Option<Failure>,
}

impl StateEntry {
    /// Makes a transition that says nothing but its state.
    #[must_use]
    pub fn to(state: State, at: jiff::Timestamp) -> Self {
        Self { version: 1, state, at, reason: None, outcome: None, failure: None }
    }
}

/// Returns the indices of the transitions that count, in order: one that the state before it does not allow is left out.
///
/// `states` are in the order of (sequence, ULID). The first must be `building`.
#[must_use]
pub fn fold(states: &[State]) -> Vec<usize> {
    let mut counted: Vec<usize> = Vec::new();
    for (index, next) in states.iter().enumerate() {
        let allowed = match counted.last() {
            None => *next == State::Building,
            Some(&last) => states[last].allows(*next),
        };
        if allowed {
            counted.push(index);
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use State::{Active, Building, Checking, Error, Inactive, Removed, Removing, Revoked, Unchecked};

    use super::*;

    #[test]
    fn a_terminal_state_never_reopens() {
        for (states, last) in [
            (vec![Building, Checking, Active], Active),
            (vec![Building, Error, Checking, Active], Error),
            (vec![Building, Checking, Active, Error], Active),
            (vec![Building, Checking, Active, Revoked, Active], Revoked),
            (vec![Building, Checking, Active, Inactive, Active], Active),
            (vec![Building, Checking, Unchecked, Active], Active),
            (vec![Building, Error, Removing, Removed, Active], Removed),
        ] {
            let counted = fold(&states);
            assert_eq!(counted.last().map(|&index| states[index]), Some(last), "{states:?}");
        }
        assert!(fold(&[Active]).is_empty());
    }

    #[test]
    fn every_state_reads_what_it_writes() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
    }
}
