//! The shipped templates: each bakes, boots as providers boot, and holds what it promises.

use std::time::Duration;

use serde_json::Value;

use super::harness::{User, docker, docker_run, tag, wait_for};

/// Bakes a shipped template, or finds its snapshot from an earlier run.
fn baked(name: &str, arguments: &[&str]) -> Value {
    let user = User::lasting();
    let built = user.build(name, arguments).ok().json();
    let shown = user.show(&format!("{}@{}", built["name"].as_str().unwrap(), built["id"].as_str().unwrap()));
    assert_eq!(shown["state"], "active");
    let checks = shown["checks"].as_array().unwrap();
    assert!(!checks.is_empty() && checks.iter().all(|check| check["passed"] == true), "{checks:?}");
    shown
}

/// A container that goes when the test ends.
struct Container(String);

impl Container {
    fn start(arguments: &[&str]) -> Self {
        let all = [&["run", "--detach", "--network", "none"], arguments].concat();
        Self(docker(&all).trim().to_owned())
    }

    fn exec(&self, arguments: &[&str]) -> String {
        docker(&[&["exec", &self.0], arguments].concat())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker_run(&["rm", "--force", "--volumes", &self.0]);
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn litellm_bakes_and_boots_as_providers_boot_it() {
    let image = tag(&baked("litellm", &[]));
    let query = ["psql", "-Atc", "select 6 * 7"];
    let entrypoint = "/usr/local/bin/kiln-entrypoint";
    // With arguments, under an emptied environment, through a shell, as root.
    for arguments in [
        vec![image.as_str(), "psql", "-Atc", "select 6 * 7"],
        vec!["--entrypoint", "env", &image, "-i", entrypoint, "psql", "-Atc", "select 6 * 7"],
        vec!["--entrypoint", "sh", &image, "-c", "/usr/local/bin/kiln-entrypoint psql -Atc 'select 6 * 7'"],
        vec!["--user", "0", "--workdir", "/", &image, "psql", "-Atc", "select 6 * 7"],
    ] {
        let all = [vec!["run", "--rm", "--network", "none"], arguments].concat();
        assert_eq!(docker(&all).trim(), "42", "{all:?}");
    }
    // Without arguments, twice: both serve, and no two have the same keys.
    let (one, two) = (Container::start(&[&image]), Container::start(&[&image]));
    let keys = |container: &Container| {
        let answers = || docker_run(&["exec", &container.0, "psql", "-Atc", "select 1"]).code == 0;
        wait_for("PostgreSQL", Duration::from_secs(60), answers);
        assert_eq!(container.exec(&query).trim(), "42");
        container.exec(&["sh", "-c", "find /var/lib/kiln/identity -type f ! -empty | sort | xargs cat"])
    };
    let (first, second) = (keys(&one), keys(&two));
    assert_ne!(first, second);
    no_key_stands_in(&image, &one);
    // A second start changes nothing, and a stop is quick: signals reach what runs.
    one.exec(&["start-db"]);
    one.exec(&["kiln-identity"]);
    assert_eq!(keys(&one), first);
    let started = std::time::Instant::now();
    docker(&["stop", "--time", "20", &one.0]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// Searches history, configuration and saved bytes of an image for every key that a sandbox of it made.
fn no_key_stands_in(image: &str, sandbox: &Container) {
    let made = sandbox.exec(&[
        "sh",
        "-c",
        "find /var/lib/kiln/identity -type f ! -empty | sort | xargs grep -hoE '[A-Za-z0-9_-]{20,}'",
    ]);
    let keys: Vec<&str> = made.lines().collect();
    assert!(!keys.is_empty(), "a sandbox makes keys");
    let mut everything = docker(&["history", "--no-trunc", image]).into_bytes();
    everything.extend(docker(&["image", "inspect", image]).into_bytes());
    let saved = std::process::Command::new("docker").args(["save", image]).output().unwrap();
    assert!(saved.status.success());
    everything.extend(saved.stdout);
    for key in keys {
        assert!(
            memchr::memmem::find(&everything, key.as_bytes()).is_none(),
            "a key of a sandbox stands in its image"
        );
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn litellm_bakes_on_a_second_release() {
    let shown = baked("litellm", &["--base", "debian:trixie-slim", "--name", "litellm-trixie"]);
    assert_eq!(shown["distro"]["python"], "3.13");
    assert!(shown["packages"]["dpkg"]["postgresql-17"].is_string());
    assert!(shown["packages"]["pip"]["litellm"].is_string());
}

#[test]
#[ignore = "needs a Docker Engine"]
fn crabbox_ready_bakes_and_makes_its_host_keys_at_first_start() {
    let shown = baked("crabbox-ready", &[]);
    let image = tag(&shown);
    let inside =
        docker(&["run", "--rm", "--entrypoint", "sh", &image, "-c", "ls /etc/ssh/*key* 2>/dev/null; id -un"]);
    assert_eq!(inside.trim(), "daytona", "no host key stands in the image");
    let (one, two) = (Container::start(&[&image]), Container::start(&[&image]));
    let keys = |container: &Container| {
        wait_for("sshd", Duration::from_secs(30), || {
            docker_run(&["exec", &container.0, "sh", "-c", "pgrep -x sshd"]).code == 0
        });
        container.exec(&[
            "sh",
            "-c",
            "find / -xdev -name 'ssh_host_*_key.pub' 2>/dev/null | sort | xargs cat",
        ])
    };
    let (first, second) = (keys(&one), keys(&two));
    assert!(!first.is_empty());
    assert_ne!(first, second);
    assert!(one.exec(&["crabbox-ready"]).len() < 10_000);
    let config = one.exec(&["sudo", "sshd", "-T"]);
    assert!(config.contains("passwordauthentication no"), "{config}");
}

#[test]
#[ignore = "needs a Docker Engine"]
fn opencode_bakes_and_serves() {
    let shown = baked("opencode", &[]);
    let sandbox = Container::start(&[&tag(&shown)]);
    let version = sandbox.exec(&["node", "--version"]);
    let major: u32 = version.trim().trim_start_matches('v').split('.').next().unwrap().parse().unwrap();
    assert!(major >= 22, "{version}");
    sandbox.exec(&["sh", "-c", "opencode serve --port 4096 >/tmp/serve.log 2>&1 & for n in $(seq 1 60); do curl -fsS --max-time 2 --noproxy '*' -o /dev/null http://127.0.0.1:4096/global/health && exit 0; sleep 0.5; done; cat /tmp/serve.log; exit 1"]);
}

#[test]
#[ignore = "needs a Docker Engine"]
fn sandbox_bakes_and_its_browser_renders() {
    let shown = baked("sandbox", &[]);
    let sandbox = Container::start(&[&tag(&shown)]);
    let page = sandbox.exec(&[
        "sh",
        "-c",
        "echo '<h1>hello</h1><script>document.title=6*7</script>' > /tmp/a.html; chromium --headless --no-sandbox --disable-gpu --dump-dom file:///tmp/a.html 2>/dev/null",
    ]);
    assert!(page.contains("<title>42</title>"), "{page}");
    for tool in [
        "node --version",
        "python3 --version",
        "git --version",
        "gcc --version",
        "make --version",
        "opencode --version",
    ] {
        sandbox.exec(&["sh", "-c", tool]);
    }
    let refused = User::new().run(&["build", "sandbox", "--base", "ubuntu:24.04"]);
    refused.exits(2).says(&["ubuntu", "stub"]);
}
