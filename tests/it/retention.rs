//! `kiln workspace prune` and `undo`, `kiln store stats`: what is kept, brought back and counted, through the real program.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use std::fs;

use serde_json::Value;

use super::home::Home;

/// Saves the tree with a label; returns the revision.
fn save(home: &Home, name: &str, label: &str) -> String {
    let saved = home.json(&["workspace", "save", "tree", "--name", name, "--label", label]);
    saved["revision"].as_str().unwrap().to_owned()
}

/// Runs a command that fails; returns its exit code and what it said.
fn failed(home: &Home, words: &[&str]) -> (i32, String) {
    let output = home.run(words);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Of each item of a plan its id, its action and its first reason.
fn actions(plan: &Value) -> Vec<(&str, &str, &str)> {
    let items = plan["items"].as_array().unwrap().iter();
    let of = |item| -> Option<(&str, &str, &str)> {
        let item: &Value = item;
        Some((item["id"].as_str()?, item["action"].as_str()?, item["reasons"][0].as_str()?))
    };
    items.map(|item| of(item).unwrap()).collect()
}

#[test]
fn a_prune_shows_what_it_would_do_and_does_it_when_told() {
    let home = Home::new();
    let ids: Vec<String> =
        ["n=1", "release=yes", "n=3", "n=4"].iter().map(|label| save(&home, "app", label)).collect();
    home.text(&["workspace", "pin", &format!("app@{}", ids[0]), "--reason", "first"]);
    let prune = ["workspace", "prune", "app", "--keep-last", "1", "--keep-label", "release"];
    let plan = home.json(&prune);
    assert_eq!(
        actions(&plan),
        [
            (ids[0].as_str(), "keep", "pinned"),
            (&ids[1], "keep", "label"),
            (&ids[2], "remove", "no_rule"),
            (&ids[3], "keep", "newest")
        ]
    );
    assert_eq!((&plan["applied"], &plan["kept"], &plan["removed"]), (&false.into(), &3.into(), &1.into()));
    let first = &plan["items"][0];
    let name = format!("app@{}", ids[0]);
    assert_eq!((&first["name"], &first["reference"]), (&"app".into(), &name.into()));
    assert_eq!((&first["reason"], &first["bytes"]), (&"pinned".into(), &640_019.into()));
    assert_eq!(plan["freed_bytes"], 0);
    assert_eq!(home.revisions("app"), ids);
    let said = home.text(&prune);
    assert!(said.contains("no rule keeps it") && said.contains("1 would be removed; --apply"), "{said}");
    let said = home.text(&[&prune[..], &["--apply"]].concat());
    assert!(said.contains("3 kept, 1 removed; `kiln gc`"), "{said}");
    assert_eq!(home.revisions("app"), [&*ids[0], &*ids[1], &*ids[3]]);
    let again = home.json(&[&prune[..], &["--apply"]].concat());
    assert_eq!((&again["applied"], &again["removed"]), (&true.into(), &0.into()));
}

#[test]
fn policies_stand_in_the_configuration() {
    let home = Home::new();
    for name in ["ci-1", "ci-1", "ci-1", "app", "app"] {
        save(&home, name, "n=1");
    }
    let (code, said) = failed(&home, &["workspace", "prune", "--all"]);
    assert!(code == 2 && said.contains("no rule says what to keep"), "{said}");
    home.write("kiln.toml", "[[workspace.prune]]\nworkspaces = ['ci-*']\nkeep_last = 2\n");
    let plan = home.json(&["workspace", "prune", "--all"]);
    let reasons: Vec<&str> = actions(&plan).into_iter().map(|(_, _, reason)| reason).collect();
    assert_eq!(reasons, ["no_policy", "no_policy", "no_rule", "last", "newest"]);
    home.write("other.toml", "[[workspace.prune]]\nunused_for = '1h'\n");
    let plan = home.json(&["workspace", "prune", "--all", "--config", "other.toml"]);
    assert_eq!(plan["removed"], 0);
    // A rule of the command line takes the place of all policies.
    let plan = home.json(&["workspace", "prune", "--all", "--keep-last", "1", "--apply"]);
    assert_eq!(plan["removed"], 3);
    home.write("kiln.toml", "[[workspace.prune]]\nkeep_within = '30'\n");
    let (code, said) = failed(&home, &["workspace", "prune", "--all"]);
    assert!(code == 2 && said.contains("line 2, column 15"), "{said}");
}

#[test]
fn a_prune_that_could_mean_too_much_is_refused() {
    let home = Home::new();
    save(&home, "app", "n=1");
    for words in [
        &["workspace", "prune"][..],
        &["workspace", "prune", "--keep-last", "1"],
        &["workspace", "prune", "app", "--all", "--keep-last", "1"],
        &["workspace", "prune", "app"],
        &["workspace", "prune", "app", "--keep-last", "0"],
        &["workspace", "prune", "app", "--keep-within", "30"],
        &["workspace", "prune", "app", "--unused-for", "0s"],
        &["workspace", "prune", "app", "--keep-label", "=x"],
    ] {
        assert_eq!(failed(&home, words).0, 2, "{words:?}");
    }
    assert_eq!(failed(&home, &["workspace", "prune", "none", "--keep-last", "1"]).0, 4);
    let plan = home.json(&["workspace", "prune", "app", "--unused-for", "1h", "--apply"]);
    assert_eq!(actions(&plan)[0].2, "newest");
}

#[test]
fn what_was_removed_is_listed_and_brought_back_until_it_is_collected() {
    let home = Home::new();
    let said = home.text(&["workspace", "undo"]);
    assert_eq!(said, "");
    let first = save(&home, "app", "env=prod");
    home.write("tree/README.md", "# another\n");
    let second = save(&home, "app", "n=2");
    home.text(&["workspace", "remove", "--all", "app"]);
    let listed = home.json(&["workspace", "undo", "--list", "app"]);
    let listed: Vec<&str> =
        listed["removed"].as_array().unwrap().iter().map(|it| it["revision"].as_str().unwrap()).collect();
    assert_eq!(listed, [&*first, &*second]);
    assert!(home.text(&["workspace", "undo"]).contains("REMOVED"));
    let undone = home.json(&["workspace", "undo", &format!("app@{first}")]);
    assert_eq!((&undone["parent"], &undone["earlier"]), (&first.as_str().into(), &Value::Array(vec![])));
    home.text(&["workspace", "restore", "app", "back"]);
    assert_eq!(fs::read_to_string(home.path("back/README.md")).unwrap(), "# app\n");
    let shown = home.json(&["workspace", "show", "app"]);
    assert_eq!((&shown["revision"], &shown["labels"]["env"]), (&undone["revision"], &"prod".into()));
    let said = home.text(&["workspace", "undo", "app"]);
    assert!(said.contains(&format!("brought back from app@{second}, and the newest now")), "{said}");
    let again = home.json(&["workspace", "undo", &first]);
    assert_eq!(
        again["earlier"],
        serde_json::json!([format!("app@{}", undone["revision"].as_str().unwrap())])
    );
    let (code, said) =
        failed(&home, &["workspace", "undo", &format!("app@{}", again["revision"].as_str().unwrap())]);
    assert!(code == 4 && said.contains("it was not removed"), "{said}");
    home.text(&["gc", "--grace", "0s"]);
    assert_eq!(home.json(&["workspace", "undo", "--list"])["removed"], Value::Array(vec![]));
    let (code, said) = failed(&home, &["workspace", "undo", &first]);
    assert!(code == 4 && said.contains("`kiln workspace undo --list` shows"), "{said}");
}

#[test]
fn stats_follow_a_revision_from_save_to_collection() {
    let home = Home::new();
    assert!(home.text(&["store", "stats"]).contains("the store holds no packs"));
    save(&home, "app", "n=1");
    save(&home, "app", "n=2");
    save(&home, "other", "n=3");
    let stats = home.json(&["store", "stats"]);
    assert_eq!(stats["logical_bytes"], 3 * 640_019);
    assert_eq!((&stats["revisions"], &stats["dead_bytes"]), (&3.into(), &0.into()));
    assert!(stats["dedup_ratio"].as_f64().unwrap() >= 3.0, "{stats}");
    assert_eq!(stats["workspaces"][0]["workspace"], "app");
    assert_eq!(stats["trend"]["points"][0]["saves"], 3);
    let said = home.text(&["store", "stats"]);
    assert!(said.contains("[##########") && said.contains("deduplicated"), "{said}");
    home.text(&["workspace", "remove", "--all", "app"]);
    home.text(&["workspace", "remove", "--all", "other"]);
    let stats = home.json(&["store", "stats"]);
    assert_eq!((&stats["live_bytes"], &stats["removed_revisions"]), (&0.into(), &3.into()));
    assert_eq!(stats["dead_bytes"], stats["stored_bytes"]);
    home.text(&["gc"]);
    let stats = home.json(&["store", "stats"]);
    assert_eq!(stats["condemned_bytes"], stats["stored_bytes"]);
    assert!(home.text(&["store", "stats"]).contains("deleted once the grace of `kiln gc` is over"));
    home.text(&["gc", "--grace", "0s"]);
    assert_eq!(home.json(&["store", "stats"])["stored_bytes"], 0);
}
