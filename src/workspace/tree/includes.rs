//! What a restore takes out of a revision.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::excludes::{PatternError, as_path, builder};
use crate::store::EntryPath;

/// Whether an entry is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inclusion {
    /// It matches, or lies in a directory that does.
    Yes,
    /// A directory that does not match, in which something may. It is to be made once something does.
    Parent,
    /// It is left out, with all that lies in it.
    No,
}

/// Paths and globs relative to the root of the tree.
///
/// A pattern stands for the entry of that path and, if that is a directory, for all that lies in it. `*`, `?`, `[…]` and `{…}`
/// stay within a component and `**` crosses them: `*.rs` means files of the root, `**/*.rs` those of every directory. A path that
/// holds such characters is also matched as it is written. Without any pattern everything is included.
#[derive(Debug)]
pub struct Includes {
    paths: Vec<EntryPath>,
    matches: Gitignore,
    parents: Gitignore,
    is_empty: bool,
}

impl Includes {
    /// Reads patterns. A leading `/` or `./` and a trailing `/` mean nothing; `.` is the whole tree.
    ///
    /// # Errors
    ///
    /// Fails on the first pattern that is neither a path inside the tree nor a glob, and names it.
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        let (mut paths, mut matches, mut parents) = (Vec::new(), builder(), builder());
        for pattern in patterns {
            let wrong = |source| PatternError { pattern: pattern.clone(), source };
            let path = trimmed(pattern);
            let literal = EntryPath::new(path.as_bytes())
                .map_err(|error| wrong(ignore::Error::Glob { glob: None, err: error.to_string() }))?;
            paths.push(literal);
            if path.contains(['*', '?', '[', '{', '\\']) {
                add(&mut matches, path).map_err(wrong)?;
                for parent in parents_of(path) {
                    add(&mut parents, &parent).map_err(wrong)?;
                }
            }
        }
        let built = |builder: GitignoreBuilder| {
            builder.build().map_err(|source| PatternError { pattern: patterns.join(" "), source })
        };
        Ok(Self { paths, matches: built(matches)?, parents: built(parents)?, is_empty: patterns.is_empty() })
    }

    /// Returns whether `path` is included. Entries may be asked for in any order.
    #[must_use]
    pub fn matches(&self, path: &EntryPath, is_dir: bool) -> Inclusion {
        if self.is_empty || self.paths.iter().any(|included| path.is_within(included)) {
            return Inclusion::Yes;
        }
        let bytes = path.as_bytes();
        let above = memchr::memchr_iter(b'/', bytes).filter_map(|slash| bytes.get(..slash));
        let ends = above.map(|directory| (directory, true)).chain([(bytes, is_dir)]);
        for (start, is_dir) in ends {
            if !start.is_empty() && self.matches.matched(as_path(start), is_dir).is_ignore() {
                return Inclusion::Yes;
            }
        }
        let leads = path.is_root()
            || self.parents.matched(as_path(bytes), true).is_ignore()
            || self.paths.iter().any(|included| included.is_within(path));
        if is_dir && leads { Inclusion::Parent } else { Inclusion::No }
    }
}

fn trimmed(pattern: &str) -> &str {
    let mut path = pattern.trim_start_matches('/');
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    let path = path.trim_end_matches('/');
    if path == "." { "" } else { path }
}

/// Adds a pattern that begins at the root.
fn add(builder: &mut GitignoreBuilder, pattern: &str) -> Result<(), ignore::Error> {
    // A blank at the end belongs to the name, and not to a line.
    let line = match pattern.strip_suffix(' ') {
        Some(start) => format!("/{start}\\ "),
        None => format!("/{pattern}"),
    };
    builder.add_line(None, &line).map(drop)
}

/// Returns patterns for the directories in which something may match.
fn parents_of(pattern: &str) -> Vec<String> {
    let mut parents = Vec::new();
    let mut start = String::new();
    let components: Vec<&str> = pattern.split('/').collect();
    let Some((_, above)) = components.split_last() else { return parents };
    for component in above {
        // Behind `**`, or alternatives that hold a slash, every directory may lead to a match.
        let is_open = *component == "**" || component.matches('{').count() != component.matches('}').count();
        if is_open {
            parents.push(if start.is_empty() { "**".to_owned() } else { format!("{start}/**") });
            break;
        }
        if !start.is_empty() {
            start.push('/');
        }
        start.push_str(component);
        parents.push(start.clone());
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(patterns: &[&str], path: &str, is_dir: bool) -> Inclusion {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Includes::new(&patterns).unwrap().matches(&EntryPath::new(path.as_bytes()).unwrap(), is_dir)
    }

    #[test]
    fn a_path_includes_all_below_it_and_the_way_to_it() {
        use Inclusion::{No, Parent, Yes};
        for (patterns, path, is_dir, expected) in [
            (&["src/lib"][..], "", true, Parent),
            (&["src/lib"], "src", true, Parent),
            (&["src/lib"], "src", false, No),
            (&["src/lib"], "src/lib", true, Yes),
            (&["/src/lib/"], "src/lib/a/b", false, Yes),
            (&["./src/lib"], "src/library", false, No),
            (&["src/lib"], "lib", true, No),
            (&["a[1].txt"], "a[1].txt", false, Yes),
            (&["a[1].txt"], "a1.txt", false, Yes),
            (&["a b/c "], "a b/c ", false, Yes),
            (&["."], "x/y", false, Yes),
            (&[], "x/y", false, Yes),
            (&["#x", "!y"], "#x", false, Yes),
            (&["#x", "!y"], "!y", false, Yes),
        ] {
            assert_eq!(matches(patterns, path, is_dir), expected, "{patterns:?} {path:?}");
        }
    }

    #[test]
    fn a_glob_begins_at_the_root_and_includes_what_lies_in_its_matches() {
        use Inclusion::{No, Parent, Yes};
        for (patterns, path, is_dir, expected) in [
            (&["*.rs"][..], "a.rs", false, Yes),
            (&["*.rs"], "src/a.rs", false, No),
            (&["*.rs"], "src", true, No),
            (&["**/*.rs"], "src/a/b.rs", false, Yes),
            (&["**/*.rs"], "b.rs", false, Yes),
            (&["**/*.rs"], "src/a", true, Parent),
            (&["src/*/x"], "src", true, Parent),
            (&["src/*/x"], "src/q", true, Parent),
            (&["src/*/x"], "src/q/x/y/z", false, Yes),
            (&["src/*/x"], "src/q/r", true, No),
            (&["a/**/z"], "a/b/c", true, Parent),
            (&["a/**/z"], "a/b/c/z", false, Yes),
            (&["a/**/z"], "b", true, No),
            (&["{a,b}/c"], "b", true, Parent),
            (&["{a,b}/c"], "b/c/d", false, Yes),
            (&["x/{a/b,c}/d"], "x/a", true, Parent),
            (&["x/{a/b,c}/d"], "x/a/b/d", false, Yes),
        ] {
            assert_eq!(matches(patterns, path, is_dir), expected, "{patterns:?} {path:?}");
        }
    }

    #[test]
    fn a_pattern_that_leads_out_or_cannot_be_read_is_named() {
        for wrong in ["../x", "a//b", "a/{b"] {
            let error = Includes::new(&[wrong.to_owned()]).unwrap_err();
            assert_eq!(error.to_string(), format!("`{wrong}` is not a pattern"));
        }
    }
}
