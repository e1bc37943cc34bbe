//! A build from its request to its image: upload, stream, limits, cleanup.
//!
//! The commit point is the engine's: the image is there, with its tags, when the stream says so. Whatever stops a build before
//! closes the stream, which stops the engine's work; then the build waits until its steps are gone and deletes what only it
//! could have used. Intermediate images of a failed classic build are that builder's cache and stay.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::Method;
use tokio_util::sync::CancellationToken;

use super::buildkit::Buildkit;
use super::classic::Classic;
use super::disk::{At, Look, Watch};
use super::failure::Failure;
use super::http::{Answer, Http, HttpError, empty, query};
use super::leftovers::{self, Own};
use super::logs::Redactor;
use super::session::Session;
use super::steps::Steps;
use super::tags::Tags;
use super::upload::Upload;
use super::{BuildRequest, Builder, Built, ContextSent, EngineError, EngineEvent};
use crate::base::{ImageId, Sink};

/// 100 ms: how often to glance at which steps run.
const GLANCE_EVERY: Duration = Duration::from_millis(100);

/// One glance in five is a look at the disk: every 500 ms.
const GLANCES_PER_LOOK: u8 = 5;

/// 2 s: how long a stopped build may hold its records before they are left to the engine's own collection.
const RECORDS_WITHIN: Duration = Duration::from_secs(2);

/// What errors say was being done.
const ACTION: &str = "building";

/// An engine, as a build sees it.
#[derive(Debug)]
pub(super) struct Site<'a> {
    /// Speaks with it.
    pub(super) http: &'a Http,
    /// `/v` and the version of the API.
    pub(super) prefix: &'a str,
    /// Minor number of that version.
    pub(super) api_minor: u32,
    /// Its data folder.
    pub(super) root: &'a std::path::Path,
    /// Whether that is on this host.
    pub(super) local: bool,
}

/// Why a build was stopped from here.
#[derive(Debug)]
enum Stop {
    Cancelled,
    Timeout,
    TooMuchWritten(u64),
    TooLittleFree(u64),
}

/// How the stream ended.
#[derive(Debug)]
enum End {
    Told,
    Broken(HttpError),
    Garbled(EngineError),
    Stopped(Stop),
}

/// What reads the stream.
#[derive(Debug)]
enum Reader {
    Buildkit(Buildkit),
    Classic(Classic),
}

impl Reader {
    fn line(&mut self, text: &[u8], steps: &mut Steps<'_>) -> Result<(), EngineError> {
        match self {
            Self::Buildkit(reader) => reader.line(text, steps),
            Self::Classic(reader) => reader.line(text, steps),
        }
    }

    fn outcome(self, steps: &mut Steps<'_>) -> Option<Result<ImageId, Failure>> {
        match self {
            Self::Buildkit(reader) => reader.outcome(steps),
            Self::Classic(reader) => reader.outcome(steps),
        }
    }

    fn at(&self, steps: &Steps<'_>) -> At {
        let running = steps.running_names();
        match self {
            Self::Buildkit(_) => At { running, ..At::default() },
            Self::Classic(reader) => {
                At { running, container: reader.container().map(str::to_owned), made: reader.made().to_vec() }
            }
        }
    }
}

/// The stream, from the moment the request leaves. Dropping it stops the engine's work.
enum Wire {
    Sending(BoxFuture<'static, Result<Answer, HttpError>>),
    Reading(Box<Answer>),
}

impl Wire {
    /// Returns the next line. Nothing is lost when the returned future is dropped.
    async fn line(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            match self {
                Self::Sending(answer) => *self = Self::Reading(Box::new(answer.await?)),
                Self::Reading(answer) => return answer.line().await,
            }
        }
    }
}

/// Looks at the disk again and again, with rests between.
enum Eye {
    /// Until the next glance, of which so many are left before the next look.
    Resting(Box<Watch>, Pin<Box<tokio::time::Sleep>>, u8),
    Looking(BoxFuture<'static, (Watch, Look)>),
    Closed,
}

impl Eye {
    fn resting(watch: Box<Watch>, glances: u8) -> Self {
        Self::Resting(watch, Box::pin(tokio::time::sleep(GLANCE_EVERY)), glances)
    }

    /// Returns what the next look sees. Nothing is lost when the returned future is dropped.
    async fn look(&mut self, at: impl Fn() -> At) -> Look {
        loop {
            match self {
                Self::Resting(_, rest, _) => rest.as_mut().await,
                Self::Looking(look) => {
                    let (watch, seen) = look.await;
                    *self = Self::resting(Box::new(watch), GLANCES_PER_LOOK);
                    return seen;
                }
                Self::Closed => return std::future::pending().await,
            }
            *self = match std::mem::replace(self, Self::Closed) {
                Self::Resting(mut watch, _, glances @ 2..) => {
                    watch.glance(&at());
                    Self::resting(watch, glances - 1)
                }
                Self::Resting(watch, _, 0..=1) => Self::Looking(watch.look(at()).boxed()),
                other @ (Self::Looking(_) | Self::Closed) => other,
            };
        }
    }

    /// Ends the looking; a look that has begun is finished.
    async fn close(self) -> Option<Watch> {
        match self {
            Self::Resting(watch, ..) => Some(*watch),
            Self::Looking(look) => Some(look.await.0),
            Self::Closed => None,
        }
    }
}

/// Builds an image.
pub(super) async fn run(
    site: &Site<'_>,
    request: &BuildRequest,
    sink: &dyn Sink<EngineEvent>,
    cancel: &CancellationToken,
) -> Result<Built, EngineError> {
    if request.builder == Builder::Classic && !request.secrets.is_empty() {
        let reason = "the classic builder takes no secrets; BuildKit does".to_owned();
        return Err(EngineError::Unsupported { reason });
    }
    if cancel.is_cancelled() {
        return Err(EngineError::Cancelled { action: ACTION.to_owned() });
    }
    let steps = Steps::new(sink, Redactor::of(request.secrets.values()));
    let watch = Watch::start(
        site.http.clone(),
        site.prefix.to_owned(),
        site.root.to_owned(),
        site.local,
        request.builder,
    );
    if let Some(reason) = watch.degraded() {
        steps.warn("watchdog_degraded", reason);
    }
    let reader = match request.builder {
        Builder::Buildkit => Reader::Buildkit(Buildkit::default()),
        Builder::Classic => Reader::Classic(Classic::default()),
    };
    Run { site, request, steps, reader }.run(watch, cancel).await
}

/// A build that runs.
struct Run<'a> {
    site: &'a Site<'a>,
    request: &'a BuildRequest,
    steps: Steps<'a>,
    reader: Reader,
}

impl Run<'_> {
    async fn run(mut self, watch: Watch, cancel: &CancellationToken) -> Result<Built, EngineError> {
        // The first look comes before anything is sent, so that a build that has no room never begins.
        let (watch, seen) = watch.look(At::default()).await;
        if let Some(stop) = self.over(seen, 0) {
            return Err(self.why(stop, &watch).await);
        }
        let (tags, since) = tokio::try_join!(
            Tags::look(self.site.http, self.site.prefix, &self.request.tags),
            engine_time(self.site.http)
        )
        .map_err(|error| self.unanswered(error))?;

        let (end, watch, context) = self.stream(watch, cancel).await?;
        let (outcome, watch) = self.settle(end, watch).await;
        self.steps.stop();

        if watch.foreign() {
            self.steps.warn(
                "foreign_build",
                "another build ran on this engine at the same time; what it wrote is not counted where it can be told apart",
            );
        }
        // What is wrong with the context is the reason of whatever the engine says about it.
        let outcome = match (outcome, &context) {
            (Err(_), Err(EngineError::ContextTooLarge { .. } | EngineError::Context { .. })) => Err(None),
            (outcome, _) => outcome.map_err(Some),
        };
        if outcome.is_err() {
            tags.put_back(self.site.http, self.site.prefix, &self.steps).await;
        }
        if !matches!(outcome, Err(Some(EngineError::Gone { .. } | EngineError::Unreachable { .. }))) {
            self.delete_leftovers(since, context.as_ref().ok()).await;
        }
        match (outcome, context) {
            (Ok(image), context) => {
                Ok(Built { image, context: context.unwrap_or_default(), steps: self.steps.reports() })
            }
            (Err(Some(error)), _) | (Err(None), Err(error)) => Err(error),
            (Err(None), Ok(_)) => Err(EngineError::Cancelled { action: ACTION.to_owned() }),
        }
    }

    /// Sends the context and follows the stream to its end, or to the point where it has to be stopped.
    async fn stream(
        &mut self,
        watch: Watch,
        cancel: &CancellationToken,
    ) -> Result<(End, Watch, Result<ContextSent, EngineError>), EngineError> {
        let session = match self.request.builder {
            Builder::Buildkit if self.request.mounts_secrets || !self.request.secrets.is_empty() => {
                let secrets = self.request.secrets.clone();
                let session = Session::open(self.site.http, self.site.prefix, secrets).await;
                Some(session.map_err(|error| self.unanswered(error))?)
            }
            Builder::Buildkit | Builder::Classic => None,
        };
        let path = format!("{}/build?{}", self.site.prefix, parameters(self.request, session.as_ref())?);
        let (mut upload, body) = Upload::start(self.request);
        let http = self.site.http.clone();
        let mut wire = Wire::Sending(Box::pin(async move {
            let headers = [("Content-Type", "application/x-tar")];
            http.send(Method::POST, &path, &headers, body).await?.accepted().await
        }));
        let mut eye = Eye::resting(Box::new(watch), GLANCES_PER_LOOK);
        let end = self.follow(&mut wire, &mut upload, &mut eye, cancel).await;
        drop(wire);
        drop(session);
        self.tell_progress(&mut upload);
        let context = upload.finish().await;
        let Some(watch) = eye.close().await else {
            return Err(EngineError::Protocol {
                action: ACTION.to_owned(),
                message: "the disk's watch was lost".to_owned(),
            });
        };
        Ok((end, watch, context))
    }

    async fn follow(
        &mut self,
        wire: &mut Wire,
        upload: &mut Upload,
        eye: &mut Eye,
        cancel: &CancellationToken,
    ) -> End {
        let timeout = tokio::time::sleep(self.request.limits.timeout);
        tokio::pin!(timeout);
        loop {
            let (reader, steps) = (&self.reader, &self.steps);
            tokio::select! {
                // What stops a build comes before what it says: a stream that never rests must not outrun its limits.
                biased;
                () = cancel.cancelled() => return End::Stopped(Stop::Cancelled),
                () = &mut timeout => return End::Stopped(Stop::Timeout),
                seen = eye.look(|| reader.at(steps)) => {
                    self.steps.emit(EngineEvent::Disk {
                        written_bytes: seen.written_bytes,
                        free_bytes: seen.free_bytes,
                    });
                    let sent = upload.progress.borrow().0.bytes;
                    if let Some(stop) = self.over(seen, sent) {
                        return End::Stopped(stop);
                    }
                }
                Ok(()) = upload.progress.changed() => self.tell_progress(upload),
                line = wire.line() => match line {
                    Ok(None) => return End::Told,
                    Ok(Some(line)) if line.trim_ascii().is_empty() => {}
                    Ok(Some(line)) => {
                        if let Err(error) = self.reader.line(&line, &mut self.steps) {
                            return End::Garbled(error);
                        }
                    }
                    Err(error) => return End::Broken(error),
                },
            }
        }
    }

    /// Says how the stream's end is to be understood. Waits until the engine has stopped working for a stopped build.
    async fn settle(&mut self, end: End, mut watch: Watch) -> (Result<ImageId, EngineError>, Watch) {
        let at = self.reader.at(&self.steps);
        let outcome = match end {
            End::Told => {
                let reader = std::mem::replace(&mut self.reader, Reader::Buildkit(Buildkit::default()));
                match reader.outcome(&mut self.steps) {
                    Some(outcome) => outcome.map_err(|failure| self.meaning(failure, &mut watch)),
                    None => Err(EngineError::Gone {
                        action: ACTION.to_owned(),
                        source: "the stream ended before the build did".into(),
                    }),
                }
            }
            End::Broken(HttpError::Status { status, message }) => {
                let failure = Failure { status: Some(status), message, ..Failure::default() };
                Err(self.meaning(failure, &mut watch))
            }
            End::Broken(error) => Err(match self.unanswered(error) {
                // An engine that cannot store the context resets the connection.
                EngineError::Gone { source, .. } if watch.was_full() == Some(true) => {
                    EngineError::DiskFull { step: self.steps.running(), message: source.to_string() }
                }
                error => error,
            }),
            End::Garbled(error) => {
                watch.wait_until_gone(&at).await;
                Err(error)
            }
            End::Stopped(stop) => {
                let error = self.why(stop, &watch).await;
                if !watch.wait_until_gone(&at).await {
                    self.steps.warn("step_remains", "the engine still runs a step of the stopped build");
                }
                Err(error)
            }
        };
        (outcome, watch)
    }

    fn meaning(&self, mut failure: Failure, watch: &mut Watch) -> EngineError {
        failure.message = self.steps.redactor().text(&failure.message);
        failure.disk_full = watch.was_full();
        failure.meaning()
    }

    fn unanswered(&self, error: HttpError) -> EngineError {
        error.while_doing(ACTION, self.site.http.endpoint())
    }

    /// Says whether a look saw a limit exceeded.
    fn over(&self, seen: Look, sent_bytes: u64) -> Option<Stop> {
        let limits = &self.request.limits;
        // Where only the free space is seen, it has also gone down by the context: packed and unpacked.
        let written = match seen.attributed {
            true => seen.written_bytes,
            false => seen.written_bytes.map(|bytes| bytes.saturating_sub(sent_bytes.saturating_mul(2))),
        };
        match (seen.free_bytes, written) {
            (Some(free), _) if free < limits.min_free_bytes => Some(Stop::TooLittleFree(free)),
            (_, Some(written)) if written > limits.write_bytes => Some(Stop::TooMuchWritten(written)),
            (Some(_) | None, Some(_) | None) => None,
        }
    }

    /// Says why the build was stopped, as an error.
    async fn why(&self, stop: Stop, watch: &Watch) -> EngineError {
        let limits = &self.request.limits;
        let step = self.steps.running();
        match stop {
            Stop::Cancelled => EngineError::Cancelled { action: ACTION.to_owned() },
            Stop::Timeout => EngineError::Timeout { action: ACTION.to_owned(), limit: limits.timeout, step },
            Stop::TooMuchWritten(written_bytes) => {
                let heaviest = watch.heaviest().await;
                let (step, name) = step.or_else(|| self.steps.last()).unwrap_or_default();
                let limit_bytes = limits.write_bytes;
                EngineError::BuildWrite { step, name, written_bytes, limit_bytes, heaviest }
            }
            Stop::TooLittleFree(free_bytes) => EngineError::FreeSpace {
                path: watch.root().to_owned(),
                free_bytes,
                floor_bytes: limits.min_free_bytes,
                step,
            },
        }
    }

    fn tell_progress(&self, upload: &mut Upload) {
        if !upload.progress.has_changed().unwrap_or(true) && !upload.untold {
            return;
        }
        let (sent, done) = *upload.progress.borrow_and_update();
        if upload.untold {
            upload.untold = !done;
            self.steps.emit(EngineEvent::Context { bytes: sent.bytes, entries: sent.entries, done });
        }
    }

    /// Deletes the context's records; that they stay is no reason to call the build failed.
    async fn delete_leftovers(&self, since: jiff::Timestamp, sent: Option<&ContextSent>) {
        match self.request.builder {
            Builder::Classic => {}
            Builder::Buildkit => {
                let own = Own { since, tar_bytes: sent.map(|sent| sent.bytes) };
                let deleted = leftovers::delete(
                    self.site.http,
                    self.site.prefix,
                    self.site.api_minor,
                    own,
                    RECORDS_WITHIN,
                );
                if let Err(error) = deleted.await {
                    let message = format!("the context stays in the engine's build cache: {error}");
                    self.steps.warn("context_kept", &message);
                }
            }
        }
    }
}

/// Returns the engine's time, in whole seconds.
async fn engine_time(http: &Http) -> Result<jiff::Timestamp, HttpError> {
    let answer = http.send(Method::GET, "/_ping", &[], empty()).await?.accepted().await?;
    let date = answer.header("Date").unwrap_or_default();
    match jiff::fmt::rfc2822::parse(date) {
        Ok(time) => Ok(time.timestamp()),
        Err(error) => Err(HttpError::Answer(format!("date `{}`: {error}", date.escape_debug()))),
    }
}

/// Writes the parameters of `/build`.
fn parameters(request: &BuildRequest, session: Option<&Session>) -> Result<String, EngineError> {
    let json = |map| serde_json::to_string(map).map_err(super::wire::not_understood);
    let version = match request.builder {
        Builder::Buildkit => "2",
        Builder::Classic => "1",
    };
    let mut pairs = vec![
        ("version", version.to_owned()),
        ("dockerfile", request.dockerfile.clone()),
        ("labels", json(&request.labels)?),
        ("buildargs", json(&request.build_args)?),
        ("networkmode", request.network.as_str().to_owned()),
        ("rm", "1".to_owned()),
        ("forcerm", "1".to_owned()),
    ];
    pairs.extend(request.tags.iter().map(|tag| ("t", tag.clone())));
    pairs.extend(request.target.iter().map(|target| ("target", target.clone())));
    pairs.extend(request.platform.iter().map(|platform| ("platform", platform.clone())));
    pairs.extend(request.no_cache.then(|| ("nocache", "1".to_owned())));
    pairs.extend(session.map(|session| ("session", session.id().to_owned())));
    Ok(query(&pairs))
}
