//! What a flight recorder and a budget say in the stream.

use serde::{Deserialize, Serialize};

/// The stream is a part of a longer one: the window that a flight recorder kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The session of the recorder.
    pub recorder: String,
    /// When the recorder started, wall clock, RFC 3339.
    pub recorder_started_wall: String,
    /// First moment of the window, `CLOCK_MONOTONIC`.
    pub from_ns: u64,
    /// Last moment of the window, `CLOCK_MONOTONIC`.
    pub to_ns: u64,
    /// What it was taken for: a trigger as it was written, `process_death`, `request` or `SIGUSR1`.
    pub trigger: String,
    /// What happened, in plain words.
    pub reason: String,
    /// When that was, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The value that met the trigger's condition, if it has one.
    pub value: Option<f64>,
    /// Process in which that was, if it was in one.
    pub pid: Option<u32>,
    /// Later triggers that this snapshot was taken for too.
    pub merged: u64,
    /// The window that was asked for, in nanoseconds.
    pub window_ns: u64,
    /// Bytes that the window may take.
    pub window_bytes: u64,
    /// Records dropped because they were older than the window, since the recorder started.
    pub dropped_old: u64,
    /// Records dropped because the window was full, since the recorder started.
    pub dropped_full: u64,
    /// Triggers that made no snapshot since the recorder started, and why.
    pub suppressed: Suppressed,
}

/// Triggers that made no snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// They came too soon after the one before.
    pub cooldown: u64,
    /// So many folders had been written.
    pub folders: u64,
    /// So many bytes had been written.
    pub bytes: u64,
    /// The folder could not be written.
    pub failed: u64,
}

impl Suppressed {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.cooldown + self.folders + self.bytes + self.failed
    }
}

/// What tracing costs one process, as measured over a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Process.
    pub pid: u32,
    /// End of the while, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Its length.
    pub over_ns: u64,
    /// Passes through probed instructions.
    pub hits: u64,
    /// What they cost the process.
    pub cost_ns: u64,
    /// What the cost is compared with: the time that the process spent in steps, or all time where it makes none.
    pub base_ns: u64,
    /// Whether that is the time in steps.
    pub in_steps: bool,
}

impl Cost {
    /// The cost as a part of its base, in percent; `None` without a base.
    pub fn percent(&self) -> Option<f64> {
        (self.base_ns > 0).then(|| 100.0 * self.cost_ns as f64 / self.base_ns as f64)
    }
}

/// Methods of a process are recorded no longer, or again, because of what they cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shed {
    /// Process.
    pub pid: u32,
    /// When, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Name of the rung of the ladder.
    pub rung: String,
    /// Whether it is shed from now on, or taken up again.
    pub shed: bool,
    /// The methods, by catalogue id.
    pub methods: Vec<String>,
    /// The tables that lack them.
    pub tables: Vec<String>,
    /// The cost that led to it, in percent.
    pub before_pct: f64,
    /// The budget, in percent.
    pub budget_pct: f64,
}
