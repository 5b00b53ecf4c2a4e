//! A report for the person at the terminal.

use super::{Outcome, Report, Traced};
use crate::fleet::text::table;

/// One line of the table.
fn line(traced: &Traced) -> Vec<String> {
    let mut cells = vec![traced.server.clone(), traced.instance.clone()];
    cells.extend(match &traced.outcome {
        Outcome::Gathered {
            folder,
            events,
            lost,
            rows,
            ..
        } => [
            "gathered".to_owned(),
            events.to_string(),
            rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
            lost.to_string(),
            folder.display().to_string(),
        ],
        Outcome::Failed { reason } => without("failed", reason),
        Outcome::Silent { reason } => without("not asked", reason),
        Outcome::Interrupted { reason } => without("interrupted", reason),
    });
    cells
}

/// The cells of a server without a session; the reason stands where the folder would.
fn without(state: &str, reason: &str) -> [String; 5] {
    let none = || "-".to_owned();
    [state.to_owned(), none(), none(), none(), reason.to_owned()]
}

/// The report.
pub fn report(report: &Report) -> String {
    let head = [
        "server", "agent", "state", "events", "rows", "lost", "folder",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.servers.iter().map(line));
    let mut text = table(&rows);
    let (gathered, all) = (report.gathered(), report.servers.len());
    text.push_str(&format!("\n{gathered} of {all} sessions gathered"));
    if gathered > 0 {
        text.push_str(&format!(" in {}", report.folder.display()));
    }
    if report.interrupted {
        text.push_str("; interrupted: what was gathered before stays");
    }
    for note in &report.notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    text
}
