//! `call`: what one call of a traced Python method costs.

use anyhow::{Result, bail};
use profilemate_common::page::{MODE_COUNT, MODE_LOG, MODE_OFF, MODE_RETURN};

use crate::Options;
use crate::report::{self, Goal};
use crate::rig::{Method, Rig};
use crate::stats::Summary;
use crate::target::{self, Target};

/// Fields as the catalogue reads them of `schedule`.
const PATHS: [&str; 8] = [
    "self.running:len",
    "self.waiting:len",
    "ret.total_num_scheduled_tokens",
    "ret.num_scheduled_tokens:len",
    "ret.preempted_req_ids:len",
    "ret.finished_req_ids:len",
    "self.manager.block_pool.num_free_blocks",
    "self.manager.block_pool.num_gpu_blocks",
];

const METHODS: [Method<'static>; 6] = [
    ("off", MODE_OFF, &[]),
    ("counted", MODE_COUNT, &[]),
    ("logged", MODE_LOG, &[]),
    ("traced_0", MODE_RETURN, &[]),
    ("traced_4", MODE_RETURN, PATHS.split_at(4).0),
    ("traced_8", MODE_RETURN, &PATHS),
];

/// One case: method of the target, and what it is.
struct Case {
    name: &'static str,
    words: &'static str,
    goal: Option<Goal>,
}

const fn case(name: &'static str, words: &'static str, goal: Option<Goal>) -> Case {
    Case { name, words, goal }
}

const CASES: [Case; 9] = [
    case("off", "redirected only", None),
    case("counted", "counted in the page", Some(Goal::AtMost(30.0))),
    case(
        "logged",
        "event without field, in the page's log",
        Some(Goal::AtMost(650.0)),
    ),
    case(
        "traced_0",
        "event delivered by a trap, no field",
        Some(Goal::AtMost(650.0)),
    ),
    case(
        "traced_4",
        "event delivered by a trap, 4 fields",
        Some(Goal::AtMost(650.0)),
    ),
    case("traced_8", "event delivered by a trap, 8 fields", None),
    case("to_list", "Python wrapper, appends a tuple to a list", None),
    case("to_csv", "Python wrapper, writes a CSV row", None),
    case(
        "to_csv_4",
        "Python wrapper, writes a CSV row with 4 fields",
        None,
    ),
];

/// Calls of one repetition.
const CALLS: u32 = 2000;

/// Nanoseconds a call of each repetition: of the plain method, and of each case, net of the plain one.
struct Costs {
    plain: Summary,
    cases: Vec<Summary>,
}

impl Costs {
    fn of(&self, name: &str) -> f64 {
        CASES
            .iter()
            .zip(&self.cases)
            .find(|(case, _)| case.name == name)
            .map_or(f64::NAN, |(_, cost)| cost.median)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = if options.quick { 15 } else { 101 };
    let mut target = Target::start()?;
    let mut rig = Rig::new()?;
    report::remark(&format!(
        "target: {}; {CALLS} calls a repetition, thread CPU time, net of the plain call; probed: {}",
        target::interpreter(target.pid()),
        rig.site()
    ));
    let before = measure(&mut target, rounds / 3)?;
    let (none, _) = rig.counts()?;
    rig.attach(target.pid(), &METHODS)?;
    let during = measure(&mut target, rounds)?;
    rig.detach()?;
    let (ledger, _) = rig.counts()?;
    let after = measure(&mut target, rounds / 3)?;

    report::line("untraced (the plain call itself)", during.plain, "ns", None);
    for (case, cost) in CASES.iter().zip(&during.cases) {
        report::line(case.words, *cost, "ns", case.goal);
    }
    for (traced, wrapper, words) in [
        (
            "traced_0",
            "to_csv",
            "event without fields, of the CSV wrapper",
        ),
        (
            "traced_4",
            "to_csv_4",
            "event with 4 fields, of the CSV wrapper with them",
        ),
    ] {
        let share = during.of(traced) / during.of(wrapper) * 100.0;
        report::number(words, share, "%", Some(Goal::AtMost(100.0 / 3.0)));
    }
    // The same method before and after: what the attach has left behind.
    for name in ["off", "counted", "traced_8"] {
        let left = after.of(name) - before.of(name);
        report::number(
            &format!("after detach, more than before: `{name}`"),
            left,
            "ns",
            None,
        );
    }
    report::number(
        "after detach: calls that still make an event",
        fired_since(&mut target, &rig)?,
        "",
        Some(Goal::AtMost(0.0)),
    );
    let expected = u64::from(CALLS) * rounds as u64 * 3;
    let fired = ledger.fired - none.fired;
    if fired != expected || ledger.lost > 0 || ledger.filtered > 0 || ledger.submitted != fired {
        bail!("of {expected} calls the kernel says {ledger:?}");
    }
    report::remark(&format!(
        "ledger: {expected} calls were made, {fired} events fired, {} lost",
        ledger.lost
    ));
    Ok(())
}

/// Events that calls make after the detach.
fn fired_since(target: &mut Target, rig: &Rig) -> Result<f64> {
    let before = rig.counts()?.0.fired;
    target.ask(&format!("run traced_8 {CALLS}"))?;
    Ok((rig.counts()?.0.fired - before) as f64)
}

/// Runs every case `rounds` times, in a new random order each round.
fn measure(target: &mut Target, rounds: usize) -> Result<Costs> {
    let mut random = fastrand::Rng::new();
    let mut names: Vec<&str> = std::iter::once("plain")
        .chain(CASES.iter().map(|case| case.name))
        .collect();
    for name in &names {
        // The interpreter specialises a loop in its first rounds; the ledger counts on whole rounds only, so this one
        // runs a case that makes no event.
        if !name.starts_with("traced") {
            target.ask(&format!("run {name} {CALLS}"))?;
        }
    }
    let mut nanoseconds = vec![Vec::new(); CASES.len()];
    let mut plain = Vec::new();
    for _ in 0..rounds {
        random.shuffle(&mut names);
        let mut round = Vec::new();
        for name in &names {
            let answer = target.ask(&format!("run {name} {CALLS}"))?;
            round.push((*name, target::number(&answer, "cpu_ns")? / f64::from(CALLS)));
        }
        let cost = |name: &str| {
            round
                .iter()
                .find(|(own, _)| *own == name)
                .map_or(f64::NAN, |(_, cost)| *cost)
        };
        plain.push(cost("plain"));
        for (case, list) in CASES.iter().zip(&mut nanoseconds) {
            list.push(cost(case.name));
        }
    }
    let plain = Summary::of(&plain);
    let net = |list: &Vec<f64>| {
        Summary::of(
            &list
                .iter()
                .map(|cost| cost - plain.median)
                .collect::<Vec<_>>(),
        )
    };
    Ok(Costs {
        plain,
        cases: nanoseconds.iter().map(net).collect(),
    })
}
