//! Declared parameters and their values.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::error::{nearest, shown};
use super::manifest::ParameterManifest;
use super::{TemplateError, distro};
use crate::base::ByteSize;

/// What the values of a parameter look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Any text without control characters.
    String,
    /// A whole number.
    Int,
    /// `true` or `false`.
    Bool,
    /// A number of bytes, such as `512MiB`.
    Size,
    /// A version, such as `3.12`.
    Version,
    /// One of the declared values.
    Enum,
}

/// A parameter's value: text that was checked against its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParameterValue {
    pub(super) kind: ParameterType,
    pub(super) text: String,
}

impl ParameterValue {
    /// Returns the value as templates see it: numbers and booleans are such, all else is text.
    pub(super) fn json(&self) -> serde_json::Value {
        match self.kind {
            ParameterType::Bool => (self.text == "true").into(),
            ParameterType::Int => {
                self.text.parse::<i64>().map_or_else(|_text| self.text.clone().into(), Into::into)
            }
            ParameterType::String | ParameterType::Size | ParameterType::Version | ParameterType::Enum => {
                self.text.clone().into()
            }
        }
    }
}

/// Checks `text` against the declaration of the parameter `name`.
pub(super) fn check(
    name: &str,
    declared: &ParameterManifest,
    text: &str,
) -> Result<ParameterValue, TemplateError> {
    let wrong =
        |expected: String| TemplateError::Value { name: name.to_owned(), value: shown(text), expected };
    if text.chars().any(breaks_a_line) {
        return Err(wrong("a value without newlines and other control characters".to_owned()));
    }
    let kind = declared.kind;
    let value = |text: &str| ParameterValue { kind, text: text.to_owned() };
    match kind {
        ParameterType::Int => {
            let number: i64 =
                text.parse().ok().ok_or_else(|| wrong("a whole number (such as 4)".to_owned()))?;
            return matching(declared, &number.to_string())
                .map(|()| value(&number.to_string()))
                .map_err(wrong);
        }
        ParameterType::Bool if !matches!(text, "true" | "false") => {
            return Err(wrong("`true` or `false`".to_owned()));
        }
        ParameterType::Enum if !declared.values.iter().any(|allowed| allowed == text) => {
            let allowed: Vec<_> = declared.values.iter().map(|value| format!("`{value}`")).collect();
            return Err(wrong(format!("one of {}", allowed.join(", "))));
        }
        // An empty default says "whatever fits", and may be given in words.
        ParameterType::Size | ParameterType::Version
            if text.is_empty() && declared.default_text().as_deref() == Some("") =>
        {
            return Ok(value(text));
        }
        ParameterType::Size => {
            text.parse::<ByteSize>().map_err(|_size| wrong("a size (such as 512MiB or 10GiB)".to_owned()))?;
        }
        ParameterType::Version if !is_version(text) => {
            return Err(wrong("a version (such as 3.12 or 1.4.0)".to_owned()));
        }
        ParameterType::String | ParameterType::Bool | ParameterType::Version | ParameterType::Enum => {}
    }
    matching(declared, text).map(|()| value(text)).map_err(wrong)
}

/// Whether the character ends a line for some reader of a Dockerfile or a shell, or hides text on a terminal.
fn breaks_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c))
}

/// Holds `text` to the declared pattern as a whole; the error is the expected form.
fn matching(declared: &ParameterManifest, text: &str) -> Result<(), String> {
    let Some(pattern) = &declared.pattern else { return Ok(()) };
    let whole = whole_pattern(pattern).map_err(|error| format!("a valid pattern: {error}"))?;
    if whole.is_match(text) { Ok(()) } else { Err(format!("text that matches `{pattern}`")) }
}

/// Compiles a pattern so that it must match a value as a whole.
pub(super) fn whole_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:{pattern})\z"))
}

/// What to do about a parameter without default that was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is an error.
    Refuse,
    /// It is empty: the template is only looked at.
    Blank,
}

/// Where the values of parameters come from, weakest first after the defaults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    /// What people set.
    pub(super) set: &'a BTreeMap<String, String>,
    /// What the job found out; overrides what people set.
    pub(super) computed: &'a BTreeMap<String, String>,
    pub(super) missing: Missing,
}

/// Returns the values of all declared parameters. What is given and not declared is left alone: see [`refuse_unknown`].
pub(super) fn values(
    owner: &str,
    declared: &BTreeMap<String, ParameterManifest>,
    given: Given<'_>,
) -> Result<BTreeMap<String, ParameterValue>, TemplateError> {
    let mut values = BTreeMap::new();
    for (name, parameter) in declared {
        let set = given.set.get(name);
        if set.is_some() && parameter.secret {
            return Err(TemplateError::Forbidden {
                name: name.clone(),
                reason: "is a secret, which must not stand in a record or a process list",
                instead: Some(format!(
                    "give it with `--secret id={name},src=FILE` or `--secret id={name},env=VARIABLE`"
                )),
            });
        }
        if set.is_some() && parameter.computed {
            return Err(TemplateError::Forbidden {
                name: name.clone(),
                reason: "is found out by the build and cannot be set",
                instead: None,
            });
        }
        if parameter.secret {
            continue;
        }
        let text = given.computed.get(name).or(set).cloned().or_else(|| parameter.default_text());
        let value = match text {
            // The default was checked when the manifest was read; a pattern need not match an empty one.
            Some(text) if parameter.default_text().as_ref() == Some(&text) => {
                ParameterValue { kind: parameter.kind, text }
            }
            Some(text) => check(name, parameter, &text)?,
            None if given.missing == Missing::Blank => {
                ParameterValue { kind: parameter.kind, text: String::new() }
            }
            None => {
                return Err(TemplateError::MissingParameter { owner: owner.to_owned(), name: name.clone() });
            }
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// Refuses names that are not declared, with the nearest one that is.
pub(super) fn refuse_unknown<'a>(
    owner: &str,
    declared: &BTreeMap<String, ParameterManifest>,
    given: impl IntoIterator<Item = &'a String>,
) -> Result<(), TemplateError> {
    for name in given {
        if !declared.contains_key(name) {
            let settable =
                declared.iter().filter(|(_, parameter)| !parameter.computed).map(|(name, _)| name.as_str());
            return Err(TemplateError::UnknownParameter {
                owner: owner.to_owned(),
                name: shown(name),
                nearest: nearest(name, settable),
            });
        }
    }
    Ok(())
}

/// The URL of a package mirror. No `@`: credentials would stand in the image's history.
const MIRROR: &str = "(https?://[A-Za-z0-9._~:/%+-]+)?";

/// Returns the parameters that every template has.
pub(super) fn global() -> BTreeMap<String, ParameterManifest> {
    let text = |pattern: &str, description: &str| ParameterManifest {
        kind: ParameterType::String,
        default: Some(toml::Value::String(String::new())),
        pattern: Some(pattern.to_owned()),
        values: Vec::new(),
        description: description.to_owned(),
        secret: false,
        computed: false,
    };
    let release = format!(
        "release of the base image where its name does not tell: {}",
        distro::codenames().replace('`', "")
    );
    BTreeMap::from([
        ("release".to_owned(), text("([a-z0-9.]+)?", &release)),
        (
            "apt_mirror".to_owned(),
            text(MIRROR, "mirror of the distribution's packages, used while building only"),
        ),
        (
            "apt_security_mirror".to_owned(),
            text(MIRROR, "mirror of the distribution's security updates, used while building only"),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(kind: ParameterType) -> ParameterManifest {
        ParameterManifest {
            kind,
            default: None,
            pattern: None,
            values: vec!["red".to_owned(), "blue".to_owned()],
            description: String::new(),
            secret: false,
            computed: false,
        }
    }

    #[test]
    fn values_are_held_to_their_type() {
        use ParameterType::{Bool, Enum, Int, Size, String, Version};
        for (kind, right, wrong) in [
            (String, vec!["", "a b", "it's", "ü"], vec!["a\nb", "a\0", "\u{7f}", "\u{85}", "\u{2028}", "\r"]),
            (
                Int,
                vec!["0", "-4", "9223372036854775807"],
                vec!["", "4.0", "four", "9223372036854775808", "4 "],
            ),
            (Bool, vec!["true", "false"], vec!["", "yes", "True", "1"]),
            (Size, vec!["512", "10GiB"], vec!["", "big", "-1"]),
            (Version, vec!["3", "3.12", "1.2.3-rc1"], vec!["", "v3", "3 .1", "3;x"]),
            (Enum, vec!["red"], vec!["", "green", "red "]),
        ] {
            for text in right {
                assert!(check("x", &declared(kind), text).is_ok(), "{kind:?} {text:?}");
            }
            for text in wrong {
                assert!(check("x", &declared(kind), text).is_err(), "{kind:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_value() {
        let digits =
            ParameterManifest { pattern: Some("[0-9]+|x".to_owned()), ..declared(ParameterType::String) };
        for (text, right) in [("15", true), ("x", true), ("15x", false), ("", false), ("xx", false)] {
            assert_eq!(check("x", &digits, text).is_ok(), right, "{text}");
        }
    }

    #[test]
    fn a_mirror_holds_no_credentials() {
        let global = global();
        assert!(check("apt_mirror", &global["apt_mirror"], "https://mirror.test:8080/debian").is_ok());
        assert!(check("apt_mirror", &global["apt_mirror"], "https://user:password@mirror.test/").is_err());
    }
}
