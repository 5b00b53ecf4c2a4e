//! `--budget` end to end: what costs too much is shed, in order, and what is left stays whole.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profilemate::budget::ladder::LADDER;
use profilemate_tests::demo::{self, assert_steps_are_a_run_of};
use profilemate_tests::{Guard, Session, assert_marks_exact, binary, root, wait_for};

fn trace(target: u32, output: &Path, budget: &str) -> Guard {
    Guard::start(
        Command::new(binary())
            .args(["-q", "trace", "--pid", &target.to_string()])
            .args(["--budget", budget, "--output"])
            .arg(output),
    )
}

/// The metadata as they are written while the session runs.
fn metadata(output: &Path) -> serde_json::Value {
    let folder = std::fs::read_dir(output)
        .ok()
        .and_then(|mut entries| entries.next());
    let text = folder
        .and_then(|entry| std::fs::read_to_string(entry.ok()?.path().join("metadata.json")).ok());
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[test]
fn what_costs_too_much_is_shed_in_order_and_the_steps_stay_whole() {
    let Some(python) = demo::probed_pythons().pop().filter(|_| root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let target = demo::start(&python, &folder.path().join("demo"), 30, &[]);
    let mut tracer = trace(target.pid(), &output, "0.001%");
    // The engine and the worker have a ladder each.
    let engine = |metadata: &serde_json::Value| {
        let changes = metadata["budget"]["changes"].as_array().cloned();
        let blocks = |change: &serde_json::Value| change["what"] == "cache blocks";
        changes.unwrap_or_default().iter().any(blocks)
    };
    wait_for("two rungs to be shed", Duration::from_secs(60), || {
        engine(&metadata(&output))
    });
    tracer.signal(libc::SIGINT);
    assert_eq!(tracer.wait(Duration::from_secs(60)), 0);
    let truth = target.finish(Duration::from_secs(90));

    let session = Session::only(&output);
    let changes = session.metadata["budget"]["changes"].as_array().unwrap();
    let rung = |change: &serde_json::Value| {
        assert_eq!(change["change"], "shed", "{change}");
        assert!(change["cost_before_pct"].as_f64() > Some(0.001), "{change}");
        LADDER
            .iter()
            .position(|rung| change["what"] == rung.name)
            .unwrap()
    };
    for process in session.metadata["processes"].as_array().unwrap() {
        let own = changes
            .iter()
            .filter(|change| change["pid"] == process["pid"]);
        let rungs: Vec<usize> = own.map(rung).collect();
        assert!(rungs.is_sorted(), "{rungs:?}");
    }
    let coverage = |table: &str| session.metadata["tables"][table]["coverage"].clone();
    let evictions = coverage("kv_cache_evictions");
    assert_eq!(evictions["status"], "partial");
    assert!(evictions["reason"].to_string().contains("budget"));
    // Host operations stand in the page's log, which costs no trap.
    for table in ["batch_utilization", "cpu_operations_timing"] {
        assert_eq!(coverage(table)["status"], "observed", "{table}");
    }
    assert!(assert_steps_are_a_run_of(&session, &truth) > 100);
    assert_marks_exact(&session);
}

#[test]
fn within_the_budget_nothing_is_shed_and_the_cost_is_told() {
    let Some(python) = demo::probed_pythons().pop().filter(|_| root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let target = demo::start(&python, &folder.path().join("demo"), 60, &[]);
    let mut tracer = trace(target.pid(), &output, "100%");
    wait_for(
        "the cost of both processes",
        Duration::from_secs(60),
        || {
            let metadata = metadata(&output);
            let costs = metadata["budget"]["costs"].as_array().map_or(0, Vec::len);
            costs == 2
        },
    );
    tracer.signal(libc::SIGINT);
    assert_eq!(tracer.wait(Duration::from_secs(60)), 0);
    let session = Session::only(&output);
    let budget = &session.metadata["budget"];
    assert_eq!(budget["changes"].as_array().unwrap().len(), 0, "{budget}");
    for cost in budget["costs"].as_array().unwrap() {
        assert_eq!(cost["of"], "steps", "{cost}");
        assert!(cost["hits"].as_u64() > Some(0), "{cost}");
        assert!(cost["cost_ms"].as_f64() > Some(0.0), "{cost}");
    }
    assert_eq!(
        session.metadata["tables"]["cpu_operations_timing"]["coverage"]["status"],
        "observed"
    );
}
