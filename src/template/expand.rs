//! Expanding one text: minijinja, strict about what is undefined, with the filters that quote.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use super::{TemplateError, quote};

/// 500,000 steps: a hundred times what the largest shipped part takes, and over in well under a second.
const FUEL: u64 = 500_000;

/// Expands texts.
#[derive(Debug)]
pub(super) struct Expander {
    environment: Environment<'static>,
}

/// Where a text stands, for errors.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: String,
    /// The line of the text's first line, counted from one.
    pub(super) line: usize,
}

impl Place {
    pub(super) fn start_of(file: String) -> Self {
        Self { file, line: 1 }
    }
}

impl Expander {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_name| AutoEscape::None);
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
        environment.set_syntax(syntax.build().expect("the delimiters are the defaults"));
        // Python writes `False`; shells and manifests write `false`.
        environment.set_formatter(|out, state, value| match bool::try_from(value.clone()) {
            Ok(flag) if value.kind() == ValueKind::Bool => {
                out.write_str(if flag { "true" } else { "false" }).map_err(Into::into)
            }
            _ => minijinja::escape_formatter(out, state, value),
        });
        environment.add_filter("sh", |value: Value| quote::sh(&value));
        environment.add_filter("env", |value: Value| quote::env(&value));
        environment.add_filter("json", |value: Value| quote::json(&value));
        Self { environment }
    }

    /// Returns `text` with everything in it expanded.
    pub(super) fn text(&self, place: &Place, text: &str, context: &Value) -> Result<String, TemplateError> {
        self.environment
            .render_named_str(&place.file, text, context.clone())
            .map_err(|error| explain(place, text, &error))
    }

    /// Returns whether the expression holds.
    pub(super) fn condition(
        &self,
        place: &Place,
        expression: &str,
        context: &Value,
    ) -> Result<bool, TemplateError> {
        self.environment
            .compile_expression(expression)
            .and_then(|compiled| compiled.eval(context.clone()))
            .map(|value| value.is_true())
            .map_err(|error| explain(place, expression, &error))
    }
}

/// Returns the error of one text: where it is, what is wrong, and the piece of text that it is about.
fn explain(place: &Place, text: &str, error: &minijinja::Error) -> TemplateError {
    let mut message = error.kind().to_string();
    if let Some(detail) = error.detail() {
        message = format!("{message}: {detail}");
    }
    let piece = error.range().and_then(|range| text.get(range)).map_or("", str::trim);
    if !piece.is_empty() && !message.contains(piece) {
        message = format!("{message} (in `{}`)", super::error::shown(piece));
    }
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        message = format!("{message}: {deeper}");
        cause = deeper.source();
    }
    let line = place.line + error.line().map_or(0, |line| line.saturating_sub(1));
    TemplateError::Render { file: place.file.clone(), line, message }
}

#[cfg(test)]
mod tests {
    use minijinja::value::Serde;

    use super::*;

    fn expand(text: &str) -> Result<String, TemplateError> {
        let context = Value::from(Serde(serde_json::json!({ "p": { "x": "a'b", "flag": false } })));
        Expander::new().text(&Place { file: "part".to_owned(), line: 3 }, text, &context)
    }

    #[test]
    fn blocks_leave_no_lines_behind() {
        assert_eq!(expand("a\n  {% if p.flag %}\nb\n  {% endif %}\nc\n").unwrap(), "a\nc\n");
        assert_eq!(
            expand("{{ p.flag }} {{ p.flag | sh }} {{ p.flag | env }}").unwrap(),
            r#"false false "false""#
        );
        assert_eq!(
            expand("{{ p.x | sh }} {{ p.x | env }} {{ p.x | json }}").unwrap(),
            r#"'a'\''b' "a'b" "a'b""#
        );
    }

    #[test]
    fn what_is_undefined_is_an_error_with_its_line() {
        for text in
            ["a\n{{ p.y }}", "a\n{% if p.y %}{% endif %}", "a\n{{ q }}", "a\n{{ q.y }}", "\n{{ p.y | sh }}"]
        {
            let error = expand(text).unwrap_err();
            assert!(matches!(&error, TemplateError::Render { line: 4, .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_loop_without_end_runs_out_of_fuel() {
        let text = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(matches!(expand(text), Err(TemplateError::Render { .. })));
    }
}
