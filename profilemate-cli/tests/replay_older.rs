//! vLLM before 0.12.0: preemptions are told by the blocks that a schedule call frees, resumes by flags.

mod stream;

use profilemate::event::{Method, Note};
use stream::server::{ENGINE, queues, server, set};
use stream::{Result, Stream, V, Values};

/// A server whose scheduler has no method for a preemption.
fn older() -> Stream {
    let mut stream = server();
    stream.note(&Note::Method(Method {
        pid: ENGINE.pid,
        page: ENGINE.page,
        slot: 1,
        id: "scheduler.preempt".to_owned(),
        module: "vllm.v1.core.kv_cache_manager".to_owned(),
        qualname: "KVCacheManager.free".to_owned(),
        operation: None,
        mode: 3,
    }));
    stream
}

fn free(stream: &mut Stream, from: u64, until: u64, id: &'static str) {
    stream.call(
        ENGINE,
        "scheduler.preempt",
        from,
        until,
        Result::None,
        vec![("request_id", V::Str(id))],
    );
}

fn schedule(stream: &mut Stream, from: u64, until: u64, changes: Values) {
    let tokens = vec![("tokens", V::Int(1)), ("seqs", V::Int(1))];
    let values = set(set(queues(), tokens), changes);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        from,
        until,
        Result::Object,
        values,
    );
}

#[test]
fn blocks_freed_inside_a_schedule_call_are_a_preemption_and_others_an_end() {
    let mut stream = older();
    schedule(
        &mut stream,
        100_000,
        100_010,
        vec![("new_ids", V::Strs(vec!["a", "b"]))],
    );
    free(&mut stream, 200_002, 200_004, "b");
    schedule(&mut stream, 200_000, 200_010, vec![]);
    // Its end: the blocks are freed when the step's output is taken in.
    free(&mut stream, 250_002, 250_004, "a");
    schedule(
        &mut stream,
        300_000,
        300_010,
        vec![("finished_ids", V::Strs(vec!["a"]))],
    );
    free(&mut stream, 350_002, 350_004, "b");
    let tables = stream.tables();
    assert_eq!(
        tables.columns(
            "preemption_events",
            &["request_id", "event", "reason", "running_time_sec", "step"]
        ),
        [
            "a|started|||1",
            "b|started|||1",
            "b|preempted|kv_blocks_exhausted|0.099994|2",
            "a|finished||0.200000|3",
        ]
    );
    assert_eq!(
        tables.columns("request_lifecycle", &["request_id", "preemptions"]),
        ["a|0"]
    );
}

#[test]
fn requests_with_a_flag_are_resumed() {
    let mut stream = older();
    let step = |new: Vec<&'static str>, cached: Vec<&'static str>, flags: Vec<i64>| {
        vec![
            ("tokens", V::Int(1)),
            ("seqs", V::Int(1)),
            ("new_ids", V::Strs(new)),
            ("cached_ids", V::Strs(cached)),
            ("resumed_flags", V::Ints(flags)),
        ]
    };
    let call = |stream: &mut Stream, from, until, values| {
        stream.call(
            ENGINE,
            "scheduler.schedule",
            from,
            until,
            Result::Object,
            values,
        );
    };
    call(
        &mut stream,
        100_000,
        100_010,
        step(vec!["a", "b"], vec![], vec![]),
    );
    free(&mut stream, 200_002, 200_004, "b");
    call(
        &mut stream,
        200_000,
        200_010,
        step(vec![], vec!["a"], vec![0]),
    );
    call(
        &mut stream,
        300_000,
        300_010,
        step(vec![], vec!["a", "b"], vec![0, 1]),
    );
    let tables = stream.tables();
    assert_eq!(
        tables.columns("preemption_events", &["request_id", "event", "step"]),
        ["a|started|1", "b|started|1", "b|preempted|2", "b|resumed|3"]
    );
    let (status, reason) = tables.coverage("batch_utilization");
    assert_eq!(status, "partial");
    assert!(reason.contains("cached_outputs"), "{reason}");
}
