//! Disk limits: each with exit code 8, its own text, and nothing left behind.

use super::harness::{BASE, User, docker, folder, text, write};

/// Returns how many images and containers of any kind the engine has.
fn census() -> (usize, usize) {
    let count = |arguments: &[&str]| docker(arguments).lines().count();
    (count(&["images", "--quiet"]), count(&["ps", "--quiet", "--all"]))
}

#[test]
#[ignore = "needs a Docker Engine"]
fn resources_above_a_ceiling_are_refused_before_anything_is_built() {
    let user = User::new();
    for (profile, option, value, words) in [
        (
            "daytona",
            "--disk",
            "20GiB",
            "disk 20.0 GiB is not possible with profile `daytona`: at most 10.0 GiB",
        ),
        ("daytona", "--cpu", "5", "at least 1 and at most 4"),
        ("daytona", "--memory", "1536MiB", "a multiple of 1.0 GiB"),
        ("e2b", "--cpu", "3", "1 or an even number"),
    ] {
        user.run(&["build", "crabbox-ready", "--profile", profile, option, value]).exits(8).says(&[words]);
    }
    assert!(user.snapshots().is_empty());
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_context_above_its_limit_is_refused_and_the_heaviest_named() {
    let (user, folder) = (User::new(), folder(&format!("FROM {BASE}\nCOPY . /srv\n")));
    let large = std::fs::File::create(folder.path().join("large.bin")).unwrap();
    large.set_len(3 << 20).unwrap();
    write(&folder.path().join("small.txt"), "small");
    let before = census();
    user.build(text(folder.path()), &["--max-context", "2MiB"])
        .exits(8)
        .says(&["limit `context`", "large.bin"]);
    assert_eq!(census(), before);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_step_that_writes_too_much_is_stopped_while_it_runs() {
    for builder in ["buildkit", "classic"] {
        let user = User::new();
        let run = "mkdir -p /srv/deep && for n in $(seq 1 1000); do head -c 20000000 /dev/zero > /srv/deep/$n; sleep 0.1; done";
        let folder = folder(&format!("FROM {BASE}\nRUN echo {builder} {}; {run}\n", std::process::id()));
        let before = census();
        let started = std::time::Instant::now();
        let arguments = ["--name", "app", "--builder", builder, "--max-build-write", "100MiB"];
        user.build(text(folder.path()), &arguments).exits(8).says(&["limit `build_write`", "/srv/deep"]);
        assert!(started.elapsed().as_secs() < 60, "it was stopped and did not end by itself");
        assert_eq!(census(), before, "{builder}");
        assert_eq!(user.leftovers(), "", "{builder}");
        assert_eq!(user.snapshots()[0]["state"], "error");
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn free_space_under_the_floor_is_refused_before_and_stopped_during_a_build() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN echo {}\n", std::process::id()));
    user.build(text(folder.path()), &["--min-free", "500TiB"]).exits(8).says(&["limit `min_free`"]);
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn an_image_that_does_not_fit_the_sandbox_is_refused_with_its_heaviest_layers() {
    let user = User::new();
    let folder =
        folder(&format!("FROM {BASE}\nRUN head -c 30000000 /dev/urandom > /heavy-{}\n", std::process::id()));
    let before = census();
    user.build(text(folder.path()), &["--max-image", "90MB"]).exits(8).says(&["limit `image`", "/heavy-"]);
    user.build(text(folder.path()), &["--disk", "600MiB"]).exits(8).says(&["limit `disk`"]);
    assert_eq!(census(), before);
    assert_eq!(user.leftovers(), "");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_build_that_takes_too_long_is_stopped() {
    let user = User::new();
    let folder = folder(&format!("FROM {BASE}\nRUN echo {}; sleep 120\n", std::process::id()));
    let started = std::time::Instant::now();
    user.build(text(folder.path()), &["--timeout", "3s"]).exits(8).says(&["limit `timeout`", "sleep 120"]);
    assert!(started.elapsed().as_secs() < 30);
    assert_eq!(user.leftovers(), "");
}
