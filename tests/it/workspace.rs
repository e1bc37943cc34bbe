//! `kiln workspace` and `kiln store`: the journey of a workspace through the real program.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what the tests share fails as the tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kiln::base::fs::{Existing, write_durably};
use serde_json::{Value, json};

use super::home::{Home, error_of};

/// Everything of a tree that a save keeps, by path.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    fn look(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
        let meta = fs::symlink_metadata(at).unwrap();
        let content = if meta.is_file() {
            format!("{:?}", fs::read(at).unwrap())
        } else if meta.is_symlink() {
            format!("{:?}", fs::read_link(at).unwrap())
        } else {
            for entry in fs::read_dir(at).unwrap() {
                look(root, &entry.unwrap().path(), found);
            }
            String::new()
        };
        let said = format!(
            "{:o} {}:{} {}.{} links {} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            if meta.is_dir() { 0 } else { meta.nlink() }
        );
        found.insert(at.strip_prefix(root).unwrap().to_owned(), said);
    }
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    found
}

/// Replaces what differs from run to run.
fn redacted(mut document: Value, fields: &[&str]) -> Value {
    for field in fields {
        let value = document.get_mut(*field).unwrap_or_else(|| panic!("{field}"));
        *value = json!(format!("[{field}]"));
    }
    document
}

#[test]
fn what_is_saved_comes_back_as_it_was() {
    let home = Home::new();
    let id = home.save("app");
    for (reference, target) in [("app", "newest"), (&format!("app@{id}"), "named"), (&id[..12], "by-id")] {
        let said = home.text(&["workspace", "restore", reference, target]);
        assert!(said.contains(&format!("app@{id} restored")), "{said}");
        assert_eq!(seen(&home.path(target)), seen(&home.path("tree")), "{reference}");
    }
}

#[test]
fn the_answer_of_a_save_is_a_contract() {
    let home = Home::new();
    let first = home.json(&["workspace", "save", "tree", "--name", "app", "--label", "turn=1"]);
    insta::assert_json_snapshot!(
        redacted(first.clone(), &["revision", "reference", "seconds", "stored_bytes"]),
        @r#"
    {
      "bytes": 640019,
      "directories": 2,
      "entries": 8,
      "files": 4,
      "new_bytes": 377875,
      "packs": 2,
      "parent": null,
      "reference": "[reference]",
      "revision": "[revision]",
      "seconds": "[seconds]",
      "stored_bytes": "[stored_bytes]",
      "unreadable": {
        "count": 0,
        "first": []
      },
      "unsettled": {
        "count": 0,
        "first": []
      },
      "workspace": "app"
    }
    "#
    );
    assert!(first["stored_bytes"].as_u64().unwrap() > 0 && first["seconds"].as_f64().unwrap() > 0.0);
    let second = home.json(&["workspace", "save", "tree", "--name", "app"]);
    assert_eq!((&second["parent"], &second["new_bytes"]), (&first["revision"], &json!(0)));
    let restored = home.json(&["workspace", "restore", "app", "there"]);
    insta::assert_json_snapshot!(
        redacted(restored, &["revision", "reference", "seconds", "fetched_bytes"]),
        @r#"
    {
      "bytes": 640019,
      "directories": 2,
      "entries": 8,
      "fetched_bytes": "[fetched_bytes]",
      "files": 4,
      "reference": "[reference]",
      "revision": "[revision]",
      "seconds": "[seconds]",
      "shortfalls": [],
      "workspace": "app"
    }
    "#
    );
}

#[test]
fn a_tar_stream_goes_in_and_out() {
    let home = Home::new();
    let saved = home.shell("tar -c -C tree . | kiln workspace save - --name app --json");
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let saved: Value = serde_json::from_slice(&saved.stdout).unwrap();
    assert_eq!(saved["files"], 4, "a further name of a file is not counted: {saved}");
    for (format, word) in [("", ""), ("--format tar.gz", "z"), ("--format tar.zst", "")] {
        let unpack = if format.ends_with("zst") { "--zstd" } else { "" };
        let line = format!("kiln workspace restore app - {format} | tar -d{word} {unpack} -f - -C tree");
        let compared = home.shell(&line);
        let said = String::from_utf8_lossy(&compared.stdout);
        // A host without the zstd program cannot tell.
        if !String::from_utf8_lossy(&compared.stderr).contains("zstd: Cannot exec") {
            assert!(compared.status.success() && said.is_empty(), "{line}: {said} {compared:?}");
        }
    }
}

#[test]
fn a_stream_has_standard_output_for_itself() {
    let home = Home::new();
    home.save("app");
    let output = home.run(&["workspace", "restore", "app", "-", "--log", "plain"]);
    assert!(output.status.success());
    assert!(output.stdout.len() > 600_000 && output.stdout.len().is_multiple_of(512));
    let story = String::from_utf8(output.stderr).unwrap();
    assert!(story.contains(" restored\n"), "{story}");
    let quiet = home.run(&["workspace", "restore", "app", "-", "--quiet"]);
    assert!(quiet.stderr.is_empty() && quiet.stdout == output.stdout, "the same bytes each time");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new();
    home.save("app");
    for line in ["kiln workspace restore app - | head -c 1", "kiln workspace restore app - --quiet | true"] {
        let output = home.shell(&format!("{line} > /dev/null"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !stderr.contains("error"), "{line}: {output:?}");
    }
}

#[test]
fn wrong_input_has_its_exit_code_its_kind_and_a_hint() {
    let home = Home::new();
    home.write("file", "");
    home.save("app");
    home.write(
        "newer/format.json",
        r#"{"kind":"kiln-store","version":99,"id":"01jqz3k5p8aaaaaaaaaaaaaaaa","created":"2026-01-01T00:00:00Z"}"#,
    );
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["save", "missing", "--name", "x"], 4, "not_found", ""),
        (&["save", "-", "--name", "x", "--no-ignore-files"], 2, "invalid", "--exclude"),
        (&["save", "docker://box/work", "--name", "x", "--one-file-system"], 2, "invalid", "--exclude"),
        (&["restore", "app", "docker://box/work", "--special-bits"], 2, "invalid", "as it was saved"),
        (&["restore", "app", "docker://box/work", "--devices"], 2, "invalid", "as it was saved"),
        (&["save", "file", "--name", "x"], 2, "invalid", ""),
        (&["save", "tree"], 2, "invalid", "--help"),
        (&["save", "tree", "--name", "a b"], 2, "invalid", "--help"),
        (&["save", "tree", "--name", "x", "--level", "20"], 2, "invalid", "--help"),
        (&["save", "tree", "--name", "x", "--exclude", "a[z-b]"], 2, "invalid", ""),
        (&["save", "tree", "--name", "x", "--max-entries", "2"], 8, "limit", "--exclude"),
        (&["save", "tree", "--name", "x", "--max-bytes", "1KiB"], 8, "limit", "--exclude"),
        (&["save", "-", "--name", "x", "--max-bytes", "1"], 2, "invalid", ""),
        (&["save", "tree", "--name", "x", "--store", "file/store"], 6, "unavailable", ""),
        (&["save", "tree", "--name", "x", "--store", "newer"], 2, "invalid", "newer Kiln"),
        (&["restore", "ap", "there"], 4, "not_found", "did you mean `app`?"),
        (&["restore", "app@01abcdefgh", "there"], 4, "not_found", "did you mean `app@"),
        (&["restore", "a/b", "there"], 2, "invalid", "--help"),
        (&["restore", "app", "tree"], 5, "conflict", "--update"),
        (&["restore", "app", "there", "--max-entries", "2"], 8, "limit", ""),
        (&["restore", "app", "there", "--max-bytes", "1KiB"], 8, "limit", ""),
        (&["restore", "app", "there", "--format", "tar"], 2, "invalid", "`-`"),
        (&["restore", "app", "there", "--owner", "nobody"], 2, "invalid", "--help"),
        (&["restore", "app", "-"], 2, "invalid", "--log json"),
        (&["restore", "app", "-", "--update"], 2, "invalid", ""),
        (&["save", "docker://box", "--name", "x"], 2, "invalid", "--help"),
        (&["save", "docker://box/home", "--name", "x"], 6, "unavailable", ""),
        (&["restore", "app", "docker://box/home"], 6, "unavailable", ""),
        (&["show", "ap"], 4, "not_found", "did you mean `app`?"),
        (&["unpin", "nothing"], 4, "not_found", "kiln workspace list"),
        (&["cat", "app", "../x"], 2, "invalid", ""),
    ];
    for (words, code, kind, hint) in cases {
        let words = [&["workspace"], *words].concat();
        let (found, error) = error_of(&home, &words);
        assert_eq!((found, error["kind"].as_str()), (*code, Some(*kind)), "{words:?}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{words:?}: {error}");
        assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{words:?}: {error}");
    }
    assert!(!home.path("there").exists());
}

#[test]
fn excludes_labels_and_includes_are_heeded() {
    let home = Home::new();
    home.write("tree/.kilnignore", "big\n");
    home.write("tree/target/out", "x");
    home.text(&["workspace", "save", "tree", "--name", "app", "--exclude", "target"]);
    home.text(&["workspace", "restore", "app", "there"]);
    assert!(!home.path("there/big").exists() && !home.path("there/target").exists());
    assert!(home.path("there/.kilnignore").exists());
    home.text(&["workspace", "save", "tree", "--name", "whole", "--no-ignore-files"]);
    home.text(&["workspace", "restore", "whole", "part", "--include", "big", "--include", "src/main.rs"]);
    let names: Vec<PathBuf> = seen(&home.path("part")).into_keys().collect();
    assert_eq!(names, ["", "big", "src", "src/main.rs"].map(PathBuf::from));
}

/// What the tests of an ordinary user need: a copy of the program that it may run, in a home that it may write.
fn as_ordinary_user(home: &Home, words: &[&str]) -> Output {
    let program = home.path("kiln");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
        fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = home.command_of(program.as_os_str(), words);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command.output().unwrap()
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_is_saved() {
    let home = Home::new();
    fs::set_permissions(home.path("tree/big"), fs::Permissions::from_mode(0o000)).unwrap();
    let output = as_ordinary_user(&home, &["workspace", "save", "tree", "--name", "app", "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("warning: cannot read `big`"), "{stderr}");
    let saved: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(saved["unreadable"]["count"], 1);
    assert_eq!(saved["unreadable"]["first"][0]["path"], "big");
    let quiet = as_ordinary_user(&home, &["workspace", "save", "tree", "--name", "app", "--quiet"]);
    assert!(String::from_utf8_lossy(&quiet.stdout).contains("1 files could not be read"), "{quiet:?}");
    assert!(String::from_utf8_lossy(&quiet.stderr).starts_with("warning: "), "{quiet:?}");
}

#[test]
fn what_cannot_be_set_is_said_and_is_no_failure() {
    let home = Home::new();
    let saved = as_ordinary_user(&home, &["workspace", "save", "tree", "--name", "app"]);
    assert!(saved.status.success(), "{saved:?}");
    let words = ["workspace", "restore", "app", "there", "--owner", "1:1", "--json"];
    let output = as_ordinary_user(&home, &words);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(restored["shortfalls"][0]["count"].as_u64().unwrap() > 0, "{restored}");
}

#[test]
fn an_update_makes_a_directory_equal_to_a_revision() {
    let home = Home::new();
    home.save("app");
    home.text(&["workspace", "restore", "app", "there"]);
    home.write("there/src/main.rs", "changed");
    home.write("there/new", "x");
    fs::remove_file(home.path("there/link")).unwrap();
    let updated = home.json(&["workspace", "restore", "app", "there", "--update"]);
    assert_eq!(seen(&home.path("there")), seen(&home.path("tree")), "{updated}");
    assert!(updated["made"].as_u64().unwrap() > 0 && updated["removed"].as_u64().unwrap() > 0, "{updated}");
    let again = home.text(&["workspace", "restore", "app", "there", "--update"]);
    assert!(again.contains(" restored by an update\n"), "{again}");
}

#[test]
fn color_is_for_those_who_want_it() {
    let home = Home::new();
    let words = ["workspace", "save", "tree", "--name", "app"];
    for (variables, colored) in [
        (&[("CLICOLOR_FORCE", "1")][..], true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        (&[], false),
    ] {
        let output = home.command(&words).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.stdout.contains(&0x1b), colored, "{variables:?}");
    }
}

#[test]
fn the_story_in_json_is_one_event_a_line() {
    let home = Home::new();
    let output = home.run(&["workspace", "save", "tree", "--name", "app", "--log", "json"]);
    let story = String::from_utf8(output.stderr).unwrap();
    let events: Vec<Value> = story.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events[0]["job"]), (&json!("began"), &json!("save")), "{story}");
    assert!(events.iter().all(|event| event["at"].is_string()), "{story}");
}

/// A job that has begun and takes a while, with its standard error.
fn begun(mut command: Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child =
        command.args(["--log", "json"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut story = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"began\"") {
        line.clear();
        assert!(story.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    (child, story)
}

/// Sends Ctrl-C; returns the exit code and how long the end took.
fn interrupted(mut child: Child) -> (Option<i32>, Duration) {
    let pid = rustix::process::Pid::from_child(&child);
    let sent = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    (status.code(), sent.elapsed())
}

/// A second, and half of one for a machine that does other things, too.
const AT_ONCE: Duration = Duration::from_millis(1_500);

#[test]
fn ctrl_c_ends_a_save_within_a_second_and_nothing_is_half_saved() {
    let home = Home::new();
    home.save("app");
    home.write_noise("tree/noise", 96 << 20);
    for limit in [None, Some("--limit-rate=64KiB")] {
        let words = ["workspace", "save", "tree", "--name", "app"];
        let (child, _story) = begun({
            let mut command = home.command(&words);
            command.args(limit);
            command
        });
        std::thread::sleep(Duration::from_millis(300));
        let (code, took) = interrupted(child);
        assert_eq!(code, Some(130), "{limit:?}");
        assert!(took < AT_ONCE, "{limit:?}: {took:?}");
    }
    assert_eq!(fs::read_dir(home.path("store/rev/app")).unwrap().count(), 1);
    home.save("app");
    home.text(&["workspace", "restore", "app", "there", "--quiet"]);
    assert_eq!(fs::read(home.path("there/noise")).unwrap(), fs::read(home.path("tree/noise")).unwrap());
}

#[test]
fn ctrl_c_ends_a_restore_within_a_second_and_leaves_no_half_tree() {
    let home = Home::new();
    home.write_noise("tree/noise", 96 << 20);
    home.save("app");
    fs::create_dir(home.path("in")).unwrap();
    for target in ["in/there", "-"] {
        let (child, _story) = begun(home.command(&["workspace", "restore", "app", target]));
        let (code, took) = interrupted(child);
        assert_eq!(code, Some(130), "{target}");
        assert!(took < AT_ONCE, "{target}: {took:?}");
    }
    assert_eq!(fs::read_dir(home.path("in")).unwrap().count(), 0);
}

#[test]
fn ctrl_c_ends_a_save_that_waits_for_its_stream() {
    let home = Home::new();
    let mut command = home.command(&["workspace", "save", "-", "--name", "app"]);
    command.stdin(Stdio::piped());
    let (mut child, _story) = begun(command);
    let held = child.stdin.take();
    let (code, took) = interrupted(child);
    assert_eq!(code, Some(130));
    assert!(took < AT_ONCE, "{took:?}");
    drop(held);
}

#[test]
fn revisions_are_listed_shown_copied_pinned_and_removed() {
    let home = Home::new();
    let first = home.save("app");
    let second = home.json(&["workspace", "save", "tree", "--name", "app", "--label", "turn=2"]);
    let second = second["revision"].as_str().unwrap();
    let copied = home.json(&["workspace", "copy", &first, "fork"]);
    assert_eq!((&copied["workspace"], &copied["parent"]), (&json!("fork"), &json!(first)));
    assert_eq!(copied["uploaded_bytes"], 0);

    let listed = home.json(&["workspace", "list"]);
    let names: Vec<_> =
        listed["workspaces"].as_array().unwrap().iter().map(|row| &row["workspace"]).collect();
    assert_eq!(names, [&json!("app"), &json!("fork")]);
    let of_app = home.json(&["workspace", "list", "app"]);
    let ids: Vec<_> = of_app["revisions"].as_array().unwrap().iter().map(|row| &row["revision"]).collect();
    assert_eq!(ids, [&json!(first), &json!(second)]);
    let table = home.text(&["workspace", "list", "app"]);
    assert!(table.starts_with("REVISION ") && table.contains(&format!("app@{}", &second[..10])), "{table}");
    assert!(table.contains("turn=2"), "{table}");
    assert!(home.text(&["workspace", "list"]).starts_with("WORKSPACE "));

    let shown = home.json(&["workspace", "show", "app"]);
    let fields = ["revision", "reference", "parent", "created", "source", "pack_bytes", "last_used"];
    insta::assert_json_snapshot!(redacted(shown, &fields), @r#"
    {
      "bytes": 640019,
      "created": "[created]",
      "data_bytes": 640019,
      "directories": 2,
      "entries": 8,
      "files": 4,
      "labels": {
        "turn": "2"
      },
      "last_used": "[last_used]",
      "pack_bytes": "[pack_bytes]",
      "packs": 2,
      "parent": "[parent]",
      "pin_reason": null,
      "pinned": false,
      "reference": "[reference]",
      "revision": "[revision]",
      "source": "[source]",
      "unsettled": 0,
      "workspace": "app"
    }
    "#);
    assert!(home.text(&["workspace", "show", &first]).contains("tree"));

    assert_eq!(home.json(&["workspace", "pin", &first, "--reason", "kept"])["pin_reason"], "kept");
    let (code, error) = error_of(&home, &["workspace", "remove", &first]);
    assert_eq!((code, error["kind"].as_str()), (5, Some("conflict")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("kept"), "{error}");
    assert_eq!(home.json(&["workspace", "unpin", &first])["pinned"], false);

    let (code, error) = error_of(&home, &["workspace", "remove", "app"]);
    assert_eq!((code, error["kind"].as_str()), (2, Some("invalid")), "{error}");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("--all app") && hint.contains(&format!("app@{second}")), "{error}");
    let removed = home.json(&["workspace", "remove", &first]);
    assert_eq!(removed["removed"], json!([format!("app@{first}")]));
    home.text(&["workspace", "remove", "--all", "app"]);
    assert_eq!(home.json(&["workspace", "list", "app"])["revisions"], json!([]));
    home.text(&["workspace", "restore", "fork", "there"]);
    assert_eq!(seen(&home.path("there")), seen(&home.path("tree")));
    assert_eq!(error_of(&home, &["workspace", "remove"]).0, 2);
    assert_eq!(error_of(&home, &["workspace", "remove", "fork", "--all", "fork"]).0, 2);
}

#[test]
fn the_entries_of_a_revision_are_lines() {
    let home = Home::new();
    home.save("app");
    let lines = home.text(&["workspace", "files", "app"]);
    assert_eq!(lines, ".\nREADME.md\nbig\nlink\nsrc\nsrc/again\nsrc/empty\nsrc/main.rs\n");
    let long = home.text(&["workspace", "files", "app", "--long"]);
    assert_eq!(long.lines().count(), 8);
    assert!(
        long.lines().any(|line| line.starts_with("-rwxr-xr-x ") && line.ends_with(" src/main.rs")),
        "{long}"
    );
    assert!(
        long.contains(" link -> src/main.rs\n") && long.contains(" src/again link to README.md\n"),
        "{long}"
    );
    let json: Vec<Value> = home
        .text(&["workspace", "files", "app", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let main = json.iter().find(|entry| entry["path"] == "src/main.rs").unwrap().clone();
    insta::assert_json_snapshot!(redacted(main, &["mtime", "uid", "gid", "user", "group"]), @r#"
    {
      "gid": "[gid]",
      "group": "[group]",
      "mode": "0755",
      "mtime": "[mtime]",
      "path": "src/main.rs",
      "size": 13,
      "sparse": false,
      "type": "file",
      "uid": "[uid]",
      "user": "[user]",
      "xattrs": []
    }
    "#);
    let closed = home.shell("kiln workspace files app | head -n 1");
    assert!(closed.status.success() && closed.stderr.is_empty(), "{closed:?}");
}

#[test]
fn a_file_of_a_revision_is_printed_as_it_is() {
    let home = Home::new();
    home.save("app");
    for (path, file) in [("src/main.rs", "src/main.rs"), ("./big", "big"), ("src/again", "README.md")] {
        let output = home.run(&["workspace", "cat", "app", path]);
        assert!(output.status.success(), "{path}: {output:?}");
        assert_eq!(output.stdout, fs::read(home.path("tree").join(file)).unwrap(), "{path}");
    }
    assert_eq!(error_of(&home, &["workspace", "cat", "app", "big"]).0, 2);
    for (path, code) in [("nothing", 4), ("src", 2), ("../x", 2)] {
        assert_eq!(home.run(&["workspace", "cat", "app", path]).status.code(), Some(code), "{path}");
    }
    let closed = home.shell("kiln workspace cat app big | head -c 1");
    assert!(closed.status.success() && closed.stderr.is_empty(), "{closed:?}");
}

#[test]
fn two_revisions_are_compared() {
    let home = Home::new();
    let first = home.save("app");
    home.write("tree/new", "x");
    home.write("tree/src/main.rs", "fn main() { run() }\n");
    fs::set_permissions(home.path("tree/src/main.rs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(home.path("tree/link")).unwrap();
    home.save("app");
    let text = home.text(&["workspace", "diff", &first, "app"]);
    for line in ["+ new  1 B", "- link  symlink", "~ src/main.rs  content, 13 B → 20 B"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let view = home.json(&["workspace", "diff", &first, "app"]);
    let changes = view["changes"].as_array().unwrap();
    let new = changes.iter().find(|change| change["path"] == "new").unwrap();
    assert_eq!(
        (&new["change"], &new["before"], &new["after"]["size"]),
        (&json!("added"), &json!(null), &json!(1))
    );
    assert!(home.text(&["workspace", "diff", "app", "app"]).ends_with("no difference\n"));
}

#[test]
fn a_sound_store_is_told_from_a_damaged_one() {
    let home = Home::new();
    home.write_noise("tree/noise", 1 << 20);
    home.save("app");
    let sound = home.json(&["store", "check", "--read-data"]);
    assert_eq!((&sound["sound"], &sound["problems"]), (&json!(true), &json!([])), "{sound}");
    assert_eq!(sound["revisions"], 1);
    let pack = largest_below(&home.path("store/packs"));
    let mut bytes = fs::read(&pack).unwrap();
    // In the middle of the noise: neither a table nor anything that this host has a copy of.
    bytes[500_000] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
    write_durably(&pack, &bytes, Existing::Replace).unwrap();
    let output = home.run(&["store", "check", "--read-data", "--json"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let damaged: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(damaged["sound"], false);
    let touched = damaged["problems"][0]["touches"][0]["revision"].as_str().unwrap();
    assert!(touched.starts_with("app@"), "{damaged}");
    let (code, error) = error_of(&home, &["workspace", "restore", "app", "there"]);
    assert_eq!((code, error["kind"].as_str()), (7, Some("corrupt")), "{error}");
    assert!(!home.path("there").exists());
}

/// Returns the largest file in a directory, however deep.
fn largest_below(directory: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_store_is_made_once_and_its_quota_holds() {
    let home = Home::new();
    let made = home.json(&["store", "init", "--quota", "1MiB"]);
    insta::assert_json_snapshot!(redacted(made, &["store", "id", "created"]), @r#"
    {
      "created": "[created]",
      "id": "[id]",
      "quota_bytes": 1048576,
      "store": "[store]",
      "version": 1
    }
    "#);
    let (code, error) = error_of(&home, &["store", "init"]);
    assert_eq!((code, error["kind"].as_str()), (5, Some("conflict")), "{error}");
    home.save("app");
    home.write_noise("tree/noise", 2 << 20);
    let (code, error) = error_of(&home, &["workspace", "save", "tree", "--name", "app"]);
    assert_eq!((code, error["kind"].as_str()), (8, Some("limit")), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("kiln gc"), "{error}");
    home.text(&["workspace", "restore", "app", "there"]);
    assert!(!home.path("there/noise").exists());
}

#[test]
fn a_probe_tells_what_a_store_does() {
    let home = Home::new();
    let report = home.json(&["store", "probe"]);
    assert!(report["checks"].as_object().unwrap().values().all(|holds| holds == true), "{report}");
    assert!(report["latency"]["put_us"].is_u64());
    let text = home.text(&["store", "probe"]);
    assert!(text.contains("ok  a get sees an object right after its put\n"), "{text}");
    let (code, error) = error_of(&home, &["store", "probe", "--store", "gs://bucket"]);
    assert_eq!((code, error["kind"].as_str()), (2, Some("invalid")), "{error}");
}
