//! What a store really does, tried out below `probe/`.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Conditional, DirStore, Key, ObjectStore, ObjectsError, Prefix, S3Store, StoreUrl, Switch};
use crate::base::{Monotonic, SessionId, now};

/// Round trips that a latency is the median of.
const ROUNDS: usize = 7;

/// What was found out about a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The store.
    pub store: String,
    /// What was tried, and whether the store did it right. Everything must hold, or collecting garbage is not safe.
    pub checks: Checks,
    /// How long single requests took.
    pub latency: Latency,
    /// What only a server has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Report>,
}

/// What every store must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// A get sees an object right after its put.
    pub get_after_put: bool,
    /// A listing shows an object right after its put.
    pub list_after_put: bool,
    /// A get sees the newer of two puts right after it.
    pub get_after_overwrite: bool,
    /// A range is what stands there.
    pub range: bool,
    /// A get sees no object right after its deletion.
    pub get_after_delete: bool,
    /// A listing shows no object right after its deletion.
    pub list_after_delete: bool,
}

impl Checks {
    /// Tells whether everything is as it must be.
    #[must_use]
    pub fn all_hold(&self) -> bool {
        let Self {
            get_after_put,
            list_after_put,
            get_after_overwrite,
            range,
            get_after_delete,
            list_after_delete,
        } = *self;
        get_after_put
            && list_after_put
            && get_after_overwrite
            && range
            && get_after_delete
            && list_after_delete
    }
}

/// Median round trips, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// A put of a small object.
    pub put_us: u64,
    /// A get of it.
    pub get_us: u64,
    /// A listing of few objects.
    pub list_us: u64,
}

/// What only a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Report {
    /// What becomes of `If-None-Match: *`. Kiln relies on none of the answers.
    pub conditional_put: Conditional,
    /// Whether deleted objects live on as versions, and are paid for.
    pub versioning: Switch,
    /// Whether objects may be locked, so that deletions fail.
    pub object_lock: Switch,
    /// Lifecycle rules that are on and delete or move objects of this store; `None` where the server does not tell.
    pub lifecycle_rules: Option<Vec<String>>,
    /// Uploads in parts that were never completed; `None` where the server does not tell.
    pub incomplete_uploads: Option<usize>,
    /// How far the server's clock is ahead of this host's, in seconds, to the second.
    pub clock_ahead_seconds: Option<i64>,
}

/// Tries out what every store must do. Cleans up behind itself, also after an error, as far as the store lets it.
///
/// # Errors
///
/// Fails when the store does not answer or refuses; what it does wrong stands in the report.
pub async fn probe(store: &dyn ObjectStore) -> Result<ProbeReport, ObjectsError> {
    let place = Place::new(store)?;
    let tried = place.try_out(store).await;
    let cleaned = place.clean(store).await;
    let (checks, latency) = tried?;
    cleaned?;
    Ok(ProbeReport { store: store.place(), checks, latency, s3: None })
}

/// As [`probe()`], with what only a server has.
///
/// # Errors
///
/// As [`probe()`].
pub async fn probe_s3(store: &S3Store) -> Result<ProbeReport, ObjectsError> {
    let mut report = probe(store).await?;
    let place = Place::new(store)?;
    let conditional = async {
        store.put(&place.objects[0], Bytes::from_static(b"there")).await?;
        store.try_conditional(&place.objects[0]).await
    }
    .await;
    let cleaned = place.clean(store).await;
    let conditional_put = conditional?;
    cleaned?;
    let sent = Monotonic::start();
    let server = store.server_date().await;
    let half_way = now() - jiff::SignedDuration::try_from(sent.elapsed() / 2).unwrap_or_default();
    report.s3 = Some(S3Report {
        conditional_put,
        versioning: store.versioning().await,
        object_lock: store.object_lock().await,
        lifecycle_rules: store.lifecycle_rules().await,
        incomplete_uploads: store.incomplete_uploads().await.ok().map(|uploads| uploads.len()),
        // The header knows whole seconds, so less than one is nothing.
        clock_ahead_seconds: server.map(|server| server.duration_since(half_way).as_secs()),
    });
    Ok(report)
}

/// Probes the store at a URL, whatever it is.
///
/// # Errors
///
/// As [`probe()`] and [`S3Store::connect`].
pub async fn probe_at(url: &StoreUrl) -> Result<ProbeReport, ObjectsError> {
    match url {
        StoreUrl::Directory(path) => probe(&DirStore::new(path.clone())).await,
        StoreUrl::S3(url) => Box::pin(probe_s3(&S3Store::connect(url).await?)).await,
    }
}

/// The names that one probe uses.
struct Place {
    prefix: Prefix,
    objects: Vec<Key>,
}

impl Place {
    fn new(store: &dyn ObjectStore) -> Result<Self, ObjectsError> {
        let of = || {
            let folder = format!("probe/{}", SessionId::generate());
            let objects =
                (0..ROUNDS).map(|n| Key::new(format!("{folder}/{n}"))).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, super::KeyError>(Self { prefix: Prefix::new(folder)?, objects })
        };
        of().map_err(|source| ObjectsError::Settings {
            store: store.place(),
            reason: "a probe has no name".into(),
            source: Some(source.into()),
        })
    }

    async fn clean(&self, store: &dyn ObjectStore) -> Result<(), ObjectsError> {
        store.delete(&self.objects).await
    }

    async fn try_out(&self, store: &dyn ObjectStore) -> Result<(Checks, Latency), ObjectsError> {
        let body = |n: usize, round: &str| Bytes::from(format!("{n} {round} 0123456789"));
        let listed = async |key: &Key| {
            Ok::<_, ObjectsError>(store.list(&self.prefix).await?.iter().any(|object| object.key == *key))
        };
        let mut checks = Checks {
            get_after_put: true,
            list_after_put: true,
            get_after_overwrite: true,
            range: true,
            get_after_delete: true,
            list_after_delete: true,
        };
        let (mut puts, mut gets, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for (n, key) in self.objects.iter().enumerate() {
            // An absence that a cache remembers is the staleness that hurts most.
            store.get(key).await?;
            let put = Monotonic::start();
            store.put(key, body(n, "first")).await?;
            puts.push(put.elapsed());
            let get = Monotonic::start();
            checks.get_after_put &= store.get(key).await? == Some(body(n, "first"));
            gets.push(get.elapsed());
            let list = Monotonic::start();
            checks.list_after_put &= listed(key).await?;
            lists.push(list.elapsed());
            store.put(key, body(n, "second")).await?;
            checks.get_after_overwrite &= store.get(key).await? == Some(body(n, "second"));
            checks.range &= store.range(key, 2, 6).await? == Some(Bytes::from_static(b"second"));
        }
        for key in &self.objects {
            store.delete(std::slice::from_ref(key)).await?;
            checks.get_after_delete &= store.get(key).await?.is_none();
            checks.list_after_delete &= !listed(key).await?;
        }
        let latency = Latency { put_us: median_us(puts), get_us: median_us(gets), list_us: median_us(lists) };
        Ok((checks, latency))
    }
}

fn median_us(mut times: Vec<Duration>) -> u64 {
    times.sort();
    times.get(times.len() / 2).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{SimDeed, SimFaults, SimStore, SimWhen};

    #[tokio::test]
    async fn a_directory_does_what_it_must_and_is_left_clean() {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().to_owned());
        let report = probe(&store).await.unwrap();
        assert!(report.checks.all_hold(), "{report:?}");
        assert!(store.list(&Prefix::default()).await.unwrap().is_empty());
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ProbeReport>(&text).unwrap(), report);
    }

    #[tokio::test]
    async fn a_probe_that_fails_leaves_nothing() {
        for n in 1..=15 {
            let store = SimStore::new(1);
            store.fail_write(n, SimWhen::After);
            probe(&store).await.unwrap_err();
            assert!(store.contents().is_empty(), "write {n}");
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_an_error() {
        let store = SimStore::new(1);
        store.set_faults(SimFaults { fail_before: 1000, ..SimFaults::default() });
        probe(&store).await.unwrap_err();
        assert_eq!(store.count(SimDeed::Put), 0);
    }
}
