//! Methods with an operation name: one row a call, with the step it belongs to.
//!
//! A call inside a schedule call or forward pass belongs to its step; one that follows belongs to the step before. The
//! call around it ends later, so a row waits for the next schedule call or forward pass of its thread, or
//! [`super::HOLD_NS`].

use std::collections::{HashMap, VecDeque};

use super::cycle::{Begin, Cycles, Rest, Span};
use super::process::Processes;
use super::{Aggregator, Part, Rows, Seen};
use crate::event::Session;
use crate::table::AnyRow;
use crate::table::cell::{Millis, Real, Stamp};
use crate::table::cpu_operations_timing::CpuOperation;
use crate::table::encoder_decoder_timing::EncoderCall;
use crate::table::speculative_decoding::SpeculativeStep;

/// Rows that wait, at most.
const CAPACITY: usize = 16_384;
/// Threads whose latest anchor is remembered, at most.
const THREADS: usize = 16_384;

/// Operation of the rows that tell what no operation does.
const UNATTRIBUTED: &str = "unattributed";

/// A step, as far as a row tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRef {
    /// Its number.
    pub number: u64,
    /// Its tokens.
    pub tokens: Option<i64>,
    /// Its sequences.
    pub seqs: Option<i64>,
}

/// A schedule call or forward pass, to which other calls of its thread are related.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// Cycle counter at its begin.
    pub entry_cycles: u64,
    /// Cycle counter at its end.
    pub return_cycles: u64,
    /// Its step, if it is known.
    pub step: Option<StepRef>,
}

#[derive(Debug)]
enum Step {
    Pending,
    Known(Option<StepRef>),
}

#[derive(Debug)]
struct Held {
    pid: u32,
    tid: u32,
    ts_ns: u64,
    start_ns: u64,
    entry_cycles: u64,
    return_cycles: u64,
    duration_ns: Option<u64>,
    what: What,
    step: Step,
}

/// What becomes a row once its step is known.
#[derive(Debug)]
pub enum What {
    /// An operation, and its own time.
    Operation(String, Option<u64>),
    /// A call around an encoder: component, more about it, items.
    Encoder(&'static str, String, Option<u64>),
    /// A call of the model, which is a row if it has an encoder too.
    Decoder,
    /// Drafts, tokens of drafts, tokens accepted.
    Drafts([Option<u64>; 3]),
}

impl Held {
    /// `None` if there is none to make.
    fn row(self, processes: &Processes, session: &Session) -> Option<AnyRow> {
        let step = match self.step {
            Step::Known(step) => step,
            Step::Pending => None,
        };
        let (pid, rank) = (self.pid, processes.rank(self.pid));
        let timestamp_sec = Stamp::new(self.start_ns, session.started_ns);
        let duration_ms = self.duration_ns.map(Millis);
        let number = step.map(|step| step.number);
        let encoder_call = |component, context, num_items| EncoderCall {
            timestamp_sec,
            component,
            duration_ms,
            context,
            step: number,
            num_items,
            pid,
            rank,
        };
        Some(match self.what {
            What::Operation(operation, own) => CpuOperation {
                timestamp_sec,
                operation,
                duration_ms,
                context: step.map(context).unwrap_or_default(),
                step: number,
                pid,
                rank,
                self_ms: own.map(Millis),
            }
            .into(),
            What::Encoder(component, context, num_items) => {
                encoder_call(component, context, num_items).into()
            }
            What::Decoder => {
                let multimodal = processes.get(pid).and_then(|state| state.multimodal);
                if multimodal != Some(true) {
                    return None;
                }
                encoder_call("decoder", String::new(), None).into()
            }
            What::Drafts([num_drafts, draft_tokens, accepted_tokens]) => SpeculativeStep {
                timestamp_sec,
                step: number,
                num_drafts,
                draft_tokens,
                accepted_tokens,
                acceptance_pct: draft_tokens
                    .zip(accepted_tokens)
                    .filter(|&(drafted, _)| drafted > 0)
                    .map(|(drafted, taken)| Real(100.0 * taken as f64 / drafted as f64)),
                pid,
                engine: processes.get(pid).and_then(|state| state.info.engine),
            }
            .into(),
        })
    }
}

/// A process and a thread of it.
type Thread = (u32, u32);

/// The rows that wait, and the latest anchor of each thread.
#[derive(Debug, Default)]
pub struct Operations {
    held: VecDeque<Held>,
    /// How many have gone from the front of `held`: the number of its first row.
    gone: u64,
    /// The numbers of the rows whose steps are not known, in order, by thread.
    pending: HashMap<Thread, VecDeque<u64>>,
    anchors: HashMap<Thread, Anchor>,
    cycles: Cycles,
}

impl Operations {
    /// A schedule call or forward pass ended. `pipelined`: what follows it on this thread may be of another step.
    pub fn anchor(&mut self, pid: u32, tid: u32, anchor: Anchor, pipelined: bool) {
        let thread = (pid, tid);
        let before = self.anchors.get(&thread).and_then(|before| before.step);
        let (held, gone) = (&mut self.held, self.gone);
        if let Some(pending) = self.pending.get_mut(&thread) {
            pending.retain(|number| {
                let index = number.saturating_sub(gone) as usize;
                let Some(held) = held.get_mut(index) else {
                    return false;
                };
                if held.entry_cycles >= anchor.entry_cycles
                    && held.return_cycles <= anchor.return_cycles
                {
                    held.step = Step::Known(anchor.step);
                } else if held.return_cycles <= anchor.entry_cycles {
                    held.step = Step::Known(before.filter(|_| !pipelined));
                }
                matches!(held.step, Step::Pending)
            });
        }
        if self.anchors.len() >= THREADS {
            self.anchors.clear();
            self.pending.retain(|_, numbers| !numbers.is_empty());
        }
        self.anchors.insert(thread, anchor);
    }

    /// Makes rows of those that need not wait, and of all seen before `old_ns`, in the order of their ends.
    pub fn release(
        &mut self,
        old_ns: u64,
        processes: &Processes,
        session: &Session,
        rows: &mut Rows,
    ) {
        while let Some(first) = self.held.front() {
            if matches!(first.step, Step::Pending)
                && first.ts_ns >= old_ns
                && self.held.len() <= CAPACITY
            {
                break;
            }
            let Some(held) = self.held.pop_front() else {
                break;
            };
            self.forget_pending(&held);
            self.gone += 1;
            if let Some(row) = held.row(processes, session) {
                rows.put(row);
            }
        }
    }

    /// The first row goes. If its step is not known, its number is the first of its thread's.
    fn forget_pending(&mut self, first: &Held) {
        if !matches!(first.step, Step::Pending) {
            return;
        }
        let thread = (first.pid, first.tid);
        if let Some(pending) = self.pending.get_mut(&thread) {
            pending.pop_front();
            if pending.is_empty() {
                self.pending.remove(&thread);
            }
        }
    }

    /// Keeps a row until its step is known.
    fn hold(&mut self, seen: Seen<'_>, what: What, step: Step) {
        if matches!(step, Step::Pending) {
            let number = self.gone + self.held.len() as u64;
            let thread = (seen.call.pid, seen.call.tid);
            self.pending.entry(thread).or_default().push_back(number);
        }
        self.held.push_back(Held {
            pid: seen.call.pid,
            tid: seen.call.tid,
            ts_ns: seen.call.ts_ns,
            start_ns: seen.start_ns(),
            entry_cycles: seen.call.entry_cycles,
            return_cycles: seen.call.return_cycles,
            duration_ns: seen.duration_ns,
            what,
            step,
        });
    }

    /// Keeps a row of a call that belongs to the step around or before it.
    pub(super) fn pend(&mut self, seen: Seen<'_>, what: What) {
        self.hold(seen, what, Step::Pending);
    }

    /// A process has gone.
    pub fn ended(&mut self, pid: u32) {
        self.cycles.forget(pid);
        self.anchors.retain(|thread, _| thread.0 != pid);
        self.pending
            .retain(|thread, numbers| thread.0 != pid || !numbers.is_empty());
    }

    /// The step of the schedule call or forward pass that a call of this thread has within it.
    fn within(&self, thread: (u32, u32), entry: u64, end: u64) -> Option<StepRef> {
        let anchor = self.anchors.get(&thread)?;
        (entry <= anchor.entry_cycles && end >= anchor.return_cycles)
            .then_some(anchor.step)
            .flatten()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn context(step: StepRef) -> String {
    match (step.tokens, step.seqs) {
        (Some(tokens), Some(seqs)) => format!("tokens={tokens} seqs={seqs}"),
        (Some(tokens), None) => format!("tokens={tokens}"),
        (None, Some(seqs)) => format!("seqs={seqs}"),
        (None, None) => String::new(),
    }
}

impl Aggregator {
    /// The row of a call whose method has an operation name; `step` is the call's own, if it made or ran one.
    pub(super) fn operation(
        &mut self,
        seen: Seen<'_>,
        part: Part,
        step: Option<StepRef>,
        rows: &mut Rows,
    ) {
        if let Some(operation) = &seen.method.operation {
            let (call, thread) = (seen.call, (seen.call.pid, seen.call.tid));
            let anchors = matches!(part, Part::Schedule | Part::Execute);
            let span = Span {
                entry: call.entry_cycles,
                end: call.return_cycles,
                start_ns: seen.start_ns(),
                anchor: anchors.then_some(Begin(step)),
            };
            let (own, rest) = self
                .operations
                .cycles
                .ended(thread, span, part == Part::Schedule);
            let within = self.operations.within(thread, span.entry, span.end);
            let step = match (anchors, within) {
                (true, _) => Step::Known(step),
                (false, Some(step)) => Step::Known(Some(step)),
                (false, None) => Step::Pending,
            };
            if let Some(rest) = rest {
                self.unattributed(call.pid, rest, rows);
            }
            let what = What::Operation(operation.clone(), self.clock.nanoseconds(own));
            self.operations.hold(seen, what, step);
        }
        self.operations
            .release(0, &self.processes, &self.session, rows);
    }

    /// The row of what no operation of a cycle tells.
    fn unattributed(&self, pid: u32, rest: Rest, rows: &mut Rows) {
        let time = self.clock.nanoseconds(rest.cycles).map(Millis);
        rows.put(CpuOperation {
            timestamp_sec: self.stamp(rest.start_ns),
            operation: UNATTRIBUTED.to_owned(),
            duration_ms: time,
            context: rest.step.map(context).unwrap_or_default(),
            step: rest.step.map(|step| step.number),
            pid,
            rank: self.processes.rank(pid),
            self_ms: time,
        });
    }
}
