//! A kept log, also while it grows.

use std::time::Duration;

use clap::Args;

use crate::base::{Monotonic, SnapshotId};
use crate::catalog::{Catalog, CatalogError, LogReader, Snapshot, SnapshotRef};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::progress::{Lines, Telling};
use crate::cli::text::clean;
use crate::snapshot::{BakeEvent, LogEntry, StageEvent};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot logs litellm
  kiln snapshot logs litellm --follow
  kiln snapshot logs litellm@01jqz3k5p8 --json | jq -r 'select(.event == \"log\") | .line'

REF is a name, name@id, name:channel or an id. A bare name stands for its newest bake here, whatever became of it. \
With --json each line is an event, as it was kept. The exit code tells whether the log could be read, and nothing of the \
bake.";

/// The pause between two looks at a growing log: parts are written once a second, so a line is seen soon after its part.
const POLL: Duration = Duration::from_millis(250);

/// How long the last line of an ended bake is waited for: the state is written before the log is closed.
const LAST_LINE: Duration = Duration::from_secs(2);

/// Arguments of `kiln snapshot logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
    /// Go on until the bake has ended
    #[arg(long, short)]
    follow: bool,
}

/// Prints a log.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &LogsArgs,
) -> Result<(), CommandError> {
    let catalog = toolkit.catalog();
    let id = newest(catalog, &arguments.reference).await?.id();
    let mut reader = LogReader::new(catalog.clone(), id);
    let mut printer = Printer::new(invocation);
    if !arguments.follow {
        return printer.print(&reader.next_lines().await?);
    }
    let mut ended: Option<Monotonic> = None;
    loop {
        printer.print(&reader.next_lines().await?)?;
        let waited_out = ended.is_some_and(|since| since.elapsed() >= LAST_LINE);
        if printer.saw_end || waited_out || invocation.output.closed() {
            return Ok(());
        }
        if ended.is_none() && !in_work(catalog, id).await? {
            // What was written before the state changed is read in the next turn, without a pause.
            ended = Some(Monotonic::start());
            continue;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn in_work(catalog: &Catalog, id: SnapshotId) -> Result<bool, CatalogError> {
    Ok(catalog.state(id).await?.is_some_and(crate::catalog::State::in_work))
}

/// Returns what a reference names; a bare name stands for its newest bake.
async fn newest(catalog: &Catalog, reference: &SnapshotRef) -> Result<Snapshot, CatalogError> {
    if let SnapshotRef::Name(name) = reference
        && let Some(newest) = catalog.of_name(name).await?.pop()
    {
        return Ok(newest);
    }
    catalog.resolve(reference).await
}

/// Prints the lines of a log: as they were kept, or as people read them.
struct Printer<'a> {
    invocation: &'a Invocation,
    lines: Lines,
    saw_end: bool,
}

impl<'a> Printer<'a> {
    fn new(invocation: &'a Invocation) -> Self {
        Self { invocation, lines: Lines::new(Telling::Log), saw_end: false }
    }

    fn print(&mut self, kept: &[String]) -> Result<(), CommandError> {
        let mut text = String::new();
        for line in kept {
            let entry = serde_json::from_str::<LogEntry>(line).ok();
            let ended = |entry: &LogEntry| matches!(entry.event, BakeEvent::Stage(StageEvent::Ended { .. }));
            self.saw_end |= entry.as_ref().is_some_and(ended);
            if self.invocation.output.json() {
                text.push_str(line);
                text.push('\n');
            } else {
                for shown in self.human(line, entry) {
                    text.push_str(&shown);
                    text.push('\n');
                }
            }
        }
        self.invocation.output.text(&text)
    }

    fn human(&mut self, line: &str, entry: Option<LogEntry>) -> Vec<String> {
        match entry {
            Some(LogEntry { at, event }) => self.lines.tell(at, &event),
            // A newer program wrote an event that this one does not know: better raw than lost.
            None => vec![clean(line)],
        }
    }
}
