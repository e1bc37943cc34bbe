//! Extended attributes and ACLs of an entry.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags, fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr, openat};
use rustix::io::Errno;

use super::stat::StatKind;
use crate::store::Xattr;

/// The longest list of names and the longest value that Linux hands out, in bytes.
const LONGEST: usize = 64 << 10;

/// Returns whether an attribute of this name says something of the entry itself.
///
/// Kept are `user.*`, `trusted.*`, POSIX ACLs and `security.*`, but for labels and seals that one host's policy or key gives
/// (`security.selinux`, `apparmor`, `SMACK64*`, `ima`, `evm`). Other `system.*` are views of something else, as `system.nfs4_acl`.
#[must_use]
pub fn is_kept(name: &[u8]) -> bool {
    let of_host: [&[u8]; 5] =
        [b"security.selinux", b"security.apparmor", b"security.SMACK64", b"security.ima", b"security.evm"];
    is_acl(name)
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name.starts_with(b"security.") && !of_host.iter().any(|start| name.starts_with(start))
}

/// Returns whether an attribute of this name is an ACL.
#[must_use]
pub fn is_acl(name: &[u8]) -> bool {
    matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// Returns whether only a privileged process sets attributes of this name, since they give rights.
pub(super) fn is_privileged(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.")
}

/// Returns the path of an entry of an open directory, by `/proc`: for calls that take no directory.
///
/// The directory's own part is not looked up again; the last component is, so that only calls that do not follow may use it.
pub(super) fn proc_path(directory: BorrowedFd<'_>, name: &[u8], path: &mut Vec<u8>) {
    path.clear();
    path.extend_from_slice(format!("/proc/self/fd/{}", directory.as_raw_fd()).as_bytes());
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
}

/// How the attributes of something are asked for.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Descriptor(BorrowedFd<'a>),
    /// A path whose last component is not followed.
    Entry(&'a [u8]),
    /// A path under `/proc/self/fd`, which leads to what the descriptor holds.
    Held(&'a [u8]),
}

impl Subject<'_> {
    fn list(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Descriptor(fd) => flistxattr(fd, buffer),
            Self::Entry(path) => llistxattr(path, buffer),
            Self::Held(path) => listxattr(path, buffer),
        }
    }

    fn get(self, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Descriptor(fd) => fgetxattr(fd, name, buffer),
            Self::Entry(path) => lgetxattr(path, name, buffer),
            Self::Held(path) => getxattr(path, name, buffer),
        }
    }
}

/// Reads attributes into buffers that are used again.
#[derive(Debug)]
pub(super) struct XattrReader {
    names: Vec<u8>,
    value: Vec<u8>,
    path: Vec<u8>,
}

impl XattrReader {
    pub(super) fn new() -> Self {
        Self { names: vec![0; 1 << 10], value: Vec::new(), path: Vec::new() }
    }

    /// Returns what an open file or directory has, sorted by name.
    pub(super) fn of_fd(&mut self, fd: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
        read(Subject::Descriptor(fd), &mut self.names, &mut self.value)
    }

    /// Returns what a descriptor that only holds a place has, sorted by name.
    pub(super) fn of_held(&mut self, fd: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
        proc_path(fd, b"", &mut self.path);
        read(Subject::Held(&self.path), &mut self.names, &mut self.value)
    }

    /// Returns what `name` in `directory` has, sorted by name, whether or not it may be opened.
    pub(super) fn of_entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        kind: StatKind,
    ) -> io::Result<Vec<Xattr>> {
        proc_path(directory, name, &mut self.path);
        match read(Subject::Entry(&self.path), &mut self.names, &mut self.value) {
            // Without /proc there is another way for what can be opened, and none for the rest.
            Err(error) if error.kind() == io::ErrorKind::NotFound && openable(kind) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = openat(directory, name, flags, Mode::empty())?;
                read(Subject::Descriptor(std::os::fd::AsFd::as_fd(&fd)), &mut self.names, &mut self.value)
            }
            result => result,
        }
    }
}

fn openable(kind: StatKind) -> bool {
    match kind {
        StatKind::Directory | StatKind::File => true,
        StatKind::Symlink
        | StatKind::CharDevice
        | StatKind::BlockDevice
        | StatKind::Fifo
        | StatKind::Socket => false,
    }
}

fn read(subject: Subject<'_>, names: &mut Vec<u8>, value: &mut Vec<u8>) -> io::Result<Vec<Xattr>> {
    let listed = match subject.list(names) {
        Err(Errno::RANGE) => {
            names.resize(LONGEST, 0);
            subject.list(names)
        }
        listed => listed,
    };
    let length = match listed {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for name in names.get(..length).unwrap_or_default().split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if !is_kept(name.to_bytes()) {
            continue;
        }
        value.resize(LONGEST, 0);
        match subject.get(name, value) {
            Ok(length) => found.push(Xattr {
                name: name.to_bytes().into(),
                value: value.get(..length).unwrap_or_default().into(),
            }),
            // It has vanished, or is listed and kept from this reader.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    found.sort_unstable();
    found.dedup_by(|a, b| a.name == b.name);
    Ok(found)
}
