//! The text without what changes nothing.

use super::Dockerfile;
use super::parse::{heredoc_lines, lines_of};

impl Dockerfile {
    /// Returns the text without comments, blank lines and blanks at line ends. Directives and heredoc bodies stay as
    /// they are. Two texts with the same canonical form build the same image.
    #[must_use]
    pub fn canonical(&self) -> String {
        let bodies = heredoc_lines(self);
        let mut out = String::with_capacity(self.text.len());
        for line in lines_of(&self.text) {
            let begun = bodies.partition_point(|body| body.start <= line.number);
            if begun
                .checked_sub(1)
                .and_then(|at| bodies.get(at))
                .is_some_and(|body| body.contains(&line.number))
            {
                out.push_str(line.whole);
                continue;
            }
            let trimmed = line.text.trim_end_matches([' ', '\t', '\r']);
            let directive = self.directives.iter().any(|directive| directive.line == line.number);
            let comment = trimmed.trim_start().starts_with('#') && !directive;
            if !comment && !trimmed.trim_start().is_empty() {
                out.push_str(trimmed);
                out.push('\n');
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_trailing_blanks_go() {
        let text = "# escape=\\\n# hi\n\nFROM x  \r\n  # no\nRUN a && \\ \n # no\n  b\t\nRUN <<EOF\n# kept  \n\nEOF\n\n# end";
        assert_eq!(
            Dockerfile::parse(text).unwrap().canonical(),
            "# escape=\\\nFROM x\nRUN a && \\\n  b\nRUN <<EOF\n# kept  \n\nEOF\n"
        );
    }
}
