//! `explain`: what is wrong with a server, by a session's folder; and the same in short at the end of a trace.

use std::path::PathBuf;

use clap::Args;

use super::underway::Underway;
use super::{Exit, Failure, print};
use crate::explain::{Explanation, text};
use crate::recorded::{self, Session};
use crate::session::Finished;

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 whatever was found, 1 if the folder cannot be read, 3 with --strict if something \
                        was found.\n\nExample: profilemate explain /tmp/vllm_profiling/session_20260101_120000_abcdef"
)]
pub struct Explain {
    /// A session's folder; also one of an older version or of the Python predecessor.
    pub session: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with code 3 if something was found.
    #[arg(long)]
    pub strict: bool,
}

/// A folder that cannot be read.
pub(super) fn unreadable(error: recorded::Error) -> Failure {
    let hint = error.hint();
    Failure::new(Exit::Failed, error).hint(hint)
}

/// `explain`.
pub(super) fn run(explain: &Explain, quiet: bool) -> Result<Exit, Failure> {
    let what = format!("reading {}", explain.session.display());
    let underway = Underway::start(what, quiet);
    let session = Session::open(&explain.session).map_err(unreadable)?;
    let explanation = Explanation::of_session(&session).map_err(unreadable)?;
    drop(underway);
    print::data(&if explain.json {
        format!("{:#}", serde_json::json!(explanation))
    } else {
        text::long(&explanation)
    });
    let found = !explanation.findings.is_empty();
    Ok(if explain.strict && found {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

/// The findings of a session that has just ended, in short.
pub(super) fn short(done: &Finished) {
    let explanation = &done.outcome.explanation;
    if explanation.findings.is_empty() {
        if !explanation.nothing_wrong.is_empty() {
            print::note(&format!("findings: {}", text::NOTHING));
        }
        return;
    }
    print::note("findings (`profilemate explain` has evidence and cost):");
    for line in text::short(&explanation.findings) {
        print::note(&format!("  {line}"));
    }
}
