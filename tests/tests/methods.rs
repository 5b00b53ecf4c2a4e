//! `--method` and `--field` on a Python program that is not vLLM, which calls its methods in every way that there is,
//! in threads and forked children, while tracers come and go.
#![expect(
    clippy::unwrap_used,
    reason = "a test says by panicking what is not as it should be"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profilemate_tests::{Guard, Row, Session, assert_ledger_exact, binary, demo, root};
use serde_json::Value;

const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/calls.py");

fn start(python: &Path, seconds: u32, result: &Path) -> Guard {
    let guard = Guard::start(
        Command::new(python)
            .arg(TARGET)
            .arg(seconds.to_string())
            .arg(result)
            .stdout(std::process::Stdio::null()),
    );
    std::thread::sleep(Duration::from_millis(400));
    guard
}

fn trace(pid: u32, output: &Path, options: &[&str]) -> (Session, String) {
    let traced = Command::new(binary())
        .args(["-q", "trace", "--pid", &pid.to_string(), "--output"])
        .arg(output)
        .args(options)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&traced.stderr).into_owned();
    assert_eq!(traced.status.code(), Some(0), "{errors}");
    let session = Session::only(output);
    (
        session,
        String::from_utf8_lossy(&traced.stdout).into_owned(),
    )
}

fn fields(row: &Row) -> Value {
    serde_json::from_str(&row["fields"]).unwrap_or_else(|error| panic!("{error} in {row:?}"))
}

#[test]
fn methods_are_seen_however_they_are_called_and_children_live_on() {
    if !root() {
        return;
    }
    for python in demo::probed_pythons() {
        let folder = tempfile::tempdir().unwrap();
        let result = folder.path().join("result.json");
        let mut target = start(&python, 25, &result);
        for round in 0..3 {
            let output = folder.path().join(format!("round{round}"));
            let (session, _) = trace(
                target.pid(),
                &output,
                &[
                    "--duration",
                    "1s",
                    "--method",
                    "__main__:Box.plain",
                    "--method",
                    "__main__:Box.fails",
                    "--method",
                    "__main__:Box.recurses",
                    "--method",
                    "__main__:function",
                    "--field",
                    "queue=self.queue:len",
                    "--field",
                    "value=arg.value",
                    "--field",
                    "word=arg.word",
                    "--field",
                    "key=self.inner['key']",
                ],
            );
            assert_rows(&session, target.pid(), &python);
            assert_eq!(assert_ledger_exact(&session), 0);
        }
        assert_eq!(
            target.wait(Duration::from_secs(60)),
            0,
            "{}",
            python.display()
        );
        let result: Value =
            serde_json::from_str(&std::fs::read_to_string(&result).unwrap()).unwrap();
        assert_eq!(
            result["wrong"],
            serde_json::json!([]),
            "{}",
            python.display()
        );
        assert!(result["calls"]["forks"].as_u64() > Some(20), "{result}");
    }
}

fn assert_rows(session: &Session, pid: u32, python: &Path) {
    let rows = session.rows("methods");
    let of = |name: &str| {
        rows.iter()
            .filter(|row| row["method"].ends_with(name))
            .collect::<Vec<_>>()
    };
    let plain = of("Box.plain");
    assert!(
        plain.len() > 100,
        "{}: {} calls",
        python.display(),
        plain.len()
    );
    for row in &plain {
        assert_eq!(row["outcome"], "object", "{row:?}");
        let fields = fields(row);
        assert_eq!(
            (fields["queue"].as_i64(), fields["key"].as_i64()),
            (Some(7), Some(41)),
            "{row:?}"
        );
        assert!(fields["value"].is_i64(), "{row:?}");
    }
    assert!(
        plain.iter().any(|row| fields(row)["word"] == 3),
        "keyword arguments are read by name"
    );
    assert!(
        plain.iter().any(|row| row["pid"] != pid.to_string()),
        "calls of forked children are seen"
    );
    assert!(
        plain
            .iter()
            .map(|row| &row["tid"])
            .collect::<BTreeSet<_>>()
            .len()
            > 2,
        "threads are told apart"
    );
    assert!(
        of("Box.fails").iter().all(|row| row["outcome"] == "raised") && !of("Box.fails").is_empty()
    );
    assert!(
        of("Box.recurses").len() > plain.len() / 2,
        "every level of a recursion is a call"
    );
    assert!(!of("function").is_empty());
}

#[test]
fn calls_are_printed_as_json_lines_where_that_is_asked_for() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = start(&python, 8, &folder.path().join("result.json"));
    let (session, text) = trace(
        target.pid(),
        &folder.path().join("sessions"),
        &[
            "--json",
            "--duration",
            "500ms",
            "--method",
            "__main__:Box.plain",
            "--field",
            "n=self.n",
        ],
    );
    let calls = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            line["method"]
                .as_str()
                .is_some_and(|method| method.ends_with("Box.plain"))
        })
        .count();
    assert_eq!(calls, session.rows("methods").len(), "{text}");
    assert!(calls > 10);
}
