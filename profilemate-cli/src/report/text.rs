//! Text that comes from a session, made safe for the place where it stands; and numbers for people.

use std::fmt::Write as _;

use crate::markup::is_control;
pub(super) use crate::markup::text as html;

/// Letters of a label that are shown, at most.
const LABEL: usize = 80;

/// Text as [`html`] makes it, with `code` between backticks.
pub(super) fn words(text: &str) -> String {
    let text = html(text);
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for (index, part) in parts.iter().enumerate() {
        if index % 2 == 1 {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "<code>{part}</code>");
        } else {
            out.push_str(part);
        }
    }
    out
}

/// JSON that may stand in a `script` element: nothing in it ends the element, or a line of a script.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            letter => out.push(letter),
        }
    }
    out
}

/// A label of a plot. The plotting library reads a few HTML tags (among them links) and entities in labels: none is left.
/// A label never stands in a hover template, which has a language of its own.
pub(super) fn label(text: &str) -> String {
    let mut letters = text.chars();
    let mut out = String::new();
    for letter in letters.by_ref().take(LABEL) {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter if is_control(letter) => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    if letters.next().is_some() {
        out.push('…');
    }
    out
}

/// A number with three digits that say something, and its thousands apart.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value.fract().abs() < 1e-9 {
        return thousands(value);
    }
    let digits = if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else if size >= 0.1 {
        3
    } else {
        4
    };
    format!("{value:.digits$}")
}

/// A whole number with its thousands apart.
pub(super) fn thousands(value: f64) -> String {
    let plain = format!("{:.0}", value.abs());
    let mut out = String::new();
    if value <= -0.5 {
        out.push('-');
    }
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration in words.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{} us", figure(seconds * 1e6))
    } else if seconds < 1.0 {
        format!("{} ms", figure(seconds * 1e3))
    } else if seconds < 120.0 {
        format!("{} s", figure(seconds))
    } else if seconds < 7_200.0 {
        format!("{} min", figure(seconds / 60.0))
    } else {
        format!("{} h", figure(seconds / 3_600.0))
    }
}

/// `1 row`, `2 rows`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{} {word}", thousands(number as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "</script><script>alert(1)</script><a href='javascript:1'>\"&%{x}$x$\u{202e}\u{2028}\0";

    #[test]
    fn nothing_ends_the_place_where_text_stands() {
        let shown = html(HOSTILE);
        assert!(
            !shown.contains(['<', '>', '"', '\'', '\0', '\u{202e}']),
            "{shown}"
        );
        let carried = json(&serde_json::json!({ "id": HOSTILE }).to_string());
        assert!(
            !carried.contains(['<', '>', '&', '\u{2028}', '\0']),
            "{carried}"
        );
        let back: serde_json::Value = serde_json::from_str(&carried).unwrap();
        assert_eq!(back["id"], HOSTILE);
        let drawn = label(HOSTILE);
        assert!(!drawn.contains(['<', '>', '\u{202e}', '\0']), "{drawn}");
        assert_eq!(label(&"x".repeat(500)).chars().count(), LABEL + 1);
    }

    #[test]
    fn code_stands_between_backticks() {
        assert_eq!(
            words("no `--x <y>` was"),
            "no <code>--x &lt;y&gt;</code> was"
        );
        assert_eq!(words("a ` b"), "a ` b");
    }

    #[test]
    fn numbers_are_short_and_readable() {
        let figures = [
            1_234_567.0,
            99.96,
            12.34,
            1.234,
            0.1234,
            0.001_26,
            0.0,
            -1234.6,
            3.0,
        ];
        let words = figures.map(figure);
        assert_eq!(
            words,
            [
                "1,234,567",
                "100.0",
                "12.3",
                "1.23",
                "0.123",
                "0.0013",
                "0",
                "-1,235",
                "3"
            ]
        );
        assert_eq!(
            (duration(0.002), duration(90.0)),
            ("2 ms".into(), "90 s".into())
        );
        assert_eq!(count(1, "row", "rows"), "1 row");
    }
}
