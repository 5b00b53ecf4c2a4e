//! Running the bundled demo target (`python/demo`) on the Pythons of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::{Guard, Session, wait_for};

/// The demo target's files.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../python/demo");

/// The truth that a demo target wrote, line by line.
pub fn truth(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("truth");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// A Python of `minor` ("3.12") found on this machine.
pub fn python(minor: &str) -> Option<PathBuf> {
    pythons(minor).into_iter().next()
}

/// Pythons of `minor` found on this machine: installed by pyenv, those of the system, which may be built in another way,
/// and the one that `tests/python/setup` gets.
pub fn pythons(minor: &str) -> Vec<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let pyenv = std::fs::read_dir(format!("{home}/.pyenv/versions"))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = pyenv
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{minor}."))
        })
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    found.push(PathBuf::from(format!("/usr/bin/python{minor}")));
    found.push(PathBuf::from(format!("/usr/local/bin/python{minor}")));
    found.push(PathBuf::from(format!(
        "{home}/.cache/profilemate/python-{minor}/usr/bin/python{minor}"
    )));
    found.retain(|path| path.exists());
    if found.is_empty() {
        println!("skipped: no Python {minor} on this machine");
    }
    found
}

/// Pythons on which method probes work from outside, and which are on this machine. The last one is that of the tests
/// which need only one: not the one of `tests/python/setup`, which a machine need not have.
pub fn probed_pythons() -> Vec<PathBuf> {
    ["3.14", "3.10", "3.12", "3.13"]
        .into_iter()
        .filter_map(python)
        .collect()
}

/// The newest Python on which method probes work from outside; `None` where there is none, or this is not root.
pub fn newest_probed_python() -> Option<PathBuf> {
    probed_pythons().pop().filter(|_| crate::root())
}

/// A running demo target with a folder of its own, which goes with it.
pub struct Stage {
    /// The target.
    pub demo: Demo,
    /// The folder.
    pub folder: tempfile::TempDir,
}

impl Stage {
    /// Starts the demo target for `seconds` on the Python of `minor`. `None`: there is no such Python, or this is not
    /// root; that is printed.
    pub fn set(minor: &str, seconds: u32, more: &[&str]) -> Option<Self> {
        let python = python(minor).filter(|_| crate::root())?;
        let folder = tempfile::tempdir().expect("a folder");
        let demo = start(&python, folder.path(), seconds, more);
        Some(Self { demo, folder })
    }

    /// Its root's process id, as an argument.
    pub fn pid(&self) -> String {
        self.demo.pid().to_string()
    }
}

/// A running demo target.
pub struct Demo {
    guard: Guard,
    folder: PathBuf,
}

/// Starts the demo target for `seconds` and waits until its engine runs.
pub fn start(python: &Path, folder: &Path, seconds: u32, more: &[&str]) -> Demo {
    start_with(python, folder, seconds, more, &[])
}

/// As [`start`], with folders that stand before the target's own on PYTHONPATH.
pub fn start_with(
    python: &Path,
    folder: &Path,
    seconds: u32,
    more: &[&str],
    before: &[&Path],
) -> Demo {
    let python_path = std::env::join_paths(before.iter().copied().chain([Path::new(FOLDER)]))
        .expect("folders without colons");
    let python_path = python_path.to_str().expect("a path in UTF-8").to_owned();
    start_marked(
        python,
        folder,
        seconds,
        more,
        &[("PYTHONPATH", python_path)],
    )
}

/// As [`start`], with more variables in its environment.
pub fn start_marked(
    python: &Path,
    folder: &Path,
    seconds: u32,
    more: &[&str],
    environment: &[(&str, String)],
) -> Demo {
    std::fs::create_dir_all(folder).expect("a folder for the demo target");
    let ready = folder.join("ready");
    let log = std::fs::File::create(folder.join("demo.log")).expect("a log");
    let mut command = Command::new(python);
    command
        .args(["-m", "profilemate_demo", "--seconds", &seconds.to_string()])
        .args([
            "--print-truth",
            folder
                .join("truth.jsonl")
                .to_str()
                .expect("a path in UTF-8"),
        ])
        .args([
            "--output-tokens",
            folder
                .join("tokens.json")
                .to_str()
                .expect("a path in UTF-8"),
        ])
        .args(["--ready-file", ready.to_str().expect("a path in UTF-8")])
        .args(more)
        .env("PYTHONPATH", FOLDER)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(Stdio::from(log));
    let guard = Guard::start(&mut command);
    wait_for("the demo target", Duration::from_secs(30), || {
        ready.exists()
    });
    Demo {
        guard,
        folder: folder.to_owned(),
    }
}

impl Demo {
    /// Root of the target.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// All processes of the target.
    pub fn tree(&self) -> Vec<u32> {
        let all = profilemate::target::process::all().expect("/proc");
        let roots = std::collections::BTreeSet::from([self.pid()]);
        profilemate::target::process::tree(&all, &roots)
            .into_iter()
            .map(|seen| seen.pid)
            .collect()
    }

    /// Waits for its end; it must have ended well. Gives the truth it wrote, line by line.
    pub fn finish(mut self, limit: Duration) -> Vec<Value> {
        let code = self.guard.wait(limit);
        let log = std::fs::read_to_string(self.folder.join("demo.log")).unwrap_or_default();
        assert_eq!(code, 0, "the demo target failed:\n{log}");
        let text = std::fs::read_to_string(self.folder.join("truth.jsonl")).expect("truth");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }

    /// The tokens that it generated, as text.
    pub fn tokens(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("tokens.json")).expect("tokens")
    }
}

/// Steps of the truth by engine pid.
pub fn schedules(truth: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut by_pid: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for event in truth.iter().filter(|event| event["e"] == "schedule") {
        by_pid
            .entry(event["pid"].as_u64().expect("pid"))
            .or_default()
            .push(event);
    }
    by_pid
}

/// The session's steps are a run of the truth's, without a gap, each equal.
pub fn assert_steps_are_a_run_of(session: &Session, truth: &[Value]) -> usize {
    let rows = session.rows("batch_utilization");
    let mut compared = 0;
    for (pid, steps) in schedules(truth) {
        let rows: Vec<_> = rows
            .iter()
            .filter(|row| row["pid"] == pid.to_string())
            .collect();
        if rows.is_empty() {
            continue;
        }
        let of = |event: &Value| {
            [
                "total_num_scheduled_tokens",
                "n_sched_reqs",
                "running",
                "waiting",
            ]
            .map(|name| event[name].as_u64().expect("a value"))
        };
        let seen: Vec<[u64; 4]> = rows
            .iter()
            .map(|row| {
                [
                    "num_tokens",
                    "num_seqs",
                    "running_queue_len",
                    "waiting_queue_len",
                ]
                .map(|name| {
                    row[name]
                        .parse()
                        .unwrap_or_else(|_| panic!("{name} in {row:?}"))
                })
            })
            .collect();
        let truth: Vec<[u64; 4]> = steps.iter().map(|event| of(event)).collect();
        let at = truth.windows(seen.len()).position(|window| window == seen);
        assert!(
            at.is_some(),
            "the {} rows of engine {pid} are no run of its {} steps",
            seen.len(),
            truth.len()
        );
        compared += seen.len();
    }
    compared
}

/// Choices of experts equal the last ones of the truth, so many calls of each layer as the session saw.
pub fn assert_experts_are_a_run_of(session: &Session, truth: &[Value]) {
    let layer = |event: &Value| {
        let name = event["layer"].as_str().expect("a layer");
        name.split('.').find_map(|part| part.parse::<u64>().ok())
    };
    let mut seen: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
    let mut calls: BTreeMap<u64, usize> = BTreeMap::new();
    for row in session.rows("moe_expert_selection") {
        let number = |column: &str| row[column].parse::<u64>().expect("a number");
        assert_eq!(row["seen_pct"], "100.0000", "{row:?}");
        calls.insert(number("layer_idx"), number("sampled_calls") as usize);
        let layer = seen.entry(number("layer_idx")).or_default();
        layer.insert(number("expert_id"), number("activation_count"));
    }
    assert_eq!(seen.len(), 2, "two layers");
    for (index, seen) in seen {
        let routed: Vec<&Value> = truth
            .iter()
            .filter(|event| event["e"] == "route" && layer(event) == Some(index))
            .collect();
        let first = routed.len() - calls[&index];
        let mut chosen: BTreeMap<u64, u64> = (0..8).map(|expert| (expert, 0)).collect();
        for event in &routed[first..] {
            let tokens = event["ids"].as_array().expect("tokens");
            for id in tokens.iter().filter_map(Value::as_array).flatten() {
                *chosen.entry(id.as_u64().expect("an expert")).or_default() += 1;
            }
        }
        assert_eq!(seen, chosen, "layer {index}, {} calls", calls[&index]);
    }
}

/// Encoder calls equal the last ones of the truth, item by item.
pub fn assert_encoder_calls_are_a_run_of(session: &Session, truth: &[Value]) {
    let rows = session.rows("encoder_decoder_timing");
    let of = |component: &str| {
        let rows = rows.iter().filter(|row| row["component"] == component);
        rows.map(|row| row["num_items"].clone()).collect::<Vec<_>>()
    };
    let seen = of("encoder");
    let encoded: Vec<String> = truth
        .iter()
        .filter(|event| event["e"] == "encode")
        .map(|event| event["items"].to_string())
        .collect();
    assert!(
        !seen.is_empty() && encoded.ends_with(&seen),
        "{seen:?} {encoded:?}"
    );
    for component in ["decoder", "encoder_cache_hit", "encoder_cache_eviction"] {
        assert!(!of(component).is_empty(), "{component}");
    }
}

/// A session of the demo target of so many `seconds`, in `folder`.
pub fn session(folder: &Path, seconds: u32) -> Session {
    let done = Command::new(crate::binary())
        .args(["--quiet", "demo", "--duration", &format!("{seconds}s")])
        .arg("--output")
        .arg(folder)
        .output()
        .expect("profilemate runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Session::only(folder)
}
