//! What every thread of a server does, and since when at least: for a server that is stuck. Nothing is stopped, written
//! or mapped.
//!
//! Each process is looked at twice. Between the two looks the kernel's own counts tell whether a thread ran at all; if
//! not, all that is on its stack has been in progress for at least that long. What a thread waits for is told by what is
//! on its Python and on its native stack (`waits.toml`).

mod conclusion;
mod json;
mod launch;
mod look;
mod text;
mod wait;

use std::time::Duration;

pub use launch::{Launch, Launches};
pub use look::look;
pub use wait::{Wait, waiting, waits};

use crate::target::native::Found;
use crate::target::process::Seen;
use crate::target::python::traceback::Thread as Python;
use crate::target::role::Role;
use crate::target::task::Task;

/// Everything that was found.
#[derive(Debug)]
pub struct Report {
    /// The processes, parents first.
    pub processes: Vec<Process>,
    /// What tracers at work know of launches.
    pub launches: Launches,
    /// `CLOCK_MONOTONIC` at the second look, in nanoseconds.
    pub now_ns: u64,
    /// Whether the process's ids are those of the kernel's records (first pid namespace).
    pub same_ids: bool,
}

/// A process.
#[derive(Debug)]
pub struct Process {
    /// As `/proc` has it.
    pub seen: Seen,
    /// Its part in vLLM, by its title.
    pub role: Role,
    /// CPython's version, or why no Python stack can be read.
    pub python: Result<String, String>,
    /// Its threads that run Python, youngest first.
    pub threads: Vec<Thread>,
    /// Its other threads.
    pub native_threads: Vec<Thread>,
    /// Whether the CUDA driver is mapped.
    pub cuda: bool,
    /// Libraries whose functions could not be read: path, and why.
    pub unread: Vec<(String, String)>,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// As the kernel shows it; `None` where it is not known which of the kernel's threads it is.
    pub task: Option<Task>,
    /// Its Python stack.
    pub python: Option<Python>,
    /// Whether it moved.
    pub moved: Moved,
    /// Methods of the catalogue on its stack, the innermost first.
    pub methods: Vec<InProgress>,
    /// Functions of known libraries on its native stack, the innermost first; or why they cannot be told.
    pub native: Result<Vec<Found>, &'static str>,
    /// What it waits for, if that is known.
    pub wait: Option<Wait>,
}

/// What a thread did between the two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was never put on a processor: nothing on its stack has changed for at least so long.
    No(Duration),
    /// It ran so long of that time.
    Ran {
        /// Time on a processor.
        ran: Duration,
        /// Time between the looks.
        between: Duration,
    },
    /// That is not known, for this reason.
    Unknown(&'static str),
}

/// A method of the catalogue that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProgress {
    /// Name in the catalogue.
    pub id: String,
    /// This very call has been in progress for at least so long; `None` if that cannot be told.
    pub at_least: Option<Duration>,
}

impl Thread {
    /// What is known of how long it has stood where it is: what was seen, and what the scheduler notes, the longer.
    pub fn still_for(&self) -> Option<Duration> {
        let Moved::No(seen) = self.moved else {
            return None;
        };
        let noted = self.task.as_ref().and_then(|task| task.idle);
        Some(noted.unwrap_or(seen).max(seen))
    }

    /// Thread id in this process's pid namespace, or as the interpreter has it.
    pub fn tid(&self) -> Option<u32> {
        self.task
            .as_ref()
            .map(|task| task.tid)
            .or(self.python.as_ref()?.tid)
    }

    /// The function of the CUDA driver or runtime, or of NCCL, that it is in; the outermost that was found.
    pub fn device_call(&self) -> Option<&Found> {
        self.native
            .as_ref()
            .ok()?
            .iter()
            .find(|found| matches!(found.library, "libcuda" | "libcudart" | "libnccl"))
    }
}
