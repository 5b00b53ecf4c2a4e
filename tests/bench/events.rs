//! `events`: how many events a second arrive without loss.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use profilemate_common::page::MODE_RETURN;
use serde_json::Value;

use crate::Options;
use crate::process::{FIELDS, STEP, Tracer};
use crate::report::{self, Goal};
use crate::rig::Rig;
use crate::target::{self, Target};

/// Processes that make events; there is one interpreter lock in each.
const PRODUCERS: usize = 2;
/// What is reached.
const GOAL: Option<Goal> = Some(Goal::AtLeast(1_000_000.0));

/// What `trace` is told, and what that measures: what no field is read of stands in the page's log.
const WAYS: [(&str, &[&str]); 2] = [
    (
        "`trace` by traps with a field, every event a row of methods.csv",
        &["--method", STEP, "--field", FIELDS[0]],
    ),
    (
        "`trace` by the page's log, every event a row of methods.csv",
        &["--method", STEP],
    ),
];

/// One trial: events a second made, and how many were lost.
#[derive(Clone, Copy, Debug)]
struct Trial {
    rate: f64,
    made: u64,
    lost: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let seconds = Duration::from_secs(2);
    let steps = if options.quick { 2 } else { 7 };
    report::remark(&format!(
        "{PRODUCERS} processes, {} s at each rate, default ring buffer",
        seconds.as_secs()
    ));
    let mut rig = Rig::new()?;
    let mut targets = start()?;
    for target in &targets {
        rig.attach(target.pid(), &[("step", MODE_RETURN, &[])])?;
    }
    let raw = search(steps, |rate| through_rig(&mut targets, &rig, rate, seconds))?;
    rig.detach()?;
    tell("kernel to user space, records only copied", raw, GOAL);
    drop(targets);

    for (words, arguments) in WAYS {
        let mut targets = start()?;
        let whole = search(steps, |rate| {
            through_tracer(&mut targets, arguments, rate, seconds)
        })?;
        tell(words, whole, GOAL);
    }
    report::remark("fired = calls made = delivered + lost + filtered held at every rate");
    Ok(())
}

fn tell(words: &str, (best, worst): (Option<Trial>, Option<Trial>), goal: Option<Goal>) {
    match best {
        Some(best) => report::number(words, best.rate, "events/s", goal),
        None => report::number(words, 0.0, "events/s", goal),
    }
    if let Some(worst) = worst {
        let percent = worst.lost as f64 / worst.made as f64 * 100.0;
        report::remark(&format!(
            "  at {} events/s {percent:.1} % were lost",
            report::short(worst.rate)
        ));
    } else {
        report::remark("  this is as many as the producers can make here; none was lost");
    }
}

fn start() -> Result<Vec<Target>> {
    (0..PRODUCERS).map(|_| Target::start()).collect()
}

/// The highest rate without loss, and the lowest with. First flat out; then between what held and what did not.
fn search(
    steps: usize,
    mut trial: impl FnMut(u64) -> Result<Trial>,
) -> Result<(Option<Trial>, Option<Trial>)> {
    let flat_out = trial(0)?;
    if flat_out.lost == 0 {
        return Ok((Some(flat_out), None));
    }
    let (mut best, mut worst): (Option<Trial>, Trial) = (None, flat_out);
    for _ in 0..steps {
        let low = best.map_or(0.0, |best| best.rate);
        let next = trial(f64::midpoint(low, worst.rate) as u64)?;
        if next.lost > 0 {
            worst = next;
        } else if best.is_none_or(|best| next.rate > best.rate) {
            best = Some(next);
        }
    }
    Ok((best, Some(worst)))
}

/// Has every target make its share of `rate` for a while. Gives calls made and calls a second.
fn produce(targets: &mut [Target], rate: u64, time: Duration) -> Result<(u64, f64)> {
    for target in &mut *targets {
        target.ask(&format!("start {}", rate / PRODUCERS as u64))?;
    }
    std::thread::sleep(time);
    let (mut made, mut per_second) = (0, 0.0);
    for target in targets {
        let answer = target.ask("stop")?;
        let calls = target::number(&answer, "calls")?;
        made += calls as u64;
        per_second += calls / target::number(&answer, "wall_ns")? * 1e9;
    }
    Ok((made, per_second))
}

fn through_rig(targets: &mut [Target], rig: &Rig, rate: u64, time: Duration) -> Result<Trial> {
    let (before, taken_before) = rig.counts()?;
    let (made, rate) = produce(targets, rate, time)?;
    // The reader may be behind; it is through with everything when nothing more comes.
    let (mut after, mut taken) = rig.counts()?;
    for _ in 0..500 {
        if taken - taken_before == after.submitted - before.submitted {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        (after, taken) = rig.counts()?;
    }
    let (fired, lost) = (after.fired - before.fired, after.lost - before.lost);
    let delivered = taken - taken_before;
    if fired != made || fired != delivered + lost {
        bail!("{made} calls, {fired} fired, {delivered} delivered, {lost} lost");
    }
    Ok(Trial { rate, made, lost })
}

fn through_tracer(
    targets: &mut [Target],
    arguments: &[&str],
    rate: u64,
    time: Duration,
) -> Result<Trial> {
    let pids: Vec<u32> = targets.iter().map(Target::pid).collect();
    let mut tracer = Tracer::start(&pids, arguments)?;
    tracer.attached(pids.len())?;
    let (made, rate) = produce(targets, rate, time)?;
    tracer.interrupt()?;
    let ledger = &tracer.metadata()?["ledger"];
    let [fired, delivered, lost, filtered] =
        ["fired", "received", "lost", "filtered"].map(|name| count(ledger, name));
    let (fired, delivered, lost, filtered) = (fired?, delivered?, lost?, filtered?);
    let [logged, overwritten] = ["read", "lost"].map(|name| count(&ledger["log"], name));
    let (logged, overwritten) = (logged?, overwritten?);
    if fired + logged + overwritten != made || fired != delivered + lost + filtered {
        bail!("{made} calls, and the ledger says {ledger}");
    }
    let lost = lost + overwritten;
    Ok(Trial { rate, made, lost })
}

fn count(ledger: &Value, name: &str) -> Result<u64> {
    ledger[name]
        .as_u64()
        .with_context(|| format!("no `{name}` in {ledger}"))
}
