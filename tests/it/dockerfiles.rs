//! `dockerfiles/<name>/` is each shipped template, rendered with its defaults. `KILN_UPDATE=1` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln::base::config::Environment;
use kiln::template::{Library, RenderRequest, export, render};

/// Returns each file below `folder` with its mode and content.
fn files_below(folder: &Path, below: &str, found: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type().unwrap().is_dir() {
            files_below(folder, &path, found);
        } else {
            // git keeps the owner's execution bit only.
            let mode = entry.metadata().unwrap().permissions().mode() & 0o100;
            found.insert(path, (mode, fs::read(entry.path()).unwrap()));
        }
    }
}

#[test]
fn dockerfiles_are_the_shipped_templates_with_their_defaults() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerfiles");
    let update = Environment::of_process().get("KILN_UPDATE").is_some();
    let library = Library::shipped();
    let mut stale = Vec::new();
    for name in library.list() {
        let rendered = render(&library.locate(&name).unwrap(), &RenderRequest::default()).unwrap();
        let folder = kept.join(&name);
        if update {
            if folder.exists() {
                fs::remove_dir_all(&folder).unwrap();
            }
            export(&rendered, &folder).unwrap();
            continue;
        }
        let fresh = tempfile::tempdir().unwrap();
        export(&rendered, fresh.path()).unwrap();
        let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
        files_below(fresh.path(), "", &mut expected);
        if folder.is_dir() {
            files_below(&folder, "", &mut found);
        }
        let paths =
            expected.keys().chain(found.keys()).filter(|path| expected.get(*path) != found.get(*path));
        stale.extend(paths.map(|path| format!("dockerfiles/{name}/{path}")));
    }
    for entry in fs::read_dir(kept).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() && !library.list().contains(&name) {
            stale.push(format!("dockerfiles/{name} (there is no such template)"));
        }
    }
    stale.sort();
    stale.dedup();
    assert!(
        stale.is_empty(),
        "not as rendered; `KILN_UPDATE=1 cargo test --test it` writes them: {stale:#?}"
    );
}
