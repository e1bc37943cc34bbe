//! Directories made of a seed, and changed by one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};

use super::scene::{is_root, noise, write};

/// A directory that grows.
#[derive(Debug)]
pub(super) struct Growth {
    root: PathBuf,
    random: fastrand::Rng,
}

impl Growth {
    pub(super) fn new(root: &Path, seed: u64) -> Self {
        fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned(), random: fastrand::Rng::with_seed(seed) }
    }

    /// Makes entries of all kinds.
    pub(super) fn grow(&mut self, entries: usize) {
        for _ in 0..entries {
            let (directory, name) = (self.directory(), self.name());
            let path = directory.join(OsStr::from_bytes(&name));
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            self.entry(&path);
        }
        self.settle();
    }

    /// Changes entries here and there: contents, attributes, kinds, names.
    pub(super) fn change(&mut self, changes: usize) {
        for _ in 0..changes {
            let Some(path) = self.any() else { return self.grow(changes) };
            let meta = fs::symlink_metadata(&path).unwrap();
            match self.random.u8(0..11) {
                0 => remove(&path),
                1 => {
                    remove(&path);
                    self.entry(&path);
                }
                // A directory that has become a symbolic link to the outside, or any other kind.
                2 => {
                    remove(&path);
                    symlink("/etc", &path).unwrap();
                }
                3 if !meta.is_dir() => {
                    let name = self.name();
                    let link = self.directory().join(OsStr::from_bytes(&name));
                    if fs::symlink_metadata(&link).is_err() {
                        fs::hard_link(&path, link).unwrap();
                    }
                }
                4 if meta.is_file() => {
                    let file = File::options().write(true).open(&path).unwrap();
                    file.set_len(self.random.u64(0..200_000)).unwrap();
                }
                5 | 6 if meta.is_file() => {
                    let file = File::options().write(true).open(&path).unwrap();
                    let at = self.random.u64(0..=meta.len());
                    file.write_all_at(&noise(self.random.u64(..), 100), at).unwrap();
                }
                7 => self.attributes(&path),
                8 => {
                    let name = self.name();
                    let moved = path.with_file_name(OsStr::from_bytes(&name));
                    if fs::symlink_metadata(&moved).is_err() {
                        #[expect(clippy::disallowed_methods, reason = "only the name is to change")]
                        fs::rename(&path, moved).unwrap();
                    }
                }
                _ => {
                    let (directory, name) = (self.directory(), self.name());
                    let path = directory.join(OsStr::from_bytes(&name));
                    if fs::symlink_metadata(&path).is_err() {
                        self.entry(&path);
                    }
                }
            }
        }
    }

    fn entry(&mut self, path: &Path) {
        match self.random.u8(0..14) {
            0..=2 => fs::create_dir(path).unwrap(),
            3..=6 => {
                let length = self.random.usize(0..3_000);
                write(path, &noise(self.random.u64(0..50), length));
            }
            7 => write(path, b""),
            8 => {
                let length = self.random.usize(0..400_000);
                write(path, &noise(self.random.u64(0..3), length));
            }
            9 => {
                // The same data at another place is another file.
                let file = File::create(path).unwrap();
                file.set_len(1 << 20).unwrap();
                let at = self.random.u64(0..100) * 8192;
                file.write_all_at(&noise(self.random.u64(0..3), 4096), at).unwrap();
            }
            10 => symlink(["a", "../..", "/etc/passwd", "x/y"][self.random.usize(0..4)], path).unwrap(),
            11 => match self.any() {
                Some(there) if !fs::symlink_metadata(&there).unwrap().is_dir() => {
                    fs::hard_link(there, path).unwrap();
                }
                _ => write(path, b"alone"),
            },
            12 => mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap(),
            _ if is_root() => {
                let kind = [FileType::CharacterDevice, FileType::BlockDevice][self.random.usize(0..2)];
                let device = makedev(7, self.random.u32(0..4));
                mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
            }
            _ => fs::create_dir(path).unwrap(),
        }
        self.attributes(path);
    }

    fn attributes(&mut self, path: &Path) {
        let meta = fs::symlink_metadata(path).unwrap();
        if is_root() && self.random.bool() {
            lchown(path, Some(self.random.u32(0..3) * 1_000), Some(self.random.u32(0..70_000))).unwrap();
        }
        if !meta.is_symlink() {
            let bits = if meta.is_dir() { 0o7777 } else { 0o6777 };
            let mode = self.random.u32(..) & bits | 0o600;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        if meta.is_file() || meta.is_dir() {
            for _ in 0..self.random.usize(0..3) {
                let name = ["user.one", "user.two", "trusted.three"][self.random.usize(0..3)];
                let value = noise(self.random.u64(..), self.random.usize(0..200));
                if is_root() || name.starts_with("user.") {
                    lsetxattr(path, name, &value, XattrFlags::empty()).unwrap();
                }
            }
            if self.random.u8(0..4) == 0 {
                self.acl(path, "system.posix_acl_access");
            }
            if meta.is_dir() && self.random.u8(0..4) == 0 {
                self.acl(path, "system.posix_acl_default");
            }
        }
        self.time(path);
    }

    /// Lets one more user in: version, then tag, permissions and number of each entry.
    fn acl(&mut self, path: &Path, name: &str) {
        let mut acl = 2_u32.to_le_bytes().to_vec();
        let user = self.random.u32(1_000..1_004);
        for (tag, rights, id) in
            [(1_u16, 7_u16, u32::MAX), (2, 5, user), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 1, u32::MAX)]
        {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&rights.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        lsetxattr(path, name, &acl, XattrFlags::empty()).unwrap();
    }

    fn time(&mut self, path: &Path) {
        let time = Timespec {
            tv_sec: self.random.i64(-1_000..2_000_000_000),
            tv_nsec: self.random.i64(0..1_000_000_000),
        };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// Gives directories times that do not come from what was made in them.
    fn settle(&mut self) {
        for path in self.all() {
            if self.random.bool() && fs::symlink_metadata(&path).unwrap().is_dir() {
                self.time(&path);
            }
        }
    }

    fn name(&mut self) -> Vec<u8> {
        match self.random.u8(0..12) {
            0 => vec![b'x'; self.random.usize(200..=255)],
            1 => vec![0xff, 0xfe, b'0' + self.random.u8(0..10)],
            2 => format!("new\nline {}", self.random.u8(..)).into_bytes(),
            3 => format!("-{}", self.random.u8(..)).into_bytes(),
            _ => format!("{}{}", self.random.lowercase(), self.random.u8(0..60)).into_bytes(),
        }
    }

    fn all(&self) -> Vec<PathBuf> {
        let (mut found, mut next) = (Vec::new(), vec![self.root.clone()]);
        while let Some(directory) = next.pop() {
            let mut entries: Vec<_> =
                fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    next.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }

    fn any(&mut self) -> Option<PathBuf> {
        let mut all = self.all();
        if all.is_empty() { None } else { Some(all.swap_remove(self.random.usize(0..all.len()))) }
    }

    fn directory(&mut self) -> PathBuf {
        let mut directories = self.all();
        directories.retain(|path| fs::symlink_metadata(path).unwrap().is_dir());
        directories.push(self.root.clone());
        directories.swap_remove(self.random.usize(0..directories.len()))
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}
