//! Requests that wait: for a slot, for the token budget, for the encoder's budget.

use super::{ENCODER, Rule, STEPS, limit};
use crate::explain::facts::batch::Waiting;
use crate::explain::facts::cache::FULL_PCT;
use crate::explain::{Case, Change, Cost, Evidence, Found};

const SEQS: &str = "--max-num-seqs";
const TOKENS: &str = "--max-num-batched-tokens";
const IMAGES: &str = "--limit-mm-per-prompt";

pub(super) const SLOTS: Rule = Rule {
    id: "waiting_for_slots",
    doc: "Requests wait because as many run as may, while the KV cache has room for more.",
    needs: &[STEPS],
    limits: &[
        limit(
            "rows",
            20.0,
            "schedule calls with waiting requests and no free slot",
        ),
        limit("share_pct", 20.0, "their part of the busy time"),
        limit(
            "kv_p95_pct",
            80.0,
            "95th percentile of the KV cache's use, at most",
        ),
    ],
    options: &[SEQS],
    check: slots,
};

pub(super) const BUDGET: Rule = Rule {
    id: "waiting_for_token_budget",
    doc: "Requests wait while slots are free, because the step's token budget is spent.",
    needs: &[STEPS],
    limits: &[
        limit(
            "rows",
            20.0,
            "schedule calls with waiting requests, free slots and a spent budget",
        ),
        limit("share_pct", 10.0, "their part of the busy time"),
    ],
    options: &[TOKENS],
    check: budget,
};

pub(super) const ENCODER_BUDGET: Rule = Rule {
    id: "waiting_for_encoder_budget",
    doc: "Requests wait while slots, tokens and KV cache are left, in steps that run an encoder.",
    needs: &[STEPS, ENCODER],
    limits: &[
        limit("rows", 20.0, "such schedule calls"),
        limit("share_pct", 5.0, "their part of the busy time"),
    ],
    options: &[TOKENS, IMAGES],
    check: encoder,
};

fn busy_sec(case: &Case<'_>) -> f64 {
    let busy: f64 = case
        .facts
        .engines
        .values()
        .map(|engine| engine.busy_sec)
        .sum();
    busy.max(f64::MIN_POSITIVE)
}

/// Whether so much waiting is a fault, and its part of the busy time in percent.
fn share(case: &Case<'_>, waiting: &Waiting) -> Option<f64> {
    let share = 100.0 * waiting.sec / busy_sec(case);
    let much = waiting.span.rows as f64 >= case.limit("rows") && share >= case.limit("share_pct");
    (much && waiting.request_sec > 0.0).then_some(share)
}

fn evidence(waiting: &Waiting, share: f64, text: String) -> Evidence {
    Evidence::new("batch_utilization", &waiting.span, text)
        .number("share_pct", share)
        .number("waiting_mean", waiting.request_sec / waiting.sec)
        .number("sec", waiting.sec)
}

fn cost(waiting: &Waiting) -> Cost {
    Cost::milliseconds(
        waiting.request_sec * 1e3,
        "that requests waited so, summed over requests",
    )
}

fn slots(case: &Case<'_>) -> Option<Found> {
    let mut waiting = Waiting::default();
    let mut limit = 0;
    for engine in case.facts.engines.values() {
        waiting.merge(&engine.slots);
        limit = limit.max(engine.max_num_seqs.unwrap_or(0));
    }
    let share = share(case, &waiting)?;
    let usage = case
        .facts
        .caches
        .values()
        .filter_map(|cache| cache.usage.quantile(0.95));
    let usage = usage.reduce(f64::max);
    if usage.is_some_and(|usage| usage > case.limit("kv_p95_pct")) {
        return None;
    }
    let text =
        format!("requests waited for {share:.0} % of the busy time with all {limit} slots taken");
    let mut evidence = vec![evidence(&waiting, share, text).number("max_num_seqs", limit as f64)];
    for cache in case
        .facts
        .caches
        .values()
        .filter(|cache| cache.span.rows > 0)
    {
        let p95 = cache.usage.quantile(0.95);
        let text = format!(
            "meanwhile 95 % of the time at most {:.0} % of the KV cache in use",
            p95.unwrap_or(0.0)
        );
        evidence.push(Evidence::new("kv_cache_usage", &cache.span, text).number("kv_p95_pct", p95));
    }
    Some(Found {
        title: format!("Requests wait for a slot {share:.0} % of the time, with KV cache left"),
        evidence,
        cost: cost(&waiting),
        changes: vec![Change::new(
            SEQS,
            format!("above {limit}: more requests at once; each token may take longer"),
        )],
    })
}

fn budget(case: &Case<'_>) -> Option<Found> {
    let mut waiting = Waiting::default();
    let mut limit = 0;
    for engine in case.facts.engines.values() {
        waiting.merge(&engine.budget);
        limit = limit.max(engine.max_tokens.unwrap_or(0));
    }
    let share = share(case, &waiting)?;
    let text = format!(
        "{} schedule calls spent all {limit} tokens while slots were free",
        waiting.span.rows
    );
    Some(Found {
        title: format!(
            "Requests wait for the token budget {share:.0} % of the time, with slots free"
        ),
        evidence: vec![
            evidence(&waiting, share, text).number("max_num_batched_tokens", limit as f64),
        ],
        cost: cost(&waiting),
        changes: vec![
            Change::new(
                TOKENS,
                format!("above {limit}: prompts start sooner; steps with prompts take longer"),
            )
            .to((limit.saturating_mul(2)).to_string()),
        ],
    })
}

fn encoder(case: &Case<'_>) -> Option<Found> {
    let facts = case.facts;
    let mut waiting = Waiting::default();
    for (pid, engine) in &facts.engines {
        let full = facts.caches.get(pid).map(|cache| &cache.full_at);
        for held in &engine.held {
            let full = full.is_some_and(|full| full.contains(&held.at_us));
            if !full && facts.encoder_steps.contains(&held.step) {
                waiting.merge(&Waiting::from(held));
            }
        }
    }
    let share = share(case, &waiting)?;
    let text = format!(
        "{} schedule calls left requests waiting with slots and tokens free and the KV cache below {FULL_PCT:.0} %",
        waiting.span.rows
    );
    let calls = format!(
        "{} encoder calls in steps of the session, some in each of those",
        facts.encoder.0.rows
    );
    Some(Found {
        title: format!("Requests wait for the encoder {share:.0} % of the time"),
        evidence: vec![
            evidence(&waiting, share, text),
            Evidence::new("encoder_decoder_timing", &facts.encoder.0, calls)
                .number("encoder_ms", facts.encoder.1),
        ],
        cost: cost(&waiting),
        changes: vec![
            Change::new(
                TOKENS,
                "the encoder's budget of a step is as large as this one",
            ),
            Change::new(IMAGES, "fewer or smaller items in a prompt"),
        ],
    })
}
