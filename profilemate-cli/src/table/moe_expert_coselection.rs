//! `moe_expert_coselection.csv`.

use super::table;

table! {
    /// How often two experts were chosen for the same token: one row a pair, at the session's end.
    "moe_expert_coselection" => MoeExpertCoselection {
        /// Layer.
        layer_idx: u64 [Identity],
        /// The one expert.
        expert_id_1: u64 [Identity],
        /// The other.
        expert_id_2: u64 [Identity],
        /// Tokens.
        coselection_count: u64 [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
