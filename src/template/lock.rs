//! Lock files of a template: what is made from what. Making them is the work of a job above.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::manifest::LockManifest;
use super::source::Kind;
use super::tree::Tree;
use super::{RenderRequest, Template, TemplateError, merge, parameter};

/// The program that makes a lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// `uv pip compile --generate-hashes`.
    Uv,
    /// `npm install --package-lock-only`.
    Npm,
}

/// A lock file and what it is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockSpec {
    /// The component, or the template for its own files.
    pub owner: String,
    /// The folder that holds both files, when the owner lies on disk: `<owner>/files`.
    pub folder: Option<PathBuf>,
    /// That folder's path in the library: `components/<owner>/files` or `<owner>/files`.
    pub library_path: String,
    /// The lock file's path in the folder.
    pub file: String,
    /// The path in the folder of what it is made from.
    pub input: String,
    /// The text of the input.
    pub input_text: String,
    /// The program that makes it.
    pub kind: LockKind,
}

/// Returns the lock files of a template and of its components, in the components' order.
///
/// # Errors
///
/// Fails when the template's components cannot be resolved with its defaults, or a declared file is missing.
pub fn lock_inputs(template: &Template) -> Result<Vec<LockSpec>, TemplateError> {
    if matches!(template.kind, Kind::Plain { .. }) {
        return Ok(Vec::new());
    }
    let merged = merge::merge(template, &RenderRequest::default(), parameter::Missing::Blank)?;
    let mut specs = Vec::new();
    for component in merge::components(template, &merged)? {
        let name = &component.manifest.name;
        let on_disk = component.folder.as_ref().map(|folder| folder.join("files"));
        let library_path = format!("components/{name}/files");
        for lock in &component.manifest.locks {
            specs.push(spec(name, lock, &component.tree, on_disk.clone(), library_path.clone())?);
        }
    }
    for own in &merged.own {
        let on_disk = own.folder.as_ref().map(|folder| folder.join("files"));
        for lock in &own.locks {
            specs.push(spec(&own.name, lock, &own.tree, on_disk.clone(), format!("{}/files", own.name))?);
        }
    }
    Ok(specs)
}

fn spec(
    owner: &str,
    lock: &LockManifest,
    tree: &Tree,
    folder: Option<PathBuf>,
    library_path: String,
) -> Result<LockSpec, TemplateError> {
    let path = format!("files/{}", lock.input);
    let Some(input_text) = tree.text(&path)? else {
        return Err(TemplateError::Unusable {
            path: tree.shown(&path),
            reason: format!("the lock `{}` is made from it and it does not exist", lock.file),
        });
    };
    Ok(LockSpec {
        owner: owner.to_owned(),
        folder,
        library_path,
        file: lock.file.clone(),
        input: lock.input.clone(),
        input_text: input_text.to_owned(),
        kind: lock.kind,
    })
}
