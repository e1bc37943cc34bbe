//! Why a job on snapshots was not done.

use std::path::PathBuf;

use crate::base::{ByteSize, Classify, ErrorKind, SnapshotId};
use crate::catalog::{CatalogError, CheckRecord};
use crate::docker::EngineError;
use crate::snapshot::ProfileBreach;
use crate::template::TemplateError;

/// Why a job on snapshots was not done.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The template, its parameters or a certificate are wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The engine did not do what was asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The catalog did not do what was asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The input contradicts itself or names what is not there.
    #[error("{0}")]
    Input(String),
    /// The resources are above a provider's ceiling.
    #[error("{0}")]
    Resources(ProfileBreach),
    /// A secret that the template requires was not given.
    #[error("the template needs the secret `{id}`, which was not given")]
    SecretMissing {
        /// Its id.
        id: String,
    },
    /// A secret was given that nothing reads.
    #[error("the secret `{id}` was given, and the Dockerfile has no `--mount=type=secret` that reads it")]
    SecretUnused {
        /// Its id.
        id: String,
    },
    /// A secret is too short to be searched for.
    #[error("the secret `{id}` has fewer than 8 bytes, too few to search the image for it")]
    SecretTooShort {
        /// Its id.
        id: String,
    },
    /// A secret's value was found in the image.
    #[error("the value of the secret `{id}` stands in the image ({place})")]
    SecretLeaked {
        /// Its id.
        id: String,
        /// Where.
        place: String,
    },
    /// The image is larger than allowed.
    #[error("the image has {}, allowed are {} (limit `{limit}`)", ByteSize(*size_bytes), ByteSize(*limit_bytes))]
    ImageTooLarge {
        /// Which limit: `image`, `profile.max_image` or `disk`.
        limit: &'static str,
        /// The image's size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// The layers that weigh most: instruction and bytes.
        heaviest: Vec<(String, u64)>,
    },
    /// Checks did not pass.
    #[error("{} of {} checks failed: {}", failed(checks).count(), checks.len(), failed(checks).map(|c| c.name.as_str()).collect::<Vec<_>>().join(", "))]
    Checks {
        /// All checks.
        checks: Vec<CheckRecord>,
        /// The last lines that the failed ones wrote.
        tail: Vec<String>,
    },
    /// The sandbox did not come up.
    #[error("a sandbox of the image does not come up: {reason}")]
    Boot {
        /// Why.
        reason: String,
        /// The last lines that it wrote.
        tail: Vec<String>,
    },
    /// The key was revoked.
    #[error("this input was baked as {id} and revoked{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Revoked {
        /// The revoked snapshot.
        id: SnapshotId,
        /// Why it was revoked.
        reason: Option<String>,
    },
    /// The snapshot cannot be used that way.
    #[error("{0}")]
    Conflict(String),
    /// Another process settled the bake as failed before it could publish.
    #[error("the bake of {id} was taken for dead and settled as failed before it could publish")]
    Overtaken {
        /// The snapshot.
        id: SnapshotId,
    },
    /// The git repository could not be read.
    #[error("cannot check out `{reference}` of `{url}`: {reason}")]
    Checkout {
        /// Where it is, without credentials.
        url: String,
        /// What was asked for.
        reference: String,
        /// git's words.
        reason: String,
    },
    /// A file or folder on this host could not be used.
    #[error("cannot use `{}`", path.display())]
    Local {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled while {action}")]
    Cancelled {
        /// What was being done.
        action: String,
    },
    /// A defect of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

fn failed(checks: &[CheckRecord]) -> impl Iterator<Item = &CheckRecord> {
    checks.iter().filter(|check| !check.passed)
}

impl BakeError {
    /// Returns the lines that belong under the message: what the failing part wrote last, or what weighs most.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let weights = |heaviest: &[(String, u64)]| {
            heaviest
                .iter()
                .map(|(what, bytes)| format!("{:>10}  {what}", ByteSize(*bytes).to_string()))
                .collect()
        };
        match self {
            Self::Checks { tail, .. } | Self::Boot { tail, .. } => tail.clone(),
            Self::Engine(EngineError::Step { tail, .. }) => tail.clone(),
            Self::Engine(
                EngineError::BuildWrite { heaviest, .. } | EngineError::ContextTooLarge { heaviest, .. },
            )
            | Self::ImageTooLarge { heaviest, .. } => weights(heaviest),
            _ => Vec::new(),
        }
    }
}

impl Classify for BakeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Template(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Input(_)
            | Self::SecretMissing { .. }
            | Self::SecretUnused { .. }
            | Self::SecretTooShort { .. } => ErrorKind::Invalid,
            Self::Resources(_) | Self::ImageTooLarge { .. } => ErrorKind::Limit,
            Self::SecretLeaked { .. } | Self::Checks { .. } | Self::Boot { .. } => ErrorKind::Failed,
            Self::Revoked { .. } | Self::Conflict(_) | Self::Overtaken { .. } => ErrorKind::Conflict,
            Self::Checkout { .. } => ErrorKind::NotFound,
            Self::Local { .. } => ErrorKind::Unavailable,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Template(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::SecretMissing { id } => {
                Some(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=NAME`"))
            }
            Self::SecretLeaked { .. } => {
                Some("a step copies it out of its mount; keep it in the step that needs it".into())
            }
            Self::ImageTooLarge { limit: "image", .. } => {
                Some("raise --max-image, and `kiln image layers` shows what weighs and what is wasted; or make the image smaller".into())
            }
            Self::ImageTooLarge { limit: "disk", .. } => {
                Some("give the sandbox more --disk, and `kiln image layers` shows what weighs; or make the image smaller".into())
            }
            Self::Resources(_) => Some("lower --cpu, --memory or --disk, or choose another --profile".into()),
            Self::Revoked { .. } => Some("bake it anew with --rebuild".into()),
            Self::Checks { .. } | Self::Boot { .. } => {
                Some("`kiln snapshot logs` shows all that was written".into())
            }
            _ => None,
        }
    }
}

/// Returns an error and its causes on one line.
pub(super) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    parts.extend(crate::base::chain(error));
    parts.join(": ")
}
