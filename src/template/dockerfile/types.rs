//! What a parsed Dockerfile is: plain data.

use std::fmt;
use std::ops::Range;

use crate::base::{Classify, ErrorKind};

/// Why a text is not a Dockerfile, or cannot be built as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Dockerfile has a mistake in line {line}: {message}")]
pub struct DockerfileError {
    /// The line, from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl DockerfileError {
    pub(super) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl Classify for DockerfileError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A Dockerfile: instructions in order, with the line of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    pub(super) text: String,
    pub(super) escape: char,
    pub(super) directives: Vec<Directive>,
    pub(super) comments: Vec<Comment>,
    pub(super) instructions: Vec<Instruction>,
    pub(super) stages: Vec<Stage>,
}

impl Dockerfile {
    /// Returns the parser directives: `syntax`, `escape` and `check`.
    #[must_use]
    pub fn directives(&self) -> &[Directive] {
        &self.directives
    }

    /// Returns the comments that are not directives, in order.
    #[must_use]
    pub fn comments(&self) -> &[Comment] {
        &self.comments
    }

    /// Returns the instructions, in order.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Returns the stages, in order. There is at least one.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Returns the instructions of `stage`, its `FROM` first.
    #[must_use]
    pub fn instructions_of(&self, stage: &Stage) -> &[Instruction] {
        self.instructions.get(stage.instructions.clone()).unwrap_or_default()
    }
}

/// A parser directive, such as `# escape=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The line, from 1.
    pub line: u32,
    /// `syntax`, `escape` or `check`.
    pub name: String,
    /// What it is set to.
    pub value: String,
}

/// A comment line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// The line, from 1.
    pub line: u32,
    /// The text after `#`, trimmed.
    pub text: String,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The first line, from 1.
    pub line: u32,
    /// The last line, heredoc bodies included.
    pub end_line: u32,
    /// Which instruction.
    pub keyword: Keyword,
    /// Flags, in order.
    pub flags: Vec<Flag>,
    /// What follows the flags, lines joined, trimmed.
    pub text: String,
    /// The same, taken apart.
    pub arguments: Arguments,
    /// Heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// What an `ONBUILD` holds.
    pub trigger: Option<Box<Self>>,
    /// Where the physical lines begin in `text`: offset and line, ascending.
    pub(super) lines: Vec<(usize, u32)>,
}

impl Instruction {
    /// Returns the line of the byte at `offset` in `text`.
    #[must_use]
    pub fn line_of(&self, offset: usize) -> u32 {
        self.lines
            .iter()
            .take_while(|(start, _)| *start <= offset)
            .last()
            .map_or(self.line, |(_, line)| *line)
    }

    /// Returns the flag `name`, such as `from`; the last one if it is given more than once.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().rev().find(|flag| flag.name == name)
    }

    /// Returns the mounts of a `RUN`.
    pub fn mounts(&self) -> impl Iterator<Item = Mount> + '_ {
        self.flags.iter().filter(|flag| flag.name == "mount").map(Mount::of)
    }
}

/// Returns the line of the byte at `offset`, given where lines begin.
pub(super) fn line_at(lines: &[(usize, u32)], offset: usize) -> Option<u32> {
    let after = lines.partition_point(|(start, _)| *start <= offset);
    lines.get(after.checked_sub(1)?).map(|(_, line)| *line)
}

/// A flag, such as `--from=builder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The line, from 1.
    pub line: u32,
    /// The name without dashes, lower case.
    pub name: String,
    /// What it is set to, quotes removed.
    pub value: Option<String>,
}

impl Flag {
    /// Returns whether the flag is given and not `false`.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self
            .value
            .as_deref()
            .is_some_and(|value| ["false", "0", "f"].contains(&value.to_lowercase().as_str()))
    }
}

/// A `--mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The line, from 1.
    pub line: u32,
    /// `bind`, `cache`, `tmpfs`, `secret` or `ssh`.
    pub kind: String,
    /// All options, `type` left out, in order.
    pub options: Vec<(String, Option<String>)>,
}

impl Mount {
    fn of(flag: &Flag) -> Self {
        let mut mount = Self { line: flag.line, kind: "bind".to_owned(), options: Vec::new() };
        for option in flag.value.as_deref().unwrap_or_default().split(',') {
            let option = option.trim().trim_matches('"');
            if option.is_empty() {
                continue;
            }
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.to_lowercase(), Some(value.to_owned())),
                None => (option.to_lowercase(), None),
            };
            match (name.as_str(), value) {
                ("type", Some(kind)) => mount.kind = kind.to_lowercase(),
                (_, value) => mount.options.push((name, value)),
            }
        }
        mount
    }

    /// Returns the value of the option that is called one of `names`.
    #[must_use]
    pub fn option(&self, names: &[&str]) -> Option<&str> {
        self.options.iter().find(|(name, _)| names.contains(&name.as_str()))?.1.as_deref()
    }

    /// Returns the id of a secret: its `id`, else the last segment of its target.
    #[must_use]
    pub fn secret_id(&self) -> Option<&str> {
        if self.kind != "secret" {
            return None;
        }
        let target =
            || self.option(&["target", "dst", "destination"]).and_then(|path| path.rsplit('/').next());
        self.option(&["id"]).or_else(target).filter(|id| !id.is_empty())
    }
}

/// What follows the flags of an instruction, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// A command for the shell, as written.
    Shell(String),
    /// A JSON list.
    Json(Vec<String>),
    /// Words between blanks, as written.
    Words(Vec<String>),
    /// Names and values.
    Pairs(Vec<Pair>),
}

impl Arguments {
    /// Returns the items of a JSON list or of words.
    #[must_use]
    pub fn items(&self) -> &[String] {
        match self {
            Self::Json(items) | Self::Words(items) => items,
            Self::Shell(_) | Self::Pairs(_) => &[],
        }
    }

    /// Returns the names and values of an `ARG`, `ENV` or `LABEL`.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        match self {
            Self::Pairs(pairs) => pairs,
            Self::Shell(_) | Self::Json(_) | Self::Words(_) => &[],
        }
    }
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The line, from 1.
    pub line: u32,
    /// The name, quotes removed.
    pub name: String,
    /// The value, quotes removed, variables as written. Absent in `ARG name`.
    pub value: Option<String>,
    /// The value as written.
    pub(super) raw: Option<String>,
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The first line of the body, from 1.
    pub line: u32,
    /// The delimiter.
    pub name: String,
    /// Whether variables in the body are expanded: the delimiter was not quoted.
    pub expand: bool,
    /// Whether leading tabs are dropped: it was `<<-`.
    pub strip_tabs: bool,
    /// The body as written, with line ends.
    pub body: String,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The line of its `FROM`.
    pub line: u32,
    /// What it comes from, as written.
    pub base: String,
    /// Its name, lower case.
    pub name: Option<String>,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Its place among all instructions, the `FROM` included.
    pub instructions: Range<usize>,
}

macro_rules! keywords {
    ($($variant:ident $text:literal $doc:literal),+ $(,)?) => {
        /// An instruction's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Keyword {
            $(#[doc = $doc] $variant),+
        }

        impl Keyword {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the name in upper case.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }
    };
}

keywords! {
    Add "ADD" "Files, archives or what a URL gives.",
    Arg "ARG" "Build arguments.",
    Cmd "CMD" "The command.",
    Copy "COPY" "Files.",
    Entrypoint "ENTRYPOINT" "The entrypoint.",
    Env "ENV" "Variables.",
    Expose "EXPOSE" "Ports.",
    From "FROM" "The start of a stage.",
    Healthcheck "HEALTHCHECK" "How to see that a container is healthy.",
    Label "LABEL" "Labels.",
    Maintainer "MAINTAINER" "The author.",
    Onbuild "ONBUILD" "An instruction for images that come from this one.",
    Run "RUN" "A command of the build.",
    Shell "SHELL" "The shell of the shell form.",
    Stopsignal "STOPSIGNAL" "The signal that stops a container.",
    User "USER" "The user.",
    Volume "VOLUME" "Volumes.",
    Workdir "WORKDIR" "The working directory.",
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
