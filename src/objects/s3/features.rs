//! What a server does with a bucket beyond keeping objects: versions, locks, lifecycle rules, conditional writes.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::store::S3Store;
use crate::objects::{Key, ObjectsError};

/// What a server does with a put that is to succeed only where there is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conditional {
    /// It keeps the condition.
    Honoured,
    /// It says yes and overwrites.
    Ignored,
    /// It refuses such a request.
    Refused,
}

/// Whether a feature of a bucket is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// It is.
    On,
    /// It is not, or the server has no such feature.
    Off,
    /// The server does not tell these credentials.
    Unknown,
}

/// The codes with which servers say that a bucket has no configuration of a kind.
const NOTHING_CONFIGURED: [&str; 3] =
    ["NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"];

impl S3Store {
    /// Writes over `key`, which must have an object, on the condition that it has none; tells what became of the condition.
    pub(in crate::objects) async fn try_conditional(&self, key: &Key) -> Result<Conditional, ObjectsError> {
        let inner = &self.inner;
        let request = inner
            .client
            .put_object()
            .bucket(&inner.bucket)
            .key(self.name(key))
            .if_none_match("*")
            .body(Bytes::from_static(b"conditional").into());
        let _turn = self.turn().await;
        match Box::pin(request.send()).await {
            Ok(_) => Ok(Conditional::Ignored),
            Err(error) => match Answer::of(&error) {
                answer if matches!(answer.status, Some(409 | 412)) => Ok(Conditional::Honoured),
                answer if answer.is_not_implemented() => Ok(Conditional::Refused),
                answer => Err(self.failure("write", key.as_str(), answer)),
            },
        }
    }

    /// Tells whether deleted and overwritten objects live on as versions.
    pub(in crate::objects) async fn versioning(&self) -> Switch {
        let request = self.inner.client.get_bucket_versioning().bucket(&self.inner.bucket);
        let _turn = self.turn().await;
        match Box::pin(request.send()).await {
            Ok(answer) if answer.status() == Some(&BucketVersioningStatus::Enabled) => Switch::On,
            Ok(_) => Switch::Off,
            Err(error) => of_refusal(&Answer::of(&error)),
        }
    }

    /// Tells whether objects may be locked against deletion.
    pub(in crate::objects) async fn object_lock(&self) -> Switch {
        let request = self.inner.client.get_object_lock_configuration().bucket(&self.inner.bucket);
        let _turn = self.turn().await;
        match Box::pin(request.send()).await {
            Ok(answer) if answer.object_lock_configuration().is_some() => Switch::On,
            Ok(_) => Switch::Off,
            Err(error) => of_refusal(&Answer::of(&error)),
        }
    }

    /// Returns the names of the lifecycle rules that are on and touch keys of this store by deleting or moving objects; `None`
    /// where the server does not tell.
    pub(in crate::objects) async fn lifecycle_rules(&self) -> Option<Vec<String>> {
        let request = self.inner.client.get_bucket_lifecycle_configuration().bucket(&self.inner.bucket);
        let _turn = self.turn().await;
        let rules = match Box::pin(request.send()).await {
            Ok(answer) => answer.rules.unwrap_or_default(),
            Err(error) => {
                return (of_refusal(&Answer::of(&error)) == Switch::Off).then(Vec::new);
            }
        };
        let touching = rules.into_iter().filter(|rule| {
            let filter = rule.filter();
            let prefix = filter
                .and_then(|filter| filter.prefix().or_else(|| filter.and().and_then(|all| all.prefix())));
            let prefix = prefix.unwrap_or_default();
            let acts = rule.expiration().is_some()
                || rule.noncurrent_version_expiration().is_some()
                || !rule.transitions().is_empty();
            rule.status() == &ExpirationStatus::Enabled
                && acts
                && (self.inner.prefix.starts_with(prefix) || prefix.starts_with(&self.inner.prefix))
        });
        Some(touching.map(|rule| rule.id.unwrap_or_else(|| "a rule without a name".into())).collect())
    }

    /// Returns the `Date` of an answer of the server, whatever else the answer says.
    pub(in crate::objects) async fn server_date(&self) -> Option<jiff::Timestamp> {
        let date = Arc::new(Mutex::new(None));
        let request = self
            .inner
            .client
            .head_bucket()
            .bucket(&self.inner.bucket)
            .customize()
            .interceptor(DateOf(Arc::clone(&date)));
        let _turn = self.turn().await;
        drop(Box::pin(request.send()).await);
        let text = date.lock().ok()?.take()?;
        jiff::fmt::rfc2822::parse(&text).ok().map(|date| date.timestamp())
    }
}

/// What the refusal to show a configuration says: that there is none, or nothing.
fn of_refusal(answer: &Answer) -> Switch {
    let code = answer.code.as_deref().unwrap_or_default();
    if answer.is_not_implemented() || NOTHING_CONFIGURED.contains(&code) {
        Switch::Off
    } else {
        Switch::Unknown
    }
}

/// Keeps the `Date` header of an answer.
#[derive(Debug)]
struct DateOf(Arc<Mutex<Option<String>>>);

impl Intercept for DateOf {
    fn name(&self) -> &'static str {
        "date of the answer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Ok(mut date) = self.0.lock() {
            *date = context.response().headers().get("date").map(str::to_owned);
        }
        Ok(())
    }
}
