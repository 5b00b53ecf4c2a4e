//! Pages of `report` in a real browser: what is drawn is what the tables hold, and it can be looked into.
//!
//! `PROFILEMATE_REPORT_SHOTS=FOLDER` keeps the screenshots and the printed pages.
#![expect(clippy::unwrap_used, reason = "this is a test")]

mod folder;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use folder::{ENGINES, HOSTILE, REQUESTS, STEPS};
use profilemate_tests::{Session, binary, demo, root};
use serde_json::Value;

/// The Python of `tests/report/setup`; `None` (with a printed line) if it is not there, and a failure where
/// `PROFILEMATE_REQUIRE_CHROMIUM=1` says that it must be.
fn python() -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = PathBuf::from(home).join(".cache/profilemate/report-checks");
    let chromium = Command::new("chromium").arg("--version").output();
    if folder.join(".profilemate-ready").exists() && chromium.is_ok() {
        return Some(folder.join("bin/python"));
    }
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_CHROMIUM").is_none(),
        "the browser is not installed: run `tests/report/setup`"
    );
    println!("skipped: no browser (tests/report/setup installs it)");
    None
}

fn report(arguments: &[&Path], more: &[&str]) -> Output {
    Command::new(binary())
        .arg("report")
        .args(arguments)
        .args(more)
        .output()
        .expect("profilemate runs")
}

/// Opens a page in the browser, one at a time: two at once take longer than one after the other.
fn look(python: &Path, page: &Path, name: &str) -> Value {
    static BROWSER: Mutex<()> = Mutex::new(());
    let _only = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/report/check.py"))
        .arg(page);
    if let Some(shots) = std::env::var_os("PROFILEMATE_REPORT_SHOTS") {
        command.arg(Path::new(&shots).join(name));
    }
    let done = command.output().expect("python runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// Nothing went wrong, nothing went out, everything is drawn, on every screen and on paper.
fn assert_sound(seen: &Value) {
    for screen in ["desktop", "phone"] {
        let screen = &seen[screen];
        assert_eq!(screen["failed"], Value::Null, "{screen}");
        for kind in ["console", "errors", "requests"] {
            assert_eq!(screen[kind], serde_json::json!([]), "{kind}: {screen}");
        }
    }
    let overflow = &seen["overflow"];
    assert_eq!(overflow["page"], 390, "{overflow}");
    assert_eq!(overflow["wide"], serde_json::json!([]), "{overflow}");
    for width in ["plots", "phone_plots", "print"] {
        let plots = seen[width].as_object().unwrap();
        assert!(!plots.is_empty());
        for (name, plot) in plots {
            let drawn: f64 = ["lines", "points", "bars", "images"]
                .iter()
                .filter_map(|kind| plot[kind].as_f64())
                .sum();
            assert!(drawn > 0.0, "{width}, {name}: nothing is drawn");
            let (svg, room) = (
                plot["svg"].as_f64().unwrap(),
                plot["width"].as_f64().unwrap(),
            );
            assert!(svg <= room + 1.0, "{width}, {name}: {svg} in {room}");
        }
    }
    assert_eq!(seen["print_background"], "rgb(255, 255, 255)");
    assert_ne!(seen["dark_background"], seen["light_background"]);
    assert!(
        seen["pdf_bytes"].as_u64().unwrap() > 20_000,
        "the printed page"
    );
    let refused = &seen["refused"];
    for what in ["ran", "loaded", "fetched", "alerted"] {
        assert_eq!(refused[what], false, "{what}: {refused}");
    }
    let zoom = &seen["zoom"];
    let part = |name: &str| zoom[name][1].as_f64().unwrap() - zoom[name][0].as_f64().unwrap();
    assert!(part("zoomed") < 0.6 * part("before"), "{zoom}");
    assert_eq!(
        zoom["zoomed"], zoom["other"],
        "plots over time zoom together"
    );
    assert!(part("after") > 1.5 * part("zoomed"), "{zoom}");
    let hidden = |when: &str| {
        let all = seen["legend"][when].as_array().unwrap().iter();
        all.filter(|visible| **visible == "legendonly").count()
    };
    assert_eq!(
        (hidden("before"), hidden("after")),
        (0, 1),
        "{}",
        seen["legend"]
    );
    let hover = seen["hover"]["passes"]["text"].as_str().unwrap();
    assert!(hover.contains(" ms at "), "{hover}");
}

/// A trace of a plot: its points, and the sum of its values.
fn trace(seen: &Value, plot: &str, name: &str) -> (u64, f64) {
    let traces = seen["plots"][plot]["traces"].as_array();
    let traces = traces.unwrap_or_else(|| panic!("no plot {plot}"));
    let trace = traces.iter().find(|trace| trace["name"] == name);
    let trace = trace.unwrap_or_else(|| panic!("no {name} in {plot}: {traces:?}"));
    (
        trace["points"].as_u64().unwrap(),
        trace["sum"].as_f64().unwrap(),
    )
}

/// Rows with a value in a column, and the sum of the values.
fn column(session: &Session, table: &str, column: &str, phase: Option<&str>) -> (u64, f64) {
    let rows = session.rows(table);
    let of_phase = |row: &&profilemate_tests::Row| phase.is_none_or(|phase| row["phase"] == phase);
    let values: Vec<Option<f64>> = rows
        .iter()
        .filter(of_phase)
        .map(|row| row[column].parse().ok())
        .collect();
    (values.len() as u64, values.into_iter().flatten().sum())
}

fn assert_same(drawn: (u64, f64), rows: (u64, f64), what: &str) {
    assert_eq!(drawn.0, rows.0, "{what}: points and rows");
    assert!(
        (drawn.1 - rows.1).abs() <= 1e-6 * rows.1.abs().max(1.0),
        "{what}: {drawn:?} {rows:?}"
    );
}

/// What the plots of the demo hold is what its tables hold.
fn assert_rows_drawn(seen: &Value, session: &Session) {
    for (name, of) in [
        ("running", "running_queue_len"),
        ("waiting", "waiting_queue_len"),
        ("scheduled", "num_seqs"),
    ] {
        assert_same(
            trace(seen, "batch", name),
            column(session, "batch_utilization", of, None),
            name,
        );
    }
    assert_same(
        trace(seen, "cache", "in use"),
        column(session, "kv_cache_usage", "usage_pct", None),
        "usage",
    );
    let evicted = session.rows("kv_cache_evictions").len() as f64;
    assert_same(
        (0, trace(seen, "cache", "evicted").1),
        (0, evicted),
        "evictions",
    );
    let preempted = session
        .rows("preemption_events")
        .iter()
        .filter(|row| row["event"] == "preempted")
        .count();
    assert_eq!(trace(seen, "cache", "preempted").0, preempted as u64);
    assert_passes_drawn(seen, session);
}

fn assert_passes_drawn(seen: &Value, session: &Session) {
    for phase in ["decode", "mixed"] {
        let rows = column(
            session,
            "forward_pass_timing",
            "forward_time_ms",
            Some(phase),
        );
        assert_same(trace(seen, "passes", phase), rows, phase);
        assert_same(
            (0, trace(seen, "pass-sizes", phase).1),
            (0, rows.0 as f64),
            "passes by duration",
        );
    }
    let replays: f64 = session
        .rows("cuda_graph_usage")
        .iter()
        .filter(|row| row["runtime_mode"] != "NONE")
        .filter_map(|row| row["replay_count"].parse::<f64>().ok())
        .sum();
    let drawn: f64 = seen["plots"]["graphs"]["traces"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|trace| trace["type"] == "bar")
        .filter_map(|trace| trace["sum"].as_f64())
        .sum();
    assert_same((0, drawn), (0, replays), "replays");
}

#[test]
fn a_traced_demo_is_drawn_row_by_row() {
    if !root() {
        return;
    }
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sessions = folder.path().join("sessions");
    let session = demo::session(&sessions, 3);
    let done = report(&[&session.folder], &[]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let page = session.folder.join("report.html");
    assert_eq!(
        String::from_utf8_lossy(&done.stdout).trim(),
        page.canonicalize().unwrap().to_string_lossy()
    );
    let seen = look(&python, &page, "demo");
    assert_sound(&seen);
    assert_rows_drawn(&seen, &session);
    assert!(
        seen["hover"]["requests"]["text"]
            .as_str()
            .unwrap()
            .contains("demo-"),
        "{}",
        seen["hover"]
    );
}

#[test]
fn a_hostile_session_of_two_engines_is_shown_and_runs_nothing() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    std::fs::create_dir(&session).unwrap();
    folder::write(&session);
    let page = folder.path().join("page.html");
    let done = report(&[&session], &["--output", page.to_str().unwrap()]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let seen = look(&python, &page, "hostile");
    assert_sound(&seen);
    assert_eq!(seen["title"], format!("ProfileMate: {HOSTILE}"));
    let hover = seen["hover"]["requests"]["text"].as_str().unwrap();
    assert!(hover.contains("</script><script>window.alerted"), "{hover}");
    let bars: u64 = ["running", "preempted"]
        .iter()
        .map(|name| trace(&seen, "requests", name).0)
        .sum();
    let pieces = REQUESTS + 2 * REQUESTS / 4;
    assert_eq!(bars, u64::from(pieces));
    assert_eq!(seen["plots"]["requests"]["bars"], pieces);
    assert_eq!(seen["plots"]["experts"]["images"], 1);
    assert_same(
        (0, trace(&seen, "eager", "passes").1),
        (0, 20.0),
        "passes without a graph",
    );
    let choice = &seen["choices"]["batch"];
    assert_eq!(choice["names"].as_array().unwrap().len() as u32, ENGINES);
    assert_eq!(
        (&choice["shown"], &choice["traces"][0]["points"]),
        (&Value::from(1), &Value::from(STEPS))
    );
    let text = seen["text"].as_str().unwrap();
    assert!(
        text.contains("Lost in the kernel: 3") && text.contains(HOSTILE),
        "what was lost, and why"
    );
}

#[test]
fn the_page_goes_where_it_is_asked_to_and_replaces_only_pages() {
    let folder = tempfile::tempdir().unwrap();
    folder::write(folder.path());
    let done = report(&[folder.path()], &["-o", "-"]);
    assert!(done.status.success() && done.stdout.starts_with(b"<!doctype html>"));
    assert!(!folder.path().join("report.html").exists());
    std::fs::write(folder.path().join("report.html"), "mine").unwrap();
    let done = report(&[folder.path()], &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.code() == Some(7) && said.contains("--force"),
        "{said}"
    );
    assert_eq!(
        std::fs::read(folder.path().join("report.html")).unwrap(),
        b"mine"
    );
    for more in [&["--force"][..], &[]] {
        let done = report(&[folder.path()], more);
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let done = report(&[&folder.path().join("nothing")], &[]);
    assert_eq!(done.status.code(), Some(1));
}
