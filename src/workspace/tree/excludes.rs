//! What a save leaves out: patterns of the caller, and the `.kilnignore` files of the tree.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::base::{Classify, ErrorKind};
use crate::store::EntryPath;

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a pattern")]
pub struct PatternError {
    /// The pattern as it was given.
    pub pattern: String,
    /// What is wrong with it.
    #[source]
    pub source: ignore::Error,
}

impl Classify for PatternError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Patterns as in a `.gitignore` file, relative to the root of the tree.
///
/// The caller's patterns come first: where one of them matches, be it with a leading `!`, no file of the tree is asked. Else
/// the `.kilnignore` files decide, that of the deepest directory first. What lies in an excluded directory is never looked at.
#[derive(Debug)]
pub struct Excludes {
    patterns: Gitignore,
}

impl Excludes {
    /// The name of a file of patterns, relative to the directory that it lies in.
    pub const FILE: &'static str = ".kilnignore";

    /// Makes excludes of the caller's patterns; without any, only the files of the tree exclude.
    ///
    /// # Errors
    ///
    /// Fails on the first pattern that cannot be read, and names it.
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        let mut builder = builder();
        for pattern in patterns {
            // What starts a comment in a file is part of the name here.
            let line = if pattern.starts_with('#') { format!("\\{pattern}") } else { pattern.clone() };
            builder
                .add_line(None, &line)
                .map_err(|source| PatternError { pattern: pattern.clone(), source })?;
        }
        let patterns =
            builder.build().map_err(|source| PatternError { pattern: patterns.join(" "), source })?;
        Ok(Self { patterns })
    }

    /// Returns whether the caller's patterns leave a path out; what it lies in is not asked.
    #[must_use]
    pub fn is_excluded(&self, path: &EntryPath, is_dir: bool) -> bool {
        self.exclude(None, path, is_dir)
    }

    /// Returns whether `path`, which lies where `rules` hold, is left out. Its parents are taken to be kept.
    pub(super) fn exclude(&self, rules: Option<&Rules>, path: &EntryPath, is_dir: bool) -> bool {
        match self.patterns.matched(as_path(path.as_bytes()), is_dir) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        let mut next = rules;
        while let Some(rules) = next {
            let below = path.as_bytes().get(rules.base_bytes..).unwrap_or_default();
            match rules.patterns.matched(as_path(below), is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => next = rules.above.as_deref(),
            }
        }
        false
    }
}

/// The `.kilnignore` file of a directory, with those of the directories above it.
#[derive(Debug)]
pub(super) struct Rules {
    patterns: Gitignore,
    /// Bytes of a path that name the directory, with the slash after it.
    base_bytes: usize,
    above: Option<Arc<Self>>,
}

impl Rules {
    /// Reads the text of the `.kilnignore` file in `directory`. Lines that cannot be read are skipped, and returned as errors.
    pub(super) fn read(
        directory: &EntryPath,
        text: &[u8],
        above: Option<Arc<Self>>,
    ) -> (Arc<Self>, Vec<io::Error>) {
        let mut problems = Vec::new();
        let mut builder = builder();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
            let read = std::str::from_utf8(line)
                .map_err(|error| error.to_string())
                .and_then(|line| builder.add_line(None, line).map_err(|error| error.to_string()).map(drop));
            if let Err(reason) = read {
                problems.push(invalid(format!("line {number}: {reason}")));
            }
        }
        let patterns = builder.build().unwrap_or_else(|error| {
            problems.push(invalid(error.to_string()));
            Gitignore::empty()
        });
        let base_bytes = if directory.is_root() { 0 } else { directory.as_bytes().len() + 1 };
        (Arc::new(Self { patterns, base_bytes, above }), problems)
    }
}

impl Drop for Rules {
    /// Lets go of the rules above in a loop: a tree may be deeper than the stack.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some(mut rules) = next.and_then(Arc::into_inner) {
            next = rules.above.take();
        }
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Returns a builder whose patterns are relative to where it is used, and that reports a `[` without its `]`.
pub(super) fn builder() -> GitignoreBuilder {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    builder
}

pub(super) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> EntryPath {
        EntryPath::new(bytes).unwrap()
    }

    fn excludes(patterns: &[&str]) -> Excludes {
        Excludes::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn patterns_read_as_in_a_gitignore_file() {
        let excludes = excludes(&["node_modules/", "/top", "*.o", "#x#", "a/b"]);
        for (name, is_dir, out) in [
            (b"node_modules".as_slice(), true, true),
            (b"node_modules", false, false),
            (b"x/node_modules", true, true),
            (b"top", false, true),
            (b"x/top", false, false),
            (b"x/y.o", false, true),
            (b"#x#", false, true),
            (b"a/b", false, true),
            (b"c/a/b", false, false),
            (b"\xff\xfe.o", false, true),
            (b"\xff\xfe.c", false, false),
        ] {
            assert_eq!(excludes.exclude(None, &path(name), is_dir), out, "{}", path(name));
        }
    }

    #[test]
    fn a_deeper_file_wins_and_the_caller_wins_over_both() {
        let (outer, problems) = Rules::read(&EntryPath::root(), b"*.log\n*.tmp\n/only-here\n", None);
        assert!(problems.is_empty());
        let (inner, problems) = Rules::read(&path(b"d"), b"# kept\n!keep.log\n/z\n", Some(outer));
        assert!(problems.is_empty());
        let excludes = excludes(&["!spared.tmp", "secret"]);
        for (name, out) in [
            ("d/a.log", true),
            ("d/keep.log", false),
            ("d/z", true),
            ("d/e/z", false),
            ("d/x.tmp", true),
            ("d/spared.tmp", false),
            ("d/secret", true),
            ("d/only-here", false),
        ] {
            assert_eq!(excludes.exclude(Some(&inner), &path(name.as_bytes()), false), out, "{name}");
        }
    }

    #[test]
    fn a_wrong_pattern_is_named_and_a_wrong_line_is_skipped() {
        let error = Excludes::new(&["fine".to_owned(), "a[b".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "`a[b` is not a pattern");
        let (rules, problems) = Rules::read(&EntryPath::root(), b"a[b\n\xff\nfine\n", None);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].to_string().starts_with("line 1: "), "{}", problems[0]);
        assert!(excludes(&[]).exclude(Some(&rules), &path(b"fine"), false));
    }

    #[test]
    fn rules_of_a_very_deep_tree_are_let_go_of_without_a_deep_stack() {
        let mut rules = None;
        for _ in 0..200_000 {
            rules = Some(Arc::new(Rules { patterns: Gitignore::empty(), base_bytes: 0, above: rules }));
        }
        drop(rules);
    }
}
