//! The real `profilemate fleet`, with what it takes.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use profilemate_tests::needs::{cpu_ns, resident_mib};
use profilemate_tests::{Guard, binary};
use serde_json::Value;

/// One run.
pub(crate) struct Ran {
    /// What it printed.
    pub(crate) json: Value,
    /// Seconds in all.
    pub(crate) wall_sec: f64,
    /// Its own processor time, in seconds.
    pub(crate) cpu_sec: f64,
    /// Its memory at its highest, in MiB.
    pub(crate) peak_mib: f64,
}

/// Runs it to its end.
pub(crate) fn fleet(url: &str, task: &[&str]) -> Result<Ran> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let (out, error) = (folder.path().join("out"), folder.path().join("error"));
    let mut command = Command::new(binary());
    command
        .args(["fleet", "--prometheus", url, "--json", "--timeout", "10m"])
        .args(task)
        .stdout(File::create(&out)?)
        .stderr(Stdio::from(File::create(&error)?));
    let began = Instant::now();
    let mut guard = Guard::start(&mut command);
    let (mut cpu, mut peak_mib) = (0, 0.0_f64);
    let status = loop {
        if let Some(status) = guard.0.try_wait()? {
            break status;
        }
        // Its last look is a few milliseconds old when it ends.
        cpu = cpu_ns(guard.pid()).unwrap_or(cpu).max(cpu);
        peak_mib = resident_mib(guard.pid(), "VmHWM")
            .unwrap_or(peak_mib)
            .max(peak_mib);
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall_sec = began.elapsed().as_secs_f64();
    if !status.success() {
        bail!("fleet {task:?}: {}", std::fs::read_to_string(&error)?);
    }
    Ok(Ran {
        json: serde_json::from_reader(std::io::BufReader::new(File::open(&out)?))?,
        wall_sec,
        cpu_sec: cpu as f64 / 1e9,
        peak_mib,
    })
}
