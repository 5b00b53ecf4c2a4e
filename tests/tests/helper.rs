//! The resident helper: a server that was started with it is traced later, on any Python, with nothing written into it
//! from outside.
#![expect(
    clippy::unwrap_used,
    reason = "a test says by panicking what is not as it should be"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use profilemate_tests::demo::{self, assert_steps_are_a_run_of};
use profilemate_tests::{Guard, Session, binary, root, wait_for};

fn profilemate(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A `site-packages` folder with the helper in it.
fn site(folder: &Path) -> PathBuf {
    let site = folder.join("site-packages");
    std::fs::create_dir(&site).unwrap();
    let installed = profilemate(&["helper", "install", "--into", site.to_str().unwrap()]);
    assert_eq!(installed.status.code(), Some(0), "{installed:?}");
    site
}

/// The states of the helpers in a process and its children.
fn states(pid: u32) -> Vec<String> {
    let told = profilemate(&["helper", "status", "--pid", &pid.to_string()]);
    stdout(&told)
        .lines()
        .filter_map(|line| {
            let state: serde_json::Value = serde_json::from_str(line).unwrap();
            state["state"].as_str().map(str::to_owned)
        })
        .collect()
}

fn waits(pid: u32) -> bool {
    let states = states(pid);
    states.len() >= 3 && states.iter().all(|state| state == "waiting")
}

fn tracer(pid: u32, output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["-v", "trace", "--pid", &pid.to_string(), "--output"])
        .arg(output)
        .args(more);
    command
}

/// Starts the demo target of a Python with the helper, traces it twice with a killed tracer in between.
fn assert_served(python: &Path, options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path());
    // A `.pth` line works in site-packages only; the folder on PYTHONPATH is brought to life by a sitecustomize.
    std::fs::write(
        site.join("sitecustomize.py"),
        "import site, os; site.addsitedir(os.path.dirname(__file__))\n",
    )
    .unwrap();
    let target = demo::start_with(python, folder.path(), 60, &["--no-gap"], &[&site]);
    wait_for("the helper", Duration::from_secs(20), || {
        waits(target.pid())
    });
    let traced = |name: &str| {
        let output = folder.path().join(name);
        let mut options = options.to_vec();
        options.extend(["--duration", "2s"]);
        let done = tracer(target.pid(), &output, &options).output().unwrap();
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{}: {log}", python.display());
        assert!(
            !log.contains("one thread stood"),
            "nothing is mapped from outside: {log}"
        );
        Session::only(&output)
    };
    let first = traced("first");
    wait_for(
        "the methods to be as they were",
        Duration::from_secs(10),
        || waits(target.pid()),
    );
    let killed = folder.path().join("killed");
    let mut tracer = Guard::start(&mut tracer(target.pid(), &killed, options));
    wait_for("the methods to be bound", Duration::from_secs(30), || {
        states(target.pid()).iter().any(|state| state == "bound")
    });
    tracer.signal(9);
    tracer.wait(Duration::from_secs(10));
    wait_for(
        "the methods to be as they were",
        Duration::from_secs(10),
        || waits(target.pid()),
    );
    let last = traced("last");
    let truth = demo::truth(&folder.path().join("truth.jsonl"));
    for session in [first, last] {
        assert!(
            assert_steps_are_a_run_of(&session, &truth) > 50,
            "{}: {}",
            python.display(),
            session.metadata
        );
        assert!(
            session
                .metadata
                .to_string()
                .contains("\"technique\":\"helper\"")
        );
    }
}

#[test]
fn a_running_python_3_11_is_traced_through_the_helper_that_waits_in_it() {
    if !root() {
        return;
    }
    if let Some(python) = demo::python("3.11") {
        assert_served(&python, &[]);
    }
}

#[test]
fn the_helper_that_waits_serves_the_other_pythons_where_it_is_asked_for() {
    if !root() {
        return;
    }
    for python in demo::probed_pythons() {
        assert_served(&python, &["--touch", "helper"]);
    }
}

#[test]
fn a_process_without_the_helper_is_told_how_to_get_it() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, folder.path(), 30, &[]);
    let output = folder.path().join("sessions");
    let done = tracer(
        target.pid(),
        &output,
        &["--touch", "helper", "--duration", "1s"],
    )
    .output()
    .unwrap();
    let log = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(5), "{log}");
    assert!(log.contains("profilemate helper install"), "{log}");
    let told = profilemate(&["helper", "status", "--pid", &target.pid().to_string()]);
    assert_eq!(told.status.code(), Some(4));
    assert!(stdout(&told).contains("not installed"), "{told:?}");
}

#[test]
fn what_was_installed_is_told_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path());
    let path = site.to_str().unwrap();
    let told = profilemate(&["helper", "status", "--in", path]);
    assert_eq!(told.status.code(), Some(0));
    assert!(stdout(&told).contains("vLLM plugin"), "{told:?}");
    let removed = profilemate(&["helper", "remove", "--from", path]);
    assert_eq!(removed.status.code(), Some(0), "{removed:?}");
    assert_eq!(std::fs::read_dir(&site).unwrap().count(), 0);
    let again = profilemate(&["helper", "remove", "--from", path]);
    assert_eq!(again.status.code(), Some(4));
}
