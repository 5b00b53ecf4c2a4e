//! `--touch none`: captures, replays and forward passes are named with nothing written into the target, on every
//! interpreter, 3.11 among them.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use profilemate_tests::{
    Guard, Row, Session, assert_ledger_exact, binary, cuda, demo, root, wait_for,
};
use serde_json::Value;

/// A running `walked.py`; ended when dropped.
struct Target {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    result: PathBuf,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Target {
    fn start(python: &Path, folder: &Path) -> Self {
        let result = folder.join("result.json");
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/targets/walked.py"))
            .args([&cuda::library(), &result])
            .env("FAKE_CUDA_COUNTS", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut target = Self {
            child,
            input,
            output,
            result,
        };
        target.expect("ready");
        target
    }

    fn expect(&mut self, wanted: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), wanted);
    }

    fn go(&mut self) {
        writeln!(self.input).unwrap();
        self.input.flush().unwrap();
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory map, without what the kernel adds for uprobes, with a digest of each mapping's bytes.
    fn memory(&self) -> Vec<(String, u64)> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut mappings = Vec::new();
        for line in maps.lines().filter(|line| !line.ends_with("[uprobes]")) {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let start = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(end, 16).unwrap();
            let mut bytes = vec![0; (end - start) as usize];
            // Of the libraries' code only the driver's may have changed: there the kernel puts its breakpoints.
            let is_probed = line.contains("libcuda.so.1") && rest.starts_with("r-x");
            let read = std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start);
            // The kernel's clock runs on.
            if is_probed || line.contains("[vvar") || read.is_err() {
                bytes.clear();
            }
            let mut digest = std::hash::DefaultHasher::new();
            bytes.hash(&mut digest);
            mappings.push((line.to_owned(), digest.finish()));
        }
        mappings
    }
}

fn trace(pid: u32, folder: &Path, touch: &str) -> Guard {
    let log = std::fs::File::create(folder.join("tracer.log")).unwrap();
    Guard::start(
        Command::new(binary())
            .args(["-v", "trace", "--touch", touch, "--graph-timeline", "--pid"])
            .args([&pid.to_string(), "--output"])
            .arg(folder.join("sessions"))
            .stdout(Stdio::null())
            .stderr(log),
    )
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("tracer.log")).unwrap_or_default()
}

/// Traces a whole run: what the target did, and the session.
fn traced(python: &Path, folder: &Path, touch: &str) -> (Value, Session) {
    let mut target = Target::start(python, folder);
    // While somebody else traces it by `ptrace`, nobody can: what follows works without.
    // SAFETY: no memory is involved.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, target.pid() as i32, 0, 0) };
    assert_eq!(seized, 0);
    // It has said that it is ready, and goes to wait for its line.
    let mut before = target.memory();
    wait_for("the target to wait", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = target.memory();
        std::mem::replace(&mut before, now.clone()) == now
    });
    let mut tracer = trace(target.pid(), folder, touch);
    wait_for("the walks", Duration::from_secs(60), || {
        let log = log(folder);
        log.contains("its stacks are walked") && log.contains("driver functions of")
    });
    let during = target.memory();
    assert_eq!(before, during, "no mapping was added, and no byte changed");
    target.go();
    target.expect("done");
    let truth = std::fs::read_to_string(&target.result).unwrap();
    let maps = target.memory();
    assert!(
        !maps.iter().any(|(line, _)| line.contains("memfd:")),
        "{maps:#?}"
    );
    std::thread::sleep(Duration::from_millis(300));
    tracer.signal(libc::SIGINT);
    assert_eq!(tracer.wait(Duration::from_secs(60)), 0, "{}", log(folder));
    (
        serde_json::from_str(&truth).unwrap(),
        Session::only(&folder.join("sessions")),
    )
}

/// Every Python on this machine.
fn pythons() -> Vec<PathBuf> {
    ["3.10", "3.11", "3.12", "3.13", "3.14"]
        .into_iter()
        .filter_map(demo::python)
        .collect()
}

fn columns(row: &Row, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| row[*name].clone()).collect()
}

fn assert_passes(truth: &Value, session: &Session) {
    let rows = session.rows("forward_pass_timing");
    let passes: Vec<_> = rows
        .iter()
        .map(|row| {
            columns(
                row,
                &["num_tokens", "batch_size", "graph_mode", "graph_launches"],
            )
        })
        .collect();
    let pieces = truth["pieces"].as_u64().unwrap();
    let steps: Vec<Vec<String>> = truth["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            let mode = step["mode"].as_str().unwrap();
            let launches = match mode {
                "FULL" => 1,
                "PIECEWISE" => pieces,
                _ => 0,
            };
            // Without a launch, nothing says that the dispatcher chose none.
            let mode = if launches == 0 { "" } else { mode };
            let number = |name: &str| step[name].to_string();
            vec![
                number("tokens"),
                number("seqs"),
                mode.to_owned(),
                launches.to_string(),
            ]
        })
        .collect();
    assert_eq!(passes, steps);
    for row in &rows {
        assert_eq!(row["forward_time_ms"], "", "nobody has seen it end");
    }
}

fn assert_usage(truth: &Value, session: &Session) {
    let mut expected: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for step in truth["steps"].as_array().unwrap() {
        let mode = step["mode"].as_str().unwrap();
        if mode != "NONE" {
            let key = (mode.to_owned(), step["padded"].to_string());
            let totals = expected.entry(key).or_default();
            totals.0 += 1;
            totals.1 += step["tokens"].as_u64().unwrap();
        }
    }
    let found: BTreeMap<(String, String), (u64, u64)> = session
        .rows("cuda_graph_usage")
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].parse().unwrap_or(0);
            (
                (row["runtime_mode"].clone(), row["num_tokens"].clone()),
                (number("replay_count"), number("actual_tokens")),
            )
        })
        .collect();
    assert_eq!(found, expected);
    let replays: u64 = expected.values().map(|(replays, _)| replays).sum();
    assert_eq!(session.rows("cuda_graph_timeline").len() as u64, replays);
}

fn assert_captures(truth: &Value, session: &Session) {
    let captures: Vec<_> = session
        .rows("cuda_graph_captures")
        .iter()
        .map(|row| {
            columns(
                row,
                &[
                    "runtime_mode",
                    "num_tokens",
                    "num_reqs",
                    "uniform",
                    "throwaway",
                ],
            )
        })
        .collect();
    let mut expected = vec![["FULL", "4", "4", "true", "true"]];
    for tokens in ["16", "8"] {
        for _ in 0..truth["pieces"].as_u64().unwrap() {
            expected.push(["PIECEWISE", tokens, "", "false", "false"]);
        }
    }
    expected.push(["FULL", "4", "4", "true", "false"]);
    expected.push(["FULL", "2", "2", "true", "false"]);
    let lower = |words: &Vec<String>| -> Vec<String> {
        words
            .iter()
            .map(|word| match word.as_str() {
                "True" => "true".to_owned(),
                "False" => "false".to_owned(),
                word => word.to_owned(),
            })
            .collect()
    };
    let captures: Vec<_> = captures.iter().map(lower).collect();
    assert_eq!(captures, expected);
}

#[test]
fn what_runs_is_named_and_nothing_is_written() {
    if !root() {
        return;
    }
    for python in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let (truth, session) = traced(&python, folder.path(), "none");
        assert_eq!(assert_ledger_exact(&session), 0);
        assert_captures(&truth, &session);
        assert_usage(&truth, &session);
        assert_passes(&truth, &session);
        let metadata = session.metadata.to_string();
        assert!(metadata.contains("stack_walks"), "{metadata}");
        for (table, status) in [
            ("forward_pass_timing", "partial"),
            ("cuda_graph_usage", "partial"),
            ("batch_utilization", "not_observable"),
        ] {
            assert_eq!(
                session.metadata["tables"][table]["coverage"]["status"], status,
                "{metadata}"
            );
        }
        println!("{}: all is named", python.display());
    }
}

/// On CPython 3.11 a running server cannot be redirected: its stacks are walked without being asked to.
#[test]
fn a_server_on_3_11_is_walked_by_itself() {
    if !root() {
        return;
    }
    let Some(python) = demo::python("3.11") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (truth, session) = traced(&python, folder.path(), "probes");
    assert_captures(&truth, &session);
    assert_usage(&truth, &session);
    assert_passes(&truth, &session);
    let reason = &session.metadata["tables"]["batch_utilization"]["coverage"];
    assert_eq!(reason["status"], "not_observable", "{reason}");
    assert_replay_equals(&session, folder.path());
}

/// A replay of what was recorded gives the same tables, byte for byte.
fn assert_replay_equals(session: &Session, folder: &Path) {
    let output = folder.join("replays");
    let status = Command::new(binary())
        .args(["-q", "replay", "--output"])
        .args([&output, &session.folder])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let replay = Session::only(&output);
    for table in [
        "forward_pass_timing",
        "cuda_graph_captures",
        "cuda_graph_usage",
        "cuda_graph_timeline",
    ] {
        let read = |of: &Session| std::fs::read(of.folder.join(format!("{table}.csv"))).unwrap();
        assert_eq!(read(session), read(&replay), "{table}");
    }
}
