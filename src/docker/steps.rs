//! The steps of a running build: numbers, states, lines. Both builders tell their story through it.

use std::collections::VecDeque;

use super::logs::{Lines, Redactor};
use super::{EngineEvent, OutputStream, StepReport, StepState};
use crate::base::{Monotonic, Sink};

/// How many of a step's last lines an error repeats.
const TAIL: usize = 40;

/// Longest name of a step, in characters: names are shown on one line.
const LONGEST_NAME: usize = 300;

/// What BuildKit writes where it drops output.
const CLIPPED: &str = "[output clipped, log limit";

/// Tells a build's story to a sink.
pub(super) struct Steps<'a> {
    sink: &'a dyn Sink<EngineEvent>,
    redactor: Redactor,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug)]
struct Step {
    name: String,
    state: Option<StepState>,
    started: Monotonic,
    ms: u64,
    cached: bool,
    clipped: bool,
    stdout: Lines,
    stderr: Lines,
    tail: VecDeque<String>,
}

/// What an error says of the step that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepView {
    /// Its number.
    pub(super) number: u32,
    /// Its instruction.
    pub(super) name: String,
    /// Its last lines.
    pub(super) tail: Vec<String>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(sink: &'a dyn Sink<EngineEvent>, redactor: Redactor) -> Self {
        Self { sink, redactor, steps: Vec::new() }
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Gives a step its number.
    pub(super) fn open(&mut self, name: &str) -> u32 {
        let one_line = self.redactor.text(name).split_whitespace().collect::<Vec<_>>().join(" ");
        let mut shown: String = one_line.chars().take(LONGEST_NAME).collect();
        if shown.len() < one_line.len() {
            shown.push('…');
        }
        self.steps.push(Step {
            name: shown,
            state: None,
            started: Monotonic::start(),
            ms: 0,
            cached: false,
            clipped: false,
            stdout: Lines::default(),
            stderr: Lines::default(),
            tail: VecDeque::new(),
        });
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    fn step(&mut self, number: u32) -> Option<&mut Step> {
        self.steps.get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Says that a step runs; a second time says nothing.
    pub(super) fn run(&mut self, number: u32) {
        let Some(step) = self.step(number).filter(|step| step.state.is_none()) else { return };
        step.state = Some(StepState::Running);
        step.started = Monotonic::start();
        let name = step.name.clone();
        self.sink.emit(EngineEvent::Step { step: number, name, state: StepState::Running, ms: None });
    }

    /// Says how a step ended, after what it still had to say; a second time only notes that it was cached.
    pub(super) fn end(&mut self, number: u32, state: StepState, ms: Option<u64>) {
        let Some(step) = self.step(number) else { return };
        step.cached |= state == StepState::Cached;
        if !matches!(step.state, None | Some(StepState::Running)) {
            return;
        }
        if step.state.is_none() && state != StepState::Cached {
            self.run(number);
        }
        self.flush(number);
        let Some(step) = self.step(number) else { return };
        step.state = Some(state);
        step.ms = ms.unwrap_or_else(|| step.started.elapsed_ms());
        let event = EngineEvent::Step { step: number, name: step.name.clone(), state, ms: Some(step.ms) };
        self.sink.emit(event);
    }

    /// Takes a piece of a step's output.
    pub(super) fn output(&mut self, number: u32, stream: OutputStream, bytes: &[u8]) {
        self.lines(number, stream, |lines, redactor, emit| lines.push(bytes, redactor, emit));
    }

    /// Gives what stands after a step's last line break.
    fn flush(&mut self, number: u32) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.lines(number, stream, |lines, redactor, emit| lines.finish(redactor, emit));
        }
    }

    fn lines(
        &mut self,
        number: u32,
        stream: OutputStream,
        take: impl FnOnce(&mut Lines, &Redactor, &mut dyn FnMut(String)),
    ) {
        let index = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
        let Some(step) = self.steps.get_mut(index) else { return };
        let sink = self.sink;
        let (tail, clipped, name) = (&mut step.tail, &mut step.clipped, &step.name);
        let lines = match stream {
            OutputStream::Stdout => &mut step.stdout,
            OutputStream::Stderr => &mut step.stderr,
        };
        take(lines, &self.redactor, &mut |line| {
            if !*clipped && line.contains(CLIPPED) {
                *clipped = true;
                sink.emit(EngineEvent::Warning {
                    code: "output_clipped".to_owned(),
                    message: format!(
                        "the engine dropped a part of the output of step {number} `{name}`: it writes faster than the engine passes on"
                    ),
                });
            }
            tail.push_back(line.clone());
            if tail.len() > TAIL {
                tail.pop_front();
            }
            sink.emit(EngineEvent::Log { step: number, stream, line });
        });
    }

    /// Says something that stops nothing.
    pub(super) fn warn(&self, code: &str, message: &str) {
        let message = self.redactor.text(message);
        self.sink.emit(EngineEvent::Warning { code: code.to_owned(), message });
    }

    /// Passes an event on.
    pub(super) fn emit(&self, event: EngineEvent) {
        self.sink.emit(event);
    }

    /// Returns the number and name of the step that began last among those that run.
    pub(super) fn running(&self) -> Option<(u32, String)> {
        let at = self.steps.iter().rposition(|step| step.state == Some(StepState::Running))?;
        Some((u32::try_from(at + 1).unwrap_or(u32::MAX), self.steps[at].name.clone()))
    }

    /// Returns the names of the steps that run.
    pub(super) fn running_names(&self) -> Vec<String> {
        let running = self.steps.iter().filter(|step| step.state == Some(StepState::Running));
        running.map(|step| step.name.clone()).collect()
    }

    /// Returns the number and name of the step that was last said something about.
    pub(super) fn last(&self) -> Option<(u32, String)> {
        let at = self.steps.iter().rposition(|step| step.state.is_some())?;
        Some((u32::try_from(at + 1).unwrap_or(u32::MAX), self.steps[at].name.clone()))
    }

    /// Returns what an error says of a step.
    pub(super) fn view(&self, number: u32) -> Option<StepView> {
        let step = self.steps.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
        Some(StepView { number, name: step.name.clone(), tail: step.tail.iter().cloned().collect() })
    }

    /// Says of every step that still runs that it failed: the build was stopped.
    pub(super) fn stop(&mut self) {
        for number in 1..=u32::try_from(self.steps.len()).unwrap_or(u32::MAX) {
            if self.step(number).is_some_and(|step| step.state == Some(StepState::Running)) {
                self.end(number, StepState::Failed, None);
            }
        }
    }

    /// Returns how every step that ran or was cached went.
    pub(super) fn reports(&self) -> Vec<StepReport> {
        let ended = self.steps.iter().filter(|step| step.state.is_some());
        ended.map(|step| StepReport { name: step.name.clone(), cached: step.cached, ms: step.ms }).collect()
    }
}

impl std::fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps").field("steps", &self.steps).finish_non_exhaustive()
    }
}
