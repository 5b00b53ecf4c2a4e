//! `explain` as its users meet it: on a folder written by hand, on a traced demo, and against vLLM's own options.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use profilemate::explain::rule::RULES;
use profilemate_tests::{Session, binary, root, vllm};
use serde_json::Value;

fn profilemate(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .output()
        .expect("profilemate runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder as the predecessor left it, whose requests wait for the token budget, or do not.
fn waiting(folder: &Path, queue: u32) {
    let mut table =
        "timestamp_sec,num_seqs,max_num_seqs,seq_utilization_pct,num_tokens,max_tokens,\
                     token_utilization_pct,phase,running_queue_len,waiting_queue_len\n"
            .to_owned();
    for step in 0..200 {
        let at = f64::from(step) * 0.01;
        writeln!(table, "{at:.3},8,64,12.5,256,256,100.0,mixed,8,{queue}").expect("a line");
    }
    std::fs::write(folder.join("batch_utilization.csv"), table).expect("a table");
    std::fs::write(
        folder.join("metadata.json"),
        r#"{"session_id": "20250101"}"#,
    )
    .expect("metadata");
}

#[test]
fn a_folder_of_the_predecessor_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    waiting(folder.path(), 3);
    let output = profilemate(&["explain", path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let words = text(&output.stdout);
    assert!(
        words.contains("--max-num-batched-tokens 512")
            && words.contains("batch_utilization.csv, 200 rows"),
        "{words}"
    );
    let json: Value =
        serde_json::from_slice(&profilemate(&["explain", "--json", path]).stdout).unwrap();
    assert_eq!(json["findings"][0]["rule"], "waiting_for_token_budget");
    assert_eq!(json["findings"][0]["cost"]["milliseconds"], 5970.0);
    assert_eq!(
        profilemate(&["explain", "--strict", path]).status.code(),
        Some(3)
    );
    waiting(folder.path(), 0);
    let output = profilemate(&["explain", "--strict", path]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stdout).starts_with("nothing wrong seen"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn what_is_no_session_is_named_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output = profilemate(&["explain", path]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    assert!(words.contains(path) && words.contains("hint:"), "{words}");
}

#[test]
fn a_trace_and_its_folder_say_the_same() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = profilemate(&[
        "demo",
        "--duration",
        "5s",
        "--output",
        folder.path().to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("findings"),
        "{}",
        text(&output.stderr)
    );
    let session = Session::only(folder.path());
    let summary = std::fs::read_to_string(session.folder.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let output = profilemate(&["explain", "--json", session.folder.to_str().unwrap()]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["findings"].is_array(), "{summary}");
    assert_eq!(summary["findings"], json["findings"]);
    for id in [
        "kv_pool_small",
        "waiting_for_slots",
        "prefill_stalls_decode",
    ] {
        let judged = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|found| found["rule"] == id)
            || json["nothing_wrong"]
                .as_array()
                .unwrap()
                .iter()
                .any(|rule| rule == id);
        assert!(judged, "{id} was not judged: {json}");
    }
}

#[test]
fn every_option_is_one_of_vllm() {
    let Some(python) = vllm::python("0.32.0") else {
        return;
    };
    let environment = python.parent().and_then(Path::parent).expect("bin/python");
    let path = environment.join("lib/python3.12/site-packages/vllm/engine/arg_utils.py");
    let source = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for rule in RULES {
        for option in rule.options {
            assert!(
                source.contains(&format!("\"{option}\"")),
                "{}: vLLM has no {option}",
                rule.id
            );
        }
    }
}

#[test]
fn two_folders_are_compared_as_text_json_and_page() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    waiting(folders[0].path(), 3);
    waiting(folders[1].path(), 5);
    let paths = folders
        .each_ref()
        .map(|folder| folder.path().to_str().unwrap().to_owned());
    let page = folders[0].path().join("diff.html");
    let output = profilemate(&[
        "diff",
        &paths[0],
        &paths[1],
        "--html",
        page.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let words = text(&output.stdout);
    let line = words
        .lines()
        .find(|line| line.contains("waiting_queue_len"))
        .expect("the column that differs");
    assert!(
        line.contains("+66.7 %") && line.contains("more") && !words.contains("num_tokens"),
        "{words}"
    );
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("waiting_queue_len") && !html.contains("http"),
        "{html}"
    );
    let output = profilemate(&["diff", "--json", "--strict", &paths[0], &paths[1]]);
    assert_eq!(output.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["confidence_pct"], json["differences"].is_array()),
        (&Value::from(95.0), true)
    );
    let output = profilemate(&["diff", "--strict", &paths[0], &paths[0]]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(
        profilemate(&["diff", &paths[0], "/nowhere/at/all"])
            .status
            .code(),
        Some(1)
    );
    let output = profilemate(&[
        "diff",
        &paths[0],
        &paths[1],
        "--html",
        "/proc/nowhere/x.html",
    ]);
    assert_eq!(output.status.code(), Some(7));
}
