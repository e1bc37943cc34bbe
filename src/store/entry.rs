//! What a workspace is made of: entries, with all that tar can say of them.

use std::cmp::Ordering;
use std::fmt;

use super::content::Content;

/// A path inside a workspace: components between slashes, none of them empty, `.` or `..`, none holding a NUL. The root is empty.
///
/// The bytes need not be UTF-8. Paths sort by their components, so that a directory comes right before what lies in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct EntryPath(Box<[u8]>);

/// Why bytes are no path inside a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a path inside a workspace", .0.escape_ascii())]
pub struct EntryPathError(pub Vec<u8>);

impl EntryPath {
    /// The longest path, in bytes: what Linux allows a program to name is 4,096 with the closing NUL, but a tree may be deeper.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Makes a path. The empty path is the root.
    ///
    /// # Errors
    ///
    /// Fails on an empty component, `.`, `..`, a NUL, a component of more than 255 bytes and a path of more than
    /// [`EntryPath::MAX_BYTES`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, EntryPathError> {
        let bytes = bytes.into();
        let fine = bytes.is_empty()
            || bytes.len() <= Self::MAX_BYTES && bytes.split(|b| *b == b'/').all(is_component);
        if fine { Ok(Self(bytes.into())) } else { Err(EntryPathError(bytes)) }
    }

    /// Returns the root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Returns the path of `name` in this directory.
    ///
    /// # Errors
    ///
    /// Fails where `name` is not a single component, as in [`EntryPath::new`].
    pub fn join(&self, name: &[u8]) -> Result<Self, EntryPathError> {
        let length = self.0.len() + 1 + name.len();
        if !is_component(name) || length > Self::MAX_BYTES {
            return Err(EntryPathError(name.to_vec()));
        }
        if self.is_root() {
            return Ok(Self(name.into()));
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Ok(Self(bytes.into()))
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the directory that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = memchr::memrchr(b'/', &self.0).unwrap_or(0);
        self.0.get(..end).map(|bytes| Self(bytes.into()))
    }

    /// Returns the last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let start = memchr::memrchr(b'/', &self.0).map_or(0, |slash| slash + 1);
        self.0.get(start..).unwrap_or_default()
    }

    /// Returns the components, outermost first; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|component| !component.is_empty())
    }

    /// Returns the number of components.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// Returns whether this is `other` or lies in it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // The slash sorts before every other byte, so that `a/b` stands before `a-b`.
        let rank = |b: &u8| if *b == b'/' { 0 } else { u16::from(*b) + 1 };
        let same = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        match (self.0.get(same), other.0.get(same)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => rank(a).cmp(&rank(b)),
        }
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    /// Shows what is not printable UTF-8 as escapes; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self})")
    }
}

fn is_component(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() <= 255
        && bytes != b"."
        && bytes != b".."
        && !bytes.iter().any(|b| *b == b'/' || *b == 0)
}

/// A time of a file: seconds since 1970 (negative before it) and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// An extended attribute. ACLs are the attributes `system.posix_acl_access` and `system.posix_acl_default`, as the kernel keeps them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Its whole name, `user.` and the like included.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// Who owns an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EntryOwner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The user's name where the entry was read; empty when not known. Not used unless a restore asks for names.
    pub user: Box<[u8]>,
    /// The group's name where the entry was read; empty when not known.
    pub group: Box<[u8]>,
}

/// What an entry says beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// Permissions with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// The owner.
    pub owner: EntryOwner,
    /// When the content changed last.
    pub mtime: FileTime,
    /// Extended attributes and ACLs, sorted by name, each name once.
    pub xattrs: Vec<Xattr>,
}

/// A run of bytes of a sparse file that is data and not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes, at least one.
    pub length: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
        /// Its data, holes left out, in the order of the file.
        content: Content,
        /// Where the data lies when there are holes: sorted, apart from each other, inside the file, in all as long as `content`.
        /// `None` for a file without holes, whose content is as long as the file.
        extents: Option<Vec<Extent>>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points to, as it is written.
        target: Box<[u8]>,
    },
    /// Another name of a file (or of a symlink, a device or a fifo) whose entry stands earlier.
    HardLink {
        /// The earlier entry, which is no hard link itself.
        target: EntryPath,
    },
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket: recorded, so that it can be said, and never restored.
    Socket,
}

/// One entry of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it is. The root's entry has the empty path.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// What it says beside that. Of a hard link it is what the earlier entry says.
    pub attributes: Attributes,
}

impl Entry {
    /// Returns the size of a regular file, holes included; 0 for everything else.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::File { size, .. } => *size,
            EntryKind::Directory
            | EntryKind::Symlink { .. }
            | EntryKind::HardLink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Socket => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_leaves_no_way_out() {
        for right in ["", "a", "a/b", "...", "a b", "\u{e9}/x", "-"] {
            assert!(EntryPath::new(right.as_bytes()).is_ok(), "{right}");
        }
        for wrong in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a\0b"] {
            assert!(EntryPath::new(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(EntryPath::new(vec![b'a'; 256]).is_err());
        assert!(EntryPath::new(vec![0xff, b'/', 0xfe]).is_ok());
    }

    #[test]
    fn a_directory_stands_right_before_what_lies_in_it() {
        let mut paths = ["b", "a-b", "a/z", "a", "a/b/c", "", "a.b", "a/b"].map(path);
        paths.sort();
        assert_eq!(paths.map(|p| p.to_string()), [".", "a", "a/b", "a/b/c", "a/z", "a-b", "a.b", "b"]);
    }

    #[test]
    fn parents_names_and_containment_follow_components() {
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(EntryPath::root()));
        assert_eq!(EntryPath::root().parent(), None);
        assert_eq!(path("a/b").name(), b"b");
        assert!(path("a/b").is_within(&path("a")) && !path("ab").is_within(&path("a")));
        assert_eq!(path("a").join(b"b"), Ok(path("a/b")));
        assert!(path("a").join(b"b/c").is_err());
    }
}
