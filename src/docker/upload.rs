//! Sends a build context while it is read, in memory of a fixed size.
//!
//! A thread of its own writes the tar into a pipe of 64 KiB; the request's body reads from it. When the context cannot be
//! read, the body fails too, so that the engine never takes half a context for a whole one.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::http::Body;
use super::{BuildRequest, ContextSent, EngineError};
use crate::base::Monotonic;

/// Capacity of the pipe between the tar's writer and the request's body.
const PIPE_BYTES: usize = 64 << 10;

/// 100 ms: progress is told at most ten times a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A context on its way.
#[derive(Debug)]
pub(super) struct Upload {
    /// What was sent so far, and whether that is all.
    pub(super) progress: watch::Receiver<(ContextSent, bool)>,
    /// Whether the end is still to be told.
    pub(super) untold: bool,
    writer: JoinHandle<Result<ContextSent, EngineError>>,
}

impl Upload {
    /// Starts to write the context of `request`; the tar is the body that comes back.
    pub(super) fn start(request: &BuildRequest) -> (Self, Body) {
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let (told, progress) = watch::channel((ContextSent::default(), false));
        let (verdict, fate) = oneshot::channel();
        let (context, dockerfile) = (request.context.clone(), request.dockerfile.clone());
        let limit_bytes = request.limits.context_bytes;
        let writer = tokio::task::spawn_blocking(move || {
            let mut last = Monotonic::start();
            let outcome = context.tar(
                &dockerfile,
                limit_bytes,
                |bytes, entries| {
                    if last.elapsed() >= PROGRESS_EVERY {
                        last = Monotonic::start();
                        told.send_replace((ContextSent { bytes, entries }, false));
                    }
                },
                // Few and large writes: each one wakes the other side.
                io::BufWriter::with_capacity(PIPE_BYTES, SyncIoBridge::new(writer)),
            );
            if let Ok(sent) = &outcome {
                told.send_replace((*sent, true));
            }
            // Nobody may be there to hear it: then the body was dropped before its end.
            verdict.send(outcome.is_ok()).unwrap_or_default();
            outcome
        });
        let end = futures_util::stream::once(async move {
            match fate.await {
                Ok(true) => Ok(Bytes::new()),
                Ok(false) | Err(_) => Err(io::Error::other("the context could not be read")),
            }
        });
        let tar = ReaderStream::with_capacity(reader, PIPE_BYTES).chain(end);
        (Self { progress, untold: true, writer }, BodyExt::boxed(StreamBody::new(tar.map_ok(Frame::data))))
    }

    /// Returns what was sent, or why it could not be. The body must be dropped by now, or read to its end.
    pub(super) async fn finish(self) -> Result<ContextSent, EngineError> {
        match self.writer.await {
            Ok(outcome) => outcome,
            Err(error) => Err(EngineError::Protocol {
                action: "send the context".to_owned(),
                message: error.to_string(),
            }),
        }
    }
}
