//! From arguments to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ValueEnum as _;
use clap::error::ErrorKind as ClapErrorKind;

use super::args::{self, Command};
use super::failure::CommandError;
use super::invocation::Invocation;
use super::output::Output;
use super::paint::{ColorChoice, Paint};
use super::{build, completions, doctor, exit, gc, image, man, snapshot, store, template, workspace};
use crate::base::ErrorKind;
use crate::base::config::Environment;

/// Two threads carry the network and the store; what computes for long runs on threads of its own.
const WORKERS: usize = 2;

/// Which of the two programs this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `kiln`.
    Kiln,
    /// `build-snapshot`, the same as `kiln build`.
    BuildSnapshot,
}

/// Runs the program with the arguments and the environment of this process.
#[must_use]
pub fn start(program: Program) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(program, &arguments, Environment::of_process()));
            // What still reads or writes in the background, such as a stuck engine, must not hold the program back. Shutting the
            // runtime down detaches its threads, and glibc before 2.38 may touch a thread that ends at that moment after its
            // memory is gone (its bug 19951; seen as a crash in one of some thousand runs). The end of the process ends them.
            std::mem::forget(runtime);
            ExitCode::from(code)
        }
        Err(error) => {
            let error = CommandError::io(ErrorKind::Internal, "cannot start the program's threads", &error);
            plain_output(asks_for_json(&arguments)).error(&error);
            ExitCode::from(exit::code(error.kind))
        }
    }
}

async fn run(program: Program, arguments: &[OsString], environment: Environment) -> u8 {
    let (global, command) = match args::parse(program, arguments, asked_color(arguments)) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error, asks_for_json(arguments)),
    };
    let invocation = Invocation::new(environment, global);
    match dispatch(&invocation, command).await {
        Ok(code) => code,
        Err(error) => {
            invocation.output.error(&error);
            exit::code(error.kind)
        }
    }
}

async fn dispatch(invocation: &Invocation, command: Command) -> Result<u8, CommandError> {
    match command {
        Command::Build(arguments) => build::run(invocation, &arguments).await.map(|()| 0),
        Command::Template(command) => template::run(invocation, &command).await,
        Command::Snapshot(command) => snapshot::run(invocation, &command).await.map(|()| 0),
        Command::Image(command) => image::run(invocation, &command).await,
        Command::Workspace(command) => workspace::run(invocation, &command).await,
        Command::Store(command) => store::run(invocation, &command).await,
        Command::Gc(arguments) => gc::run(invocation, &arguments).await,
        Command::Doctor => doctor::run(invocation).await,
        Command::Completions(arguments) => completions::run(invocation, &arguments).map(|()| 0),
        Command::Man(arguments) => man::run(invocation, &arguments).map(|()| 0),
    }
}

/// Prints what clap says: help and versions as answers, mistakes as errors.
fn usage(error: &clap::Error, json: bool) -> u8 {
    let is_answer = matches!(error.kind(), ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion);
    if json && !is_answer {
        plain_output(true).error(&usage_error(error));
        return exit::code(ErrorKind::Invalid);
    }
    // A stream whose reader has gone away has nobody left to tell.
    let printed = error.print().is_ok();
    if is_answer && printed {
        0
    } else {
        u8::try_from(error.exit_code()).unwrap_or(exit::code(ErrorKind::Invalid))
    }
}

/// Takes clap's text apart: the first paragraph is the message, a tip or the pointer to help is the hint.
fn usage_error(error: &clap::Error) -> CommandError {
    if error.kind() == ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return CommandError::invalid("a command is missing").with_hint("try `--help`");
    }
    let text = error.render().to_string();
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| {
            paragraph.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let message = paragraphs.first().map_or("", String::as_str);
    let tip = paragraphs.iter().find_map(|paragraph| paragraph.strip_prefix("tip: "));
    CommandError::invalid(message.strip_prefix("error: ").unwrap_or(message))
        .with_hint(tip.unwrap_or("try `--help`"))
}

/// Returns a printer for what goes wrong before the arguments are known.
fn plain_output(json: bool) -> Output {
    Output::new(json, Paint::new(false), Paint::new(false))
}

/// Returns whether the arguments ask for JSON, also when they are wrong otherwise.
fn asks_for_json(arguments: &[OsString]) -> bool {
    options(arguments).any(|argument| argument == "--json")
}

/// Returns the color that the arguments ask for, also when they are wrong otherwise.
fn asked_color(arguments: &[OsString]) -> ColorChoice {
    let mut options = options(arguments);
    while let Some(option) = options.next() {
        let word = match option.strip_prefix("--color") {
            Some("") => options.next(),
            Some(rest) => rest.strip_prefix('='),
            None => continue,
        };
        return word.and_then(|word| ColorChoice::from_str(word, true).ok()).unwrap_or_default();
    }
    ColorChoice::default()
}

fn options(arguments: &[OsString]) -> impl Iterator<Item = &str> {
    arguments.iter().skip(1).filter_map(|argument| argument.to_str()).take_while(|argument| *argument != "--")
}
