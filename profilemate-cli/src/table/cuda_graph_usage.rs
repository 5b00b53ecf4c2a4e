//! `cuda_graph_usage.csv`.

use super::cell::{Real, Stamp};
use super::table;

table! {
    /// Replays of each CUDA graph, and passes without one. Totals: the file is written anew about once a second.
    "cuda_graph_usage" => CudaGraphUse {
        /// `FULL` or `PIECEWISE`; `NONE` for forward passes that ran without a graph.
        runtime_mode: Option<&'static str> [Text],
        /// Tokens that the graph is padded to.
        num_tokens: Option<u64> [Tokens],
        /// Requests that the graph is padded to.
        num_reqs: Option<u64> [Requests],
        /// Whether every request has the same number of tokens.
        uniform: Option<bool> [Text],
        /// Whether the graph holds `LoRA` kernels.
        has_lora: Option<bool> [Text],
        /// Replays. The graphs of a descriptor, each launched once, are one replay.
        replay_count: u64 [Count],
        /// Tokens run in `token_replays` of them, padding included.
        padded_tokens: Option<u64> [Tokens],
        /// Tokens that were scheduled for these.
        actual_tokens: Option<u64> [Tokens],
        /// Part of the padded tokens that was padding.
        padding_pct: Option<Real> [Percent],
        /// Mean time of a launch on the host.
        launch_host_us_mean: Option<Real> [Microseconds],
        /// 99th percentile of it.
        launch_host_us_p99: Option<Real> [Microseconds],
        /// First replay.
        first_sec: Option<Stamp> [Moment],
        /// Last replay.
        last_sec: Option<Stamp> [Moment],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
        /// Graphs launched: one a replay with `FULL`, one for each piece with `PIECEWISE`.
        launches: u64 [Count],
        /// Forward passes without a graph.
        eager_passes: u64 [Count],
        /// Why they had none, as the dispatcher's inputs and settings show.
        eager_reason: Option<&'static str> [Text],
        /// Replays or passes whose scheduled tokens are known.
        token_replays: u64 [Count],
        /// `LoRA` adapters that the graph serves.
        num_active_loras: Option<u64> [Limit],
        /// Tokens of each request, where all have the same (model runner V2).
        uniform_token_count: Option<u64> [Limit],
        /// Most tokens of one request (model runner V2).
        max_query_len: Option<u64> [Limit],
        /// Microbatches.
        num_ubatches: Option<u64> [Limit],
        /// `encoder` for graphs of a multimodal encoder.
        module: Option<&'static str> [Text],
        /// How the descriptor is known: from the graph's `capture`, or from the decision (`dispatch`) before its launch.
        descriptor_source: Option<&'static str> [Text],
    }
}
