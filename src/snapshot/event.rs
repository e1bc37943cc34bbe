//! What happens while a snapshot is baked.

use serde::{Deserialize, Serialize};

use crate::base::{SnapshotId, SnapshotName};
use crate::docker::{Builder, EngineEvent};
use crate::template::CaSummary;

/// An event of a bake: the engine's or the journey's own. As JSON both are one flat object with the field `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BakeEvent {
    /// From the engine.
    Engine(EngineEvent),
    /// From the journey.
    Stage(StageEvent),
}

impl From<EngineEvent> for BakeEvent {
    fn from(event: EngineEvent) -> Self {
        Self::Engine(event)
    }
}

impl From<StageEvent> for BakeEvent {
    fn from(event: StageEvent) -> Self {
        Self::Stage(event)
    }
}

/// An event of the journey itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StageEvent {
    /// A phase begins.
    Phase {
        /// The phase.
        phase: Phase,
    },
    /// What will be baked is known.
    Planned {
        /// The snapshot.
        id: SnapshotId,
        /// Its name.
        name: SnapshotName,
        /// The template.
        template: String,
        /// The base image.
        base: String,
        /// Where the base came from.
        origin: String,
        /// The Python that the base brings, where that is known.
        python: Option<String>,
        /// Who builds.
        builder: Builder,
        /// Certificates that stay in the image.
        baked_cas: Vec<CaSummary>,
        /// Certificates that are trusted while building only.
        build_cas: Vec<CaSummary>,
        /// Why it is baked, in a sentence.
        reason: String,
    },
    /// Another process builds on this engine; this one waits.
    Waiting {
        /// A sentence.
        message: String,
    },
    /// A check changed its state.
    Check {
        /// Its name.
        name: String,
        /// Its state.
        state: CheckState,
        /// Milliseconds it took, at its end.
        ms: Option<u64>,
        /// Why it did not pass.
        reason: Option<String>,
    },
    /// A line that a check or a service wrote, with secrets redacted.
    CheckOutput {
        /// The check's name, or `boot`.
        check: String,
        /// The line.
        line: String,
    },
    /// Something the reader should know that stops nothing.
    Notice {
        /// A stable word.
        code: String,
        /// A sentence.
        message: String,
    },
    /// The bake ended. The last line of every log.
    Ended {
        /// The state that the snapshot is in.
        state: String,
        /// Why it failed, where it did: the message and its causes.
        messages: Vec<String>,
    },
}

/// A phase of a bake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Rendering, keys and looking at the engine.
    Prepare,
    /// Building.
    Build,
    /// Sizes and the search for secrets.
    Gate,
    /// Booting and checking.
    Check,
    /// Listing packages.
    Inventory,
    /// Writing the record.
    Record,
}

impl Phase {
    /// Returns the phase's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Build => "build",
            Self::Gate => "gate",
            Self::Check => "check",
            Self::Inventory => "inventory",
            Self::Record => "record",
        }
    }
}

/// The state of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It runs.
    Running,
    /// It passed.
    Passed,
    /// It did not pass.
    Failed,
}

/// A line of a kept log: an event and when it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When.
    pub at: jiff::Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: BakeEvent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::OutputStream;

    #[test]
    fn a_log_line_is_one_flat_object_that_reads_back() {
        let events: [BakeEvent; 2] = [
            EngineEvent::Log { step: 3, stream: OutputStream::Stderr, line: "x".into() }.into(),
            StageEvent::Phase { phase: Phase::Gate }.into(),
        ];
        for event in events {
            let entry = LogEntry { at: jiff::Timestamp::UNIX_EPOCH, event };
            let text = serde_json::to_string(&entry).unwrap();
            assert!(text.starts_with(r#"{"at":"1970-01-01T00:00:00Z","event":""#), "{text}");
            assert_eq!(serde_json::from_str::<LogEntry>(&text).unwrap(), entry);
        }
    }
}
