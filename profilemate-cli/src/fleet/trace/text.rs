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
    let (gathered, all) = (report.gathered(), report.servers.len());
    let mut lines = vec![if gathered > 0 {
        let folder = report.folder.display();
        format!("{gathered} of {all} sessions gathered in {folder}")
    } else {
        format!("none of {all} sessions gathered")
    }];
    if report.interrupted {
        lines.push("interrupted: what was gathered before stays".to_owned());
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    format!("{}\n{}", table(&rows), lines.join("\n"))
}
