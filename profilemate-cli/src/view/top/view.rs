//! The numbers of a moment, as they are drawn and printed (`--json`). What was not observed is `None`.

use serde::Serialize;

/// All numbers of a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct View {
    /// Seconds since the attach.
    pub elapsed_sec: f64,
    /// Seconds over which rates and means are taken.
    pub window_sec: f64,
    /// Schedule calls a second, all engines.
    pub steps_per_sec: Option<f64>,
    /// Scheduled tokens a second, all engines.
    pub tokens_per_sec: Option<f64>,
    /// Tokens of each of the latest seconds, the oldest first.
    pub tokens_history: Vec<u64>,
    /// Sequences of the latest batch and the most there can be, summed over engines.
    pub seqs: Option<(i64, i64)>,
    /// Mean use of the batch's sequences, in percent.
    pub seq_utilization_pct: Option<f64>,
    /// Mean use of the step's token budget, in percent.
    pub token_utilization_pct: Option<f64>,
    /// Requests that run.
    pub running: Option<i64>,
    /// Requests that wait.
    pub waiting: Option<i64>,
    /// KV cache use of the fullest engine, in percent.
    pub kv_usage_pct: Option<f64>,
    /// KV blocks in use and in all, summed over engines.
    pub kv_blocks: Option<(i64, i64)>,
    /// Blocks evicted from the prefix cache since the start or reset; `None` before an engine is seen.
    pub evictions: Option<u64>,
    /// Evictions a second.
    pub evictions_per_sec: f64,
    /// Preemptions since the start or reset; `None` before an engine is seen.
    pub preemptions: Option<u64>,
    /// Finished requests since the start or reset.
    pub finished: u64,
    /// Where the time of a step goes.
    pub stages: Vec<Stage>,
    /// Engines and workers.
    pub ranks: Vec<Rank>,
    /// Requests that run, and the slowest that finished.
    pub requests: Vec<Request>,
    /// Part of the forward passes that replayed a CUDA graph, in percent.
    pub graph_hit_pct: Option<f64>,
    /// CUDA graphs by captured size.
    pub graphs: Vec<Graph>,
    /// Events a second.
    pub events_per_sec: f64,
    /// Events lost since the attach.
    pub lost: u64,
    /// Use of one processor by this tracer, in percent.
    pub own_cpu_pct: Option<f64>,
    /// Largest resident memory of this tracer, in bytes.
    pub own_rss_bytes: Option<u64>,
    /// Time for which threads of the target stood still, in milliseconds.
    pub target_stopped_ms: Option<f64>,
}

/// A part of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Mean time of it in a step, in milliseconds, on the slowest rank.
    pub ms: Option<f64>,
}

/// A process of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rank {
    /// Process id.
    pub pid: u32,
    /// Its part.
    pub role: String,
    /// Data parallel rank of its engine.
    pub engine: Option<u32>,
    /// Tensor parallel rank.
    pub rank: Option<u32>,
    /// Steps or forward passes a second.
    pub steps_per_sec: Option<f64>,
    /// Tokens a second.
    pub tokens_per_sec: Option<f64>,
    /// Requests that run, of an engine.
    pub running: Option<i64>,
    /// Requests that wait, of an engine.
    pub waiting: Option<i64>,
    /// KV cache use, of an engine, in percent.
    pub kv_usage_pct: Option<f64>,
    /// Mean time of a forward pass on the host, of a worker, in milliseconds.
    pub forward_ms: Option<f64>,
    /// 99th percentile of it.
    pub forward_p99_ms: Option<f64>,
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Request {
    /// vLLM's id.
    pub id: String,
    /// `running`, `preempted` or `finished`.
    pub state: &'static str,
    /// Since it was started, or until it finished, in seconds; `None` if its start was before the attach.
    pub age_sec: Option<f64>,
    /// Preemptions seen.
    pub preemptions: u64,
    /// Process of its engine.
    pub pid: u32,
}

/// A CUDA graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Graph {
    /// `FULL` or `PIECEWISE`.
    pub mode: String,
    /// Tokens that it is padded to.
    pub size: Option<u64>,
    /// Replays.
    pub replays: u64,
    /// Part of its tokens that was padding, in percent.
    pub padding_pct: Option<f64>,
}
