//! CUDA graphs: captured sizes, replays, padding.

use std::collections::{BTreeMap, BTreeSet};

use super::{MEMBERS, Span, seconds};
use crate::table::cuda_graph_captures::CudaGraphCapture;
use crate::table::cuda_graph_usage::CudaGraphUse;

/// Replays of one captured size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Replays {
    /// Replays.
    pub replays: u64,
    /// Tokens run, padding included.
    pub padded: u64,
    /// Tokens scheduled.
    pub actual: u64,
}

impl Replays {
    /// Tokens that were padding.
    pub fn padding(&self) -> u64 {
        self.padded.saturating_sub(self.actual)
    }
}

/// What was captured and replayed.
#[derive(Clone, Debug, Default)]
pub struct Graphs {
    /// Rows of captures.
    pub captures: Span,
    /// Rows of usage.
    pub usage: Span,
    /// Captured sizes in tokens, by runtime mode.
    pub sizes: BTreeMap<String, BTreeSet<u64>>,
    /// By (runtime mode, size in tokens), of those whose padding is known.
    pub replays: BTreeMap<(String, u64), Replays>,
    /// Replays in all, also of those whose padding is not known.
    pub replay_count: u64,
}

impl Graphs {
    pub(super) fn capture(&mut self, row: &CudaGraphCapture) {
        if row.throwaway == Some(true) {
            return;
        }
        match row.capture_time_sec {
            Some(at) => self.captures.add(seconds(at)),
            None => self.captures.count(),
        }
        self.size(row.runtime_mode, row.num_tokens);
    }

    pub(super) fn usage(&mut self, row: &CudaGraphUse) {
        if row.runtime_mode == Some("NONE") || row.module.is_some() {
            // Passes without a graph, and the graphs of an encoder, whose sizes are other ones.
            return;
        }
        self.usage.count();
        self.replay_count = self.replay_count.saturating_add(row.replay_count);
        self.size(row.runtime_mode, row.num_tokens);
        let (Some(tokens), Some(padded), Some(actual)) =
            (row.num_tokens, row.padded_tokens, row.actual_tokens)
        else {
            return;
        };
        let key = (row.runtime_mode.unwrap_or_default().to_owned(), tokens);
        if self.replays.len() < MEMBERS || self.replays.contains_key(&key) {
            let replays = self.replays.entry(key).or_default();
            replays.replays = replays.replays.saturating_add(row.replay_count);
            replays.padded = replays.padded.saturating_add(padded);
            replays.actual = replays.actual.saturating_add(actual);
        }
    }

    fn size(&mut self, mode: Option<&str>, tokens: Option<u64>) {
        let (Some(mode), Some(tokens)) = (mode, tokens) else {
            return;
        };
        if mode == "NONE" || self.sizes.len() >= 16 && !self.sizes.contains_key(mode) {
            return;
        }
        let sizes = self.sizes.entry(mode.to_owned()).or_default();
        if sizes.len() < MEMBERS {
            sizes.insert(tokens);
        }
    }

    /// Before further rows: the captured sizes only.
    pub(super) fn next(&self) -> Self {
        Self {
            sizes: self.sizes.clone(),
            ..Self::default()
        }
    }

    /// Every captured size, ascending.
    pub fn all_sizes(&self) -> BTreeSet<u64> {
        self.sizes.values().flatten().copied().collect()
    }

    /// Whether graphs were captured that batches with prompt tokens use too.
    pub fn has_piecewise(&self) -> bool {
        self.sizes.contains_key("PIECEWISE")
    }

    /// Over all sizes.
    pub fn total(&self) -> Replays {
        self.replays
            .values()
            .fold(Replays::default(), |sum, one| Replays {
                replays: sum.replays.saturating_add(one.replays),
                padded: sum.padded.saturating_add(one.padded),
                actual: sum.actual.saturating_add(one.actual),
            })
    }
}
