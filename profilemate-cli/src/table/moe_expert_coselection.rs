//! `moe_expert_coselection.csv`.

use super::table;

table! {
    /// How often two experts were chosen for the same token.
    "moe_expert_coselection" => MoeExpertCoselection {
        /// Layer.
        layer_idx: u64 [Identity],
        /// The one expert.
        expert_id_1: u64 [Identity],
        /// The other.
        expert_id_2: u64 [Identity],
        /// Tokens.
        coselection_count: u64 [Count],
    }
}
