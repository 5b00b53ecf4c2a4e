//! A session folder that has something of everything, and ids that mean harm.

use std::path::Path;

use profilemate::sink::csv::CsvFolder;
use profilemate::table::AnyRow;
use profilemate::table::batch_utilization::BatchUse;
use profilemate::table::cell::{Millis, Real, Seconds, Stamp};
use profilemate::table::cpu_operations_timing::CpuOperation;
use profilemate::table::cuda_graph_captures::CudaGraphCapture;
use profilemate::table::cuda_graph_usage::CudaGraphUse;
use profilemate::table::encoder_decoder_timing::EncoderCall;
use profilemate::table::forward_pass_timing::ForwardPass;
use profilemate::table::kv_cache_evictions::KvCacheEviction;
use profilemate::table::kv_cache_usage::KvCacheUse;
use profilemate::table::methods::MethodCall;
use profilemate::table::moe_expert_selection::MoeExpertSelection;
use profilemate::table::moe_expert_timing::MoeExpertTime;
use profilemate::table::moe_load_imbalance::MoeLoadImbalance;
use profilemate::table::preemption_events::PreemptionEvent;
use profilemate::table::request_lifecycle::RequestLifecycle;
use profilemate::table::speculative_decoding::SpeculativeStep;

/// What a request id, a name or a title may try.
pub(crate) const HOSTILE: &str = "</script><script>window.alerted=true</script><img src=x onerror=\"window.alerted=true\">&'%{x}";
/// Steps of each engine.
pub(crate) const STEPS: u32 = 240;
/// Requests of each engine.
pub(crate) const REQUESTS: u32 = 40;
/// Engines, each with one worker.
pub(crate) const ENGINES: u32 = 2;

/// Writes the session into `folder`.
pub(crate) fn write(folder: &Path) {
    let mut csv = CsvFolder::create(folder).unwrap();
    for engine in 0..ENGINES {
        let rows = (1..=STEPS).flat_map(|step| at_step(engine, step));
        for row in rows.chain(requests(engine)).chain(totals(engine)) {
            csv.row(&row).unwrap();
        }
    }
    csv.flush().unwrap();
    let process = |pid: u32, parent: u32, role: &str, engine: Option<u32>, rank: Option<u32>| {
        serde_json::json!({
            "pid": pid, "parent": parent, "role": role, "engine": engine, "rank": rank, "title": HOSTILE,
            "python": "3.12.1", "vllm": HOSTILE
        })
    };
    let metadata = serde_json::json!({
        "schema_version": 1, "session_id": HOSTILE, "host": HOSTILE, "duration_sec": 30.0,
        "start_time": "2026-11-23T06:00:00Z", "end_time": "2026-11-23T06:00:30Z",
        "processes": [
            process(10, 1, "api_server", None, None),
            process(20, 10, "engine_core", Some(0), None), process(21, 10, "engine_core", Some(1), None),
            process(30, 20, "worker", None, Some(0)), process(31, 21, "worker", None, Some(1)),
        ],
        "tables": {"moe_expert_coselection": {"rows": 0, "coverage": {"status": "not_observable", "reason": HOSTILE}}},
        "events": {"received": 1000, "lost_kernel": 3, "lost_userspace": 0}
    });
    std::fs::write(folder.join("metadata.json"), metadata.to_string()).unwrap();
}

fn stamp(step: u32) -> Stamp {
    Stamp(i64::from(step) * 120_000_000)
}

/// A time that differs from step to step, in milliseconds.
fn varied(step: u32, low: f64, high: f64) -> f64 {
    let part = f64::from(step.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24);
    low + (high - low) * part * part
}

fn millis(ms: f64) -> Millis {
    Millis((ms * 1e6) as u64)
}

fn phase(step: u32) -> &'static str {
    ["prefill", "mixed", "decode", "decode", "decode", "decode"][step as usize % 6]
}

fn at_step(engine: u32, step: u32) -> Vec<AnyRow> {
    let (pid, worker, at) = (20 + engine, 30 + engine, stamp(step));
    let running = i64::from(3 + (step / 10 + engine) % 6);
    let waiting = (i64::from(step) - 120).abs() / 12;
    let prompt = if phase(step) == "decode" {
        0
    } else {
        i64::from(40 + step % 17)
    };
    let usage = 55.0 + 44.0 * (f64::from(step) / 23.0).sin().abs();
    let pass = varied(step + engine, 4.0, 24.0);
    let mut rows: Vec<AnyRow> = vec![
        BatchUse {
            timestamp_sec: at,
            num_seqs: Some(running),
            max_num_seqs: Some(8),
            num_tokens: Some(prompt + running),
            max_tokens: Some(64),
            phase: Some(phase(step)),
            running_queue_len: Some(running),
            waiting_queue_len: Some(waiting),
            step: u64::from(step),
            prefill_tokens: Some(prompt),
            decode_tokens: Some(running),
            pid,
            engine: Some(engine),
            ..BatchUse::default()
        }
        .into(),
        KvCacheUse {
            timestamp_sec: at,
            usage_pct: Some(Real(usage)),
            num_blocks: Some(usage as i64),
            total_blocks: Some(100),
            pid,
            engine: Some(engine),
            ..KvCacheUse::default()
        }
        .into(),
        ForwardPass {
            timestamp_sec: at,
            phase: Some(phase(step)),
            batch_size: Some(running),
            forward_time_ms: Some(millis(pass)),
            step: Some(u64::from(step)),
            pid: worker,
            rank: Some(engine),
            ..ForwardPass::default()
        }
        .into(),
    ];
    rows.extend(work_of_step(engine, step, pass));
    if usage > 90.0 {
        rows.push(
            KvCacheEviction {
                timestamp_sec: at,
                lifetime_sec: Some(Seconds(2_000_000_000)),
                pid,
                engine: Some(engine),
                ..KvCacheEviction::default()
            }
            .into(),
        );
    }
    rows
}

/// Everything else of a step whose pass took so many milliseconds.
fn work_of_step(engine: u32, step: u32, pass: f64) -> Vec<AnyRow> {
    let (pid, worker, at) = (20 + engine, 30 + engine, stamp(step));
    let mut rows: Vec<AnyRow> = vec![
        SpeculativeStep {
            timestamp_sec: at,
            draft_tokens: Some(10),
            accepted_tokens: Some(u64::from(step % 11)),
            acceptance_pct: Some(Real(f64::from(step % 11) * 10.0)),
            pid,
            engine: Some(engine),
            ..SpeculativeStep::default()
        }
        .into(),
        MethodCall {
            timestamp_sec: at,
            method: HOSTILE.to_owned(),
            duration_ms: Some(millis(varied(step, 0.1, 2.0))),
            outcome: "none",
            pid: 10,
            ..MethodCall::default()
        }
        .into(),
        EncoderCall {
            timestamp_sec: at,
            component: "encoder",
            duration_ms: Some(millis(varied(step, 2.0, 6.0))),
            pid: worker,
            rank: Some(engine),
            ..EncoderCall::default()
        }
        .into(),
    ];
    for (operation, part) in [
        ("prepare_inputs", 0.2),
        ("execute_model", 0.6),
        (HOSTILE, 0.05),
        ("unattributed", 0.1),
    ] {
        rows.push(
            CpuOperation {
                timestamp_sec: at,
                operation: operation.to_owned(),
                duration_ms: Some(millis(pass)),
                self_ms: Some(millis(pass * part)),
                pid: worker,
                rank: Some(engine),
                ..CpuOperation::default()
            }
            .into(),
        );
    }
    for layer in 0..4 {
        rows.push(
            MoeExpertTime {
                timestamp_sec: at,
                layer_idx: Some(layer),
                duration_ms: Some(millis(varied(step, 0.5, 1.5))),
                pid: worker,
                rank: Some(engine),
                ..MoeExpertTime::default()
            }
            .into(),
        );
        if step.is_multiple_of(8) {
            rows.push(
                MoeLoadImbalance {
                    timestamp_sec: at,
                    layer_idx: layer,
                    std_dev: Some(Real(varied(step, 1.0, 9.0))),
                    choices: 100,
                    pid: worker,
                    rank: Some(engine),
                    ..MoeLoadImbalance::default()
                }
                .into(),
            );
        }
    }
    rows
}

/// Each request runs for some steps; every fourth is preempted on its way.
fn requests(engine: u32) -> Vec<AnyRow> {
    let mut rows = Vec::new();
    for number in 0..REQUESTS {
        let id = format!("{number} {HOSTILE}");
        let start = 1 + number * 5;
        let mut event = |step: u32, event: &'static str| {
            rows.push(
                PreemptionEvent {
                    timestamp_sec: stamp(step),
                    request_id: id.clone(),
                    event,
                    reason: (event == "preempted").then_some("kv_blocks_exhausted"),
                    computed_tokens_lost: Some(32),
                    pid: 20 + engine,
                    engine: Some(engine),
                    ..PreemptionEvent::default()
                }
                .into(),
            );
        };
        event(start, "started");
        if number.is_multiple_of(4) {
            event(start + 6, "preempted");
            event(start + 12, "resumed");
        }
        event(start + 20, "finished");
        rows.push(
            RequestLifecycle {
                request_id: id.clone(),
                started_sec: Some(stamp(start)),
                finished_sec: stamp(start + 20),
                total_time_sec: Some(Seconds(2_400_000_000 + u64::from(number) * 9_000_000)),
                preemption_delay_sec: (number.is_multiple_of(4)).then_some(Seconds(720_000_000)),
                pid: 20 + engine,
                engine: Some(engine),
                ..RequestLifecycle::default()
            }
            .into(),
        );
    }
    rows
}

fn totals(engine: u32) -> Vec<AnyRow> {
    let (pid, rank) = (30 + engine, Some(engine));
    let mut rows = Vec::new();
    for (index, tokens) in [1_u64, 2, 4, 8].into_iter().enumerate() {
        for mode in ["FULL", "PIECEWISE"] {
            let replays = 100 - 20 * index as u64;
            rows.push(
                CudaGraphUse {
                    runtime_mode: Some(mode),
                    num_tokens: Some(tokens),
                    replay_count: replays,
                    padded_tokens: Some(replays * tokens),
                    actual_tokens: Some(replays * tokens * 3 / 4),
                    pid,
                    rank,
                    ..CudaGraphUse::default()
                }
                .into(),
            );
            rows.push(
                CudaGraphCapture {
                    runtime_mode: Some(mode),
                    num_tokens: Some(tokens),
                    duration_ms: Some(millis(20.0 + tokens as f64)),
                    outcome: "captured",
                    pid,
                    rank,
                    ..CudaGraphCapture::default()
                }
                .into(),
            );
        }
    }
    for (reason, passes) in [("above_largest_captured", 17), ("cascade_attention", 3)] {
        rows.push(
            CudaGraphUse {
                runtime_mode: Some("NONE"),
                eager_passes: passes,
                eager_reason: Some(reason),
                pid,
                rank,
                ..CudaGraphUse::default()
            }
            .into(),
        );
    }
    for layer in 0..4_u64 {
        for expert in 0..16_u64 {
            let count =
                50 + (layer * 31 + expert * 17) % 97 + if expert == layer * 3 { 400 } else { 0 };
            rows.push(
                MoeExpertSelection {
                    layer_idx: layer,
                    expert_id: expert,
                    activation_count: count,
                    pid,
                    rank,
                    ..MoeExpertSelection::default()
                }
                .into(),
            );
        }
    }
    rows
}
