//! Directories of containers as tars, in and out.
//!
//! A path is given to the engine with `/.` behind it: then a symbolic link is followed, a file is refused, and the names in the
//! tar begin with `./` instead of the directory's own name.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;

use super::http::{Answer, Body, Http, HttpError, empty, percent_encoded, query};
use super::{ArchiveBody, EngineError};

/// A directory of a container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory<'a> {
    pub(super) http: &'a Http,
    /// The version of the API, as paths begin with it.
    pub(super) prefix: &'a str,
    pub(super) container: &'a str,
    pub(super) path: &'a str,
}

impl Directory<'_> {
    /// Streams the directory as a tar.
    pub(super) async fn read(&self) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        const ACTION: &str = "read a directory of a container";
        let answer = match self.ask(Method::GET, &[("path", self.itself())], empty()).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.meaning(error, ACTION).await),
        };
        let endpoint = self.http.endpoint().clone();
        let pieces = futures_util::stream::try_unfold(answer, |mut answer| async move {
            Ok::<_, HttpError>(answer.piece().await?.map(|piece| (piece, answer)))
        });
        Ok(pieces.map(move |piece| piece.map_err(|error| error.while_doing(ACTION, &endpoint))).boxed())
    }

    /// Unpacks a tar into the directory.
    pub(super) async fn write(&self, archive: ArchiveBody) -> Result<(), EngineError> {
        const ACTION: &str = "write a directory of a container";
        // Asked first: an engine that refuses while it is still being sent to is not always heard.
        if let Err(error) = self.ask(Method::HEAD, &[("path", self.itself())], empty()).await {
            return Err(self.meaning(error, ACTION).await);
        }
        let body = BodyExt::boxed(StreamBody::new(archive.map_ok(Frame::data)));
        // With `copyUIDGID` everything would be given to the container's user; without it, the numbers in the tar count.
        let query = [("path", self.itself()), ("noOverwriteDirNonDir", "1".to_owned())];
        match self.ask(Method::PUT, &query, body).await {
            // The answer is read to its end: what the engine has done is done then.
            Ok(answer) => match answer.whole().await {
                Ok(_nothing) => Ok(()),
                Err(error) => Err(error.while_doing(ACTION, self.http.endpoint())),
            },
            Err(error) => Err(self.meaning(error, ACTION).await),
        }
    }

    /// The path that stands for the directory itself, whatever leads to it.
    fn itself(&self) -> String {
        format!("{}/.", self.path.trim_end_matches('/'))
    }

    async fn ask(&self, method: Method, pairs: &[(&str, String)], body: Body) -> Result<Answer, HttpError> {
        let container = percent_encoded(self.container.as_bytes());
        let path = format!("{}/containers/{container}/archive?{}", self.prefix, query(pairs));
        let headers = [("Content-Type", "application/x-tar")];
        self.http.send(method, &path, &headers, body).await?.accepted().await
    }

    /// Says what a failure means. A refusal is looked into: the answer to HEAD has no words.
    async fn meaning(&self, error: HttpError, action: &str) -> EngineError {
        let (container, path) = (self.container.to_owned(), self.path.to_owned());
        match &error {
            HttpError::Status { status: 404, .. } if self.has_container().await => {
                EngineError::PathMissing { container, path }
            }
            HttpError::Status { status: 404, .. } => EngineError::ContainerMissing { container },
            HttpError::Status { message, .. } if message.contains("cannot overwrite") => {
                EngineError::InTheWay { container, path, message: message.clone() }
            }
            HttpError::Status { message, .. }
                if message.to_lowercase().contains("no space left on device") =>
            {
                EngineError::DiskFull { step: None, message: message.clone() }
            }
            HttpError::Status { message, .. }
                if message.contains("not a directory")
                    || (message.is_empty() && self.has_something().await) =>
            {
                EngineError::NotADirectory { container, path }
            }
            _ => error.while_doing(action, self.http.endpoint()),
        }
    }

    async fn has_container(&self) -> bool {
        let path = format!("{}/containers/{}/json", self.prefix, percent_encoded(self.container.as_bytes()));
        let answer = async { self.http.send(Method::GET, &path, &[], empty()).await?.accepted().await };
        answer.await.is_ok()
    }

    async fn has_something(&self) -> bool {
        let path = self.path.trim_end_matches('/').to_owned();
        self.ask(Method::HEAD, &[("path", path)], empty()).await.is_ok()
    }
}
