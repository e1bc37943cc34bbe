//! The floors hold: a module uses only the floors below its own, never a neighbour on the same floor and never one above.
//! The list below is the map; read it top to bottom.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources should stop")]

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: [&[&str]; 7] = [
    &["cli"],
    &["api"],
    &["toolkit"],
    &["snapshot", "workspace", "image"],
    &["catalog", "store"],
    &["objects", "docker", "template"],
    &["base"],
];

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Returns the modules named after `crate::` in `source`, groups included, comments left out.
fn modules_used(source: &str) -> Vec<String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => paths.extend(members(group)),
            None => paths.push(rest.to_owned()),
        }
    }
    paths
        .iter()
        .map(|path| path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

/// Returns the members of a `use` group up to its closing brace, nested groups left whole.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut found) = (0_u32, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => found.push(std::mem::take(&mut member)),
            _ => {
                depth = match c {
                    '{' => depth + 1,
                    '}' => depth - 1,
                    _ => depth,
                };
                member.push(c);
            }
        }
    }
    found.push(member);
    found.retain(|member| !member.trim().is_empty());
    found
}

fn sources_below(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| sources_below(&entry.unwrap().path())).collect();
    }
    if path.extension().is_some_and(|extension| extension == "rs") { vec![path.to_owned()] } else { vec![] }
}

fn complaints(module: &str, source: &str) -> Vec<String> {
    let mut complaints: Vec<String> = modules_used(source)
        .into_iter()
        .filter(|used| {
            let down = matches!((floor_of(module), floor_of(used)), (Some(a), Some(b)) if a < b);
            used != module && !down
        })
        .map(|used| format!("uses crate::{used}"))
        .collect();
    if source.contains("super::super") {
        complaints.push("write crate::… instead of super::super".to_owned());
    }
    complaints
}

#[test]
fn every_module_has_a_floor_and_looks_only_down() {
    let mut broken = Vec::new();
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["main", "lib", "bin"].contains(&module.as_str()) {
            continue;
        }
        if floor_of(&module).is_none() {
            broken.push(format!("{}: on no floor", path.display()));
        }
        for file in sources_below(&path) {
            let source = fs::read_to_string(&file).unwrap();
            broken.extend(
                complaints(&module, &source).iter().map(|what| format!("{}: {what}", file.display())),
            );
        }
    }
    assert!(broken.is_empty(), "floors broken:\n{}", broken.join("\n"));
}

#[test]
fn a_look_upward_or_sideways_is_seen() {
    for (module, source, wrong) in [
        ("base", "use crate::docker::Engine;", 1),
        ("docker", "use crate::template::Rendered;", 1),
        ("docker", "use crate::{base::now, objects};", 1),
        ("docker", "use crate::base::{self, now};\n// crate::cli is only talked about", 0),
        ("snapshot", "use crate::{catalog::{A, B}, docker, template};", 0),
        ("snapshot", "fn f() { crate::toolkit::open() }", 1),
        ("cli", "use super::super::x;", 1),
    ] {
        assert_eq!(complaints(module, source).len(), wrong, "{module}: {source}");
    }
}

#[test]
fn folder_stories_hold_no_code() {
    for file in sources_below(Path::new("src")) {
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            let source = fs::read_to_string(&file).unwrap();
            for word in ["fn ", "struct ", "enum ", "impl "] {
                let code = source.lines().any(|line| {
                    line.trim_start().starts_with(word) || line.starts_with(&format!("pub {word}"))
                });
                assert!(!code, "{}: a mod.rs holds the story, `mod` lines and `pub use`", file.display());
            }
        }
    }
}
