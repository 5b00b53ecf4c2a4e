//! `moe_expert_selection.csv`.

use super::cell::Real;
use super::table;

table! {
    /// How often each expert was chosen: one row an expert, at the session's end.
    "moe_expert_selection" => MoeExpertSelection {
        /// Layer.
        layer_idx: u64 [Identity],
        /// Expert.
        expert_id: u64 [Identity],
        /// Times it was chosen.
        activation_count: u64 [Count],
        /// Part of the layer's choices.
        percentage: Option<Real> [Percent],
        /// Calls of the layer whose choices were read, or counted (`--moe-sample`).
        sampled_calls: Option<u64> [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
        /// Calls of the layer.
        calls: u64 [Count],
        /// Part of the choices in the calls looked at that was read; 100 is all.
        seen_pct: Option<Real> [Percent],
        /// With EPLB and `--moe-sample`: the physical slots in which the expert was chosen, each with the number of
        /// times (`3:120 67:118`).
        physical: Option<String> [Text],
    }
}
