//! `server`: throughput of the real vLLM with and without tracing, in one server's life.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use profilemate::target::process::tree_now;
use profilemate::touch::MarkerPage;
use profilemate_common::page::{MODE_OFF, Mode};
use profilemate_tests::vllm;

use crate::Options;
use crate::process::{Tracer, cpu_ns};
use crate::report;
use crate::stats::{Summary, interval};
use crate::target::{self, SCRIPTS, Target};

/// Processes that are traced: the front end, the engine and its worker.
const PROCESSES: usize = 3;
/// A model: layers, requests of a round, the loss to stay below in percent, and what it stands for.
struct Case {
    layers: u32,
    requests: u32,
    goal: f64,
    words: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        layers: 2,
        requests: 96,
        goal: 2.0,
        words: "tiny model",
    },
    Case {
        layers: 24,
        requests: 32,
        goal: 0.5,
        words: "24 layers",
    },
];

/// The short round before each is so many times shorter.
const WARM: u32 = 2;

/// One round of the server.
#[derive(Clone, Copy, Debug)]
struct Round {
    tokens_per_second: f64,
    steps_per_second: f64,
}

/// What one traced round told besides.
struct Traced {
    round: Round,
    /// For how long the server idled before its rounds.
    pause: Duration,
    attach_ms: f64,
    detach_ms: f64,
    events_per_second: f64,
    tracer_percent: f64,
    lost: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(python) = vllm::python("0.32.0") else {
        return Ok(());
    };
    let pairs = if options.quick { 3 } else { 21 };
    for case in &CASES {
        let mut command = Command::new(&python);
        command
            .arg(format!("{SCRIPTS}/server.py"))
            .args(["--layers", &case.layers.to_string()]);
        let mut server =
            Target::spawn(command, "REPLY ", Stdio::null()).context("vLLM did not start")?;
        pairs_of(&mut server, case, pairs)?;
        switched(&mut server, case, pairs * 6)?;
        server.end()?;
    }
    Ok(())
}

fn pairs_of(server: &mut Target, case: &Case, pairs: usize) -> Result<()> {
    let mut random = fastrand::Rng::new();
    round(server, case.requests)?;
    let mut pause = with_tracer(server, case)?.pause;
    let (mut ratios, mut untraced, mut traced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let first = random.bool();
        let on_first = if first {
            Some(with_tracer(server, case)?)
        } else {
            None
        };
        pause = on_first.as_ref().map_or(pause, |on| on.pause);
        let off = without(server, case, pause)?;
        let on = match on_first {
            Some(on) => on,
            None => with_tracer(server, case)?,
        };
        ratios.push(on.round.tokens_per_second / off.tokens_per_second);
        untraced.push(off);
        traced.push(on);
    }
    tell(case, &ratios, &untraced, &traced);
    Ok(())
}

fn tell(case: &Case, ratios: &[f64], untraced: &[Round], traced: &[Traced]) {
    let of = |values: Vec<f64>| Summary::of(&values);
    let steps = of(untraced
        .iter()
        .map(|round| round.steps_per_second)
        .collect());
    let words = case.words;
    report::remark(&format!(
        "{words}: steps of {:.2} ms untraced, {} pairs",
        1e3 / steps.median,
        ratios.len()
    ));
    report::line(
        "untraced",
        of(untraced
            .iter()
            .map(|round| round.tokens_per_second)
            .collect()),
        "tokens/s",
        None,
    );
    report::line(
        "traced",
        of(traced.iter().map(|on| on.round.tokens_per_second).collect()),
        "tokens/s",
        None,
    );
    report::line("untraced", steps, "steps/s", None);
    let losses: Vec<f64> = ratios.iter().map(|ratio| (1.0 - ratio) * 100.0).collect();
    let (low, high) = interval(&losses);
    report::line(
        "loss of throughput, pair by pair",
        Summary::of(&losses),
        "%",
        None,
    );
    let goal = case.goal;
    let verdict = if high <= goal {
        "reached".to_owned()
    } else if low > goal {
        format!("missed by {:.2} to {:.2} %", low - goal, high - goal)
    } else {
        "not decided here: the interval holds it".to_owned()
    };
    report::remark(&format!(
        "  95 % interval of the median loss: {low:.2} to {high:.2} %; figure <= {goal} %: {verdict}"
    ));
    report::line(
        "events",
        of(traced.iter().map(|on| on.events_per_second).collect()),
        "events/s",
        None,
    );
    report::line(
        "the tracer's own CPU",
        of(traced.iter().map(|on| on.tracer_percent).collect()),
        "% of core",
        None,
    );
    report::line(
        "start of `trace` to the last process attached",
        of(traced.iter().map(|on| on.attach_ms).collect()),
        "ms",
        None,
    );
    report::line(
        "interrupt of `trace` to its end",
        of(traced.iter().map(|on| on.detach_ms).collect()),
        "ms",
        None,
    );
    report::remark(&format!(
        "  lost in all rounds: {} events",
        traced.iter().map(|on| on.lost).sum::<u64>()
    ));
}

/// As [`pairs_of`], and finer: one tracer stays, and the pages' modes are switched between short rounds. What a
/// redirected call and the waiting tracer cost is in both.
fn switched(server: &mut Target, case: &Case, pairs: usize) -> Result<()> {
    let mut tracer = Tracer::start(&[server.pid()], &[])?;
    tracer.attached(PROCESSES)?;
    let mut slots: Vec<(MarkerPage, Vec<(u8, Mode)>)> = Vec::new();
    for process in tree_now(&BTreeSet::from([server.pid()]))? {
        for page in MarkerPage::find_all(process.pid)? {
            let modes = (0_u8..)
                .zip(page.slots()?)
                .map(|(slot, data)| (slot, data.mode));
            let modes = modes.filter(|(_, mode)| *mode != MODE_OFF).collect();
            slots.push((page, modes));
        }
    }
    ensure!(slots.len() == PROCESSES, "{} pages", slots.len());
    let mut random = fastrand::Rng::new();
    let mut losses = Vec::new();
    for _ in 0..pairs {
        let mut seconds = [0.0; 2];
        let first = random.usize(0..2);
        for events in [first, 1 - first] {
            for (page, modes) in &slots {
                for (slot, mode) in modes {
                    page.set_mode(*slot, if events == 1 { *mode } else { MODE_OFF })?;
                }
            }
            seconds[events] = 1.0 / round(server, case.requests / 6)?.tokens_per_second;
        }
        losses.push((1.0 - seconds[0] / seconds[1]) * 100.0);
    }
    tracer.interrupt()?;
    let (low, high) = interval(&losses);
    report::line(
        "loss by events alone, switched on and off",
        Summary::of(&losses),
        "%",
        None,
    );
    report::remark(&format!(
        "  95 % interval of the median: {low:.2} to {high:.2} %"
    ));
    Ok(())
}

/// An untraced round, behind a short one, and behind the pause that a traced one has: a server that has idled for a
/// moment is slower for a while, traced or not.
fn without(server: &mut Target, case: &Case, pause: Duration) -> Result<Round> {
    std::thread::sleep(pause);
    round(server, case.requests / WARM)?;
    round(server, case.requests)
}

/// A traced round, behind a short one.
fn with_tracer(server: &mut Target, case: &Case) -> Result<Traced> {
    let begin = Instant::now();
    let mut tracer = Tracer::start(&[server.pid()], &[])?;
    tracer.attached(PROCESSES)?;
    let attach_ms = begin.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(Duration::from_millis(100));
    let pause = begin.elapsed();
    round(server, case.requests / WARM)?;
    let (begin, used) = (Instant::now(), cpu_ns(tracer.pid())?);
    let round = round(server, case.requests)?;
    let tracer_percent =
        (cpu_ns(tracer.pid())? - used) as f64 / begin.elapsed().as_nanos() as f64 * 100.0;
    let seconds = begin.elapsed().as_secs_f64();
    let detach_ms = tracer.interrupt()?;
    let metadata = tracer.metadata()?;
    let ledger = &metadata["ledger"];
    let logged = target::number(&ledger["log"], "read")?;
    let share = f64::from(case.requests) / f64::from(case.requests + case.requests / WARM);
    Ok(Traced {
        round,
        pause,
        attach_ms,
        detach_ms,
        events_per_second: (target::number(ledger, "fired")? + logged) * share / seconds,
        tracer_percent,
        lost: target::number(ledger, "lost")? as u64,
    })
}

fn round(server: &mut Target, requests: u32) -> Result<Round> {
    let answer = server.ask(&format!("round {requests}"))?;
    let seconds = target::number(&answer, "seconds")?;
    Ok(Round {
        tokens_per_second: target::number(&answer, "tokens")? / seconds,
        steps_per_second: target::number(&answer, "steps")? / seconds,
    })
}
