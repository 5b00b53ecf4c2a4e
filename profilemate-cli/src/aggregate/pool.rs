//! `block_pool.*`: blocks handed out, hit and evicted.

use super::{Aggregator, Rows, Seen};
use crate::event::Outcome;
use crate::table::cell::Seconds;
use crate::table::kv_cache_evictions::KvCacheEviction;

impl Aggregator {
    /// `block_pool.evict`: an eviction only if it returned `True`.
    pub(super) fn evict(&mut self, seen: Seen<'_>, rows: &mut Rows) {
        if seen.call.outcome != Outcome::True {
            return;
        }
        let block_id = seen.fields.int("block_id");
        let state = self.processes.get_mut(seen.call.pid);
        let engine = state.info.engine;
        let address = seen.fields.address("pool");
        let (pool, blocks) = state.blocks.get(address);
        let age = block_id
            .map(|id| blocks.evict(id, seen.call.ts_ns))
            .unwrap_or_default();
        // Without the hits, the time since the allocation is no idle time.
        let hits_seen = self.facts.bound.contains_key("block_pool.touch");
        rows.put(KvCacheEviction {
            timestamp_sec: self.stamp(seen.call.ts_ns),
            lifetime_sec: age.lifetime_ns.map(Seconds),
            idle_sec: age.idle_ns.filter(|_| hits_seen).map(Seconds),
            block_id,
            pid: seen.call.pid,
            engine,
            pool: address.map(|_| pool),
        });
    }

    /// `block_pool.allocate`. If not every block is known, no age is certain any more.
    pub(super) fn allocate(&mut self, seen: Seen<'_>) {
        let pools = &mut self.processes.get_mut(seen.call.pid).blocks;
        let (_, blocks) = pools.get(seen.fields.address("pool"));
        match seen.fields.ints("block_ids") {
            Some(ids) => blocks.allocate(ids, seen.call.ts_ns),
            // A call that raised handed nothing out.
            None if seen.call.outcome == Outcome::Raised => {}
            None => blocks.forget(),
        }
    }

    /// `block_pool.touch`. If not every block is known, no idle time is certain any more.
    pub(super) fn touch(&mut self, seen: Seen<'_>) {
        let pools = &mut self.processes.get_mut(seen.call.pid).blocks;
        let (_, blocks) = pools.get(seen.fields.address("pool"));
        match seen.fields.ints("block_ids") {
            Some(ids) => blocks.touch(ids, seen.call.ts_ns),
            None => blocks.blur(seen.call.ts_ns),
        }
    }
}
