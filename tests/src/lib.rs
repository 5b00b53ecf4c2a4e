//! Guards and readers for the end-to-end tests: real processes, real probes, real tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub mod certificate;
pub mod collector;
pub mod cuda;
pub mod demo;
pub mod engine;
pub mod needs;
pub mod net;
pub mod scale;
pub mod vllm;

/// Whether privileged tests can run. Without root they are skipped with a printed line, or fail where
/// `PROFILEMATE_REQUIRE_ROOT=1` says that they must run.
pub fn root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return true;
    }
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_ROOT").is_none(),
        "this test must run as root"
    );
    println!("skipped: not root");
    false
}

/// The `profilemate` binary, built beside the tests.
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("the test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let binary = path.join("profilemate");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build -p profilemate-cli` first",
        binary.display()
    );
    binary
}

/// A child that is ended, by pid, when the guard is dropped.
pub struct Guard(pub Child);

impl Guard {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        )
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and not yet collected, so the pid names it.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Kills it with SIGKILL, and collects it.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let _status = self.0.wait().expect("the child can be waited for");
    }

    /// Waits until the child ends; panics after `limit`.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("the child can be waited for") {
                return status.code().unwrap_or(-1);
            }
            assert!(
                Instant::now() < deadline,
                "process {} did not end within {limit:?}",
                self.pid()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(libc::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(self.0.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _gone = self.0.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Waits until `condition` holds; panics with `what` after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A session folder.
pub struct Session {
    /// The folder.
    pub folder: PathBuf,
    /// `metadata.json`.
    pub metadata: serde_json::Value,
}

/// One row of a table by column name.
pub type Row = BTreeMap<String, String>;

impl Session {
    /// The only session below `output`.
    pub fn only(output: &Path) -> Self {
        let folders: Vec<PathBuf> = std::fs::read_dir(output)
            .expect("output folder")
            .map(|entry| entry.expect("entry").path())
            .collect();
        assert_eq!(
            folders.len(),
            1,
            "one session in {}: {folders:?}",
            output.display()
        );
        Self::open(&folders[0])
    }

    /// The session in `folder`.
    pub fn open(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("metadata.json")).expect("metadata.json");
        Self {
            folder: folder.to_owned(),
            metadata: serde_json::from_str(&text).expect("metadata.json is JSON"),
        }
    }

    /// All rows of a table.
    pub fn rows(&self, table: &str) -> Vec<Row> {
        let path = self.folder.join(format!("{table}.csv"));
        let mut reader = csv::Reader::from_path(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        reader
            .deserialize()
            .map(|row| row.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
            .collect()
    }
}

/// The ledger must be exact: every pass through a probed instruction is delivered, lost or filtered. Gives the lost.
pub fn assert_ledger_exact(session: &Session) -> u64 {
    let ledger = &session.metadata["ledger"];
    let number = |name: &str| {
        ledger[name]
            .as_u64()
            .unwrap_or_else(|| panic!("ledger.{name} in {ledger}"))
    };
    assert_eq!(
        number("fired"),
        number("submitted") + number("lost") + number("filtered"),
        "{ledger}"
    );
    assert_eq!(number("received"), number("submitted"), "{ledger}");
    let errors = &session.metadata["events"]["decode_errors"];
    assert_eq!(errors.as_u64(), Some(0), "{}", session.metadata["events"]);
    number("lost")
}

/// As [`assert_ledger_exact`], and the pages' own counts agree. Only where the target outlives the session: the page
/// of a process that has ended can no longer be read.
pub fn assert_marks_exact(session: &Session) -> u64 {
    let ledger = &session.metadata["ledger"];
    assert_eq!(ledger["page_marks"], ledger["fired"], "{ledger}");
    assert_ledger_exact(session)
}

/// The longest time, in microseconds, that a thread of the target stood still, of a tracer's log (`-vv`).
pub fn longest_stop_us(log: &str) -> u64 {
    log.lines()
        .filter_map(|line| {
            line.split_once("stood for ")?
                .1
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .max()
        .unwrap_or(0)
}

/// A number from the environment: how long a test goes on where it is asked to.
pub fn count_from(variable: &str, default: u32) -> u32 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
