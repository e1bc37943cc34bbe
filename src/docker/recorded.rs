//! Plays recordings of real engines, for tests.

use std::sync::Mutex;

use super::failure::Failure;
use super::logs::Redactor;
use super::steps::Steps;
use super::{EngineError, EngineEvent, OutputStream, StepState};
use crate::base::ImageId;

/// Returns the lines of a recording.
pub(super) fn lines(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/fixtures/engine/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(path).unwrap();
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Plays a recording to a reader; returns what it told, one short text per event, and what came of it.
pub(super) fn play<R: Default>(
    name: &str,
    take: impl Fn(&[u8], &mut Steps<'_>, &mut R) -> Result<(), EngineError>,
    outcome: impl FnOnce(R, &mut Steps<'_>) -> Option<Result<ImageId, Failure>>,
) -> (Vec<String>, Result<ImageId, EngineError>) {
    let told = Mutex::new(Vec::new());
    let sink = |event: EngineEvent| told.lock().unwrap().push(short(event));
    let mut steps = Steps::new(&sink, Redactor::default());
    let mut reader = R::default();
    for line in lines(name) {
        take(&line, &mut steps, &mut reader).unwrap();
    }
    let outcome = outcome(reader, &mut steps).expect("the recording is whole").map_err(Failure::meaning);
    drop(steps);
    (told.into_inner().unwrap(), outcome)
}

/// Compares what was told with a text, whose lines may be indented.
pub(super) fn story(told: &[String], expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(told, expected);
}

fn short(event: EngineEvent) -> String {
    match event {
        EngineEvent::Step { step, name, state: StepState::Running, .. } => format!("{step} Running {name}"),
        EngineEvent::Step { step, state, .. } => format!("{step} {state:?}"),
        EngineEvent::Log { step, stream: OutputStream::Stdout, line } => format!("{step} out {line}"),
        EngineEvent::Log { step, stream: OutputStream::Stderr, line } => format!("{step} err {line}"),
        EngineEvent::Context { .. }
        | EngineEvent::Pull { .. }
        | EngineEvent::Disk { .. }
        | EngineEvent::Warning { .. } => format!("{event:?}"),
    }
}
