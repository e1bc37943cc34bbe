//! What changed between two snapshots.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::ByteSize;
use crate::catalog::{Outcome, Snapshot};

/// What changed between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotDiff {
    /// The first, as `name@id`.
    pub from: String,
    /// The second, as `name@id`.
    pub to: String,
    /// What differs, by area.
    pub changes: Vec<Change>,
    /// The lines of both Dockerfiles, beginning with `+`, `-` or a blank; empty when they are equal.
    pub dockerfile: Vec<String>,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it belongs to: `base`, `parameters`, `packages.dpkg`, `image`, …
    pub area: String,
    /// The thing.
    pub what: String,
    /// Its value before; absent when it is new.
    pub before: Option<String>,
    /// Its value after; absent when it is gone.
    pub after: Option<String>,
}

/// Compares two snapshots.
#[must_use]
pub fn diff(a: &Snapshot, b: &Snapshot) -> SnapshotDiff {
    let mut changes = Vec::new();
    let (left, right) = (facts(a), facts(b));
    let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for key in keys {
        let (before, after) = (left.get(key), right.get(key));
        if before != after {
            let (area, what) = key.clone();
            changes.push(Change {
                area: area.to_owned(),
                what,
                before: before.cloned(),
                after: after.cloned(),
            });
        }
    }
    SnapshotDiff {
        from: a.reference(),
        to: b.reference(),
        changes,
        dockerfile: line_diff(&a.record.dockerfile, &b.record.dockerfile),
    }
}

type Facts = BTreeMap<(&'static str, String), String>;

/// Lays a snapshot out as (area, thing) → value.
fn facts(snapshot: &Snapshot) -> Facts {
    let record = &snapshot.record;
    let mut facts = Facts::new();
    let mut add = |area: &'static str, what: &str, value: String| {
        facts.insert((area, what.to_owned()), value);
    };
    add("snapshot", "state", snapshot.state().to_string());
    add("snapshot", "template", record.template.clone());
    add("snapshot", "kiln", record.kiln_version.clone());
    add("snapshot", "builder", format!("{:?}", record.builder).to_lowercase());
    add("base", "reference", record.base.reference.clone());
    add("base", "origin", record.base.origin.clone());
    if let Some(image) = record.base.image {
        add("base", "image", image.to_string());
    }
    for (name, value) in &record.parameters {
        add("parameters", name, value.clone());
    }
    for (name, value) in &record.build_args {
        add("build args", name, value.clone());
    }
    for ca in &record.baked_cas {
        add("baked CAs", &ca.subject, ca.fingerprint.clone());
    }
    if let Some(checkout) = &record.checkout {
        add("checkout", &checkout.url, checkout.commit.clone());
    }
    add("runtime", "user", record.runtime.user.clone());
    add("runtime", "workdir", record.runtime.workdir.clone());
    add("runtime", "entrypoint", record.runtime.entrypoint.join(" "));
    add("runtime", "start", record.runtime.start.clone().unwrap_or_default());
    for (name, value) in &record.runtime.env {
        add("environment", name, value.clone());
    }
    add("resources", "cpu", record.resources.cpu.to_string());
    add("resources", "memory", record.resources.memory.to_string());
    add("resources", "disk", record.resources.disk.to_string());
    add("limits", "image", record.limits.image.to_string());
    add("limits", "build_write", record.limits.build_write.to_string());
    add("limits", "context", record.limits.context.to_string());
    add("limits", "timeout", record.limits.timeout.to_string());
    for check in &record.checks {
        add("checks", &check.name, check.cmd.clone());
    }
    add("context", "digest", record.context_digest.to_string());
    if let Some(outcome) = snapshot.outcome() {
        facts.extend(outcome_facts(outcome));
    }
    facts
}

fn outcome_facts(outcome: &Outcome) -> Facts {
    let mut facts = Facts::new();
    facts.insert(("image", "size".into()), ByteSize(outcome.size_bytes).to_string());
    let inventory = &outcome.inventory;
    for (area, packages) in [
        ("packages.dpkg", &inventory.dpkg),
        ("packages.pip", &inventory.pip),
        ("packages.npm", &inventory.npm),
    ] {
        facts.extend(packages.iter().map(|(name, version)| ((area, name.clone()), version.clone())));
    }
    facts
}

fn line_diff(a: &str, b: &str) -> Vec<String> {
    if a == b {
        return Vec::new();
    }
    let diff = similar::TextDiff::from_lines(a, b);
    diff.iter_all_changes()
        .map(|change| format!("{}{}", change.tag(), change.value().trim_end_matches('\n')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_both_have_begin_with_a_blank() {
        assert_eq!(line_diff("a\nb\nc\n", "a\nx\nc\nd\n"), [" a", "-b", "+x", " c", "+d"]);
        assert!(line_diff("a", "a").is_empty());
        assert_eq!(line_diff("", "a"), ["+a"]);
    }
}
