//! Totals of each graph: replays, tokens, padding, host time.

use std::collections::BTreeMap;

use super::descriptor::{Descriptor, Mode};
use super::exec::Source;
use super::replay::Replay;
use crate::aggregate::distribution::Distribution;
use crate::aggregate::process::Processes;
use crate::table::cell::{Real, Stamp};
use crate::table::cuda_graph_usage::CudaGraphUse;

/// Rows, at most; what comes beyond is counted under no descriptor.
const CAPACITY: usize = 16_384;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    pid: u32,
    descriptor: Descriptor,
    reason: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
struct Totals {
    replays: u64,
    launches: u64,
    eager: u64,
    /// Replays or passes whose tokens are known, and these tokens.
    token_replays: u64,
    tokens: u64,
    host_us: Distribution,
    span: Option<(u64, u64)>,
    captured: bool,
    dispatched: bool,
}

impl Totals {
    fn tokens(&mut self, tokens: Option<u64>) {
        if let Some(tokens) = tokens {
            self.token_replays += 1;
            self.tokens = self.tokens.saturating_add(tokens);
        }
    }

    fn span(&mut self, first_ns: u64, last_ns: u64) {
        let (first, last) = self.span.unwrap_or((first_ns, last_ns));
        self.span = Some((first.min(first_ns), last.max(last_ns)));
    }
}

/// The totals of a session.
#[derive(Debug, Default)]
pub struct Usage {
    totals: BTreeMap<Key, Totals>,
    revision: u64,
}

impl Usage {
    /// A replay has ended.
    pub fn replay(&mut self, pid: u32, replay: &Replay) {
        let totals = self.entry(Key {
            pid,
            descriptor: replay.descriptor.clone().unwrap_or_default(),
            reason: None,
        });
        totals.replays += 1;
        totals.launches += replay.launches();
        totals.tokens(replay.batch_tokens);
        for ns in &replay.host_ns {
            totals.host_us.add(*ns as f64 / 1e3);
        }
        totals.span(replay.first_ns, replay.last_ns);
        totals.captured |= replay.source == Some(Source::Capture);
        totals.dispatched |= replay.source == Some(Source::Dispatch);
    }

    /// A forward pass ran without a graph.
    pub fn eager(
        &mut self,
        pid: u32,
        reason: Option<&'static str>,
        tokens: Option<u64>,
        at_ns: u64,
    ) {
        let totals = self.entry(Key {
            pid,
            descriptor: Descriptor {
                mode: Some(Mode::None),
                ..Descriptor::default()
            },
            reason: Some(reason.unwrap_or_default()),
        });
        totals.eager += 1;
        totals.tokens(tokens);
        totals.span(at_ns, at_ns);
        totals.dispatched = true;
    }

    /// Changes whenever a total does.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Launches of graphs that no descriptor is known of, and all launches.
    pub fn unknown(&self) -> (u64, u64) {
        let launches = |unknown: bool| {
            self.totals
                .iter()
                .filter(|(key, _)| !unknown || key.descriptor == Descriptor::default())
                .map(|(_, totals)| totals.launches)
                .sum()
        };
        (launches(true), launches(false))
    }

    /// Replays of graphs that were captured before the session attached.
    pub fn has_earlier_captures(&self) -> bool {
        self.totals
            .values()
            .any(|totals| totals.replays > 0 && totals.dispatched && !totals.captured)
    }

    /// The rows as they stand.
    pub fn rows(&self, processes: &Processes, started_ns: u64) -> Vec<CudaGraphUse> {
        self.totals
            .iter()
            .map(|(key, totals)| row(key, totals, processes.rank(key.pid), started_ns))
            .collect()
    }

    fn entry(&mut self, key: Key) -> &mut Totals {
        self.revision += 1;
        let key = if self.totals.len() < CAPACITY || self.totals.contains_key(&key) {
            key
        } else {
            Key {
                pid: key.pid,
                ..Key::default()
            }
        };
        self.totals.entry(key).or_default()
    }
}

fn row(key: &Key, totals: &Totals, rank: Option<u32>, started_ns: u64) -> CudaGraphUse {
    let descriptor = &key.descriptor;
    let any = totals.token_replays > 0;
    let padded = descriptor
        .tokens
        .filter(|_| any)
        .map(|tokens| tokens.saturating_mul(totals.token_replays));
    let padding = padded
        .filter(|&padded| padded > 0)
        .and_then(|padded| Some((padded.checked_sub(totals.tokens)?, padded)));
    let moment = |ns: u64| Stamp::new(ns, started_ns);
    CudaGraphUse {
        runtime_mode: descriptor.mode.map(Mode::name),
        num_tokens: descriptor.tokens,
        num_reqs: descriptor.reqs,
        uniform: descriptor.uniform,
        has_lora: descriptor.has_lora,
        replay_count: totals.replays,
        padded_tokens: padded,
        actual_tokens: any.then_some(totals.tokens),
        padding_pct: padding.map(|(padding, padded)| Real(100.0 * padding as f64 / padded as f64)),
        launch_host_us_mean: totals.host_us.mean().map(Real),
        launch_host_us_p99: totals.host_us.quantile(0.99).map(Real),
        first_sec: totals.span.map(|span| moment(span.0)),
        last_sec: totals.span.map(|span| moment(span.1)),
        pid: key.pid,
        rank,
        launches: totals.launches,
        eager_passes: totals.eager,
        eager_reason: key.reason.filter(|reason| !reason.is_empty()),
        token_replays: totals.token_replays,
        num_active_loras: descriptor.active_loras,
        uniform_token_count: descriptor.uniform_tokens,
        max_query_len: descriptor.max_query_len,
        num_ubatches: descriptor.ubatches,
        module: descriptor.part,
        descriptor_source: match (totals.captured, totals.dispatched) {
            (true, true) => Some("capture, dispatch"),
            (true, false) => Some("capture"),
            (false, true) => Some("dispatch"),
            (false, false) => None,
        },
    }
}
