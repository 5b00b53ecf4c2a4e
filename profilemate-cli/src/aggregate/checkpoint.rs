//! What the aggregation knows at one moment, written down, so that a stream can begin there.
//!
//! Kept is what later rows are made of and what no later event tells again: requests and when they started, the latest
//! steps, the graphs behind handles, the length of a cycle, and where the counters stood. Not kept are the ages of KV
//! cache blocks, of which there can be millions, and calls that were under way: these rows have empty cells.

use serde::{Deserialize, Serialize};

use super::Aggregator;
use super::clock::Clock;
use super::graph::exec::Exec;
use super::request::Request;
use super::step::StepLog;
use crate::event::{Counters, Ledger};

/// Requests of one engine that are kept, at most: those seen last.
const REQUESTS: usize = 8_192;
/// Handles of graphs that are kept, at most.
const HANDLES: usize = 65_536;

/// What the aggregation knew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    clock: Clock,
    ledger: Option<Ledger>,
    counters: Vec<Counters>,
    engines: Vec<Engine>,
    graphs: Vec<Graph>,
    model_experts: Option<i64>,
    multimodal: Option<bool>,
    without_stats: bool,
    #[serde(default)]
    draft_limit: Option<i64>,
    /// Requests and graphs that were too many to be kept.
    left_out: u64,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Engine {
    pid: u32,
    step: u64,
    ran: Option<(u32, u64)>,
    steps: StepLog,
    requests: Vec<(String, Request)>,
    pools: Vec<Option<u64>>,
}

/// One kind of CUDA graph of a process, and the handles that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Graph {
    pub(super) pid: u32,
    pub(super) exec: Exec,
    pub(super) handles: Vec<u64>,
}

impl Checkpoint {
    /// Bytes that it takes, about.
    pub fn weight(&self) -> usize {
        const REQUEST: usize = 200;
        const STEP: usize = 1_024;
        const SLOT: usize = 400;
        const GRAPH: usize = 200;
        let engine = |engine: &Engine| engine.requests.len() * REQUEST + 64 * STEP;
        let graph = |graph: &Graph| graph.handles.len() * 8 + GRAPH;
        let slots = self.counters.iter().map(|page| page.slots.len() * SLOT);
        size_of::<Self>()
            + self.engines.iter().map(engine).sum::<usize>()
            + self.graphs.iter().map(graph).sum::<usize>()
            + slots.sum::<usize>()
    }
}

impl Aggregator {
    /// What is known now. Events that wait for others are not in it.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut left_out = 0;
        let processes = self.processes.states().map(|(pid, state)| {
            let (requests, more) = state.requests.latest(REQUESTS);
            left_out += more;
            Engine {
                pid,
                step: state.step,
                ran: state.ran,
                steps: state.steps.clone(),
                requests,
                pools: state.blocks.identities(),
            }
        });
        let engines = processes
            .filter(|engine| engine.step > 0 || engine.ran.is_some() || !engine.requests.is_empty())
            .collect();
        let (graphs, more) = self.graphs.execs.by_kind(HANDLES);
        Checkpoint {
            clock: self.clock,
            ledger: self.facts.ledger_since_start(),
            counters: self.counters.readings(),
            engines,
            graphs,
            model_experts: self.facts.model_experts,
            multimodal: self.facts.multimodal,
            without_stats: self.facts.without_stats,
            draft_limit: self.facts.draft_limit,
            left_out: left_out + more,
        }
    }

    /// Goes on from a checkpoint. The processes and methods are told by notes of their own.
    pub(super) fn resume(&mut self, checkpoint: Checkpoint) {
        self.clock = checkpoint.clock;
        self.facts.count_from(checkpoint.ledger);
        self.counters.count_from(checkpoint.counters);
        for engine in checkpoint.engines {
            let state = self.processes.get_mut(engine.pid);
            state.step = engine.step;
            state.ran = engine.ran;
            state.steps = engine.steps;
            state.requests.put_back(engine.requests);
            for pool in engine.pools {
                state.blocks.get(pool);
            }
        }
        for graph in checkpoint.graphs {
            for handle in graph.handles {
                let exec = graph.exec.clone();
                self.graphs.execs.learn(graph.pid, handle, exec);
            }
        }
        self.facts.model_experts = checkpoint.model_experts;
        self.facts.multimodal = checkpoint.multimodal;
        self.facts.without_stats = checkpoint.without_stats;
        self.facts.draft_limit = checkpoint.draft_limit;
        self.facts.left_out = checkpoint.left_out;
    }
}
