//! The table of snapshots.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use jiff::Timestamp;

use super::painted_state;
use crate::base::{ByteSize, SnapshotName, now};
use crate::catalog::State;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::cli::view::{SnapshotListView, SnapshotRowView};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot list
  kiln snapshot list litellm --all
  kiln snapshot list --state active --json | jq -r '.snapshots[].reference'";

/// Characters of an id in the table: those that are the same only within a few seconds of one another.
const SHORT_ID: usize = 10;

/// Arguments of `kiln snapshot list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only snapshots of this name
    #[arg(value_name = "NAME")]
    name: Option<SnapshotName>,
    /// Also failed and removed ones
    #[arg(long)]
    all: bool,
    /// Only snapshots in this state; may be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = PossibleValuesParser::new(State::ALL.map(State::as_str)).try_map(|word| word.parse::<State>()))]
    states: Vec<State>,
}

impl ListArgs {
    fn shows(&self, state: State) -> bool {
        if !self.states.is_empty() {
            return self.states.contains(&state);
        }
        match state {
            State::Error | State::Removed => self.all,
            State::Building
            | State::Checking
            | State::Active
            | State::Unchecked
            | State::Inactive
            | State::Revoked
            | State::Removing => true,
        }
    }
}

/// Lists snapshots, newest last.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &ListArgs,
) -> Result<(), CommandError> {
    let catalog = toolkit.catalog();
    let snapshots = match &arguments.name {
        Some(name) => catalog.of_name(name).await?,
        None => catalog.list().await?,
    };
    let channels = catalog.channels().await?;
    let shown: Vec<_> = snapshots.iter().filter(|snapshot| arguments.shows(snapshot.state())).collect();
    let hidden = snapshots.len() - shown.len();
    let mut rows = Vec::with_capacity(shown.len());
    for snapshot in &shown {
        let revoked_base = catalog.revoked_below(snapshot).await?.map(|base| base.reference());
        rows.push(SnapshotRowView { revoked_base, ..SnapshotRowView::new(snapshot, &channels) });
    }
    let view = SnapshotListView { snapshots: rows };
    if view.snapshots.is_empty() && !invocation.output.json() {
        invocation.note(&match hidden {
            0 => "there is no snapshot; `kiln build TEMPLATE` bakes one".to_owned(),
            hidden => format!("there is no such snapshot; {hidden} others are shown with --all"),
        });
    }
    invocation.output.answer(&view, |paint| human(&view, now(), paint))
}

fn human(view: &SnapshotListView, now: Timestamp, paint: Paint) -> String {
    if view.snapshots.is_empty() {
        return String::new();
    }
    let head = ["SNAPSHOT", "STATE", "SIZE", "AGE", "CHANNELS", "PINNED", "PLACES"];
    let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
    rows.extend(view.snapshots.iter().map(|row| {
        let present: Vec<&str> = row
            .places
            .iter()
            .filter(|place| place.state == "present")
            .map(|place| place.endpoint.as_str())
            .collect();
        vec![
            format!("{}@{}", row.name, row.id.chars().take(SHORT_ID).collect::<String>()),
            match &row.revoked_base {
                Some(_) => format!("{}, {}", painted_state(row.state, paint), paint.bad("base revoked")),
                None => painted_state(row.state, paint),
            },
            row.size_bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string()),
            age(now, row.created),
            or_dash(&row.channels.join(", ")),
            if row.pinned { "yes".to_owned() } else { "-".to_owned() },
            or_dash(&present.join(", ")),
        ]
    }));
    table(&rows)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::tests::{sample, sample_channels, sample_now};

    #[test]
    fn the_table_is_aligned() {
        let row = SnapshotRowView::new(&sample(), &sample_channels());
        let failed = SnapshotRowView {
            name: "a".into(),
            state: "error",
            size_bytes: None,
            channels: vec![],
            pinned: false,
            places: vec![],
            ..row.clone()
        };
        let view = SnapshotListView { snapshots: vec![row, failed] };
        insta::assert_snapshot!(human(&view, sample_now(), Paint::new(false)), @r"
        SNAPSHOT            STATE   SIZE     AGE     CHANNELS  PINNED  PLACES
        litellm@01jqzzzzzz  active  1.3 GiB  3h ago  prod      yes     unix:///var/run/docker.sock
        a@01jqzzzzzz        error   -        3h ago  -         -       -
        ");
    }

    #[test]
    fn failed_and_removed_ones_are_hidden_unless_asked_for() {
        let arguments = |all, states: &[State]| ListArgs { name: None, all, states: states.to_vec() };
        for state in State::ALL {
            let hidden = matches!(state, State::Error | State::Removed);
            assert_eq!(arguments(false, &[]).shows(state), !hidden, "{state}");
            assert!(arguments(true, &[]).shows(state), "{state}");
            assert_eq!(arguments(false, &[State::Error]).shows(state), state == State::Error, "{state}");
        }
    }
}
