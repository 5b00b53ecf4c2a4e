//! What is told of a process that the catalogue does not fit, or may not fit.

use super::look;
use super::tracked::Tracked;
use super::tracker::Tracker;
use crate::event::{Note, Unread};
use crate::plan::{MethodPlan, MethodState};

impl Tracker {
    /// Tells which methods of the catalogue are not bound in a process, as far as that was not told.
    pub(super) fn tell_unbound(&self, tracked: &mut Tracked) {
        let unbound = |method: &MethodPlan| match &method.state {
            MethodState::Unbound(reason) => Some((method.clone(), reason.clone())),
            MethodState::Ready | MethodState::NotImported => None,
        };
        let unbound: Vec<_> = tracked.plan.methods.iter().filter_map(unbound).collect();
        for (method, reason) in unbound {
            if self.tell_one_unbound(tracked, &method.id, &reason) && method.is_users() {
                log::warn!(
                    "process {}: {} is not bound: {reason}",
                    tracked.seen.pid,
                    method.qualname
                );
            }
        }
    }

    /// Tells why a method is not bound; `false` if that was told.
    pub(super) fn tell_one_unbound(&self, tracked: &mut Tracked, id: &str, reason: &str) -> bool {
        let new = (id.to_owned(), reason.to_owned());
        if !tracked.told_unbound.insert(new) {
            return false;
        }
        self.notes.send(Note::Unbound {
            pid: tracked.seen.pid,
            method: id.to_owned(),
            reason: reason.to_owned(),
        });
        true
    }

    /// Tells that the catalogue was not written for a process's vLLM, and what of it does not fit it.
    pub(super) fn tell_doubt(&self, tracked: &Tracked) {
        let (pid, plan) = (tracked.seen.pid, &tracked.plan);
        let vllm = plan.vllm.as_deref();
        let Some(reason) = vllm.and_then(|text| look::doubt(&self.catalog, &self.options, text))
        else {
            return;
        };
        let tell = |tables: Vec<String>, reason: String| {
            log::warn!("process {pid}: {reason}");
            self.notes.send(Note::Doubt {
                pid,
                tables,
                reason,
            });
        };
        tell(Vec::new(), reason);
        for method in plan.methods.iter().filter(|method| !method.is_users()) {
            let tables = self.tables_of(method);
            if tables.is_empty() {
                continue;
            }
            let id = &method.id;
            if let MethodState::Unbound(reason) = &method.state {
                tell(tables.clone(), format!("`{id}` is not bound: {reason}"));
            }
            for (name, path, error) in &method.fields {
                if let Some(reason) = error.clone() {
                    let unread = Unread {
                        name: name.clone(),
                        path: path.clone(),
                        tables: tables.clone(),
                        reason,
                    };
                    tell(tables.clone(), unread.words(id));
                }
            }
        }
    }

    fn tables_of(&self, plan: &MethodPlan) -> Vec<String> {
        let method = self
            .catalog
            .methods
            .iter()
            .find(|method| method.module == plan.module && method.qualname == plan.qualname);
        method.map_or_else(Vec::new, |method| method.tables.clone())
    }
}
