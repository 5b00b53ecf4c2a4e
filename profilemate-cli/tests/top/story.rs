//! Ten seconds of a made-up server, row by row, for the live view: one engine, two workers, a request that was
//! preempted, and CUDA graphs.

use profilemate::event::Process;
use profilemate::sink::metadata::Overhead;
use profilemate::sink::watch::{Losses, Pulse, Watcher as _};
use profilemate::table::AnyRow;
use profilemate::table::batch_utilization::BatchUse;
use profilemate::table::cell::{Millis, Real, Seconds, Stamp};
use profilemate::table::cpu_operations_timing::CpuOperation;
use profilemate::table::cuda_graph_usage::CudaGraphUse;
use profilemate::table::forward_pass_timing::ForwardPass;
use profilemate::table::kv_cache_evictions::KvCacheEviction;
use profilemate::table::kv_cache_usage::KvCacheUse;
use profilemate::table::preemption_events::PreemptionEvent;
use profilemate::table::request_lifecycle::RequestLifecycle;
use profilemate::view::top::Shared;

const ENGINE: u32 = 101;
const WORKERS: [u32; 2] = [102, 103];
const MS: i64 = 1_000_000;

fn process(pid: u32, role: &str, rank: Option<u32>) -> Process {
    Process {
        pid,
        role: role.to_owned(),
        rank,
        ..Process::default()
    }
}

/// The whole story, told: 100 steps a second for ten seconds.
pub(crate) fn told() -> Shared {
    let mut shared = Shared::default();
    let processes = [
        process(100, "api_server", None),
        process(ENGINE, "engine_core", None),
        process(WORKERS[0], "worker", Some(0)),
        process(WORKERS[1], "worker", Some(1)),
    ];
    for step in 0..1000_i64 {
        for row in rows(step) {
            shared.row(&row);
        }
        if step % 10 == 9 {
            let now = Stamp((step + 1) * 10 * MS);
            shared.pulse(&Pulse {
                now,
                events: (step as u64 + 1) * 9,
                lost: 3,
                losses: Losses::default(),
                costs: Vec::new(),
                began_unix_ns: None,
                overhead: Some(Overhead {
                    tracer_cpu_sec: Some(now.0 as f64 / 1e9 * 0.04),
                    tracer_rss_bytes: Some(50 << 20),
                    target_stopped_ms: Some(1.25),
                    probe_run_ms: None,
                }),
                processes: processes.iter().collect(),
            });
        }
    }
    shared
}

fn rows(step: i64) -> Vec<AnyRow> {
    let at = Stamp(step * 10 * MS);
    let mut rows: Vec<AnyRow> = engine(step, at);
    for (rank, &pid) in (0_u32..).zip(&WORKERS) {
        rows.push(
            ForwardPass {
                timestamp_sec: at,
                num_tokens: Some(40),
                forward_time_ms: Some(Millis(4_000_000 + u64::from(rank) * 1_000_000)),
                graph_mode: Some(if step % 4 == 0 { "NONE" } else { "FULL" }),
                pid,
                rank: Some(rank),
                ..ForwardPass::default()
            }
            .into(),
        );
        for (operation, ns) in [
            ("execute_model", 4_000_000),
            ("prepare_inputs", 500_000),
            ("model_forward", 3_000_000 + u64::from(rank) * 250_000),
            ("sample", 100_000),
            ("bookkeeping_sync", 750_000),
        ] {
            rows.push(operation_row(pid, at, operation, ns));
        }
    }
    rows
}

fn operation_row(pid: u32, at: Stamp, operation: &str, ns: u64) -> AnyRow {
    CpuOperation {
        timestamp_sec: at,
        operation: operation.to_owned(),
        duration_ms: Some(Millis(ns)),
        pid,
        ..CpuOperation::default()
    }
    .into()
}

fn engine(step: i64, at: Stamp) -> Vec<AnyRow> {
    let mut rows: Vec<AnyRow> = vec![
        BatchUse {
            timestamp_sec: at,
            num_seqs: Some(5),
            max_num_seqs: Some(8),
            seq_utilization_pct: Some(Real(62.5)),
            num_tokens: Some(40 + step / 100),
            token_utilization_pct: Some(Real(31.25)),
            running_queue_len: Some(5),
            waiting_queue_len: Some(2),
            step: step as u64 + 1,
            pid: ENGINE,
            ..BatchUse::default()
        }
        .into(),
        KvCacheUse {
            timestamp_sec: at,
            usage_pct: Some(Real(91.5)),
            num_blocks: Some(366),
            total_blocks: Some(400),
            pid: ENGINE,
            ..KvCacheUse::default()
        }
        .into(),
        operation_row(ENGINE, at, "schedule", 200_000),
        operation_row(ENGINE, at, "update_from_output", 90_000),
    ];
    let happened = |event: &'static str, id: &str| -> AnyRow {
        PreemptionEvent {
            timestamp_sec: at,
            request_id: id.to_owned(),
            event,
            pid: ENGINE,
            ..PreemptionEvent::default()
        }
        .into()
    };
    match step {
        50 => rows.push(happened("started", "cmpl-slow")),
        100 => rows.push(happened("started", "cmpl-quick")),
        200 => rows.push(happened("preempted", "cmpl-slow")),
        300 => rows.push(happened("resumed", "cmpl-slow")),
        400 => rows.extend([
            happened("finished", "cmpl-quick"),
            RequestLifecycle {
                request_id: "cmpl-quick".into(),
                finished_sec: at,
                total_time_sec: Some(Seconds(3_000_000_000)),
                pid: ENGINE,
                ..RequestLifecycle::default()
            }
            .into(),
        ]),
        900 => rows.push(
            KvCacheEviction {
                timestamp_sec: at,
                pid: ENGINE,
                ..KvCacheEviction::default()
            }
            .into(),
        ),
        // As of a request that ran before the attach.
        950 => rows.push(happened("preempted", "cmpl-early")),
        999 => rows.extend([graph("FULL", 8, 700, 37.5), graph("PIECEWISE", 64, 50, 2.0)]),
        _ => {}
    }
    rows
}

fn graph(mode: &'static str, size: u64, replays: u64, padding: f64) -> AnyRow {
    CudaGraphUse {
        runtime_mode: Some(mode),
        num_tokens: Some(size),
        replay_count: replays,
        padding_pct: Some(Real(padding)),
        pid: WORKERS[0],
        ..CudaGraphUse::default()
    }
    .into()
}
