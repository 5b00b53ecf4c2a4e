//! `diff`: two sessions compared.

use std::path::PathBuf;

use clap::Args;

use super::explain::unreadable;
use super::underway::Underway;
use super::{Exit, Failure, print};
use crate::compare::{self, html, text};
use crate::recorded::Session;
use crate::sink;

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 whatever differs, 1 if a folder cannot be read, 3 with --strict if something \
                        differs, 7 if the page cannot be written.\n\nExample: profilemate diff before after --html diff.html"
)]
pub struct Diff {
    /// The first session's folder.
    pub a: PathBuf,
    /// The second session's folder.
    pub b: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Write a self-contained HTML page to this file too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print also what is noise, and what has too few values.
    #[arg(long)]
    pub all: bool,
    /// Probability in percent with which all intervals hold together.
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT", value_parser = confidence)]
    pub confidence: f64,
    /// Exit with code 3 if something differs.
    #[arg(long)]
    pub strict: bool,
}

fn confidence(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.trim_end_matches('%').parse().ok();
    value
        .filter(|value| (50.0..=99.99).contains(value))
        .ok_or_else(|| format!("`{text}` is not a percentage from 50 to 99.99"))
}

/// `diff`.
pub(super) fn run(diff: &Diff, quiet: bool) -> Result<Exit, Failure> {
    let what = format!("comparing {} and {}", diff.a.display(), diff.b.display());
    let underway = Underway::start(what, quiet);
    let open = |path| Session::open(path).map_err(unreadable);
    let (a, b) = (open(&diff.a)?, open(&diff.b)?);
    let comparison = compare::compare(&a, &b, diff.confidence).map_err(unreadable)?;
    drop(underway);
    if let Some(path) = &diff.html {
        sink::replace(path, html::page(&comparison).as_bytes()).map_err(|error| {
            Failure::new(Exit::Output, error).hint("is the folder there and writable?")
        })?;
        print::note(&format!("wrote {}", path.display()));
    }
    print::data(&if diff.json {
        format!("{:#}", serde_json::json!(comparison))
    } else {
        let show = if diff.all {
            text::Show::All
        } else {
            text::Show::Differences
        };
        text::text(&comparison, show)
    });
    let differs = comparison
        .differences
        .iter()
        .any(|one| one.verdict.is_difference());
    Ok(if diff.strict && differs {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidence_is_a_percentage() {
        assert_eq!(confidence("99%"), Ok(99.0));
        assert!(
            confidence("0.95").is_err() && confidence("100").is_err() && confidence("NaN").is_err()
        );
    }
}
