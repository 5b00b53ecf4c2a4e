//! A node, an agent and Prometheus die, one after the other.

use std::time::Duration;

use profilemate_tests::wait_for;
use serde_json::Value;

use crate::rig::{LIMIT, Site};

const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];

/// How it stands with the server of each node, by `fleet status`.
fn states(status: &Value) -> Vec<(String, String)> {
    let servers = status["servers"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut states: Vec<(String, String)> = servers
        .map(|one| (text(&one["instance"]), text(&one["state"])))
        .collect();
    states.sort();
    states
}

fn all_but(silent: &[&str]) -> Vec<(String, String)> {
    NODES
        .iter()
        .map(|node| {
            let state = if silent.contains(node) {
                "silent"
            } else {
                "telling"
            };
            ((*node).to_owned(), state.to_owned())
        })
        .collect()
}

/// What a diagnosis says is wrong with a node.
fn differs(diagnosis: &Value, node: &str) -> Vec<String> {
    let findings = diagnosis["findings"].as_array().into_iter().flatten();
    let end = format!("@ {node}");
    findings
        .filter(|one| {
            one["server"]
                .as_str()
                .is_some_and(|server| server.ends_with(&end))
        })
        .flat_map(|one| one["differs"].as_array().cloned().unwrap_or_default())
        .filter_map(|one| Some(one["measure"].as_str()?.to_owned()))
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
fn who_dies_is_named_the_others_are_judged_and_what_comes_back_goes_on() {
    let Some(site) = Site::build(&NODES) else {
        return;
    };
    // The first node has so little room for its KV cache that it preempts; the others have plenty.
    let mut targets: Vec<_> = NODES
        .iter()
        .map(|node| {
            let blocks = if *node == "n0" { "32" } else { "2048" };
            site.demo(node, &["--blocks", blocks])
        })
        .collect();
    let mut agents: Vec<_> = NODES.iter().map(|node| site.agent(node, "")).collect();
    for agent in &agents {
        site.wait_attached(agent);
    }
    let prometheus = site.prometheus();
    let victoria = site.victoria();
    let urls = [prometheus.url.clone(), victoria.url.clone()];
    let wait_states = |silent: &[&str]| {
        for url in &urls {
            wait_for(&format!("{silent:?} to be silent at {url}"), LIMIT, || {
                let now = states(&site.fleet(url, &["status", "--window", "10s"]).1);
                println!("{now:?}");
                now == all_but(silent)
            });
        }
    };
    wait_states(&[]);
    let (code, status, _) = site.fleet(&urls[0], &["status", "--window", "10s", "--strict"]);
    assert_eq!(code, 0, "{status:#}");

    // `fleet` looks at who told something every half minute: who lives shorter may never be seen.
    let seen = "max_over_time(timestamp(profilemate_server_info{instance=\"n3\"})[5m:30s])";
    for engine in [&prometheus, &victoria] {
        wait_for("the fourth node to be seen", LIMIT, || {
            site.known(engine, seen).is_some()
        });
    }

    // A node dies: its agent, its server, its network.
    agents.pop().expect("four agents").guard.kill();
    Site::kill(targets.pop().expect("four targets"));
    site.net.cut("n3");
    wait_states(&["n3"]);
    // Pieces of four seconds: wait until enough of them hold tokens of the others.
    for url in &urls {
        wait_for("the diagnosis of the others", LIMIT, || {
            let diagnosis = site.fleet(url, &["diagnose", "--window", "60s"]).1;
            diagnosis["judged"] == 3 && !differs(&diagnosis, "n0").is_empty()
        });
        let (code, diagnosis, words) = site.fleet(url, &["diagnose", "--window", "60s"]);
        assert_eq!(code, 0, "{words}");
        let measures = differs(&diagnosis, "n0");
        assert!(
            measures.iter().any(|one| one == "preemptions_per_sec"),
            "{diagnosis:#}"
        );
        for node in ["n1", "n2"] {
            let measures = differs(&diagnosis, node);
            assert!(
                !measures.iter().any(|one| one == "preemptions_per_sec"),
                "{diagnosis:#}"
            );
        }
        assert!(differs(&diagnosis, "n3").is_empty(), "{diagnosis:#}");
        let silent = diagnosis["not_judged"].to_string();
        assert!(silent.contains("@ n3\":\"silent for"), "{diagnosis:#}");
        let agent = diagnosis["agents"]["n3"].as_str().unwrap_or_default();
        assert!(agent.contains("not reach"), "{diagnosis:#}");
    }

    // An agent dies, its server goes on; the next agent puts back what it left, and goes on telling.
    let mut killed = agents.pop().expect("three agents");
    killed.guard.kill();
    wait_states(&["n2", "n3"]);
    let again = site.agent("n2", "");
    site.wait_attached(&again);
    assert!(
        again.log().contains("pointers were put back"),
        "{}",
        again.log()
    );
    wait_states(&["n3"]);
    agents.push(again);

    // Prometheus dies, and is away for twenty of its scrapes.
    let steps = "profilemate_steps_total{instance=\"n1\"}";
    let last = site.known(&prometheus, steps).expect("steps");
    prometheus.kill();
    let (code, _, words) = site.fleet(&urls[0], &["--timeout", "5s", "status"]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("no answer from"), "{words}");
    std::thread::sleep(Duration::from_secs(20));
    let missed = site.value("n1", "profilemate_steps_total", "");
    assert!(missed > last, "{missed} steps, {last} before");
    let prometheus = site.prometheus();
    wait_for("the next scrape", LIMIT, || {
        site.known(&prometheus, steps).is_some_and(|now| now > last)
    });
    // What happened meanwhile is in the counter: it is what the agent says, and has not begun anew.
    let now = site.known(&prometheus, steps).expect("steps");
    let told = site.value("n1", "profilemate_steps_total", "");
    assert!(
        (missed..=told).contains(&now),
        "{missed} <= {now} <= {told}"
    );
    let resets = format!("resets({steps}[5m])");
    assert_eq!(site.known(&prometheus, &resets), Some(0.0));
    wait_states(&["n3"]);
    let (code, status, _) = site.fleet(&urls[0], &["status", "--window", "10s", "--strict"]);
    assert_eq!(code, 3, "{status:#}");
    agents.into_iter().for_each(crate::rig::Agent::end);
}
