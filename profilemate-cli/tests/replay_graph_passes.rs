//! CUDA graphs: decisions, passes, losses, ranks, and what holds for every stream.

mod stream;

use profilemate::capture::frame::{KIND_RECORD, KIND_TICK};
use profilemate::capture::{Options, Pipeline};
use profilemate::event::{Ledger, Note};
use profilemate_common::driver::Function;
use stream::driver::{Call, Caller, decision, wrapped};
use stream::graphs::{MAIN, METHODS, USE, worker};
use stream::server::{WORKER, batch};
use stream::{Result, Stream, V, Who};

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

/// A decision where CUDA graphs are switched off.
fn disabled() -> stream::Values {
    let mut values = decision("NONE", 5, None, 5);
    values.retain(|field| field.0 != "config_mode");
    values.push(("config_mode", V::Str("NONE")));
    values
}

#[test]
fn coverage_says_why_there_are_no_graphs() {
    let mut stream = Stream::new();
    stream.process(201, 1, "worker", Some(2));
    stream.bind(201, 2, METHODS);
    // Nor does it matter then what vLLM was told of graphs.
    stream.decides(10_000, disabled());
    let (status, reason) = stream.tables().coverage("cuda_graph_captures");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        (
            "not_applicable",
            "no process of the target has loaded a CUDA driver library"
        )
    );

    let mut stream = worker();
    stream.decides(30_000, disabled());
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
fn kernels_that_are_not_counted_are_an_empty_cell_with_a_reason() {
    let mut stream = worker();
    stream.note(&Note::Library(profilemate::event::Library {
        pids: vec![201],
        sites: vec![profilemate::event::Site {
            function: Function::GraphLaunch as u8,
            symbol: "cuGraphLaunch".to_owned(),
            offset: 10,
            instruction: "je 0x40".to_owned(),
            cost: "emulated".to_owned(),
            with_return: true,
        }],
        refused: vec![("cuLaunchKernel".to_owned(), "not asked for".to_owned())],
        ..Default::default()
    }));
    stream.launched(MAIN, 39_000, 0xe1);
    stream.launched(MAIN, 40_020, 0xe1);
    stream.passes(40_000, 40_100, 1);
    let tables = stream.tables();
    assert_eq!(
        tables.columns("forward_pass_timing", &["graph_launches", "kernels"]),
        ["1|"]
    );
    let (status, reason) = tables.coverage("forward_pass_timing");
    assert_eq!(status, "partial");
    assert!(
        reason.contains("`kernels` is empty: cuLaunchKernel: not asked for"),
        "{reason}"
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
fn wrapper_calls_matter_only_while_graphs_can_be_captured() {
    let mut stream = worker();
    let serving = |stream: &Stream| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        let mut pipeline = Pipeline::new(&path, Options::default()).unwrap();
        for (kind, bytes) in &stream.frames {
            pipeline.frame(*kind, bytes).unwrap();
        }
        let tick = stream::at(10_000_000).to_le_bytes();
        pipeline.frame(KIND_TICK, &tick).unwrap();
        pipeline.aggregator().serving().contains(&201)
    };
    assert!(!serving(&stream), "from the attach on");
    stream.full(30_000, 8, 0xe1);
    assert!(!serving(&stream), "until the first pass");
    stream.passes(40_000, 40_100, 5);
    assert!(serving(&stream));
    let begin = Call {
        args: [5, 0, 0],
        ..Call::default()
    };
    stream.driver(MAIN, Function::StreamBeginCapture, 50_000, 50_001, begin);
    assert!(!serving(&stream), "a capture of any origin");
    stream.passes(50_010, 50_020, 5);
    assert!(!serving(&stream), "in which it still is");
    let end = Call { out: 0x10, ..begin };
    stream.driver(MAIN, Function::StreamEndCapture, 50_100, 50_101, end);
    stream.passes(51_000, 51_100, 5);
    assert!(serving(&stream));
    stream.entry(WORKER, "graph.capture_model", 60_000, vec![]);
    assert!(!serving(&stream), "vLLM captures anew");
    stream.passes(61_000, 61_100, 5);
    assert!(!serving(&stream), "and has not ended");
    let id = "graph.capture_model";
    stream.call(WORKER, id, 60_000, 70_000, Result::Object, vec![]);
    stream.passes(71_000, 71_100, 5);
    assert!(serving(&stream));
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
                    0..=2 => {
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
