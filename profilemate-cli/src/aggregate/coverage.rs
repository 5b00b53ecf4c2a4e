//! For every table: whether it tells what happened, and if not, why.

use serde::Serialize;

use super::facts::Facts;
use super::process::Processes;
use super::{Aggregator, fields};
use crate::event::Process;

/// Why there are no CUDA graphs, whatever vLLM was told of them.
pub const NO_CUDA: &str = "no process of the target has loaded a CUDA driver library";

/// How far a table tells what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything that happened while the session ran is in the table; no rows means that nothing happened.
    Observed,
    /// Something is missing.
    Partial,
    /// There is nothing to tell about this target or session.
    NotApplicable,
    /// It could not be seen.
    NotObservable,
}

impl Status {
    /// As `metadata.json` says it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Partial => "partial",
            Self::NotApplicable => "not_applicable",
            Self::NotObservable => "not_observable",
        }
    }
}

/// Coverage of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// How far.
    pub status: Status,
    /// Why, in plain words; empty if there is nothing to say.
    pub reason: String,
}

impl Coverage {
    /// How far, and why.
    pub fn new(status: Status, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

/// What feeds a table.
struct Feed {
    table: &'static str,
    /// Without one of these there are no rows.
    needs: &'static [&'static str],
    /// Without these, cells or rows are missing.
    wants: &'static [&'static str],
    /// Where the rows come from, in plain words.
    source: &'static str,
}

const SCHEDULE: &[&str] = &["scheduler.schedule"];

const LAYER: &[&str] = &["moe.forward"];
const ROUTER: &[&str] = &["moe.route"];
const SAMPLE: &str = "moe.sample";
const ROUTER_SOURCE: &str =
    "results of the routers, read from host memory, or counted by the helper (`--moe-sample`)";

const FEEDS: &[Feed] = &[
    Feed {
        table: "batch_utilization",
        needs: SCHEDULE,
        wants: &[],
        source: "calls of the scheduler",
    },
    Feed {
        table: "kv_cache_usage",
        needs: SCHEDULE,
        wants: &[],
        source: "block pool, read at each schedule call",
    },
    Feed {
        table: "preemption_events",
        needs: SCHEDULE,
        wants: &["scheduler.preempt"],
        source: "output of the scheduler, and its preemption method",
    },
    Feed {
        table: "request_lifecycle",
        needs: SCHEDULE,
        wants: &["scheduler.preempt"],
        source: "output of the scheduler, and its preemption method",
    },
    Feed {
        table: "kv_cache_evictions",
        needs: &["block_pool.evict"],
        wants: &["block_pool.allocate", "block_pool.touch"],
        source: "calls of the block pool",
    },
    Feed {
        table: "forward_pass_timing",
        needs: &["runner.execute_model"],
        wants: SCHEDULE,
        source: "calls of the model runner; step by order and token count; graphs and waits from driver calls",
    },
    Feed {
        table: "cuda_graph_captures",
        needs: &[],
        wants: &["graph.dispatch"],
        source: "driver calls, and the methods around them",
    },
    Feed {
        table: "cuda_graph_usage",
        needs: &[],
        wants: &["graph.dispatch"],
        source: "driver calls, and the decisions of vLLM's dispatchers",
    },
    Feed {
        table: "cuda_graph_timeline",
        needs: &[],
        wants: &["graph.dispatch"],
        source: "driver calls, and the decisions of vLLM's dispatchers",
    },
    Feed {
        table: "encoder_decoder_timing",
        needs: &["encoder.execute"],
        wants: &["encoder.cache_lookup", "scheduler.schedule"],
        source: "calls of the model runner and of the encoders' cache",
    },
    Feed {
        table: "speculative_decoding",
        needs: &["scheduler.make_stats"],
        wants: &[],
        source: "vLLM's own count of each step",
    },
    Feed {
        table: "moe_expert_timing",
        needs: LAYER,
        wants: &[],
        source: "calls of the MoE layers",
    },
    Feed {
        table: "moe_expert_selection",
        needs: ROUTER,
        wants: LAYER,
        source: ROUTER_SOURCE,
    },
    Feed {
        table: "moe_expert_coselection",
        needs: ROUTER,
        wants: LAYER,
        source: ROUTER_SOURCE,
    },
    Feed {
        table: "moe_load_imbalance",
        needs: ROUTER,
        wants: LAYER,
        source: ROUTER_SOURCE,
    },
];

/// Where a table's rows come from, in plain words; empty if nothing fills it.
pub fn source(table: &str) -> &'static str {
    match table {
        "cpu_operations_timing" => "calls of the catalogue's methods with an operation name",
        "methods" => "calls of the methods given with --method",
        _ => FEEDS
            .iter()
            .find(|feed| feed.table == table)
            .map_or("", |feed| feed.source),
    }
}

impl Aggregator {
    /// Coverage of `table` (file name without `.csv`), which has `rows` rows. `lost`: records that did not arrive.
    pub fn coverage(&self, table: &str, rows: u64, lost: u64) -> Coverage {
        let facts = &self.facts;
        if let Some(reason) = facts.not_covered.get(table) {
            let status = if rows > 0 {
                Status::Partial
            } else {
                Status::NotObservable
            };
            return Coverage::new(status, reason.as_str());
        }
        if rows == 0
            && let Some(coverage) = self.without_rows(table)
        {
            return coverage;
        }
        let feed = FEEDS.iter().find(|feed| feed.table == table);
        let mut needs = feed.map_or_else(|| self.needs_of(table), |feed| words(feed.needs));
        if feed.is_some_and(|feed| feed.needs == ROUTER) && facts.bound.contains_key(SAMPLE) {
            needs = words(&[SAMPLE]);
        }
        if table == "methods" && needs.is_empty() {
            return Coverage::new(Status::NotApplicable, "no method was given with --method");
        }
        let walks = self.walk_gaps(table).is_some();
        let has_needs = !walks && feed.is_none_or(|feed| !feed.needs.is_empty());
        if has_needs && !needs.iter().any(|id| facts.bound.contains_key(id)) && rows == 0 {
            return Coverage::new(Status::NotObservable, self.why_unbound(&needs));
        }
        let mut gaps = match self.graph_gaps(table, rows) {
            Ok(gaps) => gaps,
            Err(coverage) => return coverage,
        };
        let walked = self.walk_gaps(table);
        let probed = walked.is_none();
        gaps.extend(walked.into_iter().flatten());
        for id in needs.iter().filter(|_| probed) {
            gaps.extend(unbound_beside(facts, &self.processes, id));
        }
        for &id in feed.map_or(&[][..], |feed| feed.wants) {
            if probed && !facts.bound.contains_key(id) {
                gaps.push(self.why_unbound(&words(&[id])));
            }
        }
        for ((id, field), defect) in &facts.defects {
            let feeds =
                needs.contains(id) || feed.is_some_and(|feed| feed.wants.contains(&id.as_str()));
            if feeds {
                let (calls, why) = (defect.calls, fields::words(defect.status));
                gaps.push(format!(
                    "`{field}` of `{id}` was not read in {calls} calls: {why}"
                ));
            }
        }
        gaps.extend(facts.unread_of(table).map(|(id, field)| field.words(id)));
        for (reason, tables) in &facts.doubts {
            // The user's own methods are of no version.
            if table != "methods" && (tables.is_empty() || tables.contains(table)) {
                gaps.retain(|gap| !reason.contains(gap.as_str()));
                gaps.push(reason.clone());
            }
        }
        gaps.extend(self.moe_gaps(table));
        gaps.extend(self.decoder_gap(table));
        gaps.extend(super::shed::gaps(&facts.shed, table));
        gaps.extend(self.snapshot_gap(table));
        if lost > 0 {
            gaps.push(format!("{lost} records were lost"));
        }
        match (gaps.is_empty(), rows) {
            (false, _) => Coverage::new(Status::Partial, gaps.join("; ")),
            (true, 0) => Coverage::new(
                Status::Observed,
                "nothing of it happened while the session ran",
            ),
            (true, _) => Coverage::new(Status::Observed, ""),
        }
    }

    /// What a snapshot's table does not tell, because it was known only before the window.
    fn snapshot_gap(&self, table: &str) -> Option<String> {
        self.facts.snapshot.as_ref()?;
        match table {
            "kv_cache_evictions" => Some(
                "ages of blocks that were handed out before the window are not known".to_owned(),
            ),
            "request_lifecycle" | "preemption_events" | "cuda_graph_usage"
                if self.facts.left_out > 0 =>
            {
                Some(format!(
                    "of {} requests and graphs it is not told what was known before the window",
                    self.facts.left_out
                ))
            }
            _ => None,
        }
    }

    /// Model runner V2 calls the model itself, in no method of its own.
    fn decoder_gap(&self, table: &str) -> Option<String> {
        let called = |id: &str| self.facts.calls.contains_key(id);
        let untold = self.facts.multimodal == Some(true)
            && called("runner.execute_model")
            && !called("runner.model_forward");
        (untold && table == "encoder_decoder_timing").then(|| {
            "decoders are not told: the model runner has no method of its own around the model"
                .to_owned()
        })
    }

    /// Why a table of what only some servers have has no rows.
    fn without_rows(&self, table: &str) -> Option<Coverage> {
        let facts = &self.facts;
        match table {
            "encoder_decoder_timing" if facts.multimodal == Some(false) => {
                let reason = "the model has no encoder";
                Some(Coverage::new(Status::NotApplicable, reason))
            }
            "speculative_decoding" if facts.draft_limit == Some(0) => {
                let reason = "speculative decoding is not configured";
                Some(Coverage::new(Status::NotApplicable, reason))
            }
            "speculative_decoding" if facts.without_stats => {
                let reason =
                    "vLLM counts drafts only while its statistics are on, and they are off";
                Some(Coverage::new(Status::NotObservable, reason))
            }
            "speculative_decoding"
                if facts.draft_limit.is_none()
                    && facts.unread_of(table).next().is_none()
                    && facts.calls.contains_key("scheduler.make_stats") =>
            {
                let reason =
                    "no step had drafts: speculative decoding is off, or nothing was drafted";
                Some(Coverage::new(Status::NotApplicable, reason))
            }
            table if table.starts_with("moe_") => self.no_experts(table),
            _ => None,
        }
    }

    /// Why a table of mixture of experts layers has no rows, if a model was seen to run.
    fn no_experts(&self, table: &str) -> Option<Coverage> {
        let facts = &self.facts;
        let called = |id: &str| facts.calls.contains_key(id);
        if facts.model_experts == Some(0) {
            let reason = "the model has no MoE layers";
            return Some(Coverage::new(Status::NotApplicable, reason));
        }
        if !called("runner.execute_model") {
            return None;
        }
        if !called("moe.forward") {
            let reason = match facts.model_experts {
                Some(_) => {
                    "its MoE layers run inside compiled code or CUDA graphs, where no Python of theirs runs"
                }
                None => {
                    "no call of an MoE layer was seen: the model has none, or they run inside compiled code or CUDA \
                     graphs, where no Python of theirs runs"
                }
            };
            return Some(Coverage::new(Status::NotObservable, reason));
        }
        let told = called("moe.route") || called(SAMPLE);
        (table != "moe_expert_timing" && !told).then(|| {
            let reason = if self.was_counted("moe.monolithic") {
                "a monolithic kernel chooses the experts itself: no router is called"
            } else if facts.bound.contains_key(SAMPLE) {
                "no router was called while routers were sampled: a monolithic kernel chooses the experts itself, or all \
                 ran inside CUDA graphs or compiled code"
            } else {
                "no router with its results in host memory was called: expert ids lie in GPU memory, where `--moe-sample` \
                 has them counted, or a monolithic kernel chooses the experts itself"
            };
            Coverage::new(Status::NotObservable, reason)
        })
    }

    /// Whether a method was called whose calls are counted in the page.
    fn was_counted(&self, id: &str) -> bool {
        self.counters.iter().any(|(pid, page, slot, counters)| {
            counters.calls > 0
                && self
                    .method(pid, page, slot)
                    .is_some_and(|method| method.id == id)
        })
    }

    /// Catalogue ids that feed a table whose feeds the catalogue or the user chooses.
    fn needs_of(&self, table: &str) -> Vec<String> {
        let mut ids: Vec<String> = match table {
            "methods" => {
                let unbound = self.facts.unbound.keys().map(|(id, _)| id);
                let all = self.facts.bound.keys().chain(unbound);
                all.filter(|id| id.starts_with("user.")).cloned().collect()
            }
            _ => self
                .methods()
                .filter(|method| method.operation.is_some())
                .map(|method| method.id.clone())
                .collect(),
        };
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn why_unbound(&self, ids: &[String]) -> String {
        let mut reasons: Vec<&str> = Vec::new();
        for ((id, _), reason) in &self.facts.unbound {
            if ids.contains(id) && !reasons.contains(&reason.as_str()) {
                reasons.push(reason);
            }
        }
        if !reasons.is_empty() {
            return reasons.join("; ");
        }
        if let Some(id) = ids.iter().find(|&id| self.facts.counted.contains(id)) {
            return format!("calls of `{id}` are counted and not recorded");
        }
        // What is no part of vLLM (a resource tracker, a compiler) says nothing, unless there is nothing else.
        let parts = self.processes.all().any(|(process, _)| is_part(process));
        for (process, _) in self.processes.all() {
            if process.page.is_none()
                && is_part(process) == parts
                && let Some(reason) = &process.reason
                && !reasons.contains(&reason.as_str())
            {
                reasons.push(reason);
            }
        }
        if !reasons.is_empty() {
            return reasons.join("; ");
        }
        match ids {
            [] => "no method that feeds it was bound".to_owned(),
            ids => format!("`{}` was not bound in any process", ids.join("`, `")),
        }
    }
}

/// Whether a process has a part in vLLM in which its steps could be seen.
fn is_part(process: &Process) -> bool {
    matches!(process.role.as_str(), "engine_core" | "worker")
}

/// Processes in which a method is not bound, though it is bound in others of the same role. Where two classes share a
/// catalogue id, one of them is enough.
fn unbound_beside(facts: &Facts, processes: &Processes, id: &str) -> Vec<String> {
    let role = |pid: u32| {
        processes
            .get(pid)
            .map(|state| state.info.role.as_str())
            .unwrap_or_default()
    };
    let Some(bound) = facts.bound.get(id) else {
        return Vec::new();
    };
    let unbound = facts
        .unbound
        .iter()
        .filter(|((unbound, _), _)| unbound == id);
    unbound
        .filter(|((_, pid), _)| !bound.contains(pid))
        .filter(|((_, pid), _)| bound.iter().any(|&other| role(other) == role(*pid)))
        .map(|((_, pid), reason)| format!("process {pid}: {reason}"))
        .collect()
}

fn words(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}
