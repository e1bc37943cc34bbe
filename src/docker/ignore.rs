//! `.dockerignore` with Docker's semantics.
//!
//! An engine that is sent a tar does not apply the file: whoever makes the tar does, and a mistake here sends secrets. The
//! rules, which are not those of `.gitignore`:
//!
//! - A pattern stands at the root of the context: `log` is `/log` and not `a/log`. Leading and trailing slashes, `.` and
//!   `..` are cleaned away, so that `/log/` is `log`.
//! - Within a segment, patterns are those of Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^a]`, `\` before a literal
//!   character. `**` stands for any number of segments.
//! - What matches a directory matches everything in it.
//! - Patterns are tried in order and the last one that matches wins; `!` in front makes an exception.
//! - A pattern is tried only where it would change the answer, and a directory hands down what was tried on it: after
//!   `**/*.pem` and `!keys`, `keys/a.pem` is still left out, because `keys` itself was not and its exception never came to
//!   matter. Docker's clients do the same; sending the file would be the surprise.
//! - A line is a comment only when its first character is `#`. Blanks around a pattern do not count.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

const NOTHING: &str = "has nothing after `!`";
const OPEN_CLASS: &str = "has a `[` without its `]`";

/// A pattern that nobody can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{pattern}` is not a pattern: it {reason}")]
pub(super) struct IgnoreError {
    line: usize,
    pattern: String,
    reason: String,
}

/// Which patterns a directory has matched, itself or by a parent. The context itself has matched none.
#[derive(Debug, Clone, Default)]
pub(super) struct Matched(Vec<bool>);

/// What an ignore file says.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// Matching paths are kept, not ignored.
    exception: bool,
    /// The leading segments without special characters, for an early end of the walk.
    literal: Vec<String>,
    glob: Regex,
}

impl Ignore {
    /// Reads the text of an ignore file.
    ///
    /// # Errors
    ///
    /// Fails at the first pattern that is not well-formed.
    pub(super) fn parse(text: &[u8]) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = runes(line);
            let wrong = |reason| IgnoreError { line: index + 1, pattern: line.trim().to_owned(), reason };
            rules.extend(Rule::parse(&line).map_err(wrong)?);
        }
        Ok(Self { rules })
    }

    /// Returns whether the entry at `path` (relative to the context, without slashes around it) is left out, and what
    /// holds for its content when it is a directory. `parent` is what held for the directory that it lies in.
    pub(super) fn look(&self, parent: &Matched, path: &[u8]) -> (bool, Matched) {
        let path = runes(path);
        let (mut ignored, mut matched) = (false, Vec::with_capacity(self.rules.len()));
        for (index, rule) in self.rules.iter().enumerate() {
            let by_parent = parent.0.get(index).is_some_and(|matched| *matched);
            let matches = by_parent || rule.exception == ignored && rule.glob.is_match(&path);
            if matches {
                ignored = !rule.exception;
            }
            matched.push(matches);
        }
        (ignored, Matched(matched))
    }

    /// Returns whether the entry at `path` is left out, looking at all its parents first.
    #[cfg(test)]
    pub(super) fn leaves_out(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let (mut ignored, mut matched) = (false, Matched::default());
        for end in ends.chain([path.len()]) {
            (ignored, matched) = self.look(&matched, &path[..end]);
        }
        ignored
    }

    /// Returns whether an exception may keep something beneath the ignored directory at `path`, which then must be walked.
    pub(super) fn may_keep_below(&self, path: &[u8]) -> bool {
        let path = runes(path);
        self.rules
            .iter()
            .filter(|rule| rule.exception)
            .any(|rule| rule.literal.iter().zip(path.split('/')).all(|(ours, theirs)| ours == theirs))
    }
}

impl Rule {
    /// Reads a line; `None` when it holds no pattern.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        if line.starts_with('#') {
            return Ok(None);
        }
        let text = line.trim();
        let (exception, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return if exception { Err(NOTHING.into()) } else { Ok(None) };
        }
        // Cleaning can bring a blank to the end (`a /`) and a `!` to the front (`/!a`); both count again.
        let pattern = clean(text);
        if exception && pattern == "/" {
            return Err(NOTHING.into());
        }
        let pattern = pattern.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&pattern).trim();
        if pattern.is_empty() {
            return if exception { Err(NOTHING.into()) } else { Ok(None) };
        }
        let (exception, pattern) = match pattern.strip_prefix('!') {
            Some("") if !exception => return Err(NOTHING.into()),
            Some(rest) if !exception => (true, rest),
            Some(_) | None => (exception, pattern),
        };
        let literal = pattern
            .split('/')
            .take_while(|segment| !segment.contains(['*', '?', '[', '\\']))
            .map(ToOwned::to_owned)
            .collect();
        let glob = RegexBuilder::new(&translate(pattern)?)
            .dot_matches_new_line(true)
            .build()
            .map_err(|error| format!("cannot be used: {error}"))?;
        Ok(Some(Self { exception, literal, glob }))
    }
}

/// Returns the text as Go sees it: every byte that is not part of a character is a character of its own.
fn runes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Returns the shortest path that names the same, as Go's `filepath.Clean` does.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut segments = Vec::new();
    for segment in pattern.split('/') {
        match segment {
            "" | "." => {}
            ".." => match segments.last() {
                Some(&last) if last != ".." => {
                    segments.pop();
                }
                _ if rooted => {}
                _ => segments.push(segment),
            },
            _ => segments.push(segment),
        }
    }
    // No path in a context is called `.` or `/`: a pattern that comes down to the context itself matches nothing.
    match (rooted, segments.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// Returns the regular expression of a pattern, or what is wrong with it.
fn translate(pattern: &str) -> Result<String, String> {
    // `**name` also matches at the end of a segment, where `**` before anything special does not.
    if let Some(suffix) = pattern.strip_prefix("**").filter(|rest| !rest.contains(['*', '?', '[', ']', '\\']))
    {
        return Ok(match suffix.strip_prefix('/') {
            Some(rest) => format!("^(?:.*/)?{}$", regex::escape(rest)),
            None => format!("^.*{}$", regex::escape(suffix)),
        });
    }
    let mut expression = String::from("^");
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // `**/` is the same as `**`.
                rest.next_if_eq(&'/');
                expression.push_str(if rest.peek().is_some() { "(?:.*/)?" } else { ".*" });
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => class(&mut rest, &mut expression)?,
            '\\' => literal(rest.next().ok_or("ends with a `\\`")?, &mut expression),
            other => literal(other, &mut expression),
        }
    }
    expression.push('$');
    Ok(expression)
}

/// Translates what follows a `[`, up to and with its `]`.
fn class(rest: &mut Peekable<Chars<'_>>, expression: &mut String) -> Result<(), String> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let low = member(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { member(rest)? } else { low };
        if rest.peek().is_none() {
            return Err(OPEN_CLASS.into());
        }
        if low > high {
            return Err("has a `[…]` with a range that runs backwards".into());
        }
        ranges.push((low, high));
    }
    expression.push_str(if negated { "[^" } else { "[" });
    for (low, high) in ranges {
        expression.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
    }
    expression.push(']');
    Ok(())
}

/// Takes one end of a range in a class.
fn member(rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    match rest.next() {
        None => Err(OPEN_CLASS.into()),
        Some('-' | ']') => Err("has a `[…]` with a `-` or `]` out of place".into()),
        Some('\\') => rest.next().ok_or_else(|| OPEN_CLASS.into()),
        Some(other) => Ok(other),
    }
}

fn literal(character: char, expression: &mut String) {
    expression.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignores(text: &str, path: &str) -> bool {
        Ignore::parse(text.as_bytes()).unwrap().leaves_out(path.as_bytes())
    }

    #[test]
    fn paths_are_ignored_as_docker_ignores_them() {
        // (ignore file, ignored, kept)
        let table: &[(&str, &[&str], &[&str])] = &[
            // The examples of Docker's documentation.
            (
                "# comment\n*/temp*\n*/*/temp*\ntemp?",
                &["a/temporary.txt", "a/temp/x", "a/b/temporary.txt", "tempa"],
                &["temp", "temp12", "a/b/c/temp"],
            ),
            ("**/*.go", &["x.go", "a/x.go", "a/b/x.go"], &["x.gob", "go"]),
            ("*.md\n!README.md", &["A.md"], &["README.md", "a/A.md"]),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                &["A.md", "README-secret.md"],
                &["README.md", "README-a.md"],
            ),
            ("*.md\nREADME-secret.md\n!README*.md", &["A.md"], &["README-secret.md"]),
            // Rooted and cleaned.
            ("log", &["log", "log/a", "log/a/b"], &["a/log", "logs"]),
            ("/log/", &["log", "log/a"], &["a/log"]),
            ("./a//b/../c", &["a/c", "a/c/d"], &["a", "a/b"]),
            ("/../a", &["a"], &["b/a"]),
            ("../a", &[], &["a", "b/a"]),
            (".", &[], &["a"]),
            ("/", &[], &["a"]),
            // `*` stays in a segment, but a parent that matches is enough.
            ("*", &["a", "a/b", ".env"], &[]),
            ("*/*", &["a/b", "a/b/c"], &["a"]),
            ("a/*/c", &["a/b/c"], &["a/c", "a/b/b/c"]),
            ("a*c", &["ac", "abc"], &["a/c", "ab"]),
            ("*.env", &[".env", "a.env"], &["b/.env"]),
            // `**`.
            ("**", &["a", "a/b"], &[]),
            ("**/a", &["a", "b/a", "b/c/a", "a/d"], &["ba", "b/ba"]),
            ("**a", &["a", "ba", "b/ca"], &["ab"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a/c"]),
            ("a**", &["a", "ab", "a/b"], &["ba"]),
            ("a/**/b", &["a/b", "a/c/b", "a/c/d/b"], &["a/cb", "b"]),
            ("**/a/**", &["a/b", "c/a/b"], &["a", "c/a"]),
            ("**/.env*", &[".env", "a/.env.local"], &["env"]),
            // Classes and escapes.
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "-x"]),
            ("[^a]x", &["bx"], &["ax"]),
            ("[\\]]", &["]"], &["\\"]),
            ("[\\-a]", &["-", "a"], &["b"]),
            ("[*]", &["*"], &["a"]),
            ("[.]", &["."], &["a"]),
            ("a]", &["a]"], &["a"]),
            ("\\*", &["*"], &["a"]),
            ("\\d", &["d"], &["1"]),
            ("a.b", &["a.b"], &["axb"]),
            ("a+(b)|{c}$^", &["a+(b)|{c}$^"], &["aab"]),
            ("ä?", &["äö"], &["ä", "äöü"]),
            // Lines.
            ("\u{feff}a\r\nb  \n  c\n\n   \n", &["a", "b", "c"], &["d"]),
            ("\u{feff}#a", &[], &["a", "#a"]),
            (" #a", &["#a"], &["a"]),
            ("a#b", &["a#b"], &["a"]),
            ("a b", &["a b"], &["a"]),
            // Exceptions.
            ("a\n!a/b", &["a", "a/c"], &["a/b", "a/b/c"]),
            ("!a\na", &["a"], &[]),
            ("a\n!a/b\na/b/c", &["a/c", "a/b/c"], &["a/b/d"]),
            ("*\n!/a/b/", &["c"], &["a/b/c"]),
            ("*\n! a", &["b"], &["a"]),
            ("*\n!!a", &["a"], &["!a"]),
            ("*\n/!a\n", &["b"], &["a"]),
            ("*a /", &["a"], &["a "]),
            ("*\n!**/*.rs", &["a", "a/b"], &["a/b.rs", "a.rs"]),
            // An exception that did not come to matter for a directory does not for its content.
            ("**/*.pem\n!keys", &["a.pem", "keys/a.pem"], &["keys", "keys/a"]),
            ("k*/*.pem\n!keys", &["keys/a.pem"], &["keys", "keys/a"]),
            ("k*\n!keys\n**/*.pem", &["keys/a.pem", "k"], &["keys/a"]),
            ("**/*.pem\n!keys/**", &["a.pem"], &["keys/a.pem"]),
            // `**` at the very start, without a slash behind it.
            ("**.env", &["x.env", ".env", "a/x.env"], &["x.envs"]),
        ];
        for (text, ignored, kept) in table {
            for path in *ignored {
                assert!(ignores(text, path), "{text:?} must ignore {path:?}");
            }
            for path in *kept {
                assert!(!ignores(text, path), "{text:?} must keep {path:?}");
            }
        }
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_line() {
        for bad in [
            "[", "[]", "[]a]", "[^]", "[a", "[a-", "[a-]", "[-a]", "[\\", "a\\", "!", "! ", "![", "*[",
            "**[", "[z-a]", "!/", "!/ /",
        ] {
            let error = Ignore::parse(format!("a\n\n{bad}\nb").as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("line 3: "), "{bad}: {error}");
        }
    }

    #[test]
    fn names_that_are_no_text_match_as_single_characters() {
        let ignore = Ignore::parse(b"a??b\nx\xff").unwrap();
        assert!(ignore.leaves_out(b"a\xff\xfeb"));
        assert!(!ignore.leaves_out(b"a\xffb"));
        assert!(ignore.leaves_out(b"x\xff"));
    }

    #[test]
    fn a_directory_is_walked_when_an_exception_may_lie_beneath() {
        let ignore = Ignore::parse(b"*\n!a/b/c\n!d/*/e").unwrap();
        for walked in ["a", "a/b", "d", "d/x"] {
            assert!(ignore.may_keep_below(walked.as_bytes()), "{walked}");
        }
        for skipped in ["b", "a/x", "c"] {
            assert!(!ignore.may_keep_below(skipped.as_bytes()), "{skipped}");
        }
        assert!(!Ignore::parse(b"a").unwrap().may_keep_below(b"a"));
    }

    proptest::proptest! {
        #[test]
        fn what_an_exception_keeps_is_always_reached(
            lines in proptest::collection::vec("!?[ab*?/]{1,5}|!?\\*\\*/[ab]", 1..6),
            path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            // A line of slashes and `!` alone is an error that has its own test.
            let text: String = lines.iter().filter(|line| line.contains(['a', 'b', '*', '?'])).map(|line| format!("{line}\n")).collect();
            let ignore = Ignore::parse(text.as_bytes()).unwrap();
            if !ignore.leaves_out(path.as_bytes()) {
                for (end, _) in path.match_indices('/') {
                    let parent = &path.as_bytes()[..end];
                    proptest::prop_assert!(!ignore.leaves_out(parent) || ignore.may_keep_below(parent));
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", path in "[a-z/]{0,40}") {
            if let Ok(ignore) = Ignore::parse(text.as_bytes()) {
                ignore.leaves_out(path.as_bytes());
            }
        }
    }
}
