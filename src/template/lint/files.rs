//! Rules on `COPY` and `ADD`.

use std::io;
use std::path::Path;

use super::check::Subject;
use super::rules::{ADD_URL, COPY_ALL, MISSING_SOURCE};
use super::{Finding, LintContext};
use crate::template::dockerfile::{Instruction, Keyword};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for instruction in subject.file.instructions() {
        let copies = matches!(instruction.keyword, Keyword::Copy | Keyword::Add);
        if !copies || instruction.flag("from").is_some() {
            continue;
        }
        for source in sources(instruction) {
            let url = source.starts_with("http://") || source.starts_with("https://");
            if url && instruction.keyword == Keyword::Add && instruction.flag("checksum").is_none() {
                findings.push(ADD_URL.at(instruction.line, "`ADD` fetches a URL without a checksum"));
            }
            if url || source.starts_with("git@") || source.contains("://") || source.contains('$') {
                continue;
            }
            let path = normal(source);
            if path.is_empty() || path == "*" {
                copies_all(subject, instruction, source, findings);
            } else if let Some(message) = missing(&subject.input.context, &path) {
                findings.push(MISSING_SOURCE.at(instruction.line, format!("`{source}` {message}")));
            }
        }
    }
}

/// Returns the sources, heredocs left out.
fn sources(instruction: &Instruction) -> impl Iterator<Item = &str> {
    let items = instruction.arguments.items();
    let sources = items.get(..items.len().saturating_sub(1)).unwrap_or_default();
    let heredocs = !instruction.heredocs.is_empty();
    sources.iter().map(String::as_str).filter(move |source| !(heredocs && source.contains("<<")))
}

/// Returns a path without `.`, `..` and double slashes; nothing is above the context.
fn normal(source: &str) -> String {
    let mut segments = Vec::new();
    for segment in source.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments.join("/")
}

fn copies_all(subject: &Subject<'_>, instruction: &Instruction, source: &str, findings: &mut Vec<Finding>) {
    let LintContext::Folder(folder) = &subject.input.context else { return };
    let ignored = [".dockerignore", "Dockerfile.dockerignore"].iter().any(|name| folder.join(name).is_file());
    if !ignored {
        let message =
            format!("`{} {source}` copies everything, and there is no `.dockerignore`", instruction.keyword);
        findings.push(COPY_ALL.at(instruction.line, message));
    }
}

/// Returns what is wrong with the source `path`. Of a pattern, only the folders before it are looked for.
fn missing(context: &LintContext, path: &str) -> Option<String> {
    let literal: Vec<&str> =
        path.split('/').take_while(|segment| !segment.contains(['*', '?', '[', '\\'])).collect();
    let path = literal.join("/");
    if path.is_empty() {
        return None;
    }
    let gone = || Some("is not in the context".to_owned());
    match context {
        LintContext::Unknown => None,
        LintContext::Folder(folder) => match exists(&folder.join(&path)) {
            Ok(true) => None,
            Ok(false) => gone(),
            Err(error) => Some(format!("cannot be looked for in the context: {error}")),
        },
        LintContext::Files(files) => {
            let below = format!("{path}/");
            let there = files.iter().any(|file| *file == path || file.starts_with(&below));
            if there { None } else { gone() }
        }
    }
}

/// Returns whether there is anything at `path`; a link that leads nowhere is something.
fn exists(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
