//! Since when somebody has watched an engine, so that what was not seen used was not used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ImageError;
use crate::base::Sha256Digest;
use crate::base::fs::{Existing, is_absence, write_durably};

/// 2 min: a watcher says every half minute that it watches; one that misses four has gone.
const SILENT_AFTER: Duration = Duration::from_secs(120);

/// A time in which somebody watched without a gap, as this host notes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchNote {
    /// Version of this note: 1.
    pub version: u32,
    /// Since when.
    pub since: Timestamp,
    /// Until when at least.
    pub until: Timestamp,
}

impl WatchNote {
    /// Returns since when somebody has watched up to `now`; `None` where nobody does.
    #[must_use]
    pub fn since_until(&self, now: Timestamp) -> Option<Timestamp> {
        let silent = now.duration_since(self.until);
        let is_fresh = silent.unsigned_abs() <= SILENT_AFTER;
        (is_fresh && self.since <= self.until).then_some(self.since)
    }

    /// Returns the note of an engine; `None` where nobody has ever watched it from this host.
    ///
    /// # Errors
    ///
    /// Fails when there is one that cannot be read.
    pub fn read(state_dir: &Path, endpoint: &str) -> Result<Option<Self>, ImageError> {
        let path = path(state_dir, endpoint);
        let local = |source| ImageError::Local { path: path.clone(), source };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(local(error)),
        };
        let note: Self = serde_json::from_slice(&text).map_err(|error| local(io::Error::other(error)))?;
        if note.version != 1 {
            return Err(local(io::Error::other(format!("version {} is not known", note.version))));
        }
        Ok(Some(note))
    }

    /// Says that somebody watches at `now`, and has since the last time that this was said, unless that is too long ago.
    ///
    /// # Errors
    ///
    /// Fails when the note cannot be read or written.
    pub fn extend(state_dir: &Path, endpoint: &str, now: Timestamp) -> Result<Self, ImageError> {
        let since = Self::read(state_dir, endpoint)?.and_then(|note| note.since_until(now)).unwrap_or(now);
        let note = Self { version: 1, since, until: now };
        let path = path(state_dir, endpoint);
        let local = |source| ImageError::Local { path: path.clone(), source };
        let text = serde_json::to_vec(&note).map_err(|error| local(io::Error::other(error)))?;
        write_durably(&path, &text, Existing::Replace).map_err(local)?;
        Ok(note)
    }
}

fn path(state_dir: &Path, endpoint: &str) -> PathBuf {
    let name = Sha256Digest::of(endpoint.as_bytes()).to_string();
    state_dir.join("image").join(format!("watched-{}.json", &name[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_begins_a_new_time_of_watching() {
        let home = tempfile::tempdir().unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        let extend = |seconds| WatchNote::extend(home.path(), "unix:///x", at(seconds)).unwrap().since;
        assert_eq!(WatchNote::read(home.path(), "unix:///x").unwrap(), None);
        assert_eq!((extend(0), extend(30), extend(149)), (at(0), at(0), at(0)));
        let note = WatchNote::read(home.path(), "unix:///x").unwrap().unwrap();
        assert_eq!((note.since_until(at(200)), note.since_until(at(300))), (Some(at(0)), None));
        assert_eq!(note.since_until(at(-300)), None, "the clock was set back");
        assert_eq!(extend(400), at(400));
        assert_eq!(WatchNote::read(home.path(), "unix:///y").unwrap(), None);
    }
}
