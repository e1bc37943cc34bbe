//! Explores a scenario to its end, or to the first state that breaks a promise.

use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use crate::scenario::Scenario;
use crate::world::{Protocol, Step};

/// What was found.
pub(crate) struct Found {
    states: usize,
    took: Duration,
    /// The promises that do not hold, each with the steps that lead there.
    broken: Vec<(&'static str, Vec<Step>)>,
    /// What never happened though it should be possible.
    never: Vec<&'static str>,
}

/// Asserts that every promise holds in every state that the scenario can reach, and that it reaches what it is about.
pub(crate) fn holds(scenario: Scenario) {
    let protocol = Protocol(scenario);
    // The order does not matter where all states are visited; this one needs less memory.
    let began = Instant::now();
    let found = judge(protocol, began, &builder(protocol).threads(2).spawn_dfs().join());
    println!("{} states in {:.1?}: {scenario:?}", found.states, found.took);
    for (promise, steps) in &found.broken {
        println!("{promise} is broken by {} steps: {steps:#?}", steps.len());
    }
    assert!(found.broken.is_empty(), "a promise is broken, see above");
    assert!(found.never.is_empty(), "never happened: {:?}", found.never);
}

/// Asserts that the scenario breaks this promise, and prints the shortest way there.
pub(crate) fn breaks(promise: &str, scenario: Scenario) {
    let protocol = Protocol(scenario);
    let began = Instant::now();
    let found = judge(protocol, began, &builder(protocol).spawn_bfs().join());
    for (broken, steps) in &found.broken {
        println!(
            "{:?} breaks {broken} in {} steps ({} states seen):",
            scenario.broken,
            steps.len(),
            found.states
        );
        steps.iter().for_each(|step| println!("    {step:?}"));
    }
    assert!(
        found.broken.iter().any(|(broken, _)| broken.split(' ').next() == Some(promise)),
        "{promise} holds in all {} states",
        found.states
    );
}

fn builder(protocol: Protocol) -> stateright::CheckerBuilder<Protocol> {
    protocol.checker().finish_when(HasDiscoveries::AnyFailures)
}

fn judge(protocol: Protocol, began: Instant, checker: &impl Checker<Protocol>) -> Found {
    let mut found = Found {
        states: checker.unique_state_count(),
        took: began.elapsed(),
        broken: Vec::new(),
        never: Vec::new(),
    };
    for property in protocol.properties() {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Always, Some(path)) => found.broken.push((property.name, path.into_actions())),
            (Expectation::Sometimes, None) => found.never.push(property.name),
            (Expectation::Always, None)
            | (Expectation::Sometimes, Some(_))
            | (Expectation::Eventually, _) => {}
        }
    }
    found
}
