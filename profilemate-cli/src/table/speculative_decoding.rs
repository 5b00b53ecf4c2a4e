//! `speculative_decoding.csv`.

use super::cell::{Real, Stamp};
use super::table;

table! {
    /// Drafts of each step that had some, as vLLM counts them.
    "speculative_decoding" => SpeculativeStep {
        /// When vLLM summed them up.
        timestamp_sec: Stamp [Moment],
        /// The engine's step; empty if it cannot be told.
        step: Option<u64> [Identity],
        /// Requests with a draft.
        num_drafts: Option<u64> [Count],
        /// Tokens drafted.
        draft_tokens: Option<u64> [Tokens],
        /// Tokens of these that were accepted.
        accepted_tokens: Option<u64> [Tokens],
        /// Accepted by drafted.
        acceptance_pct: Option<Real> [Percent],
        /// Process.
        pid: u32 [Identity],
        /// Index of the engine.
        engine: Option<u32> [Identity],
    }
}
