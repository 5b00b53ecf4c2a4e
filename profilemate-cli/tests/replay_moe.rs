//! Mixture of experts layers.

mod stream;

use profilemate::event::Note;
use profilemate_common::record::STATUS_ELSEWHERE;
use stream::server::{WORKER, batch, server};
use stream::{Result, Stream, V, Values};

fn with_layers() -> Stream {
    let mut stream = server();
    stream.bind(WORKER.pid, WORKER.page, &["moe.forward", "moe.route"]);
    stream
}

fn layer(name: &'static str, tokens: i64) -> Values {
    vec![
        ("layer_name", V::Str(name)),
        ("num_experts", V::Int(3)),
        ("top_k", V::Int(2)),
        ("tokens", V::Int(tokens)),
    ]
}

/// A call of a layer that begins at `us`, with its router's call inside.
fn call(stream: &mut Stream, us: u64, name: &'static str, ids: V, tokens: i64) {
    let object = Result::Object;
    stream.call(
        WORKER,
        "moe.route",
        us + 100,
        us + 200,
        object,
        vec![("ids", ids)],
    );
    stream.call(
        WORKER,
        "moe.forward",
        us,
        us + 1_000,
        object,
        layer(name, tokens),
    );
}

const LOWER: &str = "model.layers.0.mlp.experts";
const UPPER: &str = "model.layers.1.mlp.experts";

#[test]
fn ids_belong_to_the_layer_around_the_router() {
    let mut stream = with_layers();
    call(
        &mut stream,
        30_000,
        LOWER,
        V::Tensor(vec![0, 1, 0, 2], 2),
        2,
    );
    call(
        &mut stream,
        32_000,
        UPPER,
        V::Tensor(vec![2, 1, 2, 1], 2),
        2,
    );
    call(&mut stream, 34_000, LOWER, V::Tensor(vec![1, 0], 2), 1);
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("moe_expert_timing.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0.030000,0,1.000000,2,3,2,201,0",
            "0.032000,1,1.000000,2,3,2,201,0",
            "0.034000,0,1.000000,1,3,2,201,0",
        ]
    );
    assert_eq!(
        tables
            .text("moe_expert_selection.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0,0,3,50.0000,2,201,0,2,100.0000,",
            "0,1,2,33.3333,2,201,0,2,100.0000,",
            "0,2,1,16.6667,2,201,0,2,100.0000,",
            "1,0,0,0.0000,1,201,0,1,100.0000,",
            "1,1,2,50.0000,1,201,0,1,100.0000,",
            "1,2,2,50.0000,1,201,0,1,100.0000,",
        ]
    );
    assert_eq!(
        tables
            .text("moe_expert_coselection.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        ["0,0,1,2,201,0", "0,0,2,1,201,0", "1,1,2,2,201,0"]
    );
    assert_eq!(
        tables
            .text("moe_load_imbalance.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0,0.000000,0.8165,3.0000,6,201,0",
            "1,0.000000,0.9428,,4,201,0"
        ]
    );
}

#[test]
fn each_second_has_its_own_row_of_imbalance() {
    let mut stream = with_layers();
    for us in [30_000, 900_000, 1_100_000, 3_000_000] {
        call(&mut stream, us, LOWER, V::Tensor(vec![0, 1], 2), 1);
    }
    let tables = stream.tables();
    let seconds: Vec<_> = tables
        .text("moe_load_imbalance.csv")
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(seconds, ["0.000000", "1.000000", "3.000000"]);
}

#[test]
fn ids_of_a_layer_that_was_not_seen_are_nobodys() {
    let mut stream = with_layers();
    let ids = V::Tensor(vec![0, 1], 2);
    stream.call(
        WORKER,
        "moe.route",
        30_000,
        30_100,
        Result::Object,
        vec![("ids", ids)],
    );
    stream.call(
        WORKER,
        "moe.forward",
        31_000,
        32_000,
        Result::Object,
        layer(LOWER, 1),
    );
    let tables = stream.tables();
    assert_eq!(tables.text("moe_expert_timing.csv").lines().count(), 2);
    assert_eq!(tables.text("moe_expert_selection.csv").lines().count(), 1);
}

#[test]
fn a_part_of_the_ids_is_said_to_be_one() {
    let mut stream = with_layers();
    let cut = V::Cut(Box::new(V::Tensor(vec![0, 1, 0], 2)), 12);
    call(&mut stream, 30_000, LOWER, cut, 6);
    let tables = stream.tables();
    let first = tables
        .text("moe_expert_selection.csv")
        .lines()
        .nth(1)
        .map(str::to_owned);
    assert_eq!(first.as_deref(), Some("0,0,2,66.6667,1,201,0,1,25.0000,"));
    let pairs = tables.text("moe_expert_coselection.csv").lines().count();
    assert_eq!(pairs, 2, "the token that is there whole");
    let (status, reason) = stream.tables().coverage("moe_expert_selection");
    assert_eq!(status, "partial");
    assert!(
        reason.contains("it has more items than are read"),
        "{reason}"
    );
}

#[test]
fn no_rows_have_a_reason() {
    let mut stream = with_layers();
    let experts = |count| vec![("model_experts", V::Int(count))];
    let pass = |stream: &mut Stream, us, count| {
        let mut values = batch(&[(1, 1, Some(1))]);
        values.extend(experts(count));
        stream.call(
            WORKER,
            "runner.execute_model",
            us,
            us + 500,
            Result::None,
            values,
        );
    };
    pass(&mut stream, 30_000, 0);
    assert_eq!(
        stream.tables().coverage("moe_expert_timing"),
        (
            "not_applicable".to_owned(),
            "the model has no MoE layers".to_owned()
        )
    );
    pass(&mut stream, 40_000, 8);
    let (status, reason) = stream.tables().coverage("moe_expert_timing");
    assert_eq!(status, "not_observable");
    assert!(reason.contains("compiled code"), "{reason}");
    stream.call(
        WORKER,
        "moe.forward",
        50_000,
        51_000,
        Result::Object,
        layer(LOWER, 1),
    );
    // The pass before it had a model with layers, and ran none of them in Python.
    let (status, reason) = stream.tables().coverage("moe_expert_timing");
    assert_eq!(status, "partial");
    assert!(reason.contains("in 1 of 1 forward passes"), "{reason}");
    let (status, reason) = stream.tables().coverage("moe_expert_selection");
    assert_eq!(status, "not_observable");
    assert!(
        reason.contains("GPU memory") && reason.contains("--moe-sample"),
        "{reason}"
    );
    stream.bind(WORKER.pid, WORKER.page, &["moe.monolithic"]);
    stream.counted(WORKER.pid, WORKER.page, 60_000, "moe.monolithic", 3);
    let (status, reason) = stream.tables().coverage("moe_expert_selection");
    assert_eq!(status, "not_observable");
    assert!(reason.starts_with("a monolithic kernel"), "{reason}");
}

#[test]
fn passes_in_which_no_layer_ran_in_python_are_told() {
    let mut stream = with_layers();
    for (us, layers) in [(30_000, true), (40_000, true), (50_000, false)] {
        if layers {
            call(&mut stream, us, LOWER, V::Tensor(vec![0, 1], 2), 1);
        }
        let values = batch(&[(1, 1, Some(1))]);
        stream.call(
            WORKER,
            "runner.execute_model",
            us,
            us + 2_000,
            Result::None,
            values,
        );
    }
    let (status, reason) = stream.tables().coverage("moe_expert_timing");
    assert_eq!(status, "partial");
    assert!(reason.contains("in 1 of 2 forward passes"), "{reason}");
}

/// Sums of a layer, as the helper tells them.
fn sums(stream: &mut Stream, us: u64, calls: [i64; 3], kind: i64, sums: &[(i64, i64)]) {
    let (keys, values): (Vec<i64>, Vec<i64>) = sums.iter().copied().unzip();
    let told = vec![
        ("layer_name", V::Str(LOWER)),
        ("num_experts", V::Int(3)),
        ("top_k", V::Int(2)),
        ("every", V::Int(4)),
        ("calls", V::Int(calls[0])),
        ("sampled", V::Int(calls[1])),
        ("captured", V::Int(calls[2])),
        ("kind", V::Int(kind)),
        ("keys", V::Ints(keys)),
        ("values", V::Ints(values)),
    ];
    stream.call(WORKER, "moe.sample", us, us + 100, Result::None, told);
}

#[test]
fn sums_of_sampled_routers_replace_the_ones_before() {
    let mut stream = with_layers();
    call(&mut stream, 20_000, LOWER, V::Tensor(vec![2, 2], 2), 1);
    stream.bind(WORKER.pid, WORKER.page, &["moe.sample"]);
    sums(&mut stream, 30_000, [5, 2, 0], 0, &[(0, 3), (1, 1)]);
    sums(&mut stream, 30_200, [5, 2, 0], 1, &[(1 << 16, 1)]);
    // In between one is lost, which does no harm.
    sums(
        &mut stream,
        2_500_000,
        [13, 4, 0],
        0,
        &[(0, 6), (1, 1), (2, 1)],
    );
    sums(
        &mut stream,
        2_500_200,
        [13, 4, 0],
        1,
        &[(1 << 16, 2), (1 | 2 << 16, 1)],
    );
    let tables = stream.tables();
    let lines = |file: &str| -> Vec<String> {
        let text = tables.text(file);
        text.lines().skip(1).map(str::to_owned).collect()
    };
    assert_eq!(
        lines("moe_expert_selection.csv"),
        [
            "0,0,6,75.0000,4,201,0,13,100.0000,",
            "0,1,1,12.5000,4,201,0,13,100.0000,",
            "0,2,1,12.5000,4,201,0,13,100.0000,",
        ]
    );
    assert_eq!(
        lines("moe_expert_coselection.csv"),
        ["0,0,1,2,201,0", "0,1,2,1,201,0"]
    );
    let choices: u64 = lines("moe_load_imbalance.csv")
        .iter()
        .filter_map(|line| line.split(',').nth(4)?.parse::<u64>().ok())
        .sum();
    assert_eq!(choices, 8);
    let (status, reason) = tables.coverage("moe_expert_selection");
    assert_eq!(status, "partial");
    assert!(reason.contains("4 of 13 calls"), "{reason}");
}

#[test]
fn what_replays_choose_is_said_to_be_missing() {
    let mut stream = with_layers();
    stream.bind(WORKER.pid, WORKER.page, &["moe.sample"]);
    sums(&mut stream, 30_000, [5, 5, 2], 0, &[(0, 10)]);
    let (status, reason) = stream.tables().coverage("moe_expert_selection");
    assert_eq!(status, "partial");
    assert!(reason.contains("captured"), "{reason}");
    assert!(
        !reason.contains("sampled ("),
        "all others are counted: {reason}"
    );
}

#[test]
fn slots_are_told_beside_the_experts_in_them() {
    let mut stream = with_layers();
    stream.bind(WORKER.pid, WORKER.page, &["moe.sample"]);
    sums(&mut stream, 30_000, [1, 1, 0], 0, &[(0, 4), (1, 2)]);
    sums(&mut stream, 30_200, [1, 1, 0], 2, &[(0, 3), (5, 1), (2, 2)]);
    sums(&mut stream, 30_400, [1, 1, 0], 3, &[(0, 1), (5, 1), (2, 2)]);
    let text = stream.tables().text("moe_expert_selection.csv");
    let physical: Vec<_> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.rsplit(',').next())
        .collect();
    assert_eq!(physical, ["0:3 5:1", "2:2", ""]);
}

#[test]
fn ids_in_gpu_memory_are_said_to_be_there() {
    let mut stream = with_layers();
    call(&mut stream, 30_000, LOWER, V::Absent(STATUS_ELSEWHERE), 1);
    let (_, reason) = stream.tables().coverage("moe_expert_selection");
    assert!(reason.contains("not in host memory"), "{reason}");
    stream.note(&Note::ProcessEnded {
        pid: WORKER.pid,
        at_ns: stream::at(60_000),
        reason: "exited".to_owned(),
    });
    assert_eq!(
        stream
            .tables()
            .text("moe_expert_selection.csv")
            .lines()
            .count(),
        1
    );
}
