//! `kiln image` where no engine is: what is refused before one is asked.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use serde_json::Value;

use super::home::Home;

/// Runs a command that fails; returns its exit code and its error.
fn failed(home: &Home, words: &[&str]) -> (i32, String) {
    let output = home.run(&[words, &["--json"]].concat());
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), error["error"].to_string())
}

#[test]
fn policies_that_cannot_be_followed_are_refused() {
    let home = Home::new();
    for (words, reason) in [
        (&[][..], "no rule says what to take"),
        (&["--min-age", "1h"], "no rule says what to take"),
        (&["--high", "80"], "no low watermark"),
        (&["--high", "80", "--low", "80"], "not below the high one"),
        (&["--high", "0", "--low", "0"], "none of 1 to 99"),
        (&["--min-age", "30d", "--max-age", "7d"], "younger than 30days"),
        (&["--expired", "--name", "a*", "--not-name", "a*"], "the names `a*`"),
        (&["--keep-last", "0"], "no number of one or more"),
        (&["--unused-for", "0s"], "takes everything"),
        (&["--unused-for", "30"], "`30` is not a duration"),
        (&["--max-total", "5 apples"], "`5 apples` is not a size"),
        (&["--name", "a/b", "--expired"], "is not a pattern of names"),
    ] {
        let (code, error) = failed(&home, &[&["image", "prune"], words].concat());
        assert!(code == 2 && error.contains(reason), "{words:?}: {code} {error}");
    }
    let (code, error) = failed(&home, &["image", "prune", "--keep-last", "3"]);
    assert!(code == 6 && error.contains("no Docker Engine answers"), "{error}");
    assert_eq!(failed(&home, &["image", "list"]).0, 6);
}

#[test]
fn wrong_units_in_the_configuration_are_named_with_their_place() {
    let home = Home::new();
    home.write("kiln.toml", "[image.prune]\nkeep_last = 2\nunused_for = \"30 dais\"\n");
    let (code, error) = failed(&home, &["image", "prune"]);
    assert!(code == 2 && error.contains("line 3, column 14") && error.contains("30 dais"), "{error}");
    home.write("kiln.toml", "[image.prune]\nmax_total = \"5 GBB\"\n");
    let (code, error) = failed(&home, &["image", "prune"]);
    assert!(code == 2 && error.contains("line 2, column 13") && error.contains("5 GBB"), "{error}");
    home.write("kiln.toml", "[image.prune]\nunused_for = \"30d\"\n");
    assert_eq!(failed(&home, &["image", "prune"]).0, 6, "the table is a policy");
    home.write("other.toml", "[image.prune]\nhigh = 70\nlow = 90\n");
    let (code, error) = failed(&home, &["image", "prune", "--config", "other.toml"]);
    assert!(code == 2 && error.contains("line 1, column 1"), "{error}");
}

#[test]
fn a_plan_that_is_none_is_refused() {
    let home = Home::new();
    home.write("plan.json", "{}");
    let (code, error) = failed(&home, &["image", "prune", "--plan", "plan.json", "--apply"]);
    assert!(code == 2 && error.contains("holds none"), "{error}");
    let both = ["image", "prune", "--plan", "plan.json", "--apply", "--keep-last", "3"];
    assert!(failed(&home, &both).1.contains("has its rules already"));
    assert_eq!(failed(&home, &["image", "prune", "--plan", "none.json", "--apply"]).0, 4);
}
