//! Color, where it is wanted.

use clap::ValueEnum;

use crate::base::config::Environment;

/// When to use color.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE means always.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Returns whether to use color on a stream. An option of the command line is stronger than the environment.
    pub(super) fn applies(self, environment: &Environment, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if environment.get("NO_COLOR").is_some() => false,
            Self::Auto if environment.get("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            Self::Auto => is_terminal && environment.get("TERM") != Some("dumb"),
        }
    }

    /// Returns clap's word for it.
    pub(super) fn of_clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }
}

/// Puts color around texts, or leaves them as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// Makes a painter that paints, or does not.
    pub(super) fn new(on: bool) -> Self {
        Self { on }
    }

    /// Returns whether it paints: somebody looks, and can see more than plain characters.
    pub(super) fn is_on(self) -> bool {
        self.on
    }

    /// For what went well.
    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For what should be known.
    pub(super) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// For what went wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For names and titles.
    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what matters less.
    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_stronger_than_the_environment_and_that_than_the_terminal() {
        let none = Environment::default();
        let no_color = Environment::of([("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]);
        let force = Environment::of([("CLICOLOR_FORCE", "1")]);
        let dumb = Environment::of([("TERM", "dumb")]);
        for (choice, environment, is_terminal, expected) in [
            (ColorChoice::Always, &no_color, false, true),
            (ColorChoice::Never, &force, true, false),
            (ColorChoice::Auto, &none, true, true),
            (ColorChoice::Auto, &none, false, false),
            (ColorChoice::Auto, &no_color, true, false),
            (ColorChoice::Auto, &force, false, true),
            (ColorChoice::Auto, &dumb, true, false),
        ] {
            assert_eq!(choice.applies(environment, is_terminal), expected, "{choice:?} {environment:?}");
        }
    }
}
