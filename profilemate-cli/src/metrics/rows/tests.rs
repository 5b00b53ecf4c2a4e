//! Rows of a made-up server, and the series that come of them.

use std::time::Duration;

use super::label::size;
use super::*;
use crate::explain::rule::RULES;
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

fn covered(status: Status) -> Coverage {
    Coverage::new(status, "")
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
        ("preemption_events", covered(Status::Observed)),
        ("kv_cache_evictions", covered(Status::NotObservable)),
        ("batch_utilization", covered(Status::Partial)),
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

/// A pulse at that second of the session.
fn beat<'a>(processes: &'a [&'a Process], sec: i64) -> Pulse<'a> {
    Pulse {
        now: Stamp(sec * 1_000_000_000),
        ..pulse(processes, 0, Losses::default())
    }
}

/// How many series of a metric there are.
fn count(registry: &Registry, metric: &str) -> usize {
    let text = String::from_utf8(expose(registry, Format::Text).unwrap()).unwrap();
    text.lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")))
        .count()
}

fn event(number: u64, event: &'static str) -> AnyRow {
    PreemptionEvent {
        request_id: format!("cmpl-{}", number % 30),
        event,
        computed_tokens_lost: (event == "preempted").then_some(500),
        timestamp_sec: Stamp(number as i64 * 1_000_000),
        pid: 7,
        ..PreemptionEvent::default()
    }
    .into()
}

#[test]
fn a_finding_is_told_when_its_window_is_over_and_ends_with_the_next_that_has_none() {
    let (registry, mut teller) = teller();
    teller.set_window(Duration::from_secs(10));
    let engine = process(7, 1, "engine_core", None);
    let worker = process(8, 7, "worker", None);
    let processes = [&engine, &worker];
    teller.covers(&[("encoder_decoder_timing", covered(Status::NotObservable))]);
    teller.pulse(&beat(&processes, 0));
    for number in 0..30 {
        teller.row(&event(number, "started"));
        teller.row(&event(number, "preempted"));
        // Prompts are read at 1,000 tokens/s, for 10 seconds.
        let prompt = ForwardPass {
            timestamp_sec: Stamp(number as i64 * 333_333_333),
            forward_time_ms: Some(Millis(100_000_000)),
            num_tokens: Some(100),
            phase: Some("prefill"),
            pid: 8,
            ..ForwardPass::default()
        };
        teller.row(&prompt.into());
    }
    teller.pulse(&beat(&processes, 9));
    assert_eq!(count(&registry, "profilemate_finding"), 0, "not over");
    teller.pulse(&beat(&processes, 10));
    let of = |metric: &str, rule: &str| {
        let labels = format!("{{server=\"s\",rule=\"{rule}\"}}");
        value(&registry, &format!("profilemate_finding{metric}{labels}"))
    };
    let thrash = "preemption_thrash";
    assert_eq!(of("", thrash), Some(1.0));
    // 15,000 tokens, which take 15 of 10 seconds: they are lost in 29 of 30 prompts' time.
    let tokens = of("_lost_tokens_per_second", thrash).unwrap();
    assert!((1_540.0..1_560.0).contains(&tokens), "{tokens}");
    assert_eq!(of("_lost_time_ratio", thrash), Some(1.5));
    assert_eq!(of("", "worker_idle"), Some(0.0), "looked for and not there");
    let why = "encoder_decoder_timing: not observed by the probes that the agent keeps";
    let blind = "batch_utilization has no row";
    for (rule, reason) in [
        ("waiting_for_slots", blind),
        ("gpu_idle", "forward_pass_timing has no GPU time"),
    ] {
        let labels = format!("{{server=\"s\",rule=\"{rule}\",reason=\"{reason}\"}}");
        let told = value(
            &registry,
            &format!("profilemate_finding_not_judged{labels}"),
        );
        assert_eq!((told, of("", rule)), (Some(1.0), None), "{rule}");
    }
    let all = |registry: &Registry| {
        let judged = count(registry, "profilemate_finding");
        judged + count(registry, "profilemate_finding_not_judged")
    };
    assert_eq!(all(&registry), RULES.len());

    for number in 0..30 {
        teller.row(&event(number, "started"));
        teller.row(&step(7, number, 10_000 + number as i64 * 10));
    }
    teller.pulse(&beat(&processes, 20));
    assert_eq!(of("", thrash), Some(0.0));
    assert_eq!(of("_lost_time_ratio", thrash), None);
    assert_eq!(
        count(&registry, "profilemate_finding_lost_tokens_per_second"),
        0
    );
    // What it waits for is not there now, and other reasons hold for what was not judged before.
    assert_eq!(all(&registry), RULES.len());
    let text = String::from_utf8(expose(&registry, Format::Text).unwrap()).unwrap();
    assert!(
        text.contains(why) && !text.contains(blind) && !text.contains("cmpl-"),
        "{text}"
    );

    // Without a window that is over, nothing is told: neither after a session nor while nothing is attached.
    teller.end_session();
    assert_eq!(all(&registry), 0);
}

#[test]
fn graphs_are_judged_by_what_a_window_adds_to_the_totals() {
    let (registry, mut teller) = teller();
    teller.set_window(Duration::from_secs(10));
    let engine = process(7, 1, "engine_core", None);
    let replays = |replay_count, padded, actual| {
        AnyRow::from(CudaGraphUse {
            runtime_mode: Some("PIECEWISE"),
            num_tokens: Some(64),
            replay_count,
            padded_tokens: Some(padded),
            actual_tokens: Some(actual),
            pid: 7,
            ..CudaGraphUse::default()
        })
    };
    let steps = |teller: &mut Teller, from: i64| {
        for number in 0..200 {
            teller.row(&step(7, number, from + number as i64 * 40));
        }
    };
    let found = || {
        value(
            &registry,
            "profilemate_finding{server=\"s\",rule=\"graph_padding\"}",
        )
    };
    teller.pulse(&beat(&[&engine], 0));
    steps(&mut teller, 0);
    // Half of it padding; then next to none, though most of all that ever was still is.
    teller.row(&replays(200, 12_800, 6_400));
    teller.pulse(&beat(&[&engine], 10));
    assert_eq!(found(), Some(1.0));
    steps(&mut teller, 10_000);
    teller.row(&replays(400, 25_600, 19_000));
    teller.pulse(&beat(&[&engine], 20));
    assert_eq!(found(), Some(0.0));
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
