//! Agents that can no longer be reached, as real engines that scrape them see it.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use profilemate_tests::engine::{self, Engine};
use profilemate_tests::wait_for;
use serde_json::Value;

use crate::run;

const LIMIT: Duration = Duration::from_secs(90);

/// An agent as an engine sees it: a page on a port, which is closed when this is dropped.
struct Page {
    port: u16,
    open: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Page {
    fn serve() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let open = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&open);
        let thread = std::thread::spawn(move || {
            let body = "profilemate_agent_info{version=\"0.1.0\"} 1\n\
                        profilemate_server_info{server=\"vllm/8000\",model=\"opt\",version=\"0.32.0\"} 1\n";
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain";
            for stream in listener.incoming() {
                if !still.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                let _request = stream.read(&mut [0; 4096]);
                let length = body.len();
                let _gone = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
            }
        });
        let thread = Some(thread);
        Self { port, open, thread }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.open.store(false, Ordering::SeqCst);
        // Whom it waits for is anybody.
        let _woken = std::net::TcpStream::connect(("127.0.0.1", self.port));
        let _ended = self.thread.take().expect("a thread").join();
    }
}

#[test]
fn who_is_no_longer_reached_does_not_tell_from_the_next_scrape_on_in_both_engines() {
    let Some(tools) = engine::folder() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (stays, goes) = (Page::serve(), Page::serve());
    let target = |page: &Page, name: &str| {
        let port = page.port;
        format!("  - targets: [\"127.0.0.1:{port}\"]\n    labels: {{instance: {name}}}\n")
    };
    let config = folder.path().join("scrape.yaml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
         - job_name: profilemate\n  static_configs:\n{}{}",
        target(&stays, "stays"),
        target(&goes, "goes")
    );
    std::fs::write(&config, text).expect("a configuration");
    let data = |name: &str| folder.path().join(name);
    let engines = [
        Engine::prometheus(&tools, &data("prometheus"), &config, engine::port()),
        Engine::victoria_that_scrapes(&tools, &data("victoria"), &config),
    ];
    let telling = |engine: &Engine| {
        let options = ["--prometheus", &engine.url, "--json", "status"];
        let (_, out, _) = run(&options);
        let status: Value = serde_json::from_str(&out).unwrap_or_default();
        let servers = status["servers"].as_array().cloned().unwrap_or_default();
        let tells = |one: &Value| one["state"] == "telling" || one["state"] == "late";
        let telling = servers.iter().filter(|one| tells(one));
        let name = |one: &Value| one["instance"].as_str().unwrap_or_default().to_owned();
        telling.map(name).collect::<Vec<_>>()
    };
    let wait = |expected: &[&str]| {
        for engine in &engines {
            // An engine that takes the last sample for the present does so for five minutes.
            wait_for(&format!("{expected:?} to tell"), LIMIT, || {
                telling(engine) == expected
            });
        }
    };
    wait(&["goes", "stays"]);
    drop(goes);
    wait(&["stays"]);
    drop(stays);
    wait(&[]);
}
