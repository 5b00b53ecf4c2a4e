//! `moe_expert_selection.csv`: how often each expert of a layer was chosen.

use std::collections::BTreeMap;

use super::physical::Physical;
use super::sample::Sampled;
use super::{Routed, experts};
use crate::aggregate::Rows;
use crate::table::cell::Real;
use crate::table::moe_expert_selection::MoeExpertSelection;

/// Choices of one layer.
#[derive(Debug, Default)]
pub(super) struct Choices {
    by_expert: BTreeMap<u64, u64>,
    calls: u64,
    looked_at: u64,
    seen: u64,
    total: u64,
    /// What the helper counted, where it samples.
    pub(super) sampled: Option<Sampled>,
    /// Where the experts were, under EPLB.
    pub(super) physical: Physical,
}

impl Choices {
    /// The layer was called.
    pub(super) fn called(&mut self) {
        if self.sampled.is_none() {
            self.calls += 1;
        }
    }

    /// Its router gave these ids.
    pub(super) fn add(&mut self, routed: &Routed) {
        self.looked_at += 1;
        self.seen += routed.ids.len() as u64;
        self.total += u64::from(routed.total);
        for expert in experts(&routed.ids) {
            *self.by_expert.entry(expert).or_default() += 1;
        }
    }

    /// The helper has counted these calls since it began.
    pub(super) fn sampled(&mut self, sampled: Sampled) {
        if self.sampled.is_none() {
            // What was read before is in no sum.
            *self = Self::default();
        }
        self.sampled = Some(sampled);
        (self.calls, self.looked_at) = (sampled.calls, sampled.counted);
    }

    /// An expert was chosen so often in all. Gives how often since it was told before.
    pub(super) fn set(&mut self, expert: u64, chosen: u64) -> u64 {
        let before = self.by_expert.insert(expert, chosen).unwrap_or(0);
        let more = chosen.saturating_sub(before);
        self.seen += more;
        self.total += more;
        more
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
        if self.looked_at == 0 {
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
                sampled_calls: Some(self.looked_at),
                pid,
                rank,
                calls: self.calls,
                seen_pct: percent(self.seen, self.total),
                physical: self.physical.of(expert_id),
            });
        }
    }
}
