//! What works here, and what to do about the rest. Looks and changes nothing, but for a probe object in the store.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::open::{self, engine, store_url};
use crate::base::config::{Config, Environment};
use crate::base::{ByteSize, Classify, Liveness, SnapshotId, chain, fs, now};
use crate::catalog::Catalog;
use crate::docker::{Engine, EngineInfo};
use crate::objects::{Key, ObjectStore, StoreUrl};
use crate::template::CaSet;

/// The base of the shipped templates.
const BASE_IMAGE: &str = "debian:bookworm-slim";

/// The label that a base made on this host carries.
const ORIGIN_LABEL: &str = "kiln.origin";

/// Where Debian and Ubuntu keep certificates that somebody installed on this host.
const HOST_CAS: &str = "/usr/local/share/ca-certificates";

/// 2 GiB: less than any shipped template writes while it is built.
const TOO_LITTLE_BYTES: u64 = 2 * ByteSize::GIB;

/// 10 GiB: the largest shipped template, its layers and its build cache together.
const SCARCE_BYTES: u64 = 10 * ByteSize::GIB;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// `kiln.toml`.
    Configuration,
    /// The Docker Engine.
    Engine,
    /// What its builders can do.
    Builder,
    /// Its storage driver.
    Storage,
    /// What is free on its disk.
    FreeSpace,
    /// The base of the shipped templates.
    BaseImage,
    /// The store.
    Store,
    /// Certificates that somebody installed on this host.
    Certificates,
    /// Bakes whose process has died.
    Orphans,
}

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It works, and something should be known.
    Warn,
    /// Something that baking needs does not work.
    Fail,
}

/// What was found of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: Subject,
    /// How it looks.
    pub verdict: Verdict,
    /// What was seen.
    pub message: String,
    /// What to do, where there is something to do.
    pub advice: Option<String>,
}

/// What works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// What was found, in the order of looking.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// Returns whether all that baking needs works.
    #[must_use]
    pub fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Fail)
    }
}

impl Finding {
    fn ok(subject: Subject, message: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Ok, message: message.into(), advice: None }
    }

    fn warn(subject: Subject, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warn, message: message.into(), advice: Some(advice.into()) }
    }

    fn fail(subject: Subject, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fail, message: message.into(), advice: Some(advice.into()) }
    }

    fn of_error(subject: Subject, error: &dyn Classify, advice: &str) -> Self {
        Self::fail(subject, whole(error), error.hint().unwrap_or_else(|| advice.to_owned()))
    }
}

/// Returns the message of an error and of its causes in one line.
fn whole(error: &dyn Classify) -> String {
    let mut messages = vec![error.to_string()];
    messages.extend(chain(error));
    messages.join(": ")
}

/// Looks at the configuration, the engine, the store and this host. What cannot be seen is a finding and hides no other.
pub async fn examine(environment: &Environment, store: Option<&str>) -> DoctorReport {
    let mut findings = Vec::new();
    let config = match Config::load(environment) {
        Ok(config) => config,
        Err(error) => {
            findings.push(Finding::of_error(Subject::Configuration, &error, "correct the file"));
            Config::default()
        }
    };
    examine_engine(environment, &config, &mut findings).await;
    match store_url(environment, &config, store) {
        Ok(url) => examine_store(&url, &mut findings).await,
        Err(error) => findings.push(Finding::of_error(Subject::Store, &error, "give another --store")),
    }
    findings.push(certificates(Path::new(HOST_CAS), &config));
    DoctorReport { findings }
}

async fn examine_engine(environment: &Environment, config: &Config, findings: &mut Vec<Finding>) {
    let engine = match engine(environment) {
        Ok(engine) => engine,
        Err(error) => {
            findings.push(Finding::of_error(Subject::Engine, &error, "correct DOCKER_HOST"));
            return;
        }
    };
    match engine.info().await {
        Ok(info) => {
            findings.push(Finding::ok(
                Subject::Engine,
                format!(
                    "Docker {}, API {}, {}, at {}",
                    info.version, info.api_version, info.architecture, info.endpoint
                ),
            ));
            findings.extend([builder(&info), storage(&info), free_space(&info, config)]);
            findings.push(base_image(engine.as_ref()).await);
        }
        Err(error) => {
            findings.push(Finding::of_error(Subject::Engine, &error, "look at the engine's own log"));
        }
    }
}

fn builder(info: &EngineInfo) -> Finding {
    let features = &info.builders;
    if !features.buildkit {
        return Finding::warn(
            Subject::Builder,
            "the classic builder only",
            "templates that take build secrets (`repo` with a token) need an engine with BuildKit",
        );
    }
    let words: Vec<&str> = [
        (features.session, "secrets"),
        (features.heredoc, "heredoc"),
        (features.copy_link, "COPY --link"),
        (features.secret_env, "secrets as variables"),
        (features.run_network, "RUN --network"),
    ]
    .into_iter()
    .filter_map(|(there, word)| there.then_some(word))
    .collect();
    let what = if words.is_empty() { "no further features".to_owned() } else { words.join(", ") };
    Finding::ok(Subject::Builder, format!("BuildKit ({what})"))
}

fn storage(info: &EngineInfo) -> Finding {
    let message = format!("{} in {}", info.storage_driver, info.data_root.display());
    match info.storage_driver.as_str() {
        "vfs" => Finding::warn(
            Subject::Storage,
            message,
            "vfs copies every layer whole, which is slow and takes much space; overlay2 needs an engine on ext4 or xfs",
        ),
        _ => Finding::ok(Subject::Storage, message),
    }
}

fn free_space(info: &EngineInfo, config: &Config) -> Finding {
    if !info.local {
        return Finding::warn(
            Subject::FreeSpace,
            "cannot be seen: the engine is on another host",
            "the limits `build_write` and `min_free` cannot be held there while a build runs",
        );
    }
    match fs::free_space(&info.data_root) {
        Ok(bytes) => free_space_of(bytes, config.build.min_free.map_or(TOO_LITTLE_BYTES, ByteSize::bytes)),
        Err(error) => Finding::warn(
            Subject::FreeSpace,
            format!("cannot be seen on {}: {error}", info.data_root.display()),
            "run as a user who may read the engine's folder",
        ),
    }
}

fn free_space_of(bytes: u64, floor: u64) -> Finding {
    let message = format!("{} free", ByteSize(bytes));
    let advice = "free space on the engine's disk: `docker builder prune`, `docker image prune`";
    if bytes < floor {
        Finding::fail(
            Subject::FreeSpace,
            format!("{message}, under the floor of {}", ByteSize(floor)),
            advice,
        )
    } else if bytes < SCARCE_BYTES {
        Finding::warn(Subject::FreeSpace, message, advice)
    } else {
        Finding::ok(Subject::FreeSpace, message)
    }
}

async fn base_image(engine: &dyn Engine) -> Finding {
    match engine.image(BASE_IMAGE).await {
        Ok(Some(image)) => {
            let origin = match image.labels.get(ORIGIN_LABEL) {
                Some(label) if label.contains("debootstrap") => "local debootstrap",
                Some(label) => label,
                None if image.repo_digests.is_empty() => "local",
                None => "registry",
            };
            Finding::ok(
                Subject::BaseImage,
                format!("{BASE_IMAGE}, {} ({origin})", ByteSize(image.size_bytes)),
            )
        }
        Ok(None) => Finding::warn(
            Subject::BaseImage,
            format!("{BASE_IMAGE} is not on this engine"),
            format!(
                "the first bake pulls it; where no registry can be reached, `scripts/base-image {BASE_IMAGE}` makes it"
            ),
        ),
        Err(error) => Finding::of_error(Subject::BaseImage, &error, "look at the engine's own log"),
    }
}

async fn examine_store(url: &StoreUrl, findings: &mut Vec<Finding>) {
    let advice = "choose a store this user may write with --store or KILN_STORE";
    let (objects, format) = match Box::pin(open::store(url)).await {
        Ok(opened) => opened,
        Err(error) => {
            findings.push(Finding::of_error(Subject::Store, &error, advice));
            return;
        }
    };
    findings.push(match probe(&*objects).await {
        Ok(()) => Finding::ok(
            Subject::Store,
            format!("{url}, id {}, version {}, writable", format.id, format.version),
        ),
        Err(error) => Finding::of_error(Subject::Store, error.as_ref(), advice),
    });
    findings.push(orphans(&Catalog::new(objects)).await);
}

/// Writes an object and deletes it again.
async fn probe(objects: &dyn ObjectStore) -> Result<(), Box<dyn Classify>> {
    let key = Key::new(format!("probe/{}", SnapshotId::generate())).map_err(boxed)?;
    objects.put(&key, "probe".into()).await.map_err(boxed)?;
    objects.delete(&[key]).await.map_err(boxed)
}

fn boxed<E: Classify>(error: E) -> Box<dyn Classify> {
    Box::new(error)
}

async fn orphans(catalog: &Catalog) -> Finding {
    let snapshots = match catalog.list().await {
        Ok(snapshots) => snapshots,
        Err(error) => {
            return Finding::of_error(
                Subject::Orphans,
                &error,
                "the store is damaged: keep a copy of it before anything else",
            );
        }
    };
    let in_work: Vec<_> = snapshots.iter().filter(|snapshot| snapshot.state().in_work()).collect();
    let dead = in_work
        .iter()
        .filter(|snapshot| snapshot.record.owner.liveness().is_ok_and(|liveness| liveness == Liveness::Dead))
        .count();
    match (in_work.len(), dead) {
        (0, _) => Finding::ok(Subject::Orphans, "no bake is under way"),
        (all, 0) => Finding::ok(
            Subject::Orphans,
            format!("{all} bakes under way, none of a dead process of this host"),
        ),
        (_, dead) => Finding::warn(
            Subject::Orphans,
            format!("{dead} bakes of processes that have died"),
            "the next `kiln build` records them as failed and cleans up",
        ),
    }
}

fn certificates(folder: &Path, config: &Config) -> Finding {
    let subject = Subject::Certificates;
    let files = match certificate_files(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Finding::warn(
                subject,
                format!("cannot read {}: {error}", folder.display()),
                "run as a user who may read it",
            );
        }
    };
    if files.is_empty() {
        return Finding::ok(subject, format!("none installed in {}", folder.display()));
    }
    let mut usable = 0;
    let mut refused = Vec::new();
    for file in &files {
        match CaSet::load(std::slice::from_ref(file), now()) {
            Ok(found) => usable += found.len(),
            Err(error) => refused.push(whole(&error)),
        }
    }
    let message = format!("{usable} usable in {}", folder.display());
    if !refused.is_empty() {
        return Finding::warn(
            subject,
            format!("{message}; refused: {}", refused.join("; ")),
            "remove or renew them; a bake that is given the folder is refused too",
        );
    }
    if config.build.build_ca.is_empty() && config.build.ca_cert.is_empty() {
        return Finding::warn(
            subject,
            message,
            format!("where a proxy intercepts TLS, bake with `--build-ca {}`", folder.display()),
        );
    }
    Finding::ok(subject, message)
}

fn certificate_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt" || extension == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_held_to_the_floor() {
        for (bytes, verdict) in [
            (ByteSize::GIB, Verdict::Fail),
            (5 * ByteSize::GIB, Verdict::Warn),
            (50 * ByteSize::GIB, Verdict::Ok),
        ] {
            assert_eq!(free_space_of(bytes, TOO_LITTLE_BYTES).verdict, verdict, "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_missing_engine_fails_and_hides_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment::of([
            ("HOME", home.path().to_str().unwrap()),
            ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
        ]);
        let report = examine(&environment, None).await;
        assert!(!report.works());
        let verdict_of =
            |subject| report.findings.iter().find(|finding| finding.subject == subject).unwrap().verdict;
        assert_eq!(verdict_of(Subject::Engine), Verdict::Fail);
        assert_eq!(verdict_of(Subject::Store), Verdict::Ok);
        assert_eq!(verdict_of(Subject::Orphans), Verdict::Ok);
        let store = home.path().join(".local/share/kiln/store");
        assert_eq!(std::fs::read_dir(store.join("probe")).map_or(0, Iterator::count), 0);
    }

    #[test]
    fn a_folder_without_certificates_is_fine_and_a_refused_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default();
        assert_eq!(certificates(&folder.path().join("missing"), &config).verdict, Verdict::Ok);
        fs::write_durably(&folder.path().join("wrong.crt"), b"no certificate", fs::Existing::Keep).unwrap();
        let finding = certificates(folder.path(), &config);
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.message.contains("wrong.crt"), "{finding:?}");
    }
}
