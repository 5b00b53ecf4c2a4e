//! The real vLLM on one node, stand-ins for it on the others.

use std::collections::BTreeSet;

use profilemate::target::process;
use profilemate_tests::engine::Engine;
use profilemate_tests::{vllm, wait_for};
use serde_json::Value;

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
    let [start, stop] = ["start", "stop"].map(|name| folder.join(name).display().to_string());
    // Its last requests done, it stays until it is told: its series go with it.
    let arguments = [
        "--serve",
        "--requests",
        "16",
        "--max-tokens",
        "24",
        "--start-file",
        &start,
        "--hold",
        "300",
        "--stop-file",
        &stop,
    ];
    let mark = site.mark("n0");
    let driver = site.net.within("n0", || {
        vllm::start_marked(&python, &folder, &arguments, &[mark])
    });
    let _targets: Vec<_> = ["n1", "n2"]
        .map(|node| site.demo(node, &["--blocks", "2048"]))
        .into();
    let prometheus = site.prometheus();
    for agent in &agents[1..] {
        site.wait_attached(agent);
    }
    // On a busy machine it may serve before its engine is attached: requests wait for that.
    wait_for("its engine to be attached", LIMIT * 5, || {
        engine_is_attached(&site, driver.pid())
    });
    std::fs::write(start, "").expect("a file");
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
    it_is_judged_alone(&site, &prometheus);

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
    it_was_counted_whole(&run, steps, tokens, passes);
    agents.into_iter().for_each(crate::rig::Agent::end);
}

/// Whether the agent of the first node holds the engine below `root`.
fn engine_is_attached(site: &Site, root: u32) -> bool {
    let processes = process::tree_now(&BTreeSet::from([root])).expect("/proc");
    let engine = processes
        .iter()
        .find(|one| one.command.contains("EngineCore"));
    let told = site.ask("n0", "/sessions").unwrap_or_default();
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    let attached = told["servers"][0]["attached"].as_array();
    engine.is_some_and(|one| attached.is_some_and(|all| all.contains(&one.pid.into())))
}

/// It is of another kind than the two others, which are each other's like. A server is judged once it has told for a third
/// of the window.
fn it_is_judged_alone(site: &Site, prometheus: &Engine) {
    wait_for("the real one to be judged", LIMIT, || {
        let (code, diagnosis, words) =
            site.fleet(&prometheus.url, &["diagnose", "--window", "30s"]);
        assert_eq!(code, 0, "{words}");
        if diagnosis["judged"] != 3 {
            return false;
        }
        let alone = diagnosis["alone"].as_array().expect("a list");
        assert_eq!(alone.len(), 1, "{diagnosis:#}");
        let name = alone[0].as_str().expect("a name");
        assert!(
            name.starts_with("vllm/") && name.ends_with("@ n0"),
            "{name}"
        );
        true
    });
}

/// What Prometheus knows of it is what its own calls were.
fn it_was_counted_whole(run: &vllm::Run, steps: f64, tokens: f64, passes: f64) {
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
}
