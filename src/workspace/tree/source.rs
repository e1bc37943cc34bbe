//! Reading a tree that others may change meanwhile: nothing is opened through a symbolic link.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::position::Position;
use super::stat::{Stat, StatKind, stat_at, stat_fd};
use super::xattrs::XattrReader;
use crate::store::{EntryPath, FileTime, Xattr};

/// A directory tree to be read. Clones share the open root.
#[derive(Debug, Clone)]
pub struct SourceTree {
    root: Arc<OwnedFd>,
}

impl SourceTree {
    /// Opens the tree at `path`. Only here a symbolic link is followed.
    ///
    /// # Errors
    ///
    /// Whatever `open` reports: not there, no directory, not allowed to be listed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: Arc::new(openat(CWD, path, flags, Mode::empty())?) })
    }

    /// Returns what the kernel says of the root.
    ///
    /// # Errors
    ///
    /// Whatever `statx` reports.
    pub fn root_stat(&self) -> io::Result<Stat> {
        stat_fd(&self.root)
    }

    /// Returns the time by the clock that stamps the files of the tree: what is changed from now on has a `ctime` not before it.
    ///
    /// A file without a name, made in the root, tells; where that is not possible it is the kernel's coarse clock, which local file
    /// systems use, 2 s ago: whether the file system counts in smaller steps is not known then.
    ///
    /// # Errors
    ///
    /// Whatever `statx` reports.
    pub fn file_system_now(&self) -> io::Result<FileTime> {
        file_system_now(self.root.as_fd())
    }

    /// Returns a reader; each thread has its own.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let root = Arc::clone(&self.root);
        Reader { position: Position::new(root), no_atime: OFlags::NOATIME, xattrs: XattrReader::new() }
    }

    pub(super) fn root(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.root)
    }
}

/// 2 s: FAT, which knows no files without a name, stamps in steps of this.
const COARSEST_STEP_SECONDS: i64 = 2;

/// Returns the time by the clock that stamps the files of a directory's file system; an earlier one where only the kernel's clock can
/// be asked.
pub(super) fn file_system_now(directory: BorrowedFd<'_>) -> io::Result<FileTime> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(unnamed) = openat(directory, c".", flags, Mode::RUSR | Mode::WUSR) {
        return Ok(stat_fd(&unnamed)?.ctime);
    }
    let time = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = time.tv_sec.saturating_sub(COARSEST_STEP_SECONDS);
    Ok(FileTime { seconds, nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0) })
}

/// Reads entries of a tree. It keeps the directory of the last one open, so that entries of one directory cost one call each.
#[derive(Debug)]
pub struct Reader {
    position: Position,
    /// Reading a file is not to change when it was last read; only its owner may ask for that.
    no_atime: OFlags,
    xattrs: XattrReader,
}

impl Reader {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    ///
    /// Fails on what is no regular file, and with whatever the file system reports. The open never waits for a writer of a fifo.
    pub fn open_file(&mut self, path: &EntryPath) -> io::Result<File> {
        let no_atime = &mut self.no_atime;
        self.position.at(path, |directory, name| open_regular(directory, name, no_atime))
    }

    /// Returns what the kernel says of an entry.
    ///
    /// # Errors
    ///
    /// Whatever `statx` reports.
    pub fn stat(&mut self, path: &EntryPath) -> io::Result<Stat> {
        if path.is_root() {
            return stat_fd(self.position.enter(b"")?);
        }
        self.position.at(path, |directory, name| stat_at(directory, name))
    }

    /// Returns where a symbolic link points to, as it is written.
    ///
    /// # Errors
    ///
    /// Fails on what is no symbolic link, and with whatever the file system reports.
    pub fn symlink_target(&mut self, path: &EntryPath) -> io::Result<Box<[u8]>> {
        self.position.at(path, |directory, name| {
            Ok(readlinkat(directory, name, Vec::new())?.into_bytes().into_boxed_slice())
        })
    }

    /// Returns the extended attributes of an entry, ACLs included, sorted by name.
    ///
    /// What belongs to the host and not to the entry is left out: see [`is_kept`](super::is_kept). An entry without any, a
    /// file system that knows none, and an attribute that vanishes meanwhile are no errors.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn xattrs(&mut self, path: &EntryPath, kind: StatKind) -> io::Result<Vec<Xattr>> {
        let Self { position, xattrs, .. } = self;
        if path.is_root() {
            let root = openat(position.enter(b"")?, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            return xattrs.of_fd(root.as_fd());
        }
        position.at(path, |directory, name| xattrs.of_entry(directory, name, kind))
    }

    /// Returns the extended attributes of an open file, as [`Reader::xattrs`] does.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn xattrs_of(&mut self, file: &File) -> io::Result<Vec<Xattr>> {
        self.xattrs.of_fd(file.as_fd())
    }
}

fn open_regular(directory: BorrowedFd<'_>, name: &[u8], no_atime: &mut OFlags) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = match openat(directory, name, flags | *no_atime, Mode::empty()) {
        Err(Errno::PERM) if !no_atime.is_empty() => {
            *no_atime = OFlags::empty();
            openat(directory, name, flags, Mode::empty())
        }
        opened => opened,
    }?;
    let file = File::from(opened);
    if stat_fd(&file)?.kind != StatKind::File {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Reads a regular file of at most `limit_bytes` in `directory`.
pub(super) fn read_small_file(
    directory: BorrowedFd<'_>,
    name: &str,
    limit_bytes: u64,
) -> io::Result<Vec<u8>> {
    let file = open_regular(directory, name.as_bytes(), &mut OFlags::empty())?;
    let mut text = Vec::new();
    if file.take(limit_bytes + 1).read_to_end(&mut text)? > usize::try_from(limit_bytes).unwrap_or(usize::MAX)
    {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {limit_bytes} bytes"),
        ));
    }
    Ok(text)
}
