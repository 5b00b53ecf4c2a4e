//! What the rules look at: gathered row by row in bounded memory, while a session runs or from its folder.
//!
//! Rows of one table come in the order of the file; nothing depends on the order between tables, which differs between
//! a running session and a folder.

pub mod batch;
pub mod cache;
pub mod expert;
pub mod forward;
pub mod graph;
pub mod request;

use std::collections::{BTreeMap, BTreeSet};

use crate::table::AnyRow;
use crate::table::cell::Stamp;

/// Moments and steps that are remembered to be compared between tables, at most.
pub(super) const REMEMBERED: usize = 65_536;
/// Engines, workers or layers that are told apart, at most.
pub(super) const MEMBERS: usize = 4_096;
/// A gap between two steps that is longer than this is idle time and no step, in seconds.
pub(super) const IDLE_SEC: f64 = 1.0;

/// Rows of one kind: how many, and from when to when.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Rows.
    pub rows: u64,
    /// The first, in seconds since the session's start.
    pub first_sec: Option<f64>,
    /// The last.
    pub last_sec: Option<f64>,
}

impl Span {
    /// Takes a row of that moment.
    pub fn add(&mut self, at_sec: f64) {
        self.rows += 1;
        self.first_sec = Some(self.first_sec.map_or(at_sec, |first| first.min(at_sec)));
        self.last_sec = Some(self.last_sec.map_or(at_sec, |last| last.max(at_sec)));
    }

    /// Takes a row that has no moment.
    pub fn count(&mut self) {
        self.rows += 1;
    }

    /// Takes the rows of another span.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        let ends = |one: Option<f64>, two: Option<f64>, pick: fn(f64, f64) -> f64| match (one, two)
        {
            (Some(one), Some(two)) => Some(pick(one, two)),
            (one, two) => one.or(two),
        };
        self.first_sec = ends(self.first_sec, other.first_sec, f64::min);
        self.last_sec = ends(self.last_sec, other.last_sec, f64::max);
    }

    /// From the first to the last, in seconds.
    pub fn length_sec(&self) -> Option<f64> {
        Some(self.last_sec? - self.first_sec?)
    }
}

/// Everything gathered.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Schedule calls, by the engine's pid.
    pub engines: BTreeMap<u32, batch::Engine>,
    /// KV cache, by the engine's pid.
    pub caches: BTreeMap<u32, cache::Cache>,
    /// Forward passes.
    pub forward: forward::Forward,
    /// Requests.
    pub requests: request::Requests,
    /// CUDA graphs.
    pub graphs: graph::Graphs,
    /// Mixture of experts.
    pub experts: expert::Experts,
    /// (engine's step) in which an encoder was called, and the calls.
    pub encoder_steps: BTreeSet<u64>,
    /// Encoder calls, and their summed time in milliseconds.
    pub encoder: (Span, f64),
}

impl Facts {
    /// Takes a row of any table; `engine_of` tells the engine of a worker, both by their pids.
    pub fn row(&mut self, row: &AnyRow, engine_of: &dyn Fn(u32) -> Option<u32>) {
        match row {
            AnyRow::BatchUse(row) => {
                if let Some(engine) = member(&mut self.engines, row.pid) {
                    engine.row(row);
                }
            }
            AnyRow::KvCacheUse(row) => {
                if let Some(cache) = member(&mut self.caches, row.pid) {
                    cache.row(row);
                }
            }
            AnyRow::ForwardPass(row) => self.forward.row(row, engine_of),
            AnyRow::PreemptionEvent(row) => self.requests.event(row),
            AnyRow::RequestLifecycle(row) => self.requests.lifecycle(row),
            AnyRow::CudaGraphCapture(row) => self.graphs.capture(row),
            AnyRow::CudaGraphUse(row) => self.graphs.usage(row),
            AnyRow::MoeExpertSelection(row) => self.experts.selection(row),
            AnyRow::MoeExpertTime(row) => self.experts.timing(row),
            AnyRow::EncoderCall(row) => {
                self.encoder.0.add(seconds(row.timestamp_sec));
                self.encoder.1 += row.duration_ms.map_or(0.0, |ms| ms.0 as f64 / 1e6);
                if let Some(step) = row.step
                    && self.encoder_steps.len() < REMEMBERED
                {
                    self.encoder_steps.insert(step);
                }
            }
            _ => {}
        }
    }

    /// No more rows come.
    pub fn finish(&mut self) {
        self.forward.finish();
    }

    /// Of a server that goes on, before its next rows: what was captured stays captured.
    #[must_use]
    pub fn next(&self) -> Self {
        Self {
            graphs: self.graphs.next(),
            ..Self::default()
        }
    }

    /// Tokens scheduled each second while the session was busy.
    pub fn tokens_per_sec(&self) -> Option<f64> {
        let tokens: u64 = self.engines.values().map(batch::Engine::tokens).sum();
        let busy = self.busy_sec()?;
        (tokens > 0).then(|| tokens as f64 / busy)
    }

    /// How long the session was busy: from the first step to the last, in seconds.
    pub fn busy_sec(&self) -> Option<f64> {
        let mut span = self.forward.span;
        for engine in self.engines.values() {
            span.merge(&engine.span);
        }
        span.length_sec().filter(|sec| *sec > 0.0)
    }
}

/// A moment in microseconds since the session's start, as its file says it: a session and its folder are judged alike.
fn micros(moment: Stamp) -> i64 {
    moment.0 / 1_000
}

/// A moment in seconds.
fn seconds(moment: Stamp) -> f64 {
    micros(moment) as f64 / 1e6
}

fn member<T: Default>(members: &mut BTreeMap<u32, T>, key: u32) -> Option<&mut T> {
    if members.len() >= MEMBERS && !members.contains_key(&key) {
        return None;
    }
    Some(members.entry(key).or_default())
}
