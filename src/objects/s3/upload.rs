//! A file as an object: in one request, or in parts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::answer::Answer;
use super::store::S3Store;
use crate::objects::{Key, ObjectStore as _, ObjectsError, ServerProblem};

/// Size of a part, and of the largest file that is written in one request. S3 asks for at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// Most parts of one upload.
const MOST_PARTS: u64 = 10_000;
/// Parts of one object under way at once; as many are in memory.
const PARTS_AT_ONCE: usize = 4;

/// An upload in parts that is under way. Dropped before it is finished, it is aborted in the background, so that a cancelled
/// save does not leave parts that are paid for and not seen.
struct Upload {
    store: S3Store,
    key: Key,
    id: String,
    is_open: bool,
}

impl Upload {
    async fn begin(store: &S3Store, key: &Key) -> Result<Self, ObjectsError> {
        let inner = &store.inner;
        let request = inner.client.create_multipart_upload().bucket(&inner.bucket).key(store.name(key));
        let _turn = store.turn().await;
        let response =
            Box::pin(request.send()).await.map_err(|error| store.failed("write", key.as_str(), &error))?;
        let id = response.upload_id().ok_or_else(|| ObjectsError::Server {
            action: "write",
            key: key.to_string(),
            store: store.place(),
            problem: ServerProblem::Failed,
            source: "the server began an upload and gave it no id".into(),
        })?;
        Ok(Self { store: store.clone(), key: key.clone(), id: id.to_owned(), is_open: true })
    }

    async fn send(&self, number: i32, bytes: Bytes) -> Result<CompletedPart, ObjectsError> {
        let inner = &self.store.inner;
        let timeouts = inner.patience.timeouts(bytes.len() as u64);
        let mut request = inner
            .client
            .upload_part()
            .bucket(&inner.bucket)
            .key(self.store.name(&self.key))
            .upload_id(&self.id)
            .part_number(number)
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts));
        if inner.is_private {
            // A hash of the part would only repeat what the connection does, on both sides.
            request = request.disable_payload_signing();
        }
        let response = Box::pin(request.send())
            .await
            .map_err(|error| self.store.failed("write", self.key.as_str(), &error))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(response.e_tag).build())
    }

    async fn complete(&mut self, parts: Vec<CompletedPart>, length: u64) -> Result<(), ObjectsError> {
        let inner = &self.store.inner;
        // Servers put the object together before they answer, which takes its time with many parts.
        let timeouts = inner.patience.timeouts(PART_BYTES);
        let request = inner
            .client
            .complete_multipart_upload()
            .bucket(&inner.bucket)
            .key(self.store.name(&self.key))
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts));
        let turn = self.store.turn().await;
        let completed = Box::pin(request.send()).await.map_err(|error| Answer::of(&error));
        drop(turn);
        if let Err(answer) = completed {
            // The first answer may have been lost: then the upload was completed, and the repetition does not find it any more.
            let is_gone = answer.code.as_deref() == Some("NoSuchUpload");
            if !is_gone || self.store.length_of(&self.key).await != Some(length) {
                return Err(self.store.failure("write", self.key.as_str(), answer));
            }
        }
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        // Without a runtime nothing can be sent; such an upload is listed as incomplete and aborted by age.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (store, key, id) = (self.store.clone(), self.key.clone(), self.id.clone());
        runtime.spawn(async move {
            // Best effort, for the same reason.
            drop(store.abort(&store.name(&key), &id).await);
        });
    }
}

impl S3Store {
    /// Writes an object from the file at `path` and removes the file.
    pub(super) async fn upload(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        let failure = |source: io::Error| ObjectsError::Io {
            action: "write",
            key: key.to_string(),
            store: self.place(),
            source,
        };
        let (file, length) = {
            let path = path.to_owned();
            blocking(move || {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                Ok((Arc::new(file), length))
            })
            .await
            .map_err(failure)?
        };
        if length <= PART_BYTES {
            let bytes = blocking(move || read_part(&file, 0, length)).await.map_err(failure)?;
            self.put_at_once(key, bytes).await?;
        } else {
            self.upload_in_parts(key, &file, length).await?;
        }
        tokio::fs::remove_file(path).await.map_err(failure)
    }

    /// Returns how long an object is; `None` where there is none, or the server does not say.
    async fn length_of(&self, key: &Key) -> Option<u64> {
        let request = self.inner.client.head_object().bucket(&self.inner.bucket).key(self.name(key));
        let _turn = self.turn().await;
        let response = Box::pin(request.send()).await.ok()?;
        response.content_length().and_then(|length| u64::try_from(length).ok())
    }

    async fn upload_in_parts(&self, key: &Key, file: &Arc<File>, length: u64) -> Result<(), ObjectsError> {
        let part_bytes = PART_BYTES.max(length.div_ceil(MOST_PARTS));
        let mut upload = Upload::begin(self, key).await?;
        let sending = stream::iter((1_i32..).zip((0..length).step_by(usize_of(part_bytes))))
            .map(|(number, offset)| {
                let (upload, file) = (&upload, Arc::clone(file));
                async move {
                    let _turn = self.turn().await;
                    let bytes = blocking(move || read_part(&file, offset, part_bytes.min(length - offset)))
                        .await
                        .map_err(|source| ObjectsError::Io {
                            action: "write",
                            key: key.to_string(),
                            store: self.place(),
                            source,
                        })?;
                    upload.send(number, bytes).await
                }
            })
            .buffer_unordered(PARTS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await;
        let result = match sending {
            Ok(mut parts) => {
                parts.sort_by_key(|part| part.part_number);
                upload.complete(parts, length).await
            }
            Err(error) => Err(error),
        };
        if result.is_err() {
            upload.is_open = false;
            // The first error is the one to tell; an upload that stays is listed as incomplete.
            drop(self.abort(&self.name(key), &upload.id).await);
        }
        result
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn read_part(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
