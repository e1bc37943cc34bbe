//! Writes a snapshot's image to a file or a stream, as `docker save` gives it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

use super::{BakeError, Workbench};
use crate::base::fs::{Existing, write_durably_with};
use crate::catalog::{CatalogError, SnapshotRef};

/// Pieces of the stream, some 16 to 64 KiB each, that wait to be written.
const AHEAD: usize = 16;
/// A tar ends with two blocks of zeros.
const END: usize = 1024;

/// Where an image is written to.
pub enum ExportTarget {
    /// A file, which takes its name when it is whole and synced; an earlier one is replaced.
    File(PathBuf),
    /// A stream. What was written to it before a failure stays.
    Stream(Box<dyn Write + Send>),
}

impl std::fmt::Debug for ExportTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// The snapshot, as `name@id`.
    pub reference: String,
    /// The reference that `docker load` gives the image.
    pub tag: String,
    /// Bytes that were written.
    pub bytes: u64,
}

enum Piece {
    Bytes(Bytes),
    /// The engine sent all of it.
    End,
}

impl Workbench {
    /// Writes the image of a snapshot as the engine gives it: an archive that `docker load` takes. Needs a few MiB of memory.
    ///
    /// # Errors
    ///
    /// Fails where there is no such snapshot or its image is not on this engine, where the engine goes away in the middle, the target
    /// cannot be written, and when `cancel` is cancelled.
    pub async fn export(
        &self,
        reference: &SnapshotRef,
        target: ExportTarget,
        cancel: &CancellationToken,
    ) -> Result<ExportReport, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        let tag = self.tag_of(&snapshot.record.name, snapshot.id());
        if self.present(&snapshot).await?.is_none() {
            let detail = " whose image is on this engine".to_owned();
            return Err(
                CatalogError::NotFound { reference: reference.to_string(), detail, nearest: None }.into()
            );
        }
        let mut stream = self.engine.save(&tag).await?;
        let (send, pieces) = channel(AHEAD);
        let place = match &target {
            ExportTarget::File(path) => path.clone(),
            ExportTarget::Stream(_) => PathBuf::from("-"),
        };
        let writing = tokio::task::spawn_blocking(move || write(target, pieces));
        let mut ended = Ok(());
        loop {
            let piece = tokio::select! {
                () = cancel.cancelled() => {
                    ended = Err(BakeError::Cancelled { action: "exporting the image".into() });
                    break;
                }
                piece = stream.next() => piece,
            };
            let piece = match piece {
                Some(Ok(bytes)) => Piece::Bytes(bytes),
                Some(Err(error)) => {
                    ended = Err(error.into());
                    break;
                }
                None => Piece::End,
            };
            let is_over = matches!(piece, Piece::End);
            // A writer that has failed says why below.
            if send.send(piece).await.is_err() || is_over {
                break;
            }
        }
        drop(send);
        let written = writing
            .await
            .map_err(|stopped| BakeError::Internal(format!("writing the image stopped: {stopped}")))?;
        ended?;
        let bytes = written.map_err(|source| BakeError::Local { path: place, source })?;
        Ok(ExportReport { reference: snapshot.reference(), tag, bytes })
    }
}

/// Writes the pieces; returns how many bytes they were.
fn write(target: ExportTarget, pieces: Receiver<Piece>) -> io::Result<u64> {
    match target {
        ExportTarget::File(path) => {
            let mut bytes = 0;
            let path: &Path = &path;
            write_durably_with(path, Existing::Replace, |file| {
                bytes = copy(pieces, file)?;
                Ok(())
            })?;
            Ok(bytes)
        }
        ExportTarget::Stream(mut out) => copy(pieces, &mut *out),
    }
}

fn copy(mut pieces: Receiver<Piece>, out: &mut dyn Write) -> io::Result<u64> {
    let (mut bytes, mut zeros) = (0, 0);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(piece) => {
                out.write_all(&piece)?;
                bytes += piece.len() as u64;
                let trailing = piece.iter().rev().take_while(|byte| **byte == 0).count();
                zeros = if trailing == piece.len() { zeros + trailing } else { trailing };
            }
            // An engine that is stopped in the middle may end the stream as if it were whole.
            Piece::End if zeros >= END => {
                out.flush()?;
                return Ok(bytes);
            }
            Piece::End => break,
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine's archive was cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(pieces: Vec<Piece>) -> io::Result<(u64, Vec<u8>)> {
        let (send, receive) = channel(8);
        for piece in pieces {
            send.try_send(piece).ok().unwrap();
        }
        drop(send);
        let mut out = Vec::new();
        let bytes = copy(receive, &mut out)?;
        Ok((bytes, out))
    }

    #[test]
    fn only_a_whole_archive_is_one() {
        let head = || Piece::Bytes(Bytes::from_static(b"content"));
        let zeros = |count: usize| Piece::Bytes(vec![0; count].into());
        let (bytes, out) = copied(vec![head(), zeros(700), zeros(400), Piece::End]).unwrap();
        assert_eq!((bytes, out.len()), (1107, 1107));
        for cut in [
            vec![head(), zeros(1024)],
            vec![head(), zeros(1000), Piece::End],
            vec![zeros(1024), head(), Piece::End],
            vec![Piece::End],
        ] {
            assert_eq!(copied(cut).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
