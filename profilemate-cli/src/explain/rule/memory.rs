//! The KV cache: too small, never used, and the preemptions that follow.

use std::fmt::Write as _;

use super::{CACHE, REQUESTS, Rule, STEPS, limit};
use crate::explain::facts::Span;
use crate::explain::facts::cache::FULL_PCT;
use crate::explain::{Case, Change, Cost, Evidence, Found};
use crate::sink::summary::rounded;

const MEMORY: &str = "--gpu-memory-utilization";
const SEQS: &str = "--max-num-seqs";
const DTYPE: &str = "--kv-cache-dtype";
const LENGTH: &str = "--max-model-len";
/// vLLM's own reason for a preemption outside of a schedule call, which memory does not cure.
const RESET: &str = "reset_prefix_cache";

pub(super) const PREEMPTION: Rule = Rule {
    id: "preemption_thrash",
    doc: "Requests are preempted again and again, and what they had computed is computed anew.",
    needs: &[REQUESTS],
    limits: &[
        limit("preemptions", 5.0, "preemptions that were not asked for"),
        limit("per_request_pct", 5.0, "preemptions by requests started"),
    ],
    options: &[MEMORY, SEQS, DTYPE],
    check: preemption,
};

pub(super) const SMALL: Rule = Rule {
    id: "kv_pool_small",
    doc: "Requests wait while the KV cache is full.",
    needs: &[CACHE],
    limits: &[
        limit(
            "rows",
            20.0,
            "schedule calls with a full pool and waiting requests",
        ),
        limit("share_pct", 10.0, "their part of the busy time"),
    ],
    options: &[MEMORY, DTYPE, LENGTH],
    check: small,
};

pub(super) const IDLE: Rule = Rule {
    id: "kv_pool_idle",
    doc: "Most of the KV cache is never used, though as many requests run as may.",
    needs: &[CACHE, STEPS],
    limits: &[
        limit("rows", 200.0, "schedule calls"),
        limit("most_pct", 50.0, "greatest use, at most"),
    ],
    options: &[SEQS, MEMORY],
    check: idle,
};

fn preemption(case: &Case<'_>) -> Option<Found> {
    let requests = &case.facts.requests;
    let asked = requests.reasons.get(RESET).copied().unwrap_or(0);
    let preempted = requests.preempted.rows.saturating_sub(asked);
    // Requests that ran before the attach are preempted too, and were not seen to start.
    let known = requests.started.rows.max(requests.of_request.len() as u64);
    let share = 100.0 * preempted as f64 / known.max(1) as f64;
    if (preempted as f64) < case.limit("preemptions") || share < case.limit("per_request_pct") {
        return None;
    }
    let (tokens, told) = requests.tokens_lost;
    let rate = case.facts.forward.prompt_rate();
    let mut text = format!(
        "{preempted} preemptions of {} requests",
        requests.of_request.len()
    );
    if let Some((id, count)) = requests.worst().filter(|worst| worst.1 > 1) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "; `{id}` {count} times");
    }
    if told > 0 {
        let _ = write!(text, "; {tokens} tokens computed again");
    }
    let evidence = Evidence::new("preemption_events", &requests.preempted, text)
        .number("preemptions", preempted as f64)
        .number("requests_started", requests.started.rows as f64)
        .number("tokens_lost", (told > 0).then_some(tokens as f64))
        .number(
            "delay_sec",
            (requests.delay_sec > 0.0).then_some(requests.delay_sec),
        );
    let cost = match rate.filter(|_| told > 0) {
        Some(rate) => Cost {
            tokens_per_sec: case
                .facts
                .busy_sec()
                .map(|busy| rounded(tokens as f64 / busy)),
            ..Cost::milliseconds(
                tokens as f64 * 1e3 / rate,
                format!(
                    "to compute {tokens} tokens again at the {rate:.0} tokens/s of this session's prompts"
                ),
            )
        },
        None if requests.delay_sec > 0.0 => Cost::milliseconds(
            requests.delay_sec * 1e3,
            "that requests stood still between preemption and resume, summed over requests",
        ),
        None => Cost::unknown("not known: neither the lost tokens nor the delay was observed"),
    };
    Some(Found {
        title: format!("{preempted} preemptions: work is thrown away and done again"),
        evidence: vec![evidence],
        cost,
        changes: vec![
            Change::new(
                MEMORY,
                "more memory for the KV cache, if the GPU has some left",
            ),
            Change::new(
                SEQS,
                "fewer requests at once, so that those that run can finish",
            ),
            Change::new(
                DTYPE,
                "a smaller type, such as fp8, holds twice as many tokens",
            )
            .to("fp8"),
        ],
    })
}

fn small(case: &Case<'_>) -> Option<Found> {
    let (mut full, mut full_sec, mut busy_sec, mut request_sec) = (Span::default(), 0.0, 0.0, 0.0);
    for cache in case.facts.caches.values() {
        full.merge(&cache.full);
        full_sec += cache.full_sec;
        busy_sec += cache.busy_sec;
        request_sec += cache.request_sec;
    }
    let share = 100.0 * full_sec / f64::max(busy_sec, f64::MIN_POSITIVE);
    if (full.rows as f64) < case.limit("rows") || share < case.limit("share_pct") {
        return None;
    }
    let blocks: i64 = case
        .facts
        .caches
        .values()
        .filter_map(|cache| cache.total_blocks)
        .sum();
    let text = format!(
        "at least {FULL_PCT:.0} % of the blocks in use and requests waiting for {share:.0} % of the busy time"
    );
    Some(Found {
        title: format!("The KV cache is full for {share:.0} % of the time, and requests wait"),
        evidence: vec![
            Evidence::new("kv_cache_usage", &full, text)
                .number("full_sec", full_sec)
                .number("share_pct", share)
                .number("total_blocks", (blocks > 0).then_some(blocks as f64)),
        ],
        cost: Cost::milliseconds(
            request_sec * 1e3,
            "that requests waited at a full KV cache, summed over requests",
        ),
        changes: vec![
            Change::new(
                MEMORY,
                "more memory for the KV cache, if the GPU has some left",
            ),
            Change::new(
                DTYPE,
                "a smaller type, such as fp8, holds twice as many tokens",
            )
            .to("fp8"),
            Change::new(LENGTH, "shorter, if requests do not need the length"),
        ],
    })
}

fn idle(case: &Case<'_>) -> Option<Found> {
    let mut span = Span::default();
    let mut most: f64 = 0.0;
    for cache in case.facts.caches.values() {
        span.merge(&cache.span);
        most = most.max(cache.usage.max().unwrap_or(0.0));
    }
    // A pool that is not used because there is little to do is no fault: some must have waited for a slot.
    let mut slots = Span::default();
    let (mut limit, mut waited) = (0, 0.0);
    for engine in case.facts.engines.values() {
        slots.merge(&engine.slots.span);
        waited += engine.slots.request_sec;
        limit = limit.max(engine.max_num_seqs.unwrap_or(0));
    }
    if (span.rows as f64) < case.limit("rows") || most > case.limit("most_pct") || slots.rows == 0 {
        return None;
    }
    let fits = (limit as f64 * 90.0 / most.max(1.0)).floor();
    let use_text = format!("never more than {most:.1} % of the blocks were in use");
    let wait_text = format!(
        "in {} schedule calls requests waited with all {limit} slots taken",
        slots.rows
    );
    Some(Found {
        title: format!(
            "{:.0} % of the KV cache is never used, while requests wait for a slot",
            100.0 - most
        ),
        evidence: vec![
            Evidence::new("kv_cache_usage", &span, use_text).number("most_pct", most),
            Evidence::new("batch_utilization", &slots, wait_text)
                .number("max_num_seqs", limit as f64),
        ],
        cost: Cost::milliseconds(
            waited * 1e3,
            "that requests waited for a slot, summed over requests",
        ),
        changes: vec![
            Change::new(
                SEQS,
                format!("the pool would hold about {fits:.0} requests like these"),
            )
            .to(format!("{fits:.0}")),
            Change::new(MEMORY, "or less, and leave the memory to others"),
        ],
    })
}
