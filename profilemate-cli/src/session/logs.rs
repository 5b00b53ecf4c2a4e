//! Calls that the pages' logs tell, as records like those of the ring buffer.
//!
//! An entry carries readings of the cycle counter, and thread and process as its process knows them. A record carries
//! the clock's time, and both as this process knows them.

use std::collections::HashMap;

use bytemuck::Zeroable;
use profilemate_common::page::LogEntry;
use profilemate_common::record::{
    CLASS_BARE, KIND_METHOD_LOGGED, MethodCalled, NO_THREAD, PHASE_RETURN,
};

use super::namespace::Names;
use crate::event::{LogLedger, Note};
use crate::sys::clock;
use crate::touch::PageLog;

/// The cycle counter and the clock, read together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    cycles: u64,
    monotonic_ns: u64,
}

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        let before = clock::monotonic_ns();
        let cycles = clock::cycles();
        let after = clock::monotonic_ns();
        Self {
            cycles,
            monotonic_ns: before.midpoint(after),
        }
    }
}

/// The logs of all pages of a session.
pub(super) struct Logs {
    pages: Vec<Log>,
    /// Of each page's slots, to tell results apart by.
    programs: HashMap<(u16, u8), u32>,
    began: Moment,
    records: Vec<MethodCalled>,
    unnamed: u64,
}

struct Log {
    page: u16,
    entries: PageLog,
    names: Names,
}

impl Logs {
    pub(super) fn new() -> Self {
        Self {
            pages: Vec::new(),
            programs: HashMap::new(),
            began: Moment::now(),
            records: Vec::new(),
            unnamed: 0,
        }
    }

    /// Reads the log of a page of process `pid` from now on.
    pub(super) fn add(&mut self, page: u16, pid: u32, entries: PageLog) {
        self.pages.push(Log {
            page,
            entries,
            names: Names::of(pid),
        });
    }

    /// Takes from a note what gives entries their meaning.
    pub(super) fn learn(&mut self, note: &Note) {
        if let Note::Program(program) = note {
            self.programs
                .insert((program.page, program.slot), program.id);
        }
    }

    /// Takes what was logged before `now`; gives how many entries.
    pub(super) fn drain(&mut self, now: Moment) -> usize {
        self.records.clear();
        let cycles = now.cycles.saturating_sub(self.began.cycles).max(1);
        let ns = now.monotonic_ns.saturating_sub(self.began.monotonic_ns);
        let rate = ns as f64 / cycles as f64;
        for log in &mut self.pages {
            let (page, names) = (log.page, &mut log.names);
            let (records, unnamed) = (&mut self.records, &mut self.unnamed);
            let drained = log.entries.drain(now.cycles, |entry| {
                let age = now.cycles.saturating_sub(entry.return_cycles) as f64 * rate;
                let ts_ns = now.monotonic_ns.saturating_sub(age as u64);
                match record(entry, page, ts_ns, names) {
                    Some(record) => records.push(record),
                    None => *unnamed += 1,
                }
            });
            if let Err(error) = drained {
                log::debug!("the log of page {page} cannot be read: {error}");
            }
        }
        self.records.sort_by_key(|record| record.ts_ns);
        self.records.len()
    }

    /// What the latest [`Logs::drain`] took, by time.
    pub(super) fn records(&self) -> impl Iterator<Item = MethodCalled> + '_ {
        self.records.iter().map(|record| MethodCalled {
            program: self
                .programs
                .get(&(record.page, record.slot))
                .copied()
                .unwrap_or(0),
            ..*record
        })
    }

    /// What was taken so far, and what was lost.
    pub(super) fn ledger(&self) -> LogLedger {
        let sum = |of: fn(&PageLog) -> u64| self.pages.iter().map(|log| of(&log.entries)).sum();
        let read: u64 = sum(PageLog::read);
        LogLedger {
            read: read - self.unnamed,
            lost: sum(PageLog::lost) + self.unnamed,
        }
    }
}

/// The record of an entry; `None` if its process is not to be found: it has ended, and was in a pid namespace of its
/// own.
fn record(entry: &LogEntry, page: u16, ts_ns: u64, names: &mut Names) -> Option<MethodCalled> {
    let (inner_tid, inner_pid) = (entry.who as u32, (entry.who >> 32) as u32);
    let pid = names.process(inner_pid)?;
    Some(MethodCalled {
        kind: KIND_METHOD_LOGGED,
        page,
        slot: entry.slot as u8,
        phase: PHASE_RETURN,
        class: CLASS_BARE,
        pid,
        tid: names.thread(pid, inner_tid).unwrap_or(NO_THREAD),
        ts_ns,
        entry_cycles: entry.entry_cycles,
        return_cycles: entry.return_cycles,
        result: entry.result,
        ..MethodCalled::zeroed()
    })
}
