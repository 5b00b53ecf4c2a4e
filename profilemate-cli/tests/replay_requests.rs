//! Requests and blocks: preempted, resumed, finished, evicted.

mod stream;

use profilemate::event::{Ledger, Note};
use stream::server::{ENGINE, schedule, server};
use stream::{Result, Stream, V, Who};

#[test]
#[allow(clippy::too_many_lines, reason = "a story told at a stretch")]
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
            "a,0.100010,,,0.300010,0.200000,,0,200,0,0.099990,0.050000",
            "b,0.100010,0.200004,0.250010,0.300010,0.200000,0.050006,1,200,0,0.149990,",
            "z,,,,0.300010,,,0,200,0,,",
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
            "0.200010,0.100000,0.050000,1,200,0,",
            "0.200014,,,3,200,0,",
            "0.300020,0.100000,0.100000,3,200,0,",
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
                ..Ledger::default()
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
