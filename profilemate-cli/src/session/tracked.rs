//! One process of the target, and where the tracker stands with it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::attachment::Attachment;
use super::imports::Imports;
use super::look::{self, Runtime};
use super::pump::Notes;
use super::trouble::Trouble;
use super::walks::Walks;
use crate::catalog::Method;
use crate::cli::Exit;
use crate::event::{self, Note};
use crate::plan::{MethodState, ProcessPlan};
use crate::target::process::Seen;
use crate::target::role::{self, Role};
use crate::touch::Serving;

/// A process younger than this is looked at with every poll; an older one every second.
const YOUNG: Duration = Duration::from_mins(2);
/// Time between two looks at an older process.
const SELDOM: Duration = Duration::from_secs(1);
/// Time between two looks at an attached process that lacks some methods yet.
const LACKING: Duration = Duration::from_millis(300);
/// A process that has imported nothing for so long is not importing just now: an attached one, and one of which the
/// start may still be slow.
const IMPORTED: Duration = Duration::from_secs(3);
const IMPORTING: Duration = Duration::from_secs(10);
/// A main process that has imported the scheduler and has had no engine process for so long runs the engine itself.
const SETTLED: Duration = Duration::from_mins(1);

/// An engine that has not imported its scheduler for so long has failed to start. Loading and compiling a model takes
/// minutes, and the scheduler comes last, shortly before the first step.
const SLOW_START: Duration = Duration::from_mins(30);
/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Processes are attached, or may yet be.
    Going,
    /// No process of the target is left.
    Ended,
}

/// One process and where we stand with it.
pub(super) struct Tracked {
    pub(super) seen: Seen,
    pub(super) executable: String,
    pub(super) since: Instant,
    /// Not visited yet since it appeared or another program was started in it.
    pub(super) fresh: bool,
    /// It ran for long before it was first seen: what it imports it has imported.
    pub(super) grown: bool,
    pub(super) next: Instant,
    /// Modules that it had imported at the last look, and since when it has had as many.
    modules: Option<(u64, Instant)>,
    pub(super) runtime: Option<Rc<Runtime>>,
    pub(super) scheduler_since: Option<Instant>,
    pub(super) attachment: Option<Attachment>,
    /// The walks of its stacks, where nothing is written into it.
    pub(super) walks: Option<Walks>,
    /// The helper inside that binds methods for us.
    pub(super) serving: Option<Serving>,
    /// Its routers are sampled.
    pub(super) sampled: bool,
    pub(super) missing: Vec<Method>,
    /// Modules that lack methods.
    imports: Imports,
    /// The part in vLLM for which methods were looked for.
    pub(super) wished: Option<Role>,
    /// What was told of methods that are not bound: catalogue id and reason.
    pub(super) told_unbound: BTreeSet<(String, String)>,
    pub(super) plan: ProcessPlan,
    pub(super) trouble: Option<Trouble>,
    pub(super) noted: Option<event::Process>,
}

impl Tracked {
    pub(super) fn new(seen: &Seen, now: Instant) -> Self {
        Self {
            seen: seen.clone(),
            executable: String::new(),
            since: now,
            fresh: true,
            grown: seen.age().is_some_and(|age| age > YOUNG),
            next: now,
            runtime: None,
            scheduler_since: None,
            attachment: None,
            walks: None,
            serving: None,
            sampled: false,
            modules: None,
            missing: Vec::new(),
            imports: Imports::default(),
            wished: None,
            told_unbound: BTreeSet::new(),
            plan: look::bare_plan(seen),
            trouble: None,
            noted: None,
        }
    }

    /// A program begins in it: nothing that was known of it holds any more.
    pub(super) fn begin_program(&mut self, executable: String, now: Instant) {
        self.executable = executable;
        self.runtime = None;
        self.trouble = None;
        self.attachment = None;
        self.serving = None;
        self.sampled = false;
        self.scheduler_since = None;
        self.missing.clear();
        self.modules = None;
        self.imports.clear();
        self.wished = None;
        self.told_unbound.clear();
        self.since = now;
        self.grown &= self.fresh;
        self.fresh = true;
        self.next = now;
    }

    /// Keeps looking for methods that their modules lack for as long as these may be being imported.
    pub(super) fn keep_absent(&mut self, absent: Vec<Method>, first: bool, now: Instant) {
        if first && self.grown {
            return;
        }
        for method in absent {
            if self.imports.may_define(&method.module, now) {
                self.missing.push(method);
            }
        }
    }

    /// Whether its page is that of the parent that forked it.
    pub(super) fn has_parents_page(&self) -> bool {
        let attachment = self.attachment.as_ref();
        attachment.is_some_and(Attachment::is_inherited)
    }

    /// Part in vLLM: by title, else by what is imported and who is below.
    pub(super) fn role(
        &mut self,
        runtime: &Runtime,
        engine_below: bool,
        now: Instant,
    ) -> Result<Role, Trouble> {
        if let Some(title) = role::title(&self.seen) {
            return Ok(title.role);
        }
        if engine_below {
            return Ok(Role::ApiServer);
        }
        let role = look::role_by_modules(runtime);
        if look::imported_version(runtime).is_none() {
            return Ok(role);
        }
        // Front ends import the scheduler too. One that starts an engine process does it soon.
        let since = *self.scheduler_since.get_or_insert(now);
        let settled =
            now.duration_since(since) > SETTLED || self.seen.age().is_some_and(|age| age > SETTLED);
        if !settled && !role::is_child(&self.seen) && !role::forbids_engine_process(self.seen.pid) {
            return Err(Trouble::passing(
                Exit::NoTarget,
                "it may be a front end whose engine process is yet to come",
            ));
        }
        Ok(role)
    }

    /// Says of each method that the helper inside has not bound why, in its own words.
    pub(super) fn explain(&mut self) {
        let Some(serving) = &self.serving else {
            return;
        };
        for told in serving.refused() {
            let reason = told.reason.unwrap_or_default();
            let method = self.plan.methods.iter_mut().find(|method| {
                method.module == told.module && Some(&method.qualname) == told.qualname.as_ref()
            });
            if let Some(method) = method {
                log::info!(
                    "process {}: the helper left {} alone: {reason}",
                    self.seen.pid,
                    method.qualname
                );
                method.state = MethodState::Unbound(format!("the helper left it alone: {reason}"));
            }
        }
    }

    /// A process gets its title some time after its start.
    pub(super) fn retitle(&mut self) {
        let bare = look::bare_plan(&self.seen);
        if bare.role != Role::Other {
            self.plan.title = bare.title;
            self.plan.role = bare.role;
            self.plan.engine = bare.engine;
            self.plan.rank = bare.rank;
        }
    }

    /// Tells the stream about the process, if there is something new.
    pub(super) fn note(&mut self, notes: &Notes) {
        let plan = &self.plan;
        let note = event::Process {
            pid: self.seen.pid,
            parent: self.seen.parent,
            role: plan.role.name().to_owned(),
            engine: plan.engine,
            rank: plan.rank,
            title: plan.title.clone(),
            python: plan.python.clone(),
            vllm: plan.vllm.clone(),
            page: self.attachment.as_ref().map(Attachment::index),
            technique: plan.technique.name().to_owned(),
            reason: plan.technique.reason().map(str::to_owned),
        };
        if self.noted.as_ref() != Some(&note) {
            notes.send(Note::Process(note.clone()));
            self.noted = Some(note);
        }
    }

    /// Looks how many modules it has imported.
    pub(super) fn see_modules(&mut self, now: Instant) {
        let runtime = self.runtime.as_ref();
        let modules = runtime.and_then(|runtime| look::module_count(runtime));
        self.count_modules(modules, now);
    }

    fn count_modules(&mut self, modules: Option<u64>, now: Instant) {
        let before = self.modules.map(|(modules, _)| modules);
        if modules != before {
            self.modules = modules.map(|modules| (modules, now));
        }
    }

    /// Whether it has imported all that it does for now: it has had as many modules for a while.
    fn is_settled(&self, now: Instant) -> bool {
        let enough = if self.attachment.is_some() {
            IMPORTED
        } else {
            IMPORTING
        };
        self.modules
            .is_some_and(|(_, since)| now.saturating_duration_since(since) >= enough)
    }

    /// Whether it may be importing what is looked for just now.
    pub(super) fn is_young(&self) -> bool {
        !self.grown && self.since.elapsed() < YOUNG
    }

    /// Whether it is an engine whose first step is yet to come.
    fn is_starting(&self) -> bool {
        let lacks = |method: &Method| method.id == "scheduler.schedule";
        !self.grown
            && self.plan.role == Role::EngineCore
            && self.since.elapsed() < SLOW_START
            && self.missing.iter().any(lacks)
    }

    /// Whether something may come in it that is worth frequent looks. Each look reads the process's memory. An API
    /// server has none of vLLM's methods, only perhaps the `user`'s: its engine is found by the tree.
    pub(super) fn is_expected(&self, user: bool) -> bool {
        self.is_starting()
            || (self.is_young()
                && !self.is_settled(Instant::now())
                && (user || self.plan.role != Role::ApiServer)
                && (self.attachment.is_none() || !self.missing.is_empty())
                && self
                    .walks
                    .as_ref()
                    .is_none_or(|walks| !walks.missing().is_empty()))
    }

    /// When to look at it again.
    pub(super) fn next_look(&self, now: Instant, user: bool) -> Instant {
        if !self.is_expected(user) {
            return now + SELDOM;
        }
        if self.attachment.is_some() {
            now + LACKING
        } else {
            now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn an_engine_that_imports_its_scheduler_late_is_looked_at_until_it_has_defined_it() {
        let now = Instant::now();
        let schedule = || {
            let mut methods = Catalog::vllm().methods;
            methods.retain(|method| method.id == "scheduler.schedule");
            methods
        };
        let mut tracked = Tracked::new(&Seen::default(), now);
        tracked.grown = false;
        tracked.since = now.checked_sub(Duration::from_mins(5)).unwrap();
        tracked.keep_absent(schedule(), false, now);
        assert!(!tracked.missing.is_empty());
        // What ran for long before it was first seen has imported what it has.
        let mut grown = Tracked::new(&Seen::default(), now);
        grown.grown = true;
        grown.keep_absent(schedule(), true, now);
        assert!(grown.missing.is_empty());
        grown.keep_absent(schedule(), false, now);
        assert!(!grown.missing.is_empty());
    }

    #[test]
    fn an_engine_that_takes_long_to_start_is_looked_at_often_until_its_scheduler_is_there() {
        let now = Instant::now();
        let mut tracked = Tracked::new(&Seen::default(), now);
        tracked.grown = false;
        tracked.plan.role = Role::EngineCore;
        tracked.since = now.checked_sub(Duration::from_mins(5)).unwrap();
        let methods = Catalog::vllm().methods;
        let schedule = methods
            .iter()
            .find(|method| method.id == "scheduler.schedule");
        tracked.missing = vec![schedule.unwrap().clone()];
        assert!(tracked.is_expected(false));
        assert!(tracked.next_look(now, false) < now + SELDOM);
        tracked.missing = methods
            .into_iter()
            .filter(|method| method.id.starts_with("runner."))
            .collect();
        assert!(!tracked.is_expected(false));
        assert_eq!(tracked.next_look(now, false), now + SELDOM);
    }

    #[test]
    fn a_young_process_is_looked_at_often_while_it_imports_and_not_when_it_no_longer_does() {
        let now = Instant::now();
        let before = |time: Duration| now.checked_sub(time).unwrap();
        let mut tracked = Tracked::new(&Seen::default(), now);
        tracked.grown = false;
        tracked.count_modules(None, before(IMPORTING * 2));
        assert!(
            tracked.is_expected(false),
            "its interpreter is only starting"
        );
        tracked.count_modules(Some(30), before(IMPORTING * 2));
        tracked.count_modules(Some(31), before(IMPORTING / 2));
        assert!(tracked.is_expected(false), "it imports slowly");
        tracked.count_modules(Some(32), before(IMPORTING));
        tracked.count_modules(Some(32), now);
        assert!(!tracked.is_expected(false));
        tracked.count_modules(Some(33), now);
        assert!(tracked.is_expected(false), "it goes on");
    }
}
