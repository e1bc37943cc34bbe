//! What a restore could not give, counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::EntryPath;

/// Something of an entry that was not restored, for want of a right or of a file system that knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shortfall {
    /// The owner or the group.
    Owner,
    /// Mode bits, most often setuid and setgid.
    ModeBits,
    /// An extended attribute.
    Xattr,
    /// An ACL.
    Acl,
    /// A device.
    Device,
    /// A socket: no socket is ever restored.
    Socket,
    /// A time.
    Time,
    /// A hard link whose other name was not asked for.
    Link,
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::ModeBits => "mode bits",
            Self::Xattr => "extended attribute",
            Self::Acl => "ACL",
            Self::Device => "device",
            Self::Socket => "socket",
            Self::Time => "time",
            Self::Link => "hard link to what is left out",
        })
    }
}

impl Shortfall {
    /// All, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Owner,
        Self::ModeBits,
        Self::Xattr,
        Self::Acl,
        Self::Device,
        Self::Socket,
        Self::Time,
        Self::Link,
    ];
}

/// Counts what could not be given. Threads share one.
#[derive(Debug, Default)]
pub struct Shortfalls {
    rows: [Row; Shortfall::ALL.len()],
}

#[derive(Debug, Default)]
struct Row {
    count: AtomicU64,
    example: OnceLock<EntryPath>,
}

impl Shortfalls {
    /// Returns counters that all stand at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one. The first path of a kind is kept as its example.
    pub fn count(&self, shortfall: Shortfall, path: &EntryPath) {
        let row = Shortfall::ALL.iter().zip(&self.rows).find(|(kind, _)| **kind == shortfall);
        if let Some((_, row)) = row {
            row.count.fetch_add(1, Ordering::Relaxed);
            row.example.get_or_init(|| path.clone());
        }
    }

    /// Returns how many of a kind were counted.
    #[must_use]
    pub fn of(&self, shortfall: Shortfall) -> u64 {
        self.rows().find(|(kind, ..)| *kind == shortfall).map_or(0, |(_, count, _)| count)
    }

    /// Returns each kind that was counted, how often, and the first path.
    pub fn rows(&self) -> impl Iterator<Item = (Shortfall, u64, &EntryPath)> {
        Shortfall::ALL.iter().zip(&self.rows).filter_map(|(kind, row)| {
            row.example.get().map(|example| (*kind, row.count.load(Ordering::Relaxed), example))
        })
    }

    /// Returns whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_with_its_first_path() {
        let path = |text: &str| EntryPath::new(text.as_bytes()).unwrap();
        let shortfalls = Shortfalls::new();
        assert!(shortfalls.is_empty());
        shortfalls.count(Shortfall::Time, &path("a"));
        shortfalls.count(Shortfall::Owner, &path("b"));
        shortfalls.count(Shortfall::Time, &path("c"));
        let rows: Vec<_> = shortfalls.rows().collect();
        assert_eq!(rows, [(Shortfall::Owner, 1, &path("b")), (Shortfall::Time, 2, &path("a"))]);
        assert_eq!((shortfalls.of(Shortfall::Time), shortfalls.of(Shortfall::Acl)), (2, 0));
    }
}
