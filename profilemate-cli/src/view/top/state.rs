//! Rows in, numbers out. Pure: time comes with the pulse.

use std::collections::{BTreeMap, VecDeque};

use super::view::{Graph, Rank, Request, Stage, View};
use super::window::{SPAN_NS, Window};
use crate::event::Process;
use crate::sink::metadata::Overhead;
use crate::sink::watch::Pulse;
use crate::table::AnyRow;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Cell as _, Stamp};
use crate::table::cpu_operations_timing::CpuOperation;
use crate::table::cuda_graph_usage::CudaGraphUse;
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::preemption_events::PreemptionEvent;
use crate::table::request_lifecycle::RequestLifecycle;

/// Stages of a step and the operations of `cpu_operations_timing.csv` that make them up. `forward` falls back to what
/// `execute_model` has beside the others.
pub(crate) const STAGES: [(&str, &[&str]); 6] = [
    ("schedule", &["schedule"]),
    (
        "prepare",
        &[
            "update_states",
            "prepare_inputs",
            "build_attention_metadata",
            "prepare_attn",
            "add_requests",
            "update_requests",
        ],
    ),
    ("forward", &["model_forward"]),
    ("wait", &["bookkeeping_sync"]),
    ("sample", &["sample"]),
    ("output", &["update_from_output", "postprocess"]),
];
/// The operation around `prepare` and `forward`.
const AROUND: &str = "execute_model";
/// Position of `prepare` and `forward` in [`STAGES`].
const PREPARE: usize = 1;
const FORWARD: usize = 2;

/// Seconds of history.
const HISTORY: usize = 60;
/// Requests remembered, at most.
const REQUESTS: usize = 10_000;
/// Finished requests remembered: the slowest.
const SLOWEST: usize = 100;
/// Processes and graphs remembered, at most.
const CAPACITY: usize = 1_024;

/// One process.
#[derive(Clone, Debug, Default)]
struct Part {
    engine: Option<u32>,
    rank: Option<u32>,
    steps: Window,
    tokens: Window,
    seq_use: Window,
    token_use: Window,
    forward: Window,
    stages: [Window; STAGES.len()],
    around: Window,
    seqs: Option<(i64, i64)>,
    running: Option<i64>,
    waiting: Option<i64>,
    kv_pct: Option<f64>,
    kv_blocks: Option<(i64, i64)>,
    is_engine: bool,
    is_worker: bool,
}

impl Part {
    fn windows(&mut self) -> impl Iterator<Item = &mut Window> {
        [
            &mut self.steps,
            &mut self.tokens,
            &mut self.seq_use,
            &mut self.token_use,
            &mut self.forward,
            &mut self.around,
        ]
        .into_iter()
        .chain(&mut self.stages)
    }
}

#[derive(Clone, Debug, Default)]
struct Live {
    started: Option<Stamp>,
    preempted: bool,
    preemptions: u64,
}

/// What [`super::view::View`] is made of.
#[derive(Clone, Debug, Default)]
pub struct State {
    now: Stamp,
    since: Stamp,
    parts: BTreeMap<u32, Part>,
    roles: BTreeMap<u32, (String, Option<u32>, Option<u32>)>,
    live: BTreeMap<(u32, String), Live>,
    slowest: Vec<Request>,
    finished: u64,
    evictions: u64,
    evicted: Window,
    preemptions: u64,
    graphed: Window,
    graphs: BTreeMap<(String, Option<u64>, Option<u64>, u32), CudaGraphUse>,
    seconds: VecDeque<u64>,
    second: i64,
    events: VecDeque<(i64, u64)>,
    cpu: VecDeque<(i64, f64)>,
    lost: u64,
    overhead: Option<Overhead>,
}

impl State {
    /// Takes one row.
    pub fn row(&mut self, row: &AnyRow) {
        match row {
            AnyRow::BatchUse(row) => self.batch(row),
            AnyRow::KvCacheUse(row) => {
                if let Some(part) = self.part(row.pid) {
                    part.kv_pct = row.usage_pct.map(|usage| usage.0);
                    part.kv_blocks = row.num_blocks.zip(row.total_blocks);
                }
            }
            AnyRow::KvCacheEviction(row) => {
                self.evictions += 1;
                self.evicted.put(row.timestamp_sec.0, 1.0);
            }
            AnyRow::CpuOperation(row) => self.operation(row),
            AnyRow::ForwardPass(row) => self.forward(row),
            AnyRow::PreemptionEvent(row) => self.happened(row),
            AnyRow::RequestLifecycle(row) => self.finished(row),
            AnyRow::CudaGraphUse(row) => {
                let key = (
                    row.runtime_mode.unwrap_or_default().to_owned(),
                    row.num_tokens,
                    row.num_reqs,
                    row.pid,
                );
                if self.graphs.len() < CAPACITY || self.graphs.contains_key(&key) {
                    self.graphs.insert(key, row.clone());
                }
            }
            _ => {}
        }
    }

    /// Time has passed.
    pub fn pulse(&mut self, pulse: &Pulse<'_>) {
        self.now = pulse.now;
        let now = pulse.now.0;
        for part in self.parts.values_mut() {
            part.windows().for_each(|window| window.prune(now));
        }
        self.evicted.prune(now);
        self.graphed.prune(now);
        self.lost = pulse.lost;
        self.overhead = pulse.overhead;
        keep(&mut self.events, now, pulse.events);
        if let Some(seconds) = pulse.overhead.and_then(|overhead| overhead.tracer_cpu_sec) {
            keep(&mut self.cpu, now, seconds);
        }
        self.roles.clear();
        for process in pulse.processes.iter().take(CAPACITY) {
            let Process {
                pid,
                role,
                engine,
                rank,
                ..
            } = process;
            self.roles.insert(*pid, (role.clone(), *engine, *rank));
        }
        let roles = &self.roles;
        self.parts.retain(|pid, _| roles.contains_key(pid));
        self.live.retain(|(pid, _), _| roles.contains_key(pid));
        self.turn_seconds(now);
    }

    /// Counts anew from now on. What runs stays known.
    pub fn reset(&mut self) {
        self.since = self.now;
        self.evictions = 0;
        self.preemptions = 0;
        self.finished = 0;
        self.slowest.clear();
        self.seconds.clear();
        self.evicted = Window::default();
        for part in self.parts.values_mut() {
            part.windows()
                .for_each(|window| *window = Window::default());
        }
    }

    fn part(&mut self, pid: u32) -> Option<&mut Part> {
        if self.parts.len() >= CAPACITY && !self.parts.contains_key(&pid) {
            return None;
        }
        Some(self.parts.entry(pid).or_default())
    }

    fn batch(&mut self, row: &BatchUse) {
        let at = row.timestamp_sec.0;
        let tokens = row.num_tokens.unwrap_or(0).max(0);
        self.turn_seconds(at);
        if let Some(second) = self.seconds.back_mut() {
            *second += tokens as u64;
        }
        let Some(part) = self.part(row.pid) else {
            return;
        };
        part.is_engine = true;
        part.engine = row.engine;
        part.steps.put(at, 1.0);
        part.tokens.put(at, tokens as f64);
        if let Some(use_pct) = row.seq_utilization_pct {
            part.seq_use.put(at, use_pct.0);
        }
        if let Some(use_pct) = row.token_utilization_pct {
            part.token_use.put(at, use_pct.0);
        }
        part.seqs = row.num_seqs.zip(row.max_num_seqs);
        part.running = row.running_queue_len;
        part.waiting = row.waiting_queue_len;
    }

    fn operation(&mut self, row: &CpuOperation) {
        let Some(ms) = row.duration_ms.number() else {
            return;
        };
        let at = row.timestamp_sec.0;
        let Some(part) = self.part(row.pid) else {
            return;
        };
        if row.operation == AROUND {
            part.around.put(at, ms);
        }
        for ((_, operations), window) in STAGES.iter().zip(&mut part.stages) {
            if operations.contains(&row.operation.as_str()) {
                window.put(at, ms);
            }
        }
    }

    fn forward(&mut self, row: &ForwardPass) {
        let at = row.timestamp_sec.0;
        if let Some(mode) = row.graph_mode {
            let hit = !mode.eq_ignore_ascii_case("none");
            self.graphed.put(at, if hit { 100.0 } else { 0.0 });
        }
        let Some(part) = self.part(row.pid) else {
            return;
        };
        part.is_worker = true;
        part.rank = row.rank;
        if let Some(ms) = row.forward_time_ms.number() {
            part.forward.put(at, ms);
        }
        if !part.is_engine {
            part.steps.put(at, 1.0);
            part.tokens
                .put(at, row.num_tokens.unwrap_or(0).max(0) as f64);
        }
    }

    fn happened(&mut self, row: &PreemptionEvent) {
        self.preemptions += u64::from(row.event == "preempted");
        let key = (row.pid, row.request_id.clone());
        if row.event == "finished" {
            self.live.remove(&key);
            return;
        }
        if self.live.len() >= REQUESTS && !self.live.contains_key(&key) {
            return;
        }
        let live = self.live.entry(key).or_default();
        match row.event {
            "started" => live.started = Some(row.timestamp_sec),
            "preempted" => {
                live.preempted = true;
                live.preemptions += 1;
            }
            _ => live.preempted = false,
        }
    }

    fn finished(&mut self, row: &RequestLifecycle) {
        self.finished += 1;
        self.slowest.push(Request {
            id: row.request_id.clone(),
            state: "finished",
            age_sec: row.total_time_sec.number(),
            preemptions: row.preemptions,
            pid: row.pid,
        });
        if self.slowest.len() >= 2 * SLOWEST {
            by_age(&mut self.slowest);
            self.slowest.truncate(SLOWEST);
        }
    }

    /// Begins the seconds up to `at`, of which there may be many without a row.
    fn turn_seconds(&mut self, at: i64) {
        let second = at.div_euclid(1_000_000_000);
        if self.seconds.is_empty() {
            self.second = second;
            self.seconds.push_back(0);
        }
        let new = second
            .saturating_sub(self.second)
            .clamp(0, HISTORY as i64 + 1);
        for _ in 0..new {
            self.seconds.push_back(0);
        }
        self.second = self.second.max(second);
        while self.seconds.len() > HISTORY + 1 {
            self.seconds.pop_front();
        }
    }

    /// The numbers as they are.
    pub fn view(&self) -> View {
        let engines = || self.parts.values().filter(|part| part.is_engine);
        let now = self.now.0;
        let any = engines().next().is_some();
        let rate = |of: fn(&Part) -> &Window| {
            any.then(|| engines().map(|part| of(part).rate(self.since.0, now)).sum())
        };
        let all = |of: fn(&Part) -> Option<i64>| {
            if any {
                engines().map(of).sum::<Option<i64>>()
            } else {
                None
            }
        };
        let pair = |of: fn(&Part) -> Option<(i64, i64)>| {
            let pairs: Option<Vec<_>> = engines().map(of).collect();
            pairs.filter(|pairs| !pairs.is_empty()).map(|pairs| {
                pairs
                    .iter()
                    .fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
            })
        };
        let mean = |of: fn(&Part) -> &Window| {
            let (sum, count) = engines().fold((0.0, 0), |(sum, count), part| {
                (sum + of(part).sum(), count + of(part).count())
            });
            (count > 0).then(|| sum / count as f64)
        };
        // The second that runs is not whole yet.
        let whole = self.seconds.len().saturating_sub(1);
        View {
            elapsed_sec: now as f64 / 1e9,
            window_sec: now.saturating_sub(self.since.0).clamp(0, SPAN_NS) as f64 / 1e9,
            steps_per_sec: rate(|part| &part.steps),
            tokens_per_sec: rate(|part| &part.tokens),
            tokens_history: self.seconds.iter().take(whole).copied().collect(),
            seqs: pair(|part| part.seqs),
            seq_utilization_pct: mean(|part| &part.seq_use),
            token_utilization_pct: mean(|part| &part.token_use),
            running: all(|part| part.running),
            waiting: all(|part| part.waiting),
            kv_usage_pct: engines().filter_map(|part| part.kv_pct).reduce(f64::max),
            kv_blocks: pair(|part| part.kv_blocks),
            evictions: any.then_some(self.evictions),
            evictions_per_sec: self.evicted.rate(self.since.0, now),
            preemptions: any.then_some(self.preemptions),
            finished: self.finished,
            stages: self.stages(),
            ranks: self.ranks(),
            requests: self.requests(),
            graph_hit_pct: self.graphed.mean(),
            graphs: self.graphs.values().map(graph).collect(),
            events_per_sec: slope(&self.events).unwrap_or(0.0),
            lost: self.lost,
            own_cpu_pct: slope(&self.cpu).map(|part| part * 100.0),
            own_rss_bytes: self.overhead.and_then(|overhead| overhead.tracer_rss_bytes),
            target_stopped_ms: self
                .overhead
                .and_then(|overhead| overhead.target_stopped_ms),
        }
    }

    /// Each stage's time in a step, of the rank on which it takes longest.
    fn stages(&self) -> Vec<Stage> {
        let of = |part: &Part, index: usize| {
            let steps = part.steps.count();
            if steps == 0 {
                return None;
            }
            let sum = |window: &Window| (window.count() > 0).then(|| window.sum());
            let total = sum(&part.stages[index]).or_else(|| {
                let rest = || Some((sum(&part.around)? - part.stages[PREPARE].sum()).max(0.0));
                (index == FORWARD).then(rest).flatten()
            })?;
            Some(total / steps as f64)
        };
        (0..STAGES.len())
            .map(|index| Stage {
                name: STAGES[index].0,
                ms: self
                    .parts
                    .values()
                    .filter_map(|part| of(part, index))
                    .reduce(f64::max),
            })
            .collect()
    }

    fn ranks(&self) -> Vec<Rank> {
        self.roles
            .iter()
            .map(|(pid, (role, engine, rank))| {
                let part = self.parts.get(pid);
                let rate = |of: fn(&Part) -> &Window| {
                    let part = part.filter(|part| part.is_engine || part.is_worker)?;
                    Some(of(part).rate(self.since.0, self.now.0))
                };
                Rank {
                    pid: *pid,
                    role: role.clone(),
                    engine: engine.or_else(|| part?.engine),
                    rank: rank.or_else(|| part?.rank),
                    steps_per_sec: rate(|part| &part.steps),
                    tokens_per_sec: rate(|part| &part.tokens),
                    running: part.and_then(|part| part.running),
                    waiting: part.and_then(|part| part.waiting),
                    kv_usage_pct: part.and_then(|part| part.kv_pct),
                    forward_ms: part.and_then(|part| part.forward.mean()),
                    forward_p99_ms: part.and_then(|part| part.forward.quantile(0.99)),
                }
            })
            .collect()
    }

    fn requests(&self) -> Vec<Request> {
        let live = self.live.iter().map(|((pid, id), live)| Request {
            id: id.clone(),
            state: if live.preempted {
                "preempted"
            } else {
                "running"
            },
            age_sec: live
                .started
                .map(|started| (self.now.0 - started.0) as f64 / 1e9),
            preemptions: live.preemptions,
            pid: *pid,
        });
        let mut requests: Vec<Request> = live.chain(self.slowest.iter().cloned()).collect();
        by_age(&mut requests);
        requests
    }
}

/// The longest first; those whose start is not known last.
fn by_age(requests: &mut [Request]) {
    requests.sort_by(|a, b| {
        let age = |request: &Request| request.age_sec.unwrap_or(-1.0);
        age(b).total_cmp(&age(a)).then_with(|| a.id.cmp(&b.id))
    });
}

fn graph(row: &CudaGraphUse) -> Graph {
    Graph {
        mode: row.runtime_mode.unwrap_or_default().to_owned(),
        size: row.num_tokens,
        replays: row.replay_count,
        padding_pct: row.padding_pct.number(),
    }
}

/// Keeps totals of the latest seconds.
fn keep<T>(totals: &mut VecDeque<(i64, T)>, now: i64, total: T) {
    totals.push_back((now, total));
    while totals.len() > 2
        && totals
            .get(1)
            .is_some_and(|(at, _)| at.saturating_add(SPAN_NS) <= now)
    {
        totals.pop_front();
    }
}

/// Growth of a total a second.
fn slope<T: Copy + Into<Total>>(totals: &VecDeque<(i64, T)>) -> Option<f64> {
    let ((then, before), (now, after)) = (*totals.front()?, *totals.back()?);
    let seconds = now.saturating_sub(then) as f64 / 1e9;
    let (before, after): (Total, Total) = (before.into(), after.into());
    (seconds > 0.0).then(|| (after.0 - before.0) / seconds)
}

/// A total as a number with a point.
struct Total(f64);

impl From<u64> for Total {
    fn from(value: u64) -> Self {
        Self(value as f64)
    }
}

impl From<f64> for Total {
    fn from(value: f64) -> Self {
        Self(value)
    }
}
