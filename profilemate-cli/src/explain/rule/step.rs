//! Steps: a GPU or worker that waits for the host, prompts that stall generation, a rank that lags.

use super::{GPU_TIME, PASSES, PHASES, RANKS, Rule, limit};
use crate::explain::facts::forward::Worker;
use crate::explain::{Case, Change, Cost, Evidence, Found};

const ASYNC: &str = "--async-scheduling";
const STREAM: &str = "--stream-interval";
const TOKENS: &str = "--max-num-batched-tokens";
const LONG: &str = "--long-prefill-token-threshold";
const EAGER: &str = "--enforce-eager";
const TENSOR: &str = "--tensor-parallel-size";

pub(super) const GPU_IDLE: Rule = Rule {
    id: "gpu_idle",
    doc: "The GPU is idle between passes while there is work: the host is the bottleneck.",
    needs: &[GPU_TIME],
    limits: &[
        limit(
            "passes",
            100.0,
            "passes with a GPU time that were followed by another",
        ),
        limit(
            "idle_pct",
            25.0,
            "part of the time from pass to pass in which the GPU was idle",
        ),
    ],
    options: &[ASYNC, EAGER, STREAM],
    check: gpu_idle,
};

pub(super) const WORKER_IDLE: Rule = Rule {
    id: "worker_idle",
    doc: "Workers stand still between forward passes while there is work: scheduling and output take their time.",
    needs: &[PASSES],
    limits: &[
        limit(
            "passes",
            100.0,
            "passes that were followed by another within a second",
        ),
        limit("idle_pct", 40.0, "part of the time between passes"),
    ],
    options: &[ASYNC, STREAM],
    check: worker_idle,
};

pub(super) const PREFILL_STALL: Rule = Rule {
    id: "prefill_stalls_decode",
    doc: "Steps that read prompts take much longer than those that only generate, and whoever generates waits for them.",
    needs: &[PHASES],
    limits: &[
        limit("mixed", 20.0, "passes that read prompts and generate"),
        limit("ratio", 3.0, "their median by that of decode passes"),
        limit(
            "share_pct",
            10.0,
            "part of the time of all passes that they take longer",
        ),
    ],
    options: &[TOKENS, LONG],
    check: prefill_stall,
};

pub(super) const RANK_LAG: Rule = Rule {
    id: "rank_lag",
    doc: "One rank ends its passes last, step after step, and the others wait for it.",
    needs: &[RANKS],
    limits: &[
        limit("steps", 100.0, "steps that several ranks ran"),
        limit(
            "last_pct",
            60.0,
            "part of them that this rank ended last; twice its share by chance at least",
        ),
        limit(
            "behind_pct",
            5.0,
            "time behind the median of the ranks, of the time of those steps",
        ),
    ],
    options: &[TENSOR],
    check: rank_lag,
};

/// The worker with the largest part of idle time: pid, worker, percent.
fn idlest(
    case: &Case<'_>,
    passes: fn(&Worker) -> u64,
    idle_part: fn(&Worker) -> f64,
) -> Option<(u32, Worker, f64)> {
    let workers = case.facts.forward.workers.iter();
    workers
        .filter(|(_, worker)| passes(worker) as f64 >= case.limit("passes"))
        .map(|(&pid, worker)| (pid, *worker, 100.0 * idle_part(worker)))
        .filter(|one| one.2 >= case.limit("idle_pct"))
        .max_by(|one, two| one.2.total_cmp(&two.2))
}

fn gpu_idle(case: &Case<'_>) -> Option<Found> {
    let part =
        |worker: &Worker| 1.0 - worker.gpu_sec / worker.gpu_interval_sec.max(f64::MIN_POSITIVE);
    let (pid, worker, idle) = idlest(case, |worker| worker.gpu_passes, part)?;
    let mean = worker.gpu_interval_sec * 1e3 / worker.gpu_passes as f64;
    let text = format!(
        "process {pid}: {idle:.0} % of the {mean:.2} ms from pass to pass without work on the GPU, over {} passes",
        worker.gpu_passes
    );
    let idle_ms = (worker.gpu_interval_sec - worker.gpu_sec) * 1e3;
    Some(Found {
        title: format!(
            "The GPU is idle {idle:.0} % of the time between passes: steps are bound by the host"
        ),
        evidence: vec![
            Evidence::new("forward_pass_timing", &case.facts.forward.span, text)
                .number("idle_pct", idle)
                .number("interval_ms_mean", mean)
                .number("pid", f64::from(pid)),
        ],
        cost: Cost::steps(
            case.facts,
            idle_ms,
            case.facts.engines.len(),
            "in which the GPU had nothing to do although another pass followed",
        ),
        changes: vec![
            Change::new(
                ASYNC,
                "schedule the next step while the GPU works on this one",
            ),
            Change::new(
                EAGER,
                "remove it if it is given: CUDA graphs launch a pass at once",
            ),
            Change::new(STREAM, "send tokens to clients less often"),
        ],
    })
}

fn worker_idle(case: &Case<'_>) -> Option<Found> {
    let part = |worker: &Worker| {
        let all = worker.gap_sec + worker.pass_sec;
        worker.gap_sec / all.max(f64::MIN_POSITIVE)
    };
    let (pid, worker, idle) = idlest(case, |worker| worker.followed, part)?;
    let gap_ms = worker.gap_sec * 1e3 / worker.followed as f64;
    let pass_ms = worker.pass_sec * 1e3 / worker.followed as f64;
    let text = format!(
        "process {pid}: {gap_ms:.2} ms between forward passes of {pass_ms:.2} ms, over {} passes",
        worker.followed
    );
    Some(Found {
        title: format!("Workers stand still {idle:.0} % of the time between forward passes"),
        evidence: vec![
            Evidence::new("forward_pass_timing", &case.facts.forward.span, text)
                .number("idle_pct", idle)
                .number("gap_ms_mean", gap_ms)
                .number("pass_ms_mean", pass_ms)
                .number("pid", f64::from(pid)),
        ],
        cost: Cost::steps(
            case.facts,
            worker.gap_sec * 1e3,
            case.facts.engines.len(),
            "between forward passes of that worker",
        ),
        changes: vec![
            Change::new(ASYNC, "schedule the next step while this one runs"),
            Change::new(STREAM, "send tokens to clients less often"),
        ],
    })
}

fn prefill_stall(case: &Case<'_>) -> Option<Found> {
    let phases = &case.facts.forward.phases;
    let (mixed, decode) = (phases.get("mixed")?, phases.get("decode")?);
    let (slow, quick) = (mixed.ms.quantile(0.5)?, decode.ms.quantile(0.5)?);
    let all: f64 = phases
        .values()
        .map(|one| one.ms.mean().unwrap_or(0.0) * one.span.rows as f64)
        .sum();
    let longer = (mixed.ms.mean()? - quick) * mixed.span.rows as f64;
    let ratio = slow / quick.max(f64::MIN_POSITIVE);
    let share = 100.0 * longer / all.max(f64::MIN_POSITIVE);
    if (mixed.span.rows as f64) < case.limit("mixed")
        || ratio < case.limit("ratio")
        || share < case.limit("share_pct")
    {
        return None;
    }
    let budget = case
        .facts
        .engines
        .values()
        .filter_map(|engine| engine.max_tokens)
        .max();
    let half = budget
        .filter(|budget| *budget >= 2)
        .map(|budget| (budget / 2).to_string());
    let text = format!(
        "{} passes with prompts take {slow:.2} ms, decode passes {quick:.2} ms (medians)",
        mixed.span.rows
    );
    let mut shorter = Change::new(
        TOKENS,
        "less: shorter pieces of prompts in each step; prompts take longer",
    );
    shorter.value = half;
    Some(Found {
        title: format!(
            "Prompts stall generation: steps with prompts take {ratio:.1} times as long"
        ),
        evidence: vec![
            Evidence::new("forward_pass_timing", &mixed.span, text)
                .number("mixed_ms_p50", slow)
                .number("mixed_ms_p99", mixed.ms.quantile(0.99))
                .number("decode_ms_p50", quick)
                .number("share_pct", share),
        ],
        cost: Cost::milliseconds(
            longer,
            "longer than decode passes, summed: generating requests waited for it",
        ),
        changes: vec![
            shorter,
            Change::new(
                LONG,
                "hold back long prompts, so that they do not fill a step",
            ),
        ],
    })
}

fn rank_lag(case: &Case<'_>) -> Option<Found> {
    let forward = &case.facts.forward;
    if (forward.shared_steps as f64) < case.limit("steps") {
        return None;
    }
    let steps = forward.shared_steps as f64;
    let (&pid, lag) = forward.lags.iter().max_by_key(|(_, lag)| lag.last.rows)?;
    let worker = forward.workers.get(&pid)?;
    let ranks = forward.ranks(worker.engine);
    let share = 100.0 * lag.last.rows as f64 / steps;
    let by_chance = 100.0 / ranks.max(1) as f64;
    let behind = 100.0 * lag.behind_ms / forward.shared_ms.max(f64::MIN_POSITIVE);
    let often = share >= case.limit("last_pct") && share >= (2.0 * by_chance).min(95.0);
    if !often || behind < case.limit("behind_pct") {
        return None;
    }
    let rank = worker.rank.map(|rank| format!("rank {rank}"));
    let name = rank.unwrap_or_else(|| format!("process {pid}"));
    let text = format!(
        "{name} ended {share:.0} % of {} steps last, by {:.2} ms",
        forward.shared_steps,
        lag.behind_ms / lag.last.rows.max(1) as f64
    );
    Some(Found {
        title: format!("One rank lags: {name} ends last in {share:.0} % of the steps"),
        evidence: vec![
            Evidence::new("forward_pass_timing", &lag.last, text)
                .number("last_pct", share)
                .number("behind_pct", behind)
                .number("ranks", ranks as f64)
                .number("pid", f64::from(pid)),
        ],
        cost: Cost::steps(
            case.facts,
            lag.behind_ms,
            case.facts.engines.len(),
            "that the other ranks had to wait for it",
        ),
        changes: vec![Change::new(
            TENSOR,
            "it runs all ranks in step: look at that rank's GPU (clocks, heat, another process) and processor first",
        )],
    })
}
