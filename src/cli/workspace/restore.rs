//! `kiln workspace restore`: a revision becomes a directory, a tar stream or a container's directory.

use std::io;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::place::{Place, archive_out};
use super::view::RestoreView;
use crate::base::{ByteSize, human_duration};
use crate::cli::args::ArgumentError;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::watched::watched;
use crate::objects::Bandwidth;
use crate::toolkit::Toolkit;
use crate::workspace::archive::ArchiveFormat;
use crate::workspace::tree::{IdRange, OwnerRule, RestoreRights};
use crate::workspace::{self, RestoreReport, RestoreSpec, RevisionReference, WorkspaceError};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace restore app /home/user/app
  kiln workspace restore app@01jqz3k5p8 ./there --include src --include package.json
  kiln workspace restore app /home/user/app --update
  kiln workspace restore app - --format tar.zst > app.tar.zst
  kiln workspace restore app docker://sandbox-1/home/user/app
  kiln workspace restore app ./there --map-uid 1000:2000 --map-gid 1000:2000

A directory that is not there yet, or is empty, appears under its name when it is whole; \
an empty one that cannot be replaced, since something is mounted on it, it is the current directory, or the directory above may not be \
changed, is written in place and cleared again when the restore fails. With --update an existing one becomes \
equal to the revision, and only what differs is written. With - standard output is the archive and nothing else; a stream and a \
container get everything as it was saved, setuid bits, devices and capabilities too. What entries could not be given, such as owners for want of a right, is counted and said.";

/// Arguments of `kiln workspace restore`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: RevisionReference,
    /// A directory, - for a tar stream on standard output, or a container's directory
    #[arg(value_name = "DIR|-|docker://CONTAINER/PATH", value_parser = Place::parser())]
    target: Place,
    /// The form of the tar stream [default: tar]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<FormatArg>,
    /// Make an existing directory equal to the revision: what it has beside it is deleted
    #[arg(long, conflicts_with = "includes")]
    update: bool,
    /// Restore only what this pattern matches, and the directories above it; may be repeated
    #[arg(long = "include", value_name = "PATTERN")]
    includes: Vec<String>,
    /// Who owns what is written [default: keep for root and in a stream, else current]
    #[arg(long, value_name = "keep|current|names|UID:GID", help_heading = "Owners and rights")]
    owner: Option<OwnerArg>,
    /// Move the numbers of users: COUNT of them from FROM on become those from TO on; may be repeated
    #[arg(
        long = "map-uid",
        value_name = "FROM:TO[:COUNT]",
        conflicts_with = "owner",
        help_heading = "Owners and rights"
    )]
    map_uids: Vec<RangeArg>,
    /// Move the numbers of groups in the same way; may be repeated
    #[arg(
        long = "map-gid",
        value_name = "FROM:TO[:COUNT]",
        conflicts_with = "owner",
        help_heading = "Owners and rights"
    )]
    map_gids: Vec<RangeArg>,
    /// Give files their setuid and setgid bits
    #[arg(long, help_heading = "Owners and rights")]
    special_bits: bool,
    /// Make devices
    #[arg(long, help_heading = "Owners and rights")]
    devices: bool,
    /// Set attributes that give rights, such as capabilities
    #[arg(long, help_heading = "Owners and rights")]
    privileged_xattrs: bool,
    /// Most bytes of files
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    max_bytes: Option<ByteSize>,
    /// Most entries
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_entries: Option<u64>,
    /// Threads that decompress and write [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    jobs: Option<usize>,
    /// Most bytes a second from the store
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    limit_rate: Option<ByteSize>,
}

/// Words of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Plain.
    Tar,
    /// With gzip.
    #[value(name = "tar.gz", alias = "tgz")]
    TarGz,
    /// With zstd.
    #[value(name = "tar.zst", alias = "tzst")]
    TarZst,
}

/// `keep`, `current`, `names` or `UID:GID`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnerArg(OwnerRule);

impl FromStr for OwnerArg {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let fixed = || {
            let (uid, gid) = text.split_once(':')?;
            Some(OwnerRule::Fixed { uid: id(uid)?, gid: id(gid)? })
        };
        Ok(Self(match text {
            "keep" => OwnerRule::Keep,
            "current" => OwnerRule::Current,
            "names" => OwnerRule::Names,
            _ => fixed().ok_or_else(|| {
                ArgumentError(format!("`{}` is not keep, current, names or UID:GID", text.escape_debug()))
            })?,
        }))
    }
}

/// `FROM:TO` or `FROM:TO:COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RangeArg(IdRange);

impl FromStr for RangeArg {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let read = || {
            let parts: Vec<u32> = text.split(':').map(id).collect::<Option<_>>()?;
            match parts.as_slice() {
                [from, to] => Some(IdRange { from: *from, to: *to, count: 1 }),
                [from, to, count] if *count > 0 => Some(IdRange { from: *from, to: *to, count: *count }),
                _ => None,
            }
        };
        read().map(Self).ok_or_else(|| {
            ArgumentError(format!("`{}` is not FROM:TO or FROM:TO:COUNT", text.escape_debug()))
        })
    }
}

/// Reads a number of a user or group. The highest one means "leave it" to the kernel and is none.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// Restores, and prints what was done.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &RestoreArgs,
) -> Result<(), CommandError> {
    check(invocation, arguments)?;
    let spec = spec(arguments);
    let depot = toolkit.depot_within(Bandwidth { up: None, down: arguments.limit_rate.map(ByteSize::bytes) });
    let revision = workspace::find(&depot, &arguments.reference).await?;
    match &arguments.target {
        Place::Directory(target) if arguments.update => {
            let report = watched(invocation, async |sink, cancel| {
                Box::pin(workspace::update(&depot, &revision, target, &spec, sink, cancel)).await
            })
            .await?;
            super::update::answer(invocation, &report)
        }
        Place::Directory(target) => {
            let report = watched(invocation, async |sink, cancel| {
                Box::pin(workspace::restore(&depot, &revision, target, &spec, sink, cancel)).await
            })
            .await?;
            invocation.output.answer(&RestoreView::new(&report), |paint| human(&report, paint))
        }
        Place::Container { container, path } => {
            let engine = toolkit.engine()?;
            let report = watched(invocation, async |sink, cancel| {
                let restored = workspace::restore_container(
                    &depot, &*engine, &revision, container, path, &spec, sink, cancel,
                );
                Box::pin(restored).await
            })
            .await?;
            invocation.output.answer(&RestoreView::new(&report), |paint| human(&report, paint))
        }
        Place::Stream => {
            let out = Box::new(archive_out()?);
            let format = match arguments.format.unwrap_or(FormatArg::Tar) {
                FormatArg::Tar => ArchiveFormat::Tar,
                FormatArg::TarGz => ArchiveFormat::TarGz,
                FormatArg::TarZst => ArchiveFormat::TarZst,
            };
            let restored = watched(invocation, async |sink, cancel| {
                let restored =
                    workspace::restore_archive(&depot, &revision, out, format, &spec, sink, cancel);
                match Box::pin(restored).await {
                    // A reader that has gone away is no error: it has what it wanted.
                    Err(WorkspaceError::Stream { source, .. })
                        if source.kind() == io::ErrorKind::BrokenPipe =>
                    {
                        Ok(None)
                    }
                    restored => restored.map(Some),
                }
            })
            .await?;
            if let Some(report) = restored {
                invocation.note(human(&report, Paint::new(false)).trim_end());
            }
            Ok(())
        }
    }
}

/// Refuses options that do not go together.
fn check(invocation: &Invocation, arguments: &RestoreArgs) -> Result<(), CommandError> {
    let is_stream = arguments.target == Place::Stream;
    if is_stream && invocation.output.json() {
        return Err(CommandError::invalid("standard output is the archive and cannot be JSON, too")
            .with_hint("leave --json out; `--log json` tells the story on standard error"));
    }
    if arguments.update && !matches!(arguments.target, Place::Directory(_)) {
        return Err(CommandError::invalid("only a directory of this host can be updated")
            .with_hint("leave --update out, or name a directory"));
    }
    let is_directory = matches!(arguments.target, Place::Directory(_));
    for (is_given, option) in [
        (arguments.special_bits, "--special-bits"),
        (arguments.devices, "--devices"),
        (arguments.privileged_xattrs, "--privileged-xattrs"),
        (arguments.jobs.is_some(), "--jobs"),
    ] {
        if is_given && !is_directory {
            return Err(CommandError::invalid(format!("{option} is for a directory of this host"))
                .with_hint("a stream and a container get everything as it was saved: what is allowed there is for its reader to say"));
        }
    }
    if !is_stream && arguments.format.is_some() {
        return Err(CommandError::invalid("--format is for a tar stream")
            .with_hint("write `-` in place of the directory"));
    }
    Ok(())
}

fn spec(arguments: &RestoreArgs) -> RestoreSpec {
    let ranges = |given: &[RangeArg]| given.iter().map(|range| range.0).collect::<Vec<_>>();
    let owner = match &arguments.owner {
        Some(owner) => Some(owner.0.clone()),
        None if arguments.map_uids.is_empty() && arguments.map_gids.is_empty() => None,
        None => {
            Some(OwnerRule::Map { users: ranges(&arguments.map_uids), groups: ranges(&arguments.map_gids) })
        }
    };
    RestoreSpec {
        includes: arguments.includes.clone(),
        rights: RestoreRights {
            owner,
            special_bits: arguments.special_bits,
            devices: arguments.devices,
            privileged_xattrs: arguments.privileged_xattrs,
        },
        jobs: arguments.jobs.unwrap_or(0),
        max_bytes: arguments.max_bytes.map(ByteSize::bytes),
        max_entries: arguments.max_entries,
        unnoted: false,
    }
}

fn human(report: &RestoreReport, paint: Paint) -> String {
    let reference = format!("{}@{}", report.workspace, report.revision);
    let mut text = format!("{} restored\n", paint.bold(&reference));
    let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    row("files", format!("{}, {}", report.counts.files, ByteSize(report.counts.bytes)));
    row("fetched", ByteSize(report.fetched_bytes).to_string());
    row("time", human_duration(report.took));
    for line in shortfalls(&report.shortfalls) {
        row("note", line);
    }
    text
}

/// Returns what entries could not be given, a line for each reason.
pub(super) fn shortfalls(shortfalls: &[(String, u64, String)]) -> Vec<String> {
    shortfalls
        .iter()
        .map(|(what, count, first)| match count {
            1 => format!("{what} of 1 entry could not be set: {first}"),
            count => format!("{what} of {count} entries could not be set, {first} among them"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        restore: RestoreArgs,
    }

    fn rights_of(words: &[&str]) -> Result<RestoreRights, clap::Error> {
        let line = Line::try_parse_from(["restore", "app", "there"].iter().chain(words))?;
        Ok(spec(&line.restore).rights)
    }

    #[test]
    fn owners_are_words_numbers_or_ranges() {
        let range = |from, to, count| IdRange { from, to, count };
        for (words, owner) in [
            (&["--owner", "keep"][..], Some(OwnerRule::Keep)),
            (&["--owner", "current"], Some(OwnerRule::Current)),
            (&["--owner", "names"], Some(OwnerRule::Names)),
            (&["--owner", "1000:100"], Some(OwnerRule::Fixed { uid: 1000, gid: 100 })),
            (
                &["--map-uid", "0:100000:65536", "--map-gid", "5:6"],
                Some(OwnerRule::Map { users: vec![range(0, 100_000, 65_536)], groups: vec![range(5, 6, 1)] }),
            ),
            (&[], None),
        ] {
            assert_eq!(rights_of(words).unwrap().owner, owner, "{words:?}");
        }
        for wrong in [
            &["--owner", "root"][..],
            &["--owner", "1:"],
            &["--owner", "4294967295:0"],
            &["--map-uid", "1"],
            &["--map-uid", "1:2:0"],
            &["--map-uid", "1:2:3:4"],
            &["--owner", "keep", "--map-uid", "1:2"],
        ] {
            assert!(rights_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rights_are_given_only_when_asked_for() {
        let bare = rights_of(&[]).unwrap();
        assert!(!bare.special_bits && !bare.devices && !bare.privileged_xattrs);
        let all = rights_of(&["--special-bits", "--devices", "--privileged-xattrs"]).unwrap();
        assert!(all.special_bits && all.devices && all.privileged_xattrs);
    }
}
