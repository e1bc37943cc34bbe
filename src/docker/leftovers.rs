//! What a BuildKit build leaves behind that nobody will use again: its context.
//!
//! BuildKit keeps the tar of every context (`http url http://build-context-…`), and what it unpacked (`fileop target` without
//! a parent), as cache records under names that never come again. They are deleted by their exact ids. Steps keep their cache:
//! their records stand on a parent, or hang together with an image.

use std::time::Duration;

use super::CacheRecord;
use super::holdings::Holdings;
use super::http::{Http, HttpError};

/// 100 ms: how long to wait before looking again while a stopped build still holds its records.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// 16 MiB: what was unpacked of a smaller context stays. BuildKit finds it by its content when the same context comes again,
/// which makes a cached build three times faster, and its own collection takes it away in time.
const KEPT_UNPACKED_BYTES: u64 = 16 << 20;

/// What tells a build's own records from those of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    /// The engine's time when the build began, in whole seconds.
    pub(super) since: jiff::Timestamp,
    /// Bytes of the context's tar; `None` when not all of it was sent.
    pub(super) tar_bytes: Option<u64>,
}

impl Own {
    fn has(&self, record: &CacheRecord) -> bool {
        let size = record.size_bytes;
        let fresh = record.created.is_some_and(|at| at >= self.since);
        let rootless = record.parents.is_empty();
        let tar = record.description.starts_with("http url http://build-context-")
            && self.tar_bytes.is_none_or(|bytes| size == bytes);
        let unpacked = record.description == "fileop target"
            && rootless
            && self.tar_bytes.is_none_or(|bytes| size <= bytes && bytes > KEPT_UNPACKED_BYTES);
        fresh && !record.shared && (tar || unpacked)
    }
}

/// Deletes the records that are `own`; those still in use are waited for as long as `patience`. Returns how many went.
pub(super) async fn delete(
    http: &Http,
    prefix: &str,
    api_minor: u32,
    own: Own,
    patience: Duration,
) -> Result<usize, HttpError> {
    let holdings = Holdings { http, prefix, api_minor };
    let deadline = tokio::time::Instant::now() + patience;
    let mut deleted = 0;
    loop {
        let records = holdings.cache().await?;
        let (held, free): (Vec<_>, Vec<_>) =
            records.into_iter().filter(|record| own.has(record)).partition(|record| record.in_use);
        let gone = free.iter().map(|record| holdings.delete_record(&record.id));
        deleted += futures_util::future::try_join_all(gone).await?.iter().flatten().count();
        if held.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(deleted);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> CacheRecord {
        let [parent, description, size, created] = text.split('|').collect::<Vec<_>>().try_into().unwrap();
        CacheRecord {
            id: "a".into(),
            parents: (!parent.is_empty()).then(|| parent.to_owned()).into_iter().collect(),
            kind: "regular".into(),
            description: description.trim_start_matches("shared ").to_owned(),
            in_use: false,
            shared: description.starts_with("shared "),
            size_bytes: size.parse().unwrap(),
            created: created.parse().ok(),
            last_used: None,
        }
    }

    #[test]
    fn only_the_context_of_this_build_is_its_own() {
        let own = Own { since: "2026-01-01T00:00:00Z".parse().unwrap(), tar_bytes: Some(20 << 20) };
        let part = Own { tar_bytes: None, ..own };
        let tar = "|http url http://build-context-x|20971520|2026-01-01T00:00:00.5Z";
        assert!(own.has(&record(tar)) && part.has(&record(tar)));
        let shorter = tar.replace("20971520", "4096");
        assert!(!own.has(&record(&shorter)) && part.has(&record(&shorter)));
        let unpacked =
            tar.replace("http url http://build-context-x", "fileop target").replace("20971520", "60");
        assert!(own.has(&record(&unpacked)));
        let small = Own { tar_bytes: Some(10_240), ..own };
        assert!(!small.has(&record(&unpacked)), "a small context stays unpacked for the next build");
        for foreign in [
            tar.replace("2026", "2025"),
            tar.replace("build-context", "example"),
            tar.replace("http url", "shared http url"),
            unpacked.replace("|fileop", "b|fileop"),
            unpacked.replace("|60|", "|20971521|"),
        ] {
            assert!(!own.has(&record(&foreign)), "{foreign}");
        }
    }
}
