//! The engine's stream as something to read.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc::Receiver;

/// A part of the stream.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes of it.
    Bytes(Bytes),
    /// The engine ended it.
    End,
}

/// Reads what comes through a channel. Blocks, so it must not be read on a thread of the runtime. A channel that closes without an end is
/// a stream that broke off.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Receiver<Piece>,
    open: Bytes,
    is_over: bool,
}

impl Pieces {
    pub(super) fn new(pieces: Receiver<Piece>) -> Self {
        Self { pieces, open: Bytes::new(), is_over: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.open.is_empty() && !self.is_over {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.open = bytes,
                Some(Piece::End) => self.is_over = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream broke off")),
            }
        }
        let length = into.len().min(self.open.len());
        if let Some(into) = into.get_mut(..length) {
            self.open.copy_to_slice(into);
        }
        Ok(length)
    }
}
