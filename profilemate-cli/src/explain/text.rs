//! An explanation for the person at the terminal.

use std::fmt::Write as _;

use super::{Cost, Evidence, Explanation, Finding};

/// What is said when no rule found anything.
pub const NOTHING: &str = "nothing wrong seen";
/// What is said when no rule could be judged.
pub const BLIND: &str = "nothing could be judged";

/// A number with as many digits as it is worth.
fn figure(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// A time, in seconds from ten of them on.
fn time(ms: f64) -> String {
    if ms.abs() < 10_000.0 {
        format!("{} ms", figure(ms))
    } else {
        format!("{} s", figure(ms / 1e3))
    }
}

/// What a fault costs, in words.
pub fn cost(cost: &Cost) -> String {
    match (cost.tokens_per_sec, cost.milliseconds) {
        (Some(rate), Some(ms)) => {
            let (time, rate) = (time(ms), figure(rate));
            format!("{time} {}; {rate} tokens/s", cost.text)
        }
        (Some(rate), None) => format!("{} tokens/s: {}", figure(rate), cost.text),
        (None, Some(ms)) => format!("{} {}", time(ms), cost.text),
        (None, None) => cost.text.clone(),
    }
}

/// When the rows were, in words.
pub fn when(evidence: &Evidence) -> String {
    match (evidence.first_sec, evidence.last_sec) {
        (Some(first), Some(last)) => format!(", {first:.3} s to {last:.3} s"),
        _ => String::new(),
    }
}

fn finding(out: &mut String, number: usize, finding: &Finding) -> std::fmt::Result {
    writeln!(out, "{number}. {} [{}]", finding.title, finding.rule)?;
    for evidence in &finding.evidence {
        let (table, rows) = (evidence.table, evidence.rows);
        writeln!(out, "   seen    {}", evidence.text)?;
        writeln!(
            out,
            "           ({table}.csv, {rows} rows{})",
            when(evidence)
        )?;
    }
    writeln!(out, "   costs   {}", cost(&finding.cost))?;
    for change in &finding.changes {
        let value = change.value.as_ref().map(|value| format!(" {value}"));
        let value = value.unwrap_or_default();
        writeln!(out, "   change  {}{value}", change.option)?;
        writeln!(out, "           {}", change.why)?;
    }
    writeln!(out)
}

/// The whole answer.
pub fn long(explanation: &Explanation) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_long(&mut out, explanation);
    out.truncate(out.trim_end().len());
    out
}

fn write_long(out: &mut String, explanation: &Explanation) -> std::fmt::Result {
    for (index, one) in explanation.findings.iter().enumerate() {
        finding(out, index + 1, one)?;
    }
    if explanation.findings.is_empty() {
        let blind = explanation.nothing_wrong.is_empty();
        writeln!(out, "{}", if blind { BLIND } else { NOTHING })?;
    }
    if !explanation.nothing_wrong.is_empty() {
        writeln!(
            out,
            "looked for and not seen: {}",
            explanation.nothing_wrong.join(", ")
        )?;
    }
    if !explanation.not_judged.is_empty() {
        writeln!(out, "not judged:")?;
        for one in &explanation.not_judged {
            writeln!(out, "  {:<27} {}", one.rule, one.reason)?;
        }
    }
    for note in &explanation.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// One line for each finding, for the end of a trace.
pub fn short(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| {
            let options: Vec<&str> = finding.changes.iter().map(|change| change.option).collect();
            format!("{} ({})", finding.title, options.join(", "))
        })
        .collect()
}
