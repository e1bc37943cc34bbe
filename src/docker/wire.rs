//! One line of a build's stream, as the engine's JSON has it.

use serde::Deserialize;

use super::EngineError;
use crate::base::ImageId;

/// One line of the stream of `/build`. Every part may be absent.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    /// What kind of line it is; BuildKit only.
    pub(super) id: Option<String>,
    /// What the classic builder prints.
    pub(super) stream: Option<String>,
    /// What goes with the kind.
    pub(super) aux: Option<serde_json::Value>,
    /// What a pull of the base image says.
    pub(super) status: Option<String>,
    error: Option<String>,
    #[serde(rename = "errorDetail")]
    detail: Option<Detail>,
}

/// The engine's words about a failure.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Detail {
    /// The exit code, where it is one.
    pub(super) code: Option<i64>,
    /// The words.
    #[serde(default)]
    pub(super) message: String,
}

impl Line {
    /// Reads a line.
    pub(super) fn read(text: &[u8]) -> Result<Self, EngineError> {
        serde_json::from_slice(text).map_err(not_understood)
    }

    /// Returns the failure that the line reports.
    pub(super) fn failure(&self) -> Option<Detail> {
        match (&self.detail, &self.error) {
            (Some(detail), _) if !detail.message.is_empty() => Some(detail.clone()),
            (_, Some(message)) => Some(Detail { code: None, message: message.clone() }),
            (_, None) => None,
        }
    }
}

/// Returns the image id in `{"ID":"sha256:…"}`.
pub(super) fn image_id(aux: &serde_json::Value) -> Option<ImageId> {
    aux.get("ID")?.as_str()?.parse().ok()
}

/// Says that a part of a build's stream makes no sense.
pub(super) fn not_understood(reason: impl std::fmt::Display) -> EngineError {
    EngineError::Protocol { action: "build".to_owned(), message: reason.to_string() }
}
