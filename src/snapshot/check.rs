//! Boots a sandbox as providers boot it, then runs the template's checks.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{BakeError, CheckState, StageEvent};
use crate::base::{Monotonic, Sink, SnapshotId, StoreId};
use crate::catalog::CheckRecord;
use crate::docker::{ContainerSpec, Engine, EngineError, EngineEvent, ExecReport, ExecSpec, NetworkMode};
use crate::template::{CheckSpec, ReadySpec, Resources, Runtime};

/// Label of the containers that checks run in, with the snapshot's id.
pub(super) const CHECK_LABEL: &str = "kiln.check";

/// Most processes of a check's sandbox: what a browser and a database need, with room.
const MOST_PROCESSES: u32 = 4096;

/// How long a sandbox without a ready command must stay up.
const STAY_UP: Duration = Duration::from_secs(1);

/// How many lines of output an error carries.
const TAIL: usize = 40;

/// What the checks of an image need to know.
#[derive(Debug)]
pub(super) struct CheckJob<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) store: StoreId,
    pub(super) id: SnapshotId,
    pub(super) image: &'a str,
    /// Whether the image brings an entrypoint or a command of its own.
    pub(super) boots_itself: bool,
    pub(super) runtime: &'a Runtime,
    pub(super) resources: &'a Resources,
    pub(super) checks: &'a [CheckSpec],
}

impl CheckJob<'_> {
    /// Runs all checks; one that fails does not hide the rest. Containers are removed however this ends.
    ///
    /// # Errors
    ///
    /// [`BakeError::Boot`] when the sandbox does not come up, [`BakeError::Checks`] when a check failed.
    pub(super) async fn run(
        &self,
        sink: &(dyn Sink<StageEvent> + '_),
        cancel: &CancellationToken,
    ) -> Result<Vec<CheckRecord>, BakeError> {
        let mut records = Vec::new();
        let mut tail = Vec::new();
        // Checks without the network first; then, in a sandbox of their own, those that ask for it.
        for network in [NetworkMode::None, NetworkMode::Default] {
            let wanted = network == NetworkMode::Default;
            let checks: Vec<&CheckSpec> =
                self.checks.iter().filter(|check| check.network == wanted).collect();
            if checks.is_empty() && wanted {
                continue;
            }
            let container = self.boot(network).await?;
            let outcome = tokio::select! {
                () = cancel.cancelled() => Err(BakeError::Cancelled { action: "checking the image".into() }),
                outcome = self.check_all(&container, &checks, sink) => outcome,
            };
            self.engine.remove_container(&container).await?;
            let (part, lines) = outcome?;
            records.extend(part);
            tail.extend(lines);
        }
        if records.iter().all(|check| check.passed) {
            Ok(records)
        } else {
            Err(BakeError::Checks { checks: records, tail })
        }
    }

    /// Starts a sandbox: the image's entrypoint without arguments, as Daytona does, or `sleep infinity` where it has none.
    async fn boot(&self, network: NetworkMode) -> Result<String, BakeError> {
        let spec = ContainerSpec {
            image: self.image.to_owned(),
            name: format!("kiln-check-{}-{}", self.id, network.as_str()),
            entrypoint: (!self.boots_itself).then(|| vec!["sleep".to_owned()]),
            cmd: (!self.boots_itself).then(|| vec!["infinity".to_owned()]),
            labels: BTreeMap::from([
                (CHECK_LABEL.to_owned(), self.id.to_string()),
                ("kiln.store".to_owned(), self.store.to_string()),
            ]),
            network,
            memory_bytes: Some(self.resources.memory.0),
            nano_cpus: Some(u64::from(self.resources.cpu) * 1_000_000_000),
            pids: Some(MOST_PROCESSES),
            ..ContainerSpec::default()
        };
        self.engine.remove_container(&spec.name).await?;
        match self.engine.start(&spec).await {
            Ok(container) => Ok(container),
            Err(EngineError::Refused { status: 400, message, .. }) if message.contains("CPUs") => {
                // A host with fewer CPUs than the sandbox is meant to have can still check the image.
                self.engine.remove_container(&spec.name).await?;
                Ok(self.engine.start(&ContainerSpec { nano_cpus: None, ..spec }).await?)
            }
            Err(error) => {
                self.engine.remove_container(&spec.name).await?;
                let reason = super::error::one_line(&error);
                Err(BakeError::Boot { reason, tail: Vec::new() })
            }
        }
    }

    async fn check_all(
        &self,
        container: &str,
        checks: &[&CheckSpec],
        sink: &(dyn Sink<StageEvent> + '_),
    ) -> Result<(Vec<CheckRecord>, Vec<String>), BakeError> {
        self.wait_until_ready(container, sink).await?;
        let (mut records, mut tail) = (Vec::new(), Vec::new());
        for check in checks {
            sink.emit(StageEvent::Check {
                name: check.name.clone(),
                state: CheckState::Running,
                ms: None,
                reason: None,
            });
            let started = Monotonic::start();
            let (reason, lines) = self.check(container, check, sink).await?;
            let ms = started.elapsed_ms();
            let state = if reason.is_none() { CheckState::Passed } else { CheckState::Failed };
            sink.emit(StageEvent::Check {
                name: check.name.clone(),
                state,
                ms: Some(ms),
                reason: reason.clone(),
            });
            if reason.is_some() {
                tail.extend(lines.into_iter().map(|line| format!("{}: {line}", check.name)));
            }
            records.push(CheckRecord { name: check.name.clone(), passed: reason.is_none(), ms, reason });
        }
        Ok((records, tail))
    }

    /// Runs one check; returns why it failed, if it did, and what it wrote last.
    async fn check(
        &self,
        container: &str,
        check: &CheckSpec,
        sink: &(dyn Sink<StageEvent> + '_),
    ) -> Result<(Option<String>, Vec<String>), BakeError> {
        let user =
            check.user.clone().or_else(|| Some(self.runtime.user.clone()).filter(|user| !user.is_empty()));
        match self.exec(container, &check.name, &check.cmd, user, check.timeout.0, sink).await {
            Ok(report) => {
                let reason = if report.exit_code != 0 {
                    Some(format!("exit code {}", report.exit_code))
                } else {
                    let missing =
                        check.expect.as_ref().filter(|expected| !report.stdout.contains(expected.as_str()));
                    missing.map(|expected| format!("its output has no `{expected}`"))
                };
                Ok((reason, last_lines(&report)))
            }
            Err(EngineError::Timeout { limit, .. }) => {
                Ok((Some(format!("no end after {}", humantime::format_duration(limit))), Vec::new()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the start command is done and the ready command succeeds.
    async fn wait_until_ready(
        &self,
        container: &str,
        sink: &(dyn Sink<StageEvent> + '_),
    ) -> Result<(), BakeError> {
        if let Some(start) = &self.runtime.start {
            let limit = self.runtime.ready.as_ref().map_or(Duration::from_secs(60), |ready| ready.timeout.0);
            match self.exec(container, "boot", start, None, limit, sink).await {
                Ok(report) if report.exit_code == 0 => {}
                Ok(report) => {
                    let reason =
                        format!("the start command `{start}` ended with exit code {}", report.exit_code);
                    return Err(BakeError::Boot { reason, tail: last_lines(&report) });
                }
                Err(error) => return Err(self.exec_error(container, &error).await),
            }
        }
        match &self.runtime.ready {
            Some(ready) => self.poll_ready(container, ready, sink).await,
            None => {
                tokio::time::sleep(STAY_UP).await;
                self.must_run(container).await
            }
        }
    }

    async fn poll_ready(
        &self,
        container: &str,
        ready: &ReadySpec,
        sink: &(dyn Sink<StageEvent> + '_),
    ) -> Result<(), BakeError> {
        let started = Monotonic::start();
        loop {
            self.must_run(container).await?;
            let left = ready.timeout.0.saturating_sub(started.elapsed());
            let answer =
                self.exec(container, "boot", &ready.cmd, None, left.max(Duration::from_secs(1)), sink).await;
            match answer {
                Ok(report) if report.exit_code == 0 => return Ok(()),
                Ok(_) | Err(EngineError::Timeout { .. }) => {}
                Err(error) => return Err(self.exec_error(container, &error).await),
            }
            if started.elapsed() >= ready.timeout.0 {
                let reason = format!("`{}` did not succeed within {}", ready.cmd, ready.timeout);
                return Err(self.boot_error(container, reason).await);
            }
            tokio::time::sleep(ready.interval.0).await;
        }
    }

    async fn must_run(&self, container: &str) -> Result<(), BakeError> {
        match self.engine.container(container).await? {
            Some(info) if info.running => Ok(()),
            Some(info) => {
                let code = info.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                Err(self.boot_error(container, format!("it ended{code}")).await)
            }
            None => Err(BakeError::Boot { reason: "its container is gone".into(), tail: Vec::new() }),
        }
    }

    /// A command cannot run in a sandbox that has ended meanwhile; then that is what there is to say.
    async fn exec_error(&self, container: &str, error: &EngineError) -> BakeError {
        match self.must_run(container).await {
            Ok(()) => self.boot_error(container, super::error::one_line(error)).await,
            Err(ended) => ended,
        }
    }

    async fn boot_error(&self, container: &str, reason: String) -> BakeError {
        let tail = self.engine.container_logs(container, TAIL).await.unwrap_or_default();
        BakeError::Boot { reason, tail }
    }

    async fn exec(
        &self,
        container: &str,
        name: &str,
        command: &str,
        user: Option<String>,
        timeout: Duration,
        sink: &(dyn Sink<StageEvent> + '_),
    ) -> Result<ExecReport, EngineError> {
        let spec = ExecSpec {
            cmd: ["sh", "-c", command].map(str::to_owned).to_vec(),
            user,
            workdir: None,
            env: Vec::new(),
        };
        let lines = |event: EngineEvent| {
            if let EngineEvent::Log { line, .. } = event {
                sink.emit(StageEvent::CheckOutput { check: name.to_owned(), line });
            }
        };
        self.engine.exec(container, &spec, timeout, &lines).await
    }
}

fn last_lines(report: &ExecReport) -> Vec<String> {
    let lines: Vec<&str> = report.stdout.lines().chain(report.stderr.lines()).collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| (*line).to_owned()).collect()
}
