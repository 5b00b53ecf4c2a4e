//! `scheduler.schedule`: one row of batch use and one of KV cache use a call, and what became of the requests.

use std::collections::HashSet;

use super::fields::Fields;
use super::operation::{Anchor, StepRef};
use super::preempt::KV_BLOCKS;
use super::process::ProcessState;
use super::request::Begin;
use super::split::Split;
use super::step::{BatchShape, Step};
use super::{Aggregator, Rows, Seen};
use crate::event::{Outcome, Value};
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Millis, Real, Seconds};
use crate::table::kv_cache_usage::KvCacheUse;
use crate::table::preemption_events::PreemptionEvent;
use crate::table::request_lifecycle::RequestLifecycle;
use profilemate_common::record::STATUS_UNSET;

/// KV cache use at the end of a schedule call. The first block is vLLM's null block and never used.
struct KvUse {
    usage_pct: Option<Real>,
    used: Option<i64>,
    total: Option<i64>,
}

impl KvUse {
    fn of(fields: Fields<'_>) -> Self {
        let total = fields
            .int("blocks")
            .and_then(|blocks| blocks.checked_sub(1))
            .filter(|&total| total > 0);
        let free = fields.int("free_blocks");
        let used = total
            .zip(free)
            .and_then(|(total, free)| total.checked_sub(free))
            .filter(|&used| used >= 0);
        let usage_pct = used
            .zip(total)
            .map(|(used, total)| Real(100.0 * used as f64 / total as f64));
        Self {
            usage_pct,
            used,
            total,
        }
    }
}

impl Aggregator {
    /// Gives the step, if the call made one.
    pub(super) fn schedule(&mut self, seen: Seen<'_>, rows: &mut Rows) -> Option<StepRef> {
        let (call, fields) = (seen.call, seen.fields);
        let mut inside = self.preempts.take_inside(call);
        self.confirm(&mut inside);
        let before = self.preempts.take_before(call);
        for preempt in &before {
            self.preempted(preempt, Some(super::preempt::RESET), None, rows);
        }
        if !matches!(call.outcome, Outcome::Object(_)) {
            for preempt in &inside {
                self.preempted(preempt, Some(KV_BLOCKS), None, rows);
            }
            return None;
        }
        let kv = KvUse::of(fields);
        let state = self.processes.get_mut(call.pid);
        state.step += 1;
        let step = state.step;
        let split = Split::of(fields, resumed_keys(fields, state).as_ref());
        let shape = BatchShape::of(fields);
        let (tokens, seqs) = (shape.tokens, shape.seqs);
        if tokens.is_some_and(|tokens| tokens > 0) {
            state.steps.push(Step {
                number: step,
                shape,
                return_cycles: call.return_cycles,
                phase: split.and_then(Split::phase),
            });
        }
        let pipelined = state.steps.is_pipelined();
        self.state_rows(seen, step, split, &kv, rows);
        self.encoder_evictions(seen, step, rows);
        self.output(seen);
        self.finished(seen, step, kv.usage_pct, rows);
        for preempt in &inside {
            self.preempted(preempt, Some(KV_BLOCKS), Some((step, kv.usage_pct)), rows);
        }
        self.preempted_by_output(seen, step, kv.usage_pct, rows);
        self.begun(seen, step, kv.usage_pct, rows);
        let number = step;
        let step = Some(StepRef {
            number,
            tokens,
            seqs,
        });
        let anchor = Anchor {
            entry_cycles: call.entry_cycles,
            return_cycles: call.return_cycles,
            step,
        };
        self.operations
            .anchor(call.pid, call.tid, anchor, pipelined);
        step
    }

    /// The rows of batch use and of KV cache use.
    fn state_rows(
        &mut self,
        seen: Seen<'_>,
        step: u64,
        split: Option<Split>,
        kv: &KvUse,
        rows: &mut Rows,
    ) {
        let (call, fields) = (seen.call, seen.fields);
        let engine = self
            .processes
            .get(call.pid)
            .and_then(|state| state.info.engine);
        let (running, waiting) = (fields.int("running"), waiting(fields));
        if waiting.is_none() {
            self.facts.missing(&seen.method.id, "waiting", call, fields);
        }
        if fields.ints("cached_outputs").is_none() && fields.ints("resumed_flags").is_some() {
            // Before 0.11.1 nothing tells a chunk of a prompt from a generated token.
            self.facts
                .missing(&seen.method.id, "cached_outputs", call, fields);
        }
        let (seqs, max_seqs) = (fields.int("seqs"), fields.int("max_seqs"));
        let (tokens, max_tokens) = (fields.int("tokens"), fields.int("max_tokens"));
        rows.put(BatchUse {
            timestamp_sec: self.stamp(call.ts_ns),
            num_seqs: seqs,
            max_num_seqs: max_seqs,
            seq_utilization_pct: percent(seqs, max_seqs),
            num_tokens: tokens,
            max_tokens,
            token_utilization_pct: percent(tokens, max_tokens),
            phase: split.and_then(Split::phase),
            running_queue_len: running,
            waiting_queue_len: waiting,
            step,
            prefill_tokens: split.map(|split| split.prefill_tokens),
            decode_tokens: split.map(|split| split.decode_tokens),
            schedule_ms: seen.duration_ns.map(Millis),
            pid: call.pid,
            engine,
        });
        rows.put(KvCacheUse {
            timestamp_sec: self.stamp(call.ts_ns),
            usage_pct: kv.usage_pct,
            num_blocks: kv.used,
            total_blocks: kv.total,
            running,
            waiting,
            pid: call.pid,
            engine,
        });
    }

    /// A row of what happened to a request in this schedule call.
    fn event(
        &self,
        seen: Seen<'_>,
        id: &str,
        event: &'static str,
        step: u64,
        kv: Option<Real>,
    ) -> PreemptionEvent {
        PreemptionEvent {
            timestamp_sec: self.stamp(seen.call.ts_ns),
            request_id: id.to_owned(),
            event,
            step: Some(step),
            kv_usage_pct: kv,
            pid: seen.call.pid,
            engine: self
                .processes
                .get(seen.call.pid)
                .and_then(|state| state.info.engine),
            ..PreemptionEvent::default()
        }
    }

    /// Takes note of the output that the call counted.
    fn output(&mut self, seen: Seen<'_>) {
        let fields = seen.fields;
        let counted = fields
            .addresses("cached_keys")
            .zip(fields.ints("cached_outputs"));
        let whole = counted.filter(|(keys, counts)| keys.len() == counts.len());
        let (keys, counts) = whole.unwrap_or_default();
        let pairs = keys.iter().copied().zip(counts.iter().copied());
        let asynchronous = fields.int("asynchronous").map(|value| value != 0);
        // What was there when the call began is what it counted.
        let began_ns = seen.start_ns();
        let state = self.processes.get_mut(seen.call.pid);
        state.requests.output(pairs, began_ns, asynchronous);
    }

    fn finished(&mut self, seen: Seen<'_>, step: u64, kv: Option<Real>, rows: &mut Rows) {
        let at_ns = seen.call.ts_ns;
        for id in seen.fields.texts_seen("finished_ids") {
            let request = self.processes.get_mut(seen.call.pid).requests.finish(id);
            let since =
                |from: Option<u64>| from.and_then(|from| at_ns.checked_sub(from)).map(Seconds);
            let event = self.event(seen, id, "finished", step, kv);
            let moment = |ns: Option<u64>| ns.map(|ns| self.stamp(ns));
            rows.put(RequestLifecycle {
                request_id: id.clone(),
                started_sec: moment(request.started_ns),
                preempted_sec: moment(request.first_preempted_ns),
                resumed_sec: moment(request.resumed_ns),
                finished_sec: event.timestamp_sec,
                total_time_sec: since(request.started_ns),
                preemption_delay_sec: (request.preemptions > 0)
                    .then_some(Seconds(request.delay_ns)),
                preemptions: request.preemptions,
                pid: seen.call.pid,
                engine: event.engine,
                prefill_time_sec: request
                    .started_ns
                    .zip(request.output.there_ns)
                    .and_then(|(from, to)| to.checked_sub(from))
                    .map(Seconds),
                time_per_output_token_sec: request.output.ns_per_token().map(Seconds),
            });
            rows.put(PreemptionEvent {
                running_time_sec: since(request.running_since_ns),
                ..event
            });
        }
    }

    /// Preemptions that only the scheduler's output tells of: their own call was not probed, or its record was lost.
    fn preempted_by_output(
        &mut self,
        seen: Seen<'_>,
        step: u64,
        kv: Option<Real>,
        rows: &mut Rows,
    ) {
        for id in seen.fields.texts_seen("preempted_ids") {
            let state = self.processes.get_mut(seen.call.pid);
            if state.preempted.contains(id) {
                continue;
            }
            let running = state.requests.preempt(id, seen.call.ts_ns);
            let event = self.event(seen, id, "preempted", step, kv);
            rows.put(PreemptionEvent {
                running_time_sec: running.map(Seconds),
                extra_info: "from the scheduler's output".to_owned(),
                ..event
            });
        }
        self.processes.get_mut(seen.call.pid).preempted.clear();
    }

    fn begun(&mut self, seen: Seen<'_>, step: u64, kv: Option<Real>, rows: &mut Rows) {
        let at_ns = seen.call.ts_ns;
        let flagged = flagged(seen.fields);
        for id in seen.fields.texts_seen("resumed_ids").iter().chain(flagged) {
            self.processes
                .get_mut(seen.call.pid)
                .requests
                .resume(id, at_ns);
            rows.put(self.event(seen, id, "resumed", step, kv));
        }
        let keys = new_keys(seen.fields);
        for (index, id) in seen.fields.texts_seen("new_ids").iter().enumerate() {
            let key = keys.and_then(|keys| keys.get(index).copied());
            let begin = self
                .processes
                .get_mut(seen.call.pid)
                .requests
                .begin(id, key, at_ns);
            let word = match begin {
                Begin::Started => "started",
                Begin::Resumed => "resumed",
            };
            rows.put(self.event(seen, id, word, step, kv));
        }
    }
}

impl BatchShape {
    /// The shape of the batch that a call's fields describe.
    pub(super) fn of(fields: Fields<'_>) -> Self {
        let each = fields
            .pairs("scheduled")
            .map(|pairs| pairs.iter().map(|pair| pair.1).collect());
        Self {
            tokens: fields.int("tokens"),
            seqs: fields.int("seqs"),
            each,
        }
    }
}

/// Resumed requests where a flag for each request tells them (before 0.11.1).
fn flagged(fields: Fields<'_>) -> impl Iterator<Item = &String> {
    let ids = fields.texts_seen("cached_ids");
    let flags = fields.ints("resumed_flags").unwrap_or_default();
    let is_whole = ids.len() == flags.len();
    let flagged = ids
        .iter()
        .zip(flags)
        .filter(move |(_, flag)| is_whole && **flag != 0);
    flagged.map(|(id, _)| id)
}

/// The keys of the new requests, if they are known to stand beside the ids.
fn new_keys(fields: Fields<'_>) -> Option<&[u64]> {
    let keys = fields.addresses("new_keys")?;
    (fields.texts("new_ids")?.len() == keys.len()).then_some(keys)
}

/// The keys of the resumed requests: as the call tells them, else by their ids. `None` if one of them is not known.
fn resumed_keys(fields: Fields<'_>, state: &ProcessState) -> Option<HashSet<u64>> {
    match (fields.value("resumed_keys"), fields.value("resumed_ids")) {
        (None, None) | (Some(Value::None), _) => return Some(HashSet::new()),
        _ => {}
    }
    if let Some(keys) = fields.addresses("resumed_keys") {
        return Some(keys.iter().copied().collect());
    }
    let ids = fields.texts("resumed_ids")?;
    ids.iter().map(|id| state.requests.key(id)).collect()
}

/// Requests that wait, as vLLM's `get_request_counts` sums them. A queue that this version does not have counts
/// nothing; one that cannot be read leaves the sum unknown.
fn waiting(fields: Fields<'_>) -> Option<i64> {
    let mut sum = fields
        .int("waiting")
        .or_else(|| fields.int("waiting_heap"))?;
    for name in ["waiting_skipped", "waiting_kv_holding"] {
        sum = sum.checked_add(match fields.value(name) {
            None | Some(Value::Absent(STATUS_UNSET)) => 0,
            Some(Value::Int(len)) => *len,
            Some(_) => return None,
        })?;
    }
    Some(sum)
}

fn percent(part: Option<i64>, whole: Option<i64>) -> Option<Real> {
    let (part, whole) = (part?, whole?);
    (whole > 0).then(|| Real(100.0 * part as f64 / whole as f64))
}
