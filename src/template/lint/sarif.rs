//! Findings for other programs: SARIF 2.1.0.

use serde_json::{Value, json};

use super::{Finding, Severity, rules};

/// Returns `findings` in `file` as a SARIF 2.1.0 log with one run and all rules.
#[must_use]
pub fn to_sarif(file: &str, findings: &[Finding]) -> Value {
    let table: Vec<Value> = rules()
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "name": rule.name,
                "shortDescription": { "text": rule.summary },
                "fullDescription": { "text": rule.rationale },
                "help": { "text": rule.help },
                "defaultConfiguration": { "level": level(rule.severity) },
            })
        })
        .collect();
    let uri = uri(file);
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "ruleId": finding.id,
                "ruleIndex": rules().iter().position(|rule| rule.id == finding.id),
                "level": level(finding.severity),
                "message": { "text": format!("{}. {}", finding.message, finding.help) },
                "locations": [{
                    "physicalLocation": {
                        "artifactLocation": { "uri": uri },
                        "region": { "startLine": finding.line.max(1) },
                    },
                }],
            })
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": { "name": "kiln", "version": env!("CARGO_PKG_VERSION"), "rules": table },
            },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Returns a path as a relative reference: what a URI does not hold is written as `%XX`.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::dockerfile::Dockerfile;
    use crate::template::lint::{LintInput, lint};

    #[test]
    fn a_log_names_rules_levels_and_lines() {
        let findings = lint(&Dockerfile::parse("FROM debian\nUSER root").unwrap(), &LintInput::default());
        let log = to_sarif("my images/Dockerfile", &findings);
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let first = &run["results"][0];
        assert_eq!((&first["ruleId"], &first["level"]), (&json!("KL003"), &json!("warning")));
        let index = usize::try_from(first["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "KL003");
        let place = &first["locations"][0]["physicalLocation"];
        assert_eq!(place["region"]["startLine"], 1);
        assert_eq!(place["artifactLocation"]["uri"], "my%20images/Dockerfile");
    }
}
