//! `request_lifecycle.csv`.

use super::cell::{Seconds, Stamp};
use super::table;

table! {
    /// One row for each request that finished.
    "request_lifecycle" => RequestLifecycle {
        /// vLLM's request id.
        request_id: String [Text],
        /// First scheduled; empty if that was before the attach.
        started_sec: Option<Stamp> [Moment],
        /// First preempted.
        preempted_sec: Option<Stamp> [Moment],
        /// Last resumed.
        resumed_sec: Option<Stamp> [Moment],
        /// Finished, as seen with the next schedule call.
        finished_sec: Stamp [Moment],
        /// From started to finished.
        total_time_sec: Option<Seconds> [Seconds],
        /// Time from each preemption to its resume, summed; empty if it was never preempted.
        preemption_delay_sec: Option<Seconds> [Seconds],
        /// Preemptions seen.
        preemptions: u64 [Count],
        /// Process.
        pid: u32 [Identity],
        /// Data parallel rank of the engine.
        engine: Option<u32> [Identity],
        /// From started to the schedule call that found its first output token there; empty if that was not seen, or it ended before.
        prefill_time_sec: Option<Seconds> [Seconds],
        /// Mean time of an output token, between the first and the last schedule call that counted some; empty if they counted the same.
        time_per_output_token_sec: Option<Seconds> [Seconds],
    }
}
