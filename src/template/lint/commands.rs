//! Rules on what a `RUN` does otherwise.

use super::Finding;
use super::check::Subject;
use super::rules::{PIPE_WITHOUT_PIPEFAIL, SUDO};
use super::script::commands_of;
use crate::template::dockerfile::{Instruction, Keyword};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (_, commands) in &subject.runs {
        if let Some(command) = commands.iter().find(|command| command.sudo) {
            findings.push(SUDO.at(command.line, "the step uses `sudo`"));
        }
    }
    let stages = subject.file.stages();
    // Whether the shell that each stage ends with sees a broken pipe.
    let mut ends: Vec<bool> = Vec::with_capacity(stages.len());
    for (index, stage) in stages.iter().enumerate() {
        let inherited = subject.file.stage_named(&stage.base, index).and_then(|base| ends.get(base).copied());
        let mut sees = inherited.unwrap_or(false);
        for instruction in subject.file.instructions_of(stage) {
            match instruction.keyword {
                Keyword::Shell => sees = instruction.text.contains("pipefail"),
                Keyword::Run if !sees => pipes(instruction, findings),
                _ => {}
            }
        }
        ends.push(sees);
    }
}

fn pipes(run: &Instruction, findings: &mut Vec<Finding>) {
    let commands = commands_of(run);
    // From `set -o pipefail` or `bash -o pipefail` on, failures are seen.
    let blind = commands.iter().take_while(|command| !command.has("pipefail"));
    let download =
        blind.clone().find(|command| command.piped && ["curl", "wget"].contains(&command.program()));
    if let Some(command) = download {
        let message = format!("a failure of `{}` before the pipe is not seen", command.program());
        findings.push(PIPE_WITHOUT_PIPEFAIL.at(command.line, message));
    }
}
