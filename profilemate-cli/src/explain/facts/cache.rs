//! KV cache of one engine.

use std::collections::HashSet;

use super::{IDLE_SEC, REMEMBERED, Span, micros, seconds};
use crate::aggregate::distribution::Distribution;
use crate::table::kv_cache_usage::KvCacheUse;

/// From here on the pool is full: what is left rarely holds the next request.
pub const FULL_PCT: f64 = 95.0;

/// How full the pool was.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// All schedule calls.
    pub span: Span,
    /// Use in percent.
    pub usage: Distribution,
    /// Blocks of the pool.
    pub total_blocks: Option<i64>,
    /// Calls with a full pool and waiting requests.
    pub full: Span,
    /// Seconds of those.
    pub full_sec: f64,
    /// Seconds of all.
    pub busy_sec: f64,
    /// Seconds times the requests that waited at a full pool.
    pub request_sec: f64,
    /// Moments of those, in microseconds.
    pub full_at: HashSet<i64>,
    before: Option<(f64, i64)>,
}

impl Cache {
    pub(super) fn row(&mut self, row: &KvCacheUse) {
        let at = seconds(row.timestamp_sec);
        if let Some((before, waiting)) = self.before {
            let sec = at - before;
            if (0.0..=IDLE_SEC).contains(&sec) {
                self.busy_sec += sec;
                if waiting > 0 {
                    self.full_sec += sec;
                    self.request_sec += sec * waiting as f64;
                }
            }
        }
        self.before = Some((at, 0));
        self.total_blocks = row.total_blocks.or(self.total_blocks);
        let Some(usage) = row.usage_pct.map(|usage| (usage.0 * 1e4).round() / 1e4) else {
            return;
        };
        self.span.add(at);
        self.usage.add(usage);
        let waiting = row.waiting.unwrap_or(0);
        if usage >= FULL_PCT && waiting > 0 {
            self.full.add(at);
            self.before = Some((at, waiting));
            if self.full_at.len() < REMEMBERED {
                self.full_at.insert(micros(row.timestamp_sec));
            }
        }
    }
}
