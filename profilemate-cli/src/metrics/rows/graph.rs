//! CUDA graphs: rows of totals, of which the growth is told.

use super::label::{UNKNOWN, size};
use super::{CAPACITY, Teller};
use crate::metrics::declare::Id;
use crate::table::AnyRow;
use crate::table::cuda_graph_usage::CudaGraphUse;

/// A CUDA graph or reason, as the table of totals tells them apart.
pub(super) type Graph = (
    u32,
    Option<&'static str>,
    Option<u64>,
    Option<u64>,
    Option<bool>,
    Option<bool>,
    Option<&'static str>,
);

/// Totals of such a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    replays: u64,
    eager: u64,
    padded: u64,
    actual: u64,
}

impl Teller {
    /// Takes a row of the totals: what has grown since the one before of the same graph.
    pub(super) fn graph(&mut self, row: &CudaGraphUse) {
        let key = (
            row.pid,
            row.runtime_mode,
            row.num_tokens,
            row.num_reqs,
            row.uniform,
            row.has_lora,
            row.eager_reason,
        );
        let now = Totals {
            replays: row.replay_count,
            eager: row.eager_passes,
            padded: row.padded_tokens.unwrap_or(0),
            actual: row.actual_tokens.unwrap_or(0),
        };
        if self.graphs.len() >= CAPACITY && !self.graphs.contains_key(&key) {
            return;
        }
        let before = self.graphs.insert(key, now).unwrap_or_default();
        let engine = self.engine(None, row.pid);
        let rank = self.rank(row.rank, row.pid);
        let mode = row.runtime_mode.unwrap_or(UNKNOWN);
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
        self.window.row(&AnyRow::from(CudaGraphUse {
            replay_count: now.replays.saturating_sub(before.replays),
            eager_passes: now.eager.saturating_sub(before.eager),
            padded_tokens: row
                .padded_tokens
                .map(|_| now.padded.saturating_sub(before.padded)),
            actual_tokens: row
                .actual_tokens
                .map(|_| now.actual.saturating_sub(before.actual)),
            ..row.clone()
        }));
        let (server, registry) = (self.server.as_str(), &self.registry);
        if now.replays > 0 {
            let labels = [server, &engine, &rank, mode, &size(row.num_tokens)];
            registry.add(
                Id::GraphReplays,
                &labels,
                grown(now.replays, before.replays),
            );
        }
        if now.eager > 0 {
            let reason = row.eager_reason.unwrap_or(UNKNOWN);
            let labels = [server, &engine, &rank, reason];
            registry.add(Id::EagerPasses, &labels, grown(now.eager, before.eager));
        }
        if row.padded_tokens.is_some() && row.actual_tokens.is_some() && now.replays > 0 {
            let labels = [server, &engine, &rank, mode];
            registry.add(Id::PaddedTokens, &labels, grown(now.padded, before.padded));
            registry.add(Id::GraphTokens, &labels, grown(now.actual, before.actual));
        }
    }
}
