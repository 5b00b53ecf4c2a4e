//! A small session in every format, read back with plain JSON and with our own messages. What other tools make of the
//! files is tested in `tests/tests/export.rs`.

use super::*;
use crate::sink::csv::CsvFolder;
use crate::table::AnyRow;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Millis, Stamp};
use crate::table::cpu_operations_timing::CpuOperation;
use crate::table::cuda_graph_timeline::CudaGraphReplay;
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::preemption_events::PreemptionEvent;
use serde_json::Value as Json;

const MS: i64 = 1_000_000;

fn request(at_ms: i64, event: &'static str, step: u64) -> AnyRow {
    let row = PreemptionEvent {
        timestamp_sec: Stamp(at_ms * MS),
        request_id: "cmpl-1".into(),
        event,
        step: Some(step),
        pid: 1,
        ..PreemptionEvent::default()
    };
    row.into()
}

/// One request that is preempted once, over two steps, with a replay in the first pass.
fn session(folder: &Path) -> Session {
    let mut csv = CsvFolder::create(folder).unwrap();
    let operation = |start: i64| CpuOperation {
        timestamp_sec: Stamp(start * MS),
        operation: "sample".into(),
        duration_ms: Some(Millis(2_000_000)),
        pid: 2,
        ..CpuOperation::default()
    };
    let pass = |start: i64, step: u64| ForwardPass {
        timestamp_sec: Stamp(start * MS),
        phase: Some("decode"),
        num_tokens: Some(1),
        forward_time_ms: Some(Millis(5_000_000)),
        step: Some(step),
        pid: 2,
        rank: Some(0),
        ..ForwardPass::default()
    };
    let batch = BatchUse {
        timestamp_sec: Stamp(10 * MS),
        num_tokens: Some(1),
        schedule_ms: Some(Millis(1_000_000)),
        step: 1,
        pid: 1,
        ..BatchUse::default()
    };
    let replay = CudaGraphReplay {
        timestamp_sec: Stamp(12 * MS),
        descriptor: Some("FULL 1".into()),
        duration_ms: Some(Millis(500_000)),
        launches: 1,
        num_tokens: Some(1),
        pid: 2,
        rank: Some(0),
    };
    let rows: Vec<AnyRow> = vec![
        batch.into(),
        request(10, "started", 1),
        request(20, "preempted", 2),
        request(40, "resumed", 3),
        request(50, "finished", 4),
        pass(11, 1).into(),
        pass(41, 3).into(),
        // Two threads at once.
        operation(30).into(),
        operation(31).into(),
        replay.into(),
    ];
    for row in &rows {
        csv.row(row).unwrap();
    }
    csv.flush().unwrap();
    std::fs::write(
        folder.join("metadata.json"),
        r#"{"session_id": "s", "start_time": "2026-01-01T00:00:00Z", "duration_sec": 0.1,
            "events": {"lost_kernel": 3, "lost_userspace": 0},
            "processes": [{"pid": 1, "role": "engine_core"}, {"pid": 2, "parent": 1, "role": "worker", "rank": 0}]}"#,
    )
    .unwrap();
    Session::open(folder).unwrap()
}

fn exported(format: Format) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let path = folder.path().join("out");
    export(&session, format, &path).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn chrome_has_the_slices_and_lines_of_a_request() {
    let json: Json = serde_json::from_slice(&exported(Format::Chrome)).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let named = |name: &str| {
        events
            .iter()
            .filter(|event| event["name"] == name && event["ph"] == "X")
            .collect::<Vec<_>>()
    };
    let running = named("running");
    let spans: Vec<_> = running
        .iter()
        .map(|event| (event["ts"].as_f64(), event["dur"].as_f64()))
        .collect();
    assert_eq!(
        spans,
        [
            (Some(10_000.0), Some(10_000.0)),
            (Some(40_000.0), Some(10_000.0))
        ]
    );
    assert_eq!(named("preempted").len(), 1);
    // Every line that ends has begun: two from the request to its passes, one from a pass to its replay.
    let ends: Vec<_> = events.iter().filter(|event| event["ph"] == "f").collect();
    assert_eq!(ends.len(), 3);
    for end in ends {
        let begin = events
            .iter()
            .find(|event| event["ph"] == "s" && event["id"] == end["id"])
            .unwrap();
        assert!(begin["ts"].as_f64() <= end["ts"].as_f64(), "{begin} {end}");
    }
    // Calls that overlap are on two tracks.
    let samples = named("sample");
    assert_eq!(samples.len(), 2);
    assert_ne!(samples[0]["tid"], samples[1]["tid"]);
    let lost: Vec<_> = events
        .iter()
        .filter(|event| event["name"] == "records lost")
        .collect();
    assert_eq!(lost.last().unwrap()["args"]["value"], 3.0);
}

#[test]
fn speedscope_opens_and_closes_in_order() {
    let json: Json = serde_json::from_slice(&exported(Format::Speedscope)).unwrap();
    let frames = json["shared"]["frames"].as_array().unwrap();
    let profiles = json["profiles"].as_array().unwrap();
    assert!(
        profiles
            .iter()
            .any(|profile| profile["name"] == "worker rank 0: forward pass"),
        "{json}"
    );
    for profile in profiles {
        let mut now = profile["startValue"].as_u64().unwrap();
        for pair in profile["events"].as_array().unwrap().chunks(2) {
            assert_eq!(
                (&pair[0]["type"], &pair[1]["type"]),
                (&Json::from("O"), &Json::from("C"))
            );
            assert!(pair[0]["frame"].as_u64().unwrap() < frames.len() as u64);
            for event in pair {
                assert!(event["at"].as_u64().unwrap() >= now, "{profile}");
                now = event["at"].as_u64().unwrap();
            }
        }
        assert_eq!(profile["endValue"].as_u64(), Some(now));
    }
}

#[test]
fn otlp_has_a_trace_for_the_request_and_links_to_it() {
    let text = String::from_utf8(exported(Format::Otlp)).unwrap();
    let spans: Vec<Json> = text
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .flat_map(|line| {
            line["resourceSpans"][0]["scopeSpans"][0]["spans"]
                .as_array()
                .unwrap()
                .clone()
        })
        .collect();
    let running: Vec<_> = spans
        .iter()
        .filter(|span| span["name"] == "running")
        .collect();
    assert_eq!(running.len(), 2);
    assert_eq!(running[0]["traceId"], running[1]["traceId"]);
    assert_eq!(running[0]["startTimeUnixNano"], "1767225600010000000");
    let linked = spans
        .iter()
        .find(|span| span["links"][0]["spanId"] == running[0]["spanId"])
        .unwrap();
    assert_eq!(
        (&linked["name"], &linked["links"][0]["traceId"]),
        (&Json::from("decode"), &running[0]["traceId"])
    );
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.metadata.start_time = None;
    let error = export(&session, Format::Otlp, &folder.path().join("out")).unwrap_err();
    assert!(matches!(error, Error::NoStart(_)), "{error}");
    assert!(!folder.path().join("out").exists(), "nothing half written");
}

#[test]
fn jsonl_leaves_out_what_was_not_observed() {
    let text = String::from_utf8(exported(Format::Jsonl)).unwrap();
    let rows: Vec<Json> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 10);
    let batch = rows
        .iter()
        .find(|row| row["table"] == "batch_utilization")
        .unwrap();
    assert_eq!(
        (&batch["timestamp_sec"], &batch["num_tokens"]),
        (&Json::from(0.01), &Json::from(1))
    );
    assert!(batch.get("num_seqs").is_none(), "{batch}");
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    for format in [Format::Perfetto, Format::Parquet] {
        let error = export(&session, format, Path::new("/proc/nowhere/out")).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/out"), "{error}");
    }
}
