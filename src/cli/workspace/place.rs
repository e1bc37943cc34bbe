//! Where a tree comes from or goes to: a directory, a stream or a container.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::base::ErrorKind;
use crate::cli::args::ArgumentError;
use crate::cli::failure::CommandError;

/// Where a tree comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory.
    Directory(PathBuf),
    /// Standard input or output.
    Stream,
    /// A directory of a container.
    Container {
        /// The container's name or id.
        container: String,
        /// The directory, absolute.
        path: String,
    },
}

impl Place {
    /// Reads an argument: `-` is the stream, `docker://NAME/path` a container's directory, everything else a path, be it UTF-8 or
    /// not.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::of)
    }

    fn of(text: OsString) -> Result<Self, ArgumentError> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        let Some(rest) = text.to_str().and_then(|text| text.strip_prefix("docker://")) else {
            return Ok(Self::Directory(text.into()));
        };
        match rest.find('/') {
            Some(slash) if slash > 0 => {
                let (container, path) = rest.split_at(slash);
                Ok(Self::Container { container: container.to_owned(), path: path.to_owned() })
            }
            Some(_) | None => Err(ArgumentError(format!(
                "`docker://{}` names no directory of a container: write docker://NAME/path",
                rest.escape_debug()
            ))),
        }
    }
}

/// Returns standard input for an archive; a terminal is refused, because nobody types one.
pub(super) fn archive_in() -> Result<File, CommandError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(CommandError::invalid("standard input is a terminal and no tar stream")
            .with_hint("pipe one in: `tar -c . | kiln workspace save - --name NAME`"));
    }
    let owned = stdin.as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|error| no_stream("input", &error))
}

/// Returns standard output for an archive; a terminal is refused, because it would show bytes.
pub(super) fn archive_out() -> Result<File, CommandError> {
    if io::stdout().is_terminal() {
        return Err(CommandError::invalid("standard output is a terminal and shows no tar stream")
            .with_hint("send it somewhere: `kiln workspace restore REF - > workspace.tar`"));
    }
    raw_out()
}

/// Returns standard output for bytes, without a buffer between.
pub(super) fn raw_out() -> Result<File, CommandError> {
    let owned = io::stdout().as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|error| no_stream("output", &error))
}

fn no_stream(which: &str, error: &io::Error) -> CommandError {
    CommandError::io(ErrorKind::Unavailable, format!("cannot use standard {which}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hyphen_is_the_stream_and_a_path_to_one_is_a_path() {
        assert_eq!(Place::of("-".into()), Ok(Place::Stream));
        for path in ["./-", "a", "/a b"] {
            assert_eq!(Place::of(path.into()), Ok(Place::Directory(path.into())));
        }
    }

    #[test]
    fn a_container_has_a_name_and_an_absolute_path() {
        let place = Place::Container { container: "box".into(), path: "/home/user".into() };
        assert_eq!(Place::of("docker://box/home/user".into()), Ok(place));
        for wrong in ["docker://", "docker://box", "docker:///path"] {
            assert!(Place::of(wrong.into()).is_err(), "{wrong}");
        }
    }
}
