//! What lies in an image, and its page in a real browser.

use std::path::Path;
use std::process::Command;

use super::harness::{BASE, User, docker, folder, tag, text, write};

/// Opens a page; returns what it drew, as HTML, and keeps a picture of it beside the tests' other output.
fn opened(page: &Path, picture: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let open = |arguments: &[&str]| {
        let output = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--window-size=1280,1000",
            ])
            .arg(format!("--user-data-dir={}", text(profile.path())))
            .args(arguments)
            .arg(format!("file://{}", text(page)))
            .output()
            .expect("chromium is installed by `scripts/setup test`");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    open(&["--hide-scrollbars", &format!("--screenshot={}", text(picture))]);
    open(&["--virtual-time-budget=2000", "--dump-dom"])
}

#[test]
#[ignore = "needs a Docker Engine"]
fn what_lies_in_an_image_is_told_and_drawn() {
    let user = User::new();
    let folder = folder(&format!(
        "FROM {BASE}\n\
         RUN mkdir /made && head -c 3000000 /dev/urandom > /made/large && head -c 700000 /dev/urandom > /made/gone\n\
         RUN head -c 400000 /dev/urandom > /made/large\n\
         RUN rm /made/gone\n\
         COPY evil /made/\n"
    ));
    write(&folder.path().join("evil/<i>not slanted<i>&amp;.js"), &"x".repeat(9_000_000));
    let built = user.build(text(folder.path()), &["--name", "heavy"]).ok().json();
    let page = folder.path().join("page.html");
    let told = user.run(&["image", "layers", "heavy", "--html", text(&page), "--json"]).ok().json();
    assert_eq!(told["reference"].as_str().unwrap(), format!("heavy@{}", built["id"].as_str().unwrap()));
    assert_eq!(
        (told["wasted_bytes"].as_u64(), told["wasted_base_bytes"].as_u64()),
        (Some(3_700_000), Some(0))
    );
    let wasted: Vec<_> =
        told["wasted"].as_array().unwrap().iter().map(|it| (&it["path"], &it["deleted"])).collect();
    assert_eq!(wasted, [(&"/made/large".into(), &false.into()), (&"/made/gone".into(), &true.into())]);
    let layers = told["layers"].as_array().unwrap();
    assert_eq!(
        (layers[0]["base"].as_bool(), layers.last().unwrap()["base"].as_bool()),
        (Some(true), Some(false))
    );
    // The engine counts a layer as the sum of its files, too …
    let history = docker(&["history", "--no-trunc", "--format", "{{.Size}}", "--human=false", &tag(&built)]);
    let mut sizes: Vec<u64> = history.lines().rev().filter_map(|line| line.parse().ok()).collect();
    sizes.retain(|size| *size > 0);
    let ours: Vec<u64> =
        layers.iter().filter_map(|layer| layer["bytes"].as_u64()).filter(|size| *size > 0).collect();
    assert_eq!(ours.len(), sizes.len());
    for (ours, theirs) in ours.iter().zip(&sizes) {
        // … but for symbolic links, which it counts with the lengths of their targets.
        assert!(ours.abs_diff(*theirs) <= theirs / 1_000, "{ours} {theirs}");
    }
    // For people, and by the engine's own name.
    user.run(&["image", "layers", &tag(&built), "--top", "3"]).ok().says(&[
        "/made/large",
        "overwritten",
        "RUN rm /made/gone",
    ]);
    user.run(&["image", "layers", "no-such-image"]).exits(4).says(&["no-such-image"]);

    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-layers.png");
    let drawn = opened(&page, &picture);
    assert!(picture.metadata().unwrap().len() > 20_000);
    let map = &drawn[drawn.find("id=\"map\"").unwrap()..drawn.find("id=\"about\"").unwrap()];
    let boxes = map.matches("<button").count();
    assert!(boxes >= 20, "{boxes} boxes: {map}");
    for shown in ["usr", "made"] {
        assert!(map.contains(shown), "{shown} is not on the map");
    }
    // Names are text, whatever stands in them.
    assert!(
        !drawn.contains("><i>not") && drawn.contains("&lt;i&gt;not slanted&lt;i&gt;&amp;amp;.js"),
        "{drawn}"
    );
    assert!(drawn.contains("Overwritten or deleted in later layers (2 files)"));
    println!("the picture is {}", text(&picture));
    user.clean();
}
