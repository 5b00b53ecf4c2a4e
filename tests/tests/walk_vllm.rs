//! The stack of the real vLLM's worker, walked with nothing written into it: the frames that are found and what they
//! hold, against what the worker says of itself.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, Session, assert_ledger_exact, binary, cuda, root, vllm};
use serde_json::Value;

/// Tokens and requests of each step, by process.
type Steps = BTreeMap<String, Vec<(String, String)>>;

/// What the processes said in `folder`.
fn truth(folder: &Path) -> Steps {
    let mut steps = Steps::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let pid = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| {
            let step: Value = serde_json::from_str(line).unwrap();
            (step["tokens"].to_string(), step["requests"].to_string())
        });
        steps.insert(pid, lines.collect());
    }
    steps
}

#[test]
fn the_steps_of_a_real_worker_are_read_from_its_stack() {
    if !root() {
        return;
    }
    let Some(python) = vllm::python("0.32.0") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let log = |name: &str| std::fs::File::create(at(name)).unwrap();
    let text = |name: &str| std::fs::read_to_string(at(name)).unwrap_or_default();
    std::fs::create_dir(at("truth")).unwrap();
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/vllm");
    let mut driver = Guard::start(
        Command::new(python)
            .arg(format!("{scripts}/driver.py"))
            // Some prompts are long enough that vLLM cuts them, and requests come and go.
            .args([
                "--requests",
                "12",
                "--prompt-len",
                "30",
                "--prompt-step",
                "9",
            ])
            .args(["--max-num-batched-tokens", "96", "--max-num-seqs", "6"])
            .args(["--max-tokens", "12"])
            .env("PYTHONPATH", format!("{scripts}/walked"))
            .env("WALKED_LIBRARY", cuda::library())
            .env("WALKED_OUT", at("truth"))
            .stdout(log("driver.log"))
            .stderr(Stdio::null()),
    );
    let mut tracer = Guard::start(
        Command::new(binary())
            .args(["-v", "trace", "--strict", "--touch", "none", "--pid"])
            .arg(driver.pid().to_string())
            .arg("--output")
            .arg(at("sessions"))
            .stdout(Stdio::null())
            .stderr(log("tracer.log")),
    );
    assert_eq!(
        driver.wait(Duration::from_secs(300)),
        0,
        "{}",
        text("driver.log")
    );
    assert_eq!(
        tracer.wait(Duration::from_secs(60)),
        0,
        "{}",
        text("tracer.log")
    );
    let session = Session::only(&at("sessions"));
    assert_eq!(assert_ledger_exact(&session), 0);
    let truth = truth(&at("truth"));
    assert_eq!(truth.len(), 1, "one worker: {truth:?}");
    let mut walked = Steps::new();
    for row in session.rows("forward_pass_timing") {
        walked
            .entry(row["pid"].clone())
            .or_default()
            .push((row["num_tokens"].clone(), row["batch_size"].clone()));
    }
    assert_eq!(walked, truth);
    let steps: usize = truth.values().map(Vec::len).sum();
    assert!(steps > 24, "{truth:?}");
    let processes = session.metadata["processes"].to_string();
    assert!(processes.contains("stack_walks"), "{processes}");
    assert!(!processes.contains("method_probes"), "{processes}");
    println!("{steps} steps were read from the worker's stack");
}
