//! What only a real engine can show. Run with `cargo test --lib docker::real_engine -- --ignored`.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::conformance::{self, BASE, request};
use super::*;
use crate::base::{Discard, Monotonic, Sink};

const BUILDERS: [Builder; 2] = [Builder::Buildkit, Builder::Classic];

/// Keeps what it is told, and when.
#[derive(Default)]
struct Told(Mutex<Vec<(std::time::SystemTime, EngineEvent)>>);

impl Sink<EngineEvent> for Told {
    fn emit(&self, event: EngineEvent) {
        let now = std::time::SystemTime::from(crate::base::now());
        self.0.lock().unwrap().push((now, event));
    }
}

impl Told {
    fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter_map(|(_, event)| match event {
                EngineEvent::Log { line, .. } => Some(line.clone()),
                _ => None,
            })
            .collect()
    }

    fn text(&self) -> String {
        format!("{:?}", self.0.lock().unwrap())
    }

    fn warned(&self, word: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|(_, event)| matches!(event, EngineEvent::Warning { code, .. } if code == word))
    }
}

fn engine() -> DockerEngine {
    DockerEngine::connect(None).unwrap()
}

fn file(path: &str, bytes: impl Into<Bytes>) -> ContextFile {
    ContextFile { path: path.into(), mode: 0o644, bytes: bytes.into() }
}

async fn build(request: &BuildRequest, told: &Told) -> Result<Built, EngineError> {
    engine().build(request, told, &CancellationToken::new()).await
}

/// Cancels a build as soon as a line has come; returns what came of it and how long that took.
async fn cancelled_at(request: &BuildRequest, line: &str) -> (EngineError, Duration) {
    let cancel = CancellationToken::new();
    let asked = Mutex::new(None);
    let sink = |event: EngineEvent| {
        if matches!(&event, EngineEvent::Log { line: seen, .. } if seen == line) {
            asked.lock().unwrap().get_or_insert_with(Monotonic::start);
            cancel.cancel();
        }
    };
    let error = engine().build(request, &sink, &cancel).await.unwrap_err();
    let took = asked.lock().unwrap().expect("the line came").elapsed();
    (error, took)
}

/// Says how many processes of this host have `word` in their command line.
fn processes(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| memchr::memmem::find(line, word.as_bytes()).is_some())
        .count()
}

async fn nothing_is_left(request: &BuildRequest) {
    let engine = engine();
    let label = format!("kiln.test={}", request.labels["kiln.test"]);
    assert_eq!(engine.image(&request.tags[0]).await.unwrap(), None);
    assert!(engine.containers(&label).await.unwrap().is_empty());
}

fn step_of(steps: &[StepReport], word: &str) -> StepReport {
    steps.iter().find(|step| step.name.contains(word)).unwrap_or_else(|| panic!("{word}: {steps:?}")).clone()
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn an_engine_describes_itself() {
    let info = engine().info().await.unwrap();
    assert!(info.builders.buildkit && !info.version.is_empty() && info.data_root.is_absolute(), "{info:?}");
    let began = Monotonic::start();
    let warm = engine();
    let image = warm.image(BASE).await.unwrap().unwrap();
    println!("first image(): {:?}", began.elapsed());
    let began = Monotonic::start();
    warm.image(BASE).await.unwrap();
    println!("second image(): {:?}", began.elapsed());
    assert!(image.tags.contains(&BASE.to_owned()) && !image.layers.is_empty() && image.created.is_some());
    assert!(!warm.history(BASE).await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn both_builders_build_and_cache() {
    for builder in BUILDERS {
        let mut request = request(
            builder,
            "COPY a /a\nARG WORD\nRUN echo \"$WORD\"; echo oops >&2; head -c 5000000 /dev/zero > /five\n",
        );
        request.context = Context::of_files(vec![
            file("Dockerfile", request.context.dockerfile_text("Dockerfile").unwrap()),
            file("a", "hello"),
        ]);
        request.build_args.insert("WORD".into(), "from-arg".into());
        let told = Told::default();
        let built = build(&request, &told).await.unwrap();
        assert!(
            told.lines().contains(&"from-arg".to_owned()) && told.lines().contains(&"oops".to_owned()),
            "{:?}",
            told.lines()
        );
        assert!(!step_of(&built.steps, "COPY").cached);
        let info = engine().image(&request.tags[0]).await.unwrap().unwrap();
        assert_eq!((info.id, &info.tags), (built.image, &request.tags));
        assert_eq!(info.labels["kiln.test"], request.labels["kiln.test"]);
        let history = engine().history(&request.tags[0]).await.unwrap();
        assert!(history.iter().any(|entry| entry.size_bytes >= 5_000_000), "{history:?}");

        request.no_cache = false;
        let (again, began) = (Told::default(), Monotonic::start());
        let built = build(&request, &again).await.unwrap();
        println!("{builder:?} cached build: {:?}", began.elapsed());
        assert!(
            step_of(&built.steps, "RUN").cached && step_of(&built.steps, "COPY").cached,
            "{:?}",
            built.steps
        );
        assert_eq!(built.context.entries, 2);
        engine().untag(&request.tags[0]).await.unwrap();
        nothing_is_left(&request).await;
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn failures_are_told_apart() {
    for builder in BUILDERS {
        let failing = request(builder, "RUN echo before; echo complaint >&2; exit 7\n");
        let error = build(&failing, &Told::default()).await.unwrap_err();
        let EngineError::Step { exit_code: Some(7), step: 2, tail, .. } = error else { panic!("{error:?}") };
        assert!(tail.contains(&"complaint".to_owned()) && tail.contains(&"before".to_owned()), "{tail:?}");
        nothing_is_left(&failing).await;

        let mistaken = build(&request(builder, "NONSENSE\n"), &Told::default()).await.unwrap_err();
        assert!(matches!(&mistaken, EngineError::Dockerfile { line: Some(2), .. }), "{mistaken:?}");

        let mut baseless = request(builder, "");
        baseless.context = Context::of_files(vec![file("Dockerfile", "FROM kiln-not-there:1\nRUN true\n")]);
        let error = build(&baseless, &Told::default()).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::BaseMissing { reference, .. } if reference.contains("kiln-not-there")),
            "{error:?}"
        );

        let full = request(builder, "RUN echo x > /dev/full\n");
        let error = build(&full, &Told::default()).await.unwrap_err();
        assert!(matches!(&error, EngineError::Step { .. }), "a full device is not a full disk: {error:?}");
    }
    let mut secret = request(Builder::Classic, "RUN true\n");
    secret.secrets.insert("tok".into(), SecretValue::new(b"hunter2-hunter2".to_vec()));
    let error = build(&secret, &Told::default()).await.unwrap_err();
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn a_secret_reaches_its_step_and_nothing_else() {
    use futures_util::StreamExt as _;
    const SECRET: &str = "s3cr3t-\"value\"-of-a-test";
    let steps = "RUN --mount=type=secret,id=tok,required=true cat /run/secrets/tok; base64 /run/secrets/tok; \
                 wc -c < /run/secrets/tok; echo split >&2; printf s3cr3t-; sleep 0.3; echo '\"value\"-of-a-test'; test -s /run/secrets/tok\n";
    let mut with = request(Builder::Buildkit, steps);
    with.secrets.insert("tok".into(), SecretValue::new(SECRET.into()));
    let told = Told::default();
    build(&with, &told).await.unwrap();
    assert!(told.lines().contains(&SECRET.len().to_string()), "{:?}", told.lines());
    assert!(told.lines().iter().filter(|line| line.contains("***")).count() == 2, "{:?}", told.lines());
    assert!(!told.text().contains("s3cr3t-\\\"value"), "{}", told.text());
    let mut pieces = engine().save(&with.tags[0]).await.unwrap();
    let mut saved = Vec::new();
    while let Some(piece) = pieces.next().await {
        saved.extend_from_slice(&piece.unwrap());
    }
    // The command itself holds the two halves; the value as a whole stands nowhere.
    assert!(saved.len() > 20_000_000, "a saved image holds its base");
    assert!(memchr::memmem::find(&saved, SECRET.as_bytes()).is_none());
    engine().untag(&with.tags[0]).await.unwrap();

    let mut other = request(Builder::Buildkit, steps);
    let error = build(&other, &Told::default()).await.unwrap_err();
    assert!(matches!(&error, EngineError::SecretMissing { id } if id == "tok"), "{error:?}");
    other.secrets.insert("else".into(), SecretValue::new(b"something else".to_vec()));
    let error = build(&other, &Told::default()).await.unwrap_err();
    assert!(matches!(&error, EngineError::SecretMissing { id } if id == "tok"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn dropped_output_is_said() {
    let request = request(Builder::Buildkit, "RUN seq 1 60000; echo END\n");
    let told = Told::default();
    build(&request, &told).await.unwrap();
    assert!(told.warned("output_clipped"));
    engine().untag(&request.tags[0]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn a_line_arrives_within_a_tenth_of_a_second() {
    for builder in BUILDERS {
        let request = request(builder, "RUN for i in 1 2 3 4 5 6 7 8 9 10; do date +%s%N; sleep 0.3; done\n");
        let told = Told::default();
        build(&request, &told).await.unwrap();
        let mut delays = Vec::new();
        for (at, event) in told.0.lock().unwrap().iter() {
            if let EngineEvent::Log { line, .. } = event
                && let Ok(printed) = line.parse::<u64>()
            {
                let printed = std::time::UNIX_EPOCH + Duration::from_nanos(printed);
                delays.push(at.duration_since(printed).unwrap_or_default());
            }
        }
        delays.sort();
        println!("{builder:?} line delays: {delays:?}");
        assert_eq!(delays.len(), 10);
        assert!(delays[8] < Duration::from_millis(150), "{builder:?}: {delays:?}");
        engine().untag(&request.tags[0]).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn cancelling_stops_the_engine_within_two_seconds() {
    for builder in BUILDERS {
        let word = format!("kiln-cancel-{builder:?}-{}", std::process::id());
        let request = request(builder, &format!("RUN echo go; sh -c 'sleep 61 # {word}'; true\n"));
        let (error, took) = cancelled_at(&request, "go").await;
        println!("{builder:?} cancelled, step gone and cleaned after {took:?}");
        assert!(matches!(error, EngineError::Cancelled { .. }), "{error:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(processes(&format!("sleep 61 # {word}")), 0);
        nothing_is_left(&request).await;
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn a_step_that_writes_too_much_is_stopped() {
    for builder in BUILDERS {
        let mut request = request(
            builder,
            "RUN mkdir -p /fat/inner && echo start && for i in $(seq 1 100); do head -c 20000000 /dev/zero > /fat/inner/$i; sleep 0.1; done\n",
        );
        request.limits.write_bytes = 150 << 20;
        let (told, began) = (Told::default(), Monotonic::start());
        let error = build(&request, &told).await.unwrap_err();
        let took = began.elapsed();
        let EngineError::BuildWrite { written_bytes, heaviest, name, .. } = &error else {
            panic!("{error:?}")
        };
        println!(
            "{builder:?} stopped after {took:?} at {written_bytes} of {} bytes: {heaviest:?}",
            150 << 20
        );
        assert!(name.contains("RUN mkdir") && *written_bytes < 400 << 20, "{error}");
        assert_eq!(heaviest[0].0, "/fat/inner");
        assert!(told.text().contains("Disk"));
        nothing_is_left(&request).await;
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn how_far_a_fast_writer_overshoots() {
    for builder in BUILDERS {
        let mut request = request(builder, "RUN head -c 8000000000 /dev/zero > /big\n");
        request.limits.write_bytes = 200 << 20;
        let error = build(&request, &Told::default()).await.unwrap_err();
        let EngineError::BuildWrite { written_bytes, .. } = &error else { panic!("{error:?}") };
        println!("{builder:?}: limit {}, seen {written_bytes}", 200 << 20);
        nothing_is_left(&request).await;
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn what_finished_steps_wrote_counts_too() {
    for builder in BUILDERS {
        let step = "RUN head -c 60000000 /dev/zero > /$(date +%N) && sleep 0.2\n";
        let mut request =
            request(builder, &format!("{step}{step}{step}RUN sleep 30\n").replace("+%N", "+%s%N"));
        request.limits.write_bytes = 150_000_000;
        let error = build(&request, &Told::default()).await.unwrap_err();
        // One step alone writes far less than the limit.
        assert!(matches!(&error, EngineError::BuildWrite { .. }), "{error:?}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn no_room_and_no_time_are_told_apart() {
    for builder in BUILDERS {
        let mut roomless = request(builder, "RUN true\n");
        roomless.limits.min_free_bytes = u64::MAX;
        let error = build(&roomless, &Told::default()).await.unwrap_err();
        assert!(matches!(error, EngineError::FreeSpace { step: None, .. }), "{error:?}");

        let mut timeless = request(builder, "RUN sleep 60\n");
        timeless.limits.timeout = Duration::from_secs(2);
        let began = Monotonic::start();
        let error = build(&timeless, &Told::default()).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::Timeout { step: Some((2, name)), .. } if name.contains("sleep 60")),
            "{error:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
        nothing_is_left(&timeless).await;
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn a_large_context_takes_little_memory() {
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    for builder in BUILDERS {
        let mut request = request(builder, "RUN true\n");
        // One buffer under many names: the tar is 200 MB, what is held here is 1 MB.
        let piece = Bytes::from(vec![7; 1 << 20]);
        let mut files = vec![file("Dockerfile", request.context.dockerfile_text("Dockerfile").unwrap())];
        files.extend((0..200).map(|i| file(&format!("f{i}"), piece.clone())));
        request.context = Context::of_files(files);
        let (before, began, told) = (resident_kib(), Monotonic::start(), Told::default());
        let built = build(&request, &told).await.unwrap();
        let grown = resident_kib().saturating_sub(before);
        println!(
            "{builder:?}: {} bytes in {:?}, peak memory grew by {grown} KiB",
            built.context.bytes,
            began.elapsed()
        );
        assert!(built.context.bytes > 200 << 20 && grown < 32 << 10, "{grown}");
        assert!(told.text().contains("done: true"));
        engine().untag(&request.tags[0]).await.unwrap();

        request.limits.context_bytes = 100 << 20;
        let error = build(&request, &Told::default()).await.unwrap_err();
        assert!(matches!(error, EngineError::ContextTooLarge { .. }), "{error:?}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn a_mistake_seen_during_the_upload_is_told() {
    for builder in BUILDERS {
        let mut request = request(builder, "");
        let piece = Bytes::from(vec![7; 1 << 20]);
        let mut files = vec![file("Dockerfile", "FROM scratch\nNONSENSE\n")];
        files.extend((0..200).map(|i| file(&format!("f{i}"), piece.clone())));
        request.context = Context::of_files(files);
        let error = build(&request, &Told::default()).await.unwrap_err();
        assert!(matches!(error, EngineError::Dockerfile { line: Some(2), .. }), "{error:?}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn the_context_does_not_stay_in_the_cache() {
    async fn contexts(tar_bytes: u64) -> usize {
        let http = http::Http::new(http::Endpoint::parse(None).unwrap());
        let usage: serde_json::Value = http.json(hyper::Method::GET, "/v1.41/system/df").await.unwrap();
        let records = usage["BuildCache"].as_array().unwrap();
        let of_this = |record: &&serde_json::Value| {
            record["Description"].as_str().unwrap().starts_with("http url http://build-context-")
                && record["Size"].as_u64() == Some(tar_bytes)
        };
        records.iter().filter(of_this).count()
    }
    let mut request = request(Builder::Buildkit, "RUN true\n");
    let odd = file("odd", vec![7; 3_333_333]);
    request.context = Context::of_files(vec![
        file("Dockerfile", request.context.dockerfile_text("Dockerfile").unwrap()),
        odd,
    ]);
    let built = build(&request, &Told::default()).await.unwrap();
    assert_eq!(contexts(built.context.bytes).await, 0);
    engine().untag(&request.tags[0]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn commands_run_in_containers() {
    let engine = engine();
    let spec = ContainerSpec {
        image: BASE.into(),
        name: format!("kiln-engine-test-{}", std::process::id()),
        cmd: Some(vec!["sh".into(), "-c".into(), "echo hello; echo oops >&2; exec sleep 300".into()]),
        network: NetworkMode::None,
        memory_bytes: Some(256 << 20),
        pids: Some(64),
        ..ContainerSpec::default()
    };
    let id = engine.start(&spec).await.unwrap();
    let outcome = async {
        let run = |script: &str| ExecSpec {
            cmd: vec!["sh".into(), "-c".into(), script.into()],
            user: Some("nobody".into()),
            workdir: Some("/tmp".into()),
            env: vec!["WORD=x".into()],
        };
        let told = Told::default();
        let report = engine
            .exec(
                &id,
                &run("echo $WORD $PWD $(id -un); echo oops >&2; exit 3"),
                Duration::from_secs(10),
                &told,
            )
            .await
            .unwrap();
        assert_eq!(
            (report.exit_code, report.stdout.as_str(), report.stderr.as_str()),
            (3, "x /tmp nobody\n", "oops\n")
        );
        assert_eq!(told.lines().len(), 2);
        let long = engine
            .exec(&id, &run("head -c 3000000 /dev/zero | tr '\\0' x"), Duration::from_secs(10), &Discard)
            .await
            .unwrap();
        assert_eq!(long.stdout.len(), 1 << 20);
        let slow =
            engine.exec(&id, &run("sleep 77.7"), Duration::from_millis(500), &Discard).await.unwrap_err();
        assert!(matches!(slow, EngineError::Timeout { .. }), "{slow:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(processes("sleep\x0077.7") + processes("sleep 77.7"), 0);
        let mut logs = engine.container_logs(&id, 10).await.unwrap();
        logs.sort();
        assert_eq!(logs, ["hello", "oops"]);
        let info = engine.container(&id).await.unwrap().unwrap();
        assert!(info.running && info.exit_code.is_none() && info.name == spec.name, "{info:?}");
    };
    let outcome = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(outcome)).await;
    engine.remove_container(&id).await.unwrap();
    engine.remove_container(&id).await.unwrap();
    assert_eq!(engine.container(&id).await.unwrap(), None);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn a_missing_image_cannot_be_pulled_where_no_registry_is() {
    let error = engine().pull("kiln-not-there:1", None, &Discard).await.unwrap_err();
    assert!(matches!(&error, EngineError::BaseMissing { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn the_real_engine_keeps_the_contract() {
    let engine = engine();
    for builder in BUILDERS {
        conformance::builds(&engine, builder).await;
        conformance::a_cancelled_build(&engine, builder).await;
    }
    conformance::references(&engine).await;
    conformance::containers(&engine).await;
    conformance::archives(&engine).await;
    conformance::what_is_not_there(&engine).await;
    conformance::holdings(&engine).await;
}

#[tokio::test]
#[ignore = "needs a Docker Engine"]
async fn one_record_of_the_build_cache_goes_and_the_others_stay() {
    let engine = engine();
    let word = ulid::Ulid::generate().to_string();
    let steps = format!("RUN head -c 1000000 /dev/zero > /{word}\nRUN echo {word} > /after\n");
    let request = request(Builder::Buildkit, &steps);
    build(&request, &Told::default()).await.unwrap();
    let records = async || {
        let cache = engine.disk_usage().await.unwrap().cache;
        let ours = cache.iter().filter(|record| record.description.contains(&word)).cloned();
        (cache.len(), ours.collect::<Vec<_>>())
    };
    let (before, ours) = records().await;
    assert_eq!(ours.len(), 2, "{ours:?}");
    assert!(ours.iter().all(|record| record.shared && !record.in_use), "{ours:?}");
    engine.untag(&request.tags[0]).await.unwrap();
    let (_, ours) = records().await;
    assert!(ours.iter().all(|record| !record.shared), "{ours:?}");
    let large = ours.iter().find(|record| record.size_bytes >= 1_000_000).unwrap();
    let small = ours.iter().find(|record| record.id != large.id).unwrap();
    assert_eq!(small.parents, std::slice::from_ref(&large.id));
    // What another record stands on stays.
    assert_eq!(engine.delete_cache_record(&large.id).await.unwrap(), None);
    assert_eq!(engine.delete_cache_record(&small.id).await.unwrap(), Some(small.size_bytes));
    assert_eq!(engine.delete_cache_record(&large.id).await.unwrap(), Some(large.size_bytes));
    assert_eq!(engine.delete_cache_record(&large.id).await.unwrap(), None);
    let (after, ours) = records().await;
    assert!(ours.is_empty() && after + 2 == before, "{before} {after} {ours:?}");
    for wrong in ["", "a", "*", ".*", &"a/".repeat(20)] {
        assert!(engine.delete_cache_record(wrong).await.is_err(), "{wrong}");
    }
}
