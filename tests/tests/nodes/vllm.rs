//! The real vLLM on one node, stand-ins for it on the others.

use profilemate_tests::{vllm, wait_for};

use crate::rig::{LIMIT, Site};

#[test]
fn the_real_vllm_is_one_server_among_others_and_prometheus_knows_every_step_of_it() {
    let Some(python) = vllm::python(&vllm::version()) else {
        return;
    };
    let Some(site) = Site::build(&["n0", "n1", "n2"]) else {
        return;
    };
    let folder = site.folder.path().join("vllm");
    std::fs::create_dir_all(&folder).expect("a folder");
    let agents: Vec<_> = ["n0", "n1", "n2"].map(|node| site.agent(node, "")).into();
    let stop = folder.join("stop");
    let stop = stop.to_str().expect("a path in UTF-8");
    // Its last requests done, it stays until it is told: its series go with it.
    let arguments = [
        "--serve",
        "--requests",
        "16",
        "--max-tokens",
        "24",
        "--hold",
        "120",
        "--stop-file",
        stop,
    ];
    let mark = site.mark("n0");
    let driver = site.net.within("n0", || {
        vllm::start_marked(&python, &folder, &arguments, &[mark])
    });
    let _targets: Vec<_> = ["n1", "n2"]
        .map(|node| site.demo(node, &["--blocks", "2048"]))
        .into();
    let prometheus = site.prometheus();
    for agent in &agents {
        site.wait_attached(agent);
    }
    let requests = "gen_ai_server_request_duration_seconds_count{instance=\"n0\"}";
    wait_for("all requests in Prometheus", LIMIT * 3, || {
        site.known(&prometheus, requests) == Some(16.0)
    });
    let (code, status, words) =
        site.fleet(&prometheus.url, &["status", "--window", "2m", "--strict"]);
    assert_eq!(code, 0, "{words}\n{status:#}");
    let servers = status["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), 3, "{status:#}");
    let real = servers.iter().find(|one| one["instance"] == "n0");
    let real = real.expect("the real one");
    assert_eq!(real["version"], vllm::version(), "{real:#}");
    assert!(
        real["server"]
            .as_str()
            .is_some_and(|name| name.starts_with("vllm/")),
        "{real:#}"
    );
    assert!(
        real["values"]["tokens_per_sec"].as_f64() > Some(0.0),
        "{real:#}"
    );
    // It is of another kind than the two others, which are each other's like.
    let (code, diagnosis, words) = site.fleet(&prometheus.url, &["diagnose", "--window", "2m"]);
    assert_eq!(code, 0, "{words}");
    let alone = diagnosis["alone"].to_string();
    assert!(
        alone.contains("@ n0") && !alone.contains("@ n1"),
        "{diagnosis:#}"
    );

    let known = |metric: &str| {
        let query = format!("sum({metric}{{instance=\"n0\"}})");
        site.known(&prometheus, &query).unwrap_or_default()
    };
    let (steps, tokens) = (
        known("profilemate_steps_total"),
        known("profilemate_tokens_total"),
    );
    let passes = known("profilemate_forward_duration_seconds_count");
    std::fs::write(stop, "").expect("a file");
    let run = driver.finish();
    let scheduled: Vec<f64> = run
        .events("schedule")
        .iter()
        .map(|(_, event)| {
            event["total_num_scheduled_tokens"]
                .as_f64()
                .expect("tokens")
        })
        .collect();
    let executed = run
        .events("execute_model")
        .iter()
        .filter(|(_, event)| event["tokens"].as_f64() > Some(0.0))
        .count();
    assert!(
        (steps - scheduled.len() as f64).abs() < 0.5,
        "{steps} of {}",
        scheduled.len()
    );
    assert!(
        (tokens - scheduled.iter().sum::<f64>()).abs() < 0.5,
        "{tokens} tokens"
    );
    assert!(
        (passes - executed as f64).abs() < 0.5,
        "{passes} of {executed} passes"
    );
    agents.into_iter().for_each(crate::rig::Agent::end);
}
