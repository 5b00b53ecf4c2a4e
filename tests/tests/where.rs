//! `profilemate where`: the stacks that it shows are those that a target is known to be in.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, binary, cuda, demo, root, wait_for};
use serde_json::Value;

fn stacks(pid: u32) -> Value {
    let output = Command::new(binary())
        .args(["where", "--json", "--watch", "20ms"])
        .args(["--pid", &pid.to_string()])
        .output()
        .expect("profilemate runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_thread_of_a_stuck_program_is_where_it_is_known_to_be() {
    if !root() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/stuck.py");
    for minor in ["3.10", "3.11", "3.12", "3.13"] {
        let Some(python) = demo::python(minor) else {
            continue;
        };
        let mut target = Guard::start(Command::new(python).arg(script).stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(target.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let line: u64 = line.trim().trim_start_matches("line ").parse().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let found = stacks(target.pid());
        let threads = found[0]["threads"]
            .as_array()
            .unwrap_or_else(|| panic!("{minor}: {found:#}"));
        assert_eq!(threads.len(), 2, "{minor}: {found:#}");
        let names = |thread: &Value| -> Vec<String> {
            let frames = thread["frames"].as_array().unwrap();
            frames
                .iter()
                .map(|frame| frame["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let main = threads
            .iter()
            .find(|thread| names(thread).iter().any(|name| name.ends_with("serve")))
            .unwrap();
        let class = if minor == "3.10" { "" } else { "Server." };
        let (wait, serve) = (format!("{class}wait"), format!("{class}serve"));
        let expected = [wait.as_str(), &serve, &serve, &serve, "main", "<module>"];
        assert_eq!(names(main), expected, "{minor}");
        assert_eq!(main["frames"][0]["line"], line, "{minor}: {main:#}");
        assert_eq!(main["steady"], true, "{minor}");
        assert!(
            main["frames"][0]["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("stuck.py"))
        );
        if minor != "3.10" {
            assert_eq!(main["tid"], target.pid(), "{minor}");
            assert!(
                main["state"]
                    .as_str()
                    .is_some_and(|state| state.starts_with('S')),
                "{main:#}"
            );
        }
        let other = threads
            .iter()
            .find(|thread| names(thread).contains(&"other".to_owned()))
            .unwrap();
        assert!(names(other)[0].ends_with("wait"), "{minor}: {other:#}");
    }
}

#[test]
fn a_busy_engine_is_read_while_it_runs_and_is_not_disturbed() {
    let Some(stage) = demo::Stage::set("3.12", 15, &[]) else {
        return;
    };
    let mut methods = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let found = stacks(stage.demo.pid());
        let threads = found
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|process| process["threads"].as_array())
            .flatten();
        methods.extend(threads.filter_map(|thread| thread["method"].as_str().map(str::to_owned)));
    }
    assert!(
        !methods.is_empty(),
        "no method of the catalogue was met in 20 looks"
    );
    // It ended well, and what it computed is right: nothing was stopped or changed.
    assert!(!stage.demo.finish(Duration::from_secs(60)).is_empty());
}

#[test]
fn what_is_not_python_is_said_to_be_none() {
    if !root() {
        return;
    }
    let sleep = Guard::start(Command::new("sleep").arg("60"));
    let output = Command::new(binary())
        .args(["where", "--pid", &sleep.pid().to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no Python stack"));
}

/// A thread that has this function in its frames.
fn thread_in<'a>(process: &'a Value, function: &str) -> &'a Value {
    let is_in = |thread: &&Value| {
        let frames = thread["frames"].as_array().into_iter().flatten();
        frames
            .filter_map(|frame| frame["name"].as_str())
            .any(|name| name.rsplit('.').next() == Some(function))
    };
    let threads = process["threads"].as_array().into_iter().flatten();
    threads
        .into_iter()
        .find(is_in)
        .unwrap_or_else(|| panic!("no thread in {function}: {process:#}"))
}

/// A server whose engine waits for a worker that waits for the GPU, once it is told to go on.
struct Wedged {
    target: Guard,
    worker: u32,
    folder: tempfile::TempDir,
}

impl Wedged {
    fn start(python: &std::path::Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // As the real driver: no symbols but those that it exports, and these only lead on.
        let library = folder.path().join("libcuda.so.1");
        cuda::variant(&library, &["-fno-optimize-sibling-calls", "-Wl,-s"]);
        let mut target = Guard(
            Command::new(python)
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/targets/wedged.py"))
                .arg(&library)
                .env("FAKE_CUDA_SYNC_US", "600000000")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = String::new();
        BufReader::new(target.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            worker: line.trim().trim_start_matches("ready ").parse().unwrap(),
            target,
            folder,
        }
    }

    /// A tracer whose probes are in place.
    fn traced(&self) -> Guard {
        let log = self.folder.path().join("log");
        let tracer = Guard::start(
            Command::new(binary())
                .args(["trace", "--touch", "none", "-v", "--pid"])
                .arg(self.target.pid().to_string())
                .arg("--output")
                .arg(self.folder.path().join("sessions"))
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&log).unwrap()),
        );
        wait_for("the driver's probes", Duration::from_secs(60), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("driver functions of"))
        });
        tracer
    }
}

/// The process `pid` of a report.
fn of(found: &Value, pid: u32) -> &Value {
    let mut all = found.as_array().unwrap().iter();
    all.find(|process| process["pid"] == pid)
        .unwrap_or_else(|| panic!("process {pid} in {found:#}"))
}

#[test]
fn of_a_wedged_server_it_is_told_what_waits_for_what_and_since_when() {
    let Some(python) = demo::python("3.12").filter(|_| root()) else {
        return;
    };
    let mut server = Wedged::start(&python);
    let before = stacks(server.target.pid());
    let before = of(&before, server.worker);
    assert!(before["last_graph_launch"].is_null(), "{before:#}");
    assert!(
        before["last_graph_launch_unknown"]
            .as_str()
            .is_some_and(|why| why.contains("tracer")),
        "{before:#}"
    );
    let tracer = server.traced();
    drop(server.target.0.stdin.take());
    let mut found = Value::Null;
    wait_for("launch and standstill", Duration::from_secs(60), || {
        found = stacks(server.target.pid());
        let worker = of(&found, server.worker);
        !worker["last_graph_launch"].is_null()
            && thread_in(worker, "worker_busy_loop")["waits_for"] == "gpu"
    });
    let engine = of(&found, server.target.pid());
    assert_eq!(engine["role"], "engine_core");
    let waits = thread_in(engine, "collective_rpc");
    assert_eq!(waits["waits_for"], "workers", "{waits:#}");
    assert_eq!(waits["moved"], false, "{waits:#}");
    assert_stuck(of(&found, server.worker), tracer.pid());
    let told = found[0]["conclusions"].to_string();
    for words in [
        "EngineCore",
        "its workers",
        "cuStreamSynchronize",
        "nvidia-smi",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
}

/// The worker waits in a synchronise, and its other threads do what they do.
fn assert_stuck(worker: &Value, tracer: u32) {
    let stuck = thread_in(worker, "worker_busy_loop");
    assert_eq!(stuck["method"], "runner.execute_model", "{stuck:#}");
    let least = stuck["methods"][0]["at_least_sec"].as_f64();
    assert!(least.is_some_and(|seconds| seconds >= 0.02), "{stuck:#}");
    let native = stuck["native"].as_array().unwrap();
    assert!(
        native.iter().any(
            |found| found["library"] == "libcuda" && found["function"] == "cuStreamSynchronize"
        ),
        "{stuck:#}"
    );
    assert_eq!(worker["last_graph_launch"]["tracer"], tracer);
    assert_eq!(worker["last_graph_launch"]["tid"], worker["pid"]);
    let spins = thread_in(worker, "spin");
    assert_eq!(spins["moved"], true, "{spins:#}");
    assert!(spins["still_for_sec"].is_null() && spins["waits_for"].is_null());
}

#[test]
fn a_target_that_ends_while_it_is_looked_at_ends_the_look_too() {
    let Some(stage) = demo::Stage::set("3.12", 30, &[]) else {
        return;
    };
    let look = Command::new(binary())
        .args(["where", "--watch", "2s", "--json", "--pid", &stage.pid()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    drop(stage);
    let output = look.wait_with_output().unwrap();
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|found| found.is_array()));
}

#[test]
fn unnamed_functions_of_nvidia_s_driver_are_named_by_the_exports_that_lead_to_them() {
    let Some(python) = demo::python("3.12") else {
        return;
    };
    if !root() {
        return;
    }
    let script = "\
import ctypes, struct, sys, time
library = ctypes.CDLL(sys.argv[1])
for name in sys.argv[2:]:
    at = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    code = ctypes.string_at(at, 32)
    jump = code.index(b'\\xff\\x25')
    leads_to = at + jump + 6 + struct.unpack('<i', code[jump + 2:jump + 6])[0]
    print(name, ctypes.c_uint64.from_address(leads_to).value, flush=True)
print(flush=True)
time.sleep(120)";
    let names = ["cuStreamSynchronize", "cuEventSynchronize", "cuGraphLaunch"];
    for version in ["libcuda-535", "libcuda-550"] {
        let Some(library) = cuda::real(version) else {
            continue;
        };
        let mut target = Guard::start(
            Command::new(&python)
                .args(["-c", script])
                .arg(library)
                .args(names)
                .stdout(Stdio::piped()),
        );
        let output = BufReader::new(target.0.stdout.take().unwrap());
        let lines: Vec<String> = output
            .lines()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        assert_eq!(lines.len(), names.len(), "{version}: {lines:?}");
        let libraries = profilemate::target::native::Libraries::of(target.pid()).unwrap();
        for line in lines {
            let (name, address) = line.split_once(' ').unwrap();
            // Inside of it, where a return address would point to.
            let found = libraries.function(address.parse::<u64>().unwrap() + 16);
            assert_eq!(
                found.map(|found| found.function).as_deref(),
                Some(name),
                "{version}"
            );
        }
    }
}
