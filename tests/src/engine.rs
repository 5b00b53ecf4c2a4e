//! Prometheus and VictoriaMetrics, as `tests/fleet/setup` unpacked them, on free ports of loopback.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::{Guard, wait_for};

/// The folder of `tests/fleet/setup`; without it the test is skipped with a printed line, or fails where
/// `PROFILEMATE_REQUIRE_FLEET=1` says that it must run.
pub fn folder() -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = PathBuf::from(home).join(".cache/profilemate/fleet");
    if folder.join(".profilemate-ready").exists() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_FLEET").is_none(),
        "run tests/fleet/setup first"
    );
    println!("skipped: no Prometheus, run tests/fleet/setup");
    None
}

/// A program of Debian's packages.
pub fn program(folder: &Path, name: &str) -> Command {
    Command::new(folder.join("root/usr/bin").join(name))
}

/// A port that is free now.
pub fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// An engine.
pub struct Engine {
    /// Ended by [`Engine::stop`] or when this is dropped.
    guard: Guard,
    /// Its address.
    pub url: String,
    port: u16,
}

impl Engine {
    /// Starts Prometheus on a store in `data`, with a configuration.
    pub fn prometheus(folder: &Path, data: &Path, config: &Path, port: u16) -> Self {
        Self::prometheus_with(folder, data, config, port, &[])
    }

    /// The same, with more options.
    pub fn prometheus_with(
        folder: &Path,
        data: &Path,
        config: &Path,
        port: u16,
        options: &[&str],
    ) -> Self {
        let mut command = program(folder, "prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .args(options);
        Self::start(&mut command, port, "/-/ready")
    }

    /// Starts VictoriaMetrics on a store in `data`.
    pub fn victoria(folder: &Path, data: &Path) -> Self {
        let port = port();
        let mut command = program(folder, "victoria-metrics");
        command
            .arg(format!("-storageDataPath={}", data.display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .args([
                "-retentionPeriod=10y",
                "-search.latencyOffset=0s",
                "-loggerLevel=ERROR",
            ]);
        Self::start(&mut command, port, "/health")
    }

    /// Starts VictoriaMetrics, which scrapes as a configuration of Prometheus says.
    pub fn victoria_that_scrapes(folder: &Path, data: &Path, config: &Path) -> Self {
        let port = port();
        let mut command = program(folder, "victoria-metrics");
        command
            .arg(format!("-storageDataPath={}", data.display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .arg(format!("-promscrape.config={}", config.display()))
            .args(["-search.latencyOffset=0s", "-loggerLevel=ERROR"]);
        Self::start(&mut command, port, "/health")
    }

    fn start(command: &mut Command, port: u16, ready: &str) -> Self {
        let engine = Self::spawn(command, port);
        wait_for("the engine", Duration::from_secs(60), || {
            get(port, ready).is_ok_and(|(status, _)| status == 200)
        });
        engine
    }

    /// Prometheus with TLS: there is no plain page to wait for.
    pub fn prometheus_with_tls(folder: &Path, data: &Path, config: &Path, web: &Path) -> Self {
        let port = port();
        let mut command = program(folder, "prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.config.file={}", web.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let engine = Self::spawn(&mut command, port);
        wait_for("the engine's port", Duration::from_secs(60), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        engine
    }

    fn spawn(command: &mut Command, port: u16) -> Self {
        let guard = Guard::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        Self {
            guard,
            url: format!("http://127.0.0.1:{port}"),
            port,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.guard);
    }

    /// Kills it: it gets no chance to write anything.
    pub fn kill(mut self) {
        self.guard.kill();
    }

    /// The result of a query, as JSON.
    pub fn query(&self, query: &str) -> serde_json::Value {
        let coded = query.bytes().fold(String::new(), |mut coded, byte| {
            let _ = write!(coded, "%{byte:02X}");
            coded
        });
        let (_, body) = get(self.port, &format!("/api/v1/query?query={coded}")).expect("an answer");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Sends a body; the status.
    pub fn post(&self, path: &str, body: &str) -> u16 {
        request(self.port, "POST", path, body).expect("an answer").0
    }
}

/// Gets a page of loopback: status and body.
pub fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    request(port, "GET", path, "")
}

fn request(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}

/// Answers every query as an engine that knows these servers, as (server, instance), until the process ends.
pub fn stand_in_that_knows(servers: &[(&str, &str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let now = 1_790_000_000;
    let series: Vec<serde_json::Value> = servers
        .iter()
        .map(|(server, instance)| {
            let metric = json!({
                "job": "profilemate", "instance": instance, "server": server, "model": "demo"
            });
            json!({"metric": metric, "value": [now, now.to_string()]})
        })
        .collect();
    let vector = |series: &[serde_json::Value]| {
        let data = json!({"resultType": "vector", "result": series});
        json!({"status": "success", "data": data}).to_string()
    };
    let (known, nothing) = (vector(&series), vector(&[]));
    let time = format!(
        "{{\"status\":\"success\",\"data\":{{\"resultType\":\"scalar\",\"result\":[{now},\"{now}\"]}}}}"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut text = String::new();
            let mut buffer = [0; 4096];
            // The form is the last of a request, and its last field is the time; `time()` itself has none.
            while !text.contains("query=") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
                }
            }
            let body = if text.contains("query=timestamp%28profilemate_server_info") {
                &known
            } else if text.contains("query=time%28%29") {
                &time
            } else {
                &nothing
            };
            let length = body.len();
            let reply = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let _gone = stream.write_all(reply.as_bytes());
        }
    });
    url
}
