//! Revisions: one record for each saved state of a workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};

use super::content::{ChunkRef, Content};
use super::error::StoreError;
use super::manifest::check_lengths;
use super::pack::{PackInfo, PackName};
use super::small;
use super::view::evictions;
use super::wire::broken;
use crate::base::{ChunkId, RevisionId, SessionId, Sha256Digest, WorkspaceName};
use crate::objects::{Key, ObjectStore, Prefix};

/// The highest version of a record that this program reads, and the one it writes.
const VERSION: u32 = 1;

/// What a revision counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevisionCounts {
    /// Entries of all kinds, the root included.
    pub entries: u64,
    /// Regular files; a further name of one is not counted.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// The sum of the sizes of the files, holes included.
    pub bytes: u64,
    /// The same without holes: what the files need on a disk.
    #[serde(default)]
    pub data_bytes: u64,
}

/// What is recorded of a saved state of a workspace. Never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its id, unique and later than those of the workspace's earlier revisions.
    pub id: RevisionId,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The session that saved it.
    pub session: SessionId,
    /// The revision that this one was made from, if any.
    pub parent: Option<RevisionId>,
    /// When it was saved, by its writer's clock.
    pub created: jiff::Timestamp,
    /// What was saved: a directory, a stream, a container's path, another revision. For people.
    pub source: String,
    /// The labels that its saver gave it.
    pub labels: BTreeMap<String, String>,
    /// What it counts.
    pub counts: RevisionCounts,
    /// How many files changed while they were read.
    pub unsettled: u64,
    /// The manifest: the bytes are manifest chunks.
    pub manifest: Content,
    /// Every pack that holds a chunk of this revision, those of the manifest included.
    pub packs: Vec<PackInfo>,
}

/// A revision as it stands in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    id: RevisionId,
    workspace: WorkspaceName,
    session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<RevisionId>,
    created: jiff::Timestamp,
    source: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    counts: RevisionCounts,
    #[serde(default)]
    unsettled: u64,
    manifest_level: u8,
    manifest: Vec<(ChunkId, u32)>,
    packs: Vec<PackRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PackRecord {
    key: String,
    size: u64,
    table_length: u32,
}

/// The first line of a record.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    kind: String,
    version: u32,
    sha256: Sha256Digest,
}

impl Revision {
    /// Returns its key, `rev/<workspace>/<id>.<session>`.
    ///
    /// # Errors
    ///
    /// Never, for the names and ids that there are.
    pub fn key(&self) -> Result<Key, StoreError> {
        Ok(Key::new(format!("rev/{}/{}.{}", self.workspace, self.id, self.session))?)
    }

    /// Returns the record's bytes: a line with the kind, the version and the SHA-256 of what follows, and the record as JSON.
    ///
    /// # Errors
    ///
    /// Fails where it is longer than a reader takes, and where a pack's key is none, which never is.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let packs = self.packs.iter().map(|info| {
            let key = info.pack.key().map_err(io::Error::other)?.to_string();
            Ok(PackRecord { key, size: info.size, table_length: info.table_length })
        });
        let record = Record {
            id: self.id,
            workspace: self.workspace.clone(),
            session: self.session,
            parent: self.parent,
            created: self.created,
            source: self.source.clone(),
            labels: self.labels.clone(),
            counts: self.counts,
            unsettled: self.unsettled,
            manifest_level: self.manifest.level,
            manifest: self.manifest.refs.iter().map(|reference| (reference.id, reference.length)).collect(),
            packs: packs.collect::<io::Result<_>>()?,
        };
        let body = serde_json::to_vec(&record)?;
        let heading =
            Heading { kind: "kiln-revision".into(), version: VERSION, sha256: Sha256Digest::of(&body) };
        let mut bytes = serde_json::to_vec(&heading)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        if bytes.len() as u64 > small::LIST_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names more packs than a record may"));
        }
        Ok(bytes)
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// Fails where a byte is not what was written, and on a version that this program does not know.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let line = memchr::memchr(b'\n', bytes).ok_or_else(|| broken("it has no heading"))?;
        let (heading, body) = bytes.split_at(line);
        let heading: Heading = serde_json::from_slice(heading)?;
        if heading.kind != "kiln-revision" {
            return Err(broken("it is no revision"));
        }
        if heading.version > VERSION {
            return Err(broken("its version is newer than this program"));
        }
        if heading.version == 0 {
            return Err(broken("its version is none"));
        }
        let body = body.strip_prefix(b"\n").and_then(|body| body.strip_suffix(b"\n"));
        let body = body.ok_or_else(|| broken("it ends too early"))?;
        if Sha256Digest::of(body) != heading.sha256 {
            return Err(broken("its digest does not match"));
        }
        let record: Record = serde_json::from_slice(body)?;
        if record.manifest_level > Content::MAX_LEVEL {
            return Err(broken("its lists are nested too deep"));
        }
        let packs = record.packs.iter().map(|pack| {
            let key = Key::new(pack.key.clone()).ok().and_then(|key| PackName::of_key(&key));
            let name = key.ok_or_else(|| broken("it names a pack by what is no key of one"))?;
            Ok(PackInfo { pack: name, size: pack.size, table_length: pack.table_length })
        });
        let manifest = Content {
            level: record.manifest_level,
            refs: record.manifest.into_iter().map(|(id, length)| ChunkRef { id, length }).collect(),
        };
        check_lengths(&manifest)?;
        Ok(Self {
            packs: packs.collect::<io::Result<_>>()?,
            id: record.id,
            workspace: record.workspace,
            session: record.session,
            parent: record.parent,
            created: record.created,
            source: record.source,
            labels: record.labels,
            counts: record.counts,
            unsettled: record.unsettled,
            manifest,
        })
    }
}

/// A revision as a listing of keys shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevisionRef {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The revision.
    pub id: RevisionId,
    /// The session that saved it.
    pub session: SessionId,
}

impl RevisionRef {
    /// Returns its key.
    ///
    /// # Errors
    ///
    /// Never, for the names and ids that there are.
    pub fn key(&self) -> Result<Key, StoreError> {
        Ok(Key::new(format!("rev/{}/{}.{}", self.workspace, self.id, self.session))?)
    }

    /// Reads a key.
    #[must_use]
    pub fn of_key(key: &Key) -> Option<Self> {
        let mut segments = key.segments();
        if segments.next()? != "rev" {
            return None;
        }
        let workspace = segments.next()?.parse().ok()?;
        let (id, session) = segments.next()?.split_once('.')?;
        let found = Self { workspace, id: id.parse().ok()?, session: session.parse().ok()? };
        segments.next().is_none().then_some(found)
    }
}

/// What stands in `removed/<workspace>/<revision>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Version of this object.
    pub version: u32,
    /// When it was removed, by the clock of whoever did. The grace of a collector counts from here.
    pub removed: jiff::Timestamp,
}

/// Returns the key of a revision's tombstone.
///
/// # Errors
///
/// Never, for the names and ids that there are.
pub fn tombstone_key(revision: &RevisionRef) -> Result<Key, StoreError> {
    Ok(Key::new(format!("removed/{}/{}", revision.workspace, revision.id))?)
}

/// Lists the revisions that count, sorted by workspace and id: of one workspace or of all, without those that were removed or that
/// a collector refused.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn list(
    objects: &dyn ObjectStore,
    workspace: Option<&WorkspaceName>,
) -> Result<Vec<RevisionRef>, StoreError> {
    let below = |top: &str| match workspace {
        Some(name) => Prefix::new(format!("{top}/{name}")),
        None => Prefix::new(top),
    };
    let listed = objects.list(&below("rev")?).await?;
    let removed: BTreeSet<(String, String)> = objects
        .list(&below("removed")?)
        .await?
        .into_iter()
        .filter_map(|object| {
            let mut segments = object.key.segments().skip(1);
            Some((segments.next()?.to_owned(), segments.next()?.to_owned()))
        })
        .collect();
    let mut found: Vec<RevisionRef> =
        listed.iter().filter_map(|object| RevisionRef::of_key(&object.key)).collect();
    found.retain(|revision| !removed.contains(&(revision.workspace.to_string(), revision.id.to_string())));
    let evictions = evictions(objects, &found.iter().map(|revision| revision.session).collect()).await?;
    found.retain(|revision| match revision.key() {
        Ok(key) => evictions.revision_counts(revision.session, key.as_str()),
        Err(_never) => false,
    });
    found.sort();
    Ok(found)
}

/// Returns the highest id of a workspace's revisions, those included that were removed or do not count: a new one has to be later.
///
/// # Errors
///
/// Fails where the store does not answer.
pub async fn newest_key(
    objects: &dyn ObjectStore,
    workspace: &WorkspaceName,
) -> Result<Option<RevisionId>, StoreError> {
    let listed = objects.list(&Prefix::new(format!("rev/{workspace}"))?).await?;
    Ok(listed.iter().filter_map(|object| RevisionRef::of_key(&object.key)).map(|revision| revision.id).max())
}

/// Reads a revision's record; `None` when it is not there.
///
/// # Errors
///
/// Fails where the store does not answer, and on a record that is not what was written.
pub async fn read(objects: &dyn ObjectStore, revision: &RevisionRef) -> Result<Option<Revision>, StoreError> {
    let key = revision.key()?;
    let Some(bytes) = small::read(objects, &key, small::LIST_BYTES).await? else { return Ok(None) };
    let damaged = |source| StoreError::Damaged { key: key.to_string(), store: objects.place(), source };
    let read = Revision::decode(&bytes).map_err(damaged)?;
    if read.key()? != key {
        return Err(damaged(broken("it is another revision's record")));
    }
    Ok(Some(read))
}
