//! Mixture of experts: how the choices spread.

use std::collections::BTreeMap;

use super::{REMEMBERED, Span, seconds};
use crate::table::moe_expert_selection::MoeExpertSelection;
use crate::table::moe_expert_timing::MoeExpertTime;

/// The choices of a session.
#[derive(Clone, Debug, Default)]
pub struct Experts {
    /// Rows.
    pub rows: Span,
    /// Choices by (layer, expert).
    pub chosen: BTreeMap<(u64, u64), u64>,
    /// Rows of calls, and their summed time in milliseconds.
    pub calls: (Span, f64),
}

/// How uneven a layer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// Layer.
    pub layer: u64,
    /// Experts seen.
    pub experts: usize,
    /// Choices.
    pub choices: u64,
    /// The expert chosen most.
    pub hottest: u64,
    /// Its choices by those of the mean expert.
    pub ratio: f64,
}

impl Experts {
    pub(super) fn selection(&mut self, row: &MoeExpertSelection) {
        self.rows.count();
        let key = (row.layer_idx, row.expert_id);
        if self.chosen.len() < REMEMBERED || self.chosen.contains_key(&key) {
            let chosen = self.chosen.entry(key).or_default();
            *chosen = chosen.saturating_add(row.activation_count);
        }
    }

    pub(super) fn timing(&mut self, row: &MoeExpertTime) {
        self.calls.0.add(seconds(row.timestamp_sec));
        self.calls.1 += row.duration_ms.map_or(0.0, |ms| ms.0 as f64 / 1e6);
    }

    /// The layers with at least `least` choices.
    pub fn layers(&self, least: u64) -> Vec<Layer> {
        let mut layers: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for (&(layer, expert), &chosen) in &self.chosen {
            layers.entry(layer).or_default().push((chosen, expert));
        }
        let one = |(layer, experts): (u64, Vec<(u64, u64)>)| {
            let choices: u64 = experts.iter().map(|one| one.0).sum();
            let hottest = experts.iter().max_by_key(|one| one.0)?;
            let mean = choices as f64 / experts.len() as f64;
            (choices >= least.max(1)).then(|| Layer {
                layer,
                experts: experts.len(),
                choices,
                hottest: hottest.1,
                ratio: hottest.0 as f64 / mean,
            })
        };
        layers.into_iter().filter_map(one).collect()
    }
}
