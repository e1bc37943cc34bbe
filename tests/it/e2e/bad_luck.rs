//! Bad input and bad luck: a clear error, the right exit code, no half-registered snapshot.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::{BASE, Run, User, docker, docker_run, folder, text, wait_for, write};

#[test]
#[ignore = "needs a Docker Engine"]
fn a_failing_step_gives_exit_code_step_and_last_lines() {
    for builder in ["buildkit", "classic"] {
        let user = User::new();
        let folder = folder(&format!(
            "FROM {BASE}\nRUN echo {} && echo the last words && exit 7\n",
            std::process::id()
        ));
        let run = user.build(text(folder.path()), &["--name", "app", "--builder", builder]).exits(9);
        run.says(&["exit code 7", "the last words", "exit 7"]);
        assert_eq!(user.snapshots()[0]["state"], "error");
        assert_eq!(user.leftovers(), "");
        user.run(&["snapshot", "logs", user.snapshots()[0]["id"].as_str().unwrap()])
            .ok()
            .says(&["the last words"]);
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_mistake_in_the_dockerfile_shows_its_line() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\n\nRUNN true\n"));
    user.build(text(folder.path()), &[]).exits(2).says(&["line 3"]);
    assert!(user.snapshots().is_empty());
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_missing_base_is_named_with_what_to_do() {
    let user = User::new();
    let folder = folder("FROM debian:no-such-release\n");
    user.build(text(folder.path()), &["--pull", "never"])
        .exits(4)
        .says(&["debian:no-such-release", "scripts/base-image"]);
    user.build(text(folder.path()), &[]).exits(4).says(&["debian:no-such-release"]);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn what_the_builder_cannot_do_is_refused_by_name() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN --mount=type=cache,target=/x true\n"));
    user.build(text(folder.path()), &["--builder", "classic"]).exits(2).says(&["--mount"]);
    assert!(user.snapshots().is_empty());
}

#[test]
#[ignore = "needs a Docker Engine"]
fn without_rights_on_the_socket_the_error_says_so() {
    // Root may open every socket, so an ordinary user asks.
    let user = User::new();
    let program = user.home.join("kiln");
    std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
    Command::new("chmod").args(["-R", "a+rwX", text(&user.home)]).status().unwrap();
    let asked = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", text(&program), "build", "crabbox-ready"])
        .env("KILN_STORE", user.home.join("store"))
        .env("XDG_STATE_HOME", user.home.join("state"))
        .output()
        .unwrap();
    Run::of(asked).exits(6).says(&["permission denied", "group"]);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn ctrl_c_stops_the_step_cleans_up_and_records_the_failure() {
    for (signal, builder) in [("-INT", "buildkit"), ("-TERM", "classic")] {
        let user = User::new();
        let marker = format!("97{}", std::process::id());
        let folder = folder(&format!("FROM {BASE}\nRUN echo begun; sleep {marker}\n"));
        let arguments =
            ["build", text(folder.path()), "--name", "app", "--builder", builder, "--log", "plain"];
        let mut child =
            user.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let running =
            || Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).status().unwrap().success();
        wait_for("the step", Duration::from_secs(60), running);
        let interrupted = Instant::now();
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        wait_for("the end of the step", Duration::from_secs(3), || !running());
        let stopped = interrupted.elapsed();
        let status = child.wait().unwrap();
        let ended = interrupted.elapsed();
        assert_eq!(status.code(), Some(130), "{builder}");
        assert!(stopped < Duration::from_millis(2500), "{builder}: the step ended after {stopped:?}");
        assert!(ended < Duration::from_millis(5500), "{builder}: the program ended after {ended:?}");
        assert_eq!(user.snapshots()[0]["state"], "error", "{builder}");
        assert_eq!(user.leftovers(), "", "{builder}");
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn the_orphan_of_a_killed_process_is_settled_by_the_next_build() {
    let user = User::new();
    let marker = format!("98{}", std::process::id());
    let folder = folder(&format!("FROM {BASE}\nRUN echo begun; sleep {marker}\n"));
    let arguments = ["build", text(folder.path()), "--name", "app", "--log", "plain"];
    let mut child = user.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the record", Duration::from_secs(60), || !user.snapshots().is_empty());
    let running =
        || Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).status().unwrap().success();
    wait_for("the step", Duration::from_secs(60), running);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(user.snapshots()[0]["state"], "building");
    let other = super::harness::folder(&format!("FROM {BASE}\nRUN echo other {marker}\n"));
    user.build(text(other.path()), &["--name", "other"]).ok();
    let orphan = user.snapshots().into_iter().find(|snapshot| snapshot["name"] == "app").unwrap();
    assert_eq!(orphan["state"], "error", "{orphan}");
    wait_for("the end of the step", Duration::from_secs(5), || !running());
    user.clean();
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn the_orphan_of_a_process_killed_in_a_check_leaves_no_container() {
    let (user, template) = (User::new(), tempfile::tempdir().unwrap());
    let path = template.path().join("t");
    write(
        &path.join("template.toml"),
        "schema = 1\nname = \"t\"\ndescription = \"A test.\"\n[[check]]\nname = \"slow\"\ncmd = \"sleep 100\"\ntimeout = \"200s\"\n",
    );
    write(&path.join("root.dockerfile"), "RUN true\n");
    let arguments = ["build", text(&path), "--log", "plain"];
    let mut child = user.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the store", Duration::from_secs(30), || user.home.join("store/format.json").exists());
    let label = format!("label=kiln.store={}", user.store_id());
    wait_for("the check", Duration::from_secs(60), || {
        !docker(&["ps", "--quiet", "--filter", &label]).is_empty()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let other = folder(&format!("FROM {BASE}\n"));
    user.build(text(other.path()), &["--name", "other"]).ok();
    assert_eq!(docker(&["ps", "--quiet", "--all", "--filter", &label]), "");
    user.clean();
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_sandbox_that_does_not_come_up_is_never_registered() {
    let (user, template) = (User::new(), tempfile::tempdir().unwrap());
    let path = template.path().join("t");
    write(
        &path.join("template.toml"),
        "schema = 1\nname = \"t\"\ndescription = \"A test.\"\n[runtime]\nentrypoint = [\"sh\", \"-c\", \"echo giving up; exit 3\"]\nready = { cmd = \"false\", timeout = \"5s\", interval = \"200ms\" }\n",
    );
    write(&path.join("root.dockerfile"), "RUN true\n");
    user.build(text(&path), &[]).exits(9).says(&["does not come up", "exit code 3", "giving up"]);
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_template_that_reaches_outside_its_folder_is_refused() {
    let (user, template) = (User::new(), tempfile::tempdir().unwrap());
    let path = template.path().join("t");
    write(&path.join("template.toml"), "schema = 1\nname = \"t\"\ndescription = \"A test.\"\n");
    write(&path.join("root.dockerfile"), "RUN true\n");
    std::fs::create_dir_all(path.join("files")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", path.join("files/stolen")).unwrap();
    user.build(text(&path), &[]).exits(2).says(&["stolen"]);
    let plain = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/hostname", plain.path().join("Dockerfile")).unwrap();
    user.build(text(plain.path()), &[]).exits(2).says(&["Dockerfile"]);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn clipped_output_is_detected_and_said() {
    let user = User::new();
    let folder =
        folder(&format!("FROM {BASE}\nRUN echo {}; seq 1 400000; echo the end\n", std::process::id()));
    user.build(text(folder.path()), &["--name", "app", "--builder", "buildkit"]).ok().says(&["clipped"]);
    user.build(text(folder.path()), &["--name", "app", "--builder", "classic", "--rebuild"])
        .ok()
        .says(&["the end"]);
    user.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_rendered_context_is_accepted_by_plain_docker_build() {
    let user = User::new();
    // A newer client needs a plug-in for BuildKit, which may not be there.
    let plugin = docker_run(&["buildx", "version"]).code == 0;
    let built_in = docker(&["version", "--format", "{{.Client.Version}}"]).starts_with("20.");
    for buildkit in if plugin || built_in { vec!["0", "1"] } else { vec!["0"] } {
        let out = user.home.join(format!("context-{buildkit}"));
        user.run(&["template", "render", "crabbox-ready", "-o", text(&out)]).ok();
        let tag = format!("kiln-test-render:{buildkit}");
        let built = Command::new("docker")
            .args(["build", "--quiet", "--tag", &tag, text(&out)])
            .env("DOCKER_BUILDKIT", buildkit)
            .output()
            .unwrap();
        Run::of(built).ok();
        docker_run(&["image", "rm", &tag]);
    }
}
