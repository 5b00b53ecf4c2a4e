//! A server with an engine and a worker, and what their calls tell.

use super::{Stream, V, Values, Who};

pub(crate) const ENGINE: Who = Who {
    pid: 200,
    tid: 200,
    page: 1,
};
pub(crate) const WORKER: Who = Who {
    pid: 201,
    tid: 201,
    page: 2,
};
pub(crate) const ENGINE_METHODS: &[&str] = &[
    "scheduler.schedule",
    "scheduler.preempt",
    "block_pool.evict",
    "block_pool.allocate",
    "block_pool.touch",
];

pub(crate) fn server() -> Stream {
    let mut stream = Stream::new();
    stream.process(100, 1, "api_server", None);
    stream.process(200, 100, "engine_core", Some(1));
    stream.process(201, 200, "worker", Some(2));
    stream.bind(200, 1, ENGINE_METHODS);
    stream.bind(201, 2, &["runner.execute_model"]);
    stream
}

/// A batch of (key, tokens, output tokens so far; `None` for a new request).
pub(crate) fn batch(requests: &[(u64, i64, Option<i64>)]) -> Values {
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

pub(crate) fn with(mut values: Values, more: Values) -> Values {
    values.extend(more);
    values
}

/// What else a schedule call tells.
pub(crate) fn queues() -> Values {
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
        ("asynchronous", V::Bool(false)),
    ]
}

/// Replaces fields of a call.
pub(crate) fn set(values: Values, changes: Values) -> Values {
    let kept = values
        .into_iter()
        .filter(|value| changes.iter().all(|change| change.0 != value.0));
    kept.chain(changes.clone()).collect()
}

pub(crate) fn schedule(requests: &[(u64, i64, Option<i64>)], changes: Values) -> Values {
    set(with(batch(requests), queues()), changes)
}
