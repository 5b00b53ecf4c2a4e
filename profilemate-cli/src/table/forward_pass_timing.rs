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
        /// `FULL`, `PIECEWISE` or `NONE`: what was decided for the pass.
        graph_mode: Option<&'static str> [Text],
        /// Graphs that its thread launched in the pass.
        graph_launches: Option<u64> [Count],
        /// Time in which its thread waited for the GPU, from the begin of the pass to that of the next one.
        sync_wait_ms: Option<Millis> [Milliseconds],
        /// Time on the GPU, at most: see `gpu_time_source`.
        gpu_time_ms: Option<Millis> [Milliseconds],
        /// `sync`: from the first graph launch to the end of the call that waited for the last one.
        gpu_time_source: Option<&'static str> [Text],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
        /// Kernels that its thread launched outside of graphs, since its last driver call before the pass that was told.
        kernels: Option<u64> [Count],
        /// Why the pass ran without a graph, as the dispatcher's inputs and settings show.
        eager_reason: Option<&'static str> [Text],
    }
}
