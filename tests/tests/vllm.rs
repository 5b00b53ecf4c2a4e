//! The real vLLM, traced live, against the reference counter inside it: row for row.
#![expect(
    clippy::unwrap_used,
    reason = "a test says by panicking what is not as it should be"
)]

#[path = "vllm/experts.rs"]
mod experts;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use experts::{assert_experts_equal, assert_late_samples_equal, assert_samples_equal};
use profilemate_tests::vllm::truth::{
    assert_evictions_equal, assert_forwards_equal, assert_preemptions_equal, assert_steps_equal,
    number, rows_of,
};
use profilemate_tests::vllm::{self, Run, tracer, tracer_log};
use profilemate_tests::{Session, assert_ledger_exact, binary, count_from, root};

/// `doctor` finds every method of the catalogue in the front end, the engine and the worker, and touches nothing.
fn assert_doctor_approves(pid: u32) {
    let output = Command::new(binary())
        .args(["doctor", "--json", "--pid", &pid.to_string()])
        .output()
        .expect("profilemate runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&vllm::version()), "{text}");
    assert!(text.contains(", model runner"), "{text}");
    // Whether the worker is a process of its own depends on the version.
    let works = |processes| text.contains(&format!("a trace would work: {processes} processes"));
    assert!(works(3) || works(2), "{text}");
    assert!(!text.contains("not bound:"), "{text}");
}

/// Own times of the operations of a process add up to the time in which its steps ran. (Step by step a test of hand-made
/// streams holds it: here begins are told by a clock that is read a moment later.)
fn assert_times_add_up(session: &Session) {
    let rows = session.rows("cpu_operations_timing");
    let mut begins: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["operation"] == "unattributed") {
        let pid = row["pid"].parse().unwrap();
        begins
            .entry(pid)
            .or_default()
            .push(number(row, "timestamp_sec"));
    }
    assert!(!begins.is_empty(), "steps with all their parts");
    for (pid, begins) in begins {
        let (first, last) = (begins[0], begins[begins.len() - 1]);
        let inside = rows_of(&rows, pid).into_iter().filter(|row| {
            let at = number(row, "timestamp_sec");
            at >= first - 1e-6 && at < last - 1e-6
        });
        let told: f64 = inside.map(|row| number(row, "self_ms")).sum();
        let length = 1e3 * (last - first);
        assert!(
            (told - length).abs() <= length / 20.0,
            "process {pid}: {told} of {length} ms"
        );
    }
}

fn check(version: &str, arguments: &[&str]) -> Option<(Run, Session, usize)> {
    let (run, session) = vllm::traced(version, "driver.py", arguments)?;
    let steps = assert_steps_equal(&run, &session, false);
    assert_preemptions_equal(&run, &session);
    assert_evictions_equal(&run, &session);
    assert_forwards_equal(&run, &session);
    assert_times_add_up(&session);
    assert_eq!(assert_ledger_exact(&session), 0);
    Some((run, session, steps))
}

#[test]
fn a_plain_run_equals_the_reference() {
    check(
        &vllm::version(),
        &["--requests", "40", "--max-tokens", "32"],
    );
}

#[test]
fn preemptions_under_kv_pressure_equal_the_reference() {
    let pressure = [
        "--requests",
        "24",
        "--max-tokens",
        "120",
        "--prompt-len",
        "40",
        "--num-gpu-blocks",
        "24",
        "--max-num-seqs",
        "8",
    ];
    let Some((run, session, _)) = check(&vllm::version(), &pressure) else {
        return;
    };
    let preempted = session
        .rows("preemption_events")
        .iter()
        .filter(|row| row["event"] == "preempted")
        .count();
    assert!(preempted > 0);
    assert_eq!(
        run.result["num_preemptions"].as_u64(),
        Some(preempted as u64),
        "vLLM's own metric"
    );
}

#[test]
fn prefix_cache_evictions_equal_the_reference() {
    let eviction = [
        "--rounds",
        "4",
        "--requests",
        "12",
        "--prompt-len",
        "100",
        "--prompt-step",
        "5",
        "--max-tokens",
        "16",
        "--num-gpu-blocks",
        "48",
        "--max-num-seqs",
        "4",
    ];
    let Some((_, session, _)) = check(&vllm::version(), &eviction) else {
        return;
    };
    let rows = session.rows("kv_cache_evictions");
    assert!(rows.len() > 100, "{} evictions", rows.len());
    for row in &rows {
        assert!(
            number(row, "lifetime_sec") >= number(row, "idle_sec"),
            "{row:?}"
        );
    }
}

#[test]
fn a_mixture_of_experts_run_equals_the_reference() {
    if vllm::version() == "0.14.1" {
        println!(
            "skipped on vLLM 0.14.1: it cannot start one on the CPU (\"vLLM config is not set\")"
        );
        return;
    }
    let mixtral = [
        "--model-kind",
        "moe",
        "--requests",
        "16",
        // The warm-up of some versions runs so many tokens; more choices than those of 1,023 are not all read.
        "--max-num-batched-tokens",
        "512",
    ];
    if let Some((run, session, _)) = check(&vllm::version(), &mixtral) {
        assert_experts_equal(&run, &session);
    }
}

/// The driver stays a moment after its requests, in which the last sums are told.
const SAMPLED: [&str; 6] = ["--model-kind", "moe", "--requests", "16", "--hold", "4"];

/// The Python whose vLLM's routers are sampled, if they are to be.
fn with_routers() -> Option<std::path::PathBuf> {
    let wanted = root() && vllm::is_current("the routers of others are the same");
    wanted.then(|| vllm::python(&vllm::version())).flatten()
}

#[test]
fn every_choice_that_the_waiting_helper_counts_equals_the_reference() {
    let Some(python) = with_routers() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let site = folder.path().join("site-packages");
    std::fs::create_dir(&site).unwrap();
    let installed = Command::new(binary())
        .args(["helper", "install", "--way", "plugin", "--into"])
        .arg(&site)
        .status()
        .expect("profilemate runs");
    assert!(installed.success());
    let mut command = Command::new(&python);
    command.env("PYTHONPATH", &site);
    let driver = vllm::start_from(command, "driver.py", folder.path(), &SAMPLED);
    let output = folder.path().join("sessions");
    let more = ["--moe-sample", "1"];
    let mut tracer = tracer(driver.pid(), &output, folder.path(), &more);
    let run = driver.finish();
    let code = tracer.wait(Duration::from_secs(180));
    assert_eq!(code, 0, "{}", tracer_log(folder.path()));
    let session = Session::only(&output);
    assert_samples_equal(&run, &session, 1);
    assert_eq!(assert_ledger_exact(&session), 0);
    let coverage = &session.metadata["tables"]["moe_expert_selection"]["coverage"];
    assert_eq!(coverage["status"], "observed", "{coverage}");
}

#[test]
fn every_fourth_choice_of_a_started_command_equals_the_reference() {
    let Some(python) = with_routers() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("sessions");
    let mut command = Command::new(binary());
    command
        .args(["-v", "trace", "--strict", "--moe-sample", "4", "--output"])
        .arg(&output)
        .arg("--")
        .arg(&python);
    let run = vllm::start_from(command, "driver.py", folder.path(), &SAMPLED).finish();
    let session = Session::only(&output);
    assert_samples_equal(&run, &session, 4);
    let coverage = &session.metadata["tables"]["moe_expert_selection"]["coverage"];
    assert_eq!(coverage["status"], "partial", "{coverage}");
    let reason = coverage["reason"].as_str().unwrap();
    assert!(reason.contains("--moe-sample"), "{reason}");
}

/// In how many processes methods are bound, by a tracer's log.
fn processes_bound(log: &str) -> usize {
    let bound = log.lines().filter(|line| line.ends_with(" methods bound"));
    let pids: BTreeSet<&str> = bound.filter_map(|line| line.split(':').nth(1)).collect();
    pids.len()
}

#[test]
fn every_second_choice_from_the_late_start_of_a_helper_on_equals_the_reference() {
    let Some(python) = with_routers() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ready, stop) = (folder.path().join("ready"), folder.path().join("stop"));
    let mut arguments = SAMPLED.to_vec();
    arguments.extend(["--rounds", "1000", "--max-tokens", "100"]);
    arguments.extend(["--ready-file", ready.to_str().unwrap()]);
    arguments.extend(["--stop-file", stop.to_str().unwrap()]);
    let driver = vllm::start(&python, folder.path(), &arguments);
    profilemate_tests::wait_for("the engine", Duration::from_secs(200), || ready.exists());
    let output = folder.path().join("sessions");
    let more = ["--moe-sample", "2", "--touch", "helper"];
    let mut tracer = tracer(driver.pid(), &output, folder.path(), &more);
    profilemate_tests::wait_for(
        "front end, engine, worker",
        Duration::from_secs(100),
        || processes_bound(&tracer_log(folder.path())) == 3,
    );
    std::thread::sleep(Duration::from_secs(2));
    std::fs::write(&stop, "").unwrap();
    let run = driver.finish();
    let code = tracer.wait(Duration::from_secs(180));
    let log = tracer_log(folder.path());
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("the helper was started in it"), "{log}");
    let session = Session::only(&output);
    assert_late_samples_equal(&run, &session, 2);
    assert_eq!(assert_ledger_exact(&session), 0);
}

#[test]
fn slots_of_experts_that_were_rearranged_are_counted_on_the_real_router() {
    if !vllm::is_current("the routers of others are the same") {
        return;
    }
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let done = Command::new(python)
        .arg(format!("{folder}/tests/vllm/eplb.py"))
        .env("PYTHONPATH", format!("{folder}/python/profilemate_helper"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    let told = text.lines().rev().find(|line| line.starts_with('{'));
    let told = told.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&done.stderr)));
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert_eq!(told["failure"], serde_json::Value::Null);
    assert_eq!(told["told"], told["truth"]);
    assert_eq!(told["owners"], told["true_owners"]);
}

#[test]
fn an_older_mixture_of_experts_with_a_monolithic_kernel_equals_the_reference() {
    let qwen = [
        "--model-kind",
        "qwenmoe",
        "--requests",
        "12",
        "--max-num-batched-tokens",
        "512",
    ];
    if let Some((run, session, _)) = check("0.17.1", &qwen) {
        assert_experts_equal(&run, &session);
    }
}

#[test]
fn chunked_prefill_equals_the_reference() {
    let chunked = [
        "--requests",
        "6",
        "--prompt-len",
        "200",
        "--max-tokens",
        "8",
        "--max-num-batched-tokens",
        "64",
    ];
    let Some((_, session, _)) = check(&vllm::version(), &chunked) else {
        return;
    };
    let rows = session.rows("batch_utilization");
    assert!(
        rows.iter()
            .any(|row| row["phase"] == "prefill" && row["num_tokens"] == "64")
    );
}

#[test]
fn the_server_under_concurrent_requests_equals_the_reference() {
    check(
        &vllm::version(),
        &[
            "--serve",
            "--port",
            "0",
            "--requests",
            "20",
            "--concurrency",
            "8",
        ],
    );
}

#[test]
fn the_second_model_runner_equals_the_reference() {
    if !vllm::is_current("the second model runner was never run on the CPU with another version") {
        return;
    }
    check(
        &vllm::version(),
        &["--mrv2-interpret", "--requests", "6", "--max-tokens", "12"],
    );
}

#[test]
fn an_older_vllm_with_the_worker_in_the_engine_equals_the_reference() {
    if !vllm::is_current("the other tests run on an older one") {
        return;
    }
    let pressure = [
        "--requests",
        "24",
        "--max-tokens",
        "120",
        "--prompt-len",
        "40",
        "--num-gpu-blocks",
        "24",
        "--max-num-seqs",
        "8",
    ];
    check("0.17.1", &pressure);
}

#[test]
fn attached_in_mid_run_no_step_is_missing_from_the_first_full_one_on() {
    if !root() {
        return;
    }
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ready = folder.path().join("ready");
    let driver = vllm::start(
        &python,
        folder.path(),
        &[
            "--requests",
            "48",
            "--max-tokens",
            "400",
            "--rounds",
            "8",
            "--ready-file",
            ready.to_str().unwrap(),
        ],
    );
    profilemate_tests::wait_for("the engine", Duration::from_secs(200), || ready.exists());
    assert_doctor_approves(driver.pid());
    let output = folder.path().join("sessions");
    let mut tracer = tracer(driver.pid(), &output, folder.path(), &[]);
    let run = driver.finish();
    assert_eq!(
        tracer.wait(Duration::from_secs(180)),
        0,
        "{}",
        tracer_log(folder.path())
    );
    let session = Session::only(&output);
    let steps = assert_steps_equal(&run, &session, true);
    let all = run.events("schedule").len();
    assert!(
        steps < all && steps > all / 10,
        "attached in mid-run: {steps} of {all} steps"
    );
    assert_eq!(assert_ledger_exact(&session), 0);
}

#[test]
fn output_tokens_are_the_same_with_and_without_tracing() {
    let arguments = [
        "--requests",
        "24",
        "--max-tokens",
        "120",
        "--prompt-len",
        "40",
        "--num-gpu-blocks",
        "24",
        "--max-num-seqs",
        "8",
    ];
    let Some((traced, _)) = vllm::traced(&vllm::version(), "driver.py", &arguments) else {
        return;
    };
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let untraced = vllm::start(&python, folder.path(), &arguments).finish();
    assert!(
        traced.result["output_sha256"]
            .as_str()
            .is_some_and(|digest| digest.len() == 64)
    );
    assert_eq!(
        traced.result["output_sha256"],
        untraced.result["output_sha256"]
    );
}

/// How many cycles are made on the real server; `PROFILEMATE_SERVER_CYCLES=200` for the long run.
fn cycles() -> u32 {
    count_from("PROFILEMATE_SERVER_CYCLES", 5)
}

#[test]
fn attaching_and_detaching_under_load_harms_nothing() {
    if !root() {
        return;
    }
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ready = folder.path().join("ready");
    // More than are needed: it ends when it is told to.
    let rounds = (100 + 20 * cycles()).to_string();
    let stop = folder.path().join("stop");
    let arguments = [
        "--requests",
        "32",
        "--max-tokens",
        "300",
        "--rounds",
        &rounds,
        "--stop-file",
        stop.to_str().unwrap(),
        "--ready-file",
        ready.to_str().unwrap(),
    ];
    let driver = vllm::start(&python, folder.path(), &arguments);
    profilemate_tests::wait_for("the engine", Duration::from_secs(200), || ready.exists());
    let (mut made, mut longest) = (0, 0);
    while made < cycles() {
        let output = folder.path().join(format!("cycle{made}"));
        let traced = Command::new(binary())
            .args([
                "-vv",
                "trace",
                "--pid",
                &driver.pid().to_string(),
                "--duration",
                "300ms",
                "--output",
            ])
            .arg(&output)
            .output()
            .expect("profilemate runs");
        let log = String::from_utf8_lossy(&traced.stderr).into_owned();
        assert_eq!(traced.status.code(), Some(0), "cycle {made}: {log}");
        assert!(log.contains("pointers put back"), "cycle {made}: {log}");
        longest = longest.max(profilemate_tests::longest_stop_us(&log));
        std::fs::remove_dir_all(&output).expect("a session folder");
        made += 1;
    }
    println!("{made} cycles, longest stop of a thread {longest} us");
    std::fs::write(&stop, "").expect("a file in a temporary folder");
    let run = driver.finish();
    assert_eq!(run.result["ok"], true, "{}", run.result);
}
