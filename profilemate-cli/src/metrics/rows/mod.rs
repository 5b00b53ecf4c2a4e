//! Rows of one server's sessions to numbers. Pure: what time it is comes with the rows.
//!
//! A teller outlives its sessions: counters go on growing when a session ends and another begins. Rows of the tables of
//! totals (`cuda_graph_usage`) begin at 0 with each session, so their growth is added.

mod finding;
mod graph;
mod label;
mod moment;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use finding::WINDOW;
use finding::Window;
use graph::{Graph, Totals};
use label::{UNKNOWN, engine_of, pid, stage};

use super::declare::Id;
use super::registry::{Labels, Registry};
use crate::aggregate::coverage::{Coverage, Status};
use crate::event::Process;
use crate::sink::watch::{Losses, Pulse, Watcher};
use crate::table::AnyRow;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::Cell as _;
use crate::table::cpu_operations_timing::CpuOperation;
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::kv_cache_evictions::KvCacheEviction;
use crate::table::kv_cache_usage::KvCacheUse;
use crate::table::preemption_events::PreemptionEvent;
use crate::table::request_lifecycle::RequestLifecycle;

/// A gap between two schedule calls that is longer than this is idle time and no step, in nanoseconds.
const IDLE_NS: i64 = 1_000_000_000;
/// Rows of processes that are not known yet which are kept until they are, at most.
const PENDING: usize = 10_000;
/// Processes and graphs that are told apart, at most.
const CAPACITY: usize = 16_384;

/// What a server is, as far as its processes do not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Model, by its command line.
    pub model: String,
    /// Pod.
    pub pod: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Container.
    pub container: String,
    /// Root process.
    pub pid: u32,
}

/// Labels of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    engine: String,
    rank: String,
    is_engine: bool,
}

/// Makes numbers of the rows of one server.
pub struct Teller {
    registry: Arc<Registry>,
    server: String,
    about: About,
    parts: BTreeMap<u32, Part>,
    pending: Vec<AnyRow>,
    last_step: BTreeMap<u32, i64>,
    graphs: BTreeMap<Graph, Totals>,
    events: u64,
    losses: Losses,
    info: Vec<String>,
    covered: BTreeSet<&'static str>,
    up: bool,
    began_unix_ns: Option<i64>,
    window: Window,
}

impl Teller {
    /// For the server that is called `server`.
    pub fn new(registry: Arc<Registry>, server: impl Into<String>, about: About) -> Self {
        let mut teller = Self {
            registry,
            server: server.into(),
            about,
            parts: BTreeMap::new(),
            pending: Vec::new(),
            last_step: BTreeMap::new(),
            graphs: BTreeMap::new(),
            events: 0,
            losses: Losses::default(),
            info: Vec::new(),
            covered: BTreeSet::new(),
            up: false,
            began_unix_ns: None,
            window: Window::default(),
        };
        teller.introduce(&[]);
        teller.set_up(false);
        teller
    }

    /// The session is over: what waited is taken as it is, and the next one's totals begin at 0.
    pub fn end_session(&mut self) {
        self.drain();
        self.forget_findings();
        self.last_step.clear();
        self.graphs.clear();
        self.parts.clear();
        self.events = 0;
        self.losses = Losses::default();
        self.registry.remove(Id::OverheadRatio, &self.server);
        self.set_up(false);
    }

    /// The server is gone: its series go too.
    pub fn end(&mut self) {
        self.registry.forget(&self.server);
    }

    fn set_up(&mut self, up: bool) {
        self.up = up;
        let value = if up { 1.0 } else { 0.0 };
        self.registry.set(Id::ServerUp, &[&self.server], value);
    }

    /// Tells what the server is, if that is new.
    fn introduce(&mut self, processes: &[&Process]) {
        let find = |of: fn(&Process) -> Option<&String>| {
            let engines = processes
                .iter()
                .filter(|process| process.role == "engine_core");
            let mut found = engines.chain(processes).filter_map(|process| of(process));
            found.next().cloned().unwrap_or_default()
        };
        let about = &self.about;
        let info = vec![
            self.server.clone(),
            find(|process| process.vllm.as_ref()),
            about.model.clone(),
            find(|process| process.python.as_ref()),
            about.pid.to_string(),
            about.pod.clone(),
            about.namespace.clone(),
            about.container.clone(),
        ];
        if info != self.info {
            self.registry.remove(Id::ServerInfo, &self.server);
            let values: Vec<&str> = info.iter().map(String::as_str).collect();
            self.registry.set(Id::ServerInfo, &values, 1.0);
            self.info = info;
        }
    }

    /// Takes a row of a known process.
    fn take(&mut self, row: &AnyRow) {
        if !matches!(row, AnyRow::CudaGraphUse(_)) {
            self.window.row(row);
        }
        match row {
            AnyRow::BatchUse(row) => self.step(row),
            AnyRow::KvCacheUse(row) => self.cache(row),
            AnyRow::KvCacheEviction(row) => self.eviction(row),
            AnyRow::PreemptionEvent(row) => self.preemption(row),
            AnyRow::RequestLifecycle(row) => self.finished(row),
            AnyRow::ForwardPass(row) => self.forward(row),
            AnyRow::CpuOperation(row) => self.operation(row),
            AnyRow::CudaGraphUse(row) => self.graph(row),
            _ => {}
        }
    }

    /// The label `engine` of a row that names its engine, or of the process that it is of.
    fn engine(&self, named: Option<u32>, pid: u32) -> String {
        match (named, self.parts.get(&pid)) {
            (Some(index), _) => index.to_string(),
            (None, Some(part)) => part.engine.clone(),
            // An engine without an index is the only one, which vLLM calls 0.
            (None, None) => "0".to_owned(),
        }
    }

    fn rank(&self, named: Option<u32>, pid: u32) -> String {
        match (named, self.parts.get(&pid)) {
            (Some(rank), _) => rank.to_string(),
            (None, Some(part)) => part.rank.clone(),
            (None, None) => "0".to_owned(),
        }
    }

    fn step(&mut self, row: &BatchUse) {
        let engine = self.engine(row.engine, row.pid);
        let labels = [self.server.as_str(), &engine];
        let registry = &self.registry;
        let exemplar = || Some(vec![("step", row.step.to_string())]);
        registry.add(Id::Steps, &labels, 1.0);
        if let Some(tokens) = row.num_tokens.filter(|tokens| *tokens >= 0) {
            registry.add(Id::TokensScheduled, &labels, tokens as f64);
            registry.observe(Id::BatchTokens, &labels, tokens as f64, exemplar());
        }
        if let Some(running) = row.running_queue_len {
            registry.set(Id::Running, &labels, running as f64);
        }
        if let Some(waiting) = row.waiting_queue_len {
            registry.set(Id::Waiting, &labels, waiting as f64);
        }
        let at = row.timestamp_sec.0;
        let before = self.last_step.get(&row.pid).map(|before| at - before);
        if let Some(gap) = before.filter(|gap| (0..=IDLE_NS).contains(gap)) {
            registry.observe(Id::StepDuration, &labels, gap as f64 / 1e9, exemplar());
            registry.moment(|| self.step_moment(row, at - gap, &engine));
        }
        if self.last_step.len() < CAPACITY || self.last_step.contains_key(&row.pid) {
            self.last_step.insert(row.pid, at);
        }
    }

    fn cache(&self, row: &KvCacheUse) {
        let engine = self.engine(row.engine, row.pid);
        if let Some(percent) = row.usage_pct.number() {
            let labels = [self.server.as_str(), &engine];
            self.registry.set(Id::KvUsage, &labels, percent / 100.0);
        }
    }

    fn eviction(&self, row: &KvCacheEviction) {
        let engine = self.engine(row.engine, row.pid);
        self.registry
            .add(Id::Evictions, &[&self.server, &engine], 1.0);
    }

    fn preemption(&self, row: &PreemptionEvent) {
        if row.event != "preempted" {
            return;
        }
        let engine = self.engine(row.engine, row.pid);
        let labels = [self.server.as_str(), &engine];
        self.registry.add(Id::Preemptions, &labels, 1.0);
        if let Some(lost) = row.computed_tokens_lost.filter(|lost| *lost >= 0) {
            self.registry.add(Id::Recomputed, &labels, lost as f64);
        }
    }

    fn finished(&self, row: &RequestLifecycle) {
        let engine = self.engine(row.engine, row.pid);
        let labels = [self.server.as_str(), &engine];
        for (id, time) in [
            (Id::RequestDuration, row.total_time_sec),
            (Id::PrefillDuration, row.prefill_time_sec),
            (Id::TimePerToken, row.time_per_output_token_sec),
        ] {
            if let Some(seconds) = time.number() {
                self.registry.observe(id, &labels, seconds, None);
            }
        }
        self.registry.moment(|| self.request_moment(row, &engine));
    }

    fn forward(&self, row: &ForwardPass) {
        let Some(ms) = row.forward_time_ms.number() else {
            return;
        };
        let engine = self.engine(None, row.pid);
        let rank = self.rank(row.rank, row.pid);
        let mode = row.graph_mode.unwrap_or(UNKNOWN);
        let labels = [self.server.as_str(), &engine, &rank, mode];
        let exemplar: Option<Labels> = row.step.map(|step| vec![("step", step.to_string())]);
        self.registry
            .observe(Id::ForwardDuration, &labels, ms / 1e3, exemplar);
    }

    fn operation(&self, row: &CpuOperation) {
        let Some(ms) = row.self_ms.number() else {
            return;
        };
        let engine = self.engine(None, row.pid);
        let labels = [self.server.as_str(), &engine, stage(&row.operation)];
        self.registry.add(Id::StageSeconds, &labels, ms / 1e3);
    }

    /// Takes the rows whose process was not known.
    fn drain(&mut self) {
        for row in std::mem::take(&mut self.pending) {
            self.take(&row);
        }
    }

    fn meet(&mut self, processes: &[&Process]) {
        for process in processes.iter().take(CAPACITY) {
            let part = Part {
                engine: engine_of(process, processes),
                rank: process.rank.unwrap_or(0).to_string(),
                is_engine: process.role == "engine_core",
            };
            self.parts.insert(process.pid, part);
        }
        self.window.meet(processes);
        let there: BTreeSet<u32> = processes.iter().map(|process| process.pid).collect();
        self.parts.retain(|pid, _| there.contains(pid));
        self.last_step.retain(|pid, _| there.contains(pid));
    }

    /// What is covered and has not happened is 0.
    fn zero(&self) {
        let engines = self.parts.values().filter(|part| part.is_engine);
        for part in engines {
            let labels = [self.server.as_str(), &part.engine];
            for id in [
                Id::Steps,
                Id::TokensScheduled,
                Id::Evictions,
                Id::Preemptions,
                Id::Recomputed,
            ] {
                if self.covered.contains(id.metric().table) {
                    self.registry.add(id, &labels, 0.0);
                }
            }
        }
    }

    fn count_losses(&mut self, now: Losses) {
        let before = std::mem::replace(&mut self.losses, now);
        for (kind, now, before) in [
            ("ring", now.ring, before.ring),
            ("driver", now.driver, before.driver),
            ("log", now.log, before.log),
            ("userspace", now.userspace, before.userspace),
            ("undecodable", now.undecodable, before.undecodable),
        ] {
            let labels = [self.server.as_str(), kind];
            let grown = now.saturating_sub(before) as f64;
            self.registry.add(Id::EventsLost, &labels, grown);
        }
    }
}

impl Watcher for Teller {
    fn row(&mut self, row: &AnyRow) {
        let known = pid(row).is_none_or(|pid| self.parts.contains_key(&pid));
        if known {
            self.take(row);
        } else {
            if self.pending.len() >= PENDING {
                self.drain();
            }
            self.pending.push(row.clone());
        }
    }

    fn pulse(&mut self, pulse: &Pulse<'_>) {
        self.began_unix_ns = pulse.began_unix_ns;
        self.meet(&pulse.processes);
        self.introduce(&pulse.processes);
        self.drain();
        let up = pulse
            .processes
            .iter()
            .any(|process| process.technique != "none");
        if up != self.up {
            self.set_up(up);
        }
        let grown = pulse.events.saturating_sub(self.events) as f64;
        self.events = pulse.events;
        self.registry.add(Id::Events, &[&self.server], grown);
        self.count_losses(pulse.losses);
        let ratios = pulse.costs.iter().filter(|cost| cost.base_ns > 0);
        let ratios = ratios.map(|cost| cost.cost_ns as f64 / cost.base_ns as f64);
        if let Some(most) = ratios.max_by(f64::total_cmp) {
            self.registry.set(Id::OverheadRatio, &[&self.server], most);
        }
        self.zero();
        if up {
            self.judge(pulse.now);
        } else {
            self.forget_findings();
        }
    }

    fn covers(&mut self, covers: &[(&'static str, Coverage)]) {
        self.window.covers(covers);
        self.covered = covers
            .iter()
            .filter(|(_, cover)| matches!(cover.status, Status::Observed | Status::Partial))
            .map(|(table, _)| *table)
            .collect();
    }
}

#[cfg(test)]
mod tests;
