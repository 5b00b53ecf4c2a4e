//! `preemption_events.csv`.

use super::cell::{Real, Seconds, Stamp};
use super::table;

table! {
    /// What happened to each request: started, preempted, resumed, finished.
    "preemption_events" => PreemptionEvent {
        /// When it was seen; `finished` is seen with the next schedule call.
        timestamp_sec: Stamp [Moment],
        /// vLLM's request id.
        request_id: String [Text],
        /// `started`, `preempted`, `resumed` or `finished`.
        event: &'static str [Text],
        /// Of a preemption: `kv_blocks_exhausted` inside a schedule call, else `reset_prefix_cache`.
        reason: Option<&'static str> [Text],
        /// Time in the running state since the last start or resume; empty if that was not seen.
        running_time_sec: Option<Seconds> [Seconds],
        /// `num_preemptions=N`, where it is known.
        extra_info: String [Text],
        /// The engine's step.
        step: Option<u64> [Identity],
        /// KV cache use at the end of that step.
        kv_usage_pct: Option<Real> [Percent],
        /// Tokens that have to be computed again.
        computed_tokens_lost: Option<i64> [Tokens],
        /// Process.
        pid: u32 [Identity],
        /// Data parallel rank of the engine.
        engine: Option<u32> [Identity],
    }
}
