//! The flight recorder: the latest part of the stream in bounded memory, and a session folder of it when something
//! happens.
//!
//! [`Recorder`] is a part of the pipeline, which shows it every frame and row. It reads no clock; the time comes with
//! each turn. Folders are written by a thread of their own, from segments that nobody changes any more, so the ring
//! buffer is drained meanwhile.

pub mod gate;
pub mod signal;
pub mod socket;
pub mod standing;
pub mod trigger;
pub mod window;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::aggregate::checkpoint::Checkpoint;
use crate::event::recorder::{Snapshot, Suppressed};
use crate::event::{Note, Session};
use crate::sink::metadata::Overhead;
use crate::table::AnyRow;

use gate::{Gate, Limits, Who};
use trigger::{Hit, Trigger, Watch};
use window::Window;
use write::Writer;

/// What a recorder is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the window is.
    pub window: Duration,
    /// Bytes that it takes, at most.
    pub memory: usize,
    /// What snapshots are made for, beside the end of a process and requests.
    pub triggers: Vec<Trigger>,
    /// How long is still recorded after a trigger.
    pub after: Duration,
    /// Bounds of what is written.
    pub limits: Limits,
    /// Folder in which the snapshots' folders are made.
    pub output: PathBuf,
    /// Told of each snapshot when it is there, or could not be written.
    pub announce: fn(&Made),
}

/// What came of one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// What it was taken for.
    pub trigger: String,
    /// What happened, in plain words.
    pub reason: String,
    /// Its folder, absolute; or why it could not be written.
    pub folder: Result<PathBuf, String>,
}

/// What a recorder has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The snapshots.
    pub made: Vec<Made>,
    /// Triggers that made none.
    pub suppressed: Suppressed,
    /// The processes that were seen.
    pub pids: Vec<u32>,
}

/// Snapshots that a report lists, at most: the latest.
const LISTED: usize = 1_000;
/// Requests that wait for one snapshot, at most.
const WAITING: usize = 64;

/// Where a request's answer goes: the folder, or why there is none.
pub type Reply = Sender<Result<PathBuf, String>>;

/// A snapshot that is to be made.
struct Pending {
    snapshot: Snapshot,
    due_ns: u64,
    replies: Vec<Reply>,
}

/// The recorder.
pub struct Recorder {
    options: Options,
    window: Window,
    watch: Watch,
    gate: Gate,
    session: Session,
    /// The traced processes that are there, with their roles.
    roles: BTreeMap<u32, String>,
    now_ns: u64,
    pending: Option<Pending>,
    writer: Option<Writer>,
    report: Arc<Mutex<Report>>,
}

impl Recorder {
    /// A recorder that begins at `now_ns` on `CLOCK_MONOTONIC`.
    pub fn new(options: Options, now_ns: u64) -> Self {
        let span_ns = options.window.as_nanos() as u64;
        Self {
            window: Window::new(span_ns, options.memory, now_ns),
            watch: Watch::new(&options.triggers),
            gate: Gate::new(options.limits),
            session: Session::default(),
            roles: BTreeMap::new(),
            now_ns,
            pending: None,
            writer: None,
            report: Arc::default(),
            options,
        }
    }

    /// What it has done so far; goes on being told.
    pub fn report(&self) -> Arc<Mutex<Report>> {
        Arc::clone(&self.report)
    }

    /// Takes a frame of the stream.
    pub fn frame(&mut self, kind: u8, bytes: &[u8]) {
        self.window.frame(kind, bytes);
    }

    /// Takes a note, whose frame was taken before.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Session(session) => self.session = session.clone(),
            Note::Process(process) => {
                // What a traced process forks for a moment (a compiler, a shell) is no part of the server.
                let helper = process.role == "other" && self.roles.contains_key(&process.parent);
                let traced = (process.page.is_some() || process.role != "other") && !helper;
                if traced {
                    self.roles.insert(process.pid, process.role.clone());
                }
                self.tell_pids();
            }
            Note::ProcessEnded { pid, at_ns, .. } => {
                if let Some(role) = self.roles.remove(pid) {
                    self.tell_pids();
                    if let Some(hit) = self.watch.death(*pid, &role) {
                        self.hit(hit, Who::Death, Some(*at_ns));
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes a row.
    pub fn row(&mut self, row: &AnyRow) {
        if let Some(hit) = self.watch.row(row) {
            let started = i128::from(self.session.started_ns);
            let at_ns = hit
                .stamp
                .map(|stamp| (started + i128::from(stamp.0)).max(0) as u64);
            self.hit(hit, Who::Trigger, at_ns);
        }
    }

    /// Somebody asks for a snapshot: `what` is how, `reply` is told the folder.
    pub fn ask(&mut self, what: &str, reply: Option<Reply>) {
        if let Some(pending) = &mut self.pending {
            pending.due_ns = self.now_ns;
            pending.snapshot.merged += 1;
            if pending.replies.len() < WAITING {
                pending.replies.extend(reply);
            }
            return;
        }
        match self.gate.admit(Who::Asked, self.now_ns, self.estimate()) {
            Ok(()) => {
                let hit = Hit {
                    trigger: what.to_owned(),
                    reason: "it was asked for".to_owned(),
                    stamp: None,
                    value: None,
                    pid: None,
                };
                self.pend(hit, self.now_ns, Duration::ZERO);
                if let Some(pending) = &mut self.pending {
                    pending.replies.extend(reply);
                }
            }
            Err(refusal) => {
                log::warn!("no snapshot for {what}: {refusal}");
                self.tell_suppressed();
                if let Some(reply) = reply {
                    let _gone = reply.send(Err(refusal.to_string()));
                }
            }
        }
    }

    /// Whether a turn is due at `now_ns`, for which a checkpoint is needed.
    pub fn is_due(&mut self, now_ns: u64) -> bool {
        self.now_ns = now_ns;
        self.collect();
        let pending = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.due_ns <= now_ns);
        (pending && self.writer.is_none()) || self.window.is_due(now_ns)
    }

    /// Completes a segment, with what is known at its end, and begins to write what is due.
    pub fn turn(&mut self, checkpoint: Checkpoint, overhead: Option<Overhead>) {
        let weight = checkpoint.weight();
        self.window.seal(self.now_ns, checkpoint, weight);
        let due = |pending: &mut Pending| pending.due_ns <= self.now_ns;
        if self.writer.is_none()
            && let Some(pending) = self.pending.take_if(due)
        {
            self.write(pending, overhead);
        }
    }

    /// The stream has ended: writes what is still to be written, and waits until it is.
    pub fn finish(mut self, overhead: Option<Overhead>) {
        self.wait();
        if let Some(pending) = self.pending.take() {
            let now_ns = self.now_ns;
            self.window.seal(now_ns, Checkpoint::default(), 0);
            self.write(pending, overhead);
            self.wait();
        }
        self.tell_suppressed();
    }

    fn hit(&mut self, hit: Hit, who: Who, at_ns: Option<u64>) {
        if let Some(pending) = &mut self.pending {
            pending.snapshot.merged += 1;
            return;
        }
        match self.gate.admit(who, self.now_ns, self.estimate()) {
            Ok(()) => {
                let at_ns = at_ns.unwrap_or(self.now_ns);
                self.pend(hit, at_ns, self.options.after);
            }
            Err(refusal) => {
                log::debug!("no snapshot for {}: {refusal}", hit.trigger);
                self.tell_suppressed();
            }
        }
    }

    fn pend(&mut self, hit: Hit, at_ns: u64, after: Duration) {
        log::info!(
            "a snapshot is to be made for {}: {}",
            hit.trigger,
            hit.reason
        );
        self.pending = Some(Pending {
            snapshot: Snapshot {
                trigger: hit.trigger,
                reason: hit.reason,
                at_ns,
                value: hit.value,
                pid: hit.pid,
                ..Snapshot::default()
            },
            due_ns: self.now_ns.saturating_add(after.as_nanos() as u64),
            replies: Vec::new(),
        });
    }

    /// Bytes of a folder, about: the stream, and as much again for the tables.
    fn estimate(&self) -> u64 {
        2 * self.window.bytes() as u64
    }

    fn write(&mut self, pending: Pending, overhead: Option<Overhead>) {
        let taken = self.window.take(self.now_ns);
        let snapshot = Snapshot {
            recorder: self.session.id.clone(),
            recorder_started_wall: self.session.started_wall.clone(),
            from_ns: taken.from_ns,
            to_ns: taken.to_ns,
            window_ns: self.options.window.as_nanos() as u64,
            window_bytes: self.options.memory as u64,
            dropped_old: taken.dropped.old,
            dropped_full: taken.dropped.full,
            suppressed: self.gate.suppressed(),
            ..pending.snapshot
        };
        let job = write::Job {
            output: self.options.output.clone(),
            session: self.session.clone(),
            snapshot,
            taken,
            overhead,
        };
        self.writer = Some(Writer::start(job, pending.replies));
    }

    /// Takes the result of a writer that is done.
    fn collect(&mut self) {
        if self.writer.as_ref().is_some_and(Writer::is_done) {
            self.wait();
        }
    }

    fn wait(&mut self) {
        let Some(done) = self.writer.take().map(Writer::wait) else {
            return;
        };
        match &done.made.folder {
            Ok(_) => self.gate.wrote(done.bytes),
            Err(reason) => {
                self.gate.failed();
                log::warn!(
                    "the snapshot for {} could not be written: {reason}; recording goes on",
                    done.made.trigger
                );
            }
        }
        (self.options.announce)(&done.made);
        for reply in done.replies {
            let _gone = reply.send(done.made.folder.clone());
        }
        if let Ok(mut report) = self.report.lock() {
            if report.made.len() >= LISTED {
                report.made.remove(0);
            }
            report.made.push(done.made);
        }
        self.tell_suppressed();
    }

    fn tell_suppressed(&self) {
        if let Ok(mut report) = self.report.lock() {
            report.suppressed = self.gate.suppressed();
        }
    }

    fn tell_pids(&self) {
        if let Ok(mut report) = self.report.lock() {
            report.pids = self.roles.keys().copied().collect();
        }
    }
}
