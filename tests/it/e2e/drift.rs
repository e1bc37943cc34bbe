//! Snapshots that are verified, whose images vanish, and that are made sure of.

use serde_json::Value;

use super::harness::{BASE, User, docker, tag, text, write};

fn template(folder: &std::path::Path, marker: &str) -> String {
    let path = folder.join("drift");
    let manifest = format!(
        "schema = 1\nname = \"drift\"\ndescription = \"A test.\"\nbase = \"{BASE}\"\n[[check]]\nname = \"there\"\ncmd = \"cat /made\"\ntimeout = \"20s\"\nexpect = \"{marker}\"\n"
    );
    write(&path.join("template.toml"), &manifest);
    write(&path.join("root.dockerfile"), &format!("RUN echo {marker} > /made\n"));
    text(&path).to_owned()
}

fn verdicts(told: &Value) -> Vec<&str> {
    told["snapshots"].as_array().unwrap().iter().map(|it| it["verdict"].as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs a Docker Engine"]
fn what_vanished_is_found_and_made_sure_of() {
    let (user, folder) = (User::new(), tempfile::tempdir().unwrap());
    let path = template(folder.path(), &format!("drift-{}", std::process::id()));
    let built = user.build(&path, &["--cpu", "1"]).ok().json();
    let verified = user.run(&["snapshot", "verify", "drift", "--json"]).ok().json();
    assert_eq!(verdicts(&verified), ["sound"]);
    assert_eq!(verified["snapshots"][0]["checks"][0]["passed"], true);
    let ensured = user.run(&["snapshot", "ensure", "drift", "--json"]).ok().json();
    assert_eq!((&ensured["id"], ensured["reused"].as_bool()), (&built["id"], Some(true)));
    let archive = folder.path().join("image.tar");
    let exported = user.run(&["snapshot", "export", "drift", text(&archive), "--json"]).ok().json();
    assert_eq!(exported["bytes"].as_u64(), Some(archive.metadata().unwrap().len()));
    // Somebody deletes the image behind our back.
    docker(&["image", "rm", &tag(&built)]);
    let gone = user.run(&["snapshot", "verify", "--all", "--json"]).exits(4).json();
    assert_eq!(verdicts(&gone), ["gone"]);
    user.run(&["snapshot", "verify", "drift"]).exits(4).says(&[&tag(&built), "is not on the engine"]);
    let back = user.run(&["snapshot", "ensure", "drift", "--json"]).ok().json();
    assert_eq!((&back["id"], back["reused"].as_bool()), (&built["id"], Some(false)));
    docker(&["image", "inspect", &tag(&back)]);
    assert_eq!(verdicts(&user.run(&["snapshot", "verify", "--all", "--json"]).ok().json()), ["sound"]);
    // What was exported is what was baked.
    docker(&["image", "rm", &tag(&back)]);
    user.run(&["snapshot", "export", "drift", text(&archive)]).exits(4);
    docker(&["load", "--input", text(&archive)]);
    assert_eq!(verdicts(&user.run(&["snapshot", "verify", "drift", "--json"]).ok().json()), ["sound"]);
    // Somebody puts another image under the name.
    docker(&["image", "rm", &tag(&back)]);
    docker(&["tag", BASE, &tag(&back)]);
    user.run(&["snapshot", "verify", "drift"]).exits(4).says(&["replaced"]);
    docker(&["image", "rm", &tag(&back)]);
    user.run(&["snapshot", "ensure", "drif"]).exits(4);
    user.clean();
}

#[test]
#[ignore = "needs a Docker Engine"]
fn what_is_built_on_a_revoked_snapshot_is_shown_and_not_promoted() {
    let (user, folder) = (User::new(), tempfile::tempdir().unwrap());
    let path = template(folder.path(), &format!("below-{}", std::process::id()));
    user.build(&path, &["--name", "below"]).ok();
    let above = user.build(&path, &["--name", "above", "--base", "snapshot:below"]).ok().json();
    user.run(&["snapshot", "promote", "above", "prod"]).ok();
    user.run(&["snapshot", "revoke", "below", "--reason", "a hole in libpq"]).ok();
    user.run(&["snapshot", "promote", "above", "next"]).exits(5).says(&["below@", "a hole in libpq"]);
    let listed = user.run(&["snapshot", "list", "above", "--json"]).ok().json();
    assert!(listed["snapshots"][0]["revoked_base"].as_str().unwrap().starts_with("below@"), "{listed}");
    user.run(&["snapshot", "list", "above"]).ok().says(&["base revoked"]);
    docker(&["image", "inspect", &tag(&above)]);
    user.clean();
}
