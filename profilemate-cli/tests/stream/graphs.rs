//! A worker whose driver is probed, and what its calls tell.

use super::driver::{Caller, wrapped};
use super::server::{WORKER, batch};
use super::{Result, Stream, V, Values};

/// The worker's thread.
pub(crate) const MAIN: Caller = Caller { pid: 201, tid: 201 };
pub(crate) const METHODS: &[&str] = &[
    "runner.execute_model",
    "graph.dispatch",
    "graph.dispatch_full",
    "graph.capture",
    "graph.segments",
    "graph.hint",
    "graph.capture_model",
    "graph.profile",
    "graph.capture_encoder",
    "graph.dispatch_encoder",
];

/// A worker whose driver is probed.
pub(crate) fn worker() -> Stream {
    let mut stream = Stream::new();
    stream.process(201, 1, "worker", Some(2));
    stream.bind(201, 2, METHODS);
    stream.library(&[201, 202]);
    stream
}

impl Stream {
    pub(crate) fn decides(&mut self, us: u64, values: Values) {
        self.call(WORKER, "graph.dispatch", us, us + 2, Result::Object, values);
    }

    /// A pass of one decoding request with `tokens` tokens.
    pub(crate) fn passes(&mut self, from_us: u64, to_us: u64, tokens: i64) {
        let id = "runner.execute_model";
        let values = batch(&[(1, tokens, Some(1))]);
        self.call(WORKER, id, from_us, to_us, Result::None, values);
    }

    /// A piecewise capture of one piece, explained by its wrapper.
    pub(crate) fn piece(&mut self, us: u64, tokens: i64, piece: i64, exec: u64) {
        self.captured(MAIN, us + 10, exec + 0x1000, exec);
        let mut values = wrapped("PIECEWISE", tokens, None);
        values.push(("piece", V::Int(piece)));
        values.push(("pieces", V::Int(3)));
        self.call(
            WORKER,
            "graph.capture",
            us,
            us + 130,
            Result::Object,
            values,
        );
    }

    /// The capture of a full graph, explained by its wrapper.
    pub(crate) fn full(&mut self, us: u64, tokens: i64, exec: u64) {
        self.captured(MAIN, us + 10, exec + 0x1000, exec);
        let values = wrapped("FULL", tokens, Some(tokens));
        self.call(
            WORKER,
            "graph.capture",
            us,
            us + 130,
            Result::Object,
            values,
        );
    }
}

/// Columns that say what was replayed.
pub(crate) const USE: [&str; 8] = [
    "runtime_mode",
    "num_tokens",
    "num_reqs",
    "replay_count",
    "launches",
    "padded_tokens",
    "actual_tokens",
    "descriptor_source",
];
