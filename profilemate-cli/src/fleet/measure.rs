//! What is measured of a server, an engine or a rank, as data: the query, and what of it is worse.

use std::time::Duration;

/// Labels that stand inside of a server: summing them away leaves the server's own.
const INSIDE: [&str; 9] = [
    "engine",
    "rank",
    "graph_mode",
    "kind",
    "le",
    "mode",
    "reason",
    "size",
    "stage",
];

/// What a value is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A server; its like are the servers of the same model and version.
    Server,
    /// An engine (data-parallel rank); its like are the other engines of the server.
    Engine,
    /// A worker's rank; its like are the other ranks of the engine.
    Rank,
}

impl Scope {
    /// Labels that are kept beside those of the server.
    pub const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Server => &[],
            Self::Engine => &["engine"],
            Self::Rank => &["engine", "rank"],
        }
    }

    /// What its like are, in words.
    pub const fn like(self) -> &'static str {
        match self {
            Self::Server => "servers of the same model and version",
            Self::Engine => "engines of the server",
            Self::Rank => "ranks of the engine",
        }
    }
}

/// Which way a value is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worse {
    /// Above its like.
    Higher,
    /// Below its like.
    Lower,
    /// Neither: other work, not worse work.
    Neither,
}

/// How a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Count,
    /// For each second.
    PerSecond,
    /// Seconds, shown as milliseconds.
    Seconds,
    /// From 0 to 1, shown as percent.
    Ratio,
}

/// A measure.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Name in `--json`.
    pub id: &'static str,
    /// What it is, in words.
    pub title: &'static str,
    /// How it is shown.
    pub unit: Unit,
    /// What it is told of.
    pub scope: Scope,
    /// PromQL with [`expand`]'s braces.
    pub query: &'static str,
    /// Which way is worse.
    pub worse: Worse,
    /// The measure of the work on which it depends: where that differs too, it cannot be compared.
    pub given: Option<&'static str>,
    /// A difference is at least this part of what its like have, and at least `least`.
    pub part: f64,
    /// In the unit.
    pub least: f64,
    /// Whether it is compared, or only used for costs.
    pub compared: bool,
}

const fn measure(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    query: &'static str,
) -> Measure {
    Measure {
        id,
        title,
        unit,
        scope: Scope::Server,
        query,
        worse: Worse::Neither,
        given: None,
        part: 0.05,
        least: 0.0,
        compared: true,
    }
}

impl Measure {
    const fn of(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
    const fn worse(mut self, worse: Worse) -> Self {
        self.worse = worse;
        self
    }
    const fn given(mut self, id: &'static str) -> Self {
        self.given = Some(id);
        self
    }
    const fn beyond(mut self, part: f64, least: f64) -> Self {
        self.part = part;
        self.least = least;
        self
    }
    const fn for_costs(mut self) -> Self {
        self.compared = false;
        self
    }
}

/// Tokens scheduled each second.
pub const TOKENS: &str = "tokens_per_sec";
/// Seconds of a step.
pub const STEP: &str = "step_sec";
/// Tokens of a step.
pub const BATCH: &str = "batch_tokens";
/// Requests that wait.
pub const WAITING: &str = "requests_waiting";
/// Use of the KV cache.
pub const KV: &str = "kv_cache_usage";
/// Preemptions each second.
pub const PREEMPTIONS: &str = "preemptions_per_sec";
/// Tokens computed again each second.
pub const RECOMPUTED: &str = "recomputed_tokens_per_sec";
/// Part of the passes that ran with a CUDA graph.
pub const GRAPHS: &str = "graph_hit_share";
/// Part of the tokens run in CUDA graphs that is padding.
pub const PADDING: &str = "graph_padding_share";
/// Padding tokens each second.
pub const PADDING_TOKENS: &str = "graph_padding_tokens_per_sec";
/// Requests that ended each second.
pub const REQUESTS: &str = "requests_per_sec";
/// Forward passes of a rank.
pub const FORWARD: &str = "forward_sec";
/// Part of wall time that tracing takes.
pub const OVERHEAD: &str = "overhead";
/// Requests that run.
pub const RUNNING: &str = "requests_running";
/// Steps each second.
pub const STEPS: &str = "steps_per_sec";
/// Events lost each second.
pub const LOST: &str = "events_lost_per_sec";

/// All measures.
pub const MEASURES: &[Measure] = &[
    measure(TOKENS, "tokens each second", Unit::PerSecond, "{rate:profilemate_tokens_total}").beyond(0.2, 1.0),
    measure(STEPS, "steps each second", Unit::PerSecond, "{rate:profilemate_steps_total}").for_costs(),
    measure(BATCH, "tokens in a step", Unit::Count, "{mean:profilemate_batch_tokens}").beyond(0.1, 1.0),
    measure(STEP, "time of a step", Unit::Seconds, "{mean:profilemate_step_duration_seconds}")
        .worse(Worse::Higher)
        .given(BATCH),
    measure(
        "host_sec_per_step",
        "host operations in a step",
        Unit::Seconds,
        "{rate:profilemate_step_stage_seconds_total} / {rate:profilemate_steps_total}",
    )
    .worse(Worse::Higher)
    .given(BATCH)
    .beyond(0.1, 0.000_1),
    measure(RUNNING, "requests that run", Unit::Count, "{gauge:profilemate_requests_running}").beyond(0.2, 1.0),
    measure(WAITING, "requests that wait", Unit::Count, "{gauge:profilemate_requests_waiting}").beyond(0.2, 1.0),
    measure(KV, "KV cache in use", Unit::Ratio, "{highest:profilemate_kv_cache_usage_ratio}").beyond(0.1, 0.1),
    measure(PREEMPTIONS, "preemptions each second", Unit::PerSecond, "{rate:profilemate_preemptions_total}")
        .worse(Worse::Higher)
        .beyond(0.2, 0.02),
    measure(
        RECOMPUTED,
        "tokens computed again each second",
        Unit::PerSecond,
        "{rate:profilemate_recomputed_tokens_total}",
    )
    .for_costs(),
    measure(
        GRAPHS,
        "passes with a CUDA graph",
        Unit::Ratio,
        "({rate:profilemate_graph_replays_total} or {rate:profilemate_graph_eager_passes_total} * 0) / \
         (({rate:profilemate_graph_replays_total} or {rate:profilemate_graph_eager_passes_total} * 0) + \
         ({rate:profilemate_graph_eager_passes_total} or {rate:profilemate_graph_replays_total} * 0))",
    )
    .worse(Worse::Lower)
    .beyond(0.02, 0.02),
    measure(
        PADDING,
        "padding in CUDA graphs",
        Unit::Ratio,
        "1 - {rate:profilemate_graph_tokens_total} / {rate:profilemate_graph_padded_tokens_total}",
    )
    .worse(Worse::Higher)
    .beyond(0.1, 0.03),
    measure(
        PADDING_TOKENS,
        "padding tokens each second",
        Unit::PerSecond,
        "{rate:profilemate_graph_padded_tokens_total} - {rate:profilemate_graph_tokens_total}",
    )
    .for_costs(),
    measure(
        "request_sec",
        "time of a request",
        Unit::Seconds,
        "{mean:gen_ai_server_request_duration_seconds}",
    )
    .worse(Worse::Higher)
    .given(TOKENS)
    .beyond(0.2, 0.01),
    measure(
        REQUESTS,
        "requests that ended each second",
        Unit::PerSecond,
        "{count:gen_ai_server_request_duration_seconds}",
    )
    .for_costs(),
    measure(OVERHEAD, "time that tracing takes", Unit::Ratio, "{highest:profilemate_overhead_ratio}")
        .worse(Worse::Higher)
        .beyond(0.2, 0.002),
    measure(LOST, "events lost each second", Unit::PerSecond, "{rate:profilemate_events_lost_total}")
        .worse(Worse::Higher)
        .beyond(0.2, 1.0),
    measure(
        "engine_tokens_per_sec",
        "tokens each second",
        Unit::PerSecond,
        "{rate:profilemate_tokens_total}",
    )
    .of(Scope::Engine)
    .beyond(0.2, 1.0),
    measure(
        "engine_step_sec",
        "time of a step",
        Unit::Seconds,
        "{mean:profilemate_step_duration_seconds}",
    )
    .of(Scope::Engine)
    .worse(Worse::Higher)
    .given("engine_tokens_per_sec"),
    measure(FORWARD, "time of a forward pass", Unit::Seconds, "{mean:profilemate_forward_duration_seconds}")
        .of(Scope::Rank)
        .worse(Worse::Higher),
];

/// The measure with this id.
pub fn by_id(id: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.id == id)
}

/// How the engine stores histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    /// As `_sum`, `_count` and `_bucket` only, or the engine knows no other.
    #[default]
    Classic,
    /// Also as native ones.
    Native,
}

/// Writes a query's braces out: `{rate:METRIC}`, `{gauge:METRIC}` (mean over the window, summed), `{highest:METRIC}`
/// (the same, the highest of the parts), `{count:HISTOGRAM}` (each second) and `{mean:HISTOGRAM}`.
pub fn expand(measure: &Measure, window: Duration, histograms: Histograms) -> String {
    let kept = measure.scope.labels();
    let away: Vec<&str> = INSIDE
        .into_iter()
        .filter(|label| !kept.contains(label))
        .collect();
    let (away, window) = (away.join(","), format!("{}s", window.as_secs().max(1)));
    let mut out = String::new();
    let mut rest = measure.query;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (inner, after) = after.split_once('}').unwrap_or((after, ""));
        let (form, metric) = inner.split_once(':').unwrap_or(("", inner));
        out.push_str(&written(form, metric, &away, &window, histograms));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn written(form: &str, metric: &str, away: &str, window: &str, histograms: Histograms) -> String {
    let part = |name: &str| {
        let classic = format!("rate({metric}_{name}[{window}])");
        let both = match histograms {
            Histograms::Classic => classic,
            Histograms::Native => {
                format!("{classic} or histogram_{name}(rate({metric}[{window}]))")
            }
        };
        format!("sum without ({away}) ({both})")
    };
    match form {
        "rate" => format!("sum without ({away}) (rate({metric}[{window}]))"),
        "gauge" => format!("sum without ({away}) (avg_over_time({metric}[{window}]))"),
        "highest" => format!("max without ({away}) (avg_over_time({metric}[{window}]))"),
        "count" => part("count"),
        _ => format!("({} / {})", part("sum"), part("count")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_what_is_given_is_measured_in_the_same_scope() {
        let ids: BTreeSet<&str> = MEASURES.iter().map(|measure| measure.id).collect();
        assert_eq!(ids.len(), MEASURES.len());
        for measure in MEASURES {
            if let Some(given) = measure.given.map(|id| by_id(id).unwrap()) {
                assert!(
                    given.compared && given.scope == measure.scope,
                    "{}",
                    measure.id
                );
            }
        }
    }

    #[test]
    fn queries_keep_the_labels_of_their_scope_only() {
        let minute = Duration::from_secs(60);
        let tokens = expand(by_id(TOKENS).unwrap(), minute, Histograms::Classic);
        assert_eq!(
            tokens,
            "sum without (engine,rank,graph_mode,kind,le,mode,reason,size,stage) \
             (rate(profilemate_tokens_total[60s]))"
        );
        let forward = expand(by_id(FORWARD).unwrap(), minute, Histograms::Native);
        assert_eq!(
            forward,
            "(sum without (graph_mode,kind,le,mode,reason,size,stage) \
             (rate(profilemate_forward_duration_seconds_sum[60s]) or \
             histogram_sum(rate(profilemate_forward_duration_seconds[60s]))) / \
             sum without (graph_mode,kind,le,mode,reason,size,stage) \
             (rate(profilemate_forward_duration_seconds_count[60s]) or \
             histogram_count(rate(profilemate_forward_duration_seconds[60s]))))"
        );
        for measure in MEASURES {
            let query = expand(measure, minute, Histograms::Classic);
            assert!(!query.contains(['{', '}']), "{query}");
        }
    }
}
