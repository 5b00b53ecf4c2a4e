//! `runner.execute_model`: forward passes, joined to the engine's steps.

use std::collections::HashSet;

use super::operation::{Anchor, StepRef};
use super::split::Split;
use super::step::BatchShape;
use super::{Aggregator, Rows, Seen};
use crate::event::Outcome;
use crate::table::cell::{Millis, Real};
use crate::table::forward_pass_timing::ForwardPass;

impl Aggregator {
    /// Gives the step that the pass ran, if it can be joined.
    pub(super) fn execute(&mut self, seen: Seen<'_>, rows: &mut Rows) -> Option<StepRef> {
        let (call, fields) = (seen.call, seen.fields);
        if fields.int("dummy_run") == Some(1) {
            // A warm-up, or an idle rank that keeps step with the others: no batch of the engine.
            self.end_pass(call.pid, call.tid, seen.start_ns(), rows);
            return None;
        }
        let shape = BatchShape::of(fields);
        if let Some(experts) = fields.int("model_experts") {
            self.facts.model_experts = Some(experts);
        }
        if let Some(rank) = fields.int("rank").and_then(|rank| u32::try_from(rank).ok()) {
            self.processes.ranked(call.pid, rank);
        }
        if let Some(multimodal) = fields.int("multimodal") {
            self.facts.multimodal = Some(multimodal == 1);
            self.processes.get_mut(call.pid).multimodal = Some(multimodal == 1);
        }
        let (tokens, seqs) = (shape.tokens, shape.seqs);
        let has_tokens = tokens.is_none_or(|tokens| tokens > 0);
        if has_tokens {
            self.moe.pass(seen.call.pid);
        }
        let joined = if has_tokens {
            self.join(seen, &shape)
        } else {
            None
        };
        let step = joined.map(|(number, _)| StepRef {
            number,
            tokens,
            seqs,
        });
        let anchor = Anchor {
            entry_cycles: call.entry_cycles,
            return_cycles: call.return_cycles,
            step,
        };
        self.operations.anchor(call.pid, call.tid, anchor, false);
        if !has_tokens || call.outcome == Outcome::Raised {
            self.end_pass(call.pid, call.tid, seen.start_ns(), rows);
            return step;
        }
        // The engine knows which requests were resumed; a worker does not.
        let own = || Split::of(fields, Some(&HashSet::new())).and_then(Split::phase);
        let throughput = tokens.zip(seen.duration_ns).filter(|&(_, ns)| ns > 0);
        let row = ForwardPass {
            timestamp_sec: self.stamp(seen.start_ns()),
            phase: joined.and_then(|(_, phase)| phase).or_else(own),
            batch_size: seqs,
            num_tokens: tokens,
            forward_time_ms: seen.duration_ns.map(Millis),
            throughput_tokens_per_sec: throughput
                .map(|(tokens, ns)| Real(tokens as f64 * 1e9 / ns as f64)),
            step: step.map(|step| step.number),
            pid: call.pid,
            rank: self.processes.rank(call.pid),
            ..ForwardPass::default()
        };
        self.pass(row, call.tid, (seen.start_ns(), call.ts_ns), rows);
        step
    }

    /// Number and phase of the step.
    fn join(&mut self, seen: Seen<'_>, shape: &BatchShape) -> Option<(u64, Option<&'static str>)> {
        let pid = seen.call.pid;
        let engine = self.processes.engine_of(pid)?;
        let ran = self.processes.get(pid).and_then(|state| state.ran);
        let after = ran.filter(|ran| ran.0 == engine).map(|ran| ran.1);
        let steps = &mut self.processes.get_mut(engine).steps;
        let (number, phase) = steps
            .join(pid, shape, seen.call.entry_cycles, after)
            .map(|step| (step.number, step.phase))?;
        self.processes.get_mut(pid).ran = Some((engine, number));
        Some((number, phase))
    }
}
