//! Reads and decides: what would be built, under which keys. Changes nothing but for a pull of a missing base.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::checkout::{self, Checkout};
use super::dockerfile::{Inspected, inspect};
use super::{BakeError, BakeSpec, BaseChoice, BuildInputs, PullPolicy, Workbench, check_resources};
use crate::base::{BuildKey, Sha256Digest, SnapshotKey, SnapshotName, now};
use crate::catalog::{BaseRecord, PlaceState, Snapshot, SnapshotRef, State};
use crate::docker::{Context, ContextFile, EngineEvent, ImageInfo};
use crate::template::{CaSet, Limits, RenderRequest, Rendered, Resources, render};

/// Label of an image that says where it came from.
const ORIGIN_LABEL: &str = "kiln.origin";

/// Everything that a bake needs to know before it begins.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) name: SnapshotName,
    pub(super) rendered: Rendered,
    pub(super) inspected: Inspected,
    /// Path of the Dockerfile in the context.
    pub(super) dockerfile_path: String,
    pub(super) context: Context,
    pub(super) context_digest: Sha256Digest,
    pub(super) base: BaseRecord,
    pub(super) build_key: BuildKey,
    pub(super) snapshot_key: SnapshotKey,
    pub(super) resources: Resources,
    pub(super) limits: Limits,
    /// Alive as long as the context may be read.
    pub(super) checkout: Option<Checkout>,
}

/// A base image as the engine has it.
struct FoundBase {
    record: BaseRecord,
    /// What stands for it in the build key.
    identity: String,
    image: Option<ImageInfo>,
    snapshot: Option<Snapshot>,
}

impl Workbench {
    /// Prepares a bake.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the input, before anything is built.
    pub(super) async fn prepare(
        &self,
        spec: &BakeSpec,
        pull_sink: &dyn crate::base::Sink<EngineEvent>,
        cancel: &CancellationToken,
    ) -> Result<Prepared, BakeError> {
        let template = match &spec.file {
            Some(file) => self.library.dockerfile(Path::new(&spec.template), file)?,
            None => self.library.locate(&spec.template)?,
        };
        let snapshot_base = match &spec.base {
            Some(BaseChoice::Snapshot(reference)) => Some(self.snapshot_base(reference).await?),
            Some(BaseChoice::Image(_)) | None => None,
        };
        let mut request = RenderRequest {
            parameters: spec.parameters.clone(),
            base: match (&spec.base, &snapshot_base) {
                (_, Some(found)) => Some(found.record.reference.clone()),
                (Some(BaseChoice::Image(reference)), None) => Some(reference.clone()),
                _ => None,
            },
            base_is_snapshot: snapshot_base.is_some(),
            distro: snapshot_base.as_ref().and_then(|found| found.snapshot.as_ref()?.record.distro.clone()),
            base_env: snapshot_base.as_ref().map(base_env).unwrap_or_default(),
            baked_cas: load_cas(&spec.ca_certs)?,
            build_cas: load_cas(&spec.build_cas)?,
            computed: BTreeMap::new(),
        };
        let checkout = match template.checkout(&request)? {
            Some(wanted) => {
                let token = wanted.secret.as_ref().and_then(|id| spec.secrets.get(id));
                let work = checkout::resolve(&wanted, token);
                Some(tokio::select! {
                    () = cancel.cancelled() => return Err(BakeError::Cancelled { action: "reading the repository".into() }),
                    found = work => found?,
                })
            }
            None => None,
        };
        if let Some(checkout) = &checkout {
            request.computed = checkout.computed().into();
        }
        let rendered = render(&template, &request)?;
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => default_name(&rendered.template)?,
        };
        let (resources, limits) = sized(spec, &rendered)?;
        let inspected = inspect(&rendered.dockerfile, &spec.build_args, spec.target.as_deref())?;
        check_secrets(spec, &rendered, &inspected)?;
        let (context, dockerfile_path) = context(spec, &rendered, checkout.as_ref());
        let (digested, path, most) = (context.clone(), dockerfile_path.clone(), limits.context.0);
        let digest = tokio::task::spawn_blocking(move || digested.digest(&path, most));
        let (bases, context_digest) =
            tokio::join!(self.find_bases(spec, &inspected, snapshot_base, pull_sink, cancel), digest);
        let bases = bases?;
        let context_digest = context_digest
            .map_err(|stopped| BakeError::Internal(format!("digesting the context stopped: {stopped}")))??;
        let base = bases.last().map(|base| base.record.clone()).unwrap_or_else(|| BaseRecord {
            reference: "scratch".into(),
            image: None,
            digest: None,
            origin: "scratch".into(),
            snapshot: None,
        });
        let mut dockerfile = inspected.canonical.clone();
        for base in bases.iter().filter(|base| base.snapshot.is_some()) {
            // The reference of a snapshot's image is new with every bake of it; its key is not.
            dockerfile = dockerfile.replace(&base.record.reference, &base.identity);
        }
        let inputs = BuildInputs {
            version: 1,
            dockerfile,
            context: context_digest,
            bases: bases
                .iter()
                .map(|base| match base.snapshot {
                    Some(_) => (base.identity.clone(), base.identity.clone()),
                    None => (base.record.reference.clone(), base.identity.clone()),
                })
                .collect(),
            // A registry's digest of several platforms is the same on all of them.
            platform: spec.platform.clone().or_else(|| {
                let image = bases.last()?.image.as_ref()?;
                Some(format!("{}/{}", image.os, image.architecture))
            }),
            build_args: spec.build_args.clone(),
            target: spec.target.clone(),
            network: spec.network,
            secret_ids: spec.secrets.keys().cloned().collect(),
        };
        Ok(Prepared {
            name,
            build_key: inputs.build_key(),
            snapshot_key: inputs.snapshot_key(&rendered.runtime, &resources, &limits, &rendered.checks),
            rendered,
            inspected,
            dockerfile_path,
            context,
            context_digest,
            base,
            resources,
            limits,
            checkout,
        })
    }

    /// Finds the snapshot that is to be built on, and its image on this engine.
    async fn snapshot_base(&self, reference: &SnapshotRef) -> Result<FoundBase, BakeError> {
        let snapshot = self.catalog.resolve(reference).await?;
        if !matches!(snapshot.state(), State::Active | State::Unchecked) {
            let reason = format!("{} is {} and cannot be a base", snapshot.reference(), snapshot.state());
            return Err(BakeError::Conflict(reason));
        }
        let tag = self.tag_of(&snapshot.record.name, snapshot.id());
        let Some(image) = self.own_image(&tag).await? else {
            let reason =
                format!("the image of {} is not on this engine; bake it here first", snapshot.reference());
            return Err(BakeError::Conflict(reason));
        };
        let record = BaseRecord {
            reference: tag,
            image: Some(image.id),
            digest: image.repo_digests.first().cloned(),
            origin: "snapshot".into(),
            snapshot: Some(snapshot.id()),
        };
        let identity = format!("snapshot:{}", snapshot.record.build_key);
        Ok(FoundBase { record, identity, image: Some(image), snapshot: Some(snapshot) })
    }

    /// Finds every base image, pulling it where the policy says so. The one of the last stage is the last.
    async fn find_bases(
        &self,
        spec: &BakeSpec,
        inspected: &Inspected,
        mut snapshot_base: Option<FoundBase>,
        sink: &dyn crate::base::Sink<EngineEvent>,
        cancel: &CancellationToken,
    ) -> Result<Vec<FoundBase>, BakeError> {
        let mut found = Vec::new();
        for reference in &inspected.bases {
            match snapshot_base.take() {
                Some(base) if base.record.reference == *reference => found.push(base),
                other => {
                    snapshot_base = other;
                    let work = self.find_base(spec, reference, sink);
                    found.push(tokio::select! {
                        () = cancel.cancelled() => return Err(BakeError::Cancelled { action: "looking for the base".into() }),
                        base = work => base?,
                    });
                }
            }
        }
        Ok(found)
    }

    async fn find_base(
        &self,
        spec: &BakeSpec,
        reference: &str,
        sink: &dyn crate::base::Sink<EngineEvent>,
    ) -> Result<FoundBase, BakeError> {
        let mut image = match spec.pull {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => self.engine.image(reference).await?,
        };
        if image.is_none() && spec.pull != PullPolicy::Never {
            self.engine.pull(reference, spec.platform.as_deref(), sink).await?;
            image = self.engine.image(reference).await?;
        }
        let Some(image) = image else {
            let message = "it is not there, and pulling was not allowed".to_owned();
            return Err(
                crate::docker::EngineError::BaseMissing { reference: reference.to_owned(), message }.into()
            );
        };
        let digest = image.repo_digests.first().cloned();
        let origin = match (image.labels.get(ORIGIN_LABEL), &digest) {
            (Some(origin), _) if origin == "debootstrap" => "local debootstrap",
            (_, Some(_)) => "registry",
            (_, None) => "local",
        };
        let identity = digest
            .as_ref()
            .and_then(|digest| digest.split_once('@'))
            .map_or_else(|| image.id.to_string(), |(_, digest)| digest.to_owned());
        let record = BaseRecord {
            reference: reference.to_owned(),
            image: Some(image.id),
            digest,
            origin: origin.to_owned(),
            snapshot: None,
        };
        Ok(FoundBase { record, identity, image: Some(image), snapshot: None })
    }

    /// Returns the image of `snapshot` on this engine, if it is there, ours, and one that was recorded.
    pub(super) async fn present(&self, snapshot: &Snapshot) -> Result<Option<ImageInfo>, BakeError> {
        let tag = self.tag_of(&snapshot.record.name, snapshot.id());
        let image = self.own_image(&tag).await?;
        Ok(image.filter(|image| {
            snapshot.places.iter().any(|place| place.image == image.id && place.state == PlaceState::Present)
        }))
    }
}

/// Returns the variables of a snapshot's image.
fn base_env(base: &FoundBase) -> BTreeMap<String, String> {
    let lines = base.image.iter().flat_map(|image| &image.env);
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn load_cas(paths: &[PathBuf]) -> Result<Vec<crate::template::CaCertificate>, BakeError> {
    if paths.is_empty() { Ok(Vec::new()) } else { Ok(CaSet::load(paths, now())?) }
}

/// Makes a snapshot name of a template's or folder's name.
fn default_name(template: &str) -> Result<SnapshotName, BakeError> {
    let slug: String = template
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect::<String>()
        .split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    slug.parse().map_err(|_reason| {
        BakeError::Input(format!("`{template}` makes no snapshot name; give one with --name"))
    })
}

/// Applies the user's sizes, holds them to the profile, and the limits to each other.
fn sized(spec: &BakeSpec, rendered: &Rendered) -> Result<(Resources, Limits), BakeError> {
    let sizing = &spec.sizing;
    let resources = Resources {
        cpu: sizing.cpu.unwrap_or(rendered.resources.cpu),
        memory: sizing.memory.unwrap_or(rendered.resources.memory),
        disk: sizing.disk.unwrap_or(rendered.resources.disk),
    };
    let limits = Limits {
        image: sizing.max_image.unwrap_or(rendered.limits.image),
        build_write: sizing.max_build_write.unwrap_or(rendered.limits.build_write),
        context: sizing.max_context.unwrap_or(rendered.limits.context),
        timeout: sizing.timeout.unwrap_or(rendered.limits.timeout),
    };
    if let Some((name, profile)) = &spec.profile {
        check_resources(name, profile, &resources).map_err(BakeError::Resources)?;
    }
    Ok((resources, limits))
}

/// Holds the given secrets to those that the template requires and the Dockerfile reads.
fn check_secrets(spec: &BakeSpec, rendered: &Rendered, inspected: &Inspected) -> Result<(), BakeError> {
    if let Some(missing) =
        rendered.secrets.iter().find(|secret| secret.required && !spec.secrets.contains_key(&secret.id))
    {
        return Err(BakeError::SecretMissing { id: missing.id.clone() });
    }
    for (id, value) in &spec.secrets {
        if value.expose().len() < 8 {
            return Err(BakeError::SecretTooShort { id: id.clone() });
        }
        // A secret that the template declares may stay unread, such as a token for a repository that lies on this host.
        let declared = rendered.secrets.iter().any(|secret| secret.id == *id);
        if !declared && !inspected.secret_ids.contains(id) {
            return Err(BakeError::SecretUnused { id: id.clone() });
        }
    }
    Ok(())
}

/// Puts the context together: rendered files, the repository, and a folder where there is one.
fn context(spec: &BakeSpec, rendered: &Rendered, checkout: Option<&Checkout>) -> (Context, String) {
    let dockerfile_path = dockerfile_path(spec, rendered);
    let mut files: Vec<ContextFile> = rendered
        .files
        .iter()
        .map(|file| ContextFile {
            path: file.path.clone(),
            mode: file.mode,
            bytes: file.bytes.clone().into(),
        })
        .collect();
    files.push(ContextFile {
        path: dockerfile_path.clone(),
        mode: 0o644,
        bytes: rendered.dockerfile.clone().into_bytes().into(),
    });
    let mut context = Context::of_files(files);
    if let Some(root) = spec.context.as_ref().or(rendered.context_root.as_ref()) {
        context = context.over(root.clone());
    }
    if let Some((checkout, repository)) =
        checkout.and_then(|checkout| Some((checkout, checkout.repository.as_ref()?)))
    {
        context = context
            .with_tree(&checkout.prefix, repository.path().to_owned())
            .with_identity(&checkout.prefix, format!("git:{}", checkout.record.commit));
    }
    (context, dockerfile_path)
}

/// Returns the Dockerfile's path in the context: where it lies in the folder, so that its own ignore file applies.
fn dockerfile_path(spec: &BakeSpec, rendered: &Rendered) -> String {
    let root = spec.context.as_ref().or(rendered.context_root.as_ref());
    let inside = spec.file.as_ref().zip(root).and_then(|(file, root)| {
        let file = if file.is_absolute() { file.clone() } else { std::path::absolute(file).ok()? };
        let root = std::path::absolute(root).ok()?;
        Some(file.strip_prefix(root).ok()?.to_str()?.to_owned())
    });
    inside.unwrap_or_else(|| "Dockerfile".to_owned())
}
