//! Writing a tree that others may change meanwhile: nothing is written outside it, whatever they put there.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, symlinkat, syncfs,
};
use rustix::io::Errno;

use super::attributes::{Gift, Subject, path_to};
use super::names::Names;
use super::position::Position;
use super::remove::{let_owner_in, let_owner_write, remove_entry};
use super::rights::RestoreRights;
use super::shortfalls::Shortfalls;
use super::source::file_system_now;
use super::stat::{Stat, StatKind, stat_at, stat_fd};
use super::xattrs::{XattrReader, proc_path};
use crate::store::{Attributes, EntryPath, FileTime};

/// A directory tree to be written. Clones share the open root.
#[derive(Debug, Clone)]
pub struct TargetTree {
    root: Arc<OwnedFd>,
    origin: Origin,
    names: Arc<OnceLock<Names>>,
}

/// Who has made what lies in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// This restore, all of it, below a directory that only its user may enter.
    Fresh,
    /// Others have, or may.
    Existing,
}

impl TargetTree {
    /// Opens an existing directory, to be changed in place. Only here a symbolic link is followed.
    ///
    /// # Errors
    ///
    /// Whatever `open` reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(openat(CWD, path, flags, Mode::empty())?, Origin::Existing))
    }

    pub(super) fn new(root: OwnedFd, origin: Origin) -> Self {
        Self { root: Arc::new(root), origin, names: Arc::default() }
    }

    /// Returns whether nobody else could change it so far: it was made for this, and only its user may enter it.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.origin == Origin::Fresh
    }

    /// Returns a writer; each thread has its own.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer {
            position: Position::new(Arc::clone(&self.root)),
            links: Position::new(Arc::clone(&self.root)),
            xattrs: XattrReader::new(),
            tree: self.clone(),
        }
    }

    /// Returns the time by the clock that stamps the files of the tree.
    ///
    /// # Errors
    ///
    /// Whatever `statx` reports.
    pub fn file_system_now(&self) -> io::Result<FileTime> {
        file_system_now(self.root())
    }

    /// Makes all that was written durable, with whatever else waits on that file system.
    ///
    /// # Errors
    ///
    /// Whatever `syncfs` reports.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.root)?)
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Writes entries of a tree. It keeps the directory of the last one open, so that entries of one directory cost one call each.
///
/// Every path is an entry below the root, whose directories exist. What is in the way is [`io::ErrorKind::AlreadyExists`]; a
/// directory that has become a symbolic link is an error and is not followed; one that is moved while a writer has it open takes
/// what that writer makes along. In a tree that was there before, a directory whose
/// owner may not change it gets that permission when an entry of it is made or removed: give it its attributes afterwards.
#[derive(Debug)]
pub struct Writer {
    tree: TargetTree,
    position: Position,
    /// Where the existing names of hard links are looked up.
    links: Position,
    xattrs: XattrReader,
}

impl Writer {
    /// Makes a directory that only its owner may enter. The root is always there.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn create_dir(&mut self, path: &EntryPath) -> io::Result<()> {
        if path.is_root() {
            return Ok(());
        }
        self.make(path, |directory, name| Ok(mkdirat(directory, name, Mode::RWXU)?))
    }

    /// Makes a regular file and opens it for writing. It must not exist in any form.
    ///
    /// `mode_hint` is the mode that it will have in the end: with the right one, a file in a fresh tree needs no change of mode. Its
    /// owner may always write it until it is finished.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn create_file(&mut self, path: &EntryPath, mode_hint: u16) -> io::Result<File> {
        let mode = match self.tree.origin {
            Origin::Fresh => mode_hint & 0o777 | 0o600,
            // Others could read it before it has its owner.
            Origin::Existing => 0o600,
        };
        let mode = Mode::from_raw_mode(mode.into());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make(path, |directory, name| Ok(openat(directory, name, flags, mode)?.into()))
    }

    /// Opens an existing regular file for writing; several threads may write their parts of it. In a tree that was there before, a
    /// file whose owner may not write it gets that permission: give it its attributes afterwards.
    ///
    /// # Errors
    ///
    /// Fails on what is no regular file, and with whatever the file system reports.
    pub fn open_file(&mut self, path: &EntryPath) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let origin = self.tree.origin;
        let file: File = self.position.at(path, |directory, name| {
            let open = || openat(directory, name, flags, Mode::empty());
            match open() {
                Err(Errno::ACCESS)
                    if origin == Origin::Existing && let_owner_write(directory, name).unwrap_or(false) =>
                {
                    Ok(open()?.into())
                }
                opened => Ok(opened?.into()),
            }
        })?;
        if stat_fd(&file)?.kind == StatKind::File { Ok(file) } else { Err(not_the_kind()) }
    }

    /// Makes a symbolic link that holds `target`, whatever that is.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn symlink(&mut self, path: &EntryPath, target: &[u8]) -> io::Result<()> {
        self.make(path, |directory, name| Ok(symlinkat(target, directory, name)?))
    }

    /// Makes `new` another name of `existing`, which may be anything but a directory; a symbolic link gets the name itself.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn hard_link(&mut self, existing: &EntryPath, new: &EntryPath) -> io::Result<()> {
        let Self { position, links, tree, .. } = self;
        make(position, tree.origin, new, |new_directory, new_name| {
            links.at(existing, |directory, name| {
                Ok(linkat(directory, name, new_directory, new_name, AtFlags::empty())?)
            })
        })
    }

    /// Makes a named pipe.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports.
    pub fn fifo(&mut self, path: &EntryPath) -> io::Result<()> {
        self.node(path, FileType::Fifo, 0)
    }

    /// Makes a device. Whether that is wanted is the caller's to decide ([`RestoreRights::devices`]).
    ///
    /// # Errors
    ///
    /// Fails for a kind that is no device, and with whatever the file system reports: without the right it is
    /// [`io::ErrorKind::PermissionDenied`].
    pub fn device(&mut self, path: &EntryPath, kind: StatKind, major: u32, minor: u32) -> io::Result<()> {
        let kind = match kind {
            StatKind::CharDevice => FileType::CharacterDevice,
            StatKind::BlockDevice => FileType::BlockDevice,
            StatKind::Directory | StatKind::File | StatKind::Symlink | StatKind::Fifo | StatKind::Socket => {
                return Err(not_the_kind());
            }
        };
        self.node(path, kind, makedev(major, minor))
    }

    fn node(&mut self, path: &EntryPath, kind: FileType, device: u64) -> io::Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(path, |directory, name| Ok(mknodat(directory, name, kind, mode, device)?))
    }

    /// Gives an open regular file its attributes, as far as rights and file system allow; the rest is counted.
    ///
    /// To be done when all content is written. A fresh file costs the times and one look, and more only where owner, mode or
    /// attributes differ. Returns what the kernel says of the file afterwards.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports, but for what it does not allow or know.
    pub fn finish_file(
        &mut self,
        file: &File,
        path: &EntryPath,
        attributes: &Attributes,
        rights: &RestoreRights,
        shortfalls: &Shortfalls,
    ) -> io::Result<Stat> {
        let gift = Gift { path, attributes, rights, shortfalls, names: &self.tree.names };
        let subject = Subject::Open(file.as_fd());
        if self.tree.origin == Origin::Fresh {
            // Nothing that is set after the time changes it.
            gift.give_times(subject)?;
            let stat = stat_fd(file)?;
            if gift.is_given(&stat) {
                return Ok(stat);
            }
            gift.give_all_but_times(subject, &stat, None)?;
        } else {
            gift.give(subject, &stat_fd(file)?, Some(&mut self.xattrs))?;
        }
        stat_fd(file)
    }

    /// Gives an entry its attributes by its path, as [`Writer::finish_file`] does; the root has its own too. Returns what the kernel
    /// says of it afterwards.
    ///
    /// Directories are finished after all that lies in them, the deepest first: a directory may not let its owner write, and each
    /// new entry changes its time. Of a hard link only one name needs it.
    ///
    /// # Errors
    ///
    /// Fails when the entry is not of that kind, and with whatever the file system reports, but for what it does not allow or know.
    pub fn finish_path(
        &mut self,
        path: &EntryPath,
        kind: StatKind,
        attributes: &Attributes,
        rights: &RestoreRights,
        shortfalls: &Shortfalls,
    ) -> io::Result<Stat> {
        let gift = Gift { path, attributes, rights, shortfalls, names: &self.tree.names };
        let origin = self.tree.origin;
        let (position, xattrs) = (&mut self.position, &mut self.xattrs);
        if path.is_root() {
            return finish(position.enter(b"")?, b".", kind, &gift, old_xattrs(origin, xattrs));
        }
        position.at(path, |directory, name| finish(directory, name, kind, &gift, old_xattrs(origin, xattrs)))
    }

    /// Looks at an entry, the entry itself and not what a symbolic link points to.
    ///
    /// # Errors
    ///
    /// Whatever `statx` reports.
    pub fn stat(&mut self, path: &EntryPath) -> io::Result<Stat> {
        self.position.at(path, |directory, name| stat_at(directory, name))
    }

    /// Removes an entry with all that lies in it; symbolic links are removed and not followed. Nothing there is fine.
    ///
    /// # Errors
    ///
    /// Fails for the root, and with whatever the file system reports.
    pub fn remove(&mut self, path: &EntryPath) -> io::Result<()> {
        self.position.forget(path);
        self.links.forget(path);
        self.position.at(path, |directory, name| remove_entry(directory, &CString::new(name)?))
    }

    fn make<T>(
        &mut self,
        path: &EntryPath,
        act: impl FnMut(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        make(&mut self.position, self.tree.origin, path, act)
    }
}

/// Makes an entry; in a tree that was there before, its directory may have to let its owner in first.
fn make<T>(
    position: &mut Position,
    origin: Origin,
    path: &EntryPath,
    mut act: impl FnMut(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
) -> io::Result<T> {
    position.at(path, |directory, name| match act(directory, name) {
        Err(error)
            if origin == Origin::Existing
                && error.raw_os_error() == Some(Errno::ACCESS.raw_os_error())
                && let_owner_in(directory).unwrap_or(false) =>
        {
            act(directory, name)
        }
        result => result,
    })
}

/// What is there before is only of interest in a tree that this restore has not made.
fn old_xattrs(origin: Origin, reader: &mut XattrReader) -> Option<&mut XattrReader> {
    match origin {
        Origin::Fresh => None,
        Origin::Existing => Some(reader),
    }
}

fn finish(
    directory: BorrowedFd<'_>,
    name: &[u8],
    kind: StatKind,
    gift: &Gift<'_>,
    old: Option<&mut XattrReader>,
) -> io::Result<Stat> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let reading = match kind {
        StatKind::Directory => Some(OFlags::RDONLY | OFlags::DIRECTORY),
        StatKind::File => Some(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY),
        StatKind::Symlink
        | StatKind::CharDevice
        | StatKind::BlockDevice
        | StatKind::Fifo
        | StatKind::Socket => None,
    };
    if let Some(reading) = reading {
        match openat(directory, name, flags | reading, Mode::empty()) {
            Ok(fd) => return give(Subject::Open(fd.as_fd()), kind, gift, old),
            // Its owner may not read it and may still change what it says.
            Err(Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if kind == StatKind::Symlink {
        let mut path = Vec::new();
        proc_path(directory, name, &mut path);
        return give(Subject::Link(directory, name, &path), kind, gift, old);
    }
    let held = openat(directory, name, flags | OFlags::PATH, Mode::empty())?;
    give(Subject::Held(held.as_fd(), &path_to(held.as_fd())), kind, gift, old)
}

fn give(
    subject: Subject<'_>,
    kind: StatKind,
    gift: &Gift<'_>,
    old: Option<&mut XattrReader>,
) -> io::Result<Stat> {
    let stat = subject.stat()?;
    if stat.kind != kind {
        return Err(not_the_kind());
    }
    gift.give(subject, &stat, old)?;
    subject.stat()
}

fn not_the_kind() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the entry is of another kind")
}
