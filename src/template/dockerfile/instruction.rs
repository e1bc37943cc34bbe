//! One logical line: keyword, flags, arguments.

use super::types::line_at;
use super::words::{split, unquote};
use super::{Arguments, DockerfileError, Flag, Heredoc, Instruction, Keyword, Pair};

/// Lines joined into one, which remembers where each began.
#[derive(Debug, Clone)]
pub(super) struct Logical {
    text: String,
    lines: Vec<(usize, u32)>,
}

impl Logical {
    pub(super) fn new(line: u32, text: &str) -> Self {
        Self { text: text.to_owned(), lines: vec![(0, line)] }
    }

    pub(super) fn push(&mut self, line: u32, text: &str) {
        self.lines.push((self.text.len(), line));
        self.text.push_str(text);
    }

    fn line_of(&self, offset: usize) -> u32 {
        line_at(&self.lines, offset).unwrap_or(1)
    }

    fn end_line(&self) -> u32 {
        self.lines.last().map_or(1, |(_, line)| *line)
    }

    /// Returns the part from `offset` on, without blanks around it.
    fn after(&self, offset: usize) -> Self {
        let rest = &self.text[offset..];
        let start = offset + (rest.len() - rest.trim_start().len());
        let mut lines = vec![(0, self.line_of(start))];
        lines.extend(self.lines.iter().filter(|(at, _)| *at > start).map(|(at, line)| (at - start, *line)));
        Self { text: rest.trim().to_owned(), lines }
    }
}

/// Takes an instruction apart; heredoc bodies are not read yet.
pub(super) fn instruction_of(
    logical: &Logical,
    escape: char,
    any_flag: bool,
) -> Result<Instruction, DockerfileError> {
    let logical = &logical.after(0);
    let line = logical.line_of(0);
    let end = logical.text.find(char::is_whitespace).unwrap_or(logical.text.len());
    let keyword = keyword_of(&logical.text[..end], line)?;
    let (flags, after_flags) = flags_of(logical, end, keyword, any_flag)?;
    let rest = logical.after(after_flags);
    let trigger = match keyword {
        Keyword::Onbuild if rest.text.is_empty() => None,
        Keyword::Onbuild => {
            let inner = instruction_of_trigger(&rest, escape, any_flag)?;
            Some(Box::new(inner))
        }
        _ => None,
    };
    let mut instruction = Instruction {
        line,
        end_line: logical.end_line(),
        keyword,
        flags,
        arguments: Arguments::Words(Vec::new()),
        heredocs: Vec::new(),
        trigger,
        text: rest.text,
        lines: rest.lines,
    };
    instruction.arguments = arguments_of(&instruction, escape)?;
    complete(&instruction)?;
    Ok(instruction)
}

fn instruction_of_trigger(
    rest: &Logical,
    escape: char,
    any_flag: bool,
) -> Result<Instruction, DockerfileError> {
    let end = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
    let line = rest.line_of(0);
    match keyword_of(&rest.text[..end], line)? {
        // Refused before it is read, so that a long chain of them is not a deep recursion.
        inner @ (Keyword::Onbuild | Keyword::From | Keyword::Maintainer) => {
            Err(DockerfileError::new(line, format!("`ONBUILD {inner}` is not allowed")))
        }
        _ => instruction_of(rest, escape, any_flag),
    }
}

fn keyword_of(word: &str, line: u32) -> Result<Keyword, DockerfileError> {
    let upper = word.to_uppercase();
    if let Some(keyword) = Keyword::ALL.iter().find(|keyword| keyword.as_str() == upper) {
        return Ok(*keyword);
    }
    let shown = shown(word);
    let nearest = nearest(&upper, Keyword::ALL.iter().map(|keyword| keyword.as_str()));
    Err(DockerfileError::new(
        line,
        match nearest {
            Some(nearest) => format!("`{shown}` is not an instruction; did you mean `{nearest}`?"),
            None => format!("`{shown}` is not an instruction"),
        },
    ))
}

/// Returns the name that is like `given`, where one is.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A long text is like no name, and comparing it would take long.
    if given.len() > 40 {
        return None;
    }
    names
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance * 3 <= name.len().max(3))
        .min()
        .map(|(_, name)| name)
}

/// Returns `text` fit for a message: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

fn known_flags(keyword: Keyword) -> &'static [&'static str] {
    match keyword {
        Keyword::From => &["platform"],
        Keyword::Run => &["mount", "network", "security", "device"],
        Keyword::Copy => &["from", "chown", "chmod", "link", "parents", "exclude"],
        Keyword::Add => &["chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude"],
        Keyword::Healthcheck => &["interval", "timeout", "start-period", "start-interval", "retries"],
        Keyword::Arg
        | Keyword::Cmd
        | Keyword::Entrypoint
        | Keyword::Env
        | Keyword::Expose
        | Keyword::Label
        | Keyword::Maintainer
        | Keyword::Onbuild
        | Keyword::Shell
        | Keyword::Stopsignal
        | Keyword::User
        | Keyword::Volume
        | Keyword::Workdir => &[],
    }
}

/// Returns the flags and where they end.
fn flags_of(
    logical: &Logical,
    from: usize,
    keyword: Keyword,
    any_flag: bool,
) -> Result<(Vec<Flag>, usize), DockerfileError> {
    let (mut flags, mut at) = (Vec::new(), from);
    loop {
        let rest = &logical.text[at..];
        let start = at + (rest.len() - rest.trim_start().len());
        let Some(rest) = logical.text[start..].strip_prefix("--") else { return Ok((flags, at)) };
        let (word, length) = flag_word(rest);
        at = start + 2 + length;
        if word.is_empty() {
            return Ok((flags, at));
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_lowercase(), Some(value.to_owned())),
            None => (word.to_lowercase(), None),
        };
        let line = logical.line_of(start);
        let known = known_flags(keyword);
        if !any_flag && !known.contains(&name.as_str()) {
            let hint = nearest(&name, known.iter().copied())
                .map(|nearest| format!("; did you mean `--{nearest}`?"))
                .unwrap_or_default();
            let message = format!("`{keyword}` has no flag `--{}`{hint}", shown(&name));
            return Err(DockerfileError::new(line, message));
        }
        // Only switches go without a value.
        if !any_flag
            && value.is_none()
            && !["link", "parents", "keep-git-dir", "unpack"].contains(&name.as_str())
        {
            return Err(DockerfileError::new(line, format!("`--{name}` needs a value, as in `--{name}=…`")));
        }
        flags.push(Flag { line, name, value });
    }
}

/// Returns the word at the start of `rest` without quotes, and how long it is as written.
fn flag_word(rest: &str) -> (String, usize) {
    let (mut word, mut quote) = (String::new(), None);
    for (offset, c) in rest.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => return (word, offset),
            None => word.push(c),
        }
    }
    (word, rest.len())
}

/// Reads the JSON form; `None` when it is the shell form.
fn json(text: &str, line: u32) -> Result<Option<Arguments>, DockerfileError> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    // What is no list of scalars is the shell form, so the reason does not matter. Builders refuse other scalars.
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_) => Ok(None),
        Ok(items) => {
            let items: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect();
            let message = "a JSON list here holds strings only";
            items.map(Arguments::Json).map(Some).ok_or_else(|| DockerfileError::new(line, message))
        }
    }
}

fn words(text: &str) -> Arguments {
    Arguments::Words(text.split_whitespace().map(str::to_owned).collect())
}

fn arguments_of(instruction: &Instruction, escape: char) -> Result<Arguments, DockerfileError> {
    let text = instruction.text.as_str();
    let line = instruction.line;
    Ok(match instruction.keyword {
        Keyword::Run | Keyword::Cmd | Keyword::Entrypoint => {
            json(text, line)?.unwrap_or_else(|| Arguments::Shell(text.to_owned()))
        }
        Keyword::Shell => json(text, line)?.ok_or_else(|| {
            DockerfileError::new(
                instruction.line,
                "`SHELL` takes a JSON list, such as `[\"/bin/sh\", \"-c\"]`",
            )
        })?,
        Keyword::Copy | Keyword::Add | Keyword::Volume => json(text, line)?.unwrap_or_else(|| words(text)),
        Keyword::Healthcheck => match text.split_once(char::is_whitespace) {
            Some((word, command)) if word.eq_ignore_ascii_case("CMD") => {
                let command = command.trim_start();
                json(command, line)?.unwrap_or_else(|| Arguments::Shell(command.to_owned()))
            }
            _ if text.eq_ignore_ascii_case("NONE") => words(text),
            _ => {
                let message = "`HEALTHCHECK` takes `NONE`, or `CMD` and a command";
                return Err(DockerfileError::new(instruction.line, message));
            }
        },
        Keyword::Arg | Keyword::Env | Keyword::Label => Arguments::Pairs(pairs_of(instruction, escape)?),
        Keyword::Onbuild | Keyword::Maintainer => Arguments::Shell(text.to_owned()),
        Keyword::Expose | Keyword::From | Keyword::Stopsignal | Keyword::User | Keyword::Workdir => {
            words(text)
        }
    })
}

fn pairs_of(instruction: &Instruction, escape: char) -> Result<Vec<Pair>, DockerfileError> {
    let words = split(&instruction.text, escape);
    let keyword = instruction.keyword;
    let pair = |line: u32, name: &str, raw: Option<&str>| {
        let name = unquote(name, escape);
        if name.is_empty() {
            return Err(DockerfileError::new(line, format!("`{keyword}` has a value without a name")));
        }
        let value = raw.map(|raw| unquote(raw, escape));
        Ok(Pair { line, name, value, raw: raw.map(str::to_owned) })
    };
    let legacy = keyword != Keyword::Arg && words.first().is_some_and(|(_, word)| !word.contains('='));
    if legacy {
        // `ENV name value with blanks`: one variable, whose value is the rest of the line.
        let line = instruction.line_of(0);
        return match instruction.text.split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![pair(line, name, Some(value.trim_start()))?]),
            None => Err(DockerfileError::new(
                line,
                format!("`{keyword} {}` needs a value, as in `name=value`", shown(&instruction.text)),
            )),
        };
    }
    words
        .into_iter()
        .map(|(offset, word)| {
            let line = instruction.line_of(offset);
            match word.split_once('=') {
                Some((name, value)) => pair(line, name, Some(value)),
                None if keyword == Keyword::Arg => pair(line, word, None),
                None => {
                    let message = format!("`{}` has no `=`; write `name=value`", shown(word));
                    Err(DockerfileError::new(line, message))
                }
            }
        })
        .collect()
}

/// Refuses an instruction that lacks what it cannot do without.
fn complete(instruction: &Instruction) -> Result<(), DockerfileError> {
    let (items, keyword) = (instruction.arguments.items(), instruction.keyword);
    let missing = match keyword {
        Keyword::Copy | Keyword::Add if items.len() < 2 => "a source and a destination",
        Keyword::From => match items {
            [_] => return Ok(()),
            [_, word, _] if word.eq_ignore_ascii_case("AS") => return Ok(()),
            _ => "an image, or `image AS name`",
        },
        Keyword::Shell if items.is_empty() => "a command",
        Keyword::Volume if items.is_empty() || items.iter().any(String::is_empty) => "a path",
        // Empty, they take back what the base image says.
        Keyword::Cmd | Keyword::Entrypoint => return Ok(()),
        Keyword::User | Keyword::Stopsignal if items.len() != 1 => "one word",
        Keyword::Add
        | Keyword::Arg
        | Keyword::Copy
        | Keyword::Env
        | Keyword::Expose
        | Keyword::Healthcheck
        | Keyword::Label
        | Keyword::Maintainer
        | Keyword::Onbuild
        | Keyword::Run
        | Keyword::Shell
        | Keyword::Stopsignal
        | Keyword::User
        | Keyword::Volume
        | Keyword::Workdir => {
            if !instruction.text.is_empty() {
                return Ok(());
            }
            "an argument"
        }
    };
    Err(DockerfileError::new(instruction.line, format!("`{keyword}` needs {missing}")))
}

/// Returns the heredocs that `instruction` opens, without bodies.
pub(super) fn heredocs_opened(instruction: &Instruction, escape: char) -> Vec<Heredoc> {
    if let Some(inner) = &instruction.trigger {
        return heredocs_opened(inner, escape);
    }
    let takes_one = matches!(instruction.keyword, Keyword::Run | Keyword::Copy | Keyword::Add);
    if !takes_one || matches!(instruction.arguments, Arguments::Json(_)) {
        return Vec::new();
    }
    split(&instruction.text, escape).into_iter().filter_map(|(_, word)| heredoc(word, escape)).collect()
}

/// Returns the heredoc that `word` opens: `<<name`, `<<-name`, `3<<name`, with or without quotes.
fn heredoc(word: &str, escape: char) -> Option<Heredoc> {
    let after = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip_tabs, quoted) = match after.strip_prefix('-') {
        Some(quoted) => (true, quoted),
        None => (false, after),
    };
    let name = unquote(quoted, escape);
    if name.is_empty() || quoted.contains('<') {
        return None;
    }
    let expand = !quoted.contains(['"', '\'']);
    Some(Heredoc { line: 0, name, expand, strip_tabs, body: String::new() })
}
