//! `encoder_decoder_timing.csv`.

use super::cell::{Millis, Stamp};
use super::table;

table! {
    /// Calls of encoders, of the decoders beside them, and of the encoders' cache.
    "encoder_decoder_timing" => EncoderCall {
        /// When the call began.
        timestamp_sec: Stamp [Moment],
        /// `encoder`, `decoder` (the model of a server that has an encoder; model runner V1), `cross_attention` (one
        /// layer's), `encoder_cache_hit` or `encoder_cache_eviction`.
        component: &'static str [Text],
        /// How long it took on the host.
        duration_ms: Option<Millis> [Milliseconds],
        /// `requests=N` of an encoder's call, `tokens=N` of a cross attention, `request=ID input=N` of a hit.
        context: String [Text],
        /// The engine's step.
        step: Option<u64> [Identity],
        /// Inputs encoded, found in the cache, or taken from it.
        num_items: Option<u64> [Count],
        /// Process.
        pid: u32 [Identity],
        /// Rank of the worker.
        rank: Option<u32> [Identity],
    }
}
