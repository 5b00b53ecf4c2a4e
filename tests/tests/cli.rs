//! The command line as its users meet it: errors that name the thing, hints, exit codes.

use std::process::{Command, Output};

use profilemate_tests::{Session, binary, root};

fn profilemate(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .output()
        .expect("profilemate runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn no_command_is_a_usage_error_with_a_hint() {
    let output = profilemate(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("hint:") && stderr(&output).contains("demo"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unknown_table_is_named_and_the_known_ones_are_listed() {
    let output = profilemate(&["trace", "--only", "nothing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("nothing") && stderr(&output).contains("kv_cache_usage"));
}

#[test]
fn a_command_that_is_not_running_cannot_be_looked_at_and_is_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ran");
    let output = profilemate(&["trace", "--dry-run", "--", "touch", mark.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint:") && !mark.exists());
}

#[test]
fn a_pid_that_is_not_there_is_named() {
    let output = profilemate(&["trace", "--pid", "999999999"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("999999999") && stderr(&output).contains("hint:"));
}

#[test]
fn a_process_that_is_not_python_is_said_to_be_none() {
    if !root() {
        return;
    }
    let guard = profilemate_tests::Guard::start(Command::new("sleep").arg("60"));
    let output = profilemate(&[
        "trace",
        "--pid",
        &guard.pid().to_string(),
        "--duration",
        "2s",
    ]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("Python"), "{}", stderr(&output));
}

#[test]
fn an_output_folder_that_cannot_be_made_is_named() {
    if !root() {
        return;
    }
    let output = profilemate(&["demo", "--duration", "1s", "--output", "/proc/nowhere"]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("/proc/nowhere"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_long_version_names_the_object() {
    let output = profilemate(&["--version", "-v"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("profilemate ") && text.contains("sha256"),
        "{text}"
    );
}

#[test]
fn the_demo_prints_its_session_folder_and_fills_the_tables() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = profilemate(&[
        "--quiet",
        "demo",
        "--duration",
        "6s",
        "--output",
        folder.path().to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = text.lines().last().expect("a line on stdout");
    assert!(path.starts_with('/'), "{text}");
    let session = Session::open(std::path::Path::new(path));
    for table in [
        "batch_utilization",
        "kv_cache_usage",
        "kv_cache_evictions",
        "preemption_events",
        "request_lifecycle",
        "forward_pass_timing",
        "cpu_operations_timing",
        "cuda_graph_captures",
        "cuda_graph_usage",
        "moe_expert_timing",
        "moe_expert_selection",
        "moe_expert_coselection",
        "moe_load_imbalance",
        "encoder_decoder_timing",
    ] {
        assert!(
            !session.rows(table).is_empty(),
            "{table} is empty; {}",
            session.metadata
        );
        assert_eq!(
            session.metadata["tables"][table]["coverage"]["status"], "observed",
            "{table}: {}",
            session.metadata
        );
    }
    assert!(session.rows("cuda_graph_timeline").is_empty());
    assert!(
        session.metadata["tables"]["cuda_graph_timeline"]["coverage"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.len() > 10)
    );
}

#[test]
fn the_demo_runs_on_a_python_that_cannot_be_probed_from_outside() {
    let Some(python) = profilemate_tests::demo::python("3.11") else {
        println!("skipped: there is no Python 3.11 here");
        return;
    };
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = profilemate(&[
        "demo",
        "--duration",
        "4s",
        "--strict",
        "--python",
        python.to_str().unwrap(),
        "--output",
        folder.path().to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        !Session::only(folder.path())
            .rows("batch_utilization")
            .is_empty()
    );
}

#[test]
fn a_replay_makes_the_same_tables_byte_for_byte() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let again = folder.path().join("again");
    assert_eq!(
        profilemate(&[
            "-q",
            "demo",
            "--duration",
            "3s",
            "--output",
            live.to_str().unwrap()
        ])
        .status
        .code(),
        Some(0)
    );
    let live = Session::only(&live);
    let output = profilemate(&[
        "-q",
        "replay",
        live.folder.to_str().unwrap(),
        "--output",
        again.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let again = Session::only(&again);
    let mut compared = 0;
    for entry in std::fs::read_dir(&live.folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            let other = again.folder.join(path.file_name().unwrap());
            assert_eq!(
                std::fs::read(&path).unwrap(),
                std::fs::read(&other).unwrap(),
                "{}",
                path.display()
            );
            compared += 1;
        }
    }
    assert!(compared >= 11);
}
