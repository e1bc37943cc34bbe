//! Restoring a revision as an archive: a canonical PAX stream, sorted by path.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::archive::{AclForm, ArchiveFormat, ArchiveWriter};
use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::manifest::{ManifestReader, chunks_of, wrong_length};
use super::mark::touch;
use super::restore::{Limits, Packs, RestoreReport, RestoreSpec, of_lost, read, rows};
use super::save::blocking;
use super::tree::{Includes, Inclusion, Names, OwnerRule, Shortfall, Shortfalls};
use crate::base::{Monotonic, Sink};
use crate::store::fetch::Fetcher;
use crate::store::revision::{RevisionCounts, RevisionRef};
use crate::store::{ChunkRef, Entry, EntryKind, EntryPath, StoreError};

/// Entries whose chunks are looked up together.
const WINDOW_ENTRIES: usize = 64 << 10;
/// Chunks of such a window.
const WINDOW_CHUNKS: usize = 64 << 10;
/// Pieces that wait for the writer of the stream: some 8 MiB at most.
const WAITING: usize = 32;

/// Writes a revision as an archive to `out`, entry by entry as it is fetched; every chunk is verified before it is written.
///
/// Of [`RestoreSpec::rights`] the owner counts. Setuid bits, devices and attributes stand in the archive as they were saved: whether
/// they are given is the reader's to say.
///
/// # Errors
///
/// Fails where a limit is exceeded, the store does not answer, anything is damaged or lost, `out` fails, and when `cancel` is
/// cancelled. The stream then ends without its end marker, so that no reader takes it for whole.
pub async fn restore_archive(
    depot: &Depot,
    revision: &RevisionRef,
    out: Box<dyn Write + Send>,
    format: ArchiveFormat,
    spec: &RestoreSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, WorkspaceError> {
    let form = StreamForm { format, acls: AclForm::Text };
    stream_out(depot, revision, out, form, spec, sink, cancel).await
}

/// The form of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamForm {
    pub(super) format: ArchiveFormat,
    pub(super) acls: AclForm,
}

/// As [`restore_archive`], for readers of other kinds, too.
pub(super) async fn stream_out(
    depot: &Depot,
    revision: &RevisionRef,
    out: Box<dyn Write + Send>,
    form: StreamForm,
    spec: &RestoreSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, WorkspaceError> {
    let clock = Monotonic::start();
    let record = read(depot, revision).await?;
    let includes = if spec.includes.is_empty() { None } else { Some(Includes::new(&spec.includes)?) };
    let limits = Limits::of(spec);
    if includes.is_none() {
        limits.check(&record.counts)?;
    }
    sink.emit(WorkspaceEvent::Began {
        job: "restore",
        name: format!("{}@{}", record.workspace, record.id),
        files: Some(record.counts.files),
        bytes: Some(record.counts.data_bytes),
    });
    let (sender, receiver) = mpsc::channel(WAITING);
    let writing = tokio::spawn(blocking(move || write(out, form, receiver)));
    let fetcher = depot.fetcher();
    let manifest = ManifestReader::open(&fetcher, &record).await?;
    let packs = Packs::of(&fetcher, &record).await?;
    let data = depot.fetcher();
    let mut streaming = Streaming {
        fetcher,
        data: Arc::clone(&data),
        manifest,
        packs,
        includes,
        limits,
        sender,
        sink,
        cancel: cancel.clone(),
        counts: RevisionCounts::default(),
        told: Monotonic::start(),
        owner: spec.rights.owner.clone(),
        names: Names::new(),
        sockets: HashSet::new(),
        shortfalls: Shortfalls::new(),
    };
    let sent = streaming.run().await;
    let counts = streaming.counts;
    let shortfalls = rows(&streaming.shortfalls);
    let sender = streaming.sender.clone();
    drop(streaming);
    // Without this last word the writer leaves the end marker out.
    let ended = match &sent {
        Ok(()) => sender.send(Piece::End).await.is_ok(),
        Err(_) => false,
    };
    drop(sender);
    let written = writing.await.map_err(|stopped| stream_error(io::Error::other(stopped)))??;
    // What stopped the writer is the cause of whatever happened on this side.
    match (written, sent) {
        (Err(source), Err(WorkspaceError::Stream { .. }) | Ok(())) => return Err(stream_error(source)),
        (_, Err(error)) => return Err(of_lost(depot, revision, error).await),
        (Ok(()), Ok(())) if ended => {}
        (Ok(()), Ok(())) => return Err(stream_error(io::ErrorKind::BrokenPipe.into())),
    }
    if !spec.unnoted {
        touch(depot, revision).await;
    }
    Ok(RestoreReport {
        revision: record.id,
        workspace: record.workspace,
        counts,
        fetched_bytes: data.fetched_bytes(),
        shortfalls,
        took: clock.elapsed(),
    })
}

fn stream_error(source: io::Error) -> WorkspaceError {
    WorkspaceError::Stream { action: "write", source }
}

/// What the writer of the stream is told.
#[derive(Debug)]
enum Piece {
    Plain(Box<Entry>),
    Begin(Box<Entry>),
    Data(Bytes),
    EndOfFile,
    End,
}

/// Writes the stream.
fn write(out: Box<dyn Write + Send>, form: StreamForm, mut pieces: mpsc::Receiver<Piece>) -> io::Result<()> {
    let out = form.format.wrap(io::BufWriter::with_capacity(256 << 10, out), None)?;
    let mut archive = ArchiveWriter::with_acls(out, form.acls);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Plain(entry) => archive.append_plain(&entry)?,
            Piece::Begin(entry) => archive.begin_file(&entry)?,
            Piece::Data(bytes) => archive.write_data(&bytes)?,
            Piece::EndOfFile => archive.end_file()?,
            Piece::End => {
                return archive.finish()?.finish()?.flush();
            }
        }
    }
    Ok(())
}

struct Streaming {
    fetcher: Arc<Fetcher>,
    /// Fetches the contents of files, and counts nothing else.
    data: Arc<Fetcher>,
    manifest: ManifestReader,
    packs: Packs,
    includes: Option<Includes>,
    limits: Limits,
    sender: mpsc::Sender<Piece>,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: CancellationToken,
    counts: RevisionCounts,
    told: Monotonic,
    owner: Option<OwnerRule>,
    names: Names,
    sockets: HashSet<EntryPath>,
    shortfalls: Shortfalls,
}

impl Streaming {
    async fn run(&mut self) -> Result<(), WorkspaceError> {
        let mut entries = Box::pin(self.manifest.entries());
        let (mut window, mut chunks) = (Vec::new(), 0);
        while let Some(mut entry) = entries.try_next().await? {
            if !self.is_wanted(&entry) || self.is_name_of_socket(&entry) {
                continue;
            }
            if let Some(rule) = &self.owner
                && !rule.rename(&mut entry.attributes.owner, &self.names)
            {
                self.shortfalls.count(Shortfall::Owner, &entry.path);
            }
            let refs = match &entry.kind {
                EntryKind::File { content, size, extents } => {
                    let file = (content, *size, extents.as_deref());
                    let (locations, mut lists) = (self.manifest.locations(), Vec::new());
                    chunks_of(&self.fetcher, locations, &entry.path, file, &mut lists).await?
                }
                _ => Vec::new(),
            };
            chunks += refs.len();
            window.push((entry, refs));
            if window.len() >= WINDOW_ENTRIES || chunks >= WINDOW_CHUNKS {
                self.send_window(std::mem::take(&mut window)).await?;
                chunks = 0;
            }
        }
        self.send_window(window).await
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let Some(includes) = &self.includes else { return true };
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        match includes.matches(&entry.path, is_directory) {
            Inclusion::Yes => match &entry.kind {
                EntryKind::HardLink { target } => includes.matches(target, false) == Inclusion::Yes,
                _ => true,
            },
            Inclusion::Parent => is_directory,
            Inclusion::No => false,
        }
    }

    /// Says whether an entry is a further name of a socket, which an archive cannot say. Sockets are remembered for that.
    fn is_name_of_socket(&mut self, entry: &Entry) -> bool {
        match &entry.kind {
            EntryKind::Socket => {
                self.shortfalls.count(Shortfall::Socket, &entry.path);
                self.sockets.insert(entry.path.clone());
                false
            }
            EntryKind::HardLink { target } if self.sockets.contains(target) => {
                self.shortfalls.count(Shortfall::Link, &entry.path);
                true
            }
            _ => false,
        }
    }

    async fn send_window(&mut self, window: Vec<(Entry, Vec<ChunkRef>)>) -> Result<(), WorkspaceError> {
        let refs: Vec<ChunkRef> = window.iter().flat_map(|(_, refs)| refs.iter().copied()).collect();
        let locations =
            self.packs.locate_ids(&self.fetcher, refs.iter().map(|chunk| chunk.id).collect()).await?;
        let mut contents = Box::pin(self.data.in_order(&locations, &refs));
        for (entry, refs) in window {
            let path = entry.path.clone();
            self.counts.entries += 1;
            self.limits.check(&self.counts)?;
            match &entry.kind {
                EntryKind::File { size, .. } => {
                    self.counts.files += 1;
                    self.counts.bytes = self.counts.bytes.saturating_add(*size);
                    self.limits.check(&self.counts)?;
                    self.send(Piece::Begin(Box::new(entry))).await?;
                    for chunk in refs {
                        let error = match contents.try_next().await {
                            Ok(Some(content)) if content.len() as u64 == u64::from(chunk.length) => {
                                self.counts.data_bytes += content.len() as u64;
                                self.send(Piece::Data(content)).await?;
                                self.tell();
                                continue;
                            }
                            Ok(Some(_)) => wrong_length(&self.fetcher, "a chunk has another length"),
                            Ok(None) => {
                                StoreError::Lost { id: chunk.id, store: self.fetcher.objects().place() }
                            }
                            Err(error) => error,
                        };
                        return Err(match error {
                            StoreError::Lost { .. } | StoreError::Damaged { .. } => {
                                let source = Box::new(error);
                                WorkspaceError::Damaged { count: 1, paths: vec![path], source }
                            }
                            error => error.into(),
                        });
                    }
                    self.send(Piece::EndOfFile).await?;
                }
                EntryKind::Directory => {
                    self.counts.directories += 1;
                    self.send(Piece::Plain(Box::new(entry))).await?;
                }
                _ => self.send(Piece::Plain(Box::new(entry))).await?,
            }
        }
        Ok(())
    }

    async fn send(&self, piece: Piece) -> Result<(), WorkspaceError> {
        if self.cancel.is_cancelled() {
            return Err(WorkspaceError::Cancelled);
        }
        tokio::select! {
            sent = self.sender.send(piece) => sent.map_err(|_closed| stream_error(io::ErrorKind::BrokenPipe.into())),
            () = self.cancel.cancelled() => Err(WorkspaceError::Cancelled),
        }
    }

    fn tell(&mut self) {
        if self.told.elapsed().as_millis() >= 100 {
            self.told = Monotonic::start();
            let RevisionCounts { files, data_bytes: bytes, .. } = self.counts;
            let moved_bytes = self.data.fetched_bytes();
            self.sink.emit(WorkspaceEvent::Progress { files, bytes, moved_bytes });
        }
    }
}
