//! `moe_expert_timing.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Calls of mixture of experts layers.
    "moe_expert_timing" => MoeExpertTime {
        /// When the call began.
        timestamp_sec: Stamp [Moment],
        /// Layer.
        layer_idx: Option<u64> [Identity],
        /// How long it took on the host.
        duration_ms: Option<Millis> [Milliseconds],
        /// Tokens of the call.
        num_tokens: Option<u64> [Tokens],
        /// Experts of the layer.
        num_experts: Option<u64> [Count],
        /// Experts a token.
        top_k: Option<u64> [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
