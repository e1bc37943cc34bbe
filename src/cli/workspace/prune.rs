//! `kiln workspace prune`: what no policy keeps is removed.

use std::error::Error;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use serde::Serialize;

use crate::base::{ByteSize, LabelPattern, Length, Sink, WorkspaceName, chain, now};
use crate::cli::args::ArgumentError;
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::cli::watched::watched;
use crate::toolkit::Toolkit;
use crate::workspace::{
    self, KeepReason, PolicySet, PruneItem, PruneOutcome, PrunePlan, PrunePolicy, PruneReport, PruneRules,
    PruneScope, Verdict, WorkspaceEvent,
};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace prune app --keep-last 3 --keep-daily 7
  kiln workspace prune --all --keep-within 30d --keep-label release --apply
  kiln workspace prune --all --unused-for 90d --json | jq -r '.items[] | select(.action == \"remove\").reference'
  kiln workspace prune --all --apply

A revision stays that any rule keeps; the others go, or with --unused-for those of them that nobody saved or restored for so long. \
Whatever the rules say, pinned revisions stay, those whose records are damaged, and the newest of each workspace. Ages count from \
now; hours, days, weeks (from Monday) and months are those of UTC, and those without a revision are not counted.

Without a rule the policies of kiln.toml decide: the first that fits a workspace's name counts, and a workspace that none fits is left alone:

  [[workspace.prune]]
  workspaces = [\"ci-*\", \"tmp-?\"]     # left out: all
  keep_last = 3
  unused_for = \"7d\"

  [[workspace.prune]]
  keep_daily = 7
  keep_monthly = 12
  keep_label = [\"release\", \"env=prod\"]

Only names are removed: `kiln workspace undo` brings a revision back until `kiln gc` has freed its bytes. Exit code 3 where some \
could not be removed.";

/// Characters of an id in the table.
const SHORT_ID: usize = 10;

/// Arguments of `kiln workspace prune`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("scope").required(true)))]
pub(in crate::cli) struct PruneArgs {
    /// The workspaces
    #[arg(value_name = "NAME", group = "scope")]
    names: Vec<WorkspaceName>,
    /// Prune every workspace
    #[arg(long, group = "scope")]
    all: bool,
    #[command(flatten)]
    rules: RuleArgs,
    /// Read this file instead of kiln.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Remove what the plan says, instead of only telling it
    #[arg(long)]
    apply: bool,
}

/// The rules of a policy.
#[derive(Debug, Args)]
struct RuleArgs {
    /// Keep the newest N revisions
    #[arg(long, value_name = "N", value_parser = some)]
    keep_last: Option<NonZeroU32>,
    /// Keep what was saved within this time
    #[arg(long, value_name = "DUR", value_parser = some_length)]
    keep_within: Option<Length>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = some)]
    keep_hourly: Option<NonZeroU32>,
    /// The same of days
    #[arg(long, value_name = "N", value_parser = some)]
    keep_daily: Option<NonZeroU32>,
    /// The same of weeks
    #[arg(long, value_name = "N", value_parser = some)]
    keep_weekly: Option<NonZeroU32>,
    /// The same of months
    #[arg(long, value_name = "N", value_parser = some)]
    keep_monthly: Option<NonZeroU32>,
    /// Keep what has this label, with this value if one is given; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    keep_label: Vec<LabelPattern>,
    /// Of the rest, remove only what nobody saved or restored for this time
    #[arg(long, value_name = "DUR", value_parser = some_length)]
    unused_for: Option<Length>,
}

fn some(text: &str) -> Result<NonZeroU32, ArgumentError> {
    text.parse()
        .map_err(|_reason| ArgumentError(format!("`{}` is no number of one or more", text.escape_debug())))
}

fn some_length(text: &str) -> Result<Length, ArgumentError> {
    let length: Length = text.parse().map_err(|error| ArgumentError(format!("{error}")))?;
    if length.0.is_zero() {
        return Err(ArgumentError("a length of no time keeps nothing".to_owned()));
    }
    Ok(length)
}

impl RuleArgs {
    fn rules(&self) -> PruneRules {
        PruneRules {
            keep_last: self.keep_last,
            keep_within: self.keep_within,
            keep_hourly: self.keep_hourly,
            keep_daily: self.keep_daily,
            keep_weekly: self.keep_weekly,
            keep_monthly: self.keep_monthly,
            keep_label: self.keep_label.clone(),
            unused_for: self.unused_for,
        }
    }
}

impl PruneArgs {
    /// Opens the store, by the configuration that is named.
    pub(super) async fn toolkit(&self, invocation: &Invocation) -> Result<Toolkit, CommandError> {
        let Some(path) = &self.config else { return invocation.toolkit().await };
        let Some(path) = path.to_str() else {
            return Err(CommandError::invalid("the name of the configuration is not UTF-8"));
        };
        let environment = invocation.environment.clone().with("KILN_CONFIG", path);
        Ok(Toolkit::open(environment, invocation.global.store.as_deref()).await?)
    }

    /// Returns the rules that were given, or else the policies of the configuration.
    fn policies(&self, toolkit: &Toolkit) -> Result<PolicySet, CommandError> {
        let rules = self.rules.rules();
        if rules != PruneRules::default() {
            return Ok(PolicySet::same(PrunePolicy::new(rules)?)?);
        }
        let tables = &toolkit.config().workspace.prune;
        if tables.is_empty() {
            return Err(CommandError::invalid("no rule says what to keep").with_hint(
                "give one, such as --keep-last 3, or write a [[workspace.prune]] table into kiln.toml",
            ));
        }
        Ok(PolicySet::of_config(tables)?)
    }

    fn scope(&self) -> PruneScope {
        if self.all { PruneScope::All } else { PruneScope::Named(self.names.iter().cloned().collect()) }
    }
}

/// A pruning on the wire.
#[derive(Debug, Serialize)]
struct PruneView {
    applied: bool,
    items: Vec<ItemView>,
    kept: usize,
    /// Revisions that were removed, or without `--apply` would be.
    removed: usize,
    /// Revisions that could not be removed, or were pinned at the same moment.
    failed: usize,
    /// What the files of the removed revisions take, each counted whole, though they share most of it.
    removed_bytes: u64,
    /// Why it is not known whether some of them were pinned at the same moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsure: Option<String>,
    /// Always 0: removing drops names, and `kiln gc` frees bytes.
    freed_bytes: u64,
}

/// A revision on the wire.
#[derive(Debug, Serialize)]
struct ItemView {
    id: String,
    name: String,
    reference: String,
    /// `keep` or `remove`: what became of it, or without `--apply` would.
    action: &'static str,
    /// For people.
    reason: String,
    /// For programs: `newest`, `pinned`, `last`, `within`, `hourly`, …; `no_rule` or `unused` of what goes.
    reasons: Vec<&'static str>,
    /// The sum of the sizes of its files, where its record can be read.
    bytes: Option<u64>,
    saved: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ItemView {
    fn new(item: &PruneItem, outcome: Option<&PruneOutcome>) -> Self {
        let (mut action, mut reason, mut reasons) = match &item.verdict {
            Verdict::Keep(reasons) => {
                let told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                ("keep", told.join(", "), reasons.iter().map(KeepReason::word).collect())
            }
            Verdict::Remove(reason) => ("remove", reason.to_string(), vec![reason.word()]),
        };
        let mut error = None;
        match outcome {
            None | Some(PruneOutcome::Removed) => {}
            Some(PruneOutcome::Gone) => reason = "somebody else removed it meanwhile".to_owned(),
            Some(PruneOutcome::Spared { why }) => {
                (action, reason, reasons) = ("keep", (*why).to_owned(), vec!["changed"]);
            }
            Some(PruneOutcome::RemovedThoughPinned) => {
                error = Some(
                    "it was pinned while it was removed; `kiln workspace undo` brings it back".to_owned(),
                );
            }
            Some(PruneOutcome::Failed(cause)) => {
                (action, reasons) = ("keep", vec!["failed"]);
                error = Some(in_a_line(cause));
            }
        }
        let revision = &item.revision;
        Self {
            id: revision.id.to_string(),
            name: revision.workspace.to_string(),
            reference: format!("{}@{}", revision.workspace, revision.id),
            action,
            reason,
            reasons,
            bytes: item.record.as_ref().map(|record| record.counts.bytes),
            saved: item.record.as_ref().map(|record| record.created),
            error,
        }
    }
}

/// Returns an error and its causes as one line.
fn in_a_line(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::once(error.to_string()).chain(chain(error));
    causes.collect::<Vec<_>>().join(": ")
}

impl PruneView {
    fn new(items: Vec<ItemView>, applied: bool, failed: usize) -> Self {
        let removed = items.iter().filter(|item| item.action == "remove");
        let removed_bytes = removed.clone().filter_map(|item| item.bytes).sum();
        let removed = removed.count();
        Self {
            applied,
            kept: items.len() - removed,
            removed,
            failed,
            removed_bytes,
            unsure: None,
            freed_bytes: 0,
            items,
        }
    }

    fn of_plan(plan: &PrunePlan) -> Self {
        Self::new(plan.items().iter().map(|item| ItemView::new(item, None)).collect(), false, 0)
    }

    fn of_report(report: &PruneReport) -> Self {
        let items = report.items.iter().map(|(item, outcome)| ItemView::new(item, outcome.as_ref()));
        let unsure = report.unsure.as_ref().map(|error| in_a_line(error));
        Self { unsure, ..Self::new(items.collect(), true, report.failed()) }
    }
}

/// Prunes, or tells what would be removed; returns the exit code.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &PruneArgs,
) -> Result<u8, CommandError> {
    let depot = toolkit.depot();
    let (policies, scope) = (arguments.policies(toolkit)?, arguments.scope());
    let view = watched(invocation, async |sink: Arc<dyn Sink<WorkspaceEvent>>, cancel| {
        let plan = Box::pin(workspace::plan_prune(&depot, &scope, &policies, now(), &*sink)).await?;
        if !arguments.apply {
            return Ok(PruneView::of_plan(&plan));
        }
        let report = Box::pin(workspace::prune(&depot, plan, &*sink, cancel)).await?;
        Ok::<_, CommandError>(PruneView::of_report(&report))
    })
    .await?;
    invocation.output.answer(&view, |paint| human(&view, now(), paint))?;
    Ok(if view.failed == 0 && view.unsure.is_none() { 0 } else { exit::IN_PART })
}

fn human(view: &PruneView, now: Timestamp, paint: Paint) -> String {
    if view.items.is_empty() {
        return "there is no revision\n".to_owned();
    }
    let head = ["REVISION", "AGE", "SIZE", "ACTION", "REASON"];
    let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
    rows.extend(view.items.iter().map(|item| {
        let action = if item.action == "remove" { paint.warn("remove") } else { paint.good("keep") };
        let dash = || "-".to_owned();
        vec![
            format!("{}@{}", item.name, item.id.chars().take(SHORT_ID).collect::<String>()),
            item.saved.map_or_else(dash, |saved| age(now, saved)),
            item.bytes.map_or_else(dash, |bytes| ByteSize(bytes).to_string()),
            action,
            match &item.error {
                Some(error) => format!("{} {error}", paint.bad("failed:")),
                None => item.reason.clone(),
            },
        ]
    }));
    let mut text = table(&rows);
    let (verb, next) = match (view.applied, view.removed) {
        (true, 0) => ("removed", ""),
        (true, _) => ("removed", "; `kiln gc` frees what only they need"),
        (false, 0) => ("would be removed", ""),
        (false, _) => ("would be removed", "; --apply removes them"),
    };
    let failed = match view.failed {
        0 => String::new(),
        count => paint.bad(&format!(", {count} failed")),
    };
    text.push_str(&format!("{} kept, {} {verb}{failed}{next}\n", view.kept, view.removed));
    if let Some(unsure) = &view.unsure {
        let warning = paint.warn("warning:");
        text.push_str(&format!("{warning} some may have been pinned at the same moment: {unsure}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_keep_nothing_are_refused() {
        assert_eq!(some("3").unwrap().get(), 3);
        for wrong in ["0", "-1", "x", ""] {
            assert!(some(wrong).is_err(), "{wrong}");
        }
        assert!(some_length("30d").is_ok());
        for wrong in ["0s", "30", "x"] {
            assert!(some_length(wrong).is_err(), "{wrong}");
        }
    }
}
