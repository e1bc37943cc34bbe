//! What the classic builder says while it builds: a terminal's text in pieces.
//!
//! `Step n/m : INSTRUCTION` begins a step, ` ---> Running in ID` names its container, ` ---> Using cache` says that it is
//! cached, ` ---> ID` names the image it gave. All else between is the step's output, what it wrote to standard error in red.

use super::failure::Failure;
use super::steps::Steps;
use super::wire::{Line, image_id};
use super::{EngineError, EngineEvent, OutputStream, StepState};
use crate::base::ImageId;

/// How the builder begins what a step wrote to standard error.
const RED: &str = "\u{1b}[91m";

/// Reads the classic builder's stream.
#[derive(Debug, Default)]
pub(super) struct Classic {
    step: Option<u32>,
    cached: bool,
    /// The container of the step that runs.
    container: Option<String>,
    /// The image that the last step of this stage gave.
    parent: Option<String>,
    /// Images that steps of this build made: the one they stand on, and they themselves.
    made: Vec<(String, String)>,
    image: Option<ImageId>,
    failure: Option<super::wire::Detail>,
}

impl Classic {
    /// Returns the container of the step that runs.
    pub(super) fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    /// Returns what the steps of this build made so far: pairs of the image below and the image made.
    pub(super) fn made(&self) -> &[(String, String)] {
        &self.made
    }

    /// Takes one line of the stream.
    pub(super) fn line(&mut self, text: &[u8], steps: &mut Steps<'_>) -> Result<(), EngineError> {
        let line = Line::read(text)?;
        if let Some(image) = line.aux.as_ref().and_then(image_id) {
            self.image = Some(image);
        }
        if let Some(status) = &line.status {
            steps.emit(EngineEvent::Pull { status: steps.redactor().text(status) });
        }
        if let Some(stream) = &line.stream {
            self.text(stream, steps);
        }
        if let Some(failure) = line.failure() {
            if let Some(step) = self.step {
                steps.end(step, StepState::Failed, None);
            }
            self.failure = Some(failure);
        }
        Ok(())
    }

    fn text(&mut self, text: &str, steps: &mut Steps<'_>) {
        let one = text.trim_end_matches('\n');
        // While a container runs, only its end is the builder's word: a step cannot print itself out of its own output.
        if let (Some(step), Some(container)) = (self.step, &self.container) {
            if one.strip_prefix("Removing intermediate container ") == Some(container) {
                self.container = None;
                return;
            }
            match text.strip_prefix(RED) {
                Some(red) => {
                    let red = red.strip_suffix("\u{1b}[0m").unwrap_or(red);
                    steps.output(step, OutputStream::Stderr, red.as_bytes());
                }
                None => steps.output(step, OutputStream::Stdout, text.as_bytes()),
            }
            return;
        }
        if let Some(name) = step_name(one) {
            self.end(steps);
            let step = steps.open(name);
            if name.trim_start().to_ascii_uppercase().starts_with("FROM ") {
                self.parent = None;
            }
            (self.step, self.cached) = (Some(step), false);
            return;
        }
        let Some(step) = self.step else { return };
        if let Some(said) = one.strip_prefix(" ---> ") {
            if said == "Using cache" {
                self.cached = true;
                return;
            }
            if let Some(container) = said.strip_prefix("Running in ").filter(|id| is_id(id)) {
                steps.run(step);
                self.container = Some(container.to_owned());
                return;
            }
            if is_id(said) {
                if let Some(below) = self.parent.replace(said.to_owned()).filter(|_| !self.cached) {
                    self.made.push((below, said.to_owned()));
                }
                self.end(steps);
                return;
            }
        }
        // Between the steps the builder prints empty pieces, and after the last one what it built.
        if one.starts_with("[Warning]") {
            steps.warn("builder", one);
        }
    }

    fn end(&mut self, steps: &mut Steps<'_>) {
        if let Some(step) = self.step.take() {
            steps.end(step, if self.cached { StepState::Cached } else { StepState::Done }, None);
        }
        self.container = None;
    }

    /// Returns the image, or what is known of the failure; `None` when the stream ended too early.
    pub(super) fn outcome(mut self, steps: &mut Steps<'_>) -> Option<Result<ImageId, Failure>> {
        if let Some(failure) = self.failure {
            return Some(Err(Failure {
                message: failure.message,
                code: failure.code,
                step: self.step.and_then(|step| steps.view(step)),
                ..Failure::default()
            }));
        }
        self.end(steps);
        self.image.map(Ok)
    }
}

/// Returns the instruction in `Step n/m : INSTRUCTION`.
fn step_name(line: &str) -> Option<&str> {
    let (numbers, name) = line.strip_prefix("Step ")?.split_once(" : ")?;
    let (n, m) = numbers.split_once('/')?;
    (n.parse::<u32>().is_ok() && m.parse::<u32>().is_ok()).then_some(name)
}

/// Says whether a text is a short id, as the builder prints it.
fn is_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::recorded::{self, story};

    fn play(name: &str) -> (Vec<String>, Result<ImageId, EngineError>) {
        recorded::play(name, |text, steps, reader: &mut Classic| reader.line(text, steps), Classic::outcome)
    }

    #[test]
    fn a_build_is_told_step_by_step() {
        let (events, outcome) = play("classic-success");
        assert_eq!(
            outcome.unwrap().to_string(),
            "sha256:421d4f37ef3df756cd5f0c8a5f8da8010f461a405e24294e2cac79a5ff892025"
        );
        story(
            &events,
            "1 Running FROM debian:bookworm-slim
             1 Done
             2 Running COPY hello.txt /hello.txt
             2 Done
             3 Running RUN printf 'one\\ntwo\\n'; printf 'err\\n' >&2; printf 'part'; sleep 0.2; printf 'ial\\n'
             3 out one
             3 out two
             3 err err
             3 out partial
             3 Done
             4 Running RUN echo second
             4 out second
             4 Done",
        );
    }

    #[test]
    fn cached_steps_are_told_once() {
        let (events, outcome) = play("classic-cached");
        outcome.unwrap();
        assert_eq!(events.iter().filter(|event| event.ends_with("Cached")).count(), 3, "{events:#?}");
    }

    #[test]
    fn failures_are_named() {
        for (recording, meaning) in [
            (
                "classic-step-failed",
                "step 2 `RUN echo before; echo complaint >&2; exit 7` failed with exit code 7",
            ),
            ("classic-nobase", "the base image `kiln-not-there:1`"),
            ("classic-mount", "the --mount option requires BuildKit"),
            ("classic-copy", "step 2 `COPY nothere /x` failed"),
        ] {
            let error = play(recording).1.unwrap_err();
            assert!(error.to_string().contains(meaning), "{recording}: {error}");
        }
    }

    #[test]
    fn made_images_are_known_with_what_they_stand_on() {
        let mut reader = Classic::default();
        let steps = &mut Steps::new(&crate::base::Discard, crate::docker::logs::Redactor::default());
        for line in recorded::lines("classic-success") {
            reader.line(&line, steps).unwrap();
        }
        let made: Vec<_> =
            reader.made().iter().map(|(below, made)| (below.as_str(), made.as_str())).collect();
        assert_eq!(
            made,
            [
                ("7b0303977918", "533f5c39a66d"),
                ("533f5c39a66d", "28897bbefe07"),
                ("28897bbefe07", "421d4f37ef3d")
            ]
        );
    }
}
