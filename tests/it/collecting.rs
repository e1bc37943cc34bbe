//! `kiln gc` and `kiln store repair`: what is removed is freed, through the real program.
#![expect(clippy::unwrap_used, reason = "what the tests share fails as the tests do")]

use std::fs;

use serde_json::Value;

use super::home::{Home, error_of};

/// Three revisions, of which the second alone has a file of 300 kB.
fn three_saves(home: &Home) -> Vec<String> {
    let mut ids = vec![home.save("app")];
    home.write_noise("tree/noise", 300_000);
    ids.push(home.save("app"));
    fs::remove_file(home.path("tree/noise")).unwrap();
    ids.push(home.save("app"));
    ids
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| unreachable!("{field} of {document}"))
}

#[test]
fn what_was_removed_is_planned_condemned_and_freed() {
    let home = Home::new();
    let ids = three_saves(&home);
    let nothing = home.json(&["gc", "--dry-run"]);
    assert_eq!((number(&nothing, "revisions"), number(&nothing, "dead_bytes")), (3, 0));
    home.text(&["workspace", "remove", &format!("app@{}", ids[1])]);
    let plan = home.json(&["gc", "--dry-run"]);
    let item = &plan["items"][0];
    assert_eq!((&item["action"], &item["reason"]), (&"condemn".into(), &"unreferenced".into()));
    assert!(number(&plan, "dead_bytes") > 300_000 && plan["done"].is_null(), "{plan}");
    // The grace: condemned, and nothing is freed yet.
    let first = home.json(&["gc"]);
    assert_eq!(first["items"], plan["items"]);
    assert_eq!((number(&first["done"], "deleted_packs"), number(&first, "freed_bytes")), (0, 0));
    let waiting = home.text(&["gc", "--dry-run"]);
    assert!(waiting.contains("nothing new is garbage") && waiting.contains("due in 1d"), "{waiting}");
    // Until it is over the revision can be brought back.
    home.text(&["workspace", "undo", &ids[1]]);
    let back = home.revisions("app").pop().unwrap();
    let freed = home.json(&["gc", "--grace", "0s"]);
    assert!(number(&freed["done"], "deleted_packs") > 0, "{freed}");
    assert_eq!(number(&freed["done"], "forgotten_revisions"), 1);
    home.text(&["workspace", "restore", &format!("app@{back}"), "again"]);
    assert_eq!(fs::metadata(home.path("again/noise")).unwrap().len(), 300_000);
    home.text(&["store", "check", "--read-data"]);
    home.text(&["workspace", "remove", &format!("app@{back}")]);
    let said = home.text(&["gc", "--grace", "0s"]);
    assert!(said.contains("freed 29") || said.contains("freed 30"), "{said}");
    assert_eq!(home.revisions("app"), [&*ids[0], &*ids[2]]);
    home.text(&["workspace", "restore", "app", "newest"]);
}

#[test]
fn a_collection_that_finds_something_lost_says_so_by_its_exit_code() {
    let home = Home::new();
    home.save("app");
    let pack = home.shell("find store/packs -type f");
    let pack = String::from_utf8(pack.stdout).unwrap();
    fs::remove_file(home.path(pack.trim())).unwrap();
    let output = home.run(&["gc"]);
    assert_eq!(output.status.code(), Some(7));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("lost:"), "{said}");
    // Rows of what is gone go, so that the next save writes it again, and all is well.
    let planned = home.json(&["store", "repair", "--dry-run"]);
    assert_eq!((&planned["sound"], planned["gone_packs"].as_array().unwrap().len()), (&false.into(), 1));
    home.text(&["store", "repair"]);
    home.save("app");
    let check = home.json(&["store", "check", "--read-data"]);
    assert_eq!(check["sound"], true, "{check}");
    assert_eq!(home.run(&["gc"]).status.code(), Some(0));
}

#[test]
fn wrong_numbers_are_refused() {
    let home = Home::new();
    for words in [&["gc", "--grace", "7"][..], &["gc", "--max-dead", "101"], &["gc", "--max-repack", "x"]] {
        let (code, _) = error_of(&home, words);
        assert_eq!(code, 2, "{words:?}");
    }
}
