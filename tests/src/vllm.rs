//! Running the real vLLM on the CPU, with its reference counter (`tests/vllm/`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::{Guard, Session, binary, root};

pub mod truth;

/// The version that the tests run on where they name none.
const CURRENT: &str = "0.32.0";

/// The version to test: `PROFILEMATE_VLLM` (as `cargo xtask verify-vllm` sets it), else the current one.
pub fn version() -> String {
    std::env::var("PROFILEMATE_VLLM").unwrap_or_else(|_| CURRENT.to_owned())
}

/// Whether the version to test is the current one; else a line says why the test is skipped.
pub fn is_current(why: &str) -> bool {
    let current = version() == CURRENT;
    if !current {
        println!("skipped on vLLM {}: {why}", version());
    }
    current
}

/// The Python that it runs on: `PROFILEMATE_VLLM_PYTHON`, else 3.12. The reference counter needs 3.12 or newer.
fn interpreter() -> String {
    std::env::var("PROFILEMATE_VLLM_PYTHON").unwrap_or_else(|_| "python3.12".to_owned())
}

/// The Python of an environment made by `tests/vllm/setup VERSION [PYTHON]`; `None` (with a printed line) if it is not there,
/// and a failure where `PROFILEMATE_REQUIRE_VLLM=1` says that it must be.
pub fn python(version: &str) -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let interpreter = interpreter();
    let python = PathBuf::from(home).join(format!(
        ".cache/profilemate/vllm-{version}-{interpreter}/bin/python"
    ));
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_VLLM").is_none(),
        "vLLM {version} is not installed: run `tests/vllm/setup {version} {interpreter}`"
    );
    println!("skipped: no vLLM {version} (tests/vllm/setup {version} {interpreter} installs it)");
    None
}

/// What a run of the driver left behind.
pub struct Run {
    /// The driver's `RESULT`.
    pub result: Value,
    /// The reference counter's events: (pid, event), in the order in which they happened in that process.
    pub reference: Vec<(u32, Value)>,
}

impl Run {
    /// The reference's events of one kind.
    pub fn events(&self, kind: &str) -> Vec<(u32, &Value)> {
        self.reference
            .iter()
            .filter(|(_, event)| event["e"] == kind)
            .map(|(pid, event)| (*pid, event))
            .collect()
    }
}

/// A driver that is running.
pub struct Driver {
    guard: Guard,
    log: PathBuf,
    reference: PathBuf,
}

/// Starts `tests/vllm/driver.py` with `arguments`, counted by the reference into `folder`.
pub fn start(python: &Path, folder: &Path, arguments: &[&str]) -> Driver {
    start_from(Command::new(python), "driver.py", folder, arguments)
}

/// As [`start`], with more variables in its environment.
pub fn start_marked(
    python: &Path,
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, String)],
) -> Driver {
    let mut command = Command::new(python);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    start_from(command, "driver.py", folder, arguments)
}

/// Starts a script of `tests/vllm/` in the same way, by a `command` to which it and its arguments are added.
pub fn start_from(mut command: Command, script: &str, folder: &Path, arguments: &[&str]) -> Driver {
    let reference = folder.join("reference");
    std::fs::create_dir_all(&reference).expect("a folder for the reference");
    let log = folder.join("driver.log");
    let out = std::fs::File::create(&log).expect("driver log");
    command
        .arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vllm")).join(script))
        .args(arguments)
        .arg("--pmref")
        .arg(&reference)
        .stdout(out.try_clone().expect("a second handle"))
        .stderr(Stdio::from(out));
    Driver {
        guard: Guard::start(&mut command),
        log,
        reference,
    }
}

impl Driver {
    /// The driver's pid: the root of the target.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Waits for the end and reads what it left.
    pub fn finish(mut self) -> Run {
        let code = self.guard.wait(Duration::from_secs(400));
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: String = log
            .lines()
            .rev()
            .take(30)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(code, 0, "the driver failed:\n{tail}");
        let line = log
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("RESULT "))
            .expect("a RESULT line");
        let result = serde_json::from_str(line).expect("RESULT is JSON");
        Run {
            result,
            reference: read_reference(&self.reference),
        }
    }
}

/// Runs a script of `tests/vllm/` from its start under the tracer; both end by themselves. `None` (with a printed line)
/// where that cannot be.
pub fn traced(version: &str, script: &str, arguments: &[&str]) -> Option<(Run, Session)> {
    if !root() {
        return None;
    }
    let python = python(version)?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let driver = start_from(Command::new(&python), script, folder.path(), arguments);
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
    std::mem::forget(folder.keep());
    Some((run, session))
}

/// A tracer of the processes below `pid`, which ends with them, with `more` options.
pub fn tracer(pid: u32, output: &Path, folder: &Path, more: &[&str]) -> Guard {
    let log = std::fs::File::create(folder.join("tracer.log")).expect("tracer log");
    Guard::start(
        Command::new(binary())
            .args([
                "-v",
                "trace",
                "--strict",
                "--pid",
                &pid.to_string(),
                "--output",
            ])
            .arg(output)
            .args(more)
            .stdout(Stdio::null())
            .stderr(log),
    )
}

/// What it said.
pub fn tracer_log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("tracer.log")).unwrap_or_default()
}

fn read_reference(folder: &Path) -> Vec<(u32, Value)> {
    let mut events = Vec::new();
    for entry in std::fs::read_dir(folder).expect("reference folder") {
        let path = entry.expect("entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let Some(pid) = name
            .strip_prefix("pmref-")
            .and_then(|rest| rest.strip_suffix(".events.jsonl"))
        else {
            continue;
        };
        let pid: u32 = pid.parse().expect("a pid in the file name");
        for line in std::fs::read_to_string(&path).expect("events").lines() {
            events.push((pid, serde_json::from_str(line).expect("a JSON line")));
        }
    }
    events
}
