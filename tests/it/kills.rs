//! `kiln workspace save` killed at any moment: what was saved before stays, and the next save works.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

struct Stage {
    home: tempfile::TempDir,
}

impl Stage {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(words)
            .env("KILN_STORE", self.path("store"))
            .env("HOME", self.path("."))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_STATE_HOME", self.path("state"))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let output = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path("tree").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(bytes).unwrap();
    }

    fn save(&self) -> String {
        let output = self.run(&["workspace", "save", "tree", "--name", "w", "--json"]);
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        view["revision"].as_str().unwrap().to_owned()
    }

    /// Checks that a revision comes back as it was.
    fn comes_back(&self, revision: &str, expected: &BTreeMap<PathBuf, Vec<u8>>) {
        self.run(&["workspace", "restore", revision, "back"]);
        assert_eq!(contents(&self.path("back")), *expected, "{revision}");
        fs::remove_dir_all(self.path("back")).unwrap();
    }
}

fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut next) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                next.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn noise(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.u8(..)).collect()
}

#[test]
fn a_save_that_is_killed_at_any_moment_harms_nothing() {
    let stage = Stage { home: tempfile::tempdir().unwrap() };
    let mut random = fastrand::Rng::with_seed(1);
    for n in 0..40 {
        let length = random.usize(0..120_000);
        stage.write(&format!("d{}/file-{n}", n % 5), &noise(&mut random, length));
    }
    stage.run(&["store", "init"]);
    let first = stage.save();
    let before = contents(&stage.path("tree"));
    stage.write("large", &noise(&mut random, 1 << 20));
    let begin = Instant::now();
    stage.save();
    let usual = begin.elapsed();
    let mut killed = 0;
    for round in 0..200 {
        if killed >= 24 {
            break;
        }
        let large = noise(&mut random, 1 << 20);
        stage.write("large", &large);
        let length = random.usize(0..50_000);
        stage.write(&format!("new-{round}"), &noise(&mut random, length));
        let mut child = stage.command(&["workspace", "save", "tree", "--name", "w"]).spawn().unwrap();
        std::thread::sleep(usual.mul_f64(random.f64()));
        // Of `Child`, this is SIGKILL.
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        if round % 6 == 5 {
            stage.comes_back(&format!("w@{first}"), &before);
            let newest = stage.save();
            stage.comes_back(&format!("w@{newest}"), &contents(&stage.path("tree")));
        }
    }
    assert!(killed >= 24, "{killed}");
    stage.comes_back(&format!("w@{first}"), &before);
    stage.run(&["store", "check", "--read-data"]);
}

#[test]
fn a_restore_that_is_killed_leaves_nothing_under_the_final_name() {
    let stage = Stage { home: tempfile::tempdir().unwrap() };
    let mut random = fastrand::Rng::with_seed(2);
    for n in 0..300 {
        stage.write(&format!("file-{n}"), &noise(&mut random, 20_000));
    }
    stage.run(&["store", "init"]);
    let revision = format!("w@{}", stage.save());
    let before = contents(&stage.path("tree"));
    let begin = Instant::now();
    stage.comes_back(&revision, &before);
    let usual = begin.elapsed();
    for _ in 0..10 {
        let mut child = stage.command(&["workspace", "restore", &revision, "back"]).spawn().unwrap();
        std::thread::sleep(usual.mul_f64(random.f64()));
        child.kill().unwrap();
        let _ended = child.wait().unwrap();
        if stage.path("back").exists() {
            assert_eq!(contents(&stage.path("back")), before);
            fs::remove_dir_all(stage.path("back")).unwrap();
        }
    }
    stage.comes_back(&revision, &before);
}
