//! Running the real vLLM on the CPU, with its reference counter (`tests/vllm/`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::Guard;

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

/// The Python of an environment made by `tests/vllm/setup VERSION`; `None` (with a printed line) if it is not there,
/// and a failure where `PROFILEMATE_REQUIRE_VLLM=1` says that it must be.
pub fn python(version: &str) -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let python = PathBuf::from(home).join(format!(
        ".cache/profilemate/vllm-{version}-python3.12/bin/python"
    ));
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_VLLM").is_none(),
        "vLLM {version} is not installed: run `tests/vllm/setup {version}`"
    );
    println!("skipped: no vLLM {version} (tests/vllm/setup {version} installs it)");
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
    start_marked(python, folder, arguments, &[])
}

/// As [`start`], with more variables in its environment.
pub fn start_marked(
    python: &Path,
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, String)],
) -> Driver {
    let reference = folder.join("reference");
    std::fs::create_dir_all(&reference).expect("a folder for the reference");
    let log = folder.join("driver.log");
    let out = std::fs::File::create(&log).expect("driver log");
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/vllm/driver.py"))
        .args(arguments)
        .arg("--pmref")
        .arg(&reference)
        .envs(environment.iter().map(|(name, value)| (name, value)))
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
