//! Exports of a traced demo, read with what others publish: Perfetto's and OpenTelemetry's protobufs, and `DuckDB`.

use std::path::{Path, PathBuf};
use std::process::Command;

use profilemate_tests::{Session, binary, demo, root};
use serde_json::Value;

/// The Python of `tests/export/setup`; `None` (with a printed line) if it is not there, and a failure where
/// `PROFILEMATE_REQUIRE_EXPORT=1` says that it must be.
fn python() -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let python = PathBuf::from(home).join(".cache/profilemate/export-checks/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_EXPORT").is_none(),
        "the readers are not installed: run `tests/export/setup`"
    );
    println!("skipped: no readers (tests/export/setup installs them)");
    None
}

fn export(session: &Path, format: &str, output: &Path) {
    let done = Command::new(binary())
        .arg("export")
        .arg(session)
        .args(["--to", format, "--output"])
        .arg(output)
        .output()
        .expect("profilemate runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(output.exists(), "{} was written", output.display());
}

fn check(python: &Path, format: &str, path: &Path) -> Value {
    let done = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/export/check.py"))
        .arg(format)
        .arg(path)
        .output()
        .expect("python runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).expect("JSON")
}

fn number(value: &Value) -> usize {
    usize::try_from(
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{value} is no count")),
    )
    .expect("a small count")
}

#[test]
fn others_read_what_is_exported() {
    if !root() {
        return;
    }
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sessions = folder.path().join("sessions");
    let session = demo::session(&sessions, 4);
    let requests = requests(&session);
    in_perfetto(&python, &session, requests, &folder.path().join("trace"));
    in_duckdb(&python, &session, &folder.path().join("tables"));
    in_opentelemetry(&python, &session, requests, &folder.path().join("spans"));
}

/// Requests that were seen to do more than finish.
fn requests(session: &Session) -> usize {
    let mut requests: Vec<String> = session
        .rows("preemption_events")
        .iter()
        .filter(|row| row["event"] != "finished")
        .map(|row| row["request_id"].clone())
        .collect();
    requests.sort();
    requests.dedup();
    requests.len()
}

fn in_perfetto(python: &Path, session: &Session, requests: usize, output: &Path) {
    export(&session.folder, "perfetto", output);
    let trace = check(python, "perfetto", output);
    assert_eq!(trace["faults"], Value::Array(Vec::new()), "{trace:#}");
    assert_eq!(trace["not_closed"], Value::Array(Vec::new()), "{trace:#}");
    assert_eq!(number(&trace["requests"]), requests);
    assert_eq!(
        number(&trace["counters"]["KV cache"]),
        session.rows("kv_cache_usage").len()
    );
    assert!(number(&trace["counters"]["records lost"]) >= 2, "{trace:#}");
    assert!(
        number(&trace["flows"]["request -> forward pass"]) > 10,
        "{trace:#}"
    );
    let passes = session.rows("forward_pass_timing").len();
    let batches = session.rows("batch_utilization").len();
    let phases = ["prefill", "decode", "mixed", "forward pass", "schedule"];
    let shown: usize = phases
        .iter()
        .filter_map(|name| trace["slices"][name].as_u64())
        .sum::<u64>() as usize;
    assert_eq!(shown, passes + batches, "{trace:#}");
}

fn in_duckdb(python: &Path, session: &Session, output: &Path) {
    export(&session.folder, "parquet", output);
    let tables = check(python, "parquet", output);
    for table in profilemate::table::TABLES {
        let read = &tables["tables"][table.file];
        assert_eq!(
            number(&read["rows"]),
            session.rows(table.file).len(),
            "{}",
            table.file
        );
        let columns = read["columns"].as_object().expect("columns");
        assert_eq!(columns.len(), table.columns.len(), "{}", table.file);
    }
    let schema = &tables["tables"]["cuda_graph_captures"]["columns"];
    assert_eq!(
        (&schema["num_tokens"], &schema["uniform"]),
        (&"BIGINT".into(), &"BOOLEAN".into())
    );
    assert_eq!(
        (&schema["duration_ms"], &schema["module"]),
        (&"DOUBLE".into(), &"VARCHAR".into())
    );
    let tokens: usize = session
        .rows("batch_utilization")
        .iter()
        .filter_map(|row| row["num_tokens"].parse::<usize>().ok())
        .sum();
    assert_eq!(number(&tables["tokens"]), tokens);
    let answers = tables["answers"]
        .as_array()
        .expect("answers of the queries in docs/export.md");
    assert!(
        answers.len() >= 4 && answers[0] != 0 && answers[1] != 0,
        "{tables}"
    );
}

fn in_opentelemetry(python: &Path, session: &Session, requests: usize, output: &Path) {
    export(&session.folder, "otlp", output);
    let spans = check(python, "otlp", output);
    assert_eq!(spans["faults"], Value::Array(Vec::new()), "{spans:#}");
    assert!(number(&spans["names"]["running"]) >= requests, "{spans:#}");
    assert!(number(&spans["links"]) > 10, "{spans:#}");
}
