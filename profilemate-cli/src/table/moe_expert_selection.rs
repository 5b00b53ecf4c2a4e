//! `moe_expert_selection.csv`.

use super::cell::Real;
use super::table;

table! {
    /// How often each expert was chosen.
    "moe_expert_selection" => MoeExpertSelection {
        /// Layer.
        layer_idx: u64 [Identity],
        /// Expert.
        expert_id: u64 [Identity],
        /// Times it was chosen.
        activation_count: u64 [Count],
        /// Part of the layer's choices.
        percentage: Option<Real> [Percent],
        /// Calls that were looked at.
        sampled_calls: Option<u64> [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
