//! The thread that keeps one server attached: session after session, with pauses where one fails, until the server or
//! the agent ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Notify;

use super::server::{Found, Key};
use super::shared::Shared;
use super::trace::{Job, Progress};
use crate::capture::pipeline::Files;
use crate::cli::args::Touch;
use crate::cli::{Exit, Failure};
use crate::event::Process;
use crate::metrics::declare::Id;
use crate::metrics::rows::Teller;
use crate::session::{self, Ends, Finished, Options, Wanted, Watching};
use crate::sink::watch::{Pulse, Watcher};
use crate::table::AnyRow;
use crate::target::process;

/// First pause after a session that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest.
const LONGEST: Duration = Duration::from_secs(300);

/// How it stands with a server, as `/sessions` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// A session begins.
    #[default]
    Starting,
    /// A session runs, and no process is attached.
    Waiting {
        /// Why.
        reason: String,
    },
    /// A session runs.
    Attached,
    /// A trace is taken.
    Tracing,
    /// It could not be attached; it will be tried again.
    Failed {
        /// Why.
        reason: String,
        /// What can be done.
        hint: Option<String>,
    },
}

/// What the keeper is told.
#[derive(Default)]
struct Orders {
    quit: bool,
    renew: bool,
    job: Option<Job>,
    /// Ends the session that runs.
    stop: Option<Arc<Notify>>,
    /// The trace that runs, and why it was ended before its time.
    running: Option<u64>,
    cut: Option<&'static str>,
}

/// One server that is looked after.
pub struct Keeper {
    /// The server.
    pub found: Found,
    orders: Mutex<Orders>,
    changed: Condvar,
    standing: Mutex<Standing>,
    attached: Mutex<BTreeSet<Key>>,
    teller: Mutex<Teller>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a trace was not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied;

impl Keeper {
    /// For a server that was found.
    pub fn new(found: Found, shared: &Shared) -> Arc<Self> {
        let registry = Arc::clone(&shared.registry);
        let teller = Teller::new(registry, found.name.clone(), found.about.clone());
        Arc::new(Self {
            found,
            orders: Mutex::default(),
            changed: Condvar::new(),
            standing: Mutex::default(),
            attached: Mutex::default(),
            teller: Mutex::new(teller),
        })
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// The processes that are attached.
    pub fn attached(&self) -> BTreeSet<Key> {
        lock(&self.attached).clone()
    }

    /// The thread is to end.
    pub fn quit(&self) {
        self.order(|orders| orders.quit = true);
    }

    /// The configuration has changed: the session is to begin anew. A trace that runs goes on.
    pub fn renew(&self) {
        let mut orders = lock(&self.orders);
        orders.renew = true;
        if orders.running.is_none()
            && let Some(stop) = &orders.stop
        {
            stop.notify_one();
        }
    }

    /// A trace is to be taken.
    pub fn trace(&self, job: Job) -> Result<(), Occupied> {
        let mut orders = lock(&self.orders);
        if orders.job.is_some() || orders.running.is_some() || orders.quit {
            return Err(Occupied);
        }
        orders.job = Some(job);
        if let Some(stop) = &orders.stop {
            stop.notify_one();
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Ends the trace that runs, if one does, and says why.
    pub fn cut(&self, why: &'static str) {
        let mut orders = lock(&self.orders);
        if orders.running.is_some() && orders.cut.is_none() {
            orders.cut = Some(why);
            if let Some(stop) = &orders.stop {
                stop.notify_one();
            }
        }
    }

    /// Whether a trace is taken now.
    pub fn is_tracing(&self) -> bool {
        lock(&self.orders).running.is_some()
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = lock(&self.orders);
        change(&mut orders);
        if let Some(stop) = &orders.stop {
            stop.notify_one();
        }
        self.changed.notify_all();
    }

    /// The thread: until the server or the agent ends.
    pub fn keep(self: &Arc<Self>, shared: &Shared) {
        let mut pause = PAUSE;
        while !lock(&self.orders).quit && self.is_there() {
            let (job, stop) = self.take_orders();
            let began = Instant::now();
            let done = self.session(shared, job.as_ref(), stop);
            let failed = self.settle(shared, job.as_ref(), done);
            if !failed {
                pause = PAUSE;
                continue;
            }
            if began.elapsed() > LONGEST {
                pause = PAUSE;
            }
            self.wait(pause);
            pause = (pause * 2).min(LONGEST);
        }
        let left = lock(&self.orders).job.take();
        if let Some(job) = left {
            let reason = "the server or the agent has ended".to_owned();
            shared.tell_trace(job.id, Progress::Failed { reason });
        }
        lock(&self.teller).end();
    }

    fn is_there(&self) -> bool {
        let key = &self.found.key;
        process::seen(key.pid).is_some_and(|seen| seen.started == key.started && !seen.ended)
    }

    /// What is to be done next, and what will end it.
    fn take_orders(&self) -> (Option<Job>, Arc<Notify>) {
        let stop = Arc::new(Notify::new());
        let mut orders = lock(&self.orders);
        let job = orders.job.take();
        orders.running = job.as_ref().map(|job| job.id);
        orders.cut = None;
        orders.renew = false;
        orders.stop = Some(Arc::clone(&stop));
        if orders.quit {
            stop.notify_one();
        }
        (job, stop)
    }

    fn session(
        self: &Arc<Self>,
        shared: &Shared,
        job: Option<&Job>,
        stop: Arc<Notify>,
    ) -> Result<Finished, Failure> {
        let config = shared.config();
        if let Some(job) = job {
            shared.tell_trace(job.id, Progress::Running);
        }
        *lock(&self.standing) = Standing::Starting;
        lock(&self.teller).set_window(config.findings.window.0);
        let options = Options {
            recorder: None,
            budget: shared.can_measure_costs().then_some(config.probes.budget.0),
            moe_sample: None,
            roots: BTreeSet::from([self.found.key.pid]),
            touch: Touch::Probes,
            late: false,
            wanted: Wanted {
                only: job.map_or_else(|| config.probes.tables.clone(), |job| job.tables.clone()),
                without: Vec::new(),
                no_kernel_counts: !config.probes.kernel_counts,
            },
            methods: Vec::new(),
            assume: None,
            ring_bytes: config.probes.ring_size.0 as u32,
            output: config.traces.folder.clone(),
            duration: job.map(|job| job.duration),
            graph_timeline: job.is_some_and(|job| job.graph_timeline),
            json: false,
            quiet: true,
            strict: false,
        };
        let watching = Watching {
            watcher: Box::new(Watch {
                keeper: Arc::clone(self),
                tracing: job.is_some(),
            }),
            stop,
            files: if job.is_some() {
                Files::Session
            } else {
                Files::None
            },
            ends: Ends::Watcher,
        };
        session::run_watched(&options, false, Some(watching))
    }

    /// Takes note of how a session ended; whether it failed.
    fn settle(&self, shared: &Shared, job: Option<&Job>, done: Result<Finished, Failure>) -> bool {
        let cut = {
            let mut orders = lock(&self.orders);
            orders.stop = None;
            orders.running = None;
            orders.cut.take()
        };
        lock(&self.teller).end_session();
        lock(&self.attached).clear();
        let name = &self.found.name;
        let failure = match done {
            Ok(done) => {
                for (pid, trouble) in &done.troubles {
                    log::info!("{name}: process {pid}: {}", trouble.reason);
                }
                if let Some(job) = job {
                    shared.tell_trace(job.id, ended(&done, cut));
                }
                let Some(nothing) = done.nothing.filter(|_| !lock(&self.orders).quit) else {
                    *lock(&self.standing) = Standing::Starting;
                    return false;
                };
                Failure::from(nothing)
            }
            Err(failure) => {
                if let Some(job) = job {
                    let reason = failure.error.to_string();
                    shared.tell_trace(job.id, Progress::Failed { reason });
                }
                failure
            }
        };
        if !self.is_there() {
            return false;
        }
        log::warn!("{name}: {}", failure.error);
        let registry = &shared.registry;
        registry.add(Id::AttachFailures, &[reason(failure.exit)], 1.0);
        *lock(&self.standing) = Standing::Failed {
            reason: format!("{:#}", failure.error),
            hint: failure.hint,
        };
        true
    }

    /// Waits, unless there is something to do.
    fn wait(&self, pause: Duration) {
        let orders = lock(&self.orders);
        let idle = |orders: &mut Orders| !orders.quit && !orders.renew && orders.job.is_none();
        let waited = self.changed.wait_timeout_while(orders, pause, idle);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// How a trace ended.
fn ended(done: &Finished, cut: Option<&'static str>) -> Progress {
    if let Some(nothing) = &done.nothing {
        return Progress::Failed {
            reason: nothing.reason.clone(),
        };
    }
    Progress::Done {
        reason: cut.unwrap_or(done.reason).to_owned(),
        folder: done.folder.clone(),
        events: done.outcome.received,
        lost: done.outcome.lost,
    }
}

/// The label `reason` of a failed attach.
fn reason(exit: Exit) -> &'static str {
    match exit {
        Exit::NoTarget => "no_target",
        Exit::Unsupported => "unsupported",
        Exit::Forbidden => "forbidden",
        Exit::Output => "output",
        Exit::Busy => "busy",
        Exit::Done | Exit::Failed | Exit::Usage | Exit::Incomplete => "failed",
    }
}

/// Why no process is attached: what holds for an engine, else for any.
fn why(processes: &[&Process]) -> Option<String> {
    let engines = processes
        .iter()
        .filter(|process| process.role == "engine_core");
    let mut reasons = engines
        .chain(processes)
        .filter_map(|process| process.reason.clone());
    reasons.find(|reason| reason != session::NOT_LOOKED_AT)
}

/// Who watches a session for its keeper.
struct Watch {
    keeper: Arc<Keeper>,
    tracing: bool,
}

impl Watcher for Watch {
    fn row(&mut self, row: &AnyRow) {
        lock(&self.keeper.teller).row(row);
    }

    fn pulse(&mut self, pulse: &Pulse<'_>) {
        lock(&self.keeper.teller).pulse(pulse);
        let attached = pulse
            .processes
            .iter()
            .filter(|process| process.page.is_some())
            .filter_map(|process| process::seen(process.pid))
            .map(|seen| Key::of(&seen))
            .collect::<BTreeSet<Key>>();
        let now = if self.tracing {
            Standing::Tracing
        } else {
            Standing::Attached
        };
        let mut standing = lock(&self.keeper.standing);
        let begins = matches!(*standing, Standing::Starting | Standing::Waiting { .. });
        if begins && !attached.is_empty() {
            *standing = now;
        } else if begins && let Some(reason) = why(&pulse.processes) {
            *standing = Standing::Waiting { reason };
        }
        *lock(&self.keeper.attached) = attached;
    }

    fn covers(&mut self, covers: &[(&'static str, crate::aggregate::coverage::Coverage)]) {
        lock(&self.keeper.teller).covers(covers);
    }
}
