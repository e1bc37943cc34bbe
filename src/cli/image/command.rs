//! The commands, and what each calls.

use clap::Subcommand;

use super::layers::{self, LayersArgs};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;

/// The commands of `kiln image`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageCommand {
    /// Show what lies in an image: its layers, what they waste, what weighs most
    #[command(after_help = layers::EXAMPLES)]
    Layers(LayersArgs),
}

/// Runs a command; returns the exit code.
pub(in crate::cli) async fn run(invocation: &Invocation, command: &ImageCommand) -> Result<u8, CommandError> {
    let toolkit = invocation.toolkit().await?;
    match command {
        ImageCommand::Layers(arguments) => layers::run(invocation, &toolkit, arguments).await.map(|()| 0),
    }
}
