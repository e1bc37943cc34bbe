//! The store against servers: a real one, and ones that fail.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::config::Credentials;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::store::is_private;
use super::*;
use crate::base::{Classify as _, ErrorKind, Monotonic, chain};
use crate::objects::{Key, ObjectStore, ObjectsError, Prefix, S3Url, ServerProblem};

const KEY_ID: &str = "AKIA0123456789ABCDEF";
const SECRET: &str = "secret0123456789secret";

/// What a bad server does with a request.
enum Reply {
    /// A status, headers and a body.
    Answer(u16, &'static str, String),
    /// A success without a body that says of what length an object is.
    Length(u64),
    /// The head of a longer answer and this much of it, then the end of the connection.
    Cut(&'static str),
    /// The end of the connection.
    Nothing,
    /// The connection stays, and nothing comes.
    Silence,
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Reply::Answer(status, "content-type: application/xml\r\n", body)
}

fn fine(body: &str) -> Reply {
    Reply::Answer(200, "etag: \"e\"\r\n", body.to_owned())
}

/// A server on the loopback that answers each request as it is told to.
struct BadServer {
    url: S3Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl BadServer {
    /// Starts one; `answer` gets the number of the request, from 0, and its first line.
    async fn start(answer: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                tokio::spawn(async move {
                    // The client goes away when it likes.
                    drop(serve(connection, &*answer, &seen).await);
                });
            }
        });
        let url = format!("s3://bucket/p?endpoint=http://127.0.0.1:{port}&region=r").parse().unwrap();
        Self { url, requests }
    }

    async fn store(&self) -> S3Store {
        S3Store::connect_with(&self.url, options()).await.unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn options() -> S3Options {
    S3Options {
        credentials: Some(Credentials::new(KEY_ID, SECRET, None, None, "test")),
        patience: S3Patience {
            attempts: 3,
            first_pause: Duration::from_millis(20),
            connect: Duration::from_secs(1),
            answer: Duration::from_secs(1),
            slowest_upload: 8 << 20,
        },
    }
}

async fn serve(
    mut connection: TcpStream,
    answer: &(dyn Fn(usize, &str) -> Reply + Send + Sync),
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(line.clone());
            seen.len() - 1
        };
        match answer(number, &line) {
            Reply::Answer(status, headers, body) => {
                let length = body.len();
                let text =
                    format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {length}\r\n\r\n{body}");
                connection.write_all(text.as_bytes()).await?;
            }
            Reply::Length(length) => {
                let text = format!("HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: {length}\r\n\r\n");
                connection.write_all(text.as_bytes()).await?;
            }
            Reply::Cut(part) => {
                let text = format!("HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 1000\r\n\r\n{part}");
                connection.write_all(text.as_bytes()).await?;
                return Ok(());
            }
            Reply::Nothing => return Ok(()),
            Reply::Silence => std::future::pending().await,
        }
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Asserts what is wrong, and that nothing secret is said about it.
fn assert_problem(error: &ObjectsError, problem: ServerProblem, kind: ErrorKind) {
    let said = format!("{error} {:?} {error:?}", chain(error));
    assert_eq!((error.problem(), error.kind()), (Some(problem), kind), "{said}");
    assert!(!said.contains(SECRET) && !said.contains(KEY_ID), "{said}");
    assert!(error.to_string().contains("s3://bucket/p?endpoint=http://127.0.0.1:"), "{said}");
    assert!(error.hint().is_some());
}

#[test]
fn only_a_protected_connection_does_without_hashes_of_parts() {
    for (endpoint, expected) in [
        ("https://store.example.org", true),
        ("http://127.0.0.1:3900", true),
        ("http://[::1]:3900", true),
        ("http://store.example.org", false),
        ("http://10.0.0.1:9000", false),
        ("http://localhost:9000", false),
    ] {
        let url: S3Url = format!("s3://bucket/p?endpoint={endpoint}&region=r").parse().unwrap();
        assert_eq!(is_private(&url), expected, "{endpoint}");
    }
    assert!(!is_private(&"s3://bucket/p?region=r".parse().unwrap()));
}

#[tokio::test]
async fn throttling_and_failures_are_waited_out() {
    let server = BadServer::start(|n, _| match n {
        0 => error(503, "SlowDown", "Please reduce your request rate."),
        1 => error(500, "InternalError", "Try again."),
        _ => fine(""),
    })
    .await;
    server.store().await.put(&key("a"), "x".into()).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn throttling_without_end_is_told_from_failing_without_end() {
    for (code, problem) in
        [("SlowDown", ServerProblem::Throttled), ("ServiceUnavailable", ServerProblem::Failed)]
    {
        let server = BadServer::start(move |_, _| error(503, code, "No.")).await;
        let error = server.store().await.put(&key("a"), "x".into()).await.unwrap_err();
        assert_problem(&error, problem, ErrorKind::Unavailable);
        assert_eq!(server.requests().len(), 3, "{code}");
    }
}

#[tokio::test]
async fn refusals_are_not_repeated_and_say_what_to_do() {
    for (status, code, message, problem, kind) in [
        (403, "AccessDenied", "Access Denied.", ServerProblem::Denied, ErrorKind::Invalid),
        (
            403,
            "InvalidAccessKeyId",
            "No AKIA0123456789ABCDEF here.",
            ServerProblem::Credentials,
            ErrorKind::Invalid,
        ),
        (
            403,
            "AccessDenied",
            "Forbidden: No such key: AKIA0123456789ABCDEF",
            ServerProblem::Credentials,
            ErrorKind::Invalid,
        ),
        (403, "SignatureDoesNotMatch", "Look.", ServerProblem::Credentials, ErrorKind::Invalid),
        (404, "NoSuchBucket", "No bucket.", ServerProblem::NoBucket, ErrorKind::NotFound),
        (400, "AuthorizationHeaderMalformed", "Region.", ServerProblem::Refused, ErrorKind::Invalid),
        (301, "PermanentRedirect", "Elsewhere.", ServerProblem::Refused, ErrorKind::Invalid),
    ] {
        let server = BadServer::start(move |_, _| error(status, code, message)).await;
        let store = server.store().await;
        for failed in [
            store.get(&key("a")).await.map(|_| ()),
            store.put(&key("a"), "x".into()).await,
            store.list(&Prefix::default()).await.map(|_| ()),
            store.delete(&[key("a")]).await,
            store.delete(&[key("a"), key("b")]).await,
        ] {
            assert_problem(&failed.unwrap_err(), problem, kind);
        }
        assert_eq!(server.requests().len(), 5, "{code}");
    }
}

#[tokio::test]
async fn only_the_servers_own_word_makes_an_object_absent() {
    let server = BadServer::start(|_, _| error(404, "NoSuchKey", "No key.")).await;
    assert_eq!(server.store().await.get(&key("a")).await.unwrap(), None);
    let page = "<html>Not here</html>";
    let server = BadServer::start(|_, _| Reply::Answer(404, "", page.to_owned())).await;
    let error = server.store().await.get(&key("a")).await.unwrap_err();
    assert_problem(&error, ServerProblem::Refused, ErrorKind::Invalid);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    let server = BadServer::start(|n, _| match n {
        0 => Reply::Cut("ab"),
        1 => Reply::Nothing,
        _ => fine("abcd"),
    })
    .await;
    assert_eq!(server.store().await.get(&key("a")).await.unwrap(), Some(Bytes::from("abcd")));
    let server = BadServer::start(|_, _| Reply::Cut("ab")).await;
    let error = server.store().await.get(&key("a")).await.unwrap_err();
    assert_problem(&error, ServerProblem::Unreachable, ErrorKind::Unavailable);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_connection_cut_before_the_answer_is_tried_again() {
    let server = BadServer::start(|n, _| if n < 2 { Reply::Nothing } else { fine("") }).await;
    server.store().await.put(&key("a"), vec![1; 100_000].into()).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_dead_endpoint_does_not_hang() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("s3://bucket/p?endpoint=http://{refusing}&region=r").parse().unwrap();
    let start = Monotonic::start();
    let store = S3Store::connect_with(&url, options()).await.unwrap();
    let error = store.list(&Prefix::default()).await.unwrap_err();
    assert_problem(&error, ServerProblem::Unreachable, ErrorKind::Unavailable);

    let server = BadServer::start(|_, _| Reply::Silence).await;
    let store = server.store().await;
    let error = store.get(&key("a")).await.unwrap_err();
    assert_problem(&error, ServerProblem::Unreachable, ErrorKind::Unavailable);
    let error = store.put(&key("a"), "x".into()).await.unwrap_err();
    assert_problem(&error, ServerProblem::Unreachable, ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn garbage_is_no_listing() {
    let list = |body: &'static str| BadServer::start(move |_, _| fine(body));
    for body in ["<html>Welcome</html>", "no XML", "<ListBucketResult><Contents>", ""] {
        let server = list(body).await;
        let listed = server.store().await.list(&Prefix::default()).await;
        assert!(listed.is_err(), "{body}: {listed:?}");
    }
    // A first page that says there are more, and not where, is not everything.
    let truncated = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let short = "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>2</KeyCount></ListBucketResult>";
    list(short).await.store().await.list(&Prefix::default()).await.unwrap_err();
    let error = list(truncated).await.store().await.list(&Prefix::default()).await.unwrap_err();
    assert_problem(&error, ServerProblem::Failed, ErrorKind::Unavailable);
}

#[tokio::test]
async fn pages_are_put_together_and_strangers_passed_by() {
    let server = BadServer::start(|n, line| match n {
        0 => fine(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>\
             <Contents><Key>p/b</Key><Size>2</Size></Contents><Contents><Key>p/.tmp-x</Key><Size>2</Size></Contents>\
             </ListBucketResult>",
        ),
        _ => {
            assert!(line.contains("continuation-token=next"), "{line}");
            fine(
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>p/a</Key><Size>1</Size></Contents>\
                 <Contents><Key>p/with space</Key><Size>1</Size></Contents></ListBucketResult>",
            )
        }
    })
    .await;
    let listed = server.store().await.list(&Prefix::default()).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|object| (object.key.as_str(), object.size_bytes)).collect();
    assert_eq!(listed, [("a", 1), ("b", 2)]);
}

#[tokio::test]
async fn a_server_without_the_deletion_of_many_is_asked_one_by_one() {
    let server = BadServer::start(|_, line| {
        if line.starts_with("POST") {
            error(501, "NotImplemented", "No.")
        } else {
            Reply::Answer(204, "", String::new())
        }
    })
    .await;
    let store = server.store().await;
    let keys: Vec<Key> = (0..3).map(|n| key(&format!("{n}"))).collect();
    store.delete(&keys).await.unwrap();
    store.delete(&keys).await.unwrap();
    let deletes = server.requests().iter().filter(|line| line.starts_with("DELETE")).count();
    assert_eq!(deletes, 6, "{:?}", server.requests());
    assert!(server.requests().iter().filter(|line| line.starts_with("POST")).count() <= 3);
}

#[tokio::test]
async fn a_key_that_is_not_deleted_is_named() {
    let server = BadServer::start(|_, _| {
        fine(
            "<DeleteResult><Error><Key>p/x/2</Key><Code>AccessDenied</Code><Message>Locked.</Message></Error>\
             <Error><Key>p/x/3</Key><Code>AccessDenied</Code><Message>Locked.</Message></Error></DeleteResult>",
        )
    })
    .await;
    let error = server.store().await.delete(&[key("x/1"), key("x/2"), key("x/3")]).await.unwrap_err();
    assert_problem(&error, ServerProblem::Denied, ErrorKind::Invalid);
    assert!(error.to_string().contains("`x/2`"), "{error}");
}

#[tokio::test]
async fn a_range_that_the_server_ignores_is_cut_out_here() {
    let server = BadServer::start(|_, _| fine("0123456789")).await;
    let store = server.store().await;
    for (offset, length, expected) in [(2, 3, "234"), (8, 9, "89"), (20, 1, "")] {
        assert_eq!(store.range(&key("a"), offset, length).await.unwrap(), Some(Bytes::from(expected)));
    }
}

/// Answers an upload in parts; `part` answers each part.
fn uploads(line: &str, part: impl Fn() -> Reply) -> Reply {
    if line.starts_with("POST") && line.contains("uploads") {
        fine("<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
    } else if line.starts_with("PUT") {
        part()
    } else if line.starts_with("DELETE") {
        Reply::Answer(204, "", String::new())
    } else {
        error(500, "InternalError", "Unexpected.")
    }
}

fn large_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 << 20).unwrap();
    file
}

#[tokio::test]
async fn an_upload_whose_part_fails_is_aborted_and_the_file_stays() {
    let server = BadServer::start(|_, line| uploads(line, || error(403, "AccessDenied", "No."))).await;
    let file = large_file();
    let error = server.store().await.put_file(&key("a"), file.path()).await.unwrap_err();
    assert_problem(&error, ServerProblem::Denied, ErrorKind::Invalid);
    let aborts = server
        .requests()
        .iter()
        .filter(|line| line.starts_with("DELETE") && line.contains("uploadId=u1"))
        .count();
    assert_eq!(aborts, 1, "{:?}", server.requests());
    assert!(file.path().exists());
}

/// An upload that had succeeded was once reported as a failure, because the answer to its last request was lost.
#[tokio::test]
async fn an_upload_whose_last_answer_is_lost_is_looked_for_and_found() {
    for (there, is_found) in [(Some(20 << 20), true), (Some(5), false), (None, false)] {
        let completions = Arc::new(Mutex::new(0));
        let server = BadServer::start(move |_, line| {
            if line.starts_with("POST") && line.contains("uploadId=u1") {
                let mut completions = completions.lock().unwrap();
                *completions += 1;
                return match *completions {
                    1 => Reply::Nothing,
                    _ => error(404, "NoSuchUpload", "No such upload."),
                };
            }
            match there {
                Some(length) if line.starts_with("HEAD") => Reply::Length(length),
                None if line.starts_with("HEAD") => Reply::Answer(404, "", String::new()),
                Some(_) | None => uploads(line, || fine("")),
            }
        })
        .await;
        let file = large_file();
        let written = server.store().await.put_file(&key("a"), file.path()).await;
        assert_eq!(written.is_ok(), is_found, "{there:?}: {written:?} {:?}", server.requests());
        assert_eq!(file.path().exists(), !is_found);
    }
}

#[tokio::test]
async fn what_killed_uploads_left_is_swept_by_age() {
    let listed = |age_hours: i64| {
        let initiated = crate::base::now() - jiff::SignedDuration::from_hours(age_hours);
        format!(
            "<Upload><Key>p/a{age_hours}</Key><UploadId>u{age_hours}</UploadId><Initiated>{initiated:.0}</Initiated></Upload>"
        )
    };
    let uploads = format!("{}{}", listed(1), listed(30));
    let server = BadServer::start(move |_, line| match line.starts_with("DELETE") {
        true => Reply::Answer(204, "", String::new()),
        false => fine(&format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{uploads}</ListMultipartUploadsResult>"
        )),
    })
    .await;
    let swept = server.store().await.sweep(Duration::from_secs(86_400)).await.unwrap();
    assert_eq!((swept.count, swept.bytes), (1, 0));
    let aborted: Vec<String> =
        server.requests().into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert!(matches!(aborted.as_slice(), [line] if line.contains("/a30") && line.contains("uploadId=u30")));
}

#[tokio::test]
async fn a_cancelled_upload_is_aborted() {
    let server = BadServer::start(|_, line| uploads(line, || Reply::Silence)).await;
    let (store, file) = (server.store().await, large_file());
    let key = key("a");
    let upload = store.put_file(&key, file.path());
    assert!(tokio::time::timeout(Duration::from_millis(500), upload).await.is_err());
    for _ in 0..100 {
        if server.requests().iter().any(|line| line.starts_with("DELETE") && line.contains("uploadId=u1")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no abort among {:?}", server.requests());
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    for (name, content, word) in [
        ("missing.pem", None, "cannot be read"),
        ("empty.pem", Some(""), "no certificate"),
        (
            "wrong.pem",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "no certificate",
        ),
    ] {
        let path = home.path().join(name);
        if let Some(content) = content {
            crate::base::fs::write_durably(&path, content.as_bytes(), crate::base::fs::Existing::Keep)
                .unwrap();
        }
        let url = format!("s3://bucket?region=r&ca={}", path.display()).parse().unwrap();
        let error = S3Store::connect_with(&url, options()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name) && error.to_string().contains(word), "{error}");
    }
}

/// Tests on the server at `KILN_TEST_S3`; `scripts/test --only s3` starts one.
mod garage {
    use super::*;
    use crate::base::now;
    use crate::objects::s3::garage::{store, url};
    use crate::objects::{StoreUrl, conformance, probe_s3};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs Garage"]
    async fn a_bucket_keeps_the_contract() {
        conformance::all(&store().await).await;
    }

    #[tokio::test]
    #[ignore = "needs Garage"]
    async fn a_prefix_sees_nothing_of_its_neighbours() {
        let (one, two) = (store().await, store().await);
        one.put(&key("a"), "1".into()).await.unwrap();
        assert_eq!(two.get(&key("a")).await.unwrap(), None);
        assert!(two.list(&Prefix::default()).await.unwrap().is_empty());
        assert_eq!(one.list(&Prefix::default()).await.unwrap().len(), 1);
        conformance::empty(&one).await;
    }

    #[tokio::test]
    #[ignore = "needs Garage"]
    async fn a_probe_says_what_the_server_does_and_leaves_nothing() {
        let store = store().await;
        let report = probe_s3(&store).await.unwrap();
        assert!(report.checks.all_hold(), "{report:?}");
        let s3 = report.s3.as_ref().unwrap();
        assert_eq!((s3.versioning, s3.incomplete_uploads), (Switch::Off, Some(0)), "{report:?}");
        assert!(s3.clock_ahead_seconds.unwrap().abs() <= 2, "{report:?}");
        assert!(store.list(&Prefix::default()).await.unwrap().is_empty());
        println!("{}", serde_json::to_string_pretty(&report).unwrap());
    }

    #[tokio::test]
    #[ignore = "needs Garage"]
    async fn incomplete_uploads_are_listed_and_aborted_by_age() {
        let store = store().await;
        let inner = &store.inner;
        for name in ["x/a", "x/b"] {
            let name = store.name(&key(name));
            inner.client.create_multipart_upload().bucket(&inner.bucket).key(name).send().await.unwrap();
        }
        let keys = |uploads: &[IncompleteUpload]| -> Vec<String> {
            uploads.iter().map(|upload| upload.key.to_string()).collect()
        };
        assert_eq!(keys(&store.incomplete_uploads().await.unwrap()), ["x/a", "x/b"]);
        assert!(store.list(&Prefix::default()).await.unwrap().is_empty());
        let day = Duration::from_secs(86_400);
        assert!(store.abort_incomplete(day, now()).await.unwrap().is_empty());
        let tomorrow = now() + jiff::SignedDuration::from_hours(25);
        assert_eq!(keys(&store.abort_incomplete(day, tomorrow).await.unwrap()), ["x/a", "x/b"]);
        assert!(store.incomplete_uploads().await.unwrap().is_empty());
    }

    #[tokio::test]
    #[ignore = "needs Garage"]
    async fn wrong_credentials_and_a_missing_bucket_are_told_apart() {
        let mut options = options();
        let unknown = S3Store::connect_with(&url(), options.clone()).await.unwrap();
        let error = unknown.get(&key("a")).await.unwrap_err();
        assert_eq!(error.problem(), Some(ServerProblem::Credentials), "{error:?}");
        assert!(!format!("{error:?}").contains(KEY_ID), "{error:?}");
        options.credentials = None;
        let elsewhere: S3Url =
            url().to_string().replacen("s3://kiln/", "s3://other-bucket/", 1).parse().unwrap();
        let error = S3Store::connect_with(&elsewhere, options.clone())
            .await
            .unwrap()
            .get(&key("a"))
            .await
            .unwrap_err();
        assert_eq!(error.problem(), Some(ServerProblem::NoBucket), "{error:?}");
        let region: S3Url =
            url().to_string().replacen("region=garage", "region=elsewhere", 1).parse().unwrap();
        let error = S3Store::connect_with(&region, options).await.unwrap().get(&key("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }

    #[tokio::test]
    #[ignore = "needs Garage"]
    async fn a_store_url_opens_its_bucket() {
        let store = crate::objects::open(&StoreUrl::S3(url())).await.unwrap();
        store.put(&key("a"), "1".into()).await.unwrap();
        store.delete(&[key("a")]).await.unwrap();
    }

    /// Forwards TLS connections to the port given last; says on standard output where it listens.
    const TLS_TERMINATOR: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(raw):
    try:
        inner, outer = context.wrap_socket(raw, server_side=True), socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    except OSError:
        return
    threading.Thread(target=pump, args=(inner, outer), daemon=True).start()
    pump(outer, inner)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

    #[tokio::test]
    #[ignore = "needs Garage"]
    async fn a_server_with_a_ca_of_its_own_is_trusted_when_told_so() {
        use tokio::io::AsyncBufReadExt as _;
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            crate::base::fs::write_durably(&path, text.as_bytes(), crate::base::fs::Existing::Keep).unwrap();
            path
        };
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&params, &ca_key);
        let server_key = rcgen::KeyPair::generate().unwrap();
        let server = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &issuer).unwrap();
        let (ca, certificate, private_key) = (
            write("ca.pem", &ca.pem()),
            write("server.pem", &server.pem()),
            write("server.key", &server_key.serialize_pem()),
        );
        let plain = url();
        let port = plain.endpoint().unwrap().rsplit(':').next().unwrap();
        let mut terminator = tokio::process::Command::new("python3")
            .args(["-c", TLS_TERMINATOR])
            .args([&certificate, &private_key])
            .arg(port)
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        tokio::io::BufReader::new(terminator.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let endpoint = format!("https://127.0.0.1:{}", line.trim());
        let tls = plain.to_string().replace(plain.endpoint().unwrap(), &endpoint);
        let options = S3Options { credentials: None, ..options() };
        let connect = async |text: String| {
            S3Store::connect_with(&text.parse().unwrap(), options.clone()).await.unwrap()
        };
        let error = connect(tls.clone()).await.get(&key("a")).await.unwrap_err();
        assert_eq!(error.problem(), Some(ServerProblem::Unreachable), "{error:?}");
        let store = connect(format!("{tls}&ca={}", ca.display())).await;
        store.put(&key("a"), "1".into()).await.unwrap();
        assert_eq!(store.get(&key("a")).await.unwrap(), Some("1".into()));
        conformance::empty(&store).await;
    }
}
