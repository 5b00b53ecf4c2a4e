//! Mixture of experts layers: their calls, and which experts their routers chose.
//!
//! A router's call does not say whose it is. It runs inside the call of its layer, on the same thread, so the ids wait
//! for the layer's own return.

mod coselection;
mod imbalance;
mod passes;
mod physical;
mod sample;
mod selection;
mod timing;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::process::Processes;
use super::{Aggregator, Rows, Seen};
use crate::event::Session;
use coselection::Pairs;
use imbalance::Window;
use passes::Passes;
use sample::Sampled;
use selection::Choices;

/// Routers' calls that wait on one thread, at most.
const WAITING: usize = 64;
/// Threads on which routers' calls wait, at most.
const THREADS: usize = 4_096;
/// Layers of all processes, at most.
const LAYERS: usize = 16_384;
/// Experts of one layer, at most.
const EXPERTS: u64 = 16_384;

/// The ids that one call of a router gave.
#[derive(Debug)]
struct Routed {
    entry_cycles: u64,
    return_cycles: u64,
    /// Row by row, from the first on.
    ids: Vec<i64>,
    /// How many there were in truth.
    total: u32,
    /// Experts for each token.
    columns: u32,
}

/// One layer of one process.
#[derive(Debug, Default)]
struct Layer {
    experts: Option<u64>,
    choices: Choices,
    pairs: Pairs,
    window: Window,
}

/// What is known of such layers of all processes.
#[derive(Debug, Default)]
pub struct Moe {
    routed: HashMap<(u32, u32), VecDeque<Routed>>,
    layers: BTreeMap<(u32, u64), Layer>,
    window_end_ns: u64,
    /// Sampled calls of the layers of processes that have ended, or of all at the end.
    sampled: Sampled,
    passes: Passes,
}

impl Moe {
    fn take_inside(&mut self, thread: (u32, u32), entry: u64, end: u64) -> Vec<Routed> {
        let Some(waiting) = self.routed.get_mut(&thread) else {
            return Vec::new();
        };
        // What a call of a layer that was not seen left behind is nobody's.
        let mut taken = std::mem::take(waiting);
        taken.retain(|routed| routed.entry_cycles >= entry && routed.return_cycles <= end);
        taken.into()
    }

    fn layer(&mut self, pid: u32, index: u64) -> Option<&mut Layer> {
        if self.layers.len() >= LAYERS && !self.layers.contains_key(&(pid, index)) {
            return None;
        }
        Some(self.layers.entry((pid, index)).or_default())
    }

    /// A forward pass of a process is over.
    pub(super) fn pass(&mut self, pid: u32) {
        self.passes.over(pid);
    }

    /// Rows of the windows that ended before `now_ns`.
    pub(super) fn windows(
        &mut self,
        now_ns: u64,
        processes: &Processes,
        session: &Session,
        rows: &mut Rows,
    ) {
        if now_ns < self.window_end_ns {
            return;
        }
        self.window_end_ns = imbalance::end_of(now_ns, session.started_ns);
        for (&(pid, index), layer) in &mut self.layers {
            let row = layer
                .window
                .take(index, layer.experts, session, pid, processes.rank(pid));
            rows.0.extend(row.map(Into::into));
        }
    }

    /// Rows of the sums of process `pid` (`None`: of all) and of its last windows. They are then forgotten.
    pub(super) fn sums(
        &mut self,
        pid: Option<u32>,
        processes: &Processes,
        session: &Session,
        rows: &mut Rows,
    ) {
        let (mut ended, others) = std::mem::take(&mut self.layers)
            .into_iter()
            .partition(|((own, _), _)| pid.is_none_or(|pid| pid == *own));
        self.layers = others;
        let ended: &mut BTreeMap<(u32, u64), Layer> = &mut ended;
        for (&(pid, index), layer) in ended {
            let (experts, rank) = (layer.experts, processes.rank(pid));
            if let Some(sampled) = layer.choices.sampled {
                self.sampled.calls += sampled.calls;
                self.sampled.counted += sampled.counted;
                self.sampled.captured += sampled.captured;
            }
            layer.choices.rows(index, experts, pid, rank, rows);
            layer.pairs.rows(index, pid, rank, rows);
            let row = layer.window.take(index, experts, session, pid, rank);
            rows.0.extend(row.map(Into::into));
        }
    }
}

impl Aggregator {
    /// `moe.route`: the ids wait for their layer.
    pub(super) fn route(&mut self, seen: Seen<'_>) {
        let call = seen.call;
        let Some((ids, total, columns)) = seen.fields.tensor("ids") else {
            return;
        };
        let thread = (call.pid, call.tid);
        if self.moe.routed.len() >= THREADS && !self.moe.routed.contains_key(&thread) {
            return;
        }
        let waiting = self.moe.routed.entry(thread).or_default();
        if waiting.len() >= WAITING {
            waiting.pop_front();
        }
        waiting.push_back(Routed {
            entry_cycles: call.entry_cycles,
            return_cycles: call.return_cycles,
            ids: ids.to_vec(),
            total,
            columns,
        });
    }

    /// `moe.forward`: a row for the call, and the ids that its router gave.
    pub(super) fn moe_layer(&mut self, seen: Seen<'_>, rows: &mut Rows) {
        let call = seen.call;
        let routed =
            self.moe
                .take_inside((call.pid, call.tid), call.entry_cycles, call.return_cycles);
        self.moe.passes.layer(call.pid);
        let index = seen.fields.text("layer_name").and_then(layer_index);
        rows.put(self.moe_time(seen, index, &routed));
        let Some(index) = index else { return };
        self.moe
            .windows(call.ts_ns, &self.processes, &self.session, rows);
        let experts = positive(seen.fields.int("num_experts"));
        // The helper's sums have them, too, and may come later.
        let sampled = self.facts.bound.get(sample::ID);
        let sampled = sampled.is_some_and(|pids| pids.contains(&call.pid));
        let Some(layer) = self.moe.layer(call.pid, index) else {
            return;
        };
        layer.experts = experts.filter(|&experts| experts <= EXPERTS);
        layer.choices.called();
        if sampled || layer.choices.sampled.is_some() {
            return;
        }
        for routed in &routed {
            layer.choices.add(routed);
            layer.pairs.add(routed);
            layer.window.add(routed, call.ts_ns);
        }
    }
}

/// The index in a layer's name: its first part that is a number (`model.layers.3.mlp.experts`).
fn layer_index(name: &str) -> Option<u64> {
    name.split('.').find_map(|part| part.parse().ok())
}

fn positive(value: Option<i64>) -> Option<u64> {
    value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|&value| value > 0)
}

/// The ids that can be an expert's. A token without one has -1.
fn experts(ids: &[i64]) -> impl Iterator<Item = u64> + '_ {
    ids.iter()
        .filter_map(|&id| u64::try_from(id).ok())
        .filter(|&id| id < EXPERTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_index_is_the_first_number_in_its_name() {
        assert_eq!(layer_index("model.layers.12.mlp.experts"), Some(12));
        assert_eq!(layer_index("experts"), None);
    }
}
