//! `moe_expert_coselection.csv`: how often two experts were chosen for the same token.

use std::collections::HashMap;

use super::{Routed, experts};
use crate::aggregate::Rows;
use crate::table::moe_expert_coselection::MoeExpertCoselection;

/// Pairs of one layer, at most: those of 1024 experts.
const PAIRS: usize = 1 << 19;
/// Experts for one token, at most.
const COLUMNS: usize = 64;

/// Pairs of experts of one layer, the lower one first.
#[derive(Debug, Default)]
pub(super) struct Pairs(HashMap<(u64, u64), u64>);

impl Pairs {
    /// The router gave these ids. Tokens of which not all are there do not count.
    pub(super) fn add(&mut self, routed: &Routed) {
        let columns = routed.columns as usize;
        if !(2..=COLUMNS).contains(&columns) {
            return;
        }
        for token in routed.ids.chunks_exact(columns) {
            let chosen: Vec<u64> = experts(token).collect();
            for (index, &one) in chosen.iter().enumerate() {
                for &other in chosen.iter().skip(index + 1) {
                    let pair = (one.min(other), one.max(other));
                    if self.0.len() < PAIRS || self.0.contains_key(&pair) {
                        *self.0.entry(pair).or_default() += 1;
                    }
                }
            }
        }
    }

    /// A pair was chosen so often in all.
    pub(super) fn set(&mut self, first: u64, second: u64, chosen: u64) {
        let pair = (first.min(second), first.max(second));
        if self.0.len() < PAIRS || self.0.contains_key(&pair) {
            self.0.insert(pair, chosen);
        }
    }

    /// One row a pair that was chosen.
    pub(super) fn rows(&self, layer_idx: u64, pid: u32, rank: Option<u32>, rows: &mut Rows) {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_unstable();
        for (&(expert_id_1, expert_id_2), &coselection_count) in pairs {
            rows.put(MoeExpertCoselection {
                layer_idx,
                expert_id_1,
                expert_id_2,
                coselection_count,
                pid,
                rank,
            });
        }
    }
}
