//! `scheduler.preempt`: which request, why, and how much work is lost.

use std::collections::{HashMap, VecDeque};

use super::fields::Fields;
use super::{Aggregator, Rows, Seen};
use crate::event::{Call, Outcome};
use crate::table::cell::{Real, Seconds};
use crate::table::preemption_events::PreemptionEvent;

/// Reason of a preemption inside a schedule call.
pub(super) const KV_BLOCKS: &str = "kv_blocks_exhausted";
/// Reason of one outside.
pub(super) const RESET: &str = "reset_prefix_cache";
/// The method whose calls inside of a schedule call are preemptions where the scheduler has none for it: before 0.12.0
/// it frees the blocks of a request, and only of one that it preempts.
const IMPLIED_BY: &str = "KVCacheManager.free";
/// Preemptions, or their beginnings, that wait, at most.
const CAPACITY: usize = 8_192;

/// A preemption that waits for the schedule call around it to end.
#[derive(Clone, Debug)]
pub(super) struct Preempt {
    pid: u32,
    tid: u32,
    ts_ns: u64,
    entry_cycles: u64,
    return_cycles: u64,
    request_id: String,
    computed_tokens: Option<i64>,
    preemptions: Option<i64>,
    running_ns: Option<u64>,
    /// It is a preemption only if a schedule call turns out to be around it.
    implied: bool,
}

/// The preemptions that wait.
#[derive(Debug, Default)]
pub(super) struct Preempts {
    held: VecDeque<Preempt>,
    entries: HashMap<(u32, u32), (u64, Option<i64>)>,
}

impl Preempts {
    /// A preemption begins; its request still has what it has computed.
    pub(super) fn entry(&mut self, call: &Call, fields: Fields<'_>) {
        if self.entries.len() >= CAPACITY {
            self.entries.clear();
        }
        self.entries.insert(
            (call.pid, call.tid),
            (call.entry_cycles, fields.int("computed_tokens")),
        );
    }

    /// Those inside the schedule call, on its thread.
    pub(super) fn take_inside(&mut self, schedule: &Call) -> Vec<Preempt> {
        self.take(|held| {
            held.pid == schedule.pid
                && held.tid == schedule.tid
                && held.entry_cycles >= schedule.entry_cycles
                && held.return_cycles <= schedule.return_cycles
        })
    }

    /// Those before the schedule call, in its process.
    pub(super) fn take_before(&mut self, schedule: &Call) -> Vec<Preempt> {
        self.take(|held| held.pid == schedule.pid && held.return_cycles <= schedule.entry_cycles)
    }

    /// Those seen before `old_ns`.
    pub(super) fn take_older(&mut self, old_ns: u64) -> Vec<Preempt> {
        if self.held.front().is_none_or(|held| held.ts_ns >= old_ns) {
            return Vec::new();
        }
        self.take(|held| held.ts_ns < old_ns)
    }

    /// All.
    pub(super) fn take_all(&mut self) -> Vec<Preempt> {
        self.held.drain(..).collect()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn take(&mut self, wanted: impl Fn(&Preempt) -> bool) -> Vec<Preempt> {
        let (taken, left): (VecDeque<_>, VecDeque<_>) = self.held.drain(..).partition(wanted);
        self.held = left;
        taken.into()
    }
}

impl Aggregator {
    /// A preemption ended: it waits for the schedule call around it.
    pub(super) fn preempt(&mut self, seen: Seen<'_>, rows: &mut Rows) {
        let (call, fields) = (seen.call, seen.fields);
        let entry = self.preempts.entries.remove(&(call.pid, call.tid));
        if call.outcome == Outcome::Raised {
            return;
        }
        let computed_tokens = entry
            .filter(|entry| entry.0 == call.entry_cycles)
            .and_then(|entry| entry.1);
        let request_id = fields.text("request_id").unwrap_or_default().to_owned();
        let implied = seen.method.qualname == IMPLIED_BY;
        let mut running_ns = None;
        if !request_id.is_empty() && !implied {
            let state = self.processes.get_mut(call.pid);
            running_ns = state.requests.preempt(&request_id, call.ts_ns);
            state.preempted.insert(request_id.clone());
        }
        self.preempts.held.push_back(Preempt {
            pid: call.pid,
            tid: call.tid,
            ts_ns: call.ts_ns,
            entry_cycles: call.entry_cycles,
            return_cycles: call.return_cycles,
            request_id,
            computed_tokens,
            preemptions: fields.int("num_preemptions"),
            running_ns,
            implied,
        });
        if self.preempts.held.len() > CAPACITY {
            for preempt in self.preempts.take_all() {
                self.preempted(&preempt, None, None, rows);
            }
        }
    }

    /// What was held inside of a schedule call is a preemption, also if only that implies it.
    pub(super) fn confirm(&mut self, inside: &mut [Preempt]) {
        for preempt in inside.iter_mut().filter(|preempt| preempt.implied) {
            preempt.implied = false;
            if preempt.request_id.is_empty() {
                continue;
            }
            let state = self.processes.get_mut(preempt.pid);
            preempt.running_ns = state.requests.preempt(&preempt.request_id, preempt.ts_ns);
            state.preempted.insert(preempt.request_id.clone());
        }
    }

    /// The row of a preemption, once its reason is known, or is not to be known.
    pub(super) fn preempted(
        &self,
        preempt: &Preempt,
        reason: Option<&'static str>,
        step: Option<(u64, Option<Real>)>,
        rows: &mut Rows,
    ) {
        if preempt.implied {
            // No schedule call was around it: a request came to its end.
            return;
        }
        rows.put(PreemptionEvent {
            timestamp_sec: self.stamp(preempt.ts_ns),
            request_id: preempt.request_id.clone(),
            event: "preempted",
            reason,
            running_time_sec: preempt.running_ns.map(Seconds),
            extra_info: preempt
                .preemptions
                .map(|count| format!("num_preemptions={count}"))
                .unwrap_or_default(),
            step: step.map(|step| step.0),
            kv_usage_pct: step.and_then(|step| step.1),
            computed_tokens_lost: preempt.computed_tokens,
            pid: preempt.pid,
            engine: self
                .processes
                .get(preempt.pid)
                .and_then(|state| state.info.engine),
        });
    }
}
