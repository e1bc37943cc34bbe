//! Rules on secrets that stay in the image.

use std::sync::LazyLock;

use regex::Regex;

use super::Finding;
use super::check::Subject;
use super::rules::{SECRET_NAME, SECRET_VALUE};
use crate::template::dockerfile::{Keyword, Pair};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for instruction in subject.file.instructions() {
        let instruction = instruction.trigger.as_deref().unwrap_or(instruction);
        if matches!(instruction.keyword, Keyword::Env | Keyword::Arg) {
            for pair in instruction.arguments.pairs().iter().filter(|pair| leaks(instruction.keyword, pair)) {
                let message = format!("`{} {}` stays in the image's history", instruction.keyword, pair.name);
                findings.push(SECRET_NAME.at(pair.line, message));
            }
        }
        for (kind, pattern) in &*PATTERNS {
            let text = pattern.find(&instruction.text).map(|found| instruction.line_of(found.start()));
            let body = instruction.heredocs.iter().find_map(|heredoc| {
                let found = pattern.find(&heredoc.body)?;
                let above = heredoc.body[..found.start()].matches('\n').count();
                Some(heredoc.line.saturating_add(u32::try_from(above).unwrap_or(u32::MAX)))
            });
            if let Some(line) = text.or(body) {
                findings.push(SECRET_VALUE.at(line, format!("this looks like {kind}")));
            }
        }
    }
}

/// Returns whether the value of `pair` is a secret, as its name says.
fn leaks(keyword: Keyword, pair: &Pair) -> bool {
    let harmless = match pair.value.as_deref() {
        // An `ARG` without a value is given one at build time; an empty `ENV` is none.
        Some("") => keyword == Keyword::Env,
        // A path is where the secret is, not the secret.
        Some(value) => value.starts_with('/'),
        None => false,
    };
    !harmless && is_secret_name(&pair.name)
}

fn is_secret_name(name: &str) -> bool {
    let segments = segments(name);
    let has = |words: &[&str]| segments.iter().any(|segment| words.contains(&segment.as_str()));
    let about = [
        "file", "path", "dir", "url", "uri", "name", "id", "type", "ttl", "length", "limit", "count",
        "header",
    ];
    if has(&["public", "max", "min"]) || segments.last().is_some_and(|last| about.contains(&last.as_str())) {
        return false;
    }
    let secret = [
        "password",
        "passwd",
        "pword",
        "passphrase",
        "secret",
        "token",
        "credential",
        "credentials",
        "apikey",
    ];
    let key = segments.windows(2).any(|pair| {
        pair[1] == "key"
            && [
                "api",
                "access",
                "private",
                "secret",
                "signing",
                "encryption",
                "ssh",
                "deploy",
                "license",
                "master",
                "salt",
                "auth",
                "session",
                "account",
            ]
            .contains(&pair[0].as_str())
    });
    // `PGPASSWORD` is one word; `PWD` alone is the working directory.
    let one_word = segments.iter().any(|segment| segment.ends_with("password"));
    let short = segments.len() > 1
        && segments.last().is_some_and(|last| ["pwd", "pat", "jwt"].contains(&last.as_str()));
    has(&secret) || key || one_word || short
}

/// Returns the parts of a name between `_`, `-`, `.` and changes from lower to upper case, in lower case.
fn segments(name: &str) -> Vec<String> {
    let (mut segments, mut segment, mut lower) = (Vec::new(), String::new(), false);
    for c in name.chars() {
        let border = matches!(c, '_' | '-' | '.');
        if border || (lower && c.is_uppercase()) {
            segments.push(std::mem::take(&mut segment));
        }
        lower = c.is_lowercase();
        if !border {
            segment.extend(c.to_lowercase());
        }
    }
    segments.push(segment);
    segments.retain(|segment| !segment.is_empty());
    segments
}

static PATTERNS: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    [
        ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
        ("a GitHub token", r"\b(gh[opsur]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
        ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
        ("an AWS access key", r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
        ("a Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
        ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
        ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
        ("a PyPI token", r"\bpypi-[A-Za-z0-9_-]{50,}"),
        ("a Docker token", r"\bdckr_pat_[A-Za-z0-9_-]{20,}"),
        ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{30,}"),
        ("an API key", r"\bsk-[A-Za-z0-9_-]{20,}"),
        ("a signed token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
        ("a password in a URL", r"[a-z]://[^/\s:@$'\x22]+:[^/\s:@$'\x22]{3,}@"),
    ]
    .into_iter()
    .map(|(kind, pattern)| (kind, Regex::new(pattern).expect("the patterns are constants that compile")))
    .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_about_them() {
        for name in [
            "DB_PASSWORD",
            "NPM_TOKEN",
            "API_KEY",
            "dbPassword",
            "AWS_SECRET_ACCESS_KEY",
            "apikey",
            "LITELLM_MASTER_KEY",
            "LITELLM_SALT_KEY",
            "PGPASSWORD",
            "MYSQL_PWD",
            "GITHUB_PAT",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "TOKEN_FILE",
            "PUBLIC_KEY",
            "KEYBOARD",
            "MAX_TOKEN",
            "TOKENIZERS",
            "KEY",
            "SECRET_NAME",
            "PATH",
            "PWD",
            "OLDPWD",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
