//! Rows of a made-up server, and the series that come of them.

use super::label::size;
use super::*;
use crate::metrics::exposition::{Format, expose};
use crate::table::cell::{Millis, Real, Seconds, Stamp};
use crate::table::cuda_graph_usage::CudaGraphUse;

fn process(pid: u32, parent: u32, role: &str, engine: Option<u32>) -> Process {
    Process {
        pid,
        parent,
        role: role.into(),
        engine,
        vllm: Some("0.32.0".into()),
        python: Some("3.12.1".into()),
        technique: "method_probes".into(),
        ..Process::default()
    }
}

fn pulse<'a>(processes: &'a [&'a Process], events: u64, losses: Losses) -> Pulse<'a> {
    Pulse {
        now: Stamp(1_000_000_000),
        events,
        lost: losses.ring + losses.driver + losses.userspace,
        losses,
        overhead: None,
        costs: Vec::new(),
        began_unix_ns: None,
        processes: processes.to_vec(),
    }
}

fn teller() -> (Arc<Registry>, Teller) {
    let registry = Arc::new(Registry::default());
    let teller = Teller::new(Arc::clone(&registry), "s", About::default());
    (registry, teller)
}

/// The value of a series in Prometheus's text.
fn value(registry: &Registry, series: &str) -> Option<f64> {
    let text = String::from_utf8(expose(registry, Format::Text).unwrap()).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{series} ")))?;
    line[series.len() + 1..].parse().ok()
}

fn step(pid: u32, step: u64, at_ms: i64) -> AnyRow {
    BatchUse {
        pid,
        step,
        timestamp_sec: Stamp(at_ms * 1_000_000),
        num_tokens: Some(10),
        ..BatchUse::default()
    }
    .into()
}

#[test]
fn ten_thousand_requests_make_no_more_series_than_ten() {
    let series = |requests: u64| {
        let (registry, mut teller) = teller();
        let engine = process(7, 1, "engine_core", None);
        teller.pulse(&pulse(&[&engine], 0, Losses::default()));
        for number in 0..requests {
            let id = format!("cmpl-{number}-{}", number.wrapping_mul(0x9e37_79b9));
            teller.row(&step(7, number, number as i64));
            for event in ["started", "preempted", "resumed", "finished"] {
                let row = PreemptionEvent {
                    request_id: id.clone(),
                    event,
                    pid: 7,
                    computed_tokens_lost: Some(3),
                    ..PreemptionEvent::default()
                };
                teller.row(&row.into());
            }
            let row = RequestLifecycle {
                request_id: id,
                total_time_sec: Some(Seconds(number * 1_000_000)),
                pid: 7,
                ..RequestLifecycle::default()
            };
            teller.row(&row.into());
            let row = CudaGraphUse {
                runtime_mode: Some("FULL"),
                num_tokens: Some(number + 1),
                replay_count: 1,
                pid: 7,
                ..CudaGraphUse::default()
            };
            teller.row(&row.into());
        }
        let text = String::from_utf8(expose(&registry, Format::OpenMetrics).unwrap()).unwrap();
        assert!(!text.contains("cmpl-"), "a request id is in the metrics");
        (registry, text.lines().count())
    };
    let (few, lines_few) = series(20_000 / 2_000);
    let (many, lines_many) = series(10_000);
    // Sizes are the only label that grows, and these are powers of two up to a bound.
    assert!(
        many.len() <= few.len() + 15,
        "{} and {}",
        few.len(),
        many.len()
    );
    assert!(lines_many <= lines_few + 15);
    let name = "gen_ai_server_request_duration_seconds_count{server=\"s\",engine=\"0\"}";
    assert_eq!(value(&many, name), Some(10_000.0));
    assert_eq!(
        value(
            &many,
            "profilemate_preemptions_total{server=\"s\",engine=\"0\"}"
        ),
        Some(10_000.0)
    );
    assert_eq!(
        value(
            &many,
            "profilemate_recomputed_tokens_total{server=\"s\",engine=\"0\"}"
        ),
        Some(30_000.0)
    );
    assert_eq!(many.refused(), 0);
}

#[test]
fn totals_that_begin_anew_with_a_session_go_on_growing() {
    let (registry, mut teller) = teller();
    let worker = process(8, 7, "worker", Some(1));
    let row = |replay_count, padded| {
        AnyRow::from(CudaGraphUse {
            runtime_mode: Some("FULL"),
            num_tokens: Some(12),
            replay_count,
            padded_tokens: Some(padded),
            actual_tokens: Some(padded - 1),
            pid: 8,
            rank: Some(3),
            ..CudaGraphUse::default()
        })
    };
    for session in [[2, 5, 5], [1, 4, 9]] {
        teller.pulse(&pulse(&[&worker], 0, Losses::default()));
        for replays in session {
            teller.row(&row(replays, replays * 16));
        }
        teller.end_session();
    }
    let of = |name: &str, rest: &str| {
        value(
            &registry,
            &format!(
                "profilemate_graph_{name}{{server=\"s\",engine=\"1\",rank=\"3\",mode=\"FULL\"{rest}}}"
            ),
        )
    };
    assert_eq!(of("replays_total", ",size=\"16\""), Some(14.0));
    assert_eq!(of("padded_tokens_total", ""), Some(14.0 * 16.0));
    assert_eq!(of("tokens_total", ""), Some(14.0 * 16.0 - 2.0));
}

#[test]
fn rows_wait_until_their_process_is_known_and_workers_have_their_engines_index() {
    let (registry, mut teller) = teller();
    let engine = process(7, 1, "engine_core", Some(2));
    let worker = process(8, 7, "worker", None);
    let row = ForwardPass {
        pid: 8,
        forward_time_ms: Some(Millis(4_000_000)),
        graph_mode: Some("FULL"),
        ..ForwardPass::default()
    };
    teller.row(&row.into());
    let name = "profilemate_forward_duration_seconds_sum{server=\"s\",engine=\"2\",rank=\"0\",graph_mode=\"FULL\"}";
    assert_eq!(value(&registry, name), None);
    teller.pulse(&pulse(&[&engine, &worker], 0, Losses::default()));
    assert_eq!(value(&registry, name), Some(0.004));
}

#[test]
fn what_a_table_covers_is_zero_and_what_it_does_not_has_no_series() {
    let (registry, mut teller) = teller();
    let engine = process(7, 1, "engine_core", None);
    teller.covers(&[
        ("preemption_events", Status::Observed),
        ("kv_cache_evictions", Status::NotObservable),
        ("batch_utilization", Status::Partial),
    ]);
    teller.pulse(&pulse(&[&engine], 0, Losses::default()));
    let of = |name: &str| {
        value(
            &registry,
            &format!("profilemate_{name}_total{{server=\"s\",engine=\"0\"}}"),
        )
    };
    assert_eq!((of("preemptions"), of("steps")), (Some(0.0), Some(0.0)));
    assert_eq!(of("kv_cache_evictions"), None);
}

#[test]
fn events_and_losses_grow_over_sessions() {
    let (registry, mut teller) = teller();
    let engine = process(7, 1, "engine_core", None);
    for events in [5, 9] {
        let losses = Losses {
            ring: events,
            ..Losses::default()
        };
        teller.pulse(&pulse(&[&engine], events, losses));
        teller.pulse(&pulse(&[&engine], events + 1, losses));
        teller.end_session();
    }
    assert_eq!(
        value(&registry, "profilemate_events_total{server=\"s\"}"),
        Some(16.0)
    );
    assert_eq!(
        value(
            &registry,
            "profilemate_events_lost_total{server=\"s\",kind=\"ring\"}"
        ),
        Some(14.0)
    );
    assert_eq!(
        value(&registry, "profilemate_server_up{server=\"s\"}"),
        Some(0.0)
    );
    teller.end();
    assert!(registry.is_empty());
}

#[test]
fn an_idle_gap_is_no_step_and_what_the_server_is_stands_in_one_series() {
    let (registry, mut teller) = teller();
    let engine = process(7, 1, "engine_core", None);
    teller.pulse(&pulse(&[&engine], 0, Losses::default()));
    for (number, at) in [(1, 0), (2, 10), (3, 30), (4, 9_000), (5, 9_001)] {
        teller.row(&step(7, number, at));
    }
    let row = KvCacheUse {
        pid: 7,
        usage_pct: Some(Real(25.0)),
        ..KvCacheUse::default()
    };
    teller.row(&row.into());
    let of = |name: &str| {
        value(
            &registry,
            &format!("profilemate_{name}{{server=\"s\",engine=\"0\"}}"),
        )
    };
    assert_eq!(of("step_duration_seconds_count"), Some(3.0));
    assert_eq!(of("steps_total"), Some(5.0));
    assert_eq!(of("kv_cache_usage_ratio"), Some(0.25));
    let text = String::from_utf8(expose(&registry, Format::Text).unwrap()).unwrap();
    let infos: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("profilemate_server_info"))
        .collect();
    assert_eq!(infos.len(), 1, "{infos:?}");
    assert!(infos[0].contains("version=\"0.32.0\""), "{infos:?}");
}

#[test]
fn sizes_and_stages_have_few_values() {
    assert_eq!(size(Some(0)), "1");
    assert_eq!(size(Some(9)), "16");
    assert_eq!(size(Some(8_192)), "8192");
    assert_eq!(size(Some(8_193)), "larger");
    assert_eq!(size(Some(u64::MAX)), "larger");
    assert_eq!(size(None), "unknown");
    assert_eq!(stage("bookkeeping_sync"), "wait");
    assert_eq!(stage("execute_model"), "execute");
    assert_eq!(stage("anything else"), "other");
}
