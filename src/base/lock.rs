//! A right that one process of a host and user has at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::fs::create_dir_durably;

/// A right that one process has at a time; given back when dropped, also by the kernel when the process dies.
#[derive(Debug)]
pub struct HostLock {
    #[expect(dead_code, reason = "the lock lives as long as the open file")]
    file: File,
}

impl HostLock {
    /// Takes the right that the file at `path` stands for; `None` while somebody else has it. The file is made where it is not there,
    /// and stays.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be made or opened.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            create_dir_durably(folder)?;
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(()) => Ok(Some(Self { file })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_it_is_given_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("locks/a");
        let first = HostLock::try_take(&path).unwrap();
        assert!(first.is_some() && HostLock::try_take(&path).unwrap().is_none());
        assert!(HostLock::try_take(&home.path().join("locks/b")).unwrap().is_some());
        drop(first);
        assert!(HostLock::try_take(&path).unwrap().is_some());
        assert!(HostLock::try_take(Path::new("/proc/no/such")).is_err());
    }
}
