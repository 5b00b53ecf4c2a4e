//! Forty minutes of six nodes, scraped every 15 seconds, as samples.

use std::fmt::Write as _;

/// Seconds between samples.
pub(crate) const STEP: u64 = 15;
/// Length.
pub(crate) const LENGTH: u64 = 2_700;
/// Nodes.
pub(crate) const NODES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];

/// One sample: name with labels, and the value.
fn sample(out: &mut String, end: u64, at: u64, name: &str, labels: &str, value: f64, scale: u64) {
    let time = (end - LENGTH + at) * scale;
    writeln!(out, "{name}{{{labels}}} {value} {time}").expect("a string");
}

/// Each sample until `end`, times in seconds times `scale`. Sorted by name, as `promtool` wants it.
pub(crate) fn samples(end: u64, scale: u64) -> String {
    let mut by_name: std::collections::BTreeMap<&str, String> = std::collections::BTreeMap::new();
    for (index, node) in NODES.iter().enumerate() {
        let target = format!("job=\"profilemate\",instance=\"{node}\"");
        for at in (0..=LENGTH).step_by(STEP as usize) {
            // n4 is killed ten minutes before the end; Prometheus finds that out.
            let alive = *node != "n4" || at + 600 <= LENGTH;
            let mut put = |name: &'static str, labels: String, value: f64| {
                let out = by_name.entry(name).or_default();
                let labels = format!("{target}{labels}");
                sample(out, end, at, name, &labels, value, scale);
            };
            put("up", String::new(), f64::from(u8::from(alive)));
            if !alive {
                continue;
            }
            put(
                "profilemate_agent_info",
                ",version=\"0.1.0\"".to_owned(),
                1.0,
            );
            let info = ",server=\"vllm/8000\",version=\"0.32.0\",model=\"opt\",pid=\"7\"";
            put("profilemate_server_info", info.to_owned(), 1.0);
            node_at(&mut put, index, node, at);
        }
    }
    by_name.into_values().collect()
}

fn node_at(put: &mut impl FnMut(&'static str, String, f64), index: usize, node: &str, at: u64) {
    let server = ",server=\"vllm/8000\"";
    let engine = format!("{server},engine=\"0\"");
    // n3 was restarted in the middle: its counters begin anew.
    let begin = if node == "n3" && at >= LENGTH / 2 {
        LENGTH / 2
    } else {
        0
    };
    let sec = (at - begin) as f64;
    // From 0 to 1; counters are told up to 0.4 seconds late, so that rates vary by less than a percent.
    let phase = (((at / STEP) as usize * 7 + index * 3) % 5) as f64 / 5.0;
    let noise = 1.0 + 0.02 * phase;
    let sec = sec + 0.4 * phase;
    let slow = if node == "n2" { 1.4 } else { 1.0 };
    let steps = sec * 50.0 / slow;
    let late = at * 2 > LENGTH;
    put("profilemate_server_up", server.to_owned(), 1.0);
    put("profilemate_events_total", server.to_owned(), sec * 900.0);
    put(
        "profilemate_overhead_ratio",
        server.to_owned(),
        0.004 * noise,
    );
    put("profilemate_tokens_total", engine.clone(), steps * 64.0);
    put("profilemate_steps_total", engine.clone(), steps);
    put("profilemate_requests_running", engine.clone(), 60.0);
    put("profilemate_requests_waiting", engine.clone(), 9.0 * noise);
    let usage = if late { 0.9 } else { 0.6 };
    put(
        "profilemate_kv_cache_usage_ratio",
        engine.clone(),
        usage * noise,
    );
    put("profilemate_batch_tokens_sum", engine.clone(), steps * 64.0);
    put("profilemate_batch_tokens_count", engine.clone(), steps);
    put("profilemate_step_duration_seconds_sum", engine.clone(), sec);
    put(
        "profilemate_step_duration_seconds_count",
        engine.clone(),
        steps,
    );
    put("profilemate_preemptions_total", engine.clone(), sec * 0.01);
    findings(put, node, at < LENGTH / 2);
    for rank in ["0", "1"] {
        let ranked = format!("{engine},rank=\"{rank}\"");
        let lag = if (node, rank) == ("n1", "1") {
            1.3
        } else {
            1.0
        };
        let moded = format!("{ranked},graph_mode=\"FULL\"");
        put(
            "profilemate_forward_duration_seconds_sum",
            moded.clone(),
            steps * 0.016 * slow * lag,
        );
        put("profilemate_forward_duration_seconds_count", moded, steps);
        put(
            "profilemate_graph_replays_total",
            format!("{ranked},mode=\"FULL\",size=\"64\""),
            steps * 0.9,
        );
        put(
            "profilemate_graph_eager_passes_total",
            format!("{ranked},reason=\"prefill\""),
            steps * 0.1,
        );
        put(
            "profilemate_graph_tokens_total",
            format!("{ranked},mode=\"FULL\""),
            steps * 56.0,
        );
        put(
            "profilemate_graph_padded_tokens_total",
            format!("{ranked},mode=\"FULL\""),
            steps * 60.0,
        );
    }
}

/// What the agents find: n1's KV cache is too small, and n4's was; n3 preempted until it was restarted; nobody is idle, and
/// the time on the GPU is seen nowhere. The agent of n5 is an older one.
fn findings(put: &mut impl FnMut(&'static str, String, f64), node: &str, early: bool) {
    if node == "n5" {
        return;
    }
    let labels = |rule: &str| format!(",server=\"vllm/8000\",rule=\"{rule}\"");
    let thrashes = node == "n3" && early;
    for (rule, found) in [
        ("kv_pool_small", node == "n1" || node == "n4"),
        ("preemption_thrash", thrashes),
        ("worker_idle", false),
    ] {
        let value = f64::from(u8::from(found));
        put("profilemate_finding", labels(rule), value);
        if found {
            put("profilemate_finding_lost_time_ratio", labels(rule), 2.5);
        }
    }
    if thrashes {
        let labels = labels("preemption_thrash");
        put("profilemate_finding_lost_tokens_per_second", labels, 100.0);
    }
    let reason = ",reason=\"forward_pass_timing has no GPU time\"";
    let labels = labels("gpu_idle") + reason;
    put("profilemate_finding_not_judged", labels, 1.0);
}
