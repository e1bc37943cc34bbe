//! Writing a rendered template to a folder that plain `docker build` accepts.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::plain::DOCKERFILE;
use super::render::HEADER;
use super::{Rendered, TemplateError};
use crate::base::fs::{Existing, create_dir_durably, write_durably_with};

/// Writes the Dockerfile and the files of its context below `out`, and returns what was written, sorted.
///
/// The Dockerfile is written last: it is what tells an earlier render from a foreign folder, so that a crash leaves a folder
/// that is refused and not one that looks whole.
///
/// # Errors
///
/// Fails when `out` holds anything but an earlier render of the same template, or cannot be written.
pub fn export(rendered: &Rendered, out: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    let mut files = Vec::new();
    match &rendered.context_root {
        Some(root) => copies(root, Path::new(""), out, &mut files)?,
        None => files.extend(rendered.files.iter().map(|file| Copy {
            path: PathBuf::from(&file.path),
            mode: file.mode,
            content: Content::Bytes(file.bytes.clone()),
        })),
    }
    refuse_foreign(rendered, &files, out)?;
    create_dir_durably(out).map_err(|source| TemplateError::Write { path: out.to_owned(), source })?;
    let mut written = Vec::new();
    for file in &files {
        written.push(write(file, out)?);
    }
    let dockerfile = Content::Bytes(rendered.dockerfile.clone().into_bytes());
    written.push(write(&Copy { path: PathBuf::from(DOCKERFILE), mode: 0o644, content: dockerfile }, out)?);
    written.sort();
    Ok(written)
}

struct Copy {
    path: PathBuf,
    mode: u32,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    Link(PathBuf),
}

/// Collects what lies below `root`, without its Dockerfile, and without `out` should it lie there.
fn copies(root: &Path, below: &Path, out: &Path, found: &mut Vec<Copy>) -> Result<(), TemplateError> {
    let folder = root.join(below);
    let failed = |source| TemplateError::Read { path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = below.join(entry.file_name());
        let on_disk = entry.path();
        let failed = |source| TemplateError::Read { path: on_disk.clone(), source };
        let metadata = fs::symlink_metadata(&on_disk).map_err(failed)?;
        if path == Path::new(DOCKERFILE) || is_same(&on_disk, out) {
            continue;
        }
        if metadata.is_dir() {
            copies(root, &path, out, found)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&on_disk).map_err(failed)?;
            found.push(Copy { path, mode: 0o777, content: Content::Link(target) });
        } else if metadata.is_file() {
            let mode = metadata.permissions().mode() & 0o777;
            found.push(Copy { path, mode, content: Content::File(on_disk) });
        } else {
            return Err(TemplateError::Unusable {
                path: on_disk.display().to_string(),
                reason: "it is neither a file nor a folder".to_owned(),
            });
        }
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Refuses a folder with anything in it that this export would not write, or without an earlier render's Dockerfile.
fn refuse_foreign(rendered: &Rendered, files: &[Copy], out: &Path) -> Result<(), TemplateError> {
    let occupied = |path: &Path| Err(TemplateError::Occupied { path: path.to_owned() });
    match fs::symlink_metadata(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(TemplateError::Write { path: out.to_owned(), source }),
        Ok(metadata) if !metadata.is_dir() => return occupied(out),
        Ok(_) => {}
    }
    let mut present = Vec::new();
    list(out, Path::new(""), &mut present)?;
    let Some(first) = present.first() else { return Ok(()) };
    let header = format!("{HEADER}{}\n", rendered.template);
    match fs::read_to_string(out.join(DOCKERFILE)) {
        Ok(earlier) if earlier.starts_with(&header) => {}
        Ok(_) => return occupied(&out.join(DOCKERFILE)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return occupied(&out.join(first)),
        Err(source) => return Err(TemplateError::Read { path: out.join(DOCKERFILE), source }),
    }
    let own: BTreeSet<&Path> =
        files.iter().map(|file| file.path.as_path()).chain([Path::new(DOCKERFILE)]).collect();
    match present.iter().find(|path| !own.contains(path.as_path())) {
        Some(foreign) => occupied(&out.join(foreign)),
        None => Ok(()),
    }
}

/// Lists what is not a folder below `root`.
fn list(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), TemplateError> {
    let folder = root.join(below);
    let failed = |source| TemplateError::Read { path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = below.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

fn write(file: &Copy, out: &Path) -> Result<PathBuf, TemplateError> {
    let path = out.join(&file.path);
    let failed = |source| TemplateError::Write { path: path.clone(), source };
    let permissions = fs::Permissions::from_mode(file.mode);
    match &file.content {
        Content::Bytes(bytes) => write_durably_with(&path, Existing::Replace, |to| {
            to.write_all(bytes)?;
            to.set_permissions(permissions)
        })
        .map_err(failed)?,
        Content::File(from) => {
            let mut from =
                fs::File::open(from).map_err(|source| TemplateError::Read { path: from.clone(), source })?;
            write_durably_with(&path, Existing::Replace, |to| {
                std::io::copy(&mut from, to)?;
                to.set_permissions(permissions)
            })
            .map_err(failed)?;
        }
        Content::Link(target) => {
            if let Some(folder) = path.parent() {
                create_dir_durably(folder).map_err(failed)?;
            }
            std::os::unix::fs::symlink(target, &path).map_err(failed)?;
        }
    }
    Ok(path)
}
