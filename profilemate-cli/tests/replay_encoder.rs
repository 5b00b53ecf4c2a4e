//! Encoders, speculative decoding, and the time that no operation tells.

mod stream;

use stream::server::{ENGINE, WORKER, batch, schedule, server};
use stream::{Result, Stream, V, Values, catalogue};

fn with_encoder() -> Stream {
    let mut stream = server();
    stream.bind(ENGINE.pid, ENGINE.page, &["encoder.cache_lookup"]);
    let ids = [
        "encoder.execute",
        "encoder.cross_attention",
        "runner.model_forward",
    ];
    stream.bind(WORKER.pid, WORKER.page, &ids);
    stream
}

fn pass(multimodal: bool) -> Values {
    let mut values = batch(&[(1, 1, Some(1))]);
    values.push(("multimodal", V::Bool(multimodal)));
    values
}

/// A step that begins at `us`, in which `items` inputs are encoded.
fn step(stream: &mut Stream, us: u64, items: i64, evictions: i64) {
    let object = Result::Object;
    let request = vec![("request_id", V::Str("r1")), ("input_id", V::Int(0))];
    stream.call(
        ENGINE,
        "encoder.cache_lookup",
        us + 10,
        us + 20,
        Result::True,
        request,
    );
    let changes = vec![("encoder_evictions", V::Int(evictions))];
    let values = schedule(&[(1, 1, Some(1))], changes);
    stream.call(ENGINE, "scheduler.schedule", us, us + 100, object, values);
    let encoded = vec![("items", V::Int(items)), ("requests", V::Int(1))];
    stream.call(
        WORKER,
        "encoder.execute",
        us + 300,
        us + 500,
        object,
        encoded,
    );
    let tokens = vec![("tokens", V::Int(7))];
    stream.call(
        WORKER,
        "encoder.cross_attention",
        us + 650,
        us + 700,
        object,
        tokens,
    );
    stream.call(
        WORKER,
        "runner.model_forward",
        us + 600,
        us + 1_600,
        object,
        Vec::new(),
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        us + 200,
        us + 2_200,
        Result::None,
        pass(true),
    );
}

#[test]
fn encoder_decoder_and_cache_have_rows_with_their_step() {
    let mut stream = with_encoder();
    step(&mut stream, 30_000, 2, 0);
    step(&mut stream, 40_000, 0, 3);
    stream.tick(900_000);
    let tables = stream.tables();
    let columns = ["component", "duration_ms", "context", "step", "num_items"];
    let mut rows = tables.columns("encoder_decoder_timing", &columns);
    rows.sort();
    assert_eq!(
        rows,
        [
            "cross_attention|0.050000|tokens=7|1|",
            "cross_attention|0.050000|tokens=7|2|",
            "decoder|1.000000||1|",
            "decoder|1.000000||2|",
            "encoder_cache_eviction|||2|3",
            "encoder_cache_hit|0.010000|request=r1 input=0|1|1",
            "encoder_cache_hit|0.010000|request=r1 input=0|2|1",
            "encoder|0.200000|requests=1|1|2",
        ],
        "a call with nothing to encode is no row"
    );
    assert_eq!(tables.coverage("encoder_decoder_timing").0, "observed");
}

#[test]
fn a_model_without_an_encoder_has_none() {
    let mut stream = with_encoder();
    stream.call(
        WORKER,
        "runner.model_forward",
        30_100,
        30_200,
        Result::Object,
        Vec::new(),
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        30_000,
        30_300,
        Result::None,
        pass(false),
    );
    let tables = stream.tables();
    assert_eq!(tables.text("encoder_decoder_timing.csv").lines().count(), 1);
    assert_eq!(
        tables.coverage("encoder_decoder_timing"),
        (
            "not_applicable".to_owned(),
            "the model has no encoder".to_owned()
        )
    );
}

#[test]
fn decoders_that_no_method_tells_are_named() {
    let mut stream = with_encoder();
    let encoded = vec![("items", V::Int(1)), ("requests", V::Int(1))];
    stream.call(
        WORKER,
        "encoder.execute",
        30_100,
        30_200,
        Result::Object,
        encoded,
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        30_000,
        30_300,
        Result::None,
        pass(true),
    );
    let (status, reason) = stream.tables().coverage("encoder_decoder_timing");
    assert_eq!(status, "partial");
    assert!(reason.contains("decoders are not told"), "{reason}");
}

fn stats(log_stats: bool, drafts: Option<[i64; 3]>) -> Values {
    let mut values = vec![
        ("log_stats", V::Bool(log_stats)),
        ("spec_none", V::Bool(drafts.is_none())),
    ];
    if let Some([drafts, tokens, accepted]) = drafts {
        values.push(("spec_drafts", V::Int(drafts)));
        values.push(("spec_draft_tokens", V::Int(tokens)));
        values.push(("spec_accepted_tokens", V::Int(accepted)));
    }
    values
}

#[test]
fn drafts_belong_to_the_step_before_them() {
    let mut stream = server();
    stream.bind(ENGINE.pid, ENGINE.page, &["scheduler.make_stats"]);
    let object = Result::Object;
    for (us, drafts) in [(30_000, None), (40_000, Some([2, 6, 3])), (50_000, None)] {
        let values = schedule(&[(1, 4, Some(1))], vec![]);
        stream.call(ENGINE, "scheduler.schedule", us, us + 100, object, values);
        stream.call(
            ENGINE,
            "scheduler.make_stats",
            us + 300,
            us + 310,
            object,
            stats(true, drafts),
        );
    }
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("speculative_decoding.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        ["0.040300,2,2,6,3,50.0000,200,0"]
    );
    assert_eq!(tables.coverage("speculative_decoding").0, "observed");
}

#[test]
fn without_drafts_or_statistics_it_is_said_so() {
    for (log_stats, status) in [(true, "not_applicable"), (false, "not_observable")] {
        let mut stream = server();
        stream.bind(ENGINE.pid, ENGINE.page, &["scheduler.make_stats"]);
        let values = stats(log_stats, None);
        stream.call(
            ENGINE,
            "scheduler.make_stats",
            30_000,
            30_010,
            Result::Object,
            values,
        );
        assert_eq!(stream.tables().coverage("speculative_decoding").0, status);
    }
}

#[test]
fn whether_drafts_are_configured_is_told_apart() {
    let cases = [
        (0, true, "not_applicable", "not configured"),
        (0, false, "not_applicable", "not configured"),
        (3, true, "observed", "nothing of it happened"),
        (3, false, "not_observable", "statistics"),
    ];
    for (limit, log_stats, status, reason) in cases {
        let mut stream = server();
        stream.bind(ENGINE.pid, ENGINE.page, &["scheduler.make_stats"]);
        let mut values = stats(log_stats, None);
        values.push(("spec_configured", V::Int(limit)));
        stream.call(
            ENGINE,
            "scheduler.make_stats",
            30_000,
            30_010,
            Result::Object,
            values,
        );
        let (is, why) = stream.tables().coverage("speculative_decoding");
        assert_eq!(is, status, "{limit} {log_stats}");
        assert!(why.contains(reason), "{why}");
    }
}

#[test]
fn a_worker_has_the_rank_that_its_model_runner_has() {
    let mut stream = server();
    let values = batch(&[(1, 1, Some(1))]);
    for (us, rank) in [(30_000, None), (40_000, Some(5))] {
        let mut values = values.clone();
        values.extend(rank.map(|rank| ("rank", V::Int(rank))));
        stream.call(
            WORKER,
            "runner.execute_model",
            us,
            us + 300,
            Result::None,
            values,
        );
    }
    let tables = stream.tables();
    assert_eq!(
        tables.columns("forward_pass_timing", &["rank"]),
        ["0", "5"],
        "by title, then by its own word"
    );
}

#[test]
fn own_times_of_a_step_add_up_to_its_length() {
    let mut stream = server();
    // The schedule call is bound already; bound anew it has an operation name too, and another slot.
    for (id, operation) in [
        ("engine.step", "engine_step"),
        ("queue.dequeue", "queue_wait"),
        ("scheduler.schedule", "schedule"),
    ] {
        let fields = catalogue(id);
        stream.bind_with(ENGINE.pid, ENGINE.page, id, Some(operation), &fields);
    }
    let object = Result::Object;
    for index in 0..4 {
        let us = 30_000 + 10_000 * index;
        let values = schedule(&[(1, 1, Some(1))], vec![]);
        stream.call(
            ENGINE,
            "scheduler.schedule",
            us + 100,
            us + 300,
            object,
            values,
        );
        stream.call(
            ENGINE,
            "queue.dequeue",
            us + 400,
            us + 4_400,
            object,
            vec![],
        );
        stream.call(ENGINE, "engine.step", us, us + 6_000, object, vec![]);
    }
    stream.tick(900_000);
    let tables = stream.tables();
    let columns = ["operation", "duration_ms", "self_ms"];
    let of_step = |number: &str| {
        let rows = tables.rows("cpu_operations_timing").into_iter();
        let own = rows.filter(|row| row["step"] == number);
        own.map(|row| row["self_ms"].parse::<f64>().unwrap())
            .sum::<f64>()
    };
    let mut first = tables.columns("cpu_operations_timing", &columns);
    first.sort();
    first.dedup();
    assert_eq!(
        first,
        [
            "engine_step|6.000000|1.800000",
            "queue_wait|4.000000|4.000000",
            "schedule|0.200000|0.200000",
            "unattributed|4.000000|4.000000",
        ]
    );
    for step in ["1", "2"] {
        assert!((of_step(step) - 10.0).abs() < 1e-6, "step {step}");
    }
}
