//! What streams become in the tables, one story a test.

mod stream;

use profilemate::event::{Ledger, Note, Process, SlotCounters};
use profilemate_common::record::{
    STATUS_FAULT, STATUS_NO_ROOM, STATUS_TOO_BIG, STATUS_UNSET, STATUS_WRONG_KEY, STATUS_WRONG_TYPE,
};
use stream::{Result, Stream, V, Values, Who};

const ENGINE: Who = Who {
    pid: 200,
    tid: 200,
    page: 1,
};
const WORKER: Who = Who {
    pid: 201,
    tid: 201,
    page: 2,
};
const ENGINE_METHODS: &[&str] = &[
    "scheduler.schedule",
    "scheduler.preempt",
    "block_pool.evict",
    "block_pool.allocate",
    "block_pool.touch",
];

fn server() -> Stream {
    let mut stream = Stream::new();
    stream.process(100, 1, "api_server", None);
    stream.process(200, 100, "engine_core", Some(1));
    stream.process(201, 200, "worker", Some(2));
    stream.bind(200, 1, ENGINE_METHODS);
    stream.bind(201, 2, &["runner.execute_model"]);
    stream
}

/// A batch of (key, tokens, output tokens so far; `None` for a new request).
fn batch(requests: &[(u64, i64, Option<i64>)]) -> Values {
    let cached = || {
        requests
            .iter()
            .filter_map(|request| Some((request.0, request.2?)))
    };
    vec![
        (
            "tokens",
            V::Int(requests.iter().map(|request| request.1).sum()),
        ),
        ("seqs", V::Int(requests.len() as i64)),
        (
            "scheduled",
            V::Pairs(
                requests
                    .iter()
                    .map(|request| (request.0, request.1))
                    .collect(),
            ),
        ),
        (
            "new_keys",
            V::Addresses(
                requests
                    .iter()
                    .filter(|r| r.2.is_none())
                    .map(|r| r.0)
                    .collect(),
            ),
        ),
        (
            "cached_keys",
            V::Addresses(cached().map(|request| request.0).collect()),
        ),
        (
            "cached_outputs",
            V::Ints(cached().map(|request| request.1).collect()),
        ),
    ]
}

fn with(mut values: Values, more: Values) -> Values {
    values.extend(more);
    values
}

/// What else a schedule call tells.
fn queues() -> Values {
    vec![
        ("new_ids", V::Strs(vec![])),
        ("resumed_ids", V::Strs(vec![])),
        ("preempted_ids", V::None),
        ("finished_ids", V::Strs(vec![])),
        ("running", V::Int(2)),
        ("waiting", V::Int(3)),
        ("max_seqs", V::Int(16)),
        ("max_tokens", V::Int(1_000)),
        ("blocks", V::Int(101)),
        ("free_blocks", V::Int(75)),
    ]
}

/// Replaces fields of a call.
fn set(values: Values, changes: Values) -> Values {
    let kept = values
        .into_iter()
        .filter(|value| changes.iter().all(|change| change.0 != value.0));
    kept.chain(changes.clone()).collect()
}

fn schedule(requests: &[(u64, i64, Option<i64>)], changes: Values) -> Values {
    set(with(batch(requests), queues()), changes)
}

#[test]
fn a_schedule_call_is_one_row_of_batch_and_one_of_cache() {
    let mut stream = server();
    let values = schedule(
        &[(1, 100, None), (2, 1, Some(5))],
        vec![("new_ids", V::Strs(vec!["a"]))],
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_250,
        Result::Object,
        values,
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        31_000,
        31_100,
        Result::Object,
        schedule(&[], vec![]),
    );
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("batch_utilization.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0.030250,2,16,12.5000,101,1000,10.1000,mixed,2,3,1,100,1,0.250000,200,0",
            "0.031100,0,16,0.0000,0,1000,0.0000,,2,3,2,0,0,0.100000,200,0",
        ]
    );
    assert_eq!(
        tables.text("kv_cache_usage.csv").lines().nth(1),
        Some("0.030250,25.0000,25,100,2,3,200,0"),
        "the null block counts neither as used nor as there"
    );
}

#[test]
fn phases_are_told_apart_as_vllm_does() {
    let mut stream = server();
    let cases: &[&[(u64, i64, Option<i64>)]] = &[
        &[(1, 50, None)],
        &[(1, 50, Some(0))],
        &[(1, 1, Some(1)), (2, 1, Some(9))],
        &[(1, 1, Some(1)), (2, 7, Some(0))],
    ];
    for (index, case) in cases.iter().enumerate() {
        let from = 30_000 + index as u64 * 1_000;
        stream.call(
            ENGINE,
            "scheduler.schedule",
            from,
            from + 10,
            Result::Object,
            schedule(case, vec![]),
        );
    }
    let phases = stream.tables().columns(
        "batch_utilization",
        &["phase", "prefill_tokens", "decode_tokens"],
    );
    assert_eq!(
        phases,
        ["prefill|50|0", "prefill|50|0", "decode|0|2", "mixed|7|1"]
    );
}

#[test]
fn a_resumed_request_reads_its_prompt_again() {
    let mut stream = server();
    let new = schedule(&[(1, 50, None)], vec![("new_ids", V::Strs(vec!["a"]))]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        new,
    );
    let resumed = schedule(
        &[(1, 60, Some(4))],
        vec![("resumed_ids", V::Strs(vec!["a"]))],
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        31_000,
        31_010,
        Result::Object,
        resumed,
    );
    let unknown = schedule(
        &[(2, 60, Some(4))],
        vec![("resumed_ids", V::Strs(vec!["before the attach"]))],
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        32_000,
        32_010,
        Result::Object,
        unknown,
    );
    let phases = stream.tables().columns(
        "batch_utilization",
        &["phase", "prefill_tokens", "decode_tokens"],
    );
    assert_eq!(phases, ["prefill|50|0", "prefill|60|0", "||"]);
}

#[test]
fn every_status_of_every_field_gives_empty_cells_and_a_row() {
    let whole = schedule(&[(1, 100, None), (2, 1, Some(5))], vec![]);
    let statuses = [
        STATUS_FAULT,
        STATUS_WRONG_TYPE,
        STATUS_WRONG_KEY,
        STATUS_UNSET,
        STATUS_TOO_BIG,
        STATUS_NO_ROOM,
    ];
    for status in statuses.into_iter().chain([7, 9, 10, 11, 12, 200]) {
        let mut stream = server();
        let absent: Values = whole
            .iter()
            .map(|value| (value.0, V::Absent(status)))
            .collect();
        stream.call(
            ENGINE,
            "scheduler.schedule",
            30_000,
            30_250,
            Result::Object,
            absent,
        );
        let tables = stream.tables();
        if status == 9 {
            // "Truncated" with a blob that holds nothing: counted, and as empty as the others. Scalars have no length.
            assert!(tables.outcome.decode_errors.fields > 0);
            assert_eq!(
                tables.columns("batch_utilization", &["phase", "prefill_tokens"]),
                ["|"]
            );
            continue;
        }
        let batches = tables.text("batch_utilization.csv");
        assert_eq!(
            batches.lines().nth(1),
            Some("0.030250,,,,,,,,,,1,,,0.250000,200,0"),
            "status {status}"
        );
        assert_eq!(
            tables.text("kv_cache_usage.csv").lines().nth(1),
            Some("0.030250,,,,,,200,0")
        );
        assert_eq!(tables.rows("preemption_events").len(), 0);
    }
}

#[test]
fn a_collection_that_is_cut_leaves_the_split_empty() {
    for name in [
        "scheduled",
        "new_keys",
        "cached_keys",
        "cached_outputs",
        "resumed_ids",
    ] {
        let mut stream = server();
        let whole = schedule(&[(1, 100, None), (2, 1, Some(5))], vec![]);
        let value = whole
            .iter()
            .find(|value| value.0 == name)
            .unwrap()
            .1
            .clone();
        let values = set(whole, vec![(name, V::Cut(Box::new(value), 5_000))]);
        stream.call(
            ENGINE,
            "scheduler.schedule",
            30_000,
            30_250,
            Result::Object,
            values,
        );
        let tables = stream.tables();
        let cells = tables.columns(
            "batch_utilization",
            &["num_tokens", "phase", "prefill_tokens", "decode_tokens"],
        );
        assert_eq!(cells, ["101|||"], "{name}");
        let (status, reason) = tables.coverage("batch_utilization");
        assert_eq!(status, "partial");
        assert!(
            reason.contains(name) && reason.contains("more items"),
            "{reason}"
        );
    }
}

#[test]
fn waiting_requests_are_summed_over_the_queues_of_the_version() {
    let cases: &[(Values, &str)] = &[
        (vec![("waiting", V::Int(3))], "3"),
        (
            vec![
                ("waiting", V::Absent(STATUS_WRONG_TYPE)),
                ("waiting_heap", V::Int(4)),
            ],
            "4",
        ),
        (
            vec![("waiting", V::Int(3)), ("waiting_skipped", V::Int(2))],
            "5",
        ),
        (
            vec![("waiting", V::Int(3)), ("waiting_kv_holding", V::Int(7))],
            "10",
        ),
        (
            vec![
                ("waiting", V::Int(3)),
                ("waiting_skipped", V::Absent(STATUS_WRONG_TYPE)),
            ],
            "",
        ),
        (vec![("waiting", V::Absent(STATUS_WRONG_TYPE))], ""),
    ];
    for (changes, expected) in cases {
        let mut stream = server();
        let values = schedule(&[(1, 1, Some(1))], changes.clone());
        stream.call(
            ENGINE,
            "scheduler.schedule",
            30_000,
            30_010,
            Result::Object,
            values,
        );
        assert_eq!(
            stream
                .tables()
                .columns("batch_utilization", &["waiting_queue_len"]),
            [*expected]
        );
    }
}

#[test]
fn a_request_is_followed_from_start_to_end() {
    let mut stream = server();
    let ids = |name, ids: &[&'static str]| vec![(name, V::Strs(ids.to_vec()))];
    let new = schedule(&[(1, 50, None), (2, 50, None)], ids("new_ids", &["a", "b"]));
    stream.call(
        ENGINE,
        "scheduler.schedule",
        100_000,
        100_010,
        Result::Object,
        new,
    );
    stream.entry(
        ENGINE,
        "scheduler.preempt",
        200_002,
        vec![("computed_tokens", V::Int(77))],
    );
    let preempted = vec![
        ("request_id", V::Str("b")),
        ("computed_tokens", V::Int(0)),
        ("num_preemptions", V::Int(1)),
    ];
    stream.call(
        ENGINE,
        "scheduler.preempt",
        200_002,
        200_004,
        Result::None,
        preempted,
    );
    let step = schedule(&[(1, 1, Some(1))], ids("preempted_ids", &["b"]));
    stream.call(
        ENGINE,
        "scheduler.schedule",
        200_000,
        200_010,
        Result::Object,
        step,
    );
    let step = schedule(
        &[(1, 1, Some(2)), (2, 60, Some(9))],
        ids("resumed_ids", &["b"]),
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        250_000,
        250_010,
        Result::Object,
        step,
    );
    let step = schedule(&[], ids("finished_ids", &["a", "b", "z"]));
    stream.call(
        ENGINE,
        "scheduler.schedule",
        300_000,
        300_010,
        Result::Object,
        step,
    );
    let tables = stream.tables();
    let events = tables.columns(
        "preemption_events",
        &[
            "timestamp_sec",
            "request_id",
            "event",
            "reason",
            "running_time_sec",
            "extra_info",
            "step",
            "computed_tokens_lost",
        ],
    );
    assert_eq!(
        events,
        [
            "0.100010|a|started||||1|",
            "0.100010|b|started||||1|",
            "0.200004|b|preempted|kv_blocks_exhausted|0.099994|num_preemptions=1|2|77",
            "0.250010|b|resumed||||3|",
            "0.300010|a|finished||0.200000||4|",
            "0.300010|b|finished||0.050000||4|",
            "0.300010|z|finished||||4|",
        ]
    );
    assert_eq!(
        tables.columns("preemption_events", &["kv_usage_pct"])[2],
        "25.0000"
    );
    assert_eq!(
        tables
            .text("request_lifecycle.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "a,0.100010,,,0.300010,0.200000,,0,200,0",
            "b,0.100010,0.200004,0.250010,0.300010,0.200000,0.050006,1,200,0",
            "z,,,,0.300010,,,0,200,0",
        ]
    );
}

#[test]
fn a_preemption_outside_a_schedule_call_is_a_reset() {
    for later in [true, false] {
        let mut stream = server();
        let preempted = || vec![("request_id", V::Str("a")), ("num_preemptions", V::Int(1))];
        stream.call(
            ENGINE,
            "scheduler.preempt",
            50_000,
            50_001,
            Result::None,
            preempted(),
        );
        if later {
            // From 0.25.1 the next output names it again.
            let values = schedule(&[], vec![("preempted_ids", V::Strs(vec!["a"]))]);
            stream.call(
                ENGINE,
                "scheduler.schedule",
                60_000,
                60_010,
                Result::Object,
                values,
            );
        } else {
            stream.tick(500_000);
        }
        let columns = stream.tables().columns(
            "preemption_events",
            &["event", "reason", "step", "computed_tokens_lost"],
        );
        assert_eq!(
            columns,
            ["preempted|reset_prefix_cache||"],
            "later schedule call: {later}"
        );
    }
}

#[test]
fn a_preemption_of_another_thread_is_not_inside_the_schedule_call() {
    let mut stream = server();
    let other = Who { tid: 299, ..ENGINE };
    stream.call(
        other,
        "scheduler.preempt",
        50_002,
        50_003,
        Result::None,
        vec![("request_id", V::Str("a"))],
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        50_000,
        50_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.tick(900_000);
    assert_eq!(
        stream
            .tables()
            .columns("preemption_events", &["reason", "step"]),
        ["reset_prefix_cache|"]
    );
}

#[test]
fn a_preemption_known_from_the_output_alone_says_so() {
    let mut stream = server();
    let new = schedule(&[(1, 50, None)], vec![("new_ids", V::Strs(vec!["a"]))]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        100_000,
        100_010,
        Result::Object,
        new,
    );
    let values = schedule(&[], vec![("preempted_ids", V::Strs(vec!["a"]))]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        200_000,
        200_010,
        Result::Object,
        values,
    );
    let columns = stream.tables().columns(
        "preemption_events",
        &["event", "reason", "running_time_sec", "extra_info"],
    );
    assert_eq!(
        columns,
        [
            "started|||",
            "preempted||0.100000|from the scheduler's output"
        ]
    );
}

#[test]
fn evictions_have_vllms_lifetime_and_idle_time() {
    let mut stream = server();
    let ids = |ids: &[i64]| vec![("block_ids", V::Ints(ids.to_vec()))];
    let evict = |stream: &mut Stream, us, id, result| {
        stream.call(
            ENGINE,
            "block_pool.evict",
            us,
            us + 1,
            result,
            vec![("block_id", V::Int(id))],
        );
    };
    stream.call(
        ENGINE,
        "block_pool.allocate",
        100_000,
        100_010,
        Result::Object,
        ids(&[1, 2]),
    );
    stream.call(
        ENGINE,
        "block_pool.touch",
        150_000,
        150_010,
        Result::None,
        ids(&[1]),
    );
    evict(&mut stream, 200_009, 1, Result::True);
    evict(&mut stream, 200_011, 2, Result::False);
    evict(&mut stream, 200_013, 3, Result::True);
    stream.call(
        ENGINE,
        "block_pool.allocate",
        200_000,
        200_020,
        Result::Object,
        ids(&[1, 2, 3]),
    );
    evict(&mut stream, 300_019, 3, Result::True);
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("kv_cache_evictions.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0.200010,0.100000,0.050000,1,200,0",
            "0.200014,,,3,200,0",
            "0.300020,0.100000,0.100000,3,200,0",
        ]
    );
}

#[test]
fn after_a_cut_allocation_or_a_lost_record_no_age_is_told() {
    for lost in [true, false] {
        let mut stream = server();
        let ids = V::Ints(vec![1]);
        stream.call(
            ENGINE,
            "block_pool.allocate",
            100_000,
            100_010,
            Result::Object,
            vec![("block_ids", ids.clone())],
        );
        stream.tick(200_000);
        if lost {
            stream.note(&Note::Ledger(Ledger {
                fired: 9,
                submitted: 8,
                lost: 1,
                filtered: 0,
            }));
        } else {
            let cut = vec![("block_ids", V::Cut(Box::new(V::Ints(vec![5])), 2_000))];
            stream.call(
                ENGINE,
                "block_pool.allocate",
                200_000,
                200_010,
                Result::Object,
                cut,
            );
        }
        stream.call(
            ENGINE,
            "block_pool.evict",
            300_000,
            300_001,
            Result::True,
            vec![("block_id", V::Int(1))],
        );
        let tables = stream.tables();
        assert_eq!(
            tables.columns(
                "kv_cache_evictions",
                &["lifetime_sec", "idle_sec", "block_id"]
            ),
            ["||1"]
        );
        assert_eq!(
            tables.coverage("kv_cache_evictions").0,
            "partial",
            "lost: {lost}"
        );
    }
}

#[test]
fn forward_passes_get_their_step_and_its_phase() {
    let mut stream = server();
    let steps: &[&[(u64, i64, Option<i64>)]] = &[
        &[(1, 100, None)],
        &[],
        &[(1, 1, Some(1))],
        &[(1, 1, Some(2))],
    ];
    for (index, requests) in steps.iter().enumerate() {
        let us = 30_000 + index as u64 * 10_000;
        stream.call(
            ENGINE,
            "scheduler.schedule",
            us,
            us + 100,
            Result::Object,
            schedule(requests, vec![]),
        );
        let ran: Vec<_> = requests
            .iter()
            .map(|request| (request.0 + 0x500, request.1, request.2))
            .collect();
        stream.call(
            WORKER,
            "runner.execute_model",
            us + 200,
            us + 2_200,
            Result::None,
            batch(&ran),
        );
    }
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("forward_pass_timing.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0.030200,prefill,1,100,2.000000,50000.0000,1,,,,,,201,0",
            "0.050200,decode,1,1,2.000000,500.0000,3,,,,,,201,0",
            "0.060200,decode,1,1,2.000000,500.0000,4,,,,,,201,0",
        ]
    );
}

#[test]
fn passes_that_overlap_the_next_schedule_call_stay_in_order() {
    let mut stream = server();
    let decode = || schedule(&[(1, 1, Some(1))], vec![]);
    let pass = || batch(&[(1, 1, Some(1))]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_100,
        Result::Object,
        decode(),
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_500,
        30_600,
        Result::Object,
        decode(),
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        30_200,
        31_200,
        Result::None,
        pass(),
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        31_300,
        32_300,
        Result::None,
        pass(),
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        31_210,
        31_290,
        Result::Object,
        decode(),
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        32_400,
        33_300,
        Result::None,
        pass(),
    );
    assert_eq!(
        stream.tables().columns("forward_pass_timing", &["step"]),
        ["1", "2", "3"]
    );
}

#[test]
fn a_pass_of_an_unknown_engine_has_no_step() {
    let mut stream = Stream::new();
    stream.process(201, 1, "worker", Some(2));
    stream.bind(201, 2, &["runner.execute_model"]);
    stream.call(
        WORKER,
        "runner.execute_model",
        30_000,
        31_000,
        Result::None,
        batch(&[(1, 1, Some(1))]),
    );
    let tables = stream.tables();
    assert_eq!(
        tables.columns("forward_pass_timing", &["step", "phase", "num_tokens"]),
        ["|decode|1"]
    );
    assert_eq!(tables.coverage("forward_pass_timing").0, "partial");
    assert_eq!(tables.coverage("batch_utilization").0, "not_observable");
}

#[test]
fn operations_get_the_step_around_or_before_them() {
    let mut stream = server();
    stream.bind_with(201, 2, "runner.prepare_inputs", Some("prepare_inputs"), &[]);
    stream.bind_with(201, 2, "runner.sample", Some("sample"), &[]);
    for (index, tokens) in [100, 1].into_iter().enumerate() {
        let us = 30_000 + index as u64 * 10_000;
        let requests = [(1, tokens, if index == 0 { None } else { Some(1) })];
        stream.call(
            ENGINE,
            "scheduler.schedule",
            us,
            us + 100,
            Result::Object,
            schedule(&requests, vec![]),
        );
        stream.call(
            WORKER,
            "runner.prepare_inputs",
            us + 300,
            us + 400,
            Result::Object,
            vec![],
        );
        stream.call(
            WORKER,
            "runner.execute_model",
            us + 200,
            us + 2_200,
            Result::None,
            batch(&requests),
        );
        stream.call(
            WORKER,
            "runner.sample",
            us + 2_300,
            us + 2_500,
            Result::Object,
            vec![],
        );
    }
    stream.tick(900_000);
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("cpu_operations_timing.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "0.030300,prepare_inputs,0.100000,tokens=100 seqs=1,1,201,0",
            "0.032300,sample,0.200000,tokens=100 seqs=1,1,201,0",
            "0.040300,prepare_inputs,0.100000,tokens=1 seqs=1,2,201,0",
            "0.042300,sample,0.200000,,,201,0",
        ],
        "what follows the last pass is joined to nothing, for nothing shows that it belongs to it"
    );
}

#[test]
fn user_methods_carry_their_fields() {
    let mut stream = server();
    stream.bind(200, 1, &["user.0"]);
    let values = vec![
        ("size", V::Int(-3)),
        ("name", V::Str("a \"b\"")),
        ("ratio", V::Float(f64::NAN)),
        ("items", V::Cut(Box::new(V::Ints(vec![1, 2])), 9)),
    ];
    stream.call(ENGINE, "user.0", 30_000, 30_500, Result::Object, values);
    stream.call(
        ENGINE,
        "user.0",
        31_000,
        31_001,
        Result::Raised,
        vec![("size", V::None)],
    );
    stream.call(ENGINE, "user.0", 32_000, 32_001, Result::False, vec![]);
    let columns = [
        "timestamp_sec",
        "method",
        "duration_ms",
        "outcome",
        "pid",
        "tid",
        "fields",
    ];
    assert_eq!(
        stream.tables().columns("methods", &columns),
        [
            r#"0.030000|module:Class.user.0|0.500000|object|200|200|{"size":-3,"name":"a \"b\"","ratio":"NaN","items":{"first":[1,2],"total":9}}"#,
            r#"0.031000|module:Class.user.0|0.001000|raised|200|200|{"size":null}"#,
            "0.032000|module:Class.user.0|0.001000|false|200|200|",
        ]
    );
}

#[test]
fn calls_wait_for_the_length_of_a_cycle() {
    for known in [true, false] {
        let mut stream = server();
        // The builder's own readings are the second and third frame.
        let clocks: Vec<_> = stream.frames.drain(1..3).collect();
        stream.call(
            ENGINE,
            "scheduler.schedule",
            30_000,
            30_250,
            Result::Object,
            schedule(&[], vec![]),
        );
        if known {
            stream.frames.extend(clocks);
        }
        let expected = if known { "0.250000" } else { "" };
        assert_eq!(
            stream
                .tables()
                .columns("batch_utilization", &["schedule_ms", "step"]),
            [format!("{expected}|1")]
        );
    }
}

#[test]
fn a_schedule_call_that_raises_is_no_step() {
    let mut stream = server();
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_250,
        Result::Raised,
        vec![],
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        31_000,
        31_250,
        Result::Object,
        schedule(&[], vec![]),
    );
    assert_eq!(
        stream.tables().columns("batch_utilization", &["step"]),
        ["1"]
    );
}

#[test]
fn a_forked_child_uses_its_parents_methods_and_counts_for_itself() {
    let mut stream = server();
    stream.process(300, 200, "other", Some(1));
    let child = Who {
        pid: 300,
        tid: 300,
        page: 1,
    };
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.call(
        child,
        "scheduler.schedule",
        31_000,
        31_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        32_000,
        32_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    assert_eq!(
        stream
            .tables()
            .columns("batch_utilization", &["step", "pid", "engine"]),
        ["1|200|0", "1|300|", "2|200|0"]
    );
}

#[test]
fn a_pid_used_again_begins_anew() {
    let mut stream = server();
    let step = || schedule(&[], vec![]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        step(),
    );
    stream.note(&Note::ProcessEnded {
        pid: 200,
        at_ns: stream::at(40_000),
        reason: "exited".to_owned(),
    });
    stream.process(200, 100, "engine_core", Some(3));
    stream.bind(200, 3, ENGINE_METHODS);
    stream.call(
        Who { page: 3, ..ENGINE },
        "scheduler.schedule",
        50_000,
        50_010,
        Result::Object,
        step(),
    );
    let tables = stream.tables();
    assert_eq!(tables.columns("batch_utilization", &["step"]), ["1", "1"]);
    let metadata = tables.json("metadata.json");
    let processes = metadata["processes"].as_array().unwrap();
    let of_200: Vec<_> = processes
        .iter()
        .filter(|process| process["pid"] == 200)
        .collect();
    assert_eq!(of_200.len(), 2);
    assert_eq!(of_200[0]["ended"]["reason"], "exited");
    assert!(of_200[1]["ended"].is_null());
}

#[test]
fn missing_and_repeated_notes_are_no_harm() {
    let mut stream = server();
    let repeated = stream.frames.clone();
    stream.frames.extend(repeated);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    let complete = stream.tables();
    assert_eq!(complete.rows("batch_utilization").len(), 1);
    // Without any note but the clock, the call is counted and nothing else.
    stream
        .frames
        .retain(|(kind, bytes)| *kind == 1 || bytes.starts_with(br#"{"note":"clock"#));
    let bare = stream.tables();
    assert_eq!(bare.rows("batch_utilization").len(), 0);
    let events = &bare.json("metadata.json")["events"];
    assert_eq!(
        (&events["received"], &events["unnamed_calls"]),
        (&1.into(), &1.into())
    );
    assert_eq!(events["decode_errors_by_kind"]["programs"], 1);
}

#[test]
fn metadata_says_what_the_session_was() {
    let mut stream = server();
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.note(&Note::Ledger(Ledger {
        fired: 7,
        submitted: 4,
        lost: 2,
        filtered: 1,
    }));
    stream.counters(
        200,
        1,
        40_000,
        vec![SlotCounters {
            slot: 0,
            calls: 10,
            marks: 7,
            cycles: 20_000,
            histogram: vec![(10, 5), (11, 5)],
        }],
    );
    stream.ended(1_500_000);
    let tables = stream.tables();
    let metadata = tables.json("metadata.json");
    assert_eq!(metadata["session_id"], "session_20260102_030405_abc");
    assert_eq!(metadata["start_time"], "2026-01-02T03:04:05Z");
    assert_eq!(
        metadata["output_dir"],
        tables.outcome.folder.display().to_string()
    );
    assert_eq!(metadata["end_reason"], "interrupted");
    assert_eq!(metadata["duration_sec"], 1.5);
    assert_eq!(metadata["processes"][1]["role"], "engine_core");
    assert_eq!(metadata["tables"]["batch_utilization"]["rows"], 1);
    assert_eq!(metadata["events"]["lost_kernel"], 2);
    assert_eq!(metadata["ledger"]["marks_not_fired"], 0);
    assert_eq!(metadata["ledger"]["fired_not_accounted"], 0);
    assert_eq!(metadata["ledger"]["submitted_not_received"], 3);
    let summary = tables.json("summary.json");
    assert_eq!(summary["counters"][0]["method"], "scheduler.schedule");
    assert_eq!(summary["counters"][0]["mean_us"], 1.0);
    assert_eq!(
        summary["counters"][0]["p50_us_between"],
        serde_json::json!([0.512, 1.024])
    );
    assert_eq!(
        summary["tables"]["batch_utilization"]["schedule_ms"]["count"],
        1
    );
}

#[test]
fn coverage_gives_the_reason_in_plain_words() {
    let mut stream = Stream::new();
    stream.process(200, 100, "engine_core", Some(1));
    stream.bind(200, 1, &["scheduler.schedule"]);
    stream.note(&Note::Process(Process {
        pid: 201,
        role: "worker".to_owned(),
        reason: Some("tracing is forbidden by a seccomp filter".to_owned()),
        ..Process::default()
    }));
    let unbound = |pid, method: &str, reason: &str| Note::Unbound {
        pid,
        method: method.to_owned(),
        reason: reason.to_owned(),
    };
    stream.note(&unbound(
        200,
        "block_pool.evict",
        "method not found in vLLM 0.33.0",
    ));
    stream.note(&Note::NotCovered {
        table: "cpu_operations_timing".to_owned(),
        reason: "switched off".to_owned(),
    });
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    let tables = stream.tables();
    let coverage = |table| tables.coverage(table);
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(coverage("batch_utilization"), pair("observed", ""));
    assert_eq!(
        coverage("kv_cache_evictions"),
        pair("not_observable", "method not found in vLLM 0.33.0")
    );
    assert_eq!(
        coverage("forward_pass_timing"),
        pair("not_observable", "tracing is forbidden by a seccomp filter")
    );
    assert_eq!(
        coverage("cpu_operations_timing"),
        pair("not_observable", "switched off")
    );
    assert_eq!(
        coverage("methods"),
        pair("not_applicable", "no method was given with --method")
    );
    assert_eq!(coverage("cuda_graph_usage").0, "not_observable");
    assert_eq!(
        coverage("request_lifecycle").0,
        "partial",
        "preemptions are known from the output alone"
    );
}

#[test]
fn without_the_hits_no_idle_time_is_told() {
    let mut stream = Stream::new();
    stream.process(200, 100, "engine_core", Some(1));
    stream.bind(200, 1, &["block_pool.evict", "block_pool.allocate"]);
    let ids = vec![("block_ids", V::Ints(vec![1]))];
    stream.call(
        ENGINE,
        "block_pool.allocate",
        100_000,
        100_010,
        Result::Object,
        ids,
    );
    stream.call(
        ENGINE,
        "block_pool.evict",
        200_009,
        200_010,
        Result::True,
        vec![("block_id", V::Int(1))],
    );
    let tables = stream.tables();
    assert_eq!(
        tables.columns("kv_cache_evictions", &["lifetime_sec", "idle_sec"]),
        ["0.100000|"]
    );
    let (status, reason) = tables.coverage("kv_cache_evictions");
    assert_eq!(status, "partial");
    assert!(reason.contains("block_pool.touch"), "{reason}");
}

#[test]
fn one_of_two_classes_with_the_same_id_is_enough() {
    let mut stream = server();
    stream.note(&Note::Unbound {
        pid: 201,
        method: "runner.execute_model".to_owned(),
        reason: "its module is not imported".to_owned(),
    });
    let values = schedule(&[(1, 1, Some(1))], vec![]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        values,
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        30_100,
        30_200,
        Result::None,
        batch(&[(1, 1, Some(1))]),
    );
    assert_eq!(
        stream.tables().coverage("forward_pass_timing"),
        ("observed".to_owned(), String::new())
    );
}
