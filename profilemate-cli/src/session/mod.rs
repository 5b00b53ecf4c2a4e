//! One run from attach to detach: the only place that has effects in order.

mod attachment;
mod bound;
mod budget;
mod calibrated;
mod doubt;
mod drivers;
mod forks;
mod imports;
mod late;
mod logs;
mod look;
mod namespace;
pub mod options;
mod pump;
mod sampling;
mod sight;
mod standing;
mod start;
mod status;
mod tracked;
mod tracker;
mod trouble;
mod walks;

use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::capture::Outcome;
use crate::capture::pipeline::Files;
use crate::cli::args::Touch;
use crate::cli::underway::Underway;
use crate::cli::{Exit, Failure};
use crate::event::Note;
use crate::plan::Plan;
use crate::recorder::Report;
use crate::sink::watch::Watcher;
use crate::sys::clock;

pub use attachment::{PutBack, put_back};
pub(crate) use look::NOT_LOOKED_AT;
pub use options::{MoeSample, Options, Wanted};
pub use start::folder;
pub use trouble::Trouble;
pub(crate) use trouble::chain;

use pump::Pump;
use tracked::Progress;
use tracker::Tracker;

/// Time between polls while a young process may still import what is looked for.
const POLL_YOUNG: Duration = Duration::from_millis(100);
/// Time between polls otherwise.
const POLL: Duration = Duration::from_millis(500);
/// Time between reports of counters.
const REPORT: Duration = Duration::from_millis(500);
/// Time between two readings of cycle counter and clock at the start, which give the cycle's length at once.
const CALIBRATION: Duration = Duration::from_millis(20);

/// What came of a session.
#[derive(Debug)]
pub struct Finished {
    /// The session's folder, absolute.
    pub folder: PathBuf,
    /// Rows, losses.
    pub outcome: Outcome,
    /// Why it ended.
    pub reason: &'static str,
    /// Processes that were attached at the end.
    pub attached: usize,
    /// What could not be attached or put back: (pid, why).
    pub troubles: Vec<(u32, Trouble)>,
    /// Nothing was attached at any time, and this is why.
    pub nothing: Option<Trouble>,
    /// What the flight recorder has done, if it was one.
    pub recorder: Option<Report>,
}

/// Makes the plan for a target as it is now, and changes nothing.
pub fn plan(options: &Options) -> Result<Plan, Failure> {
    let (tracker, site) = start::look_only(options)?;
    Ok(Plan {
        site,
        processes: tracker.plans(),
    })
}

/// What a look at a target found: the plan, and what keeps processes from being traced, by process id.
pub fn look(options: &Options) -> Result<(Plan, Vec<(u32, Trouble)>), Failure> {
    let (tracker, site) = start::look_only(options)?;
    let plan = Plan {
        site,
        processes: tracker.plans(),
    };
    Ok((plan, tracker.troubles()))
}

/// Somebody who looks at a session while it runs, and may end it.
pub struct Watching {
    /// Who looks at the rows.
    pub watcher: Box<dyn Watcher>,
    /// Ends the session when it is notified.
    pub stop: Arc<Notify>,
    /// Whether a session folder is written besides.
    pub files: Files,
    /// What ends the session.
    pub ends: Ends,
}

/// What ends a session beside its duration and its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// Signals to this process, and who watches.
    #[default]
    Signals,
    /// Only who watches: one of several sessions of a process.
    Watcher,
}

/// Traces a target until the duration is over, the target ends, or a signal comes. `started` is a command that this
/// run has started itself: processes may be long in coming.
pub fn run(options: &Options, started: bool) -> Result<Finished, Failure> {
    run_watched(options, started, None)
}

/// As [`run`], with somebody who looks on.
pub fn run_watched(
    options: &Options,
    started: bool,
    watching: Option<Watching>,
) -> Result<Finished, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Exit::Failed,
                anyhow::Error::new(error).context("cannot start the timer"),
            )
        })?;
    runtime.block_on(trace(options, started, watching))
}

async fn trace(
    options: &Options,
    started: bool,
    watching: Option<Watching>,
) -> Result<Finished, Failure> {
    let (watcher, stop, files, ends) = match watching {
        Some(watching) => (
            Some(watching.watcher),
            watching.stop,
            watching.files,
            watching.ends,
        ),
        None => (None, Arc::default(), Files::Session, Ends::Signals),
    };
    let mut signals = Signals::new(stop, ends, options.recorder.is_some())?;
    if options.touch == Touch::None {
        log::warn!(
            "nothing is written into the target: no method is probed, only the CUDA driver's functions are"
        );
    }
    let start::Started {
        mut tracker,
        pump,
        folder,
        recorder,
    } = start::start(options, files, watcher)?;
    let underway = Underway::start("attaching".to_owned(), options.quiet);
    tracker.poll()?;
    drop(underway);
    if !started && options.touch != Touch::None && !tracker.hopeful() {
        let trouble = tracker
            .troubles()
            .into_iter()
            .next()
            .map(|(_, trouble)| trouble);
        drop(pump.finish());
        start::discard(&folder);
        return Err(trouble
            .unwrap_or_else(|| Trouble::lasting(Exit::NoTarget, "the target has ended"))
            .into());
    }
    let reason = follow(options, &mut tracker, &pump, &mut signals).await;
    let attached = tracker.attached();
    let underway = Underway::start("putting everything back".to_owned(), options.quiet);
    let nothing = tracker.why_nothing();
    let mut troubles: Vec<(u32, Trouble)> = tracker
        .troubles()
        .into_iter()
        .filter(|(_, trouble)| !trouble.passing && trouble.exit != Exit::Done)
        .collect();
    troubles.extend(tracker.detach());
    calibrate(&pump);
    pump.notes().send(Note::Ended {
        at_ns: clock::monotonic_ns(),
        wall: jiff::Timestamp::now().to_string(),
        reason: reason.to_owned(),
    });
    let outcome = pump.finish().map_err(start::output_failure)?;
    drop(underway);
    Ok(Finished {
        folder,
        outcome,
        reason,
        attached,
        troubles,
        nothing,
        recorder: recorder.and_then(|recorder| Some(recorder.report.lock().ok()?.clone())),
    })
}

/// Polls, reports and shows the status until something ends the session; tells what.
async fn follow(
    options: &Options,
    tracker: &mut Tracker,
    pump: &Pump,
    signals: &mut Signals,
) -> &'static str {
    let deadline = options
        .duration
        .map(|duration| tokio::time::Instant::now() + duration);
    let mut status = status::StatusLine::new(options.quiet);
    let mut reported = Instant::now();
    let mut warned = false;
    loop {
        let pause = if tracker.young() { POLL_YOUNG } else { POLL };
        let next = tokio::time::Instant::now() + pause;
        let wake = deadline.map_or(next, |deadline| next.min(deadline));
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            asked = signals.any() => match asked {
                Asked::Snapshot => pump.asker().ask("SIGUSR1", None),
                Asked::End => {
                    status.clear();
                    return "interrupted";
                }
            },
        }
        match tracker.poll() {
            Ok(Progress::Going) => {}
            Ok(Progress::Ended) => {
                status.clear();
                return "target ended";
            }
            Err(trouble) => log::warn!("{}", trouble.reason),
        }
        // Of a started command nobody would hear before its end.
        if !warned
            && !tracker.hopeful()
            && let Some(trouble) = tracker.why_nothing()
        {
            warned = true;
            log::warn!("nothing is traced: {}", trouble.reason);
        }
        tracker.adapt(&pump.serving());
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            tracker.report();
            calibrate(pump);
        }
        if let Some(numbers) = pump.status() {
            status.show(&numbers, tracker.cost_percent());
        }
        if pump.has_failed() {
            status.clear();
            return "output failed";
        }
        if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
            status.clear();
            return "duration reached";
        }
    }
}

/// Puts a reading of cycle counter and clock into the stream.
fn calibrate(pump: &Pump) {
    // The clock is read between two readings of the counter; their mean belongs to it.
    let before = clock::cycles();
    let monotonic_ns = clock::monotonic_ns();
    let after = clock::cycles();
    pump.notes().send(Note::Clock {
        cycles: before + (after - before) / 2,
        monotonic_ns,
    });
}

/// What a signal asks for.
enum Asked {
    /// The end of the session.
    End,
    /// A snapshot.
    Snapshot,
}

/// The signals that end a session, and the one who watches it.
struct Signals {
    /// Those that end it.
    ends: Vec<tokio::signal::unix::Signal>,
    /// Asks a flight recorder for a snapshot; otherwise it is left as it is.
    user: Option<tokio::signal::unix::Signal>,
    stop: Arc<Notify>,
}

impl Signals {
    fn new(stop: Arc<Notify>, ends: Ends, recorder: bool) -> Result<Self, Failure> {
        let kinds = match ends {
            Ends::Signals => &[
                SignalKind::interrupt(),
                SignalKind::terminate(),
                SignalKind::hangup(),
            ][..],
            Ends::Watcher => &[],
        };
        let listen = || -> std::io::Result<_> {
            let signals: std::io::Result<_> = kinds.iter().map(|kind| signal(*kind)).collect();
            let user = recorder
                .then(|| signal(SignalKind::user_defined1()))
                .transpose()?;
            Ok((signals?, user))
        };
        let (signals, user) = listen().map_err(|error| {
            Failure::new(
                Exit::Failed,
                anyhow::Error::new(error).context("cannot listen for signals"),
            )
        })?;
        Ok(Self {
            ends: signals,
            user,
            stop,
        })
    }

    async fn any(&mut self) -> Asked {
        let user = async {
            match &mut self.user {
                Some(user) => drop(user.recv().await),
                None => std::future::pending().await,
            }
        };
        let signals = &mut self.ends;
        let signalled = std::future::poll_fn(|context| {
            let came = signals
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = user => return Asked::Snapshot,
            () = signalled => {}
            () = self.stop.notified() => {}
        }
        Asked::End
    }
}
