//! A live Python process with known objects, for every supported interpreter that this machine has.
#![allow(
    dead_code,
    reason = "shared by several tests, each of which uses a part"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use profilemate::target::python::{Interpreter, Layout, ProcessMemory, identify, validate};
use serde_json::Value;

/// A running `target.py`. It ends when this is dropped.
pub(crate) struct Target {
    child: Child,
    _stdin: Option<ChildStdin>,
    pub(crate) facts: Value,
    pub(crate) memory: ProcessMemory,
    pub(crate) interpreter: Interpreter,
    pub(crate) layout: Layout,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    pub(crate) fn start(python: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_target/target.py");
        let mut child = Command::new(python)
            .args(["-B", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("facts");
        let facts = serde_json::from_str(&line).expect("facts as JSON");
        let pid = child.id();
        let memory = ProcessMemory { pid };
        let interpreter = identify(pid, &memory).expect("a supported Python");
        let layout = validate(&interpreter, &memory).expect("a known layout");
        let stdin = child.stdin.take();
        Self {
            child,
            _stdin: stdin,
            facts,
            memory,
            interpreter,
            layout,
        }
    }

    pub(crate) fn fact(&self, path: &[&str]) -> u64 {
        let value = path.iter().fold(&self.facts, |value, key| &value[key]);
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no fact {path:?}: {value}"))
    }
}

/// Supported interpreters: those in `PROFILEMATE_PYTHONS` (paths, separated by colons), pyenv's, those in `/usr/bin`, and
/// the one that `tests/python/setup` gets.
pub(crate) fn pythons() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(list) = std::env::var("PROFILEMATE_PYTHONS") {
        found.extend(
            list.split(':')
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        );
    }
    if let Ok(home) = std::env::var("HOME") {
        let versions = std::fs::read_dir(format!("{home}/.pyenv/versions"))
            .into_iter()
            .flatten()
            .flatten();
        let mut versions: Vec<_> = versions
            .map(|entry| entry.path().join("bin/python3"))
            .collect();
        versions.retain(|path| {
            path.exists()
                && (10..=14).any(|minor| path.to_string_lossy().contains(&format!("/3.{minor}.")))
        });
        versions.sort();
        versions.push(format!("{home}/.cache/profilemate/python-3.14/usr/bin/python3.14").into());
        found.extend(versions.into_iter().filter(|path| path.exists()));
    }
    found.extend(
        (10..=14)
            .map(|minor| PathBuf::from(format!("/usr/bin/python3.{minor}")))
            .filter(|path| path.exists()),
    );
    found
}

/// Runs `test` with a target of every interpreter.
pub(crate) fn for_each(test: impl Fn(&Target)) {
    let pythons = pythons();
    assert!(!pythons.is_empty(), "no supported Python on this machine");
    for python in pythons {
        println!("{}", python.display());
        test(&Target::start(&python));
    }
}
