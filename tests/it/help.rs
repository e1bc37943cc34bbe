//! What people read before they run anything: help, man pages, completions.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use assert_cmd::Command;
use insta::Settings;
use kiln::cli::{Program, command};

/// Help is rendered at this width, whatever terminal runs the tests.
const COLUMNS: usize = 100;

fn fixtures() -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path("../fixtures/cli");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

fn each(command: &mut clap::Command, visit: &mut impl FnMut(&mut clap::Command)) {
    visit(command);
    for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
        each(subcommand, visit);
    }
}

fn built(program: Program) -> clap::Command {
    let mut command = command(program).term_width(COLUMNS);
    command.build();
    command
}

#[test]
fn every_command_has_help_that_does_not_change_by_accident() {
    fixtures().bind(|| {
        for program in [Program::Kiln, Program::BuildSnapshot] {
            each(&mut built(program), &mut |command| {
                let name = command.get_display_name().unwrap_or_else(|| command.get_name());
                let name = format!("help_{}", name.replace('-', "_"));
                insta::assert_snapshot!(name, command.render_long_help().to_string());
            });
        }
    });
}

#[test]
fn every_command_says_what_it_does_and_shows_examples() {
    each(&mut built(Program::Kiln), &mut |command| {
        let name = command.get_name().to_owned();
        assert!(command.get_about().is_some(), "{name} has no description");
        let is_leaf = command.get_subcommands().all(|subcommand| subcommand.get_name() == "help");
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(!is_leaf || after.contains("Examples:\n  kiln "), "{name} has no examples");
    });
}

/// Splits a command line as a shell does, as far as the examples need it: blanks, and double quotes around words.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

#[test]
fn examples_are_command_lines_that_parse() {
    each(&mut built(Program::Kiln), &mut |described| {
        let after = described.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in after.lines().filter_map(|line| line.strip_prefix("  kiln ")) {
            let words = words_of(line);
            let words: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .filter(|word| !word.is_empty())
                .take_while(|word| !["|", ">", "&&", "#"].contains(word))
                .collect();
            let line = words.join(" ");
            let parsed = command(Program::Kiln).try_get_matches_from(["kiln"].iter().chain(&words));
            assert!(parsed.is_ok(), "`kiln {line}`: {}", parsed.unwrap_err());
        }
    });
}

#[test]
fn build_snapshot_takes_what_kiln_build_takes_under_its_own_name() {
    let help = |program: &str, words: &[&str]| {
        let output = Command::cargo_bin(program).unwrap().args(words).arg("--help").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let own = help("build-snapshot", &[]);
    assert!(own.contains("Usage: build-snapshot [OPTIONS] <TEMPLATE>"), "{own}");
    assert!(own.contains("  build-snapshot litellm\n") && !own.contains("  kiln build"), "{own}");
    let options = |text: &str| {
        let mut options: Vec<String> = text
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.trim_end_matches([',', ';', ':']).to_owned())
            .collect();
        options.sort();
        options.dedup();
        options
    };
    let mut own = options(&own);
    // A program has a version, and a command of it has none.
    own.retain(|option| option != "--version");
    assert_eq!(own, options(&help("kiln", &["build"])));
}

#[test]
fn the_completion_script_of_bash_loads() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("kiln.bash");
    let output = Command::cargo_bin("kiln").unwrap().args(["completions", "bash"]).output().unwrap();
    assert!(output.status.success());
    kiln::base::fs::write_durably(&script, &output.stdout, kiln::base::fs::Existing::Keep).unwrap();
    Command::new("bash").arg("-n").arg(&script).assert().success();
    let asked = format!("source {} && complete -p kiln build-snapshot", script.display());
    Command::new("bash").args(["-c", &asked]).assert().success();
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        Command::cargo_bin("kiln").unwrap().args(["completions", shell]).assert().success();
    }
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("man1");
    Command::cargo_bin("kiln").unwrap().arg("man").arg(&folder).assert().success();
    for program in [Program::Kiln, Program::BuildSnapshot] {
        each(&mut built(program), &mut |command| {
            let name = command.get_display_name().unwrap_or_else(|| command.get_name());
            let page = std::fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
        });
    }
}
