//! `kiln store check`: looking for damage.

use clap::Args;
use serde::Serialize;

use crate::base::{ByteSize, ErrorKind, human_duration};
use crate::cli::args::ArgumentError;
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::watched::watched;
use crate::workspace::{self, CheckReport, CheckSpec, Damage, Note, Problem};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln store check
  kiln store check --read-data
  kiln store check --sample 5 --json | jq .problems

Without an option every record, manifest and index is read, and every pack is there and as long as it must be. The exit code is \
7 where something is damaged. Nothing is changed; saves, restores and collections may run meanwhile.";

/// Arguments of `kiln store check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// Read every pack and verify every chunk
    #[arg(long, conflicts_with = "sample")]
    read_data: bool,
    /// Read about this many of a hundred packs, by chance
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
    /// Threads that decompress and verify [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

fn percent(text: &str) -> Result<f64, ArgumentError> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .ok_or_else(|| ArgumentError(format!("`{}` is no part of a hundred", text.escape_debug())))
}

/// What a check found, on the wire.
#[derive(Debug, Serialize)]
struct CheckView {
    sound: bool,
    revisions: u64,
    segments: u64,
    packs: u64,
    packs_read: u64,
    chunks: u64,
    bytes_read: u64,
    seconds: f64,
    problems: Vec<ProblemView>,
    notes: Vec<NoteView>,
}

/// Something that is damaged.
#[derive(Debug, Serialize)]
struct ProblemView {
    key: String,
    damage: &'static str,
    detail: String,
    /// Chunks that are damaged or lost.
    chunks: Vec<String>,
    touches: Vec<TouchedView>,
}

/// A revision that cannot be restored whole.
#[derive(Debug, Serialize)]
struct TouchedView {
    revision: String,
    /// How many files; 0 where it is not known which.
    files: u64,
    paths: Vec<String>,
}

/// Something that is no damage.
#[derive(Debug, Serialize)]
struct NoteView {
    note: &'static str,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Checks, and prints what was found. Returns the exit code: sound, or corrupt.
pub(super) async fn run(invocation: &Invocation, arguments: &CheckArgs) -> Result<u8, CommandError> {
    let depot = invocation.toolkit().await?.depot();
    let spec = CheckSpec {
        read_data: arguments.read_data,
        sample_percent: arguments.sample,
        jobs: arguments.jobs.unwrap_or(0),
    };
    let report = watched(invocation, async |sink, cancel| {
        Box::pin(workspace::check(&depot, &spec, sink, cancel)).await
    })
    .await?;
    let view = CheckView::new(&report);
    invocation.output.answer(&view, |paint| human(&view, &report, paint))?;
    Ok(if view.sound { 0 } else { exit::code(ErrorKind::Corrupt) })
}

impl CheckView {
    fn new(report: &CheckReport) -> Self {
        Self {
            sound: report.problems.is_empty(),
            revisions: report.revisions,
            segments: report.segments,
            packs: report.packs,
            packs_read: report.packs_read,
            chunks: report.chunks,
            bytes_read: report.bytes_read,
            seconds: report.took.as_secs_f64(),
            problems: report.problems.iter().map(ProblemView::new).collect(),
            notes: report.notes.iter().map(NoteView::new).collect(),
        }
    }
}

impl ProblemView {
    fn new(problem: &Problem) -> Self {
        let (damage, chunks) = match &problem.damage {
            Damage::Format => ("format", &[][..]),
            Damage::Record => ("record", &[][..]),
            Damage::Segment => ("segment", &[][..]),
            Damage::Protocol => ("protocol", &[][..]),
            Damage::PackMissing => ("pack_missing", &[][..]),
            Damage::PackSize => ("pack_size", &[][..]),
            Damage::PackTable => ("pack_table", &[][..]),
            Damage::PackBytes => ("pack_bytes", &[][..]),
            Damage::Chunks(chunks) => ("chunks", chunks.as_slice()),
            Damage::Lost(chunks) => ("lost", chunks.as_slice()),
            Damage::Manifest => ("manifest", &[][..]),
        };
        let touches = problem.touches.iter().map(|touched| TouchedView {
            revision: format!("{}@{}", touched.revision.workspace, touched.revision.id),
            files: touched.files,
            paths: touched.paths.iter().map(ToString::to_string).collect(),
        });
        Self {
            key: problem.key.clone(),
            damage,
            detail: problem.detail.clone(),
            chunks: chunks.iter().map(ToString::to_string).collect(),
            touches: touches.collect(),
        }
    }
}

impl NoteView {
    fn new(note: &Note) -> Self {
        let (note, count, bytes) = match *note {
            Note::OrphanPacks { count, bytes } => ("orphan_packs", count, Some(bytes)),
            Note::OpenSessions(count) => ("open_sessions", count, None),
            Note::CondemnedPacks(count) => ("condemned_packs", count, None),
            Note::RemovedRevisions(count) => ("removed_revisions", count, None),
            Note::RefusedSegments(count) => ("refused_segments", count, None),
        };
        Self { note, count, bytes }
    }
}

fn human(view: &CheckView, report: &CheckReport, paint: Paint) -> String {
    let mut text = String::new();
    for problem in &view.problems {
        text.push_str(&format!("{} {}: {}\n", paint.bad("damaged:"), problem.key, problem.detail));
        for touched in &problem.touches {
            let files = match touched.files {
                0 => "which files is not known".to_owned(),
                count => format!("{count} files: {}", touched.paths.join(", ")),
            };
            text.push_str(&format!("  touches {}, {files}\n", touched.revision));
        }
    }
    for note in &view.notes {
        let bytes = note.bytes.map_or_else(String::new, |bytes| format!(", {}", ByteSize(bytes)));
        text.push_str(&format!("note: {} {}{bytes}\n", note.count, note.note.replace('_', " ")));
    }
    let verdict = if view.sound {
        paint.good("sound")
    } else {
        paint.bad(&format!("{} problems", view.problems.len()))
    };
    text.push_str(&format!(
        "{verdict}: {} revisions, {} packs, {} of them read, {} chunks, {} in {}\n",
        view.revisions,
        view.packs,
        view.packs_read,
        view.chunks,
        ByteSize(view.bytes_read),
        human_duration(report.took)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_part_of_a_hundred() {
        assert_eq!(percent("5"), Ok(5.0));
        assert_eq!(percent("0.5%"), Ok(0.5));
        for wrong in ["0", "-1", "101", "NaN", "x", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
