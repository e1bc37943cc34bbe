//! Rules on apt, pip and npm.

use std::collections::BTreeSet;

use super::Finding;
use super::check::Subject;
use super::rules::{APT_LISTS, APT_RECOMMENDS, APT_UPGRADE, APT_VERSION, NPM_VERSION, PIP_VERSION};
use super::script::Command;
use crate::template::dockerfile::Instruction;

pub(super) fn check(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let kept: BTreeSet<u32> =
        subject.file.chain_of_last_stage().map(|instruction| instruction.line).collect();
    let no_recommends = subject.file.instructions().iter().any(|instruction| {
        let said = |text: &str| text.contains("Install-Recommends");
        said(&instruction.text) || instruction.heredocs.iter().any(|heredoc| said(&heredoc.body))
    });
    for (run, commands) in &subject.runs {
        // What another stage leaves behind is not in the image.
        if kept.contains(&run.line) {
            lists(run, commands, findings);
            if !no_recommends {
                recommends(commands, findings);
            }
        }
        unpinned(commands, findings);
        for command in commands {
            if let Some((verb @ ("upgrade" | "dist-upgrade" | "full-upgrade" | "safe-upgrade"), _)) =
                apt(command)
            {
                let message = format!("`{} {verb}` upgrades what the base image holds", command.program());
                findings.push(APT_UPGRADE.at(command.line, message));
            }
        }
    }
}

/// Returns apt's verb and what follows it.
fn apt(command: &Command) -> Option<(&str, &[String])> {
    if !["apt-get", "apt", "aptitude"].contains(&command.program()) {
        return None;
    }
    verb(command.arguments(), &["-o", "-c", "-t", "--option", "--target-release"])
}

/// Returns the first word that is no option, and the words after it. `valued` options take the word after them.
fn verb<'a>(words: &'a [String], valued: &[&str]) -> Option<(&'a str, &'a [String])> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if valued.contains(&word.as_str()) {
            at += 2;
        } else if word.starts_with('-') {
            at += 1;
        } else {
            return Some((word, words.get(at + 1..).unwrap_or_default()));
        }
    }
    None
}

/// Returns the words that name something: no options, no values of options, no redirections, no variables.
fn names<'a>(words: &'a [String], valued: &[&str]) -> Vec<&'a str> {
    let (mut names, mut skip) = (Vec::new(), false);
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = valued.contains(&word.as_str()) || word.ends_with(['>', '<']);
        if !skip && !word.starts_with('-') && !word.contains(['>', '$', '`', ')']) && !word.starts_with('<') {
            names.push(word.as_str());
        }
    }
    names
}

fn lists(run: &Instruction, commands: &[Command], findings: &mut Vec<Finding>) {
    let update = commands.iter().find(|command| apt(command).is_some_and(|(verb, _)| verb == "update"));
    let removed = commands.iter().any(|command| {
        ["rm", "find"].contains(&command.program())
            && command.arguments().iter().any(|word| word.starts_with("/var/lib/apt"))
    });
    let mounted = run.mounts().any(|mount| {
        ["cache", "tmpfs"].contains(&mount.kind.as_str())
            && mount.option(&["target", "dst", "destination"]).is_some_and(|target| {
                ["/var/lib/apt", "/var/lib/apt/lists"].contains(&target.trim_end_matches('/'))
            })
    });
    if let Some(update) = update.filter(|_| !removed && !mounted) {
        findings.push(APT_LISTS.at(update.line, "apt's package lists stay in the image"));
    }
}

fn recommends(commands: &[Command], findings: &mut Vec<Finding>) {
    let install = commands.iter().find(|command| {
        apt(command).is_some_and(|(verb, _)| verb == "install")
            && !command.has("--no-install-recommends")
            && !command.has("--without-recommends")
    });
    if let Some(install) = install {
        findings.push(APT_RECOMMENDS.at(install.line, "recommended packages are installed as well"));
    }
}

/// Finds packages without a version: one finding for each command.
fn unpinned(commands: &[Command], findings: &mut Vec<Finding>) {
    for command in commands {
        let apt = apt(command).filter(|(verb, _)| *verb == "install").map(|(_, rest)| {
            let mut loose = names(rest, &["-o", "-c", "-t", "--option", "--target-release"]);
            loose.retain(|name| !name.contains(['=', '/']));
            loose
        });
        for (rule, loose) in [(APT_VERSION, apt), (PIP_VERSION, pip(command)), (NPM_VERSION, npm(command))] {
            if let Some(shown) = loose.and_then(|loose| listed(&loose)) {
                findings.push(rule.at(command.line, format!("no version for {shown}")));
            }
        }
    }
}

fn listed(names: &[&str]) -> Option<String> {
    let shown: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => None,
        1..=3 => Some(shown.join(", ")),
        more => Some(format!("{} and {} more", shown.join(", "), more - 3)),
    }
}

fn pip(command: &Command) -> Option<Vec<&str>> {
    let words = match command.program() {
        "pip" | "pip3" => command.arguments(),
        "uv" => command.arguments().strip_prefix(&["pip".to_owned()])?,
        program if program.starts_with("python") => {
            command.arguments().strip_prefix(&["-m".to_owned(), "pip".to_owned()])?
        }
        _ => return None,
    };
    const VALUED: [&str; 24] = [
        "-r",
        "--requirement",
        "-c",
        "--constraint",
        "-e",
        "--editable",
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "-t",
        "--target",
        "--prefix",
        "--root",
        "--trusted-host",
        "--cert",
        "--proxy",
        "--timeout",
        "--retries",
        "--python",
        "--cache-dir",
        "--no-binary",
        "--only-binary",
    ];
    let (_, rest) = verb(words, &VALUED).filter(|(verb, _)| *verb == "install")?;
    if rest.iter().any(|word| word == "-c" || word.starts_with("--constraint")) {
        return None;
    }
    let mut loose = names(rest, &VALUED);
    loose.retain(|name| !name.contains(['=', '/', '@', '<', '~']) && *name != "." && !name.starts_with(".["));
    Some(loose)
}

fn npm(command: &Command) -> Option<Vec<&str>> {
    const VALUED: [&str; 4] = ["--prefix", "--registry", "-C", "--cache"];
    let (first, rest) = verb(command.arguments(), &VALUED)?;
    let rest = match (command.program(), first) {
        ("npm" | "pnpm", "install" | "i" | "add") | ("yarn", "add") => rest,
        ("yarn", "global") => verb(rest, &VALUED).filter(|(verb, _)| *verb == "add")?.1,
        _ => return None,
    };
    let mut loose = names(rest, &VALUED);
    loose.retain(|name| {
        let path = name.starts_with(['.', '/']) || name.contains(':') || name.ends_with(".tgz");
        let scope = name.strip_prefix('@').unwrap_or(name);
        // `latest` and `next` are names that move.
        let pinned =
            scope.split_once('@').is_some_and(|(_, version)| !["", "latest", "next"].contains(&version));
        !path && !pinned
    });
    Some(loose)
}
