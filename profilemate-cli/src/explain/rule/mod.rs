//! The rules, as data: what each looks for, from which limits on it is a fault, which tables it needs, and which
//! options of vLLM it may tell to change.

mod expert;
mod graph;
mod memory;
mod step;
mod wait;

use super::facts::Facts;
use super::{Case, Cover, Found};
use crate::aggregate::coverage;

/// From when on something is a fault.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Name, with its unit.
    pub name: &'static str,
    /// At least, or at most where the name says so.
    pub value: f64,
    /// What it limits.
    pub doc: &'static str,
}

/// Something that must have been observed before a rule can be judged.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Table, the file name without `.csv`.
    pub table: &'static str,
    /// What it lacks, where it does.
    pub missing: &'static str,
    /// Whether it was observed.
    pub seen: fn(&Facts, &Cover) -> bool,
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name in `--json` and in documents.
    pub id: &'static str,
    /// What it looks for.
    pub doc: &'static str,
    /// What must have been observed.
    pub needs: &'static [Need],
    /// From when on it is a fault.
    pub limits: &'static [Limit],
    /// Options of `vllm serve` that it may tell to change.
    pub options: &'static [&'static str],
    /// The fault, if there is one.
    pub check: fn(&Case<'_>) -> Option<Found>,
}

pub(super) const fn limit(name: &'static str, value: f64, doc: &'static str) -> Limit {
    Limit { name, value, doc }
}

pub(super) const STEPS: Need = Need {
    table: "batch_utilization",
    missing: "no row",
    seen: |facts, _| facts.engines.values().any(|engine| engine.span.rows > 0),
};
pub(super) const CACHE: Need = Need {
    table: "kv_cache_usage",
    missing: "no row with a usage",
    seen: |facts, _| facts.caches.values().any(|cache| cache.span.rows > 0),
};
pub(super) const PASSES: Need = Need {
    table: "forward_pass_timing",
    missing: "no row",
    seen: |facts, _| facts.forward.span.rows > 0,
};
pub(super) const PHASES: Need = Need {
    table: "forward_pass_timing",
    missing: "no row with a phase",
    seen: |facts, _| !facts.forward.phases.is_empty(),
};
pub(super) const GPU_TIME: Need = Need {
    table: "forward_pass_timing",
    missing: "no GPU time",
    seen: |facts, _| {
        facts
            .forward
            .workers
            .values()
            .any(|worker| worker.gpu_passes > 0)
    },
};
pub(super) const RANKS: Need = Need {
    table: "forward_pass_timing",
    missing: "no step that several ranks ran",
    seen: |facts, _| facts.forward.shared_steps > 0,
};
pub(super) const MODES: Need = Need {
    table: "forward_pass_timing",
    missing: "no decode pass with a graph mode",
    seen: |facts, _| !facts.forward.decode_modes.is_empty(),
};
pub(super) const GRAPHS: Need = Need {
    table: "cuda_graph_captures",
    missing: "no captured size, nor has cuda_graph_usage",
    seen: |facts, _| !facts.graphs.sizes.is_empty(),
};
/// A server without a GPU of NVIDIA's runs without CUDA graphs, and nothing can be done about it.
pub(super) const CUDA: Need = Need {
    table: "cuda_graph_captures",
    missing: "no CUDA",
    seen: |_, cover| {
        let reason = cover.blind.get("cuda_graph_captures");
        reason.is_none_or(|reason| reason != coverage::NO_CUDA)
    },
};
pub(super) const REQUESTS: Need = Need {
    table: "preemption_events",
    missing: "no row",
    seen: |facts, _| facts.requests.started.rows + facts.requests.preempted.rows > 0,
};
pub(super) const EXPERTS: Need = Need {
    table: "moe_expert_selection",
    missing: "no row",
    seen: |facts, _| facts.experts.rows.rows > 0,
};
pub(super) const ENCODER: Need = Need {
    table: "encoder_decoder_timing",
    missing: "no row",
    seen: |facts, _| facts.encoder.0.rows > 0,
};

/// All rules.
pub const RULES: &[Rule] = &[
    graph::PADDING,
    graph::TOO_LARGE,
    graph::UNUSED,
    memory::PREEMPTION,
    memory::SMALL,
    memory::IDLE,
    wait::SLOTS,
    wait::BUDGET,
    wait::ENCODER_BUDGET,
    step::GPU_IDLE,
    step::WORKER_IDLE,
    step::PREFILL_STALL,
    expert::IMBALANCE,
    step::RANK_LAG,
];
