//! `helper`: what the Python helper costs a program that no tracer looks at, and what starting it late costs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use profilemate::helper;
use profilemate::target::python::{ProcessMemory, find_entry, identify, validate};
use profilemate::touch::stood_ns;
use profilemate_tests::demo;

use crate::Options;
use crate::report::{self, Goal};
use crate::stats::Summary;
use crate::target::{self, Target};

/// Calls of one repetition.
const CALLS: u32 = 5000;
/// Says what importing and starting the helper took of a processor, in nanoseconds. `os` is there already wherever a
/// `sitecustomize` or a `.pth` line is read: `site` needs it.
const IMPORT: &str = "import os, time\nbegin = time.thread_time_ns()\nimport profilemate_helper\n\
                      profilemate_helper.start()\nprint(time.thread_time_ns() - begin)";

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let layout = folder.path().join("helper");
    helper::install::lay_out(&layout)?;
    for minor in ["3.11", "3.12"] {
        let Some(python) = demo::python(minor) else {
            continue;
        };
        report::remark(&format!("{}:", python.display()));
        import(options, &python, &layout)?;
        calls(options, &python)?;
    }
    Ok(())
}

/// What a program that is not vLLM pays at its start.
fn import(options: &Options, python: &Path, layout: &Path) -> Result<()> {
    let rounds = if options.quick { 15 } else { 51 };
    let mut costs = Vec::new();
    // Without the first one, which compiles the files.
    for round in 0..=rounds {
        let done = Command::new(python)
            .args(["-S", "-c", IMPORT])
            .env("PYTHONPATH", layout)
            .env_remove("VLLM_ENABLE_PROFILING")
            // As it is from the second start on.
            .env_remove("PYTHONDONTWRITEBYTECODE")
            .output()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let nanoseconds: f64 = text.trim().parse().with_context(|| format!("{done:?}"))?;
        if round > 0 {
            costs.push(nanoseconds / 1e6);
        }
    }
    report::line(
        "importing it where no vLLM is, CPU time",
        Summary::of(&costs),
        "ms",
        Some(Goal::AtMost(1.0)),
    );
    Ok(())
}

/// One program's calls: before the helper is started in it, while it waits.
fn calls(options: &Options, python: &Path) -> Result<()> {
    let (programs, rounds) = if options.quick { (5, 15) } else { (21, 31) };
    let (mut before, mut more, mut stood) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..programs {
        let mut target = Target::of(python)?;
        let plain = median(&mut target, rounds)?;
        let memory = ProcessMemory { pid: target.pid() };
        let interpreter = identify(target.pid(), &memory)?;
        let layout = validate(&interpreter, &memory)?;
        let entry = find_entry(&interpreter, &layout, &memory)?;
        let so_far = stood_ns();
        target.tell("wander 300")?;
        let resident = helper::load(target.pid(), &entry);
        target.answer()?;
        let state = resident?.state().context("the helper says nothing")?;
        if state.state != "waiting" {
            bail!("the helper is {}", state.state);
        }
        stood.push((stood_ns() - so_far) as f64 / 1e3);
        before.push(plain);
        more.push(median(&mut target, rounds)? - plain);
    }
    report::line("a call before", Summary::of(&before), "ns", None);
    report::line(
        "more, while it waits for a tracer",
        Summary::of(&more),
        "ns",
        Some(Goal::AtMost(0.5)),
    );
    report::line(
        "the main thread stood while it was started late",
        Summary::of(&stood),
        "us",
        Some(Goal::AtMost(1000.0)),
    );
    Ok(())
}

/// Nanoseconds of a call.
fn median(target: &mut Target, rounds: u32) -> Result<f64> {
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let answer = target.ask(&format!("run plain {CALLS}"))?;
        costs.push(target::number(&answer, "cpu_ns")? / f64::from(CALLS));
    }
    Ok(Summary::of(&costs).median)
}
