//! `tracer`: what the tracer itself uses.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Options;
use crate::attach::arguments;
use crate::process::{Tracer, cpu_ns, resident_mib};
use crate::report::{self, Goal};
use crate::stats::Summary;
use crate::target::{self, Target};

/// Calls a second: with, and for comparison without events.
const RATES: [u32; 3] = [5000, 500, 0];

pub(crate) fn run(options: &Options) -> Result<()> {
    let (rounds, window) = if options.quick { (1, 2) } else { (7, 4) };
    report::remark(&format!(
        "one method with 4 fields at a steady rate; windows of {window} s after 1 s"
    ));
    let mut random = fastrand::Rng::new();
    let mut order: Vec<usize> = (0..rounds * RATES.len())
        .map(|round| round % RATES.len())
        .collect();
    random.shuffle(&mut order);
    let mut cpu = vec![Vec::new(); RATES.len()];
    let mut memory = vec![Vec::new(); RATES.len()];
    let mut reached = Vec::new();
    for case in order {
        let mut target = Target::start()?;
        let mut tracer = Tracer::start(&[target.pid()], &arguments())?;
        tracer.attached(1)?;
        if RATES[case] > 0 {
            target.ask(&format!("start {}", RATES[case]))?;
        }
        std::thread::sleep(Duration::from_secs(1));
        let (begin, used) = (Instant::now(), cpu_ns(tracer.pid())?);
        std::thread::sleep(Duration::from_secs(window));
        let share =
            (cpu_ns(tracer.pid())? - used) as f64 / begin.elapsed().as_nanos() as f64 * 100.0;
        cpu[case].push(share);
        memory[case].push(resident_mib(tracer.pid(), "VmHWM")?);
        if RATES[case] > 0 {
            let answer = target.ask("stop")?;
            let rate =
                target::number(&answer, "calls")? / target::number(&answer, "wall_ns")? * 1e9;
            if case == 0 {
                reached.push(rate);
            }
        }
        tracer.interrupt()?;
    }
    report::line(
        "calls a second, where 5,000 were meant",
        Summary::of(&reached),
        "events/s",
        None,
    );
    for (case, rate) in RATES.iter().enumerate() {
        let goal = (case == 0).then_some(Goal::AtMost(1.0));
        report::line(
            &format!("CPU at {rate} events/s"),
            Summary::of(&cpu[case]),
            "% of core",
            goal,
        );
    }
    report::line(
        "resident memory at its highest, 5000 events/s",
        Summary::of(&memory[0]),
        "MiB",
        Some(Goal::AtMost(80.0)),
    );
    Ok(())
}
