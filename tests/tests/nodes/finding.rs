//! What is wrong on one node is found by its agent, kept by Prometheus, and named by `fleet diagnose`.

use profilemate_tests::wait_for;
use serde_json::Value;

use crate::rig::{LIMIT, Site};

/// The fault of a rule in a diagnosis, if it is there.
fn fault<'a>(diagnosis: &'a Value, rule: &str) -> Option<&'a Value> {
    let mut findings = diagnosis["findings"].as_array()?.iter();
    findings.find(|one| one["kind"] == "rule" && one["rule"] == rule)
}

/// The nodes that have it, with whether they have it now.
fn nodes(fault: &Value) -> Vec<(String, bool)> {
    let servers = fault["servers"].as_array().into_iter().flatten();
    let one = |server: &Value| {
        let name = server["server"].as_str().unwrap_or_default();
        let node = name.rsplit(' ').next().unwrap_or_default();
        (node.to_owned(), server["now"] == true)
    };
    servers.map(one).collect()
}

#[test]
fn what_no_counter_tells_is_found_by_the_agents_and_named_over_the_fleet() {
    let Some(site) = Site::build(&["n0", "n1"]) else {
        return;
    };
    // Room for the KV cache of all, and of two that run at once: the others wait for a slot. On n1 nobody waits.
    let few = ["--blocks", "2048", "--max-num-seqs", "2"];
    let many = ["--blocks", "2048", "--max-num-seqs", "64"];
    let short = site.demo("n0", &few);
    let _well = site.demo("n1", &many);
    let window = "[findings]\nwindow = \"10s\"\n";
    let agents = ["n0", "n1"].map(|node| site.agent(node, window));
    for agent in &agents {
        site.wait_attached(agent);
    }
    let engines = [site.prometheus(), site.victoria()];
    let diagnose = |url: &str| site.fleet(url, &["diagnose", "--window", "45s"]).1;
    let rule = "waiting_for_slots";
    for engine in &engines {
        let url = &engine.url;
        wait_for("both nodes to be judged", LIMIT, || {
            let diagnosis = diagnose(url);
            let judged = fault(&diagnosis, rule).map(|fault| fault["judged"].clone());
            diagnosis["judged"] == 2 && judged == Some(Value::from(2))
        });
        let diagnosis = diagnose(url);
        let found = fault(&diagnosis, rule).expect("it was found");
        assert_eq!(nodes(found), [("n0".to_owned(), true)], "{diagnosis:#}");
        // One request or more waited all the time, and it did so while the rule was judged.
        let lost = found["lost_sec_per_sec"].as_f64().expect("a cost");
        assert!(
            lost > 0.3 && found["servers"][0]["share"] == 1.0,
            "{found:#}"
        );
        assert_eq!(found["options"], serde_json::json!(["--max-num-seqs"]));
        // The choice of experts is not among what the agents look at: that is said, and is no zero.
        let blind = diagnosis["rules_not_judged"].as_array().expect("a list");
        let experts = blind.iter().find(|one| one["rule"] == "expert_imbalance");
        let reason = experts.map_or("", |one| one["reason"].as_str().unwrap_or_default());
        assert!(reason.contains("not observed"), "{diagnosis:#}");
        assert_eq!(diagnosis["rules_untold"], serde_json::json!([]));
    }

    // It ends, and one with room for all comes: what was found of the one is not told of the other.
    Site::kill(short);
    let _again = site.demo("n0", &many);
    for engine in &engines {
        wait_for("the new server to be judged", LIMIT, || {
            let diagnosis = diagnose(&engine.url);
            diagnosis["judged"] == 2
                && diagnosis["rules_nothing_wrong"][rule] == 2
                && fault(&diagnosis, rule).is_none()
        });
    }
    for agent in agents {
        agent.end();
    }
}
