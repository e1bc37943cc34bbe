//! `kiln man`: a man page for every command.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args;
use super::failure::CommandError;
use super::invocation::Invocation;
use super::run::Program;
use crate::base::ErrorKind;
use crate::base::fs::{Existing, write_durably};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln man ~/.local/share/man/man1
  man kiln-build";

/// Arguments of `kiln man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder, made when missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
struct ManView {
    pages: Vec<PathBuf>,
}

/// Writes the pages.
pub(super) fn run(invocation: &Invocation, arguments: &ManArgs) -> Result<(), CommandError> {
    let mut pages = Vec::new();
    for program in [Program::Kiln, Program::BuildSnapshot] {
        let mut command = args::command(program);
        command.build();
        write_pages(&command, &arguments.folder, &mut pages)?;
    }
    let count = pages.len();
    let folder = arguments.folder.display();
    invocation.output.answer(&ManView { pages }, |_| format!("{count} pages written to {folder}"))
}

fn write_pages(command: &clap::Command, folder: &Path, pages: &mut Vec<PathBuf>) -> Result<(), CommandError> {
    // clap names a built subcommand `kiln-snapshot-show` for its page and `kiln snapshot show` for its usage.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let path = folder.join(format!("{name}.1"));
    let failed = |error: std::io::Error| {
        CommandError::io(ErrorKind::Unavailable, format!("cannot write `{}`", path.display()), &error)
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    write_durably(&path, &page, Existing::Replace).map_err(failed)?;
    pages.push(path.clone());
    command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
        .try_for_each(|subcommand| write_pages(subcommand, folder, pages))
}
