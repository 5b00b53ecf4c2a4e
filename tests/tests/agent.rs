//! `profilemate agent` on the demo target: servers as they come and go, metrics against a trace's tables, a killed
//! agent, and configurations that are refused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::engine::stand_in_that_knows;
use profilemate_tests::{Guard, Session, binary, demo, root, wait_for};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// How long something may take on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// A running agent.
struct Agent {
    guard: Guard,
    address: SocketAddr,
    folder: PathBuf,
}

/// A port that is free now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

/// A folder with a token and a configuration for servers with this PYTHONPATH.
fn configure(folder: &Path, python_path: &str, more: &str) -> SocketAddr {
    let address = free();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("token"), TOKEN).expect("a token");
    let owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.join("token"), owner).expect("its permissions");
    let text = format!(
        "[agent]\nlisten = \"{address}\"\nstate_folder = \"{}\"\ninterval = \"200ms\"\n\
         [servers]\nwith_environment = [\"PYTHONPATH={python_path}\"]\n\
         [auth]\ntoken_file = \"{}\"\n\
         [traces]\nenabled = true\nfolder = \"{}\"\n{more}",
        path("state"),
        path("token"),
        path("traces"),
    );
    std::fs::write(folder.join("agent.toml"), text).expect("a configuration");
    address
}

fn start(folder: &Path, address: SocketAddr) -> Agent {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("agent.log"))
        .expect("a log");
    let guard = Guard::start(
        Command::new(binary())
            .args(["agent", "--config"])
            .arg(folder.join("agent.toml"))
            .stdout(Stdio::null())
            .stderr(log),
    );
    let agent = Agent {
        guard,
        address,
        folder: folder.to_owned(),
    };
    wait_for("the agent's port", LIMIT, || {
        TcpStream::connect(address).is_ok()
    });
    agent
}

impl Agent {
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// Status and body of an answer.
    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address)
            .unwrap_or_else(|error| panic!("{error}:\n{}", self.log()));
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        let status = head.split(' ').nth(1).expect("a status");
        let chunked = head.to_ascii_lowercase().contains("chunked");
        assert!(!chunked, "{head}");
        (status.parse().expect("a number"), body.to_owned())
    }

    fn get(&self, path: &str, accept: &str) -> String {
        let (status, body) = self.ask(&format!("GET {path} HTTP/1.1\r\nAccept: {accept}"), "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn sessions(&self) -> Value {
        serde_json::from_str(&self.get("/sessions", "*/*")).expect("JSON")
    }

    /// How it stands with the server whose root is `pid`.
    fn standing(&self, pid: u32) -> Option<Value> {
        let sessions = self.sessions();
        let servers = sessions["servers"].as_array()?;
        servers.iter().find(|server| server["pid"] == pid).cloned()
    }

    fn is_attached(&self, pid: u32) -> bool {
        self.standing(pid)
            .is_some_and(|server| server["state"] == "attached")
    }

    /// The numbers of `server` while its session has ended and the next one has not begun; `None` if that was missed.
    fn between(&self, engine: u32) -> Option<String> {
        let begins = || {
            self.standing(engine)
                .is_some_and(|server| server["state"] == "starting")
        };
        begins().then_some(())?;
        let text = self.get("/metrics", "*/*");
        begins().then_some(text)
    }
}

/// Sum of the series of `name` that have `label`.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter(|line| line.contains(label))
        .map(|line| line.rsplit(' ').next().expect("a value"))
        .map(|value| value.parse::<f64>().expect("a number"))
        .sum()
}

/// PYTHONPATH of a demo target that stands apart by `own`.
fn python_path(own: &Path) -> String {
    format!("{}:{}", own.display(), demo::FOLDER)
}

/// The process that the agent finds: the engine, whose parent is no server.
fn engine(target: &demo::Demo, agent: &Agent) -> u32 {
    let tree = target.tree();
    let mut found = None;
    wait_for("the server to be found", LIMIT, || {
        let sessions = agent.sessions();
        let servers = sessions["servers"].as_array().expect("a list").clone();
        let pids = servers.iter().filter_map(|server| server["pid"].as_u64());
        found = pids
            .filter_map(|pid| u32::try_from(pid).ok())
            .find(|pid| tree.contains(pid));
        found.is_some()
    });
    found.expect("an engine")
}

/// The rows of a trace, and the metrics that tell the same: (metric, rows' sum).
fn told(session: &Session) -> Vec<(&'static str, f64)> {
    let rows = |table: &str| session.rows(table);
    let column = |table: &str, name: &str| -> f64 {
        let rows = rows(table);
        rows.iter()
            .filter_map(|row| row[name].parse::<f64>().ok())
            .sum()
    };
    let count = |table: &str, keep: fn(&profilemate_tests::Row) -> bool| {
        rows(table).iter().filter(|row| keep(row)).count() as f64
    };
    vec![
        (
            "profilemate_steps_total",
            count("batch_utilization", |_| true),
        ),
        (
            "profilemate_tokens_total",
            column("batch_utilization", "num_tokens"),
        ),
        (
            "profilemate_kv_cache_evictions_total",
            count("kv_cache_evictions", |_| true),
        ),
        (
            "profilemate_preemptions_total",
            count("preemption_events", |row| row["event"] == "preempted"),
        ),
        (
            "profilemate_recomputed_tokens_total",
            column("preemption_events", "computed_tokens_lost"),
        ),
        (
            "profilemate_forward_duration_seconds_count",
            count("forward_pass_timing", |row| {
                !row["forward_time_ms"].is_empty()
            }),
        ),
        (
            "gen_ai_server_request_duration_seconds_count",
            count("request_lifecycle", |row| !row["total_time_sec"].is_empty()),
        ),
        (
            "profilemate_graph_replays_total",
            column("cuda_graph_usage", "replay_count"),
        ),
        (
            "profilemate_graph_eager_passes_total",
            column("cuda_graph_usage", "eager_passes"),
        ),
    ]
}

/// Takes a trace of the server, with the numbers before and after it; `None` if one of the moments was missed.
fn trace(agent: &Agent, engine: u32, name: &str) -> Option<(String, Value, String)> {
    let body = format!("{{\"server\": \"{name}\", \"duration\": \"2s\"}}");
    let head = format!("POST /trace HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
    let (status, answer) = agent.ask(&head, &body);
    assert_eq!(status, 202, "{answer}");
    let id = serde_json::from_str::<Value>(&answer).expect("JSON")["trace"].clone();
    let of = || {
        let sessions = agent.sessions();
        let traces = sessions["traces"].as_array().expect("a list").clone();
        traces.into_iter().find(|trace| trace["id"] == id)
    };
    let state = || of().expect("the trace")["state"].clone();
    let mut before = None;
    wait_for("the trace to begin", LIMIT, || state() != "waiting");
    if state() == "running" {
        before = agent.between(engine);
    }
    let mut after = None;
    wait_for("the trace to end", LIMIT, || {
        state() != "running" && {
            after = agent.between(engine);
            true
        }
    });
    let done = of().expect("the trace");
    assert_eq!(done["state"], "done", "{done}\n{}", agent.log());
    wait_for("the metrics to go on", LIMIT, || agent.is_attached(engine));
    Some((before?, done, after?))
}

#[test]
fn servers_come_and_go_and_the_metrics_tell_what_a_trace_tells() {
    let Some(python) = demo::python("3.12") else {
        return;
    };
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = python_path(folder.path());
    let address = configure(folder.path(), &path, "");
    let mut agent = start(folder.path(), address);
    assert_eq!(agent.sessions()["servers"], serde_json::json!([]));

    let target = |name: &str| {
        let own = folder.path().join(name);
        demo::start_with(&python, &own, 150, &[], &[folder.path()])
    };
    let first = target("first");
    let one = engine(&first, &agent);
    wait_for("the first server", LIMIT, || agent.is_attached(one));
    let second = target("second");
    let two = engine(&second, &agent);
    wait_for("the second server", LIMIT, || agent.is_attached(two));

    let name = format!("pid-{one}");
    let mut traced = None;
    for _ in 0..6 {
        traced = trace(&agent, one, &name);
        if traced.is_some() {
            break;
        }
    }
    let (before, done, after) = traced.expect("a trace with the numbers before and after it");
    let label = format!("server=\"{name}\"");
    let session = Session::open(Path::new(done["folder"].as_str().expect("a folder")));
    for (metric, rows) in told(&session) {
        let grown = sum(&after, metric, &label) - sum(&before, metric, &label);
        assert!(
            (grown - rows).abs() < 1e-6,
            "{metric} has grown by {grown}, the rows say {rows}"
        );
    }
    assert!(sum(&after, "profilemate_steps_total", &label) > 100.0);
    check_forms(&agent, folder.path());

    drop(second);
    wait_for("the second server to go", LIMIT, || {
        agent.standing(two).is_none()
    });
    wait_for("its series to go", LIMIT, || {
        !agent
            .get("/metrics", "*/*")
            .contains(&format!("\"pid-{two}\""))
    });
    agent.guard.signal(libc::SIGTERM);
    assert_eq!(agent.guard.wait(LIMIT), 0, "{}", agent.log());
    // Nothing is left redirected.
    assert!(
        put_back(first.pid()).contains("nothing to put back"),
        "{}",
        agent.log()
    );
}

/// What `detach` says.
fn put_back(pid: u32) -> String {
    let done = Command::new(binary())
        .args(["detach", "--pid", &pid.to_string()])
        .output()
        .expect("profilemate runs");
    assert!(done.status.success());
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Text and `OpenMetrics` are read by the parsers of Prometheus's own Python client.
fn check_forms(agent: &Agent, folder: &Path) {
    let home = std::env::var("HOME").unwrap_or_default();
    let python = PathBuf::from(home).join(".cache/profilemate/export-checks/bin/python");
    let has_client = python.exists()
        && Command::new(&python)
            .args(["-c", "import prometheus_client"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !has_client {
        assert!(
            std::env::var_os("PROFILEMATE_REQUIRE_EXPORT").is_none(),
            "the readers are not installed: run `tests/export/setup`"
        );
        println!("skipped: no readers (tests/export/setup installs them)");
        return;
    }
    for (format, accept) in [
        ("prometheus", "*/*"),
        ("openmetrics", "application/openmetrics-text;version=1.0.0"),
    ] {
        let path = folder.join(format);
        std::fs::write(&path, agent.get("/metrics", accept)).expect("a file");
        let done = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/export/check.py"))
            .arg(format)
            .arg(&path)
            .output()
            .expect("python runs");
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{format}: {words}");
        let read: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        let of = |name: &str| read["families"][name].clone();
        assert_eq!(of("profilemate_step_duration_seconds"), "histogram");
        assert_eq!(of("profilemate_kv_cache_usage_ratio"), "gauge");
        assert_eq!(of("profilemate_steps"), "counter");
        if format == "openmetrics" {
            assert!(read["exemplars"].as_u64() > Some(0), "{read}");
        }
    }
}

#[test]
fn what_a_killed_agent_left_is_put_back_by_the_next_one() {
    let Some(python) = demo::python("3.12") else {
        return;
    };
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = python_path(folder.path());
    let address = configure(folder.path(), &path, "");
    let own = folder.path().join("target");
    let target = demo::start_with(&python, &own, 40, &[], &[folder.path()]);
    let mut agent = start(folder.path(), address);
    let one = engine(&target, &agent);
    wait_for("the server", LIMIT, || agent.is_attached(one));
    let remembered = folder.path().join("state/attached.json");
    wait_for("the agent to write it down", LIMIT, || {
        std::fs::read_to_string(&remembered).is_ok_and(|text| text.contains(&one.to_string()))
    });
    // A second one with the same folder is refused while the first one lives.
    let second = Command::new(binary())
        .args(["agent", "--config"])
        .arg(folder.path().join("agent.toml"))
        .output()
        .expect("profilemate runs");
    assert_eq!(second.status.code(), Some(8));
    agent.guard.signal(libc::SIGKILL);
    agent.guard.wait(LIMIT);
    drop(agent);

    // The next one is to leave that server alone, and puts back what is left in it.
    let text = std::fs::read_to_string(folder.path().join("agent.toml")).unwrap();
    let leaves = text.replace(
        "[auth]",
        &format!("without_environment = [\"PYTHONPATH={path}\"]\n[auth]"),
    );
    std::fs::write(folder.path().join("agent.toml"), &leaves).unwrap();
    let mut agent = start(folder.path(), address);
    assert!(
        agent.log().contains("pointers were put back"),
        "{}",
        agent.log()
    );
    assert!(!agent.log().contains(": 0 pointers"), "{}", agent.log());
    assert!(put_back(target.pid()).contains("nothing to put back"));
    // With the configuration changed again it takes it up without a restart; a bad one changes nothing.
    std::fs::write(folder.path().join("agent.toml"), "[agent]\nlisen = 1\n").unwrap();
    agent.guard.signal(libc::SIGHUP);
    wait_for("the refusal", LIMIT, || {
        let refused = agent.sessions()["configuration_refused"].clone();
        refused
            .as_str()
            .is_some_and(|text| text.contains("did you mean `listen`?"))
    });
    std::fs::write(folder.path().join("agent.toml"), &text).unwrap();
    agent.guard.signal(libc::SIGHUP);
    wait_for("the server again", LIMIT, || agent.is_attached(one));
    agent.guard.signal(libc::SIGTERM);
    assert_eq!(agent.guard.wait(LIMIT), 0, "{}", agent.log());
    drop(agent);
    // The server has not suffered.
    target.finish(Duration::from_secs(120));
}

#[test]
fn configurations_that_are_not_safe_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).expect("a configuration");
        let done = Command::new(binary())
            .args(["agent", "--check", "--config"])
            .arg(&path)
            .output()
            .expect("profilemate runs");
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), words)
    };
    let token = folder.path().join("token");
    let auth = format!("[auth]\ntoken_file = \"{}\"\n", token.display());
    std::fs::write(&token, TOKEN).expect("a token");
    for (mode, expected) in [(0o644, Some(2)), (0o600, Some(0))] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&token, permissions).expect("permissions");
        let (code, words) = check(&auth);
        assert_eq!(code, expected, "{words}");
        assert!(!words.contains(TOKEN), "{words}");
    }
    for (text, expected) in [
        (
            format!("[agent]\nlisten = \"0.0.0.0:9464\"\n{auth}"),
            "not loopback",
        ),
        ("[agent]\nlisen = 1\n".to_owned(), "did you mean `listen`?"),
        (
            "[traces]\nenabled = true\n".to_owned(),
            "needs `[auth]` with `token_file`",
        ),
    ] {
        let (code, words) = check(&text);
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains(expected), "{words}");
    }
}

/// Exit code and JSON of `fleet trace` of all servers.
fn fleet_trace(url: &str, token: &Path, output: &Path, more: &[&str]) -> (i32, Value) {
    let done = Command::new(binary())
        .args(["fleet", "--prometheus", url, "--json", "trace", "{}"])
        .args(["--duration", "1s", "--agent-url", "http://{instance}"])
        .arg("--agent-token-file")
        .arg(token)
        .arg("--output")
        .arg(output)
        .args(more)
        .output()
        .expect("profilemate runs");
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    let report = serde_json::from_slice(&done.stdout);
    let code = done.status.code().expect("an exit code");
    (
        code,
        report.unwrap_or_else(|error| panic!("{error}: {words}")),
    )
}

#[test]
fn a_fleet_s_traces_are_gathered_and_who_is_missing_is_named() {
    let Some(python) = demo::python("3.12") else {
        return;
    };
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = python_path(folder.path());
    let address = configure(folder.path(), &path, "");
    let own = folder.path().join("target");
    let target = demo::start_with(&python, &own, 120, &[], &[folder.path()]);
    let mut agent = start(folder.path(), address);
    let one = engine(&target, &agent);
    wait_for("the server", LIMIT, || agent.is_attached(one));

    let (here, nobody) = (address.to_string(), free().to_string());
    let name = format!("pid-{one}");
    let servers = [(&*name, &*here), ("gone", &*here), ("vllm/8000", &*nobody)];
    let url = stand_in_that_knows(&servers);
    let (token, output) = (folder.path().join("token"), folder.path().join("gathered"));
    let more = ["--strict", "--only", "batch_utilization"];
    let (code, report) = fleet_trace(&url, &token, &output, &more);
    assert_eq!(code, 3, "{report:#}");
    let of = |server: &str| {
        let servers = report["servers"].as_array().expect("a list");
        let found = servers.iter().find(|one| one["server"] == server);
        found.expect("the server").clone()
    };
    let gone = of("gone")["reason"].as_str().expect("a reason").to_owned();
    assert!(gone.contains("there is no such server"), "{gone}");
    let missing = of("vllm/8000");
    assert_eq!(missing["state"], "failed", "{missing}");
    let gathered = of(&name);
    assert_eq!(gathered["state"], "gathered", "{gathered}\n{}", agent.log());
    assert!(gathered["rows"].as_u64() > Some(0), "{gathered}");
    let session = PathBuf::from(gathered["folder"].as_str().expect("a folder"));
    assert!(session.starts_with(&output), "{}", session.display());
    assert!(!Session::open(&session).rows("batch_utilization").is_empty());
    // What is here is what the agent has.
    let sessions = agent.sessions();
    let kept = sessions["traces"][0]["folder"].as_str().expect("a folder");
    for file in ["events.pmrec", "metadata.json", "batch_utilization.csv"] {
        let (theirs, ours) = (Path::new(kept).join(file), session.join(file));
        assert!(std::fs::read(theirs).unwrap() == std::fs::read(ours).unwrap());
    }
    let explained = Command::new(binary())
        .arg("explain")
        .arg(&session)
        .output()
        .expect("profilemate runs");
    let words = String::from_utf8_lossy(&explained.stderr).into_owned();
    assert!(explained.status.success(), "{words}");
    assert!(!explained.stdout.is_empty(), "{words}");

    // An archive needs the token, even on loopback; and so does a trace.
    let id = sessions["traces"][0]["id"].clone();
    let (status, _) = agent.ask(&format!("GET /sessions/{id}.tar HTTP/1.1"), "");
    assert_eq!(status, 401);
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "fedcba9876543210").unwrap();
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
    let empty = folder.path().join("empty");
    let (code, report) = fleet_trace(&url, &wrong, &empty, &[]);
    assert_eq!(code, 1, "{report:#}");
    assert!(
        report.to_string().contains("a token is needed"),
        "{report:#}"
    );
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    agent.guard.signal(libc::SIGTERM);
    assert_eq!(agent.guard.wait(LIMIT), 0, "{}", agent.log());
}
