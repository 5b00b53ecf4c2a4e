//! Agents that push: their collector is slow, busy and gone, and in the end has everything that was promised.

use std::time::{Duration, Instant};

use profilemate_tests::collector::{Collector, Mood};
use profilemate_tests::wait_for;

use crate::rig::{Agent, LIMIT, MONITOR, Site};

/// Attribute that every series of a server has.
const ENGINE: &str = "engine=0";
/// Spans that may wait.
const ROOM: f64 = 2_048.0;

/// `[otlp]` of an agent.
fn push(protocol: &str, endpoint: std::net::SocketAddr) -> String {
    format!(
        "[otlp]\nendpoint = \"http://{endpoint}\"\ninsecure = true\nprotocol = \"{protocol}\"\n\
         interval = \"500ms\"\ntimeout = \"6s\"\nsample = 1.0\n"
    )
}

/// Numbers of pushes and spans of an agent.
struct Pushed {
    ok: f64,
    failed: f64,
    spans_ok: f64,
    spans_failed: f64,
    spans_dropped: f64,
    spans_waiting: f64,
}

impl Pushed {
    fn of(site: &Site, node: &str) -> Self {
        let text = site.ask(node, "/metrics").expect("metrics");
        let of = |metric: &str, result: &str| {
            crate::rig::sum(&text, metric, &format!("result=\"{result}\""))
        };
        Self {
            ok: of("profilemate_otlp_pushes_total", "ok"),
            failed: of("profilemate_otlp_pushes_total", "failed"),
            spans_ok: of("profilemate_otlp_spans_total", "ok"),
            spans_failed: of("profilemate_otlp_spans_total", "failed"),
            spans_dropped: of("profilemate_otlp_spans_total", "dropped"),
            spans_waiting: crate::rig::sum(&text, "profilemate_otlp_spans_waiting", ""),
        }
    }
}

/// One agent on a node of its own, and the collector that only it pushes to.
fn story(protocol: &str) {
    let Some(site) = Site::build(&["n0"]) else {
        return;
    };
    let address = site.net.address(MONITOR);
    let mut collector = site.net.within(MONITOR, || Collector::start(&address));
    let endpoint = if protocol == "http" {
        collector.http
    } else {
        collector.grpc
    };
    let target = site.demo("n0", &["--blocks", "64"]);
    let agent = site.agent("n0", &push(protocol, endpoint));
    site.wait_attached(&agent);
    let pushed = || Pushed::of(&site, "n0");
    wait_for("steps and spans at the collector", LIMIT, || {
        collector.total("profilemate.steps", ENGINE) > 0.0 && collector.spans() > 0
    });

    // Busy: it is asked again when it said, and not before.
    let before = pushed();
    for status in [429, 503] {
        let so_far = collector.asked().len();
        collector.be(Mood::Busy(status, Duration::from_secs(1)));
        wait_for("a refused push", LIMIT, || collector.asked().len() > so_far);
        collector.be(Mood::Well);
        wait_for("the next one", LIMIT, || {
            collector.asked().len() > so_far + 1
        });
    }
    for pair in collector.asked().windows(2) {
        if let ((refused, Mood::Busy(_, pause)), (again, _)) = (pair[0], pair[1]) {
            let waited = again - refused;
            assert!(waited >= pause, "it was asked again after {waited:?}");
        }
    }
    assert!(
        (pushed().failed - before.failed).abs() < 0.5,
        "tried again within a push"
    );

    // Slower than a push may take, then gone: pushes fail, and what waits is bounded.
    let begun = pushed();
    collector.be(Mood::Slow(Duration::from_secs(30)));
    wait_for("pushes to a slow collector to fail", LIMIT, || {
        let now = pushed();
        assert!(
            now.spans_waiting <= ROOM,
            "{} spans wait",
            now.spans_waiting
        );
        now.failed >= begun.failed + 1.0 && now.spans_failed > begun.spans_failed
    });
    collector.go();
    let gone = pushed();
    wait_for("pushes to nobody to fail", LIMIT, || {
        let now = pushed();
        assert!(
            now.spans_waiting <= ROOM,
            "{} spans wait",
            now.spans_waiting
        );
        now.failed >= gone.failed + 2.0
    });

    // It comes back: the totals have what happened meanwhile.
    collector.be(Mood::Well);
    site.net.within(MONITOR, || collector.come());
    let missed = site.value("n0", "profilemate_steps_total", "");
    wait_for("what was missed", LIMIT, || {
        collector.total("profilemate.steps", ENGINE) >= missed
    });
    // The agent counts a push once it has the answer.
    wait_for("a push to succeed", LIMIT, || pushed().ok > gone.ok);
    assert_eq!(collector.faults(), Vec::<String>::new());
    settle(&site, &collector, agent, target);
}

/// The server stands still: every total has arrived, and every span is accounted for.
fn settle(site: &Site, collector: &Collector, agent: Agent, target: profilemate_tests::demo::Demo) {
    Site::signal(&target, libc::SIGSTOP);
    let mut last = (f64::NAN, Instant::now());
    wait_for("the last events to be told", LIMIT, || {
        let events = site.value("n0", "profilemate_events_total", "");
        if (events - last.0).abs() > 0.5 || last.0.is_nan() {
            last = (events, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(3)
    });
    wait_for("the last spans to be sent", LIMIT, || {
        Pushed::of(site, "n0").spans_waiting < 0.5
    });
    let text = site.ask("n0", "/metrics").expect("metrics");
    let of = |metric: &str| crate::rig::sum(&text, metric, "");
    for (metric, name) in [
        ("profilemate_steps_total", "profilemate.steps"),
        ("profilemate_tokens_total", "profilemate.tokens"),
        (
            "profilemate_step_duration_seconds_count",
            "profilemate.step_duration",
        ),
        (
            "profilemate_forward_duration_seconds_count",
            "profilemate.forward_duration",
        ),
        (
            "gen_ai_server_request_duration_seconds_count",
            "gen_ai.server.request.duration",
        ),
    ] {
        let (told, what) = (of(metric), format!("{metric} to arrive"));
        assert!(told > 0.0, "{metric}");
        wait_for(&what, LIMIT, || {
            (collector.total(name, ENGINE) - told).abs() < 0.5
        });
    }
    let now = Pushed::of(site, "n0");
    let begun = of("profilemate_step_duration_seconds_count")
        + of("gen_ai_server_request_duration_seconds_count");
    let accounted = now.spans_ok + now.spans_failed + now.spans_dropped;
    assert!(
        (accounted - begun).abs() < 0.5,
        "{accounted} of {begun} spans"
    );
    let taken = collector.spans() as f64;
    assert!(
        (now.spans_ok..=now.spans_ok + now.spans_failed).contains(&taken),
        "{taken} spans arrived, {} were sent well",
        now.spans_ok
    );
    Site::signal(&target, libc::SIGCONT);
    agent.end();
    Site::kill(target);
}

#[test]
fn a_collector_by_grpc_that_is_busy_slow_and_gone_has_every_total_in_the_end() {
    story("grpc");
}

#[test]
fn a_collector_by_http_that_is_busy_slow_and_gone_has_every_total_in_the_end() {
    story("http");
}
