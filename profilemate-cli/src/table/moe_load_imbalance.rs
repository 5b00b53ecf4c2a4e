//! `moe_load_imbalance.csv`.

use super::cell::{Real, Stamp};
use super::table;

table! {
    /// How unevenly the experts of a layer are used: one row a layer and second.
    "moe_load_imbalance" => MoeLoadImbalance {
        /// Layer.
        layer_idx: u64 [Identity],
        /// Begin of the second.
        timestamp_sec: Stamp [Moment],
        /// Standard deviation of the number of times that each expert was chosen.
        std_dev: Option<Real> [Count],
        /// Most chosen by least chosen; empty if an expert was never chosen.
        max_min_ratio: Option<Real> [Count],
        /// Choices made.
        choices: u64 [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
