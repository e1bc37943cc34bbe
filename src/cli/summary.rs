//! What a CI service is told: a file of outputs, and a summary of the job.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::failure::CommandError;
use super::view::SnapshotView;
use crate::base::config::Environment;
use crate::base::fs::{Existing, open_append, remove_durably, write_durably};
use crate::base::{ByteSize, ErrorKind, human_duration};

/// The variable that names the file of a job's summary, in Markdown. Several CI services use this name.
const JOB_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// Takes away the outputs of an earlier run, so that a failing one leaves none that are not its own. What is no file, such as
/// a pipe or a device, stays.
pub(super) fn clear_outputs(file: &Path) -> Result<(), CommandError> {
    if is_file(file) { remove_durably(file).map_err(|error| failed(file, &error)) } else { Ok(()) }
}

/// Writes the outputs as `KEY=VALUE` lines; whole, and durable where it is a file.
pub(super) fn write_outputs(
    file: &Path,
    view: &SnapshotView,
    digest: Option<&str>,
) -> Result<(), CommandError> {
    let lines = outputs(view, digest);
    let written = if file.exists() && !is_file(file) {
        std::fs::OpenOptions::new()
            .append(true)
            .open(file)
            .and_then(|mut open| open.write_all(lines.as_bytes()))
    } else {
        write_durably(file, lines.as_bytes(), Existing::Replace)
    };
    written.map_err(|error| failed(file, &error))
}

fn is_file(file: &Path) -> bool {
    file.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

fn failed(file: &Path, error: &std::io::Error) -> CommandError {
    CommandError::io(ErrorKind::Unavailable, format!("cannot write `{}`", file.display()), error)
}

/// No value holds a line break: ids, references and words.
fn outputs(view: &SnapshotView, digest: Option<&str>) -> String {
    let reused = view.reused.to_string();
    let lines = [
        ("snapshot", Some(view.reference.as_str())),
        ("id", Some(view.id.as_str())),
        ("name", Some(view.name.as_str())),
        ("image", view.image.as_deref()),
        ("tag", view.tag.as_deref()),
        ("digest", digest),
        ("state", Some(view.state)),
        ("reused", Some(reused.as_str())),
    ];
    lines.iter().filter_map(|(key, value)| Some(format!("{key}={}\n", (*value)?))).collect()
}

/// Adds a summary to the job's, where the environment names a file for it.
pub(super) fn add_to_job(environment: &Environment, view: &SnapshotView) -> Result<(), CommandError> {
    let Some(file) = environment.get(JOB_SUMMARY).map(Path::new) else { return Ok(()) };
    open_append(file).and_then(|mut open| open.write_all(markdown(view).as_bytes())).map_err(|error| {
        CommandError::io(
            ErrorKind::Unavailable,
            format!("cannot add to the job summary `{}`", file.display()),
            &error,
        )
    })
}

fn markdown(view: &SnapshotView) -> String {
    let failed: Vec<&str> = view
        .checks
        .iter()
        .filter(|check| check.passed == Some(false))
        .map(|check| check.name.as_str())
        .collect();
    let passed = view.checks.iter().filter(|check| check.passed == Some(true)).count();
    let checks = if failed.is_empty() {
        format!("{passed} passed")
    } else {
        format!("{passed} passed, failed: {}", failed.join(", "))
    };
    let took = view
        .timings
        .as_ref()
        .map_or_else(String::new, |timings| human_duration(Duration::from_millis(timings.total_ms)));
    let rows = [
        ("state", format!("{}{}", view.state, if view.reused { " (reused)" } else { "" })),
        ("image", view.image.clone().unwrap_or_default()),
        ("size", ByteSize(view.size_bytes.unwrap_or(0)).to_string()),
        ("tag", view.tag.clone().unwrap_or_default()),
        ("base", format!("{} ({})", view.base.reference, view.base.origin)),
        ("checks", checks),
        ("time", took),
    ];
    let cell = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ");
    let mut text = format!("### Snapshot `{}`\n\n| | |\n|---|---|\n", view.reference);
    for (name, value) in rows {
        text.push_str(&format!("| {name} | {} |\n", cell(&value)));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::tests::{sample, sample_channels};

    fn sample_view() -> SnapshotView {
        SnapshotView::new(&sample(), &sample_channels())
    }

    #[test]
    fn outputs_are_lines_of_key_and_value() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("deep/outputs");
        write_outputs(&file, &sample_view(), None).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("snapshot=litellm@01jqzzzzzzzzzzzzzzzzzzzzzz\nid=01jqz"), "{text}");
        assert!(text.ends_with("state=active\nreused=false\n") && !text.contains("digest="), "{text}");
        write_outputs(&file, &sample_view(), Some("r@sha256:ab")).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("digest=r@sha256:ab\n"));
        clear_outputs(&file).unwrap();
        assert!(!file.exists());
        clear_outputs(&file).unwrap();
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        clear_outputs(Path::new("/dev/null")).unwrap();
        write_outputs(Path::new("/dev/null"), &sample_view(), None).unwrap();
        assert!(!is_file(Path::new("/dev/null")));
    }

    #[test]
    fn a_summary_is_added_below_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("summary.md");
        let environment = Environment::of([(JOB_SUMMARY, file.to_str().unwrap())]);
        add_to_job(&environment, &sample_view()).unwrap();
        add_to_job(&environment, &sample_view()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches("### Snapshot `litellm@").count(), 2);
        assert!(text.contains("| checks | 3 passed |"), "{text}");
        add_to_job(&Environment::default(), &sample_view()).unwrap();
    }
}
