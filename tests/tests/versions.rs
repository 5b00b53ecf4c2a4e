//! vLLM versions that the catalogue was not written for, made of the stand-in server.
#![expect(
    clippy::unwrap_used,
    reason = "a test says by panicking what is not as it should be"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, Session, assert_ledger_exact, binary, demo, wait_for};

/// A copy of the stand-in server that says it is `version`.
fn stand_in(folder: &Path, version: &str) -> PathBuf {
    let copy = folder.join("server");
    let copied = Command::new("cp")
        .args(["-r", demo::FOLDER])
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    std::fs::write(
        copy.join("vllm/version.py"),
        format!("__version__ = \"{version}\"\n__version_tuple__ = (0,)\n"),
    )
    .unwrap();
    copy
}

/// Replaces `old` everywhere in a file of the server.
fn change(server: &Path, file: &str, old: &str, new: &str) {
    let path = server.join("vllm").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{file} has no `{old}`");
    std::fs::write(path, text.replace(old, new)).unwrap();
}

/// The server, running.
fn start(python: &Path, server: &Path, folder: &Path) -> Guard {
    let ready = folder.join("ready");
    let log = std::fs::File::create(folder.join("server.log")).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-B", "-m", "profilemate_demo", "--seconds", "60"])
        .arg("--ready-file")
        .arg(&ready)
        .env("PYTHONPATH", server)
        .stdout(log.try_clone().unwrap())
        .stderr(Stdio::from(log));
    let guard = Guard::start(&mut command);
    wait_for("the server", Duration::from_secs(60), || ready.exists());
    guard
}

fn trace(guard: &Guard, folder: &Path, more: &[&str]) -> (Output, String) {
    let output = Command::new(binary())
        .args(["-v", "trace", "--duration", "3s", "--pid"])
        .arg(guard.pid().to_string())
        .arg("--output")
        .arg(folder.join("sessions"))
        .args(more)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, told)
}

#[test]
fn of_a_newer_vllm_what_checks_out_is_traced_and_what_does_not_is_named() {
    let Some(python) = demo::newest_probed_python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = stand_in(folder.path(), "0.99.0");
    let scheduler = "v1/core/sched/scheduler.py";
    change(&server, scheduler, "_preempt_request", "_suspend_request");
    change(&server, scheduler, "max_num_running_reqs", "most_requests");
    change(
        &server,
        "v1/core/block_pool.py",
        "_maybe_evict_cached_block(self, block: KVCacheBlock) -> bool:\n",
        "_maybe_evict_cached_block(self, victim: KVCacheBlock) -> bool:\n        block = victim\n",
    );
    let guard = start(&python, &server, folder.path());
    let (output, told) = trace(&guard, folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("0.99.0 is newer than the catalogue"),
        "{told}"
    );
    let session = Session::only(&folder.path().join("sessions"));
    assert_eq!(assert_ledger_exact(&session), 0);
    let coverage = |table: &str| session.metadata["tables"][table]["coverage"].clone();
    let reason = |table: &str| {
        coverage(table)["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    for table in [
        "batch_utilization",
        "kv_cache_usage",
        "preemption_events",
        "cpu_operations_timing",
        "forward_pass_timing",
    ] {
        assert!(!session.rows(table).is_empty(), "{table}: {told}");
        assert_eq!(coverage(table)["status"], "partial", "{table}");
        assert!(
            reason(table).contains("newer than the catalogue"),
            "{}",
            reason(table)
        );
    }
    assert!(
        reason("preemption_events").contains("_preempt_request"),
        "{}",
        reason("preemption_events")
    );
    assert!(
        reason("batch_utilization").contains("max_num_running_reqs"),
        "{}",
        reason("batch_utilization")
    );
    assert!(!reason("kv_cache_evictions").contains("_preempt_request"));
    assert!(
        reason("kv_cache_evictions").contains("no argument"),
        "{}",
        reason("kv_cache_evictions")
    );
    for row in session.rows("batch_utilization") {
        assert!(
            row["max_num_seqs"].is_empty() && !row["num_tokens"].is_empty(),
            "{row:?}"
        );
    }
}

#[test]
fn of_a_known_vllm_that_was_changed_the_field_that_does_not_fit_is_named() {
    let Some(python) = demo::newest_probed_python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = stand_in(folder.path(), "0.32.0");
    let scheduler = "v1/core/sched/scheduler.py";
    change(&server, scheduler, "max_num_running_reqs", "most_requests");
    let guard = start(&python, &server, folder.path());
    let (output, told) = trace(&guard, folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let session = Session::only(&folder.path().join("sessions"));
    assert_eq!(assert_ledger_exact(&session), 0);
    let coverage = &session.metadata["tables"]["batch_utilization"]["coverage"];
    assert_eq!(coverage["status"], "partial", "{coverage}");
    let reason = coverage["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("`max_seqs` of `scheduler.schedule` (self.max_num_running_reqs)")
            && reason.matches("is not read").count() == 1,
        "a queue by priority is optional: {reason}"
    );
    for row in session.rows("batch_utilization") {
        assert!(
            row["max_num_seqs"].is_empty() && !row["num_tokens"].is_empty(),
            "{row:?}"
        );
    }
    let evictions = &session.metadata["tables"]["kv_cache_evictions"]["coverage"];
    assert_eq!(evictions["status"], "observed", "{evictions}");
}

#[test]
fn an_older_vllm_is_refused_unless_it_is_said_what_to_take_it_for() {
    let Some(python) = demo::newest_probed_python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = stand_in(folder.path(), "0.8.4");
    let guard = start(&python, &server, folder.path());
    let (output, told) = trace(&guard, folder.path(), &[]);
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(
        told.contains("0.8.4") && told.contains("--assume-vllm"),
        "{told}"
    );
    std::fs::remove_dir_all(folder.path().join("sessions")).unwrap();
    let (output, told) = trace(&guard, folder.path(), &["--assume-vllm", "0.32.0"]);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let session = Session::only(&folder.path().join("sessions"));
    assert!(!session.rows("batch_utilization").is_empty());
    let reason = session.metadata["tables"]["batch_utilization"]["coverage"]["reason"].clone();
    assert!(
        reason
            .as_str()
            .is_some_and(|reason| reason.contains("taken for 0.32.0")),
        "{reason}"
    );
}
