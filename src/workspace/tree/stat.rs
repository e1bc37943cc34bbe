//! What the kernel says of one entry.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};

use crate::store::FileTime;

/// What an entry of a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What the kernel says of an entry, the entry itself and not what a symbolic link points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: StatKind,
    /// Permissions with setuid, setgid and sticky: the low 12 bits.
    pub mode: u16,
    /// The owning user's number.
    pub uid: u32,
    /// The owning group's number.
    pub gid: u32,
    /// The size in bytes: of a file its length, of a symbolic link that of its target.
    pub size: u64,
    /// The storage it takes, in units of 512 bytes.
    pub blocks_512: u64,
    /// When the content changed last.
    pub mtime: FileTime,
    /// When the content or an attribute changed last, by the file system's own clock.
    pub ctime: FileTime,
    /// The number of the inode, unique on its device.
    pub ino: u64,
    /// The device of the file system: the major number in the high half, the minor in the low one.
    pub dev: u64,
    /// How many names it has.
    pub nlink: u32,
    /// Of a device its major and minor number.
    pub rdev: (u32, u32),
}

/// What is asked for: everything but the time of the last access, which some file systems must look up.
const MASK: StatxFlags = StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME);

/// Returns what the kernel says of an open file.
///
/// # Errors
///
/// Whatever `statx` reports.
pub fn stat_of(file: &File) -> io::Result<Stat> {
    stat_fd(file)
}

pub(super) fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    Stat::new(&statx(fd, c"", AtFlags::EMPTY_PATH, MASK)?)
}

/// Looks at `name`, a single component, in `directory`; a symbolic link is not followed and nothing is mounted.
pub(super) fn stat_at(directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Stat> {
    Stat::new(&statx(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, MASK)?)
}

impl Stat {
    fn new(raw: &Statx) -> io::Result<Self> {
        let kind = match FileType::from_raw_mode(raw.stx_mode.into()) {
            FileType::Directory => StatKind::Directory,
            FileType::RegularFile => StatKind::File,
            FileType::Symlink => StatKind::Symlink,
            FileType::CharacterDevice => StatKind::CharDevice,
            FileType::BlockDevice => StatKind::BlockDevice,
            FileType::Fifo => StatKind::Fifo,
            FileType::Socket => StatKind::Socket,
            FileType::Unknown => return Err(io::Error::other("the kernel names no kind of file for it")),
        };
        Ok(Self {
            kind,
            mode: raw.stx_mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            blocks_512: raw.stx_blocks,
            mtime: FileTime { seconds: raw.stx_mtime.tv_sec, nanoseconds: raw.stx_mtime.tv_nsec },
            ctime: FileTime { seconds: raw.stx_ctime.tv_sec, nanoseconds: raw.stx_ctime.tv_nsec },
            ino: raw.stx_ino,
            dev: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
            nlink: raw.stx_nlink,
            rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        })
    }
}
