//! The commands of a `RUN`.

use crate::template::dockerfile::{Arguments, Instruction};

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: u32,
    /// Its words without quotes; the program first. Assignments before it are left out.
    pub(super) words: Vec<String>,
    /// Whether its output goes to the next command.
    pub(super) piped: bool,
    /// Whether it was called by `sudo`, which is left out.
    pub(super) sudo: bool,
}

impl Command {
    /// Returns the program without its folder.
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word))
    }

    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }
}

const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];

pub(super) fn is_shell(program: &str) -> bool {
    SHELLS.contains(&program)
}

/// Returns the commands of `instruction`, those of heredocs that a shell runs included.
pub(super) fn commands_of(instruction: &Instruction) -> Vec<Command> {
    match &instruction.arguments {
        Arguments::Shell(text) => {
            let offset = instruction.text.len() - text.len();
            let mut commands = split(text, |at| instruction.line_of(offset + at));
            let inner: Vec<Command> = commands
                .iter()
                .filter_map(|command| Some(split(script_of(&command.words)?, |_| command.line)))
                .flatten()
                .collect();
            commands.extend(inner);
            for heredoc in &instruction.heredocs {
                let opener = |word: &String| word.starts_with("<<");
                let by = commands.iter().find(|command| command.words.iter().any(opener));
                if by.is_none_or(|by| is_shell(by.program()) || by.program().starts_with("<<")) {
                    let line = heredoc.line;
                    let body = heredoc.body.as_str();
                    commands.extend(split(body, |at| line.saturating_add(newlines(&body[..at]))));
                }
            }
            commands
        }
        Arguments::Json(items) => match script_of(items) {
            Some(script) => {
                let shell =
                    Command { line: instruction.line, words: items.clone(), piped: false, sudo: false };
                std::iter::once(shell).chain(split(script, |_| instruction.line)).collect()
            }
            None => tidy(instruction.line, items.clone(), false).into_iter().collect(),
        },
        Arguments::Words(_) | Arguments::Pairs(_) => Vec::new(),
    }
}

/// Returns the script that a shell is given as an argument, as in `bash -c "…"`.
fn script_of(words: &[String]) -> Option<&str> {
    let program = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
    let option = words.iter().skip(1).position(|word| word.starts_with('-') && word.ends_with('c'))?;
    words.get(option + 2).map(String::as_str).filter(|_| is_shell(program))
}

fn newlines(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

/// Splits a script at `;`, `&&`, `||`, `|`, `&` and line ends. It follows no loops and no substitutions.
fn split(script: &str, line_of: impl Fn(usize) -> u32) -> Vec<Command> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut start, mut before) = (None, None, ' ');
    let mut chars = script.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let previous = std::mem::replace(&mut before, c);
        match c {
            '\\' if quote != Some('\'') => {
                if let Some((_, escaped)) = chars.next().filter(|(_, escaped)| *escaped != '\n') {
                    start.get_or_insert(at);
                    word.get_or_insert_default().push(escaped);
                }
            }
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => word.get_or_insert_default().push(c),
            '\'' | '"' => {
                start.get_or_insert(at);
                word.get_or_insert_default();
                quote = Some(c);
            }
            '#' if word.is_none() => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            ';' | '|' | '&' | '\n' => {
                if c == '&' && (previous == '>' || next == Some('>')) {
                    word.get_or_insert_default().push(c);
                    continue;
                }
                let piped = c == '|' && previous != '|' && next != Some('|');
                words.extend(word.take());
                let line = line_of(start.take().unwrap_or(at));
                commands.extend(tidy(line, std::mem::take(&mut words), piped));
            }
            // A group begins or ends; what is in `$(…)` stays in its word.
            '(' | ')' if word.is_none() => {}
            _ if c.is_whitespace() => words.extend(word.take()),
            _ => {
                start.get_or_insert(at);
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    let line = line_of(start.unwrap_or(script.len()));
    commands.extend(tidy(line, words, false));
    commands
}

/// Returns the command that `words` are, without what stands before its program.
fn tidy(line: u32, words: Vec<String>, piped: bool) -> Option<Command> {
    let mut sudo = false;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.peek() {
        let assignment = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        let keyword = [
            "if", "then", "else", "elif", "do", "while", "until", "!", "{", "}", "(", "exec", "time", "env",
            "command",
        ];
        if word == "sudo" {
            sudo = true;
            words.next();
            while words.next_if(|word| word.starts_with('-')).is_some() {}
        } else if assignment || keyword.contains(&word.as_str()) {
            words.next();
        } else {
            break;
        }
    }
    let words: Vec<String> = words.collect();
    (!words.is_empty() || sudo).then_some(Command { line, words, piped, sudo })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::dockerfile::Dockerfile;

    fn commands(run: &str) -> Vec<Command> {
        commands_of(&Dockerfile::parse(&format!("FROM x\n{run}")).unwrap().instructions()[1])
    }

    #[test]
    fn a_script_is_cut_into_commands() {
        let found = commands(
            "RUN set -e; A=1 sudo -E apt-get update \\\n && curl -f 'a|b' 2>&1 \\\n | (sh -s) || { echo \"a && b\"; }",
        );
        let words: Vec<(u32, String, bool, bool)> =
            found.iter().map(|c| (c.line, c.words.join(" "), c.piped, c.sudo)).collect();
        assert_eq!(
            words,
            [
                (2, "set -e".to_owned(), false, false),
                (2, "apt-get update".to_owned(), false, true),
                (3, "curl -f a|b 2>&1".to_owned(), true, false),
                (4, "sh -s)".to_owned(), false, false),
                (4, "echo a && b".to_owned(), false, false),
            ]
        );
    }

    #[test]
    fn heredocs_of_shells_are_scripts() {
        let found = commands("RUN <<EOF\n# no\napt-get update\nsudo x\nEOF");
        assert_eq!(found.iter().map(|c| c.line).collect::<Vec<_>>()[1..], [4, 5]);
        assert!(commands("RUN python3 <<EOF\nsudo x\nEOF").iter().all(|c| !c.sudo));
        assert!(commands("RUN bash -e <<EOF\nsudo x\nEOF").iter().any(|c| c.sudo));
        assert!(commands("RUN [\"bash\", \"-c\", \"sudo x\"]").iter().any(|c| c.sudo));
        assert!(commands("RUN a && /bin/bash -ec 'sudo x'").iter().any(|c| c.sudo));
        assert!(commands("RUN gcc -c 'sudo x'").iter().all(|c| !c.sudo));
    }
}
