//! `cuda_graph_timeline.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// One row for each replay of a CUDA graph.
    "cuda_graph_timeline" => CudaGraphReplay {
        /// When.
        timestamp_sec: Stamp [Moment],
        /// vLLM's batch descriptor of the graph.
        descriptor: Option<String> [Text],
        /// Duration of the launch on the host.
        duration_ms: Option<Millis> [Milliseconds],
    }
}
