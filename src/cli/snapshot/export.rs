//! A snapshot's image as a file or a stream.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::base::ByteSize;
use crate::catalog::SnapshotRef;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::watched::watched_to_the_end;
use crate::snapshot::{BakeEvent, ExportTarget};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot export litellm:prod litellm.tar
  kiln snapshot export litellm - | ssh builder docker load

The archive is what `docker save` gives, and `docker load` takes it. A file takes its name when it is whole.";

/// Arguments of `kiln snapshot export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
    /// The file to write, or - for standard output
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct ExportView {
    reference: String,
    tag: String,
    file: String,
    bytes: u64,
}

/// Exports, and prints what was written.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &ExportArgs,
) -> Result<(), CommandError> {
    let to_stream = arguments.file.as_os_str() == "-";
    let target = match to_stream {
        true if std::io::stdout().is_terminal() => {
            return Err(CommandError::invalid("an archive is not written to a terminal")
                .with_hint("name a file, or pipe it on"));
        }
        true => ExportTarget::Stream(Box::new(std::io::stdout())),
        false => ExportTarget::File(arguments.file.clone()),
    };
    let workbench = toolkit.workbench()?;
    let report = watched_to_the_end::<BakeEvent, _, _>(invocation, async |_, cancel| {
        workbench.export(&arguments.reference, target, cancel).await
    })
    .await?;
    let told = format!("{} written as {}, {}", report.reference, report.tag, ByteSize(report.bytes));
    if to_stream {
        // Standard output holds the archive.
        invocation.note(&told);
        return Ok(());
    }
    let view = ExportView {
        reference: report.reference,
        tag: report.tag,
        file: arguments.file.display().to_string(),
        bytes: report.bytes,
    };
    invocation.output.answer(&view, |_| told)
}
