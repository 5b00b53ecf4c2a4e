//! CUDA graphs: replays and padding by size, passes without a graph and why, captures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::millis;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis, number, on_axis};
use crate::report::text::{count, duration, figure, label};
use crate::table::cuda_graph_captures::CudaGraphCapture;
use crate::table::cuda_graph_usage::CudaGraphUse;

/// Sizes of a worker that are told apart, at most.
const SIZES: usize = 512;

/// A kind of graph: part of the model where it is told, mode, and tokens that it is padded to.
type Size = (&'static str, &'static str, Option<u64>);

/// Replays of one size.
#[derive(Clone, Copy, Debug, Default)]
struct Replays {
    count: u64,
    padded: u64,
    actual: u64,
}

/// Captures of one size.
#[derive(Clone, Copy, Debug, Default)]
struct Captures {
    count: u64,
    failed: u64,
    ms: f64,
}

/// One worker.
#[derive(Clone, Debug, Default)]
struct Worker {
    replays: BTreeMap<Size, Replays>,
    eager: BTreeMap<&'static str, u64>,
    captures: BTreeMap<Size, Captures>,
    left_out: u64,
}

/// The graphs of all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    workers: Members<Worker>,
}

/// The entry of a size; `None` if there are too many.
fn entry<T: Default>(map: &mut BTreeMap<Size, T>, size: Size) -> Option<&mut T> {
    if map.len() >= SIZES && !map.contains_key(&size) {
        return None;
    }
    Some(map.entry(size).or_default())
}

fn named(size: &Size) -> String {
    let (module, mode, tokens) = size;
    let tokens = tokens.map_or_else(|| "size not known".to_owned(), |tokens| tokens.to_string());
    label(format!("{module} {mode} {tokens}").trim_start())
}

fn colour(mode: &str) -> Colour {
    match mode {
        "FULL" => Colour::Green,
        "PIECEWISE" => Colour::Blue,
        _ => Colour::Teal,
    }
}

impl Graph {
    pub(super) fn used(&mut self, row: &CudaGraphUse) {
        let Some(worker) = self.workers.of(Member::new(row.rank, row.pid)) else {
            return;
        };
        if row.eager_passes > 0 {
            let reason = row.eager_reason.filter(|reason| !reason.is_empty());
            *worker
                .eager
                .entry(reason.unwrap_or("reason not known"))
                .or_default() += row.eager_passes;
        }
        let mode = row.runtime_mode.unwrap_or("mode not known");
        if mode == "NONE" {
            return;
        }
        let size = (row.module.unwrap_or_default(), mode, row.num_tokens);
        let Some(replays) = entry(&mut worker.replays, size) else {
            worker.left_out += 1;
            return;
        };
        replays.count = replays.count.saturating_add(row.replay_count);
        if let (Some(padded), Some(actual)) = (row.padded_tokens, row.actual_tokens) {
            replays.padded = replays.padded.saturating_add(padded);
            replays.actual = replays.actual.saturating_add(actual);
        }
    }

    pub(super) fn captured(&mut self, row: &CudaGraphCapture) {
        let Some(worker) = self.workers.of(Member::new(row.rank, row.pid)) else {
            return;
        };
        let module = if row.module.as_deref() == Some("encoder") {
            "encoder"
        } else {
            ""
        };
        let mode = row.runtime_mode.unwrap_or("mode not known");
        let Some(captures) = entry(&mut worker.captures, (module, mode, row.num_tokens)) else {
            worker.left_out += 1;
            return;
        };
        captures.count += 1;
        captures.failed += u64::from(matches!(row.outcome, "failed" | "aborted"));
        captures.ms += millis(row.duration_ms).unwrap_or(0.0);
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let views = |of: &dyn Fn(&Worker, String) -> Option<View>| -> Vec<View> {
            let all = self.workers.iter();
            all.filter_map(|(member, worker)| of(worker, member.name("worker", metadata)))
                .collect()
        };
        let plots = [
            (
                "graphs",
                "Replays and padding by size",
                views(&|worker, name| worker.replays(name)),
            ),
            (
                "eager",
                "Passes without a graph",
                views(&|worker, name| worker.eager(name)),
            ),
            (
                "captures",
                "Captures by size",
                views(&|worker, name| worker.captures(name)),
            ),
        ];
        let mut plots: Vec<Plot> = plots
            .into_iter()
            .filter_map(|(id, title, views)| Plot::new(id, title, false, views))
            .collect();
        if let Some(view) = plots.first_mut().and_then(|plot| plot.views.first_mut()) {
            view.notes.extend(self.workers.note());
        }
        Section {
            id: "graphs",
            title: "CUDA graphs",
            lead: "Which graphs ran, and how much of what they computed was padding. A batch that fits no captured graph \
                   runs without one, kernel by kernel.",
            tables: &["cuda_graph_usage", "cuda_graph_captures"],
            plots,
        }
    }
}

impl Worker {
    fn replays(&self, name: String) -> Option<View> {
        let modes: std::collections::BTreeSet<&str> =
            self.replays.keys().map(|size| size.1).collect();
        let mut data: Vec<Value> = modes
            .into_iter()
            .map(|mode| {
                let of_mode = self.replays.iter().filter(|one| one.0.1 == mode);
                let (x, y): (Vec<_>, Vec<_>) = of_mode.map(|(size, one)| (named(size), one.count)).unzip();
                json!({
                    "type": "bar", "name": label(mode), "x": x, "y": y, "marker": {"color": colour(mode).name()},
                    "hovertemplate": "%{y} replays of %{x}<extra></extra>"
                })
            })
            .collect();
        if data.is_empty() {
            return None;
        }
        let padding = |one: &Replays| {
            let padding = one.padded.checked_sub(one.actual)?;
            (one.padded > 0).then(|| 100.0 * padding as f64 / one.padded as f64)
        };
        let (x, y): (Vec<_>, Vec<_>) = self
            .replays
            .iter()
            .filter_map(|(size, one)| Some((named(size), number(padding(one)?))))
            .unzip();
        if !x.is_empty() {
            let marks = json!({
                "type": "scatter", "mode": "markers", "name": "padding", "x": x, "y": y,
                "marker": {"color": Colour::Orange.name(), "size": 10, "symbol": "diamond"},
                "hovertemplate": "%{y:.1f} % of %{x} was padding<extra></extra>"
            });
            data.push(on_axis(marks, 2));
        }
        let sum = self
            .replays
            .values()
            .fold(Replays::default(), |sum, one| Replays {
                count: sum.count.saturating_add(one.count),
                padded: sum.padded.saturating_add(one.padded),
                actual: sum.actual.saturating_add(one.actual),
            });
        let mut summary = format!(
            "{} of {}",
            count(sum.count, "replay", "replays"),
            count(
                self.replays.len() as u64,
                "kind of graph",
                "kinds of graphs"
            )
        );
        if let Some(pct) = padding(&sum) {
            // Writing to a `String` cannot fail.
            let _ = write!(
                summary,
                "; {} % of the tokens that they computed were padding",
                figure(pct)
            );
        }
        Some(View {
            name,
            summary: summary + ".",
            notes: self.note().into_iter().collect(),
            data,
            layout: json!({
                "height": 360, "hovermode": "closest", "barmode": "overlay", "yaxis": axis("replays"),
                "xaxis": {"type": "category", "title": {"text": "mode and tokens that the graph is padded to"}, "automargin": true},
                "yaxis2": {
                    "title": {"text": "% padding"}, "overlaying": "y", "side": "right", "range": [0, 104],
                    "showgrid": false, "zeroline": false
                }
            }),
        })
    }

    fn eager(&self, name: String) -> Option<View> {
        if self.eager.is_empty() {
            return None;
        }
        let mut reasons: Vec<(&str, u64)> = self
            .eager
            .iter()
            .map(|(&reason, &count)| (reason, count))
            .collect();
        reasons.sort_by_key(|one| one.1);
        let passes: u64 = reasons.iter().map(|one| one.1).fold(0, u64::saturating_add);
        let replays: u64 = self
            .replays
            .values()
            .map(|one| one.count)
            .fold(0, u64::saturating_add);
        let told: Vec<String> = reasons
            .iter()
            .rev()
            .take(3)
            .map(|(reason, passes)| format!("{reason} {passes}"))
            .collect();
        let data = json!({
            "type": "bar", "orientation": "h", "name": "passes", "showlegend": false,
            "x": reasons.iter().map(|one| one.1).collect::<Vec<_>>(),
            "y": reasons.iter().map(|one| label(one.0)).collect::<Vec<_>>(),
            "text": reasons.iter().map(|one| one.1.to_string()).collect::<Vec<_>>(), "textposition": "auto",
            "marker": {"color": Colour::Red.name()}, "hovertemplate": "%{x} passes: %{y}<extra></extra>"
        });
        Some(View {
            name,
            summary: format!(
                "{} ran without a graph, beside {} of graphs. Why: {}.",
                count(passes, "pass", "passes"),
                count(replays, "replay", "replays"),
                told.join(", ")
            ),
            notes: Vec::new(),
            layout: json!({
                "height": 130 + 28 * reasons.len(), "hovermode": "closest",
                "xaxis": {"title": {"text": "passes"}, "rangemode": "tozero"},
                "yaxis": {"type": "category", "automargin": true, "ticklabelstandoff": 6}
            }),
            data: vec![data],
        })
    }

    fn captures(&self, name: String) -> Option<View> {
        if self.captures.is_empty() {
            return None;
        }
        let ms: f64 = self.captures.values().map(|one| one.ms).sum();
        let all: u64 = self.captures.values().map(|one| one.count).sum();
        let failed: u64 = self.captures.values().map(|one| one.failed).sum();
        let hover: Vec<String> = self
            .captures
            .values()
            .map(|one| {
                format!(
                    "{} in {}",
                    duration(one.ms / 1e3),
                    count(one.count, "capture", "captures")
                )
            })
            .collect();
        let data = json!({
            "type": "bar", "name": "captures", "showlegend": false,
            "x": self.captures.keys().map(named).collect::<Vec<_>>(),
            "y": self.captures.values().map(|one| number(one.ms)).collect::<Vec<_>>(),
            "marker": {"color": self.captures.keys().map(|size| colour(size.1).name()).collect::<Vec<_>>()},
            "hovertext": hover, "hovertemplate": "%{x}: %{hovertext}<extra></extra>"
        });
        let failed = if failed > 0 {
            format!("; {failed} failed or were never ended")
        } else {
            String::new()
        };
        Some(View {
            name,
            summary: format!(
                "{} took {} in all{failed}.",
                count(all, "capture", "captures"),
                duration(ms / 1e3)
            ),
            notes: Vec::new(),
            data: vec![data],
            layout: json!({
                "height": 300, "hovermode": "closest", "yaxis": axis("ms"),
                "xaxis": {"type": "category", "automargin": true}
            }),
        })
    }

    fn note(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "{} rows of further sizes are not drawn: {SIZES} are told apart.",
                self.left_out
            )
        })
    }
}
