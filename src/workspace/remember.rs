//! What a restore remembers of the directory that it made, so that the next save need not read it.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::depot::Depot;
use super::state::{Known, StateKey, StateWriter};
use super::tree::{SourceTree, Stat, WalkItem, WalkOptions, walk};
use crate::base::RevisionId;
use crate::store::manifest::decode_chunk;
use crate::store::pack::{PackInfo, PackName};
use crate::store::revision::Revision;
use crate::store::{ChunkRef, Entry, EntryKind, EntryPath, FileTime};

/// A revision's manifest, kept until the directory stands under its name: its chunks as bytes.
#[derive(Debug)]
pub(super) struct Memory {
    revision: RevisionId,
    packs: Vec<PackInfo>,
    blocks: Vec<(ChunkRef, bytes::Bytes)>,
    bytes: usize,
    numbers: HashMap<PackName, u32>,
    /// The packs of all files, one file behind the other, and where each file's end.
    file_packs: Vec<u32>,
    file_ends: Vec<usize>,
    is_known: bool,
}

/// By what one sees that an entry is as it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    ctime: FileTime,
    ino: u64,
    dev: u64,
}

impl Seen {
    /// An entry that is not there yet: no inode has this number.
    pub(super) const NOTHING: Self = Self { ctime: FileTime { seconds: 0, nanoseconds: 0 }, ino: 0, dev: 0 };

    /// What the kernel says of an entry.
    pub(super) fn of(stat: &Stat) -> Self {
        Self { ctime: stat.ctime, ino: stat.ino, dev: stat.dev }
    }

    fn known(self, packs: Vec<u32>) -> Known {
        Known { ctime: self.ctime, ino: self.ino, dev: self.dev, packs }
    }
}

/// Above this many bytes of manifest nothing is remembered: the next save reads the files.
const MOST_BYTES: usize = 32 << 20;

impl Memory {
    /// Begins to remember a revision.
    pub(super) fn new(record: &Revision) -> Self {
        Self {
            revision: record.id,
            packs: record.packs.clone(),
            blocks: Vec::new(),
            bytes: 0,
            numbers: record.packs.iter().map(|info| info.pack).zip(0..).collect(),
            file_packs: Vec::new(),
            file_ends: Vec::new(),
            is_known: true,
        }
    }

    /// Returns whether the revision names all these packs.
    pub(super) fn names_all(&self, packs: &[PackName]) -> bool {
        packs.iter().all(|pack| self.numbers.contains_key(pack))
    }

    /// Takes the packs of the next file, as often as they come; `None` for one that is not known gives the memory up.
    pub(super) fn file(&mut self, packs: impl Iterator<Item = Option<PackName>>) {
        let start = self.file_packs.len();
        for pack in packs {
            match pack.and_then(|pack| self.numbers.get(&pack)) {
                Some(number) => {
                    let is_there = self.file_packs.get(start..).is_some_and(|packs| packs.contains(number));
                    if !is_there {
                        self.file_packs.push(*number);
                    }
                }
                None => self.is_known = false,
            }
        }
        self.file_ends.push(self.file_packs.len());
    }

    /// Takes the next chunk of the manifest.
    pub(super) fn block(&mut self, chunk: ChunkRef, bytes: &bytes::Bytes) {
        self.bytes += bytes.len();
        if self.bytes <= MOST_BYTES {
            self.blocks.push((chunk, bytes.clone()));
        } else {
            self.blocks.clear();
        }
    }

    /// Writes the state of a restored directory. What goes wrong here only costs the next save time.
    ///
    /// `seen` is what the kernel said of the entries when they were done; without it they are looked at. `time` is the file
    /// system's clock when others could not have changed yet what is remembered: what changed later is read.
    pub(super) fn write(
        self,
        depot: &Depot,
        directory: &Path,
        time: FileTime,
        mut seen: HashMap<EntryPath, Seen>,
    ) -> bool {
        let mut look = || {
            let tree = SourceTree::open(directory)?;
            let root = tree.root_stat()?;
            if seen.is_empty() {
                let mut items =
                    walk(&tree, WalkOptions { threads: 2, excludes: None, one_file_system: false });
                return self
                    .try_write(depot, &root, time, &mut |entry, packs| look(&mut items, entry, packs));
            }
            // The root got its name after it was done.
            seen.insert(EntryPath::root(), Seen::of(&root));
            self.try_write(depot, &root, time, &mut |entry, packs| {
                Ok(seen.get(&entry.path).copied().unwrap_or(Seen::NOTHING).known(packs))
            })
        };
        self.is_of_use() && look().is_ok()
    }

    /// Writes the state of a directory whose entries were looked at before: `seen` has them in the manifest's order. `time` is
    /// from before the first look. An entry that was changed after it was looked at is not what `seen` says, and is read.
    pub(super) fn write_seen(self, depot: &Depot, root: &Stat, time: FileTime, seen: &[Seen]) -> bool {
        let mut seen = seen.iter();
        let mut look = |_: &Entry, packs| match seen.next() {
            Some(seen) => Ok(seen.known(packs)),
            None => Err(io::Error::other("an entry was not looked at")),
        };
        self.is_of_use() && self.try_write(depot, root, time, &mut look).is_ok()
    }

    fn is_of_use(&self) -> bool {
        self.is_known && self.bytes <= MOST_BYTES
    }

    fn try_write(
        &self,
        depot: &Depot,
        root: &Stat,
        time: FileTime,
        look: &mut dyn FnMut(&Entry, Vec<u32>) -> io::Result<Known>,
    ) -> io::Result<()> {
        let key = StateKey { store: depot.store, dev: root.dev, ino: root.ino };
        let mut state = StateWriter::begin(key.path(&depot.state_dir), &key, time)?;
        let mut files = 0;
        let last = self.blocks.len().saturating_sub(1);
        for (at, (chunk, bytes)) in self.blocks.iter().enumerate() {
            let entries = decode_chunk(bytes)?;
            let mut known = Vec::with_capacity(entries.len());
            for entry in &entries {
                let packs = match entry.kind {
                    EntryKind::File { .. } => {
                        files += 1;
                        self.packs_of(files - 1)
                    }
                    _ => Vec::new(),
                };
                known.push(look(entry, packs)?);
            }
            state.push(*chunk, bytes, at != last, &known)?;
        }
        state.finish(self.revision, &self.packs)
    }

    fn packs_of(&self, file: usize) -> Vec<u32> {
        let start = file.checked_sub(1).and_then(|before| self.file_ends.get(before)).copied().unwrap_or(0);
        let end = self.file_ends.get(file).copied().unwrap_or(start);
        self.file_packs.get(start..end).unwrap_or_default().to_vec()
    }
}

fn look(items: &mut impl Iterator<Item = WalkItem>, entry: &Entry, packs: Vec<u32>) -> io::Result<Known> {
    match items.next() {
        Some(WalkItem::Found(found)) if found.path == entry.path => Ok(Known::of(&found.stat, packs)),
        Some(WalkItem::Found(_) | WalkItem::Problem { .. }) | None => {
            Err(io::Error::other("the directory is not what was restored"))
        }
    }
}
