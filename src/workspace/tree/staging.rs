//! A tree that appears at its name when it is whole.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, fchmod, fchown, flock, fsync, mkdirat, openat,
    renameat, renameat_with,
};
use rustix::io::Errno;
use rustix::process::getegid;

use super::attributes::drop_acls;
use super::remove::{clear, remove_entry};
use super::source::file_system_now;
use super::stat::stat_fd;
use super::target::{Origin, TargetTree};
use crate::base::{Classify, ErrorKind};

/// 60 s: between making a directory and locking it goes less time.
const LEFT_OVER_SECONDS: i64 = 60;

/// Why no tree can be made.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Something is there.
    #[error("`{}` is there already and is not an empty directory", path.display())]
    Occupied {
        /// The name that the tree was to have.
        path: PathBuf,
    },
    /// The path ends in no name that a directory could have.
    #[error("`{}` names no directory that could be made", path.display())]
    Nameless {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot make a directory for `{}`", path.display())]
    Make {
        /// The name that the tree was to have.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Classify for TargetError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Occupied { .. } => ErrorKind::Conflict,
            Self::Nameless { .. } => ErrorKind::Invalid,
            Self::Make { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Make { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                ErrorKind::Limit
            }
            Self::Make { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Occupied { .. } => {
                Some("restore to a new directory, or use --update to change this one".to_owned())
            }
            Self::Make { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("make the directory above it first".to_owned())
            }
            Self::Nameless { .. } | Self::Make { .. } => None,
        }
    }
}

/// A tree on its way to its name. Dropping it removes what was written.
///
/// The tree is made under a name of its own beside the final one, where only its user may enter it. [`Staging::publish`] is the
/// commit point: before it, the final name is as it was, and a crash leaves a directory `.<name>.restore-…`. The next tree that is
/// made for that name removes it, where the file system has locks: whoever is at work holds one.
///
/// An empty directory that cannot be replaced, since something is mounted on it, or it is where this process stands, or the
/// directory above may not be changed, is written in place. Then a crash leaves half a tree in it.
#[derive(Debug)]
pub struct Staging {
    tree: TargetTree,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Beside {
        parent: OwnedFd,
        temporary: CString,
        name: CString,
    },
    Inside,
    /// It is published, or removed.
    Settled,
}

impl TargetTree {
    /// Begins a tree at `path`, which must not exist or be an empty directory; the directory above it must exist.
    ///
    /// # Errors
    ///
    /// See [`TargetError`].
    pub fn create(path: &Path) -> Result<Staging, TargetError> {
        let made = |source| TargetError::Make { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(there) => {
                let is_free = there.is_dir() && fs::read_dir(path).map_err(made)?.next().is_none();
                if !is_free {
                    return Err(TargetError::Occupied { path: path.to_owned() });
                }
                let real = fs::canonicalize(path).map_err(made)?;
                replace(&real).map_err(made)
            }
            // A symbolic link that leads nowhere is something too.
            Err(_) if fs::symlink_metadata(path).is_ok() => {
                Err(TargetError::Occupied { path: path.to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or_else(|| TargetError::Nameless { path: path.to_owned() })?;
                let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                beside(above.unwrap_or(Path::new(".")), name).map_err(made)
            }
            Err(error) => Err(made(error)),
        }
    }
}

/// Begins a tree that is to take the place of an empty directory.
fn replace(real: &Path) -> io::Result<Staging> {
    let in_place = || Ok(Staging { tree: TargetTree::open(real)?, place: Place::Inside });
    let (Some(above), Some(name)) = (real.parent(), real.file_name()) else { return in_place() };
    if is_mount_point(real, above)? || std::env::current_dir().is_ok_and(|here| here.starts_with(real)) {
        return in_place();
    }
    match beside(above, name) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            in_place()
        }
        staging => staging,
    }
}

fn is_mount_point(real: &Path, above: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    use std::os::unix::fs::MetadataExt as _;
    let stat = statx(CWD, real, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        || fs::metadata(real)?.dev() != fs::metadata(above)?.dev())
}

fn beside(above: &Path, name: &OsStr) -> io::Result<Staging> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat(CWD, above, directory, Mode::empty())?;
    let name = CString::new(name.as_bytes())?;
    // A name has at most 255 bytes.
    let start = name.to_bytes().get(..200).unwrap_or(name.to_bytes());
    let start = [b".", start, b".restore-"].concat();
    // Leftovers cost room and nothing else.
    let _swept = sweep(parent.as_fd(), &start).is_ok();
    let (temporary, root) = loop {
        let temporary =
            CString::new([start.as_slice(), format!("{:016x}", fastrand::u64(..)).as_bytes()].concat())?;
        match mkdirat(&parent, &temporary, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let root = openat(&parent, &temporary, directory | OFlags::NOFOLLOW, Mode::empty())?;
        // Without a lock the directory is taken for a leftover once it is old, unless no lock can be had there at all.
        let _locked = flock(&root, FlockOperation::NonBlockingLockExclusive).is_ok();
        break (temporary, root);
    };
    let tree = TargetTree::new(root, Origin::Fresh);
    let staging = Staging { tree, place: Place::Beside { parent, temporary, name } };
    staging.disinherit()?;
    Ok(staging)
}

/// Removes what restores that were killed have left: directories whose names begin so, that nobody has locked and that are older
/// than a moment.
fn sweep(parent: BorrowedFd<'_>, start: &[u8]) -> io::Result<()> {
    let now = file_system_now(parent)?.seconds;
    for entry in Dir::read_from(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_like_ours = name.to_bytes().strip_prefix(start).is_some_and(|end| {
            end.len() == 16 && end.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        if !is_like_ours {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(there) = openat(parent, name, flags, Mode::empty()) else { continue };
        let is_old = stat_fd(&there)?.mtime.seconds < now - LEFT_OVER_SECONDS;
        if is_old && flock(&there, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_entry(parent, name)?;
        }
    }
    Ok(())
}

impl Staging {
    /// Returns the tree to write to.
    #[must_use]
    pub fn tree(&self) -> &TargetTree {
        &self.tree
    }

    /// Puts the tree at its name, in one step, and makes that durable. What is written need not be: see [`TargetTree::sync`].
    ///
    /// # Errors
    ///
    /// Fails when the name has been taken meanwhile by anything but an empty directory, and with whatever the file system reports;
    /// the tree is removed then.
    pub fn publish(mut self) -> io::Result<()> {
        match &self.place {
            Place::Beside { parent, temporary, name } => {
                match renameat_with(parent, temporary, parent, name, RenameFlags::NOREPLACE) {
                    // A directory takes the place of an empty directory and of nothing else.
                    Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {
                        renameat(parent, temporary, parent, name)?;
                    }
                    renamed => renamed?,
                }
                fsync(parent)?;
            }
            Place::Inside => fsync(self.tree.root())?,
            Place::Settled => {}
        }
        self.place = Place::Settled;
        Ok(())
    }

    /// Removes what was written, and says when that fails.
    ///
    /// # Errors
    ///
    /// Whatever the file system reports; some of the tree is left then.
    pub fn discard(mut self) -> io::Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.place, Place::Settled) {
            Place::Beside { parent, temporary, .. } => remove_entry(parent.as_fd(), &temporary),
            Place::Inside => clear(self.tree.root()),
            Place::Settled => Ok(()),
        }
    }

    /// Takes from the new root what it got from the directory above: its group with setgid, and ACLs. Else all in it got them too.
    fn disinherit(&self) -> io::Result<()> {
        let root = self.tree.root();
        let stat = stat_fd(root)?;
        if stat.gid != getegid().as_raw() {
            fchown(root, None, Some(getegid()))?;
        }
        drop_acls(root)?;
        Ok(fchmod(root, Mode::RWXU)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // `discard` is for who wants to know; what is left here has a name that says what it is.
        self.remove().unwrap_or_default();
    }
}
