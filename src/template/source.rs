//! Finding a template: shipped with the program, or a folder on disk.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, include_dir};

use super::error::nearest;
use super::manifest::{self, ComponentManifest, TemplateManifest};
use super::merge::Own;
use super::tree::Tree;
use super::{TemplateError, plain};

static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The folder of components, in the library and in an own template.
const COMPONENTS: &str = "components";

/// Templates by name, and the components that they are made of.
#[derive(Debug, Clone)]
pub struct Library {
    tree: Arc<Tree>,
}

/// A template that was found: its manifest was read, nothing is rendered yet.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) library: Library,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Made of components.
    Composed { manifest: Box<TemplateManifest>, tree: Tree, folder: Option<PathBuf> },
    /// A folder with a Dockerfile.
    Plain { folder: PathBuf, dockerfile: String },
}

/// A component, as read.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) manifest: ComponentManifest,
    pub(super) tree: Tree,
    /// Its folder on disk, when it comes with an own template and not with the library.
    pub(super) folder: Option<PathBuf>,
}

impl Library {
    /// Returns the templates that are part of this program.
    #[must_use]
    pub fn shipped() -> Self {
        Self { tree: Arc::new(Tree::embedded("templates", &SHIPPED)) }
    }

    /// Reads a library from a folder that is laid out as the shipped one: templates, and `components/`.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or lies outside the folder.
    pub fn of_folder(folder: &Path) -> Result<Self, TemplateError> {
        Ok(Self { tree: Arc::new(Tree::read_all(folder)?) })
    }

    /// Returns the templates' names, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.tree.folders("", manifest::TEMPLATE)
    }

    /// Returns the template of a name, or the one in a folder when `name_or_path` contains a `/` or a `.`.
    ///
    /// # Errors
    ///
    /// Fails when there is none, naming the nearest one; when its manifest is wrong; when it leads out of its folder.
    pub fn locate(&self, name_or_path: &str) -> Result<Template, TemplateError> {
        if name_or_path.contains(['/', '.']) {
            return self.open(Path::new(name_or_path));
        }
        self.named(name_or_path)
    }

    /// Returns the template of a name.
    fn named(&self, name: &str) -> Result<Template, TemplateError> {
        let known = self.list();
        if !known.iter().any(|other| other == name) {
            return Err(TemplateError::UnknownTemplate {
                name: super::error::shown(name),
                nearest: nearest(name, known.iter().map(String::as_str)),
                known,
            });
        }
        self.composed(self.tree.below(name), Some(name), None)
    }

    fn open(&self, folder: &Path) -> Result<Template, TemplateError> {
        if is_there(&folder.join(manifest::TEMPLATE))? {
            return self.composed(Tree::read(folder)?, None, Some(folder.to_owned()));
        }
        if is_there(&folder.join(plain::DOCKERFILE))? {
            return plain::open(folder, self);
        }
        Err(TemplateError::NotATemplate { path: folder.to_owned() })
    }

    fn composed(
        &self,
        tree: Tree,
        folder_name: Option<&str>,
        folder: Option<PathBuf>,
    ) -> Result<Template, TemplateError> {
        let file = tree.shown(manifest::TEMPLATE);
        let manifest = manifest::template(&file, tree.text(manifest::TEMPLATE)?.unwrap_or_default())?;
        named_as_folder(&file, &manifest.name, folder_name, &tree, manifest::TEMPLATE)?;
        templated_exist(&tree, manifest::TEMPLATE, &manifest.templated)?;
        let name = manifest.name.clone();
        Ok(Template {
            name,
            kind: Kind::Composed { manifest: Box::new(manifest), tree, folder },
            library: self.clone(),
        })
    }

    /// Returns a component: the one that a template of the chain brings (the nearest first), or else the library's.
    pub(super) fn component(
        &self,
        name: &str,
        chain: &[Own],
        wanted_by: &str,
    ) -> Result<Component, TemplateError> {
        let path = format!("{COMPONENTS}/{name}");
        let manifest_path = format!("{path}/{}", manifest::COMPONENT);
        let own = chain.iter().rev().find(|own| own.tree.has(&manifest_path));
        let (tree, folder) = if let Some(own) = own {
            (own.tree.below(&path), own.folder.as_ref().map(|folder| folder.join(&path)))
        } else if self.tree.has(&manifest_path) {
            (self.tree.below(&path), None)
        } else {
            let mut known = self.tree.folders(COMPONENTS, manifest::COMPONENT);
            known.extend(chain.iter().flat_map(|own| own.tree.folders(COMPONENTS, manifest::COMPONENT)));
            return Err(TemplateError::UnknownComponent {
                name: super::error::shown(name),
                wanted_by: wanted_by.to_owned(),
                nearest: nearest(name, known.iter().map(String::as_str)),
            });
        };
        let file = tree.shown(manifest::COMPONENT);
        let manifest = manifest::component(&file, tree.text(manifest::COMPONENT)?.unwrap_or_default())?;
        named_as_folder(&file, &manifest.name, Some(name), &tree, manifest::COMPONENT)?;
        templated_exist(&tree, manifest::COMPONENT, &manifest.templated)?;
        Ok(Component { manifest, tree, folder })
    }
}

impl Template {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder that it was read from; `None` for a shipped one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Composed { folder, .. } => folder.as_deref(),
            Kind::Plain { folder, .. } => Some(folder),
        }
    }
}

/// Whether something has this path; a folder that may not be looked into is an error and not an absence.
fn is_there(path: &Path) -> Result<bool, TemplateError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(source) => Err(TemplateError::Read { path: path.to_owned(), source }),
    }
}

fn named_as_folder(
    file: &str,
    name: &str,
    folder: Option<&str>,
    tree: &Tree,
    manifest: &str,
) -> Result<(), TemplateError> {
    match folder {
        Some(folder) if folder != name => Err(TemplateError::Manifest {
            file: file.to_owned(),
            line: tree.line_of(manifest, name),
            message: format!("the name is `{name}` and the folder's is `{folder}`"),
        }),
        _ => Ok(()),
    }
}

fn templated_exist(tree: &Tree, manifest: &str, templated: &[String]) -> Result<(), TemplateError> {
    match templated.iter().find(|path| !tree.has(&format!("files/{path}"))) {
        Some(path) => Err(TemplateError::Manifest {
            file: tree.shown(manifest),
            line: tree.line_of(manifest, path),
            message: format!("there is no file `files/{path}`"),
        }),
        None => Ok(()),
    }
}
