//! Processes, notes, metadata and coverage.

mod stream;

use std::path::Path;
use std::sync::{Arc, Mutex};

use profilemate::capture::Pipeline;
use profilemate::capture::pipeline::{Files, Options};
use profilemate::event::{Ledger, Note, Process, SlotCounters, Unread};
use profilemate::sink::watch::{Pulse, Watcher};
use profilemate::table::AnyRow;
use stream::server::{ENGINE, ENGINE_METHODS, schedule, server};
use stream::{Result, Stream, V, Who};

#[test]
fn a_forked_child_uses_its_parents_methods_and_counts_for_itself() {
    let mut stream = server();
    stream.process(300, 200, "other", Some(1));
    let child = Who {
        pid: 300,
        tid: 300,
        page: 1,
    };
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.call(
        child,
        "scheduler.schedule",
        31_000,
        31_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.call(
        ENGINE,
        "scheduler.schedule",
        32_000,
        32_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    assert_eq!(
        stream
            .tables()
            .columns("batch_utilization", &["step", "pid", "engine"]),
        ["1|200|0", "1|300|", "2|200|0"]
    );
}

#[test]
fn who_watches_hears_of_no_time_before_the_session_began() {
    #[derive(Clone, Default)]
    struct Times(Arc<Mutex<Vec<i64>>>);
    impl Watcher for Times {
        fn row(&mut self, _row: &AnyRow) {}
        fn pulse(&mut self, pulse: &Pulse<'_>) {
            self.0.lock().unwrap().push(pulse.now.0);
        }
    }
    let times = Times::default();
    let options = Options {
        files: Files::None,
        ..Options::default()
    };
    let mut pipeline = Pipeline::new(Path::new("unused"), options).unwrap();
    pipeline.set_watcher(Box::new(times.clone()));
    pipeline.tick(stream::at(0)).unwrap();
    for (kind, bytes) in &server().frames {
        pipeline.frame(*kind, bytes).unwrap();
    }
    pipeline.tick(stream::at(2_000_000)).unwrap();
    assert_eq!(*times.0.lock().unwrap(), [2_000_000_000]);
}

#[test]
fn a_pid_used_again_begins_anew() {
    let mut stream = server();
    let step = || schedule(&[], vec![]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        step(),
    );
    stream.note(&Note::ProcessEnded {
        pid: 200,
        at_ns: stream::at(40_000),
        reason: "exited".to_owned(),
    });
    stream.process(200, 100, "engine_core", Some(3));
    stream.bind(200, 3, ENGINE_METHODS);
    stream.call(
        Who { page: 3, ..ENGINE },
        "scheduler.schedule",
        50_000,
        50_010,
        Result::Object,
        step(),
    );
    let tables = stream.tables();
    assert_eq!(tables.columns("batch_utilization", &["step"]), ["1", "1"]);
    let metadata = tables.json("metadata.json");
    let processes = metadata["processes"].as_array().unwrap();
    let of_200: Vec<_> = processes
        .iter()
        .filter(|process| process["pid"] == 200)
        .collect();
    assert_eq!(of_200.len(), 2);
    assert_eq!(of_200[0]["ended"]["reason"], "exited");
    assert!(of_200[1]["ended"].is_null());
}

#[test]
fn missing_and_repeated_notes_are_no_harm() {
    let mut stream = server();
    let repeated = stream.frames.clone();
    stream.frames.extend(repeated);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    let complete = stream.tables();
    assert_eq!(complete.rows("batch_utilization").len(), 1);
    // Without any note but the clock, the call is counted and nothing else.
    stream
        .frames
        .retain(|(kind, bytes)| *kind == 1 || bytes.starts_with(br#"{"note":"clock"#));
    let bare = stream.tables();
    assert_eq!(bare.rows("batch_utilization").len(), 0);
    let events = &bare.json("metadata.json")["events"];
    assert_eq!(
        (&events["received"], &events["unnamed_calls"]),
        (&1.into(), &1.into())
    );
    assert_eq!(events["decode_errors_by_kind"]["programs"], 1);
}

#[test]
fn metadata_says_what_the_session_was() {
    let mut stream = server();
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    stream.note(&Note::Ledger(Ledger {
        fired: 7,
        submitted: 4,
        lost: 2,
        filtered: 1,
        ..Ledger::default()
    }));
    stream.counters(
        200,
        1,
        40_000,
        vec![SlotCounters {
            slot: 0,
            calls: 10,
            marks: 7,
            cycles: 20_000,
            histogram: vec![(10, 5), (11, 5)],
        }],
    );
    stream.ended(1_500_000);
    let tables = stream.tables();
    let metadata = tables.json("metadata.json");
    assert_eq!(metadata["session_id"], "session_20260102_030405_abc");
    assert_eq!(metadata["start_time"], "2026-01-02T03:04:05Z");
    assert_eq!(
        metadata["output_dir"],
        tables.outcome.folder.display().to_string()
    );
    assert_eq!(metadata["end_reason"], "interrupted");
    assert_eq!(metadata["duration_sec"], 1.5);
    assert_eq!(metadata["processes"][1]["role"], "engine_core");
    assert_eq!(metadata["tables"]["batch_utilization"]["rows"], 1);
    assert_eq!(metadata["events"]["lost_kernel"], 2);
    assert_eq!(metadata["ledger"]["marks_not_fired"], 0);
    assert_eq!(metadata["ledger"]["fired_not_accounted"], 0);
    assert_eq!(metadata["ledger"]["submitted_not_received"], 3);
    let summary = tables.json("summary.json");
    assert_eq!(summary["counters"][0]["method"], "scheduler.schedule");
    assert_eq!(summary["counters"][0]["mean_us"], 1.0);
    assert_eq!(
        summary["counters"][0]["p50_us_between"],
        serde_json::json!([0.512, 1.024])
    );
    assert_eq!(
        summary["tables"]["batch_utilization"]["schedule_ms"]["count"],
        1
    );
}

#[test]
fn coverage_gives_the_reason_in_plain_words() {
    let mut stream = Stream::new();
    stream.process(200, 100, "engine_core", Some(1));
    stream.bind(200, 1, &["scheduler.schedule"]);
    stream.note(&Note::Process(Process {
        pid: 201,
        role: "worker".to_owned(),
        reason: Some("tracing is forbidden by a seccomp filter".to_owned()),
        ..Process::default()
    }));
    let unbound = |pid, method: &str, reason: &str| Note::Unbound {
        pid,
        method: method.to_owned(),
        reason: reason.to_owned(),
    };
    stream.note(&unbound(
        200,
        "block_pool.evict",
        "method not found in vLLM 0.33.0",
    ));
    stream.note(&Note::NotCovered {
        table: "cpu_operations_timing".to_owned(),
        reason: "switched off".to_owned(),
    });
    stream.call(
        ENGINE,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        schedule(&[], vec![]),
    );
    let tables = stream.tables();
    let coverage = |table| tables.coverage(table);
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(coverage("batch_utilization"), pair("observed", ""));
    assert_eq!(
        coverage("kv_cache_evictions"),
        pair("not_observable", "method not found in vLLM 0.33.0")
    );
    assert_eq!(
        coverage("forward_pass_timing"),
        pair("not_observable", "tracing is forbidden by a seccomp filter")
    );
    assert_eq!(
        coverage("cpu_operations_timing"),
        pair("not_observable", "switched off")
    );
    assert_eq!(
        coverage("methods"),
        pair("not_applicable", "no method was given with --method")
    );
    assert_eq!(coverage("cuda_graph_usage").0, "not_applicable");
    assert_eq!(
        coverage("request_lifecycle").0,
        "partial",
        "preemptions are known from the output alone"
    );
}

/// A field that feeds `table` and does not fit the process.
fn unread(name: &str, path: &str, table: &str) -> Unread {
    Unread {
        name: name.to_owned(),
        path: path.to_owned(),
        tables: vec![table.to_owned()],
        reason: "no such name is known to the interpreter".to_owned(),
    }
}

#[test]
fn a_field_that_does_not_fit_is_named_in_the_coverage_of_the_tables_that_it_feeds() {
    let mut stream = Stream::new();
    stream.process(200, 100, "engine_core", Some(1));
    let path = "self.max_num_running_reqs";
    stream.unread = vec![unread("max_seqs", path, "batch_utilization")];
    stream.bind(200, 1, &["scheduler.schedule"]);
    stream.unread = vec![unread("block_id", "block.block_id", "kv_cache_evictions")];
    stream.bind(200, 1, &["block_pool.evict"]);
    stream.bind(200, 1, &["block_pool.allocate", "block_pool.touch"]);
    stream.unread = vec![unread("spec_none", "stats:none", "speculative_decoding")];
    stream.bind(200, 1, &["scheduler.make_stats"]);
    let engine = ENGINE;
    let steps = schedule(&[], vec![]);
    stream.call(
        engine,
        "scheduler.schedule",
        30_000,
        30_010,
        Result::Object,
        steps,
    );
    let stats = vec![("log_stats", V::Bool(true))];
    stream.call(
        engine,
        "scheduler.make_stats",
        30_020,
        30_030,
        Result::Object,
        stats,
    );
    let tables = stream.tables();
    let partial = |reason: &str| ("partial".to_owned(), reason.to_owned());
    assert_eq!(
        tables.coverage("batch_utilization"),
        partial(
            "`max_seqs` of `scheduler.schedule` (self.max_num_running_reqs) is not read: no such name is known to the \
             interpreter"
        )
    );
    assert_eq!(tables.coverage("kv_cache_usage").0, "observed");
    assert_eq!(
        tables.coverage("kv_cache_evictions").1,
        "nothing of it happened while the session ran",
        "a method that was not called left nothing out"
    );
    let (status, reason) = tables.coverage("speculative_decoding");
    assert_eq!(status, "partial", "whether there were drafts is not known");
    assert!(reason.starts_with("`spec_none` of"), "{reason}");
}

#[test]
fn what_is_no_part_of_vllm_gives_no_reason_where_a_part_is_known() {
    let other = |stream: &mut Stream| {
        stream.note(&Note::Process(Process {
            pid: 150,
            role: "other".to_owned(),
            reason: Some("vLLM is not imported".to_owned()),
            ..Process::default()
        }));
    };
    let mut alone = Stream::new();
    other(&mut alone);
    let (_, reason) = alone.tables().coverage("batch_utilization");
    assert_eq!(reason, "vLLM is not imported");
    let mut beside = Stream::new();
    other(&mut beside);
    beside.process(200, 100, "engine_core", Some(1));
    let (_, reason) = beside.tables().coverage("batch_utilization");
    assert_eq!(reason, "`scheduler.schedule` was not bound in any process");
}

#[test]
fn calls_wait_for_the_length_of_a_cycle() {
    for known in [true, false] {
        let mut stream = server();
        // The builder's own readings are the second and third frame.
        let clocks: Vec<_> = stream.frames.drain(1..3).collect();
        stream.call(
            ENGINE,
            "scheduler.schedule",
            30_000,
            30_250,
            Result::Object,
            schedule(&[], vec![]),
        );
        if known {
            stream.frames.extend(clocks);
        }
        let expected = if known { "0.250000" } else { "" };
        assert_eq!(
            stream
                .tables()
                .columns("batch_utilization", &["schedule_ms", "step"]),
            [format!("{expected}|1")]
        );
    }
}
