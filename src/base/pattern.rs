//! Patterns by which a rule says what it holds for: names with wildcards, labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IdError;

/// A pattern of names: `*` stands for any characters, none included, `?` for one; everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Returns whether a name fits. Takes no more time than the product of both lengths.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut name_at) = (0, 0);
        // Where to go on when what follows the last `*` does not fit: that star takes one character more.
        let mut star = None;
        while let Some(byte) = name.get(name_at) {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    star = Some((at, name_at));
                }
                Some(wanted) if *wanted == b'?' || wanted == byte => {
                    at += 1;
                    name_at += 1;
                }
                Some(_) | None => match star {
                    Some((behind, from)) => {
                        (at, name_at) = (behind, from + 1);
                        star = Some((behind, from + 1));
                    }
                    None => return false,
                },
            }
        }
        pattern.iter().skip(at).all(|byte| *byte == b'*')
    }
}

impl FromStr for NamePattern {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(fits) {
            return Err(IdError::of(
                text,
                "a pattern of names (letters, digits, `.`, `_`, `-`, and the wildcards `*` and `?`)",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern of labels: `KEY` for any value of that key, `KEY=VALUE` for that one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelPattern {
    key: String,
    value: Option<String>,
}

impl LabelPattern {
    /// Returns whether one of the labels fits.
    #[must_use]
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        found.is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

impl FromStr for LabelPattern {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err(IdError::of(text, "a label (KEY or KEY=VALUE)"));
        }
        Ok(Self { key: key.to_owned(), value })
    }
}

impl fmt::Display for LabelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for NamePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LabelPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    #[test]
    fn stars_stand_for_any_characters_and_question_marks_for_one() {
        for (text, fitting, other) in [
            ("ci-*", &["ci-", "ci-7", "ci-a-b"][..], &["ci", "a-ci-7"][..]),
            ("*", &["a", "ci-7"], &[]),
            ("*-main", &["a-main", "-main-main"], &["main", "a-main2"]),
            ("a*b*c", &["abc", "aXbYc", "abcbc"], &["ab", "acb"]),
            ("a?c", &["abc"], &["ac", "abbc"]),
            ("exact", &["exact"], &["exact2", "Exact", "exac"]),
        ] {
            for name in fitting {
                assert!(pattern(text).fits(name), "{text} {name}");
            }
            for name in other {
                assert!(!pattern(text).fits(name), "{text} {name}");
            }
        }
        for wrong in ["", "a b", "a/b", "[ab]", &"a".repeat(129)] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_label_fits_by_its_key_or_by_both() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("empty".into(), String::new())]);
        for (text, fits) in
            [("env", true), ("env=prod", true), ("env=", false), ("empty=", true), ("other", false)]
        {
            let pattern: LabelPattern = text.parse().unwrap();
            assert_eq!((pattern.fits(&labels), pattern.to_string().as_str()), (fits, text));
        }
        assert!("=x".parse::<LabelPattern>().is_err());
    }

    /// What the loop should say, said slowly.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|from| slowly(rest, &name[from..])),
            (Some((b'?', rest)), Some((_, name))) => slowly(rest, name),
            (Some((wanted, rest)), Some((byte, name))) => wanted == byte && slowly(rest, name),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_fits_what_its_definition_says(text in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(pattern(&text).fits(&name), slowly(text.as_bytes(), name.as_bytes()));
        }
    }
}
