//! `kiln workspace list`: the tables of workspaces and of revisions.

use clap::Args;
use jiff::Timestamp;

use super::view::{ListView, ListedView};
use crate::base::{ByteSize, WorkspaceName, now};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::toolkit::Toolkit;
use crate::workspace;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace list
  kiln workspace list app
  kiln workspace list app --json | jq -r '.revisions[-1].reference'

Without a name every workspace has a line; with --json all revisions stand there, too, by workspace and oldest first.";

/// Characters of an id in the table: those that are the same only within a few seconds of one another.
const SHORT_ID: usize = 10;

/// Arguments of `kiln workspace list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// List the revisions of this workspace
    #[arg(value_name = "NAME")]
    name: Option<WorkspaceName>,
}

/// Lists workspaces, or the revisions of one, newest last.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &ListArgs,
) -> Result<(), CommandError> {
    let listed = workspace::list(&toolkit.depot(), arguments.name.as_ref()).await?;
    let view = ListView::new(&listed);
    if view.revisions.is_empty() && !invocation.output.json() {
        invocation.note(&match &arguments.name {
            None => "there is no workspace; `kiln workspace save DIR --name NAME` saves one".to_owned(),
            Some(name) => {
                format!("there is no workspace `{name}`; `kiln workspace list` shows what there is")
            }
        });
    }
    invocation.output.answer(&view, |paint| match &arguments.name {
        Some(_) => revisions(&view, now(), paint),
        None => workspaces(&view, now(), paint),
    })
}

fn workspaces(view: &ListView, now: Timestamp, paint: Paint) -> String {
    if view.workspaces.is_empty() {
        return String::new();
    }
    let head = ["WORKSPACE", "REVISIONS", "NEWEST", "AGE", "FILES", "SIZE", "PINNED"];
    let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
    rows.extend(view.workspaces.iter().map(|row| {
        let damaged = match row.damaged {
            0 => String::new(),
            count => paint.bad(&format!(", {count} damaged")),
        };
        vec![
            row.workspace.clone(),
            format!("{}{damaged}", row.revisions),
            row.newest.chars().take(SHORT_ID).collect(),
            age(now, row.newest_at),
            row.files.to_string(),
            ByteSize(row.bytes).to_string(),
            if row.pinned == 0 { "-".to_owned() } else { row.pinned.to_string() },
        ]
    }));
    table(&rows)
}

fn revisions(view: &ListView, now: Timestamp, paint: Paint) -> String {
    if view.revisions.is_empty() {
        return String::new();
    }
    let head = ["REVISION", "AGE", "FILES", "SIZE", "PINNED", "LABELS"];
    let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
    rows.extend(view.revisions.iter().map(|row| revision(row, now, paint)));
    table(&rows)
}

fn revision(row: &ListedView, now: Timestamp, paint: Paint) -> Vec<String> {
    let name = format!("{}@{}", row.workspace, row.revision.chars().take(SHORT_ID).collect::<String>());
    let pinned = if row.pinned { "yes".to_owned() } else { "-".to_owned() };
    let Some(record) = &row.record else {
        let dash = || "-".to_owned();
        return vec![name, dash(), dash(), dash(), pinned, paint.bad("damaged")];
    };
    let labels: Vec<String> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        name,
        age(now, record.created),
        record.files.to_string(),
        ByteSize(record.bytes).to_string(),
        pinned,
        if labels.is_empty() { "-".to_owned() } else { labels.join(", ") },
    ]
}
