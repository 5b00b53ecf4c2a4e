//! Nodes with agents and targets, and who looks at them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::engine::{self, Engine};
use profilemate_tests::net::Net;
use profilemate_tests::{Guard, binary, certificate, demo, root, wait_for};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PORT: u16 = 9464;
/// The node on which nobody serves: Prometheus, the collector, and who asks.
pub(crate) const MONITOR: &str = "monitor";
/// How long something may take on a machine that does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Some nodes.
pub(crate) struct Site {
    pub(crate) net: Net,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) python: PathBuf,
    tools: PathBuf,
    client: reqwest::blocking::Client,
    nodes: Vec<&'static str>,
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) guard: Guard,
    node: &'static str,
    log: PathBuf,
}

impl Site {
    /// `None`: something that it needs is not here, which is printed.
    pub(crate) fn build(nodes: &[&'static str]) -> Option<Self> {
        if !root() {
            return None;
        }
        let (tools, python) = (engine::folder()?, demo::python("3.12")?);
        let all: Vec<&str> = nodes.iter().copied().chain([MONITOR]).collect();
        let net = Net::new(&all)?;
        let folder = tempfile::tempdir().expect("a folder");
        let names: Vec<String> = nodes
            .iter()
            .map(|node| format!("IP:{}", net.address(node)))
            .collect();
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let authority = certificate::issue(folder.path(), &names.join(","));
        certificate::token(folder.path(), TOKEN);
        // Made on the monitor: the thread behind it stays there.
        let client = net.within(MONITOR, || {
            reqwest::blocking::Client::builder()
                .tls_certs_only([authority])
                .timeout(Duration::from_secs(20))
                .build()
                .expect("a client")
        });
        Some(Self {
            net,
            folder,
            python,
            tools,
            client,
            nodes: nodes.to_vec(),
        })
    }

    /// The environment by which a node's agent knows the servers of its node: all of them see all processes of this
    /// machine.
    pub(crate) fn mark(&self, node: &str) -> (&'static str, String) {
        let own = self.folder.path().join(node);
        ("PROFILEMATE_NODE", own.display().to_string())
    }

    /// Starts the agent of a node, with `more` in its configuration.
    pub(crate) fn agent(&self, node: &'static str, more: &str) -> Agent {
        let own = self.folder.path().join(node);
        std::fs::create_dir_all(&own).expect("the node's folder");
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (name, value) = self.mark(node);
        let address = self.net.address(node);
        let text = format!(
            "[agent]\nlisten = \"{address}:{PORT}\"\nstate_folder = \"{}\"\ninterval = \"300ms\"\n\
             [servers]\nwith_environment = [\"{name}={value}\"]\n\
             [tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n[auth]\ntoken_file = \"{}\"\n{more}",
            own.join("state").display(),
            path("crt"),
            path("key"),
            path("token"),
        );
        let config = own.join("agent.toml");
        std::fs::write(&config, text).expect("a configuration");
        let log = own.join("agent.log");
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log");
        let mut command = Command::new(binary());
        command
            .args(["-v", "agent", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(file);
        let guard = self.net.within(node, || Guard::start(&mut command));
        Agent { guard, node, log }
    }

    /// Starts a demo target on a node.
    pub(crate) fn demo(&self, node: &'static str, more: &[&str]) -> demo::Demo {
        let own = self.folder.path().join(node).join("target");
        let mark = self.mark(node);
        self.net.within(node, || {
            demo::start_marked(&self.python, &own, 600, more, &[mark])
        })
    }

    /// A page of an agent.
    pub(crate) fn ask(&self, node: &str, page: &str) -> reqwest::Result<String> {
        let url = format!("https://{}:{PORT}{page}", self.net.address(node));
        let request = self.client.get(url).bearer_auth(TOKEN);
        request.send()?.error_for_status()?.text()
    }

    /// Waits until the agent of a node is attached to a server.
    pub(crate) fn wait_attached(&self, agent: &Agent) {
        let what = format!("a server on {}", agent.node);
        wait_for(&what, LIMIT, || {
            self.ask(agent.node, "/sessions")
                .is_ok_and(|text| text.contains("\"attached\""))
        });
    }

    /// Sum of the series of an agent's metric that have `label`.
    pub(crate) fn value(&self, node: &str, metric: &str, label: &str) -> f64 {
        let text = self.ask(node, "/metrics").expect("metrics");
        sum(&text, metric, label)
    }

    /// The scrape configuration of all nodes.
    fn scrape(&self) -> PathBuf {
        let target = |node: &&str| {
            let address = self.net.address(node);
            format!("  - targets: [\"{address}:{PORT}\"]\n    labels: {{instance: \"{node}\"}}\n")
        };
        let targets: Vec<String> = self.nodes.iter().map(target).collect();
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
             - job_name: profilemate\n  scheme: https\n  tls_config: {{ca_file: \"{}\"}}\n  \
             authorization: {{credentials_file: \"{}\"}}\n  static_configs:\n{}",
            path("crt"),
            path("token"),
            targets.concat(),
        );
        let file = self.folder.path().join("scrape.yaml");
        std::fs::write(&file, text).expect("a configuration");
        file
    }

    /// Starts Prometheus, on the store that it had if it was there before.
    pub(crate) fn prometheus(&self) -> Engine {
        let (config, data) = (self.scrape(), self.folder.path().join("prometheus"));
        self.net.within(MONITOR, || {
            Engine::prometheus(&self.tools, &data, &config, 9_090)
        })
    }

    /// Starts `VictoriaMetrics`.
    pub(crate) fn victoria(&self) -> Engine {
        let (config, data) = (self.scrape(), self.folder.path().join("victoria"));
        self.net.within(MONITOR, || {
            Engine::victoria_that_scrapes(&self.tools, &data, &config)
        })
    }

    /// The value that an engine knows, if it knows one.
    pub(crate) fn known(&self, engine: &Engine, query: &str) -> Option<f64> {
        let answer = self.net.within(MONITOR, || engine.query(query));
        let value = answer["data"]["result"][0]["value"][1].as_str()?;
        Some(value.parse().expect("a number"))
    }

    /// `profilemate fleet`: exit code, JSON, and what it says.
    pub(crate) fn fleet(&self, url: &str, arguments: &[&str]) -> (i32, Value, String) {
        let mut command = Command::new(binary());
        command
            .args(["fleet", "--prometheus", url, "--json"])
            .args(arguments);
        let done = self
            .net
            .within(MONITOR, || command.output().expect("profilemate runs"));
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        let json = serde_json::from_slice(&done.stdout).unwrap_or_default();
        (done.status.code().unwrap_or(-1), json, words)
    }

    /// Sends a signal to all processes of a target.
    pub(crate) fn signal(target: &demo::Demo, signal: i32) {
        for pid in target.tree() {
            // SAFETY: the process is of a target of this test, which has not been collected yet.
            unsafe { libc::kill(pid as i32, signal) };
        }
    }

    /// Kills a target, with all of its processes.
    pub(crate) fn kill(target: demo::Demo) {
        Self::signal(&target, libc::SIGKILL);
        drop(target);
    }
}

impl Agent {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a service manager does.
    pub(crate) fn end(mut self) {
        self.guard.signal(libc::SIGTERM);
        assert_eq!(self.guard.wait(LIMIT), 0, "{}", self.log());
    }
}

/// Sum of the series of `metric` that have `label` in Prometheus's text.
pub(crate) fn sum(text: &str, metric: &str, label: &str) -> f64 {
    let own = text.lines().filter(|line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    own.filter(|line| line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
