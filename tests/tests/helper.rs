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
use profilemate_tests::{Guard, Session, assert_ledger_exact, binary, root, vllm, wait_for};

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
    let Some(python) = demo::python("3.11") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, folder.path(), 30, &[]);
    // Nothing is started in it unless that is asked for.
    let looked = profilemate(&["trace", "--dry-run", "--pid", &target.pid().to_string()]);
    let plan = stdout(&looked);
    for way in ["helper install", "--touch helper --pid"] {
        assert!(plan.contains(way), "{looked:?}");
    }
    let told = profilemate(&["helper", "status", "--pid", &target.pid().to_string()]);
    assert_eq!(told.status.code(), Some(4));
    assert!(stdout(&told).contains("not installed"), "{told:?}");
}

/// A demo target that nothing was prepared for, and what `--touch helper --pid` makes of it: started, traced as any
/// other, put back, and there for the next tracer.
fn assert_started_late(python: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(python, folder.path(), 30, &["--no-gap"]);
    let pid = target.pid().to_string();
    let looked = profilemate(&["trace", "--touch", "helper", "--dry-run", "--pid", &pid]);
    let plan = stdout(&looked);
    assert!(
        plan.contains("`_PyEval_EvalFrameDefault` (0x")
            && plan.contains("`PyRun_SimpleString` (0x"),
        "{looked:?}"
    );
    assert_eq!(
        states(target.pid()),
        [] as [String; 0],
        "a look changes nothing"
    );
    let traced = |name: &str, more: &[&str]| {
        let output = folder.path().join(name);
        let done = tracer(target.pid(), &output, more).output().unwrap();
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{}: {log}", python.display());
        (Session::only(&output), log)
    };
    let options = ["--touch", "helper", "--duration", "3s"];
    let (first, log) = traced("first", &options);
    assert_eq!(
        log.matches("the helper was started in it").count(),
        2,
        "{log}"
    );
    wait_for(
        "the methods to be as they were",
        Duration::from_secs(10),
        || {
            let states = states(target.pid());
            states.len() == 2 && states.iter().all(|state| state == "waiting")
        },
    );
    // The next one finds it waiting.
    let (last, log) = traced("last", &options);
    assert!(!log.contains("the helper was started in it"), "{log}");
    let truth = demo::truth(&folder.path().join("truth.jsonl"));
    for session in [first, last] {
        assert!(assert_steps_are_a_run_of(&session, &truth) > 50);
        for table in [
            "kv_cache_usage",
            "forward_pass_timing",
            "cpu_operations_timing",
            "request_lifecycle",
            "preemption_events",
        ] {
            assert!(
                !session.rows(table).is_empty(),
                "{table}: {}",
                session.metadata
            );
        }
    }
    target.finish(Duration::from_secs(90));
}

#[test]
fn the_helper_is_started_in_a_running_python_3_11_if_that_is_asked_for() {
    if !root() {
        return;
    }
    if let Some(python) = demo::python("3.11") {
        assert_started_late(&python);
    }
}

#[test]
fn what_forbids_the_helper_in_a_process_is_told_and_nothing_is_done() {
    if !root() {
        return;
    }
    let Some(python) = demo::python("3.11") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = format!("VLLM_ENABLE_PROFILING=0 exec {} \"$@\"\n", python.display());
    let wrapper = folder.path().join("python");
    std::fs::write(&wrapper, format!("#!/bin/sh\n{script}")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).unwrap();
    let target = demo::start(&wrapper, folder.path(), 30, &[]);
    let output = folder.path().join("sessions");
    let options = ["--touch", "helper", "--duration", "1s"];
    let done = tracer(target.pid(), &output, &options).output().unwrap();
    let log = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(6), "{log}");
    assert!(log.contains("VLLM_ENABLE_PROFILING=0"), "{log}");
    assert_eq!(states(target.pid()), [] as [String; 0]);
}

/// Whether a helper waits in a Python that is started so and imports a package named `vllm`.
fn reached(command: &mut Command) -> bool {
    const PROGRAM: &str = "import sys, time\nsys.path.insert(0, sys.argv[1])\nimport vllm\nprint('there', flush=True)\n\
                           sys.stdin.read()";
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("vllm")).unwrap();
    std::fs::write(folder.path().join("vllm/__init__.py"), "").unwrap();
    let mut child = command
        .args(["-c", PROGRAM])
        .arg(folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut replies = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut replies, &mut line).unwrap();
    let states = states(child.id());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{command:?}");
    assert_eq!(line, "there\n");
    states == ["waiting"]
}

#[test]
fn a_pth_line_in_an_environment_and_a_sitecustomize_lead_to_a_helper_that_waits() {
    for minor in ["3.11", "3.13"] {
        let Some(python) = demo::python(minor) else {
            continue;
        };
        let folder = tempfile::tempdir().unwrap();
        let environment = folder.path().join("venv");
        let made = Command::new(&python)
            .args(["-m", "venv", "--without-pip"])
            .arg(&environment)
            .status()
            .unwrap();
        assert!(made.success());
        let own = environment.join("bin/python");
        let run = |flags: &[&str]| {
            let mut command = Command::new(&own);
            command.args(flags).env_remove("PYTHONPATH");
            command
        };
        assert!(!reached(&mut run(&[])), "{minor}: not installed yet");
        let path = environment.to_str().unwrap();
        let installed = profilemate(&["helper", "install", "--way", "pth", "--into", path]);
        assert_eq!(installed.status.code(), Some(0), "{installed:?}");
        for (flags, there) in [
            (vec![], true),
            (vec!["-E"], true),
            (vec!["-I"], true),
            (vec!["-S"], false),
        ] {
            assert_eq!(
                reached(&mut run(&flags)),
                there,
                "`.pth` line, {minor} {flags:?}"
            );
        }
        let removed = profilemate(&["helper", "remove", "--from", path]);
        assert_eq!(removed.status.code(), Some(0), "{removed:?}");
        assert!(!reached(&mut run(&[])), "{minor}: removed");

        let layout = folder.path().join("layout");
        profilemate::helper::install::lay_out(&layout).unwrap();
        for (flags, there) in [
            (vec![], true),
            (vec!["-E"], false),
            (vec!["-I"], false),
            (vec!["-S"], false),
        ] {
            let mut command = run(&flags);
            command.env("PYTHONPATH", &layout);
            assert_eq!(
                reached(&mut command),
                there,
                "PYTHONPATH, {minor} {flags:?}"
            );
        }
    }
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

#[test]
fn vllms_own_entry_point_leads_to_a_helper_that_waits() {
    const PROGRAM: &str = "\
import importlib, os, sys
from vllm.plugins import load_plugins_by_group
def waits():
    for name in os.listdir('/proc/self/fd'):
        try:
            if 'memfd:profilemate-helper' in os.readlink('/proc/self/fd/' + name): return True
        except OSError: pass
    return False
group = 'vllm.general_plugins'
os.environ['VLLM_PLUGINS'] = 'another'
assert 'profilemate' not in load_plugins_by_group(group)
os.environ['VLLM_PLUGINS'] = 'profilemate'
plugin = load_plugins_by_group(group)['profilemate']
print(waits())
plugin()
print(waits())
";
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site-packages");
    std::fs::create_dir(&site).unwrap();
    let installed = Command::new(binary())
        .args(["helper", "install", "--way", "plugin", "--into"])
        .arg(&site)
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let done = Command::new(python)
        .args(["-c", PROGRAM])
        .env("PYTHONPATH", &site)
        .env("VLLM_LOGGING_LEVEL", "ERROR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.ends_with("False\nTrue\n"), "{done:?}");
}

#[test]
fn the_helper_is_started_in_a_server_under_load() {
    if !root() || !vllm::is_current("once is enough") {
        return;
    }
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (ready, stop) = (folder.path().join("ready"), folder.path().join("stop"));
    let arguments = [
        "--requests",
        "16",
        "--max-tokens",
        "300",
        "--rounds",
        "100",
        "--stop-file",
        stop.to_str().unwrap(),
        "--ready-file",
        ready.to_str().unwrap(),
    ];
    let driver = vllm::start(&python, folder.path(), &arguments);
    wait_for("the engine", Duration::from_secs(200), || ready.exists());
    for round in 0..3 {
        let output = folder.path().join(format!("round{round}"));
        let traced = Command::new(binary())
            .args(["-v", "trace", "--touch", "helper", "--duration", "3s"])
            .args(["--pid", &driver.pid().to_string(), "--output"])
            .arg(&output)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&traced.stderr).into_owned();
        assert_eq!(traced.status.code(), Some(0), "round {round}: {log}");
        let started = log.matches("the helper was started in it").count();
        // In the engine, the worker, and the front end that turns tokens into text.
        let right = if round == 0 {
            started >= 2
        } else {
            started == 0
        };
        assert!(right, "round {round}: {log}");
        let session = Session::only(&output);
        for table in [
            "batch_utilization",
            "kv_cache_usage",
            "forward_pass_timing",
            "cpu_operations_timing",
        ] {
            assert!(
                !session.rows(table).is_empty(),
                "{table}: {}",
                session.metadata
            );
        }
        assert_ledger_exact(&session);
    }
    std::fs::write(&stop, "").unwrap();
    let run = driver.finish();
    assert_eq!(run.result["ok"], true, "{}", run.result);
}
