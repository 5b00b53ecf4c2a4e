//! Streams and events of the driver: what a call that waits has waited for.

use std::collections::HashMap;

use super::pass::Wait;

/// Streams and events of a process remembered, at most; beyond, all are forgotten.
const CAPACITY: usize = 65_536;

/// The streams of one process.
#[derive(Debug, Default)]
pub struct Streams {
    /// Latest graph launch on each stream.
    launched_ns: HashMap<u64, u64>,
    /// Where each event was recorded last, and the latest launch there by then.
    recorded: HashMap<u64, (u64, Option<u64>)>,
}

impl Streams {
    /// A graph was launched.
    pub fn launch(&mut self, stream: u64, at_ns: u64) {
        if self.launched_ns.len() >= CAPACITY {
            self.launched_ns.clear();
        }
        self.launched_ns.insert(stream, at_ns);
    }

    /// An event was recorded.
    pub fn record(&mut self, event: u64, stream: u64) {
        if self.recorded.len() >= CAPACITY {
            self.recorded.clear();
        }
        let launched = self.launched_ns.get(&stream).copied();
        self.recorded.insert(event, (stream, launched));
    }

    /// A call has waited for a stream.
    pub fn stream_waited(&self, stream: u64, entry_ns: u64, end_ns: u64) -> Option<Wait> {
        Some(Wait {
            stream: Some(stream),
            upto_ns: *self.launched_ns.get(&stream)?,
            entry_ns,
            end_ns,
        })
    }

    /// A call has waited for an event.
    pub fn event_waited(&self, event: u64, entry_ns: u64, end_ns: u64) -> Option<Wait> {
        let (stream, launched) = *self.recorded.get(&event)?;
        Some(Wait {
            stream: Some(stream),
            upto_ns: launched?,
            entry_ns,
            end_ns,
        })
    }

    /// A call has waited for everything.
    pub fn all_waited(&self, entry_ns: u64, end_ns: u64) -> Option<Wait> {
        Some(Wait {
            stream: None,
            upto_ns: *self.launched_ns.values().max()?,
            entry_ns,
            end_ns,
        })
    }

    /// A record was lost.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}
