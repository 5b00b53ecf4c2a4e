//! CUDA graphs: what is captured, and what is replayed of it.

mod stream;

use profilemate::event::Note;
use profilemate_common::driver::Function;
use stream::driver::{Call, decision, wrapped};
use stream::graphs::{MAIN, METHODS, USE, worker};
use stream::server::WORKER;
use stream::{Result, Stream, V};

#[test]
fn a_full_graph_is_captured_and_replayed() {
    let mut stream = worker();
    stream.full(30_000, 8, 0xe1);
    for step in 0..4 {
        let us = 40_000 + step * 1_000;
        stream.decides(us + 10, decision("FULL", 8, Some(8), 5));
        stream.launched(MAIN, us + 20, 0xe1);
        stream.passes(us, us + 100, 5);
    }
    let tables = stream.tables();
    assert_eq!(
        tables
            .text("cuda_graph_captures.csv")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        ["FULL,8,8,True,False,0.030110,0.100000,201,0,,0xe1,1,captured,,,,,,method"]
    );
    assert_eq!(
        tables.columns("cuda_graph_usage", &USE),
        ["FULL|8|8|4|4|32|20|capture"]
    );
    let more = [
        "padding_pct",
        "launch_host_us_mean",
        "first_sec",
        "last_sec",
        "rank",
    ];
    assert_eq!(
        tables.columns("cuda_graph_usage", &more),
        ["37.5000|5.0000|0.040020|0.043020|0"]
    );
    assert_eq!(
        tables.columns(
            "forward_pass_timing",
            &["graph_mode", "graph_launches", "eager_reason"]
        ),
        ["FULL|1|"; 4]
    );
    assert_eq!(
        tables.columns(
            "cuda_graph_timeline",
            &["descriptor", "launches", "duration_ms"]
        ),
        ["FULL tokens=8 reqs=8 uniform|1|0.005000"; 4]
    );
    for table in [
        "cuda_graph_captures",
        "cuda_graph_usage",
        "cuda_graph_timeline",
    ] {
        assert_eq!(
            tables.coverage(table),
            ("observed".to_owned(), String::new()),
            "{table}"
        );
    }
    assert_eq!(
        tables.json("summary.json")["tables"]["cuda_graph_usage"]["replay_count"]["max"],
        4.0
    );
}

#[test]
fn the_pieces_of_a_step_are_one_replay() {
    let mut stream = worker();
    for (piece, us) in (0..3).zip([30_000, 30_200, 30_400]) {
        stream.piece(us, 16, piece, 0xe1 + piece as u64);
    }
    for step in 0..5 {
        let us = 40_000 + step * 1_000;
        stream.decides(us + 10, decision("PIECEWISE", 16, None, 11));
        for piece in 0..3 {
            stream.launched(MAIN, us + 20 + piece * 10, 0xe1 + piece);
        }
        stream.passes(us, us + 100, 11);
    }
    let tables = stream.tables();
    assert_eq!(
        tables.columns(
            "cuda_graph_captures",
            &["runtime_mode", "num_tokens", "module", "graph_exec"]
        ),
        [
            "PIECEWISE|16|piece 1 of 3|0xe1",
            "PIECEWISE|16|piece 2 of 3|0xe2",
            "PIECEWISE|16|piece 3 of 3|0xe3"
        ]
    );
    assert_eq!(
        tables.columns("cuda_graph_usage", &USE),
        ["PIECEWISE|16||5|15|80|55|capture"]
    );
    assert_eq!(
        tables.columns("forward_pass_timing", &["graph_mode", "graph_launches"]),
        ["PIECEWISE|3"; 5]
    );
}

#[test]
fn without_decisions_the_capture_tells_what_is_replayed() {
    let mut stream = worker();
    for (piece, us) in (0..3).zip([30_000, 30_200, 30_400]) {
        stream.piece(us, 16, piece, 0xe1 + piece as u64);
    }
    for launch in 0..9 {
        stream.launched(MAIN, 40_000 + launch * 10, 0xe1 + launch % 3);
    }
    assert_eq!(
        stream.tables().columns("cuda_graph_usage", &USE),
        ["PIECEWISE|16||3|9|||capture"],
        "a graph that is launched again begins the next replay"
    );
}

#[test]
fn captures_that_are_thrown_away_are_marked() {
    let mut stream = worker();
    stream.entry(WORKER, "graph.profile", 29_000, vec![]);
    stream.full(30_000, 8, 0xe1);
    stream.call(
        WORKER,
        "graph.profile",
        29_000,
        31_000,
        Result::Object,
        vec![],
    );
    stream.full(32_000, 8, 0xe2);
    stream.entry(
        WORKER,
        "graph.capture_model",
        33_000,
        vec![("profile_only", V::Bool(true))],
    );
    stream.full(34_000, 8, 0xe3);
    stream.call(
        WORKER,
        "graph.capture_model",
        33_000,
        35_000,
        Result::Object,
        vec![],
    );
    stream.entry(
        WORKER,
        "graph.capture_model",
        36_000,
        vec![("profile_only", V::Bool(false))],
    );
    stream.full(37_000, 8, 0xe4);
    stream.call(
        WORKER,
        "graph.capture_model",
        36_000,
        38_000,
        Result::Object,
        vec![],
    );
    assert_eq!(
        stream
            .tables()
            .columns("cuda_graph_captures", &["graph_exec", "throwaway"]),
        ["0xe1|True", "0xe2|", "0xe3|True", "0xe4|False"]
    );
}

#[test]
fn failed_and_aborted_captures_are_seen_as_such() {
    let mut stream = worker();
    let begin = Call {
        args: [5, 0, 0],
        ..Call::default()
    };
    // The driver gives no graph.
    stream.driver(MAIN, Function::StreamBeginCapture, 30_000, 30_001, begin);
    let invalid = Call {
        result: 901,
        ..begin
    };
    stream.driver(MAIN, Function::StreamEndCapture, 30_100, 30_101, invalid);
    stream.call(
        WORKER,
        "graph.capture",
        29_990,
        30_200,
        Result::Raised,
        wrapped("FULL", 8, Some(8)),
    );
    // The graph is there, but the method raised.
    stream.captured(MAIN, 31_000, 0x10, 0xe1);
    stream.call(
        WORKER,
        "graph.capture",
        30_990,
        31_200,
        Result::Raised,
        wrapped("FULL", 16, Some(16)),
    );
    // Begun and never ended.
    stream.driver(MAIN, Function::StreamBeginCapture, 32_000, 32_001, begin);
    stream.call(
        WORKER,
        "graph.capture",
        31_990,
        32_200,
        Result::Raised,
        wrapped("FULL", 32, Some(32)),
    );
    // A begin that the driver refused is no capture.
    let refused = Call {
        result: 900,
        ..begin
    };
    stream.driver(MAIN, Function::StreamBeginCapture, 33_000, 33_001, refused);
    stream.call(
        WORKER,
        "graph.capture",
        32_990,
        33_200,
        Result::Raised,
        wrapped("FULL", 64, Some(64)),
    );
    // One that its process did not live to end.
    stream.driver(MAIN, Function::StreamBeginCapture, 34_000, 34_001, begin);
    let reason = "it ended".to_owned();
    stream.note(&Note::ProcessEnded {
        pid: 201,
        at_ns: stream::at(35_000),
        reason,
    });
    let columns = ["num_tokens", "outcome", "duration_ms", "graphs_in_capture"];
    assert_eq!(
        stream.tables().columns("cuda_graph_captures", &columns),
        [
            "8|failed|0.101000|0",
            "16|failed|0.100000|1",
            "32|aborted||0",
            "|aborted||0"
        ]
    );
}

#[test]
fn a_capture_that_no_method_explains_is_still_a_row() {
    let mut stream = worker();
    stream.captured(MAIN, 30_000, 0x10, 0xe1);
    stream.decides(30_500, decision("FULL", 8, Some(8), 8));
    stream.captured(MAIN, 31_000, 0x11, 0xe2);
    stream.tick(900_000);
    stream.launched(MAIN, 950_000, 0xe1);
    let tables = stream.tables();
    let columns = [
        "runtime_mode",
        "num_tokens",
        "duration_ms",
        "graph_exec",
        "descriptor_source",
    ];
    assert_eq!(
        tables.columns("cuda_graph_captures", &columns),
        ["||0.100000|0xe1|", "FULL|8|0.100000|0xe2|dispatch"]
    );
    let (status, reason) = tables.coverage("cuda_graph_captures");
    assert_eq!(status, "partial");
    assert!(reason.contains("of 1 captures nothing tells"), "{reason}");
}

#[test]
fn the_second_runner_describes_each_capture_before_it() {
    let mut stream = worker();
    for (us, tokens, exec) in [(30_000, 16, 0xe1), (31_000, 8, 0xe2)] {
        let values = vec![
            ("mode", V::Str("FULL")),
            ("d_tokens", V::Int(tokens)),
            ("d_reqs", V::Int(tokens)),
            ("d_uniform", V::Bool(true)),
        ];
        stream.call(WORKER, "graph.hint", us, us + 1, Result::Object, values);
        stream.captured(MAIN, us + 10, exec + 0x1000, exec);
    }
    stream.tick(900_000);
    stream.decides(950_000, decision("FULL", 16, Some(16), 9));
    stream.launched(MAIN, 950_010, 0xe1);
    let tables = stream.tables();
    assert_eq!(
        tables.columns(
            "cuda_graph_captures",
            &[
                "runtime_mode",
                "num_tokens",
                "graph_exec",
                "descriptor_source"
            ]
        ),
        ["FULL|16|0xe1|method", "FULL|8|0xe2|method"]
    );
    assert_eq!(
        tables.columns("cuda_graph_usage", &USE),
        ["FULL|16|16|1|1|16|9|capture"]
    );
}

#[test]
fn segments_of_one_capture_are_one_row() {
    let mut stream = worker();
    stream.entry(WORKER, "graph.segments", 29_990, vec![]);
    stream.captured(MAIN, 30_000, 0x10, 0xe1);
    stream.captured(MAIN, 430_000, 0x11, 0xe2);
    stream.tick(860_000);
    let values = wrapped("PIECEWISE", 8, None);
    stream.call(
        WORKER,
        "graph.segments",
        29_990,
        900_000,
        Result::Object,
        values,
    );
    stream.launched(MAIN, 950_000, 0xe1);
    stream.launched(MAIN, 950_010, 0xe2);
    let tables = stream.tables();
    let columns = [
        "num_tokens",
        "duration_ms",
        "graph_exec",
        "graphs_in_capture",
    ];
    assert_eq!(
        tables.columns("cuda_graph_captures", &columns),
        ["8|400.100000|0xe1 0xe2|2"]
    );
    assert_eq!(
        tables.columns("cuda_graph_usage", &USE),
        ["PIECEWISE|8||1|2|||capture"]
    );
}

#[test]
fn attached_late_the_decision_tells_what_is_replayed() {
    let mut stream = worker();
    for step in 0..3 {
        let us = 40_000 + step * 1_000;
        stream.decides(us + 10, decision("FULL", 8, Some(8), 7));
        stream.launched(MAIN, us + 20, 0xe1);
        stream.passes(us, us + 100, 7);
    }
    // A launch for which no decision was seen: by now it is known what it is.
    stream.launched(MAIN, 44_000, 0xe1);
    // One of which nothing is known.
    stream.launched(MAIN, 45_000, 0xe9);
    let tables = stream.tables();
    assert_eq!(
        tables.columns("cuda_graph_usage", &USE),
        ["|||1|1|||", "FULL|8|8|4|4|24|21|dispatch"]
    );
    assert_eq!(
        tables.coverage("cuda_graph_captures").1,
        "graphs were captured before the session attached"
    );
    assert_eq!(
        tables.coverage("cuda_graph_usage").1,
        "of 1 of 5 graph launches nothing tells which batch they were for"
    );
}

#[test]
fn a_handle_that_is_used_again_is_another_graph() {
    let mut stream = worker();
    stream.full(30_000, 8, 0xe1);
    stream.launched(MAIN, 31_000, 0xe1);
    let destroy = Call {
        args: [0xe1, 0, 0],
        ..Call::default()
    };
    stream.driver(MAIN, Function::GraphExecDestroy, 32_000, 32_001, destroy);
    stream.launched(MAIN, 33_000, 0xe1);
    stream.full(34_000, 16, 0xe1);
    stream.launched(MAIN, 35_000, 0xe1);
    // Made anew without its destruction having been seen.
    stream.instantiated(MAIN, 36_000, 0x4444, 0xe1);
    stream.launched(MAIN, 37_000, 0xe1);
    assert_eq!(
        stream.tables().columns(
            "cuda_graph_usage",
            &["runtime_mode", "num_tokens", "launches"]
        ),
        ["||2", "FULL|8|1", "FULL|16|1"]
    );
}

#[test]
fn an_encoders_graph_is_not_the_models() {
    let mut stream = worker();
    stream.entry(
        WORKER,
        "graph.capture_encoder",
        29_990,
        vec![("d_tokens", V::Int(1024))],
    );
    stream.captured(MAIN, 30_000, 0x10, 0xe1);
    let values = vec![("d_tokens", V::Int(1024))];
    stream.call(
        WORKER,
        "graph.capture_encoder",
        29_990,
        30_200,
        Result::None,
        values,
    );
    stream.entry(
        WORKER,
        "graph.dispatch_encoder",
        40_010,
        vec![("d_tokens", V::Int(1024))],
    );
    stream.launched(MAIN, 40_020, 0xe1);
    stream.decides(40_030, decision("FULL", 8, Some(8), 8));
    stream.launched(MAIN, 40_040, 0xe2);
    stream.passes(40_000, 40_100, 8);
    let tables = stream.tables();
    assert_eq!(
        tables.columns(
            "cuda_graph_captures",
            &["runtime_mode", "num_tokens", "module"]
        ),
        ["|1024|encoder"]
    );
    assert_eq!(
        tables.columns(
            "cuda_graph_usage",
            &["module", "num_tokens", "replay_count"]
        ),
        ["encoder|1024|1", "|8|1"]
    );
    assert_eq!(
        tables.columns("forward_pass_timing", &["graph_mode", "graph_launches"]),
        ["FULL|2"]
    );
}

#[test]
fn driver_calls_before_the_clock_is_known_keep_their_place() {
    let mut stream = Stream::new();
    let clock = stream.frames.pop().unwrap();
    stream.process(201, 1, "worker", Some(2));
    stream.bind(201, 2, METHODS);
    stream.library(&[201]);
    stream.full(30_000, 8, 0xe1);
    stream.decides(31_000, decision("FULL", 8, Some(8), 5));
    stream.launched(MAIN, 31_010, 0xe1);
    stream.frames.push(clock);
    assert_eq!(
        stream.tables().columns("cuda_graph_usage", &USE),
        ["FULL|8|8|1|1|8|5|capture"]
    );
}
