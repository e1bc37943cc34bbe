//! What differs between two revisions.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::depot::Depot;
use super::error::WorkspaceError;
use super::manifest::ManifestReader;
use crate::base::ChunkId;
use crate::store::fetch::Fetcher;
use crate::store::manifest::decode_chunk;
use crate::store::revision::Revision;
use crate::store::{Attributes, ChunkRef, Entry, EntryKind, EntryPath, StoreError};

/// What kind an entry is, without what belongs to the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KindName {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A further name of an entry.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An entry as one of the revisions has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub kind: KindName,
    /// The size of a file, holes included; 0 for everything else.
    pub size: u64,
    /// What it says beside its content.
    pub attributes: Attributes,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the newer revision has it.
    Added,
    /// Only the older one has it.
    Removed,
    /// Both have it.
    Changed {
        /// Whether it is of another kind.
        kind: bool,
        /// Whether a file's bytes, or a link's target, or a device's numbers are others.
        content: bool,
        /// Whether mode, owner, time or extended attributes are others.
        attributes: bool,
    },
}

/// An entry that differs. A further name of a file is compared by the name that it links to; what happened to the content is told of
/// the file's first name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where it is.
    pub path: EntryPath,
    /// What happened to it.
    pub change: Change,
    /// As the older revision has it.
    pub before: Option<Side>,
    /// As the newer revision has it.
    pub after: Option<Side>,
}

/// Compares two revisions, of one workspace or of two; returns what differs, in the order of paths. What both hold in the same
/// manifest chunks is not read.
///
/// # Errors
///
/// Fails where the store does not answer, and where a manifest is damaged or lost.
pub async fn diff(depot: &Depot, old: &Revision, new: &Revision) -> Result<Vec<Difference>, WorkspaceError> {
    let fetcher = depot.fetcher();
    let (old, new) = (ManifestReader::open(&fetcher, old).await?, ManifestReader::open(&fetcher, new).await?);
    let (in_old, in_new) = (ids_of(&old), ids_of(&new));
    let mut before = Walk::new(&fetcher, &old, &in_new);
    let mut after = Walk::new(&fetcher, &new, &in_old);
    let mut differences = Vec::new();
    loop {
        skip_shared(&mut before, &mut after);
        if before.skip_whole(&mut after) {
            continue;
        }
        before.fill().await?;
        if after.skip_whole(&mut before) {
            continue;
        }
        after.fill().await?;
        let order = match (before.entries.front(), after.entries.front()) {
            (None, None) => return Ok(differences),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.path.cmp(&after.path),
        };
        let gone = if order == Ordering::Greater { None } else { before.take() };
        let come = if order == Ordering::Less { None } else { after.take() };
        differences.extend(compare(gone, come));
    }
}

fn ids_of(manifest: &ManifestReader) -> HashSet<ChunkId> {
    manifest.refs().iter().map(|chunk| chunk.id).collect()
}

/// Passes by the chunks that both have next. Equal chunks hold the same whole paths, so they stand at the same place of the order in
/// both; nothing is skipped that the other has not.
fn skip_shared(before: &mut Walk<'_>, after: &mut Walk<'_>) {
    while before.entries.is_empty() && after.entries.is_empty() {
        match (before.peek(), after.peek()) {
            (Some(one), Some(other)) if one == other => {
                before.next += 1;
                after.next += 1;
            }
            _ => return,
        }
    }
}

/// A walk through one of the manifests.
struct Walk<'a> {
    fetcher: &'a Arc<Fetcher>,
    manifest: &'a ManifestReader,
    next: usize,
    /// The chunks that only this manifest has, in order, fetched ahead.
    own: BoxStream<'static, Result<Bytes, StoreError>>,
    others: &'a HashSet<ChunkId>,
    entries: VecDeque<Entry>,
    /// The chunk whose entries are all still in `entries`.
    whole: Option<ChunkId>,
}

impl<'a> Walk<'a> {
    fn new(fetcher: &'a Arc<Fetcher>, manifest: &'a ManifestReader, others: &'a HashSet<ChunkId>) -> Self {
        let own: Vec<ChunkRef> =
            manifest.refs().iter().copied().filter(|chunk| !others.contains(&chunk.id)).collect();
        Self {
            fetcher,
            manifest,
            next: 0,
            own: fetcher.in_order(manifest.locations(), &own).boxed(),
            others,
            entries: VecDeque::new(),
            whole: None,
        }
    }

    fn peek(&self) -> Option<ChunkId> {
        self.manifest.refs().get(self.next).map(|chunk| chunk.id)
    }

    fn take(&mut self) -> Option<Entry> {
        self.whole = None;
        self.entries.pop_front()
    }

    /// Passes by a chunk that is next here and that `other` has just read and not begun to compare.
    fn skip_whole(&mut self, other: &mut Self) -> bool {
        let is_shared = self.entries.is_empty() && other.whole.is_some() && other.whole == self.peek();
        if is_shared {
            self.next += 1;
            other.entries.clear();
            other.whole = None;
        }
        is_shared
    }

    /// Reads the next chunk where no entry is left.
    async fn fill(&mut self) -> Result<(), WorkspaceError> {
        while self.entries.is_empty() {
            let Some(id) = self.peek() else { return Ok(()) };
            let bytes = if self.others.contains(&id) {
                self.fetcher.chunk(self.manifest.locations(), id).await?
            } else {
                let lost = || StoreError::Lost { id, store: self.fetcher.objects().place() };
                self.own.try_next().await?.ok_or_else(lost)?
            };
            self.entries = decode_chunk(&bytes)
                .map_err(|source| StoreError::Damaged {
                    key: format!("manifest chunk {id}"),
                    store: self.fetcher.objects().place(),
                    source,
                })?
                .into();
            self.whole = Some(id);
            self.next += 1;
        }
        Ok(())
    }
}

/// Compares an entry of both revisions.
fn compare(before: Option<Entry>, after: Option<Entry>) -> Option<Difference> {
    let change = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(before), Some(after)) if before == after => return None,
        (Some(before), Some(after)) => Change::Changed {
            kind: KindName::of(&before.kind) != KindName::of(&after.kind),
            content: before.kind != after.kind,
            attributes: before.attributes != after.attributes,
        },
    };
    let path = before.as_ref().or(after.as_ref())?.path.clone();
    Some(Difference { path, change, before: before.map(Side::from), after: after.map(Side::from) })
}

impl KindName {
    /// Returns the kind's name.
    #[must_use]
    pub fn of(kind: &EntryKind) -> Self {
        match kind {
            EntryKind::Directory => Self::Directory,
            EntryKind::File { .. } => Self::File,
            EntryKind::Symlink { .. } => Self::Symlink,
            EntryKind::HardLink { .. } => Self::HardLink,
            EntryKind::CharDevice { .. } => Self::CharDevice,
            EntryKind::BlockDevice { .. } => Self::BlockDevice,
            EntryKind::Fifo => Self::Fifo,
            EntryKind::Socket => Self::Socket,
        }
    }
}

impl From<Entry> for Side {
    fn from(entry: Entry) -> Self {
        Self { kind: KindName::of(&entry.kind), size: entry.size(), attributes: entry.attributes }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::workspace::show;
    use crate::workspace::tests::Place;

    async fn saved(place: &Place) -> Revision {
        place.save("tree").await;
        show(&place.depot, &place.newest().await).await.unwrap()
    }

    fn told(differences: &[Difference]) -> Vec<String> {
        let letter = |difference: &Difference| match difference.change {
            Change::Added => "+".to_owned(),
            Change::Removed => "-".to_owned(),
            Change::Changed { kind, content, attributes } => {
                let letter = |is: bool, letter| if is { letter } else { "" };
                format!("{}{}{}", letter(kind, "k"), letter(content, "c"), letter(attributes, "a"))
            }
        };
        differences.iter().map(|it| format!("{} {}", letter(it), it.path)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_added_removed_and_changed_is_told_in_order() {
        let place = Place::new();
        for n in 0..3_000 {
            place.write(&format!("tree/d{:02}/file{n:04}", n / 100), format!("{n}"));
        }
        symlink("here", place.path("tree/link")).unwrap();
        let old = saved(&place).await;
        assert_eq!(diff(&place.depot, &old, &old).await.unwrap(), []);
        let keep = fs::metadata(place.path("tree/d05")).unwrap().modified().unwrap();
        place.write("tree/d05/file0555", "changed");
        fs::set_permissions(place.path("tree/d07/file0777"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(place.path("tree/d05/file0501")).unwrap();
        place.write("tree/d05/file0501/inner", "now a directory");
        fs::File::open(place.path("tree/d05")).unwrap().set_modified(keep).unwrap();
        let root = fs::metadata(place.path("tree")).unwrap().modified().unwrap();
        place.write("tree/new", "n");
        fs::remove_file(place.path("tree/link")).unwrap();
        symlink("there", place.path("tree/link")).unwrap();
        fs::remove_dir_all(place.path("tree/d29")).unwrap();
        fs::File::open(place.path("tree")).unwrap().set_modified(root).unwrap();
        let new = saved(&place).await;
        let all = told(&diff(&place.depot, &old, &new).await.unwrap());
        let (gone, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|line| line.contains("d29"));
        assert_eq!(
            other,
            [
                "kca d05/file0501",
                "+ d05/file0501/inner",
                "ca d05/file0555",
                "a d07/file0777",
                "ca link",
                "+ new"
            ]
        );
        assert_eq!((gone.len(), gone[0].as_str()), (101, "- d29"));
        let back = told(&diff(&place.depot, &new, &old).await.unwrap());
        assert_eq!(back.iter().filter(|line| line.starts_with("+ d29")).count(), 101);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_comparison_agrees_with_one_of_whole_lists() {
        let place = Place::new();
        let mut random = fastrand::Rng::with_seed(11);
        for n in 0..1_500 {
            place.write(&format!("tree/{:02}/some-longer-name-{n:05}", n % 40), format!("{n}"));
        }
        let mut revisions = vec![saved(&place).await];
        for round in 0..2 {
            for _ in 0..60 {
                let n = random.u32(0..1_500);
                let path = place.path(&format!("tree/{:02}/some-longer-name-{n:05}", n % 40));
                match random.u8(0..3) {
                    0 => drop(fs::remove_file(path)),
                    1 => drop(place.write(&format!("tree/{:02}/added-{round}-{n}", n % 40), "x")),
                    _ => drop(fs::File::create(path).unwrap()),
                }
            }
            revisions.push(saved(&place).await);
        }
        for old in &revisions {
            for new in &revisions {
                let read = async |revision: &Revision| -> Vec<Entry> {
                    crate::workspace::files(&place.depot, revision)
                        .await
                        .unwrap()
                        .try_collect()
                        .await
                        .unwrap()
                };
                let (before, after) = (read(old).await, read(new).await);
                let changed =
                    before.iter().filter(|entry| !after.contains(entry)).map(|entry| entry.path.clone());
                let come =
                    after.iter().filter(|entry| !before.contains(entry)).map(|entry| entry.path.clone());
                let mut expected: Vec<EntryPath> = changed.chain(come).collect();
                expected.sort();
                expected.dedup();
                let found = diff(&place.depot, old, new).await.unwrap();
                assert_eq!(found.into_iter().map(|it| it.path).collect::<Vec<_>>(), expected);
            }
        }
    }
}
