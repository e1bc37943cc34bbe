//! A store, a state folder and the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A user with a store of their own.
pub(super) struct User {
    pub(super) home: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// How a run of the program ended.
pub(super) struct Run {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl User {
    /// A user who has never run the program.
    pub(super) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        Self { home: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// The user whose snapshots stay between runs of the tests, outside the clone.
    pub(super) fn lasting() -> Self {
        let cache =
            std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.cache");
        Self { home: PathBuf::from(cache).join("kiln/e2e"), _temporary: None }
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(arguments)
            .env("KILN_STORE", self.home.join("store"))
            .env("XDG_STATE_HOME", self.home.join("state"))
            .env_remove("GITHUB_STEP_SUMMARY")
            .env_remove("GITHUB_OUTPUT")
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Runs `kiln build` with the build CAs of this host, where the template takes any, and its JSON answer.
    pub(super) fn build(&self, template: &str, arguments: &[&str]) -> Run {
        let mut all = vec!["build", template, "--json", "--log", "plain"];
        let cas = std::env::var("KILN_TEST_BUILD_CA").unwrap_or_default();
        if !cas.is_empty() && !template.contains('/') {
            all.extend(["--build-ca", &cas]);
        }
        all.extend(arguments);
        self.run(&all)
    }

    pub(super) fn show(&self, reference: &str) -> Value {
        self.run(&["snapshot", "show", reference, "--json"]).ok().json()
    }

    pub(super) fn snapshots(&self) -> Vec<Value> {
        let listed = self.run(&["snapshot", "list", "--all", "--json"]).ok().json();
        listed["snapshots"].as_array().unwrap().clone()
    }

    /// Removes every snapshot of this user, so that a test leaves the engine as it was.
    pub(super) fn clean(&self) {
        for snapshot in self.snapshots() {
            let reference =
                format!("{}@{}", snapshot["name"].as_str().unwrap(), snapshot["id"].as_str().unwrap());
            self.run(&["snapshot", "remove", &reference]);
        }
    }

    /// Returns this user's store id.
    pub(super) fn store_id(&self) -> String {
        let format = std::fs::read_to_string(self.home.join("store/format.json")).unwrap();
        serde_json::from_str::<Value>(&format).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Returns what this user's store has on the engine: images and containers.
    pub(super) fn leftovers(&self) -> String {
        let label = format!("label=kiln.store={}", self.store_id());
        let images = docker(&["images", "--quiet", "--all", "--filter", &label]);
        let containers = docker(&["ps", "--quiet", "--all", "--filter", &label]);
        format!("{images}{containers}")
    }
}

impl Run {
    pub(super) fn of(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        Self {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Stops the test unless the program succeeded.
    #[track_caller]
    pub(super) fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub(super) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Stops the test unless the error says all of these.
    #[track_caller]
    pub(super) fn says(self, words: &[&str]) -> Self {
        for word in words {
            let found = self.stdout.contains(word) || self.stderr.contains(word);
            assert!(found, "`{word}` is not in\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        }
        self
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// Runs docker and returns what it prints; stops the test when it fails.
#[track_caller]
pub(super) fn docker(arguments: &[&str]) -> String {
    let run = docker_run(arguments);
    assert_eq!(run.code, 0, "docker {arguments:?}: {}{}", run.stdout, run.stderr);
    run.stdout
}

pub(super) fn docker_run(arguments: &[&str]) -> Run {
    Run::of(Command::new("docker").args(arguments).output().unwrap())
}

/// A folder with a Dockerfile.
pub(super) fn folder(dockerfile: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("kiln-test-").tempdir().unwrap();
    write(&folder.path().join("Dockerfile"), dockerfile);
    folder
}

pub(super) fn write(path: &Path, text: &str) {
    kiln::base::fs::write_durably(path, text.as_bytes(), kiln::base::fs::Existing::Replace).unwrap();
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until `done` says so; stops the test when it never does.
#[track_caller]
pub(super) fn wait_for(what: &str, most: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < most, "{what} did not come within {most:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The image's reference on this engine.
pub(super) fn tag(snapshot: &Value) -> String {
    snapshot["places"][0]["tag"].as_str().unwrap_or_else(|| panic!("{snapshot}")).to_owned()
}

/// Base of the small images that tests build.
pub(super) const BASE: &str = "debian:bookworm-slim";
