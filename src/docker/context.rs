//! The build context: what is sent, as a deterministic tar, and its digest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::ignore::{Ignore, Matched};
use super::{ContextSent, EngineError};
use crate::base::Sha256Digest;

/// How many entries an error names.
const HEAVIEST: usize = 5;

/// 100 bytes: a longer path needs an entry of its own before the Dockerfile's, which engine 20.10 takes for the Dockerfile.
const LONGEST_DOCKERFILE_PATH: usize = 100;

/// 64 KiB: how much of a file is held at a time.
const BLOCK: usize = 64 * 1024;

/// A build context: files in memory over, optionally, a folder on disk filtered by its ignore file.
///
/// Cheap to clone. The tar is sorted by path with the Dockerfile first, times and owners zero, GNU headers, so that equal
/// trees give equal bytes. Symbolic links are sent as links and never followed, so nothing outside the folder is read; sockets
/// are left out, as Docker's client does, and other special files are refused by name.
#[derive(Debug, Clone, Default)]
pub struct Context {
    files: Vec<ContextFile>,
    root: Option<PathBuf>,
    trees: Vec<(String, PathBuf)>,
    identities: Vec<(String, String)>,
}

/// A file in memory that is part of a context.
#[derive(Debug, Clone)]
pub struct ContextFile {
    /// Its path in the context, with `/` between segments.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub bytes: Bytes,
}

/// An entry of the tar.
#[derive(Debug, Clone)]
enum Entry {
    Directory { mode: u32 },
    Memory { mode: u32, bytes: Bytes },
    Disk { mode: u32, size: u64, path: PathBuf },
    Link { target: Vec<u8> },
}

impl Entry {
    fn size(&self) -> u64 {
        match self {
            Self::Directory { .. } | Self::Link { .. } => 0,
            Self::Memory { bytes, .. } => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Disk { size, .. } => *size,
        }
    }
}

/// Entries by path. The order of bytes puts a directory before what lies in it.
type Entries = BTreeMap<Vec<u8>, Entry>;

impl Context {
    /// Makes a context of files in memory. A later file of the same path takes the place of an earlier one.
    #[must_use]
    pub fn of_files(files: Vec<ContextFile>) -> Self {
        Self { files, ..Self::default() }
    }

    /// Puts the files over the folder `root`, whose `.dockerignore` (or `<dockerfile>.dockerignore`) applies.
    #[must_use]
    pub fn over(mut self, root: PathBuf) -> Self {
        self.root = Some(root);
        self
    }

    /// Adds the folder `folder` under `prefix`, whole: no ignore file applies.
    #[must_use]
    pub fn with_tree(mut self, prefix: &str, folder: PathBuf) -> Self {
        self.trees.push((prefix.to_owned(), folder));
        self
    }

    /// Lets `identity` stand in the digest for everything on disk under `prefix`, such as a commit for a repository, whose files
    /// may differ without meaning anything else. Files in memory count by their bytes wherever they lie.
    #[must_use]
    pub fn with_identity(mut self, prefix: &str, identity: String) -> Self {
        self.identities.push((prefix.to_owned(), identity));
        self
    }

    /// Returns the digest over path, type, permission bits, link target and bytes of every entry. Times and owners do not
    /// count, nor does the Dockerfile, whose text is a key's own part.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, or the files have more than `limit_bytes`.
    pub fn digest(&self, dockerfile: &str, limit_bytes: u64) -> Result<Sha256Digest, EngineError> {
        let entries = self.entries(dockerfile)?;
        hold_to(limit_bytes, &entries)?;
        let mut hasher = Sha256::new();
        // Every field goes in behind its length, so that no two trees give the same bytes.
        let mut field = |bytes: &[u8]| {
            hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        for (prefix, identity) in &self.identities {
            field(b"identity");
            field(prefix.as_bytes());
            field(identity.as_bytes());
        }
        for (path, entry) in &entries {
            let identified = !matches!(entry, Entry::Memory { .. })
                && self.identities.iter().any(|(prefix, _)| is_below(path, prefix.as_bytes()));
            if path == dockerfile.as_bytes() || identified {
                continue;
            }
            let (kind, mode, content) = match entry {
                Entry::Directory { mode } => ("directory", *mode, Vec::new()),
                Entry::Link { target } => ("link", 0, target.clone()),
                Entry::Memory { mode, bytes } => ("file", *mode, Sha256Digest::of(bytes).as_bytes().to_vec()),
                Entry::Disk { mode, size, path } => {
                    ("file", *mode, digest_of(path, *size)?.as_bytes().to_vec())
                }
            };
            field(kind.as_bytes());
            field(path);
            field(&mode.to_le_bytes());
            field(&content);
        }
        Ok(Sha256Digest::finish(hasher))
    }

    /// Writes the tar to `out`, a block at a time; `progress` hears of bytes and entries written so far.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or changes meanwhile, the files have more than `limit_bytes`, or `out` takes no more.
    pub fn tar(
        &self,
        dockerfile: &str,
        limit_bytes: u64,
        mut progress: impl FnMut(u64, u64) + Send,
        out: impl Write,
    ) -> Result<ContextSent, EngineError> {
        if dockerfile.len() > LONGEST_DOCKERFILE_PATH {
            let reason = format!("the Dockerfile's path is longer than {LONGEST_DOCKERFILE_PATH} bytes");
            return Err(cannot_read(
                Path::new(dockerfile),
                io::Error::new(io::ErrorKind::InvalidInput, reason),
            ));
        }
        let mut entries = self.entries(dockerfile)?;
        hold_to(limit_bytes, &entries)?;
        // First, with a plain header: BuildKit looks for it in the first bytes (engine 20.10 in the first 1024).
        let first = entries.remove_entry(dockerfile.as_bytes());
        let mut builder = tar::Builder::new(Counting { out, bytes: 0, failed: false });
        let mut sent = ContextSent::default();
        for (path, entry) in first.into_iter().chain(entries) {
            if let Err(source) = append(&mut builder, &path, &entry) {
                return Err(failed(&mut builder, &path, source));
            }
            sent.entries += 1;
            sent.bytes = builder.get_ref().bytes;
            progress(sent.bytes, sent.entries);
        }
        if let Err(source) = builder.finish().and_then(|()| builder.get_mut().flush()) {
            return Err(failed(&mut builder, b"", source));
        }
        sent.bytes = builder.get_ref().bytes;
        progress(sent.bytes, sent.entries);
        Ok(sent)
    }

    /// Returns the Dockerfile.
    ///
    /// # Errors
    ///
    /// Fails when it is not in the context, leads out of it, or cannot be read.
    pub fn dockerfile_text(&self, dockerfile: &str) -> Result<Vec<u8>, EngineError> {
        match self.entries(dockerfile)?.get(dockerfile.as_bytes()) {
            Some(Entry::Memory { bytes, .. }) => Ok(bytes.to_vec()),
            Some(Entry::Disk { path, .. }) => fs::read(path).map_err(|source| cannot_read(path, source)),
            Some(Entry::Directory { .. } | Entry::Link { .. }) | None => {
                Err(cannot_read(Path::new(dockerfile), io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Collects what is sent: the folder, then the trees, then the files in memory, each over the ones before.
    fn entries(&self, dockerfile: &str) -> Result<Entries, EngineError> {
        let mut entries = Entries::new();
        if let Some(root) = &self.root {
            let ignore = ignore_file(root, dockerfile)?;
            walk(root, b"", &ignore, &Matched::default(), &mut entries)?;
            if !self.files.iter().any(|file| file.path == dockerfile) {
                add_dockerfile(root, dockerfile, &mut entries)?;
            }
        }
        for (prefix, folder) in &self.trees {
            put(&mut entries, prefix.as_bytes(), Entry::Directory { mode: 0o755 });
            walk(folder, prefix.as_bytes(), &Ignore::default(), &Matched::default(), &mut entries)?;
        }
        for file in &self.files {
            let entry = Entry::Memory { mode: file.mode & 0o7777, bytes: file.bytes.clone() };
            put(&mut entries, file.path.as_bytes(), entry);
        }
        Ok(entries)
    }
}

/// Puts an entry where it belongs: over what stood there and what lay below, under directories that lead to it.
fn put(entries: &mut Entries, path: &[u8], entry: Entry) {
    for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let parent = entries.entry(path[..end].to_vec()).or_insert(Entry::Directory { mode: 0o755 });
        if !matches!(parent, Entry::Directory { .. }) {
            *parent = Entry::Directory { mode: 0o755 };
        }
    }
    if !matches!(entry, Entry::Directory { .. }) {
        let inside = [path, b"/"].concat();
        let below = |(other, _): (&Vec<u8>, &Entry)| other.starts_with(&inside).then(|| other.clone());
        while let Some(other) = entries.range(inside.clone()..).next().and_then(below) {
            entries.remove(&other);
        }
    }
    entries.insert(path.to_vec(), entry);
}

fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Adds what lies in `folder` under the path `under`, but for what `ignore` leaves out; `above` is what the folder itself
/// matched. Returns whether anything was added.
fn walk(
    folder: &Path,
    under: &[u8],
    ignore: &Ignore,
    above: &Matched,
    entries: &mut Entries,
) -> Result<bool, EngineError> {
    let mut added = false;
    for found in fs::read_dir(folder).map_err(|source| cannot_read(folder, source))? {
        let found = found.map_err(|source| cannot_read(folder, source))?;
        let (disk, name) = (found.path(), found.file_name());
        let path =
            if under.is_empty() { name.as_bytes().to_vec() } else { [under, b"/", name.as_bytes()].concat() };
        let metadata = found.metadata().map_err(|source| cannot_read(&disk, source))?;
        let (kind, mode) = (metadata.file_type(), metadata.permissions().mode() & 0o7777);
        let (left_out, matched) = ignore.look(above, &path);
        if kind.is_dir() {
            // A directory that is left out is there all the same when something below it is taken back.
            let below =
                (!left_out || ignore.may_keep_below(&path)) && walk(&disk, &path, ignore, &matched, entries)?;
            if left_out && !below {
                continue;
            }
            put(entries, &path, Entry::Directory { mode });
        } else if left_out || kind.is_socket() {
            continue;
        } else if kind.is_symlink() {
            let target = fs::read_link(&disk).map_err(|source| cannot_read(&disk, source))?;
            put(entries, &path, Entry::Link { target: target.into_os_string().into_vec() });
        } else if kind.is_file() {
            put(entries, &path, Entry::Disk { mode, size: metadata.len(), path: disk });
        } else {
            let what = if kind.is_fifo() { "a named pipe" } else { "a device" };
            let reason = format!("{what} cannot be part of a build context");
            return Err(cannot_read(&disk, io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        added = true;
    }
    Ok(added)
}

/// Adds the Dockerfile of the folder, also when its ignore file leaves it out.
fn add_dockerfile(root: &Path, dockerfile: &str, entries: &mut Entries) -> Result<(), EngineError> {
    let path = root.join(dockerfile);
    let outside = || {
        let reason = "the Dockerfile leads out of the build context";
        cannot_read(Path::new(dockerfile), io::Error::new(io::ErrorKind::InvalidInput, reason))
    };
    if !Path::new(dockerfile).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(outside());
    }
    let failed = |source| cannot_read(&path, source);
    let (real, real_root) =
        (fs::canonicalize(&path).map_err(failed)?, fs::canonicalize(root).map_err(failed)?);
    if !real.starts_with(&real_root) {
        return Err(outside());
    }
    let metadata = fs::metadata(&real).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    put(entries, dockerfile.as_bytes(), Entry::Disk { mode, size: metadata.len(), path: real });
    Ok(())
}

fn ignore_file(root: &Path, dockerfile: &str) -> Result<Ignore, EngineError> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
        let path = root.join(&name);
        match fs::read(&path) {
            Ok(bytes) => {
                return Ignore::parse(&bytes)
                    .map_err(|error| cannot_read(&path, io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(cannot_read(&path, error)),
        }
    }
    Ok(Ignore::default())
}

/// Holds the files to the limit; the error names the top-level entries that weigh most.
fn hold_to(limit_bytes: u64, entries: &Entries) -> Result<(), EngineError> {
    if entries.values().map(Entry::size).fold(0, u64::saturating_add) <= limit_bytes {
        return Ok(());
    }
    let mut tops: BTreeMap<String, u64> = BTreeMap::new();
    for (path, entry) in entries {
        let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        *tops.entry(String::from_utf8_lossy(top).into_owned()).or_default() += entry.size();
    }
    let mut heaviest: Vec<(String, u64)> = tops.into_iter().collect();
    heaviest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    heaviest.truncate(HEAVIEST);
    Err(EngineError::ContextTooLarge { limit_bytes, heaviest })
}

fn append<W: Write>(builder: &mut tar::Builder<W>, path: &[u8], entry: &Entry) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(path));
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(entry.size());
    match entry {
        Entry::Directory { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            builder.append_data(&mut header, path, io::empty())
        }
        Entry::Memory { mode, bytes } => {
            header.set_mode(*mode);
            builder.append_data(&mut header, path, bytes.as_ref())
        }
        Entry::Disk { mode, size, path: disk } => {
            header.set_mode(*mode);
            builder.append_data(&mut header, path, Exactly { file: open(disk)?, left: *size })
        }
        Entry::Link { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            // Bytes as they are: `append_link` writes a short target without its doubled slashes and dots.
            match header.set_link_name_literal(target) {
                Ok(()) => builder.append_data(&mut header, path, io::empty()),
                Err(_too_long) => {
                    builder.append_link(&mut header, path, Path::new(OsStr::from_bytes(target)))
                }
            }
        }
    }
}

/// Opens a regular file. What was put in its place since it was looked at is refused: a link could lead out of the context,
/// and a pipe would hold this thread for ever.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file any more"));
    }
    Ok(file)
}

fn digest_of(path: &Path, size: u64) -> Result<Sha256Digest, EngineError> {
    let failed = |source| cannot_read(path, source);
    let mut file = Exactly { file: open(path).map_err(failed)?, left: size };
    let (mut hasher, mut block) = (Sha256::new(), vec![0; BLOCK]);
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(Sha256Digest::finish(hasher)),
            read => hasher.update(&block[..read]),
        }
    }
}

fn cannot_read(path: &Path, source: io::Error) -> EngineError {
    EngineError::Context { path: path.to_owned(), source }
}

/// Tells a reader's error from the writer's, and lets nothing more through: a builder that is dropped writes the archive's end,
/// and what was cut off would look whole.
fn failed<W: Write>(builder: &mut tar::Builder<Counting<W>>, path: &[u8], source: io::Error) -> EngineError {
    if std::mem::replace(&mut builder.get_mut().failed, true) {
        EngineError::Gone { action: "sending the build context".to_owned(), source: source.into() }
    } else {
        cannot_read(Path::new(OsStr::from_bytes(path)), source)
    }
}

/// Counts what goes through, and remembers that the other end takes no more.
struct Counting<W> {
    out: W,
    bytes: u64,
    failed: bool,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.out.write(buffer).inspect_err(|_| self.failed = true)?;
        self.bytes += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|_| self.failed = true)
    }
}

/// A file that must have as many bytes as when it was looked at; a tar's header has said so already.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let changed = || io::Error::new(io::ErrorKind::InvalidData, "it changed its size while it was read");
        if self.left == 0 {
            return if self.file.read(&mut [0])? == 0 { Ok(0) } else { Err(changed()) };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.file.read(&mut buffer[..most])? {
            0 if most > 0 => Err(changed()),
            read => {
                self.left -= u64::try_from(read).unwrap_or(u64::MAX);
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn file(path: &str, text: &str) -> ContextFile {
        ContextFile { path: path.to_owned(), mode: 0o644, bytes: text.to_owned().into() }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn tar_of(context: &Context) -> Vec<u8> {
        let mut out = Vec::new();
        let sent = context.tar("Dockerfile", NO_LIMIT, |_, _| (), &mut out).unwrap();
        assert_eq!(sent.bytes, out.len() as u64);
        out
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_dockerfile_comes_first_and_the_rest_is_sorted_with_its_directories() {
        let context = Context::of_files(vec![
            file("b/x", "1"),
            file("Dockerfile", "FROM a"),
            file("a", "2"),
            file("b-c", "3"),
        ]);
        let bytes = tar_of(&context);
        assert_eq!(names(&bytes), ["Dockerfile", "a", "b", "b-c", "b/x"]);
        assert_eq!(&bytes[..10], b"Dockerfile");
        assert_eq!(bytes, tar_of(&context));
    }

    #[test]
    fn equal_trees_give_equal_bytes_wherever_and_whenever() {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for home in &homes {
            write(home.path(), "Dockerfile", "FROM a");
            write(home.path(), "d/e", "text");
            std::os::unix::fs::symlink("/etc/passwd", home.path().join("link")).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let [one, two] = homes.each_ref().map(|home| Context::default().over(home.path().to_owned()));
        assert_eq!(tar_of(&one), tar_of(&two));
        assert_eq!(one.digest("Dockerfile", NO_LIMIT).unwrap(), two.digest("Dockerfile", NO_LIMIT).unwrap());
    }

    #[test]
    fn content_mode_type_and_name_change_the_digest_and_the_dockerfile_does_not() {
        let digest =
            |files: Vec<ContextFile>| Context::of_files(files).digest("Dockerfile", NO_LIMIT).unwrap();
        let plain = digest(vec![file("a", "1")]);
        assert_eq!(plain, digest(vec![file("Dockerfile", "FROM x"), file("a", "1")]));
        assert_ne!(plain, digest(vec![file("a", "2")]));
        assert_ne!(plain, digest(vec![file("b", "1")]));
        assert_ne!(plain, digest(vec![ContextFile { mode: 0o755, ..file("a", "1") }]));
        assert_ne!(plain, digest(vec![file("a/b", "1")]));
    }

    #[test]
    fn an_identity_stands_for_what_lies_below_it() {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        write(homes[0].path(), "objects/x", "1");
        write(homes[1].path(), "objects/y", "2");
        let digest = |home: &tempfile::TempDir, identity: &str| {
            let context = Context::default().with_tree("repo/git", home.path().to_owned());
            context.with_identity("repo/git", identity.to_owned()).digest("Dockerfile", NO_LIMIT).unwrap()
        };
        assert_eq!(digest(&homes[0], "git:1"), digest(&homes[1], "git:1"));
        assert_ne!(digest(&homes[0], "git:1"), digest(&homes[0], "git:2"));
    }

    #[test]
    fn memory_lies_over_the_disk() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "a/b/c", "disk");
        write(home.path(), "x", "disk");
        let context = Context::of_files(vec![file("a/b", "memory"), file("x/y", "memory")])
            .over(home.path().to_owned());
        let bytes = tar_of(&Context {
            files: [context.files.clone(), vec![file("Dockerfile", "")]].concat(),
            ..context
        });
        assert_eq!(names(&bytes), ["Dockerfile", "a", "a/b", "x", "x/y"]);
    }

    #[test]
    fn ignored_files_are_not_sent_and_the_dockerfile_always_is() {
        let home = tempfile::tempdir().unwrap();
        for path in ["Dockerfile", "keep", "secret.env", "logs/a.log", "logs/keep.log", "deep/er/x"] {
            write(home.path(), path, path);
        }
        write(home.path(), ".dockerignore", "**\n!keep\n!logs/keep.log\n");
        let context = Context::default().over(home.path().to_owned());
        assert_eq!(names(&tar_of(&context)), ["Dockerfile", "keep", "logs", "logs/keep.log"]);
        write(
            home.path(),
            "Dockerfile.dockerignore",
            "logs\n*.env\n**/x\n.dockerignore\nDockerfile.dockerignore\n",
        );
        assert_eq!(names(&tar_of(&context)), ["Dockerfile", "deep", "deep/er", "keep"]);
        write(home.path(), "Dockerfile.dockerignore", "fine\n[\n");
        let error = context.digest("Dockerfile", NO_LIMIT).unwrap_err();
        assert!(crate::base::chain(&error)[0].contains("line 2"), "{error:?}");
    }

    #[test]
    fn long_and_strange_names_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        write(home.path(), &long, "x");
        File::create(home.path().join(OsStr::from_bytes(b"\xff\n"))).unwrap();
        std::os::unix::fs::symlink("t".repeat(300), home.path().join("link")).unwrap();
        write(home.path(), "Dockerfile", "FROM a");
        let bytes = tar_of(&Context::default().over(home.path().to_owned()));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(Vec<u8>, usize)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path_bytes().into_owned(), entry.link_name_bytes().map_or(0, |link| link.len()))
            })
            .collect();
        assert!(entries.iter().any(|(name, _)| name == long.as_bytes()));
        assert!(entries.iter().any(|(name, _)| name == b"\xff\n"));
        assert!(entries.iter().any(|(name, link)| name == b"link" && *link == 300));
    }

    #[test]
    fn a_limit_names_what_weighs_most() {
        let context =
            Context::of_files(vec![file("small", "1"), file("large/a", "12345"), file("large/b", "12345")]);
        let error = context.tar("Dockerfile", 10, |_, _| (), io::sink()).unwrap_err();
        let EngineError::ContextTooLarge { heaviest, .. } = error else { panic!("{error}") };
        assert_eq!(heaviest[0], ("large".to_owned(), 10));
        assert!(context.digest("Dockerfile", 11).is_ok());
    }

    #[test]
    fn special_files_are_named_or_left_out() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "Dockerfile", "FROM a");
        let _socket = std::os::unix::net::UnixListener::bind(home.path().join("socket")).unwrap();
        let context = Context::default().over(home.path().to_owned());
        assert_eq!(names(&tar_of(&context)), ["Dockerfile"]);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            home.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        let error = context.digest("Dockerfile", NO_LIMIT).unwrap_err();
        assert!(error.to_string().contains("pipe"), "{error}");
    }

    /// `**.pem` and an exception for a folder once sent keys that Docker's own client holds back.
    #[test]
    fn what_docker_holds_back_is_held_back() {
        let home = tempfile::tempdir().unwrap();
        for path in [
            "Dockerfile",
            "a.env",
            "x/a.env",
            "keys/a.pem",
            "keys/a.txt",
            "deep/down/kept",
            "deep/down/not",
            "deep/no",
        ] {
            write(home.path(), path, "1");
        }
        for directory in ["deep", "deep/down"] {
            fs::set_permissions(home.path().join(directory), fs::Permissions::from_mode(0o711)).unwrap();
        }
        write(home.path(), ".dockerignore", "**.env\n**/*.pem\n!keys\ndeep\n!deep/*/kept\n.dockerignore\n");
        let tar = tar_of(&Context::default().over(home.path().to_owned()));
        assert_eq!(
            names(&tar),
            ["Dockerfile", "deep", "deep/down", "deep/down/kept", "keys", "keys/a.txt", "x"]
        );
        // A folder that is there for the sake of an exception keeps its permission bits.
        let mut archive = tar::Archive::new(tar.as_slice());
        let modes: Vec<u32> =
            archive.entries().unwrap().map(|entry| entry.unwrap().header().mode().unwrap()).collect();
        assert_eq!(modes[1..3], [0o711, 0o711]);
    }

    #[test]
    fn targets_of_links_are_kept_byte_by_byte() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "Dockerfile", "FROM a");
        let long = format!("{}/.//x/", "l".repeat(120));
        for (name, target) in [("a", "x//y/./"), ("b", "../../z//"), ("c", "/q//r"), ("d", long.as_str())] {
            std::os::unix::fs::symlink(target, home.path().join(name)).unwrap();
            let tar = tar_of(&Context::default().over(home.path().to_owned()));
            let mut archive = tar::Archive::new(tar.as_slice());
            let last = archive.entries().unwrap().last().unwrap().unwrap();
            assert_eq!(last.link_name_bytes().unwrap(), target.as_bytes());
        }
    }

    #[test]
    fn a_file_takes_the_place_of_a_folder_and_of_what_lies_in_it() {
        let (home, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(home.path(), "Dockerfile", "FROM a");
        write(home.path(), "t/x/lower", "1");
        write(home.path(), "t/x-", "1");
        write(tree.path(), "x", "2");
        let context = Context::default().over(home.path().to_owned()).with_tree("t", tree.path().to_owned());
        assert_eq!(names(&tar_of(&context)), ["Dockerfile", "t", "t/x", "t/x-"]);
    }

    #[test]
    fn what_took_a_files_place_meanwhile_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", home.path().join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, home.path().join("pipe"), Mode::RUSR).unwrap();
        for name in ["link", "pipe", "."] {
            assert!(open(&home.path().join(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn an_identity_stands_for_what_lies_on_disk_only() {
        let tree = tempfile::tempdir().unwrap();
        let context = |text: &str| {
            Context::of_files(vec![file("t/own", text)])
                .with_tree("t", tree.path().to_owned())
                .with_identity("t", "git:1".to_owned())
                .digest("Dockerfile", NO_LIMIT)
                .unwrap()
        };
        let before = context("1");
        write(tree.path(), "pack", "1");
        assert_eq!(context("1"), before);
        assert_ne!(context("2"), before);
    }

    #[test]
    fn a_dockerfile_whose_name_does_not_fit_a_header_is_refused() {
        let name = "d".repeat(101);
        let context = Context::of_files(vec![file(&name, "FROM a")]);
        assert!(context.tar(&name, NO_LIMIT, |_, _| (), io::sink()).is_err());
    }

    #[test]
    fn a_dockerfile_outside_the_context_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", home.path().join("Dockerfile")).unwrap();
        let context = Context::default().over(home.path().to_owned());
        for path in ["Dockerfile", "../x", "/etc/hostname"] {
            assert!(context.digest(path, NO_LIMIT).is_err(), "{path}");
        }
    }

    #[test]
    fn a_file_that_changes_its_size_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "a", "12345");
        for size in [4, 6] {
            let mut file = Exactly { file: File::open(home.path().join("a")).unwrap(), left: size };
            assert!(file.read_to_end(&mut Vec::new()).is_err(), "{size}");
        }
    }

    /// A builder that is dropped writes the end of the archive. What a failure cut off once looked whole to the engine.
    #[test]
    fn what_a_failure_cut_off_does_not_look_whole() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "Dockerfile", "FROM a");
        write(home.path(), "gone", "1");
        let context = Context::default().over(home.path().to_owned());
        let mut out = Vec::new();
        let error = context.tar(
            "Dockerfile",
            NO_LIMIT,
            |_, entries| {
                if entries == 1 {
                    fs::remove_file(home.path().join("gone")).unwrap()
                }
            },
            &mut out,
        );
        assert!(matches!(error, Err(EngineError::Context { .. })), "{error:?}");
        assert!(!out.ends_with(&[0; 1024]));
    }

    #[test]
    fn an_end_that_takes_no_more_is_not_the_files_fault() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = Context::of_files(vec![file("a", "1")])
            .tar("Dockerfile", NO_LIMIT, |_, _| (), Closed)
            .unwrap_err();
        assert!(matches!(error, EngineError::Gone { .. }), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn an_ignored_file_is_never_sent(pattern in "[a-c*?/!]{1,6}", paths in proptest::collection::vec("[a-c]{1,2}(/[a-c]{1,2}){0,2}", 1..6)) {
            let home = tempfile::tempdir().unwrap();
            for path in &paths {
                // A path may run through a file of another; then it is not made.
                fs::create_dir_all(home.path().join(path).parent().unwrap()).ok();
                File::create(home.path().join(path)).ok();
            }
            write(home.path(), ".dockerignore", &pattern);
            if let Ok(ignore) = Ignore::parse(pattern.as_bytes()) {
                let context = Context::of_files(vec![file("Dockerfile", "")]).over(home.path().to_owned());
                let mut archive_bytes = Vec::new();
                context.tar("Dockerfile", NO_LIMIT, |_, _| (), &mut archive_bytes).unwrap();
                let mut archive = tar::Archive::new(archive_bytes.as_slice());
                for entry in archive.entries().unwrap() {
                    let entry = entry.unwrap();
                    let path = entry.path_bytes().into_owned();
                    let kept = !entry.header().entry_type().is_file() || path == b"Dockerfile" || !ignore.leaves_out(&path);
                    proptest::prop_assert!(kept, "{pattern} {:?}", String::from_utf8_lossy(&path));
                }
            }
        }
    }
}
