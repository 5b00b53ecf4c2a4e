//! The simulated fleet of `cargo xtask fleet-scale`, small: real aggregation, exposition, HTTP, Prometheus and `fleet`;
//! and a second Prometheus that the first is federated into.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profilemate::fleet::recorded;
use profilemate_tests::engine::Engine;
use profilemate_tests::scale::crowd::{Crowd, Kind};
use profilemate_tests::scale::recording::Recording;
use profilemate_tests::scale::scraper::Scraper;
use profilemate_tests::scale::shape::{OF_PROMETHEUS, Shape};
use profilemate_tests::{binary, demo, engine, root, wait_for};
use serde_json::Value;

const NODES: u32 = 6;
const SLOW: u32 = 4;

/// A Prometheus that has of another what docs/fleet.md says.
fn federated(tools: &Path, folder: &Path, from: &Engine) -> Engine {
    let config = folder.join("global.json");
    let matches = [
        r#"{__name__=~"fleet:profilemate_.*"}"#,
        r#"{__name__=~"profilemate_(server_info|server_up|agent_info|attach_failures_total)"}"#,
        r#"up{job="profilemate"}"#,
    ];
    let text = serde_json::json!({
        "global": { "scrape_interval": "500ms", "scrape_timeout": "500ms" },
        "scrape_configs": [{
            "job_name": "profilemate-federation",
            "honor_labels": true,
            "metrics_path": "/federate",
            "params": { "match[]": matches },
            "static_configs": [{ "targets": [format!("127.0.0.1:{}", from.port())] }],
        }],
    });
    std::fs::write(&config, text.to_string()).expect("a file");
    Engine::prometheus(tools, &folder.join("global"), &config, engine::port())
}

/// What `fleet diagnose` says; and its findings of servers, by name.
fn diagnose(engine: &Engine, more: &[&str]) -> (Value, Vec<Value>) {
    let output = Command::new(binary())
        .args(["fleet", "--prometheus", &engine.url, "--json"])
        .args(more)
        .args(["diagnose", "--window", "30s"])
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // What ranks and faults there are is the recording's, and so every node's.
    let findings = found["findings"].as_array().expect("findings");
    let servers = findings
        .iter()
        .filter(|one| one["kind"] == "peer" && one["rank"].is_null());
    let mut servers: Vec<Value> = servers.cloned().collect();
    servers.sort_by_key(|one| one["server"].to_string());
    (found, servers)
}

/// On how many servers a rule was judged, whether it found its fault (the recording has preemptions: more or less) or not.
fn judged(diagnosis: &Value, rule: &str) -> Option<u64> {
    let faults = diagnosis["findings"].as_array()?;
    let fault = faults.iter().find(|one| one["rule"] == rule);
    let well = &diagnosis["rules_nothing_wrong"][rule];
    fault.map_or(well, |fault| &fault["judged"]).as_u64()
}

#[test]
fn series_are_as_many_as_computed_and_the_one_slow_node_is_found_and_no_other() {
    let Some(tools) = engine::folder().filter(|_| root()) else {
        return;
    };
    let Some(python) = demo::newest_probed_python() else {
        return;
    };
    let recording = Recording::take(&python, 2, Duration::from_secs(4)).expect("a recording");
    let kind = Kind {
        servers: 1,
        // A piece of the window is about the whole recording, so that its course is no noise.
        speed: 1.5,
        slow: Some((SLOW, 1.4)),
    };
    let mut crowd = Crowd::new(kind, recording).expect("a crowd");
    let folder = tempfile::tempdir().expect("a folder");
    let interval = Duration::from_millis(500);
    let rules = folder.path().join("rules.yaml");
    let (range, every) = (Duration::from_secs(3), Duration::from_secs(1));
    std::fs::write(&rules, recorded::rules(range, every)).expect("a file");
    let scraper =
        Scraper::start(&tools, folder.path(), interval, Some(&rules), &[]).expect("Prometheus");
    let global = federated(&tools, folder.path(), &scraper.engine);
    scraper.grow(&mut crowd, NODES).expect("all are scraped");

    // The window of the diagnosis, and the first range of the rules. A scrape may be missed on a busy machine.
    let told = "count(profilemate_agent_info offset 34s)";
    wait_for("the window", Duration::from_secs(120), || {
        scraper.number(told) == Some(f64::from(NODES))
    });

    for number in 0..NODES {
        let registry = crowd.registry(number as usize).expect("a node");
        let shape = Shape::of(&registry).expect("an exposition");
        assert_eq!(shape.rank_count, 2, "{shape:?}");
        assert!(shape.servers > 0 && shape.engines > 0, "{shape:?}");
        let own = format!("instance=\"node-{number:05}\",__name__!~\"fleet:.*\"");
        // What tracing costs has no series for a moment where a session ends and the next begins.
        wait_for(
            "as many series as computed",
            Duration::from_secs(20),
            || {
                let computed = Shape::of(&registry).expect("an exposition").total() + OF_PROMETHEUS;
                scraper.number(&format!("count({{{own}}})")) == Some(computed as f64)
            },
        );
    }

    let slow = [format!("chat-{SLOW:05}-0 @ node-{SLOW:05}")];
    for (engine, more) in [
        (&scraper.engine, &[][..]),
        (&scraper.engine, &["--recorded"]),
        (&global, &["--recorded"]),
    ] {
        let (found, servers) = diagnose(engine, more);
        assert_eq!(found["judged"], NODES, "{more:?}: {found:#}");
        let named: Vec<&str> = servers
            .iter()
            .filter_map(|one| one["server"].as_str())
            .collect();
        assert_eq!(named, slow, "{more:?}: {found:#}");
        // What the agents found comes through rules and federation, too.
        let untold = found["rules_untold"].as_array().map(Vec::len);
        assert_eq!(
            (untold, judged(&found, "preemption_thrash")),
            (Some(0), Some(u64::from(NODES))),
            "{more:?}: {found:#}"
        );
        for one in servers {
            let differs = one["differs"].as_array().expect("differences");
            let step = differs.iter().find(|one| one["measure"] == "step_sec");
            let numbers = step.unwrap_or_else(|| panic!("not slow: {one:#}"));
            let ratio = numbers["value"].as_f64().expect("a value")
                / numbers["peers_value"].as_f64().expect("a value");
            assert!((ratio / 1.4 - 1.0).abs() < 0.1, "{ratio}: {one:#}");
        }
    }
}
