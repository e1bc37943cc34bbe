//! Events as lines: `#3 RUN …`, `#3 0.5s output`, `#3 done 4.2s`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::story::Story;
use crate::base::{ByteSize, human_duration};
use crate::cli::text::{clean, date};
use crate::docker::{EngineEvent, StepState};
use crate::snapshot::{BakeEvent, CheckState, StageEvent};
use crate::template::CaSummary;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Telling {
    /// All of it, for somebody who watches; how it ended is told by the answer.
    Everything,
    /// Warnings only.
    Warnings,
    /// All of it and how it ended, for somebody who reads a kept log.
    Log,
}

impl Telling {
    /// Returns whether an event is told at all.
    pub(super) fn tells(self, event: &impl Story) -> bool {
        match self {
            Self::Everything | Self::Log => true,
            Self::Warnings => event.is_warning(),
        }
    }
}

/// Makes lines of events. Remembers when steps began.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    telling: Telling,
    began: BTreeMap<u32, Timestamp>,
}

impl Lines {
    /// Begins a story.
    pub(in crate::cli) fn new(telling: Telling) -> Self {
        Self { telling, began: BTreeMap::new() }
    }

    /// Returns the lines that an event adds; often one, sometimes none.
    pub(in crate::cli) fn tell(&mut self, at: Timestamp, event: &BakeEvent) -> Vec<String> {
        // Also an event that is not told may begin a step.
        let lines = match event {
            BakeEvent::Engine(event) => self.engine(at, event),
            BakeEvent::Stage(event) => self.stage(event),
        };
        if self.telling.tells(event) { lines } else { Vec::new() }
    }

    fn engine(&mut self, at: Timestamp, event: &EngineEvent) -> Vec<String> {
        match event {
            EngineEvent::Context { bytes, entries, done: true } => {
                vec![format!("context: {} in {entries} entries sent", ByteSize(*bytes))]
            }
            EngineEvent::Context { done: false, .. } | EngineEvent::Disk { .. } => Vec::new(),
            EngineEvent::Step { step, name, state, ms } => {
                let took = ms.map(|ms| format!(" {}", human_ms(ms))).unwrap_or_default();
                vec![match state {
                    StepState::Running => {
                        self.began.insert(*step, at);
                        format!("#{step} {}", clean(name))
                    }
                    StepState::Done => format!("#{step} done{took}"),
                    StepState::Cached => format!("#{step} cached {}", clean(name)),
                    StepState::Failed => format!("#{step} failed{took}"),
                }]
            }
            EngineEvent::Log { step: 0, line, .. } => vec![clean(line)],
            EngineEvent::Log { step, line, .. } => {
                let began = *self.began.entry(*step).or_insert(at);
                let since = Duration::try_from(at.duration_since(began)).unwrap_or_default();
                vec![format!("#{step} {:.1}s {}", since.as_secs_f64(), clean(line)).trim_end().to_owned()]
            }
            EngineEvent::Pull { status } => vec![format!("pull: {}", clean(status))],
            EngineEvent::Warning { code: _, message } => vec![format!("warning: {}", clean(message))],
        }
    }

    fn stage(&self, event: &StageEvent) -> Vec<String> {
        match event {
            StageEvent::Phase { phase } => vec![format!("== {}", phase.as_str())],
            StageEvent::Planned { .. } => planned(event),
            StageEvent::Waiting { message } => vec![format!("waiting: {}", clean(message))],
            StageEvent::Check { name, state, ms, reason } => {
                let took = ms.map(|ms| format!(" {}", human_ms(ms))).unwrap_or_default();
                let why = reason.as_ref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
                vec![match state {
                    CheckState::Running => format!("check {name}"),
                    CheckState::Passed => format!("check {name} passed{took}"),
                    CheckState::Failed => format!("check {name} failed{took}{why}"),
                }]
            }
            StageEvent::CheckOutput { check, line } => vec![format!("{check} | {}", clean(line))],
            StageEvent::Notice { code: _, message } => vec![format!("note: {}", clean(message))],
            StageEvent::Ended { state, messages } => {
                let mut lines = vec![format!("== {state}")];
                if self.telling == Telling::Log {
                    lines.extend(messages.iter().map(|message| format!("  {}", clean(message))));
                }
                lines
            }
        }
    }
}

/// Returns what will be baked, in lines.
pub(super) fn planned(event: &StageEvent) -> Vec<String> {
    let StageEvent::Planned {
        id,
        name,
        template,
        base,
        origin,
        python,
        builder,
        baked_cas,
        build_cas,
        reason,
    } = event
    else {
        return Vec::new();
    };
    let python = python.as_ref().map(|python| format!(", Python {python}")).unwrap_or_default();
    let builder = crate::cli::view::builder(*builder);
    let mut lines = vec![
        format!("{name}@{id} from the template {template}: {}", clean(reason)),
        format!("base {base} ({origin}{python}), built by {builder}"),
    ];
    let line_of = |what: &str, ca: &CaSummary| {
        format!("{what} {} (until {}, {})", clean(&ca.subject), date(ca.expires), ca.file.display())
    };
    lines.extend(baked_cas.iter().map(|ca| line_of("CA in the image:", ca)));
    lines.extend(build_cas.iter().map(|ca| line_of("CA while building:", ca)));
    lines
}

/// Returns milliseconds as people read them.
pub(super) fn human_ms(ms: u64) -> String {
    human_duration(Duration::from_millis(ms))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::docker::{Builder, OutputStream};
    use crate::snapshot::Phase;

    /// Returns a bake's story, each event with milliseconds since the beginning.
    pub(in crate::cli::progress) fn story() -> Vec<(i64, BakeEvent)> {
        let log =
            |step, line: &str| EngineEvent::Log { step, stream: OutputStream::Stdout, line: line.into() };
        let step = |step, name: &str, state, ms| EngineEvent::Step { step, name: name.into(), state, ms };
        let check = |state, ms, reason: Option<&str>| StageEvent::Check {
            name: "postgres".into(),
            state,
            ms,
            reason: reason.map(str::to_owned),
        };
        vec![
            (0, StageEvent::Phase { phase: Phase::Prepare }.into()),
            (
                10,
                StageEvent::Planned {
                    id: "01jqzzzzzzzzzzzzzzzzzzzzzz".parse().unwrap(),
                    name: "litellm".parse().unwrap(),
                    template: "litellm".into(),
                    base: "debian:bookworm-slim".into(),
                    origin: "local debootstrap".into(),
                    python: Some("3.11".into()),
                    builder: Builder::Buildkit,
                    baked_cas: vec![],
                    build_cas: vec![CaSummary {
                        subject: "CN=Proxy".into(),
                        fingerprint: "ab".into(),
                        expires: "2030-01-02T00:00:00Z".parse().unwrap(),
                        file: "/cas/proxy.crt".into(),
                    }],
                    reason: "nothing with this key was baked yet".into(),
                }
                .into(),
            ),
            (20, StageEvent::Phase { phase: Phase::Build }.into()),
            (30, EngineEvent::Context { bytes: 1024, entries: 3, done: false }.into()),
            (40, EngineEvent::Context { bytes: 2048, entries: 5, done: true }.into()),
            (50, step(1, "FROM debian:bookworm-slim", StepState::Cached, None).into()),
            (100, step(2, "RUN apt-get update", StepState::Running, None).into()),
            (600, log(2, "\u{1b}[32mGet:1\u{1b}[0m 10%\rGet:1 100%").into()),
            (700, EngineEvent::Disk { written_bytes: Some(4096), free_bytes: Some(1 << 30) }.into()),
            (4300, step(2, "RUN apt-get update", StepState::Done, Some(4200)).into()),
            (4400, step(3, "RUN false", StepState::Running, None).into()),
            (4500, log(0, "unattributed").into()),
            (4600, step(3, "RUN false", StepState::Failed, Some(200)).into()),
            (
                4700,
                EngineEvent::Warning { code: "output_clipped".into(), message: "output was clipped".into() }
                    .into(),
            ),
            (5000, StageEvent::Phase { phase: Phase::Check }.into()),
            (5100, check(CheckState::Running, None, None).into()),
            (5200, StageEvent::CheckOutput { check: "postgres".into(), line: "1".into() }.into()),
            (5300, check(CheckState::Passed, Some(200), None).into()),
            (5400, check(CheckState::Failed, Some(300), Some("exit code 1")).into()),
            (
                6000,
                StageEvent::Ended { state: "error".into(), messages: vec!["step 3 failed".into()] }.into(),
            ),
        ]
    }

    fn told(telling: Telling) -> String {
        let mut lines = Lines::new(telling);
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        story().iter().flat_map(|(ms, event)| lines.tell(at(*ms), event)).map(|line| line + "\n").collect()
    }

    #[test]
    fn a_story_reads_like_a_build_log() {
        insta::assert_snapshot!(told(Telling::Everything), @r"
        == prepare
        litellm@01jqzzzzzzzzzzzzzzzzzzzzzz from the template litellm: nothing with this key was baked yet
        base debian:bookworm-slim (local debootstrap, Python 3.11), built by buildkit
        CA while building: CN=Proxy (until 2030-01-02, /cas/proxy.crt)
        == build
        context: 2.0 KiB in 5 entries sent
        #1 cached FROM debian:bookworm-slim
        #2 RUN apt-get update
        #2 0.5s Get:1 100%
        #2 done 4.2s
        #3 RUN false
        unattributed
        #3 failed 0.2s
        warning: output was clipped
        == check
        check postgres
        postgres | 1
        check postgres passed 0.2s
        check postgres failed 0.3s: exit code 1
        == error
        ");
    }

    #[test]
    fn a_kept_log_ends_with_the_reason() {
        assert!(told(Telling::Log).ends_with("== error\n  step 3 failed\n"));
    }

    #[test]
    fn quiet_tells_warnings_only() {
        assert_eq!(told(Telling::Warnings), "warning: output was clipped\n");
    }
}
