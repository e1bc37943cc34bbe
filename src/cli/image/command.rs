//! The commands, and what each calls.

use clap::Subcommand;

use super::layers::LayersArgs;
use super::list::ListArgs;
use super::prune::PruneArgs;
use super::{layers, list, prune};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;

/// The commands of `kiln image`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageCommand {
    /// List the images of this store on the engine, and those of other stores
    #[command(after_help = list::EXAMPLES)]
    List(ListArgs),
    /// Show what lies in an image: its layers, what they waste, what weighs most
    #[command(after_help = layers::EXAMPLES)]
    Layers(LayersArgs),
    /// Delete the images that a policy takes; only tells which, unless --apply is given
    #[command(after_help = prune::EXAMPLES)]
    Prune(Box<PruneArgs>),
}

/// Runs a command; returns the exit code.
pub(in crate::cli) async fn run(invocation: &Invocation, command: &ImageCommand) -> Result<u8, CommandError> {
    match command {
        ImageCommand::List(arguments) => list::run(invocation, arguments).await.map(|()| 0),
        ImageCommand::Layers(arguments) => layers::run(invocation, arguments).await.map(|()| 0),
        ImageCommand::Prune(arguments) => prune::run(invocation, arguments).await,
    }
}
