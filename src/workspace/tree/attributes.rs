//! Giving an entry its attributes, as far as rights and file system allow.
//!
//! The order is the point. `user.*` attributes come first, while the file is ours to write. The owner comes before the mode, since
//! a change of owner clears setuid, and before capabilities, since it clears those. ACLs come before the mode, which they change.
//! The times come last.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod,
    fremovexattr, fsetxattr, futimens, lremovexattr, lsetxattr, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::names::Names;
use super::rights::RestoreRights;
use super::shortfalls::{Shortfall, Shortfalls};
use super::stat::{Stat, StatKind, stat_at, stat_fd};
use super::xattrs::{XattrReader, is_acl, is_privileged, proc_path};
use crate::store::{Attributes, EntryPath, Xattr};

/// What gets the attributes.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// Something that a descriptor only holds the place of, with the path under `/proc` that leads to it.
    Held(BorrowedFd<'a>, &'a [u8]),
    /// A symbolic link: its directory, its name, and the path under `/proc`, which must not be followed.
    Link(BorrowedFd<'a>, &'a [u8], &'a [u8]),
}

impl Subject<'_> {
    pub(super) fn stat(self) -> io::Result<Stat> {
        match self {
            Self::Open(fd) | Self::Held(fd, _) => stat_fd(fd),
            Self::Link(directory, name, _) => stat_at(directory, name),
        }
    }

    fn xattrs(self, reader: &mut XattrReader) -> io::Result<Vec<Xattr>> {
        match self {
            Self::Open(fd) => reader.of_fd(fd),
            Self::Held(fd, _) => reader.of_held(fd),
            Self::Link(directory, name, _) => reader.of_entry(directory, name, StatKind::Symlink),
        }
    }

    fn set_xattr(self, xattr: &Xattr) -> Result<(), Errno> {
        let (name, value, flags) = (&*xattr.name, &*xattr.value, XattrFlags::empty());
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, flags),
            Self::Held(_, path) => setxattr(path, name, value, flags),
            Self::Link(_, _, path) => lsetxattr(path, name, value, flags),
        }
    }

    fn remove_xattr(self, name: &[u8]) -> Result<(), Errno> {
        let removed = match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Held(_, path) => removexattr(path, name),
            Self::Link(_, _, path) => lremovexattr(path, name),
        };
        if removed == Err(Errno::NODATA) { Ok(()) } else { removed }
    }

    fn set_owner(self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Self::Open(fd) | Self::Held(fd, _) => chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
            Self::Link(directory, name, _) => chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_mode(self, mode: u16) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode.into());
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Held(_, path) => chmodat(CWD, path, mode, AtFlags::empty()),
            // Linux knows no mode of a symbolic link.
            Self::Link(..) => Ok(()),
        }
    }

    fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => futimens(fd, times),
            Self::Held(_, path) => utimensat(CWD, path, times, AtFlags::empty()),
            Self::Link(directory, name, _) => utimensat(directory, name, times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

/// What one entry is to get, and where it is counted if it cannot.
pub(super) struct Gift<'a> {
    pub(super) path: &'a EntryPath,
    pub(super) attributes: &'a Attributes,
    pub(super) rights: &'a RestoreRights,
    pub(super) shortfalls: &'a Shortfalls,
    pub(super) names: &'a OnceLock<Names>,
}

impl Gift<'_> {
    /// Gives everything. With a reader, attributes that are there and not asked for are removed.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports, but for what it does not allow or know: that is counted.
    pub(super) fn give(
        &self,
        subject: Subject<'_>,
        stat: &Stat,
        old: Option<&mut XattrReader>,
    ) -> io::Result<()> {
        self.give_all_but_times(subject, stat, old)?;
        self.give_times(subject)
    }

    /// Returns whether a fresh entry needs nothing but its times.
    pub(super) fn is_given(&self, stat: &Stat) -> bool {
        let Attributes { mode, owner, xattrs, .. } = self.attributes;
        let new = self.rights.owner_rule().apply(owner, || self.names.get_or_init(Names::new));
        xattrs.is_empty()
            && mode & 0o7777 == stat.mode
            && stat.mode & 0o6000 == 0
            && new.is_whole
            && new.uid.is_none_or(|uid| uid == stat.uid)
            && new.gid.is_none_or(|gid| gid == stat.gid)
    }

    /// Gives everything but the times, which should be given last, or before what does not change them.
    pub(super) fn give_all_but_times(
        &self,
        subject: Subject<'_>,
        stat: &Stat,
        old: Option<&mut XattrReader>,
    ) -> io::Result<()> {
        let mut mode = Some(stat.mode);
        let there = match old {
            Some(reader) => subject.xattrs(reader)?,
            None => Vec::new(),
        };
        for xattr in &there {
            if !self.wanted().any(|wanted| wanted.name == xattr.name) {
                if is_acl(&xattr.name) {
                    mode = None;
                }
                self.try_xattr(&xattr.name, subject.remove_xattr(&xattr.name))?;
            }
        }
        for xattr in self.wanted().filter(|xattr| is_users(&xattr.name) && !there.contains(xattr)) {
            let mut set = subject.set_xattr(xattr);
            if set == Err(Errno::ACCESS) {
                // Only who may write the file may change these, and its owner may take that right.
                mode = None;
                set = subject.set_mode(stat.mode | 0o600).and_then(|()| subject.set_xattr(xattr));
            }
            self.try_xattr(&xattr.name, set)?;
        }
        let owner = self.give_owner(subject, stat)?;
        if owner != Ownership::AsBefore && stat.mode & 0o6000 != 0 {
            mode = None;
        }
        for xattr in self.wanted().filter(|xattr| !is_users(&xattr.name)) {
            if owner == Ownership::AsBefore && there.contains(xattr) {
                continue;
            }
            if is_acl(&xattr.name) {
                mode = None;
            }
            self.try_xattr(&xattr.name, subject.set_xattr(xattr))?;
        }
        if self.attributes.xattrs.iter().any(|xattr| !self.may_have(xattr)) {
            self.shortfalls.count(Shortfall::Xattr, self.path);
        }
        self.give_mode(subject, stat.kind, mode, owner)
    }

    fn wanted(&self) -> impl Iterator<Item = &Xattr> {
        self.attributes.xattrs.iter().filter(|xattr| self.may_have(xattr))
    }

    fn may_have(&self, xattr: &Xattr) -> bool {
        self.rights.privileged_xattrs || !is_privileged(&xattr.name)
    }

    fn try_xattr(&self, name: &[u8], done: Result<(), Errno>) -> io::Result<()> {
        match done {
            Ok(()) => Ok(()),
            Err(errno) if is_refusal(errno) || is_too_much(errno) => {
                let kind = if is_acl(name) { Shortfall::Acl } else { Shortfall::Xattr };
                self.shortfalls.count(kind, self.path);
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn give_owner(&self, subject: Subject<'_>, stat: &Stat) -> io::Result<Ownership> {
        let new =
            self.rights.owner_rule().apply(&self.attributes.owner, || self.names.get_or_init(Names::new));
        let uid = new.uid.filter(|uid| *uid != stat.uid);
        let gid = new.gid.filter(|gid| *gid != stat.gid);
        let mut given = if new.is_whole { Ownership::AsBefore } else { Ownership::Refused };
        if uid.is_some() || gid.is_some() {
            match subject.set_owner(uid, gid) {
                Ok(()) if new.is_whole => given = Ownership::Changed,
                Ok(()) => {}
                Err(errno) if is_refusal(errno) => {
                    given = Ownership::Refused;
                    // Whoever is in the group may still give the file to it.
                    if uid.is_some()
                        && gid.is_some()
                        && let Err(errno) = subject.set_owner(None, gid)
                        && !is_refusal(errno)
                    {
                        return Err(errno.into());
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        if given == Ownership::Refused {
            self.shortfalls.count(Shortfall::Owner, self.path);
        }
        Ok(given)
    }

    /// Sets the mode unless it is known to be right. `is` is the mode that the entry has, `None` when it may have changed.
    fn give_mode(
        &self,
        subject: Subject<'_>,
        kind: StatKind,
        is: Option<u16>,
        owner: Ownership,
    ) -> io::Result<()> {
        if kind == StatKind::Symlink {
            return Ok(());
        }
        let mut mode = self.attributes.mode & 0o7777;
        // Of a directory setgid gives no rights. Of a file both do, and to the wrong user where the owner was refused.
        let may_be_special =
            kind == StatKind::Directory || self.rights.special_bits && owner != Ownership::Refused;
        if !may_be_special && mode & 0o6000 != 0 {
            mode &= !0o6000;
            self.shortfalls.count(Shortfall::ModeBits, self.path);
        }
        if is == Some(mode) {
            return Ok(());
        }
        match subject.set_mode(mode) {
            Ok(()) => {}
            Err(errno) if is_refusal(errno) => {
                self.shortfalls.count(Shortfall::ModeBits, self.path);
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
        // The kernel drops setgid without a word when the group is not one of the caller's.
        if mode & 0o2000 != 0 && subject.stat()?.mode != mode {
            self.shortfalls.count(Shortfall::ModeBits, self.path);
        }
        Ok(())
    }

    pub(super) fn give_times(&self, subject: Subject<'_>) -> io::Result<()> {
        let mtime = self.attributes.mtime;
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
        };
        match subject.set_times(&times) {
            Ok(()) => Ok(()),
            Err(errno) if is_refusal(errno) => {
                self.shortfalls.count(Shortfall::Time, self.path);
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// It was right already.
    AsBefore,
    Changed,
    /// It is not what the rule asks for.
    Refused,
}

fn is_users(name: &[u8]) -> bool {
    name.starts_with(b"user.")
}

/// Whether a call failed for want of a right or of a file system that knows the thing.
fn is_refusal(errno: Errno) -> bool {
    [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS].contains(&errno)
}

/// Whether an attribute is larger than the file system takes. Where the disk is full the content says so too.
fn is_too_much(errno: Errno) -> bool {
    [Errno::NOSPC, Errno::TOOBIG, Errno::RANGE].contains(&errno)
}

/// Removes ACLs that a new directory got from the one above it.
pub(super) fn drop_acls(directory: BorrowedFd<'_>) -> io::Result<()> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match fremovexattr(directory, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Returns the path under `/proc` that leads to what a descriptor holds.
pub(super) fn path_to(held: BorrowedFd<'_>) -> Vec<u8> {
    let mut path = Vec::new();
    proc_path(held.as_fd(), b"", &mut path);
    path
}
