//! What BuildKit says while it builds, read from the stream of `/build?version=2`.
//!
//! Each line is a JSON object. `moby.buildkit.trace` carries a `StatusResponse` (protobuf in base64) with vertexes, logs and
//! warnings; `moby.image.id` the image. A vertex is repeated whenever it changes: without `started` it only waits, with
//! `completed` it has ended, and that it was cached may be said even later.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex};
use prost::Message as _;

use super::failure::Failure;
use super::steps::Steps;
use super::wire::{Line, image_id, not_understood};
use super::{EngineError, OutputStream, StepState};
use crate::base::ImageId;

/// Reads BuildKit's stream.
#[derive(Debug, Default)]
pub(super) struct Buildkit {
    /// The step of each vertex that is one, by digest.
    steps: HashMap<String, u32>,
    /// The vertex that failed: its step, if it is one.
    failed: Option<Option<u32>>,
    /// The image whose metadata could not be loaded.
    base: Option<String>,
    image: Option<ImageId>,
    failure: Option<String>,
}

impl Buildkit {
    /// Takes one line of the stream.
    pub(super) fn line(&mut self, text: &[u8], steps: &mut Steps<'_>) -> Result<(), EngineError> {
        let line = Line::read(text)?;
        match line.id.as_deref() {
            Some("moby.buildkit.trace") => {
                let Some(trace) = line.aux.as_ref().and_then(serde_json::Value::as_str) else {
                    return Ok(());
                };
                let bytes = STANDARD.decode(trace).map_err(not_understood)?;
                let status = StatusResponse::decode(bytes.as_slice()).map_err(not_understood)?;
                self.status(status, steps);
            }
            Some("moby.image.id") => self.image = line.aux.as_ref().and_then(image_id),
            Some(_) | None => {}
        }
        if let Some(detail) = line.failure() {
            self.failure = Some(detail.message);
        }
        Ok(())
    }

    fn status(&mut self, status: StatusResponse, steps: &mut Steps<'_>) {
        // Output first where a step ends in the same message, so that no line comes after its step's end.
        // Numbers go by the time of the start: a message may tell of a later step before it tells of an earlier one's end.
        let mut vertexes = status.vertexes;
        vertexes.sort_by_key(|vertex| vertex.started.as_ref().map(|at| (at.seconds, at.nanos)));
        for vertex in &vertexes {
            self.appear(vertex, steps);
        }
        for log in status.logs {
            if let Some(&step) = self.steps.get(&log.vertex) {
                steps.run(step);
                let stream = if log.stream == 2 { OutputStream::Stderr } else { OutputStream::Stdout };
                steps.output(step, stream, &log.msg);
            }
        }
        for vertex in vertexes.iter().filter(|vertex| vertex.completed.is_some()) {
            self.end(vertex, steps);
        }
        for warning in status.warnings {
            steps.warn("builder", &String::from_utf8_lossy(&warning.short));
        }
    }

    fn appear(&mut self, vertex: &Vertex, steps: &mut Steps<'_>) {
        // A vertex that only waits has no number yet: they are announced in any order, and begin in the Dockerfile's.
        let begun = vertex.started.is_some() || vertex.completed.is_some();
        if !begun || is_internal(&vertex.name) {
            return;
        }
        let step = *self.steps.entry(vertex.digest.clone()).or_insert_with(|| steps.open(&vertex.name));
        if vertex.completed.is_none() {
            steps.run(step);
        }
    }

    fn end(&mut self, vertex: &Vertex, steps: &mut Steps<'_>) {
        let step = self.steps.get(&vertex.digest).copied();
        let failed = !vertex.error.is_empty();
        // Steps beside the one that failed are cancelled; the first one is the reason.
        if failed && self.failed.is_none() {
            self.failed = Some(step);
            self.base = vertex.name.strip_prefix("[internal] load metadata for ").map(str::to_owned);
        }
        if let Some(step) = step {
            let state = match (failed, vertex.cached) {
                (true, _) => StepState::Failed,
                (false, true) => StepState::Cached,
                (false, false) => StepState::Done,
            };
            steps.end(step, state, took_ms(vertex.started.as_ref(), vertex.completed.as_ref()));
        }
    }

    /// Returns the image, or what is known of the failure; `None` when the stream ended too early.
    pub(super) fn outcome(self, steps: &Steps<'_>) -> Option<Result<ImageId, Failure>> {
        match (self.failure, self.image) {
            (Some(message), _) => Some(Err(Failure {
                message,
                step: self.failed.flatten().and_then(|step| steps.view(step)),
                base: self.base,
                ..Failure::default()
            })),
            (None, Some(image)) => Some(Ok(image)),
            (None, None) => None,
        }
    }
}

/// Says whether a vertex is none of the Dockerfile's business.
fn is_internal(name: &str) -> bool {
    name.starts_with("[internal]") || name.starts_with("copy /context")
}

fn took_ms(started: Option<&Timestamp>, completed: Option<&Timestamp>) -> Option<u64> {
    let ms = |at: &Timestamp| at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos / 1_000_000));
    u64::try_from(ms(completed?).saturating_sub(ms(started?))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::recorded::{self, story};

    fn play(name: &str) -> (Vec<String>, Result<ImageId, EngineError>) {
        recorded::play(
            name,
            |text, steps, reader: &mut Buildkit| reader.line(text, steps),
            |reader, steps| reader.outcome(steps),
        )
    }

    #[test]
    fn a_build_is_told_step_by_step() {
        let (events, outcome) = play("buildkit-success");
        assert_eq!(
            outcome.unwrap().to_string(),
            "sha256:c66bde441a674c6b98f2c3fbeefaecb0a8e6d103c79da7d74c041c61a221ff41"
        );
        story(
            &events,
            "1 Running [1/4] FROM docker.io/library/debian:bookworm-slim
             1 Done
             2 Running [2/4] COPY hello.txt /hello.txt
             2 Done
             3 Running [3/4] RUN printf 'one\\ntwo\\n'; printf 'err\\n' >&2; printf 'part'; sleep 0.2; printf 'ial\\n'
             3 err err
             3 out one
             3 out two
             3 out partial
             3 Done
             4 Running [4/4] RUN echo second
             4 out second
             4 Done
             5 Running exporting to image
             5 Done",
        );
    }

    #[test]
    fn cached_steps_are_told_once() {
        let (events, outcome) = play("buildkit-cached");
        outcome.unwrap();
        let cached = events.iter().filter(|event| event.ends_with("Cached")).count();
        assert_eq!(cached, 3, "{events:#?}");
        assert!(!events.contains(&"3 Running".to_owned()));
    }

    #[test]
    fn a_failed_step_has_its_code_and_last_lines() {
        let (events, outcome) = play("buildkit-step-failed");
        let Err(EngineError::Step { step: 2, exit_code: Some(7), tail, .. }) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(tail, ["complaint", "before"]);
        assert_eq!(events.last().unwrap(), "2 Failed");
    }

    #[test]
    fn what_keeps_a_build_from_starting_is_named() {
        for (recording, meaning) in [
            ("buildkit-parse", "mistake in line 2: unknown instruction: NONSENSE"),
            ("buildkit-nobase", "the base image `docker.io/library/kiln-not-there:1`"),
            ("buildkit-nosession", "needs the secret `tok`"),
            ("buildkit-copy", "`[2/2] COPY nothere /x` failed"),
        ] {
            let error = play(recording).1.unwrap_err();
            assert!(error.to_string().contains(meaning), "{recording}: {error}");
        }
    }

    #[test]
    fn steps_told_of_in_one_message_are_numbered_by_their_start() {
        let vertex = |name: &str, started: i64, completed: Option<i64>| Vertex {
            digest: name.to_owned(),
            name: name.to_owned(),
            started: Some(Timestamp { seconds: started, nanos: 0 }),
            completed: completed.map(|seconds| Timestamp { seconds, nanos: 0 }),
            ..Vertex::default()
        };
        let status = StatusResponse {
            vertexes: vec![vertex("[2/2] RUN true", 8, None), vertex("[1/2] FROM base", 7, Some(8))],
            ..StatusResponse::default()
        };
        let steps = &mut Steps::new(&crate::base::Discard, crate::docker::logs::Redactor::default());
        Buildkit::default().status(status, steps);
        let names: Vec<_> = (1..=2).filter_map(|step| Some(steps.view(step)?.name)).collect();
        assert_eq!(names, ["[1/2] FROM base", "[2/2] RUN true"]);
    }

    #[test]
    fn garbage_is_no_panic() {
        let steps = &mut Steps::new(&crate::base::Discard, crate::docker::logs::Redactor::default());
        for text in [
            &b"{}"[..],
            b"[]",
            b"\xff",
            br#"{"id":"moby.buildkit.trace","aux":"!"}"#,
            br#"{"id":"moby.buildkit.trace","aux":"////"}"#,
            br#"{"id":"moby.image.id","aux":{"ID":"x"}}"#,
        ] {
            let mut reader = Buildkit::default();
            let refused = reader.line(text, steps).is_err();
            assert!(refused || reader.outcome(steps).is_none());
        }
    }
}
