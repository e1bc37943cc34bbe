//! One build per engine and host, so that what a step writes can be told apart from another's.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::BakeError;
use crate::base::{HostLock, Sha256Digest};

/// How often a waiting build looks whether it may begin.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The right to build on an engine; given back when dropped, also by the kernel when the process dies.
#[derive(Debug)]
pub(super) struct BuildPermit {
    #[expect(dead_code, reason = "the right lasts as long as the lock")]
    lock: HostLock,
    /// Whether somebody else had to finish first.
    pub(super) waited: bool,
}

/// Waits for the right to build on the engine at `endpoint`. `on_wait` is called once, when somebody else has it.
pub(super) async fn acquire(
    state_dir: &Path,
    endpoint: &str,
    cancel: &CancellationToken,
    on_wait: impl FnOnce(),
) -> Result<BuildPermit, BakeError> {
    let name = Sha256Digest::of(endpoint.as_bytes()).to_string();
    let path = state_dir.join("locks").join(format!("build-{}", &name[..16]));
    let local = |source| BakeError::Local { path: path.clone(), source };
    let mut on_wait = Some(on_wait);
    loop {
        if let Some(lock) = HostLock::try_take(&path).map_err(local)? {
            return Ok(BuildPermit { lock, waited: on_wait.is_none() });
        }
        if let Some(tell) = on_wait.take() {
            tell();
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(BakeError::Cancelled { action: "waiting for another build".into() }),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_build_waits_for_the_first() {
        let home = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let first = acquire(home.path(), "unix:///x", &cancel, || ()).await.unwrap();
        assert!(!first.waited);
        let other_engine = acquire(home.path(), "unix:///y", &cancel, || ()).await.unwrap();
        assert!(!other_engine.waited);
        let (path, token) = (home.path().to_owned(), cancel.clone());
        let second = tokio::spawn(async move { acquire(&path, "unix:///x", &token, || ()).await });
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap().unwrap().waited);
    }

    #[tokio::test]
    async fn waiting_can_be_cancelled() {
        let home = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let _first = acquire(home.path(), "unix:///x", &cancel, || ()).await.unwrap();
        cancel.cancel();
        let error = acquire(home.path(), "unix:///x", &cancel, || ()).await.unwrap_err();
        assert!(matches!(error, BakeError::Cancelled { .. }), "{error}");
    }
}
