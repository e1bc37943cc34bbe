//! Writes that survive a crash: after one, a reader finds the old file or the new one, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Whether a write may take the place of a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and report [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Take its place.
    Replace,
}

/// Writes `bytes` to `path`: temporary file beside it, fsync, rename (or link), fsync of the directory.
///
/// Missing parent directories are made. Several processes may write the same path; each write is whole, and with
/// [`Existing::Keep`] exactly one wins.
///
/// # Errors
///
/// Whatever the file system reports; nothing is left under a temporary name.
pub fn write_durably(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    write_durably_with(path, existing, |file| file.write_all(bytes))
}

/// As [`write_durably`], with the content written by `fill`.
///
/// # Errors
///
/// Whatever `fill` or the file system reports; nothing is left under a temporary name.
pub fn write_durably_with(
    path: &Path,
    existing: Existing,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = parent(path)?;
    create_dir_durably(directory)?;
    let mut file = tempfile::Builder::new().prefix(&temporary_prefix(path)).tempfile_in(directory)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    let persisted = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    persisted.map_err(|failed| failed.error)?;
    sync_dir(directory)
}

/// Moves the file `from` to `to`: fsync, rename, fsync of the directory. Another file system means a copy. Missing parent
/// directories of `to` are made, and a file at `to` is replaced.
///
/// # Errors
///
/// Whatever the file system reports; `from` is still there then.
pub fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
    let directory = parent(to)?;
    let mut file = File::open(from)?;
    file.sync_all()?;
    create_dir_durably(directory)?;
    #[expect(clippy::disallowed_methods, reason = "the file is synced before and its directory after")]
    match fs::rename(from, to) {
        Ok(()) => sync_dir(directory),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            write_durably_with(to, Existing::Replace, |copy| io::copy(&mut file, copy).map(|_copied| ()))?;
            fs::remove_file(from)
        }
        Err(error) => Err(error),
    }
}

/// Removes the file at `path` and makes the removal durable. A file that is not there is fine.
///
/// # Errors
///
/// Whatever the file system reports, but for a missing file.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the files at `paths` and makes the removals durable, with one sync a directory. A file that is not there is fine.
///
/// # Errors
///
/// Returns the first path that could not be removed, and why; the others have been removed all the same.
pub fn remove_all_durably<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<(), (&'a Path, io::Error)> {
    let mut first_failure = None;
    let mut touched: BTreeMap<&Path, &'a Path> = BTreeMap::new();
    for path in paths {
        match fs::remove_file(path).and_then(|()| parent(path)) {
            Ok(directory) => {
                touched.entry(directory).or_insert(path);
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => {
                first_failure.get_or_insert((path, error));
            }
        }
    }
    for (directory, path) in touched {
        if let Err(error) = sync_dir(directory) {
            first_failure.get_or_insert((path, error));
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// Tells whether `error` says that there is no such file: nothing has this name, or a file has the name of a directory above it.
#[must_use]
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes `directory` and its parents, each durable before what lies in it. Of one that is there already this process makes sure once:
/// whoever made it may have died before it was durable.
///
/// # Errors
///
/// Whatever the file system reports.
pub fn create_dir_durably(directory: &Path) -> io::Result<()> {
    if let Ok(there) = fs::metadata(directory)
        && there.is_dir()
    {
        return make_durable(directory, &there);
    }
    let above = parent(directory)?;
    create_dir_durably(above)?;
    match fs::create_dir(directory) {
        Ok(()) => {
            sync_dir(above)?;
            note_durable(directory, &fs::metadata(directory)?);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {
            make_durable(directory, &fs::metadata(directory)?)
        }
        Err(error) => Err(error),
    }
}

/// A directory: its path, its device, its inode and, since inodes are used again, when it was made.
type Directory = (PathBuf, u64, u64, Option<SystemTime>);

/// Directories that this process has made durable, or found so.
static DURABLE: Mutex<BTreeSet<Directory>> = Mutex::new(BTreeSet::new());

fn named(directory: &Path, metadata: &fs::Metadata) -> Directory {
    (directory.to_owned(), metadata.dev(), metadata.ino(), metadata.created().ok())
}

fn note_durable(directory: &Path, metadata: &fs::Metadata) {
    let mut durable = DURABLE.lock().unwrap_or_else(PoisonError::into_inner);
    // 4,096: far more than a store has. Forgetting costs some syncs.
    if durable.len() >= 4096 {
        durable.clear();
    }
    durable.insert(named(directory, metadata));
}

/// Syncs what holds an existing directory, unless this process did so before, and so on above it, up to where something is mounted.
fn make_durable(directory: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let name = named(directory, metadata);
    if DURABLE.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
        return Ok(());
    }
    // The entry of a relative path's first directory is in whatever that path begins with.
    let Some(above) = directory.parent() else { return Ok(()) };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let around = fs::metadata(above)?;
    if around.dev() == metadata.dev() && around.ino() != metadata.ino() {
        make_durable(above, &around)?;
        match sync_dir(above) {
            // Who may not read it cannot sync it, and did not make what lies in it either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    note_durable(directory, metadata);
    Ok(())
}

/// Opens a file for appending, made when missing, readable by its owner only.
///
/// # Errors
///
/// Whatever the file system reports.
pub fn open_append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Returns the bytes that an unprivileged writer may still write on the file system that holds `path`.
///
/// # Errors
///
/// Whatever `statvfs` reports.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(directory) => Ok(directory),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no parent directory")),
    }
}

/// Begins the name of a temporary file with that of the file it becomes, so that what a crash leaves tells whose it was.
fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".tmp-");
    // A file name has up to 255 bytes, and the random letters at the end need room.
    if let Some(name) = path.file_name().filter(|name| name.len() <= 240) {
        prefix.push(name);
        prefix.push("-");
    }
    prefix
}

fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is there was once taken for durable, though whoever made it may have died before it was.
    #[test]
    fn a_directory_that_others_made_is_made_durable_once() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("a/b");
        fs::create_dir_all(&directory).unwrap();
        let is_known =
            |path: &Path| DURABLE.lock().unwrap().contains(&named(path, &fs::metadata(path).unwrap()));
        assert!(!is_known(&directory));
        write_durably(&directory.join("c"), b"", Existing::Keep).unwrap();
        assert!(is_known(&directory) && is_known(&home.path().join("a")) && is_known(home.path()));
        write_durably(&home.path().join("new/d"), b"", Existing::Keep).unwrap();
        assert!(is_known(&home.path().join("new")));
    }

    #[test]
    fn a_kept_file_is_not_replaced_and_leaves_no_temporary_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/c");
        write_durably(&path, b"one", Existing::Keep).unwrap();
        let again = write_durably(&path, b"two", Existing::Keep).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_durably(&path, b"three", Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failing_writer_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        let failed = write_durably_with(&path, Existing::Replace, |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_many_removals_one_that_fails_hides_no_other() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::create_dir_all(path("b/is-a-folder")).unwrap();
        for name in ["a", "b/c"] {
            write_durably(&path(name), b"", Existing::Keep).unwrap();
        }
        let paths = [path("nothing"), path("b/is-a-folder"), path("a"), path("b/c"), path("a/below")];
        let (failed, _error) = remove_all_durably(paths.iter().map(PathBuf::as_path)).unwrap_err();
        assert_eq!(failed, path("b/is-a-folder"));
        assert!(!path("a").exists() && !path("b/c").exists());
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        let home = tempfile::tempdir().unwrap();
        remove_durably(&home.path().join("nothing")).unwrap();
    }
}
