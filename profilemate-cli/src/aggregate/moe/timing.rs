//! `moe_expert_timing.csv`: one row a call of a layer.

use super::{Routed, positive};
use crate::aggregate::{Aggregator, Seen};
use crate::table::cell::Millis;
use crate::table::moe_expert_timing::MoeExpertTime;

impl Aggregator {
    /// The row of a call of layer `layer_idx`, whose router gave `routed`.
    pub(super) fn moe_time(
        &self,
        seen: Seen<'_>,
        layer_idx: Option<u64>,
        routed: &[Routed],
    ) -> MoeExpertTime {
        // A layer may route its tokens in several parts.
        let told = routed
            .iter()
            .map(|routed| routed.total.checked_div(routed.columns).map(u64::from))
            .sum::<Option<u64>>()
            .filter(|_| !routed.is_empty());
        let rows = seen.fields.int("tokens");
        let pid = seen.call.pid;
        MoeExpertTime {
            timestamp_sec: self.stamp(seen.start_ns()),
            layer_idx,
            duration_ms: seen.duration_ns.map(Millis),
            num_tokens: rows.and_then(|rows| u64::try_from(rows).ok()).or(told),
            num_experts: positive(seen.fields.int("num_experts")),
            top_k: positive(seen.fields.int("top_k"))
                .or_else(|| routed.first().map(|routed| u64::from(routed.columns))),
            pid,
            rank: self.processes.rank(pid),
        }
    }
}
