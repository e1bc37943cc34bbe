//! Saving an archive as a revision: the tree that it would make.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::ops::Bound;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::archive::{ArchiveEnd, ArchiveError, ArchiveLimits, read_archive};
use super::commit::{Made, commit, give_up};
use super::contents::{Job, Outcome, PIECE_BYTES, Pipeline, Stored, lengths_of};
use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::save::{PathNotes, SaveReport, SaveSpec, blocking, unless_cancelled, uploaded};
use super::stage::{Draft, Stage, Staged};
use super::tree::Excludes;
use crate::base::{ByteSize, Monotonic, Sink};
use crate::store::session::Session;
use crate::store::writer::ChunkWriter;
use crate::store::{Attributes, ChunkRef, Entry, EntryKind, EntryPath, StoreError};

/// Saves a tar stream, plain or compressed with gzip or zstd, as a new revision: the tree that unpacking it into an empty directory
/// would make, with the last of several entries of one name. Nothing is unpacked, and no temporary copy is made of it.
///
/// Memory grows with the number of entries, by some 300 bytes each.
///
/// # Errors
///
/// As [`save`](fn@super::save), and where the archive is refused: it is damaged or cut off, leads out of the tree, or breaks a limit.
pub async fn save_archive(
    depot: &Depot,
    stream: Box<dyn Read + Send>,
    source: String,
    spec: &SaveSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<SaveReport, WorkspaceError> {
    let clock = Monotonic::start();
    let excludes = if spec.excludes.is_empty() { None } else { Some(Excludes::new(&spec.excludes)?) };
    let session = Session::open(Arc::clone(&depot.objects), "save").await?;
    let view = match session.view(&depot.index_cache()).await {
        Ok(view) => view,
        Err(error) => {
            session.abandon().await;
            return Err(error.into());
        }
    };
    let writer = Arc::new(ChunkWriter::new(&session, view, depot.quota_bytes));
    sink.emit(WorkspaceEvent::Began {
        job: "save",
        name: spec.workspace.to_string(),
        files: None,
        bytes: None,
    });
    let (packing, packing_spec, packing_cancel) = (Arc::clone(&writer), spec.clone(), cancel.clone());
    let unpacked = blocking(move || {
        Unpacking::start(&packing, &packing_spec, excludes, sink, packing_cancel)?.run(stream, &packing_spec)
    });
    let unpacked = unpacked.await.and_then(|unpacked| unpacked);
    let draft = match unless_cancelled(uploaded(&writer, unpacked, cancel).await, cancel) {
        Ok(draft) => draft,
        Err(error) => {
            give_up(session, &writer).await;
            return Err(error);
        }
    };
    let made = Made {
        workspace: spec.workspace.clone(),
        labels: spec.labels.clone(),
        source,
        draft,
        unsettled: 0,
        parent: None,
    };
    let committed = commit(depot, session, Arc::clone(&writer), made, None).await?;
    Ok(SaveReport {
        revision: committed.id,
        workspace: spec.workspace.clone(),
        parent: committed.parent,
        counts: committed.counts,
        written: writer.written(),
        unsettled: PathNotes::default(),
        unreadable: PathNotes::default(),
        took: clock.elapsed(),
    })
}

/// Most bytes of names, attributes and lists of chunks, which are kept until the archive ends because its entries come in any order.
/// Enough for some seven million small files.
const MOST_HELD: u64 = 2 << 30;
/// What an entry costs beside its names and attributes, in bytes.
const ENTRY_COST: usize = 200;

/// Something that one or more names lead to.
#[derive(Debug)]
struct Inode {
    kind: EntryKind,
    attributes: Attributes,
    stored: Stored,
}

/// An archive on its way into the store.
struct Unpacking {
    writer: Arc<ChunkWriter>,
    pipeline: Pipeline,
    excludes: Option<Excludes>,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: CancellationToken,
    inodes: Vec<Inode>,
    names: BTreeMap<EntryPath, usize>,
    /// The chunks that wait to be given as one job.
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    /// For each run of chunks that was given, or waits: the inode and how many.
    owners: VecDeque<(usize, usize)>,
    told: Monotonic,
    data_bytes: u64,
    /// About how many bytes of memory the entries take.
    held: u64,
    most_held: u64,
}

impl Unpacking {
    fn start(
        writer: &Arc<ChunkWriter>,
        spec: &SaveSpec,
        excludes: Option<Excludes>,
        sink: Arc<dyn Sink<WorkspaceEvent>>,
        cancel: CancellationToken,
    ) -> Result<Self, WorkspaceError> {
        let pipeline = Pipeline::start(writer, None, spec.zstd_level, spec.threads(), &cancel)
            .map_err(|source| StoreError::Local { action: "start reading", source })?;
        Ok(Self {
            writer: Arc::clone(writer),
            pipeline,
            excludes,
            sink,
            cancel,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            bytes: Vec::new(),
            lengths: Vec::new(),
            owners: VecDeque::new(),
            told: Monotonic::start(),
            data_bytes: 0,
            held: 0,
            most_held: MOST_HELD,
        })
    }

    fn run(mut self, stream: Box<dyn Read + Send>, spec: &SaveSpec) -> Result<Draft, WorkspaceError> {
        let limits = ArchiveLimits {
            max_entries: spec.max_entries.unwrap_or(u64::MAX),
            max_bytes: spec.max_bytes.unwrap_or(u64::MAX),
            ..ArchiveLimits::default()
        };
        let summary = read_archive(stream, limits, &mut |archived| self.take(archived.entry, archived.data))?;
        if summary.end == ArchiveEnd::Unmarked {
            let message = "the archive has no end marker: it may have been cut off".to_owned();
            self.sink.emit(WorkspaceEvent::Warning { message });
        }
        if summary.absolute_names > 0 {
            let message = format!("{} names began with `/`, which was taken away", summary.absolute_names);
            self.sink.emit(WorkspaceEvent::Warning { message });
        }
        self.give()?;
        while let Some((_, outcome)) = self.pipeline.next()? {
            self.note(outcome);
        }
        if self.cancel.is_cancelled() {
            return Err(WorkspaceError::Cancelled);
        }
        self.record()
    }

    fn take(&mut self, entry: Entry, data: &mut dyn Read) -> Result<(), WorkspaceError> {
        if self.cancel.is_cancelled() {
            return Err(WorkspaceError::Cancelled);
        }
        let Entry { path, kind, attributes } = entry;
        if self.is_excluded(&path, matches!(kind, EntryKind::Directory)) {
            return Ok(());
        }
        if let Some(problem) = cannot_be_made(&kind) {
            return Err(refused(&path, problem));
        }
        self.make_parents(&path, &attributes)?;
        if let EntryKind::HardLink { target } = &kind {
            let inode = match self.names.get(target) {
                Some(inode) if !self.is_directory(*inode) => *inode,
                // A link to what was left out has nothing to be a name of.
                None if self.is_excluded(target, false) => return Ok(()),
                Some(_) => return Err(refused(&path, "it is a hard link to a directory")),
                None => return Err(refused(&path, "it is a hard link to what did not come before it")),
            };
            self.hold(&path, None)?;
            return self.name(path, inode);
        }
        let is_file = matches!(kind, EntryKind::File { .. });
        self.hold(&path, Some((&kind, &attributes)))?;
        let inode = self.inodes.len();
        self.inodes.push(Inode { kind, attributes, stored: Stored::default() });
        self.name(path, inode)?;
        if is_file { self.read(inode, data) } else { Ok(()) }
    }

    /// Counts what an entry takes of the memory.
    fn hold(
        &mut self,
        path: &EntryPath,
        entry: Option<(&EntryKind, &Attributes)>,
    ) -> Result<(), WorkspaceError> {
        let beside = entry.map_or(0, |(kind, attributes)| {
            let xattrs = attributes.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 64);
            let of_kind = match kind {
                EntryKind::Symlink { target } => target.len(),
                EntryKind::File { extents, .. } => extents.as_ref().map_or(0, |extents| extents.len() * 16),
                _ => 0,
            };
            xattrs.sum::<usize>() + of_kind + attributes.owner.user.len() + attributes.owner.group.len()
        });
        self.take_memory(path.as_bytes().len() + ENTRY_COST + beside)
    }

    fn take_memory(&mut self, bytes: usize) -> Result<(), WorkspaceError> {
        self.held += bytes as u64;
        if self.held <= self.most_held {
            return Ok(());
        }
        let limit = format!(
            "{} of names, attributes and lists of chunks, which an archive's save keeps in memory; a directory's does not",
            ByteSize(self.most_held)
        );
        Err(WorkspaceError::TooLarge { limit })
    }

    /// Whether a path, or a directory that it lies in, is left out.
    fn is_excluded(&self, path: &EntryPath, is_directory: bool) -> bool {
        let Some(excludes) = &self.excludes else { return false };
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            if excludes.is_excluded(&directory, true) {
                return true;
            }
            above = directory.parent();
        }
        excludes.is_excluded(path, is_directory)
    }

    fn is_directory(&self, inode: usize) -> bool {
        self.inodes.get(inode).is_some_and(|inode| matches!(inode.kind, EntryKind::Directory))
    }

    /// Makes the directories above a path that had no entry. What is no directory stays in the way: an archive that puts something
    /// behind a symbolic link means harm, or lost a directory.
    fn make_parents(&mut self, path: &EntryPath, attributes: &Attributes) -> Result<(), WorkspaceError> {
        let mut above = path.parent();
        while let Some(directory) = above {
            match self.names.get(&directory) {
                Some(inode) if self.is_directory(*inode) => return Ok(()),
                Some(_) => return Err(refused(path, "what it lies in is not a directory")),
                None => {}
            }
            self.hold(&directory, None)?;
            let attributes = Attributes {
                mode: 0o755,
                owner: attributes.owner.clone(),
                mtime: attributes.mtime,
                xattrs: Vec::new(),
            };
            above = directory.parent();
            self.names.insert(directory, self.inodes.len());
            self.inodes.push(Inode { kind: EntryKind::Directory, attributes, stored: Stored::default() });
        }
        Ok(())
    }

    /// Gives an inode a name, which the last one to come has.
    fn name(&mut self, path: EntryPath, inode: usize) -> Result<(), WorkspaceError> {
        if !self.is_directory(inode) {
            if path.is_root() {
                return Err(refused(&path, "the root is not a directory"));
            }
            if self.names.get(&path).is_some_and(|old| self.is_directory(*old)) {
                let below: Vec<EntryPath> = self
                    .names
                    .range((Bound::Excluded(&path), Bound::Unbounded))
                    .take_while(|(name, _)| name.is_within(&path))
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in below {
                    self.names.remove(&name);
                }
            }
        }
        self.names.insert(path, inode);
        Ok(())
    }

    fn read(&mut self, inode: usize, data: &mut dyn Read) -> Result<(), WorkspaceError> {
        let mut window = Vec::new();
        let mut is_whole = true;
        loop {
            let room = (PIECE_BYTES - window.len()) as u64;
            let failed = |source: std::io::Error| match source.downcast::<ArchiveError>() {
                Ok(error) => WorkspaceError::Archive(error),
                Err(source) => WorkspaceError::Archive(ArchiveError::Read(source)),
            };
            let got = (&mut *data).take(room).read_to_end(&mut window).map_err(failed)? as u64;
            self.data_bytes += got;
            let is_end = got < room;
            let lengths = lengths_of(&window, is_end, is_whole);
            is_whole = false;
            let end: usize = lengths.iter().sum();
            let rest = window.split_off(end.min(window.len()));
            self.add(inode, &window, lengths)?;
            window = rest;
            self.tell();
            if is_end {
                return Ok(());
            }
        }
    }

    fn add(&mut self, inode: usize, bytes: &[u8], lengths: Vec<usize>) -> Result<(), WorkspaceError> {
        if lengths.is_empty() {
            return Ok(());
        }
        if self.bytes.len() + bytes.len() > PIECE_BYTES {
            self.give()?;
        }
        self.take_memory(lengths.len() * size_of::<ChunkRef>())?;
        self.owners.push_back((inode, lengths.len()));
        self.bytes.extend_from_slice(bytes);
        self.lengths.extend(lengths);
        while let Some((_, outcome)) = self.pipeline.try_next()? {
            self.note(outcome);
        }
        Ok(())
    }

    fn give(&mut self) -> Result<(), WorkspaceError> {
        if !self.lengths.is_empty() {
            let (bytes, lengths) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.lengths));
            self.pipeline.give(Job::Piece { bytes, lengths })?;
        }
        Ok(())
    }

    /// Hands the chunks of a job to the inodes that they are of. Jobs end in the order in which they were given.
    fn note(&mut self, outcome: Outcome) {
        let Outcome::Piece(piece) = outcome else { return };
        let mut refs = piece.refs.into_iter();
        while refs.len() > 0 {
            let Some((inode, count)) = self.owners.pop_front() else { return };
            if let Some(inode) = self.inodes.get_mut(inode) {
                inode.stored.refs.extend(refs.by_ref().take(count));
            }
        }
    }

    /// Writes the manifest.
    fn record(self) -> Result<Draft, WorkspaceError> {
        let Self { writer, mut pipeline, mut inodes, mut names, sink, .. } = self;
        sink.emit(WorkspaceEvent::Step { name: "uploading" });
        let starting = |source| StoreError::Local { action: "start the manifest", source };
        let mut stage = Stage::new(Arc::clone(&writer), None).map_err(starting)?;
        names.entry(EntryPath::root()).or_insert_with(|| {
            let attributes = Attributes { mode: 0o755, ..Attributes::default() };
            inodes.push(Inode { kind: EntryKind::Directory, attributes, stored: Stored::default() });
            inodes.len() - 1
        });
        let mut first_names: BTreeMap<usize, EntryPath> = BTreeMap::new();
        for (path, number) in names {
            let Some(inode) = inodes.get_mut(number) else { continue };
            let attributes = inode.attributes.clone();
            if let Some(target) = first_names.get(&number) {
                let kind = EntryKind::HardLink { target: target.clone() };
                let entry = Entry { path, kind, attributes };
                stage.push(Staged { entry, known: None, packs: Vec::new(), origin: None })?;
                continue;
            }
            first_names.insert(number, path.clone());
            let mut stored = std::mem::take(&mut inode.stored);
            stored.pending = stored.refs.iter().map(|chunk| chunk.id).collect();
            pipeline.settle(&mut stored)?;
            let mut packs = stored.packs;
            let kind = match &inode.kind {
                EntryKind::File { size, extents, .. } => {
                    let (content, lists) = stage.content(stored.refs)?;
                    packs.extend(lists);
                    EntryKind::File { size: *size, content, extents: extents.clone() }
                }
                kind => kind.clone(),
            };
            let entry = Entry { path, kind, attributes };
            stage.push(Staged { entry, known: None, packs, origin: None })?;
        }
        drop(pipeline);
        let (draft, _state) = stage.finish()?;
        Ok(draft)
    }

    fn tell(&mut self) {
        if self.told.elapsed().as_millis() >= 100 {
            self.told = Monotonic::start();
            let moved_bytes = self.writer.written().new_bytes;
            let files = self.names.len() as u64;
            self.sink.emit(WorkspaceEvent::Progress { files, bytes: self.data_bytes, moved_bytes });
        }
    }
}

/// A symbolic link's target ends before this many bytes: Linux takes no longer one, its closing NUL included.
const TARGET_END: usize = 4096;

/// Returns why Linux cannot make what an entry asks for, if it cannot: a restore of it would fail.
fn cannot_be_made(kind: &EntryKind) -> Option<&'static str> {
    match kind {
        EntryKind::Symlink { target } if target.len() >= TARGET_END => {
            Some("its target is longer than a symbolic link's may be")
        }
        EntryKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
            Some("its target cannot be one")
        }
        // The kernel has 12 bits for the one and 20 for the other, and drops the rest without a word.
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor }
            if *major >= 1 << 12 || *minor >= 1 << 20 =>
        {
            Some("its device number is out of range")
        }
        EntryKind::Symlink { .. }
        | EntryKind::CharDevice { .. }
        | EntryKind::BlockDevice { .. }
        | EntryKind::Directory
        | EntryKind::File { .. }
        | EntryKind::HardLink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket => None,
    }
}

fn refused(path: &EntryPath, problem: &str) -> WorkspaceError {
    WorkspaceError::Archive(ArchiveError::Path { place: format!("`{path}`"), problem: problem.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::base::{Classify as _, Discard, ErrorKind};
    use crate::workspace::tests::Place;

    /// An archive as a hostile one: every entry costs a few bytes of it, and much memory.
    fn archive(fill: impl Fn(&mut tar::Builder<Vec<u8>>, u32)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        (0..400).for_each(|number| fill(&mut builder, number));
        builder.into_inner().unwrap()
    }

    fn header(size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    /// Such an archive was once saved, and no restore of it succeeded.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_that_linux_cannot_make_is_refused_by_name() {
        let place = Place::new();
        let spec = SaveSpec::new("w".parse().unwrap());
        let cases: [(&str, tar::EntryType, usize, u32); 5] = [
            ("fits", tar::EntryType::Symlink, 4095, 0),
            ("long-link", tar::EntryType::Symlink, 4096, 0),
            ("device", tar::EntryType::Char, 0, 1 << 12),
            (&"n".repeat(255), tar::EntryType::Regular, 0, 0),
            (&"n".repeat(256), tar::EntryType::Regular, 0, 0),
        ];
        for (at, (name, kind, target, major)) in cases.into_iter().enumerate() {
            let mut builder = tar::Builder::new(Vec::new());
            let target = "t".repeat(target);
            let records = [("path", name.as_bytes()), ("linkpath", target.as_bytes())];
            builder
                .append_pax_extensions(records.into_iter().filter(|(_, value)| !value.is_empty()))
                .unwrap();
            let mut header = header(0);
            header.set_entry_type(kind);
            header.set_path("short").unwrap();
            if kind == tar::EntryType::Char {
                header.set_device_major(major).unwrap();
                header.set_device_minor(0).unwrap();
            }
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
            let stream = Box::new(io::Cursor::new(builder.into_inner().unwrap()));
            let (sink, cancel) = (Arc::new(Discard), CancellationToken::new());
            let saved = save_archive(&place.depot, stream, "a test".into(), &spec, sink, &cancel).await;
            if at == 0 || at == 3 {
                saved.unwrap();
                let back = format!("back-{at}");
                place.try_restore(&back, &crate::workspace::RestoreSpec::default()).await.unwrap();
            } else {
                let error = saved.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                assert!(error.to_string().contains(&name[..name.len().min(20)]), "{error}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_archive_makes_us_keep_in_memory_is_bounded() {
        let place = Place::new();
        let session = Session::open(Arc::clone(&place.depot.objects), "save").await.unwrap();
        let view = session.view(&place.depot.index_cache()).await.unwrap();
        let writer = Arc::new(ChunkWriter::new(&session, view, None));
        let spec = SaveSpec::new("w".parse().unwrap());
        let zeros = vec![0; 1 << 20];
        let archives = [
            archive(|builder, number| {
                builder.append_data(&mut header(0), format!("file-{number}"), &[][..]).unwrap();
            }),
            archive(|builder, number| {
                let path = format!("{number}/{}", "d/".repeat(40));
                builder.append_data(&mut header(0), format!("{path}f"), &[][..]).unwrap();
            }),
            archive(|builder, number| {
                if number < 20 {
                    let value = vec![b'x'; 900_000];
                    builder.append_pax_extensions([("SCHILY.xattr.user.x", value.as_slice())]).unwrap();
                    builder.append_data(&mut header(0), format!("{number}"), &[][..]).unwrap();
                }
            }),
            archive(|builder, number| {
                if number == 0 {
                    builder.append_data(&mut header(64 << 20), "zeros", zeros.repeat(64).as_slice()).unwrap();
                }
            }),
        ];
        for (bytes, held) in archives.into_iter().zip([80_000, 1_000_000, 10_000_000, 2_000]) {
            for (most_held, is_enough) in [(held, false), (MOST_HELD, true)] {
                let (writer, spec, bytes) = (Arc::clone(&writer), spec.clone(), bytes.clone());
                let saved = blocking(move || {
                    let (sink, cancel) = (Arc::new(Discard), CancellationToken::new());
                    let mut unpacking = Unpacking::start(&writer, &spec, None, sink, cancel)?;
                    unpacking.most_held = most_held;
                    unpacking.run(Box::new(io::Cursor::new(bytes)), &spec)
                });
                match saved.await.unwrap() {
                    Ok(_) => assert!(is_enough, "{most_held}"),
                    Err(error) => {
                        assert_eq!((is_enough, error.kind()), (false, ErrorKind::Limit), "{error}");
                    }
                }
            }
        }
        session.abandon().await;
    }
}
