//! `kiln image prune`: what a policy takes goes, as was shown.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::list::short;
use crate::base::config::ImageRules;
use crate::base::{ByteSize, Length, NamePattern, Sink, now};
use crate::cli::args::ArgumentError;
use crate::cli::exit;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::cli::watched::watched;
use crate::image::{
    Action, Freed, ImageBench, ImagePolicy, Plan, PlanItem, PruneEvent, PruneOutcome, PruneReport, Subject,
};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln image prune --keep-last 3
  kiln image prune --unused-for 30d --keep-last 2 --not-name \"prod-*\" --apply
  kiln image prune --high 85 --low 75 --include-cache 20GB --apply
  kiln image prune --max-age 90d --plan prune.json
  kiln image prune --plan prune.json --apply
  kiln image prune --expired --json | jq -r '.items[] | select(.action == \"delete\").id'

Kept whatever the rules say, in this order: what is being baked, what a container holds (running or not), what is pinned, what a \
channel holds or would go back to, what a kept snapshot is baked on, what is younger than --min-age, and the last N of each name. \
What is revoked, expired or left over goes by any rules. --keep-last alone takes all others; beside another rule it only keeps.

Two steps: a snapshot is put aside (inactive), and its image deleted by the first prune after --grace. Where less than --min-free is \
free, the least recently used go at once. Images go by their names, never by force; each is looked at again just before.

Last use is what was recorded: bakes, `kiln snapshot touch`, promotions, and what was baked on it. Time in which nobody watched the \
engine counts as use, unless --trust-created is given.

Bytes are told twice: freed at once, and freed once the build cache lets go of the same layers.

Without a rule the [image.prune] table of kiln.toml decides:

  [image.prune]
  unused_for = \"30d\"
  keep_last = 2
  high = 85
  low = 75

--plan FILE without --apply saves the plan; with --apply just that plan is applied. Exit code 3 where some could not be done.";

/// Arguments of `kiln image prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    #[command(flatten)]
    rules: RuleArgs,
    /// Save the plan to this file; with --apply, apply the plan in it
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Do what the plan says, instead of only telling it
    #[arg(long)]
    apply: bool,
    /// Read this file instead of kiln.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The rules of a policy.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
struct RuleArgs {
    /// Keep the newest N of each name
    #[arg(long, value_name = "N", value_parser = some)]
    keep_last: Option<NonZeroU32>,
    /// Keep what is younger [default: 1h]
    #[arg(long, value_name = "DUR")]
    min_age: Option<Length>,
    /// Take what is older
    #[arg(long, value_name = "DUR", value_parser = some_length)]
    max_age: Option<Length>,
    /// Take what was not used for so long
    #[arg(long, value_name = "DUR", value_parser = some_length)]
    unused_for: Option<Length>,
    /// Take what is revoked, expired or left over, and nothing else
    #[arg(long)]
    expired: bool,
    /// Take the least recently used until this store's images need no more
    #[arg(long, value_name = "SIZE")]
    max_total: Option<ByteSize>,
    /// Above so much of the engine's disk in use …
    #[arg(long, value_name = "PERCENT")]
    high: Option<u8>,
    /// … take the least recently used down to so much
    #[arg(long, value_name = "PERCENT")]
    low: Option<u8>,
    /// Take the least recently used, without a grace, until so much of the engine's disk is free
    #[arg(long, value_name = "SIZE")]
    min_free: Option<ByteSize>,
    /// Prune the build cache, too, down to this size
    #[arg(long, value_name = "SIZE")]
    include_cache: Option<ByteSize>,
    /// Only names that fit; may be repeated
    #[arg(long, value_name = "GLOB")]
    name: Vec<NamePattern>,
    /// No names that fit; may be repeated
    #[arg(long, value_name = "GLOB")]
    not_name: Vec<NamePattern>,
    /// How long a snapshot is put aside before its image is deleted [default: 24h]
    #[arg(long, value_name = "DUR")]
    grace: Option<Length>,
    /// Do not count time in which nobody watched the engine as use
    #[arg(long)]
    trust_created: bool,
}

fn some(text: &str) -> Result<NonZeroU32, ArgumentError> {
    text.parse()
        .map_err(|_reason| ArgumentError(format!("`{}` is no number of one or more", text.escape_debug())))
}

fn some_length(text: &str) -> Result<Length, ArgumentError> {
    let length: Length = text.parse().map_err(|error| ArgumentError(format!("{error}")))?;
    if length.0.is_zero() {
        return Err(ArgumentError("a length of no time takes everything".to_owned()));
    }
    Ok(length)
}

impl RuleArgs {
    fn rules(&self) -> ImageRules {
        ImageRules {
            name: self.name.clone(),
            not_name: self.not_name.clone(),
            keep_last: self.keep_last,
            min_age: self.min_age,
            max_age: self.max_age,
            unused_for: self.unused_for,
            expired: self.expired,
            max_total: self.max_total,
            high: self.high,
            low: self.low,
            min_free: self.min_free,
            include_cache: self.include_cache,
            grace: self.grace,
            trust_created: self.trust_created,
        }
    }

    /// Returns the rules that were given, or else those of the configuration with what was given beside.
    fn over(&self, configured: Option<&ImageRules>) -> ImageRules {
        let given = self.rules();
        let Some(configured) = configured.filter(|_| !given.takes_anything()) else { return given };
        let or = |given: Vec<NamePattern>, configured: &[NamePattern]| {
            if given.is_empty() { configured.to_vec() } else { given }
        };
        ImageRules {
            name: or(given.name, &configured.name),
            not_name: or(given.not_name, &configured.not_name),
            min_age: given.min_age.or(configured.min_age),
            grace: given.grace.or(configured.grace),
            trust_created: given.trust_created || configured.trust_created,
            ..configured.clone()
        }
    }
}

impl PruneArgs {
    /// Opens the store, by the configuration that is named.
    async fn toolkit(&self, invocation: &Invocation) -> Result<Toolkit, CommandError> {
        let Some(path) = &self.config else { return invocation.toolkit().await };
        let Some(path) = path.to_str() else {
            return Err(CommandError::invalid("the name of the configuration is not UTF-8"));
        };
        let environment = invocation.environment.clone().with("KILN_CONFIG", path);
        Ok(Toolkit::open(environment, invocation.global.store.as_deref()).await?)
    }

    /// Makes the plan, or reads the one that is to be applied.
    async fn plan(&self, toolkit: &Toolkit, bench: &ImageBench) -> Result<Plan, CommandError> {
        if let (Some(path), true) = (&self.plan, self.apply) {
            if self.rules.rules() != ImageRules::default() {
                return Err(CommandError::invalid("a saved plan has its rules already")
                    .with_hint("leave the rules out, or --apply to save a new plan"));
            }
            return Ok(Plan::read(path)?);
        }
        let rules = self.rules.over(toolkit.config().image.prune.as_ref());
        if !rules.takes_anything() {
            return Err(CommandError::invalid("no rule says what to take").with_hint(
                "give one, such as --unused-for 30d or --keep-last 3, or write an [image.prune] table into kiln.toml",
            ));
        }
        Ok(Box::pin(bench.plan(&ImagePolicy::new(rules)?, now())).await?)
    }
}

/// A pruning on the wire.
#[derive(Debug, Serialize)]
struct PruneView {
    applied: bool,
    made: Timestamp,
    engine: String,
    store: String,
    items: Vec<ItemView>,
    kept: usize,
    /// Images and records of the build cache that were deleted, or without `--apply` would be.
    deleted: usize,
    /// Snapshots that were put aside, or would be.
    deactivated: usize,
    /// Snapshots that were put aside before and wait for the end of the grace.
    waiting: usize,
    /// What could not be done.
    failed: usize,
    /// Freed at once.
    freed_bytes: u64,
    /// Freed once the build cache lets go of the same layers.
    freed_with_cache_bytes: u64,
    /// What goes when the grace of what is put aside is over.
    later_bytes: u64,
    /// Bytes that the rules ask for and nothing is left to give.
    missing_bytes: u64,
    /// By how much the layers of all images on the engine are less than before, as the engine counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_bytes: Option<i64>,
}

/// An item on the wire.
#[derive(Debug, Serialize)]
struct ItemView {
    id: String,
    /// `snapshot`, `leftover`, `foreign` or `cache`.
    kind: &'static str,
    name: String,
    image: Option<String>,
    tag: Option<String>,
    /// `keep`, `foreign`, `wait`, `deactivate` or `delete`: what became of it, or without `--apply` would.
    action: &'static str,
    /// For people.
    reason: String,
    /// For programs: the guard or the rule; `changed` or `failed` where it was to go and stays.
    code: String,
    /// What its deletion frees at once, what goes before it considered; of what is kept, what it would free alone.
    bytes: u64,
    /// The same once the build cache lets go of the same layers.
    bytes_with_cache: u64,
    size_bytes: u64,
    created: Option<Timestamp>,
    last_used: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ItemView {
    fn new(item: &PlanItem, outcome: Option<&PruneOutcome>) -> Self {
        let mut view = Self {
            id: item.subject.id(),
            kind: match item.subject {
                Subject::Snapshot { .. } => "snapshot",
                Subject::Leftover { .. } => "leftover",
                Subject::Foreign { .. } => "foreign",
                Subject::Cache { .. } => "cache",
            },
            name: item.name.clone(),
            image: item.seen.image.map(|image| image.to_string()),
            tag: item.seen.tag.clone(),
            action: item.action.as_str(),
            reason: item.reason.clone(),
            code: item.code.clone(),
            bytes: item.freed.now_bytes,
            bytes_with_cache: item.freed.with_cache_bytes,
            size_bytes: item.size_bytes,
            created: item.created,
            last_used: item.used,
            error: None,
        };
        let keep = Action::Keep.as_str();
        match outcome {
            Some(PruneOutcome::Done(freed)) if item.action == Action::Delete => {
                (view.bytes, view.bytes_with_cache) = (freed.now_bytes, freed.with_cache_bytes);
            }
            None | Some(PruneOutcome::Done(_)) => {}
            Some(PruneOutcome::Spared(why)) => {
                (view.action, view.reason, view.code) = (keep, why.clone(), "changed".to_owned());
            }
            Some(PruneOutcome::NotReached) => {
                let why = "the prune was cancelled before".to_owned();
                (view.action, view.reason, view.code) = (keep, why, "not_reached".to_owned());
            }
            Some(failed @ PruneOutcome::Failed(_)) => {
                (view.action, view.code, view.error) = (keep, "failed".to_owned(), failed.detail());
            }
        }
        view
    }
}

impl PruneView {
    fn new(plan: &Plan, items: Vec<ItemView>, freed: Freed) -> Self {
        let count = |action: Action| items.iter().filter(|item| item.action == action.as_str()).count();
        Self {
            applied: false,
            made: plan.made,
            engine: plan.engine.to_string(),
            store: plan.store.to_string(),
            kept: count(Action::Keep),
            deleted: count(Action::Delete),
            deactivated: count(Action::Deactivate),
            waiting: count(Action::Wait),
            failed: 0,
            freed_bytes: freed.now_bytes,
            freed_with_cache_bytes: freed.with_cache_bytes,
            later_bytes: plan.totals.later.with_cache_bytes,
            missing_bytes: plan.totals.missing_bytes,
            measured_bytes: None,
            items,
        }
    }

    fn of_plan(plan: &Plan) -> Self {
        let items = plan.items.iter().map(|item| ItemView::new(item, None)).collect();
        Self::new(plan, items, plan.totals.freed)
    }

    fn of_report(report: &PruneReport) -> Self {
        let items = report.plan.items.iter().zip(&report.outcomes);
        let items = items.map(|(item, outcome)| ItemView::new(item, outcome.as_ref())).collect();
        Self {
            applied: true,
            failed: report.failed(),
            measured_bytes: report.measured_bytes,
            ..Self::new(&report.plan, items, report.freed)
        }
    }
}

/// Prunes, or tells what would go; returns the exit code.
pub(super) async fn run(invocation: &Invocation, arguments: &PruneArgs) -> Result<u8, CommandError> {
    let toolkit = arguments.toolkit(invocation).await?;
    let bench = toolkit.images()?;
    let plan = arguments.plan(&toolkit, &bench).await?;
    if !arguments.apply {
        let view = PruneView::of_plan(&plan);
        if let Some(path) = &arguments.plan {
            plan.save(path)?;
            invocation.note(&format!("the plan is in {}", path.display()));
        }
        invocation.output.answer(&view, |paint| human(&view, now(), paint))?;
        return Ok(0);
    }
    let report = watched(invocation, async |sink: Arc<dyn Sink<PruneEvent>>, cancel| {
        Box::pin(bench.apply(plan, &*sink, cancel)).await
    })
    .await?;
    let view = PruneView::of_report(&report);
    invocation.output.answer(&view, |paint| human(&view, now(), paint))?;
    Ok(match (report.cancelled, view.failed == 0 && report.unaudited.is_none()) {
        (true, _) => exit::CANCELLED,
        (false, true) => 0,
        (false, false) => exit::IN_PART,
    })
}

fn human(view: &PruneView, now: Timestamp, paint: Paint) -> String {
    let mut text = String::new();
    if view.items.is_empty() {
        text.push_str("there is no image of any store\n");
    } else {
        let head = ["IMAGE", "AGE", "USED", "FREES", "WITH CACHE", "ACTION", "REASON"];
        let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
        rows.extend(view.items.iter().map(|item| row(item, now, paint)));
        text.push_str(&table(&rows));
    }
    let would = if view.applied { "" } else { "would be " };
    let failed = match view.failed {
        0 => String::new(),
        count => paint.bad(&format!(", {count} failed")),
    };
    text.push_str(&format!(
        "{} kept, {} {would}put aside, {} waiting, {} {would}deleted{failed}\n",
        view.kept, view.deactivated, view.waiting, view.deleted
    ));
    let freed = |bytes| ByteSize(bytes).to_string();
    text.push_str(&format!(
        "{} {would}freed at once, {} with the build cache that holds the same layers; {} after the grace\n",
        freed(view.freed_bytes),
        freed(view.freed_with_cache_bytes),
        freed(view.later_bytes)
    ));
    if view.missing_bytes > 0 {
        let warning = paint.warn("warning:");
        let missing = freed(view.missing_bytes);
        text.push_str(&format!("{warning} {missing} more should go, and nothing else may\n"));
    }
    if !view.applied && view.deleted + view.deactivated > 0 {
        text.push_str("--apply does it\n");
    }
    text
}

fn row(item: &ItemView, now: Timestamp, paint: Paint) -> Vec<String> {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| age(now, at));
    let action = match item.action {
        "delete" => paint.bad(item.action),
        "deactivate" | "wait" => paint.warn(item.action),
        _ => paint.good(item.action),
    };
    vec![
        if item.kind == "cache" {
            format!("cache {}", item.id.chars().take(10).collect::<String>())
        } else {
            short(&item.name, &item.id)
        },
        time(item.created),
        time(item.last_used),
        ByteSize(item.bytes).to_string(),
        ByteSize(item.bytes_with_cache).to_string(),
        action,
        match &item.error {
            Some(error) => format!("{} {error}", paint.bad("failed:")),
            None => item.reason.clone(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_rules_replace_those_of_the_configuration_and_options_go_beside_them() {
        let bare = RuleArgs {
            keep_last: None,
            min_age: None,
            max_age: None,
            unused_for: None,
            expired: false,
            max_total: None,
            high: None,
            low: None,
            min_free: None,
            include_cache: None,
            name: vec![],
            not_name: vec!["x".parse().unwrap()],
            grace: Some(Length::seconds(5)),
            trust_created: true,
        };
        let configured = ImageRules {
            unused_for: Some(Length::seconds(7)),
            keep_last: NonZeroU32::new(2),
            grace: Some(Length::seconds(9)),
            name: vec!["a".parse().unwrap()],
            ..ImageRules::default()
        };
        let both = bare.over(Some(&configured));
        assert_eq!((both.unused_for, both.keep_last), (configured.unused_for, configured.keep_last));
        assert_eq!((both.grace, both.trust_created), (Some(Length::seconds(5)), true));
        assert_eq!((both.name.len(), both.not_name.len()), (1, 1));
        let own = RuleArgs { keep_last: NonZeroU32::new(5), ..bare };
        assert_eq!(own.over(Some(&configured)), own.rules());
        assert!(!RuleArgs { keep_last: None, ..own }.over(None).takes_anything());
    }

    #[test]
    fn lengths_of_no_time_and_counts_of_none_are_refused() {
        assert!(some("2").is_ok() && some("0").is_err() && some("x").is_err());
        assert!(some_length("2d").is_ok() && some_length("0s").is_err() && some_length("2").is_err());
    }
}
