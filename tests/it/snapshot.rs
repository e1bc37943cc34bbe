//! `kiln snapshot` on a store that was filled without an engine.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kiln::base::{SnapshotId, now};
use kiln::catalog::{Catalog, LogWriter, SnapshotRecord, State, StateEntry};
use kiln::docker::{EngineEvent, OutputStream, StepState};
use kiln::objects::DirStore;
use kiln::snapshot::{BakeEvent, LogEntry, StageEvent};
use serde_json::{Value, json};

/// A store of its own.
struct Store {
    folder: tempfile::TempDir,
    catalog: Catalog,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::new(Arc::new(DirStore::new(folder.path().to_owned())));
        Self { folder, catalog }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn add(&self, name: &str, state: State) -> SnapshotId {
        let record = record(name);
        self.catalog.create(&record).await.unwrap();
        if state != State::Building {
            let entry: StateEntry = if state == State::Active {
                serde_json::from_value(json!({
                    "version": 1, "state": "active", "at": now().to_string(), "outcome": outcome(),
                }))
                .unwrap()
            } else {
                StateEntry::to(state, now())
            };
            assert!(self.catalog.transition(record.id, &entry).await.unwrap());
        }
        record.id
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(words)
            .env("KILN_STORE", self.path())
            .env("HOME", self.path())
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn text(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[words, &["--json"]].concat())).unwrap()
    }
}

fn digest() -> String {
    "ab".repeat(32)
}

/// Returns the record of a bake that has begun.
pub(super) fn record(name: &str) -> SnapshotRecord {
    serde_json::from_value(json!({
        "version": 1, "id": SnapshotId::generate().to_string(), "name": name, "template": name,
        "description": "A sample", "created": now().to_string(),
        "owner": { "host": "h", "boot": "b", "pid": 1, "started_ticks": 1 },
        "kiln_version": "0.1.0", "build_key": digest(), "snapshot_key": digest(),
        "dockerfile": "FROM debian:bookworm-slim\n", "context_digest": digest(),
        "parameters": { "a": "b" }, "components": [],
        "base": { "reference": "debian:bookworm-slim", "origin": "local debootstrap" },
        "distro": null, "baked_cas": [], "build_cas": [], "checkout": null, "build_args": {}, "secret_ids": [],
        "target": null, "platform": null, "network": "default", "builder": "buildkit",
        "runtime": {
            "user": "user", "uid": 1000, "workdir": "/home/user", "entrypoint": [], "start": null, "ready": null,
            "ports": [], "env": {},
        },
        "resources": { "cpu": 2, "memory": 1, "disk": 1 },
        "limits": { "image": 1, "build_write": 1, "context": 1, "timeout": "30m" },
        "checks": [], "profile": null, "refresh_after": null, "labels": {},
    }))
    .unwrap()
}

fn outcome() -> Value {
    json!({
        "image": format!("sha256:{}", digest()), "size_bytes": 1 << 30,
        "layers": [{ "instruction": "RUN x", "size_bytes": 1 << 30 }],
        "inventory": { "dpkg": { "tini": "1" }, "pip": {}, "npm": {} },
        "checks": [{ "name": "boot", "passed": true, "ms": 5, "reason": null }],
        "steps": [],
        "timings": {
            "prepare_ms": 1, "build_ms": 2, "gate_ms": 3, "check_ms": 4, "inventory_ms": 5, "total_ms": 15,
        },
    })
}

fn line(event: impl Into<BakeEvent>) -> String {
    serde_json::to_string(&LogEntry { at: now(), event: event.into() }).unwrap()
}

fn output_line(text: &str) -> String {
    line(EngineEvent::Log { step: 1, stream: OutputStream::Stdout, line: text.into() })
}

#[tokio::test]
async fn the_list_hides_failed_bakes_and_show_keeps_its_contract() {
    let store = Store::new();
    let active = store.add("litellm", State::Active).await;
    let failed = store.add("litellm", State::Error).await;
    let ids = |value: &Value| -> Vec<String> {
        let rows = value["snapshots"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&store.json(&["snapshot", "list"])), [active.to_string()]);
    assert_eq!(ids(&store.json(&["snapshot", "list", "--all"])), [active.to_string(), failed.to_string()]);
    assert_eq!(ids(&store.json(&["snapshot", "list", "--state", "error"])), [failed.to_string()]);
    assert!(store.text(&["snapshot", "list"]).contains(&format!("litellm@{}", active.short())));
    let shown = store.json(&["snapshot", "show", "litellm"]);
    assert_eq!((&shown["id"], &shown["state"]), (&json!(active.to_string()), &json!("active")));
    for field in ["name", "reused", "image", "places", "checks", "dockerfile", "parameters", "packages"] {
        assert!(shown.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(store.text(&["snapshot", "show", "litellm", "--dockerfile"]), "FROM debian:bookworm-slim\n");
    assert!(store.text(&["snapshot", "show", "litellm", "--packages"]).contains("dpkg  tini  1"));
}

#[tokio::test]
async fn a_kept_log_is_read_by_people_and_by_programs_also_of_a_failed_bake() {
    let store = Store::new();
    let id = store.add("app", State::Error).await;
    let mut log = LogWriter::new(store.catalog.clone(), id);
    log.push(&line(EngineEvent::Step { step: 1, name: "RUN x".into(), state: StepState::Running, ms: None }));
    log.push(&output_line("\u{1b}[1mhello\u{1b}[0m"));
    log.push(&line(StageEvent::Ended { state: "error".into(), messages: vec!["it broke".into()] }));
    log.finish().await.unwrap();
    let human = store.text(&["snapshot", "logs", "app"]);
    assert_eq!(human, "#1 RUN x\n#1 0.0s hello\n== error\n  it broke\n");
    let raw = store.text(&["snapshot", "logs", &format!("app@{id}"), "--json"]);
    assert_eq!(raw.lines().count(), 3);
    assert!(raw.lines().all(|line| serde_json::from_str::<LogEntry>(line).is_ok()));
}

#[tokio::test]
async fn a_log_is_followed_until_the_bake_has_ended() {
    let store = Store::new();
    let id = store.add("app", State::Building).await;
    let mut log = LogWriter::new(store.catalog.clone(), id);
    log.push(&output_line("first"));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    log.flush_if_due().await.unwrap();
    let mut follower =
        store.command(&["snapshot", "logs", "app", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(follower.try_wait().unwrap().is_none(), "the bake is still in work");
    log.push(&output_line("second"));
    log.push(&line(StageEvent::Ended { state: "error".into(), messages: vec![] }));
    store.catalog.transition(id, &StateEntry::to(State::Error, now())).await.unwrap();
    log.finish().await.unwrap();
    let text = ended(follower).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "#1 0.0s first", "== error"), "{text}");
    assert!(lines[1].starts_with("#1 ") && lines[1].ends_with("s second"), "{text}");
}

async fn ended(follower: Child) -> String {
    let output = tokio::task::spawn_blocking(move || follower.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_follower_does_not_wait_for_ever_for_a_bake_that_died() {
    let store = Store::new();
    store.add("app", State::Error).await;
    let follower =
        store.command(&["snapshot", "logs", "app", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(ended(follower).await, "");
}

#[tokio::test]
async fn channels_have_a_history() {
    let store = Store::new();
    let id = store.add("app", State::Active).await;
    let (name, channel) = ("app".parse().unwrap(), "prod".parse().unwrap());
    store.catalog.move_channel(&name, &channel, id, kiln::catalog::Way::On, now()).await.unwrap();
    assert_eq!(store.json(&["snapshot", "history", "app"])["moves"][0]["snapshot"], json!(id.to_string()));
    assert_eq!(store.json(&["snapshot", "show", "app:prod"])["channels"], json!(["prod"]));
    let list = store.text(&["snapshot", "list"]);
    assert!(list.contains("prod"), "{list}");
}
