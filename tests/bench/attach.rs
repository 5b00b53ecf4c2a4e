//! `attach`: from the start of `profilemate trace` to its first event, and back.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use profilemate::sys::clock::monotonic_ns;
use profilemate_tests::binary;

use crate::Options;
use crate::process::{FIELDS, STEP, Tracer};
use crate::report::{self, Goal};
use crate::stats::Summary;
use crate::target::Target;

/// Calls a second of the traced method.
const RATE: u32 = 1000;

pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = if options.quick { 3 } else { 15 };
    let mut random = fastrand::Rng::new();
    let (mut event, mut disk, mut stood, mut swapped) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut interrupted, mut killed) = (Vec::new(), Vec::new());
    let mut order: Vec<bool> = (0..rounds * 2).map(|round| round % 2 == 0).collect();
    random.shuffle(&mut order);
    for kill in order {
        // A new target each time: the page of an earlier session would be found, and no thread would stand for it.
        let mut target = Target::start()?;
        target.ask(&format!("start {RATE}"))?;
        std::thread::sleep(Duration::from_millis(200));
        let mut tracer = Tracer::start(&[target.pid()], &arguments())?;
        tracer.first_on_disk()?;
        disk.push((monotonic_ns() - tracer.started_ns) as f64 / 1e6);
        event.push((tracer.first_event_ns()? - tracer.started_ns) as f64 / 1e6);
        stood.extend(microseconds(
            &tracer.log(),
            "page mapped, one thread stood for ",
        ));
        swapped.extend(microseconds(
            &tracer.log(),
            "values swapped, one thread stood for ",
        ));
        std::thread::sleep(Duration::from_millis(300));
        if kill {
            tracer.kill()?;
            killed.push(put_back(target.pid())?);
        } else {
            interrupted.push(tracer.interrupt()?);
        }
        target.ask("stop")?;
    }
    report::remark(&format!(
        "target: {RATE} calls a second of one method; a new one each time, and a new tracer"
    ));
    report::line(
        "start of `trace` to its first event",
        Summary::of(&event),
        "ms",
        Some(Goal::AtMost(1000.0)),
    );
    report::line(
        "start of `trace` to the first event on the disk",
        Summary::of(&disk),
        "ms",
        None,
    );
    if stood.len() < event.len() || swapped.is_empty() {
        bail!("the log does not say how long a thread stood");
    }
    report::line(
        "one thread stood for the mapping of the page",
        Summary::of(&stood),
        "us",
        Some(Goal::AtMost(1000.0)),
    );
    report::line(
        "one thread stood for each list of swaps",
        Summary::of(&swapped),
        "us",
        Some(Goal::AtMost(1000.0)),
    );
    report::line(
        "interrupt of `trace` to its end",
        Summary::of(&interrupted),
        "ms",
        Some(Goal::AtMost(500.0)),
    );
    report::line(
        "`detach` after the tracer was killed",
        Summary::of(&killed),
        "ms",
        Some(Goal::AtMost(500.0)),
    );
    Ok(())
}

/// `--method` and `--field` for the bench's own target.
pub(crate) fn arguments() -> Vec<&'static str> {
    let mut words = vec!["--method", STEP];
    words.extend(FIELDS.iter().flat_map(|field| ["--field", field]));
    words
}

/// Runs `profilemate detach`; milliseconds. It must put one pointer back.
fn put_back(pid: u32) -> Result<f64> {
    let begin = Instant::now();
    let output = Command::new(binary())
        .args(["detach", "--pid", &pid.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot run `profilemate detach`")?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !text.contains("1 pointers put back") {
        bail!("`profilemate detach` said: {text}");
    }
    Ok(took)
}

/// The numbers that follow `words` in a log.
fn microseconds(log: &str, words: &str) -> Vec<f64> {
    let number = |rest: &str| {
        rest.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
    };
    log.lines()
        .filter_map(|line| number(line.split_once(words)?.1))
        .collect()
}
