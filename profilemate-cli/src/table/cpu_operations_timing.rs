//! `cpu_operations_timing.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Calls of the host side operations around a forward pass.
    "cpu_operations_timing" => CpuOperation {
        /// When the call began.
        timestamp_sec: Stamp [Moment],
        /// Name of the operation in the catalogue.
        operation: String [Text],
        /// How long it took.
        duration_ms: Option<Millis> [Milliseconds],
        /// `tokens=N seqs=N` of the step, where it is known.
        context: String [Text],
        /// The engine's step; empty if the call cannot be joined to one.
        step: Option<u64> [Identity],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
