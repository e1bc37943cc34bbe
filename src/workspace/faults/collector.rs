//! The part of a collector that writers have to live with, step by step (protocol, G1 to G6), without any grace.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::scene::Host;
use crate::base::SessionId;
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::revision::{self, RevisionRef};
use crate::store::session::{Session, Standing};
use crate::store::view::{Adopted, Condemned};
use crate::workspace::WorkspaceError;
use crate::workspace::rebase::rebase;

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    host: Host,
    name: String,
    condemned: Vec<Key>,
    victims: Vec<SessionId>,
}

fn json<T: serde::Serialize>(value: &T) -> bytes::Bytes {
    serde_json::to_vec(value).unwrap().into()
}

async fn list(objects: &Arc<dyn ObjectStore>, prefix: &str) -> Result<Vec<Key>, StoreError> {
    let listed = objects.list(&Prefix::new(prefix).unwrap()).await?;
    Ok(listed.into_iter().map(|object| object.key).collect())
}

fn session_of(key: &Key) -> Option<SessionId> {
    let name = key.name();
    match key.as_str().starts_with("rev/") {
        true => RevisionRef::of_key(key).map(|revision| revision.session),
        false => name.split('-').next()?.parse().ok(),
    }
}

impl Run {
    pub(super) fn begin(host: Host) -> Self {
        let name = SessionId::generate().to_string();
        Self { host, name, condemned: Vec::new(), victims: Vec::new() }
    }

    fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.host.depot.objects
    }

    /// All steps, one after the other.
    pub(super) async fn finish(mut self) -> Result<(), WorkspaceError> {
        self.condemn().await?;
        self.mark().await?;
        self.adopt().await?;
        self.delete().await
    }

    /// G1: condemns what no revision names, but nothing of a session that is open.
    pub(super) async fn condemn(&mut self) -> Result<(), WorkspaceError> {
        let open = list(self.objects(), "sess").await?;
        let open: BTreeSet<SessionId> = open.iter().filter_map(|key| key.name().parse().ok()).collect();
        let mut packs = list(self.objects(), "packs").await?;
        packs.extend(list(self.objects(), "meta").await?);
        let mut named = BTreeSet::new();
        for revision in revision::list(&**self.objects(), None).await? {
            let Some(record) = revision::read(&**self.objects(), &revision).await? else { continue };
            named.extend(record.packs.iter().map(|info| info.pack.key().unwrap()));
        }
        packs.retain(|key| !named.contains(key) && session_of(key).is_none_or(|id| !open.contains(&id)));
        let list =
            Condemned { version: 1, condemned: None, packs: packs.iter().map(ToString::to_string).collect() };
        let key = Key::new(format!("gc/{}", self.name)).unwrap();
        self.objects().put(&key, json(&list)).await.map_err(StoreError::from)?;
        self.condemned = packs;
        Ok(())
    }

    /// G2, and the first half of G3: marks every session that is open.
    pub(super) async fn mark(&mut self) -> Result<(), WorkspaceError> {
        let open = list(self.objects(), "sess").await?;
        self.victims = open.iter().filter_map(|key| key.name().parse().ok()).collect();
        for victim in &self.victims {
            let key = Key::new(format!("evict/{victim}/{}.mark", self.name)).unwrap();
            self.objects().put(&key, bytes::Bytes::new()).await.map_err(StoreError::from)?;
        }
        Ok(())
    }

    /// The second half of G3: adopts what the marked sessions have written, and ends them.
    pub(super) async fn adopt(&mut self) -> Result<(), WorkspaceError> {
        for victim in &self.victims {
            let own = |keys: Vec<Key>| -> Vec<String> {
                let own = keys.into_iter().filter(|key| session_of(key) == Some(*victim));
                own.map(|key| key.to_string()).collect()
            };
            let revisions = own(list(self.objects(), "rev").await?);
            let segments = own(list(self.objects(), "idx").await?);
            let adopted = Adopted { version: 1, revisions, segments };
            let key = Key::new(format!("evict/{victim}/{}.adopt", self.name)).unwrap();
            self.objects().put(&key, json(&adopted)).await.map_err(StoreError::from)?;
            let keys =
                [Key::new(format!("sess/{victim}")).unwrap(), Key::new(format!("beat/{victim}")).unwrap()];
            self.objects().delete(&keys).await.map_err(StoreError::from)?;
        }
        Ok(())
    }

    /// G4 to G6: copies what lives out of the condemned packs, and deletes them.
    pub(super) async fn delete(&mut self) -> Result<(), WorkspaceError> {
        let roots = revision::list(&**self.objects(), None).await?;
        let session = Session::open(Arc::clone(self.objects()), "collect").await?;
        for root in roots {
            let Some(record) = revision::read(&**self.objects(), &root).await? else { continue };
            rebase(&self.host.depot, &session, record).await?;
        }
        if session.standing().await? == Standing::Good {
            self.objects().delete(&self.condemned).await.map_err(StoreError::from)?;
        }
        Ok(session.close().await?)
    }
}
