//! Which experts were chosen, against the results of the routers recorded inside the process.

use std::collections::BTreeMap;

use profilemate_tests::vllm::Run;
use profilemate_tests::{Row, Session};

/// How often each expert of each layer was chosen, and each pair of experts.
type Experts = (BTreeMap<(u64, u64), u64>, BTreeMap<(u64, u64, u64), u64>);

/// What the routers gave in every so many calls of each layer, as the reference saw it inside the process; and all calls
/// of each layer.
fn routed(run: &Run, every: u64) -> (Experts, BTreeMap<u64, u64>) {
    routed_from(run, every, &BTreeMap::new())
}

/// As [`routed`], without so many first calls of each layer: the first one after them is the first that counts.
fn routed_from(
    run: &Run,
    every: u64,
    skipped: &BTreeMap<u64, u64>,
) -> (Experts, BTreeMap<u64, u64>) {
    let (mut chosen, mut pairs) = Experts::default();
    let mut calls = BTreeMap::new();
    for (_, event) in run.events("route") {
        let layer = layer_of(event);
        let number = calls.entry(layer).or_default();
        *number += 1;
        let skipped = skipped.get(&layer).copied().unwrap_or(0);
        if *number <= skipped || (*number - skipped - 1) % every != 0 {
            continue;
        }
        for token in event["ids"].as_array().unwrap() {
            let ids: Vec<u64> = serde_json::from_value(token.clone()).unwrap();
            for (index, &one) in ids.iter().enumerate() {
                *chosen.entry((layer, one)).or_default() += 1;
                for &other in &ids[index + 1..] {
                    let pair = (layer, one.min(other), one.max(other));
                    *pairs.entry(pair).or_default() += 1;
                }
            }
        }
    }
    ((chosen, pairs), calls)
}

/// The layer of a router's call.
fn layer_of(event: &serde_json::Value) -> u64 {
    let name = event["layer"].as_str().unwrap();
    name.split('.').find_map(|part| part.parse().ok()).unwrap()
}

/// Experts and pairs of experts, as the session tells them.
fn told(session: &Session) -> Experts {
    let integer = |row: &Row, column: &str| row[column].parse::<u64>().unwrap();
    let chosen = session
        .rows("moe_expert_selection")
        .iter()
        .map(|row| {
            assert_eq!(row["seen_pct"], "100.0000", "{row:?}");
            let key = (integer(row, "layer_idx"), integer(row, "expert_id"));
            (key, integer(row, "activation_count"))
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let pairs = session
        .rows("moe_expert_coselection")
        .iter()
        .map(|row| {
            let (one, other) = (integer(row, "expert_id_1"), integer(row, "expert_id_2"));
            let key = (integer(row, "layer_idx"), one, other);
            (key, integer(row, "coselection_count"))
        })
        .collect();
    (chosen, pairs)
}

/// What the helper counted of every so many calls of each layer equals the reference's.
pub(super) fn assert_samples_equal(run: &Run, session: &Session, every: u64) {
    assert_samples_after(run, session, every, &BTreeMap::new());
}

/// As [`assert_samples_equal`], where sampling began while steps ran and lasted to the end: of each layer the last calls
/// were seen, as many as the session says.
pub(super) fn assert_late_samples_equal(run: &Run, session: &Session, every: u64) {
    let mut skipped = routed(run, 1).1;
    for row in session.rows("moe_expert_selection") {
        let seen: u64 = row["calls"].parse().unwrap();
        let all = skipped.get_mut(&row["layer_idx"].parse().unwrap());
        // Rows of one layer say the same.
        if row["expert_id"] == "0" {
            *all.unwrap() -= seen;
        }
    }
    for (layer, skipped) in &skipped {
        assert!(*skipped > 0, "layer {layer}: sampled from its first call");
    }
    assert_samples_after(run, session, every, &skipped);
}

fn assert_samples_after(run: &Run, session: &Session, every: u64, skipped: &BTreeMap<u64, u64>) {
    let (truth, mut calls) = routed_from(run, every, skipped);
    for (layer, skipped) in skipped {
        *calls.get_mut(layer).unwrap() -= skipped;
    }
    assert!(!truth.0.is_empty(), "routers were called");
    assert_eq!(told(session), truth);
    for row in session.rows("moe_expert_selection") {
        let all = calls[&row["layer_idx"].parse().unwrap()];
        assert_eq!(row["calls"], all.to_string(), "{row:?}");
        let sampled = all.div_ceil(every);
        assert_eq!(row["sampled_calls"], sampled.to_string(), "{row:?}");
    }
    let choices: u64 = session
        .rows("moe_load_imbalance")
        .iter()
        .map(|row| row["choices"].parse::<u64>().unwrap())
        .sum();
    assert_eq!(choices, truth.0.values().sum::<u64>());
}

/// Experts and pairs of experts equal the reference's, and the layers' calls have their tokens. Calls of a warm-up may be
/// missing, as far as they came before their methods were bound: the session says how many it saw.
pub(super) fn assert_experts_equal(run: &Run, session: &Session) {
    let integer = |row: &Row, column: &str| row[column].parse::<u64>().unwrap();
    let warm_up = warm_up(run).into_values().max().unwrap_or(0);
    let mut sampled = BTreeMap::new();
    for row in session.rows("moe_expert_selection") {
        let (calls, own) = (integer(&row, "calls"), integer(&row, "sampled_calls"));
        sampled.insert(integer(&row, "layer_idx"), own);
        assert!(calls - own <= warm_up, "{row:?}, {warm_up} of the warm-up");
    }
    let all = routed(run, 1).1;
    let mut skipped = BTreeMap::new();
    for (layer, calls) in all {
        let skip = calls - sampled[&layer];
        assert!(skip <= warm_up, "layer {layer}: {skip} calls are missing");
        skipped.insert(layer, skip);
    }
    let (chosen, pairs) = routed_from(run, 1, &skipped).0;
    assert!(!chosen.is_empty(), "routers were called");
    assert_eq!(told(session), (chosen.clone(), pairs));
    let rows = session.rows("moe_expert_timing");
    for row in &rows {
        let shape = (&*row["num_experts"], &*row["top_k"]);
        assert_eq!(shape, ("8", "2"), "{row:?}");
    }
    for (layer, sampled) in sampled {
        let calls = rows.iter().rev();
        let calls = calls.filter(|row| integer(row, "layer_idx") == layer);
        let tokens: u64 = calls
            .take(sampled as usize)
            .map(|row| integer(row, "num_tokens"))
            .sum();
        let own = chosen.iter().filter(|((of, _), _)| *of == layer);
        let choices: u64 = own.map(|(_, count)| count).sum();
        assert_eq!(2 * tokens, choices, "two experts a token, layer {layer}");
    }
    let choices: u64 = session
        .rows("moe_load_imbalance")
        .iter()
        .map(|row| integer(row, "choices"))
        .sum();
    assert_eq!(choices, chosen.values().sum::<u64>());
}

/// Calls of each layer's router before the first step.
fn warm_up(run: &Run) -> BTreeMap<u64, u64> {
    let time = |event: &serde_json::Value| event["t"].as_f64().unwrap();
    let steps = run.events("schedule");
    let first = steps
        .iter()
        .map(|(_, event)| time(event))
        .fold(f64::MAX, f64::min);
    let mut calls = BTreeMap::new();
    for (_, event) in run.events("route") {
        if time(event) < first {
            *calls.entry(layer_of(event)).or_default() += 1;
        }
    }
    calls
}
