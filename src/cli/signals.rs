//! Ctrl-C and SIGTERM cancel what runs; a second one ends the program at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit;
use super::failure::CommandError;
use crate::base::ErrorKind;

/// Returns a token that the first Ctrl-C, SIGTERM or SIGHUP cancels, and says so through `tell`. Until this is called they
/// end the program as usual.
pub(super) fn watch(tell: impl FnOnce() + Send + 'static) -> Result<CancellationToken, CommandError> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| CommandError::io(ErrorKind::Internal, "cannot listen for signals", &error))
    };
    let mut signals =
        [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        next(&mut signals).await;
        cancelled.cancel();
        tell();
        next(&mut signals).await;
        end();
    });
    Ok(token)
}

async fn next([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[expect(
    clippy::exit,
    reason = "the user asked twice: nothing is waited for, and the next bake settles what is left"
)]
fn end() {
    std::process::exit(i32::from(exit::CANCELLED));
}
