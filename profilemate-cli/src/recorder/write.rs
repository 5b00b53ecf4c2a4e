//! Writes the window as a session folder, in a thread of its own: by the pipeline that writes every session, so that a
//! replay of the folder's stream gives the same bytes.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::window::Taken;
use super::{Made, Reply};
use crate::capture::frame::KIND_NOTE;
use crate::capture::{self, Pipeline};
use crate::event::recorder::Snapshot;
use crate::event::{Note, Session};
use crate::sink::metadata::Overhead;

/// What is to be written.
pub(super) struct Job {
    pub(super) output: PathBuf,
    /// The recorder's own session.
    pub(super) session: Session,
    pub(super) snapshot: Snapshot,
    pub(super) taken: Taken,
    pub(super) overhead: Option<Overhead>,
}

/// What came of it.
pub(super) struct Done {
    pub(super) made: Made,
    /// Bytes of the folder.
    pub(super) bytes: u64,
    pub(super) replies: Vec<Reply>,
}

/// A job that is being done.
pub(super) struct Writer {
    trigger: String,
    reason: String,
    replies: Vec<Reply>,
    thread: std::io::Result<JoinHandle<Result<PathBuf, String>>>,
}

impl Writer {
    /// Begins a job.
    pub(super) fn start(job: Job, replies: Vec<Reply>) -> Self {
        Self {
            trigger: job.snapshot.trigger.clone(),
            reason: job.snapshot.reason.clone(),
            replies,
            thread: std::thread::Builder::new()
                .name("pm-snapshot".into())
                .spawn(move || write(&job)),
        }
    }

    /// Whether it is done.
    pub(super) fn is_done(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits until it is done.
    pub(super) fn wait(self) -> Done {
        let folder = match self.thread.map(JoinHandle::join) {
            Ok(Ok(folder)) => folder,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(format!("cannot start a thread: {error}")),
        };
        Done {
            bytes: folder.as_deref().map_or(0, bytes_of),
            made: Made {
                trigger: self.trigger,
                reason: self.reason,
                folder,
            },
            replies: self.replies,
        }
    }
}

/// Writes a folder. One that cannot be completed is taken away: a full disk is not made fuller.
fn write(job: &Job) -> Result<PathBuf, String> {
    let (name, folder) = crate::session::folder(&job.output, "snapshot")
        .map_err(|failure| format!("{:#}", failure.error))?;
    tell(job, name, &folder).map_err(|error| {
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            log::debug!("{}: {error}", folder.display());
        }
        crate::session::chain(&error)
    })?;
    Ok(folder)
}

fn tell(job: &Job, name: String, folder: &Path) -> Result<(), crate::sink::Error> {
    let mut pipeline = Pipeline::new(folder, capture::Options::default())?;
    let from_ns = job.taken.from_ns.max(job.session.started_ns);
    pipeline.note(&Note::Session(Session {
        id: name,
        started_ns: from_ns,
        started_wall: wall(&job.session, from_ns),
        ..job.session.clone()
    }))?;
    for note in &job.taken.standing {
        pipeline.note(note)?;
    }
    pipeline.note(&Note::Snapshot(Box::new(Snapshot {
        from_ns,
        ..job.snapshot.clone()
    })))?;
    let first = job.taken.segments.first();
    if let Some(checkpoint) = first.and_then(|segment| segment.checkpoint.clone()) {
        pipeline.note(&Note::Checkpoint(Box::new(checkpoint)))?;
    }
    for segment in &job.taken.segments {
        for (kind, bytes) in segment.frames() {
            if kind != KIND_NOTE || !is_frame_of_session(bytes) {
                pipeline.frame(kind, bytes)?;
            }
        }
    }
    if let Some(overhead) = job.overhead {
        pipeline.set_overhead(overhead);
    }
    pipeline.note(&Note::Ended {
        at_ns: job.taken.to_ns,
        wall: wall(&job.session, job.taken.to_ns),
        reason: format!("snapshot: {}", job.snapshot.trigger),
    })?;
    pipeline.finish()?;
    Ok(())
}

/// Whether a note tells of the begin or the end of the recorder's own session.
fn is_frame_of_session(note: &[u8]) -> bool {
    matches!(
        serde_json::from_slice(note),
        Ok(Note::Session(_) | Note::Ended { .. })
    )
}

/// The moment `at_ns` on the wall clock, by the moment at which the session started.
fn wall(session: &Session, at_ns: u64) -> String {
    let since = i128::from(at_ns) - i128::from(session.started_ns);
    let since = jiff::SignedDuration::from_nanos(i64::try_from(since).unwrap_or(0));
    session
        .started_wall
        .parse::<jiff::Timestamp>()
        .ok()
        .and_then(|started| started.checked_add(since).ok())
        .map_or_else(|| session.started_wall.clone(), |wall| wall.to_string())
}

/// Bytes of the files in a folder.
fn bytes_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
