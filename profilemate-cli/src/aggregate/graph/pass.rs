//! Forward passes: what their thread did at the driver, and when the GPU was done.
//!
//! A row waits until the call that waited for its last graph has been seen and the next pass of its thread has begun,
//! or [`crate::aggregate::HOLD_NS`].

use std::collections::VecDeque;

use crate::table::cell::Millis;
use crate::table::forward_pass_timing::ForwardPass;

/// Driver calls of one thread remembered since its last pass, at most.
const LOG: usize = 65_536;
/// Passes of a process that wait, at most.
const HELD: usize = 1_024;
/// Waits of a process remembered, at most.
const WAITS: usize = 256;
/// A call that returned sooner did not wait: the GPU was done before, and nobody knows when.
pub const WAITED_NS: u64 = 10_000;

/// One told driver call of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it began.
    pub entry_ns: u64,
    /// When it was told.
    pub ts_ns: u64,
    /// Kernels that the thread had launched by then.
    pub kernels: u64,
    /// What it was.
    pub what: What,
}

/// What a driver call means for a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A graph was launched on this stream.
    Launch(u64),
    /// The thread waited, if the call's end is told for so long.
    Sync(Option<u64>),
    /// Nothing.
    Other,
}

/// The host waited until a stream's work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The stream; `None`: all.
    pub stream: Option<u64>,
    /// What had been launched on it by then was done.
    pub upto_ns: u64,
    /// When the call began.
    pub entry_ns: u64,
    /// When it returned.
    pub end_ns: u64,
}

/// The driver calls of one thread since its last pass.
#[derive(Debug, Default)]
pub struct Log {
    calls: VecDeque<Seen>,
    /// Kernels at the last call that was dropped.
    kernels: Option<u64>,
}

/// What a thread did in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Graphs launched.
    pub launches: u64,
    /// Begin and stream of the first launch.
    pub first: Option<(u64, u64)>,
    /// Begin of the last launch.
    pub last_ns: u64,
    /// Kernels launched outside of graphs.
    pub kernels: Option<u64>,
    /// Time waited before the pass, and in it.
    pub waited_before_ns: u64,
    /// As above.
    pub waited_ns: u64,
    /// Some call waited for an unknown time.
    pub waits_unknown: bool,
}

impl Log {
    /// Takes one call.
    pub fn push(&mut self, seen: Seen) {
        if self.calls.len() == LOG {
            self.kernels = self.calls.pop_front().map(|seen| seen.kernels);
        }
        self.calls.push_back(seen);
    }

    /// A pass ran from `start_ns` to `end_ns`.
    pub fn pass(&mut self, start_ns: u64, end_ns: u64) -> Work {
        let mut work = Work::default();
        let mut kernels = self.kernels;
        while let Some(seen) = self.calls.pop_front() {
            if seen.entry_ns > end_ns {
                self.calls.push_front(seen);
                break;
            }
            let inside = seen.entry_ns >= start_ns;
            if inside {
                work.kernels = kernels.and_then(|before| seen.kernels.checked_sub(before));
            } else {
                kernels = Some(seen.kernels);
            }
            self.kernels = Some(seen.kernels);
            match seen.what {
                What::Launch(stream) if inside => {
                    work.launches += 1;
                    work.first = work.first.or(Some((seen.entry_ns, stream)));
                    work.last_ns = seen.entry_ns;
                }
                What::Sync(waited) => {
                    work.waits_unknown |= waited.is_none();
                    let sum = if inside {
                        &mut work.waited_ns
                    } else {
                        &mut work.waited_before_ns
                    };
                    *sum += waited.unwrap_or(0);
                }
                What::Launch(_) | What::Other => {}
            }
        }
        work
    }

    /// Time that the thread has waited since its last pass.
    fn waited(&self) -> u64 {
        self.calls
            .iter()
            .filter_map(|seen| match seen.what {
                What::Sync(waited) => waited,
                What::Launch(_) | What::Other => None,
            })
            .sum()
    }

    /// A record was lost.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A pass whose row waits.
#[derive(Debug)]
struct Held {
    row: ForwardPass,
    tid: u32,
    end_ns: u64,
    work: Work,
    /// The next pass of its thread has begun.
    followed: bool,
    /// Nothing more will be learned of its time on the GPU.
    settled: bool,
}

/// The passes of a process that wait.
#[derive(Debug, Default)]
pub struct Passes {
    held: VecDeque<Held>,
    waits: VecDeque<Wait>,
}

impl Passes {
    /// A pass of thread `tid` has ended. `syncs`: the calls that wait are told with their ends.
    pub fn push(&mut self, row: ForwardPass, tid: u32, end_ns: u64, work: Work, syncs: bool) {
        for held in self.held.iter_mut().filter(|held| held.tid == tid) {
            if !held.followed {
                held.followed = true;
                add(&mut held.row.sync_wait_ms, work.waited_before_ns);
                if work.waits_unknown {
                    held.row.sync_wait_ms = None;
                }
            }
        }
        let mut held = Held {
            settled: work.first.is_none() || !syncs,
            row,
            tid,
            end_ns,
            work,
            followed: !syncs,
        };
        held.row.sync_wait_ms = (syncs && !work.waits_unknown).then_some(Millis(work.waited_ns));
        for wait in &self.waits {
            held.wait(*wait);
        }
        self.held.push_back(held);
    }

    /// The host has waited for the GPU.
    pub fn wait(&mut self, wait: Wait) {
        for held in &mut self.held {
            held.wait(wait);
        }
        if self.waits.len() == WAITS {
            self.waits.pop_front();
        }
        self.waits.push_back(wait);
    }

    /// Rows that need not wait any longer, and those of passes that ended before `old_ns`, in order. `logs` are the
    /// threads' calls since.
    pub fn release<'l>(
        &mut self,
        old_ns: u64,
        log: impl Fn(u32) -> Option<&'l Log>,
    ) -> Vec<ForwardPass> {
        let mut rows = Vec::new();
        while let Some(first) = self.held.front() {
            let ripe = first.followed && first.settled;
            if !ripe && first.end_ns >= old_ns && self.held.len() <= HELD {
                break;
            }
            let Some(mut held) = self.held.pop_front() else {
                break;
            };
            if !held.followed {
                add(
                    &mut held.row.sync_wait_ms,
                    log(held.tid).map_or(0, Log::waited),
                );
            }
            rows.push(held.row);
        }
        rows
    }

    /// Whether a row waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A record was lost: what comes may not be what was waited for.
    pub fn forget(&mut self) {
        self.waits.clear();
        for held in &mut self.held {
            held.settled = true;
            held.followed = true;
            held.row.sync_wait_ms = None;
        }
    }
}

impl Held {
    fn wait(&mut self, wait: Wait) {
        let Some((first_ns, stream)) = self.work.first else {
            return;
        };
        let later = wait.upto_ns > self.end_ns;
        if self.settled
            || wait.stream.is_some_and(|waited| waited != stream)
            || wait.upto_ns < self.work.last_ns
        {
            return;
        }
        self.settled = true;
        // A call that also waited for a later pass, or did not wait at all, does not show when this one was done.
        if !later && wait.end_ns.saturating_sub(wait.entry_ns) >= WAITED_NS {
            self.row.gpu_time_ms = wait.end_ns.checked_sub(first_ns).map(Millis);
            self.row.gpu_time_source = self.row.gpu_time_ms.map(|_| "sync");
        }
    }
}

fn add(sum: &mut Option<Millis>, ns: u64) {
    if let Some(sum) = sum {
        sum.0 += ns;
    }
}
