//! `cuda_graph_timeline.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// One row for each replay of a CUDA graph, with `--graph-timeline`.
    "cuda_graph_timeline" => CudaGraphReplay {
        /// When its first graph was launched.
        timestamp_sec: Stamp [Moment],
        /// vLLM's batch descriptor of the graph.
        descriptor: Option<String> [Text],
        /// Duration of its launches on the host.
        duration_ms: Option<Millis> [Milliseconds],
        /// Graphs launched.
        launches: u64 [Count],
        /// Tokens that were scheduled.
        num_tokens: Option<u64> [Tokens],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
