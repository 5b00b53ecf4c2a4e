//! The flight recorder in the pipeline: what a snapshot tells, without a target.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod stream;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use profilemate::capture::pipeline::Files;
use profilemate::capture::{Options, Pipeline, replay};
use profilemate::event::Note;
use profilemate::recorder::gate::Limits;
use profilemate::recorder::{self, Recorder, Report};
use stream::server::{ENGINE, schedule, server};
use stream::{Result, Stream, V, at};

/// Time between two steps, in microseconds.
const STEP_US: u64 = 100_000;

fn options(output: &Path) -> recorder::Options {
    recorder::Options {
        window: Duration::from_secs(5),
        memory: 64 << 20,
        triggers: vec!["kv_usage>90".parse().unwrap()],
        after: Duration::from_secs(1),
        limits: Limits {
            cooldown: Duration::from_secs(10),
            folders: 20,
            bytes: 1 << 30,
        },
        output: output.to_owned(),
        announce: |_| {},
    }
}

/// A pipeline that only records, and what its recorder tells.
fn recording(options: recorder::Options) -> (Pipeline, Arc<Mutex<Report>>) {
    let files = Options {
        files: Files::None,
        ..Options::default()
    };
    let mut pipeline = Pipeline::new(Path::new(""), files).unwrap();
    let recorder = Recorder::new(options, at(0));
    let report = recorder.report();
    pipeline.set_recorder(recorder);
    (pipeline, report)
}

/// Step `number` of a server with one long request, and a full cache in steps 100 to 109.
fn step(stream: &mut Stream, number: u64) {
    let changes = match number {
        2 => vec![("new_ids", V::Strs(vec!["long"]))],
        190 => vec![("finished_ids", V::Strs(vec!["long"]))],
        100..110 => vec![("free_blocks", V::Int(1))],
        _ => vec![],
    };
    let end = number * STEP_US + 30_000;
    stream.call(
        ENGINE,
        "scheduler.schedule",
        end - 1_000,
        end,
        Result::Object,
        schedule(&[(1, 8, Some(1))], changes),
    );
}

/// Feeds steps, with a tick behind each.
fn feed(pipeline: &mut Pipeline, stream: &mut Stream, steps: std::ops::Range<u64>) {
    for number in steps {
        step(stream, number);
        for (kind, bytes) in stream.frames.drain(..) {
            pipeline.frame(kind, &bytes).unwrap();
        }
        pipeline.tick(at(number * STEP_US + STEP_US)).unwrap();
    }
}

/// Waits for the writer, which works in a thread of its own.
fn settle(pipeline: &mut Pipeline, report: &Mutex<Report>, made: usize, us: u64) {
    for _ in 0..1_000 {
        pipeline.tick(at(us)).unwrap();
        if report.lock().unwrap().made.len() >= made {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?}", report.lock().unwrap());
}

fn column(folder: &Path, table: &str, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_path(folder.join(format!("{table}.csv"))).unwrap();
    let at = reader.headers().unwrap().iter().position(|own| own == name);
    reader
        .records()
        .map(|row| row.unwrap()[at.unwrap()].to_owned())
        .collect()
}

fn metadata(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("metadata.json")).unwrap()).unwrap()
}

fn folders(report: &Mutex<Report>) -> Vec<PathBuf> {
    let report = report.lock().unwrap();
    report
        .made
        .iter()
        .filter_map(|made| made.folder.clone().ok())
        .collect()
}

#[test]
fn a_snapshot_goes_on_from_what_was_known_before_its_window() {
    let output = tempfile::tempdir().unwrap();
    let mut options = options(output.path());
    options.triggers.clear();
    let (mut pipeline, report) = recording(options);
    let mut stream = server();
    feed(&mut pipeline, &mut stream, 1..196);
    pipeline.ask_snapshot("SIGUSR1", None);
    settle(&mut pipeline, &report, 1, 196 * STEP_US);
    let folder = folders(&report).remove(0);

    let steps: Vec<u64> = column(&folder, "batch_utilization", "step")
        .iter()
        .map(|step| step.parse().unwrap())
        .collect();
    let first = *steps.first().unwrap();
    assert!(
        (140..=147).contains(&first),
        "five seconds of steps: {first}"
    );
    assert_eq!(steps, (first..=195).collect::<Vec<u64>>());
    // It started long before the window, and the window's time counts from its begin.
    let total = column(&folder, "request_lifecycle", "total_time_sec");
    assert_eq!(total, ["18.800000"]);
    let started: f64 = column(&folder, "request_lifecycle", "started_sec")[0]
        .parse()
        .unwrap();
    assert!(started < -10.0, "{started}");
    // The length of a cycle was read before the window too.
    assert!(
        column(&folder, "batch_utilization", "schedule_ms")
            .iter()
            .all(|ms| ms == "1.000000")
    );

    let metadata = metadata(&folder);
    let snapshot = &metadata["snapshot"];
    assert_eq!(snapshot["trigger"], "SIGUSR1");
    assert_eq!(snapshot["to_ns"], at(196 * STEP_US));
    assert!(snapshot["dropped_old"].as_u64() > Some(100), "{snapshot}");
    assert_eq!(metadata["processes"].as_array().unwrap().len(), 3);
    assert_eq!(metadata["events"]["unnamed_calls"], 0);
    assert_eq!(
        metadata["start_time"].as_str().map(|time| &time[..17]),
        Some("2026-01-02T03:04:")
    );

    let again = tempfile::tempdir().unwrap();
    replay(&folder.join("events.pmrec"), again.path()).unwrap();
    for table in profilemate::table::TABLES {
        let file = format!("{}.csv", table.file);
        assert_eq!(
            std::fs::read(folder.join(&file)).unwrap(),
            std::fs::read(again.path().join(&file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn a_condition_makes_one_snapshot_with_what_followed() {
    let output = tempfile::tempdir().unwrap();
    let (mut pipeline, report) = recording(options(output.path()));
    let mut stream = server();
    feed(&mut pipeline, &mut stream, 1..150);
    settle(&mut pipeline, &report, 1, 150 * STEP_US);
    let folder = folders(&report).remove(0);
    let snapshot = metadata(&folder)["snapshot"].clone();
    assert_eq!(snapshot["trigger"], "kv_usage>90");
    assert_eq!(snapshot["value"], 99.0);
    assert_eq!(snapshot["at_ns"], at(100 * STEP_US + 30_000));
    assert_eq!(snapshot["pid"], 200);
    let last: u64 = column(&folder, "batch_utilization", "step")
        .last()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (109..=115).contains(&last),
        "a second after step 100: {last}"
    );
    drop(pipeline);
    assert_eq!(folders(&report).len(), 1);
}

#[test]
fn the_end_of_a_process_is_written_when_the_session_ends() {
    let output = tempfile::tempdir().unwrap();
    let (mut pipeline, report) = recording(options(output.path()));
    let mut stream = server();
    feed(&mut pipeline, &mut stream, 1..20);
    pipeline
        .note(&Note::ProcessEnded {
            pid: 200,
            at_ns: at(2_000_000),
            reason: "it ended".to_owned(),
        })
        .unwrap();
    pipeline.finish().unwrap();
    let folder = folders(&report).remove(0);
    let metadata = metadata(&folder);
    assert_eq!(metadata["snapshot"]["trigger"], "process_death");
    assert_eq!(
        metadata["snapshot"]["reason"],
        "process 200 (engine_core) ended"
    );
    assert_eq!(column(&folder, "batch_utilization", "step").len(), 19);
}

#[test]
fn where_nothing_can_be_written_recording_goes_on() {
    let output = tempfile::tempdir().unwrap();
    let taken = output.path().join("taken");
    std::fs::write(&taken, "a file").unwrap();
    let (mut pipeline, report) = recording(options(&taken));
    let mut stream = server();
    feed(&mut pipeline, &mut stream, 1..20);
    let (sender, receiver) = std::sync::mpsc::channel();
    pipeline.ask_snapshot("snapshot", Some(sender));
    settle(&mut pipeline, &report, 1, 20 * STEP_US);
    assert!(receiver.recv().unwrap().unwrap_err().contains("taken"));
    assert_eq!(report.lock().unwrap().suppressed.failed, 1);
    std::fs::remove_file(&taken).unwrap();
    feed(&mut pipeline, &mut stream, 20..30);
    pipeline.ask_snapshot("snapshot", None);
    settle(&mut pipeline, &report, 2, 30 * STEP_US);
    let folder = folders(&report).remove(0);
    assert_eq!(column(&folder, "batch_utilization", "step").len(), 29);
}

#[test]
fn a_full_window_keeps_what_is_latest() {
    let output = tempfile::tempdir().unwrap();
    let mut options = options(output.path());
    options.window = Duration::from_hours(1);
    options.memory = 1 << 20;
    options.triggers.clear();
    let (mut pipeline, report) = recording(options);
    let mut stream = server();
    feed(&mut pipeline, &mut stream, 1..6_000);
    pipeline.ask_snapshot("snapshot", None);
    settle(&mut pipeline, &report, 1, 6_000 * STEP_US);
    let folder = folders(&report).remove(0);
    let steps = column(&folder, "batch_utilization", "step");
    assert_eq!(steps.last().map(String::as_str), Some("5999"));
    assert!(steps.len() < 5_000, "{}", steps.len());
    let dropped = metadata(&folder)["snapshot"]["dropped_full"].as_u64();
    assert_eq!(dropped, Some(5_999 - steps.len() as u64));
}
