//! The live status line on stderr.
#![expect(
    clippy::print_stderr,
    reason = "the status line is for the person at the terminal"
)]

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::sink::status::Status;

/// Time between two showings.
const INTERVAL: Duration = Duration::from_millis(500);

/// Shows one line over and over where stderr is a terminal; nothing elsewhere.
pub(super) struct StatusLine {
    shown: Option<Instant>,
    wanted: bool,
}

impl StatusLine {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            shown: None,
            wanted: !quiet && std::io::stderr().is_terminal(),
        }
    }

    /// `cost`: what tracing costs the target, in percent of its steps, if that is measured.
    pub(super) fn show(&mut self, status: &Status, cost: Option<f64>) {
        if !self.wanted || self.shown.is_some_and(|shown| shown.elapsed() < INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        // Carriage return and erase to the end of the line.
        let cost = cost.map_or_else(String::new, |cost| format!("  cost {cost:.2} %"));
        eprint!("\r\x1b[K{}{cost}", status.line());
        let _unshown = std::io::stderr().flush();
    }

    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
            let _unshown = std::io::stderr().flush();
        }
    }
}
