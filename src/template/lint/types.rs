//! What goes in, what comes out.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a linter is told besides the Dockerfile. What it is not told it does not judge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LintInput {
    /// Where `COPY` takes files from.
    pub context: LintContext,
    /// What the builder supports, where that is known.
    pub features: Option<LintFeatures>,
}

/// Where `COPY` takes files from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LintContext {
    /// Not known: rules on files are silent.
    #[default]
    Unknown,
    /// A folder on disk.
    Folder(PathBuf),
    /// Exactly these files, with `/` between segments.
    Files(Vec<String>),
}

/// What a builder supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LintFeatures {
    /// `RUN --mount`.
    pub mount: bool,
    /// `RUN --mount=type=secret`.
    pub secret_mount: bool,
    /// `RUN --mount=type=secret,env=…`.
    pub secret_env: bool,
    /// Heredocs.
    pub heredoc: bool,
    /// `COPY --chmod`.
    pub copy_chmod: bool,
    /// `COPY --link`.
    pub copy_link: bool,
    /// `RUN --network`.
    pub run_network: bool,
    /// `RUN --security`.
    pub run_security: bool,
    /// `# syntax=`: the builder can fetch a frontend.
    pub syntax: bool,
}

impl LintFeatures {
    /// What every BuildKit since engine 20.10 supports without fetching a frontend.
    pub const PORTABLE: Self = Self {
        mount: true,
        secret_mount: true,
        secret_env: false,
        heredoc: false,
        copy_chmod: true,
        copy_link: false,
        run_network: false,
        run_security: false,
        syntax: false,
    };
}

/// How much a finding matters, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Likely a mistake.
    Warning,
    /// The build fails or a secret leaks.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its id, which never changes, such as `KL001`.
    pub id: &'static str,
    /// Its name, such as `secret-name`.
    pub name: &'static str,
    /// How much its findings matter.
    pub severity: Severity,
    /// What it finds, in a sentence.
    pub summary: &'static str,
    /// Why that matters.
    pub rationale: &'static str,
    /// What to do instead.
    pub help: &'static str,
}

impl Rule {
    pub(super) fn at(&self, line: u32, message: impl Into<String>) -> Finding {
        Finding {
            id: self.id,
            name: self.name,
            severity: self.severity,
            line,
            message: message.into(),
            help: self.help,
        }
    }
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub id: &'static str,
    /// The rule's name.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The line, from 1.
    pub line: u32,
    /// What is there.
    pub message: String,
    /// What to do instead.
    pub help: &'static str,
}
