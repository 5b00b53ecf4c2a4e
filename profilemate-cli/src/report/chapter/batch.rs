//! Batch and queue over time.

use serde_json::{Value, json};
use std::fmt::Write as _;

use super::seconds;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis_in, on_axis, share, steps, time_axis};
use crate::report::text::{count, figure};
use crate::report::thin::{Thin, note};
use crate::table::batch_utilization::BatchUse;

/// One engine.
#[derive(Clone, Debug, Default)]
struct Engine {
    scheduled: Thin,
    running: Thin,
    waiting: Thin,
    tokens: Thin,
    prefill: Thin,
    decode: Thin,
    max_seqs: Option<i64>,
    max_tokens: Option<i64>,
    steps: u64,
    queued: u64,
}

/// What the schedulers decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    engines: Members<Engine>,
    steps: u64,
    tokens: Option<f64>,
    first_sec: Option<f64>,
    last_sec: Option<f64>,
}

impl Batch {
    pub(super) fn row(&mut self, row: &BatchUse) {
        let at = seconds(row.timestamp_sec);
        let value = |number: Option<i64>| number.map(|number| number as f64);
        self.steps += 1;
        if let Some(tokens) = value(row.num_tokens) {
            *self.tokens.get_or_insert(0.0) += tokens;
        }
        self.first_sec = Some(self.first_sec.map_or(at, |first| first.min(at)));
        self.last_sec = Some(self.last_sec.map_or(at, |last| last.max(at)));
        let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) else {
            return;
        };
        engine.steps += 1;
        engine.queued += u64::from(row.waiting_queue_len.is_some_and(|waiting| waiting > 0));
        engine.scheduled.add(at, value(row.num_seqs));
        engine.running.add(at, value(row.running_queue_len));
        engine.waiting.add(at, value(row.waiting_queue_len));
        engine.tokens.add(at, value(row.num_tokens));
        engine.prefill.add(at, value(row.prefill_tokens));
        engine.decode.add(at, value(row.decode_tokens));
        engine.max_seqs = row.max_num_seqs.or(engine.max_seqs);
        engine.max_tokens = row.max_tokens.or(engine.max_tokens);
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn tokens(&self) -> Option<f64> {
        self.tokens
    }

    /// From the first step to the last, where that is some time.
    pub(super) fn span_sec(&self) -> Option<f64> {
        let span = self.last_sec? - self.first_sec?;
        (span > 0.0).then_some(span)
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let most = share(self.engines.len() * 5);
        let views: Vec<View> = self
            .engines
            .iter()
            .map(|(member, engine)| {
                let mut view = engine.view(member.name("engine", metadata), most);
                view.notes.extend(self.engines.note());
                view
            })
            .collect();
        let plot = Plot::new("batch", "Batch and queue over time", true, views);
        Section {
            id: "batch",
            title: "Batch and queue",
            lead: "What each call of the scheduler decided: above, requests that run, that wait and that were scheduled; \
                   below, the tokens of the step. The dashed lines are vLLM's limits.",
            tables: &["batch_utilization"],
            plots: plot.into_iter().collect(),
        }
    }
}

impl Engine {
    fn view(&self, name: String, most: usize) -> View {
        let mut all = Vec::new();
        let mut series = |what: &str, colour, thin: &Thin| {
            let drawn = thin.drawn(most);
            let trace = steps(what, colour, &drawn);
            all.push((what.to_owned(), drawn));
            trace
        };
        let mut waiting = series("waiting", Colour::Orange, &self.waiting);
        waiting["fill"] = json!("tozeroy");
        // What runs and what was scheduled are often the same: the one stands out behind the other.
        let mut running = series("running", Colour::Blue, &self.running);
        running["line"]["width"] = json!(4);
        running["opacity"] = json!(0.55);
        let mut data = vec![
            waiting,
            running,
            series("scheduled", Colour::Green, &self.scheduled),
        ];
        if self.prefill.all().count() + self.decode.all().count() > 0 {
            data.push(on_axis(
                series("prompt tokens", Colour::Purple, &self.prefill),
                2,
            ));
            data.push(on_axis(
                series("generated tokens", Colour::Teal, &self.decode),
                2,
            ));
        } else {
            data.push(on_axis(series("tokens", Colour::Purple, &self.tokens), 2));
        }
        View {
            name,
            summary: self.summary(),
            notes: note(&all).into_iter().collect(),
            data,
            layout: json!({
                "height": 460, "hovermode": "x unified", "xaxis": anchored(time_axis()),
                "yaxis": axis_in("requests", [0.42, 1.0]), "yaxis2": axis_in("tokens", [0.0, 0.34]),
                "shapes": self.limits()
            }),
        }
    }

    /// The limits as lines, where the values come near: one far above would press the rest to the floor.
    fn limits(&self) -> Vec<Value> {
        let line = |limit: Option<i64>, highest: Option<f64>, axis: &str| {
            let limit = limit?;
            (highest? * 3.0 >= limit as f64).then(|| {
                json!({
                    "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "y0": limit, "y1": limit,
                    "line": {"color": Colour::Grey.name(), "width": 1, "dash": "dash"}
                })
            })
        };
        [
            line(self.max_seqs, self.running.all().max(), "y"),
            line(self.max_tokens, self.tokens.all().max(), "y2"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn summary(&self) -> String {
        let mut text = count(self.steps, "step", "steps");
        if let (Some(mean), Some(max)) = (self.scheduled.all().mean(), self.scheduled.all().max()) {
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                ": {} sequences on average, {} at most",
                figure(mean),
                figure(max)
            );
            if let Some(limit) = self.max_seqs {
                let _ = write!(text, " of {limit} allowed");
            }
        }
        if let Some(mean) = self.tokens.all().mean() {
            let _ = write!(text, ", {} tokens on average", figure(mean));
        }
        if let Some(max) = self.waiting.all().max() {
            let part = 100.0 * self.queued as f64 / self.steps.max(1) as f64;
            let _ = write!(
                text,
                ". Requests waited in {} % of the steps, up to {} of them",
                figure(part),
                figure(max)
            );
        }
        text + "."
    }
}

/// The horizontal axis at the foot of the lower plot.
fn anchored(mut axis: Value) -> Value {
    axis["anchor"] = json!("y2");
    axis
}
