//! `moe.sample`: sums that the Python helper tells of sampled routers. They count from the begin of the sampling, so
//! that the latest one stands for all.

use super::coselection::Pairs;
use super::imbalance::Window;
use super::{EXPERTS, layer_index, positive};
use crate::aggregate::{Aggregator, Rows, Seen};

/// The method by which they are told.
pub(super) const ID: &str = "moe.sample";
/// Kinds of sums, as `python/profilemate_helper/profilemate_helper/routing.py` numbers them.
const CHOSEN: i64 = 0;
const PAIRS: i64 = 1;
const PHYSICAL: i64 = 2;
const OWNERS: i64 = 3;
/// A pair's key is the first expert and, so many bits up, the second.
const PAIR_SHIFT: u32 = 16;

/// Calls of a sampled router, latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sampled {
    /// All.
    pub calls: u64,
    /// Those whose choices were counted.
    pub counted: u64,
    /// Calls while a CUDA graph was captured, which are in neither.
    pub captured: u64,
}

impl Aggregator {
    /// Takes the sums of one layer.
    pub(in crate::aggregate) fn moe_sample(&mut self, seen: Seen<'_>, rows: &mut Rows) {
        let (call, fields) = (seen.call, seen.fields);
        let count = |name: &str| fields.int(name).and_then(|count| u64::try_from(count).ok());
        let Some(index) = fields.text("layer_name").and_then(layer_index) else {
            return;
        };
        let (Some(keys), Some(values)) = (fields.ints("keys"), fields.ints("values")) else {
            return;
        };
        self.moe
            .windows(call.ts_ns, &self.processes, &self.session, rows);
        let Some(layer) = self.moe.layer(call.pid, index) else {
            return;
        };
        let experts = positive(fields.int("num_experts"));
        layer.experts = experts.filter(|&experts| experts <= EXPERTS);
        let sampled = Sampled {
            calls: count("calls").unwrap_or(0),
            counted: count("sampled").unwrap_or(0),
            captured: count("captured").unwrap_or(0),
        };
        if layer.choices.sampled.is_none() {
            layer.pairs = Pairs::default();
            layer.window = Window::default();
        }
        layer.choices.sampled(sampled);
        let sums = keys
            .iter()
            .zip(values)
            .filter_map(|(&key, &sum)| Some((u64::try_from(key).ok()?, u64::try_from(sum).ok()?)));
        for (key, sum) in sums {
            match fields.int("kind") {
                Some(CHOSEN) if key < EXPERTS => {
                    let more = layer.choices.set(key, sum);
                    layer.window.add_choices(key, more, call.ts_ns);
                }
                Some(PAIRS) => {
                    let (first, second) = (key & ((1 << PAIR_SHIFT) - 1), key >> PAIR_SHIFT);
                    layer.pairs.set(first, second, sum);
                }
                Some(PHYSICAL) if key < EXPERTS => layer.choices.physical.set(key, sum),
                Some(OWNERS) if key < EXPERTS => layer.choices.physical.own(key, sum),
                _ => {}
            }
        }
    }

    /// Why not all calls of layers and routers are told.
    pub(in crate::aggregate) fn moe_gaps(&self, table: &str) -> Vec<String> {
        let mut gaps = Vec::new();
        if !table.starts_with("moe_") {
            return gaps;
        }
        let (without, all) = self.moe.passes.without();
        if without > 0 {
            gaps.push(format!(
                "in {without} of {all} forward passes no MoE layer ran in Python: they ran as CUDA graphs or compiled code"
            ));
        }
        if table == "moe_expert_timing" {
            return gaps;
        }
        let sampled = &self.moe.sampled;
        if sampled.captured > 0 {
            gaps.push(format!(
                "{} calls of routers were made while CUDA graphs were captured: what their replays choose is not counted",
                sampled.captured
            ));
        }
        if sampled.calls > sampled.counted {
            gaps.push(format!(
                "sampled (`--moe-sample`): {} of {} calls of routers",
                sampled.counted, sampled.calls
            ));
        }
        gaps
    }
}
