//! `--moe-sample`: the Python helper in a process counts which experts are chosen, also where their ids are in GPU memory.

use super::options::MoeSample;
use super::tracked::Tracked;
use super::tracker::Tracker;
use super::trouble::Trouble;
use crate::catalog::{self, Method, Sampling};
use crate::event::Note;
use crate::helper;
use crate::target::role::Role;
use crate::touch::Resident;

/// Why nothing is sampled where no helper waits.
const NO_HELPER: &str = "`--moe-sample` needs the Python helper, and none waits in the process: add `--touch helper`, \
                         which starts it there, install it for the server's next start (`profilemate helper install \
                         --into VENV`), or start the server with `profilemate trace --moe-sample N -- CMD`";
/// Why nothing is sampled in such a vLLM.
const NO_ROUTER: &str = "`--moe-sample`: no router of this version of vLLM is known";

/// What the user wants sampled, and how that is done in a version of vLLM.
pub(super) type Sampled = (MoeSample, Sampling);

impl Tracker {
    /// Whether routers of a process may yet be sampled: its helper begins to wait when vLLM is imported.
    pub(super) fn may_sample(&self, tracked: &Tracked) -> bool {
        self.wants_samples(tracked.plan.role) && !tracked.sampled && tracked.is_young()
    }

    fn wants_samples(&self, role: Role) -> bool {
        let tables = || catalog::sampling(None).tell.tables;
        self.options.moe_sample.is_some()
            && matches!(role, Role::EngineCore | Role::Worker)
            && tables()
                .iter()
                .any(|table| self.options.wanted.table(table))
    }

    /// What is sampled in a process, if anything shall be and a helper waits in it that can.
    pub(super) fn sampling(&self, tracked: &Tracked, role: Role) -> Option<Sampled> {
        let wish = self
            .options
            .moe_sample
            .filter(|_| self.wants_samples(role))?;
        let version = catalog::release(tracked.plan.vllm.as_deref()?);
        let sampling = catalog::sampling(version.as_ref());
        let waits = || matches!(Resident::find(tracked.seen.pid), Ok(Some(_)));
        let can = !sampling.routers.is_empty() && (tracked.serving.is_some() || waits());
        can.then_some((wish, sampling))
    }

    /// Has the helper in a process sample, unless it was asked already.
    pub(super) fn sample(
        &self,
        tracked: &mut Tracked,
        (wish, sampling): &Sampled,
    ) -> Result<(), Trouble> {
        if tracked.serving.is_some() || !self.is_attaching() {
            return Ok(());
        }
        let pid = tracked.seen.pid;
        if let Ok(Some(resident)) = Resident::find(pid) {
            tracked.serving = Some(helper::bind(resident, &[], Some((wish.every, sampling)))?);
            log::info!("process {pid}: the helper inside samples routers");
        }
        Ok(())
    }

    /// Has the last sums told, while they can still be seen.
    pub(super) fn end_sampling(&self) {
        for (pid, tracked) in &self.processes {
            self.tell_unsampled(tracked);
            let Some(serving) = tracked.serving.as_ref().filter(|_| tracked.sampled) else {
                continue;
            };
            match serving.end_sampling() {
                Ok(None) => {}
                Ok(Some(failure)) => {
                    self.not_sampled(*pid, &format!("sampling ended early: {failure}"));
                }
                Err(error) => log::info!("process {pid}: {}", super::trouble::chain(&error)),
            }
        }
    }

    /// Says of a process whose routers were not sampled why.
    pub(super) fn tell_unsampled(&self, tracked: &Tracked) {
        if tracked.sampled || tracked.attachment.is_none() || !self.wants_samples(tracked.plan.role)
        {
            return;
        }
        let version = tracked.plan.vllm.as_deref().and_then(catalog::release);
        let known = !catalog::sampling(version.as_ref()).routers.is_empty();
        self.not_sampled(tracked.seen.pid, if known { NO_HELPER } else { NO_ROUTER });
    }

    fn not_sampled(&self, pid: u32, reason: &str) {
        log::warn!("process {pid}: {reason}");
        self.notes.send(Note::Doubt {
            pid,
            tables: catalog::sampling(None).tell.tables,
            reason: reason.to_owned(),
        });
    }
}

/// The methods to look for where routers are sampled: the sums take the place of what is read of each call.
pub(super) fn instead(wanted: &mut Vec<Method>, tell: &Method) {
    wanted.retain(|method| method.id != "moe.route");
    if !wanted.iter().any(|method| method.id == tell.id) {
        wanted.push(tell.clone());
    }
}
