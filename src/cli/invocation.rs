//! What every command is given.

use std::io::IsTerminal as _;

use super::args::GlobalArgs;
use super::failure::CommandError;
use super::output::{Output, to_stderr};
use super::paint::Paint;
use super::progress::{LogFormat, Progress, Story};
use crate::base::config::Environment;
use crate::toolkit::Toolkit;

/// What every command is given: the environment, the global options, and where to print.
#[derive(Debug)]
pub(super) struct Invocation {
    /// The environment.
    pub(super) environment: Environment,
    /// The options that every command has.
    pub(super) global: GlobalArgs,
    /// The printer of answers.
    pub(super) output: Output,
}

impl Invocation {
    /// Decides on color and form.
    pub(super) fn new(environment: Environment, global: GlobalArgs) -> Self {
        let paint = |is_terminal| Paint::new(global.color.applies(&environment, is_terminal));
        let output = Output::new(
            global.json,
            paint(std::io::stdout().is_terminal()),
            paint(std::io::stderr().is_terminal()),
        );
        Self { environment, global, output }
    }

    /// Opens the configuration and the store.
    pub(super) async fn toolkit(&self) -> Result<Toolkit, CommandError> {
        Ok(Toolkit::open(self.environment.clone(), self.global.store.as_deref()).await?)
    }

    /// Tells people something beside the answer, unless they asked for quiet.
    pub(super) fn note(&self, message: &str) {
        if !self.global.quiet {
            to_stderr(&format!("{message}\n"));
        }
    }

    /// Returns the teller of the story.
    pub(super) fn progress<E: Story>(&self) -> Progress<E> {
        let is_terminal = std::io::stderr().is_terminal();
        let paint = Paint::new(self.global.color.applies(&self.environment, is_terminal));
        Progress::new(self.global.log, self.global.quiet, self.is_live(), paint)
    }

    /// Returns whether somebody may follow the story while it happens: a person at a terminal, or a program that reads JSON.
    pub(super) fn is_followed(&self) -> bool {
        match self.global.log {
            LogFormat::Json => true,
            LogFormat::Tty => !self.global.quiet,
            LogFormat::Auto => !self.global.quiet && self.is_live(),
            LogFormat::Plain => false,
        }
    }

    fn is_live(&self) -> bool {
        std::io::stderr().is_terminal() && self.environment.get("TERM") != Some("dumb")
    }
}
