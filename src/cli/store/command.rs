//! The commands, and what each calls.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::check::CheckArgs;
use super::repair::RepairArgs;
use super::{check, probe, repair, stats};
use crate::base::ByteSize;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::toolkit::Toolkit;

/// The commands of `kiln store`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StoreCommand {
    /// Make a store
    #[command(after_help = "\
Examples:
  kiln store init --store /srv/kiln --quota 200GiB
  kiln store init --store \"s3://bucket/kiln?endpoint=http://127.0.0.1:3900&region=garage\"

A store in a directory is also made by its first use. One in a bucket is made by this command only, so that a mistyped \
prefix does not become a second store. Credentials come from the environment or a profile, as for the AWS tools.")]
    Init(InitArgs),
    /// Try out what a store really does
    #[command(after_help = probe::EXAMPLES)]
    Probe,
    /// Look for damage
    #[command(after_help = check::EXAMPLES)]
    Check(CheckArgs),
    /// Make the index true again, and damaged packs replaceable
    #[command(after_help = repair::EXAMPLES)]
    Repair(RepairArgs),
    /// Tell what the store holds, what of it is needed, and how it grew
    #[command(after_help = stats::EXAMPLES)]
    Stats,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// Most bytes that the store may hold; a save that needs more is refused
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
}

/// A store on the wire.
#[derive(Debug, Serialize)]
struct StoreView {
    store: String,
    id: String,
    version: u32,
    created: Timestamp,
    quota_bytes: Option<u64>,
}

/// Runs a command; returns the exit code.
pub(in crate::cli) async fn run(invocation: &Invocation, command: &StoreCommand) -> Result<u8, CommandError> {
    match command {
        StoreCommand::Init(arguments) => init(invocation, arguments).await.map(|()| 0),
        StoreCommand::Probe => probe::run(invocation).await,
        StoreCommand::Check(arguments) => check::run(invocation, arguments).await,
        StoreCommand::Repair(arguments) => repair::run(invocation, arguments).await,
        StoreCommand::Stats => stats::run(invocation).await,
    }
}

async fn init(invocation: &Invocation, arguments: &InitArgs) -> Result<(), CommandError> {
    let store = invocation.global.store.as_deref();
    let (url, format) = Box::pin(Toolkit::init(&invocation.environment, store, arguments.quota)).await?;
    let view = StoreView {
        store: url.to_string(),
        id: format.id.to_string(),
        version: format.version,
        created: format.created,
        quota_bytes: format.quota_bytes,
    };
    invocation.output.answer(&view, |paint| {
        let quota =
            format.quota_bytes.map_or_else(String::new, |bytes| format!(", up to {}", ByteSize(bytes)));
        format!("{} made, id {}, version {}{quota}", paint.bold(&view.store), view.id, view.version)
    })
}
