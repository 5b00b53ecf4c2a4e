//! `cuda_graph_captures.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Captures of CUDA graphs.
    "cuda_graph_captures" => CudaGraphCapture {
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
        /// When the capture ended.
        capture_time_sec: Option<Stamp> [Moment],
        /// How long it took.
        duration_ms: Option<Millis> [Milliseconds],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
        /// Part of the model, for piecewise graphs.
        module: Option<String> [Text],
        /// Handle of the executable graph.
        graph_exec: Option<String> [Identity],
        /// Graphs made by this capture.
        graphs_in_capture: Option<u64> [Count],
    }
}
