//! Mixture of experts: which were chosen, how evenly over time, and how long a layer takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{millis, seconds};
use crate::aggregate::distribution::Distribution;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis, number, time_axis};
use crate::report::text::{count, duration, figure};
use crate::table::moe_expert_selection::MoeExpertSelection;
use crate::table::moe_expert_timing::MoeExpertTime;
use crate::table::moe_load_imbalance::MoeLoadImbalance;

/// Layers that are told apart, at most.
const LAYERS: usize = 256;
/// Experts of a layer that are counted one by one, at most.
const EXPERTS: usize = 4_096;
/// Experts of a layer that are drawn one by one, at most; beyond that neighbours share a cell.
const COLUMNS: u64 = 256;
/// Pieces of time, at most; then each two become one.
const PIECES: usize = 200;

/// One worker.
#[derive(Clone, Debug)]
struct Worker {
    chosen: BTreeMap<u64, BTreeMap<u64, u64>>,
    seen_pct: Option<f64>,
    /// By piece of time and layer, the greatest standard deviation in percent of the choices.
    uneven: BTreeMap<i64, BTreeMap<u64, f64>>,
    /// Seconds of a piece.
    piece_sec: f64,
    times: BTreeMap<u64, Distribution>,
    left_out: u64,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            chosen: BTreeMap::new(),
            seen_pct: None,
            uneven: BTreeMap::new(),
            piece_sec: 1.0,
            times: BTreeMap::new(),
            left_out: 0,
        }
    }
}

/// The experts of all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Expert {
    workers: Members<Worker>,
}

/// The entry of a layer or an expert; `None` if there are too many.
fn entry<T: Default>(map: &mut BTreeMap<u64, T>, key: u64, most: usize) -> Option<&mut T> {
    if map.len() >= most && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}

impl Expert {
    pub(super) fn chosen(&mut self, row: &MoeExpertSelection) {
        let Some(worker) = self.workers.of(Member::new(row.rank, row.pid)) else {
            return;
        };
        if let Some(pct) = row.seen_pct {
            worker.seen_pct = Some(worker.seen_pct.map_or(pct.0, |least| least.min(pct.0)));
        }
        let layer = entry(&mut worker.chosen, row.layer_idx, LAYERS);
        match layer.and_then(|layer| entry(layer, row.expert_id, EXPERTS)) {
            Some(times) => *times = times.saturating_add(row.activation_count),
            None => worker.left_out += 1,
        }
    }

    pub(super) fn second(&mut self, row: &MoeLoadImbalance) {
        let Some(deviation) = row.std_dev.filter(|_| row.choices > 0) else {
            return;
        };
        if let Some(worker) = self.workers.of(Member::new(row.rank, row.pid)) {
            let pct = 100.0 * deviation.0 / row.choices as f64;
            worker.second(seconds(row.timestamp_sec), row.layer_idx, pct);
        }
    }

    pub(super) fn call(&mut self, row: &MoeExpertTime) {
        let (Some(layer), Some(ms)) = (row.layer_idx, millis(row.duration_ms)) else {
            return;
        };
        if let Some(worker) = self.workers.of(Member::new(row.rank, row.pid)) {
            match entry(&mut worker.times, layer, LAYERS) {
                Some(times) => times.add(ms),
                None => worker.left_out += 1,
            }
        }
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let views = |of: &dyn Fn(&Worker, String) -> Option<View>| -> Vec<View> {
            let all = self.workers.iter();
            all.filter_map(|(member, worker)| of(worker, member.name("worker", metadata)))
                .collect()
        };
        let plots = [
            (
                "experts",
                "Load of the experts",
                false,
                views(&|worker, name| worker.load(name)),
            ),
            (
                "uneven",
                "Unevenness over time",
                true,
                views(&|worker, name| worker.over_time(name)),
            ),
            (
                "moe-times",
                "Calls of the MoE layers",
                false,
                views(&|worker, name| worker.layers(name)),
            ),
        ];
        let plots = plots
            .into_iter()
            .filter_map(|(id, title, over_time, views)| Plot::new(id, title, over_time, views))
            .collect();
        Section {
            id: "experts",
            title: "Mixture of experts",
            lead: "Which experts the tokens of each layer were sent to. An even row is a layer whose experts share the \
                   work; a bright cell is an expert that the others wait for.",
            tables: &[
                "moe_expert_selection",
                "moe_load_imbalance",
                "moe_expert_timing",
            ],
            plots,
        }
    }
}

fn heat(x: &[Value], y: &[Value], z: &[Vec<Value>], hover: &str) -> Value {
    json!({
        "type": "heatmap", "x": x, "y": y, "z": z, "colorscale": "@heat", "hoverongaps": false,
        "hovertemplate": format!("{hover}<extra></extra>"),
        "colorbar": {"title": {"text": "%"}, "thickness": 12, "len": 1.0}
    })
}

fn height(layers: usize) -> usize {
    (160 + 14 * layers).clamp(240, 900)
}

impl Worker {
    fn second(&mut self, at: f64, layer: u64, pct: f64) {
        let key = (at / self.piece_sec).floor() as i64;
        let layers = self.uneven.entry(key).or_default();
        if let Some(known) = entry(layers, layer, LAYERS) {
            *known = known.max(pct);
        }
        while self.uneven.len() > PIECES {
            self.piece_sec *= 2.0;
            let mut pieces: BTreeMap<i64, BTreeMap<u64, f64>> = BTreeMap::new();
            for (key, layers) in std::mem::take(&mut self.uneven) {
                let into = pieces.entry(key.div_euclid(2)).or_default();
                for (layer, pct) in layers {
                    let known = into.entry(layer).or_default();
                    *known = known.max(pct);
                }
            }
            self.uneven = pieces;
        }
    }

    fn load(&self, name: String) -> Option<View> {
        let last = self
            .chosen
            .values()
            .filter_map(|layer| layer.keys().next_back())
            .max()?;
        let each = (last / COLUMNS).saturating_add(1);
        let columns: std::collections::BTreeSet<u64> = self
            .chosen
            .values()
            .flatten()
            .map(|(expert, _)| expert / each)
            .collect();
        let mut most = (0.0, 0, 0, 0.0);
        let mut rows = Vec::new();
        for (&layer, experts) in &self.chosen {
            let all: u64 = experts.values().copied().fold(0, u64::saturating_add);
            let mut cells: BTreeMap<u64, f64> = BTreeMap::new();
            for (&expert, &times) in experts {
                let pct = 100.0 * times as f64 / all.max(1) as f64;
                let cell = cells.entry(expert / each).or_default();
                *cell = cell.max(pct);
                let fair = pct * experts.len() as f64 / 100.0;
                if fair > most.0 {
                    most = (fair, layer, expert, pct);
                }
            }
            let cell = |column| cells.get(column).copied().map_or(Value::Null, number);
            rows.push(columns.iter().map(cell).collect::<Vec<_>>());
        }
        let x: Vec<Value> = columns
            .iter()
            .map(|column| json!(column.saturating_mul(each)))
            .collect();
        let y: Vec<Value> = self.chosen.keys().map(|layer| json!(layer)).collect();
        let (fair, layer, expert, pct) = most;
        let mut notes = Vec::new();
        if each > 1 {
            notes.push(format!(
                "A cell shows the most chosen of {each} experts that stand side by side."
            ));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "{} rows of further layers or experts are not drawn.",
                self.left_out
            ));
        }
        if let Some(pct) = self.seen_pct.filter(|pct| *pct < 100.0) {
            notes.push(format!(
                "Of the choices in some layers only {} % were read.",
                figure(pct)
            ));
        }
        Some(View {
            name,
            summary: format!(
                "{}. The most loaded expert is number {expert} of layer {layer}: {} % of the layer's choices, {} times \
                 an equal share.",
                count(self.chosen.len() as u64, "layer", "layers"),
                figure(pct),
                figure(fair)
            ),
            notes,
            data: vec![heat(
                &x,
                &y,
                &rows,
                "layer %{y}, expert %{x}: %{z:.3~g} % of the choices",
            )],
            layout: json!({
                "height": height(self.chosen.len()), "xaxis": {"title": {"text": "expert"}, "showgrid": false},
                "yaxis": {"title": {"text": "layer"}, "autorange": "reversed", "showgrid": false}
            }),
        })
    }

    fn over_time(&self, name: String) -> Option<View> {
        let layers: std::collections::BTreeSet<u64> = self
            .uneven
            .values()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        let worst = self
            .uneven
            .iter()
            .flat_map(|(piece, layers)| {
                layers
                    .iter()
                    .map(move |(layer, pct)| (*pct, *layer, *piece))
            })
            .max_by(|one, two| one.0.total_cmp(&two.0))?;
        let x: Vec<Value> = self
            .uneven
            .keys()
            .map(|piece| number((*piece as f64 + 0.5) * self.piece_sec))
            .collect();
        let y: Vec<Value> = layers.iter().map(|layer| json!(layer)).collect();
        let rows: Vec<Vec<Value>> = layers
            .iter()
            .map(|layer| {
                let cell = |piece: &BTreeMap<u64, f64>| {
                    piece.get(layer).copied().map_or(Value::Null, number)
                };
                self.uneven.values().map(cell).collect()
            })
            .collect();
        Some(View {
            name,
            summary: format!(
                "Standard deviation of the choices of an expert, in % of all choices of the layer; 0 is even. The worst \
                 is {} % in layer {} at {}.",
                figure(worst.0),
                worst.1,
                duration(worst.2 as f64 * self.piece_sec)
            ),
            notes: (self.piece_sec > 1.0)
                .then(|| {
                    format!(
                        "A cell shows the worst second of {}.",
                        duration(self.piece_sec)
                    )
                })
                .into_iter()
                .collect(),
            data: vec![heat(&x, &y, &rows, "layer %{y} at %{x:.1f} s: %{z:.3~g} %")],
            layout: json!({
                "height": height(layers.len()), "xaxis": time_axis(),
                "yaxis": {"title": {"text": "layer"}, "autorange": "reversed", "showgrid": false}
            }),
        })
    }

    fn layers(&self, name: String) -> Option<View> {
        let slowest = self
            .times
            .iter()
            .filter_map(|(layer, times)| Some((times.quantile(0.5)?, *layer)))
            .max_by(|one, two| one.0.total_cmp(&two.0))?;
        let bar = |name: &str, colour: Colour, part: f64| {
            let (x, y): (Vec<_>, Vec<_>) = self
                .times
                .iter()
                .map(|(layer, times)| (*layer, times.quantile(part).map(number)))
                .unzip();
            json!({
                "type": "bar", "name": name, "x": x, "y": y, "marker": {"color": colour.name()},
                "hovertemplate": format!("layer %{{x}}: %{{y:.4~g}} ms ({name})<extra></extra>")
            })
        };
        let calls: u64 = self.times.values().map(Distribution::count).sum();
        Some(View {
            name,
            summary: format!(
                "{} of {} on the host. The slowest by its median is layer {} with {}.",
                count(calls, "call", "calls"),
                count(self.times.len() as u64, "layer", "layers"),
                slowest.1,
                duration(slowest.0 / 1e3)
            ),
            notes: Vec::new(),
            data: vec![
                bar("median", Colour::Blue, 0.5),
                bar("99th percentile", Colour::Orange, 0.99),
            ],
            layout: json!({
                "height": 320, "barmode": "group", "hovermode": "closest", "yaxis": axis("ms"),
                "xaxis": {"title": {"text": "layer"}}
            }),
        })
    }
}
