//! The gate: sizes, and the search for secrets in the finished image.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use memchr::memmem::Finder;
use tokio_util::sync::CancellationToken;

use super::BakeError;
use crate::base::ByteSize;
use crate::base::config::Profile;
use crate::catalog::LayerRecord;
use crate::docker::{Engine, HistoryEntry, SecretValue};
use crate::template::{Limits, Resources};

/// How many layers an error names.
const HEAVIEST: usize = 5;

/// Part of a sandbox's disk that the image must leave free: a twentieth, and 512 MiB at the least, so that the sandbox can work.
fn headroom(disk: ByteSize) -> u64 {
    (disk.0 / 20).max(512 * ByteSize::MIB)
}

/// Holds the image's size to the limits.
pub(super) fn check_size(
    size_bytes: u64,
    layers: &[LayerRecord],
    limits: &Limits,
    resources: &Resources,
    profile: Option<&Profile>,
) -> Result<(), BakeError> {
    let mut rules = vec![("image", limits.image.0)];
    if let Some(most) = profile.and_then(|profile| profile.max_image) {
        rules.push(("profile.max_image", most.0));
    }
    rules.push(("disk", resources.disk.0.saturating_sub(headroom(resources.disk))));
    for (limit, limit_bytes) in rules {
        if size_bytes > limit_bytes {
            let mut heaviest: Vec<(String, u64)> =
                layers.iter().map(|layer| (layer.instruction.clone(), layer.size_bytes)).collect();
            heaviest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
            heaviest.truncate(HEAVIEST);
            return Err(BakeError::ImageTooLarge { limit, size_bytes, limit_bytes, heaviest });
        }
    }
    Ok(())
}

/// Returns the layers of a history, with instructions as a Dockerfile has them.
pub(super) fn layers(history: &[HistoryEntry]) -> Vec<LayerRecord> {
    history
        .iter()
        .map(|entry| LayerRecord {
            instruction: instruction(&entry.created_by),
            size_bytes: entry.size_bytes,
        })
        .collect()
}

/// Undoes what the builders write around an instruction, and puts it on one line of at most 300 characters.
fn instruction(created_by: &str) -> String {
    let text = created_by.strip_suffix(" # buildkit").unwrap_or(created_by);
    let text = match text.split_once("#(nop) ") {
        Some((_, plain)) => plain.trim_start().to_owned(),
        None => match text.strip_prefix("/bin/sh -c ") {
            Some(run) => format!("RUN {run}"),
            None => text.replacen("RUN /bin/sh -c ", "RUN ", 1),
        },
    };
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// Searches the whole saved image, configuration and every layer, for each secret's value: plain, base64, URL- and JSON-escaped.
pub(super) async fn search_secrets(
    engine: &dyn Engine,
    image: &str,
    secrets: &BTreeMap<String, SecretValue>,
    cancel: &CancellationToken,
) -> Result<(), BakeError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let needles = Needles::of(secrets);
    let mut stream = engine.save(image).await?;
    let mut kept = Vec::new();
    loop {
        let chunk: Option<Result<Bytes, _>> = tokio::select! {
            () = cancel.cancelled() => {
                return Err(BakeError::Cancelled { action: "searching the image for secrets".into() });
            }
            chunk = stream.next() => chunk,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        if let Some((id, form)) = needles.search(&mut kept, &chunk?) {
            return Err(BakeError::SecretLeaked {
                id,
                place: format!("{form}, in a layer or the configuration"),
            });
        }
    }
}

/// Every written form of every secret.
struct Needles {
    finders: Vec<(String, &'static str, Finder<'static>)>,
    longest: usize,
}

impl Needles {
    fn of(secrets: &BTreeMap<String, SecretValue>) -> Self {
        let mut finders = Vec::new();
        for (id, secret) in secrets {
            let value = secret.expose();
            // A file's last line break is rarely copied along.
            let value = value.strip_suffix(b"\n").unwrap_or(value);
            // Whole groups of three bytes have one base64 form, whatever follows them: padding, or a line break.
            let whole = &value[..value.len() / 3 * 3];
            let mut seen = Vec::new();
            for (form, bytes) in [
                ("as it is", value.to_vec()),
                ("in base64", STANDARD_NO_PAD.encode(whole).into_bytes()),
                ("in base64", URL_SAFE_NO_PAD.encode(whole).into_bytes()),
                ("URL-escaped", url_escaped(value)),
                ("JSON-escaped", json_escaped(value)),
            ] {
                if !bytes.is_empty() && !seen.contains(&bytes) {
                    finders.push((id.clone(), form, Finder::new(&bytes).into_owned()));
                    seen.push(bytes);
                }
            }
        }
        let longest = finders.iter().map(|(_, _, finder)| finder.needle().len()).max().unwrap_or(0);
        Self { finders, longest }
    }

    /// Searches `chunk` and what of the chunks before it could be the beginning of a needle.
    fn search(&self, kept: &mut Vec<u8>, chunk: &[u8]) -> Option<(String, &'static str)> {
        kept.extend_from_slice(chunk);
        let found = self.finders.iter().find(|(_, _, finder)| finder.find(kept).is_some());
        let surplus = kept.len().saturating_sub(self.longest.saturating_sub(1));
        kept.drain(..surplus);
        found.map(|(id, form, _)| (id.clone(), *form))
    }
}

fn url_escaped(value: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte);
        } else {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    escaped
}

fn json_escaped(value: &[u8]) -> Vec<u8> {
    let quoted = serde_json::Value::from(String::from_utf8_lossy(value)).to_string();
    quoted.as_bytes()[1..quoted.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn secret(value: &str) -> BTreeMap<String, SecretValue> {
        [("tok".to_owned(), SecretValue::new(value.as_bytes().to_vec()))].into()
    }

    #[test]
    fn every_form_is_found_also_across_chunks() {
        let value = "p@ss\"word/+=é 42";
        let needles = Needles::of(&secret(value));
        for form in [
            value.to_owned(),
            STANDARD.encode(value),
            STANDARD.encode(format!("{value}\n")),
            URL_SAFE_NO_PAD.encode(value),
            "p%40ss%22word%2F%2B%3D%C3%A9%2042".to_owned(),
            r#"p@ss\"word/+=é 42"#.to_owned(),
        ] {
            let text = format!("before {form} after").into_bytes();
            for cut in 0..text.len() {
                let mut kept = Vec::new();
                let found =
                    [&text[..cut], &text[cut..]].iter().find_map(|chunk| needles.search(&mut kept, chunk));
                assert!(found.is_some(), "{form} cut at {cut}");
            }
        }
        assert!(needles.search(&mut Vec::new(), b"p@ssword").is_none());
    }

    #[test]
    fn the_error_of_a_large_image_names_limit_and_heaviest_layer() {
        let layers = vec![
            LayerRecord { instruction: "RUN small".into(), size_bytes: 1 },
            LayerRecord { instruction: "RUN large".into(), size_bytes: 3 * ByteSize::GIB },
        ];
        let limits = Limits { image: ByteSize(2 * ByteSize::GIB), ..Limits::default() };
        let error = check_size(3 * ByteSize::GIB, &layers, &limits, &Resources::default(), None).unwrap_err();
        assert_eq!(error.to_string(), "the image has 3.0 GiB, allowed are 2.0 GiB (limit `image`)");
        assert_eq!(error.details()[0].trim(), "3.0 GiB  RUN large");
    }

    #[test]
    fn an_image_must_leave_the_sandbox_room() {
        let resources = Resources { disk: ByteSize(3 * ByteSize::GIB), ..Resources::default() };
        let error = check_size(2700 * ByteSize::MIB, &[], &Limits::default(), &resources, None).unwrap_err();
        assert!(matches!(error, BakeError::ImageTooLarge { limit: "disk", .. }), "{error}");
        check_size(2500 * ByteSize::MIB, &[], &Limits::default(), &resources, None).unwrap();
    }

    #[test]
    fn instructions_read_as_in_the_dockerfile() {
        for (created_by, expected) in [
            ("RUN /bin/sh -c apt-get update # buildkit", "RUN apt-get update"),
            ("/bin/sh -c #(nop)  ENV A=b", "ENV A=b"),
            ("/bin/sh -c echo hi", "RUN echo hi"),
            ("COPY a b # buildkit", "COPY a b"),
        ] {
            assert_eq!(instruction(created_by), expected);
        }
    }
}
