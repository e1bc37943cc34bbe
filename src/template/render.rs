//! A template with its parameters becomes a Dockerfile and the files beside it.
//!
//! ```text
//! template ─ merge ─▶ declarations + values ─ order ─▶ components ─ expand ─▶ variables ─▶ parts by phase ─▶ Dockerfile
//!                                                                                  └─────▶ files of the context
//! ```

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;

use super::error::shown;
use super::expand::{Expander, Place};
use super::merge::{self, Merged, json_of};
use super::parameter::Missing;
use super::quote::{env_value, json_string};
use super::source::{Component, Kind};
use super::tree::Tree;
use super::{
    CaCertificate, CaSummary, CheckSpec, Distro, Limits, ReadySpec, Rendered, RenderedFile, Resources,
    Runtime, SecretSpec, Template, TemplateError, distro, manifest, plain,
};
use crate::base::ByteSize;

/// What a template is rendered with.
#[derive(Debug, Clone, Default)]
pub struct RenderRequest {
    /// Values that people set.
    pub parameters: BTreeMap<String, String>,
    /// Values that the job found out, such as a commit. They override those that people set.
    pub computed: BTreeMap<String, String>,
    /// The image to start from, instead of the template's own choice.
    pub base: Option<String>,
    /// Whether the base is a snapshot and not a distribution's image.
    pub base_is_snapshot: bool,
    /// The base's release, where it is known better than its name tells: from the record of a snapshot.
    pub distro: Option<Distro>,
    /// The variables of the base, `PATH` among them: from the record of a snapshot.
    pub base_env: BTreeMap<String, String>,
    /// Certificates that stay in the image.
    pub baked_cas: Vec<CaCertificate>,
    /// Certificates that are trusted while building only.
    pub build_cas: Vec<CaCertificate>,
}

/// The component that makes an image trust certificates.
const CA_COMPONENT: &str = "ca";

/// What a shell of Debian and Ubuntu has without further ado, and what an image without `PATH` is run with.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The header's first words; [`super::export()`] knows an earlier render by them.
pub(super) const HEADER: &str = "# kiln template: ";

/// The parts of a component, in the order of their phases, and whether the phase is the sandbox user's.
const PHASES: [(&str, bool); 4] = [("begin", false), ("root", false), ("user", true), ("finish", false)];

/// Where variables go when a component has no part at all.
const PHASE_OF_VARIABLES: &str = "root";

/// Renders a template. Equal input gives equal output, byte by byte.
///
/// # Errors
///
/// Fails when a parameter is wrong, components do not fit together or to the base, or a part cannot be expanded.
pub fn render(template: &Template, request: &RenderRequest) -> Result<Rendered, TemplateError> {
    match &template.kind {
        Kind::Plain { folder, dockerfile } => plain::render(&template.name, folder, dockerfile, request),
        Kind::Composed { .. } => composed(template, request, Missing::Refuse),
    }
}

/// Renders a template made of components; parameters that are missing may be left blank, to look at it.
pub(super) fn composed(
    template: &Template,
    request: &RenderRequest,
    missing: Missing,
) -> Result<Rendered, TemplateError> {
    let merged = merge::merge(template, request, missing)?;
    let components = merge::components(template, &merged)?;
    let base = base_of(&merged, request)?;
    let distro = distro_of(&merged, request, &base)?;
    refuse_distros(&components, &distro)?;
    refuse_certificates(template, &components, request)?;
    let names: Vec<String> = components.iter().map(|component| component.manifest.name.clone()).collect();
    let renderer = Renderer { template, request, merged: &merged, expander: Expander::new() };
    let mut context = renderer.first_context(&base, &distro, &names)?;
    let mut pieces = renderer.pieces(&components, &context, missing)?;
    let environment = renderer.variables(&mut pieces, &context)?;
    environment.show_in(&mut context);
    let runtime = renderer.runtime(&context, environment)?;
    let dockerfile = renderer.dockerfile(&pieces, &context, &base, &runtime)?;
    let checks = renderer.checks(&context)?;
    let (resources, limits) = (renderer.resources(), renderer.limits());
    Ok(Rendered {
        template: template.name.clone(),
        description: merged.description.clone(),
        dockerfile,
        files: renderer.files(&pieces, &context)?,
        context_root: None,
        base,
        distro: Some(distro),
        components: names,
        parameters: reported(&merged),
        baked_cas: summaries(&request.baked_cas),
        build_cas: summaries(&request.build_cas),
        runtime,
        resources,
        limits,
        secrets: merged
            .secrets
            .iter()
            .map(|secret| SecretSpec { id: secret.id.clone(), required: secret.required })
            .collect(),
        checks,
        refresh_after: merged.refresh_after,
    })
}

fn summaries(certificates: &[CaCertificate]) -> Vec<CaSummary> {
    certificates.iter().map(|certificate| certificate.summary.clone()).collect()
}

/// Returns the parameters for the record: all of the template's, and those of every template that were given.
fn reported(merged: &Merged) -> BTreeMap<String, String> {
    let global = super::parameter::global();
    merged
        .values
        .iter()
        .filter(|(name, value)| !global.contains_key(*name) || !value.text.is_empty())
        .map(|(name, value)| (name.clone(), value.text.clone()))
        .collect()
}

fn base_of(merged: &Merged, request: &RenderRequest) -> Result<String, TemplateError> {
    let base = request.base.as_deref().or(merged.base.as_deref()).unwrap_or(distro::DEFAULT_BASE);
    let valid = base.starts_with(|c: char| c.is_ascii_alphanumeric())
        && base.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@-".contains(c));
    if valid { Ok(base.to_owned()) } else { Err(TemplateError::Base { base: shown(base) }) }
}

fn distro_of(merged: &Merged, request: &RenderRequest, base: &str) -> Result<Distro, TemplateError> {
    match &request.distro {
        Some(known) => Ok(known.clone()),
        None => distro::of_base(base, merged.values.get("release").map_or("", |value| &value.text)),
    }
}

fn refuse_distros(components: &[Component], distro: &Distro) -> Result<(), TemplateError> {
    for component in components {
        let Some(allowed) = &component.manifest.distros else { continue };
        if !allowed.iter().any(|name| *name == distro.family || *name == distro.codename) {
            let reason = &component.manifest.distros_reason;
            return Err(TemplateError::Distro {
                component: component.manifest.name.clone(),
                distro: format!("{} {} ({})", distro.family, distro.version, distro.codename),
                reason: if reason.is_empty() {
                    format!("it needs {}", allowed.join(" or "))
                } else {
                    reason.clone()
                },
            });
        }
    }
    Ok(())
}

fn refuse_certificates(
    template: &Template,
    components: &[Component],
    request: &RenderRequest,
) -> Result<(), TemplateError> {
    let given = !request.baked_cas.is_empty() || !request.build_cas.is_empty();
    if given && !components.iter().any(|component| component.manifest.name == CA_COMPONENT) {
        return Err(TemplateError::Unsupported {
            template: template.name.clone(),
            reason: "cannot be given certificates: it does not use the component `ca`",
            instead: "add `{ use = \"ca\" }` to its components",
        });
    }
    Ok(())
}

/// A component, or what a template brings itself: parts, variables and files.
struct Piece<'a> {
    name: &'a str,
    tree: &'a Tree,
    manifest: &'static str,
    templated: &'a [String],
    env: &'a BTreeMap<String, String>,
    path: &'a [String],
    /// What `p` is.
    values: serde_json::Value,
    /// The variables that its `ENV` sets.
    variables: Vec<(String, String)>,
}

impl<'a> Piece<'a> {
    /// Returns whose piece it is, for errors; a template may have the name of a component.
    fn owner(&self) -> &'a str {
        if self.manifest == manifest::TEMPLATE { "the template itself" } else { self.name }
    }

    /// Returns the phase whose part the `ENV` stands on top of.
    fn phase_of_variables(&self) -> &'static str {
        PHASES
            .iter()
            .map(|(phase, _)| *phase)
            .find(|phase| self.tree.has(&format!("{phase}.dockerfile")))
            .unwrap_or(PHASE_OF_VARIABLES)
    }
}

type Context = serde_json::Map<String, serde_json::Value>;

/// Returns the context as minijinja takes it, with `p` in it.
fn with_own(context: &Context, values: &serde_json::Value) -> Value {
    let mut context = context.clone();
    context.insert("p".to_owned(), values.clone());
    Value::from(Serde(context))
}

/// The variables of an image.
struct ImageEnvironment {
    /// All but `PATH`.
    variables: BTreeMap<String, String>,
    path: String,
    /// Whether `PATH` is set by the image and not only assumed.
    path_is_set: bool,
}

impl ImageEnvironment {
    fn show_in(&self, context: &mut Context) {
        let all = self.variables.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        context.insert("env_all".to_owned(), serde_json::Value::Array(all));
        context.insert("path_all".to_owned(), self.path.clone().into());
    }
}

struct Renderer<'a> {
    template: &'a Template,
    request: &'a RenderRequest,
    merged: &'a Merged,
    expander: Expander,
}

impl<'a> Renderer<'a> {
    /// Returns what every part sees, but for the image's variables.
    fn first_context(&self, base: &str, distro: &Distro, names: &[String]) -> Result<Context, TemplateError> {
        let (merged, request) = (self.merged, self.request);
        let global = |name: &str| merged.values.get(name).map_or("", |value| &value.text);
        let mut context = Context::new();
        context.insert("template".to_owned(), json!(self.template.name));
        context.insert("base".to_owned(), json!(base));
        context.insert("base_is_snapshot".to_owned(), json!(request.base_is_snapshot));
        context.insert("params".to_owned(), merged.params());
        context.insert("distro".to_owned(), json!(distro));
        context.insert("components".to_owned(), json!(names));
        context.insert("apt_mirror".to_owned(), json!(global("apt_mirror")));
        context.insert("apt_security_mirror".to_owned(), json!(global("apt_security_mirror")));
        let certificates = |certificates: &[CaCertificate], kind: &str| -> serde_json::Value {
            let describe = |(index, certificate): (usize, &CaCertificate)| {
                json!({
                    "file": certificate_path(kind, index),
                    "subject": certificate.summary.subject,
                    "fingerprint": certificate.summary.fingerprint,
                })
            };
            certificates.iter().enumerate().map(describe).collect()
        };
        let ca = json!({
            "baked": certificates(&request.baked_cas, "baked"),
            "build": certificates(&request.build_cas, "build"),
            "any": !request.baked_cas.is_empty() || !request.build_cas.is_empty(),
        });
        context.insert("ca".to_owned(), ca);

        let name = match &merged.runtime.user {
            Some(user) => self.expand(user, &context)?,
            None => "root".to_owned(),
        };
        let valid = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.len() <= 32
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
        if !valid {
            return Err(self.wrong("user", &name, "a user's name (lower-case letters, digits, `_` and `-`)"));
        }
        let (home, uid) =
            if name == "root" { ("/root".to_owned(), 0) } else { (format!("/home/{name}"), 1000) };
        let uid = merged.runtime.uid.unwrap_or(uid);
        let mut user = json!({ "name": name, "uid": uid, "home": home });
        context.insert("user".to_owned(), user.clone());
        let workdir = match &merged.runtime.workdir {
            Some(workdir) => self.expand(workdir, &context)?,
            None => home,
        };
        // `WORKDIR` takes the rest of its line and expands variables in it.
        if !workdir.starts_with('/')
            || !workdir.chars().all(|c| c.is_ascii_alphanumeric() || "/._+@-".contains(c))
        {
            return Err(self.wrong("workdir", &workdir, "an absolute path of letters, digits and `._+@-`"));
        }
        if let Some(user) = user.as_object_mut() {
            user.insert("workdir".to_owned(), workdir.into());
        }
        context.insert("user".to_owned(), user);
        Ok(context)
    }

    fn wrong(&self, what: &'static str, value: &str, expected: &'static str) -> TemplateError {
        TemplateError::Rendered { template: self.template.name.clone(), what, value: shown(value), expected }
    }

    /// Expands a text of the template's manifest.
    fn expand(&self, text: &str, context: &Context) -> Result<String, TemplateError> {
        let values = context.get("params").cloned().unwrap_or_default();
        self.expander.text(&self.merged.place(text), text, &with_own(context, &values))
    }

    /// As [`Self::expand`], for a text that a line holds.
    fn expand_line(
        &self,
        what: &'static str,
        text: &str,
        context: &Context,
    ) -> Result<String, TemplateError> {
        let line = self.expand(text, context)?;
        if line.chars().any(char::is_control) {
            return Err(self.wrong(what, &line, "text without newlines and other control characters"));
        }
        Ok(line)
    }

    /// Returns the components and then what the templates bring themselves.
    fn pieces(
        &self,
        components: &'a [Component],
        context: &Context,
        missing: Missing,
    ) -> Result<Vec<Piece<'a>>, TemplateError> {
        static NO_VARIABLES: BTreeMap<String, String> = BTreeMap::new();
        let plain = Value::from(Serde(context));
        let mut pieces = Vec::new();
        for component in components {
            let values = merge::component_values(component, self.merged, &self.expander, &plain, missing)?;
            pieces.push(Piece {
                name: &component.manifest.name,
                tree: &component.tree,
                manifest: manifest::COMPONENT,
                templated: &component.manifest.templated,
                env: &component.manifest.env,
                path: &component.manifest.path,
                values: json_of(&values),
                variables: Vec::new(),
            });
        }
        let last = self.merged.own.len().saturating_sub(1);
        for (index, own) in self.merged.own.iter().enumerate() {
            pieces.push(Piece {
                name: &own.name,
                tree: &own.tree,
                manifest: manifest::TEMPLATE,
                templated: &own.templated,
                env: if index == last { &self.merged.runtime.env } else { &NO_VARIABLES },
                path: &[],
                values: self.merged.params(),
                variables: Vec::new(),
            });
        }
        Ok(pieces)
    }

    /// Expands every piece's variables, and returns all of the image's.
    fn variables(
        &self,
        pieces: &mut [Piece<'a>],
        context: &Context,
    ) -> Result<ImageEnvironment, TemplateError> {
        let base_path = self.request.base_env.get("PATH");
        let mut all = ImageEnvironment {
            variables: self.request.base_env.clone(),
            path: base_path.map_or(DEFAULT_PATH, String::as_str).to_owned(),
            path_is_set: base_path.is_some(),
        };
        all.variables.remove("PATH");
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for piece in pieces {
            let context = with_own(context, &piece.values);
            let owner = piece.owner();
            let expand = |text: &str, what: &'static str| {
                let line = piece.tree.line_of(piece.manifest, text);
                let place = Place { file: piece.tree.shown(piece.manifest), line };
                let value = self.expander.text(&place, text, &context)?;
                if value.chars().any(char::is_control) {
                    return Err(self.wrong(
                        what,
                        &value,
                        "text without newlines and other control characters",
                    ));
                }
                Ok(value)
            };
            for (name, text) in piece.env {
                if let Some(first) = owners.insert(name, owner) {
                    let (first, second) = (first.to_owned(), owner.to_owned());
                    return Err(TemplateError::DuplicateVariable { name: name.clone(), first, second });
                }
                let value = expand(text, "variable")?;
                all.variables.insert(name.clone(), value.clone());
                piece.variables.push((name.clone(), value));
            }
            let mut entries = Vec::new();
            for text in piece.path {
                let entry = expand(text, "path entry")?;
                if !entry.starts_with('/') || entry.contains(':') {
                    return Err(self.wrong("path entry", &entry, "an absolute path without `:`"));
                }
                if !all.path.split(':').any(|known| known == entry) {
                    entries.push(entry);
                }
            }
            if !entries.is_empty() {
                // In full: a base without `PATH` would leave an empty entry, which means the working directory.
                all.path = format!("{}:{}", entries.join(":"), all.path);
                all.path_is_set = true;
                piece.variables.push(("PATH".to_owned(), all.path.clone()));
            }
        }
        Ok(all)
    }

    fn runtime(&self, context: &Context, environment: ImageEnvironment) -> Result<Runtime, TemplateError> {
        let declared = &self.merged.runtime;
        let user =
            |key: &str| context.get("user").and_then(|user| user.get(key)).cloned().unwrap_or_default();
        let text = |key: &str| user(key).as_str().unwrap_or_default().to_owned();
        let entrypoint = declared
            .entrypoint
            .iter()
            .flatten()
            .map(|word| self.expand_line("entrypoint", word, context))
            .collect::<Result<_, _>>()?;
        let start = match &declared.start {
            Some(start) => Some(self.expand(start, context)?).filter(|start| !start.is_empty()),
            None => None,
        };
        let ready = match &declared.ready {
            Some(ready) => Some(ReadySpec {
                cmd: self.expand(&ready.cmd, context)?,
                timeout: ready.timeout,
                interval: ready.interval,
            })
            .filter(|ready| !ready.cmd.is_empty()),
            None => None,
        };
        let mut env = environment.variables;
        if environment.path_is_set {
            env.insert("PATH".to_owned(), environment.path);
        }
        Ok(Runtime {
            user: text("name"),
            uid: user("uid").as_u64().and_then(|uid| u32::try_from(uid).ok()),
            workdir: text("workdir"),
            entrypoint,
            start,
            ready,
            ports: declared.ports.clone().unwrap_or_default(),
            env,
        })
    }

    fn dockerfile(
        &self,
        pieces: &[Piece<'_>],
        context: &Context,
        base: &str,
        runtime: &Runtime,
    ) -> Result<String, TemplateError> {
        let mut out = format!("{HEADER}{}\n", self.template.name);
        for line in self.merged.description.lines().map(str::trim).filter(|line| !line.is_empty()) {
            out.push_str(&format!("# {line}\n"));
        }
        out.push_str(&format!("\nFROM {base}\n"));
        // A distribution's image starts as root; of any other this is not known.
        let mut user =
            if !self.request.base_is_snapshot && distro::of_reference(base).is_some() { "root" } else { "" };
        for (phase, as_user) in PHASES {
            for piece in pieces {
                let part = self.part(piece, phase, context)?;
                if part.trim().is_empty() {
                    continue;
                }
                let wanted = if as_user { runtime.user.as_str() } else { "root" };
                if user != wanted {
                    out.push_str(&format!("\nUSER {wanted}\n"));
                    user = wanted;
                }
                out.push_str(&format!("\n# {}\n{}\n", piece.name, part.trim_matches('\n')));
            }
        }
        out.push_str("\n# How it runs.\n");
        if user != runtime.user {
            out.push_str(&format!("USER {}\n", runtime.user));
        }
        out.push_str(&format!("WORKDIR {}\n", runtime.workdir));
        if !runtime.ports.is_empty() {
            let ports: Vec<_> = runtime.ports.iter().map(u16::to_string).collect();
            out.push_str(&format!("EXPOSE {}\n", ports.join(" ")));
        }
        if !runtime.entrypoint.is_empty() {
            let words: Vec<_> = runtime.entrypoint.iter().map(|word| json_string(word)).collect();
            out.push_str(&format!("ENTRYPOINT [{}]\n", words.join(", ")));
        }
        Ok(without_double_blanks(&out))
    }

    /// Returns a piece's part of a phase, with its variables on top of the first one.
    fn part(&self, piece: &Piece<'_>, phase: &str, context: &Context) -> Result<String, TemplateError> {
        let mut out = String::new();
        if phase == piece.phase_of_variables() && !piece.variables.is_empty() {
            let variables =
                piece.variables.iter().map(|(name, value)| format!("{name}={}", env_value(value)));
            out.push_str(&format!("ENV {}\n", variables.collect::<Vec<_>>().join(" \\\n    ")));
        }
        let path = format!("{phase}.dockerfile");
        if let Some(text) = piece.tree.text(&path)? {
            let place = Place::start_of(piece.tree.shown(&path));
            let part = self.expander.text(&place, text, &with_own(context, &piece.values))?;
            let part = part.trim_matches('\n');
            // A part that ends in a continuation would swallow what follows it.
            if part.ends_with('\\') {
                return Err(TemplateError::Render {
                    file: place.file,
                    line: text.lines().count(),
                    message: "the part ends in the middle of an instruction".to_owned(),
                });
            }
            out.push_str(part);
        }
        Ok(out)
    }

    fn files(&self, pieces: &[Piece<'_>], context: &Context) -> Result<Vec<RenderedFile>, TemplateError> {
        let mut files: BTreeMap<String, (RenderedFile, &str)> = BTreeMap::new();
        for piece in pieces {
            for (path, mut file) in piece.tree.below("files").context_files(piece.name) {
                if piece.templated.contains(&path) {
                    let inner = format!("files/{path}");
                    let text = piece.tree.text(&inner)?.unwrap_or_default();
                    let place = Place::start_of(piece.tree.shown(&inner));
                    file.bytes =
                        self.expander.text(&place, text, &with_own(context, &piece.values))?.into_bytes();
                }
                insert(&mut files, file, piece.owner())?;
            }
        }
        for (kind, certificates) in [("baked", &self.request.baked_cas), ("build", &self.request.build_cas)] {
            for (index, certificate) in certificates.iter().enumerate() {
                let path = certificate_path(kind, index);
                let file = RenderedFile { path, mode: 0o644, bytes: certificate.pem.clone().into_bytes() };
                insert(&mut files, file, "the certificates")?;
            }
        }
        Ok(files.into_values().map(|(file, _)| file).collect())
    }

    fn checks(&self, context: &Context) -> Result<Vec<CheckSpec>, TemplateError> {
        let mut checks = Vec::new();
        for check in &self.merged.checks {
            if let Some(when) = &check.when {
                let values = context.get("params").cloned().unwrap_or_default();
                if !self.expander.condition(&self.merged.place(when), when, &with_own(context, &values))? {
                    continue;
                }
            }
            let optional = |text: Option<&str>| match text {
                Some(text) => self.expand(text, context).map(Some),
                None => Ok(None),
            };
            checks.push(CheckSpec {
                name: check.name.clone(),
                cmd: self.expand(&check.cmd, context)?,
                user: optional(check.user.as_deref())?,
                network: check.network,
                timeout: check.timeout,
                expect: optional(check.expect.as_deref())?,
            });
        }
        Ok(checks)
    }

    fn resources(&self) -> Resources {
        let (declared, default) = (self.merged.resources, Resources::default());
        Resources {
            cpu: declared.cpu.unwrap_or(default.cpu),
            memory: declared.memory.unwrap_or(default.memory),
            disk: declared.disk.unwrap_or(default.disk),
        }
    }

    fn limits(&self) -> Limits {
        let (declared, default) = (self.merged.limits, Limits::default());
        let image = declared.image.unwrap_or(default.image);
        Limits {
            image,
            // Twice the image: what steps write and remove again is about as much as what stays.
            build_write: declared.build_write.unwrap_or(ByteSize(image.bytes().saturating_mul(2))),
            context: declared.context.unwrap_or(default.context),
            timeout: declared.timeout.unwrap_or(default.timeout),
        }
    }
}

fn insert<'a>(
    files: &mut BTreeMap<String, (RenderedFile, &'a str)>,
    file: RenderedFile,
    owner: &'a str,
) -> Result<(), TemplateError> {
    if let Some((_, first)) = files.get(&file.path) {
        let (first, second) = ((*first).to_owned(), owner.to_owned());
        return Err(TemplateError::DuplicateFile { path: file.path, first, second });
    }
    files.insert(file.path.clone(), (file, owner));
    Ok(())
}

fn certificate_path(kind: &str, index: usize) -> String {
    format!("{CA_COMPONENT}/{kind}-{}.crt", index + 1)
}

/// Returns `text` with runs of blank lines made one, and exactly one newline at its end.
fn without_double_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    for line in text.lines() {
        if line.trim().is_empty() {
            blank = true;
            continue;
        }
        if blank && !out.is_empty() {
            out.push('\n');
        }
        blank = false;
        out.push_str(line);
        out.push('\n');
    }
    out
}
