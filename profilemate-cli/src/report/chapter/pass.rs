//! Forward passes: over time, how long they take, and the ranks side by side.

use std::collections::BTreeMap;

use serde_json::json;

use super::{millis, seconds};
use crate::aggregate::distribution::Distribution;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::count::BySize;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis, dots, number, share, time_axis};
use crate::report::text::{count, duration, label};
use crate::report::thin::{Thin, note};
use crate::table::forward_pass_timing::ForwardPass;

/// Phases that are told apart, at most.
const PHASES: usize = 6;

/// Passes of one phase.
#[derive(Clone, Debug, Default)]
struct Phase {
    times: Thin,
    sizes: BySize,
}

/// One worker.
#[derive(Clone, Debug, Default)]
struct Worker {
    phases: BTreeMap<&'static str, Phase>,
    all: Distribution,
}

/// All passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    workers: Members<Worker>,
    all: Distribution,
}

impl Pass {
    pub(super) fn row(&mut self, row: &ForwardPass) {
        let ms = millis(row.forward_time_ms);
        if let Some(ms) = ms {
            self.all.add(ms);
        }
        let Some(worker) = self.workers.of(Member::new(row.rank, row.pid)) else {
            return;
        };
        let name = row.phase.filter(|phase| !phase.is_empty());
        let mut name = name.unwrap_or("phase not known");
        if worker.phases.len() >= PHASES && !worker.phases.contains_key(name) {
            name = "other";
        }
        let phase = worker.phases.entry(name).or_default();
        phase.times.add(seconds(row.timestamp_sec), ms);
        if let Some(ms) = ms {
            phase.sizes.add(ms);
            worker.all.add(ms);
        }
    }

    /// Milliseconds of all passes of all workers.
    pub(super) fn all(&self) -> &Distribution {
        &self.all
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let most = share(self.workers.len() * 3);
        let mut over_time = Vec::new();
        let mut sizes = Vec::new();
        for (member, worker) in self.workers.iter() {
            let name = member.name("worker", metadata);
            over_time.push(worker.over_time(name.clone(), most));
            sizes.push(worker.sizes(name));
        }
        if let Some(view) = over_time.first_mut() {
            view.notes.extend(self.workers.note());
        }
        let mut plots = Vec::new();
        let mut plot = |id: &str, title: &str, over_time, views: Vec<View>| {
            plots.extend(Plot::new(id, title, over_time, views));
        };
        plot("passes", "Duration of each forward pass", true, over_time);
        plot("pass-sizes", "How long passes take", false, sizes);
        let ranks = (self.workers.len() > 1).then(|| self.ranks(metadata));
        plot(
            "ranks",
            "Workers side by side",
            false,
            ranks.into_iter().collect(),
        );
        Section {
            id: "passes",
            title: "Forward passes",
            lead: "The time on the host in the model runner's execute_model, pass by pass, by what the batch held: prompts \
                   (prefill), one token for each sequence (decode), or both (mixed).",
            tables: &["forward_pass_timing"],
            plots,
        }
    }

    fn ranks(&self, metadata: &Metadata) -> View {
        let bar = |name: &str, colour: Colour, part: f64| {
            let (x, y): (Vec<String>, Vec<_>) = self
                .workers
                .iter()
                .map(|(member, worker)| {
                    let ms = worker.all.quantile(part);
                    (label(&member.name("worker", metadata)), ms.map(number))
                })
                .unzip();
            json!({
                "type": "bar", "name": name, "x": x, "y": y, "marker": {"color": colour.name()},
                "hovertemplate": format!("%{{y:.4~g}} ms ({name})")
            })
        };
        let slowest = self.workers.iter().max_by(|one, two| {
            let p50 = |worker: &Worker| worker.all.quantile(0.5).unwrap_or(0.0);
            p50(one.1).total_cmp(&p50(two.1))
        });
        let summary = slowest.and_then(|(member, worker)| {
            let median = worker.all.quantile(0.5)?;
            Some(format!(
                "{}. The slowest by its median is {} with {}.",
                count(self.workers.len() as u64, "worker", "workers"),
                member.name("worker", metadata),
                duration(median / 1e3)
            ))
        });
        View {
            name: "all workers".to_owned(),
            summary: summary.unwrap_or_default(),
            notes: Vec::new(),
            data: vec![
                bar("median", Colour::Blue, 0.5),
                bar("99th percentile", Colour::Orange, 0.99),
            ],
            layout: json!({"height": 320, "barmode": "group", "yaxis": axis("ms"), "xaxis": {"type": "category"}}),
        }
    }
}

impl Worker {
    fn over_time(&self, name: String, most: usize) -> View {
        let mut all = Vec::new();
        let data = self
            .phases
            .iter()
            .map(|(name, phase)| {
                let drawn = phase.times.drawn(most);
                let trace = dots(name, Colour::of_phase(name), &drawn, "ms");
                all.push(((*name).to_owned(), drawn));
                trace
            })
            .collect();
        let part = |part| self.all.quantile(part);
        let summary = match (part(0.5), part(0.99), self.all.max()) {
            (Some(p50), Some(p99), Some(max)) => format!(
                "{}: half of them took {} or less, 99 % {} or less, the longest {}.",
                count(self.all.count(), "forward pass", "forward passes"),
                duration(p50 / 1e3),
                duration(p99 / 1e3),
                duration(max / 1e3)
            ),
            _ => "No pass has a duration.".to_owned(),
        };
        View {
            name,
            summary,
            notes: note(&all).into_iter().collect(),
            data,
            layout: json!({
                "height": 340, "hovermode": "closest", "xaxis": time_axis(), "yaxis": axis("ms")
            }),
        }
    }

    fn sizes(&self, name: String) -> View {
        let mut notes = Vec::new();
        let mut told = Vec::new();
        let mut data = Vec::new();
        for (&name, phase) in &self.phases {
            let (x, y): (Vec<_>, Vec<_>) = phase
                .sizes
                .classes()
                .into_iter()
                .map(|(low, count)| (number(low), count))
                .unzip();
            data.push(json!({
                "type": "scatter", "mode": "lines", "name": label(name), "x": x, "y": y, "fill": "tozeroy",
                "line": {"color": Colour::of_phase(name).name(), "width": 1.5, "shape": "hv"},
                "hovertemplate": "%{y} passes of %{x:.3~g} ms to 5 % more"
            }));
            if phase.sizes.small() > 0 {
                notes.push(format!(
                    "{name}: {} passes of 0 ms are not drawn.",
                    phase.sizes.small()
                ));
            }
            let times = phase.times.all();
            if let (Some(mean), Some(p50)) = (times.mean(), times.quantile(0.5)) {
                told.push(format!(
                    "{name}: {} passes, {} on average, median {}",
                    times.count(),
                    duration(mean / 1e3),
                    duration(p50 / 1e3)
                ));
            }
        }
        View {
            name,
            summary: told.join("; ") + ".",
            notes,
            data,
            layout: json!({
                "height": 320, "hovermode": "closest", "yaxis": axis("passes"),
                "xaxis": {"type": "log", "title": {"text": "duration in ms (logarithmic)"}}
            }),
        }
    }
}
