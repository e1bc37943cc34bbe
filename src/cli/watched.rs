//! Running a job that is watched and can be cancelled.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::{ErrorKind, Sink};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::progress::Story;
use crate::cli::signals;

/// 800 ms: a job looks at its token several times a second and cleans up behind itself. What is not done by then waits for a
/// stream or a server that may never answer, and a cancelled command ends within a second.
const GRACE: Duration = Duration::from_millis(800);

/// Runs a job, tells its story and cancels it on Ctrl-C.
pub(in crate::cli) async fn watched<S: Story + Send + 'static, T, E: Into<CommandError>>(
    invocation: &Invocation,
    job: impl AsyncFnOnce(Arc<dyn Sink<S>>, &CancellationToken) -> Result<T, E>,
) -> Result<T, CommandError> {
    let progress = Arc::new(invocation.progress::<S>());
    let cancel = signals::watch({
        let progress = Arc::clone(&progress);
        move || progress.notice("cancelling", "cancelling; press Ctrl-C again to stop at once")
    })?;
    let sink: Arc<dyn Sink<S>> = Arc::clone(&progress) as _;
    let ended = tokio::select! {
        biased;
        ended = job(sink, &cancel) => ended.map_err(Into::into),
        () = overdue(&cancel) => Err(cancelled(None)),
    };
    progress.finish();
    match ended {
        // A thread that was stopped says so in its own words; the reason is the cancellation.
        Err(error) if cancel.is_cancelled() && error.kind != ErrorKind::Cancelled => {
            Err(cancelled(Some(error.message)))
        }
        ended => ended,
    }
}

/// Runs a job as [`watched`] does, and waits for its end also after Ctrl-C: for one that has to clean up on an engine.
pub(in crate::cli) async fn watched_to_the_end<S: Story + Send + 'static, T, E: Into<CommandError>>(
    invocation: &Invocation,
    job: impl AsyncFnOnce(&dyn Sink<S>, &CancellationToken) -> Result<T, E>,
) -> Result<T, CommandError> {
    let progress = Arc::new(invocation.progress::<S>());
    let cancel = signals::watch({
        let progress = Arc::clone(&progress);
        move || progress.notice("cancelling", "cancelling; press Ctrl-C again to stop at once")
    })?;
    let ended = job(progress.as_ref(), &cancel).await;
    progress.finish();
    ended.map_err(Into::into)
}

async fn overdue(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

fn cancelled(cause: Option<String>) -> CommandError {
    CommandError {
        causes: cause.into_iter().collect(),
        ..CommandError::of(ErrorKind::Cancelled, "cancelled")
    }
}
