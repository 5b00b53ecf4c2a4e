//! The tracer as a process: started, watched, ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use profilemate::capture::frame::{self, FrameReader, KIND_RECORD};
use profilemate::sys::clock::monotonic_ns;
pub(crate) use profilemate_tests::needs::{cpu_ns, resident_mib};
use profilemate_tests::{Guard, binary};
use serde_json::Value;

/// The method that the bench's own target is traced by.
pub(crate) const STEP: &str = "profilemate_bench:Engine.step";
/// Four fields of it, as `--field` takes them; the same as of the catalogue's `schedule`.
pub(crate) const FIELDS: [&str; 4] = [
    "running=self.running:len",
    "waiting=self.waiting:len",
    "tokens=ret.total_num_scheduled_tokens",
    "scheduled=ret.num_scheduled_tokens:len",
];
/// Nothing that is waited for takes longer, on a loaded machine.
const LIMIT: Duration = Duration::from_mins(1);

/// A running `profilemate trace`.
pub(crate) struct Tracer {
    guard: Guard,
    folder: tempfile::TempDir,
    /// `CLOCK_MONOTONIC` just before it was started.
    pub(crate) started_ns: u64,
}

impl Tracer {
    /// Starts `profilemate -v -q trace` on processes, with more arguments.
    pub(crate) fn start(pids: &[u32], more: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let log = std::fs::File::create(folder.path().join("log")).context("a log")?;
        let mut command = Command::new(binary());
        command
            .args(["-v", "-q", "trace", "--output"])
            .arg(folder.path().join("sessions"));
        for pid in pids {
            command.args(["--pid", &pid.to_string()]);
        }
        command.args(more).stdout(Stdio::null()).stderr(log);
        let started_ns = monotonic_ns();
        Ok(Self {
            guard: Guard::start(&mut command),
            folder,
            started_ns,
        })
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its session's folder.
    pub(crate) fn session(&self) -> Option<PathBuf> {
        let sessions = std::fs::read_dir(self.folder.path().join("sessions")).ok()?;
        sessions.flatten().map(|entry| entry.path()).next()
    }

    /// Waits until `processes` are attached.
    pub(crate) fn attached(&mut self, processes: usize) -> Result<()> {
        self.until("the attach", |tracer| {
            tracer.log().matches(" methods bound").count() >= processes
        })
    }

    /// Waits until the first call is on the disk.
    pub(crate) fn first_on_disk(&mut self) -> Result<()> {
        self.until("the first event", |tracer| {
            tracer
                .session()
                .and_then(|folder| first_record_ns(&folder).ok().flatten())
                .is_some()
        })
    }

    /// `CLOCK_MONOTONIC` of the first event.
    pub(crate) fn first_event_ns(&self) -> Result<u64> {
        let folder = self.session().context("no session folder")?;
        first_record_ns(&folder)?.context("no event")
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !condition(self) {
            if Instant::now() > deadline || self.guard.0.try_wait()?.is_some() {
                bail!("waited in vain for {what}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Interrupts it and waits for its end. Gives how long that took, in milliseconds.
    pub(crate) fn interrupt(&mut self) -> Result<f64> {
        let begin = Instant::now();
        self.guard.signal(libc::SIGINT);
        self.ended()?;
        let took = begin.elapsed();
        if self.log().contains("was not traced") {
            bail!("not traced: {}", self.log());
        }
        Ok(took.as_secs_f64() * 1e3)
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.guard.signal(libc::SIGKILL);
        self.ended()
    }

    fn ended(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.guard.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the tracer did not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// `metadata.json`.
    pub(crate) fn metadata(&self) -> Result<Value> {
        let folder = self.session().context("no session folder")?;
        let text =
            std::fs::read_to_string(folder.join("metadata.json")).context("metadata.json")?;
        serde_json::from_str(&text).context("metadata.json")
    }
}

/// `CLOCK_MONOTONIC` of the first record in a session's stream.
fn first_record_ns(folder: &Path) -> Result<Option<u64>> {
    let file = std::fs::File::open(folder.join("events.pmrec"))?;
    let mut reader = FrameReader::new(std::io::BufReader::new(file))?;
    while let Some((kind, bytes)) = reader.next_frame()? {
        if kind == KIND_RECORD {
            return Ok(frame::record_head(bytes).map(|head| head.ts_ns));
        }
    }
    Ok(None)
}
