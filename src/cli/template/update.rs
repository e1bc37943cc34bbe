//! Lock files made anew by the programs that know how: `uv` and `npm`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args;
use serde::Serialize;
use tokio::process::Command;

use crate::base::ErrorKind;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::template::{Library, LockKind, LockSpec, lock_inputs};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln template update ./my-template
  kiln template update litellm --dir templates

Shipped templates are part of the program: --dir names the folder of their sources (the one that holds components/). \
Runs `uv pip compile` and `npm install --package-lock-only`, which must be on PATH; their output goes to \
standard error.";

/// The oldest Python of the bases that are supported: a lock for it and all later ones.
const OLDEST_PYTHON: &str = "3.10";

/// Arguments of `kiln template update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    /// A template folder, or with --dir a template's name
    #[arg(value_name = "TEMPLATE")]
    template: String,
    /// The folder of templates and components in which shipped locks are updated
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was made anew.
#[derive(Debug, Serialize)]
struct UpdateView {
    template: String,
    locks: Vec<PathBuf>,
}

/// Makes the locks anew, one after another; the first that fails ends it, and the locks before it are whole.
pub(super) async fn run(invocation: &Invocation, arguments: &UpdateArgs) -> Result<(), CommandError> {
    let library = match &arguments.dir {
        Some(folder) => Library::of_folder(folder)?,
        None => Library::shipped(),
    };
    let template = library.locate(&arguments.template)?;
    let mut locks: Vec<PathBuf> = Vec::new();
    let mut embedded = Vec::new();
    for lock in lock_inputs(&template)? {
        match folder_of(&lock, arguments.dir.as_deref()) {
            Some(folder) => {
                invocation.note(&format!("{}: {}", lock.owner, lock.file));
                let earlier: Vec<&Path> =
                    locks.iter().filter_map(|lock| lock.strip_prefix(&folder).ok()).collect();
                make(&lock, &folder, &earlier).await?;
                locks.push(folder.join(&lock.file));
            }
            None => embedded.push(format!("{}/{}", lock.library_path, lock.file)),
        }
    }
    if locks.is_empty() && !embedded.is_empty() {
        let message =
            format!("the locks of `{}` are part of this program: {}", template.name(), embedded.join(", "));
        return Err(CommandError::invalid(message)
            .with_hint("name the folder of their sources, such as `--dir templates`"));
    }
    for lock in &embedded {
        invocation
            .note(&format!("{lock} is part of this program and was left as it is; --dir names the sources"));
    }
    let view = UpdateView { template: template.name().to_owned(), locks };
    invocation.output.answer(&view, |_| match view.locks.as_slice() {
        [] => format!("{} has no lock files", view.template),
        locks => locks.iter().map(|lock| lock.display().to_string()).collect::<Vec<_>>().join("\n"),
    })
}

fn folder_of(lock: &LockSpec, library: Option<&Path>) -> Option<PathBuf> {
    lock.folder.clone().or_else(|| library.map(|library| library.join(&lock.library_path)))
}

async fn make(lock: &LockSpec, folder: &Path, earlier: &[&Path]) -> Result<(), CommandError> {
    let (program, arguments) = program(lock, earlier);
    let status = Command::new(program)
        .args(&arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        // The answer goes to standard output; what the program says is part of the story.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                CommandError::of(ErrorKind::Unavailable, format!("`{program}` is not on PATH"))
                    .with_hint(how_to_get(lock.kind))
            }
            _ => CommandError::io(
                ErrorKind::Unavailable,
                format!("cannot run `{program}` in `{}`", folder.display()),
                &error,
            ),
        })?;
    if status.success() {
        return Ok(());
    }
    let line =
        std::iter::once(program).chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    Err(CommandError {
        causes: vec![status.to_string()],
        ..CommandError::of(ErrorKind::Failed, format!("`{line}` failed in `{}`", folder.display()))
    })
}

/// Returns what makes a lock. Locks of one folder are installed together, so an `earlier` one binds the versions of a later one.
fn program(lock: &LockSpec, earlier: &[&Path]) -> (&'static str, Vec<String>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match lock.kind {
        LockKind::Uv => {
            let mut arguments =
                words(&["pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--universal"]);
            arguments.extend(words(&["--python-version", OLDEST_PYTHON, "--no-header", "--no-annotate"]));
            for lock in earlier {
                arguments.extend(words(&["--constraint", &lock.to_string_lossy()]));
            }
            arguments.extend(words(&[&lock.input, "--output-file", &lock.file]));
            ("uv", arguments)
        }
        LockKind::Npm => (
            "npm",
            words(&[
                "install",
                "--package-lock-only",
                "--omit-lockfile-registry-resolved",
                "--ignore-scripts",
            ]),
        ),
    }
}

fn how_to_get(kind: LockKind) -> &'static str {
    match kind {
        LockKind::Uv => "`pip install uv`, or `pipx install uv`, brings it",
        LockKind::Npm => "`apt-get install npm` brings it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(folder: Option<&str>, kind: LockKind) -> LockSpec {
        LockSpec {
            owner: "uv".into(),
            folder: folder.map(PathBuf::from),
            library_path: "components/uv/files".into(),
            file: "requirements.lock".into(),
            input: "requirements.in".into(),
            input_text: "uv\n".into(),
            kind,
        }
    }

    #[test]
    fn an_own_lock_is_updated_where_it_lies_and_a_shipped_one_only_in_its_sources() {
        let own = lock(Some("/t/files"), LockKind::Uv);
        let shipped = lock(None, LockKind::Uv);
        assert_eq!(folder_of(&own, None), Some("/t/files".into()));
        assert_eq!(folder_of(&shipped, None), None);
        assert_eq!(folder_of(&shipped, Some(Path::new("lib"))), Some("lib/components/uv/files".into()));
    }

    #[test]
    fn uv_makes_hashes_for_every_supported_python() {
        let (program, arguments) = program(&lock(None, LockKind::Uv), &[Path::new("first.lock")]);
        assert_eq!(program, "uv");
        let line = arguments.join(" ");
        assert!(
            line.contains("--generate-hashes")
                && line.ends_with("requirements.in --output-file requirements.lock"),
            "{line}"
        );
    }
}
