//! `kiln completions`: scripts that complete commands and options in a shell.

use clap::Args;
use clap_complete::{Shell, generate};

use super::args;
use super::failure::CommandError;
use super::invocation::Invocation;
use super::run::Program;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln completions bash > /etc/bash_completion.d/kiln
  kiln completions zsh > ~/.zfunc/_kiln
  kiln completions fish > ~/.config/fish/completions/kiln.fish";

/// Arguments of `kiln completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script, for both programs.
pub(super) fn run(invocation: &Invocation, arguments: &CompletionsArgs) -> Result<(), CommandError> {
    let mut script = Vec::new();
    // zsh takes one program a file; both names may complete from one file in the other shells.
    let programs: &[(Program, &str)] = match arguments.shell {
        Shell::Zsh => &[(Program::Kiln, "kiln")],
        _ => &[(Program::Kiln, "kiln"), (Program::BuildSnapshot, "build-snapshot")],
    };
    for (program, name) in programs {
        generate(arguments.shell, &mut args::command(*program), *name, &mut script);
    }
    invocation.output.raw(&script)
}
