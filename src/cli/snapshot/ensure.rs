//! A name that is wanted now: used again where it is here, else baked again from what its record says.

use std::collections::BTreeMap;

use clap::Args;

use crate::base::SnapshotName;
use crate::base::config::Config;
use crate::catalog::{Snapshot, SnapshotRecord, SnapshotRef};
use crate::cli::build;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::watched::watched_to_the_end;
use crate::snapshot::{BakeEvent, BakeReport, BakeSpec, BaseChoice, COMPUTED_PARAMETERS, Sizing, Standing};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot ensure litellm
  kiln snapshot ensure litellm --json | jq -r .tag

A snapshot that was put aside is active again when its image is still here. Where the image is gone it is baked again from its \
template, with the parameters, base and sizes of its record and the defaults of [build] in kiln.toml. What a record does not hold \
(secrets, certificates, a context folder) cannot be given here: use `kiln build` then.";

/// Arguments of `kiln snapshot ensure`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EnsureArgs {
    /// The snapshots' name
    #[arg(value_name = "NAME")]
    name: SnapshotName,
}

/// Ensures, and prints the snapshot.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &EnsureArgs,
) -> Result<(), CommandError> {
    let workbench = toolkit.workbench()?;
    let report: BakeReport = match workbench.stand_up(&arguments.name).await? {
        Standing::Ready(report) => *report,
        Standing::Missing(snapshot) => {
            let spec = spec_of(&snapshot, toolkit.config())?;
            watched_to_the_end::<BakeEvent, _, _>(invocation, async |sink, cancel| {
                Box::pin(workbench.bake(&spec, sink, cancel)).await
            })
            .await?
        }
    };
    let view = build::view(toolkit, &report).await?;
    invocation.output.answer(&view, |paint| build::human(&view, &report, paint))
}

/// Makes a specification of what a record holds.
fn spec_of(snapshot: &Snapshot, config: &Config) -> Result<BakeSpec, CommandError> {
    let record = &snapshot.record;
    let defaults = &config.build;
    let lacking = if !record.secret_ids.is_empty() {
        Some(format!("the secrets {}", record.secret_ids.join(", ")))
    } else if !record.baked_cas.is_empty() && defaults.ca_cert.is_empty() {
        Some("certificates that are baked in".to_owned())
    } else if !record.build_cas.is_empty() && defaults.build_ca.is_empty() {
        Some("certificates that are trusted while building".to_owned())
    } else {
        None
    };
    let template = record.source.clone().unwrap_or_else(|| record.template.clone());
    if let Some(lacking) = lacking {
        let message = format!(
            "the image of {} is not here, and was baked with {lacking}, which its record does not hold",
            snapshot.reference()
        );
        let again = format!("bake it again with `kiln build {template} --name {}`", record.name);
        return Err(CommandError::invalid(message).with_hint(again));
    }
    let base = match record.base.snapshot {
        Some(id) => Some(BaseChoice::Snapshot(reference(&id.to_string())?)),
        None if record.base.origin == "scratch" => None,
        None => Some(BaseChoice::Image(record.base.reference.clone())),
    };
    let profile = match &record.profile {
        Some(name) => Some((name.clone(), build::profile(name, config)?)),
        None => None,
    };
    let (resources, limits) = (&record.resources, &record.limits);
    Ok(BakeSpec {
        template,
        name: Some(record.name.clone()),
        parameters: given_parameters(record),
        base,
        platform: record.platform.clone(),
        ca_certs: if record.baked_cas.is_empty() { Vec::new() } else { defaults.ca_cert.clone() },
        build_cas: if record.build_cas.is_empty() { Vec::new() } else { defaults.build_ca.clone() },
        build_args: record.build_args.clone(),
        target: record.target.clone(),
        profile,
        sizing: Sizing {
            cpu: Some(resources.cpu),
            memory: Some(resources.memory),
            disk: Some(resources.disk),
            max_image: Some(limits.image),
            max_context: Some(limits.context),
            max_build_write: Some(limits.build_write),
            timeout: Some(limits.timeout),
        },
        min_free: defaults.min_free,
        network: record.network,
        labels: record.labels.clone(),
        ..BakeSpec::default()
    })
}

fn reference(text: &str) -> Result<SnapshotRef, CommandError> {
    text.parse().map_err(|error: crate::catalog::CatalogError| error.into())
}

/// Returns the parameters that somebody may give.
fn given_parameters(record: &SnapshotRecord) -> BTreeMap<String, String> {
    let mut parameters = record.parameters.clone();
    if record.checkout.is_some() {
        parameters.retain(|name, _| !COMPUTED_PARAMETERS.contains(&name.as_str()));
    }
    parameters
}
