//! Schedule calls: batches, queues and the KV cache.

mod stream;

use profilemate_common::record::{
    STATUS_FAULT, STATUS_NO_ROOM, STATUS_TOO_BIG, STATUS_UNSET, STATUS_WRONG_KEY, STATUS_WRONG_TYPE,
};
use stream::server::{ENGINE, schedule, server, set};
use stream::{Result, V, Values};

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
