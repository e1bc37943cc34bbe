//! `kiln store repair`: making the index true again, and damaged packs replaceable.

use clap::Args;
use serde::Serialize;

use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::watched::watched;
use crate::store::gc::{self, RepairReport, RepairSpec};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln store repair --dry-run
  kiln store repair --read-data

Damaged segments of the index are dropped and made anew out of the packs' own tables, packs that the index lacks are indexed, and \
rows of packs that are gone are dropped. Damaged packs are condemned: the next save of the same content writes it anew, which heals \
the revisions that need it. Nothing that can be read is lost: `kiln gc` moves it first. `kiln store check` tells what is damaged and \
which revisions it touches.";

/// Arguments of `kiln store repair`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RepairArgs {
    /// Read every pack whole, and condemn each that is damaged anywhere
    #[arg(long)]
    read_data: bool,
    /// Tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was repaired, on the wire.
#[derive(Debug, Serialize)]
struct RepairView {
    dry_run: bool,
    sound: bool,
    dropped_segments: Vec<String>,
    indexed_packs: Vec<String>,
    gone_packs: Vec<String>,
    condemned_packs: Vec<String>,
    packs_read: u64,
}

/// Repairs, and prints what was done.
pub(super) async fn run(invocation: &Invocation, arguments: &RepairArgs) -> Result<u8, CommandError> {
    let depot = invocation.toolkit().await?.depot();
    let spec = RepairSpec { read_data: arguments.read_data, dry_run: arguments.dry_run };
    let cache = depot.index_cache();
    let report = watched(invocation, async |sink, cancel| {
        Box::pin(gc::repair(&depot.objects, &cache, &spec, &*sink, cancel)).await
    })
    .await?;
    let view = RepairView::new(&report, arguments.dry_run);
    invocation.output.answer(&view, |paint| {
        let would = if view.dry_run { "would be " } else { "" };
        let told = [
            (&view.dropped_segments, "damaged, dropped"),
            (&view.indexed_packs, "indexed"),
            (&view.gone_packs, "gone, its rows dropped"),
            (&view.condemned_packs, "damaged, condemned"),
        ];
        let mut text = String::new();
        for (keys, words) in told {
            text.extend(keys.iter().map(|key| format!("{key}: {would}{words}\n")));
        }
        if view.sound {
            text.push_str(&format!("{}\n", paint.good("nothing to repair")));
        }
        text
    })?;
    Ok(0)
}

impl RepairView {
    fn new(report: &RepairReport, dry_run: bool) -> Self {
        let packs = |packs: &[crate::store::pack::PackName]| packs.iter().map(ToString::to_string).collect();
        Self {
            dry_run,
            sound: report.is_sound(),
            dropped_segments: report.dropped_segments.iter().map(ToString::to_string).collect(),
            indexed_packs: packs(&report.indexed),
            gone_packs: packs(&report.gone),
            condemned_packs: packs(&report.condemned),
            packs_read: report.read,
        }
    }
}
