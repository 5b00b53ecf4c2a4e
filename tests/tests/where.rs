//! `profilemate where`: the stacks that it shows are those that a target is known to be in.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, binary, demo, root};
use serde_json::Value;

fn stacks(pid: u32) -> Value {
    let output = Command::new(binary())
        .args(["where", "--json", "--pid", &pid.to_string()])
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
    let Some(stage) = demo::Stage::set("3.12", 8, &[]) else {
        return;
    };
    let mut methods = std::collections::BTreeSet::new();
    for _ in 0..30 {
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
        "no method of the catalogue was met in 30 looks"
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
