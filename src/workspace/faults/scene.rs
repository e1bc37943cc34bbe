//! A store whose luck is planned, hosts that use it, and what one sees of a directory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::base::{Discard, RevisionId, Sha256Digest, Sink, StoreId};
use crate::objects::{Key, ObjectInfo, ObjectStore, ObjectsError, Prefix, SimStore};
use crate::store::EntryPath;
use crate::store::revision::{self, RevisionRef};
use crate::workspace::state::{StateKey, StateReader};
use crate::workspace::tree::{RestoreRights, SourceTree, StatKind, WalkItem, WalkOptions, walk};
use crate::workspace::{
    Depot, RestoreReport, RestoreSpec, SaveReport, SaveSpec, UpdateReport, WorkspaceError, WorkspaceEvent,
    restore, save, save_archive, update,
};

/// What one sees of a directory, by path.
pub(super) type Look = BTreeMap<EntryPath, String>;

/// A store whose luck is planned, and a folder for everything else.
#[derive(Debug)]
pub(super) struct Scene {
    home: tempfile::TempDir,
    pub(super) sim: SimStore,
    store: StoreId,
    numbers: AtomicU64,
}

/// A process on some host that uses the store.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) depot: Depot,
}

impl Scene {
    pub(super) fn new(seed: u64) -> Self {
        Self::within(tempfile::tempdir().unwrap(), seed)
    }

    /// A scene whose folder is that one.
    pub(super) fn within(home: tempfile::TempDir, seed: u64) -> Self {
        Self { home, sim: SimStore::new(seed), store: StoreId::generate(), numbers: AtomicU64::new(0) }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Returns a name that was not used yet.
    pub(super) fn new_path(&self) -> PathBuf {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.path(&format!("new-{number}"))
    }

    /// Returns a process that acts under its host's name.
    pub(super) fn host(&self, name: &str) -> Host {
        self.host_on(name, Arc::new(self.sim.actor(name)))
    }

    /// Returns a process of a host that reaches the store in its own way.
    pub(super) fn host_on(&self, name: &str, objects: Arc<dyn ObjectStore>) -> Host {
        let depot = Depot {
            objects,
            store: self.store,
            quota_bytes: None,
            cache_dir: self.path(&format!("cache-{name}")),
            state_dir: self.path(&format!("state-{name}")),
        };
        Host { depot }
    }

    /// Returns a process of a host that was never seen before.
    pub(super) fn stranger(&self) -> Host {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.host(&format!("stranger-{number}"))
    }

    /// Checks that every acknowledged revision is visible and comes back as it was, and that whatever else is visible is one of
    /// `attempted`.
    pub(super) async fn verify(&self, acknowledged: &BTreeMap<RevisionId, Look>, attempted: &[&Look]) {
        let host = self.stranger();
        let visible = host.revisions().await;
        for id in acknowledged.keys() {
            assert!(visible.iter().any(|revision| revision.id == *id), "{id} is invisible");
        }
        for revision in visible {
            let target = self.new_path();
            host.restore(&revision, &target).await.unwrap_or_else(|error| panic!("{revision:?}: {error:?}"));
            let found = look(&target);
            match acknowledged.get(&revision.id) {
                Some(expected) => assert_same(&found, expected),
                None => assert!(attempted.contains(&&found), "{revision:?} is something else"),
            }
            fs::remove_dir_all(target).unwrap();
        }
    }

    /// Checks that nothing of an unfinished restore is left.
    pub(super) fn assert_no_leftovers(&self) {
        let left: Vec<_> =
            fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains(".restore-")), "{left:?}");
    }
}

pub(super) fn quiet() -> Arc<dyn Sink<WorkspaceEvent>> {
    Arc::new(Discard)
}

impl Host {
    pub(super) async fn save(&self, tree: &Path, workspace: &str) -> Result<SaveReport, WorkspaceError> {
        let spec = SaveSpec::new(workspace.parse().unwrap());
        save(&self.depot, tree, &spec, quiet(), &CancellationToken::new()).await
    }

    /// Saves what GNU tar makes of a tree.
    pub(super) async fn save_archive(
        &self,
        tree: &Path,
        workspace: &str,
    ) -> Result<SaveReport, WorkspaceError> {
        let output = std::process::Command::new("tar")
            .args(["--format=posix", "--sort=name", "-cf", "-", "-C"])
            .arg(tree)
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let stream = Box::new(std::io::Cursor::new(output.stdout));
        let spec = SaveSpec::new(workspace.parse().unwrap());
        save_archive(&self.depot, stream, "a test".into(), &spec, quiet(), &CancellationToken::new()).await
    }

    pub(super) async fn restore(
        &self,
        revision: &RevisionRef,
        target: &Path,
    ) -> Result<RestoreReport, WorkspaceError> {
        restore(&self.depot, revision, target, &everything(), quiet(), &CancellationToken::new()).await
    }

    pub(super) async fn update(
        &self,
        revision: &RevisionRef,
        target: &Path,
    ) -> Result<UpdateReport, WorkspaceError> {
        update(&self.depot, revision, target, &everything(), quiet(), &CancellationToken::new()).await
    }

    pub(super) async fn revisions(&self) -> Vec<RevisionRef> {
        revision::list(&*self.depot.objects, None).await.unwrap()
    }

    pub(super) async fn find(&self, id: RevisionId) -> RevisionRef {
        self.revisions().await.into_iter().find(|revision| revision.id == id).unwrap()
    }

    /// Returns what this host remembers of a directory: by path, whether it is of the entry as it is now.
    pub(super) fn known(&self, directory: &Path) -> BTreeMap<Vec<u8>, bool> {
        let tree = SourceTree::open(directory).unwrap();
        let root = tree.root_stat().unwrap();
        let key = StateKey { store: self.depot.store, dev: root.dev, ino: root.ino };
        let (mut reader, mut known) = (tree.reader(), BTreeMap::new());
        let mut state = StateReader::open(&key.path(&self.depot.state_dir), &key, None);
        while let Some(block) = state.as_mut().and_then(StateReader::next_block) {
            for (entry, noted) in block.entries().iter().zip(&block.known) {
                let stat = reader.stat(&entry.path).unwrap();
                let is_now = (noted.ctime, noted.ino, noted.dev) == (stat.ctime, stat.ino, stat.dev);
                known.insert(entry.path.as_bytes().to_vec(), is_now);
            }
        }
        known
    }

    /// Forgets what this host knows of directories.
    pub(super) fn forget_directories(&self) {
        if self.depot.state_dir.exists() {
            fs::remove_dir_all(&self.depot.state_dir).unwrap();
        }
    }
}

pub(super) fn everything() -> RestoreSpec {
    let rights = RestoreRights { owner: None, special_bits: true, devices: true, privileged_xattrs: true };
    // Looking whether all is well is not a use.
    RestoreSpec { rights, unnoted: true, ..RestoreSpec::default() }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Lets the file system's clock go on so far that what was written before may be trusted.
pub(super) fn let_times_settle() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

pub(super) fn write(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

/// A tree of every ordinary kind, whose content depends on a seed in part.
pub(super) fn plant(tree: &Path, seed: u64) {
    fs::create_dir_all(tree.join("a/deep/er")).unwrap();
    fs::create_dir_all(tree.join("empty")).unwrap();
    write(&tree.join("a/shared"), &noise(1, 70_000));
    write(&tree.join("a/own"), &noise(seed + 100, 50_000));
    write(&tree.join("a/deep/text"), "the same line again\n".repeat(4_000).as_bytes());
    write(&tree.join("a/deep/er/small"), format!("seed {seed}").as_bytes());
    write(&tree.join("nothing"), b"");
    std::os::unix::fs::symlink("../nowhere", tree.join("a/link")).unwrap();
    fs::hard_link(tree.join("a/shared"), tree.join("z")).unwrap();
}

/// Changes a planted tree a little.
pub(super) fn change(tree: &Path, seed: u64) {
    write(&tree.join("a/own"), &noise(seed + 1_000, 50_001));
    write(&tree.join(format!("new-{seed}")), &noise(seed + 2_000, 3_000));
    fs::remove_file(tree.join("a/deep/er/small")).unwrap();
    write(&tree.join("a/deep/er/small"), format!("changed {seed}").as_bytes());
}

/// Returns everything that one sees of a tree: kinds, modes, owners, times, attributes, links and contents. Sockets are left out.
pub(super) fn look(root: &Path) -> Look {
    let tree = SourceTree::open(root).unwrap();
    let mut reader = tree.reader();
    let (mut inodes, mut seen) = (HashMap::new(), Look::new());
    for item in walk(&tree, WalkOptions { threads: 1, excludes: None, one_file_system: false }) {
        let WalkItem::Found(found) = item else { panic!("{item:?}") };
        let (path, stat) = (found.path, found.stat);
        let content = match stat.kind {
            StatKind::Socket => continue,
            StatKind::File => {
                let mut content = Vec::new();
                reader.open_file(&path).unwrap().read_to_end(&mut content).unwrap();
                format!("{} bytes, {}", content.len(), Sha256Digest::of(&content))
            }
            StatKind::Symlink => reader.symlink_target(&path).unwrap().escape_ascii().to_string(),
            StatKind::CharDevice | StatKind::BlockDevice => format!("{:?}", stat.rdev),
            StatKind::Directory | StatKind::Fifo => String::new(),
        };
        let xattrs: Vec<String> = reader
            .xattrs(&path, stat.kind)
            .unwrap()
            .iter()
            .map(|xattr| format!("{}={}", xattr.name.escape_ascii(), xattr.value.escape_ascii()))
            .collect();
        let first = inodes.entry((stat.dev, stat.ino)).or_insert_with(|| path.clone()).to_string();
        let line = format!(
            "{:?} {:o} {}:{} {}.{:09} {first} {xattrs:?} {content}",
            stat.kind, stat.mode, stat.uid, stat.gid, stat.mtime.seconds, stat.mtime.nanoseconds
        );
        seen.insert(path, line);
    }
    seen
}

pub(super) fn assert_same(found: &Look, expected: &Look) {
    for (path, line) in expected {
        assert_eq!(found.get(path), Some(line), "{path}");
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{path} is too much");
    }
}

/// Returns the seeds that a test goes through: `few` of them, or as many as the environment variable `KILN_TEST_SEEDS` says.
#[expect(clippy::disallowed_methods, reason = "only tests look at this variable")]
pub(super) fn seeds(few: u64) -> RangeInclusive<u64> {
    1..=std::env::var("KILN_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}

/// A store of which one read fails, counted from the moment when it is made.
#[derive(Debug)]
pub(super) struct BadRead {
    inner: SimStore,
    left: AtomicI64,
}

impl BadRead {
    pub(super) fn new(inner: SimStore, nth: i64) -> Arc<Self> {
        Arc::new(Self { inner, left: AtomicI64::new(nth) })
    }

    /// Tells whether the read has failed already.
    pub(super) fn has_struck(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    fn strike(&self, action: &'static str, key: &str) -> Result<(), ObjectsError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return Ok(());
        }
        let source = std::io::ErrorKind::ConnectionReset.into();
        Err(ObjectsError::Io { action, key: key.to_owned(), store: self.place(), source })
    }
}

#[async_trait]
impl ObjectStore for BadRead {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), ObjectsError> {
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ObjectsError> {
        self.inner.put_file(key, path).await
    }

    fn spool_dir(&self) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ObjectsError> {
        self.strike("read", key.as_str())?;
        self.inner.get(key).await
    }

    async fn range(&self, key: &Key, offset: u64, length: u64) -> Result<Option<Bytes>, ObjectsError> {
        self.strike("read", key.as_str())?;
        self.inner.range(key, offset, length).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<ObjectInfo>, ObjectsError> {
        self.strike("list", prefix.as_str())?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), ObjectsError> {
        self.inner.delete(keys).await
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
