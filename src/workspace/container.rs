//! Workspaces straight from and to containers: the engine's archives, without a temporary copy.
//!
//! What the engine's own archives lose, seen with Docker Engine 20.10:
//!
//! | what | out of a container | into a container |
//! |---|---|---|
//! | times | whole seconds | kept |
//! | mode and owner of the directory itself | kept | left as they are in the container, as its time |
//! | extended attributes | only `security.capability` | kept |
//! | ACLs | lost | kept |
//! | setuid and setgid of files with several names | kept | lost |
//! | holes of sparse files | read and saved as zeros | written as zeros |
//! | sockets | left out | left out, and counted |
//! | names of owners | those of the engine's host | the numbers count |
//!
//! Volumes are seen, and what is mounted by the container's own programs or as a tmpfs is not. A file that the engine cannot read it
//! leaves out without a word. A container that runs goes on writing meanwhile: what is saved of a file that changes is what the
//! engine read of it. Pause the container where that matters.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::archive::{AclForm, ArchiveFormat};
use super::depot::Depot;
use super::error::WorkspaceError;
use super::event::WorkspaceEvent;
use super::restore::{RestoreReport, RestoreSpec};
use super::save::{SaveReport, SaveSpec};
use super::stream_in::save_archive;
use super::stream_out::{StreamForm, stream_out};
use crate::base::Sink;
use crate::docker::{ArchiveBody, Engine, EngineError};
use crate::store::revision::RevisionRef;

/// Pieces that wait for the other side: some 2 MiB at most, for a piece has no more than [`PIECE_BYTES`].
const WAITING: usize = 32;
/// Most bytes of a piece on its way into a container.
const PIECE_BYTES: usize = 64 << 10;
/// A whole archive ends with this many zeros.
const END_MARKER: usize = 1024;

/// Saves a directory of a container, running or not, as a new revision: its root is the directory itself.
///
/// `path` is absolute; a symbolic link to a directory is followed. The record is the commit point: an error before it, also one in
/// the middle of the engine's stream, saves nothing. An archive without its end marker is refused, for that is how the engine ends
/// one that it failed to read.
///
/// # Errors
///
/// As [`save_archive`], and where the container or the path in it is not there, the path is not a directory or
/// not absolute, and the engine fails. Within a second after `cancel` is cancelled, unless the store keeps it waiting.
pub async fn save_container(
    depot: &Depot,
    engine: &dyn Engine,
    container: &str,
    path: &str,
    spec: &SaveSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<SaveReport, WorkspaceError> {
    sensible(container, path)?;
    let pieces = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(WorkspaceError::Cancelled),
        pieces = engine.read_archive(container, path) => pieces?,
    };
    let (sender, receiver) = mpsc::channel(WAITING);
    let stream = Box::new(Incoming { pieces: receiver, piece: Bytes::new(), zeros: 0, ended: false });
    let source = format!("docker://{container}{path}");
    let saving = Box::pin(save_archive(depot, stream, source, spec, sink, cancel));
    let (moved, saved) = tokio::join!(take_in(pieces, sender, cancel), saving);
    match (saved, moved) {
        (Ok(report), _) => Ok(report),
        (Err(_), _) if cancel.is_cancelled() => Err(WorkspaceError::Cancelled),
        // What stopped the stream is the cause of whatever happened behind it.
        (Err(WorkspaceError::Archive(_)), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error),
    }
}

/// Restores a revision into a directory of a container, running or not. The directory must be there, and should be empty.
///
/// The engine unpacks while it is sent to, into the final place: an error or a cancellation in the middle leaves a part of the tree
/// in the container, and what the engine had received by then it may still unpack. What is there already stays or is replaced, but a directory never by something else, nor the other way around.
/// Everything that was saved is sent. Of [`RestoreSpec::rights`] the owner counts, and it is the container that keeps what it holds
/// from the host.
///
/// # Errors
///
/// As [`restore_archive`](super::restore_archive), and where the container or the path in it is not there, the path is not a
/// directory or not absolute, and the engine fails. Within a second after `cancel` is cancelled.
#[expect(
    clippy::too_many_arguments,
    reason = "what, from where, to where and how; a struct would only rename them"
)]
pub async fn restore_container(
    depot: &Depot,
    engine: &dyn Engine,
    revision: &RevisionRef,
    container: &str,
    path: &str,
    spec: &RestoreSpec,
    sink: Arc<dyn Sink<WorkspaceEvent>>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, WorkspaceError> {
    sensible(container, path)?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let (verdict, fate) = oneshot::channel();
    let stop = CancellationToken::new();
    let writing = async {
        let written = engine.write_archive(container, path, body(receiver, fate)).await;
        if written.is_err() {
            stop.cancel();
        }
        written
    };
    let reading = async {
        let out = Box::new(Outgoing { pieces: sender });
        let form = StreamForm { format: ArchiveFormat::Tar, acls: AclForm::Attribute };
        let read = Box::pin(stream_out(depot, revision, out, form, spec, sink, &stop)).await;
        // The engine may be gone already, which its own answer tells.
        verdict.send(read.is_ok()).unwrap_or_default();
        read
    };
    let (written, read) = tokio::select! {
        biased;
        // Dropping both ends the transfer at once, also where one of them waits for something that does not answer.
        () = cancel.cancelled() => return Err(WorkspaceError::Cancelled),
        both = async { tokio::join!(writing, reading) } => both,
    };
    match (read, written) {
        (Ok(report), Ok(())) => Ok(report),
        // What stopped the engine is the cause of what happened on this side.
        (Err(WorkspaceError::Stream { .. } | WorkspaceError::Cancelled) | Ok(_), Err(error)) => {
            Err(error.into())
        }
        (Err(error), _) => Err(error),
    }
}

fn sensible(container: &str, path: &str) -> Result<(), WorkspaceError> {
    let reason = if container.is_empty() {
        "a container has a name".to_owned()
    } else if !path.starts_with('/') {
        format!("the path in a container begins with `/`, and `{}` does not", path.escape_debug())
    } else {
        return Ok(());
    };
    Err(WorkspaceError::Invalid { reason })
}

/// What the reader of the engine's stream is told.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// The stream ended as it should. Without this word it was cut off.
    End,
}

/// Hands the engine's stream to its reader until it ends, fails or nobody reads any more.
async fn take_in(
    mut pieces: BoxStream<'static, Result<Bytes, EngineError>>,
    sender: mpsc::Sender<Piece>,
    cancel: &CancellationToken,
) -> Result<(), EngineError> {
    let moving = async {
        while let Some(data) = pieces.next().await.transpose()? {
            if sender.send(Piece::Data(data)).await.is_err() {
                return Ok(());
            }
        }
        // Whoever does not read any more needs no word.
        sender.send(Piece::End).await.unwrap_or_default();
        Ok(())
    };
    tokio::select! {
        moved = moving => moved,
        () = cancel.cancelled() => Ok(()),
        () = sender.closed() => Ok(()),
    }
}

/// The engine's stream as something to read from, outside of the runtime's threads.
struct Incoming {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    /// How many of the last bytes were zeros, as far as the end marker asks.
    zeros: usize,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => {
                    let zeros = data.iter().rev().take(END_MARKER).take_while(|byte| **byte == 0).count();
                    self.zeros = if zeros == data.len() { self.zeros + zeros } else { zeros }.min(END_MARKER);
                    self.piece = data;
                }
                Some(Piece::End) if self.zeros >= END_MARKER => self.ended = true,
                Some(Piece::End) => return Err(cut_off("the engine ended it without its end marker")),
                None => return Err(cut_off("the engine's stream was cut off")),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

fn cut_off(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, reason)
}

/// Something to write to, outside of the runtime's threads, that hands everything to the engine.
struct Outgoing {
    pieces: mpsc::Sender<Bytes>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&bytes[..count]);
        match self.pieces.blocking_send(piece) {
            Ok(()) => Ok(count),
            Err(_closed) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the pieces as they come; whether that was all, `fate` says.
fn body(pieces: mpsc::Receiver<Bytes>, fate: oneshot::Receiver<bool>) -> ArchiveBody {
    let end = stream::once(fate).filter_map(|whole| async move {
        (whole != Ok(true)).then(|| Err(io::Error::other("the rest of the archive could not be made")))
    });
    Box::pin(ReceiverStream::new(pieces).map(Ok).chain(end))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::{Classify as _, Discard, ErrorKind, Monotonic};
    use crate::docker::fake::{FakeEngine, FakeImage, FakeTransfer};
    use crate::docker::{ContainerSpec, DockerEngine, ExecSpec};
    use crate::store::revision;
    use crate::workspace::tests::{Place, seen};

    async fn a_container() -> FakeEngine {
        let engine = FakeEngine::new();
        engine.add_image("base:1", FakeImage::default());
        let spec = ContainerSpec { image: "base:1".into(), name: "box".into(), ..ContainerSpec::default() };
        engine.start(&spec).await.unwrap();
        engine
    }

    async fn save(place: &Place, engine: &dyn Engine, path: &str) -> Result<SaveReport, WorkspaceError> {
        save_from(place, engine, "box", path, &CancellationToken::new()).await
    }

    async fn save_from(
        place: &Place,
        engine: &dyn Engine,
        container: &str,
        path: &str,
        cancel: &CancellationToken,
    ) -> Result<SaveReport, WorkspaceError> {
        let spec = SaveSpec::new("w".parse().unwrap());
        save_container(&place.depot, engine, container, path, &spec, Arc::new(Discard), cancel).await
    }

    async fn restore_to(
        place: &Place,
        engine: &dyn Engine,
        container: &str,
        path: &str,
        cancel: &CancellationToken,
    ) -> Result<RestoreReport, WorkspaceError> {
        let (revision, spec) = (place.newest().await, RestoreSpec::default());
        restore_container(&place.depot, engine, &revision, container, path, &spec, Arc::new(Discard), cancel)
            .await
    }

    async fn restore(
        place: &Place,
        engine: &dyn Engine,
        path: &str,
    ) -> Result<RestoreReport, WorkspaceError> {
        restore_to(place, engine, "box", path, &CancellationToken::new()).await
    }

    /// Some files, among them 6 MB that do not compress.
    fn a_tree(place: &Place) {
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = (0..6_000_000).map(|_| random.u8(..)).collect();
        place.write("tree/large", noise);
        place.write("tree/a/small", "hello");
        std::fs::hard_link(place.path("tree/a/small"), place.path("tree/z")).unwrap();
        std::os::unix::fs::symlink("../nowhere", place.path("tree/a/link")).unwrap();
    }

    async fn revisions(place: &Place) -> usize {
        revision::list(&*place.depot.objects, None).await.unwrap().len()
    }

    async fn within_a_second<T>(cancel: &CancellationToken, job: impl Future<Output = T>) -> T {
        let clock = Monotonic::start();
        let after = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cancel.cancel();
        };
        let (done, ()) = tokio::join!(job, after);
        assert!(clock.elapsed() < Duration::from_millis(1500), "{:?}", clock.elapsed());
        done
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tree_goes_into_a_container_and_comes_back_as_it_was() {
        let (place, engine) = (Place::new(), a_container().await);
        a_tree(&place);
        let saved = place.save("tree").await;
        let restored = restore(&place, &engine, "/mnt").await.unwrap();
        assert_eq!(restored.counts.entries, saved.counts.entries);
        let again = save(&place, &engine, "/mnt").await.unwrap();
        assert_eq!((again.counts, again.written.new_bytes), (saved.counts, 0));
        let mut spec = RestoreSpec::default();
        spec.rights.special_bits = true;
        place.try_restore("back", &spec).await.unwrap();
        assert_eq!(seen(&place.path("back")), seen(&place.path("tree")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_there_or_no_directory_is_told_apart() {
        let (place, engine, never) = (Place::new(), a_container().await, CancellationToken::new());
        a_tree(&place);
        place.save("tree").await;
        for (container, path, kind, word) in [
            ("none", "/mnt", ErrorKind::NotFound, "no container `none`"),
            ("box", "/none", ErrorKind::NotFound, "no `/none`"),
            ("box", "/etc/passwd", ErrorKind::Invalid, "not a directory"),
            ("box", "mnt", ErrorKind::Invalid, "begins with `/`"),
            ("", "/mnt", ErrorKind::Invalid, "has a name"),
        ] {
            let saving = save_from(&place, &engine, container, path, &never).await.unwrap_err();
            let restoring = restore_to(&place, &engine, container, path, &never).await.unwrap_err();
            for error in [saving, restoring] {
                assert_eq!(error.kind(), kind, "{error:?}");
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        assert_eq!(revisions(&place).await, 1);
        engine.set_unreachable(true);
        assert_eq!(save(&place, &engine, "/mnt").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(restore(&place, &engine, "/mnt").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_that_was_cut_off_anywhere_is_not_saved() {
        let (place, engine) = (Place::new(), a_container().await);
        a_tree(&place);
        place.save("tree").await;
        restore(&place, &engine, "/mnt").await.unwrap();
        let length = engine.directory("box", "/mnt").unwrap().len();
        // In the marker, before it (after a whole entry), in an entry, in a header, before the first one.
        for at in [length - 512, length - 1024, length - 1100, 3_000_000, 700, 0] {
            engine.on_transfer(Some(FakeTransfer::Breaks(at)));
            let error = save(&place, &engine, "/mnt").await.unwrap_err();
            assert!(matches!(error, WorkspaceError::Engine(EngineError::Gone { .. })), "{at}: {error:?}");
            engine.on_transfer(Some(FakeTransfer::Ends(at)));
            let error = save(&place, &engine, "/mnt").await.unwrap_err();
            assert!(matches!(error, WorkspaceError::Archive(_)), "{at}: {error:?}");
        }
        assert_eq!(revisions(&place).await, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cancelled_transfer_ends_within_a_second_though_the_engine_stalls() {
        let (place, engine) = (Place::new(), a_container().await);
        a_tree(&place);
        place.save("tree").await;
        restore(&place, &engine, "/mnt").await.unwrap();
        for at in [0, 3_000_000] {
            engine.on_transfer(Some(FakeTransfer::Stalls(at)));
            let cancel = CancellationToken::new();
            let error = within_a_second(&cancel, save_from(&place, &engine, "box", "/mnt", &cancel)).await;
            assert!(matches!(error, Err(WorkspaceError::Cancelled)), "{error:?}");
            let cancel = CancellationToken::new();
            let error = within_a_second(&cancel, restore_to(&place, &engine, "box", "/mnt", &cancel)).await;
            assert!(matches!(error, Err(WorkspaceError::Cancelled)), "{error:?}");
            engine.on_transfer(None);
            restore(&place, &engine, "/mnt").await.unwrap();
        }
        assert_eq!(revisions(&place).await, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_that_stops_in_the_middle_is_the_reason_that_is_told() {
        let (place, engine) = (Place::new(), a_container().await);
        a_tree(&place);
        place.save("tree").await;
        engine.on_transfer(Some(FakeTransfer::Ends(2_000_000)));
        let error = restore(&place, &engine, "/mnt").await.unwrap_err();
        assert!(matches!(error, WorkspaceError::Engine(EngineError::DiskFull { .. })), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Limit);
        engine.on_transfer(Some(FakeTransfer::Breaks(2_000_000)));
        let error = restore(&place, &engine, "/mnt").await.unwrap_err();
        assert!(matches!(error, WorkspaceError::Engine(EngineError::Gone { .. })), "{error:?}");
        assert!(engine.directory("box", "/mnt").unwrap().len() < 6_000_000);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_revision_that_is_too_large_reaches_no_container() {
        let (place, engine) = (Place::new(), a_container().await);
        a_tree(&place);
        place.save("tree").await;
        let (revision, cancel) = (place.newest().await, CancellationToken::new());
        let spec = RestoreSpec { max_bytes: Some(1000), ..RestoreSpec::default() };
        let (depot, sink) = (&place.depot, Arc::new(Discard));
        let error = restore_container(depot, &engine, &revision, "box", "/mnt", &spec, sink, &cancel).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(engine.directory("box", "/mnt").unwrap().len(), 1024);
    }

    async fn shell(engine: &DockerEngine, container: &str, script: &str) -> String {
        let spec = ExecSpec {
            cmd: vec!["sh".into(), "-c".into(), script.into()],
            user: Some("0".into()),
            workdir: Some("/work".into()),
            env: vec![],
        };
        let report = engine.exec(container, &spec, Duration::from_secs(60), &Discard).await.unwrap();
        assert_eq!((report.exit_code, report.stderr.as_str()), (0, ""), "{script}");
        report.stdout
    }

    const FILL: &str = r"umask 022; mkdir -p a/b empty; echo hello > f; ln f a/hard; ln -s ../nowhere a/link; ln -s a dirlink
        mkfifo fifo; mknod dev c 1 3; chown 1234:5678 a/b f; chmod 2750 a/b; echo x > suid; chmod 4755 suid
        long=$(printf %0200d 1); mkdir -p $long/$long; echo deep > $long/$long/$long; printf x > $(printf 'nonutf\377')
        head -c 20000000 /dev/urandom > noise; truncate -s 30M sparse; echo end >> sparse; mkdir locked; echo y > locked/y; chmod 0 locked
        ln -s /work /way; find . -exec touch -h -d '2001-02-03 04:05:06' {} +";

    const LIST: &str = r"find . -mindepth 1 -printf '%P %y %m %U %G %s %n %t %l\n' | sed 's/^\([^ ]* d [^ ]* [^ ]* [^ ]*\) [0-9]* /\1 /' | LC_ALL=C sort
        find . -type f -exec sha256sum {} + | LC_ALL=C sort; cd /work && tar --sort=name -cf - . | tar -tvf - | wc -l";

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a Docker Engine"]
    async fn a_real_container_is_restored_into_another() {
        let (place, engine, never) =
            (Place::new(), DockerEngine::connect(None).unwrap(), CancellationToken::new());
        let id = ulid::Ulid::generate().to_string().to_lowercase();
        let [one, two] = ["one", "two"].map(|which| format!("kiln-engine-test-{id}-{which}"));
        for name in [&one, &two] {
            let spec = ContainerSpec {
                image: "debian:bookworm-slim".into(),
                name: name.clone(),
                cmd: Some(vec!["sh".into(), "-c".into(), "mkdir /work; exec sleep 600".into()]),
                user: Some("0".into()),
                ..ContainerSpec::default()
            };
            engine.start(&spec).await.unwrap();
        }
        let outcome = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            shell(&engine, &one, FILL).await;
            let saved = save_from(&place, &engine, &one, "/work", &never).await.unwrap();
            let restored = restore_to(&place, &engine, &two, "/work", &never).await.unwrap();
            assert_eq!(saved.counts.entries, restored.counts.entries);
            let (before, after) = (shell(&engine, &one, LIST).await, shell(&engine, &two, LIST).await);
            assert!(before.lines().count() > 25, "{before}");
            assert_eq!(before, after);

            // By a link, and the same again: nothing new. A name in the way, a file, nothing there: told apart.
            let again = save_from(&place, &engine, &one, "/way", &never).await.unwrap();
            assert_eq!((again.counts, again.written.new_bytes), (saved.counts, 0));
            shell(&engine, &two, "rm f; mkdir f").await;
            let error = restore_to(&place, &engine, &two, "/work", &never).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
            for (path, kind) in [("/none", ErrorKind::NotFound), ("/work/noise", ErrorKind::Invalid)] {
                let error = restore_to(&place, &engine, &two, path, &never).await.unwrap_err();
                assert_eq!(error.kind(), kind, "{error:?}");
                let error = save_from(&place, &engine, &two, path, &never).await.unwrap_err();
                assert_eq!(error.kind(), kind, "{error:?}");
            }
            let whole = save_from(&place, &engine, &one, "/", &never).await.unwrap();
            println!("the whole of a container: {:?} in {:?}", whole.counts, whole.took);

            // What the engine's tars keep, as the table at the top says.
            place.write("tree/s", "s");
            std::fs::hard_link(place.path("tree/s"), place.path("tree/t")).unwrap();
            let sparse = std::fs::File::create(place.path("tree/sparse")).unwrap();
            sparse.set_len(30 << 20).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 12_345_678).unwrap();
            let prepare =
                "chmod 6755 s; touch -d '2001-02-03 04:05:06.123456789' s; chmod 700 .; sha256sum sparse";
            let mut made = std::process::Command::new("sh");
            let made = made.args(["-c", prepare]).current_dir(place.path("tree")).output();
            let sum = String::from_utf8(made.unwrap().stdout).unwrap();
            place.write("tree/listed", "x");
            // user::rw-, user:7:r--, group::r--, mask::r--, other::---
            let acl: &[u8] =
                b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x07\0\0\0\x04\0\x04\0\xff\xff\xff\xff\
                \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
            let listed = place.path("tree/listed");
            rustix::fs::setxattr(&listed, "system.posix_acl_access", acl, rustix::fs::XattrFlags::empty())
                .unwrap();
            place.save("tree").await;
            shell(&engine, &two, "mkdir /new; chmod 755 /new").await;
            restore_to(&place, &engine, &two, "/new", &never).await.unwrap();
            let look =
                "cd /new; sha256sum sparse; stat -c '%a %h %y' s; stat -c '%a' .; ls -l listed | cut -c 1-11";
            let looked = shell(&engine, &two, look).await;
            assert_eq!(looked, format!("{sum}755 2 2001-02-03 04:05:06.123456789 +0000\n755\n-rw-r-----+\n"));

            // Soon cancelled, in both directions.
            let fill = "head -c 300000000 /dev/urandom > noise";
            let filled =
                std::process::Command::new("sh").args(["-c", fill]).current_dir(place.path("tree")).status();
            assert!(filled.unwrap().success());
            place.save("tree").await;
            shell(&engine, &two, "mkdir /cut").await;
            let cancel = CancellationToken::new();
            let error = within_a_second(&cancel, restore_to(&place, &engine, &two, "/cut", &cancel)).await;
            assert!(matches!(error, Err(WorkspaceError::Cancelled)), "{error:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let left: Vec<u64> =
                shell(&engine, &two, "du -sb /cut | cut -f 1; sleep 1; du -sb /cut | cut -f 1")
                    .await
                    .lines()
                    .map(|bytes| bytes.parse().unwrap())
                    .collect();
            assert!(left[0] == left[1] && left[0] < 300_000_000, "{left:?}");
            shell(&engine, &one, "truncate -s 20G huge").await;
            let (cancel, before) = (CancellationToken::new(), revisions(&place).await);
            let error = within_a_second(&cancel, save_from(&place, &engine, &one, "/work", &cancel)).await;
            assert!(matches!(error, Err(WorkspaceError::Cancelled)), "{error:?}");
            assert_eq!(revisions(&place).await, before);
        };
        let outcome = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(outcome)).await;
        for name in [&one, &two] {
            engine.remove_container(name).await.unwrap();
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}
