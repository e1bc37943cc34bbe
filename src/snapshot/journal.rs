//! The log of a bake, and its heartbeat.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{BakeEvent, LogEntry, StageEvent};
use crate::base::{Sink, SnapshotId, now};
use crate::catalog::{Catalog, CatalogError, LogWriter};
use crate::docker::EngineEvent;

/// How often the owner of a bake says that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How often the writer looks whether lines are due.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Hands every event to the caller's sink and keeps it in the snapshot's log.
#[derive(Debug)]
pub(super) struct Journal {
    lines: UnboundedSender<String>,
    writer: JoinHandle<Result<(), CatalogError>>,
    /// Stops the heartbeat when dropped. The last beat stays until the bake's owner or a later settling takes it away.
    beating: Option<DropGuard>,
    id: SnapshotId,
}

/// Both readers of the events of a bake.
pub(super) struct Story<'a> {
    sink: &'a dyn Sink<BakeEvent>,
    lines: UnboundedSender<String>,
}

impl Journal {
    /// Begins the log of `id` in the background; with `beating`, the heartbeat too.
    pub(super) fn begin(catalog: &Catalog, id: SnapshotId, log: LogWriter, beating: bool) -> Self {
        let (lines, received) = unbounded_channel();
        let writer = tokio::spawn(write(log, received));
        let beating = beating.then(|| {
            let stop = CancellationToken::new();
            tokio::spawn(stop.clone().run_until_cancelled_owned(beat(catalog.clone(), id)));
            stop.drop_guard()
        });
        Self { lines, writer, beating, id }
    }

    /// Returns a sink for the events of the bake.
    pub(super) fn story<'a>(&self, sink: &'a dyn Sink<BakeEvent>) -> Story<'a> {
        Story { sink, lines: self.lines.clone() }
    }

    /// Writes the rest of the log and stops beating.
    pub(super) async fn finish(self) -> Result<(), CatalogError> {
        drop(self.lines);
        let written = match self.writer.await {
            Ok(written) => written,
            Err(stopped) => Err(CatalogError::Log { id: self.id, source: std::io::Error::other(stopped) }),
        };
        drop(self.beating);
        written
    }
}

impl Sink<BakeEvent> for Story<'_> {
    fn emit(&self, event: BakeEvent) {
        if is_kept(&event) {
            let entry = LogEntry { at: now(), event: event.clone() };
            if let Ok(line) = serde_json::to_string(&entry) {
                // The receiver ends only with the journal; then nobody waits for this line.
                self.lines.send(line).unwrap_or_default();
            }
        }
        self.sink.emit(event);
    }
}

impl Sink<EngineEvent> for Story<'_> {
    fn emit(&self, event: EngineEvent) {
        Sink::<BakeEvent>::emit(self, event.into());
    }
}

impl Sink<StageEvent> for Story<'_> {
    fn emit(&self, event: StageEvent) {
        Sink::<BakeEvent>::emit(self, event.into());
    }
}

/// Returns whether an event belongs in the kept log: progress that only a terminal shows does not.
fn is_kept(event: &BakeEvent) -> bool {
    !matches!(
        event,
        BakeEvent::Engine(
            EngineEvent::Disk { .. } | EngineEvent::Pull { .. } | EngineEvent::Context { done: false, .. }
        )
    )
}

async fn write(mut log: LogWriter, mut lines: UnboundedReceiver<String>) -> Result<(), CatalogError> {
    loop {
        match tokio::time::timeout(LOOK_EVERY, lines.recv()).await {
            Ok(Some(line)) => log.push(&line),
            Ok(None) => return log.finish().await,
            Err(_elapsed) => {}
        }
        // What cannot be written now is tried again with the next lines; the end reports.
        log.flush_if_due().await.unwrap_or_default();
    }
}

async fn beat(catalog: Catalog, id: SnapshotId) {
    let mut counter = 0;
    loop {
        counter += 1;
        // A missed beat is no harm: the counter must stand still for minutes before anybody minds.
        if catalog.beat(id, counter).await.is_err() {
            counter -= 1;
        }
        tokio::time::sleep(BEAT_EVERY).await;
    }
}
