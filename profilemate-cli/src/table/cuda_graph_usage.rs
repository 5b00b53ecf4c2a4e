//! `cuda_graph_usage.csv`.

use super::cell::{Real, Stamp};
use super::table;

table! {
    /// Replays of each CUDA graph.
    "cuda_graph_usage" => CudaGraphUse {
        /// `FULL` or `PIECEWISE`.
        runtime_mode: Option<String> [Text],
        /// Tokens that the graph is padded to.
        num_tokens: Option<u64> [Tokens],
        /// Requests that the graph is padded to.
        num_reqs: Option<u64> [Requests],
        /// Whether every request has the same number of tokens.
        uniform: Option<bool> [Text],
        /// Whether the graph holds `LoRA` kernels.
        has_lora: Option<bool> [Text],
        /// Replays.
        replay_count: u64 [Count],
        /// Tokens run, padding included.
        padded_tokens: Option<u64> [Tokens],
        /// Tokens that were scheduled.
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
    }
}
