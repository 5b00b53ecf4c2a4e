//! Each rule on a session that has the fault, and on one that has not.

use std::collections::BTreeSet;

use super::*;
use crate::aggregate::coverage;
use crate::sink::csv::CsvFolder;
use crate::table::AnyRow;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Millis, Real, Seconds, Stamp};
use crate::table::cuda_graph_captures::CudaGraphCapture;
use crate::table::cuda_graph_usage::CudaGraphUse;
use crate::table::encoder_decoder_timing::EncoderCall;
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::kv_cache_usage::KvCacheUse;
use crate::table::moe_expert_selection::MoeExpertSelection;
use crate::table::moe_expert_timing::MoeExpertTime;
use crate::table::preemption_events::PreemptionEvent;
use crate::table::request_lifecycle::RequestLifecycle;

/// Time between two steps of the sessions here, in nanoseconds.
const STEP_NS: i64 = 10_000_000;

/// The rows as a folder, read back and explained.
fn explain(rows: &[AnyRow]) -> Explanation {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = CsvFolder::create(folder.path()).unwrap();
    for row in rows {
        csv.row(row).unwrap();
    }
    csv.flush().unwrap();
    std::fs::write(
        folder.path().join("metadata.json"),
        r#"{"processes": [{"pid": 1, "role": "engine_core"}, {"pid": 2, "parent": 1}, {"pid": 3, "parent": 1}]}"#,
    )
    .unwrap();
    Explanation::of_session(&Session::open(folder.path()).unwrap()).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "as the columns have it")]
fn ms(value: f64) -> Option<Millis> {
    Some(Millis((value * 1e6) as u64))
}

fn at(step: u64) -> Stamp {
    Stamp(step as i64 * STEP_NS)
}

/// A decode batch of `tokens`; `waiting` requests wait, `running` run.
fn batch(step: u64, tokens: i64, running: i64, waiting: i64) -> BatchUse {
    BatchUse {
        timestamp_sec: at(step),
        num_seqs: Some(running),
        max_num_seqs: Some(64),
        num_tokens: Some(tokens),
        max_tokens: Some(256),
        phase: Some("decode"),
        running_queue_len: Some(running),
        waiting_queue_len: Some(waiting),
        step,
        pid: 1,
        ..BatchUse::default()
    }
}

fn pool(step: u64, usage: f64, waiting: i64) -> KvCacheUse {
    KvCacheUse {
        timestamp_sec: at(step),
        usage_pct: Some(Real(usage)),
        total_blocks: Some(100),
        waiting: Some(waiting),
        pid: 1,
        ..KvCacheUse::default()
    }
}

/// A decode pass of 8 ms of process 2.
fn pass(step: u64) -> ForwardPass {
    ForwardPass {
        timestamp_sec: at(step),
        phase: Some("decode"),
        batch_size: Some(8),
        num_tokens: Some(8),
        forward_time_ms: ms(8.0),
        step: Some(step),
        pid: 2,
        rank: Some(0),
        ..ForwardPass::default()
    }
}

fn captured(sizes: &[u64]) -> Vec<AnyRow> {
    let one = |&tokens: &u64| CudaGraphCapture {
        runtime_mode: Some("FULL"),
        num_tokens: Some(tokens),
        pid: 2,
        ..CudaGraphCapture::default()
    };
    sizes.iter().map(|size| one(size).into()).collect()
}

fn each<R: Into<AnyRow>>(count: u64, one: impl Fn(u64) -> R) -> Vec<AnyRow> {
    (1..=count).map(|step| one(step).into()).collect()
}

fn event(step: u64, id: u64, event: &'static str) -> PreemptionEvent {
    PreemptionEvent {
        timestamp_sec: at(step),
        request_id: format!("request-{id}"),
        event,
        reason: (event == "preempted").then_some("kv_blocks_exhausted"),
        computed_tokens_lost: (event == "preempted").then_some(100),
        step: Some(step),
        pid: 1,
        ..PreemptionEvent::default()
    }
}

/// A session that has a rule's fault, and one like it that has not.
struct Pair {
    rule: &'static str,
    faulty: Vec<AnyRow>,
    healthy: Vec<AnyRow>,
    /// Lost milliseconds or tokens a second that must be told, give or take one percent.
    cost: Option<f64>,
}

fn pair(
    rule: &'static str,
    faulty: Vec<AnyRow>,
    healthy: Vec<AnyRow>,
    cost: impl Into<Option<f64>>,
) -> Pair {
    let cost = cost.into();
    Pair {
        rule,
        faulty,
        healthy,
        cost,
    }
}

fn graph_pairs() -> Vec<Pair> {
    let steps = |tokens| each(200, move |step| batch(step, tokens, tokens, 0));
    let used = |actual: u64| -> Vec<AnyRow> {
        vec![
            CudaGraphUse {
                runtime_mode: Some("FULL"),
                num_tokens: Some(16),
                replay_count: 200,
                padded_tokens: Some(3_200),
                actual_tokens: Some(actual * 200),
                pid: 2,
                ..CudaGraphUse::default()
            }
            .into(),
        ]
    };
    let moded = |mode: &'static str, from: u64, millis: f64| {
        each(150, move |step| ForwardPass {
            graph_mode: Some(mode),
            forward_time_ms: ms(millis),
            ..pass(from + step)
        })
    };
    vec![
        // 7 of 16 tokens of 200 batches in 1.99 s.
        pair(
            "graph_padding",
            [captured(&[1, 16, 32]), steps(9), used(9)].concat(),
            [captured(&[1, 16, 32]), steps(15), used(15)].concat(),
            7.0 * 200.0 / 1.99,
        ),
        // 150 passes of 9 ms without a graph; the same tokens take 5 ms with one.
        pair(
            "graph_too_large_batch",
            [
                captured(&[8, 16]),
                steps(20),
                moded("NONE", 0, 9.0),
                moded("FULL", 150, 5.0),
            ]
            .concat(),
            [
                captured(&[8, 24]),
                steps(20),
                moded("NONE", 0, 9.0),
                moded("FULL", 150, 5.0),
            ]
            .concat(),
            600.0,
        ),
        pair(
            "graphs_unused",
            moded("NONE", 0, 8.0),
            moded("FULL", 0, 8.0),
            None,
        ),
    ]
}

fn memory_pairs() -> Vec<Pair> {
    let prompts = each(10, |step| ForwardPass {
        phase: Some("prefill"),
        num_tokens: Some(80),
        ..pass(step)
    });
    let events = |preempted: u64| {
        let mut rows = each(50, |id| event(id, id, "started"));
        rows.extend(each(preempted, |id| event(100 + id, id % 5, "preempted")));
        rows
    };
    let delayed: Vec<AnyRow> = vec![
        RequestLifecycle {
            request_id: "request-1".into(),
            preemption_delay_sec: Some(Seconds(2_000_000_000)),
            ..RequestLifecycle::default()
        }
        .into(),
    ];
    let full = |usage, waiting| each(200, move |step| pool(step, usage, waiting));
    let slots = |waiting| each(300, move |step| batch(step, 64, 64, waiting));
    vec![
        // 20 times 100 tokens at 10,000 tokens/s.
        pair(
            "preemption_thrash",
            [events(20), prompts.clone(), delayed].concat(),
            [events(1), prompts].concat(),
            200.0,
        ),
        // Two requests wait for 1.99 s.
        pair("kv_pool_small", full(98.0, 2), full(98.0, 0), 3_980.0),
        pair(
            "kv_pool_idle",
            [each(300, |step| pool(step, 20.0, 3)), slots(3)].concat(),
            [each(300, |step| pool(step, 20.0, 0)), slots(0)].concat(),
            3.0 * 2_990.0,
        ),
    ]
}

fn wait_pairs() -> Vec<Pair> {
    let waits =
        |tokens, running, waiting| each(200, move |step| batch(step, tokens, running, waiting));
    let encoders = |count| {
        each(count, |step| EncoderCall {
            timestamp_sec: at(step),
            component: "encoder",
            duration_ms: ms(3.0),
            step: Some(step),
            pid: 2,
            ..EncoderCall::default()
        })
    };
    let roomy = |usage| each(200, move |step| pool(step, usage, 1));
    vec![
        pair(
            "waiting_for_slots",
            [waits(64, 64, 1), roomy(60.0)].concat(),
            [waits(64, 64, 1), roomy(97.0)].concat(),
            1_990.0,
        ),
        pair(
            "waiting_for_token_budget",
            waits(256, 8, 1),
            waits(200, 8, 1),
            1_990.0,
        ),
        pair(
            "waiting_for_encoder_budget",
            [waits(100, 8, 1), encoders(200), roomy(50.0)].concat(),
            [waits(100, 8, 1), encoders(200), roomy(99.0)].concat(),
            1_990.0,
        ),
    ]
}

fn step_pairs() -> Vec<Pair> {
    let on_gpu = |millis| {
        each(200, move |step| ForwardPass {
            gpu_time_ms: ms(millis),
            ..pass(step)
        })
    };
    let host = |millis| {
        each(200, move |step| ForwardPass {
            forward_time_ms: ms(millis),
            ..pass(step)
        })
    };
    let mixed = |millis| {
        each(200, move |step| {
            let prompt = step % 4 == 0;
            ForwardPass {
                phase: Some(if prompt { "mixed" } else { "decode" }),
                forward_time_ms: ms(if prompt { millis } else { 2.0 }),
                ..pass(step)
            }
        })
    };
    let ranks = |slow: f64, late: i64| {
        let mut rows = Vec::new();
        for step in 1..=200 {
            rows.push(pass(step).into());
            let other = ForwardPass {
                timestamp_sec: Stamp(at(step).0 + late),
                forward_time_ms: ms(if slow > 8.0 || step % 2 == 0 {
                    slow
                } else {
                    7.9
                }),
                pid: 3,
                rank: Some(1),
                ..pass(step)
            };
            rows.push(other.into());
        }
        rows
    };
    vec![
        pair("gpu_idle", on_gpu(5.0), on_gpu(9.0), 199.0 * 5.0),
        pair("worker_idle", host(5.0), host(8.0), 199.0 * 5.0),
        pair("prefill_stalls_decode", mixed(9.0), mixed(4.0), 50.0 * 7.0),
        // Each as slow as the other, by turns.
        pair("rank_lag", ranks(9.0, 0), ranks(8.0, 1), 200.0),
        // A pipeline: the second stage begins when the first has ended.
        pair(
            "rank_lag",
            ranks(9.0, 0),
            [ranks(9.0, 8_500_000), ranks(8.0, 1)].concat(),
            200.0,
        ),
    ]
}

fn expert_pairs() -> Vec<Pair> {
    let chosen = |hot: u64| {
        let mut rows = each(8, move |expert| MoeExpertSelection {
            layer_idx: 0,
            expert_id: expert,
            activation_count: if expert == 3 { hot } else { 1_000 },
            ..MoeExpertSelection::default()
        });
        rows.push(
            MoeExpertTime {
                duration_ms: ms(300.0),
                ..MoeExpertTime::default()
            }
            .into(),
        );
        rows
    };
    // The hottest of 8 has 7000 of 14000: four times the mean.
    vec![pair(
        "expert_imbalance",
        chosen(7_000),
        chosen(1_500),
        225.0,
    )]
}

fn pairs() -> Vec<Pair> {
    [
        graph_pairs(),
        memory_pairs(),
        wait_pairs(),
        step_pairs(),
        expert_pairs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn each_rule_finds_its_fault_and_tells_evidence_cost_and_change() {
    for Pair {
        rule, faulty, cost, ..
    } in pairs()
    {
        let explanation = explain(&faulty);
        let found = explanation
            .findings
            .iter()
            .find(|finding| finding.rule == rule);
        let found = found.unwrap_or_else(|| panic!("{rule} was not found: {explanation:#?}"));
        assert!(
            !found.evidence.is_empty() && !found.changes.is_empty(),
            "{rule}"
        );
        for evidence in &found.evidence {
            assert!(
                evidence.rows > 0 && !evidence.text.is_empty(),
                "{rule}: {evidence:?}"
            );
            assert!(
                crate::table::index_of(evidence.table).is_some(),
                "{rule}: {evidence:?}"
            );
        }
        let told = found.cost.milliseconds.or(found.cost.tokens_per_sec);
        assert_eq!(told.is_some(), cost.is_some(), "{rule}: {:?}", found.cost);
        if let (Some(told), Some(cost)) = (told, cost) {
            assert!(
                (told / cost - 1.0).abs() < 0.011,
                "{rule}: {told} is not {cost}"
            );
        }
        let rule = RULES.iter().find(|known| known.id == rule).unwrap();
        for change in &found.changes {
            assert!(
                rule.options.contains(&change.option),
                "{}: {change:?}",
                rule.id
            );
        }
    }
}

#[test]
fn each_rule_is_judged_and_sees_nothing_wrong_where_nothing_is() {
    for Pair { rule, healthy, .. } in pairs() {
        let explanation = explain(&healthy);
        assert!(
            explanation.nothing_wrong.contains(&rule),
            "{rule}: {explanation:#?}"
        );
    }
}

#[test]
fn every_rule_has_its_pair() {
    let tested: BTreeSet<&str> = pairs().iter().map(|pair| pair.rule).collect();
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(tested, all);
}

#[test]
#[expect(clippy::float_cmp, reason = "whole numbers")]
fn better_capture_sizes_are_named_and_have_less_padding() {
    let mut rows = captured(&[1, 16, 32]);
    rows.extend(each(300, |step| {
        batch(step, [9, 9, 21][step as usize % 3], 21, 0)
    }));
    let explanation = explain(&rows);
    let found = &explanation.findings[0];
    assert_eq!(found.rule, "graph_padding");
    assert_eq!(found.changes[0].option, "--cudagraph-capture-sizes");
    assert_eq!(found.changes[0].value.as_deref(), Some("9 21"));
    let numbers = &found.evidence.last().unwrap().numbers;
    assert_eq!(numbers["padding_tokens"], 200.0 * 7.0 + 100.0 * 11.0);
    assert_eq!(numbers["padding_tokens_with_better_sizes"], 0.0);
}

#[test]
fn a_rule_without_its_table_is_not_judged_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let coverage = r#"{"tables": {"cuda_graph_captures": {"coverage": {"status": "not_applicable", "reason": "no GPU"}}},
        "events": {"lost_kernel": 3, "lost_userspace": 1}}"#;
    std::fs::write(folder.path().join("metadata.json"), coverage).unwrap();
    let explanation = Explanation::of_session(&Session::open(folder.path()).unwrap()).unwrap();
    assert_eq!(
        (explanation.findings.len(), explanation.not_judged.len()),
        (0, RULES.len())
    );
    let padding = &explanation.not_judged[0];
    assert_eq!(
        (padding.rule, padding.reason.as_str()),
        ("graph_padding", "cuda_graph_captures: no GPU")
    );
    assert!(
        explanation.notes[0].starts_with("4 records were lost"),
        "{:?}",
        explanation.notes
    );
    assert!(text::long(&explanation).starts_with(text::BLIND));
}

#[test]
fn the_order_of_the_tables_does_not_matter() {
    for Pair {
        rule, mut faulty, ..
    } in pairs()
    {
        let (mut one, mut two) = (Facts::default(), Facts::default());
        for row in &faulty {
            one.row(row, &|_| Some(1));
        }
        // As a running session gives them: by time.
        faulty.sort_by_key(|row| {
            let mut text = String::new();
            let mut cells = 0;
            row.cells(&mut |cell| {
                if cells == 0 {
                    cell.write(&mut text);
                }
                cells += 1;
            });
            text.parse::<f64>().map_or(0, |sec| (sec * 1e6) as u64)
        });
        for row in &faulty {
            two.row(row, &|_| Some(1));
        }
        one.finish();
        two.finish();
        let judge = |facts| Explanation::of(facts, &Cover::default(), None);
        assert_eq!(judge(&one), judge(&two), "{rule}");
    }
}

#[test]
fn without_cuda_nobody_is_told_to_use_cuda_graphs() {
    let mut facts = Facts::default();
    for step in 0..200 {
        let eager = ForwardPass {
            graph_mode: Some("NONE"),
            ..pass(step)
        };
        facts.row(&eager.into(), &|_| Some(1));
    }
    facts.finish();
    let judged = |cover| {
        let explanation = Explanation::of(&facts, &cover, None);
        let mut found = explanation.findings.iter();
        let reason = explanation.not_judged.into_iter();
        (
            found.any(|finding| finding.rule == "graphs_unused"),
            reason.filter(|one| one.rule == "graphs_unused").count(),
        )
    };
    assert_eq!(judged(Cover::default()), (true, 0));
    let mut cover = Cover::default();
    cover.add("cuda_graph_captures", "not_applicable", coverage::NO_CUDA);
    assert_eq!(judged(cover), (false, 1));
}
