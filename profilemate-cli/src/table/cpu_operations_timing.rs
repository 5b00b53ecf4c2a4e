//! `cpu_operations_timing.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Calls of the host side operations around a forward pass.
    "cpu_operations_timing" => CpuOperation {
        /// When the call began.
        timestamp_sec: Stamp [Moment],
        /// Name of the operation in the catalogue, or `unattributed`: the time of a step that no operation tells.
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
        /// Of that, what no other row tells of: without the operations within this one. For each process and step
        /// these add up to the time from its begin to the next one's, with the row `unattributed` for the rest.
        self_ms: Option<Millis> [Milliseconds],
    }
}
