//! Commands in running containers, and what containers print.
//!
//! A command that runs into its timeout is killed where the engine is on this host and this user may do it; elsewhere it goes
//! with its container, which the caller removes.

use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;

use super::logs::{Lines, Redactor};
use super::{EngineEvent, ExecReport, ExecSpec, OutputStream};
use crate::base::Sink;

/// 1 MiB: most bytes of each stream that a report keeps.
const KEPT_BYTES: usize = 1 << 20;

/// 10 ms: how often to ask for the exit code of a command whose output has ended.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A container in which commands can be run.
pub(super) struct Exec<'a> {
    pub(super) docker: &'a Docker,
    pub(super) container: &'a str,
    /// Whether its processes are on this host.
    pub(super) local: bool,
}

impl Exec<'_> {
    /// Runs a command; `None` when it took longer than `timeout`.
    pub(super) async fn run(
        &self,
        spec: &ExecSpec,
        timeout: Duration,
        sink: &dyn Sink<EngineEvent>,
    ) -> Result<Option<ExecReport>, Error> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(spec.cmd.clone()),
            user: spec.user.clone(),
            working_dir: spec.workdir.clone(),
            env: Some(spec.env.clone()),
            ..CreateExecOptions::default()
        };
        let id = self.docker.create_exec(self.container, options).await?.id;
        match tokio::time::timeout(timeout, self.follow(&id, sink)).await {
            Ok(report) => report.map(Some),
            Err(_elapsed) => {
                self.kill(&id).await?;
                Ok(None)
            }
        }
    }

    async fn follow(&self, id: &str, sink: &dyn Sink<EngineEvent>) -> Result<ExecReport, Error> {
        let mut stdout = Output::new(OutputStream::Stdout);
        let mut stderr = Output::new(OutputStream::Stderr);
        let options = StartExecOptions::default();
        if let StartExecResults::Attached { mut output, input: _input } =
            self.docker.start_exec(id, Some(options)).await?
        {
            while let Some(piece) = output.next().await {
                match piece? {
                    LogOutput::StdErr { message } => stderr.take(&message, sink),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => {
                        stdout.take(&message, sink)
                    }
                    LogOutput::StdIn { .. } => {}
                }
            }
        }
        stdout.finish(sink);
        stderr.finish(sink);
        loop {
            let state = self.docker.inspect_exec(id).await?;
            // The output ends a moment before the engine knows how the command did.
            if let (Some(false), Some(exit_code)) = (state.running, state.exit_code) {
                return Ok(ExecReport { exit_code, stdout: stdout.text(), stderr: stderr.text() });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Kills a command by its process id on this host, if it is surely this container's.
    async fn kill(&self, id: &str) -> Result<(), Error> {
        let state = self.docker.inspect_exec(id).await?;
        let (Some(true), Some(pid)) = (state.running, state.pid) else { return Ok(()) };
        if !self.local {
            return Ok(());
        }
        let container = state.container_id.unwrap_or_default();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if container.len() == 64 && groups.contains(&container) {
            for process in with_descendants(pid) {
                // It may have ended by itself, or belong to root; then it goes with its container.
                rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// Returns a process of this host and all that came of it, ancestors first.
fn with_descendants(pid: i64) -> Vec<rustix::process::Pid> {
    let parents: Vec<(i64, i64)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in brackets may hold anything; after it come the state and the parent.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let (mut found, mut next) = (vec![pid], 0);
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(pid, above)| *above == parent && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        next += 1;
    }
    found.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}

/// One stream of a command.
struct Output {
    stream: OutputStream,
    lines: Lines,
    kept: Vec<u8>,
}

impl Output {
    fn new(stream: OutputStream) -> Self {
        Self { stream, lines: Lines::default(), kept: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8], sink: &dyn Sink<EngineEvent>) {
        let room = KEPT_BYTES.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        let stream = self.stream;
        self.lines.push(bytes, &Redactor::default(), |line| {
            sink.emit(EngineEvent::Log { step: 0, stream, line });
        });
    }

    fn finish(&mut self, sink: &dyn Sink<EngineEvent>) {
        let stream = self.stream;
        self.lines.finish(&Redactor::default(), |line| sink.emit(EngineEvent::Log { step: 0, stream, line }));
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// Returns the last `tail` lines that a container has printed.
pub(super) async fn logs(docker: &Docker, container: &str, tail: usize) -> Result<Vec<String>, Error> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&tail.to_string()).build();
    let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
    let (mut lines, nothing) = (Vec::new(), Redactor::default());
    let mut pieces = docker.logs(container, Some(options));
    while let Some(piece) = pieces.next().await {
        match piece? {
            LogOutput::StdErr { message } => stderr.push(&message, &nothing, |line| lines.push(line)),
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                stdout.push(&message, &nothing, |line| lines.push(line));
            }
            LogOutput::StdIn { .. } => {}
        }
    }
    stdout.finish(&nothing, |line| lines.push(line));
    stderr.finish(&nothing, |line| lines.push(line));
    Ok(lines)
}
