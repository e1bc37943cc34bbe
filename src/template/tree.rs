//! The files of a folder in memory: embedded in the program, or read from disk without leaving the folder.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{RenderedFile, TemplateError};

/// Files by path, with `/` between segments.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    /// How the folder is named in errors.
    shown: String,
    files: BTreeMap<String, TreeFile>,
}

#[derive(Debug, Clone)]
struct TreeFile {
    bytes: Cow<'static, [u8]>,
    executable: bool,
}

impl Tree {
    /// Takes the files of an embedded folder.
    pub(super) fn embedded(shown: &str, folder: &'static include_dir::Dir<'static>) -> Self {
        let mut files = BTreeMap::new();
        collect_embedded(folder, &mut files);
        Self { shown: shown.to_owned(), files }
    }

    /// Reads what a template consists of below `folder`: manifests, parts, `files/` and `components/`. Symbolic links are
    /// followed as long as they stay inside.
    pub(super) fn read(folder: &Path) -> Result<Self, TemplateError> {
        let root = fs::canonicalize(folder)
            .map_err(|source| TemplateError::Read { path: folder.to_owned(), source })?;
        let mut reader = Reader { folder, root, open: Vec::new(), files: BTreeMap::new() };
        reader.folder("", &|path| {
            path == "files"
                || path == "components"
                || path == "template.toml"
                || path.ends_with(".dockerfile")
        })?;
        Ok(Self { shown: folder.display().to_string(), files: reader.files })
    }

    /// Reads the whole folder, as [`Tree::read`] does.
    pub(super) fn read_all(folder: &Path) -> Result<Self, TemplateError> {
        let root = fs::canonicalize(folder)
            .map_err(|source| TemplateError::Read { path: folder.to_owned(), source })?;
        let mut reader = Reader { folder, root, open: Vec::new(), files: BTreeMap::new() };
        reader.folder("", &|_path| true)?;
        Ok(Self { shown: folder.display().to_string(), files: reader.files })
    }

    /// Returns the files below the folder `path`, with paths relative to it.
    pub(super) fn below(&self, path: &str) -> Self {
        let prefix = format!("{path}/");
        let files = self
            .files
            .iter()
            .filter_map(|(path, file)| Some((path.strip_prefix(&prefix)?.to_owned(), file.clone())))
            .collect();
        Self { shown: format!("{}/{path}", self.shown), files }
    }

    /// Returns the names of folders directly below `path` (empty: the root) that hold the file `marker`.
    pub(super) fn folders(&self, path: &str, marker: &str) -> Vec<String> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.files
            .keys()
            .filter_map(|file| file.strip_prefix(&prefix)?.strip_suffix(marker)?.strip_suffix('/'))
            .filter(|name| !name.contains('/'))
            .map(ToOwned::to_owned)
            .collect()
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Returns how errors name the file at `path`.
    pub(super) fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.shown)
    }

    /// Returns a text file; `None` when there is none.
    pub(super) fn text(&self, path: &str) -> Result<Option<&str>, TemplateError> {
        let Some(file) = self.files.get(path) else { return Ok(None) };
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(TemplateError::Unusable {
                path: self.shown(path),
                reason: format!("it is no UTF-8 text ({error})"),
            }),
        }
    }

    /// Returns the line of a text file on which `text` begins, or else the first.
    pub(super) fn line_of(&self, path: &str, text: &str) -> usize {
        let start = text.lines().next().unwrap_or_default();
        let content =
            self.files.get(path).map(|file| String::from_utf8_lossy(&file.bytes)).unwrap_or_default();
        content
            .lines()
            .position(|line| !start.is_empty() && line.contains(start))
            .map_or(1, |index| index + 1)
    }

    /// Returns all files as files of a context, below the folder `prefix`.
    pub(super) fn context_files(&self, prefix: &str) -> impl Iterator<Item = (String, RenderedFile)> {
        self.files.iter().map(move |(path, file)| {
            let script = file.executable || file.bytes.starts_with(b"#!");
            let rendered = RenderedFile {
                path: format!("{prefix}/{path}"),
                mode: if script { 0o755 } else { 0o644 },
                bytes: file.bytes.to_vec(),
            };
            (path.clone(), rendered)
        })
    }
}

fn collect_embedded(folder: &'static include_dir::Dir<'static>, files: &mut BTreeMap<String, TreeFile>) {
    for entry in folder.entries() {
        match entry {
            include_dir::DirEntry::Dir(below) => collect_embedded(below, files),
            include_dir::DirEntry::File(file) => {
                let bytes = Cow::Borrowed(file.contents());
                let path = file.path().to_string_lossy().replace('\\', "/");
                files.insert(path, TreeFile { bytes, executable: false });
            }
        }
    }
}

struct Reader<'a> {
    folder: &'a Path,
    root: PathBuf,
    /// The real paths of the folders that are being read, to notice a link to one of them.
    open: Vec<PathBuf>,
    files: BTreeMap<String, TreeFile>,
}

impl Reader<'_> {
    fn folder(&mut self, path: &str, wanted: &dyn Fn(&str) -> bool) -> Result<(), TemplateError> {
        let on_disk = self.folder.join(path);
        let failed = |source| TemplateError::Read { path: on_disk.clone(), source };
        let real = fs::canonicalize(&on_disk).map_err(failed)?;
        if self.open.contains(&real) {
            return Err(TemplateError::Unusable {
                path: on_disk.display().to_string(),
                reason: "the link leads back to a folder above it".to_owned(),
            });
        }
        self.open.push(real);
        for entry in fs::read_dir(&on_disk).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.chars().any(char::is_control)) else {
                return Err(TemplateError::Unusable {
                    path: super::error::shown(&entry.path().to_string_lossy()),
                    reason: "its name is no UTF-8 text without control characters".to_owned(),
                });
            };
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            if wanted(&below) {
                self.entry(&below)?;
            }
        }
        self.open.pop();
        Ok(())
    }

    fn entry(&mut self, path: &str) -> Result<(), TemplateError> {
        let on_disk = self.folder.join(path);
        let failed = |source| TemplateError::Read { path: on_disk.clone(), source };
        let real = fs::canonicalize(&on_disk).map_err(failed)?;
        if !real.starts_with(&self.root) {
            return Err(TemplateError::Outside { path: path.to_owned(), folder: self.folder.to_owned() });
        }
        let metadata = fs::metadata(&real).map_err(failed)?;
        if metadata.is_dir() {
            return self.folder(path, &|_path| true);
        }
        if !metadata.is_file() {
            return Err(TemplateError::Unusable {
                path: on_disk.display().to_string(),
                reason: "it is neither a file nor a folder".to_owned(),
            });
        }
        let bytes = Cow::Owned(fs::read(&real).map_err(failed)?);
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.files.insert(path.to_owned(), TreeFile { bytes, executable });
        Ok(())
    }
}
