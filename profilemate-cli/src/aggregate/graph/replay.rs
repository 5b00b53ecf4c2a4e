//! Replays: graphs launched one after another for one batch.

use super::descriptor::Descriptor;
use super::exec::Source;

/// Graphs of one replay remembered, at most.
const CAPACITY: usize = 65_536;

/// One launch of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The executable graph's handle.
    pub exec: u64,
    /// When it began, `CLOCK_MONOTONIC`.
    pub entry_ns: u64,
    /// How long the call took on the host; `None` if its end is not told.
    pub host_ns: Option<u64>,
}

/// A replay: the graphs of one descriptor, each launched once. A piecewise graph is launched piece by piece.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Which graph; `None` if nothing tells.
    pub descriptor: Option<Descriptor>,
    /// How that is known.
    pub source: Option<Source>,
    /// Tokens of the batch, without padding.
    pub batch_tokens: Option<u64>,
    /// The decision that it carries out; 0 if none is known.
    pub decision: u64,
    /// Handles launched, in order.
    pub execs: Vec<u64>,
    /// Host times of the launches.
    pub host_ns: Vec<u64>,
    /// First launch.
    pub first_ns: u64,
    /// Last launch.
    pub last_ns: u64,
}

impl Replay {
    /// Begins with no launch yet.
    pub fn new(descriptor: Option<Descriptor>, source: Option<Source>, at_ns: u64) -> Self {
        Self {
            descriptor,
            source,
            batch_tokens: None,
            decision: 0,
            execs: Vec::new(),
            host_ns: Vec::new(),
            first_ns: at_ns,
            last_ns: at_ns,
        }
    }

    /// Whether a launch of `exec` for the same descriptor and decision belongs to it too.
    pub fn continues(&self, descriptor: Option<&Descriptor>, decision: u64, exec: u64) -> bool {
        self.descriptor.as_ref() == descriptor
            && self.decision == decision
            && !self.execs.contains(&exec)
            && self.execs.len() < CAPACITY
    }

    /// Takes a launch.
    pub fn add(&mut self, launch: Launch) {
        self.execs.push(launch.exec);
        self.host_ns.extend(launch.host_ns);
        self.last_ns = self.last_ns.max(launch.entry_ns);
    }

    /// Launches.
    pub fn launches(&self) -> u64 {
        self.execs.len() as u64
    }

    /// Time of all launches on the host, if each is known.
    pub fn host_sum_ns(&self) -> Option<u64> {
        (self.host_ns.len() == self.execs.len()).then(|| self.host_ns.iter().sum())
    }
}
