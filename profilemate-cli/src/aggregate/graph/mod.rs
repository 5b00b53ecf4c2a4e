//! CUDA graphs: driver calls joined to the methods around and before them.

pub mod capture;
mod coverage;
pub mod decision;
pub mod descriptor;
pub mod exec;
mod forward;
pub mod method;
pub mod pass;
pub mod replay;
pub mod stream;
pub mod thread;
pub mod usage;
pub mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use profilemate_common::driver::Function;

pub(super) use method::Part;

use capture::Capture;
use descriptor::{Descriptor, Mode};
use exec::{Exec, Execs, Source};
use pass::{Passes, Seen as Told, What};
use replay::{Launch, Replay};
use stream::Streams;
use thread::Thread;
use usage::Usage;
use window::{Brackets, Windows};

use super::{Aggregator, Rows};
use crate::event::{DriverCall, Phase};
use crate::table::cell::{Millis, Stamp};
use crate::table::cuda_graph_captures::CudaGraphCapture;
use crate::table::cuda_graph_timeline::CudaGraphReplay;
use crate::table::cuda_graph_usage::CudaGraphUse;

/// Threads remembered, at most; beyond, all are forgotten.
const THREADS: usize = 16_384;

/// What is known of all CUDA graphs of a session.
#[derive(Debug, Default)]
pub struct Graphs {
    threads: BTreeMap<(u32, u32), Thread>,
    streams: HashMap<u32, Streams>,
    passes: BTreeMap<u32, Passes>,
    brackets: HashMap<u32, Brackets>,
    /// Processes of which driver calls were seen.
    called: BTreeSet<u32>,
    pub(super) execs: Execs,
    usage: Usage,
    windows: Windows,
    decisions: u64,
    /// Some decision was made where graphs are not disabled, or where they are.
    enabled: bool,
    disabled: bool,
    /// Captures that no method explained.
    unexplained: u64,
    /// A graph was launched whose making was not seen, and no record had been lost.
    earlier: bool,
}

impl Graphs {
    fn thread(&mut self, pid: u32, tid: u32) -> &mut Thread {
        if self.threads.len() >= THREADS && !self.threads.contains_key(&(pid, tid)) {
            self.threads.clear();
        }
        self.threads.entry((pid, tid)).or_default()
    }

    fn throwaway(&self, pid: u32) -> Option<bool> {
        self.brackets.get(&pid).and_then(Brackets::throwaway)
    }

    fn is_capturing(&self, pid: u32) -> bool {
        self.brackets.get(&pid).is_some_and(Brackets::is_open)
            || self
                .threads
                .range((pid, 0)..=(pid, u32::MAX))
                .any(|(_, thread)| thread.captures.is_capturing())
    }

    /// Whether something waits for a later event.
    pub(super) fn is_waiting(&self) -> bool {
        self.passes.values().any(|passes| !passes.is_empty())
            || self
                .threads
                .values()
                .any(|thread| thread.is_replaying() || thread.captures.is_waiting())
    }
}

impl Aggregator {
    /// The rows of `cuda_graph_usage.csv` as they stand.
    pub fn graph_usage(&self) -> Vec<CudaGraphUse> {
        self.graphs
            .usage
            .rows(&self.processes, self.session.started_ns)
    }

    /// Changes whenever [`Aggregator::graph_usage`] does.
    pub fn graph_usage_revision(&self) -> u64 {
        self.graphs.usage.revision()
    }

    /// Processes in which no graph can be captured now.
    pub fn serving(&self) -> &BTreeSet<u32> {
        self.graphs.windows.serving()
    }

    /// Takes a driver call.
    pub(super) fn driver(&mut self, call: &DriverCall, rows: &mut Rows) {
        self.expire(call.ts_ns.saturating_sub(super::HOLD_NS), rows);
        self.graphs.called.insert(call.pid);
        let (pid, tid) = (call.pid, call.tid);
        let failed = call.result.is_some_and(|result| result != 0);
        let what = match call.function {
            Function::StreamBeginCapture
            | Function::StreamEndCapture
            | Function::GraphInstantiate
            | Function::GraphExecUpdate
            | Function::GraphExecDestroy => {
                self.graph_made(call, failed);
                What::Other
            }
            Function::GraphLaunch if !failed => {
                self.launched(call, rows);
                What::Launch(call.args[1])
            }
            Function::StreamSynchronize
            | Function::EventSynchronize
            | Function::ContextSynchronize => self.waited(call, failed),
            Function::EventRecord => {
                let streams = self.graphs.streams.entry(pid).or_default();
                streams.record(call.args[0], call.args[1]);
                What::Other
            }
            Function::GraphLaunch
            | Function::GraphUpload
            | Function::KernelLaunch
            | Function::CopyAsync
            | Function::CaptureStatus => What::Other,
        };
        self.graphs.thread(pid, tid).log.push(Told {
            entry_ns: call.entry_ns,
            ts_ns: call.ts_ns,
            kernels: call.totals.kernels,
            what,
        });
    }

    /// Captures, instantiations and what ends a graph.
    fn graph_made(&mut self, call: &DriverCall, failed: bool) {
        let (pid, stream) = (call.pid, call.args[0]);
        let throwaway = self.graphs.throwaway(pid);
        let thread = self.graphs.thread(pid, call.tid);
        match call.function {
            Function::StreamBeginCapture if !failed => {
                let clues = thread.clues();
                thread
                    .captures
                    .begin(stream, call.entry_ns, clues, throwaway);
                self.graphs.windows.open(pid);
            }
            Function::StreamEndCapture => {
                let failed = failed || call.out == Some(0);
                let graph = call.out.filter(|_| !failed);
                thread
                    .captures
                    .end(stream, call.ts_ns, graph, failed, throwaway);
            }
            Function::GraphInstantiate if !failed => {
                if let Some(exec) = call.out.filter(|&exec| exec != 0) {
                    self.instantiated(call, call.args[1], exec);
                }
            }
            Function::GraphExecUpdate if !failed => {
                self.instantiated(call, call.args[1], call.args[0]);
            }
            Function::GraphExecDestroy if !failed => self.graphs.execs.forget(pid, call.args[0]),
            _ => {}
        }
    }

    /// `exec` is made of `graph` now. It can be launched before the method around its capture has told more of it.
    fn instantiated(&mut self, call: &DriverCall, graph: u64, exec: u64) {
        let thread = self.graphs.thread(call.pid, call.tid);
        let capture = thread.captures.instantiate(graph, exec);
        match capture.and_then(|capture| capture.clues.exec()) {
            Some(known) => self.graphs.execs.learn(call.pid, exec, known),
            None => self.graphs.execs.forget(call.pid, exec),
        }
    }

    fn launched(&mut self, call: &DriverCall, rows: &mut Rows) {
        let launch = Launch {
            exec: call.args[0],
            entry_ns: call.entry_ns,
            host_ns: (call.phase == Phase::Return)
                .then(|| call.ts_ns.saturating_sub(call.entry_ns)),
        };
        let whole = super::lost(&self.facts.ledger.unwrap_or_default()) == 0;
        let (pid, graphs) = (call.pid, &mut self.graphs);
        graphs
            .streams
            .entry(pid)
            .or_default()
            .launch(call.args[1], call.entry_ns);
        let known = graphs.execs.get(pid, launch.exec).cloned();
        graphs.earlier |= known.is_none() && whole;
        let (ended, learned) = graphs.thread(pid, call.tid).launch(launch, known.as_ref());
        if let Some(learned) = learned.filter(|learned| Some(learned) != known.as_ref()) {
            graphs.execs.learn(pid, launch.exec, learned);
        }
        if let Some(replay) = ended {
            self.replayed(pid, &replay, rows);
        }
    }

    fn waited(&mut self, call: &DriverCall, failed: bool) -> What {
        if call.phase != Phase::Return {
            return What::Sync(None);
        }
        let (entry_ns, end_ns) = (call.entry_ns, call.ts_ns);
        let streams = self.graphs.streams.entry(call.pid).or_default();
        let wait = match call.function {
            Function::StreamSynchronize => streams.stream_waited(call.args[0], entry_ns, end_ns),
            Function::EventSynchronize => streams.event_waited(call.args[0], entry_ns, end_ns),
            _ => streams.all_waited(entry_ns, end_ns),
        };
        if let Some(wait) = wait.filter(|_| !failed) {
            self.graphs.passes.entry(call.pid).or_default().wait(wait);
        }
        What::Sync(Some(end_ns.saturating_sub(entry_ns)))
    }

    /// A replay has ended.
    fn replayed(&mut self, pid: u32, replay: &Replay, rows: &mut Rows) {
        self.graphs.usage.replay(pid, replay);
        if !self.facts.not_covered.contains_key("cuda_graph_timeline") {
            rows.put(CudaGraphReplay {
                timestamp_sec: self.stamp(replay.first_ns),
                descriptor: replay.descriptor.as_ref().map(Descriptor::text),
                duration_ms: replay.host_sum_ns().map(Millis),
                launches: replay.launches(),
                num_tokens: replay.batch_tokens,
                pid,
                rank: self.processes.rank(pid),
            });
        }
    }

    /// The row of a capture; what was captured is remembered for its replays.
    fn captured(
        &mut self,
        pid: u32,
        capture: &Capture,
        told: Option<Exec>,
        module: Option<String>,
        rows: &mut Rows,
    ) {
        let known = told.or_else(|| capture.clues.exec());
        if known.is_none() {
            self.graphs.unexplained += 1;
        }
        if let Some(known) = known
            .as_ref()
            .filter(|_| capture.outcome == capture::Outcome::Captured)
        {
            for &exec in &capture.execs {
                self.graphs.execs.learn(pid, exec, known.clone());
            }
        }
        let descriptor = known
            .as_ref()
            .map(|known| known.descriptor.clone())
            .unwrap_or_default();
        let handles: Vec<String> = capture
            .execs
            .iter()
            .map(|exec| format!("{exec:#x}"))
            .collect();
        rows.put(CudaGraphCapture {
            runtime_mode: descriptor.mode.map(Mode::name),
            num_tokens: descriptor.tokens,
            num_reqs: descriptor.reqs,
            uniform: descriptor.uniform,
            has_lora: descriptor.has_lora,
            capture_time_sec: Some(Stamp::new(capture.end_ns, self.session.started_ns)),
            duration_ms: capture.duration_ns().map(Millis),
            pid,
            rank: self.processes.rank(pid),
            module: module.or(descriptor.part.map(str::to_owned)),
            graph_exec: (!handles.is_empty()).then(|| handles.join(" ")),
            graphs_in_capture: Some(capture.graphs),
            outcome: capture.outcome.name(),
            throwaway: capture.throwaway,
            num_active_loras: descriptor.active_loras,
            uniform_token_count: descriptor.uniform_tokens,
            max_query_len: descriptor.max_query_len,
            num_ubatches: descriptor.ubatches,
            descriptor_source: known.map(|known| match known.source {
                Source::Capture => "method",
                Source::Dispatch => "dispatch",
            }),
        });
    }

    /// Nothing waits that ended before `old_ns`.
    pub(super) fn expire_graphs(&mut self, old_ns: u64, rows: &mut Rows) {
        if !self.graphs.is_waiting() {
            return;
        }
        let mut replays = Vec::new();
        let mut captures = Vec::new();
        for (&(pid, _), thread) in &mut self.graphs.threads {
            replays.extend(thread.replay_before(old_ns).map(|replay| (pid, replay)));
            let unexplained = thread.captures.unexplained(old_ns).into_iter();
            captures.extend(unexplained.map(|capture| (pid, capture)));
        }
        self.settle(&captures, &replays, rows);
        self.release_passes(old_ns, rows);
    }

    /// A process has ended (`pid`), or the session (`None`): nothing waits any longer.
    pub(super) fn finish_graphs(&mut self, ended: Option<(u32, u64)>, rows: &mut Rows) {
        let is_meant = |pid: u32| ended.is_none_or(|(ended, _)| ended == pid);
        let throwaway = ended.and_then(|(pid, _)| self.graphs.throwaway(pid));
        let mut replays = Vec::new();
        let mut captures = Vec::new();
        for (&(pid, _), thread) in &mut self.graphs.threads {
            if is_meant(pid) {
                replays.extend(thread.replay_before(u64::MAX).map(|replay| (pid, replay)));
                let left = thread
                    .captures
                    .take_all(ended.map(|(_, at_ns)| at_ns), throwaway);
                captures.extend(left.into_iter().map(|capture| (pid, capture)));
            }
        }
        self.settle(&captures, &replays, rows);
        let graphs = &mut self.graphs;
        let threads = &graphs.threads;
        for (&pid, passes) in graphs.passes.iter_mut().filter(|(pid, _)| is_meant(**pid)) {
            let log = |tid| threads.get(&(pid, tid)).map(|thread: &Thread| &thread.log);
            for row in passes.release(u64::MAX, log) {
                rows.put(row);
            }
        }
        if let Some((pid, _)) = ended {
            graphs.threads.retain(|key, _| key.0 != pid);
            graphs.streams.remove(&pid);
            graphs.passes.remove(&pid);
            graphs.brackets.remove(&pid);
            graphs.called.remove(&pid);
            graphs.execs.forget_process(pid);
            graphs.windows.open(pid);
        }
    }

    /// A record was lost: a handle may name another graph by now, and what was decided last may not be what follows.
    pub(super) fn forget_graphs(&mut self, rows: &mut Rows) {
        let mut replays = Vec::new();
        for (&(pid, _), thread) in &mut self.graphs.threads {
            replays.extend(thread.forget().map(|replay| (pid, replay)));
        }
        self.settle(&[], &replays, rows);
        self.graphs.execs.forget_all();
        self.graphs.brackets.clear();
        self.graphs.streams.values_mut().for_each(Streams::forget);
        self.graphs.passes.values_mut().for_each(Passes::forget);
    }

    /// Decisions of a process are told no longer, or again: what was decided last is not what follows.
    pub(super) fn forget_decisions(&mut self, pid: u32, rows: &mut Rows) {
        let threads = self.graphs.threads.range_mut((pid, 0)..=(pid, u32::MAX));
        let replays: Vec<_> = threads
            .filter_map(|(_, thread)| Some((pid, thread.forget()?)))
            .collect();
        self.settle(&[], &replays, rows);
    }

    fn settle(&mut self, captures: &[(u32, Capture)], replays: &[(u32, Replay)], rows: &mut Rows) {
        for (pid, capture) in captures {
            self.captured(*pid, capture, None, None, rows);
        }
        for (pid, replay) in replays {
            self.replayed(*pid, replay, rows);
        }
    }
}
