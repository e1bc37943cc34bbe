//! The contract of an object store in requests to an S3 server.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::answer::Answer;
use super::connect::{S3Options, S3Patience, client};
use crate::base::now;
use crate::objects::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, S3Url, ServerProblem, Swept};

/// Requests under way at once, over all callers: enough to fill a link, few enough not to be throttled for it.
const REQUESTS_AT_ONCE: usize = 16;
/// Keys in one deletion: the most that S3 takes.
const KEYS_A_DELETION: usize = 1_000;
/// Longest range that a server is asked for by its end; servers hold offsets in signed numbers.
const FAR_BYTES: u64 = i64::MAX as u64;

/// A store in a bucket of an S3 server, or below a prefix in one.
///
/// Every request is repeated where that can help. Several processes may share it. Cloning is cheap.
#[derive(Clone)]
pub struct S3Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) bucket: String,
    /// Empty, or ends with a slash.
    pub(super) prefix: String,
    pub(super) place: String,
    pub(super) patience: S3Patience,
    /// Whether nobody between here and the server can change what is sent.
    pub(super) is_private: bool,
    requests: Semaphore,
    /// The server does not know the deletion of many keys.
    deletes_one_by_one: AtomicBool,
}

/// Whether the connection protects what is sent: by TLS, or because it does not leave this machine. Without an endpoint in the URL
/// the environment may name one, which is not looked at here.
pub(super) fn is_private(url: &S3Url) -> bool {
    let Some(endpoint) = url.endpoint() else { return false };
    let Some(host) = endpoint.strip_prefix("http://") else { return endpoint.starts_with("https://") };
    let host = host.rsplit_once(':').map_or(host, |(host, _port)| host).trim_matches(['[', ']']);
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("place", &self.inner.place).finish_non_exhaustive()
    }
}

impl S3Store {
    /// Connects with the credentials of this process. Sends no request to the server, so that a wrong bucket or a wrong key
    /// shows at first use.
    ///
    /// # Errors
    ///
    /// Fails when no region is known or the CA file cannot be used.
    pub async fn connect(url: &S3Url) -> Result<Self, ObjectsError> {
        Self::connect_with(url, S3Options::default()).await
    }

    /// As [`S3Store::connect`], with options that stand in no URL.
    ///
    /// # Errors
    ///
    /// As [`S3Store::connect`].
    pub async fn connect_with(url: &S3Url, options: S3Options) -> Result<Self, ObjectsError> {
        let client = Box::pin(client(url, &options)).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                bucket: url.bucket().to_owned(),
                prefix: url.prefix().as_str().to_owned(),
                place: url.to_string(),
                patience: options.patience,
                is_private: is_private(url),
                requests: Semaphore::new(REQUESTS_AT_ONCE),
                deletes_one_by_one: AtomicBool::new(false),
            }),
        })
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed; if it were, going on without a turn would do no harm.
        self.inner.requests.acquire().await.ok()
    }

    pub(super) fn name(&self, key: &Key) -> String {
        format!("{}{}", self.inner.prefix, key.as_str())
    }

    /// Returns the key of an object by its name in the bucket; `None` for what is not ours.
    pub(super) fn key_of(&self, name: &str) -> Option<Key> {
        Key::new(name.strip_prefix(&self.inner.prefix)?).ok()
    }

    pub(super) fn failure(&self, action: &'static str, key: &str, answer: Answer) -> ObjectsError {
        // A listing of the whole store has no key to name.
        let key = if key.is_empty() { "/" } else { key };
        ObjectsError::Server {
            action,
            key: key.to_owned(),
            store: self.inner.place.clone(),
            problem: answer.problem,
            source: answer.into_source(),
        }
    }

    pub(super) fn failed<E>(
        &self,
        action: &'static str,
        key: &str,
        error: &SdkError<E, HttpResponse>,
    ) -> ObjectsError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.failure(action, key, Answer::of(error))
    }

    /// Writes an object in one request.
    pub(super) async fn put_at_once(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        let timeouts = self.inner.patience.timeouts(bytes.len() as u64);
        let request = self
            .inner
            .client
            .put_object()
            .bucket(&self.inner.bucket)
            .key(self.name(key))
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts));
        let _turn = self.turn().await;
        Box::pin(request.send()).await.map_err(|error| self.failed("write", key.as_str(), &error))?;
        Ok(())
    }

    /// Reads an object or a part of it. The body is no matter of the client's own repetitions, so a body that breaks off is
    /// asked for again here.
    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Option<Bytes>, ObjectsError> {
        let mut pause = self.inner.patience.first_pause;
        let mut tries = 1;
        loop {
            match self.read_once(key, range.clone()).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(answer) if answer.is_no_object() => return Ok(None),
                Err(answer) if answer.is_no_range() => return Ok(Some(Bytes::new())),
                Err(answer) if answer.was_cut() && tries < self.inner.patience.attempts => {
                    tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
                    pause = (pause * 2).min(Duration::from_secs(20));
                    tries += 1;
                }
                Err(answer) => return Err(self.failure("read", key.as_str(), answer)),
            }
        }
    }

    async fn read_once(&self, key: &Key, range: Option<Range<u64>>) -> Result<Bytes, Answer> {
        let header = range.as_ref().map(|range| {
            if range.end >= FAR_BYTES {
                format!("bytes={}-", range.start)
            } else {
                format!("bytes={}-{}", range.start, range.end - 1)
            }
        });
        let request =
            self.inner.client.get_object().bucket(&self.inner.bucket).key(self.name(key)).set_range(header);
        let _turn = self.turn().await;
        let response = Box::pin(request.send()).await.map_err(|error| Answer::of(&error))?;
        let is_part = response.content_range().is_some();
        let bytes = response.body.collect().await.map_err(|error| Answer::cut(&error))?.into_bytes();
        match range {
            // The server took no notice of the range and sent everything.
            Some(range) if !is_part => {
                let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(usize::try_from(range.start).unwrap_or(usize::MAX).min(end)..end))
            }
            _ => Ok(bytes),
        }
    }

    /// Deletes up to [`KEYS_A_DELETION`] keys in one request; says `false` when the server does not know such a request.
    async fn delete_together(&self, keys: &[Key]) -> Result<bool, ObjectsError> {
        let Some(first) = keys.first() else { return Ok(true) };
        let built = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(self.name(key)).build())
            .collect::<Result<Vec<_>, _>>()
            .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let delete = built.map_err(|source| ObjectsError::Settings {
            store: self.inner.place.clone(),
            reason: "a deletion cannot be written down".into(),
            source: Some(source.into()),
        })?;
        let request = self.inner.client.delete_objects().bucket(&self.inner.bucket).delete(delete);
        let _turn = self.turn().await;
        let response = match Box::pin(request.send()).await {
            Ok(response) => response,
            Err(error) => {
                let answer = Answer::of(&error);
                if answer.is_not_implemented() {
                    return Ok(false);
                }
                return Err(self.failure("delete", first.as_str(), answer));
            }
        };
        let mut refused = response.errors().iter().filter(|error| error.code() != Some("NoSuchKey"));
        let Some(error) = refused.next() else { return Ok(true) };
        let others = match refused.count() {
            0 => String::new(),
            others => format!(" (and {others} more keys)"),
        };
        let name = error.key().unwrap_or_default();
        let key = self.key_of(name).map_or_else(|| name.to_owned(), |key| key.to_string());
        let message = format!("{}{others}", error.message().unwrap_or_default());
        Err(self.failure("delete", &key, Answer::of_one_key(error.code().unwrap_or("Unknown"), &message)))
    }

    async fn delete_one(&self, key: &Key) -> Result<(), ObjectsError> {
        let request = self.inner.client.delete_object().bucket(&self.inner.bucket).key(self.name(key));
        let _turn = self.turn().await;
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(error) => match Answer::of(&error) {
                answer if answer.is_no_object() => Ok(()),
                answer => Err(self.failure("delete", key.as_str(), answer)),
            },
        }
    }

    /// Deletes up to [`KEYS_A_DELETION`] keys; of those that fail it tells the first and hides no other.
    async fn delete_batch(&self, keys: Vec<Key>) -> Result<(), ObjectsError> {
        if let [key] = keys.as_slice() {
            return self.delete_one(key).await;
        }
        if !self.inner.deletes_one_by_one.load(Ordering::Relaxed) {
            if self.delete_together(&keys).await? {
                return Ok(());
            }
            self.inner.deletes_one_by_one.store(true, Ordering::Relaxed);
        }
        stream::iter(keys)
            .map(async |key| self.delete_one(&key).await)
            .buffer_unordered(REQUESTS_AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect()
    }

    /// Lists one page; returns the token of the next one.
    async fn list_page(
        &self,
        prefix: &Prefix,
        token: Option<String>,
        found: &mut Vec<ObjectInfo>,
    ) -> Result<Option<String>, ObjectsError> {
        let name = format!("{}{}", self.inner.prefix, prefix.as_str());
        let request = self
            .inner
            .client
            .list_objects_v2()
            .bucket(&self.inner.bucket)
            .prefix(name)
            .set_continuation_token(token);
        let _turn = self.turn().await;
        let page =
            Box::pin(request.send()).await.map_err(|error| self.failed("list", prefix.as_str(), &error))?;
        // Taking a part of a list for everything would let a collector delete what it cannot see: an answer that does not say
        // whether it is whole, or not as much as it says, is none.
        let counted =
            page.key_count().is_none_or(|count| usize::try_from(count) == Ok(page.contents().len()));
        let next = match (page.is_truncated(), page.next_continuation_token()) {
            (Some(true), Some(token)) if counted => Some(token.to_owned()),
            (Some(false), _) if counted => None,
            _ => {
                return Err(ObjectsError::Server {
                    action: "list",
                    key: if prefix.as_str().is_empty() { "/".to_owned() } else { prefix.to_string() },
                    store: self.inner.place.clone(),
                    problem: ServerProblem::Failed,
                    source: "the server sent a list that contradicts itself or is not whole".into(),
                });
            }
        };
        for object in page.contents() {
            // What is no key is not ours.
            let Some(key) = object.key().and_then(|name| self.key_of(name)) else { continue };
            let size_bytes = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            found.push(ObjectInfo { key, size_bytes });
        }
        Ok(next)
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.put_at_once(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.upload(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.read(key, None).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        if length == 0 || offset >= FAR_BYTES {
            // There is no range of nothing; one byte tells whether the object is there.
            return Ok(self.read(key, Some(0..1)).await?.map(|_first| Bytes::new()));
        }
        self.read(key, Some(offset..offset.saturating_add(length))).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            token = self.list_page(prefix, token, &mut found).await?;
            if token.is_none() {
                break;
            }
        }
        // Sorted by most servers already, and by the contract for all.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        let keys: Vec<Key> = keys.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let batches: Vec<Vec<Key>> = keys.chunks(KEYS_A_DELETION).map(<[Key]>::to_vec).collect();
        stream::iter(batches)
            .map(|batch| self.delete_batch(batch))
            .buffer_unordered(4)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect()
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept, ObjectsError> {
        let aborted = self.abort_incomplete(older_than, now()).await?;
        Ok(Swept { count: aborted.len() as u64, bytes: 0 })
    }

    fn place(&self) -> String {
        self.inner.place.clone()
    }
}
