//! vLLM's real graph classes over a stand-in for the driver, traced live: counts equal what the driver itself, vLLM's
//! own counter and the program counted.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, Row, Session, binary, cuda, root, vllm, wait_for};
use serde_json::Value;

/// What the program did, and what was traced of it.
struct Run {
    truth: Value,
    session: Session,
    /// The session's files, which are read when they are asked for.
    _folder: tempfile::TempDir,
}

/// The programs: the graphs that every server has, and the rarer ones.
const COMMON: &str = "graphs.py";
const KINDS: &str = "graph_kinds.py";

/// Runs a program under the tracer; attached before it captures, or (`late`) after.
fn traced(name: &str, version: &str, late: bool) -> Option<Run> {
    observed(name, version, late, "probes")
}

/// As [`traced`], with what may be done to the program.
fn observed(name: &str, version: &str, late: bool, touch: &str) -> Option<Run> {
    if !root() {
        return None;
    }
    let python = vllm::python(version)?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = std::fs::File::create(at("program.log")).unwrap();
    let mut command = Command::new(python);
    command
        .arg(format!("{}/vllm/{name}", env!("CARGO_MANIFEST_DIR")))
        .arg("--library")
        .arg(cuda::library())
        .arg("--out")
        .arg(at("truth.json"))
        .arg("--ready")
        .arg(at("ready"))
        .arg("--go")
        .arg(at("go"))
        .args(late.then_some("--late"))
        .stdout(log.try_clone().unwrap())
        .stderr(Stdio::from(log));
    let mut program = Guard::start(&mut command);
    let text = |name: &str| std::fs::read_to_string(at(name)).unwrap_or_default();
    wait_for("vLLM's import", Duration::from_secs(200), || {
        assert!(
            matches!(program.0.try_wait(), Ok(None)),
            "{}",
            text("program.log")
        );
        at("ready").exists()
    });
    let tracer_log = std::fs::File::create(at("tracer.log")).unwrap();
    let mut tracer = Guard::start(
        Command::new(binary())
            .args([
                "-vv",
                "trace",
                "--strict",
                "--graph-timeline",
                "--touch",
                touch,
                "--pid",
                &program.pid().to_string(),
            ])
            .arg("--output")
            .arg(at("sessions"))
            .stdout(Stdio::null())
            .stderr(tracer_log),
    );
    wait_for("the attach", Duration::from_secs(60), || {
        assert!(
            matches!(tracer.0.try_wait(), Ok(None)),
            "{}",
            text("tracer.log")
        );
        attached(&at("sessions"))
    });
    std::fs::write(at("go"), "").unwrap();
    let code = program.wait(Duration::from_secs(120));
    assert_eq!(code, 0, "{}", text("program.log"));
    assert_eq!(
        tracer.wait(Duration::from_secs(60)),
        0,
        "{}",
        text("tracer.log")
    );
    let truth = serde_json::from_str(&text("truth.json")).unwrap();
    let session = Session::only(&at("sessions"));
    if !late {
        let log = text("tracer.log");
        assert!(
            !log.contains("__call__ are counted"),
            "no pass ended: {log}"
        );
    }
    Some(Run {
        truth,
        session,
        _folder: folder,
    })
}

/// Whether a session below `sessions` has attached a process and probes its driver.
fn attached(sessions: &Path) -> bool {
    let Ok(mut folders) = std::fs::read_dir(sessions) else {
        return false;
    };
    let Some(Ok(folder)) = folders.next() else {
        return false;
    };
    let Ok(text) = std::fs::read_to_string(folder.path().join("metadata.json")) else {
        return false;
    };
    let metadata: Value = serde_json::from_str(&text).unwrap_or_default();
    let has = |list: &str, of: &dyn Fn(&Value) -> bool| {
        metadata[list]
            .as_array()
            .is_some_and(|list| list.iter().any(of))
    };
    has("processes", &|process| {
        ["method_probes", "stack_walks"]
            .contains(&process["technique"].as_str().unwrap_or_default())
    }) && has("libraries", &|library| {
        library["sites"]
            .as_array()
            .is_some_and(|sites| !sites.is_empty())
    })
}

/// A column of the program's counts.
fn counts(truth: &Value, name: &str) -> BTreeMap<String, u64> {
    let counts = truth[name].as_object().unwrap();
    counts
        .iter()
        .map(|(key, count)| (key.clone(), count.as_u64().unwrap()))
        .collect()
}

/// A column of `cuda_graph_usage.csv` by descriptor, as the program writes it; what is empty is not there.
fn used(session: &Session, column: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let rows = session.rows("cuda_graph_usage").into_iter();
    for row in rows.filter(|row| !row[column].is_empty()) {
        let key =
            ["runtime_mode", "num_tokens", "num_reqs", "uniform"].map(|name| row[name].as_str());
        *sums.entry(key.join("|")).or_default() += row[column].parse::<u64>().unwrap();
    }
    sums
}

fn assert_used(run: &Run) {
    let Run { truth, session, .. } = run;
    assert_replayed(run);
    assert_eq!(
        used(session, "actual_tokens"),
        counts(truth, "batch_tokens")
    );
    for row in session.rows("cuda_graph_usage") {
        let known = if row["actual_tokens"].is_empty() {
            "0"
        } else {
            &row["replay_count"]
        };
        assert_eq!(row["token_replays"], known, "{row:?}");
    }
}

/// Each replay was seen, with its launches, and what it was of.
fn assert_replayed(run: &Run) {
    let Run { truth, session, .. } = run;
    for (ours, theirs) in [("replay_count", "replays"), ("launches", "launches")] {
        assert_eq!(used(session, ours), counts(truth, theirs), "{ours}");
    }
    let launched: u64 = used(session, "launches").values().sum();
    assert_eq!(
        Some(launched),
        truth["driver"]["cuGraphLaunch"].as_u64(),
        "the driver's own count"
    );
    let replays: u64 = used(session, "replay_count").values().sum();
    assert_eq!(session.rows("cuda_graph_timeline").len() as u64, replays);
    for row in session.rows("cuda_graph_usage") {
        assert_eq!(row["rank"], "1", "{row:?}");
        assert!(
            !row["launch_host_us_mean"].is_empty() && !row["launch_host_us_p99"].is_empty(),
            "{row:?}"
        );
    }
    let driver = &session.metadata["ledger"]["driver"];
    assert_eq!(driver["fired_not_accounted"], 0, "{driver}");
    assert_eq!(driver["lost"], 0, "{driver}");
    assert_eq!(driver["received"], driver["submitted"], "{driver}");
}

/// Each capture was seen, and what it was made for.
fn assert_captures(run: &Run, rows: &[Row]) {
    let mut captured: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows {
        assert_eq!(row["outcome"], "captured", "{row:?}");
        assert_eq!(row["descriptor_source"], "method", "{row:?}");
        assert!(
            row["graph_exec"].starts_with("0x") && !row["duration_ms"].is_empty(),
            "{row:?}"
        );
        let key = [
            "runtime_mode",
            "num_tokens",
            "num_reqs",
            "uniform",
            "throwaway",
        ];
        *captured
            .entry(key.map(|name| row[name].as_str()).join("|"))
            .or_default() += 1;
    }
    assert_eq!(captured, counts(&run.truth, "captures"));
}

fn assert_captured(run: &Run) {
    let Run { truth, session, .. } = run;
    let rows = session.rows("cuda_graph_captures");
    for row in &rows {
        assert_eq!(
            row["module"].starts_with("piece "),
            row["runtime_mode"] == "PIECEWISE",
            "{row:?}"
        );
    }
    assert_captures(run, &rows);
    assert_eq!(
        rows.len() as u64,
        number_of(run, "cuStreamBeginCapture_v2"),
        "the driver's own count"
    );
    if truth["second_counts"] == true {
        let kept = rows.iter().filter(|row| row["throwaway"] != "True").count() as u64;
        assert_eq!(Some(kept), truth["counter"].as_u64(), "vLLM's own count");
        assert_eq!(
            Some(rows.len() as u64 - kept),
            truth["thrown_away"].as_u64()
        );
    }
}

#[test]
fn captures_and_replays_equal_what_was_done() {
    let Some(run) = traced(COMMON, "0.32.0", false) else {
        return;
    };
    assert_captured(&run);
    assert_used(&run);
    for table in ["cuda_graph_captures", "cuda_graph_usage"] {
        let coverage = &run.session.metadata["tables"][table]["coverage"];
        assert_eq!(coverage["status"], "observed", "{coverage}");
    }
}

#[test]
fn attached_after_the_captures_replays_are_known_by_their_decisions() {
    let Some(run) = traced(COMMON, "0.32.0", true) else {
        return;
    };
    assert_eq!(run.session.rows("cuda_graph_captures").len(), 0);
    assert_used(&run);
    let coverage = &run.session.metadata["tables"]["cuda_graph_captures"]["coverage"];
    assert_eq!(coverage["status"], "partial", "{coverage}");
}

#[test]
fn an_older_vllm_equals_what_was_done() {
    let Some(run) = traced(COMMON, "0.17.1", false) else {
        return;
    };
    assert_captured(&run);
    assert_used(&run);
}

#[test]
fn microbatched_breakable_and_encoder_graphs_equal_what_was_done() {
    let Some(run) = traced(KINDS, "0.32.0", false) else {
        return;
    };
    let rows = run.session.rows("cuda_graph_captures");
    let number = |name: &str| run.truth[name].as_u64().unwrap();
    let mut graphs = 0;
    for row in &rows {
        // A microbatched model is one graph of two threads, a breakable one has a graph between each two breaks, and
        // an encoder has no mode.
        let (made, ubatches, module) = match row["runtime_mode"].as_str() {
            "FULL" => (1, number("ubatches").to_string(), ""),
            "PIECEWISE" => (number("segments"), String::new(), ""),
            _ => (1, String::new(), "encoder"),
        };
        assert_eq!(row["graphs_in_capture"], made.to_string(), "{row:?}");
        assert_eq!(row["num_ubatches"], ubatches, "{row:?}");
        assert_eq!(row["module"], module, "{row:?}");
        graphs += made;
    }
    assert_eq!(number_of(&run, "cuStreamBeginCapture_v2"), graphs);
    assert_eq!(number_of(&run, "cuGraphInstantiateWithFlags"), graphs);
    assert_captures(&run, &rows);
    assert_used(&run);
}

#[test]
fn attached_after_the_captures_the_rarer_graphs_are_known_by_their_decisions() {
    let Some(run) = traced(KINDS, "0.32.0", true) else {
        return;
    };
    assert_eq!(run.session.rows("cuda_graph_captures").len(), 0);
    assert_used(&run);
}

/// Nothing is written into the program: its frames tell what is replayed.
#[test]
fn graphs_are_known_by_the_stack_alone() {
    for name in [COMMON, KINDS] {
        let Some(run) = observed(name, "0.32.0", true, "none") else {
            return;
        };
        assert_replayed(&run);
    }
}

/// Calls of a function, as the driver itself counted them.
fn number_of(run: &Run, function: &str) -> u64 {
    run.truth["driver"][function].as_u64().unwrap()
}
