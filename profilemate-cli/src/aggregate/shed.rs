//! What it means for rows that methods are recorded no longer, or again.

use super::request::Requests;
use super::{Aggregator, Rows};
use crate::event::recorder::Shed;

impl Aggregator {
    /// Methods of a process are recorded no longer, or again: what was known from their calls is no longer true.
    pub(super) fn shed(&mut self, shed: Shed, rows: &mut Rows) {
        let any = |prefix: &str| shed.methods.iter().any(|id| id.starts_with(prefix));
        let state = self.processes.get_mut(shed.pid);
        if any("block_pool.") {
            state.blocks.forget();
        }
        if any("scheduler.schedule") {
            state.requests = Requests::default();
            state.preempted.clear();
        }
        if any("graph.") {
            self.forget_decisions(shed.pid, rows);
        }
        self.facts.shed(shed);
    }
}

/// What of a table was not recorded all the time because of what it cost, in plain words.
pub(super) fn gaps(shed: &[Shed], table: &str) -> Vec<String> {
    let touched = shed
        .iter()
        .filter(|shed| shed.shed && shed.tables.iter().any(|name| name == table));
    let mut gaps: Vec<String> = touched
        .map(|shed| {
            format!(
                "`{}` was shed for a time: tracing cost process {} more than the budget of {} % \
                 (`budget` in metadata.json has when)",
                shed.rung, shed.pid, shed.budget_pct
            )
        })
        .collect();
    gaps.sort_unstable();
    gaps.dedup();
    gaps
}
