//! Forward passes: by phase and graph mode, the time between them, and ranks that lag.

use std::collections::BTreeMap;

use super::{IDLE_SEC, MEMBERS, Span, seconds};
use crate::aggregate::distribution::Distribution;
use crate::table::forward_pass_timing::ForwardPass;

/// Steps whose ranks are not all seen yet, at most.
const WINDOW: usize = 1_024;
/// Ranks of a step, at most.
const RANKS: usize = 1_024;

/// Passes of one kind.
#[derive(Clone, Debug, Default)]
pub struct Passes {
    /// The rows.
    pub span: Span,
    /// Milliseconds of a pass.
    pub ms: Distribution,
    /// Tokens.
    pub tokens: i64,
}

impl Passes {
    fn add(&mut self, at: f64, ms: f64, tokens: i64) {
        self.span.add(at);
        self.ms.add(ms);
        self.tokens = self.tokens.saturating_add(tokens.max(0));
    }

    /// Tokens a second.
    pub fn rate(&self) -> Option<f64> {
        let ms = self.ms.mean()? * self.span.rows as f64;
        (ms > 0.0 && self.tokens > 0).then(|| self.tokens as f64 * 1e3 / ms)
    }
}

/// One worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Worker {
    /// Its engine's pid, where it is known.
    pub engine: Option<u32>,
    /// Its rank, where it is known.
    pub rank: Option<u32>,
    /// Seconds in passes that were followed by another within a second.
    pub pass_sec: f64,
    /// Seconds between those.
    pub gap_sec: f64,
    /// Passes that were followed.
    pub followed: u64,
    /// Seconds on the GPU in passes that were followed, where it is known.
    pub gpu_sec: f64,
    /// Seconds from the begin of those passes to the begin of the next.
    pub gpu_interval_sec: f64,
    /// Passes with a GPU time that were followed.
    pub gpu_passes: u64,
    before: Option<(f64, f64, Option<f64>)>,
}

/// How often a rank was the last to end a step, and by how much.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Steps in which it ended last.
    pub last: Span,
    /// Milliseconds behind the median of the ranks in those steps, summed.
    pub behind_ms: f64,
}

/// All forward passes.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    /// All rows.
    pub span: Span,
    /// By phase.
    pub phases: BTreeMap<&'static str, Passes>,
    /// Decode passes by graph mode.
    pub decode_modes: BTreeMap<&'static str, Passes>,
    /// By worker's pid.
    pub workers: BTreeMap<u32, Worker>,
    /// Steps that several ranks ran.
    pub shared_steps: u64,
    /// Milliseconds of those, by their slowest rank, summed.
    pub shared_ms: f64,
    /// By worker's pid.
    pub lags: BTreeMap<u32, Lag>,
    open: BTreeMap<(u64, Option<u32>), Vec<Ran>>,
}

#[derive(Clone, Copy, Debug)]
struct Ran {
    pid: u32,
    start_sec: f64,
    end_sec: f64,
}

impl Forward {
    /// Takes a row; `engine_of` tells the engine of a worker.
    pub(super) fn row(&mut self, row: &ForwardPass, engine_of: &dyn Fn(u32) -> Option<u32>) {
        let at = seconds(row.timestamp_sec);
        let Some(ms) = row.forward_time_ms.map(|ms| ms.0 as f64 / 1e6) else {
            return;
        };
        let tokens = row.num_tokens.unwrap_or(0);
        self.span.add(at);
        if let Some(phase) = row.phase.filter(|phase| !phase.is_empty()) {
            bounded(&mut self.phases, phase, 8).add(at, ms, tokens);
            if let ("decode", Some(mode)) = (phase, row.graph_mode.filter(|mode| !mode.is_empty()))
            {
                bounded(&mut self.decode_modes, mode, 8).add(at, ms, tokens);
            }
        }
        if self.workers.len() >= MEMBERS && !self.workers.contains_key(&row.pid) {
            return;
        }
        let worker = self.workers.entry(row.pid).or_insert_with(|| Worker {
            engine: engine_of(row.pid),
            rank: row.rank,
            ..Worker::default()
        });
        worker.pass(at, ms, row.gpu_time_ms.map(|ms| ms.0 as f64 / 1e6));
        let engine = worker.engine;
        if let Some(step) = row.step {
            let end = Ran {
                pid: row.pid,
                start_sec: at,
                end_sec: at + ms / 1e3,
            };
            self.rank((step, engine), end);
        }
    }

    fn rank(&mut self, step: (u64, Option<u32>), end: Ran) {
        let ranks = self.ranks(step.1);
        let ends = self.open.entry(step).or_default();
        if ends.len() < RANKS {
            ends.push(end);
        }
        if ends.len() >= ranks.max(2) {
            if let Some(ends) = self.open.remove(&step) {
                self.close(ends);
            }
        } else if self.open.len() > WINDOW
            && let Some((_, ends)) = self.open.pop_first()
        {
            self.close(ends);
        }
    }

    /// All ranks of a step are seen, or will not be.
    fn close(&mut self, mut ends: Vec<Ran>) {
        ends.sort_by(|one, two| one.end_sec.total_cmp(&two.end_sec));
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
            return;
        };
        // Stages of a pipeline run one after the other: the last one does not lag.
        let abreast = ends.iter().all(|end| end.start_sec < first.end_sec);
        if ends.len() < 2 || !abreast {
            return;
        }
        let median = ends[(ends.len() - 1) / 2].end_sec;
        self.shared_steps += 1;
        self.shared_ms += (last.end_sec - last.start_sec) * 1e3;
        let lag = self.lags.entry(last.pid).or_default();
        lag.last.add(last.start_sec);
        lag.behind_ms += (last.end_sec - median) * 1e3;
    }

    pub(super) fn finish(&mut self) {
        while let Some((_, ends)) = self.open.pop_first() {
            self.close(ends);
        }
    }

    /// Workers of an engine.
    pub fn ranks(&self, engine: Option<u32>) -> usize {
        let workers = self.workers.values();
        workers.filter(|worker| worker.engine == engine).count()
    }

    /// Tokens a second in passes that read prompts.
    pub fn prompt_rate(&self) -> Option<f64> {
        let rate = |phase| self.phases.get(phase).and_then(Passes::rate);
        rate("prefill").or_else(|| rate("mixed"))
    }
}

impl Worker {
    fn pass(&mut self, at: f64, ms: f64, gpu_ms: Option<f64>) {
        if let Some((begun, ended, gpu)) = self.before {
            let gap = at - ended;
            if (0.0..=IDLE_SEC).contains(&gap) {
                self.followed += 1;
                self.pass_sec += ended - begun;
                self.gap_sec += gap;
                if let Some(gpu) = gpu {
                    self.gpu_passes += 1;
                    self.gpu_sec += gpu;
                    self.gpu_interval_sec += at - begun;
                }
            }
        }
        self.before = Some((at, at + ms / 1e3, gpu_ms.map(|ms| ms / 1e3)));
    }
}

/// The entry of a word; those beyond `most` share the last.
fn bounded<'a>(
    map: &'a mut BTreeMap<&'static str, Passes>,
    key: &'static str,
    most: usize,
) -> &'a mut Passes {
    let known = map.len() < most || map.contains_key(key);
    map.entry(if known { key } else { "other" }).or_default()
}
