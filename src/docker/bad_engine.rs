//! Engines that misbehave: a socket that answers as told and then hangs up. Tests only.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::conformance::request;
use super::*;
use crate::base::{Classify as _, Discard, ErrorKind, Monotonic};

/// A socket whose answer to `/build` is `told`, piece by piece; then the connection is cut, or held open.
struct BadEngine {
    engine: DockerEngine,
    _home: tempfile::TempDir,
    _server: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Cut,
    Hold,
}

fn bad_engine(told: &'static [&'static str], then: Then) -> BadEngine {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_closed) => return,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let (status, body) = if head.contains("/version") {
                    ("200 OK", r#"{"Version":"20.10.24","ApiVersion":"1.41","Os":"linux","Arch":"amd64"}"#)
                } else if head.contains("/info") {
                    ("200 OK", r#"{"ID":"X","DockerRootDir":"/nonexistent","Name":"elsewhere"}"#)
                } else if head.contains("/_ping") {
                    ("200 OK", "OK")
                } else if head.contains("/system/df") {
                    ("200 OK", "{}")
                } else if !head.contains("/build?") {
                    ("404 Not Found", r#"{"message":"no such image"}"#)
                } else {
                    let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    socket.write_all(start.as_bytes()).await.unwrap();
                    for piece in told {
                        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
                        socket.write_all(chunk.as_bytes()).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    if then == Then::Hold {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                    }
                    return;
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                // The client may have left by now.
                socket.write_all(answer.as_bytes()).await.unwrap_or_default();
            });
        }
    });
    let address = format!("unix://{}", path.display());
    BadEngine {
        engine: DockerEngine::connect(Some(&address)).unwrap(),
        _home: home,
        _server: AbortOnDropHandle::new(server),
    }
}

async fn outcome(told: &'static [&'static str], then: Then) -> EngineError {
    let bad = bad_engine(told, then);
    let mut request = request(Builder::Classic, "RUN true\n");
    request.limits.timeout = Duration::from_millis(700);
    bad.engine.build(&request, &Discard, &CancellationToken::new()).await.unwrap_err()
}

const STEP: &str = "{\"stream\":\"Step 1/1 : RUN make\"}\r\n";
const RUNNING: &str = "{\"stream\":\" ---> Running in 0123456789ab\\n\"}\r\n";

#[tokio::test]
async fn an_engine_that_goes_away_is_told_as_that() {
    for told in [&[][..], &[STEP, RUNNING][..], &[STEP, "{\"stream\":\"half a li"][..]] {
        let error = outcome(told, Then::Cut).await;
        assert!(matches!(error, EngineError::Gone { .. }), "{told:?}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn an_engine_that_falls_silent_runs_into_the_timeout() {
    let error = outcome(&[STEP, RUNNING], Then::Hold).await;
    let EngineError::Timeout { step: Some((1, name)), .. } = &error else { panic!("{error:?}") };
    assert_eq!(name, "RUN make");
}

#[tokio::test]
async fn what_is_not_json_is_a_protocol_error() {
    let error = outcome(&["<html>\n"], Then::Hold).await;
    assert!(matches!(error, EngineError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn lines_are_read_whatever_the_pieces() {
    let told = Mutex::new(Vec::new());
    let sink = |event: EngineEvent| {
        if let EngineEvent::Log { line, .. } = event {
            told.lock().unwrap().push(line);
        }
    };
    let bad = bad_engine(
        &[
            STEP,
            RUNNING,
            "{\"stream\":\"on",
            "e\\ntwo\\n\"}\n{\"stream\":\"three",
            "\\n\"}\r\n",
            "{\"errorDetail\":{\"code\":9,\"message\":\"returned a non-zero code: 9\"},\"error\":\"x\"}",
        ],
        Then::Cut,
    );
    let request = request(Builder::Classic, "RUN true\n");
    let error = bad.engine.build(&request, &sink, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(*told.lock().unwrap(), ["one", "two", "three"]);
    // The connection was cut after the reason had come whole; the reason is what counts, or that the engine went away.
    assert!(
        matches!(error, EngineError::Step { exit_code: Some(9), .. } | EngineError::Gone { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn cancelling_does_not_wait_for_a_silent_engine() {
    let bad = bad_engine(&[STEP, RUNNING], Then::Hold);
    let cancel = CancellationToken::new();
    let request = request(Builder::Classic, "RUN true\n");
    let (began, stop) = (Monotonic::start(), cancel.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
    });
    let error = bad.engine.build(&request, &Discard, &cancel).await.unwrap_err();
    assert!(matches!(error, EngineError::Cancelled { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(1));
}
