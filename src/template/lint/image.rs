//! Rules on the base, the user, the folder, the entrypoint.

use std::collections::BTreeMap;

use super::Finding;
use super::check::Subject;
use super::rules::{BASE_NOT_PINNED, COMMAND_ENDS, NO_ENTRYPOINT, RELATIVE_WORKDIR, ROOT_USER, SHELL_FORM};
use super::script::{Command, commands_of, is_shell};
use crate::template::dockerfile::{Arguments, Instruction, Keyword};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    bases(subject, findings);
    user(subject, findings);
    start(subject, findings);
    for instruction in subject.file.instructions() {
        match instruction.keyword {
            Keyword::Workdir => {
                let path = instruction.text.trim_matches(['"', '\'']);
                let drive = path.as_bytes().get(1) == Some(&b':');
                if !path.starts_with(['/', '$', '\\']) && !drive {
                    findings.push(
                        RELATIVE_WORKDIR.at(instruction.line, format!("`WORKDIR {path}` is not absolute")),
                    );
                }
            }
            Keyword::Cmd | Keyword::Entrypoint if matches!(instruction.arguments, Arguments::Shell(_)) => {
                let message = format!("`{}` starts a shell that starts the program", instruction.keyword);
                findings.push(SHELL_FORM.at(instruction.line, message));
            }
            _ => {}
        }
    }
}

fn bases(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    // What does not expand here is reported where the images are resolved, with the real arguments.
    let variables = subject.file.global_variables(&BTreeMap::new()).unwrap_or_default();
    for (index, stage) in subject.file.stages().iter().enumerate() {
        let Some(image) = subject.file.base_image_of(index, stage, &variables) else { continue };
        if image.contains('@') {
            continue;
        }
        let last = image.rsplit('/').next().unwrap_or(&image);
        match last.split_once(':') {
            None | Some((_, "")) => {
                findings.push(BASE_NOT_PINNED.at(stage.line, format!("`{image}` has no tag")))
            }
            Some((_, "latest")) => {
                findings.push(BASE_NOT_PINNED.at(stage.line, format!("`{image}` is whatever is newest")));
            }
            Some(_) => {}
        }
    }
}

fn user(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let user = subject.file.chain_of_last_stage().find(|instruction| instruction.keyword == Keyword::User);
    match user {
        None => {
            let message = "no `USER`: the image runs as the base image says, most often as root";
            findings.push(ROOT_USER.at(subject.last_stage_line(), message));
        }
        Some(user) => {
            let account = user.text.split(':').next().unwrap_or_default().trim_matches(['"', '\'']);
            if ["root", "0"].contains(&account) {
                findings.push(ROOT_USER.at(user.line, "the image runs as root"));
            }
        }
    }
}

fn start(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let last = |keyword: Keyword| {
        subject
            .file
            .chain_of_last_stage()
            .find(|instruction| instruction.keyword == keyword)
            // An empty list takes back what the base said.
            .filter(|instruction| instruction.arguments != Arguments::Json(Vec::new()))
    };
    let (entrypoint, command) = (last(Keyword::Entrypoint), last(Keyword::Cmd));
    if entrypoint.is_none() {
        let (line, message) = match command {
            Some(command) => (command.line, "there is `CMD` and no `ENTRYPOINT`"),
            None => (subject.last_stage_line(), "there is no `ENTRYPOINT`"),
        };
        findings.push(NO_ENTRYPOINT.at(line, message));
    }
    let Some(first) = entrypoint.or(command) else { return };
    // A list that is an entrypoint is given the command's list as further words.
    let further = match (entrypoint.map(|entrypoint| &entrypoint.arguments), command) {
        (Some(Arguments::Json(_)), Some(command)) => command.arguments.items(),
        _ => &[],
    };
    if let Some(what) = what_ends(first, further) {
        findings.push(COMMAND_ENDS.at(first.line, format!("`{what}` ends at once when nobody is attached")));
    }
}

/// Returns what ends at once, where the last command of `first` does.
fn what_ends(first: &Instruction, further: &[String]) -> Option<String> {
    let mut commands = commands_of(first);
    let inline = commands.len() > 1;
    let mut last = commands.pop()?;
    if !inline {
        last.words.extend(further.iter().cloned());
        // `["bash", "-c"]` with the script as the command.
        let script = last.words.iter().position(|word| word == "-c").and_then(|at| last.words.get(at + 1));
        if is_shell(last.program()) && script.is_some_and(|script| !script.trim().is_empty()) {
            return None;
        }
    }
    ends(&last).then(|| last.words.join(" "))
}

fn ends(command: &Command) -> bool {
    let program = command.program();
    let short =
        ["true", "false", "echo", "printf", "ls", "pwd", "env", "date", "id", "whoami", "hostname", "uname"];
    let waits_for_input = is_shell(program) || ["python", "python3", "node", "irb", "cat"].contains(&program);
    let only_options = command
        .arguments()
        .iter()
        .all(|word| ["-l", "-i", "-il", "-li", "--login", "-"].contains(&word.as_str()));
    short.contains(&program) || (waits_for_input && only_options)
}
