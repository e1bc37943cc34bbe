//! The commands, and the pieces that several of them share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::build::{self, BuildArgs};
use super::completions::CompletionsArgs;
use super::gc::GcArgs;
use super::image::ImageCommand;
use super::man::ManArgs;
use super::paint::ColorChoice;
use super::progress::LogFormat;
use super::run::Program;
use super::snapshot::SnapshotCommand;
use super::store::StoreCommand;
use super::template::TemplateCommand;
use super::workspace::WorkspaceCommand;
use super::{completions, doctor, exit, gc, man};

/// The options that every command has.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct GlobalArgs {
    /// Where everything lasting is kept: a path, file:///path or s3://bucket/prefix?endpoint=URL&region=NAME [env: KILN_STORE] [default: $XDG_DATA_HOME/kiln/store]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(super) store: Option<String>,
    /// Print the answer, or the error, as one JSON document on standard output
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// Tell no story on standard error but warnings and errors
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(super) quiet: bool,
    /// When to use color
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Global options"
    )]
    pub(super) color: ColorChoice,
    /// The form of the story on standard error; auto is tty on a terminal and plain elsewhere
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value_t,
        help_heading = "Global options"
    )]
    pub(super) log: LogFormat,
}

/// Bakes sandbox images from Dockerfile templates, keeps their records, and saves and restores workspaces
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 100)]
#[command(after_help = exit::HELP, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct KilnArgs {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Builds a template, checks the image and registers it as a snapshot; the same as `kiln build`
#[derive(Debug, Parser)]
#[command(name = "build-snapshot", version, max_term_width = 100)]
pub(super) struct BuildSnapshotArgs {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(flatten)]
    pub(super) build: BuildArgs,
}

/// A command of `kiln`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build a template, check the image and register it as a snapshot
    #[command(after_help = build::EXAMPLES)]
    Build(Box<BuildArgs>),
    /// List, show, render, lint and update templates
    #[command(subcommand, arg_required_else_help = true)]
    Template(TemplateCommand),
    /// List, show and compare snapshots, move channels, pin, revoke and remove
    #[command(subcommand, arg_required_else_help = true)]
    Snapshot(SnapshotCommand),
    /// List images on the engine, show what lies in them, and delete those that a policy takes
    #[command(subcommand, arg_required_else_help = true)]
    Image(ImageCommand),
    /// Save directory trees as revisions, restore, compare, pin and remove them
    #[command(subcommand, arg_required_else_help = true)]
    Workspace(WorkspaceCommand),
    /// Make a store, try out what it does, check what it holds
    #[command(subcommand, arg_required_else_help = true)]
    Store(StoreCommand),
    /// Delete what no revision needs any more
    #[command(after_help = gc::EXAMPLES)]
    Gc(GcArgs),
    /// Tell what works here, and what to do about the rest
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(CompletionsArgs),
    /// Write a man page for every command into a folder
    #[command(after_help = man::EXAMPLES)]
    Man(ManArgs),
}

/// Returns the program's whole command line, for help, completions and man pages.
#[must_use]
pub fn command(program: Program) -> clap::Command {
    match program {
        Program::Kiln => KilnArgs::command(),
        Program::BuildSnapshot => BuildSnapshotArgs::command().after_help(format!(
            "{}\n\n{}",
            build::EXAMPLES.replace("kiln build", "build-snapshot"),
            exit::HELP
        )),
    }
}

/// Reads the arguments of a process, its own name first.
pub(super) fn parse(
    program: Program,
    arguments: &[OsString],
    color: ColorChoice,
) -> Result<(GlobalArgs, Command), clap::Error> {
    let mut command = command(program).color(color.of_clap());
    let matches = command.try_get_matches_from_mut(arguments)?;
    let formatted = |error: clap::Error| error.format(&mut command.clone());
    match program {
        Program::Kiln => {
            let parsed = KilnArgs::from_arg_matches(&matches).map_err(formatted)?;
            Ok((parsed.global, parsed.command))
        }
        Program::BuildSnapshot => {
            let parsed = BuildSnapshotArgs::from_arg_matches(&matches).map_err(formatted)?;
            Ok((parsed.global, Command::Build(Box::new(parsed.build))))
        }
    }
}

/// Why an argument is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ArgumentError(pub(super) String);

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyValue {
    /// What stands before the first `=`.
    pub(super) key: String,
    /// What stands after it; may be empty.
    pub(super) value: String,
}

impl FromStr for KeyValue {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(ArgumentError(format!("`{}` is not NAME=VALUE", text.escape_debug()))),
        }
    }
}

/// Collects values by name; of a name given twice the last one counts.
pub(super) fn by_name(values: &[KeyValue]) -> std::collections::BTreeMap<String, String> {
    values.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable.
    Variable(String),
}

/// `id=I,src=FILE` or `id=I,env=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretArg {
    /// The secret's id.
    pub(super) id: String,
    /// Where its value is.
    pub(super) source: SecretSource,
}

impl FromStr for SecretArg {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        // The text may hold what should have been in a file, so no message repeats it.
        let wrong = |reason: &str| ArgumentError(format!("{reason}: give id=ID,src=FILE or id=ID,env=NAME"));
        let (mut id, mut source) = (None, None);
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| wrong("a part has no `=`"))?;
            let first = match (key, value) {
                (_, "") => return Err(wrong(&format!("`{}` has no value", key.escape_debug()))),
                ("id", value) => id.replace(value.to_owned()).is_none(),
                ("src" | "source", path) => source.replace(SecretSource::File(path.into())).is_none(),
                ("env", name) => source.replace(SecretSource::Variable(name.to_owned())).is_none(),
                ("type", "file" | "env") => true,
                (key, _) => return Err(wrong(&format!("`{}` is unknown", key.escape_debug()))),
            };
            if !first {
                return Err(wrong("id, or the place of the value, is given twice"));
            }
        }
        match (id, source) {
            (Some(id), Some(source)) => Ok(Self { id, source }),
            (None, _) => Err(wrong("there is no id")),
            (_, None) => Err(wrong("there is neither src nor env")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_an_equals_sign_and_may_be_empty() {
        let pair = |key: &str, value: &str| Ok(KeyValue { key: key.into(), value: value.into() });
        assert_eq!("a=b=c".parse(), pair("a", "b=c"));
        assert_eq!("a=".parse(), pair("a", ""));
        for wrong in ["", "a", "=b"] {
            assert!(wrong.parse::<KeyValue>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_files_or_variables() {
        let file = SecretArg { id: "t".into(), source: SecretSource::File("/f".into()) };
        let variable = SecretArg { id: "t".into(), source: SecretSource::Variable("V".into()) };
        assert_eq!("id=t,src=/f".parse(), Ok(file.clone()));
        assert_eq!("type=file,source=/f,id=t".parse(), Ok(file));
        assert_eq!("id=t,env=V".parse(), Ok(variable));
        for wrong in
            ["", "t", "id=t", "src=/f", "id=,src=/f", "id=t,src=/f,env=V", "id=t,id=u,src=/f", "id=t,value=x"]
        {
            assert!(wrong.parse::<SecretArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refused_secret_is_not_repeated() {
        let error = "id=t,sk-very-secret".parse::<SecretArg>().unwrap_err();
        assert!(!error.to_string().contains("very-secret"), "{error}");
    }

    #[test]
    fn every_command_is_well_formed() {
        command(Program::Kiln).debug_assert();
        command(Program::BuildSnapshot).debug_assert();
    }
}
