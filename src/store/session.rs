//! Sessions: how a writer makes itself known, so that collectors wait for it (protocol, W1 to W6).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::cache::IndexCache;
use super::error::StoreError;
use super::revision::Revision;
use super::small::NOTE_BYTES;
use super::view::{View, evictions};
use crate::base::{Owner, SessionId};
use crate::objects::{Key, ObjectStore};

/// A collector takes a session for dead whose counter stands still for a minute, so it moves six times in that.
const BEAT: Duration = Duration::from_secs(10);

/// What stands in `sess/<session>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Version of this object.
    pub version: u32,
    /// When it was begun, by its owner's clock. No rule reads it.
    pub created: jiff::Timestamp,
    /// What it is for: `save`, `copy`, `collect`.
    pub purpose: String,
    /// The process. A collector on the same host sees at once whether it still lives.
    #[serde(default)]
    pub owner: Option<Owner>,
}

/// What stands in `beat/<session>`. No safety rule reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Version of this object.
    pub version: u32,
    /// Grows with every beat.
    pub counter: u64,
    /// The process.
    pub owner: Option<Owner>,
}

/// Whether a session still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody marked it: what it recorded is acknowledged.
    Good,
    /// A collector marked it or ended it: what it recorded last is not acknowledged.
    Evicted,
}

/// A session that is open. Dropping it without [`Session::close`] leaves its objects, which a collector takes away.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    objects: Arc<dyn ObjectStore>,
    beat: Option<JoinHandle<()>>,
}

impl Session {
    /// Opens a session (W1). Everything that is read to decide what may be relied on has to be read after this returns.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer.
    pub async fn open(objects: Arc<dyn ObjectStore>, purpose: &str) -> Result<Self, StoreError> {
        let id = SessionId::generate();
        let record = SessionRecord {
            version: 1,
            created: crate::base::now(),
            purpose: purpose.to_owned(),
            owner: Owner::current().ok(),
        };
        objects.put(&Key::new(format!("sess/{id}"))?, json(&record)).await?;
        let beat = tokio::spawn(beat(Arc::clone(&objects), id));
        Ok(Self { id, objects, beat: Some(beat) })
    }

    /// Returns the session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns the store.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Reads what may be relied on (W2).
    ///
    /// # Errors
    ///
    /// As [`View::load`].
    pub async fn view(&self, cache: &IndexCache) -> Result<View, StoreError> {
        View::load(&*self.objects, cache).await
    }

    /// Writes a revision's record (W4) and looks whether the session still counts (W5). [`Standing::Good`] is the commit point:
    /// from here on the revision is acknowledged. Of an evicted session the record is deleted again.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer. The revision may be there then, or not; it is whole in any case.
    pub async fn commit(&self, revision: &Revision) -> Result<Standing, StoreError> {
        let key = revision.key()?;
        let bytes =
            revision.encode().map_err(|source| StoreError::Local { action: "write a record", source })?;
        self.objects.put(&key, bytes.into()).await?;
        let standing = self.standing().await?;
        if standing == Standing::Evicted {
            self.objects.delete(&[key]).await?;
        }
        Ok(standing)
    }

    /// Looks whether the session still counts: its object is there and nobody marked it.
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer.
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        let is_there =
            self.objects.get_up_to(&Key::new(format!("sess/{}", self.id))?, NOTE_BYTES).await?.is_some();
        let is_marked = evictions(&*self.objects, &[self.id].into()).await?.is_marked(self.id);
        Ok(if is_there && !is_marked { Standing::Good } else { Standing::Evicted })
    }

    /// Ends the session (W6).
    ///
    /// # Errors
    ///
    /// Fails where the store does not answer; a collector ends the session then.
    pub async fn close(mut self) -> Result<(), StoreError> {
        self.stop_beating();
        let keys = [Key::new(format!("sess/{}", self.id))?, Key::new(format!("beat/{}", self.id))?];
        Ok(self.objects.delete(&keys).await?)
    }

    /// Ends the session of a save that was given up. Where the store does not answer, a collector ends it.
    pub async fn abandon(self) {
        let _closed = self.close().await.is_ok();
    }

    fn stop_beating(&mut self) {
        if let Some(beat) = self.beat.take() {
            beat.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop_beating();
    }
}

async fn beat(objects: Arc<dyn ObjectStore>, id: SessionId) {
    let Ok(key) = Key::new(format!("beat/{id}")) else { return };
    let owner = Owner::current().ok();
    for counter in 1.. {
        tokio::time::sleep(BEAT).await;
        let beat = Beat { version: 1, counter, owner: owner.clone() };
        // A beat that is missed delays nothing; a minute without one may cost the save a second try.
        let _missed = objects.put(&key, json(&beat)).await.is_err();
    }
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec_pretty(value).unwrap_or_default().into()
}
