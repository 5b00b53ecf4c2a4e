//! A comparison for the person at the terminal.

use std::fmt::Write as _;

use super::{Comparison, Difference, Name, Verdict};

/// Only what differs, or everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// What differs.
    Differences,
    /// Everything that was compared.
    All,
}

/// A number with four digits.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || size >= 1_000.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// Percent with its sign.
pub(super) fn relative(value: f64) -> String {
    format!("{value:+.1} %")
}

/// The interval in percent of A, where A's mean is not zero; else in the column's unit.
pub(super) fn between(difference: &Difference) -> String {
    let Some([low, high]) = difference.interval else {
        return String::new();
    };
    let mean = difference.a.mean;
    if mean == 0.0 {
        return format!("{} to {}", figure(low), figure(high));
    }
    let (one, two) = (100.0 * low / mean, 100.0 * high / mean);
    format!("{} to {}", relative(one.min(two)), relative(one.max(two)))
}

pub(super) fn named(name: &Name) -> String {
    let mut words = name.folder.clone();
    for more in [
        name.start_time.as_ref(),
        name.vllm
            .as_ref()
            .map(|vllm| format!("vLLM {vllm}"))
            .as_ref(),
    ]
    .into_iter()
    .flatten()
    {
        let _ = write!(words, ", {more}");
    }
    if let Some(lost) = name.lost.filter(|lost| *lost > 0) {
        let _ = write!(words, ", {lost} records lost");
    }
    words
}

/// How many of each verdict, in one line.
pub(super) fn counts(comparison: &Comparison) -> String {
    let count = |wanted: fn(Verdict) -> bool| {
        let all = comparison.differences.iter();
        all.filter(|one| wanted(one.verdict)).count()
    };
    format!(
        "{} columns compared: {} differ, {} are noise, {} have too few values",
        comparison.differences.len(),
        count(Verdict::is_difference),
        count(|verdict| verdict == Verdict::Noise),
        count(|verdict| verdict == Verdict::TooFew)
    )
}

/// The comparison as text.
pub fn text(comparison: &Comparison, show: Show) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_text(&mut out, comparison, show);
    out.truncate(out.trim_end().len());
    out
}

fn write_text(out: &mut String, comparison: &Comparison, show: Show) -> std::fmt::Result {
    writeln!(out, "A  {}", named(&comparison.a))?;
    writeln!(out, "B  {}", named(&comparison.b))?;
    writeln!(out, "{}", counts(comparison))?;
    writeln!(
        out,
        "(all intervals hold together with {} %)",
        comparison.confidence_pct
    )?;
    let mut before = None;
    for one in &comparison.differences {
        if show == Show::Differences && !one.verdict.is_difference() {
            continue;
        }
        let heading = (one.table, one.group.as_str());
        if before != Some(heading) {
            let group = if one.group.is_empty() {
                String::new()
            } else {
                format!(": {}", one.group)
            };
            writeln!(out, "\n{}{group}", one.table)?;
            before = Some(heading);
        }
        let change = one.relative_pct.map(relative).unwrap_or_default();
        writeln!(
            out,
            "  {:<26} {:>10} -> {:>10} {:<9} {:>10}  {:<7}  {}",
            one.column,
            figure(one.a.mean),
            figure(one.b.mean),
            one.unit,
            change,
            one.verdict.words(),
            between(one)
        )?;
    }
    for note in &comparison.notes {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}
