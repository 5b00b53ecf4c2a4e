//! A comparison as one self-contained page: no script, nothing from the network.

use std::fmt::Write as _;

use super::text::{between, counts, figure, named, relative};
use super::{Comparison, Difference};
use crate::markup::text;

/// Width of an interval's picture, in its own units; the middle is no difference.
const WIDTH: f64 = 200.0;
/// Change in percent at the picture's ends, at least.
const LEAST_PCT: f64 = 10.0;
/// And at most: what is larger is drawn at the end.
const MOST_PCT: f64 = 100.0;

const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem auto;max-width:75rem;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin-bottom:1.5rem}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #8884;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
svg{width:12.5rem;height:1rem;vertical-align:middle}
.faster td.v{color:#18794e;font-weight:600}.slower td.v{color:#c62a2f;font-weight:600}
.more td.v,.less td.v{font-weight:600}.noise,.too-few{opacity:.65}
.scroll{overflow-x:auto}@media print{.scroll{overflow:visible}}";

/// The page.
pub fn page(comparison: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_page(&mut out, comparison);
    out
}

fn write_page(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>ProfileMate: two sessions compared</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <h1>Two sessions compared</h1>\n<p>A: {}<br>B: {}</p>\n<p>{}. All intervals hold together with {} %; a bar \
         that crosses the middle line is noise.</p>",
        text(&named(&comparison.a)),
        text(&named(&comparison.b)),
        counts(comparison),
        comparison.confidence_pct
    )?;
    let shown = comparison
        .differences
        .iter()
        .filter_map(|one| one.relative_pct);
    let widest = shown
        .fold(LEAST_PCT, |most, pct| most.max(pct.abs() * 1.5))
        .min(MOST_PCT);
    let mut table = None;
    for one in &comparison.differences {
        if table != Some(one.table) {
            if table.is_some() {
                writeln!(out, "</tbody></table></div>")?;
            }
            table = Some(one.table);
            head(out, one.table, widest)?;
        }
        row(out, one, widest)?;
    }
    if table.is_some() {
        writeln!(out, "</tbody></table></div>")?;
    }
    for note in &comparison.notes {
        writeln!(out, "<p>Note: {}</p>", text(note))?;
    }
    writeln!(out, "</body></html>")
}

fn head(out: &mut String, table: &str, widest: f64) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>{}</h2>\n<div class=\"scroll\"><table><thead><tr><th>column</th><th>unit</th><th>A</th><th>B</th>\
         <th>p50 A</th><th>p50 B</th><th>change</th><th>&minus;{widest:.0} % to +{widest:.0} %</th>\
         <th>interval</th><th>verdict</th></tr></thead><tbody>",
        text(table)
    )
}

fn row(out: &mut String, one: &Difference, widest: f64) -> std::fmt::Result {
    let name = if one.group.is_empty() {
        one.column.to_owned()
    } else {
        format!("{}: {}", one.group, one.column)
    };
    let optional = |value: Option<f64>| value.map(figure).unwrap_or_default();
    writeln!(
        out,
        "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td class=\"v\">{}</td></tr>",
        one.verdict.words().replace(' ', "-"),
        text(&name),
        text(one.unit),
        figure(one.a.mean),
        figure(one.b.mean),
        optional(one.a.p50),
        optional(one.b.p50),
        one.relative_pct.map(relative).unwrap_or_default(),
        picture(one, widest),
        between(one),
        one.verdict.words()
    )
}

/// The interval as a bar around the change, over a line at no difference.
fn picture(one: &Difference, widest: f64) -> String {
    let (Some([low, high]), Some(pct)) = (one.interval, one.relative_pct) else {
        return String::new();
    };
    let middle = WIDTH / 2.0;
    let place = |pct: f64| middle + middle * (pct / widest).clamp(-1.0, 1.0);
    let percent = |value: f64| place(100.0 * value / one.a.mean);
    let (left, right) = (
        percent(low).min(percent(high)),
        percent(low).max(percent(high)),
    );
    format!(
        "<svg viewBox=\"0 0 {WIDTH} 16\" role=\"img\" aria-label=\"{}\"><path d=\"M{middle} 0V16\" stroke=\"#888\"/>\
         <rect x=\"{left:.1}\" y=\"5\" width=\"{:.1}\" height=\"6\" fill=\"#4a7bd0\"/>\
         <circle cx=\"{:.1}\" cy=\"8\" r=\"4\" fill=\"#1d4fa8\"/></svg>",
        text(&between(one)),
        (right - left).max(1.0),
        place(pct)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_session_cannot_become_markup() {
        assert_eq!(
            text("<a b='c' d=\"&\">"),
            "&lt;a b=&#39;c&#39; d=&quot;&amp;&quot;&gt;"
        );
    }
}
