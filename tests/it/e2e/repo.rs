//! The template `repo`: a checkout at a commit, its setup script, and a token that stays out of both.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;

use super::harness::{Run, User, docker_run, tag, text, write};

const TOKEN: &str = "token-0123456789abcdef";

/// Makes a repository whose commit id is the same every time; returns the id.
pub(super) fn repository(path: &Path, bare: bool) -> String {
    let work = if bare { path.with_extension("work") } else { path.to_owned() };
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=Kiln", "-c", "user.email=kiln@localhost", "-C", text(&work)])
            .args(arguments)
            .env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")
            .env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")
            .output()
            .unwrap();
        Run::of(output).ok().stdout.trim().to_owned()
    };
    if path.exists() {
        return git(&["rev-parse", "HEAD"]);
    }
    write(&work.join("hello.txt"), "hello\n");
    write(
        &work.join("setup.sh"),
        "#!/bin/sh\nset -eu\ntest ! -e /run/secrets/git_token\nenv > setup.env\ncat hello.txt > made.txt\n",
    );
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "."]);
    git(&["-c", "core.fileMode=true", "update-index", "--chmod=+x", "setup.sh"]);
    git(&["commit", "--quiet", "--message=one"]);
    if bare {
        git(&["clone", "--quiet", "--bare", ".", text(path)]);
    }
    git(&["rev-parse", "HEAD"])
}

fn checked_out(image: &str) -> Run {
    let script = "cd ~/repo && git rev-parse HEAD && git status --porcelain --untracked-files=no && cat made.txt && cat .git/config && ! grep -ri token-0123 . /run/secrets 2>/dev/null && ! grep -i token setup.env";
    docker_run(&["run", "--rm", "--network", "none", image, "sh", "-c", script])
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_local_and_a_bare_repository_are_checked_out_at_their_commit() {
    let user = User::lasting();
    for bare in [false, true] {
        let path = user.home.join(if bare { "source.git" } else { "source" });
        let commit = repository(&path, bare);
        let url = format!("url={}", text(&path));
        let name = if bare { "repo-bare" } else { "repo" };
        let arguments =
            ["--name", name, "--set", "on=crabbox-ready", "--set", &url, "--set", "setup=./setup.sh"];
        let built = user.build("repo", &arguments).ok().json();
        assert_eq!(built["state"], "active");
        assert_eq!(built["checkout"]["commit"].as_str(), Some(commit.as_str()));
        checked_out(&tag(&built)).ok().says(&[&commit, "hello"]);
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn a_clone_token_never_lands_in_the_image_and_the_setup_script_does_not_see_it() {
    let user = User::new();
    let path = user.home.join("private.git");
    let commit = repository(&path, true);
    let port = serve(path.clone());
    let url = format!("url=http://127.0.0.1:{port}/private.git");
    let mut command = user.command(&["build", "repo", "--json", "--log", "plain", "--network", "host"]);
    let cas = std::env::var("KILN_TEST_BUILD_CA").unwrap_or_default();
    if !cas.is_empty() {
        command.args(["--build-ca", &cas]);
    }
    command.args(["--set", "on=crabbox-ready", "--set", &url, "--set", "setup=./setup.sh"]);
    command.args(["--secret", "id=git_token,env=CLONE_TOKEN"]).env("CLONE_TOKEN", TOKEN);
    let run = Run::of(command.output().unwrap()).ok();
    assert!(!run.stderr.contains(TOKEN) && !run.stdout.contains(TOKEN));
    let built = run.json();
    assert_eq!(built["checkout"]["commit"].as_str(), Some(commit.as_str()));
    checked_out(&tag(&built)).ok().says(&[&commit]);
    // Without the token the server refuses, and the error says so without a prompt.
    let arguments = ["build", "repo", "--set", "on=crabbox-ready", "--set", &url, "--name", "other"];
    user.run(&arguments).exits(4).says(&["cannot check out"]);
    user.clean();
    assert_eq!(user.leftovers(), "");
}

/// Serves a repository over git's smart HTTP on loopback to those who know the token; returns the port.
fn serve(repository: std::path::PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let repository = repository.clone();
            std::thread::spawn(move || answer(stream, &repository));
        }
    });
    port
}

fn answer(stream: TcpStream, repository: &Path) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (mut length, mut chunked, mut gzip, mut authorized) = (0, false, false, false);
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{TOKEN}"));
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = value == "chunked",
            "content-encoding" => gzip = value == "gzip",
            "authorization" => authorized = value.strip_prefix("Basic ").is_some_and(|given| given == basic),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    }
    if gzip {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).ok()?;
        body = plain;
    }
    let (status, kind, content) = if !authorized {
        ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"", "text/plain", Vec::new())
    } else if first.starts_with("GET ") && first.contains("/info/refs?service=git-upload-pack") {
        let mut content = b"001e# service=git-upload-pack\n0000".to_vec();
        content.extend(upload_pack(repository, &["--advertise-refs"], &[]));
        ("200 OK", "application/x-git-upload-pack-advertisement", content)
    } else if first.starts_with("POST ") {
        ("200 OK", "application/x-git-upload-pack-result", upload_pack(repository, &[], &body))
    } else {
        ("404 Not Found", "text/plain", Vec::new())
    };
    let mut stream = stream;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&content).ok()
}

fn upload_pack(repository: &Path, options: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(["-c", "uploadpack.allowAnySHA1InWant=true", "upload-pack", "--stateless-rpc"])
        .args(options)
        .arg(repository)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap_or_default();
    output.stdout
}
