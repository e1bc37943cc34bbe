//! Removing a tree, however deep, without following a symbolic link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::io::Errno;

use super::attributes::path_to;
use super::listing::Names;
use super::stat::{StatKind, stat_fd};

/// A directory on the way down.
struct Frame {
    name: CString,
    /// Its device and inode: `..` of a directory in it must lead back here.
    id: (u64, u64),
    /// The directories in it that are still there.
    below: Vec<CString>,
}

/// Removes `name` in `parent` with all that lies in it. Nothing there is fine.
///
/// Directories whose owner may not list or change them get those permissions first.
pub(super) fn remove_entry(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if !is_directory_left(parent, name)? {
        return Ok(());
    }
    let Some((mut current, first)) = descend(parent, name)? else { return Ok(()) };
    let mut frames = vec![first];
    // Two descriptors at a time: the way up is `..`, checked against where the way down came from.
    while let Some(frame) = frames.last_mut() {
        if let Some(below) = frame.below.pop() {
            if let Some((fd, frame)) = descend(current.as_fd(), &below)? {
                current = fd;
                frames.push(frame);
            }
            continue;
        }
        let Some(done) = frames.pop() else { break };
        match frames.last() {
            Some(above) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let up = openat(&current, c"..", flags, Mode::empty())?;
                let stat = stat_fd(&up)?;
                if (stat.dev, stat.ino) != above.id {
                    return Err(io::Error::other("a directory was moved while it was being removed"));
                }
                unlink(up.as_fd(), &done.name, AtFlags::REMOVEDIR)?;
                current = up;
            }
            None => unlink(parent, &done.name, AtFlags::REMOVEDIR)?,
        }
    }
    Ok(())
}

/// Removes all that lies in `directory`.
pub(super) fn clear(directory: BorrowedFd<'_>) -> io::Result<()> {
    let fd = openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let names = list(fd.as_fd())?;
    for name in (0..names.len()).filter_map(|index| names.get(index)) {
        remove_entry(fd.as_fd(), name)?;
    }
    Ok(())
}

/// Lets the owner of a directory list and change it. Returns whether that changed anything.
pub(super) fn let_owner_in(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = stat_fd(directory)?;
    if stat.mode & 0o700 == 0o700 {
        return Ok(false);
    }
    let mode = Mode::from_raw_mode(u32::from(stat.mode | 0o700));
    Ok(chmodat(CWD, path_to(directory), mode, AtFlags::empty()).map(|()| true)?)
}

/// Lets the owner of a regular file read and write it. Returns whether that changed anything.
pub(super) fn let_owner_write(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let held = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = stat_fd(&held)?;
    if stat.kind != StatKind::File || stat.mode & 0o600 == 0o600 {
        return Ok(false);
    }
    let mode = Mode::from_raw_mode(u32::from(stat.mode | 0o600));
    Ok(chmodat(CWD, path_to(held.as_fd()), mode, AtFlags::empty()).map(|()| true)?)
}

/// Opens a directory and removes all in it but directories. `None` when it has vanished or is no directory any more.
fn descend(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<(OwnedFd, Frame)>> {
    let fd = match open_to_clear(parent, name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return unlink(parent, name, AtFlags::empty()).map(|()| None);
        }
        Err(errno) => return Err(errno.into()),
    };
    let stat = stat_fd(&fd)?;
    let names = list(fd.as_fd())?;
    let mut below = Vec::new();
    for name in (0..names.len()).filter_map(|index| names.get(index)) {
        if is_directory_left(fd.as_fd(), name)? {
            below.push(name.to_owned());
        }
    }
    Ok(Some((fd, Frame { name: name.to_owned(), id: (stat.dev, stat.ino), below })))
}

fn open_to_clear(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, OFlags::RDONLY | flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let held = openat(parent, name, OFlags::PATH | flags, Mode::empty())?;
            match let_owner_in(held.as_fd()) {
                Ok(true) => openat(parent, name, OFlags::RDONLY | flags, Mode::empty()),
                Ok(false) | Err(_) => Err(Errno::ACCESS),
            }
        }
        opened => opened,
    }
}

fn list(directory: BorrowedFd<'_>) -> io::Result<Names> {
    let (names, problem) = Names::list(directory, &mut Vec::new(), || false);
    problem.map_or(Ok(names), Err)
}

/// Removes `name` unless it is a directory, and returns whether it is one.
fn is_directory_left(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match unlink(parent, name, AtFlags::empty()) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(true),
        Err(error) => Err(error),
    }
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match unlinkat(parent, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ACCESS) if let_owner_in(parent)? => Ok(unlinkat(parent, name, flags)?),
        Err(errno) => Err(errno.into()),
    }
}
