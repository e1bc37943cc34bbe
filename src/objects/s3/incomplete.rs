//! Uploads in parts that were never completed: their parts take space, and no listing of objects shows them.

use std::time::Duration;

use super::answer::Answer;
use super::store::S3Store;
use crate::objects::{Key, ObjectsError};

/// An upload that was begun below the store's prefix and neither completed nor aborted. It may be under way right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncompleteUpload {
    /// The object that it was to become.
    pub key: Key,
    /// When it was begun, by the server's clock; `None` where the server does not say.
    pub initiated: Option<jiff::Timestamp>,
    /// The server's name of it.
    pub upload_id: String,
}

impl S3Store {
    /// Lists the incomplete uploads below the store's prefix, sorted by key.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer, or does not know this request.
    pub async fn incomplete_uploads(&self) -> Result<Vec<IncompleteUpload>, ObjectsError> {
        let inner = &self.inner;
        let (mut found, mut key_marker, mut id_marker) = (Vec::new(), None, None);
        loop {
            let request = inner
                .client
                .list_multipart_uploads()
                .bucket(&inner.bucket)
                .prefix(&inner.prefix)
                .set_key_marker(key_marker.take())
                .set_upload_id_marker(id_marker.take());
            let turn = self.turn().await;
            let page = Box::pin(request.send())
                .await
                .map_err(|error| self.failed("list the incomplete uploads of", "", &error))?;
            drop(turn);
            for upload in page.uploads() {
                let key = upload.key().and_then(|name| self.key_of(name));
                let (Some(key), Some(upload_id)) = (key, upload.upload_id()) else { continue };
                let initiated =
                    upload.initiated().and_then(|at| jiff::Timestamp::from_second(at.secs()).ok());
                found.push(IncompleteUpload { key, initiated, upload_id: upload_id.to_owned() });
            }
            if page.is_truncated() != Some(true) || page.next_key_marker().is_none() {
                break;
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
        }
        found.sort_by(|a, b| (&a.key, &a.upload_id).cmp(&(&b.key, &b.upload_id)));
        Ok(found)
    }

    /// Aborts the incomplete uploads below the store's prefix that were begun more than `older_than` before `now`, and returns
    /// those. One whose age the server does not tell is left. Give more time than any upload takes: one that is under way fails.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer; some may have been aborted by then.
    pub async fn abort_incomplete(
        &self,
        older_than: Duration,
        now: jiff::Timestamp,
    ) -> Result<Vec<IncompleteUpload>, ObjectsError> {
        let mut aborted = Vec::new();
        for upload in self.incomplete_uploads().await? {
            let age = upload.initiated.map(|initiated| now.duration_since(initiated));
            // A server's clock may be ahead of ours: such an upload has a negative age.
            if age.and_then(|age| Duration::try_from(age).ok()).is_some_and(|age| age >= older_than) {
                self.abort(&self.name(&upload.key), &upload.upload_id).await?;
                aborted.push(upload);
            }
        }
        Ok(aborted)
    }

    /// Aborts an upload; one that is gone is fine.
    pub(super) async fn abort(&self, name: &str, id: &str) -> Result<(), ObjectsError> {
        let inner = &self.inner;
        let request = inner.client.abort_multipart_upload().bucket(&inner.bucket).key(name).upload_id(id);
        let _turn = self.turn().await;
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(error) => match Answer::of(&error) {
                answer if answer.code.as_deref() == Some("NoSuchUpload") => Ok(()),
                answer => Err(self.failure("abort the upload of", name, answer)),
            },
        }
    }
}
