//! `kiln workspace save`: a directory, a tar stream or a container's directory becomes a revision.

use clap::Args;

use super::place::{Place, archive_in};
use super::view::SaveView;
use crate::base::{ByteSize, WorkspaceName, human_duration};
use crate::cli::args::{KeyValue, by_name};
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::watched::watched;
use crate::objects::Bandwidth;
use crate::toolkit::Toolkit;
use crate::workspace::{self, PathNotes, SaveReport, SaveSpec};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace save . --name app
  kiln workspace save /home/user/app --name app --label turn=12 --exclude target --exclude \"*.log\"
  kiln workspace save /home/user/app --name app --json | jq -r .revision
  tar -c . | kiln workspace save - --name app
  kiln workspace save docker://sandbox-1/home/user/app --name app

What changed since the last save is read, and what the store does not have yet is written. A file that cannot be read is left \
out and named, and the exit code is 3. A .kilnignore file in a directory leaves out what it names, as a .gitignore does for git; in a stream or a \
container it is a file like any other.";

/// Arguments of `kiln workspace save`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SaveArgs {
    /// A directory, - for a tar stream (plain, gzip or zstd) on standard input, or a container's directory
    #[arg(value_name = "DIR|-|docker://CONTAINER/PATH", value_parser = Place::parser())]
    source: Place,
    /// The workspace that it is saved as
    #[arg(long, value_name = "NAME")]
    name: WorkspaceName,
    /// Give the revision a label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<KeyValue>,
    /// Leave out what this pattern matches, as in a .gitignore; may be repeated
    #[arg(long = "exclude", value_name = "PATTERN")]
    excludes: Vec<String>,
    /// Take .kilnignore files for ordinary files
    #[arg(long)]
    no_ignore_files: bool,
    /// Leave out what is mounted in the directory
    #[arg(long)]
    one_file_system: bool,
    /// Read every file, also where the kernel says that it did not change since the last save
    #[arg(long)]
    read_everything: bool,
    /// The level of compression, 1 (fast) to 19 (small)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Most bytes of files
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    max_bytes: Option<ByteSize>,
    /// Most entries
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_entries: Option<u64>,
    /// Threads that read and compress [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    jobs: Option<usize>,
    /// Most bytes a second to the store
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    limit_rate: Option<ByteSize>,
}

/// Saves, and prints the revision. Returns the exit code: done, or done in part.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &SaveArgs,
) -> Result<u8, CommandError> {
    check(arguments)?;
    let spec = SaveSpec { foretell: invocation.is_followed(), ..spec(arguments) };
    let depot = toolkit.depot_within(Bandwidth { up: arguments.limit_rate.map(ByteSize::bytes), down: None });
    let report = match &arguments.source {
        Place::Directory(directory) => {
            watched(invocation, async |sink, cancel| {
                Box::pin(workspace::save(&depot, directory, &spec, sink, cancel)).await
            })
            .await?
        }
        Place::Stream => {
            let stream = Box::new(archive_in()?);
            watched(invocation, async |sink, cancel| {
                let source = "a tar stream".to_owned();
                Box::pin(workspace::save_archive(&depot, stream, source, &spec, sink, cancel)).await
            })
            .await?
        }
        Place::Container { container, path } => {
            let engine = toolkit.engine()?;
            watched(invocation, async |sink, cancel| {
                let saved = workspace::save_container(&depot, &*engine, container, path, &spec, sink, cancel);
                Box::pin(saved).await
            })
            .await?
        }
    };
    let view = SaveView::new(&report);
    invocation.output.answer(&view, |paint| human(&report, paint))?;
    Ok(if report.unreadable.count > 0 { exit::IN_PART } else { 0 })
}

/// Refuses options that do not go together.
fn check(arguments: &SaveArgs) -> Result<(), CommandError> {
    let is_directory = matches!(arguments.source, Place::Directory(_));
    for (is_given, option) in [
        (arguments.no_ignore_files, "--no-ignore-files"),
        (arguments.one_file_system, "--one-file-system"),
        (arguments.read_everything, "--read-everything"),
    ] {
        if is_given && !is_directory {
            return Err(CommandError::invalid(format!("{option} is for a directory of this host"))
                .with_hint(
                    "of a stream or a container everything is read, but for what --exclude leaves out",
                ));
        }
    }
    Ok(())
}

fn spec(arguments: &SaveArgs) -> SaveSpec {
    SaveSpec {
        labels: by_name(&arguments.labels),
        excludes: arguments.excludes.clone(),
        ignore_files: !arguments.no_ignore_files,
        zstd_level: arguments.level,
        jobs: arguments.jobs.unwrap_or(0),
        one_file_system: arguments.one_file_system,
        max_bytes: arguments.max_bytes.map(ByteSize::bytes),
        max_entries: arguments.max_entries,
        read_everything: arguments.read_everything,
        ..SaveSpec::new(arguments.name.clone())
    }
}

fn human(report: &SaveReport, paint: Paint) -> String {
    let reference = format!("{}@{}", report.workspace, report.revision);
    let mut rows = vec![
        ("files", format!("{}, {}", report.counts.files, ByteSize(report.counts.bytes))),
        (
            "new",
            format!(
                "{}, {} stored",
                ByteSize(report.written.new_bytes),
                ByteSize(report.written.stored_bytes)
            ),
        ),
        ("time", human_duration(report.took)),
    ];
    rows.extend(noted("changed while they were read", &report.unsettled).map(|text| ("note", text)));
    rows.extend(
        noted("could not be read and are left out", &report.unreadable)
            .map(|text| ("note", paint.warn(&text))),
    );
    let mut text = format!("{} saved\n", paint.bold(&reference));
    for (name, value) in rows {
        text.push_str(&format!("  {name:<9} {value}\n"));
    }
    text
}

/// Returns what is to be said of paths, in one line: how many, and the first few.
fn noted(what: &str, notes: &PathNotes) -> Option<String> {
    const SHOWN: usize = 3;
    if notes.count == 0 {
        return None;
    }
    let mut first: Vec<String> = notes.first.iter().take(SHOWN).map(|note| note.path.to_string()).collect();
    if notes.count > first.len() as u64 {
        first.push("…".to_owned());
    }
    Some(format!("{} files {what}: {}", notes.count, first.join(", ")))
}
