//! `batch_utilization.csv`.

use super::cell::{Millis, Real, Stamp};
use super::table;

table! {
    /// What each schedule call decided.
    "batch_utilization" => BatchUse {
        /// When the call returned.
        timestamp_sec: Stamp [Moment],
        /// Sequences scheduled.
        num_seqs: Option<i64> [Sequences],
        /// Sequences that may run at once.
        max_num_seqs: Option<i64> [Limit],
        /// `num_seqs` of `max_num_seqs`.
        seq_utilization_pct: Option<Real> [Percent],
        /// Tokens scheduled.
        num_tokens: Option<i64> [Tokens],
        /// Tokens that may be scheduled in a step.
        max_tokens: Option<i64> [Limit],
        /// `num_tokens` of `max_tokens`.
        token_utilization_pct: Option<Real> [Percent],
        /// `prefill`, `decode` or `mixed`; empty if no token was scheduled.
        phase: Option<&'static str> [Text],
        /// Requests that run.
        running_queue_len: Option<i64> [Requests],
        /// Requests that wait, by vLLM's own sum.
        waiting_queue_len: Option<i64> [Requests],
        /// Schedule calls of this engine since the attach, from 1.
        step: u64 [Identity],
        /// Tokens of requests that still read their prompt.
        prefill_tokens: Option<i64> [Tokens],
        /// Tokens of requests that generate.
        decode_tokens: Option<i64> [Tokens],
        /// Duration of the call.
        schedule_ms: Option<Millis> [Milliseconds],
        /// Process.
        pid: u32 [Identity],
        /// Data parallel rank of the engine.
        engine: Option<u32> [Identity],
    }
}
