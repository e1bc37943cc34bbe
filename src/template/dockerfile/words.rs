//! Quotes, escapes and variables.

use std::collections::BTreeMap;

/// 16 KiB: longer than any image name; variables that hold each other twice would grow without end.
const MAX_EXPANDED_BYTES: usize = 16 * 1024;

/// 16: deeper than anybody nests defaults.
const MAX_DEPTH: u32 = 16;

/// Returns the words of `text` with their offsets. Quotes and escapes keep blanks inside a word and stay in it.
pub(super) fn split(text: &str, escape: char) -> Vec<(usize, &str)> {
    let (mut words, mut start, mut quote, mut escaped) = (Vec::new(), None, None, false);
    for (offset, c) in text.char_indices() {
        if start.is_none() {
            if c.is_whitespace() {
                continue;
            }
            start = Some(offset);
        }
        if escaped {
            escaped = false;
        } else if c == escape && quote != Some('\'') {
            escaped = true;
        } else if let Some(open) = quote {
            if c == open {
                quote = None;
            }
        } else if c == '\'' || c == '"' {
            quote = Some(c);
        } else if c.is_whitespace() {
            words.extend(start.take().map(|start| (start, &text[start..offset])));
        }
    }
    words.extend(start.map(|start| (start, &text[start..])));
    words
}

/// Returns `word` without its quotes and escapes; variables stay as written.
pub(super) fn unquote(word: &str, escape: char) -> String {
    let (mut out, mut quote, mut chars) = (String::new(), None, word.chars().peekable());
    while let Some(c) = chars.next() {
        match quote {
            Some('\'') if c == '\'' => quote = None,
            Some('\'') => out.push(c),
            _ if c == escape => match chars.peek() {
                Some(&next) if quote.is_none() || next == '"' || next == '$' || next == escape => {
                    // An escaped dollar keeps its escape, so that nobody takes it for a variable.
                    if next == '$' {
                        out.push(escape);
                    }
                    out.push(next);
                    chars.next();
                }
                _ => out.push(c),
            },
            Some('"') if c == '"' => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => out.push(c),
        }
    }
    out
}

/// Returns `word` with its variables replaced and its quotes removed; an unknown variable is empty.
///
/// # Errors
///
/// A sentence on what is wrong: braces that do not close, a modifier that is not known, `${name:?}` without a
/// value, a result that is far too long.
pub(super) fn expand(
    word: &str,
    variables: &BTreeMap<String, String>,
    escape: char,
) -> Result<String, String> {
    let mut chars = Chars { rest: word, escape };
    chars.expand(variables, false, 0)
}

struct Chars<'a> {
    rest: &'a str,
    escape: char,
}

impl Chars<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Expands up to the end, or up to the brace that closes when `inside` one.
    fn expand(
        &mut self,
        variables: &BTreeMap<String, String>,
        inside: bool,
        depth: u32,
    ) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("variables are nested too deeply".to_owned());
        }
        let (mut out, mut quote) = (String::new(), None);
        while let Some(c) = self.next() {
            if quote == Some('\'') {
                if c == '\'' { quote = None } else { out.push(c) }
            } else if c == self.escape {
                match self.peek() {
                    Some(next) if quote.is_none() || matches!(next, '"' | '$') || next == self.escape => {
                        out.push(next);
                        self.next();
                    }
                    _ => out.push(c),
                }
            } else if quote.is_none() && c == '}' && inside {
                return Ok(out);
            } else if quote == Some(c) {
                quote = None;
            } else if quote.is_none() && (c == '"' || c == '\'') {
                quote = Some(c);
            } else if c == '$' {
                out.push_str(&self.variable(variables, depth)?);
            } else {
                out.push(c);
            }
            if out.len() > MAX_EXPANDED_BYTES {
                return Err("variables expand to far too much text".to_owned());
            }
        }
        if inside { Err("`${` is not closed".to_owned()) } else { Ok(out) }
    }

    fn variable(&mut self, variables: &BTreeMap<String, String>, depth: u32) -> Result<String, String> {
        let braced = self.peek() == Some('{');
        if braced {
            self.next();
        }
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if !braced {
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                variables.get(name).cloned().unwrap_or_default()
            });
        }
        if name.is_empty() {
            return Err("`${` needs the name of a variable".to_owned());
        }
        let name = name.to_owned();
        let value = variables.get(&name);
        if self.peek() == Some('}') {
            self.next();
            return Ok(value.cloned().unwrap_or_default());
        }
        let colon = self.peek() == Some(':');
        if colon {
            self.next();
        }
        let modifier = self.next();
        if !matches!(modifier, Some('-' | '+' | '?')) {
            return Err(match modifier {
                Some(other) => format!("`${{{name}}}` has a modifier that is not known: `{other}`"),
                None => "`${` is not closed".to_owned(),
            });
        }
        let other = self.expand(variables, true, depth + 1)?;
        let value = value.filter(|value| !(colon && value.is_empty()));
        match (modifier, value) {
            (Some('+'), Some(_)) => Ok(other),
            (Some('+'), None) => Ok(String::new()),
            (_, Some(value)) => Ok(value.clone()),
            (Some('?'), None) if other.is_empty() => Err(format!("`{name}` has no value")),
            (Some('?'), None) => Err(format!("`{name}` has no value: {other}")),
            (_, None) => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_inside_quotes_and_after_escapes_do_not_split() {
        let words: Vec<&str> =
            split(r#" a="b c"  d=e\ f 'g h'"#, '\\').into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, [r#"a="b c""#, r"d=e\ f", "'g h'"]);
        assert_eq!(split("a b", '\\'), [(0, "a"), (2, "b")]);
    }

    #[test]
    fn quotes_and_escapes_go_away() {
        for (word, plain) in [
            (r#""a b""#, "a b"),
            (r"a\ b", "a b"),
            (r"'a\b'", r"a\b"),
            (r#""a\"b""#, r#"a"b"#),
            (r#""a\n""#, r"a\n"),
            (r"\$x", r"\$x"),
            (r"a\", r"a\"),
        ] {
            assert_eq!(unquote(word, '\\'), plain, "{word}");
        }
    }

    #[test]
    fn variables_are_replaced() {
        let variables = BTreeMap::from([("x".to_owned(), "1".to_owned()), ("e".to_owned(), String::new())]);
        for (word, expected) in [
            ("a$x", "a1"),
            ("${x}b", "1b"),
            ("${y}", ""),
            ("${y:-d}", "d"),
            ("${e:-d}", "d"),
            ("${e-d}", ""),
            ("${x:+d}", "d"),
            ("${y:+d}", ""),
            ("${y:-${x}-slim}", "1-slim"),
            (r"\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x\"", "1"),
            ("$", "$"),
        ] {
            assert_eq!(expand(word, &variables, '\\').as_deref(), Ok(expected), "{word}");
        }
        for word in ["${x", "${}", "${x/a/b}", "${y:?}", "${y:?say}", "${y:-d"] {
            assert!(expand(word, &variables, '\\').is_err(), "{word}");
        }
        assert!(expand(&"${y:-".repeat(100_000), &variables, '\\').is_err());
    }
}
