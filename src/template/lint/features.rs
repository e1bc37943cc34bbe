//! Rules on what the builder supports.

use super::check::Subject;
use super::rules::{NOT_PORTABLE, UNSUPPORTED};
use super::{Finding, LintFeatures};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let needs = subject.file.needs();
    let (rule, features, who) = match subject.input.features {
        Some(features) => (UNSUPPORTED, features, "this builder does not support"),
        None => (NOT_PORTABLE, LintFeatures::PORTABLE, "not every builder supports"),
    };
    let syntax = needs.syntax.as_ref();
    if let Some((line, frontend)) = syntax.filter(|_| !features.syntax) {
        findings.push(rule.at(*line, format!("{who} `# syntax={frontend}`, which fetches a frontend")));
    }
    let always = [
        (needs.mount, features.mount, "`RUN --mount`"),
        (needs.secret_mount, features.secret_mount || !features.mount, "`--mount=type=secret`"),
    ];
    // A frontend that is fetched brings these by itself.
    let of_the_frontend = [
        (
            needs.secret_env,
            features.secret_env || !features.secret_mount || !features.mount,
            "`env=` of a secret",
        ),
        (needs.heredoc, features.heredoc, "heredocs"),
        (needs.copy_chmod, features.copy_chmod, "`COPY --chmod`"),
        (needs.copy_link, features.copy_link, "`COPY --link`"),
        (needs.run_network, features.run_network, "`RUN --network`"),
        (needs.run_security, features.run_security, "`RUN --security`"),
    ];
    let frontend = of_the_frontend.into_iter().filter(|_| syntax.is_none());
    for (line, supported, what) in always.into_iter().chain(frontend) {
        if let Some(line) = line.filter(|_| !supported) {
            findings.push(rule.at(line, format!("{who} {what}")));
        }
    }
}
