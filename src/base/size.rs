//! Quantities with their units.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{input}` is not {expected}")]
pub struct SizeError {
    input: String,
    expected: &'static str,
}

impl super::Classify for SizeError {
    fn kind(&self) -> super::ErrorKind {
        super::ErrorKind::Invalid
    }
}

/// A number of bytes. Reads `512`, `64MiB`, `1.5 GiB`, `20GB`; serialises as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// One kibibyte.
    pub const KIB: u64 = 1 << 10;
    /// One mebibyte.
    pub const MIB: u64 = 1 << 20;
    /// One gibibyte.
    pub const GIB: u64 = 1 << 30;

    /// Returns the number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bytesize::ByteSize(self.0).display().iec().to_string())
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        text.trim().parse::<bytesize::ByteSize>().map(|size| Self(size.0)).map_err(|_reason| SizeError {
            input: text.escape_debug().to_string(),
            expected: "a size (such as 512MiB, 10GiB or 20GB)",
        })
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// A length of time. Reads and writes `90s`, `1h 30m`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Length(pub Duration);

impl Length {
    /// Makes a length of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns the duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_duration(self.0).to_string())
    }
}

impl FromStr for Length {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        humantime::parse_duration(text.trim()).map(Self).map_err(|_reason| SizeError {
            input: text.escape_debug().to_string(),
            expected: "a duration (such as 90s, 30m or 30d)",
        })
    }
}

impl Serialize for Length {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns a duration as people read it: `0.8s`, `12.3s`, `2m 05s`, `1h 02m`.
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_tell_decimal_from_binary_units() {
        for (text, bytes) in [
            ("512", 512),
            ("1KiB", 1024),
            ("20GB", 20_000_000_000),
            ("10GiB", 10 << 30),
            ("1.5 MiB", 3 << 19),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for wrong in ["", "ten", "-1", "5 parsecs"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn lengths_read_days_and_refuse_bare_numbers() {
        assert_eq!("30d".parse(), Ok(Length::seconds(30 * 86_400)));
        assert!("30".parse::<Length>().is_err());
    }

    #[test]
    fn durations_are_short_for_people() {
        for (ms, text) in [(840, "0.8s"), (125_000, "2m 05s"), (3_720_000, "1h 02m")] {
            assert_eq!(human_duration(Duration::from_millis(ms)), text);
        }
    }
}
