//! How a session stands: what is attached, what may yet be, and why the rest is not.

use super::tracked::Tracked;
use super::tracker::Tracker;
use super::trouble::Trouble;
use crate::cli::Exit;
use crate::cli::args::Touch;
use crate::plan::ProcessPlan;

impl Tracker {
    /// The plan for the processes that are there.
    pub(super) fn plans(&self) -> Vec<ProcessPlan> {
        self.processes
            .iter()
            .map(|(pid, tracked)| ProcessPlan {
                libraries: self.drivers.plans(*pid),
                ..tracked.plan.clone()
            })
            .collect()
    }

    /// Processes that are attached.
    pub(super) fn attached(&self) -> usize {
        self.processes
            .values()
            .filter(|tracked| tracked.attachment.is_some() || tracked.walks.is_some())
            .count()
    }

    /// Why nothing was attached at any time; `None` if something was, or nothing was to be.
    pub(super) fn why_nothing(&self) -> Option<Trouble> {
        if self.next_page > 0 || self.options.touch == Touch::None {
            return None;
        }
        // What says most about the target comes first: a version that is not supported before "not yet".
        let troubles = self.troubles();
        let told = troubles
            .iter()
            .max_by_key(|(_, trouble)| (trouble.exit != Exit::NoTarget, !trouble.passing));
        // Calls of the driver are something, but not what was asked for where methods were refused.
        if self.driver_seen && told.is_none_or(|(_, trouble)| trouble.exit == Exit::NoTarget) {
            return None;
        }
        Some(told.map_or_else(
            || {
                let ended = "the target ended before anything could be attached";
                let refused = self.refused.clone();
                refused.unwrap_or_else(|| Trouble::lasting(Exit::NoTarget, ended))
            },
            |(_, trouble)| trouble.clone(),
        ))
    }

    /// Whether some process may yet be attached.
    pub(super) fn hopeful(&self) -> bool {
        // Beside another tracer there is nothing to wait for.
        let busy = |tracked: &Tracked| {
            let trouble = tracked.trouble.as_ref();
            trouble.is_some_and(|trouble| trouble.exit == Exit::Busy)
        };
        self.drivers.any() && !self.processes.values().any(busy)
            || self.processes.values().any(|tracked| {
                tracked.attachment.is_some()
                    || tracked.walks.is_some()
                    || tracked
                        .trouble
                        .as_ref()
                        .is_none_or(|trouble| trouble.passing)
            })
    }

    /// Whether a young process is there, which is worth frequent polls.
    pub(super) fn young(&self) -> bool {
        let user = !self.options.methods.is_empty();
        self.processes
            .values()
            .any(|tracked| tracked.is_expected(user))
    }

    /// The troubles of the processes that are not attached, the weightiest first.
    pub(super) fn troubles(&self) -> Vec<(u32, Trouble)> {
        let mut troubles: Vec<(u32, Trouble)> = self
            .processes
            .iter()
            .filter_map(|(pid, tracked)| Some((*pid, tracked.trouble.clone()?)))
            .collect();
        troubles.sort_by_key(|(_, trouble)| trouble.passing);
        troubles
    }
}
