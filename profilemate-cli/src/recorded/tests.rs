//! Folders as this version, older versions, the predecessor and killed tracers leave them.

use std::fs;

use super::*;
use crate::sink::csv::CsvFolder;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Millis, Real, Seconds, Stamp};
use crate::table::cuda_graph_usage::CudaGraphUse;
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::preemption_events::PreemptionEvent;

fn all<R: Row>(session: &Session) -> (Vec<R>, Tally) {
    let mut sheet = session.rows::<R>().unwrap().unwrap();
    let rows: Vec<R> = sheet.by_ref().map(Result::unwrap).collect();
    (rows, sheet.tally())
}

#[test]
fn every_row_of_every_table_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = CsvFolder::create(folder.path()).unwrap();
    let rows: Vec<AnyRow> = vec![
        CudaGraphUse {
            runtime_mode: Some("FULL"),
            uniform: Some(true),
            replay_count: 3,
            padding_pct: Some(Real(12.5)),
            pid: 7,
            ..CudaGraphUse::default()
        }
        .into(),
        BatchUse {
            timestamp_sec: Stamp(1_234_567_000),
            num_seqs: Some(3),
            phase: Some("decode"),
            step: 9,
            schedule_ms: Some(Millis(1_500_001)),
            pid: 7,
            engine: Some(1),
            ..BatchUse::default()
        }
        .into(),
        PreemptionEvent {
            request_id: "a,\"b\"\nc".into(),
            event: "preempted",
            running_time_sec: Some(Seconds(1_000_000)),
            ..PreemptionEvent::default()
        }
        .into(),
    ];
    for row in &rows {
        csv.row(row).unwrap();
    }
    csv.flush().unwrap();
    let session = Session::open(folder.path()).unwrap();
    let mut back = Vec::new();
    let notes = session.each(&mut |row| back.push(row.clone())).unwrap();
    assert_eq!(back, rows);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("metadata.json"), "{notes:?}");
}

#[test]
fn a_folder_of_the_predecessor_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "metadata.json",
        r#"{"session_id": "20250101_000000", "cuda_graph_tracking": true, "processes": 3}"#,
    );
    write(
        "forward_pass_timing.csv",
        "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,throughput_tokens_per_sec\r\n\
         0.125,decode,4,4,10.500,380.95\r\n",
    );
    write(
        "cuda_graph_usage.csv",
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\r\nCUDAGraphMode.FULL,8,None,False,False,12\r\n",
    );
    write(
        "moe_expert_activations.csv",
        "layer_idx,expert_id,activation_count,percentage\r\n0,3,12,50.0\r\n",
    );
    let session = Session::open(folder.path()).unwrap();
    assert_eq!(
        session.metadata.session_id.as_deref(),
        Some("20250101_000000")
    );
    let sheet = session.rows::<ForwardPass>().unwrap().unwrap();
    assert!(sheet.has("num_tokens") && !sheet.has("step"));
    let (passes, _) = all::<ForwardPass>(&session);
    assert_eq!(passes[0].forward_time_ms, Some(Millis(10_500_000)));
    assert_eq!((passes[0].phase, passes[0].step), (Some("decode"), None));
    let (uses, _) = all::<CudaGraphUse>(&session);
    assert_eq!(uses[0].runtime_mode, Some("FULL"));
    assert_eq!((uses[0].num_reqs, uses[0].replay_count), (None, 12));
    let (experts, _) = all::<crate::table::moe_expert_selection::MoeExpertSelection>(&session);
    assert_eq!((experts[0].expert_id, experts[0].activation_count), (3, 12));
    assert!(session.rows::<BatchUse>().unwrap().is_none());
}

#[test]
fn a_torn_last_row_is_left_out_even_if_it_looks_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv_cache_evictions.csv");
    let whole = "timestamp_sec,lifetime_sec,idle_sec,block_id,pid,engine\n0.1,,,28,30077,\n";
    for torn in ["0.2", "0.2,,,30,30077,", "0.2,,,30,300", "0.2,,,\"30"] {
        fs::write(&path, format!("{whole}{torn}")).unwrap();
        let session = Session::open(&path).unwrap();
        let (rows, tally) = all::<crate::table::kv_cache_evictions::KvCacheEviction>(&session);
        assert_eq!((rows.len(), tally.torn), (1, true), "{torn}");
    }
    fs::write(&path, "timestamp_sec,lifet").unwrap();
    let session = Session::open(folder.path()).unwrap();
    let (rows, tally) = all::<crate::table::kv_cache_evictions::KvCacheEviction>(&session);
    assert_eq!((rows.len(), tally.torn), (0, true));
}

#[test]
fn some_unreadable_rows_are_told_and_many_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv_cache_usage.csv");
    let head = "timestamp_sec,usage_pct,num_blocks,total_blocks\n";
    fs::write(&path, format!("{head}0.1,50,1,2\n0.2,full,1,2\n,1,1,1\n")).unwrap();
    let session = Session::open(folder.path()).unwrap();
    let notes = session.each(&mut |_| {}).unwrap();
    assert!(
        notes.iter().any(|note| note.contains("2 rows")
            && note.contains("line 3")
            && note.contains("`full`")),
        "{notes:?}"
    );
    fs::write(&path, format!("{head}{}", "0.1,full,1,2\n".repeat(200))).unwrap();
    let error = session.each(&mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("kv_cache_usage.csv") && error.to_string().contains("usage_pct"),
        "{error}"
    );
}

#[test]
fn a_file_of_another_table_is_refused_by_its_header() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kv_cache_usage.csv"), "name,age\nx,1\n").unwrap();
    let session = Session::open(folder.path()).unwrap();
    let error = session.each(&mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("`timestamp_sec`"), "{error}");
}

#[test]
fn a_quotation_mark_that_never_closes_is_not_read_into_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("timestamp_sec,request_id,event\n0.1,\"");
    text.push_str(&"x,y\n".repeat(6 << 20));
    fs::write(folder.path().join("preemption_events.csv"), text).unwrap();
    let session = Session::open(folder.path()).unwrap();
    let error = session.each(&mut |_| {}).unwrap_err();
    let error = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.contains("does not end"), "{error}");
}

#[test]
fn what_is_no_session_is_named_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let error = Session::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotASession(_)), "{error}");
    let inner = folder.path().join("session_2");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("metadata.json"), "{}").unwrap();
    let error = Session::open(folder.path()).unwrap_err();
    assert!(error.hint().contains("session_2"), "{}", error.hint());
    let error = Session::open(&folder.path().join("nothing")).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
}

#[test]
fn a_worker_belongs_to_the_engine_above_it() {
    let metadata: Metadata = serde_json::from_str(
        r#"{"processes": [{"pid": 1, "role": "api_server"}, {"pid": 2, "parent": 1, "role": "engine_core"},
            {"pid": 3, "parent": 1, "role": "engine_core"}, {"pid": 4, "parent": 3, "role": "worker"}]}"#,
    )
    .unwrap();
    assert_eq!(metadata.engine_of(4), Some(3));
    assert_eq!(metadata.engine_of(2), Some(2));
    assert_eq!(metadata.engine_of(1), None);
    assert_eq!(metadata.lost(), None);
}
