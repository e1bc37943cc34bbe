//! Where a thread stands in a tree: one open directory, reached without following any symbolic link.
//!
//! A path is opened from the root's descriptor with `openat2`, which the kernel keeps beneath it. Where there is no `openat2`,
//! and between pieces of a path that is longer than the kernel takes at once, each step is opened relative to the one before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::store::EntryPath;

/// Bytes of a path that are handed to the kernel at once: it takes 4,096 with the closing NUL.
const PIECE_BYTES: usize = 4_000;

/// Whether the kernel, or a filter before it, has no `openat2`.
static STEP_BY_STEP: AtomicBool = AtomicBool::new(false);

/// A root with the directory that was used last.
#[derive(Debug)]
pub(super) struct Position {
    root: Arc<OwnedFd>,
    flags: OFlags,
    last: Option<(Box<[u8]>, OwnedFd)>,
}

impl Position {
    /// Stands at the root. Directories are opened to be named in, which needs no permission to list them.
    pub(super) fn new(root: Arc<OwnedFd>) -> Self {
        Self { root, flags: OFlags::PATH, last: None }
    }

    /// Stands at the root. Directories are opened to be listed.
    pub(super) fn listing(root: Arc<OwnedFd>) -> Self {
        Self { root, flags: OFlags::RDONLY, last: None }
    }

    /// Opens `directory` anew, so that its listing starts at the beginning.
    pub(super) fn open(&self, directory: &[u8]) -> io::Result<OwnedFd> {
        self.open_as(directory, self.flags)
    }

    /// Opens `directory` anew for what `flags` say.
    pub(super) fn open_as(&self, directory: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        if let Some((path, fd)) = &self.last
            && let Some(rest) = directory.strip_prefix(&**path).and_then(|rest| rest.strip_prefix(b"/"))
        {
            return open_directory(fd.as_fd(), rest, flags);
        }
        open_directory(self.root.as_fd(), directory, flags)
    }

    /// Makes `fd` the directory that was used last.
    pub(super) fn stand_in(&mut self, directory: &[u8], fd: OwnedFd) {
        self.last = Some((directory.into(), fd));
    }

    /// Forgets the directory that was used last, if it is `path` or lies in it.
    pub(super) fn forget(&mut self, path: &EntryPath) {
        let is_within = |directory: &[u8]| {
            directory
                .strip_prefix(path.as_bytes())
                .is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/') || path.is_root())
        };
        if self.last.as_ref().is_some_and(|(directory, _)| is_within(directory)) {
            self.last = None;
        }
    }

    /// Returns the descriptor of `directory`, opened only if it is not the one that was used last.
    pub(super) fn enter(&mut self, directory: &[u8]) -> io::Result<BorrowedFd<'_>> {
        if directory.is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(path, _)| **path != *directory) {
            let fd = self.open(directory)?;
            self.last = Some((directory.into(), fd));
        }
        let (_, fd) = self.last.as_ref().ok_or(Errno::BADF)?;
        Ok(fd.as_fd())
    }

    /// Does `act` with the descriptor of the directory that holds `path` and with its name in there.
    ///
    /// A directory that was removed and made again since it was used last is opened again.
    pub(super) fn at<T>(
        &mut self,
        path: &EntryPath,
        mut act: impl FnMut(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let (directory, name) = split(path)?;
        let remembered = self.last.as_ref().is_some_and(|(last, _)| **last == *directory);
        match act(self.enter(directory)?, name) {
            Err(error) if remembered && error.kind() == io::ErrorKind::NotFound => {
                self.last = None;
                act(self.enter(directory)?, name)
            }
            result => result,
        }
    }
}

/// Returns the directory that holds `path`, and its name in there.
fn split(path: &EntryPath) -> io::Result<(&[u8], &[u8])> {
    let name = path.name();
    if name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root of the tree has no name in it"));
    }
    let bytes = path.as_bytes();
    let end = bytes.len().saturating_sub(name.len() + 1);
    Ok((bytes.get(..end).unwrap_or_default(), name))
}

/// Opens the directory at `path` beneath `from`; an empty path is `from` itself.
fn open_directory(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_empty() {
        return Ok(openat(from, c".", flags, Mode::empty())?);
    }
    let mut reached: Option<OwnedFd> = None;
    let mut rest = path;
    loop {
        let base = reached.as_ref().map_or(from, AsFd::as_fd);
        let (piece, after) = first_piece(rest);
        let next = open_piece(base, piece, if after.is_empty() { flags } else { on_the_way })?;
        if after.is_empty() {
            return Ok(next);
        }
        (reached, rest) = (Some(next), after);
    }
}

/// Returns the longest run of components that the kernel takes at once, and what follows it.
fn first_piece(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = match path.get(..PIECE_BYTES) {
        Some(start) => memchr::memrchr(b'/', start).or_else(|| memchr::memchr(b'/', path)),
        None => None,
    };
    match slash.and_then(|slash| path.split_at_checked(slash)) {
        Some((piece, after)) => (piece, after.get(1..).unwrap_or_default()),
        None => (path, &[]),
    }
}

fn open_piece(base: BorrowedFd<'_>, piece: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let single = memchr::memchr(b'/', piece).is_none();
    if !single && !STEP_BY_STEP.load(Ordering::Relaxed) {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(base, piece, flags, Mode::empty(), beneath) {
            Err(Errno::NOSYS) => STEP_BY_STEP.store(true, Ordering::Relaxed),
            // A filter that does not know the call may answer so; and the kernel when it saw a rename on the way.
            Err(Errno::PERM | Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    step_by_step(base, piece, flags)
}

fn step_by_step(base: BorrowedFd<'_>, piece: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut reached: Option<OwnedFd> = None;
    let mut components = piece.split(|b| *b == b'/').peekable();
    while let Some(component) = components.next() {
        let base = reached.as_ref().map_or(base, AsFd::as_fd);
        let flags = if components.peek().is_some() { on_the_way } else { flags };
        reached = Some(openat(base, component, flags, Mode::empty())?);
    }
    reached.ok_or_else(|| Errno::NOENT.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_into_pieces_between_components() {
        let path = vec![b"component".as_slice(); 1_000].join(&b'/');
        let (mut rest, mut joined) = (path.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (piece, after) = first_piece(rest);
            assert!(piece.len() <= PIECE_BYTES && !piece.is_empty());
            joined.push(piece.to_vec());
            rest = after;
        }
        assert!(joined.len() > 1);
        assert_eq!(joined.join(&b'/'), path);
        assert_eq!(first_piece(b"a/b"), (b"a/b".as_slice(), b"".as_slice()));
    }

    #[test]
    fn both_ways_of_opening_refuse_a_symlink_on_the_way() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("a/b/c")).unwrap();
        std::os::unix::fs::symlink("a", home.path().join("link")).unwrap();
        let root = std::fs::File::open(home.path()).unwrap();
        for open in [step_by_step, open_piece] {
            assert!(open(root.as_fd(), b"a/b/c", OFlags::PATH).is_ok());
            assert!(open(root.as_fd(), b"link/b/c", OFlags::PATH).is_err());
        }
        assert!(open_directory(root.as_fd(), b"link", OFlags::RDONLY).is_err());
    }
}
