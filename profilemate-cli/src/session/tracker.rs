//! Follows the processes of a target: attaches those that can be, when they can be, and lets go of those that end.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::attachment::{Attachment, Context};
use super::budget::{Budget, Seen as Costly};
use super::drivers::Drivers;
use super::late;
use super::look::{self, Ready, Runtime, Wish};
use super::options::Options;
use super::pump::Notes;
use super::sampling;
use super::sight::Sight;
use super::tracked::{Progress, Tracked};
use super::trouble::Trouble;
use super::walks;
use crate::attach::{self, Kernel, Link, PAGES};
use crate::catalog::{Catalog, Method};
use crate::cli::Exit;
use crate::cli::args::Touch;
use crate::event::{Counters, Ledger, Note};
use crate::plan::Technique;
use crate::sys::clock;
use crate::target::process::{self, Seen};
use crate::target::role::{self, Role};
use crate::touch::MarkerPage;

/// An interpreter that cannot be read for so long is not one that is only starting.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often putting back is tried at the end.
const RESTORES: usize = 5;

/// Follows the processes of a target.
pub(super) struct Tracker {
    pub(super) options: Options,
    pub(super) catalog: Catalog,
    kernel: Option<Kernel>,
    links: Vec<Link>,
    pub(super) drivers: Drivers,
    pub(super) driver_seen: bool,
    pub(super) budget: Option<Budget>,
    pub(super) notes: Notes,
    site: u64,
    tree: process::Tree,
    pub(super) processes: BTreeMap<u32, Tracked>,
    /// Why the last process that ended and could not be traced could not.
    pub(super) refused: Option<Trouble>,
    pub(super) next_page: u16,
    next_program: u32,
}

impl Tracker {
    /// A tracker that attaches with `kernel`; without one it only looks (`--dry-run`).
    pub(super) fn new(
        options: Options,
        kernel: Option<Kernel>,
        site: u64,
        drivers: Drivers,
        notes: Notes,
    ) -> Self {
        Self {
            options,
            catalog: Catalog::vllm(),
            kernel,
            links: Vec::new(),
            drivers,
            driver_seen: false,
            budget: None,
            notes,
            site,
            tree: process::Tree::default(),
            processes: BTreeMap::new(),
            refused: None,
            next_page: 0,
            next_program: 0,
        }
    }

    /// Looks at the target's processes once, and does what is due.
    pub(super) fn poll(&mut self) -> Result<Progress, Trouble> {
        let now = Instant::now();
        let mut roots = self.options.roots.clone();
        roots.extend(self.processes.keys());
        let tree = self
            .tree
            .now(&roots)
            .map_err(|error| Trouble::lasting(Exit::Forbidden, super::trouble::chain(&error)))?;
        self.forget_ended(&tree);
        for seen in &tree {
            self.meet(seen, now);
        }
        let due: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, tracked)| tracked.next <= now)
            .map(|(pid, _)| *pid)
            .collect();
        for pid in due {
            self.visit(pid, now);
        }
        self.look_for_drivers();
        Ok(if self.processes.is_empty() {
            Progress::Ended
        } else {
            Progress::Going
        })
    }

    /// Probes the driver functions of the CUDA libraries that have come.
    fn look_for_drivers(&mut self) {
        for (pid, tracked) in &self.processes {
            let kernel = self.kernel.as_mut();
            self.drivers
                .look(*pid, tracked.is_young(), kernel, &self.notes);
        }
        self.driver_seen |= self.drivers.any();
    }

    fn forget_ended(&mut self, tree: &[Seen]) {
        let there: BTreeSet<(u32, u64)> =
            tree.iter().map(|seen| (seen.pid, seen.started)).collect();
        let gone: Vec<u32> = self
            .processes
            .iter()
            .filter(|(pid, tracked)| !there.contains(&(**pid, tracked.seen.started)))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in gone {
            self.drivers.forget(pid);
            if let Some(mut tracked) = self.processes.remove(&pid) {
                log::info!("process {pid} ended");
                self.tell_unsampled(&tracked);
                walks::end(&mut tracked, self.kernel.as_mut());
                let trouble = tracked.trouble.take();
                let lasting =
                    trouble.filter(|told| !told.passing && told.exit == Exit::Unsupported);
                self.refused = lasting.or(self.refused.take());
                if tracked.noted.is_some() {
                    let at_ns = clock::monotonic_ns();
                    self.notes.send(Note::ProcessEnded {
                        pid,
                        at_ns,
                        reason: "it ended".to_owned(),
                    });
                }
            }
        }
    }

    fn meet(&mut self, seen: &Seen, now: Instant) {
        let executable = std::fs::read_link(format!("/proc/{}/exe", seen.pid))
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        let tracked = self
            .processes
            .entry(seen.pid)
            .or_insert_with(|| Tracked::new(seen, now));
        let other = tracked.executable != executable || seen.has_other_program(&tracked.seen);
        tracked.seen = seen.clone();
        // The first look, or another program runs in it now, perhaps of the same file. A process that is ending has no
        // executable any more.
        if !executable.is_empty() && other {
            if !tracked.executable.is_empty() {
                self.drivers.forget(seen.pid);
            }
            walks::end(tracked, self.kernel.as_mut());
            tracked.begin_program(executable, now);
        }
    }

    fn visit(&mut self, pid: u32, now: Instant) {
        let engines = self.engines_below(pid);
        let Some(mut tracked) = self.processes.remove(&pid) else {
            return;
        };
        if self.borrows_memory(&tracked) {
            // What is in it is its parent's; it is looked at once it runs a program of its own.
            self.processes.insert(pid, tracked);
            return;
        }
        if tracked.fresh {
            tracked.fresh = false;
            self.inherit(&mut tracked);
        }
        let wants = tracked.attachment.is_none()
            || !tracked.missing.is_empty()
            || self.may_sample(&tracked);
        if wants
            && tracked
                .trouble
                .as_ref()
                .is_none_or(|trouble| trouble.passing)
        {
            tracked.trouble = self.attach(&mut tracked, engines, now).err();
            if let Some(trouble) = &mut tracked.trouble {
                trouble.passing &= tracked.since.elapsed() < PATIENCE || tracked.runtime.is_some();
                // A debugger that came after us goes again.
                trouble.passing |= tracked.attachment.is_some() && trouble.exit == Exit::Busy;
                if tracked.attachment.is_none() {
                    tracked.plan.technique = if trouble.passing {
                        Technique::Wait(trouble.reason.clone())
                    } else {
                        Technique::None(trouble.reason.clone())
                    };
                }
                log::debug!("process {pid}: {}", trouble.reason);
            }
        }
        tracked.retitle();
        tracked.note(&self.notes);
        tracked.see_modules(now);
        tracked.next = tracked.next_look(now, !self.options.methods.is_empty());
        self.processes.insert(pid, tracked);
    }

    /// Whether a process below `pid` is titled as an engine.
    fn engines_below(&self, pid: u32) -> bool {
        self.processes.values().any(|tracked| {
            let mut above = tracked.seen.parent;
            let engine =
                role::title(&tracked.seen).is_some_and(|title| title.role == Role::EngineCore);
            for _ in 0..16 {
                if above == pid {
                    return engine;
                }
                match self.processes.get(&above) {
                    Some(next) => above = next.seen.parent,
                    None => return false,
                }
            }
            false
        })
    }

    /// Looks at a process, and attaches or binds what can be.
    fn attach(
        &mut self,
        tracked: &mut Tracked,
        engine_below: bool,
        now: Instant,
    ) -> Result<(), Trouble> {
        let pid = tracked.seen.pid;
        let runtime = match &tracked.runtime {
            Some(runtime) => Rc::clone(runtime),
            None => Rc::clone(tracked.runtime.insert(Rc::new(Runtime::open(pid)?))),
        };
        if tracked.attachment.is_none() {
            look::introduce(&runtime, &mut tracked.plan);
        }
        let role = tracked.role(&runtime, engine_below, now)?;
        tracked.plan.role = role;
        let calls = self.kernel.is_some() && self.drivers.probes(pid);
        if walks::wanted(tracked, &runtime, self.options.touch, calls) {
            return self.walk(tracked, &runtime, role);
        }
        let needed = self.needs_helper(&runtime);
        if !needed && self.outgrows_page(tracked, &runtime, role) {
            self.part(tracked)?;
        }
        let first = tracked.attachment.is_none();
        let mut sampled = self.sampling(tracked, role).filter(|_| !tracked.sampled);
        if let Some(sampled) = &sampled {
            // A command that was started with the helper has it bind methods by its plan, and only sample on request.
            if !needed || sampled.0.started {
                self.sample(tracked, sampled)?;
            }
            sampling::instead(&mut tracked.missing, &sampled.1.tell);
        }
        let Some(mut wanted) = self.wanted(tracked, &runtime, role)? else {
            return Ok(());
        };
        if let Some((_, sampling)) = &sampled {
            sampling::instead(&mut wanted, &sampling.tell);
        }
        let mut sight = self.see(tracked, &runtime, &wanted, sampled.as_ref())?;
        let late = self.is_late(&sight, first).then(|| late::entry(&runtime));
        if let Some(entry) = late.transpose()? {
            tracked.plan.late = Some((&entry).into());
            if self.kernel.is_some() {
                late::load(pid, &entry, tracked.plan.late.as_ref())?;
                // Now one waits in it that can sample.
                sampled = self.sampling(tracked, role);
                if let Some((_, sampling)) = &sampled {
                    sampling::instead(&mut wanted, &sampling.tell);
                }
                sight = self.see(tracked, &runtime, &wanted, sampled.as_ref())?;
            }
        }
        let Sight {
            found,
            serves,
            stand_ins,
        } = sight;
        tracked.plan.take(found.plan, role, first);
        tracked.explain();
        tracked.missing = found.missing;
        tracked.keep_absent(found.absent, first, now);
        if found.ready.is_empty() && first {
            return Err(Trouble::passing(Exit::NoTarget, tracked.plan.why_none()));
        }
        let helped = stand_ins.is_some() || serves || tracked.plan.late.is_some();
        tracked.plan.technique = look::technique(&runtime, &self.options, helped);
        self.allowed(tracked)?;
        if first {
            self.begin(tracked)?;
        }
        tracked.sampled |= sampled.is_some();
        tracked.wished = Some(role);
        let bound = self.bind(tracked, &found.ready, stand_ins.is_some());
        self.tell_unbound(tracked);
        if first {
            self.tell_doubt(tracked);
        }
        if let Err(trouble) = &bound {
            // The next look tries again.
            for ready in found.ready {
                self.tell_one_unbound(tracked, &ready.method.id, &trouble.reason);
                tracked.missing.push(ready.method);
            }
        }
        bound
    }

    /// Has the stacks of a process walked, or looks for what was not imported yet.
    fn walk(
        &mut self,
        tracked: &mut Tracked,
        runtime: &Runtime,
        role: Role,
    ) -> Result<(), Trouble> {
        let context = self.kernel.as_mut().map(|kernel| Context {
            kernel,
            links: &mut self.links,
            notes: &self.notes,
            next_program: &mut self.next_program,
            site: self.site,
        });
        let wish = || walks::wish(&self.catalog, &self.options, role, runtime);
        walks::follow(tracked, runtime, wish, context, &mut self.next_page)
    }

    /// Whether it attaches, and does not only look.
    pub(super) fn is_attaching(&self) -> bool {
        self.kernel.is_some()
    }

    /// Methods to look for in a process; `None` if there is nothing new to look for.
    fn wanted(
        &self,
        tracked: &Tracked,
        runtime: &Runtime,
        role: Role,
    ) -> Result<Option<Vec<Method>>, Trouble> {
        if tracked.attachment.is_some() {
            let bare = tracked.has_parents_page() && !self.needs_helper(runtime);
            let any = !bare && look::any_imported(runtime, &tracked.missing);
            return Ok(any.then(|| tracked.missing.clone()));
        }
        let vllm = look::imported_version(runtime);
        match look::wish(&self.catalog, &self.options, role, vllm.as_deref()) {
            Wish::Methods(methods) => Ok(Some(methods)),
            Wish::Later(reason) => Err(Trouble::passing(Exit::NoTarget, reason)),
            Wish::Never(trouble) => Err(trouble),
        }
    }

    /// Whether the planned technique does anything.
    fn allowed(&self, tracked: &Tracked) -> Result<(), Trouble> {
        let Some(reason) = tracked.plan.technique.reason() else {
            return Ok(());
        };
        let waits = matches!(tracked.plan.technique, Technique::Wait(_));
        let exit = if self.options.touch == Touch::None {
            Exit::Done
        } else {
            Exit::Unsupported
        };
        Err(Trouble {
            exit,
            reason: reason.to_owned(),
            hint: None,
            passing: waits && tracked.since.elapsed() < PATIENCE,
        })
    }

    /// Maps (or finds) the marker page of a process and probes it.
    fn begin(&mut self, tracked: &mut Tracked) -> Result<(), Trouble> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        if self.next_page >= PAGES {
            return Err(Trouble::lasting(
                Exit::Failed,
                format!("more than {PAGES} processes are attached"),
            ));
        }
        let held: Vec<&MarkerPage> = self
            .processes
            .values()
            .filter_map(|other| Some(other.attachment.as_ref()?.page()))
            .collect();
        let mut context = Context {
            kernel,
            links: &mut self.links,
            notes: &self.notes,
            next_program: &mut self.next_program,
            site: self.site,
        };
        // Opened anew: an interpreter that was only starting has types now that it had not then.
        let pid = tracked.seen.pid;
        let runtime = Runtime::open(pid)?;
        tracked.attachment = Some(Attachment::begin(
            pid,
            &runtime,
            self.next_page,
            &held,
            &mut context,
        )?);
        self.next_page += 1;
        tracked.note(&self.notes);
        Ok(())
    }

    /// Binds methods to slots of the page.
    fn bind(
        &mut self,
        tracked: &mut Tracked,
        ready: &[Ready],
        stand_ins: bool,
    ) -> Result<(), Trouble> {
        let (Some(kernel), Some(attachment)) = (&mut self.kernel, &mut tracked.attachment) else {
            return Ok(());
        };
        if ready.is_empty() {
            return Ok(());
        }
        let mut context = Context {
            kernel,
            links: &mut self.links,
            notes: &self.notes,
            next_program: &mut self.next_program,
            site: self.site,
        };
        let refused = if stand_ins {
            attachment.bind_stand_ins(ready, &mut context)?
        } else {
            attachment.bind(ready, &mut context)?
        };
        log::info!(
            "process {}: {} methods bound",
            tracked.seen.pid,
            ready.len() - refused.len()
        );
        tracked.plan.refuse(&refused);
        look::warn_of_fields(tracked.seen.pid, ready);
        Ok(())
    }

    /// Lets calls that matter only while graphs can be captured be counted in the processes that are `serving`, and be
    /// recorded in the others.
    pub(super) fn adapt(&mut self, serving: &BTreeSet<u32>) {
        for (pid, tracked) in &mut self.processes {
            if let Some(attachment) = &mut tracked.attachment {
                attachment.adapt(serving.contains(pid), &self.notes);
            }
        }
    }

    /// Puts the pages' counters and the kernel's counts into the stream.
    pub(super) fn report(&mut self) {
        if let Some(kernel) = &mut self.kernel
            && crate::sys::process::in_first_pid_namespace()
        {
            kernel.forget_threads(|tid| !std::path::Path::new(&format!("/proc/{tid}")).exists());
        }
        let at_ns = clock::monotonic_ns();
        let attachments = self.processes.values().map(|tracked| &tracked.attachment);
        let readings: Vec<Counters> = attachments
            .flatten()
            .filter_map(|attachment| attachment.counters(at_ns))
            .collect();
        for counters in &readings {
            self.notes.send(Note::Counters(counters.clone()));
        }
        self.keep_to_budget(at_ns, &readings);
        if let Some(ledger) = self.ledger() {
            self.notes.send(Note::Ledger(ledger));
        }
    }

    /// Sheds what costs more than it may, if there is a budget.
    fn keep_to_budget(&mut self, at_ns: u64, readings: &[Counters]) {
        let (Some(budget), Some(kernel)) = (&mut self.budget, &self.kernel) else {
            return;
        };
        let mut costly: Vec<Costly<'_>> = self
            .processes
            .iter_mut()
            .filter_map(|(pid, tracked)| {
                Some(Costly {
                    pid: *pid,
                    parent: tracked.seen.parent,
                    attachment: tracked.attachment.as_mut()?,
                })
            })
            .collect();
        budget.look(at_ns, readings, &mut costly, kernel, &self.notes);
    }

    /// What tracing costs the process that it costs most, in percent of its steps, if there is a budget.
    pub(super) fn cost_percent(&self) -> Option<f64> {
        self.budget.as_ref()?.latest()
    }

    fn ledger(&self) -> Option<Ledger> {
        match self.kernel.as_ref()?.ledger() {
            Ok(ledger) => Some(ledger),
            Err(error) => {
                log::warn!("{}", super::trouble::chain(&error));
                None
            }
        }
    }

    /// Lets go of everything: events off, pointers back, probes away. Gives what could not be put back.
    pub(super) fn detach(&mut self) -> Vec<(u32, Trouble)> {
        // From here on nothing is recorded that could be shed.
        self.budget = None;
        self.end_sampling();
        for tracked in self.processes.values() {
            if let Some(attachment) = &tracked.attachment {
                attachment.silence();
            }
        }
        let mut troubles = Vec::new();
        for (pid, tracked) in &self.processes {
            if let Some(Err(trouble)) = tracked
                .attachment
                .as_ref()
                .map(|held| held.restore(RESTORES))
            {
                troubles.push((*pid, trouble));
            }
        }
        std::thread::scope(|scope| {
            let links = std::mem::take(&mut self.links);
            scope.spawn(|| attach::detach_all(links));
            self.drivers.detach();
        });
        self.report();
        // Dropping the pages gives their locks back.
        for (pid, tracked) in &mut self.processes {
            tracked.attachment = None;
            walks::end(tracked, self.kernel.as_mut());
            if let Some(serving) = tracked.serving.take()
                && !serving.release()
            {
                log::info!("process {pid}: its helper has yet to put the methods back");
            }
        }
        troubles
    }
}
