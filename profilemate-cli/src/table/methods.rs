//! `methods.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Calls of the methods that the user named.
    "methods" => MethodCall {
        /// When the call began.
        timestamp_sec: Stamp [Moment],
        /// `module:qualname`.
        method: String [Text],
        /// How long it took.
        duration_ms: Option<Millis> [Milliseconds],
        /// `object`, `none`, `true`, `false` or `raised`.
        outcome: &'static str [Text],
        /// Process.
        pid: u32 [Identity],
        /// Thread.
        tid: u32 [Identity],
        /// The fields as a JSON object; a field that was not read is left out.
        fields: String [Text],
    }
}
