//! Text to instructions: directives, comments, continuations, heredocs.

use std::ops::Range;

use super::instruction::{Logical, heredocs_opened, instruction_of};
use super::stages::stages_of;
use super::{Comment, Directive, Dockerfile, DockerfileError, Heredoc, Keyword};

/// A physical line: its number from 1, and its text without the line end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) number: u32,
    pub(super) text: &'a str,
    /// The same with the line end.
    pub(super) whole: &'a str,
}

pub(super) fn lines_of(text: &str) -> Vec<Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split_inclusive('\n')
        .enumerate()
        .map(|(index, whole)| Line {
            number: u32::try_from(index + 1).unwrap_or(u32::MAX),
            text: whole.trim_end_matches(['\n', '\r']),
            whole,
        })
        .collect()
}

impl Dockerfile {
    /// Parses `text`.
    ///
    /// Flags that nobody knows are accepted when a `# syntax=` line names a frontend, which may know them.
    ///
    /// # Errors
    ///
    /// The first line that no builder would take.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let lines = lines_of(text);
        let (directives, escape) = directives_of(&lines)?;
        let mut reader = Reader { lines: &lines, next: 0, escape, comments: Vec::new() };
        let any_flag = directives.iter().any(|directive| directive.name == "syntax");
        let mut instructions = Vec::new();
        while let Some(logical) = reader.logical_line() {
            let mut instruction = instruction_of(&logical, escape, any_flag)?;
            let opened = heredocs_opened(&instruction, escape);
            for heredoc in opened {
                instruction.heredocs.push(reader.body(heredoc, instruction.line)?);
                instruction.end_line = reader.last_line();
            }
            let inner = instruction.trigger.as_mut().filter(|inner| inner.keyword != Keyword::Onbuild);
            if let Some(inner) = inner {
                inner.heredocs.clone_from(&instruction.heredocs);
                inner.end_line = instruction.end_line;
            }
            instructions.push(instruction);
        }
        let comments = reader
            .comments
            .into_iter()
            .filter(|comment| !directives.iter().any(|directive| directive.line == comment.line))
            .collect();
        let stages = stages_of(&instructions)?;
        Ok(Self { text: text.to_owned(), escape, directives, comments, instructions, stages })
    }
}

/// Returns the directives at the top and the escape character.
fn directives_of(lines: &[Line<'_>]) -> Result<(Vec<Directive>, char), DockerfileError> {
    let (mut directives, mut escape) = (Vec::<Directive>::new(), '\\');
    for line in lines {
        let Some((name, value)) = directive(line.text) else { break };
        if !["syntax", "escape", "check"].contains(&name.as_str()) {
            continue;
        }
        if directives.iter().any(|earlier| earlier.name == name) {
            return Err(DockerfileError::new(line.number, format!("`# {name}=` is given twice")));
        }
        if name == "escape" {
            escape = match value.as_str() {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let message = format!("the escape character is `\\` or `` ` ``, not `{value}`");
                    return Err(DockerfileError::new(line.number, message));
                }
            };
        }
        directives.push(Directive { line: line.number, name, value });
    }
    Ok((directives, escape))
}

/// Returns the name and the value of a line that has the form of a directive.
fn directive(line: &str) -> Option<(String, String)> {
    let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    named.then(|| (name.to_lowercase(), value.to_owned()))
}

struct Reader<'a> {
    lines: &'a [Line<'a>],
    next: usize,
    escape: char,
    comments: Vec<Comment>,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<Line<'a>> {
        let line = *self.lines.get(self.next)?;
        self.next += 1;
        Some(line)
    }

    fn last_line(&self) -> u32 {
        self.lines.get(self.next.saturating_sub(1)).map_or(1, |line| line.number)
    }

    /// Returns the next instruction's lines, joined.
    fn logical_line(&mut self) -> Option<Logical> {
        let mut logical: Option<Logical> = None;
        while let Some(line) = self.take() {
            let trimmed = line.text.trim_start();
            if let Some(comment) = trimmed.strip_prefix('#') {
                self.comments.push(Comment { line: line.number, text: comment.trim().to_owned() });
                continue;
            }
            if trimmed.is_empty() {
                continue;
            }
            let continued = continuation(line.text, self.escape);
            let text = continued.unwrap_or(line.text);
            match &mut logical {
                Some(logical) => logical.push(line.number, text),
                None => logical = Some(Logical::new(line.number, text.trim_start())),
            }
            if continued.is_none() {
                break;
            }
        }
        // A lone continuation is an instruction without a name.
        logical
    }

    /// Reads the body of a heredoc.
    fn body(&mut self, mut heredoc: Heredoc, opened_in: u32) -> Result<Heredoc, DockerfileError> {
        heredoc.line = self.lines.get(self.next).map_or(opened_in, |line| line.number);
        while let Some(line) = self.take() {
            let text = if heredoc.strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
            if text == heredoc.name {
                return Ok(heredoc);
            }
            heredoc.body.push_str(line.whole);
        }
        Err(DockerfileError::new(opened_in, format!("the heredoc `{}` has no end", heredoc.name)))
    }
}

/// Returns what stands before the escape character that ends `line`, where one does. Two of them are not one.
pub(super) fn continuation(line: &str, escape: char) -> Option<&str> {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!before.ends_with(escape)).then_some(before)
}

/// Returns the ranges of line numbers that heredoc bodies take, their last delimiters included.
pub(super) fn heredoc_lines(dockerfile: &Dockerfile) -> Vec<Range<u32>> {
    dockerfile
        .instructions
        .iter()
        .filter_map(|instruction| {
            Some(instruction.heredocs.first()?.line..instruction.end_line.saturating_add(1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::template::dockerfile::Arguments;

    fn parse(text: &str) -> Dockerfile {
        Dockerfile::parse(text).unwrap()
    }

    fn mistake(text: &str) -> (u32, String) {
        let error = Dockerfile::parse(text).unwrap_err();
        (error.line, error.message)
    }

    #[test]
    fn lines_survive_comments_and_continuations() {
        let file = parse(
            "# syntax=docker/dockerfile:1\n# hello\n\nFROM debian:12 AS Base\nRUN apt-get update && \\\n  # why\n\n  apt-get install x \\  \n  y\nuser app\n",
        );
        let lines: Vec<(u32, u32, Keyword)> =
            file.instructions().iter().map(|i| (i.line, i.end_line, i.keyword)).collect();
        assert_eq!(lines, [(4, 4, Keyword::From), (5, 9, Keyword::Run), (10, 10, Keyword::User)]);
        let run = &file.instructions()[1];
        assert_eq!(run.text, "apt-get update &&   apt-get install x   y");
        assert_eq!(run.line_of(run.text.find("install").unwrap()), 8);
        assert_eq!(run.line_of(run.text.rfind('y').unwrap()), 9);
        assert_eq!(file.directives()[0].value, "docker/dockerfile:1");
        assert_eq!(file.comments().iter().map(|c| c.line).collect::<Vec<_>>(), [2, 6]);
        assert_eq!(file.stages()[0].name.as_deref(), Some("base"));
        assert_eq!(file.final_user(), Some("app"));
    }

    #[test]
    fn the_escape_directive_changes_continuations() {
        let file = parse("# escape=`\nFROM x\nRUN a `\n b\nRUN c:\\\nUSER u\n");
        assert_eq!(file.instructions()[1].text, "a  b");
        assert_eq!(file.instructions().len(), 4);
        assert_eq!(mistake("# escape=x\nFROM x").0, 1);
        assert_eq!(parse("\n# escape=`\nFROM x\nRUN a \\\n b").instructions().len(), 2);
    }

    #[test]
    fn heredocs_keep_their_bodies() {
        let file = parse(
            "FROM x\nRUN <<EOF cat <<-'TWO'\n# not a comment\n\n RUN x \\\nEOF\n\tbody $x\n\tTWO\nCOPY <<f /f\nhi\nf\nUSER u",
        );
        let run = &file.instructions()[1];
        assert_eq!((run.line, run.end_line), (2, 8));
        assert_eq!(run.heredocs[0].body, "# not a comment\n\n RUN x \\\n");
        assert_eq!((run.heredocs[0].line, run.heredocs[0].expand), (3, true));
        assert_eq!((run.heredocs[1].body.as_str(), run.heredocs[1].expand), ("\tbody $x\n", false));
        assert_eq!(file.instructions()[2].heredocs[0].body, "hi\n");
        assert_eq!(file.needs().heredoc, Some(2));
        assert_eq!(mistake("FROM x\nRUN <<EOF\nx"), (2, "the heredoc `EOF` has no end".to_owned()));
        assert!(
            parse("FROM x\nRUN cat <<<EOF\nRUN [\"a\", \"<<EOF\"]").instructions()[1].heredocs.is_empty()
        );
    }

    #[test]
    fn json_and_shell_forms_are_told_apart() {
        let file =
            parse("FROM x\nCMD [\"a\", \"b c\"]\nCMD a b\nCMD ['a']\nCOPY [\"a b\", \"/c\"]\nENTRYPOINT []");
        let arguments: Vec<&Arguments> = file.instructions()[1..].iter().map(|i| &i.arguments).collect();
        assert_eq!(*arguments[0], Arguments::Json(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(*arguments[1], Arguments::Shell("a b".to_owned()));
        assert_eq!(*arguments[2], Arguments::Shell("['a']".to_owned()));
        assert_eq!(arguments[3].items(), ["a b", "/c"]);
        assert_eq!(*arguments[4], Arguments::Json(Vec::new()));
    }

    #[test]
    fn names_and_values_are_read() {
        let file = parse("ARG A=1 B\nFROM x\nENV a=b c=\"d e\" \\\n f=g\\ h\nENV a b  c\nLABEL \"x y\"=z");
        let pairs = |index: usize| {
            file.instructions()[index]
                .arguments
                .pairs()
                .iter()
                .map(|pair| (pair.line, pair.name.as_str(), pair.value.as_deref()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs(0), [(1, "A", Some("1")), (1, "B", None)]);
        assert_eq!(pairs(2), [(3, "a", Some("b")), (3, "c", Some("d e")), (4, "f", Some("g h"))]);
        assert_eq!(pairs(3), [(5, "a", Some("b  c"))]);
        assert_eq!(pairs(4), [(6, "x y", Some("z"))]);
    }

    #[test]
    fn flags_are_read() {
        let file = parse(
            "FROM --platform=linux/amd64 x\nRUN --mount=type=secret,id=tok,env=TOK \\\n  --mount=type=cache,target=/c --network=none -- make\nCOPY --link --chmod=755 a b\nRUN --mount=type=secret,target=/run/x/key --security=insecure y",
        );
        assert_eq!(file.stages()[0].platform.as_deref(), Some("linux/amd64"));
        let run = &file.instructions()[1];
        assert_eq!(run.text, "make");
        let mounts: Vec<(u32, String)> = run.mounts().map(|mount| (mount.line, mount.kind)).collect();
        assert_eq!(mounts, [(2, "secret".to_owned()), (3, "cache".to_owned())]);
        assert_eq!(file.secret_ids(), ["tok", "key"]);
        let needs = file.needs();
        assert_eq!((needs.mount, needs.secret_mount, needs.secret_env), (Some(2), Some(2), Some(2)));
        assert_eq!((needs.copy_link, needs.copy_chmod), (Some(4), Some(4)));
        assert_eq!((needs.run_network, needs.run_security, needs.heredoc), (Some(3), Some(5), None));
        assert_eq!(parse("# syntax=a/b\nFROM x\nRUN --new=1 y").needs().syntax, Some((1, "a/b".to_owned())));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, part) in [
            ("", 1, "no `FROM`"),
            ("# only\n", 1, "no `FROM`"),
            ("FROM x\n\nRUNN y", 3, "did you mean `RUN`"),
            ("FROM x\nfoobarbaz y", 2, "not an instruction"),
            ("RUN x", 1, "before the first `FROM`"),
            ("FROM", 1, "needs an image"),
            ("FROM a b", 1, "needs an image"),
            ("FROM a AS 1x", 1, "cannot be the name"),
            ("FROM x\nCOPY a", 2, "needs a source and a destination"),
            ("FROM x\nCOPY --form=y a b", 2, "did you mean `--from`"),
            ("FROM x\nENV a", 2, "needs a value"),
            ("FROM x\nENV a=b \\\nc", 3, "has no `=`"),
            ("FROM x\nENV =b", 2, "without a name"),
            ("FROM x\nCOPY --from a b", 2, "needs a value"),
            ("FROM x\nRUN --network y", 2, "needs a value"),
            ("FROM x\nVOLUME []", 2, "needs a path"),
            ("FROM x\nCMD [\"a\", 1]", 2, "holds strings only"),
            ("FROM x\nSHELL bash", 2, "takes a JSON list"),
            ("FROM x\nRUN", 2, "needs an argument"),
            ("FROM x\nHEALTHCHECK x", 2, "takes `NONE`"),
            ("FROM x\nONBUILD FROM y", 2, "`ONBUILD FROM` is not allowed"),
            ("# syntax=a\n# syntax=b\nFROM x", 2, "given twice"),
            ("\\\n", 1, "is not an instruction"),
        ] {
            let (found, message) = mistake(text);
            assert_eq!(found, line, "{text:?}: {message}");
            assert!(message.contains(part), "{text:?}: {message}");
        }
        let error = Dockerfile::parse("FROM x\n\nRUNN y").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the Dockerfile has a mistake in line 3: `RUNN` is not an instruction; did you mean `RUN`?"
        );
    }

    #[test]
    fn an_onbuild_holds_an_instruction() {
        let file = parse("FROM x\nONBUILD RUN --mount=type=cache,target=/c <<E\nhi\nE\nONBUILD COPY . /src");
        let inner = file.instructions()[1].trigger.as_deref().unwrap();
        assert_eq!((inner.keyword, inner.line, inner.heredocs[0].body.as_str()), (Keyword::Run, 2, "hi\n"));
        assert_eq!((file.needs().mount, file.needs().heredoc), (Some(2), Some(2)));
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "FROM x AS y",
            "FROM y",
            "RUN",
            "ENV a=b",
            "ARG x=$x$x",
            "${x:-",
            "<<EOF",
            "<<-'E'",
            "EOF",
            "E",
            "\\",
            "`",
            "\n",
            "\n",
            "\n",
            " ",
            "\t",
            "#",
            "# escape=`",
            "# syntax=z",
            "\"",
            "'",
            "--mount=type=secret,id=a",
            "--from=y",
            "COPY a b",
            "[\"a\"]",
            "ONBUILD",
            "HEALTHCHECK CMD",
            "USER root",
            "\r\n",
            "é",
            "\u{feff}",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    fn reads_everything(text: &str) {
        let Ok(file) = Dockerfile::parse(text) else { return };
        let lines = u32::try_from(text.split('\n').count()).unwrap();
        assert!(
            file.instructions().iter().all(|i| 1 <= i.line && i.line <= i.end_line && i.end_line <= lines)
        );
        // The answers do not matter here, only that there are some.
        drop(file.base_images(&BTreeMap::new(), None));
        drop(file.base_images(&BTreeMap::new(), Some("y")));
        drop((file.secret_ids(), file.needs()));
        let canonical = file.canonical();
        let again = parse(&canonical);
        assert_eq!(again.canonical(), canonical);
        let plain = |file: &Dockerfile| {
            file.instructions()
                .iter()
                .map(|i| (i.keyword, i.text.split_whitespace().collect::<String>(), i.heredocs.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(&again), plain(&file));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            reads_everything(&text);
        }

        #[test]
        fn any_mix_of_pieces_is_read_or_refused(text in pieces()) {
            reads_everything(&text);
            reads_everything(&format!("FROM a\n{text}"));
        }
    }

    #[test]
    fn long_chains_are_refused_without_deep_recursion() {
        assert!(Dockerfile::parse(&format!("FROM x\n{}", "ONBUILD ".repeat(200_000))).is_err());
        let doubled: String = (1..200).map(|n| format!("ARG a{n}=$a{}$a{}\n", n - 1, n - 1)).collect();
        let file = parse(&format!("ARG a0=xx\n{doubled}FROM $a199"));
        assert!(file.base_images(&BTreeMap::new(), None).is_err());
    }
}
