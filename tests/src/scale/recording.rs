//! What a session's stream tells an agent, in order.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use profilemate::agent::config::Config;
use profilemate::aggregate::coverage::Coverage;
use profilemate::capture::frame::{FrameReader, KIND_TICK};
use profilemate::capture::pipeline::{Files, KeepCapture, Options, Pipeline};
use profilemate::event::Process;
use profilemate::event::recorder::Cost;
use profilemate::sink::watch::{Losses, Pulse, Watcher};
use profilemate::table::AnyRow;
use profilemate::table::cell::Stamp;

use crate::{Guard, Session, binary, demo};

/// Something that a watcher is told.
pub(super) enum Told {
    Row(Box<AnyRow>),
    Pulse(Beat),
    Covers(Vec<(&'static str, Coverage)>),
}

/// A pulse that owns what it tells.
pub(super) struct Beat {
    now: Stamp,
    events: u64,
    losses: Losses,
    costs: Vec<Cost>,
    began_unix_ns: Option<i64>,
    processes: Vec<Process>,
}

impl Beat {
    fn is_attached(&self) -> bool {
        let mut processes = self.processes.iter();
        processes.any(|process| process.technique != "none")
    }

    /// Tells it to a watcher.
    pub(super) fn tell(&self, watcher: &mut impl Watcher) {
        let losses = self.losses;
        watcher.pulse(&Pulse {
            now: self.now,
            events: self.events,
            lost: losses.ring + losses.driver + losses.userspace,
            losses,
            overhead: None,
            costs: self.costs.clone(),
            began_unix_ns: self.began_unix_ns,
            processes: self.processes.iter().collect(),
        });
    }
}

/// A recorded session, as an agent's keeper is told of it.
pub struct Recording {
    /// What was told before the first row: processes that are found and attached.
    pub(super) prelude: Vec<Told>,
    /// The rest, with nanoseconds since the first row.
    pub(super) told: Vec<(u64, Told)>,
    /// Nanoseconds from the first row to the end.
    pub(super) length_ns: u64,
}

impl Recording {
    /// Traces a demo server with so many workers for `length`, and reads the stream. Needs root.
    pub fn take(python: &Path, workers: u32, length: Duration) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let seconds = length.as_secs() as u32 + 20;
        let more = ["--workers", &workers.to_string(), "--no-gap"];
        let demo = demo::start(python, folder.path(), seconds, &more);
        let sessions = folder.path().join("sessions");
        let mut command = Command::new(binary());
        command
            .args(["--quiet", "trace", "--pid", &demo.pid().to_string()])
            .args(["--budget", "50%", "--output"])
            .arg(&sessions)
            .args(["--duration", &format!("{}s", length.as_secs())]);
        for table in Config::default().probes.tables {
            command.args(["--only", &table]);
        }
        let mut tracer = Guard::start(&mut command);
        let code = tracer.wait(length + Duration::from_secs(60));
        if code != 0 {
            bail!("the demo server was not traced: exit code {code}");
        }
        let session = Session::only(&sessions);
        Self::read(&session.folder.join("events.pmrec"))
    }

    /// Reads a stream as a live session would take it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut frames = FrameReader::new(BufReader::new(file))?;
        let options = Options {
            capture: KeepCapture::No,
            files: Files::None,
        };
        let mut pipeline = Pipeline::new(Path::new(""), options)?;
        let ear = Ear::default();
        pipeline.set_watcher(Box::new(ear.clone()));
        while let Some((kind, bytes)) = frames.next_frame()? {
            if kind == KIND_TICK {
                let now = bytes.try_into().map_or(0, u64::from_le_bytes);
                ear.now.store(now, Ordering::Relaxed);
                pipeline.tick(now)?;
            } else {
                pipeline.frame(kind, bytes)?;
            }
        }
        drop(pipeline);
        let told = std::mem::take(&mut *ear.told.lock().unwrap_or_else(PoisonError::into_inner));
        Self::of(told)
    }

    fn of(mut told: Vec<(u64, Told)>) -> Result<Self> {
        let is_row = |one: &(u64, Told)| matches!(one.1, Told::Row(_));
        let first = told
            .iter()
            .position(is_row)
            .context("no row was recorded")?;
        let last = told.iter().rposition(is_row).unwrap_or(first);
        told.truncate(last + 1);
        let mut rest = told.split_off(first);
        // A session that begins again is attached at once: nobody is told that its server is not.
        let is_attached =
            |one: &(u64, Told)| matches!(&one.1, Told::Pulse(beat) if beat.is_attached());
        let attached = rest.iter().position(is_attached);
        told.push(rest.remove(attached.context("nothing was attached")?));
        let began = rest[0].0;
        let told_of = |(at, what): (u64, Told)| (at.saturating_sub(began), what);
        let length_ns = rest[rest.len() - 1].0 - began;
        if length_ns == 0 {
            bail!("what was recorded has no length");
        }
        Ok(Self {
            prelude: told.into_iter().map(|one| one.1).collect(),
            told: rest.into_iter().map(told_of).collect(),
            length_ns,
        })
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.length_ns)
    }

    /// Rows in it.
    pub fn rows(&self) -> usize {
        let rows = self.told.iter();
        rows.filter(|one| matches!(one.1, Told::Row(_))).count()
    }
}

/// Processes, with the ranks of workers: those of the demo do not say theirs, and are started one after the other.
fn numbered(processes: &[&Process]) -> Vec<Process> {
    let mut all: Vec<Process> = processes.iter().map(|&one| one.clone()).collect();
    all.sort_unstable_by_key(|process| process.pid);
    let workers = all.iter_mut().filter(|process| process.role == "worker");
    for (rank, worker) in (0..).zip(workers) {
        worker.rank.get_or_insert(rank);
    }
    all
}

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Ear {
    now: Arc<AtomicU64>,
    told: Arc<Mutex<Vec<(u64, Told)>>>,
}

impl Ear {
    fn keep(&self, what: Told) {
        let at = self.now.load(Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push((at, what));
    }
}

impl Watcher for Ear {
    fn row(&mut self, row: &AnyRow) {
        self.keep(Told::Row(Box::new(row.clone())));
    }

    fn pulse(&mut self, pulse: &Pulse<'_>) {
        self.keep(Told::Pulse(Beat {
            now: pulse.now,
            events: pulse.events,
            losses: pulse.losses,
            costs: pulse.costs.clone(),
            began_unix_ns: pulse.began_unix_ns,
            processes: numbered(&pulse.processes),
        }));
    }

    fn covers(&mut self, covers: &[(&'static str, Coverage)]) {
        self.keep(Told::Covers(covers.to_vec()));
    }
}
