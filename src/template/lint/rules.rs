//! The table of rules: id, name, severity, reason.

use super::{Rule, Severity};

macro_rules! table {
    ($($constant:ident $id:literal $name:literal $severity:ident
        $summary:literal $rationale:literal $help:literal;)+) => {
        $(pub(super) const $constant: Rule = Rule {
            id: $id,
            name: $name,
            severity: Severity::$severity,
            summary: $summary,
            rationale: $rationale,
            help: $help,
        };)+

        const TABLE: &[Rule] = &[$($constant),+];
    };
}

/// Returns all rules, in the order of their ids.
#[must_use]
pub fn rules() -> &'static [Rule] {
    TABLE
}

table! {
    SECRET_NAME "KL001" "secret-name" Warning
        "An `ENV` or `ARG` is named like a secret."
        "Variables and build arguments stay in the image's history, where everybody who has the image reads them."
        "Take it with `RUN --mount=type=secret,id=…` and read `/run/secrets/<id>` in that step.";
    SECRET_VALUE "KL002" "secret-value" Error
        "A text has the form of a key, a token or a password."
        "What is written in a Dockerfile stays in the repository and in the image's history."
        "Revoke it, then take a new one with `RUN --mount=type=secret,id=…`.";
    BASE_NOT_PINNED "KL003" "base-not-pinned" Warning
        "A base image has no tag, or the tag `latest`."
        "Tomorrow's build starts from another image, and nobody sees why it behaves differently."
        "Name a release, such as `debian:12-slim`, or a digest.";
    APT_LISTS "KL004" "apt-lists-left" Warning
        "A step fetches apt's package lists and leaves them in the image."
        "The lists take tens of megabytes in every sandbox and are stale within days."
        "End the same `RUN` with `rm -rf /var/lib/apt/lists/*`.";
    APT_RECOMMENDS "KL005" "apt-recommends" Warning
        "`apt-get install` without `--no-install-recommends`."
        "Recommended packages make the image larger and bring programs that nobody asked for."
        "Add `--no-install-recommends` and name what is really needed.";
    APT_VERSION "KL006" "apt-version" Info
        "An apt package without a version."
        "The build installs whatever the archive has that day."
        "Write `package=version` where the version matters.";
    PIP_VERSION "KL007" "pip-version" Info
        "A Python package without a version."
        "The build installs whatever is newest that day."
        "Write `package==version`, or install from a requirements file.";
    NPM_VERSION "KL008" "npm-version" Info
        "An npm package without a version."
        "The build installs whatever is newest that day."
        "Write `package@version`.";
    ROOT_USER "KL009" "root-user" Warning
        "The image runs as root, or does not say as whom it runs."
        "What breaks out of a process that runs as root owns all of the sandbox."
        "End the last stage with `USER` and an account that is not root.";
    RELATIVE_WORKDIR "KL010" "relative-workdir" Warning
        "A `WORKDIR` that is not absolute."
        "Where it leads depends on the base image."
        "Begin it with `/`.";
    SHELL_FORM "KL011" "shell-form" Warning
        "`CMD` or `ENTRYPOINT` is not a JSON list."
        "A shell stands before the program: it does not pass signals on, so stopping takes long and loses data."
        "Write a JSON list, such as `[\"program\", \"argument\"]`.";
    ADD_URL "KL012" "add-url" Warning
        "`ADD` fetches a URL without a checksum."
        "What the server gives can change or be replaced, and the file stays in a layer of its own."
        "Fetch it in a `RUN` that compares a checksum, or `COPY` it.";
    PIPE_WITHOUT_PIPEFAIL "KL013" "pipe-without-pipefail" Warning
        "A download is piped into a program, and its failure is not seen."
        "The step succeeds although the download broke off; the program ran on half of it."
        "Set `SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]`, or download to a file first.";
    COPY_ALL "KL014" "copy-all" Warning
        "The whole context is copied, and there is no `.dockerignore`."
        "Version control, caches and local secrets go into the image."
        "Write a `.dockerignore`, or copy what is needed by name.";
    UNSUPPORTED "KL015" "unsupported-feature" Error
        "The builder does not support a feature that is used."
        "The build fails, often with a message about another line."
        "Write it without the feature, or build with a newer engine.";
    NOT_PORTABLE "KL016" "not-portable" Info
        "A feature that not every builder supports."
        "Engine 20.10 refuses it, and a `# syntax=` line needs a network."
        "Write it without the feature where older engines build it.";
    NO_ENTRYPOINT "KL017" "no-entrypoint" Warning
        "The last stage has no `ENTRYPOINT`."
        "Some sandbox services start the entrypoint only and ignore `CMD`."
        "Name the program that keeps the sandbox alive with `ENTRYPOINT`.";
    COMMAND_ENDS "KL018" "command-ends" Warning
        "What the image starts ends at once."
        "A sandbox whose command ends is stopped before anybody enters it."
        "Start a program that stays, such as `sleep infinity`.";
    MISSING_SOURCE "KL019" "missing-source" Error
        "A file that is copied is not in the context."
        "The build fails, after the steps before have run."
        "Correct the path; it is relative to the context folder.";
    APT_UPGRADE "KL020" "apt-upgrade" Warning
        "A step upgrades all packages."
        "Each build differs, and the base image's packages are in the image twice."
        "Take a newer base image, and install what is needed by name.";
    SUDO "KL021" "sudo" Warning
        "A step uses `sudo`."
        "Steps run as the current `USER`; `sudo` needs an account without a password, which stays in the image."
        "Switch with `USER root` before the step, and back after it.";
    UNUSED_SUPPRESSION "KL022" "unused-suppression" Info
        "A suppression suppresses nothing."
        "It hides the next real finding."
        "Remove it, or correct the id.";
    NO_REASON "KL023" "suppression-without-reason" Info
        "A suppression gives no reason."
        "Nobody knows later whether it still holds."
        "Write the reason after the ids: `# kiln: ignore=KL009 the service drops privileges`.";
}
