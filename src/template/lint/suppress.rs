//! `# kiln: ignore=ID[,ID] reason`.

use std::ops::RangeInclusive;

use super::check::Subject;
use super::rules::{
    COPY_ALL, MISSING_SOURCE, NO_REASON, NOT_PORTABLE, UNSUPPORTED, UNUSED_SUPPRESSION, rules,
};
use super::{Finding, LintContext, Rule};
use crate::template::dockerfile::Comment;

/// Returns `findings` less the suppressed ones, plus what is wrong with suppressions.
///
/// A suppression before the first instruction holds for the whole file; one right above an instruction, or between
/// its lines, for that instruction.
pub(super) fn apply(subject: &Subject<'_>, mut findings: Vec<Finding>) -> Vec<Finding> {
    let mut notes = Vec::new();
    for comment in subject.file.comments() {
        let Some(order) = comment.text.strip_prefix("kiln:") else { continue };
        let Some((ids, reason)) = ids_and_reason(order) else {
            let message = "a `kiln:` comment is written `# kiln: ignore=ID reason`";
            notes.push(UNUSED_SUPPRESSION.at(comment.line, message));
            continue;
        };
        if reason.is_empty() {
            notes.push(NO_REASON.at(comment.line, format!("no reason for ignoring {}", ids.join(", "))));
        }
        let scope = scope(subject, comment);
        for id in ids {
            let rule = rules()
                .iter()
                .find(|rule| rule.id.eq_ignore_ascii_case(id) || rule.name.eq_ignore_ascii_case(id));
            let Some(rule) = rule else {
                notes.push(UNUSED_SUPPRESSION.at(comment.line, format!("there is no rule `{id}`")));
                continue;
            };
            let before = findings.len();
            let held = |finding: &Finding| {
                finding.id == rule.id && scope.as_ref().is_some_and(|scope| scope.contains(&finding.line))
            };
            findings.retain(|finding| !held(finding));
            if findings.len() == before && judged(subject, rule) {
                notes.push(UNUSED_SUPPRESSION.at(comment.line, format!("`{id}` is not found here")));
            }
        }
    }
    findings.extend(notes);
    findings
}

fn ids_and_reason(order: &str) -> Option<(Vec<&str>, &str)> {
    let rest = order.trim().strip_prefix("ignore=")?;
    let (ids, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let ids: Vec<&str> = ids.split(',').filter(|id| !id.is_empty()).collect();
    (!ids.is_empty()).then_some((ids, reason.trim()))
}

/// Returns the lines that a suppression holds for.
fn scope(subject: &Subject<'_>, comment: &Comment) -> Option<RangeInclusive<u32>> {
    let instructions = subject.file.instructions();
    if instructions.first().is_none_or(|first| comment.line < first.line) {
        return Some(1..=u32::MAX);
    }
    let instruction = instructions.iter().find(|instruction| comment.line <= instruction.end_line)?;
    let comments = subject.file.comments();
    let is_comment = |line: u32| comments.binary_search_by_key(&line, |comment| comment.line).is_ok();
    let adjacent = (comment.line..instruction.line).all(is_comment);
    adjacent.then_some(instruction.line..=instruction.end_line)
}

/// Returns whether `rule` was judged at all: some need what the input does not tell.
fn judged(subject: &Subject<'_>, rule: &Rule) -> bool {
    match rule.id {
        id if id == COPY_ALL.id || id == MISSING_SOURCE.id => subject.input.context != LintContext::Unknown,
        id if id == UNSUPPORTED.id => subject.input.features.is_some(),
        id if id == NOT_PORTABLE.id => subject.input.features.is_none(),
        _ => true,
    }
}
