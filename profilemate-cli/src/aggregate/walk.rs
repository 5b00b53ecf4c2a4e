//! Frames that walks of the Python stack found: they name what a driver call is for, and tell forward passes where no
//! method is probed.
//!
//! A frame's records come before the driver call around which they were found, and are joined to it by thread and
//! moment. A pass lasts from the first call with `execute_model` on the stack to the last one. The next pass is told
//! apart by its batch, and by its place in the code: `execute_model` has no loop, so within one pass its frame only
//! moves forward.

use std::collections::{BTreeMap, HashMap};

use profilemate_common::driver::Function;
use profilemate_common::walk::{self, OUTCOME_FOUND, OUTCOME_NO_STATE, OUTCOME_NONE};

use super::fields::Fields;
use super::graph::decision::Decision;
use super::graph::descriptor::Descriptor;
use super::graph::method::encoder;
use super::{Aggregator, Rows};
use crate::event::{DriverCall, Frame, Walk};
use crate::table::forward_pass_timing::ForwardPass;

/// Functions and threads remembered, at most. Their number is the tracer's own; the bound is for damaged captures.
const CAPACITY: usize = 16_384;
/// Frames of one walk, at most.
const FRAMES: usize = 8;

/// What is known from walks.
#[derive(Debug, Default)]
pub(super) struct Walks {
    functions: HashMap<u32, Walk>,
    /// By thread: the frames of its latest walk, which wait for the call that they belong to.
    found: HashMap<(u32, u32), Vec<Frame>>,
    passes: BTreeMap<(u32, u32), Pass>,
    /// By thread: the graph that was launched last outside of a pass.
    outside: HashMap<(u32, u32), Descriptor>,
    pub(super) counts: Counts,
}

/// How the walks ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Walks.
    pub walks: u64,
    /// Walks that found a catalogued frame.
    pub found: u64,
    /// Walks that ended early, by the last such outcome: (walks, outcome).
    pub failed: (u64, u8),
}

/// A forward pass that runs, as far as walks have seen it.
#[derive(Clone, Debug, PartialEq)]
struct Pass {
    batch: Batch,
    instruction: u64,
    first_ns: u64,
    last_ns: u64,
    /// The thread was seen outside of it since.
    left: bool,
    /// The graph that was launched last for it.
    graph: Option<Descriptor>,
}

/// What tells one pass's frame from the next one's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Batch {
    frame: u64,
    output: Option<u64>,
    tokens: Option<i64>,
    seqs: Option<i64>,
    new: Option<i64>,
    computed: Option<i64>,
    dummy: bool,
}

impl Batch {
    fn of(frame: &Frame, fields: Fields<'_>) -> Self {
        Self {
            frame: frame.frame,
            output: fields.address("output"),
            tokens: fields.int("tokens"),
            seqs: fields.int("seqs"),
            new: fields.int("new"),
            computed: fields.int("computed"),
            dummy: fields.int("dummy_run") == Some(1),
        }
    }
}

impl Walks {
    /// A function's frames are told from now on.
    pub(super) fn note(&mut self, walk: Walk) {
        if self.functions.len() < CAPACITY || self.functions.contains_key(&walk.program) {
            self.functions.insert(walk.program, walk);
        }
    }

    /// Whether a pass has not ended yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.passes.is_empty()
    }

    /// A record was lost: it may have been a frame's.
    pub(super) fn forget(&mut self) {
        self.found.clear();
        self.outside.clear();
        for pass in self.passes.values_mut() {
            pass.graph = None;
        }
    }

    /// A graph is launched outside of a pass (a warm-up, or an idle rank that keeps step): the one before.
    fn outside(&mut self, key: (u32, u32), descriptor: Descriptor) -> Option<Descriptor> {
        if self.outside.len() >= CAPACITY {
            self.outside.clear();
        }
        self.outside.insert(key, descriptor)
    }

    fn id(&self, frame: &Frame) -> Option<&str> {
        Some(self.functions.get(&frame.program)?.id.as_str())
    }

    /// Takes out the frames that were found at this call.
    fn take(&mut self, call: &DriverCall) -> Option<Vec<Frame>> {
        let key = (call.pid, call.tid);
        let frames = self.found.get(&key)?;
        let belongs = frames
            .iter()
            .any(|frame| frame.entry_ns == call.entry_ns && frame.function == Some(call.function));
        belongs.then(|| self.found.remove(&key))?
    }

    fn count(&mut self, frame: &Frame) {
        if frame.order > 0 {
            return;
        }
        self.counts.walks += 1;
        match frame.outcome {
            OUTCOME_FOUND => self.counts.found += 1,
            // Threads of C++ launch kernels, too.
            OUTCOME_NONE | OUTCOME_NO_STATE => {}
            outcome => self.counts.failed = (self.counts.failed.0 + 1, outcome),
        }
    }
}

impl Aggregator {
    /// Takes a frame: it waits for its driver call. One at a call that is only counted, or at another C function, stands
    /// for itself.
    pub(super) fn frame(&mut self, frame: &Frame, rows: &mut Rows) {
        self.walks.count(frame);
        if frame.outcome == OUTCOME_FOUND
            && let Some(id) = self.walks.id(frame)
            && let Some(program) = self.programs.get(&frame.program)
        {
            self.facts.told_by(id, program);
        }
        if matches!(frame.function, None | Some(Function::KernelLaunch)) {
            let frames = [frame.clone()];
            self.pass_walked(frame.pid, frame.tid, frame.entry_ns, &frames, rows);
            return;
        }
        let key = (frame.pid, frame.tid);
        if self.walks.found.len() >= CAPACITY && !self.walks.found.contains_key(&key) {
            self.walks.found.clear();
        }
        let found = self.walks.found.entry(key).or_default();
        if found
            .first()
            .is_some_and(|first| first.entry_ns != frame.entry_ns)
        {
            found.clear();
        }
        if found.len() < FRAMES {
            found.push(frame.clone());
        }
    }

    /// Takes what was found around a driver call, before the call itself is taken.
    pub(super) fn walked(&mut self, call: &DriverCall, rows: &mut Rows) {
        let Some(frames) = self.walks.take(call) else {
            return;
        };
        self.pass_walked(call.pid, call.tid, call.entry_ns, &frames, rows);
        match call.function {
            Function::StreamBeginCapture | Function::StreamEndCapture => {
                self.capture_walked(call, &frames);
            }
            Function::GraphLaunch => self.launch_walked(call, &frames, rows),
            _ => {}
        }
    }

    /// The frame with this catalogue id, and its fields.
    fn found<'f>(&'f self, frames: &'f [Frame], id: &str) -> Option<(&'f Frame, Fields<'f>)> {
        let frame = frames
            .iter()
            .filter(|frame| frame.outcome == OUTCOME_FOUND)
            .find(|frame| self.walks.id(frame) == Some(id))?;
        let program = self.programs.get(&frame.program);
        Some((frame, Fields::of_frame(frame, program.map(AsRef::as_ref))))
    }

    /// The graph that the frames tell, of the model or of an encoder.
    fn graph(&self, frames: &[Frame]) -> Option<Descriptor> {
        let of = |id: &str| Descriptor::of(self.found(frames, id)?.1);
        of("frame.graph").or_else(|| of("frame.graph_encoder").map(encoder))
    }

    /// The thread stands in a pass, in the same as before or in another one, or in none.
    fn pass_walked(&mut self, pid: u32, tid: u32, at_ns: u64, frames: &[Frame], rows: &mut Rows) {
        let key = (pid, tid);
        let running = self
            .found(frames, "frame.execute_model")
            .map(|(frame, fields)| (Batch::of(frame, fields), frame.instruction));
        let Some((batch, instruction)) = running else {
            let elsewhere = frames.iter().all(|frame| frame.outcome == OUTCOME_NONE)
                || self.found(frames, "frame.sample").is_some();
            if let Some(pass) = self.walks.passes.get_mut(&key) {
                pass.left |= elsewhere;
            }
            return;
        };
        if let Some(pass) = self.walks.passes.get_mut(&key)
            && !pass.left
            && pass.batch == batch
            && instruction >= pass.instruction
        {
            pass.instruction = instruction;
            pass.last_ns = at_ns;
            return;
        }
        if let Some(before) = self.walks.passes.remove(&key) {
            self.pass_ended(key, &before, rows);
        }
        self.walks.outside.remove(&key);
        if self.walks.passes.len() < CAPACITY {
            let pass = Pass {
                batch,
                instruction,
                first_ns: at_ns,
                last_ns: at_ns,
                left: false,
                graph: None,
            };
            self.walks.passes.insert(key, pass);
        }
    }

    /// A graph is launched: which one, and for how many tokens.
    fn launch_walked(&mut self, call: &DriverCall, frames: &[Frame], rows: &mut Rows) {
        let Some(descriptor) = self.graph(frames) else {
            return;
        };
        let key = (call.pid, call.tid);
        let mut tokens = None;
        let before = match self.walks.passes.get_mut(&key) {
            Some(pass) if !pass.left => {
                tokens = pass.batch.tokens.filter(|_| !pass.batch.dummy);
                pass.graph.replace(descriptor.clone())
            }
            _ => self.walks.outside(key, descriptor.clone()),
        };
        if before.as_ref() != Some(&descriptor) {
            let decision = Decision {
                batch_tokens: tokens.and_then(|tokens| u64::try_from(tokens).ok()),
                descriptor,
                at_ns: call.entry_ns,
                ..Decision::default()
            };
            self.graph_named(call.pid, call.tid, decision, rows);
        }
    }

    /// A capture begins or ends: what it is of, and whether vLLM throws it away.
    fn capture_walked(&mut self, call: &DriverCall, frames: &[Frame]) {
        let hint = self.graph(frames);
        let model = self
            .found(frames, "frame.capture_model")
            .map(|(_, fields)| fields.int("profile_only") == Some(1));
        let profile = self.found(frames, "frame.profile").map(|_| true);
        self.capture_named(call, hint, profile.or(model));
    }

    /// The row of a pass that has ended.
    fn pass_ended(&mut self, (pid, tid): (u32, u32), pass: &Pass, rows: &mut Rows) {
        let batch = &pass.batch;
        if batch.dummy || batch.tokens.is_none_or(|tokens| tokens <= 0) {
            self.end_pass(pid, tid, pass.first_ns, rows);
            return;
        }
        let row = ForwardPass {
            timestamp_sec: self.stamp(pass.first_ns),
            batch_size: batch.seqs,
            num_tokens: batch.tokens,
            pid,
            rank: self.processes.rank(pid),
            ..ForwardPass::default()
        };
        self.pass(row, tid, (pass.first_ns, pass.last_ns), rows);
    }

    /// Passes of which nothing was seen since `old_ns` have ended.
    pub(super) fn expire_walks(&mut self, old_ns: u64, rows: &mut Rows) {
        self.end_passes(rows, |_, pass| pass.left && pass.last_ns < old_ns);
    }

    /// A process has ended (`pid`), or the session (`None`).
    pub(super) fn finish_walks(&mut self, pid: Option<u32>, rows: &mut Rows) {
        self.end_passes(rows, |key, _| pid.is_none_or(|pid| key.0 == pid));
        self.walks
            .found
            .retain(|key, _| pid.is_some_and(|pid| key.0 != pid));
    }

    fn end_passes(&mut self, rows: &mut Rows, ended: impl Fn((u32, u32), &Pass) -> bool) {
        let keys: Vec<(u32, u32)> = self
            .walks
            .passes
            .iter()
            .filter(|(key, pass)| ended(**key, pass))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(pass) = self.walks.passes.remove(&key) {
                self.pass_ended(key, &pass, rows);
            }
        }
    }

    /// What `table` lacks where stacks were walked and no method was probed; `None` for other tables and sessions.
    pub(super) fn walk_gaps(&self, table: &str) -> Option<Vec<String>> {
        let counts = self.walks.counts;
        let missing = match table {
            _ if self.walks.functions.is_empty() => return None,
            "forward_pass_timing" => {
                "passes are seen at driver calls only, by walks of the stack: no duration on the host, phase or step of \
                 the engine, and none that calls no driver function"
            }
            "cuda_graph_captures" => {
                "named by walks of the stack: of piecewise graphs not which piece"
            }
            "cuda_graph_usage" | "cuda_graph_timeline" => {
                "named by walks of the stack at the launches: why a pass ran without a graph is not seen"
            }
            _ => return None,
        };
        let mut gaps = vec![missing.to_owned()];
        let (failed, outcome) = counts.failed;
        if failed > 0 {
            gaps.push(format!(
                "{failed} of {} walks of the stack ended early: {}",
                counts.walks,
                words(outcome)
            ));
        }
        Some(gaps)
    }
}

/// How a walk ended, in plain words.
fn words(outcome: u8) -> &'static str {
    match outcome {
        OUTCOME_NO_STATE => "the thread is not Python's",
        walk::OUTCOME_OTHER_THREAD => "its thread state was not where it was at the attach",
        walk::OUTCOME_FAULT => "memory could not be read",
        walk::OUTCOME_CHANGED => "the stack changed meanwhile",
        walk::OUTCOME_DEEP => "the stack is deeper than is looked",
        _ => "no frame was found",
    }
}
