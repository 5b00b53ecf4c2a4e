//! What agents found, put together: on some servers, on none, not judged, of the past, and of servers that are gone.

use super::*;
use crate::fleet::rule::{Fault, Sick};

/// What agents tell of rules: node, rule, the rest of the labels, and the value.
pub(super) fn told(all: &[(&str, &str, &str, f64)]) -> Answer {
    let one = |&(node, rule, reason, value): &(&str, &str, &str, f64)| {
        let mut labels = vec![
            ("job", "profilemate"),
            ("instance", node),
            ("server", "vllm/8000"),
            ("rule", rule),
        ];
        labels.extend((!reason.is_empty()).then_some(("reason", reason)));
        series(&labels, &[(NOW, value)])
    };
    answer(all.iter().map(one).collect())
}

pub(super) fn faults(diagnosis: &Diagnosis) -> Vec<&Fault> {
    let all = diagnosis.findings.iter();
    all.filter_map(|finding| match finding {
        Finding::Rule(fault) => Some(fault),
        Finding::Peer(_) => None,
    })
    .collect()
}

/// Found on some, not there on others, not judged, or in a part of the window only.
fn mixed() -> Verdicts {
    Verdicts {
        found: told(&[
            ("a", "preemption_thrash", "", 1.0),
            ("b", "preemption_thrash", "", 0.25),
            ("c", "preemption_thrash", "", 0.0),
            ("e", "preemption_thrash", "", 0.5),
            ("a", "waiting_for_slots", "", 1.0),
            ("b", "kv_pool_small", "", 1.0),
            ("a", "graphs_unused", "", 1.0),
            ("a", "worker_idle", "", 0.0),
            ("b", "worker_idle", "", 0.0),
        ]),
        now: told(&[
            ("a", "preemption_thrash", "", 1.0),
            ("b", "preemption_thrash", "", 0.0),
            ("e", "preemption_thrash", "", 1.0),
        ]),
        tokens: told(&[
            ("a", "preemption_thrash", "", 800.0),
            ("b", "preemption_thrash", "", 400.0),
        ]),
        time: told(&[
            ("a", "waiting_for_slots", "", 0.5),
            ("b", "kv_pool_small", "", 3.0),
        ]),
        not_judged: told(&[
            ("a", "gpu_idle", "no GPU time", 1.0),
            ("b", "gpu_idle", "no GPU time", 1.0),
            ("e", "gpu_idle", "no row", 1.0),
            // Judged in a part of the window.
            ("b", "preemption_thrash", "no row", 1.0),
        ]),
    }
}

#[test]
fn rules_are_put_together_over_all_servers_and_ranked_with_what_differs() {
    let (mut roll, mut measured) = fleet_of(&["a", "b", "c", "d", "e"]);
    // Another model: its servers are nobody's peers there, and the rules are the same.
    roll.servers.series[4] = info("e", "0.17.1", NOW - 5.0);
    scale(&mut measured, STEP, "c", 1.5);
    let verdicts = mixed();
    let diagnosis = diagnose_with(&roll, &measured, &verdicts);
    // 800 + 0.25 * 400 tokens/s, then the half of 1,000 of the slow replica, then what costs time, then what nobody knows.
    let order: Vec<&str> = diagnosis
        .findings
        .iter()
        .map(|finding| match finding {
            Finding::Peer(unlike) => unlike.server.as_str(),
            Finding::Rule(fault) => fault.rule.as_str(),
        })
        .collect();
    let expected = [
        "preemption_thrash",
        "vllm/8000 @ c",
        "kv_pool_small",
        "waiting_for_slots",
        "graphs_unused",
    ];
    assert_eq!(order, expected);
    let thrash = faults(&diagnosis)[0];
    assert_eq!(
        (thrash.lost_tokens_per_sec, thrash.judged),
        (Some(900.0), 4)
    );
    let sick = |sick: &Sick| (sick.server.clone(), sick.now, sick.lost_tokens_per_sec);
    let servers: Vec<_> = thrash.servers.iter().map(sick).collect();
    let name = |node: &str| format!("vllm/8000 @ {node}");
    let expected = [
        (name("a"), true, Some(800.0)),
        (name("b"), false, Some(100.0)),
        (name("e"), true, None),
    ];
    assert_eq!(servers, expected);
    assert_eq!(diagnosis.rules_nothing_wrong["worker_idle"], 2);
    assert_eq!(diagnosis.rules_untold, [name("d")]);
    let blind: Vec<(&str, usize)> = diagnosis
        .rules_not_judged
        .iter()
        .map(|one| (one.reason.as_str(), one.servers.len()))
        .collect();
    assert_eq!(blind, [("no GPU time", 2), ("no row", 1)]);
    let text = text::diagnosis(&diagnosis);
    for part in [
        "[preemption_thrash]\n   on      3 of 4 servers\n",
        "vllm/8000 @ b (opt, vLLM 0.32.0) for 25 % of the time, not now: 100 tokens/s",
        "costs   3.00 s each second",
        "looked for and not seen, on so many servers: worker_idle (2)",
        "not judged on 2 servers: gpu_idle: no GPU time",
        "no rule is told of: vllm/8000 @ d",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_a_server_that_is_gone_told_before_is_not_found() {
    let (mut roll, measured) = fleet_of(&["a", "b"]);
    roll.servers.series.pop();
    roll.servers_seen = answer(vec![info("b", "0.32.0", NOW - 600.0)]);
    let verdicts = Verdicts {
        found: told(&[
            ("a", "kv_pool_small", "", 0.0),
            ("b", "kv_pool_small", "", 1.0),
        ]),
        ..Verdicts::default()
    };
    let diagnosis = diagnose_with(&roll, &measured, &verdicts);
    assert_eq!(diagnosis.findings, []);
    assert_eq!(diagnosis.rules_nothing_wrong["kv_pool_small"], 1);
    assert_eq!(diagnosis.rules_untold, Vec::<String>::new());
}

#[test]
fn a_rule_of_a_newer_agent_is_told_without_its_words() {
    let (roll, measured) = fleet_of(&["a", "b"]);
    let verdicts = Verdicts {
        found: told(&[("a", "moon_phase", "", 1.0)]),
        ..Verdicts::default()
    };
    let diagnosis = diagnose_with(&roll, &measured, &verdicts);
    let fault = faults(&diagnosis)[0];
    assert_eq!(
        (fault.rule.as_str(), fault.options),
        ("moon_phase", &[][..])
    );
    assert!(!text::diagnosis(&diagnosis).contains("change"));
}
