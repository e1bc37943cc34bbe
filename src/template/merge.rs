//! A template with what it extends: one set of declarations, and values for all parameters.

use std::collections::BTreeMap;
use std::path::PathBuf;

use minijinja::Value;
use minijinja::value::Serde;

use super::error::shown;
use super::expand::{Expander, Place};
use super::manifest::{
    self, CheckManifest, CheckoutManifest, ComponentUse, LimitsManifest, LockManifest, ParameterManifest,
    ResourcesManifest, RuntimeManifest, SecretManifest, TemplateManifest,
};
use super::order::order;
use super::parameter::{self, Given, Missing, ParameterValue};
use super::source::{Component, Kind};
use super::tree::Tree;
use super::{RenderRequest, Template, TemplateError};
use crate::base::Length;

/// A template and its parents as one.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) description: String,
    pub(super) base: Option<String>,
    pub(super) extends: Option<String>,
    pub(super) refresh_after: Option<Length>,
    pub(super) components: Vec<ComponentUse>,
    pub(super) parameters: BTreeMap<String, ParameterManifest>,
    pub(super) runtime: RuntimeManifest,
    pub(super) resources: ResourcesManifest,
    pub(super) limits: LimitsManifest,
    pub(super) secrets: Vec<SecretManifest>,
    pub(super) checks: Vec<CheckManifest>,
    pub(super) checkout: Option<CheckoutManifest>,
    /// The templates' own parts and files, the farthest parent first.
    pub(super) own: Vec<Own>,
    pub(super) values: BTreeMap<String, ParameterValue>,
}

/// What a template brings beside its components.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) name: String,
    /// The folder that it was read from; `None` for a shipped one.
    pub(super) folder: Option<PathBuf>,
    pub(super) tree: Tree,
    pub(super) templated: Vec<String>,
    pub(super) locks: Vec<LockManifest>,
}

impl Merged {
    /// Returns where a text of the manifests stands; the nearest template's is looked at first.
    pub(super) fn place(&self, text: &str) -> Place {
        let first = text.lines().next().unwrap_or_default();
        let in_it = |own: &&Own| {
            own.tree.text(manifest::TEMPLATE).ok().flatten().is_some_and(|manifest| manifest.contains(first))
        };
        let own = self.own.iter().rev().find(in_it).or(self.own.last());
        own.map_or(Place::start_of(manifest::TEMPLATE.to_owned()), |own| Place {
            file: own.tree.shown(manifest::TEMPLATE),
            line: own.tree.line_of(manifest::TEMPLATE, text),
        })
    }

    /// Returns the values as templates see them in `params`.
    pub(super) fn params(&self) -> serde_json::Value {
        json_of(&self.values)
    }
}

/// Returns values as templates see them.
pub(super) fn json_of(values: &BTreeMap<String, ParameterValue>) -> serde_json::Value {
    values.iter().map(|(name, value)| (name.clone(), value.json())).collect::<serde_json::Map<_, _>>().into()
}

/// Merges a template with its parents and gives every parameter its value.
pub(super) fn merge(
    template: &Template,
    request: &RenderRequest,
    missing: Missing,
) -> Result<Merged, TemplateError> {
    let given = Given { set: &request.parameters, computed: &request.computed, missing };
    let expander = Expander::new();
    let mut merged = Merged { parameters: parameter::global(), ..Merged::default() };
    let mut chain: Vec<Link> = Vec::new();
    let mut next = Some(template.clone());
    while let Some(Template { name, kind, library }) = next.take() {
        let Kind::Composed { manifest, tree, folder } = kind else {
            return Err(TemplateError::Unsupported {
                template: name,
                reason: "is a plain Dockerfile and has no components",
                instead: "write a `template.toml` beside it",
            });
        };
        for (name, declared) in &manifest.parameters {
            merged.parameters.entry(name.clone()).or_insert_with(|| declared.clone());
        }
        merged.values = parameter::values(&template.name, &merged.parameters, given)?;
        let link = Link { name, folder, manifest: *manifest, tree };
        if let Some(parent) = link.parent(&merged, &expander)? {
            let found = library.locate(&parent)?;
            chain.push(link);
            refuse_circle(&chain, &found)?;
            merged.extends.get_or_insert(parent);
            next = Some(found);
        } else {
            chain.push(link);
        }
    }
    parameter::refuse_unknown(&template.name, &merged.parameters, request.parameters.keys())?;
    parameter::refuse_unknown(&template.name, &merged.parameters, request.computed.keys())?;
    for link in chain.into_iter().rev() {
        merged.take(link);
    }
    Ok(merged)
}

/// A template on the way to the farthest parent.
struct Link {
    name: String,
    folder: Option<PathBuf>,
    manifest: TemplateManifest,
    tree: Tree,
}

impl Link {
    /// Returns what it extends: a name, or a path when the person who renders gave one in a parameter.
    fn parent(&self, merged: &Merged, expander: &Expander) -> Result<Option<String>, TemplateError> {
        let Some(extends) = &self.manifest.extends else { return Ok(None) };
        let place = Place {
            file: self.tree.shown(manifest::TEMPLATE),
            line: self.tree.line_of(manifest::TEMPLATE, "extends"),
        };
        let context = Value::from(Serde(serde_json::json!({ "params": merged.params() })));
        let parent = expander.text(&place, extends, &context)?;
        if parent == *extends && parent.contains(['/', '.']) {
            let folder = self.folder.clone().unwrap_or_else(|| PathBuf::from(&self.name));
            return Err(TemplateError::Outside { path: parent, folder });
        }
        Ok(Some(parent).filter(|parent| !parent.is_empty()))
    }

    /// Whether it is that template: from the same folder, or shipped under the same name.
    fn is(&self, other: &Template) -> bool {
        match (&self.folder, other.folder()) {
            (None, None) => self.name == other.name,
            (Some(own), Some(other)) => own.canonicalize().ok() == other.canonicalize().ok(),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

fn refuse_circle(chain: &[Link], found: &Template) -> Result<(), TemplateError> {
    let Some(start) = chain.iter().position(|link| link.is(found)) else { return Ok(()) };
    let circle = chain.iter().skip(start).map(|link| link.name.clone()).chain([found.name.clone()]).collect();
    Err(TemplateError::Cycle { what: "templates", circle })
}

impl Merged {
    /// Puts a template over its parents.
    fn take(&mut self, link: Link) {
        let Link { name, folder, manifest: child, tree } = link;
        self.description = child.description;
        self.base = child.base.or(self.base.take());
        self.refresh_after = child.refresh_after.or(self.refresh_after);
        for used in child.components {
            match self.components.iter_mut().find(|other| other.component == used.component) {
                Some(parents) => parents.with.extend(used.with),
                None => self.components.push(used),
            }
        }
        let runtime = &mut self.runtime;
        runtime.user = child.runtime.user.or(runtime.user.take());
        runtime.uid = child.runtime.uid.or(runtime.uid);
        runtime.workdir = child.runtime.workdir.or(runtime.workdir.take());
        runtime.entrypoint = child.runtime.entrypoint.or(runtime.entrypoint.take());
        runtime.start = child.runtime.start.or(runtime.start.take());
        runtime.ready = child.runtime.ready.or(runtime.ready.take());
        runtime.ports = child.runtime.ports.or(runtime.ports.take());
        runtime.env.extend(child.runtime.env);
        self.resources.cpu = child.resources.cpu.or(self.resources.cpu);
        self.resources.memory = child.resources.memory.or(self.resources.memory);
        self.resources.disk = child.resources.disk.or(self.resources.disk);
        self.limits.image = child.limits.image.or(self.limits.image);
        self.limits.build_write = child.limits.build_write.or(self.limits.build_write);
        self.limits.context = child.limits.context.or(self.limits.context);
        self.limits.timeout = child.limits.timeout.or(self.limits.timeout);
        for secret in child.secrets {
            self.secrets.retain(|other| other.id != secret.id);
            self.secrets.push(secret);
        }
        for check in child.checks {
            match self.checks.iter_mut().find(|other| other.name == check.name) {
                Some(parents) => *parents = check,
                None => self.checks.push(check),
            }
        }
        self.checkout = child.checkout.or(self.checkout.take());
        self.own.push(Own { name, folder, tree, templated: child.templated, locks: child.locks });
    }
}

/// Returns the components in the order of use, with those that are required, and refuses those that exclude each other.
pub(super) fn components(template: &Template, merged: &Merged) -> Result<Vec<Component>, TemplateError> {
    let listed: Vec<_> = merged.components.iter().map(|used| used.component.clone()).collect();
    let mut found: BTreeMap<String, Component> = BTreeMap::new();
    let ordered = order(&template.name, &listed, |name, asker| {
        let component = template.library.component(name, &merged.own, asker)?;
        let requires = component.manifest.requires.clone();
        found.insert(name.to_owned(), component);
        Ok(requires)
    })?;
    let components: Vec<Component> = ordered.iter().filter_map(|name| found.remove(name)).collect();
    for component in &components {
        if let Some(other) = component.manifest.conflicts.iter().find(|other| ordered.contains(other)) {
            let first = component.manifest.name.clone();
            return Err(TemplateError::Conflict { first, second: other.clone() });
        }
    }
    Ok(components)
}

/// Returns the values of a component's parameters, from `with` and its defaults.
pub(super) fn component_values(
    component: &Component,
    merged: &Merged,
    expander: &Expander,
    context: &Value,
    missing: Missing,
) -> Result<BTreeMap<String, ParameterValue>, TemplateError> {
    let name = &component.manifest.name;
    let empty = BTreeMap::new();
    let with =
        merged.components.iter().find(|used| used.component == *name).map_or(&empty, |used| &used.with);
    let mut set = BTreeMap::new();
    for (parameter, value) in with {
        let text = match value {
            toml::Value::String(text) => expander.text(&merged.place(text), text, context)?,
            other => manifest::text_of(other).ok_or_else(|| TemplateError::Value {
                name: format!("{name}.{parameter}"),
                value: shown(&other.to_string()),
                expected: "text, a number or a boolean".to_owned(),
            })?,
        };
        set.insert(parameter.clone(), text);
    }
    parameter::refuse_unknown(name, &component.manifest.parameters, set.keys())?;
    let computed = BTreeMap::new();
    parameter::values(name, &component.manifest.parameters, Given { set: &set, computed: &computed, missing })
}
