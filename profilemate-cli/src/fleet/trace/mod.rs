//! Traces of many servers: the agents are asked ([`agent`]), a few at a time ([`fan`]), at addresses made of the
//! servers' labels ([`address`]), and what they send is unpacked into a folder for each server.

pub mod address;
pub mod agent;
pub mod fan;
pub mod text;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;

/// How it went with a server.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// Its session is here.
    Gathered {
        /// The session's folder.
        folder: PathBuf,
        /// Why the trace ended: `duration reached`, `target ended`.
        ended: String,
        /// Records that arrived.
        events: u64,
        /// Records that were lost.
        lost: u64,
        /// Rows of all tables; `None` if the session's metadata cannot be read.
        rows: Option<u64>,
        /// Bytes of its files.
        bytes: u64,
    },
    /// Its agent refused, was not reached, or sent what is no session.
    Failed {
        /// Why.
        reason: String,
    },
    /// It does not tell, and was not asked for.
    Silent {
        /// How it stands.
        reason: String,
    },
    /// It was interrupted here.
    Interrupted {
        /// What its agent still does.
        reason: String,
    },
}

/// A server, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traced {
    /// Its name on its node.
    pub server: String,
    /// The agent that tells of it.
    pub instance: String,
    /// The agent's address; `None` if none could be made.
    pub agent: Option<String>,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The folder with the sessions' folders.
    pub folder: PathBuf,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// The servers.
    pub servers: Vec<Traced>,
    /// What limits the engine's answer.
    pub notes: Vec<String>,
}

impl Report {
    /// Number of sessions that are here.
    pub fn gathered(&self) -> usize {
        let here = |traced: &&Traced| matches!(traced.outcome, Outcome::Gathered { .. });
        self.servers.iter().filter(here).count()
    }

    /// Whether every session is here, and nothing was lost.
    pub fn is_whole(&self) -> bool {
        let whole = |traced: &Traced| matches!(traced.outcome, Outcome::Gathered { lost: 0, .. });
        self.servers.iter().all(whole)
    }
}
