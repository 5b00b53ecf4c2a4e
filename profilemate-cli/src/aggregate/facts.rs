//! What was learned about the session itself, for metadata and coverage.

use std::collections::{BTreeMap, BTreeSet};

use profilemate_common::page;

use super::fields::{self, Fields};
use crate::event::recorder::{Cost, Shed, Snapshot};
use crate::event::{Call, Ledger, Library, Method, Program, Unread, Value};

/// Entries of each map, at most.
const CAPACITY: usize = 4_096;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Wall clock, RFC 3339.
    pub wall: String,
    /// Why.
    pub reason: String,
}

/// A field that could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defect {
    /// In how many calls.
    pub calls: u64,
    /// The latest status.
    pub status: u8,
}

/// Facts about the session.
#[derive(Debug, Default)]
pub struct Facts {
    /// Processes in which each method's calls are recorded, by catalogue id.
    pub bound: BTreeMap<String, BTreeSet<u32>>,
    /// Methods whose calls are only counted, by catalogue id.
    pub counted: BTreeSet<String>,
    /// Why a method is not bound, by catalogue id and process.
    pub unbound: BTreeMap<(String, u32), String>,
    /// What of the catalogue may not fit a process, and the tables that it concerns (none is all).
    pub doubts: BTreeMap<String, BTreeSet<String>>,
    /// Tables that have nothing to tell from the outset.
    pub not_covered: BTreeMap<String, String>,
    /// Calls seen, by catalogue id.
    pub calls: BTreeMap<String, u64>,
    /// Fields that could not be read, by catalogue id and field.
    pub defects: BTreeMap<(String, String), Defect>,
    /// Fields that nothing reads, of methods that were called and frames that were found: by catalogue id and field.
    pub unread: BTreeMap<(String, String), Unread>,
    /// The CUDA libraries, by index.
    pub libraries: BTreeMap<u16, Library>,
    /// Experts of each of the model's layers that have some, as its configuration has it; 0 if it has none.
    pub model_experts: Option<i64>,
    /// Whether the model takes inputs that an encoder reads.
    pub multimodal: Option<bool>,
    /// Whether vLLM was seen to run without its own statistics.
    pub without_stats: bool,
    /// Tokens that are drafted for a request at most; 0 without speculative decoding.
    pub draft_limit: Option<i64>,
    /// Calls of slots that no note names.
    pub unnamed_calls: u64,
    /// The kernel side's counts, latest: since the stream began.
    pub ledger: Option<Ledger>,
    /// Where these counts stood when the stream began, if it began in the middle of a longer one.
    ledger_base: Ledger,
    /// What the stream was taken for, if it is a flight recorder's snapshot.
    pub snapshot: Option<Snapshot>,
    /// Requests and graphs of which the stream does not tell what was known before it.
    pub left_out: u64,
    /// What tracing costs each process, latest.
    pub costs: BTreeMap<u32, Cost>,
    /// What was recorded no longer because of its cost, or again.
    pub shed: Vec<Shed>,
    /// What tracing cost the process after a change of [`Facts::shed`], in percent, by its index.
    pub after_shed: BTreeMap<usize, f64>,
    /// The end.
    pub ended: Option<Ended>,
}

impl Facts {
    /// Takes the kernel side's counts.
    pub(super) fn count(&mut self, ledger: &Ledger) {
        self.ledger = Some(ledger.since(&self.ledger_base));
    }

    /// The counts to come are told from here on.
    pub(super) fn count_from(&mut self, ledger: Option<Ledger>) {
        self.ledger_base = ledger.unwrap_or_default();
    }

    /// The kernel side's counts as it tells them.
    pub(super) fn ledger_since_start(&self) -> Option<Ledger> {
        Some(self.ledger?.plus(&self.ledger_base))
    }

    /// Takes what a process costs.
    pub(super) fn cost(&mut self, cost: Cost) {
        // The first measurement that began after a change.
        let began = cost.at_ns.saturating_sub(cost.over_ns);
        for (index, shed) in self.shed.iter().enumerate() {
            if shed.pid == cost.pid
                && began >= shed.at_ns
                && let Some(percent) = cost.percent()
            {
                self.after_shed.entry(index).or_insert(percent);
            }
        }
        if self.costs.len() < CAPACITY || self.costs.contains_key(&cost.pid) {
            self.costs.insert(cost.pid, cost);
        }
    }

    /// Something is recorded no longer, or again.
    pub(super) fn shed(&mut self, shed: Shed) {
        if self.shed.len() < CAPACITY {
            self.shed.push(shed);
        }
    }

    pub(super) fn bound(&mut self, method: &Method) {
        if method.mode & page::MODE_TOLD == 0 {
            if self.counted.len() < CAPACITY {
                self.counted.insert(method.id.clone());
            }
            return;
        }
        if self.bound.len() < CAPACITY {
            self.bound
                .entry(method.id.clone())
                .or_default()
                .insert(method.pid);
            self.unbound.remove(&(method.id.clone(), method.pid));
        }
    }

    pub(super) fn unbound(&mut self, pid: u32, method: String, reason: String) {
        if self.unbound.len() < CAPACITY {
            self.unbound.insert((method, pid), reason);
        }
    }

    pub(super) fn doubt(&mut self, tables: Vec<String>, reason: String) {
        if self.doubts.len() < CAPACITY {
            self.doubts.insert(reason, tables.into_iter().collect());
        }
    }

    pub(super) fn not_covered(&mut self, table: String, reason: String) {
        if self.not_covered.len() < CAPACITY {
            self.not_covered.insert(table, reason);
        }
    }

    /// Counts a call and those of its fields that could not be read. The queues of waiting requests stand for one
    /// another, drafts are not always there; both are counted apart ([`Facts::missing`]).
    pub(super) fn call(&mut self, method: &str, fields: Fields<'_>) {
        if let Some(calls) = self.calls.get_mut(method) {
            *calls += 1;
        } else if self.calls.len() < CAPACITY {
            self.calls.insert(method.to_owned(), 1);
        }
        for (name, value) in fields.iter() {
            if let Some(status) = fields::defect(value)
                .filter(|_| !(name.starts_with("waiting") || name.starts_with("spec_")))
            {
                self.defect(method, name, status);
            }
        }
    }

    /// Something of the catalogue id `id` was told by `program`: what that does not read is missing.
    pub(super) fn told_by(&mut self, id: &str, program: &Program) {
        for field in &program.unread {
            // For each call: nothing is copied of what is known.
            let mut known = self.unread.keys();
            let is_new = !known.any(|(of, name)| of == id && *name == field.name);
            if is_new && self.unread.len() < CAPACITY {
                let key = (id.to_owned(), field.name.clone());
                self.unread.insert(key, field.clone());
            }
        }
    }

    /// Fields of a table that nothing reads, each with its catalogue id.
    pub(super) fn unread_of<'a>(
        &'a self,
        table: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Unread)> {
        let feeds = move |field: &Unread| field.tables.iter().any(|name| name == table);
        self.unread
            .iter()
            .filter(move |(_, field)| feeds(field))
            .map(|((id, _), field)| (id.as_str(), field))
    }

    /// A value that several fields together give could not be told.
    pub(super) fn missing(&mut self, method: &str, name: &str, call: &Call, fields: Fields<'_>) {
        if call.fields.is_empty() {
            return;
        }
        let status = match fields.value(name) {
            Some(Value::Absent(status)) => *status,
            _ => profilemate_common::record::STATUS_UNSET,
        };
        self.defect(method, name, status);
    }

    fn defect(&mut self, method: &str, name: &str, status: u8) {
        let key = (method.to_owned(), name.to_owned());
        if self.defects.len() < CAPACITY || self.defects.contains_key(&key) {
            let defect = self.defects.entry(key).or_default();
            defect.calls += 1;
            defect.status = status;
        }
    }
}
