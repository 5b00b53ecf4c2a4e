//! Forked children: what they have of their parents, and when they get a page of their own.

use super::look::{self, Runtime};
use super::tracked::Tracked;
use super::tracker::Tracker;
use super::trouble::Trouble;
use crate::attach::PAGES;
use crate::event::Note;
use crate::plan::{ProcessPlan, Technique};
use crate::sys::{clock, process};
use crate::target::role::Role;

impl Tracker {
    /// Whether a process runs in its parent's memory still: what is found there, and what would be written, is the
    /// parent's.
    pub(super) fn borrows_memory(&self, tracked: &Tracked) -> bool {
        let seen = &tracked.seen;
        let parent = self.processes.get(&seen.parent);
        tracked.attachment.is_none()
            && parent.is_some_and(|parent| !seen.has_other_program(&parent.seen))
            && process::share_memory(seen.pid, seen.parent)
    }

    /// A forked child of an attached process has its page, its probe and the pointers that were redirected by then.
    pub(super) fn inherit(&self, tracked: &mut Tracked) {
        let child = tracked.seen.pid;
        let inherited = self.processes.values().filter_map(|parent| {
            let attachment = parent.attachment.as_ref()?;
            let (attachment, lacking) = attachment.inherited(child).ok()??;
            Some((parent, attachment, lacking))
        });
        // Of a line of forks the latest, whose pointers they are.
        let Some((parent, attachment, lacking)) =
            inherited.max_by_key(|(_, attachment, _)| attachment.bound().len())
        else {
            return;
        };
        log::info!(
            "process {child} was forked from {} and is traced as it is",
            parent.seen.pid
        );
        tracked.plan = ProcessPlan {
            technique: Technique::MethodProbes,
            python: parent.plan.python.clone(),
            interpreter: parent.plan.interpreter.clone(),
            vllm: parent.plan.vllm.clone(),
            methods: parent.plan.methods.clone(),
            ..look::bare_plan(&tracked.seen)
        };
        tracked.missing.clone_from(&parent.missing);
        tracked.missing.extend(lacking);
        tracked.wished = parent.wished;
        tracked.attachment = Some(attachment);
    }

    /// Whether there are methods for a forked child that its parent's page has not. They cannot go into it: what is
    /// read at the calls of a slot is the same for all who have the page.
    pub(super) fn outgrows_page(
        &self,
        tracked: &mut Tracked,
        runtime: &Runtime,
        role: Role,
    ) -> bool {
        if !tracked.has_parents_page() {
            return false;
        }
        let wishes_more = tracked.wished == Some(Role::ApiServer) && role != Role::ApiServer;
        if !wishes_more && !look::any_imported(runtime, &tracked.missing) {
            return false;
        }
        if self.next_page < PAGES {
            return true;
        }
        let reason = format!("more than {PAGES} processes are attached");
        for method in std::mem::take(&mut tracked.missing) {
            self.tell_one_unbound(tracked, &method.id, &reason);
        }
        false
    }

    /// Takes a forked child off its parent's page.
    pub(super) fn part(&self, tracked: &mut Tracked) -> Result<(), Trouble> {
        let Some(attachment) = &tracked.attachment else {
            return Ok(());
        };
        attachment.restore(1)?;
        let at_ns = clock::monotonic_ns();
        if let Some(counters) = attachment.counters(at_ns) {
            self.notes.send(Note::Counters(counters));
        }
        tracked.attachment = None;
        Ok(())
    }
}
