//! Bytes that a folder takes on its disk.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How many folders an error names.
const NAMED: usize = 5;

/// Returns the bytes that everything under `root` takes, as `du` counts them: blocks, hard links once.
///
/// Files that come and go meanwhile are fine; that is what a running step does.
pub(super) fn of(root: &Path) -> io::Result<u64> {
    let mut total = 0;
    walk(root, |_, bytes| total += bytes)?;
    Ok(total)
}

/// Returns the heaviest folders under `root` and their bytes, as paths with `/` for `root`.
///
/// A folder that holds little beside one folder of its own is left out: the inner one says more.
pub(super) fn heaviest(root: &Path) -> Vec<(String, u64)> {
    let mut totals: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let walked = walk(root, |directory, bytes| {
        for above in directory.ancestors().take_while(|above| above.starts_with(root)) {
            *totals.entry(above.to_owned()).or_default() += bytes;
        }
    });
    if walked.is_err() {
        return Vec::new();
    }
    let mut heaviest: Vec<(&PathBuf, u64)> = totals
        .iter()
        .filter(|(directory, bytes)| {
            let below = totals.iter().filter(|(inner, _)| inner.parent() == Some(directory));
            !below.into_iter().any(|(_, inner)| inner.saturating_mul(10) >= bytes.saturating_mul(9))
        })
        .map(|(directory, bytes)| (directory, *bytes))
        .collect();
    heaviest.sort_by_key(|(directory, bytes)| (std::cmp::Reverse(*bytes), directory.to_path_buf()));
    heaviest
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .take(NAMED)
        .map(|(directory, bytes)| {
            let inside = directory.strip_prefix(root).unwrap_or(directory);
            (format!("/{}", inside.display()), bytes)
        })
        .collect()
}

/// Gives the bytes of every file and folder under `root` to `take`, with the folder that it is in.
fn walk(root: &Path, mut take: impl FnMut(&Path, u64)) -> io::Result<()> {
    let mut linked = HashSet::new();
    let mut open = vec![root.to_owned()];
    std::fs::read_dir(root)?;
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            take(&directory, metadata.blocks().saturating_mul(512));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fs::{Existing, write_durably};

    #[test]
    fn the_heaviest_folders_are_named_from_within() {
        let home = tempfile::tempdir().unwrap();
        for (path, kib) in
            [("usr/lib/a/big", 400), ("usr/lib/b/small", 8), ("var/cache/x", 200), ("var/log/y", 100)]
        {
            write_durably(&home.path().join(path), &vec![7; kib << 10], Existing::Keep).unwrap();
        }
        let named: Vec<String> = heaviest(home.path()).into_iter().map(|(path, _)| path).collect();
        assert_eq!(named, ["/", "/usr/lib/a", "/var", "/var/cache", "/var/log"]);
        let total = of(home.path()).unwrap();
        assert!((708 << 10..800 << 10).contains(&total), "{total}");
        assert!(of(&home.path().join("nothing")).is_err());
    }

    #[test]
    fn hard_links_count_once() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("a");
        write_durably(&file, &vec![7; 64 << 10], Existing::Keep).unwrap();
        let once = of(home.path()).unwrap();
        std::fs::hard_link(&file, home.path().join("b")).unwrap();
        assert_eq!(of(home.path()).unwrap(), once);
    }
}
