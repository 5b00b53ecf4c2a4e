//! Forward passes, operations and user methods.

mod stream;

use profilemate::event::Note;
use stream::server::{ENGINE, WORKER, batch, schedule, server};
use stream::{Result, Stream, V};

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
            "0.030200,prefill,1,100,2.000000,50000.0000,1,,,,,,201,0,,",
            "0.050200,decode,1,1,2.000000,500.0000,3,,,,,,201,0,,",
            "0.060200,decode,1,1,2.000000,500.0000,4,,,,,,201,0,,",
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
