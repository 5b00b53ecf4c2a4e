//! A short session with a bit of everything.

use profilemate::event::{Ledger, Note};

use super::server::{ENGINE, WORKER, batch};
use super::{Result, Stream, V};

struct Step<'a> {
    requests: &'a [(u64, i64, Option<i64>)],
    new: &'a [&'static str],
    resumed: &'a [&'static str],
    preempted: &'a [&'static str],
    finished: &'a [&'static str],
    free_blocks: i64,
}

/// Two requests share a small cache: the second is preempted and resumed, blocks are evicted, both finish.
pub(crate) fn story() -> Stream {
    let mut stream = Stream::new();
    stream.process(100, 1, "api_server", None);
    stream.process(200, 100, "engine_core", Some(1));
    stream.process(201, 200, "worker", Some(2));
    let pool = [
        "block_pool.evict",
        "block_pool.allocate",
        "block_pool.touch",
    ];
    stream.bind(
        200,
        1,
        &["scheduler.schedule", "scheduler.preempt", "user.0"],
    );
    stream.bind(200, 1, &pool);
    stream.bind(201, 2, &["runner.execute_model"]);
    stream.bind_with(201, 2, "runner.prepare_inputs", Some("prepare_inputs"), &[]);
    let none: &[&str] = &[];
    let steps = [
        Step {
            requests: &[(1, 40, None)],
            new: &["a"],
            resumed: none,
            preempted: none,
            finished: none,
            free_blocks: 7,
        },
        Step {
            requests: &[(1, 1, Some(1)), (2, 60, None)],
            new: &["b"],
            resumed: none,
            preempted: none,
            finished: none,
            free_blocks: 1,
        },
        Step {
            requests: &[(1, 1, Some(2))],
            new: none,
            resumed: none,
            preempted: &["b"],
            finished: none,
            free_blocks: 6,
        },
        Step {
            requests: &[(1, 1, Some(3)), (2, 61, Some(1))],
            new: none,
            resumed: &["b"],
            preempted: none,
            finished: none,
            free_blocks: 0,
        },
        Step {
            requests: &[(2, 1, Some(2))],
            new: none,
            resumed: none,
            preempted: none,
            finished: &["a"],
            free_blocks: 5,
        },
        Step {
            requests: &[],
            new: none,
            resumed: none,
            preempted: none,
            finished: &["b"],
            free_blocks: 10,
        },
    ];
    for (index, step) in steps.iter().enumerate() {
        story_step(
            &mut stream,
            30_000 + index as u64 * 30_000,
            index as i64,
            step,
        );
    }
    stream.tick(600_000);
    stream.note(&Note::Ledger(Ledger {
        fired: 40,
        submitted: 40,
        lost: 0,
        filtered: 0,
        ..Ledger::default()
    }));
    stream.ended(700_000);
    stream
}

fn story_step(stream: &mut Stream, us: u64, index: i64, step: &Step<'_>) {
    if !step.preempted.is_empty() {
        stream.entry(
            ENGINE,
            "scheduler.preempt",
            us + 5,
            vec![("computed_tokens", V::Int(60))],
        );
        let values = vec![
            ("request_id", V::Str(step.preempted[0])),
            ("num_preemptions", V::Int(1)),
        ];
        stream.call(
            ENGINE,
            "scheduler.preempt",
            us + 5,
            us + 9,
            Result::None,
            values,
        );
    }
    if !step.requests.is_empty() {
        if index == 3 {
            stream.call(
                ENGINE,
                "block_pool.evict",
                us + 11,
                us + 12,
                Result::True,
                vec![("block_id", V::Int(1))],
            );
        }
        let ids = vec![(
            "block_ids",
            V::Ints((index..index + 2).map(|id| id % 4).collect()),
        )];
        stream.call(
            ENGINE,
            "block_pool.allocate",
            us + 10,
            us + 14,
            Result::Object,
            ids,
        );
    }
    let mut values = batch(step.requests);
    values.extend([
        ("new_ids", V::Strs(step.new.to_vec())),
        ("resumed_ids", V::Strs(step.resumed.to_vec())),
        ("preempted_ids", V::Strs(step.preempted.to_vec())),
        ("finished_ids", V::Strs(step.finished.to_vec())),
        ("running", V::Int(step.requests.len() as i64)),
        ("waiting", V::Int(step.preempted.len() as i64)),
        ("max_seqs", V::Int(4)),
        ("max_tokens", V::Int(64)),
        ("blocks", V::Int(11)),
        ("free_blocks", V::Int(step.free_blocks)),
    ]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        us,
        us + 100,
        Result::Object,
        values,
    );
    stream.call(
        WORKER,
        "runner.prepare_inputs",
        us + 160,
        us + 200,
        Result::Object,
        vec![],
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        us + 150,
        us + 4_150,
        Result::None,
        batch(step.requests),
    );
    stream.call(
        ENGINE,
        "user.0",
        us + 5_000,
        us + 5_001,
        Result::None,
        vec![("size", V::Int(index))],
    );
    stream.tick(us + 20_000);
}
