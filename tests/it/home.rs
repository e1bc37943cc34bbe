//! A place in which the real program runs: a home, a store, a tree.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what the tests share fails as the tests do")]

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use kiln::base::fs::{Existing, write_durably};
use serde_json::Value;

/// A home, a store and a tree of their own.
pub(super) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(super) fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        home.write("tree/README.md", "# app\n");
        home.write("tree/src/main.rs", "fn main() {}\n");
        home.write("tree/src/empty", "");
        home.write("tree/big", &"0123456789abcdef".repeat(40_000));
        symlink("src/main.rs", home.path("tree/link")).unwrap();
        fs::hard_link(home.path("tree/README.md"), home.path("tree/src/again")).unwrap();
        fs::set_permissions(home.path("tree/src/main.rs"), fs::Permissions::from_mode(0o755)).unwrap();
        home
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_durably(&path, text.as_bytes(), Existing::Replace).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Writes bytes that neither compress nor repeat.
    pub(super) fn write_noise(&self, name: &str, bytes: u64) {
        let mut noise = fs::File::open("/dev/urandom").unwrap().take(bytes);
        std::io::copy(&mut noise, &mut fs::File::create(self.path(name)).unwrap()).unwrap();
    }

    pub(super) fn command_of(&self, program: &OsStr, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("KILN_STORE", self.path("store"))
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_kiln").as_ref(), words)
    }

    pub(super) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(super) fn text(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[words, &["--json"]].concat())).unwrap()
    }

    pub(super) fn save(&self, name: &str) -> String {
        let saved = self.json(&["workspace", "save", "tree", "--name", name]);
        saved["revision"].as_str().unwrap().to_owned()
    }

    /// Returns the ids of a workspace's revisions, the oldest first.
    pub(super) fn revisions(&self, name: &str) -> Vec<String> {
        let listed = self.json(&["workspace", "list", name]);
        let revisions = listed["revisions"].as_array().unwrap().iter();
        revisions.map(|revision| revision["revision"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs a shell's line in which `kiln` is the program; returns its output.
    pub(super) fn shell(&self, line: &str) -> Output {
        let line = format!("set -o pipefail; kiln() {{ '{}' \"$@\"; }}; {line}", env!("CARGO_BIN_EXE_kiln"));
        self.command_of("bash".as_ref(), &["-c", &line]).output().unwrap()
    }
}

/// Runs a command that fails; returns its exit code and the error that it printed as JSON.
pub(super) fn error_of(home: &Home, words: &[&str]) -> (i32, Value) {
    let output = home.run(&[words, &["--json"]].concat());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let document: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {stdout}"));
    (output.status.code().unwrap(), document["error"].clone())
}
