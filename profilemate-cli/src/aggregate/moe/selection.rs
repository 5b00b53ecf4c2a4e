//! `moe_expert_selection.csv`: how often each expert of a layer was chosen.

use std::collections::BTreeMap;

use super::{Routed, experts};
use crate::aggregate::Rows;
use crate::table::cell::Real;
use crate::table::moe_expert_selection::MoeExpertSelection;

/// Choices of one layer.
#[derive(Debug, Default)]
pub(super) struct Choices {
    by_expert: BTreeMap<u64, u64>,
    calls: u64,
    sampled: u64,
    seen: u64,
    total: u64,
}

impl Choices {
    /// The layer was called.
    pub(super) fn called(&mut self) {
        self.calls += 1;
    }

    /// Its router gave these ids.
    pub(super) fn add(&mut self, routed: &Routed) {
        self.sampled += 1;
        self.seen += routed.ids.len() as u64;
        self.total += u64::from(routed.total);
        for expert in experts(&routed.ids) {
            *self.by_expert.entry(expert).or_default() += 1;
        }
    }

    /// One row an expert, those never chosen too.
    pub(super) fn rows(
        &self,
        layer_idx: u64,
        experts: Option<u64>,
        pid: u32,
        rank: Option<u32>,
        rows: &mut Rows,
    ) {
        if self.sampled == 0 {
            return;
        }
        let last = self.by_expert.keys().next_back().map_or(0, |last| last + 1);
        let sum: u64 = self.by_expert.values().sum();
        let percent =
            |part: u64, whole: u64| (whole > 0).then(|| Real(100.0 * part as f64 / whole as f64));
        for expert_id in 0..experts.unwrap_or(0).max(last) {
            let activation_count = self.by_expert.get(&expert_id).copied().unwrap_or(0);
            rows.put(MoeExpertSelection {
                layer_idx,
                expert_id,
                activation_count,
                percentage: percent(activation_count, sum),
                sampled_calls: Some(self.sampled),
                pid,
                rank,
                calls: self.calls,
                seen_pct: percent(self.seen, self.total),
            });
        }
    }
}
