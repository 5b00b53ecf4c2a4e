//! `kv_cache_usage.csv`.

use super::cell::{Real, Stamp};
use super::table;

table! {
    /// How full the KV cache is at the end of each schedule call.
    "kv_cache_usage" => KvCacheUse {
        /// When the call returned.
        timestamp_sec: Stamp [Moment],
        /// Part of the blocks that is in use.
        usage_pct: Option<Real> [Percent],
        /// Blocks in use.
        num_blocks: Option<i64> [Blocks],
        /// Blocks that can be used (without vLLM's null block).
        total_blocks: Option<i64> [Blocks],
        /// Requests that run.
        running: Option<i64> [Requests],
        /// Requests that wait, by vLLM's own sum.
        waiting: Option<i64> [Requests],
        /// Process.
        pid: u32 [Identity],
        /// Data parallel rank of the engine.
        engine: Option<u32> [Identity],
    }
}
