//! What every engine must keep, as functions over one: the fake passes them in unit tests, the real one where it is.
//!
//! Each cleans up after itself and asserts; a failed assertion is a broken contract.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::base::{Classify as _, Discard, ErrorKind};

/// An image that the engine must have.
pub(super) const BASE: &str = "debian:bookworm-slim";

/// Returns a build of its own: nothing cached, known by its label.
pub(super) fn request(builder: Builder, steps: &str) -> BuildRequest {
    let id = ulid::Ulid::generate().to_string().to_lowercase();
    let dockerfile =
        ContextFile { path: "Dockerfile".into(), mode: 0o644, bytes: format!("FROM {BASE}\n{steps}").into() };
    BuildRequest {
        builder,
        context: Context::of_files(vec![dockerfile]),
        dockerfile: "Dockerfile".into(),
        tags: vec![format!("kiln-engine-test:{id}")],
        labels: BTreeMap::from([("kiln.test".into(), id)]),
        build_args: BTreeMap::new(),
        target: None,
        platform: None,
        network: NetworkMode::None,
        no_cache: true,
        secrets: BTreeMap::new(),
        mounts_secrets: false,
        limits: BuildLimits {
            context_bytes: 1 << 30,
            write_bytes: 1 << 30,
            min_free_bytes: 1 << 20,
            timeout: Duration::from_secs(40),
        },
    }
}

/// A build gives an image with the tags and labels asked for; one that fails gives none.
pub(super) async fn builds(engine: &dyn Engine, builder: Builder) {
    let good = request(builder, "RUN echo a line\n");
    let told = Mutex::new(Vec::new());
    let sink = |event: EngineEvent| told.lock().unwrap().push(event);
    let built = engine.build(&good, &sink, &CancellationToken::new()).await.unwrap();
    let image = engine.image(&good.tags[0]).await.unwrap().unwrap();
    assert_eq!((image.id, &image.tags), (built.image, &good.tags));
    assert_eq!(image.labels.get("kiln.test"), good.labels.get("kiln.test"));
    assert_eq!(engine.image(&built.image.to_string()).await.unwrap().unwrap(), image);
    assert!(!built.steps.is_empty() && built.context.entries == 1);
    let label = format!("kiln.test={}", good.labels["kiln.test"]);
    assert_eq!(engine.images(&label).await.unwrap(), [image]);
    assert!(!engine.history(&good.tags[0]).await.unwrap().is_empty());
    steps_are_told_in_order(&told.into_inner().unwrap());
    let mut saved = engine.save(&good.tags[0]).await.unwrap();
    assert!(!saved.next().await.unwrap().unwrap().is_empty());
    drop(saved);
    engine.untag(&good.tags[0]).await.unwrap();
    assert!(engine.images(&label).await.unwrap().is_empty());

    let bad = request(builder, "RUN echo last words; exit 7\n");
    let error = engine.build(&bad, &Discard, &CancellationToken::new()).await.unwrap_err();
    let EngineError::Step { exit_code: Some(7), tail, .. } = &error else { panic!("{error:?}") };
    assert!(tail.contains(&"last words".to_owned()));
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(engine.image(&bad.tags[0]).await.unwrap().is_none());
}

fn steps_are_told_in_order(told: &[EngineEvent]) {
    let mut states: BTreeMap<u32, Vec<StepState>> = BTreeMap::new();
    for event in told {
        match event {
            EngineEvent::Step { step, state, ms, .. } => {
                assert_eq!(ms.is_some(), *state != StepState::Running);
                states.entry(*step).or_default().push(*state);
            }
            EngineEvent::Log { step, line, .. } => {
                assert_eq!(states[step].last(), Some(&StepState::Running), "{line}");
            }
            EngineEvent::Context { .. }
            | EngineEvent::Pull { .. }
            | EngineEvent::Disk { .. }
            | EngineEvent::Warning { .. } => {}
        }
    }
    assert!(!states.is_empty());
    for told in states.values() {
        let fine = matches!(
            told.as_slice(),
            [StepState::Running, StepState::Done]
                | [StepState::Cached]
                | [StepState::Running, StepState::Cached]
        );
        assert!(fine, "{told:?}");
    }
    let line = |event: &&EngineEvent| matches!(event, EngineEvent::Log { line, .. } if line == "a line");
    assert_eq!(told.iter().filter(line).count(), 1);
    let done = |event: &&EngineEvent| matches!(event, EngineEvent::Context { done: true, .. });
    assert_eq!(told.iter().filter(done).count(), 1);
}

/// A cancelled build ends soon and leaves no image, whether it was cancelled before or while it ran.
pub(super) async fn a_cancelled_build(engine: &dyn Engine, builder: Builder) {
    let request = request(builder, "RUN echo go; sleep 60\n");
    let cancel = CancellationToken::new();
    let sink = |event: EngineEvent| {
        if matches!(&event, EngineEvent::Log { line, .. } if line == "go") {
            cancel.cancel();
        }
    };
    let build = engine.build(&request, &sink, &cancel);
    let error = tokio::time::timeout(Duration::from_secs(30), build).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Cancelled { .. }), "{error:?}");
    let error = engine.build(&request, &Discard, &cancel).await.unwrap_err();
    assert!(matches!(error, EngineError::Cancelled { .. }), "{error:?}");
    assert!(engine.image(&request.tags[0]).await.unwrap().is_none());
}

/// An image lives as long as it has a reference; a container holds the last one.
pub(super) async fn references(engine: &dyn Engine) {
    let request = request(Builder::Classic, "LABEL x=y\n");
    let built = engine.build(&request, &Discard, &CancellationToken::new()).await.unwrap();
    let second = format!("{}-second", request.tags[0]);
    engine.tag(&built.image, &second).await.unwrap();
    let mut tags = engine.image(&second).await.unwrap().unwrap().tags;
    tags.sort();
    assert_eq!(tags, [request.tags[0].clone(), second.clone()]);
    engine.untag(&request.tags[0]).await.unwrap();
    engine.untag(&request.tags[0]).await.unwrap();
    assert_eq!(engine.image(&second).await.unwrap().unwrap().tags, std::slice::from_ref(&second));

    let name = second.replace(':', "-");
    let labels = request.labels.clone();
    let spec = ContainerSpec {
        image: second.clone(),
        name,
        cmd: Some(vec!["sleep".into(), "60".into()]),
        labels,
        ..ContainerSpec::default()
    };
    let container = engine.start(&spec).await.unwrap();
    let held = engine.untag(&second).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict, "{held:?}");
    engine.remove_container(&container).await.unwrap();
    engine.untag(&second).await.unwrap();
    assert!(engine.image(&second).await.unwrap().is_none());
    assert!(engine.image(&built.image.to_string()).await.unwrap().is_none());
}

/// Containers run, take commands, and go.
pub(super) async fn containers(engine: &dyn Engine) {
    let id = ulid::Ulid::generate().to_string().to_lowercase();
    let spec = ContainerSpec {
        image: BASE.into(),
        name: format!("kiln-engine-test-{id}"),
        cmd: Some(vec!["sleep".into(), "60".into()]),
        labels: BTreeMap::from([("kiln.test".into(), id.clone())]),
        network: NetworkMode::None,
        ..ContainerSpec::default()
    };
    let container = engine.start(&spec).await.unwrap();
    let info = engine.container(&spec.name).await.unwrap().unwrap();
    assert_eq!((&info.id, &info.name, info.running, info.exit_code), (&container, &spec.name, true, None));
    assert_eq!(engine.containers(&format!("kiln.test={id}")).await.unwrap(), [info]);
    let shell = |script: &str| ExecSpec {
        cmd: vec!["sh".into(), "-c".into(), script.into()],
        user: None,
        workdir: None,
        env: vec![],
    };
    let long = Duration::from_secs(20);
    let report = engine.exec(&container, &shell("echo out; exit 3"), long, &Discard).await.unwrap();
    assert_eq!((report.exit_code, report.stdout.as_str()), (3, "out\n"));
    let short = Duration::from_millis(200);
    let error = engine.exec(&container, &shell("sleep 60"), short, &Discard).await.unwrap_err();
    assert!(matches!(error, EngineError::Timeout { .. }), "{error:?}");
    engine.remove_container(&container).await.unwrap();
    engine.remove_container(&container).await.unwrap();
    assert!(engine.container(&container).await.unwrap().is_none());
    assert!(engine.containers(&format!("kiln.test={id}")).await.unwrap().is_empty());
}

/// A directory of a container is what was put into it; what cannot be read or written is told apart. Nothing is taken for a
/// whole archive that is none.
pub(super) async fn archives(engine: &dyn Engine) {
    let name = format!("kiln-engine-test-{}", ulid::Ulid::generate().to_string().to_lowercase());
    let spec = ContainerSpec {
        image: BASE.into(),
        name: name.clone(),
        cmd: Some(vec!["sleep".into(), "60".into()]),
        network: NetworkMode::None,
        ..ContainerSpec::default()
    };
    engine.start(&spec).await.unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let content = "some text\n".repeat(100_000);
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    tar.append_data(&mut header, "a file", content.as_bytes()).unwrap();
    let tar = Bytes::from(tar.into_inner().unwrap());
    let pieces: Vec<_> = tar.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    engine.write_archive(&name, "/mnt", Box::pin(stream::iter(pieces))).await.unwrap();
    let mut pieces = engine.read_archive(&name, "/mnt").await.unwrap();
    let mut read = Vec::new();
    while let Some(piece) = pieces.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    let mut archive = tar::Archive::new(read.as_slice());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            let path = entry.path().unwrap().into_owned();
            files.push((path.strip_prefix(".").unwrap_or(&path).to_owned(), text == content));
        }
    }
    assert_eq!(files, [("a file".into(), true)]);

    let nothing = || -> ArchiveBody { Box::pin(stream::iter([Ok(Bytes::from(vec![0; 1024]))])) };
    for (container, path, kind) in [
        ("kiln-engine-test-none", "/mnt", ErrorKind::NotFound),
        (name.as_str(), "/none", ErrorKind::NotFound),
        (name.as_str(), "/etc/passwd", ErrorKind::Invalid),
    ] {
        let reading = engine.read_archive(container, path).await.err().unwrap();
        let writing = engine.write_archive(container, path, nothing()).await.unwrap_err();
        assert_eq!((reading.kind(), writing.kind()), (kind, kind), "{reading:?} {writing:?}");
        assert!(reading.hint().is_some() && writing.hint().is_some());
    }
    let cut = [Ok(tar.slice(..70_000)), Err(std::io::ErrorKind::BrokenPipe.into())];
    engine.write_archive(&name, "/mnt", Box::pin(stream::iter(cut))).await.unwrap_err();
    engine.remove_container(&name).await.unwrap();
}

/// Containers of any state are listed with their images and told as they come and go; what an image takes is counted once.
pub(super) async fn holdings(engine: &dyn Engine) {
    let request = request(Builder::Classic, "LABEL x=y\n");
    let built = engine.build(&request, &Discard, &CancellationToken::new()).await.unwrap();
    let mut events = engine.container_events(None).await.unwrap();
    let name = request.tags[0].replace(':', "-");
    let cmd = Some(vec!["sleep".into(), "60".into()]);
    let spec = ContainerSpec {
        image: request.tags[0].clone(),
        name: name.clone(),
        cmd,
        network: NetworkMode::None,
        ..ContainerSpec::default()
    };
    let id = engine.start(&spec).await.unwrap();
    let held = engine.all_containers().await.unwrap();
    let held = held.iter().find(|container| container.id == id).unwrap();
    assert_eq!((held.name.as_str(), held.image, held.running), (name.as_str(), Some(built.image), true));
    engine.remove_container(&id).await.unwrap();
    assert!(!engine.all_containers().await.unwrap().iter().any(|container| container.id == id));
    let mut told = Vec::new();
    while told.last() != Some(&ContainerAction::Removed) {
        let next = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap();
        let event = next.unwrap().unwrap();
        if event.container == id {
            assert_eq!(
                (&event.name, event.labels.get("kiln.test")),
                (&name, request.labels.get("kiln.test"))
            );
            told.push(event.action);
        }
    }
    assert_eq!(told[..2], [ContainerAction::Created, ContainerAction::Started]);
    drop(events);

    let usage = engine.disk_usage().await.unwrap();
    let image = usage.images.iter().find(|image| image.id == built.image).unwrap();
    assert_eq!((&image.tags, &image.labels["kiln.test"]), (&request.tags, &request.labels["kiln.test"]));
    assert!(image.shared_bytes.is_some_and(|shared| shared <= image.size_bytes));
    assert!(usage.layers_bytes >= image.size_bytes);
    if let Some(space) = engine.disk_space().await.unwrap() {
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
    }
    engine.untag(&request.tags[0]).await.unwrap();
    let usage = engine.disk_usage().await.unwrap();
    assert!(!usage.images.iter().any(|image| image.id == built.image));
}

/// What is not there is `None`, fine, or a refusal, as each method says.
pub(super) async fn what_is_not_there(engine: &dyn Engine) {
    let none = "kiln-engine-test:none";
    assert!(engine.image(none).await.unwrap().is_none());
    engine.untag(none).await.unwrap();
    assert_eq!(engine.history(none).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.save(none).await.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    let spec = ContainerSpec { image: none.into(), ..ContainerSpec::default() };
    assert_eq!(engine.start(&spec).await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = engine.pull(none, None, &Discard).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}
