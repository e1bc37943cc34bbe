//! How the programs answer: exit codes, errors, JSON, streams.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what the tests share fails as the tests do")]

use std::path::Path;
use std::process::{Command as Process, Stdio};

use assert_cmd::Command;
use serde_json::Value;

/// A home of its own, an engine that is not there, and nothing of the environment that runs the tests.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::cargo_bin(name).unwrap();
        for variable in [
            "CLICOLOR_FORCE",
            "GITHUB_STEP_SUMMARY",
            "KILN_CONFIG",
            "KILN_STORE",
            "NO_COLOR",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
        ] {
            command.env_remove(variable);
        }
        command
            .env("HOME", self.path())
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .current_dir(self.path());
        command
    }

    fn kiln(&self, words: &[&str]) -> Command {
        let mut command = self.program("kiln");
        command.args(words);
        command
    }

    fn write(&self, path: &str, text: &str) -> String {
        let path = self.path().join(path);
        kiln::base::fs::write_durably(&path, text.as_bytes(), kiln::base::fs::Existing::Replace).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Runs a command that fails; returns its exit code and the error that it printed as JSON.
fn error_of(mut command: Command) -> (i32, Value) {
    let output = command.arg("--json").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    (output.status.code().unwrap(), document["error"].clone())
}

#[test]
fn wrong_input_has_its_exit_code_its_kind_and_a_hint() {
    let home = Home::new();
    home.write("file", "");
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["build", "litelm"], 4, "not_found", "did you mean `litellm`?"),
        (&["build", "litellm", "--set", "prism=true"], 2, "invalid", "did you mean `prisma`?"),
        (&["build", "litellm", "--profile", "daytna"], 2, "invalid", "did you mean `daytona`?"),
        (&["build", "litellm", "--secret", "id=x,env=MISSING"], 2, "invalid", ""),
        (&["build", "litellm", "--store", "s3://bucket/prefix"], 2, "invalid", ""),
        (&["snapshot", "list", "--store", "s3://bucket/prefix"], 2, "invalid", ""),
        (&["snapshot", "list", "--store", "file/store"], 6, "unavailable", ""),
        (&["snapshot", "show", "nothing"], 4, "not_found", "`kiln snapshot list` shows what there is"),
        (&["template", "show", "litelm"], 4, "not_found", "did you mean `litellm`?"),
        (&["template", "render", "./missing"], 4, "not_found", ""),
        (&["build", "litellm"], 6, "unavailable", "start a Docker Engine"),
        (&["snapshot", "show", "a b"], 2, "invalid", "try `--help`"),
        (&["build"], 2, "invalid", "try `--help`"),
        (&["bild"], 2, "invalid", "similar subcommand"),
        (&["build", "litellm", "--cpu", "many"], 2, "invalid", "try `--help`"),
        (&[], 2, "invalid", "try `--help`"),
    ];
    for (words, code, kind, hint) in cases {
        let (found, error) = error_of(home.kiln(words));
        assert_eq!((found, error["kind"].as_str()), (*code, Some(*kind)), "{words:?}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{words:?}: {error}");
        assert!(error["causes"].is_array() && error.get("hint").is_some(), "{words:?}: {error}");
        assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{words:?}: {error}");
    }
}

#[test]
fn the_json_error_of_a_missing_template_is_a_contract() {
    let home = Home::new();
    let (_, error) = error_of(home.kiln(&["template", "show", "litelm"]));
    insta::assert_json_snapshot!(error, @r#"
    {
      "causes": [],
      "hint": "did you mean `litellm`?",
      "kind": "not_found",
      "message": "there is no template `litelm`"
    }
    "#);
}

#[test]
fn an_error_for_people_goes_to_standard_error_without_escape_codes() {
    let home = Home::new();
    let output = home.kiln(&["template", "show", "litelm"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "error: there is no template `litelm`\nhint: did you mean `litellm`?\n");
    let forced = home.kiln(&["template", "show", "litelm", "--color", "always"]).output().unwrap();
    assert!(String::from_utf8(forced.stderr).unwrap().contains('\u{1b}'));
}

#[test]
fn a_wrong_configuration_is_named() {
    let home = Home::new();
    let path = home.write("kiln.toml", "[build]\nmin_fre = \"1GiB\"\n");
    let (code, error) = error_of(home.kiln(&["snapshot", "list"]));
    assert_eq!(code, 2);
    assert!(error["message"].as_str().unwrap().contains("kiln.toml"), "{path}: {error}");
    assert!(error["causes"][0].as_str().unwrap().contains("min_fre"), "{error}");
}

#[test]
fn an_empty_store_lists_nothing() {
    let home = Home::new();
    let listed = home.kiln(&["snapshot", "list", "--json"]).output().unwrap();
    assert!(listed.status.success());
    assert_eq!(
        serde_json::from_slice::<Value>(&listed.stdout).unwrap(),
        serde_json::json!({ "snapshots": [] })
    );
    let human = home.kiln(&["snapshot", "list"]).output().unwrap();
    assert!(human.stdout.is_empty() && !human.stderr.is_empty());
    let quiet = home.kiln(&["snapshot", "list", "--quiet"]).output().unwrap();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

#[test]
fn the_store_is_taken_from_the_option_then_the_environment() {
    let home = Home::new();
    home.kiln(&["snapshot", "list"]).env("KILN_STORE", home.path().join("env")).assert().success();
    assert!(home.path().join("env/format.json").exists());
    home.kiln(&["snapshot", "list", "--store", "own"])
        .env("KILN_STORE", home.path().join("other"))
        .assert()
        .success();
    assert!(home.path().join("own/format.json").exists() && !home.path().join("other").exists());
}

#[test]
fn templates_and_pages_need_no_store() {
    let home = Home::new();
    for words in [&["template", "list"][..], &["template", "show", "litellm"], &["completions", "bash"]] {
        home.kiln(words).env("KILN_STORE", "s3://nowhere").assert().success();
    }
    assert!(!home.path().join(".local").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new();
    for words in ["template render litellm", "completions bash", "snapshot --help"] {
        let line = format!("set -o pipefail; '{}' {words} | true", env!("CARGO_BIN_EXE_kiln"));
        let output = Process::new("bash")
            .args(["-c", &line])
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.is_empty(), "{words}: {:?} {stderr}", output.status);
    }
}

#[test]
fn a_template_is_rendered_to_standard_output_or_to_a_folder() {
    let home = Home::new();
    let printed = home.kiln(&["template", "render", "litellm"]).output().unwrap();
    assert!(printed.status.success());
    let dockerfile = String::from_utf8(printed.stdout).unwrap();
    assert!(dockerfile.contains("\nFROM debian:bookworm-slim\n"), "{dockerfile}");
    home.kiln(&["template", "render", "litellm", "-o", "out"]).assert().success();
    assert_eq!(std::fs::read_to_string(home.path().join("out/Dockerfile")).unwrap(), dockerfile);
    let (code, _) = error_of(home.kiln(&["template", "render", "litellm", "--ca-cert", "missing.crt"]));
    assert_eq!(code, 2);
}

#[test]
fn doctor_tells_what_is_missing_and_what_to_do() {
    let home = Home::new();
    let output = home.kiln(&["doctor", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["works"], Value::Bool(false));
    let lines = report["lines"].as_array().unwrap();
    let engine = lines.iter().find(|line| line["subject"] == "engine").unwrap();
    assert_eq!(engine["verdict"], "fail");
    assert!(engine["advice"].as_str().unwrap().contains("DOCKER_HOST"), "{engine}");
    let store = lines.iter().find(|line| line["subject"] == "store").unwrap();
    assert_eq!(store["verdict"], "ok", "{store}");
}

#[test]
fn build_snapshot_answers_as_kiln_build_does() {
    let home = Home::new();
    let mut command = home.program("build-snapshot");
    command.arg("litelm");
    let (code, error) = error_of(command);
    assert_eq!((code, error["hint"].as_str()), (4, Some("did you mean `litellm`?")));
}

#[test]
fn outputs_of_an_earlier_run_are_gone_when_a_build_fails() {
    let home = Home::new();
    let file = home.write("outputs", "snapshot=old@01\n");
    home.kiln(&["build", "litellm", "--output", &file]).assert().code(6);
    assert!(!Path::new(&file).exists());
}

#[test]
fn the_story_in_json_is_one_event_a_line() {
    let home = Home::new();
    let output = home.kiln(&["build", "litellm", "--log", "json", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["at"].is_string() && event["event"].is_string(), "{line}");
    }
}

#[test]
fn lint_tells_lines_and_fails_at_the_denied_severity() {
    let home = Home::new();
    home.write(
        "app/Dockerfile",
        "FROM debian:bookworm-slim\nENV API_TOKEN=abcdefghijkl\nCMD [\"sleep\", \"1\"]\n",
    );
    let denied = home.kiln(&["template", "lint", "app/Dockerfile", "--deny", "warning"]).output().unwrap();
    let text = String::from_utf8(denied.stdout).unwrap();
    assert_eq!(denied.status.code(), Some(2), "{text}");
    assert!(text.contains("app/Dockerfile:2: warning: "), "{text}");
    home.kiln(&["template", "lint", "app/Dockerfile"]).assert().success();
    let json = home.kiln(&["template", "lint", "app/Dockerfile", "--json"]).output().unwrap();
    let findings: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(
        findings["findings"].as_array().unwrap().iter().any(|finding| finding["line"] == 2),
        "{findings}"
    );
    let sarif = home.kiln(&["template", "lint", "app/Dockerfile", "--format", "sarif"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&sarif.stdout).unwrap()["version"], "2.1.0");
    home.write("wrong/Dockerfile", "FROM debian:bookworm-slim\nRUNN x\n");
    let (code, error) = error_of(home.kiln(&["template", "lint", "wrong/Dockerfile"]));
    assert!(code == 2 && error["message"].as_str().unwrap().contains("line 2"), "{error}");
}

#[test]
fn the_shipped_templates_are_clean() {
    let home = Home::new();
    for template in ["litellm", "crabbox-ready", "opencode", "sandbox"] {
        let output = home.kiln(&["template", "lint", template, "--deny", "warning"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
