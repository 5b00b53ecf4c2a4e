//! Sessions as they are found, and hostile ones, to pages.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::page::{is_ours, page};
use super::*;
use crate::sink::csv::CsvFolder;
use crate::table::AnyRow;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Millis, Real, Stamp};
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::kv_cache_evictions::KvCacheEviction;
use crate::table::moe_expert_selection::MoeExpertSelection;
use crate::table::preemption_events::PreemptionEvent;

const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&%{x}";

fn report(folder: &Path) -> Report {
    Report::of_session(&Session::open(folder).unwrap()).unwrap()
}

fn of_rows(rows: &[AnyRow]) -> (tempfile::TempDir, Report) {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = CsvFolder::create(folder.path()).unwrap();
    for row in rows {
        csv.row(row).unwrap();
    }
    csv.flush().unwrap();
    let report = report(folder.path());
    (folder, report)
}

fn plot<'a>(report: &'a Report, id: &str) -> &'a Plot {
    let mut plots = report.sections.iter().flat_map(|section| &section.plots);
    plots.find(|plot| plot.id == id).unwrap()
}

fn trace<'a>(report: &'a Report, id: &str, view: usize, name: &str) -> &'a Value {
    let mut traces = plot(report, id).views[view].data.iter();
    traces.find(|trace| trace["name"] == name).unwrap()
}

fn step(second: i64, engine: u32, waiting: Option<i64>) -> AnyRow {
    BatchUse {
        timestamp_sec: Stamp(second * 1_000_000_000),
        num_seqs: Some(second % 7),
        num_tokens: Some(10),
        waiting_queue_len: waiting,
        pid: 100 + engine,
        engine: Some(engine),
        ..BatchUse::default()
    }
    .into()
}

fn event(second: i64, id: &str, event: &'static str) -> AnyRow {
    PreemptionEvent {
        timestamp_sec: Stamp(second * 1_000_000_000),
        request_id: id.to_owned(),
        event,
        pid: 100,
        engine: Some(0),
        ..PreemptionEvent::default()
    }
    .into()
}

#[test]
fn every_row_is_a_point_and_an_empty_cell_is_a_gap() {
    let rows: Vec<AnyRow> = (0..50)
        .map(|at| step(at, 0, (at != 9).then_some(at)))
        .collect();
    let (_folder, report) = of_rows(&rows);
    let waiting = trace(&report, "batch", 0, "waiting");
    let y = waiting["y"].as_array().unwrap();
    assert_eq!(
        (y.len(), &y[8], &y[9]),
        (50, &Value::from(8.0), &Value::Null)
    );
    assert_eq!(waiting["x"][9], 9.0);
    assert_eq!(report.rows["batch_utilization"], Some(50));
}

#[test]
fn engines_are_told_apart() {
    let rows: Vec<AnyRow> = (0..40)
        .map(|at| step(at, (at % 2) as u32, Some(1)))
        .collect();
    let (_folder, report) = of_rows(&rows);
    let names: Vec<&str> = plot(&report, "batch")
        .views
        .iter()
        .map(|view| view.name.as_str())
        .collect();
    assert_eq!(names, ["engine 0 (pid 100)", "engine 1 (pid 101)"]);
    assert_eq!(
        trace(&report, "batch", 1, "scheduled")["y"]
            .as_array()
            .unwrap()
            .len(),
        20
    );
    assert!(page(&report).contains("<option value=\"1\">engine 1 (pid 101)</option>"));
}

#[test]
fn a_request_is_a_row_of_pieces() {
    let rows = [
        event(1, "a", "started"),
        event(2, "b", "started"),
        event(3, "a", "preempted"),
        event(6, "a", "resumed"),
        event(7, "a", "finished"),
        event(8, "before", "finished"),
        step(9, 0, None),
    ];
    let (_folder, report) = of_rows(&rows);
    let pieces = |name: &str| {
        let trace = trace(&report, "requests", 0, name);
        let numbers = |key: &str| -> Vec<f64> {
            trace[key]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_f64)
                .collect()
        };
        (numbers("base"), numbers("x"), numbers("y"))
    };
    assert_eq!(
        pieces("running"),
        (vec![1.0, 6.0], vec![2.0, 1.0], vec![1.0, 1.0])
    );
    assert_eq!(pieces("preempted"), (vec![3.0], vec![3.0], vec![1.0]));
    assert_eq!(
        pieces("not finished at the end"),
        (vec![2.0], vec![7.0], vec![2.0])
    );
    let notes = &plot(&report, "requests").views[0].notes;
    assert!(
        notes
            .iter()
            .any(|note| note.contains("1 request seen only at the end")),
        "{notes:?}"
    );
    let marks = trace(&report, "cache", 0, "preempted");
    assert_eq!(marks["x"].as_array().unwrap().len(), 1);
}

#[test]
fn what_was_not_observed_has_its_reason_where_the_plot_would_be() {
    let folder = tempfile::tempdir().unwrap();
    CsvFolder::create(folder.path()).unwrap().flush().unwrap();
    let metadata = r#"{"tables": {"moe_expert_selection": {"rows": 0, "coverage":
        {"status": "not_applicable", "reason": "the model has no <MoE> layers"}}}}"#;
    fs::write(folder.path().join("metadata.json"), metadata).unwrap();
    let text = page(&report(folder.path()));
    assert!(
        text.contains("not applicable: the model has no &lt;MoE&gt; layers."),
        "the reason"
    );
    assert!(
        text.contains("<dd>not observed</dd>"),
        "a figure that is not known"
    );
    assert!(!text.contains("class=\"plot\""), "no empty plot");
}

#[test]
fn hostile_text_stays_text() {
    let mut rows: Vec<AnyRow> = vec![event(1, HOSTILE, "started"), event(2, HOSTILE, "preempted")];
    rows.push(step(3, 0, None));
    let folder = tempfile::tempdir().unwrap();
    let mut csv = CsvFolder::create(folder.path()).unwrap();
    for row in &rows {
        csv.row(row).unwrap();
    }
    csv.flush().unwrap();
    let metadata = serde_json::json!({
        "session_id": HOSTILE, "host": HOSTILE, "processes": [{"pid": 100, "title": HOSTILE, "vllm": HOSTILE}],
        "tables": {"methods": {"rows": 0, "coverage": {"status": HOSTILE, "reason": HOSTILE}}}
    });
    fs::write(folder.path().join("metadata.json"), metadata.to_string()).unwrap();
    let text = page(&report(folder.path()));
    assert_eq!(
        text.matches("<script").count(),
        3,
        "the data, the library, the page's own"
    );
    assert!(!text.contains("<img") && !text.contains("onerror=alert(2)>"));
    let (_, data) = text.split_once("id=\"plots\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: Vec<Value> = serde_json::from_str(data).unwrap();
    assert!(data.iter().any(|plot| plot["id"] == "requests"));
    assert!(text.contains("default-src 'none'; script-src 'sha256-"));
    assert!(is_ours(text.as_bytes()) && !is_ours(b"<!doctype html>"));
}

#[test]
fn a_folder_of_the_predecessor_and_a_torn_one_make_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "forward_pass_timing.csv",
        "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,throughput_tokens_per_sec\r\n\
         0.125,decode,4,4,10.500,380.95\r\n0.225,decode,4,4,11.500,380.95\r\n0.3,dec",
    );
    write(
        "cuda_graph_usage.csv",
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\r\nCUDAGraphMode.FULL,8,None,False,False,12\r\n",
    );
    let report = report(folder.path());
    assert_eq!(plot(&report, "passes").views[0].name, "worker");
    assert_eq!(
        trace(&report, "passes", 0, "decode")["y"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(trace(&report, "graphs", 0, "FULL")["y"][0], 12);
    let text = page(&report);
    assert!(
        text.contains("the last row is torn") && text.contains("the session has no such file.")
    );
}

#[test]
fn the_page_stays_small_however_many_rows_there_are() {
    let mut chapters = Chapters::default();
    for row in 0..200_000_i64 {
        let at = Stamp(row * 1_000_000);
        let pid = 1 + u32::try_from(row % 64).unwrap();
        chapters.row(&step(
            row,
            u32::try_from(row % 40).unwrap(),
            Some(row % 100),
        ));
        chapters.row(
            &ForwardPass {
                timestamp_sec: at,
                phase: Some("decode"),
                forward_time_ms: Some(Millis(1_000_000)),
                pid,
                ..ForwardPass::default()
            }
            .into(),
        );
        chapters.row(
            &KvCacheEviction {
                timestamp_sec: at,
                pid: 100,
                engine: Some(0),
                ..KvCacheEviction::default()
            }
            .into(),
        );
        chapters.row(&event(
            row,
            &format!("request {}", row / 3),
            ["started", "preempted", "finished"][(row % 3) as usize],
        ));
        chapters.row(
            &MoeExpertSelection {
                layer_idx: (row % 300) as u64,
                expert_id: (row / 300) as u64,
                activation_count: 1,
                percentage: Some(Real(0.1)),
                pid: 1,
                ..MoeExpertSelection::default()
            }
            .into(),
        );
    }
    let sections = chapters.sections(&Metadata::default());
    let plots: Vec<&Plot> = sections.iter().flat_map(|section| &section.plots).collect();
    let size = serde_json::to_string(&plots).unwrap().len();
    assert!(size < 16 << 20, "{size} bytes");
    let told: Vec<&String> = plots
        .iter()
        .flat_map(|plot| &plot.views)
        .flat_map(|view| &view.notes)
        .collect();
    for part in [
        "Drawn are",
        "requests is drawn",
        "preemptions is marked",
        "further processes",
        "further layers",
    ] {
        assert!(told.iter().any(|note| note.contains(part)), "{part}");
    }
}

#[test]
fn the_load_of_experts_is_their_part_of_the_layers_choices() {
    let row = |layer, expert, count| {
        MoeExpertSelection {
            layer_idx: layer,
            expert_id: expert,
            activation_count: count,
            pid: 1,
            ..MoeExpertSelection::default()
        }
        .into()
    };
    let (_folder, report) = of_rows(&[row(0, 0, 30), row(0, 2, 10), row(3, 1, 5)]);
    let heat = &plot(&report, "experts").views[0].data[0];
    assert_eq!(heat["x"], serde_json::json!([0, 1, 2]));
    assert_eq!(heat["y"], serde_json::json!([0, 3]));
    assert_eq!(
        heat["z"],
        serde_json::json!([[75.0, null, 25.0], [null, 100.0, null]])
    );
}
