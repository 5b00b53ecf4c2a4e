//! `moe_load_imbalance.csv`.

use super::cell::{Real, Stamp};
use super::table;

table! {
    /// How unevenly the experts of a layer are used.
    "moe_load_imbalance" => MoeLoadImbalance {
        /// Layer.
        layer_idx: u64 [Identity],
        /// When.
        timestamp_sec: Stamp [Moment],
        /// Standard deviation of the experts' choices.
        std_dev: Option<Real> [Count],
        /// Most chosen by least chosen.
        max_min_ratio: Option<Real> [Count],
    }
}
