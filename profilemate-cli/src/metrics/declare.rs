//! Every metric, declared once: name, kind, unit, help, labels. `docs/metrics.md` is generated from here, and
//! [`super::registry::Registry`] has exactly these.
//!
//! Names follow OpenTelemetry's semantic conventions where these have one (`gen_ai_server_*`: `gen_ai.server.*` as of
//! semantic-conventions 1.37, in Prometheus's spelling), and are `profilemate_*` elsewhere. Base units only.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the server or the agent ends.
    Counter,
    /// A value of the moment.
    Gauge,
    /// A distribution: classic buckets with these upper bounds, and a native histogram beside them.
    Histogram(Buckets),
}

impl Kind {
    /// As an exposition calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Upper bounds of classic buckets; the last, `+Inf`, is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// From 100 us to 10 s: steps.
    Step,
    /// From 1 ms to 1 s, and few: forward passes, of which each rank has a histogram for each graph mode.
    Forward,
    /// Powers of two from 1 to 32,768: tokens.
    Tokens,
    /// Of the convention for request durations: 10 ms to 81.92 s.
    Request,
    /// Of the convention for the first token: 1 ms to 10 s.
    FirstToken,
    /// Of the convention for each further token: 10 ms to 2.5 s.
    OutputToken,
}

impl Buckets {
    /// The bounds, ascending.
    pub const fn bounds(self) -> &'static [f64] {
        match self {
            Self::Step => &[
                0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                0.5, 1.0, 2.5, 5.0, 10.0,
            ],
            Self::Forward => &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0],
            Self::Tokens => &[
                1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0,
                4_096.0, 8_192.0, 16_384.0, 32_768.0,
            ],
            Self::Request => &[
                0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
                81.92,
            ],
            Self::FirstToken => &[
                0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
                7.5, 10.0,
            ],
            Self::OutputToken => &[
                0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
            ],
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name as exposed, with its unit and `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Base unit as its name ends with it; empty for plain counts.
    pub unit: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// Session table whose rows feed it; empty for what the agent tells of itself.
    pub table: &'static str,
}

impl Metric {
    /// Its name with OTLP: dots where the conventions have them, without unit and `_total`.
    pub fn otel_name(&self) -> String {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let bare = name
            .strip_suffix(self.unit)
            .and_then(|name| name.strip_suffix('_'))
            .filter(|_| !self.unit.is_empty())
            .unwrap_or(name);
        match bare.strip_prefix("gen_ai_server_") {
            Some("request_duration") => "gen_ai.server.request.duration".to_owned(),
            Some(rest) => format!("gen_ai.server.{rest}"),
            None => bare.replacen('_', ".", 1),
        }
    }
}

/// Declares the list and an index for each entry.
macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $id:ident = $name:literal: $kind:expr, $unit:literal, [$($label:literal),*], $table:literal; )+) => {
        /// Index of a metric in [`METRICS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Id { $( $(#[doc = $help])+ $id, )+ }

        impl Id {
            /// All, in the order of [`METRICS`].
            pub const ALL: &[Self] = &[ $( Self::$id, )+ ];
        }

        /// All metrics, in the order in which they are exposed.
        pub const METRICS: &[Metric] = &[ $( Metric {
            name: $name,
            kind: $kind,
            unit: $unit,
            help: concat!($($help),+).trim_ascii(),
            labels: &[$($label),*],
            table: $table,
        }, )+ ];
    };
}

use Buckets::{FirstToken, Forward, OutputToken, Request, Step, Tokens};
use Kind::{Counter, Gauge, Histogram};

metrics! {
    /// The agent, and its version.
    AgentInfo = "profilemate_agent_info": Gauge, "", ["version"], "";
    /// Processor time of the agent.
    AgentCpu = "profilemate_agent_cpu_seconds_total": Counter, "seconds", [], "";
    /// Resident memory of the agent.
    AgentResident = "profilemate_agent_resident_bytes": Gauge, "bytes", [], "";
    /// Servers that the agent knows on this node.
    Servers = "profilemate_servers": Gauge, "", [], "";
    /// Pushes of metrics by OTLP, by result: `ok` or `failed`. What is tried again within a push counts once.
    Pushes = "profilemate_otlp_pushes_total": Counter, "", ["result"], "";
    /// Spans of steps and requests, by what became of them: `ok`, `failed` (tried in vain), or `dropped` (no room: too many waited).
    Spans = "profilemate_otlp_spans_total": Counter, "", ["result"], "";
    /// Spans that wait or are being sent; never more than 2,048.
    SpansWaiting = "profilemate_otlp_spans_waiting": Gauge, "", [], "";
    /// Attempts to attach to a server that failed, by reason.
    AttachFailures = "profilemate_attach_failures_total": Counter, "", ["reason"], "";
    /// What a server is; the value is 1.
    ServerInfo = "profilemate_server_info": Gauge, "", ["server", "version", "model", "python", "pid", "pod", "namespace", "container"], "";
    /// 1 if the server is attached and tells, 0 if it is there and does not.
    ServerUp = "profilemate_server_up": Gauge, "", ["server"], "";
    /// Records that arrived from the probes.
    Events = "profilemate_events_total": Counter, "", ["server"], "";
    /// Records that did not arrive: `ring`, the kernel's buffer was full; `driver`, the same for calls of the CUDA driver; `userspace`, dropped by the agent; `undecodable`, arrived and not understood.
    EventsLost = "profilemate_events_lost_total": Counter, "", ["server", "kind"], "";
    /// Part of its time in steps that tracing takes from the process of the server that pays most; measured while the agent keeps to a budget.
    OverheadRatio = "profilemate_overhead_ratio": Gauge, "", ["server"], "";
    /// Schedule calls.
    Steps = "profilemate_steps_total": Counter, "", ["server", "engine"], "batch_utilization";
    /// Tokens scheduled.
    TokensScheduled = "profilemate_tokens_total": Counter, "", ["server", "engine"], "batch_utilization";
    /// Requests that run, at the latest schedule call.
    Running = "profilemate_requests_running": Gauge, "", ["server", "engine"], "batch_utilization";
    /// Requests that wait, at the latest schedule call.
    Waiting = "profilemate_requests_waiting": Gauge, "", ["server", "engine"], "batch_utilization";
    /// Part of the KV cache's blocks that is in use, at the latest schedule call.
    KvUsage = "profilemate_kv_cache_usage_ratio": Gauge, "ratio", ["server", "engine"], "kv_cache_usage";
    /// Blocks that lost their cached content to be handed out again.
    Evictions = "profilemate_kv_cache_evictions_total": Counter, "", ["server", "engine"], "kv_cache_evictions";
    /// Preemptions of requests.
    Preemptions = "profilemate_preemptions_total": Counter, "", ["server", "engine"], "preemption_events";
    /// Tokens that preemptions threw away, to be computed again.
    Recomputed = "profilemate_recomputed_tokens_total": Counter, "", ["server", "engine"], "preemption_events";
    /// From one schedule call to the next of the same engine; a gap above a second is idle time and no step.
    StepDuration = "profilemate_step_duration_seconds": Histogram(Step), "seconds", ["server", "engine"], "batch_utilization";
    /// Tokens scheduled in a step.
    BatchTokens = "profilemate_batch_tokens": Histogram(Tokens), "", ["server", "engine"], "batch_utilization";
    /// Forward passes on the host, by the CUDA graph mode that was decided; `unknown` where that was not seen.
    ForwardDuration = "profilemate_forward_duration_seconds": Histogram(Forward), "seconds", ["server", "engine", "rank", "graph_mode"], "forward_pass_timing";
    /// Host time of the operations of a step, by stage; time inside of another operation counts once.
    StageSeconds = "profilemate_step_stage_seconds_total": Counter, "seconds", ["server", "engine", "stage"], "cpu_operations_timing";
    /// Replays of CUDA graphs, by the padded batch size (power of two at or above it, or `larger`).
    GraphReplays = "profilemate_graph_replays_total": Counter, "", ["server", "engine", "rank", "mode", "size"], "cuda_graph_usage";
    /// Forward passes without a CUDA graph, by reason.
    EagerPasses = "profilemate_graph_eager_passes_total": Counter, "", ["server", "engine", "rank", "reason"], "cuda_graph_usage";
    /// Tokens run in CUDA graphs, padding included, in replays whose scheduled tokens are known.
    PaddedTokens = "profilemate_graph_padded_tokens_total": Counter, "", ["server", "engine", "rank", "mode"], "cuda_graph_usage";
    /// Tokens that were scheduled for these.
    GraphTokens = "profilemate_graph_tokens_total": Counter, "", ["server", "engine", "rank", "mode"], "cuda_graph_usage";
    /// From the first schedule call that took a request to the one that told its end; time in the queue before is not in it.
    RequestDuration = "gen_ai_server_request_duration_seconds": Histogram(Request), "seconds", ["server", "engine"], "request_lifecycle";
    /// From the first schedule call that took a request to the one that found its first output token there. vLLM calls it `vllm:request_prefill_time_seconds`.
    PrefillDuration = "profilemate_request_prefill_duration_seconds": Histogram(FirstToken), "seconds", ["server", "engine"], "request_lifecycle";
    /// Mean time of an output token of a request, between the first and the last schedule call that counted some.
    TimePerToken = "gen_ai_server_time_per_output_token_seconds": Histogram(OutputToken), "seconds", ["server", "engine"], "request_lifecycle";
    /// 1 if this rule of `explain` finds its fault in the latest window (`[findings]` of the configuration), 0 if it was looked for and is not there.
    Finding = "profilemate_finding": Gauge, "", ["server", "rule"], "";
    /// Tokens that such a fault cost in each second of that window, where its rows tell.
    FindingTokens = "profilemate_finding_lost_tokens_per_second": Gauge, "", ["server", "rule"], "";
    /// Time that such a fault cost, by the time of that window, where its rows tell. Above 1 where several requests or processes lose it.
    FindingTime = "profilemate_finding_lost_time_ratio": Gauge, "ratio", ["server", "rule"], "";
    /// 1 if the latest window does not show enough to judge this rule, for this reason.
    NotJudged = "profilemate_finding_not_judged": Gauge, "", ["server", "rule", "reason"], "";
}

impl Id {
    /// Its declaration.
    pub fn metric(self) -> &'static Metric {
        &METRICS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_with_unit_and_total() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let base = metric.name.strip_suffix("_total");
            assert_eq!(base.is_some(), metric.kind == Counter, "{}", metric.name);
            let base = base.unwrap_or(metric.name);
            assert!(base.ends_with(metric.unit), "{}", metric.name);
            assert!(
                base.starts_with("profilemate_") || base.starts_with("gen_ai_"),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn names_with_otlp_follow_the_conventions() {
        assert_eq!(
            Id::RequestDuration.metric().otel_name(),
            "gen_ai.server.request.duration"
        );
        assert_eq!(Id::AgentCpu.metric().otel_name(), "profilemate.agent_cpu");
        assert_eq!(Id::Steps.metric().otel_name(), "profilemate.steps");
        assert!(
            METRICS
                .iter()
                .zip(Id::ALL)
                .all(|(metric, id)| metric.name == id.metric().name)
        );
    }

    #[test]
    fn bounds_ascend_and_tables_exist() {
        for metric in METRICS {
            if let Histogram(buckets) = metric.kind {
                assert!(buckets.bounds().windows(2).all(|pair| pair[0] < pair[1]));
            }
            assert!(metric.table.is_empty() || crate::table::index_of(metric.table).is_some());
        }
    }

    #[test]
    fn no_label_can_name_a_request() {
        for metric in METRICS {
            assert!(
                metric
                    .labels
                    .iter()
                    .all(|label| !label.contains("request") && *label != "step"),
                "{}",
                metric.name
            );
        }
    }
}
