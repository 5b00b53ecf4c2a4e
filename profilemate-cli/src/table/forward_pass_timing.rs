//! `forward_pass_timing.csv`.

use super::cell::{Millis, Real, Stamp};
use super::table;

table! {
    /// Forward passes, as each worker ran them.
    "forward_pass_timing" => ForwardPass {
        /// When `execute_model` began.
        timestamp_sec: Stamp [Moment],
        /// `prefill`, `decode` or `mixed`.
        phase: Option<&'static str> [Text],
        /// Sequences of the batch.
        batch_size: Option<i64> [Sequences],
        /// Tokens scheduled for it.
        num_tokens: Option<i64> [Tokens],
        /// Duration of `execute_model` on the host.
        forward_time_ms: Option<Millis> [Milliseconds],
        /// Tokens by that duration.
        throughput_tokens_per_sec: Option<Real> [Rate],
        /// The engine's step, joined by order and token count; empty if it cannot be joined.
        step: Option<u64> [Identity],
        /// CUDA graph mode. Not filled by this version.
        graph_mode: Option<&'static str> [Text],
        /// Graph launches in the pass. Not filled by this version.
        graph_launches: Option<u64> [Count],
        /// Time in which the host waited for the GPU. Not filled by this version.
        sync_wait_ms: Option<Millis> [Milliseconds],
        /// Time on the GPU. Not filled by this version.
        gpu_time_ms: Option<Millis> [Milliseconds],
        /// Where `gpu_time_ms` comes from. Not filled by this version.
        gpu_time_source: Option<&'static str> [Text],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
