//! One HTTP/1.1 request on the engine's socket, upgrades included.
//!
//! Each request has a connection of its own, and dropping the answer closes it: that is how the engine learns that nobody
//! wants the work any more.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::EngineError;

/// The engine's plain TCP port, where an address names none.
const PLAIN_PORT: u16 = 2375;

/// Largest answer that is read whole: `/system/df` of an engine with 100,000 cache records has some 40 MB.
const LONGEST_ANSWER: usize = 256 << 20;

/// A request's body.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// Host and port, without encryption.
    Tcp(String),
}

impl Endpoint {
    /// Reads an address as `DOCKER_HOST` has it; without one, the engine's usual socket.
    pub(super) fn parse(address: Option<&str>) -> Result<Self, EngineError> {
        let Some(address) = address else {
            return Ok(Self::Unix(PathBuf::from("/var/run/docker.sock")));
        };
        let refused = |reason: &str| EngineError::Address {
            endpoint: address.escape_debug().to_string(),
            reason: reason.to_owned(),
        };
        match address.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(("unix", _)) => {
                Err(refused("the path of a socket is absolute, as in unix:///var/run/docker.sock"))
            }
            Some(("tcp", rest)) => {
                let authority = rest.trim_end_matches('/');
                if authority.is_empty() || authority.contains(['/', '@', ' ', '?', '#']) {
                    return Err(refused("expected tcp://HOST:PORT"));
                }
                // The colons of a bare IPv6 address are no port; such an address stands in brackets.
                let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
                    port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
                });
                Ok(Self::Tcp(if has_port {
                    authority.to_owned()
                } else {
                    format!("{authority}:{PLAIN_PORT}")
                }))
            }
            Some(("ssh", _)) => Err(refused(
                "ssh is not spoken here; forward the socket (`ssh -L /tmp/docker.sock:/var/run/docker.sock HOST`) and use unix:///tmp/docker.sock",
            )),
            Some(("https", _)) => {
                Err(refused("TLS is not spoken here; forward the socket over ssh and use unix://PATH"))
            }
            Some(_) | None => Err(refused("only unix://PATH and tcp://HOST:PORT are possible")),
        }
    }

    async fn connect(&self) -> io::Result<Pin<Box<dyn Socket>>> {
        Ok(match self {
            Self::Unix(path) => Box::pin(UnixStream::connect(path).await?),
            Self::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
        })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

/// A connection of either kind.
trait Socket: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Socket for S {}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// Nobody listens, or not to this user.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection broke, or the request's body did.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The request cannot be written.
    #[error("the request is not valid")]
    Request(#[from] hyper::http::Error),
    /// The engine refused.
    #[error("status {status}: {message}")]
    Status {
        /// The status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("{0}")]
    Answer(String),
}

impl HttpError {
    /// Says what it means for whoever wanted `action` done at `endpoint`.
    pub(super) fn while_doing(self, action: &str, endpoint: &Endpoint) -> EngineError {
        let action = action.to_owned();
        match self {
            Self::Connect(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                EngineError::Permission { endpoint: endpoint.to_string(), source: source.into() }
            }
            Self::Connect(source) => {
                EngineError::Unreachable { endpoint: endpoint.to_string(), source: source.into() }
            }
            Self::Broken(source) => EngineError::Gone { action, source: source.into() },
            Self::Request(source) => EngineError::Protocol { action, message: source.to_string() },
            Self::Status { status, message } => EngineError::Refused { action, status, message },
            Self::Answer(message) => EngineError::Protocol { action, message },
        }
    }
}

/// Speaks HTTP with one engine.
#[derive(Debug, Clone)]
pub(super) struct Http {
    endpoint: Endpoint,
}

impl Http {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Answer, HttpError> {
        let socket = self.endpoint.connect().await.map_err(HttpError::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(HttpError::Broken)?;
        // How the connection ends is seen by whoever reads the answer.
        let connection =
            AbortOnDropHandle::new(tokio::spawn(async move { connection.with_upgrades().await.is_ok() }));
        let mut request = Request::builder().method(method).uri(path).header("Host", "docker");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(body)?).await.map_err(HttpError::Broken)?;
        Ok(Answer { response, connection, buffer: BytesMut::new() })
    }

    /// Asks for a JSON document.
    pub(super) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, HttpError> {
        let text = self.send(method, path, &[], empty()).await?.accepted().await?.whole().await?;
        serde_json::from_slice(&text).map_err(|error| HttpError::Answer(error.to_string()))
    }

    /// Turns a connection over to another protocol.
    pub(super) async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
        headers: &[(&str, &str)],
    ) -> Result<(hyper::upgrade::Upgraded, AbortOnDropHandle<bool>), HttpError> {
        let mut all = vec![("Connection", "Upgrade"), ("Upgrade", protocol)];
        all.extend_from_slice(headers);
        let answer = self.send(Method::POST, path, &all, empty()).await?;
        if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.response.status();
            return Err(match answer.accepted().await {
                Err(error) => error,
                Ok(_) => {
                    HttpError::Answer(format!("status {status} where a change of protocol was asked for"))
                }
            });
        }
        let upgraded = hyper::upgrade::on(answer.response).await.map_err(HttpError::Broken)?;
        Ok((upgraded, answer.connection))
    }
}

/// An answer whose body is still to be read. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Answer {
    response: hyper::Response<Incoming>,
    connection: AbortOnDropHandle<bool>,
    buffer: BytesMut,
}

impl Answer {
    /// Returns the value of a header, where it is there and text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the answer when the engine did what was asked, and its words otherwise.
    pub(super) async fn accepted(self) -> Result<Self, HttpError> {
        let status = self.response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self);
        }
        let text = self.whole().await?;
        Err(HttpError::Status { status: status.as_u16(), message: words(&text) })
    }

    /// Reads the whole body.
    pub(super) async fn whole(mut self) -> Result<Bytes, HttpError> {
        while self.read().await? {
            if self.buffer.len() > LONGEST_ANSWER {
                return Err(HttpError::Answer(format!("longer than {LONGEST_ANSWER} bytes")));
            }
        }
        Ok(self.buffer.freeze())
    }

    /// Reads the next line, without its break. Nothing is lost when the returned future is dropped.
    pub(super) async fn line(&mut self) -> Result<Option<Bytes>, HttpError> {
        let mut searched = 0;
        loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', fresh) {
                let mut line = self.buffer.split_to(searched + found + 1);
                line.truncate(line.len() - 1);
                return Ok(Some(line.freeze()));
            }
            searched = self.buffer.len();
            if !self.read().await? {
                let rest = self.buffer.split().freeze();
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }

    /// Reads the next piece of the body, as it comes.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, HttpError> {
        while self.buffer.is_empty() {
            if !self.read().await? {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.split().freeze()))
    }

    /// Reads some bytes more; false at the end.
    async fn read(&mut self) -> Result<bool, HttpError> {
        match self.response.frame().await {
            None => Ok(false),
            Some(Err(error)) => Err(HttpError::Broken(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
                Ok(true)
            }
        }
    }
}

/// Returns the engine's words out of the body of a refusal.
pub(super) fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_not_json) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

/// Returns a body of no bytes.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Writes a query: `name=value` pairs, percent-encoded.
pub(super) fn query(pairs: &[(&str, String)]) -> String {
    let encoded: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value.as_bytes()))).collect();
    encoded.join("&")
}

/// Encodes all but the unreserved characters of RFC 3986.
pub(super) fn percent_encoded(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(text, "%{byte:02X}").unwrap_or_default();
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_way_out() {
        assert_eq!(Endpoint::parse(None).unwrap().to_string(), "unix:///var/run/docker.sock");
        for (address, endpoint) in [
            ("unix:///run/d.sock", "unix:///run/d.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://build-host", "tcp://build-host:2375"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:99/", "tcp://[::1]:99"),
        ] {
            assert_eq!(Endpoint::parse(Some(address)).unwrap().to_string(), endpoint);
        }
        for (address, way_out) in [
            ("ssh://host", "ssh -L"),
            ("https://host:2376", "over ssh"),
            ("npipe:////./pipe/docker", "only unix://"),
            ("unix://relative", "absolute"),
            ("tcp://", "HOST:PORT"),
            ("tcp://user@host:1", "HOST:PORT"),
            ("/var/run/docker.sock", "only unix://"),
        ] {
            let error = Endpoint::parse(Some(address)).unwrap_err();
            assert!(error.to_string().contains(way_out), "{error}");
        }
    }

    #[test]
    fn queries_are_percent_encoded() {
        assert_eq!(query(&[("t", "a/b:1".into()), ("x", "é&=".into())]), "t=a%2Fb%3A1&x=%C3%A9%26%3D");
    }

    #[test]
    fn words_are_taken_out_of_json_and_kept_otherwise() {
        assert_eq!(words(br#"{"message":"no such image"}"#), "no such image");
        assert_eq!(words(b"page not found\n"), "page not found");
    }
}
