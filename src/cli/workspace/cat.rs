//! `kiln workspace cat`: the bytes of one file of a revision.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::place::raw_out;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::store::{EntryPath, EntryPathError};
use crate::toolkit::Toolkit;
use crate::workspace::{self, RevisionReference, WorkspaceError};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace cat app package.json
  kiln workspace cat app@01jqz3k5p8 src/main.rs > main.rs

Links are not followed: instead of a symbolic link, name what it points to.";

/// Arguments of `kiln workspace cat`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CatArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: RevisionReference,
    /// The file's path in the workspace
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(entry_path))]
    path: EntryPath,
}

/// Writes the content of a file to standard output.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &CatArgs,
) -> Result<(), CommandError> {
    if invocation.output.json() {
        return Err(CommandError::invalid("standard output is the file and cannot be JSON, too")
            .with_hint("leave --json out"));
    }
    let depot = toolkit.depot();
    let revision = workspace::find(&depot, &arguments.reference).await?;
    let record = workspace::show(&depot, &revision).await?;
    let mut out = raw_out()?;
    match workspace::cat(&depot, &record, &arguments.path, None, &mut out).await {
        // A reader that has gone away is no error: it has what it wanted.
        Err(WorkspaceError::Stream { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.map(drop)?),
    }
}

/// Reads a path as people write it: a leading `./` is taken away.
fn entry_path(path: OsString) -> Result<EntryPath, EntryPathError> {
    let bytes = path.into_vec();
    let below = bytes.strip_prefix(b"./").map(<[u8]>::to_vec);
    EntryPath::new(below.unwrap_or(bytes))
}
