//! Building, reusing, rebuilding, sharing an engine.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use super::harness::{BASE, User, docker, docker_run, folder, tag, text, wait_for, write};

#[test]
#[ignore = "needs a Docker Engine"]
fn the_same_input_is_reused_and_another_is_not() {
    let (user, folder) = (User::new(), folder(&format!("FROM {BASE}\nCOPY a /a\nCMD [\"sleep\", \"1\"]\n")));
    write(&folder.path().join("a"), "one");
    let path = text(folder.path());
    let first = user.build(path, &["--name", "app"]).ok().json();
    assert_eq!((first["state"].as_str(), first["reused"].as_bool()), (Some("active"), Some(false)));
    let again = user.build(path, &["--name", "app"]).ok().json();
    assert_eq!((again["id"].as_str(), again["reused"].as_bool()), (first["id"].as_str(), Some(true)));
    write(&folder.path().join("a"), "two");
    let changed = user.build(path, &["--name", "app"]).ok().json();
    assert_ne!(changed["id"], first["id"]);
    // Resources are not part of the build: the image is taken as it is and gated again.
    let regated = user.build(path, &["--name", "app", "--cpu", "1"]).ok().json();
    assert_ne!(regated["id"], changed["id"]);
    assert_eq!(regated["image"], changed["image"]);
    user.clean();
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn both_builders_give_the_same_files() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nCOPY files /srv\nRUN echo made > /srv/made\n"));
    write(&folder.path().join("files/kept"), "kept");
    write(&folder.path().join("files/ignored.log"), "ignored");
    write(&folder.path().join(".dockerignore"), "**/*.log\n");
    for builder in ["buildkit", "classic"] {
        let built = user
            .build(text(folder.path()), &["--name", builder, "--builder", builder, "--rebuild"])
            .ok()
            .json();
        let listed = docker(&["run", "--rm", &tag(&built), "ls", "/srv"]);
        assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["kept", "made"], "{builder}");
    }
    user.clean();
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_rejected_rebuild_leaves_the_older_snapshot_and_its_image() {
    let (user, template) = (User::new(), tempfile::tempdir().unwrap());
    let manifest = |check: &str| {
        format!(
            "schema = 1\nname = \"t\"\ndescription = \"A test.\"\n[[check]]\nname = \"c\"\ncmd = \"{check}\"\ntimeout = \"20s\"\n"
        )
    };
    let folder = template.path().join("t");
    write(&folder.join("root.dockerfile"), "RUN head -c 5000000 /dev/urandom > /large\n");
    write(&folder.join("template.toml"), &manifest("true"));
    let path = text(&folder);
    let good = user.build(path, &["--name", "app"]).ok().json();
    // Too large, then a check that fails; also with the engine's cache, when both images would have had one id.
    user.build(path, &["--name", "app", "--rebuild", "--max-image", "1MiB"])
        .exits(8)
        .says(&["limit `image`"]);
    user.build(path, &["--name", "app", "--max-image", "1MiB"]).exits(8).says(&["limit `image`"]);
    write(&folder.join("template.toml"), &manifest("false"));
    user.build(path, &["--name", "app"]).exits(9).says(&["1 of 1 checks failed: c"]);
    user.build(path, &["--name", "app", "--rebuild"]).exits(9);
    let still = user.show("app");
    assert_eq!((&still["id"], &still["state"]), (&good["id"], &good["state"]));
    let tagged = docker(&["image", "inspect", "--format", "{{.Id}}", &tag(&good)]);
    assert_eq!(tagged.trim(), good["image"].as_str().unwrap());
    write(&folder.join("template.toml"), &manifest("true"));
    assert_eq!(user.build(path, &["--name", "app"]).ok().json()["reused"], true);
    let failed = user.snapshots().iter().filter(|snapshot| snapshot["state"] == "error").count();
    assert_eq!(failed, 4);
    user.clean();
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn another_store_sees_the_images_of_the_first_as_foreign() {
    let (one, two) = (User::new(), User::new());
    let folder = folder(&format!("FROM {BASE}\nRUN echo {} > /id\n", std::process::id()));
    let first = one.build(text(folder.path()), &["--name", "app"]).ok().json();
    let second = two.build(text(folder.path()), &["--name", "app"]).ok().json();
    assert_eq!(second["reused"], false, "the second user's record must not point at the first one's image");
    assert_ne!(first["id"], second["id"]);
    assert_ne!(first["image"], second["image"]);
    two.clean();
    docker(&["image", "inspect", &tag(&first)]);
    assert_eq!(one.build(text(folder.path()), &["--name", "app"]).ok().json()["reused"], true);
    one.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn of_two_builds_at_once_one_builds_and_the_other_gets_its_snapshot() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN sleep 3; echo {}\n", std::process::id()));
    let start = || {
        let mut command =
            user.command(&["build", text(folder.path()), "--name", "app", "--json", "--log", "plain"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (one, two) = (start(), start());
    let answers =
        [one, two].map(|child| super::harness::Run::of(child.wait_with_output().unwrap()).ok().json());
    assert_eq!(answers[0]["id"], answers[1]["id"]);
    assert_eq!(answers.iter().filter(|answer| answer["reused"] == true).count(), 1);
    assert_eq!(user.snapshots().len(), 1);
    user.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn the_log_of_a_running_build_can_be_followed() {
    let user = User::new();
    let folder = folder(&format!(
        "FROM {BASE}\nRUN echo {}; for n in 1 2 3 4 5 6; do echo tick $n; sleep 1; done\n",
        std::process::id()
    ));
    let arguments = ["build", text(folder.path()), "--name", "app", "--log", "plain"];
    let mut build = user.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the snapshot", Duration::from_secs(20), || !user.snapshots().is_empty());
    let id = user.snapshots()[0]["id"].as_str().unwrap().to_owned();
    let mut follow =
        user.command(&["snapshot", "logs", &id, "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("tick 2")));
    assert!(build.try_wait().unwrap().is_none(), "the line came while the build was running");
    assert!(lines.any(|line| line.unwrap().contains("tick 6")));
    assert!(build.wait().unwrap().success());
    assert!(follow.wait().unwrap().success());
    let kept = user.run(&["snapshot", "logs", "app"]).ok().stdout;
    assert!((1..=6).all(|n| kept.contains(&format!("tick {n}"))), "{kept}");
    user.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn an_unchecked_snapshot_is_never_promoted() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN echo unchecked {}\n", std::process::id()));
    let path = text(folder.path());
    user.build(path, &["--name", "app", "--skip-checks", "--channel", "prod"]).exits(2);
    let built = user.build(path, &["--name", "app", "--skip-checks"]).ok().json();
    assert_eq!(built["state"], "unchecked");
    let reference = format!("app@{}", built["id"].as_str().unwrap());
    user.run(&["snapshot", "promote", &reference, "prod"]).exits(5);
    user.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn channels_pins_and_revocation_guard_and_refuse() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN echo marks {}\n", std::process::id()));
    let path = text(folder.path());
    let output = user.home.join("output");
    let one =
        user.build(path, &["--name", "app", "--channel", "prod", "--output", text(&output)]).ok().json();
    let written = std::fs::read_to_string(&output).unwrap();
    assert!(written.contains(&format!("snapshot=app@{}", one["id"].as_str().unwrap())), "{written}");
    let two = user.build(path, &["--name", "app", "--cpu", "1"]).ok().json();
    let reference = |snapshot: &serde_json::Value| format!("app@{}", snapshot["id"].as_str().unwrap());
    user.run(&["snapshot", "remove", &reference(&one)]).exits(5).says(&["app:prod"]);
    user.run(&["snapshot", "promote", &reference(&two), "prod"]).ok();
    assert_eq!(user.show("app:prod")["id"], two["id"]);
    user.run(&["snapshot", "rollback", "app", "prod"]).ok();
    assert_eq!(user.show("app:prod")["id"], one["id"]);
    user.run(&["snapshot", "pin", &reference(&two)]).ok();
    user.run(&["snapshot", "remove", &reference(&two)]).exits(5).says(&["pinned"]);
    user.run(&["snapshot", "unpin", &reference(&two)]).ok();
    user.run(&["snapshot", "revoke", &reference(&two), "--reason", "it is broken"]).ok();
    user.build(path, &["--name", "app", "--cpu", "1"]).exits(5).says(&[
        "revoked",
        "it is broken",
        "--rebuild",
    ]);
    let fresh = user.build(path, &["--name", "app", "--cpu", "1", "--rebuild"]).ok().json();
    assert_ne!(fresh["id"], two["id"]);
    user.run(&["snapshot", "touch", &reference(&fresh)]).ok();
    assert!(user.show("app")["places"][0]["last_used"].is_string());
    user.run(&["snapshot", "promote", &reference(&fresh), "prod"]).ok();
    user.run(&["snapshot", "remove", &reference(&one)]).ok();
    // Two snapshots share the image of `one` and `two`: it goes with the last of them.
    let gone = user.run(&["snapshot", "remove", &reference(&two), "--json"]).ok().json();
    assert_eq!(gone["image_deleted"], true, "{gone}");
    let diff = user.run(&["snapshot", "diff", &reference(&one), &reference(&fresh), "--json"]).ok().json();
    assert!(diff["changes"].as_array().unwrap().iter().any(|change| change["what"] == "cpu"), "{diff}");
    let listed = docker_run(&["image", "rm", &tag(&fresh)]);
    assert_eq!(listed.code, 0);
    // Somebody deleted the image behind our back: it is baked again and becomes a place of the same snapshot.
    let back = user.build(path, &["--name", "app", "--cpu", "1"]).ok().json();
    assert_eq!((&back["id"], back["reused"].as_bool()), (&fresh["id"], Some(false)));
    docker(&["image", "inspect", &tag(&back)]);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_snapshot_that_a_container_uses_is_not_removed_and_stays_active() {
    let user = User::new();
    let folder =
        folder(&format!("FROM {BASE}\nRUN echo used {}\nCMD [\"sleep\", \"60\"]\n", std::process::id()));
    let built = user.build(text(folder.path()), &["--name", "app"]).ok().json();
    let container = docker(&["run", "--detach", &tag(&built)]);
    user.run(&["snapshot", "remove", "app"]).exits(5).says(&["uses the image"]);
    assert_eq!(user.show("app")["state"], "active");
    docker(&["rm", "--force", container.trim()]);
    user.run(&["snapshot", "remove", "app"]).ok();
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_snapshot_can_be_the_base_of_another() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN echo below > /below\n"));
    user.build(text(folder.path()), &["--name", "below"]).ok();
    let template = tempfile::tempdir().unwrap();
    let path = template.path().join("above");
    write(
        &path.join("template.toml"),
        "schema = 1\nname = \"above\"\ndescription = \"A test.\"\n[[check]]\nname = \"both\"\ncmd = \"cat /below /above\"\ntimeout = \"20s\"\nexpect = \"above\"\n",
    );
    write(&path.join("root.dockerfile"), "RUN echo above > /above\n");
    let above = user.build(text(&path), &["--base", "snapshot:below"]).ok().json();
    assert_eq!(above["base"]["origin"], "snapshot");
    assert_eq!(user.build(text(&path), &["--base", "snapshot:below"]).ok().json()["reused"], true);
    user.clean();
}
