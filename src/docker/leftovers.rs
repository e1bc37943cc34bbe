//! What a BuildKit build leaves behind that nobody will use again: its context.
//!
//! BuildKit keeps the tar of every context (`http url http://build-context-…`), and what it unpacked (`fileop target` without
//! a parent), as cache records under names that never come again. They are deleted by their exact ids. Steps keep their cache:
//! their records stand on a parent, or hang together with an image.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::http::{Http, HttpError, empty, query};

/// From this API version on, `/system/df` can be asked for the build cache alone; before, images and containers are counted too.
const DF_BY_TYPE_SINCE: u32 = 42;

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

/// One record of the build cache; the fields that both schemas of the API have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    parents: Option<Vec<String>>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    in_use: bool,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    size: i64,
    created_at: Option<jiff::Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DiskUsage {
    #[serde(default)]
    build_cache: Option<Vec<Record>>,
    #[serde(default)]
    build_cache_usage: Option<BuildCacheUsage>,
}

/// Where the schema of API 1.52 and later has the records.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BuildCacheUsage {
    #[serde(default)]
    items: Option<Vec<Record>>,
}

impl Own {
    fn has(&self, record: &Record) -> bool {
        let size = u64::try_from(record.size).unwrap_or(0);
        let fresh = record.created_at.is_some_and(|at| at >= self.since);
        let rootless = record.parent.is_empty() && record.parents.as_ref().is_none_or(Vec::is_empty);
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
    let narrow = if api_minor >= DF_BY_TYPE_SINCE { "?type=build-cache" } else { "" };
    let deadline = tokio::time::Instant::now() + patience;
    let mut deleted = 0;
    loop {
        let usage: DiskUsage = http.json(Method::GET, &format!("{prefix}/system/df{narrow}")).await?;
        let records = usage
            .build_cache
            .or_else(|| usage.build_cache_usage.and_then(|usage| usage.items))
            .unwrap_or_default();
        let (held, free): (Vec<_>, Vec<_>) =
            records.into_iter().filter(|record| own.has(record)).partition(|record| record.in_use);
        let gone = free.iter().map(|record| async {
            let filter = serde_json::json!({ "id": [record.id] }).to_string();
            let path = format!("{prefix}/build/prune?{}", query(&[("all", "1".into()), ("filters", filter)]));
            http.send(Method::POST, &path, &[], empty()).await?.accepted().await?.whole().await
        });
        deleted += futures_util::future::try_join_all(gone).await?.len();
        if held.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(deleted);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Record {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn only_the_context_of_this_build_is_its_own() {
        let own = Own { since: "2026-01-01T00:00:00Z".parse().unwrap(), tar_bytes: Some(20 << 20) };
        let part = Own { tar_bytes: None, ..own };
        let tar = r#"{"ID":"a","Parent":"","Description":"http url http://build-context-x","Size":20971520,"CreatedAt":"2026-01-01T00:00:00.5Z"}"#;
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
            tar.replace("\"Size\"", "\"Shared\":true,\"Size\""),
            unpacked.replace("\"Parent\":\"\"", "\"Parent\":\"b\""),
            unpacked.replace("\"Parent\":\"\"", "\"Parents\":[\"b\"]"),
            unpacked.replace(":60,", ":20971521,"),
        ] {
            assert!(!own.has(&record(&foreign)), "{foreign}");
        }
    }
}
