//! Forward passes at the driver: what was decided for them, launched in them and waited for.

use profilemate_common::driver::Function;

use super::decision::Decision;
use super::descriptor::Mode;
use super::pass::Log;
use crate::aggregate::{Aggregator, HOLD_NS, Rows};
use crate::table::forward_pass_timing::ForwardPass;

impl Aggregator {
    /// A forward pass of thread `tid`, from `start_ns` to `end_ns`, has ended; its row follows when it is complete.
    pub(in crate::aggregate) fn pass(
        &mut self,
        mut row: ForwardPass,
        tid: u32,
        (start_ns, end_ns): (u64, u64),
        rows: &mut Rows,
    ) {
        let pid = row.pid;
        let decision = self.end_pass(pid, tid, start_ns, rows);
        if let Some(decision) = &decision {
            row.graph_mode = decision.descriptor.mode.map(Mode::name);
            row.eager_reason = decision.reason;
            if decision.descriptor.mode == Some(Mode::None) {
                let tokens = row.num_tokens.and_then(|tokens| u64::try_from(tokens).ok());
                self.graphs
                    .usage
                    .eager(pid, decision.reason, tokens, start_ns);
            }
        }
        if !self.graphs.is_capturing(pid) {
            self.graphs.windows.close(pid);
        }
        let called = self.graphs.called.contains(&pid);
        let launches = self.is_probed(pid, Function::GraphLaunch, false);
        if !called && !launches {
            rows.put(row);
            return;
        }
        let syncs = [Function::StreamSynchronize, Function::EventSynchronize]
            .iter()
            .any(|&function| self.is_probed(pid, function, true));
        let work = self.graphs.thread(pid, tid).log.pass(start_ns, end_ns);
        row.graph_launches = launches.then_some(work.launches);
        row.kernels = work
            .kernels
            .filter(|_| self.is_probed(pid, Function::KernelLaunch, false));
        let passes = self.graphs.passes.entry(pid).or_default();
        passes.push(row, tid, end_ns, work, syncs);
        self.release_passes(end_ns.saturating_sub(HOLD_NS), rows);
    }

    /// A pass has ended that has no row: what was decided and launched in it is not the next one's.
    pub(in crate::aggregate) fn end_pass(
        &mut self,
        pid: u32,
        tid: u32,
        start_ns: u64,
        rows: &mut Rows,
    ) -> Option<Decision> {
        let (decision, replay) = self.graphs.threads.get_mut(&(pid, tid))?.pass(start_ns);
        if let Some(replay) = replay {
            self.replayed(pid, &replay, rows);
        }
        decision
    }

    pub(super) fn release_passes(&mut self, old_ns: u64, rows: &mut Rows) {
        let threads = &self.graphs.threads;
        for (&pid, passes) in &mut self.graphs.passes {
            let log = |tid| -> Option<&Log> { threads.get(&(pid, tid)).map(|thread| &thread.log) };
            for row in passes.release(old_ns, log) {
                rows.put(row);
            }
        }
    }

    /// Whether calls of a driver function of this process are told (or counted), with their ends if asked.
    fn is_probed(&self, pid: u32, function: Function, ends: bool) -> bool {
        self.facts.libraries.values().any(|library| {
            library.pids.contains(&pid)
                && library
                    .sites
                    .iter()
                    .any(|site| site.function == function as u8 && (site.with_return || !ends))
        })
    }
}
