//! `cuda_graph_captures.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Captures of CUDA graphs.
    "cuda_graph_captures" => CudaGraphCapture {
        /// `FULL` or `PIECEWISE`.
        runtime_mode: Option<&'static str> [Text],
        /// Tokens that the graph is padded to.
        num_tokens: Option<u64> [Tokens],
        /// Requests that the graph is padded to.
        num_reqs: Option<u64> [Requests],
        /// Whether every request has the same number of tokens.
        uniform: Option<bool> [Text],
        /// Whether the graph holds `LoRA` kernels.
        has_lora: Option<bool> [Text],
        /// When the capture ended, or was found not to end any more.
        capture_time_sec: Option<Stamp> [Moment],
        /// From its begin to its end.
        duration_ms: Option<Millis> [Milliseconds],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
        /// Part of the model: `piece 3 of 33` for piecewise graphs, `encoder` for those of a multimodal encoder.
        module: Option<String> [Text],
        /// Handle of the executable graph; several with a blank between.
        graph_exec: Option<String> [Identity],
        /// Graphs made by this capture.
        graphs_in_capture: Option<u64> [Count],
        /// `captured`, `failed`, or `aborted` (begun and never ended).
        outcome: &'static str [Text],
        /// Whether vLLM only measures memory with the graph and throws it away.
        throwaway: Option<bool> [Text],
        /// `LoRA` adapters that the graph serves.
        num_active_loras: Option<u64> [Limit],
        /// Tokens of each request, where all have the same (model runner V2).
        uniform_token_count: Option<u64> [Limit],
        /// Most tokens of one request (model runner V2).
        max_query_len: Option<u64> [Limit],
        /// Microbatches.
        num_ubatches: Option<u64> [Limit],
        /// How the descriptor is known: from the `method` that captured, or from the decision (`dispatch`) before it.
        descriptor_source: Option<&'static str> [Text],
    }
}
