//! Running the bundled demo target (`python/demo`) on the Pythons of this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::{Guard, wait_for};

/// The demo target's files.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../python/demo");

/// The truth that a demo target wrote, line by line.
pub fn truth(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("truth");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// Pythons of `minor` ("3.12") found on this machine: on PATH, or installed by pyenv.
pub fn python(minor: &str) -> Option<PathBuf> {
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
    let python = found.into_iter().find(|path| path.exists());
    if python.is_none() {
        println!("skipped: no Python {minor} on this machine");
    }
    python
}

/// Pythons on which method probes work from outside, and which are on this machine.
pub fn probed_pythons() -> Vec<PathBuf> {
    ["3.10", "3.12", "3.13"]
        .into_iter()
        .filter_map(python)
        .collect()
}

/// A running demo target.
pub struct Demo {
    guard: Guard,
    folder: PathBuf,
}

/// Starts the demo target for `seconds` and waits until its engine runs.
pub fn start(python: &Path, folder: &Path, seconds: u32, more: &[&str]) -> Demo {
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
        .env(
            "PYTHONPATH",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../python/demo"),
        )
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
