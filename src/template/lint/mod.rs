//! Rules over a parsed Dockerfile.
//!
//! | file | what it holds |
//! |---|---|
//! | `types` | what goes in, what comes out |
//! | `rules` | the table of rules: id, name, severity, reason |
//! | `check` | runs all rules, applies suppressions |
//! | `script` | the commands of a `RUN` |
//! | `secrets` | rules on secrets that stay in the image |
//! | `packages` | rules on apt, pip and npm |
//! | `commands` | rules on what a `RUN` does otherwise |
//! | `image` | rules on the base, the user, the folder, the entrypoint |
//! | `files` | rules on `COPY` and `ADD` |
//! | `features` | rules on what the builder supports |
//! | `suppress` | `# kiln: ignore=ID reason` |
//! | `sarif` | findings for other programs |

mod check;
mod commands;
mod features;
mod files;
mod image;
mod packages;
mod rules;
mod sarif;
mod script;
mod secrets;
mod suppress;
mod types;

pub use check::lint;
pub use rules::rules;
pub use sarif::to_sarif;
pub use types::{Finding, LintContext, LintFeatures, LintInput, Rule, Severity};
