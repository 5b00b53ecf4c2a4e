//! `kv_cache_evictions.csv`.

use super::cell::{Seconds, Stamp};
use super::table;

table! {
    /// Blocks that lost their cached content to be handed out again.
    "kv_cache_evictions" => KvCacheEviction {
        /// When.
        timestamp_sec: Stamp [Moment],
        /// Since the block was last handed out; empty if that was before the attach.
        lifetime_sec: Option<Seconds> [Seconds],
        /// Since it was last handed out or hit by the prefix cache.
        idle_sec: Option<Seconds> [Seconds],
        /// Block.
        block_id: Option<i64> [Identity],
        /// Process.
        pid: u32 [Identity],
        /// Data parallel rank of the engine.
        engine: Option<u32> [Identity],
        /// Block pool: several stand side by side with offloading; numbered as they appear.
        pool: Option<u32> [Identity],
    }
}
