//! CUDA graphs: what is captured, what is replayed and for which batch.

mod stream;

use profilemate::capture::frame::KIND_RECORD;
use profilemate::event::{Ledger, Note};
use profilemate_common::driver::Function;
use stream::driver::{Call, Caller, decision, wrapped};
use stream::server::{WORKER, batch};
use stream::{Result, Stream, V, Who};

const MAIN: Caller = Caller { pid: 201, tid: 201 };
const METHODS: &[&str] = &[
    "runner.execute_model",
    "graph.dispatch",
    "graph.dispatch_full",
    "graph.capture",
    "graph.segments",
    "graph.hint",
    "graph.capture_model",
    "graph.profile",
    "graph.capture_encoder",
    "graph.dispatch_encoder",
];

/// A worker whose driver is probed.
fn worker() -> Stream {
    let mut stream = Stream::new();
    stream.process(201, 1, "worker", Some(2));
    stream.bind(201, 2, METHODS);
    stream.library(&[201, 202]);
    stream
}

impl Stream {
    fn decides(&mut self, us: u64, values: stream::Values) {
        self.call(WORKER, "graph.dispatch", us, us + 2, Result::Object, values);
    }

    /// A pass of one decoding request with `tokens` tokens.
    fn passes(&mut self, from_us: u64, to_us: u64, tokens: i64) {
        let id = "runner.execute_model";
        let values = batch(&[(1, tokens, Some(1))]);
        self.call(WORKER, id, from_us, to_us, Result::None, values);
    }

    /// A piecewise capture of one piece, explained by its wrapper.
    fn piece(&mut self, us: u64, tokens: i64, piece: i64, exec: u64) {
        self.captured(MAIN, us + 10, exec + 0x1000, exec);
        let mut values = wrapped("PIECEWISE", tokens, None);
        values.push(("piece", V::Int(piece)));
        values.push(("pieces", V::Int(3)));
        self.call(
            WORKER,
            "graph.capture",
            us,
            us + 130,
            Result::Object,
            values,
        );
    }

    /// The capture of a full graph, explained by its wrapper.
    fn full(&mut self, us: u64, tokens: i64, exec: u64) {
        self.captured(MAIN, us + 10, exec + 0x1000, exec);
        let values = wrapped("FULL", tokens, Some(tokens));
        self.call(
            WORKER,
            "graph.capture",
            us,
            us + 130,
            Result::Object,
            values,
        );
    }
}

const USE: [&str; 8] = [
    "runtime_mode",
    "num_tokens",
    "num_reqs",
    "replay_count",
    "launches",
    "padded_tokens",
    "actual_tokens",
    "descriptor_source",
];

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
fn after_a_loss_nothing_is_guessed() {
    let mut stream = worker();
    stream.full(30_000, 8, 0xe1);
    stream.decides(40_000, decision("FULL", 8, Some(8), 7));
    stream.launched(MAIN, 40_010, 0xe1);
    stream.tick(200_000);
    let driver = profilemate::event::DriverLedger {
        fired: 10,
        submitted: 9,
        lost: 1,
        ..Default::default()
    };
    let lost = Ledger {
        driver,
        ..Ledger::default()
    };
    stream.note(&Note::Ledger(lost));
    stream.launched(MAIN, 300_000, 0xe1);
    stream.decides(300_100, decision("FULL", 8, Some(8), 6));
    stream.launched(MAIN, 300_110, 0xe1);
    assert_eq!(
        stream.tables().columns("cuda_graph_usage", &USE),
        ["|||1|1|||", "FULL|8|8|2|2|16|13|capture, dispatch"]
    );
}

#[test]
fn a_second_launch_for_one_decision_is_of_a_decision_that_was_not_seen() {
    let mut stream = worker();
    stream.full(30_000, 8, 0xe1);
    stream.decides(40_000, decision("FULL", 8, Some(8), 7));
    stream.launched(MAIN, 40_010, 0xe1);
    stream.launched(MAIN, 41_010, 0xe1);
    assert_eq!(
        stream.tables().columns("cuda_graph_usage", &USE),
        ["FULL|8|8|2|2|8|7|capture"],
        "its tokens are not known"
    );
}

#[test]
fn two_ranks_with_the_same_handles_are_kept_apart() {
    let mut stream = worker();
    let other = Who {
        pid: 202,
        tid: 202,
        page: 3,
    };
    let second = Caller { pid: 202, tid: 202 };
    stream.note(&Note::Process(profilemate::event::Process {
        pid: 202,
        parent: 1,
        role: "worker".to_owned(),
        rank: Some(1),
        page: Some(3),
        ..Default::default()
    }));
    stream.bind(202, 3, METHODS);
    stream.full(30_000, 8, 0xe1);
    stream.captured(second, 30_010, 0x10e1, 0xe1);
    stream.call(
        other,
        "graph.capture",
        30_000,
        30_130,
        Result::Object,
        wrapped("FULL", 16, Some(16)),
    );
    for us in [40_000, 41_000, 42_000] {
        stream.launched(MAIN, us, 0xe1);
    }
    stream.launched(second, 43_000, 0xe1);
    let columns = ["pid", "rank", "num_tokens", "replay_count"];
    assert_eq!(
        stream.tables().columns("cuda_graph_usage", &columns),
        ["201|0|8|3", "202|1|16|1"]
    );
}

#[test]
fn data_parallel_ranks_ask_twice_for_one_batch() {
    let mut stream = worker();
    stream.decides(40_010, decision("FULL", 8, Some(8), 5));
    let mut again = decision("FULL", 16, Some(16), 16);
    again.push(("valid_modes", V::Strs(vec!["FULL"])));
    stream.decides(40_020, again);
    stream.launched(MAIN, 40_030, 0xe1);
    stream.passes(40_000, 40_100, 5);
    let tables = stream.tables();
    assert_eq!(
        tables.columns("cuda_graph_usage", &USE),
        ["FULL|16|16|1|1|16|5|dispatch"]
    );
    assert_eq!(
        tables.columns("forward_pass_timing", &["graph_mode", "graph_launches"]),
        ["FULL|1"]
    );
}

#[test]
fn passes_without_a_graph_say_why() {
    let mut stream = worker();
    let with = |name: &'static str, value: V, batch: i64| {
        let mut values = decision("NONE", batch, None, batch);
        values.retain(|field| field.0 != name);
        values.push((name, value));
        values
    };
    let decode_only = |mut values: stream::Values| {
        values.retain(|field| field.0 != "config_mode");
        values.push(("config_mode", V::Str("FULL_DECODE_ONLY")));
        values
    };
    let cases = [
        (with("config_mode", V::Str("NONE"), 5), "graphs_disabled"),
        (with("ready", V::Bool(false), 5), "not_captured_yet"),
        (
            with("batch_tokens", V::Int(900), 900),
            "above_largest_captured",
        ),
        (
            with("valid_modes", V::Strs(vec!["NONE"]), 5),
            "forced_eager",
        ),
        (
            decode_only(with("batch_uniform", V::Bool(false), 5)),
            "not_a_uniform_decode",
        ),
        (
            with("invalid_modes", V::Strs(vec!["FULL"]), 5),
            "full_graphs_excluded",
        ),
        (with("batch_lora", V::Bool(true), 5), "lora"),
        (with("ready", V::Bool(true), 5), "no_matching_graph"),
        (with("config_mode", V::Absent(1), 5), ""),
    ];
    let mut us = 40_000;
    for (values, _) in &cases {
        stream.decides(us + 10, values.clone());
        stream.passes(us, us + 100, 5);
        us += 1_000;
    }
    let tables = stream.tables();
    let expected: Vec<_> = cases
        .iter()
        .map(|(_, reason)| format!("NONE|0|{reason}"))
        .collect();
    assert_eq!(
        tables.columns(
            "forward_pass_timing",
            &["graph_mode", "graph_launches", "eager_reason"]
        ),
        expected
    );
    let mut totals: Vec<_> = cases
        .iter()
        .map(|(_, reason)| format!("NONE|0|1|{reason}|5"))
        .collect();
    totals.sort_unstable();
    let mut rows = tables.columns(
        "cuda_graph_usage",
        &[
            "runtime_mode",
            "replay_count",
            "eager_passes",
            "eager_reason",
            "actual_tokens",
        ],
    );
    rows.sort_unstable();
    assert_eq!(rows, totals);
}

#[test]
fn waits_and_gpu_time_are_of_the_pass_whose_graph_was_waited_for() {
    let mut stream = worker();
    let launch = |stream: &mut Stream, us: u64, kernels: u64| {
        let call = Call {
            args: [0xe1, 5, 0],
            kernels,
            ..Call::default()
        };
        stream.driver(MAIN, Function::GraphLaunch, us, us + 5, call);
    };
    // Pass 1: an event after the launch, waited for after the pass.
    launch(&mut stream, 40_020, 10);
    let record = Call {
        args: [0x55, 5, 0],
        kernels: 13,
        ..Call::default()
    };
    stream.driver(MAIN, Function::EventRecord, 40_030, 40_031, record);
    stream.passes(40_000, 40_100, 1);
    let wait = Call {
        args: [0x55, 0, 0],
        kernels: 20,
        ..Call::default()
    };
    stream.driver(MAIN, Function::EventSynchronize, 40_200, 40_520, wait);
    // Pass 2: waits for its stream, but it was done already.
    launch(&mut stream, 41_020, 22);
    let done = Call {
        args: [5, 0, 0],
        kernels: 22,
        ..Call::default()
    };
    stream.driver(MAIN, Function::StreamSynchronize, 41_050, 41_052, done);
    stream.passes(41_000, 41_100, 1);
    // Pass 3: waits for another stream.
    launch(&mut stream, 42_020, 24);
    let elsewhere = Call {
        args: [6, 0, 0],
        kernels: 24,
        ..Call::default()
    };
    stream.driver(MAIN, Function::StreamSynchronize, 42_050, 42_090, elsewhere);
    stream.passes(42_000, 42_100, 1);
    let columns = [
        "sync_wait_ms",
        "gpu_time_ms",
        "gpu_time_source",
        "kernels",
        "graph_launches",
    ];
    assert_eq!(
        stream.tables().columns("forward_pass_timing", &columns),
        [
            "0.320000|0.500000|sync||1",
            "0.002000|||2|1",
            "0.040000|||2|1",
        ]
    );
}

#[test]
fn warm_up_passes_of_the_second_runner_are_no_forward_passes() {
    let mut stream = worker();
    let mut values = batch(&[(1, 5, Some(1))]);
    values.push(("dummy_run", V::Bool(true)));
    stream.call(
        WORKER,
        "runner.execute_model",
        40_000,
        40_100,
        Result::None,
        values,
    );
    stream.passes(41_000, 41_100, 6);
    assert_eq!(
        stream
            .tables()
            .columns("forward_pass_timing", &["num_tokens"]),
        ["6"]
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
fn coverage_says_why_there_are_no_graphs() {
    let mut stream = Stream::new();
    stream.process(201, 1, "worker", Some(2));
    stream.bind(201, 2, METHODS);
    let (status, reason) = stream.tables().coverage("cuda_graph_usage");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        (
            "not_applicable",
            "no process of the target has loaded a CUDA driver library"
        )
    );

    let mut stream = worker();
    let mut values = decision("NONE", 5, None, 5);
    values.retain(|field| field.0 != "config_mode");
    values.push(("config_mode", V::Str("NONE")));
    stream.decides(30_000, values);
    let (status, reason) = stream.tables().coverage("cuda_graph_captures");
    assert_eq!(status, "not_applicable");
    assert!(reason.contains("disabled"), "{reason}");

    let mut stream = Stream::new();
    stream.note(&Note::Library(profilemate::event::Library {
        refused: vec![(
            "cuGraphLaunch".to_owned(),
            "it begins with a branch back".to_owned(),
        )],
        ..Default::default()
    }));
    let (status, reason) = stream.tables().coverage("cuda_graph_usage");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        (
            "not_observable",
            "cuGraphLaunch: it begins with a branch back"
        )
    );
}

#[test]
fn the_timeline_is_written_only_when_asked_for() {
    let mut stream = worker();
    let table = "cuda_graph_timeline".to_owned();
    let reason = "not asked for".to_owned();
    stream.note(&Note::NotCovered { table, reason });
    stream.launched(MAIN, 40_000, 0xe1);
    let tables = stream.tables();
    assert_eq!(tables.rows("cuda_graph_timeline").len(), 0);
    assert_eq!(tables.columns("cuda_graph_usage", &["launches"]), ["1"]);
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

mod whatever {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Threads of two processes launch, decide, pass and capture in any order, with ticks in between: every launch
        /// is counted once, and a replay has at least one.
        #[test]
        fn every_launch_is_counted_once(
            steps in proptest::collection::vec((0_u8..6, 0_u64..4, 0_u8..3), 1..120),
            ticks in any::<bool>(),
        ) {
            let mut stream = worker();
            let callers = [MAIN, Caller { pid: 201, tid: 209 }, Caller { pid: 202, tid: 202 }];
            let mut launches = [0_u64; 2];
            for (index, &(what, exec, who)) in steps.iter().enumerate() {
                let us = 30_000 + index as u64 * 2_000;
                let caller = callers[usize::from(who)];
                match what {
                    0 | 1 | 2 => {
                        stream.launched(caller, us, 0xe0 + exec);
                        launches[usize::from(caller.pid == 202)] += 1;
                    }
                    3 => stream.decides(us, decision("FULL", 8 << exec, Some(8), 5)),
                    4 => stream.passes(us, us + 100, 5),
                    _ => stream.full(us, 8 << exec, 0xe0 + exec),
                }
                if ticks && index % 7 == 0 {
                    stream.tick(us + 400_000);
                }
            }
            let tables = stream.tables();
            let mut counted = [0_u64; 2];
            for row in tables.columns("cuda_graph_usage", &["pid", "launches", "replay_count"]) {
                let cells: Vec<u64> = row.split('|').map(|cell| cell.parse().unwrap()).collect();
                counted[usize::from(cells[0] == 202)] += cells[1];
                prop_assert!(cells[2] <= cells[1]);
            }
            prop_assert_eq!(counted, launches);
            let replays: usize = tables.columns("cuda_graph_usage", &["replay_count"]).iter().map(|cell| cell.parse::<usize>().unwrap()).sum();
            prop_assert_eq!(tables.rows("cuda_graph_timeline").len(), replays);
            let captures = steps.iter().filter(|step| step.0 == 5).count();
            prop_assert_eq!(tables.rows("cuda_graph_captures").len(), captures);
        }

        /// Any record of a driver call makes a session folder.
        #[test]
        fn any_driver_call_goes_through_to_the_tables(
            calls in proptest::collection::vec((0_u8..14, 0_u64..3, 0_u64..3, 0_u64..3, 0_u64..4), 1..60),
        ) {
            let mut stream = worker();
            for (index, &(function, first, second, result, out)) in calls.iter().enumerate() {
                let us = 30_000 + index as u64;
                let call = Call { args: [first, second, 0], result, out, kernels: out };
                let function = Function::from_number(function).unwrap();
                let record = Stream::driver_record(MAIN, function, us, us + 1, call);
                stream.frames.push((KIND_RECORD, record));
            }
            stream.tables();
        }
    }
}
