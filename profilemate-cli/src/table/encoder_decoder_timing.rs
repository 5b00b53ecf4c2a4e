//! `encoder_decoder_timing.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Calls of multimodal encoders.
    "encoder_decoder_timing" => EncoderCall {
        /// When the call began.
        timestamp_sec: Stamp [Moment],
        /// What was called.
        component: String [Text],
        /// How long it took on the host.
        duration_ms: Option<Millis> [Milliseconds],
        /// More about the call.
        context: String [Text],
        /// The engine's step.
        step: Option<u64> [Identity],
        /// Items encoded.
        num_items: Option<u64> [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
