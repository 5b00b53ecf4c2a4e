//! One size of the fleet: scraped for a while, then asked.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use profilemate_tests::needs::{cpu_ns, resident_mib};
use profilemate_tests::scale::crowd::Crowd;
use profilemate_tests::scale::scraper::Scraper;
use serde_json::Value;

use crate::Options;
use crate::ask::{self, Ran};

/// What was measured of a fleet of so many nodes.
pub(crate) struct Phase {
    pub(crate) nodes: u32,
    /// Series of the nodes' targets.
    pub(crate) series: f64,
    /// Series that recording rules make.
    recorded: f64,
    samples_per_sec: f64,
    /// Processor seconds of Prometheus for a million samples, with rules if they are evaluated.
    pub(crate) cpu_sec_per_million: f64,
    pub(crate) resident_mib: f64,
    scrape_ms: f64,
    slowest_scrape_ms: f64,
    pub(crate) status: Ran,
    pub(crate) diagnose: Ran,
    /// Processor seconds of Prometheus for them.
    pub(crate) asked_cpu_sec: [f64; 2],
}

impl Phase {
    /// Lets the phase pass, then asks.
    pub(crate) fn measure(
        scraper: &Scraper,
        crowd: &Crowd,
        options: &Options,
        nodes: u32,
    ) -> Result<Self> {
        let pid = scraper.engine.pid();
        let length = Duration::from_millis(options.interval_ms) * options.samples;
        let appended = || scraper.own("prometheus_tsdb_head_samples_appended_total");
        let (began, samples, cpu) = (Instant::now(), appended()?, cpu_ns(pid)?);
        // A scrape more than the window has.
        std::thread::sleep(length + Duration::from_millis(options.interval_ms));
        let samples = appended()? - samples;
        let cpu_sec = (cpu_ns(pid)? - cpu) as f64 / 1e9;
        let elapsed = began.elapsed().as_secs_f64();
        let number = |query: &str| scraper.number(query).with_context(|| query.to_owned());
        let mut phase = Self {
            nodes,
            series: number("count({job=\"profilemate\",__name__!~\".*:.*\"})")?,
            recorded: scraper
                .number("count({__name__=~\".*:.*\"})")
                .unwrap_or(0.0),
            samples_per_sec: samples / elapsed,
            cpu_sec_per_million: cpu_sec / samples * 1e6,
            resident_mib: resident_mib(pid, "VmRSS")?,
            scrape_ms: 1e3 * number("avg(scrape_duration_seconds)")?,
            slowest_scrape_ms: 1e3 * number("max(scrape_duration_seconds)")?,
            status: asked(scraper, &["status", "--window", &window(length / 6)])?.0,
            diagnose: asked(scraper, &["diagnose", "--window", &window(length)])?.0,
            asked_cpu_sec: [0.0; 2],
        };
        // Once more, now that all is warm: these count.
        let (status, cpu_status) = asked(scraper, &["status", "--window", &window(length / 6)])?;
        let (diagnose, cpu_diagnose) = asked(scraper, &["diagnose", "--window", &window(length)])?;
        phase.status = status;
        phase.diagnose = diagnose;
        phase.asked_cpu_sec = [cpu_status, cpu_diagnose];
        phase.check(crowd, options)?;
        Ok(phase)
    }

    /// The simulation is right: all are there, and the slow one is found.
    fn check(&self, crowd: &Crowd, options: &Options) -> Result<()> {
        let servers = u64::from(self.nodes * options.servers);
        let told = self.status.json["servers"].as_array().map_or(0, Vec::len);
        if told as u64 != servers {
            bail!("`fleet status` tells {told} of {servers} servers");
        }
        let name = crowd.name(1).context("no node")?;
        let findings = self.diagnose.json["findings"].as_array();
        let mut named: Vec<&str> = findings
            .into_iter()
            .flatten()
            .filter(|one| one["kind"] == "peer" && one["rank"].is_null())
            .filter_map(|one| one["server"].as_str())
            .filter_map(|server| Some(server.split_once(" @ ")?.1))
            .collect();
        named.sort_unstable();
        named.dedup();
        if named != [name.as_str()] {
            println!("  note: made slow was {name}; `fleet diagnose` names {named:?}");
        }
        if self.diagnose.json["judged"] != servers {
            println!("  note: judged: {}", self.diagnose.json["judged"]);
        }
        Ok(())
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        println!(
            "{} nodes: {} series ({} more by rules), {:.0} samples/s",
            self.nodes, self.series, self.recorded, self.samples_per_sec
        );
        println!(
            "  Prometheus: {:.0} MiB resident ({:.0} bytes a series), {:.2} CPU s for a million samples",
            self.resident_mib,
            self.resident_mib * 1024.0 * 1024.0 / (self.series + self.recorded),
            self.cpu_sec_per_million
        );
        println!(
            "  a scrape: {:.1} ms, the slowest {:.0} ms",
            self.scrape_ms, self.slowest_scrape_ms
        );
        for (name, ran, engine) in [
            ("status", &self.status, self.asked_cpu_sec[0]),
            ("diagnose", &self.diagnose, self.asked_cpu_sec[1]),
        ] {
            println!(
                "  fleet {name}: {:.2} s; Prometheus computes {engine:.2} s, fleet {:.2} s, and needs {:.0} MiB",
                ran.wall_sec, ran.cpu_sec, ran.peak_mib
            );
        }
    }
}

fn window(length: Duration) -> String {
    format!("{}s", length.as_secs().max(1))
}

/// Asks, and measures what that costs Prometheus beside its scrapes.
fn asked(scraper: &Scraper, task: &[&str]) -> Result<(Ran, f64)> {
    let pid = scraper.engine.pid();
    let cpu = cpu_ns(pid)?;
    let ran = ask::fleet(&scraper.engine.url, task)?;
    Ok((ran, (cpu_ns(pid)? - cpu) as f64 / 1e9))
}

/// What a block of all that was scraped takes on the disk.
pub(crate) struct Disk {
    pub(crate) bytes_per_sample: f64,
    pub(crate) index_bytes_per_series: f64,
    samples: f64,
}

/// Has Prometheus write a block, and weighs it.
pub(crate) fn disk(scraper: &Scraper, folder: &Path) -> Result<Disk> {
    let status = scraper.engine.post("/api/v1/admin/tsdb/snapshot", "");
    if status != 200 {
        bail!("Prometheus takes no snapshot: {status}");
    }
    let snapshots = folder.join("data/snapshots");
    let (mut samples, mut series, mut chunks, mut index) = (0.0, 0.0_f64, 0, 0);
    for snapshot in std::fs::read_dir(&snapshots)? {
        for block in std::fs::read_dir(snapshot?.path())? {
            let block = block?.path();
            let Ok(text) = std::fs::read_to_string(block.join("meta.json")) else {
                continue;
            };
            let meta: Value = serde_json::from_str(&text)?;
            let number = |name: &str| meta["stats"][name].as_f64().unwrap_or(0.0);
            samples += number("numSamples");
            series = series.max(number("numSeries"));
            index += std::fs::metadata(block.join("index"))?.len();
            for chunk in std::fs::read_dir(block.join("chunks"))? {
                chunks += chunk?.metadata()?.len();
            }
        }
    }
    if samples == 0.0 {
        bail!("the snapshot holds no samples");
    }
    let disk = Disk {
        bytes_per_sample: chunks as f64 / samples,
        index_bytes_per_series: index as f64 / series,
        samples,
    };
    println!(
        "on disk: {:.2} bytes a sample (of {:.0} samples), and an index of {:.0} bytes a series in each block",
        disk.bytes_per_sample, disk.samples, disk.index_bytes_per_series
    );
    Ok(disk)
}
