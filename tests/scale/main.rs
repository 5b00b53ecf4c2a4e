//! What a fleet needs of its engine, measured: `cargo xtask fleet-scale`.
//!
//! Nodes are added in phases. In each, a real Prometheus scrapes all of them for a while; then the real `profilemate
//! fleet` asks it. What larger fleets need is extrapolated in a line, and said to be.

mod ask;
mod exposition;
mod phase;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use profilemate_tests::scale::crowd::{Crowd, Kind};
use profilemate_tests::scale::recording::Recording;
use profilemate_tests::scale::scraper::Scraper;
use profilemate_tests::{demo, engine, root};

use phase::Phase;

/// Measures what a fleet of agents needs of a Prometheus, by simulation with real parts.
#[derive(Parser)]
#[command(name = "cargo xtask fleet-scale")]
struct Options {
    /// Nodes of the phases, ascending.
    #[arg(long, value_delimiter = ',', default_value = "50,100,200")]
    nodes: Vec<u32>,
    /// Servers of each node.
    #[arg(long, default_value_t = 1)]
    servers: u32,
    /// Ranks of each server.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=8))]
    ranks: u32,
    /// Milliseconds between scrapes. Short ones give a window as many samples in less time; memory, disk and time
    /// of queries go by samples.
    #[arg(long, default_value_t = 2_000)]
    interval_ms: u64,
    /// Scrapes of each phase; the windows of `fleet` have as many samples. A window of 30 minutes has 120 at 15 s.
    #[arg(long, default_value_t = 60)]
    samples: u32,
    /// Recorded seconds that each node plays in a second. A fifteenth of a phase should play about all that was recorded:
    /// else its course is noise to `fleet diagnose`.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Play this `events.pmrec` instead of tracing a demo server.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Have Prometheus take native histograms, by protobuf.
    #[arg(long)]
    native: bool,
    /// Have Prometheus evaluate the recording rules and alerts of `deploy/prometheus`.
    #[arg(long)]
    rules: bool,
}

fn recording(options: &Options) -> Result<Recording> {
    if let Some(path) = &options.recording {
        return Recording::read(path);
    }
    let python = demo::newest_probed_python();
    let python = python.context("there is no Python from 3.10 to 3.13 here")?;
    Recording::take(&python, options.ranks, Duration::from_secs(6))
}

fn run(options: &Options) -> Result<()> {
    if !options.nodes.is_sorted() || options.nodes.first().is_none_or(|first| *first < 3) {
        bail!("`--nodes` wants numbers from 3 on, ascending");
    }
    if !root() {
        bail!("the demo server is traced as root");
    }
    let tools = engine::folder().context("run `tests/fleet/setup` first")?;
    let recording = recording(options)?;
    println!(
        "recorded: {:.1} s, {} rows, of a demo server with {} workers; played at {} of its speed",
        recording.length().as_secs_f64(),
        recording.rows(),
        options.ranks,
        options.speed
    );
    let kind = Kind {
        servers: options.servers,
        speed: options.speed,
        slow: Some((1, 1.4)),
    };
    let mut crowd = Crowd::new(kind, recording)?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/prometheus/profilemate.rules.yaml")
        .canonicalize()?;
    let mut more = vec!["--web.enable-admin-api"];
    if options.native {
        more.push("--enable-feature=native-histograms");
    }
    let interval = Duration::from_millis(options.interval_ms);
    let rules = options.rules.then_some(rules.as_path());
    let scraper = Scraper::start(&tools, folder.path(), interval, rules, &more)?;
    let mut phases: Vec<Phase> = Vec::new();
    for &nodes in &options.nodes {
        scraper.grow(&mut crowd, nodes)?;
        if phases.is_empty() {
            exposition::measure(&crowd, options)?;
        }
        let phase = Phase::measure(&scraper, &crowd, options, nodes)?;
        phase.print();
        phases.push(phase);
    }
    let disk = phase::disk(&scraper, folder.path())?;
    table::print(&phases, &disk, options);
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
