//! PyTorch's CUDA graphs on a real GPU, traced live: `cargo xtask gpu-check`. Skipped where that did not start it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, Session, binary, root, wait_for};
use serde_json::Value;

/// The Python that `cargo xtask gpu-check` names.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PROFILEMATE_GPU_PYTHON").map(PathBuf::from);
    if python.is_none() {
        println!("skipped: `cargo xtask gpu-check` runs it on a machine with a GPU");
    }
    python
}

/// A table's column, added up.
fn sum(session: &Session, table: &str, column: &str) -> u64 {
    let rows = session.rows(table);
    let cells = rows
        .iter()
        .map(|row| row[column].parse::<u64>().unwrap_or(0));
    cells.sum()
}

#[test]
fn launches_and_captures_of_pytorch_are_those_that_were_made() {
    if !root() {
        return;
    }
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = std::fs::File::create(at("program.log")).unwrap();
    let mut program = Guard::start(
        Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/gpu/graphs.py"))
            .arg("--out")
            .arg(at("truth.json"))
            .arg("--ready")
            .arg(at("ready"))
            .arg("--go")
            .arg(at("go"))
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log)),
    );
    let text = |name: &str| std::fs::read_to_string(at(name)).unwrap_or_default();
    wait_for("the first graph", Duration::from_secs(180), || {
        let running = matches!(program.0.try_wait(), Ok(None));
        assert!(running, "{}", text("program.log"));
        at("ready").exists()
    });
    let mut tracer = Guard::start(
        Command::new(binary())
            .args([
                "trace",
                "--graph-timeline",
                "--method",
                "__main__:Model.replay",
            ])
            .args(["--pid", &program.pid().to_string(), "--output"])
            .arg(at("sessions"))
            .stdout(Stdio::null()),
    );
    wait_for("the attach", Duration::from_secs(60), || {
        let metadata = std::fs::read_dir(at("sessions"))
            .ok()
            .and_then(|mut folders| folders.next()?.ok())
            .and_then(|entry| std::fs::read(entry.path().join("metadata.json")).ok())
            .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        metadata.is_some_and(|metadata| metadata["libraries"][0]["sites"][0].is_object())
    });
    std::fs::write(at("go"), "").unwrap();
    assert_eq!(
        program.wait(Duration::from_secs(180)),
        0,
        "{}",
        text("program.log")
    );
    assert_eq!(tracer.wait(Duration::from_secs(60)), 0);
    let truth: Value = serde_json::from_str(&text("truth.json")).unwrap();
    let session = Session::only(&at("sessions"));
    println!("what was done: {truth:#}");
    println!("libraries: {:#}", session.metadata["libraries"]);
    println!("ledger: {:#}", session.metadata["ledger"]);
    let host = |name: &str| truth[name].as_f64().unwrap();
    println!(
        "a replay on the host: {:.0} ns untraced, {:.0} ns traced",
        host("host_ns_untraced"),
        host("host_ns_traced")
    );
    assert_eq!(
        Some(sum(&session, "cuda_graph_usage", "launches")),
        truth["replays"].as_u64()
    );
    let captures = session.rows("cuda_graph_captures");
    assert_eq!(Some(captures.len() as u64), truth["captures"].as_u64());
    for row in captures {
        assert!(row["graph_exec"].starts_with("0x"), "{row:?}");
    }
    let calls = session.rows("methods").len() as u64;
    assert_eq!(Some(calls), truth["replays"].as_u64());
    let driver = &session.metadata["ledger"]["driver"];
    assert_eq!(driver["fired_not_accounted"], 0, "{driver}");
}
