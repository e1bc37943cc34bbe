//! Filters that make a value safe where it lands: in a shell command, in an `ENV` instruction, in JSON.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Returns `text` as one word of a POSIX shell.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    // At the start of a `RUN`, a bare `--mount=…` would be the instruction's own flag and a bare `X=…` an assignment.
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns `text` as the value of a Dockerfile's `ENV`: quoted, with nothing expanded.
pub(super) fn env_value(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Returns `text` as a JSON string.
pub(super) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn sh(value: &Value) -> Result<String, Error> {
    Ok(shell_word(&text_of(value)?))
}

pub(super) fn env(value: &Value) -> Result<String, Error> {
    Ok(env_value(&text_of(value)?))
}

pub(super) fn json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|source| Error::new(ErrorKind::BadSerialization, "cannot write as JSON").with_source(source))
}

fn text_of(value: &Value) -> Result<String, Error> {
    let wrong = |reason: String| Error::new(ErrorKind::InvalidOperation, reason);
    match value.kind() {
        ValueKind::String | ValueKind::Number | ValueKind::Bool => {
            let text = match bool::try_from(value.clone()) {
                Ok(flag) if value.kind() == ValueKind::Bool => flag.to_string(),
                _ => value.to_string(),
            };
            // Neither quoting style holds a newline: a Dockerfile's line would end there.
            match text.chars().find(|c| c.is_control()) {
                Some(c) => Err(wrong(format!("the value holds the control character {}", c.escape_debug()))),
                None => Ok(text),
            }
        }
        kind => Err(wrong(format!("cannot quote a value that is {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_keep_their_meaning() {
        for (text, word) in [
            ("", "''"),
            ("plain-1.2/x", "plain-1.2/x"),
            ("a b", "'a b'"),
            ("#x", "'#x'"),
            ("$(x)`y`", "'$(x)`y`'"),
            ("it's", r"'it'\''s'"),
            ("end\\", "'end\\'"),
            ("~", "'~'"),
            ("--mount=x", "'--mount=x'"),
            ("X=1", "'X=1'"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn env_values_expand_nothing() {
        assert_eq!(env_value(r#"a "b" $c \"#), r#""a \"b\" \$c \\""#);
    }
}
