//! The lives of requests: when each ran, when it stood still, and how long it took.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::seconds;
use crate::aggregate::distribution::Distribution;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::count::BySize;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis, number, time_axis};
use crate::report::text::{count, duration, figure, label};
use crate::table::preemption_events::PreemptionEvent;
use crate::table::request_lifecycle::RequestLifecycle;

/// Requests of an engine that are drawn, at most; then every other one is.
const LIVES: usize = 1_000;
/// Pieces of a request's life that are drawn, at most.
const SPANS: usize = 64;
/// Letters of a request's id that are kept to tell it from others.
const ID: usize = 200;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Running,
    Preempted,
    /// Running when the session ended.
    Unfinished,
}

impl State {
    const ALL: [(Self, &'static str, Colour); 3] = [
        (Self::Running, "running", Colour::Blue),
        (Self::Preempted, "preempted", Colour::Red),
        (Self::Unfinished, "not finished at the end", Colour::Teal),
    ];
}

/// One request.
#[derive(Clone, Debug, Default)]
struct Life {
    first: f64,
    spans: Vec<(State, f64, f64)>,
    open: Option<(State, f64)>,
    left_out: u64,
}

impl Life {
    fn close(&mut self, at: f64) {
        let Some((state, since)) = self.open.take() else {
            return;
        };
        if self.spans.len() < SPANS {
            self.spans.push((state, since, at));
        } else {
            self.left_out += 1;
        }
    }
}

/// One engine.
#[derive(Clone, Debug)]
struct Engine {
    lives: BTreeMap<String, Life>,
    /// One in so many requests is kept, by the hash of its id.
    every: u64,
    started: u64,
    total: BySize,
    all: Distribution,
    delayed: Distribution,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            lives: BTreeMap::new(),
            every: 1,
            started: 0,
            total: BySize::default(),
            all: Distribution::default(),
            delayed: Distribution::default(),
        }
    }
}

/// The requests of all engines.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    engines: Members<Engine>,
    events: u64,
    preempted: u64,
    finished: u64,
}

/// A hash of the id that is the same in every session.
fn hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }) >> 20
}

impl Request {
    pub(super) fn event(&mut self, row: &PreemptionEvent) {
        self.events += 1;
        match row.event {
            "preempted" => self.preempted += 1,
            "finished" => self.finished += 1,
            _ => {}
        }
        if let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) {
            engine.event(row);
        }
    }

    pub(super) fn finished(&mut self, row: &RequestLifecycle) {
        let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) else {
            return;
        };
        if let Some(total) = row.total_time_sec {
            engine.total.add(total.0 as f64 / 1e9);
            engine.all.add(total.0 as f64 / 1e9);
        }
        if let Some(delay) = row.preemption_delay_sec {
            engine.delayed.add(delay.0 as f64 / 1e9);
        }
    }

    /// Whether anything is known of requests.
    pub(super) fn seen(&self) -> bool {
        self.events > 0
    }

    pub(super) fn preempted(&self) -> u64 {
        self.preempted
    }

    pub(super) fn done(&self) -> u64 {
        self.finished
    }

    pub(super) fn section(&self, metadata: &Metadata, end: f64) -> Section {
        let mut lives = Vec::new();
        let mut totals = Vec::new();
        for (member, engine) in self.engines.iter() {
            let name = member.name("engine", metadata);
            lives.extend(engine.lives(name.clone(), end));
            totals.extend(engine.totals(name));
        }
        if let Some(view) = lives.first_mut() {
            view.notes.extend(self.engines.note());
        }
        let plots = [
            ("requests", "Lives of requests", true, lives),
            ("request-times", "How long requests take", false, totals),
        ];
        let plots = plots
            .into_iter()
            .filter_map(|(id, title, over_time, views)| Plot::new(id, title, over_time, views))
            .collect();
        Section {
            id: "requests",
            title: "Requests",
            lead: "Each bar is a request from its first step to its end; those of the same time stand one below the other. \
                   Red is the time between a preemption and its resume, in which a request makes no progress.",
            tables: &["preemption_events", "request_lifecycle"],
            plots,
        }
    }
}

impl Engine {
    fn event(&mut self, row: &PreemptionEvent) {
        self.started += u64::from(row.event == "started");
        let id: String = row.request_id.chars().take(ID).collect();
        if !hash(&id).is_multiple_of(self.every) {
            return;
        }
        let at = seconds(row.timestamp_sec);
        let life = self.lives.entry(id).or_insert_with(|| Life {
            first: at,
            ..Life::default()
        });
        life.close(at);
        match row.event {
            "started" | "resumed" => life.open = Some((State::Running, at)),
            "preempted" => life.open = Some((State::Preempted, at)),
            _ => {}
        }
        while self.lives.len() > LIVES && self.every < 1 << 40 {
            self.every *= 2;
            let every = self.every;
            self.lives.retain(|id, _| hash(id).is_multiple_of(every));
        }
    }

    fn lives(&self, name: String, end: f64) -> Option<View> {
        let mut lives: Vec<(&str, Life)> = self
            .lives
            .iter()
            .map(|(id, life)| {
                let mut life = life.clone();
                if let Some((State::Running, _)) = life.open {
                    life.open = life.open.map(|open| (State::Unfinished, open.1));
                }
                life.close(end.max(life.first));
                (id.as_str(), life)
            })
            .collect();
        let unseen = lives.iter().filter(|life| life.1.spans.is_empty()).count();
        lives.retain(|life| !life.1.spans.is_empty());
        if lives.is_empty() {
            return None;
        }
        lives.sort_by(|one, two| one.1.first.total_cmp(&two.1.first));
        let lines = lines(&lives);
        let count_of_lines = lines.iter().max().copied().unwrap_or(0);
        let data = State::ALL
            .into_iter()
            .filter_map(|(state, words, colour)| bars(&lives, &lines, state, words, colour))
            .collect();
        let mut notes = Vec::new();
        if self.every > 1 {
            notes.push(format!(
                "One in {} requests is drawn, chosen by the hash of its id.",
                self.every
            ));
        }
        if unseen > 0 {
            let words = count(unseen as u64, "request", "requests");
            notes.push(format!(
                "Not drawn: {words} seen only at the end, begun before the session."
            ));
        }
        let pieces: u64 = lives.iter().map(|life| life.1.left_out).sum();
        if pieces > 0 {
            notes.push(format!(
                "{pieces} further pieces of much preempted requests are not drawn."
            ));
        }
        Some(View {
            name,
            summary: self.summary(lives.len()),
            notes,
            data,
            layout: json!({
                "height": (150 + 18 * count_of_lines).clamp(280, 900), "hovermode": "closest", "barmode": "overlay",
                "bargap": 0.15, "xaxis": time_axis(),
                "yaxis": {"title": {"text": "requests at the same time"}, "autorange": "reversed", "zeroline": false}
            }),
        })
    }

    fn summary(&self, drawn: usize) -> String {
        let mut text = format!(
            "{} started in the session, {} drawn",
            count(self.started, "request", "requests"),
            drawn
        );
        if let (Some(p50), Some(p99)) = (self.all.quantile(0.5), self.all.quantile(0.99)) {
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                ". From its first step to its end, half took {} or less, 99 % {} or less",
                duration(p50),
                duration(p99)
            );
        }
        if let Some(mean) = self.delayed.mean() {
            let _ = write!(
                text,
                ". {} stood still after a preemption, for {} on average",
                count(
                    self.delayed.count(),
                    "finished request",
                    "finished requests"
                ),
                duration(mean)
            );
        }
        text + "."
    }

    fn totals(&self, name: String) -> Option<View> {
        let (x, y): (Vec<_>, Vec<_>) = self
            .total
            .classes()
            .into_iter()
            .map(|(low, count)| (number(low), count))
            .unzip();
        let mean = self.all.mean()?;
        let over = self.all.quantile(0.9)?;
        Some(View {
            name,
            summary: format!(
                "{} with start and end: {} on average; one in ten took {} or more, the longest {} s.",
                count(self.all.count(), "request", "requests"),
                duration(mean),
                duration(over),
                figure(self.all.max().unwrap_or(over))
            ),
            notes: Vec::new(),
            data: vec![json!({
                "type": "scatter", "mode": "lines", "name": "requests", "showlegend": false, "x": x, "y": y,
                "fill": "tozeroy", "line": {"color": Colour::Blue.name(), "width": 1.5, "shape": "hv"},
                "hovertemplate": "%{y} requests of %{x:.3~g} s to 5 % more<extra></extra>"
            })],
            layout: json!({
                "height": 280, "hovermode": "closest", "yaxis": axis("requests"),
                "xaxis": {"type": "log", "title": {"text": "first step to end in s (logarithmic)"}}
            }),
        })
    }
}

/// The line of each request, from 1: the first that is free when it starts.
fn lines(lives: &[(&str, Life)]) -> Vec<usize> {
    let mut free: Vec<f64> = Vec::new();
    let line = |(_, life): &(&str, Life)| {
        let ends = life.spans.iter().map(|span| span.2);
        let until = ends.fold(life.first, f64::max);
        let line = free.iter().position(|free| *free <= life.first);
        let line = line.unwrap_or_else(|| {
            free.push(until);
            free.len() - 1
        });
        free[line] = until;
        line + 1
    };
    lives.iter().map(line).collect()
}

/// The pieces of one kind as bars; `None` if there is none.
fn bars(
    lives: &[(&str, Life)],
    lines: &[usize],
    state: State,
    words: &str,
    colour: Colour,
) -> Option<Value> {
    let mut columns: [Vec<Value>; 4] = Default::default();
    for ((id, life), line) in lives.iter().zip(lines) {
        for &(_, from, to) in life.spans.iter().filter(|span| span.0 == state) {
            let length = (to - from).max(0.0);
            let [base, x, y, text] = &mut columns;
            base.push(number(from));
            x.push(number(length));
            y.push(json!(line));
            text.push(json!(format!(
                "{}: {words} for {}",
                label(id),
                duration(length)
            )));
        }
    }
    let [base, x, y, text] = columns;
    (!base.is_empty()).then(|| {
        json!({
            "type": "bar", "orientation": "h", "name": words, "base": base, "x": x, "y": y, "hovertext": text,
            "marker": {"color": colour.name(), "line": {"width": 0.6, "color": "@card"}},
            "hovertemplate": "%{hovertext}, from %{base:.3f} s on<extra></extra>"
        })
    })
}
