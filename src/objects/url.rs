//! Where a store is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Prefix;
use crate::base::{Classify, ErrorKind};

/// Why a text is no store URL. No message repeats what may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// It is neither a path nor a URL that this version knows.
    #[error("`{0}` is not a store: give a path, `file:///path` or `s3://bucket/prefix`")]
    Unknown(String),
    /// It holds a user name or a password.
    #[error(
        "the URL of a store holds no credentials: they come from the environment or a profile, as for the AWS tools"
    )]
    Credentials,
    /// The bucket's name cannot be one.
    #[error("`{0}` is not the name of a bucket")]
    Bucket(String),
    /// The prefix is not made of segments that keys have.
    #[error("`{0}` is not a prefix in a bucket: letters, digits, `.`, `_` and `-` between slashes")]
    Prefix(String),
    /// The query has a key that means nothing.
    #[error("`{0}` is not a setting of an S3 store: `endpoint`, `region`, `path_style` and `ca` are")]
    Setting(String),
    /// A setting stands there twice.
    #[error("`{0}` stands twice in the URL of the store")]
    Twice(&'static str),
    /// A setting has a value that cannot be right.
    #[error("`{setting}` in the URL of the store must be {expected}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl Classify for StoreUrlError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Where a store is: a directory, given as a path or `file:///path`, or a part of an S3 bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory.
    Directory(PathBuf),
    /// A bucket, or a prefix in one.
    S3(S3Url),
}

/// Where an S3 store is: `s3://bucket/prefix?endpoint=…&region=…&path_style=true&ca=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Url {
    bucket: String,
    prefix: Prefix,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    ca: Option<PathBuf>,
}

impl StoreUrl {
    /// Takes a path as it is.
    #[must_use]
    pub fn of_path(path: PathBuf) -> Self {
        Self::Directory(path)
    }
}

impl S3Url {
    /// Returns the bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the prefix in the bucket; the empty one is the whole bucket.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Returns the server, as `http://host:port` or with `https`; `None` is AWS.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Returns the region.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Tells whether the bucket stands in the path of a request and not in its host name. Where the URL does not say so, it
    /// does for servers other than AWS, because few of them have a host name for each bucket.
    #[must_use]
    pub fn path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    /// Returns a PEM file of CA certificates that are trusted beside those of this host.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    fn parse(rest: &str) -> Result<Self, StoreUrlError> {
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        if rest.contains('#') {
            return Err(StoreUrlError::Value { setting: "ca", expected: "without `#`; write `%23`" });
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') || bucket.contains(':') {
            return Err(StoreUrlError::Credentials);
        }
        if !is_bucket(bucket) {
            return Err(StoreUrlError::Bucket(bucket.to_owned()));
        }
        let prefix = match prefix.strip_suffix('/').unwrap_or(prefix) {
            "" if prefix.is_empty() => Prefix::default(),
            segments => {
                Prefix::new(segments).map_err(|error| StoreUrlError::Prefix(unquoted(&error, segments)))?
            }
        };
        let mut url = Self {
            bucket: bucket.to_owned(),
            prefix,
            endpoint: None,
            region: None,
            path_style: None,
            ca: None,
        };
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.set(name, value)?;
        }
        Ok(url)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), StoreUrlError> {
        let wrong = |setting, expected| StoreUrlError::Value { setting, expected };
        let value = percent_decoded(value);
        let text = value.as_deref().filter(|value| !value.is_empty());
        match name {
            "endpoint" => {
                let text = text.unwrap_or_default();
                if text.contains('@') {
                    return Err(StoreUrlError::Credentials);
                }
                let endpoint = endpoint(text)
                    .ok_or_else(|| wrong("endpoint", "`http://host:port` or `https://host`"))?;
                once("endpoint", &mut self.endpoint, endpoint)
            }
            "region" => {
                let region = text
                    .filter(|text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
                    .ok_or_else(|| wrong("region", "the name of a region"))?;
                once("region", &mut self.region, region.to_owned())
            }
            "path_style" => {
                let style = text
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| wrong("path_style", "`true` or `false`"))?;
                once("path_style", &mut self.path_style, style)
            }
            "ca" => {
                once("ca", &mut self.ca, text.ok_or_else(|| wrong("ca", "the path of a PEM file"))?.into())
            }
            // Without the value: it may be a secret.
            other => Err(StoreUrlError::Setting(other.escape_debug().to_string())),
        }
    }
}

fn once<T>(name: &'static str, setting: &mut Option<T>, value: T) -> Result<(), StoreUrlError> {
    match setting.replace(value) {
        None => Ok(()),
        Some(_) => Err(StoreUrlError::Twice(name)),
    }
}

/// Returns a prefix for a message; what looks like a part of an address is left out of it.
fn unquoted(_error: &super::KeyError, segments: &str) -> String {
    if segments.contains('@') { "…".to_owned() } else { segments.escape_debug().to_string() }
}

/// Returns the endpoint without a closing slash, when it is a scheme, a host and perhaps a port.
fn endpoint(text: &str) -> Option<String> {
    let uri: hyper::Uri = text.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri.authority()?;
    let plain = uri.path() == "/" && uri.query().is_none() && !authority.host().is_empty();
    plain.then(|| format!("{scheme}://{authority}"))
}

/// The rules of S3, which every server keeps: 3 to 63 lower-case letters, digits, dots and hyphens, a letter or digit at the ends.
fn is_bucket(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(b))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
}

/// Returns `text` with `%xx` replaced; `None` where that is no UTF-8 or no two digits follow.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?].map(char::from);
                let [high, low] = digits.map(|digit| digit.to_digit(16).and_then(|n| u8::try_from(n).ok()));
                high? * 16 + low?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Shows a value of a setting so that it is read back as it was.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:[]".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        match self.prefix.as_str().strip_suffix('/') {
            None => {}
            Some(prefix) => write!(f, "/{prefix}")?,
        }
        let path_style = self.path_style.map(|style| style.to_string());
        let ca = self.ca.as_ref().map(|ca| ca.to_string_lossy());
        let settings = [
            ("endpoint", self.endpoint.as_deref()),
            ("region", self.region.as_deref()),
            ("path_style", path_style.as_deref()),
            ("ca", ca.as_deref()),
        ];
        let mut mark = '?';
        for (name, value) in settings {
            if let Some(value) = value {
                write!(f, "{mark}{name}={}", percent_encoded(value))?;
                mark = '&';
            }
        }
        Ok(())
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        match text.split_once("://") {
            None if text.is_empty() => Err(StoreUrlError::Unknown(text.to_owned())),
            None => Ok(Self::Directory(text.into())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            Some(("s3", rest)) => S3Url::parse(rest).map(Self::S3),
            Some(_) if text.contains('@') => Err(StoreUrlError::Credentials),
            Some(_) => Err(StoreUrlError::Unknown(text.to_owned())),
        }
    }
}

impl FromStr for S3Url {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        match text.parse()? {
            StoreUrl::S3(url) => Ok(url),
            StoreUrl::Directory(path) => Err(StoreUrlError::Unknown(path.display().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_name_directories() {
        for (text, path) in [("/a/b", "/a/b"), ("a", "a"), ("file:///a", "/a")] {
            assert_eq!(text.parse::<StoreUrl>().unwrap(), StoreUrl::of_path(path.into()));
        }
        for wrong in ["", "file://host/a", "gs://bucket", "S3://bucket"] {
            assert!(matches!(wrong.parse::<StoreUrl>(), Err(StoreUrlError::Unknown(_))), "{wrong}");
        }
    }

    #[test]
    fn an_s3_url_is_shown_as_it_was_given() {
        for text in [
            "s3://bucket",
            "s3://my.bucket-1/a/b_c",
            "s3://bucket/p?endpoint=http://127.0.0.1:3900&region=garage&path_style=true",
            "s3://bucket?endpoint=http://[::1]:3900",
            "s3://bucket/p?region=eu-central-1&path_style=false&ca=/etc/with%20space/a%2Bb%25%26.pem",
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        let url: S3Url =
            "s3://b-1/p/?path_style=false&endpoint=https%3A%2F%2Fs3.example:443/".parse().unwrap();
        assert_eq!(url.to_string(), "s3://b-1/p?endpoint=https://s3.example:443&path_style=false");
        assert_eq!((url.bucket(), url.prefix().as_str()), ("b-1", "p/"));
    }

    #[test]
    fn path_style_is_for_servers_other_than_aws_unless_said() {
        for (text, style) in [
            ("s3://bucket", false),
            ("s3://bucket?path_style=true", true),
            ("s3://bucket?endpoint=http://h", true),
            ("s3://bucket?endpoint=http://h&path_style=false", false),
        ] {
            assert_eq!(text.parse::<S3Url>().unwrap().path_style(), style, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("s3://", "bucket"),
            ("s3:///p", "bucket"),
            ("s3://UPPER/p", "UPPER"),
            ("s3://ab", "ab"),
            ("s3://bucket//", "prefix"),
            ("s3://bucket/a/../b", "a/../b"),
            ("s3://bucket/a//b", "a//b"),
            ("s3://bucket?", "setting"),
            ("s3://bucket?endpont=http://h", "endpont"),
            ("s3://bucket?region=a&region=b", "twice"),
            ("s3://bucket?region=", "region"),
            ("s3://bucket?path_style=yes", "path_style"),
            ("s3://bucket?endpoint=h:3900", "endpoint"),
            ("s3://bucket?endpoint=ftp://h", "endpoint"),
            ("s3://bucket?endpoint=http://h/path", "endpoint"),
            ("s3://bucket?endpoint=http://h%zz", "endpoint"),
            ("s3://bucket?ca=a#b", "ca"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for text in [
            "s3://AKIAX:SECRET@bucket/p",
            "s3://SECRET@bucket",
            "s3://bucket?endpoint=http://user:SECRET@host",
            "s3://bucket?endpoint=http://user:SECRET%40host",
            "s3://bucket?secret_access_key=SECRET",
            "s3://bucket/x@SECRET",
            "https://user:SECRET@host/bucket",
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }
}
