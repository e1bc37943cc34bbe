//! Pulling an image.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;

use super::{EngineError, EngineEvent};
use crate::base::{Monotonic, Sink};

/// 200 ms: the engine tells of every layer's every piece; nobody reads that.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Pulls an image, and tells of it a few times a second.
pub(super) async fn run(
    docker: &Docker,
    reference: &str,
    platform: Option<&str>,
    sink: &dyn Sink<EngineEvent>,
) -> Result<(), Error> {
    let mut options = CreateImageOptionsBuilder::new().from_image(reference);
    if !reference.contains('@') {
        let (repository, tag) = super::tags::split(reference);
        options = CreateImageOptionsBuilder::new().from_image(repository).tag(tag);
    }
    if let Some(platform) = platform {
        options = options.platform(platform);
    }
    let mut told: Option<Monotonic> = None;
    let mut pieces = docker.create_image(Some(options.build()), None, None);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let Some(words) = piece.status else { continue };
        // What carries no progress is rare and says more: it is always told.
        let progress = piece.progress_detail.as_ref().filter(|detail| detail.total.is_some());
        if progress.is_some() && told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            continue;
        }
        told = Some(Monotonic::start());
        let mut status = match piece.id {
            Some(id) => format!("{id}: {words}"),
            None => words,
        };
        if let Some((current, total)) =
            progress.and_then(|detail| detail.current.zip(detail.total)).filter(|(_, total)| *total > 0)
        {
            status.push_str(&format!(" {}%", current.saturating_mul(100) / total));
        }
        sink.emit(EngineEvent::Pull { status });
    }
    Ok(())
}

/// Says what a refusal to pull means.
pub(super) fn meaning(error: EngineError, reference: &str) -> EngineError {
    match error {
        EngineError::Refused { action, status, message } => {
            let words = message.to_ascii_lowercase();
            let denied = words.contains("unauthorized")
                || words.contains("authentication required")
                || words.contains("forbidden");
            match status {
                401 | 403 => EngineError::Refused { action, status, message },
                // The registry's answer comes in the words of the engine's own.
                _ if denied && !words.contains("access denied") => {
                    EngineError::Refused { action, status: 403, message }
                }
                400 => EngineError::Refused { action, status, message },
                _ => EngineError::BaseMissing { reference: reference.to_owned(), message },
            }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pull_is_told_from_a_missing_image() {
        for (status, message, missing) in [
            (404, "manifest for a:1 not found: manifest unknown", true),
            (404, "pull access denied for a, repository does not exist or may require 'docker login'", true),
            (500, "Get \"https://registry/v2/\": dial tcp: no such host", true),
            (500, "unauthorized: authentication required", false),
            (403, "no", false),
            (400, "invalid reference format", false),
        ] {
            let refused = EngineError::Refused { action: "pull".into(), status, message: message.into() };
            let meaning = meaning(refused, "a:1");
            assert_eq!(matches!(meaning, EngineError::BaseMissing { .. }), missing, "{meaning:?}");
        }
    }
}
