//! Lines out of byte streams, with secrets redacted.
//!
//! Lines are put together before they are searched, so a secret is found however the engine cut it. What is searched for, per
//! secret: the value as it is and without a trailing line break; where it has several lines, each line of eight bytes or more;
//! and each of these as base64 (standard and URL-safe, at any alignment within a longer text), percent-encoded and
//! JSON-escaped. Values under four bytes are not searched for: they would be found everywhere.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;

use super::SecretValue;
use super::http::percent_encoded;

/// What stands in place of a secret.
const REDACTED: &[u8] = b"***";

/// Shortest text that is searched for.
const SHORTEST_NEEDLE: usize = 4;

/// Shortest line of a secret with several lines, and shortest piece of base64, that is searched for.
const SHORTEST_PIECE: usize = 8;

/// 64 KiB: a longer line is cut, so that output without line breaks takes no more memory than this.
const LONGEST_LINE: usize = 64 << 10;

/// Takes secrets out of texts.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    /// Longest first, so that a part never hides the whole.
    needles: Vec<memmem::Finder<'static>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} forms)", self.needles.len())
    }
}

impl Redactor {
    /// Makes a redactor that knows `secrets` in all their forms.
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = &'a SecretValue>) -> Self {
        let mut forms: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let value = secret.expose();
            forms.extend(forms_of(value));
            let trimmed = value.trim_ascii_end();
            forms.extend(forms_of(trimmed));
            if trimmed.contains(&b'\n') {
                let lines = trimmed.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
                forms.extend(lines.filter(|line| line.len() >= SHORTEST_PIECE).flat_map(forms_of));
            }
        }
        forms.retain(|form| form.len() >= SHORTEST_NEEDLE);
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { needles: forms.iter().map(|form| memmem::Finder::new(form).into_owned()).collect() }
    }

    /// Returns `text` with every secret replaced.
    pub(super) fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes().to_vec())).into_owned()
    }

    fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for needle in &self.needles {
            if needle.find(&bytes).is_none() {
                continue;
            }
            let mut clean = Vec::with_capacity(bytes.len());
            let mut from = 0;
            for at in needle.find_iter(&bytes) {
                clean.extend_from_slice(&bytes[from..at]);
                clean.extend_from_slice(REDACTED);
                from = at + needle.needle().len();
            }
            clean.extend_from_slice(&bytes[from..]);
            bytes = clean;
        }
        bytes
    }

    fn longest(&self) -> usize {
        self.needles.first().map_or(0, |needle| needle.needle().len())
    }

    /// Returns the place at or before `at` where `bytes` can be cut without cutting a secret.
    fn cut(&self, bytes: &[u8], at: usize) -> usize {
        let mut cut = at;
        loop {
            let from = cut.saturating_sub(self.longest());
            let to = bytes.len().min(cut + self.longest());
            let spanning = self.needles.iter().find_map(|needle| {
                needle
                    .find_iter(&bytes[from..to])
                    .map(|found| from + found)
                    .find(|&start| start < cut && start + needle.needle().len() > cut)
            });
            match spanning {
                // A text that is one secret after another has no good place; then memory wins over the cut.
                Some(0) | None => return cut,
                Some(start) => cut = start,
            }
        }
    }
}

/// Returns a percent-encoded text with its escapes in lower case, and nothing else.
fn lower_hex(percent: &str) -> String {
    let mut parts = percent.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at(part.len().min(2));
        lower += &format!("%{}{rest}", hex.to_ascii_lowercase());
    }
    lower
}

/// Returns the ways in which `value` may appear in a text.
fn forms_of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![value.to_vec()];
    for engine in [&STANDARD, &URL_SAFE] {
        forms.push(engine.encode(value).into_bytes());
        for before in 0..3_usize {
            let mut shifted = vec![0; before];
            shifted.extend_from_slice(value);
            let encoded = engine.encode(&shifted).into_bytes();
            // Only the characters that no neighbouring byte has a part in.
            let (from, to) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
            forms.extend(
                encoded.get(from..to).filter(|piece| piece.len() >= SHORTEST_PIECE).map(<[u8]>::to_vec),
            );
        }
    }
    // Programs that print it wrap it: GNU base64 at 76 characters a line, OpenSSL at 64.
    for line in [57, 48] {
        let pieces = value.chunks(line).map(|part| STANDARD.encode(part).into_bytes());
        forms.extend(pieces.filter(|piece| piece.len() >= SHORTEST_PIECE));
    }
    let percent = percent_encoded(value);
    forms.push(lower_hex(&percent).into_bytes());
    forms.push(percent.replace("%20", "+").into_bytes());
    forms.push(percent.into_bytes());
    if let Ok(text) = std::str::from_utf8(value) {
        let quoted = serde_json::Value::from(text).to_string();
        let escaped = quoted.get(1..quoted.len() - 1).unwrap_or(&quoted);
        forms.push(escaped.replace('/', "\\/").into_bytes());
        forms.push(escaped.as_bytes().to_vec());
    }
    forms
}

/// Puts the lines of one byte stream together.
///
/// A carriage return starts the line anew, as on a terminal: of a progress display only what stood there last is kept.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes and gives every line that they complete to `emit`.
    pub(super) fn push(&mut self, bytes: &[u8], redactor: &Redactor, mut emit: impl FnMut(String)) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.extend(&rest[..end], redactor, &mut emit);
            let line = std::mem::take(&mut self.partial);
            emit(clean(&line, redactor));
            rest = &rest[end + 1..];
        }
        self.extend(rest, redactor, &mut emit);
    }

    /// Gives what stands after the last line break, if anything does.
    pub(super) fn finish(&mut self, redactor: &Redactor, mut emit: impl FnMut(String)) {
        let line = clean(&std::mem::take(&mut self.partial), redactor);
        if !line.is_empty() {
            emit(line);
        }
    }

    fn extend(&mut self, bytes: &[u8], redactor: &Redactor, emit: &mut impl FnMut(String)) {
        self.partial.extend_from_slice(bytes);
        if self.partial.len() <= LONGEST_LINE + redactor.longest() {
            return;
        }
        self.partial = shown(&self.partial).to_vec();
        while self.partial.len() > LONGEST_LINE + redactor.longest() {
            let cut = redactor.cut(&self.partial, LONGEST_LINE);
            let rest = self.partial.split_off(cut);
            emit(clean(&self.partial, redactor));
            self.partial = rest;
        }
    }
}

/// Returns what a terminal would still show of a line: what follows the last carriage return that something follows.
fn shown(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
    // The return at the very end stays: what comes next would start the line anew.
    match memchr::memrchr(b'\r', &line[..end]) {
        Some(at) => &line[at + 1..],
        None => line,
    }
}

fn clean(line: &[u8], redactor: &Redactor) -> String {
    let plain = without_controls(shown(line));
    String::from_utf8_lossy(&redactor.bytes(plain)).into_owned()
}

/// Takes out escape sequences (ECMA-48) and control characters other than tabs.
fn without_controls(line: &[u8]) -> Vec<u8> {
    const ESCAPE: u8 = 0x1b;
    let mut plain = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            ESCAPE => match bytes.next() {
                // A control sequence: parameters, then one final byte.
                Some(b'[') => while bytes.next().is_some_and(|byte| !(0x40..=0x7e).contains(&byte)) {},
                // A string, such as a title or a link: up to BEL or ESC \.
                Some(b']' | b'P' | b'_' | b'^' | b'X') => {
                    while let Some(byte) = bytes.next() {
                        if byte == 0x07 {
                            break;
                        }
                        if byte == ESCAPE {
                            bytes.next_if_eq(&b'\\');
                            break;
                        }
                    }
                }
                // Intermediate bytes, then one final byte, as in the choice of a character set.
                Some(0x20..=0x2f) => while bytes.next().is_some_and(|byte| (0x20..=0x2f).contains(&byte)) {},
                Some(_) | None => {}
            },
            b'\t' | 0x20..=0x7e | 0x80..=0xff => plain.push(byte),
            0x00..=0x1f | 0x7f => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&str], redactor: &Redactor) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece.as_bytes(), redactor, |line| seen.push(line));
        }
        lines.finish(redactor, |line| seen.push(line));
        seen
    }

    fn redactor(secret: &str) -> Redactor {
        Redactor::of([&SecretValue::new(secret.as_bytes().to_vec())])
    }

    #[test]
    fn lines_are_put_together_whatever_the_cuts() {
        let nothing = Redactor::default();
        for (pieces, expected) in [
            (&["one\ntw", "o\n\nthree"][..], &["one", "two", "", "three"][..]),
            (&["a\r", "\nb\r\n"], &["a", "b"]),
            (&["10%\r20%\r", "30%\rdone\n"], &["done"]),
            (&["10%\r"], &["10%"]),
            (&["\u{1b}[91mred\n\u{1b}[0m", "\u{1b}[1", "mbold\u{1b}[m\n"], &["red", "bold"]),
            (&["\u{1b}]0;title\u{7}x\u{1b}(By\u{8}\ttab\n"], &["xy\ttab"]),
        ] {
            assert_eq!(lines(pieces, &nothing), expected, "{pieces:?}");
        }
    }

    #[test]
    fn a_secret_is_redacted_in_every_form_and_across_cuts() {
        let secret = "p@ss \"w/rd\"+1é";
        let redactor = redactor(secret);
        let base64 = STANDARD.encode(secret);
        let basic = STANDARD.encode(format!("user:{secret}"));
        let query = "p%40ss%20%22w%2Frd%22%2B1%C3%A9";
        let lower = query.to_ascii_lowercase();
        let json = serde_json::to_string(secret).unwrap();
        for text in [secret, &base64, &URL_SAFE.encode(secret), query, &lower, json.trim_matches('"')] {
            for cut in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
                let (a, b) = text.split_at(cut);
                assert_eq!(lines(&["<", a, b, ">\n"], &redactor), ["<***>"], "{text} at {cut}");
            }
        }
        let hidden = lines(&[&basic], &redactor).concat();
        assert!(hidden.contains("***") && hidden.len() < basic.len() / 2, "{hidden}");
    }

    #[test]
    fn each_long_line_of_a_secret_is_redacted() {
        let redactor = redactor("-----BEGIN-----\nabcdefgh\nshort\n");
        assert_eq!(lines(&["abcdefgh short -----BEGIN-----"], &redactor), ["*** short ***"]);
    }

    #[test]
    fn endless_lines_are_cut_beside_secrets_and_not_through_them() {
        let secret = "secret-of-some-length";
        let redactor = redactor(secret);
        for before in LONGEST_LINE - 30..LONGEST_LINE + 30 {
            let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(LONGEST_LINE));
            let seen = lines(&[&text], &redactor);
            assert!(seen.len() >= 2 && seen.iter().all(|line| line.len() <= LONGEST_LINE + 64));
            let joined = seen.concat();
            assert!(joined.contains("***") && !joined.contains("secret"), "{before}");
        }
    }

    #[test]
    fn very_short_values_are_left_alone() {
        assert_eq!(redactor("abc").text("abcabc"), "abcabc");
    }
}
