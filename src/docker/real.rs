//! A Docker Engine that really is there.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models;
use bollard::query_parameters as parameters;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hyper::Method;
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::archive::Directory;
use super::build::{self, Site};
use super::holdings::{Holdings, Refusal};
use super::http::{Endpoint, Http, HttpError};
use super::{Cause, Engine, EngineError};
use super::{exec, pull, tags, types::*};
use crate::base::{EngineId, ImageId, Sink};

/// 2 min: how long the engine may take to begin an answer.
const ANSWER_WITHIN_SECONDS: u64 = 120;

/// The first engine whose own Dockerfile frontend reads here-documents and `COPY --link`.
const HEREDOC_SINCE: (u32, u32) = (23, 0);

/// The first engine whose own Dockerfile frontend takes secrets as variables, to be safe: 27.0 to 27.3 differ.
const SECRET_ENV_SINCE: (u32, u32) = (27, 4);

/// The first API version whose engine has BuildKit: Docker 18.09.
const BUILDKIT_SINCE: (u32, u32) = (1, 39);

/// Speaks with a Docker Engine over its socket. Cheap to clone.
///
/// Nothing is asked before it is needed: the first call learns which version of the API to speak.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    http: Http,
    link: Arc<OnceCell<Link>>,
    place: Arc<OnceCell<Place>>,
}

/// What the first call has learnt.
#[derive(Debug)]
struct Link {
    docker: Docker,
    version: Version,
    api: (u32, u32),
    prefix: String,
}

/// Where the engine keeps its data.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    local: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(default)]
    version: String,
    api_version: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    arch: String,
}

impl DockerEngine {
    /// Makes an engine of the value of `DOCKER_HOST`; without one, the engine at `unix:///var/run/docker.sock`.
    ///
    /// # Errors
    ///
    /// Fails when the address is of a kind that is not spoken here. Whether an engine answers is learnt by the first call.
    pub fn connect(address: Option<&str>) -> Result<Self, EngineError> {
        let http = Http::new(Endpoint::parse(address)?);
        Ok(Self { http, link: Arc::default(), place: Arc::default() })
    }

    async fn link(&self) -> Result<&Link, EngineError> {
        self.link.get_or_try_init(|| self.negotiate()).await
    }

    async fn negotiate(&self) -> Result<Link, EngineError> {
        const ACTION: &str = "say its version";
        let endpoint = self.http.endpoint();
        let version: Version = self
            .http
            .json(Method::GET, "/version")
            .await
            .map_err(|error| error.while_doing(ACTION, endpoint))?;
        let not_understood = |reason: &str| EngineError::Protocol {
            action: ACTION.to_owned(),
            message: format!("{reason} `{}`", version.api_version.escape_debug()),
        };
        let theirs = pair(&version.api_version).ok_or_else(|| not_understood("API version"))?;
        let newest = bollard::API_DEFAULT_VERSION;
        let ours = (newest.major_version, newest.minor_version);
        let spoken = ours.min((theirs.0 as usize, theirs.1 as usize));
        let spoken_version = bollard::ClientVersion { major_version: spoken.0, minor_version: spoken.1 };
        let docker = match endpoint {
            Endpoint::Unix(path) => {
                Docker::connect_with_unix(&path.to_string_lossy(), ANSWER_WITHIN_SECONDS, &spoken_version)
            }
            Endpoint::Tcp(authority) => Docker::connect_with_http(
                &format!("tcp://{authority}"),
                ANSWER_WITHIN_SECONDS,
                &spoken_version,
            ),
        }
        .map_err(|error| self.meaning(error, ACTION))?;
        let api = pair(&format!("{}.{}", spoken.0, spoken.1)).ok_or_else(|| not_understood("API version"))?;
        Ok(Link { docker, api, prefix: format!("/v{}.{}", spoken.0, spoken.1), version })
    }

    async fn holdings(&self) -> Result<Holdings<'_>, EngineError> {
        let link = self.link().await?;
        Ok(Holdings { http: &self.http, prefix: &link.prefix, api_minor: link.api.1 })
    }

    async fn place(&self) -> Result<&Place, EngineError> {
        self.place
            .get_or_try_init(|| async {
                let link = self.link().await?;
                let info =
                    link.docker.info().await.map_err(|error| self.meaning(error, "describe itself"))?;
                Ok(self.place_in(&info))
            })
            .await
    }

    fn place_in(&self, info: &models::SystemInfo) -> Place {
        let root = PathBuf::from(info.docker_root_dir.clone().unwrap_or_default());
        // A forwarded socket looks local; then the folder is only there if this host has an engine of its own, and the
        // names of the hosts differ.
        let same_host = info.name.as_deref().is_some_and(|name| gethostname::gethostname() == name);
        let local = matches!(self.http.endpoint(), Endpoint::Unix(_))
            && same_host
            && root.is_absolute()
            && root.is_dir();
        Place { root, local }
    }

    /// Says what one of bollard's errors means for whoever wanted `action` done.
    fn meaning(&self, error: Error, action: &str) -> EngineError {
        let endpoint = self.http.endpoint().to_string();
        let action = action.to_owned();
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                EngineError::Refused { action, status: status_code, message }
            }
            Error::DockerStreamError { error } => {
                EngineError::Refused { action, status: 500, message: error }
            }
            Error::SocketNotFoundError(_) => EngineError::Unreachable { endpoint, source: error.into() },
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::StrParseError { .. } => {
                EngineError::Protocol { action, message: error.to_string() }
            }
            error => {
                let source: Cause = Box::new(error);
                match io_kind(source.as_ref()) {
                    Some(io::ErrorKind::PermissionDenied) => EngineError::Permission { endpoint, source },
                    Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                        EngineError::Unreachable { endpoint, source }
                    }
                    Some(_) | None => EngineError::Gone { action, source },
                }
            }
        }
    }
}

/// Returns the kind of the I/O error among the causes of `error`.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            return Some(found.kind());
        }
        next = cause.source();
    }
    None
}

/// Reads the first two numbers of a version.
fn pair(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Returns what an engine's builders can do, as far as its version tells.
fn builders(version: &str, api: (u32, u32), os: &str) -> BuilderFeatures {
    let buildkit = api >= BUILDKIT_SINCE && os != "windows";
    let since = |needed| buildkit && pair(version).is_some_and(|engine| engine >= needed);
    BuilderFeatures {
        buildkit,
        session: buildkit,
        heredoc: since(HEREDOC_SINCE),
        copy_link: since(HEREDOC_SINCE),
        secret_env: since(SECRET_ENV_SINCE),
        run_network: since(HEREDOC_SINCE),
    }
}

/// Makes an image's description of the engine's.
fn image_info(image: models::ImageInspect) -> Result<ImageInfo, EngineError> {
    let config = image.config.unwrap_or_default();
    let id = image.id.unwrap_or_default().parse::<ImageId>().map_err(|error| EngineError::Protocol {
        action: "describe an image".to_owned(),
        message: error.to_string(),
    })?;
    Ok(ImageInfo {
        id,
        // An image without a name has this one on old engines.
        tags: image.repo_tags.unwrap_or_default().into_iter().filter(|tag| tag != "<none>:<none>").collect(),
        repo_digests: image
            .repo_digests
            .unwrap_or_default()
            .into_iter()
            .filter(|digest| digest != "<none>@<none>")
            .collect(),
        size_bytes: unsigned(image.size),
        created: image.created.and_then(|created| created.parse().ok()),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        env: config.env.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        workdir: config.working_dir.unwrap_or_default(),
        architecture: image.architecture.unwrap_or_default(),
        os: image.os.unwrap_or_default(),
        layers: image.root_fs.and_then(|fs| fs.layers).unwrap_or_default(),
    })
}

fn unsigned(number: Option<i64>) -> u64 {
    u64::try_from(number.unwrap_or(0)).unwrap_or(0)
}

fn container_info(container: models::ContainerInspectResponse) -> ContainerInfo {
    let state = container.state.unwrap_or_default();
    let running = state.running.unwrap_or(false);
    // One that was made and never started has an exit code of zero, which means nothing.
    let ended = matches!(
        state.status,
        Some(models::ContainerStateStatusEnum::EXITED | models::ContainerStateStatusEnum::DEAD)
    );
    ContainerInfo {
        id: container.id.unwrap_or_default(),
        name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: container.image.and_then(|image| image.parse().ok()),
        labels: container.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
        running,
        exit_code: state.exit_code.filter(|_| ended),
    }
}

fn label_filter(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

/// Returns `None` for what is not there.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let link = self.link().await?;
        let info = link.docker.info().await.map_err(|error| self.meaning(error, "describe itself"))?;
        let Place { root, local } = self.place_in(&info);
        let id = info.id.unwrap_or_default();
        Ok(EngineInfo {
            id: id.parse::<EngineId>().map_err(|error| EngineError::Protocol {
                action: "describe itself".to_owned(),
                message: error.to_string(),
            })?,
            version: info.server_version.unwrap_or_else(|| link.version.version.clone()),
            api_version: format!("{}.{}", link.api.0, link.api.1),
            architecture: link.version.arch.clone(),
            operating_system: info.operating_system.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            data_root: root,
            local,
            endpoint: self.http.endpoint().to_string(),
            builders: builders(&link.version.version, link.api, &link.version.os),
        })
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        let link = self.link().await?;
        found(link.docker.inspect_image(reference).await)
            .map_err(|error| self.meaning(error, "describe an image"))?
            .map(image_info)
            .transpose()
    }

    async fn images(&self, label: &str) -> Result<Vec<ImageInfo>, EngineError> {
        let link = self.link().await?;
        let options = parameters::ListImagesOptionsBuilder::new().filters(&label_filter(label)).build();
        let listed = link
            .docker
            .list_images(Some(options))
            .await
            .map_err(|error| self.meaning(error, "list images"))?;
        let mut images = Vec::with_capacity(listed.len());
        for summary in listed {
            // One that goes while the list is read is not there.
            images.extend(self.image(&summary.id).await?);
        }
        Ok(images)
    }

    async fn history(&self, reference: &str) -> Result<Vec<HistoryEntry>, EngineError> {
        let link = self.link().await?;
        let newest_first = link
            .docker
            .image_history(reference)
            .await
            .map_err(|error| self.meaning(error, "give an image's history"))?;
        let entries = newest_first.into_iter().rev().map(|entry| HistoryEntry {
            created_by: entry.created_by,
            size_bytes: unsigned(Some(entry.size)),
            created: jiff::Timestamp::from_second(entry.created).ok(),
        });
        Ok(entries.collect())
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<(), EngineError> {
        let link = self.link().await?;
        pull::run(&link.docker, reference, platform, sink)
            .await
            .map_err(|error| pull::meaning(self.meaning(error, "pull an image"), reference))
    }

    async fn tag(&self, image: &ImageId, reference: &str) -> Result<(), EngineError> {
        let link = self.link().await?;
        let (repository, tag) = tags::split(reference);
        let options = parameters::TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        link.docker
            .tag_image(&image.to_string(), Some(options))
            .await
            .map_err(|error| self.meaning(error, "tag an image"))
    }

    async fn untag(&self, reference: &str) -> Result<(), EngineError> {
        let link = self.link().await?;
        let options = parameters::RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
        found(link.docker.remove_image(reference, Some(options), None).await)
            .map(drop)
            .map_err(|error| self.meaning(error, "remove an image"))
    }

    async fn build(
        &self,
        request: &BuildRequest,
        sink: &dyn Sink<EngineEvent>,
        cancel: &CancellationToken,
    ) -> Result<Built, EngineError> {
        let link = self.link().await?;
        let place = self.place().await?;
        let site = Site {
            http: &self.http,
            prefix: &link.prefix,
            api_minor: link.api.1,
            root: &place.root,
            local: place.local,
        };
        Box::pin(build::run(&site, request, sink, cancel)).await
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let link = self.link().await?;
        let options = parameters::CreateContainerOptionsBuilder::new().name(&spec.name).build();
        let made = link
            .docker
            .create_container(Some(options), container_body(spec))
            .await
            .map_err(|error| self.meaning(error, "make a container"))?;
        let started = link
            .docker
            .start_container(&made.id, None::<parameters::StartContainerOptions>)
            .await
            .map_err(|error| self.meaning(error, "start a container"));
        if let Err(error) = started {
            // The reason is why it did not start; that it could not be removed either would hide it.
            self.remove_container(&made.id).await.unwrap_or_default();
            return Err(error);
        }
        Ok(made.id)
    }

    async fn exec(
        &self,
        container: &str,
        spec: &ExecSpec,
        timeout: Duration,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<ExecReport, EngineError> {
        let link = self.link().await?;
        let local = self.place().await?.local;
        let exec = exec::Exec { docker: &link.docker, container, local };
        match exec.run(spec, timeout, sink).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(EngineError::Timeout { action: spec.cmd.join(" "), limit: timeout, step: None }),
            Err(error) => Err(self.meaning(error, "run a command in a container")),
        }
    }

    async fn container_logs(&self, container: &str, tail: usize) -> Result<Vec<String>, EngineError> {
        let link = self.link().await?;
        exec::logs(&link.docker, container, tail)
            .await
            .map_err(|error| self.meaning(error, "give a container's output"))
    }

    async fn container(&self, container: &str) -> Result<Option<ContainerInfo>, EngineError> {
        let link = self.link().await?;
        let inspected =
            link.docker.inspect_container(container, None::<parameters::InspectContainerOptions>).await;
        Ok(found(inspected).map_err(|error| self.meaning(error, "describe a container"))?.map(container_info))
    }

    async fn containers(&self, label: &str) -> Result<Vec<ContainerInfo>, EngineError> {
        let link = self.link().await?;
        let options =
            parameters::ListContainersOptionsBuilder::new().all(true).filters(&label_filter(label)).build();
        let listed = link
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|error| self.meaning(error, "list containers"))?;
        let mut containers = Vec::with_capacity(listed.len());
        for id in listed.into_iter().filter_map(|summary| summary.id) {
            containers.extend(self.container(&id).await?);
        }
        Ok(containers)
    }

    async fn all_containers(&self) -> Result<Vec<ContainerUse>, EngineError> {
        let containers = self.holdings().await?.containers().await;
        containers.map_err(|error| error.while_doing("list containers", self.http.endpoint()))
    }

    async fn container_events(
        &self,
        since: Option<jiff::Timestamp>,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, EngineError>>, EngineError> {
        let refusal =
            Refusal { action: "tell what becomes of containers", endpoint: self.http.endpoint().clone() };
        let events = self.holdings().await?.events(since, refusal.clone()).await;
        events.map_err(|error| refusal.of(error))
    }

    async fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        let usage = self.holdings().await?.disk_usage().await;
        usage.map_err(|error| error.while_doing("say what takes space", self.http.endpoint()))
    }

    async fn disk_space(&self) -> Result<Option<DiskSpace>, EngineError> {
        let place = self.place().await?;
        if !place.local {
            return Ok(None);
        }
        super::disk::space(&place.root).map(Some).map_err(|error| EngineError::Protocol {
            action: "say where its data is".to_owned(),
            message: format!("`{}`: {error}", place.root.display()),
        })
    }

    async fn delete_cache_record(&self, id: &str) -> Result<Option<u64>, EngineError> {
        let deleted = self.holdings().await?.delete_record(id).await;
        deleted.map_err(|error| error.while_doing("delete a record of the build cache", self.http.endpoint()))
    }

    async fn remove_container(&self, container: &str) -> Result<(), EngineError> {
        let link = self.link().await?;
        let options = parameters::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match found(link.docker.remove_container(container, Some(options)).await) {
            // Somebody else is removing it already.
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(error) => Err(self.meaning(error, "remove a container")),
        }
    }

    async fn save(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        const ACTION: &str = "save an image";
        let link = self.link().await?;
        let path = format!("{}/images/{reference}/get", link.prefix);
        let answer =
            async { self.http.send(Method::GET, &path, &[], super::http::empty()).await?.accepted().await };
        let answer = answer.await.map_err(|error| error.while_doing(ACTION, self.http.endpoint()))?;
        let endpoint = self.http.endpoint().clone();
        let pieces = futures_util::stream::try_unfold(answer, |mut answer| async move {
            Ok::<_, HttpError>(answer.piece().await?.map(|piece| (piece, answer)))
        });
        Ok(pieces.map(move |piece| piece.map_err(|error| error.while_doing(ACTION, &endpoint))).boxed())
    }

    async fn read_archive(
        &self,
        container: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        let link = self.link().await?;
        Directory { http: &self.http, prefix: &link.prefix, container, path }.read().await
    }

    async fn write_archive(
        &self,
        container: &str,
        path: &str,
        archive: ArchiveBody,
    ) -> Result<(), EngineError> {
        let link = self.link().await?;
        Directory { http: &self.http, prefix: &link.prefix, container, path }.write(archive).await
    }
}

fn container_body(spec: &ContainerSpec) -> models::ContainerCreateBody {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let host = models::HostConfig {
        binds: Some(spec.binds.iter().map(|(from, to)| format!("{from}:{to}:ro")).collect()),
        network_mode: Some(spec.network.as_str().to_owned()),
        memory: spec.memory_bytes.map(signed),
        nano_cpus: spec.nano_cpus.map(signed),
        pids_limit: spec.pids.map(i64::from),
        ..models::HostConfig::default()
    };
    models::ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.cmd.clone(),
        entrypoint: spec.entrypoint.clone(),
        user: spec.user.clone(),
        env: Some(spec.env.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        host_config: Some(host),
        ..models::ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_follow_the_version() {
        let old = builders("20.10.24+dfsg1", (1, 41), "linux");
        assert!(old.buildkit && old.session && !old.heredoc && !old.secret_env);
        let new = builders("28.2.2", (1, 50), "linux");
        assert!(new.heredoc && new.copy_link && new.secret_env && new.run_network);
        assert!(!builders("27.1.0", (1, 46), "linux").secret_env);
        assert_eq!(builders("18.03.1-ce", (1, 37), "linux"), BuilderFeatures::default());
    }

    #[tokio::test]
    async fn no_engine_and_no_permission_are_told_apart() {
        use crate::base::{Classify as _, ErrorKind};
        let home = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", home.path().join("none.sock").display());
        let error = DockerEngine::connect(Some(&address)).unwrap().info().await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let denied = HttpError::Connect(io::ErrorKind::PermissionDenied.into());
        let error = denied.while_doing("x", &Endpoint::Unix("/x".into()));
        assert!(matches!(error, EngineError::Permission { .. }), "{error:?}");
    }
}
