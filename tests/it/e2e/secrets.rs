//! A secret is in no layer, no history, no log.

use super::harness::{BASE, User, docker_run, folder, tag, text, write};

const VALUE: &str = "hunter2-\"quoted\"/and+long=value";

#[test]
#[ignore = "needs a Docker Engine"]
fn a_secret_reaches_its_step_and_nothing_else() {
    let user = User::new();
    let folder = folder(&format!(
        "FROM {BASE}\nRUN --mount=type=secret,id=token echo {}; sha256sum < /run/secrets/token > /sum; cat /run/secrets/token\n",
        std::process::id()
    ));
    let file = user.home.join("secret");
    write(&file, VALUE);
    let secret = format!("id=token,src={}", text(&file));
    let run = user.build(text(folder.path()), &["--name", "app", "--secret", &secret]).ok();
    let built = run.json();
    assert!(!run.stdout.contains(VALUE) && !run.stderr.contains(VALUE), "{}", run.stderr);
    assert!(run.stderr.contains("***"), "the step printed it, redacted: {}", run.stderr);
    let saved = user.home.join("image.tar");
    assert_eq!(docker_run(&["save", "--output", text(&saved), &tag(&built)]).code, 0);
    let image = std::fs::read(&saved).unwrap();
    assert!(memchr::memmem::find(&image, VALUE.as_bytes()).is_none());
    assert!(memchr::memmem::find(&image, b"hunter2").is_none());
    let log = user.run(&["snapshot", "logs", "app", "--json"]).ok().stdout;
    assert!(!log.contains("hunter2"), "{log}");
    let everything = std::process::Command::new("grep")
        .args(["-r", "hunter2", text(&user.home.join("store"))])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&everything.stdout), "");
    user.clean();
}

/// BuildKit wants a session for every secret mount; an optional one without a value once failed for lack of it.
#[test]
#[ignore = "needs a Docker Engine"]
fn an_optional_secret_may_be_left_out() {
    let user = User::new();
    let run = "test ! -e /run/secrets/token";
    let folder = folder(&format!(
        "FROM {BASE}\nRUN --mount=type=secret,id=token echo {}; {run}\n",
        std::process::id()
    ));
    user.build(text(folder.path()), &["--name", "app"]).ok();
    user.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn an_image_that_holds_a_secret_is_never_registered() {
    for (n, leak) in
        ["cp /run/secrets/token /srv/leak", "base64 -w0 < /run/secrets/token > /srv/leak"].iter().enumerate()
    {
        let user = User::new();
        let folder = folder(&format!(
            "FROM {BASE}\nRUN --mount=type=secret,id=token echo {n} {}; {leak}\n",
            std::process::id()
        ));
        let file = user.home.join("secret");
        write(&file, VALUE);
        let secret = format!("id=token,src={}", text(&file));
        user.build(text(folder.path()), &["--name", "app", "--secret", &secret])
            .exits(9)
            .says(&["stands in the image"]);
        assert_eq!(user.leftovers(), "");
    }
}

#[test]
#[ignore = "needs a Docker Engine"]
fn secrets_that_are_missing_unread_or_too_short_are_refused() {
    let user = User::new();
    let plain = folder(&format!("FROM {BASE}\n"));
    let reading = folder(&format!(
        "FROM {BASE}\nRUN --mount=type=secret,id=token,required=true cat /run/secrets/token\n"
    ));
    let file = user.home.join("secret");
    write(&file, VALUE);
    let secret = format!("id=token,src={}", text(&file));
    user.build(text(plain.path()), &["--secret", &secret]).exits(2).says(&["no `--mount=type=secret`"]);
    user.build(text(reading.path()), &["--secret", "id=token,src=/no/such/file"])
        .exits(2)
        .says(&["/no/such/file"]);
    write(&file, "short");
    user.build(text(reading.path()), &["--secret", &secret]).exits(2).says(&["fewer than 8 bytes"]);
    user.build(text(reading.path()), &[]).exits(2).says(&["token"]);
}
