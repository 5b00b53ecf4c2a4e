//! `--budget`: measures what tracing costs each process, and sheds what is too much.
//!
//! A hit costs its trap, whose price is measured at the start, and the run of the probe program, which the kernel
//! counts. They are compared with the time that the engine spends in its steps, which the page sums.

use std::collections::BTreeMap;

use super::attachment::Attachment;
use super::calibrated;
use super::pump::Notes;
use crate::attach::{Kernel, Statistics};
use crate::budget::controller::{Change, Controller, Sample};
use crate::budget::ladder::LADDER;
use crate::budget::price::{Hits, bill};
use crate::event::recorder::{Cost, Shed};
use crate::event::{Counters, Note};

/// Time over which costs are measured.
const WINDOW_NS: u64 = 2_000_000_000;
/// In a shorter time of steps nothing is told: the server idles.
const LEAST_NS: u64 = 20_000_000;
/// The method whose calls are the engine's steps.
const STEP: &str = "engine.step";

/// Prices that hold for the session.
pub(super) struct Prices {
    /// Of one trap, in nanoseconds.
    pub(super) trap_ns: f64,
    /// Held, so that the kernel counts run times.
    pub(super) _statistics: Statistics,
}

/// Counters of a slot at one moment.
type Reading = BTreeMap<(u32, u8), (u64, u64)>;

/// One process, as far as its cost goes.
pub(super) struct Seen<'a> {
    pub(super) pid: u32,
    /// Process ids of its parent and of those above.
    pub(super) parent: u32,
    pub(super) attachment: &'a mut Attachment,
}

/// Keeps the processes within their budget.
pub(super) struct Budget {
    percent: f64,
    prices: Prices,
    controllers: BTreeMap<u32, Controller>,
    /// Marks and cycles by process and slot when the current window began.
    before: Reading,
    began_ns: u64,
    run_ns: u64,
    latest: Option<f64>,
}

impl Budget {
    pub(super) fn new(percent: f64, prices: Prices) -> Self {
        Self {
            percent,
            prices,
            controllers: BTreeMap::new(),
            before: Reading::new(),
            began_ns: 0,
            run_ns: 0,
            latest: None,
        }
    }

    /// The highest cost of a process in the latest window, in percent.
    pub(super) fn latest(&self) -> Option<f64> {
        self.latest
    }

    /// Looks at the counters that were read just now, and does what is due.
    pub(super) fn look(
        &mut self,
        at_ns: u64,
        readings: &[Counters],
        processes: &mut [Seen<'_>],
        kernel: &Kernel,
        notes: &Notes,
    ) {
        for process in processes.iter_mut() {
            process.attachment.also_count(STEP);
        }
        let over_ns = at_ns.saturating_sub(self.began_ns);
        if self.began_ns != 0 && over_ns < WINDOW_NS {
            return;
        }
        let now: Reading = readings
            .iter()
            .flat_map(|page| {
                let slots = page.slots.iter();
                slots.map(|slot| ((page.pid, slot.slot), (slot.marks, slot.cycles)))
            })
            .collect();
        let before = std::mem::replace(&mut self.before, now);
        let run_ns = kernel.run_ns().unwrap_or(self.run_ns);
        let ran_ns = run_ns.saturating_sub(std::mem::replace(&mut self.run_ns, run_ns));
        if std::mem::replace(&mut self.began_ns, at_ns) == 0 {
            return;
        }
        self.latest = None;
        let since = |pid: u32, slot: u8| {
            let now = self.before.get(&(pid, slot)).copied().unwrap_or_default();
            let then = before.get(&(pid, slot)).copied()?;
            Some((now.0.saturating_sub(then.0), now.1.saturating_sub(then.1)))
        };
        let mut hits = Vec::new();
        let mut steps: BTreeMap<u32, u64> = BTreeMap::new();
        for process in processes.iter() {
            for bound in process.attachment.bound() {
                let Some((marks, cycles)) = since(process.pid, bound.slot) else {
                    continue;
                };
                hits.push(Hits {
                    pid: process.pid,
                    rung: bound.rung,
                    hits: marks,
                    reads: bound.reads,
                });
                if bound.said.id == STEP {
                    *steps.entry(process.pid).or_default() += calibrated::nanoseconds(cycles);
                }
            }
        }
        let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
        self.controllers.retain(|pid, _| pids.contains(pid));
        for process in processes {
            let engine = steps
                .get(&process.pid)
                .or_else(|| steps.get(&process.parent));
            let base_ns = engine.copied().unwrap_or(over_ns);
            let bill = bill(process.pid, &hits, self.prices.trap_ns, ran_ns as f64);
            let cost = Cost {
                pid: process.pid,
                at_ns,
                over_ns,
                hits: bill.hits,
                cost_ns: bill.total_ns as u64,
                base_ns,
                in_steps: engine.is_some(),
            };
            notes.send(Note::Cost(cost.clone()));
            let Some(percent) = cost.percent().filter(|_| base_ns >= LEAST_NS) else {
                continue;
            };
            self.latest = Some(self.latest.map_or(percent, |latest| latest.max(percent)));
            let part = |ns: &f64| 100.0 * ns / base_ns as f64;
            let sample = Sample {
                at_ns,
                percent,
                rungs: bill.rungs_ns.iter().map(part).collect(),
            };
            self.control(process, &sample, notes);
        }
    }

    /// Sheds or takes up again what the controller of a process says.
    fn control(&mut self, process: &mut Seen<'_>, sample: &Sample, notes: &Notes) {
        let percent = self.percent;
        let controller = self
            .controllers
            .entry(process.pid)
            .or_insert_with(|| Controller::new(percent));
        let Some(change) = controller.sample(sample) else {
            return;
        };
        let (rung, shed) = match change {
            Change::Shed(rung) => (rung, true),
            Change::Resume(rung) => (rung, false),
        };
        // What was recorded until now comes before the note: modes change first only where less is to come.
        let (methods, tables) = process.attachment.shed(rung, shed);
        let name = LADDER.get(rung).map_or("", |rung| rung.name);
        log::info!(
            "process {}: tracing costs {:.2} % of its steps; {name} {}",
            process.pid,
            sample.percent,
            if shed { "shed" } else { "recorded again" }
        );
        notes.send(Note::Shed(Shed {
            pid: process.pid,
            at_ns: sample.at_ns,
            rung: name.to_owned(),
            shed,
            methods,
            tables,
            before_pct: sample.percent,
            budget_pct: percent,
        }));
    }
}
