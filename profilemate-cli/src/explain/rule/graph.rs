//! CUDA graphs: padding, batches above the largest size, graphs that are not used.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{CUDA, GRAPHS, MODES, Rule, STEPS, limit};
use crate::explain::facts::{Facts, Span};
use crate::explain::{Case, Change, Cost, Evidence, Found, sizes};

const SIZES: &str = "--cudagraph-capture-sizes";
const LARGEST: &str = "--max-cudagraph-capture-size";
const EAGER: &str = "--enforce-eager";
/// vLLM's own sizes are multiples of this.
const MULTIPLE: u64 = 8;

pub(super) const PADDING: Rule = Rule {
    id: "graph_padding",
    doc: "Batches are padded to captured sizes that lie far above them; the padding is computed and thrown away.",
    needs: &[GRAPHS, STEPS],
    limits: &[
        limit("batches", 100.0, "batches that ran with a graph"),
        limit(
            "padding_pct",
            15.0,
            "part of the tokens run that was padding",
        ),
    ],
    options: &[SIZES],
    check: padding,
};

pub(super) const TOO_LARGE: Rule = Rule {
    id: "graph_too_large_batch",
    doc: "Decode batches are larger than the largest captured size and run without a graph.",
    needs: &[GRAPHS, STEPS],
    limits: &[
        limit(
            "batches",
            50.0,
            "decode batches above the largest captured size",
        ),
        limit("share_pct", 2.0, "their part of all decode batches"),
    ],
    options: &[LARGEST, SIZES],
    check: too_large,
};

pub(super) const UNUSED: Rule = Rule {
    id: "graphs_unused",
    doc: "Decode passes run without CUDA graphs, all or nearly all of them.",
    needs: &[MODES, CUDA],
    limits: &[
        limit("passes", 100.0, "decode passes"),
        limit("share_pct", 95.0, "part of them without a graph"),
    ],
    options: &[EAGER, LARGEST],
    check: unused,
};

/// Batches that graphs of the captured kinds can run, over all engines, by tokens.
fn batches(facts: &Facts, with_prompts: bool) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    for engine in facts.engines.values() {
        let others = engine.other_sizes.iter().filter(|_| with_prompts);
        for (&tokens, &count) in engine.decode_sizes.iter().chain(others) {
            *all.entry(tokens).or_insert(0_u64) += count;
        }
    }
    all
}

fn steps(facts: &Facts) -> Span {
    let mut span = Span::default();
    facts
        .engines
        .values()
        .for_each(|engine| span.merge(&engine.span));
    span
}

fn padding(case: &Case<'_>) -> Option<Found> {
    let (facts, graphs) = (case.facts, &case.facts.graphs);
    let captured = graphs.all_sizes();
    let largest = *captured.last()?;
    let mut seen = batches(facts, graphs.has_piecewise());
    seen.retain(|&tokens, _| tokens <= largest);
    let ran: u64 = seen.values().sum();
    let actual: u64 = seen.iter().map(|(tokens, count)| tokens * count).sum();
    let wasted = sizes::padding(&seen, &captured);
    // What the replays themselves say goes before what the batch sizes let expect.
    let total = graphs.total();
    let share = if total.padded > 0 {
        100.0 * total.padding() as f64 / total.padded as f64
    } else {
        100.0 * wasted as f64 / (actual + wasted).max(1) as f64
    };
    if (ran as f64) < case.limit("batches") || share < case.limit("padding_pct") {
        return None;
    }
    let best = sizes::best(&seen, captured.len());
    let left = sizes::padding(&seen, &best);
    let list: Vec<String> = best.iter().map(u64::to_string).collect();
    let rate = wasted as f64 / facts.busy_sec()?;
    let mut text = format!("{share:.1} % of the tokens that graphs ran were padding");
    let mut worst: Vec<_> = graphs
        .replays
        .iter()
        .filter(|one| one.1.padding() > 0)
        .collect();
    worst.sort_by_key(|one| std::cmp::Reverse(one.1.padding()));
    for ((mode, size), replays) in worst.into_iter().take(3) {
        let pct = 100.0 * replays.padding() as f64 / replays.padded.max(1) as f64;
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "; {mode} {size}: {pct:.1} % of {} replays",
            replays.replays
        );
    }
    let mut evidence = Vec::new();
    if graphs.usage.rows > 0 {
        let usage = Evidence::new("cuda_graph_usage", &graphs.usage, text)
            .number("padding_pct", share)
            .number("padded_tokens", total.padded as f64)
            .number("actual_tokens", total.actual as f64);
        evidence.push(usage);
    }
    let frequent = frequent(&seen);
    let text = format!("{ran} batches of up to {largest} tokens; most often {frequent}");
    let by_batches = Evidence::new("batch_utilization", &steps(facts), text)
        .number("batches", ran as f64)
        .number("padding_tokens", wasted as f64)
        .number("padding_tokens_with_better_sizes", left as f64)
        .number("captured_sizes", captured.len() as f64);
    evidence.push(by_batches);
    let mut changes = Vec::new();
    if left < wasted {
        let why = format!(
            "{} sizes instead of {}: {left} tokens of padding instead of {wasted} for the batches of this session",
            best.len(),
            captured.len()
        );
        changes.push(Change::new(SIZES, why).to(list.join(" ")));
    } else {
        changes.push(Change::new(
            SIZES,
            "more sizes: each costs memory and a capture at start",
        ));
    }
    Some(Found {
        title: format!("{share:.0} % of what CUDA graphs compute is padding"),
        evidence,
        cost: Cost::tokens_per_sec(
            rate,
            "padding tokens a second, computed and thrown away; at most so many more could be served",
        ),
        changes,
    })
}

/// The most frequent sizes in words.
fn frequent(seen: &BTreeMap<u64, u64>) -> String {
    let mut all: Vec<(u64, u64)> = seen.iter().map(|(&size, &count)| (count, size)).collect();
    all.sort_unstable_by(|one, two| two.cmp(one));
    let words = all
        .iter()
        .take(3)
        .map(|(count, size)| format!("{size} ({count} times)"));
    words.collect::<Vec<_>>().join(", ")
}

fn too_large(case: &Case<'_>) -> Option<Found> {
    let facts = case.facts;
    let captured = facts.graphs.all_sizes();
    let largest = *captured.last()?;
    let decode = batches(facts, false);
    let all: u64 = decode.values().sum();
    let above: u64 = decode.range(largest + 1..).map(|one| one.1).sum();
    let share = 100.0 * above as f64 / all.max(1) as f64;
    if (above as f64) < case.limit("batches") || share < case.limit("share_pct") {
        return None;
    }
    let most = *decode.keys().next_back()?;
    let prompts: u64 = batches(facts, true)
        .range(largest + 1..)
        .map(|one| one.1)
        .sum::<u64>()
        - above;
    let text = format!(
        "{above} of {all} decode batches had more than {largest} tokens, up to {most} ({prompts} batches with prompts \
         too, where that is usual)"
    );
    let evidence = Evidence::new("batch_utilization", &steps(facts), text)
        .number("batches_above", above as f64)
        .number("decode_batches", all as f64)
        .number("largest_captured", largest as f64)
        .number("largest_batch", most as f64);
    let wanted = most.next_multiple_of(MULTIPLE);
    let mut list: Vec<u64> = captured.into_iter().collect();
    list.extend(sizes::best(
        &decode
            .range(largest + 1..)
            .map(|(&size, &count)| (size, count))
            .collect(),
        4,
    ));
    let list: Vec<String> = list.iter().map(u64::to_string).collect();
    Some(Found {
        title: format!("{share:.0} % of the decode batches are too large for any captured graph"),
        evidence: vec![evidence],
        cost: without_graph(facts),
        changes: vec![
            Change::new(
                LARGEST,
                "capture up to the largest decode batch; each size costs memory",
            )
            .to(wanted.to_string()),
            Change::new(SIZES, "or name the sizes").to(list.join(" ")),
        ],
    })
}

/// What decode passes without a graph cost more than those with one.
fn without_graph(facts: &Facts) -> Cost {
    let modes = &facts.forward.decode_modes;
    let eager = modes.get("NONE").filter(|passes| passes.span.rows > 0);
    let mut graph_ms = 0.0;
    let mut graph_tokens = 0.0;
    for (mode, passes) in modes {
        if *mode != "NONE" {
            graph_ms += passes.ms.mean().unwrap_or(0.0) * passes.span.rows as f64;
            graph_tokens += passes.tokens as f64;
        }
    }
    let Some(eager) = eager.filter(|_| graph_tokens > 0.0) else {
        return Cost::unknown(
            "not measured: forward_pass_timing does not have decode passes both with and without a graph",
        );
    };
    let eager_ms = eager.ms.mean().unwrap_or(0.0) * eager.span.rows as f64;
    let lost = eager_ms - eager.tokens as f64 * graph_ms / graph_tokens;
    if lost <= 0.0 {
        return Cost::milliseconds(
            0.0,
            "passes without a graph took no longer for each token than those with one",
        );
    }
    Cost::steps(
        facts,
        lost,
        facts.forward.workers.len(),
        "longer than the same tokens took with a graph, summed over decode passes without one",
    )
}

fn unused(case: &Case<'_>) -> Option<Found> {
    let modes = &case.facts.forward.decode_modes;
    let all: u64 = modes.values().map(|passes| passes.span.rows).sum();
    let eager = modes.get("NONE")?;
    let share = 100.0 * eager.span.rows as f64 / all.max(1) as f64;
    if (all as f64) < case.limit("passes") || share < case.limit("share_pct") {
        return None;
    }
    let text = format!(
        "{} of {all} decode passes have graph_mode NONE",
        eager.span.rows
    );
    Some(Found {
        title: "Decode runs without CUDA graphs".to_owned(),
        evidence: vec![
            Evidence::new("forward_pass_timing", &eager.span, text)
                .number("passes", all as f64)
                .number("share_pct", share)
                .number("forward_ms_p50", eager.ms.quantile(0.5)),
        ],
        cost: without_graph(case.facts),
        changes: vec![
            Change::new(EAGER, "remove it if it is given: it turns CUDA graphs off"),
            Change::new(
                LARGEST,
                "if graphs are captured, they are too small for these batches",
            ),
        ],
    })
}
