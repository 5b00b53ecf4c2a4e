//! `fleet` against real engines: Debian's Prometheus and VictoriaMetrics, with the same hour of a small fleet in both.

mod silent;
mod story;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use profilemate_tests::engine::{self, Engine, program};
use profilemate_tests::{binary, certificate, wait_for};
use serde_json::Value;

pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary())
        .arg("fleet")
        .args(arguments)
        .output()
        .expect("it runs");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).expect("UTF-8"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

fn json(url: &str, arguments: &[&str]) -> Value {
    let all = [&["--prometheus", url, "--json"], arguments].concat();
    let (code, out, error) = run(&all);
    assert_eq!(code, 0, "{all:?}\n{error}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

/// Prometheus with the story in its store, and `VictoriaMetrics` with the same.
fn engines(tools: &Path, folder: &Path, end: u64) -> [Engine; 2] {
    let text = folder.join("story.txt");
    std::fs::write(&text, story::samples(end, 1) + "# EOF\n").expect("a file");
    let data = folder.join("prometheus");
    let made = program(tools, "promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&text, &data])
        .output()
        .expect("promtool");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let config = folder.join("prometheus.yaml");
    std::fs::write(&config, "{}\n").expect("a file");
    let prometheus = Engine::prometheus(tools, &data, &config, engine::port());
    let victoria = Engine::victoria(tools, &folder.join("victoria"));
    let status = victoria.post("/api/v1/import/prometheus", &story::samples(end, 1_000));
    assert_eq!(status, 204);
    wait_for("the import", Duration::from_secs(30), || {
        let count = victoria.query("count(profilemate_agent_info)");
        count["data"]["result"][0]["value"][1] == "5"
    });
    [prometheus, victoria]
}

/// What a diagnosis names: unit and measures.
fn named(diagnosis: &Value) -> Vec<String> {
    let findings = diagnosis["findings"].as_array().expect("findings");
    let mut named: Vec<String> = findings
        .iter()
        .filter(|one| one["kind"] == "peer")
        .map(|one| {
            let ids = one["differs"].as_array().into_iter().flatten();
            let ids: Vec<&str> = ids.filter_map(|one| one["measure"].as_str()).collect();
            format!("{} {} {}", one["server"], one["rank"], ids.join(" "))
        })
        .collect();
    named.sort();
    named
}

/// What the agents found is put together, without n4, which is gone, and n5, whose agent is an older one.
fn faults(found: &Value) {
    let findings = found["findings"].as_array().expect("findings");
    let faults = findings.iter().filter(|one| one["kind"] == "rule");
    let faults: Vec<Value> = faults.cloned().collect();
    let rules: Vec<&Value> = faults.iter().map(|one| &one["rule"]).collect();
    assert_eq!(rules, ["preemption_thrash", "kv_pool_small"], "{found:#}");
    for (fault, node, share, time) in [(0, "n3", 0.25, 0.625), (1, "n1", 1.0, 2.5)] {
        let (fault, servers) = (&faults[fault], &faults[fault]["servers"]);
        assert_eq!(servers.as_array().map(Vec::len), Some(1), "{fault:#}");
        assert_eq!(servers[0]["server"], format!("vllm/8000 @ {node}"));
        assert_eq!(
            (&fault["judged"], &servers[0]["now"]),
            (&Value::from(4), &Value::from(share > 0.5))
        );
        for (value, expected) in [
            (&servers[0]["share"], share),
            (&fault["lost_sec_per_sec"], time),
        ] {
            let value = value.as_f64().expect("a number");
            assert!((value / expected - 1.0).abs() < 0.05, "{fault:#}");
        }
    }
    assert_eq!(found["rules_nothing_wrong"]["worker_idle"], 4, "{found:#}");
    let blind = &found["rules_not_judged"];
    assert_eq!(blind.as_array().map(Vec::len), Some(1), "{blind:#}");
    assert_eq!(blind[0]["rule"], "gpu_idle");
    assert_eq!(blind[0]["servers"].as_array().map(Vec::len), Some(4));
    assert_eq!(found["rules_untold"], serde_json::json!(["vllm/8000 @ n5"]));
}

#[test]
fn prometheus_and_victoriametrics_give_the_same_diagnosis_of_a_fleet_with_faults() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let end = now() - 5;
    let engines = engines(&tools, folder.path(), end);
    let at = end.to_string();
    for engine in &engines {
        let found = json(&engine.url, &["diagnose", "--at", &at, "--window", "30m"]);
        assert_eq!(
            named(&found),
            [
                "\"vllm/8000 @ n1\" \"1\" forward_sec",
                "\"vllm/8000 @ n2\" null tokens_per_sec step_sec"
            ],
            "{}: {found:#}",
            engine.url
        );
        // 3,200 tokens/s are 40 % more than what the slow one has; the rank costs 4.8 ms of each 20.
        let lost: Vec<f64> = found["findings"]
            .as_array()
            .expect("findings")
            .iter()
            .filter_map(|one| one["lost_tokens_per_sec"].as_f64())
            .collect();
        assert!(
            (850.0..970.0).contains(&lost[0]) && (700.0..830.0).contains(&lost[1]),
            "{lost:?}"
        );
        assert_eq!(
            lost.len(),
            3,
            "the KV cache of n1 costs time, and nobody knows how many tokens"
        );
        // 100 tokens/s in the quarter of the window before n3 was restarted.
        assert!((24.0..26.0).contains(&lost[2]), "{lost:?}");
        faults(&found);
        assert_eq!(
            found["judged"], 5,
            "n4 is gone, n3 was restarted: {found:#}"
        );
        let why = found["not_judged"]["vllm/8000 @ n4"]
            .as_str()
            .expect("n4 is named");
        assert!(why.starts_with("silent for 6"), "{why}");
        assert!(
            found["agents"]["n4"]
                .as_str()
                .is_some_and(|why| why.contains("not reach"))
        );
    }
}

#[test]
fn status_and_diff_tell_who_is_there_and_what_changed() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let end = now() - 5;
    for engine in &engines(&tools, folder.path(), end) {
        let at = end.to_string();
        let status = json(&engine.url, &["status", "--at", &at]);
        let servers = status["servers"].as_array().expect("servers");
        assert_eq!(servers.len(), story::NODES.len());
        for server in servers {
            let gone = server["instance"] == "n4";
            assert_eq!(server["state"] == "silent", gone, "{server:#}");
            assert_eq!(
                server["values"]["tokens_per_sec"].is_null(),
                gone,
                "{server:#}"
            );
            if !gone {
                let tokens = server["values"]["tokens_per_sec"].as_f64().expect("tokens");
                let truth = if server["instance"] == "n2" {
                    3_200.0 / 1.4
                } else {
                    3_200.0
                };
                assert!((tokens / truth - 1.0).abs() < 0.01, "{server:#}");
                let graphs = server["values"]["graph_hit_share"]
                    .as_f64()
                    .expect("graphs");
                assert!((graphs - 0.9).abs() < 0.001, "{server:#}");
            }
        }
        let one = json(
            &engine.url,
            &["status", "--at", &at, "--select", "instance=n2,model=~o.*"],
        );
        assert_eq!(one["servers"].as_array().map(Vec::len), Some(1));
        let (code, text, _) = run(&[
            "--prometheus",
            &engine.url,
            "status",
            "--at",
            &at,
            "--strict",
        ]);
        assert_eq!(code, 3, "{text}");
        assert!(
            text.contains("5 of 6 servers tell; 5 of 6 agents are well"),
            "{text}"
        );
        let before = (end - 1_400).to_string();
        let change = json(
            &engine.url,
            &["diff", "--at", &before, "--at", &at, "--window", "15m"],
        );
        assert_eq!(
            change["went"],
            serde_json::json!(["vllm/8000 @ n4"]),
            "{change:#}"
        );
        let changed = change["models"][0]["changed"].as_array().expect("a model");
        let ids: Vec<&Value> = changed.iter().map(|one| &one["measure"]).collect();
        assert_eq!(ids, ["kv_cache_usage"], "{change:#}");
    }
}

#[test]
fn what_is_no_engine_and_an_engine_without_agents_are_told_apart() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::victoria(&tools, folder.path());
    let (code, _, error) = run(&["--prometheus", &engine.url, "status"]);
    assert_eq!(code, 4, "{error}");
    assert!(
        error.contains("knows no agent") && error.contains("hint:"),
        "{error}"
    );
    let (code, _, error) = run(&["--prometheus", &format!("{}/nowhere", engine.url), "status"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("/api/v1/query"), "{error}");
    let closed = format!("127.0.0.1:{}", engine::port());
    let (code, _, error) = run(&["--prometheus", &closed, "--timeout", "5s", "status"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("no answer from"), "{error}");
    let secret = "Authorization: Bearer secret@";
    let (code, _, error) = run(&["--header", secret, "status"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("--token-file") && !error.contains("secret@"),
        "{error}"
    );
    let (code, _, error) = run(&["--prometheus", "http://a:secret@b", "status"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("--basic-auth-file") && !error.contains("secret@"),
        "{error}"
    );
}

/// Answers requests in order, each with one of `answers`; gives the requests.
fn canned(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let one = |answer: &str| {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            // One segment is enough: requests are small, and their first bytes hold what is looked at.
            let count = stream.read(&mut buffer).expect("bytes");
            text.extend_from_slice(&buffer[..count]);
            let reply = format!("HTTP/1.1 {answer}");
            stream.write_all(reply.as_bytes()).expect("a reply");
            String::from_utf8_lossy(&text).into_owned()
        };
        answers.into_iter().map(one).collect()
    });
    (url, thread)
}

#[test]
fn a_busy_engine_is_asked_again_and_gets_the_token_and_the_headers() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret-token\n").expect("a file");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let (url, thread) = canned(vec![
        "503 Busy\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "405 Not allowed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "401 Unauthorized\r\nConnection: close\r\nContent-Length: 5\r\n\r\nno no",
    ]);
    let token = token.to_str().expect("UTF-8");
    let header = "X-Scope-OrgID: team";
    let options = [
        "--prometheus",
        &url,
        "--token-file",
        token,
        "--header",
        header,
        "status",
    ];
    let (code, _, error) = run(&options);
    assert_eq!(code, 6, "{error}");
    assert!(
        error.contains("401: no no") && error.contains("--token-file"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
    let asked = thread.join().expect("requests");
    assert!(asked[0].starts_with("POST /api/v1/query ") && asked[1].starts_with("POST "));
    assert!(
        asked[2].starts_with("GET /api/v1/query?query=time%28%29"),
        "{}",
        asked[2]
    );
    for request in &asked {
        assert!(
            request.contains("authorization: Bearer s3cret-token"),
            "{request}"
        );
        assert!(request.contains("x-scope-orgid: team"), "{request}");
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    certificate::issue(folder.path(), "DNS:localhost");
    let web = "tls_server_config: {cert_file: crt, key_file: key}\n";
    std::fs::write(file("web"), web).expect("a file");
    std::fs::write(file("config"), "{}\n").expect("a file");
    let engine = Engine::prometheus_with_tls(&tools, &file("data"), &file("config"), &file("web"));
    let url = engine.url.replace("http://127.0.0.1", "https://localhost");
    let authority = file("crt");
    let authority = authority.to_str().expect("UTF-8");
    wait_for("an answer", Duration::from_secs(30), || {
        // It knows no agent: that it says so means that it was asked.
        run(&["--prometheus", &url, "--ca-file", authority, "status"]).0 == 4
    });
    let (code, _, error) = run(&["--prometheus", &url, "status"]);
    assert_eq!(code, 1, "{error}");
    assert!(
        error.contains("no answer from") && error.contains("ertificate"),
        "{error}"
    );
}

#[test]
fn rules_dashboard_unit_chart_and_containerfile_hold() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let deploy = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
    let well = |command: &mut Command| {
        let output = command.current_dir(deploy).output().expect("it runs");
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "{command:?}\n{out}{error}");
        out + &error
    };
    for rules in ["profilemate.rules.yaml", "profilemate.fleet.rules.yaml"] {
        let path = format!("prometheus/{rules}");
        well(program(&tools, "promtool").args(["check", "rules", &path]));
    }
    well(program(&tools, "promtool").args([
        "test",
        "rules",
        "prometheus/profilemate.rules.test.yaml",
    ]));
    well(program(&tools, "promtool").args([
        "check",
        "config",
        "--syntax-only",
        "prometheus/scrape.yaml",
    ]));
    let venv = tools.join("venv/bin");
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/fleet/chart.py");
    let rendered = well(Command::new(venv.join("python")).args([
        chart,
        "helm/profilemate",
        "--check",
        "kubernetes/profilemate.yaml",
    ]));
    assert!(
        rendered.contains("sys-admin: ") && rendered.contains("refused, no token"),
        "{rendered}"
    );
    // DL3008: the base image's packages are what the image is built with; DL3002: reading other processes needs root.
    well(Command::new(venv.join("hadolint")).args([
        "--ignore=DL3008",
        "--ignore=DL3002",
        "container/Containerfile",
    ]));
    if Path::new("/usr/bin/systemd-analyze").exists() {
        let unit = std::fs::read_to_string(deploy.join("systemd/profilemate-agent.service"))
            .expect("the unit");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("profilemate-agent.service");
        let unit = unit.replace(
            "/usr/local/bin/profilemate",
            &binary().display().to_string(),
        );
        std::fs::write(&path, unit).expect("a file");
        well(Command::new("systemd-analyze").arg("verify").arg(&path));
        let score = ["security", "--offline=true", "--threshold=35"];
        well(Command::new("systemd-analyze").args(score).arg(&path));
    }
}

#[test]
fn every_query_of_the_dashboard_and_every_rule_gives_values() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let [prometheus, victoria] = engines(&tools, folder.path(), now() - 5);
    victoria.stop();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/grafana/profilemate.json"
    );
    let dashboard = std::fs::read_to_string(path).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    // What the story does not tell: buckets, requests, evictions, what agents need, losses.
    let untold = [
        "_bucket",
        "gen_ai_",
        "recomputed",
        "agent_cpu",
        "agent_resident",
        "attach_failures",
        "lost",
    ];
    let mut answered = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let filled = query
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*")
                .replace("$server", ".*");
            let answer = prometheus.query(&filled);
            assert_eq!(answer["status"], "success", "{filled}: {answer:#}");
            let count = answer["data"]["result"].as_array().map_or(0, Vec::len);
            let told = !untold.iter().any(|part| query.contains(part));
            assert!(count > 0 || !told, "{}: {filled}", panel["title"]);
            answered += usize::from(count > 0);
        }
    }
    assert!(answered >= 14, "{answered} queries were answered");
}
