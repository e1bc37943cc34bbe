//! How people read values: tables, ages, lines that are safe to print.

use jiff::Timestamp;

/// Two spaces between columns.
const GAP: &str = "  ";

/// Aligns rows into columns. Escape codes take no width; the last column is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| console::measure_text_width(cell))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width_of).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| console::pad_str(cell, *width, console::Alignment::Left, None).into_owned())
            .collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

/// Returns how long ago `at` was, in one unit: `12s ago`, `5m ago`, `3h ago`, `2d ago`.
pub(super) fn age(now: Timestamp, at: Timestamp) -> String {
    match now.duration_since(at).as_secs() {
        seconds if seconds < 1 => "just now".to_owned(),
        seconds => format!("{} ago", one_unit(seconds)),
    }
}

/// Returns how long it is until `at`: `in 5m`, or `3d ago` when it has passed.
pub(super) fn until(now: Timestamp, at: Timestamp) -> String {
    match at.duration_since(now).as_secs() {
        // A minute, or a sixtieth, is made up for: what was said to be in a day is not "in 23h" a moment later.
        seconds if seconds > 0 => format!("in {}", one_unit(seconds + (seconds / 60).min(59))),
        _ => age(now, at),
    }
}

fn one_unit(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..DAY => format!("{}h", seconds / HOUR),
        _ => format!("{}d", seconds / DAY),
    }
}

/// Returns the date of `at`.
pub(super) fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Returns the time of `at` in UTC, to the second.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns a line of foreign output without escape codes and control characters, and only what follows its last carriage
/// return, as a terminal would show it.
pub(super) fn clean(line: &str) -> String {
    let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    console::strip_ansi_codes(shown)
        .chars()
        .filter_map(|c| match c {
            '\t' => Some(' '),
            c if c.is_control() => None,
            c => Some(c),
        })
        .collect()
}

/// Returns `text` cut to `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

/// Returns the `known` word that is nearest to `word`, if one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [
            (0, "just now"),
            (12, "12s ago"),
            (61, "1m ago"),
            (7_300, "2h ago"),
            (200_000, "2d ago"),
            (-5, "just now"),
        ] {
            assert_eq!(age(after(seconds), after(0)), text);
        }
        assert_eq!(until(after(0), after(3_600)), "in 1h");
        assert_eq!(until(after(1), after(86_400)), "in 1d");
        assert_eq!(until(after(90), after(0)), "1m ago");
    }

    #[test]
    fn columns_are_aligned_whatever_their_color() {
        let rows = [vec!["name".to_owned(), "x".into()], vec!["\u{1b}[1ma\u{1b}[0m".into(), "y".into()]];
        assert_eq!(console::strip_ansi_codes(&table(&rows)), "name  x\na     y\n");
    }

    #[test]
    fn foreign_lines_lose_escape_codes_and_what_a_carriage_return_overwrote() {
        assert_eq!(clean("\u{1b}[31m10%\r\u{1b}[32m100%\u{1b}[0m\r"), "100%");
        assert_eq!(clean("a\tb\u{7}\u{9b}"), "a b");
    }

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("daytna", ["daytona", "e2b"]), Some("daytona"));
        assert_eq!(nearest("kubernetes", ["daytona", "e2b"]), None);
    }
}
