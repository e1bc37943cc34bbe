//! What an engine's words about a failed build mean.
//!
//! The engine says why a build failed in prose, and other prose in each version. The patterns here were seen on engine 20.10
//! and read in the words of newer ones; what matches none of them stays what it is, with the engine's words in it.

use std::sync::LazyLock;

use regex::Regex;

use super::EngineError;
use super::steps::StepView;

/// All that is known of a failed build.
#[derive(Debug, Default)]
pub(super) struct Failure {
    /// The engine's words.
    pub(super) message: String,
    /// The exit code, where the engine gives it as a number.
    pub(super) code: Option<i64>,
    /// The HTTP status, where the engine refused before it began.
    pub(super) status: Option<u16>,
    /// The step that failed.
    pub(super) step: Option<StepView>,
    /// The image whose metadata could not be loaded.
    pub(super) base: Option<String>,
    /// Whether the engine's disk was seen to be full; `None` where it cannot be seen.
    pub(super) disk_full: Option<bool>,
}

macro_rules! pattern {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("the pattern is valid, as a test shows"));
    };
}

pattern!(PARSE_ERROR, r"(?s)(?:dockerfile )?parse error (?:on )?line (\d+): (.*)");
pattern!(EXIT_CODE, r"(?:exit code|returned a non-zero code): (-?\d+)");
pattern!(SECRET_NOT_FOUND, r"secret (\S+?):? not found");
pattern!(SECRET_MOUNT, r"--mount=(\S*type=secret\S*)");
pattern!(IMAGE_IN_FROM, r"(?i)^(?:\[[^\]]*\] )?FROM (?:--\S+ )*(\S+)");
pattern!(
    DOCKERFILE_MISTAKE,
    r"(?i)failed to create LLB definition|dockerfile.*cannot be empty|cannot locate specified dockerfile|failed to read dockerfile|failed to parse|unknown (?:flag|instruction)|failed to reach build target|target stage .* could not be found|circular dependency|invalid reference format"
);
pattern!(
    AWAY,
    r"(?i)context canceled|code = unavailable|transport is closing|closing transport|graceful.?stop|error reading from server|engine shutdown"
);

impl Failure {
    /// Says what it means.
    pub(super) fn meaning(self) -> EngineError {
        let message = without_frames(&self.message).to_owned();
        if let Some(found) = PARSE_ERROR.captures(&message) {
            return EngineError::Dockerfile {
                line: found[1].parse().ok(),
                message: found[2].trim().to_owned(),
            };
        }
        if message.contains("requires BuildKit") {
            let reason = message.split(". Refer to").next().unwrap_or(&message).to_owned();
            return EngineError::Unsupported { reason };
        }
        if let Some(id) = self.missing_secret(&message) {
            return EngineError::SecretMissing { id };
        }
        if self.is_disk_full(&message) {
            return EngineError::DiskFull { step: self.step.map(|step| (step.number, step.name)), message };
        }
        if let Some(reference) = self.base {
            return EngineError::BaseMissing { reference, message };
        }
        let exit_code = self
            .code
            .or_else(|| EXIT_CODE.captures_iter(&message).last().and_then(|found| found[1].parse().ok()));
        match (self.step, exit_code) {
            (None, _) if AWAY.is_match(&message) => {
                EngineError::Gone { action: "building".to_owned(), source: message.into() }
            }
            (Some(_), None) if AWAY.is_match(&message) => {
                EngineError::Gone { action: "building".to_owned(), source: message.into() }
            }
            (Some(step), None) if image_in_from(&step.name).is_some() => {
                let reference = image_in_from(&step.name).unwrap_or_default();
                EngineError::BaseMissing { reference, message }
            }
            (Some(step), exit_code) => {
                EngineError::Step { step: step.number, name: step.name, exit_code, message, tail: step.tail }
            }
            (None, _) if DOCKERFILE_MISTAKE.is_match(&self.message) => {
                EngineError::Dockerfile { line: None, message }
            }
            (None, _) => EngineError::Refused {
                action: "build".to_owned(),
                status: self.status.unwrap_or(500),
                message,
            },
        }
    }

    fn missing_secret(&self, message: &str) -> Option<String> {
        let mount = self.step.as_ref().and_then(|step| SECRET_MOUNT.captures(&step.name));
        if message.contains("no active session") {
            let options = mount?;
            let id = options[1]
                .split(',')
                .find_map(|option| option.strip_prefix("id=").or_else(|| option.strip_prefix("target=")))?;
            return Some(id.rsplit('/').next().unwrap_or(id).to_owned());
        }
        // A command may print these words too; then the step ends with an exit code.
        if EXIT_CODE.is_match(message) {
            return None;
        }
        SECRET_NOT_FOUND.captures(message).map(|found| found[1].trim_matches('"').to_owned())
    }

    /// Tools print the words for other reasons too (`/dev/full`, a quota), so the disk itself must agree where it can be seen.
    fn is_disk_full(&self, message: &str) -> bool {
        let says = |text: &str| text.to_ascii_lowercase().contains("no space left on device");
        let by_engine = says(message) && !EXIT_CODE.is_match(message);
        let by_tool = self.step.as_ref().is_some_and(|step| step.tail.iter().any(|line| says(line)));
        match self.disk_full {
            Some(full) => full && (says(message) || by_tool),
            None => by_engine,
        }
    }
}

/// Returns the image that a `FROM` instruction names.
fn image_in_from(name: &str) -> Option<String> {
    IMAGE_IN_FROM.captures(name).map(|found| found[1].to_owned())
}

/// Takes off what the engine's layers put in front of the reason.
fn without_frames(message: &str) -> &str {
    let mut rest = message.trim();
    for frame in [
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve: ",
        "failed to create LLB definition: ",
    ] {
        rest = rest.strip_prefix(frame).unwrap_or(rest);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, tail: &[&str]) -> Option<StepView> {
        Some(StepView {
            number: 3,
            name: name.to_owned(),
            tail: tail.iter().map(|line| (*line).to_owned()).collect(),
        })
    }

    fn failure(message: &str) -> Failure {
        Failure { message: message.to_owned(), ..Failure::default() }
    }

    #[test]
    fn words_of_old_and_new_engines_are_understood() {
        let run = "[2/2] RUN make";
        let secret = "[2/2] RUN --mount=type=secret,id=tok,required=true cat /run/secrets/tok";
        let full = "cp: write error: No space left on device";
        for (failure, meaning) in [
            (
                failure(
                    "failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 2: unknown instruction: NONSENSE",
                ),
                "the Dockerfile has a mistake in line 2: unknown instruction: NONSENSE",
            ),
            (
                failure("dockerfile parse error on line 12: unknown instruction: X (did you mean Y?)"),
                "in line 12: unknown",
            ),
            (
                failure("failed to parse stage name \"A B\": invalid reference format"),
                "the Dockerfile has a mistake: failed",
            ),
            (
                failure("failed to solve: failed to read dockerfile: open Dockerfile: no such file"),
                "has a mistake: failed to read",
            ),
            (
                failure("the --mount option requires BuildKit. Refer to https://x"),
                "the --mount option requires BuildKit",
            ),
            (
                Failure {
                    step: step(run, &[]),
                    ..failure("executor failed running [/bin/sh -c make]: exit code: 7")
                },
                "step 3 `[2/2] RUN make` failed with exit code 7",
            ),
            (
                Failure {
                    step: step(run, &[]),
                    ..failure("process \"/bin/sh -c make\" did not complete successfully: exit code: 137")
                },
                "failed with exit code 137",
            ),
            (
                Failure {
                    step: step(run, &[]),
                    code: Some(2),
                    ..failure("The command returned a non-zero code: 2")
                },
                "failed with exit code 2",
            ),
            (
                Failure { step: step("[2/2] COPY a /b", &[]), ..failure("\"/a\" not found: not found") },
                "step 3 `[2/2] COPY a /b` failed",
            ),
            (
                Failure { base: Some("x:1".into()), ..failure("dial tcp: no such host") },
                "the base image `x:1`",
            ),
            (
                Failure { step: step("FROM x:2 AS b", &[]), ..failure("dial tcp: no such host") },
                "the base image `x:2`",
            ),
            (Failure { step: step(secret, &[]), ..failure("no active sessions") }, "the secret `tok`"),
            (Failure { step: step(secret, &[]), ..failure("secret tok: not found") }, "the secret `tok`"),
            (
                Failure {
                    step: step(run, &["secret x not found"]),
                    ..failure("secret y not found [..]: exit code: 1")
                },
                "exit code 1",
            ),
            (
                Failure { step: step(run, &[full]), disk_full: Some(true), ..failure("exit code: 1") },
                "the engine's disk is full (step 3",
            ),
            (
                Failure { step: step(run, &[full]), disk_full: Some(false), ..failure("exit code: 1") },
                "exit code 1",
            ),
            (Failure { step: step(run, &[full]), ..failure("exit code: 1") }, "exit code 1"),
            (
                Failure {
                    status: Some(500),
                    ..failure("Error processing tar file: write /blob: no space left on device")
                },
                "the engine's disk is full",
            ),
            (Failure { step: step(run, &[]), ..failure("context canceled") }, "went away while building"),
            (
                failure("rpc error: code = Unavailable desc = transport is closing"),
                "went away while building",
            ),
            (
                Failure { status: Some(403), ..failure("nobody may build") },
                "refused to build: nobody may build",
            ),
        ] {
            let input = format!("{failure:?}");
            let said = failure.meaning().to_string();
            assert!(said.contains(meaning), "{input}\n  gave: {said}\n  not: {meaning}");
        }
    }

    #[test]
    fn every_pattern_is_valid() {
        for pattern in [
            &PARSE_ERROR,
            &EXIT_CODE,
            &SECRET_NOT_FOUND,
            &SECRET_MOUNT,
            &IMAGE_IN_FROM,
            &DOCKERFILE_MISTAKE,
            &AWAY,
        ] {
            assert!(!pattern.is_match("a plain line"));
        }
    }
}
