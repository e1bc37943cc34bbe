//! The only clock of the crate.
//!
//! Rules take `now` as an argument; whoever needs the real time asks here, so that a test can see every place that does.

use std::time::{Duration, Instant};

/// Returns the wall clock's time. It may jump; nothing that must be safe may depend on it.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> jiff::Timestamp {
    #[cfg(test)]
    if let Some(now) = super::rehearsal::now() {
        return now;
    }
    jiff::Timestamp::now()
}

/// Returns the time since this host booted: monotonic, and the same for all its processes.
///
/// # Errors
///
/// Fails where `/proc/uptime` cannot be read.
pub fn uptime() -> std::io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    seconds.map(Duration::from_secs_f64).ok_or_else(|| std::io::Error::other("/proc/uptime holds no number"))
}

/// A point on the monotonic clock, for measuring how long something took.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(Instant);

impl Monotonic {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time passed since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Returns whole milliseconds since the start.
    #[must_use]
    pub fn elapsed_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
