//! When something is shed, and when it is taken up again. Pure.
//!
//! Above the budget for a while, the next rung that costs something is shed; then the new cost is waited for. It is
//! taken up again only if the cost with it would be well below the budget, and that for long; each time that it has to
//! be shed again, for twice as long. So nothing flaps.

use std::time::Duration;

use super::ladder::LADDER;

/// Time for which the cost is above the budget before something is shed, and for which a change is waited for.
const PATIENCE_NS: u64 = Duration::from_secs(2).as_nanos() as u64;
/// Time for which the cost is low enough before something is taken up again, the first time.
const CALM_NS: u64 = Duration::from_secs(30).as_nanos() as u64;
/// That time at its longest.
const CALM_LONGEST_NS: u64 = Duration::from_mins(32).as_nanos() as u64;
/// What is taken up again may fill so much of the budget.
const ROOM: f64 = 0.7;

/// The cost of a process, as measured over a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// End of the while.
    pub at_ns: u64,
    /// Cost of all, in percent of the base.
    pub percent: f64,
    /// Of that, the part of each rung of the ladder.
    pub rungs: Vec<f64>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The rung is recorded no longer.
    Shed(usize),
    /// The rung is recorded again.
    Resume(usize),
}

/// One rung that is shed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gone {
    rung: usize,
    /// What it cost when it was shed, in percent.
    cost: f64,
}

/// Keeps one process within its budget.
#[derive(Clone, Debug)]
pub struct Controller {
    budget: f64,
    gone: Vec<Gone>,
    above_since: Option<u64>,
    calm_since: Option<u64>,
    changed: Option<u64>,
    /// How long each rung has to be affordable before it is taken up again.
    calm: Vec<u64>,
}

impl Controller {
    /// A controller for a budget in percent.
    pub fn new(budget: f64) -> Self {
        Self {
            budget,
            gone: Vec::new(),
            above_since: None,
            calm_since: None,
            changed: None,
            calm: vec![CALM_NS; LADDER.len()],
        }
    }

    /// Takes a sample; tells what is to be done.
    pub fn sample(&mut self, sample: &Sample) -> Option<Change> {
        let settles = |changed: u64| sample.at_ns.saturating_sub(changed) < PATIENCE_NS;
        if self.changed.is_some_and(settles) {
            return None;
        }
        if sample.percent > self.budget {
            self.calm_since = None;
            let since = *self.above_since.get_or_insert(sample.at_ns);
            if sample.at_ns.saturating_sub(since) < PATIENCE_NS {
                return None;
            }
            return self.shed(sample);
        }
        self.above_since = None;
        let last = *self.gone.last()?;
        if sample.percent + last.cost > self.budget * ROOM {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(sample.at_ns);
        if sample.at_ns.saturating_sub(since) < self.calm[last.rung] {
            return None;
        }
        self.gone.pop();
        self.change(sample.at_ns);
        self.calm[last.rung] = (self.calm[last.rung] * 2).min(CALM_LONGEST_NS);
        Some(Change::Resume(last.rung))
    }

    /// The rungs that are shed, in that order.
    pub fn shed_rungs(&self) -> impl Iterator<Item = usize> {
        self.gone.iter().map(|gone| gone.rung)
    }

    /// Sheds the next rung that costs something.
    fn shed(&mut self, sample: &Sample) -> Option<Change> {
        let cost = |rung: usize| sample.rungs.get(rung).copied().unwrap_or(0.0);
        let is_gone = |rung: usize| self.gone.iter().any(|gone| gone.rung == rung);
        let rung = (0..LADDER.len()).find(|&rung| cost(rung) > 0.0 && !is_gone(rung))?;
        self.gone.push(Gone {
            rung,
            cost: cost(rung),
        });
        self.change(sample.at_ns);
        Some(Change::Shed(rung))
    }

    fn change(&mut self, at_ns: u64) {
        self.changed = Some(at_ns);
        self.above_since = None;
        self.calm_since = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A process whose rungs cost so much while they are recorded.
    struct Load {
        rungs: Vec<f64>,
        shed: Vec<bool>,
    }

    impl Load {
        fn new(costs: &[(usize, f64)]) -> Self {
            let mut rungs = vec![0.0; LADDER.len()];
            for &(rung, cost) in costs {
                rungs[rung] = cost;
            }
            Self {
                shed: vec![false; rungs.len()],
                rungs,
            }
        }

        fn step(&mut self, controller: &mut Controller, at_ns: u64) -> Option<Change> {
            let rungs: Vec<f64> = self
                .rungs
                .iter()
                .zip(&self.shed)
                .map(|(cost, shed)| if *shed { 0.0 } else { *cost })
                .collect();
            let change = controller.sample(&Sample {
                at_ns,
                percent: rungs.iter().sum(),
                rungs,
            });
            match change {
                Some(Change::Shed(rung)) => self.shed[rung] = true,
                Some(Change::Resume(rung)) => self.shed[rung] = false,
                None => {}
            }
            change
        }
    }

    fn changes(
        load: &mut Load,
        controller: &mut Controller,
        seconds: std::ops::Range<u64>,
    ) -> Vec<Change> {
        seconds
            .filter_map(|second| load.step(controller, second * SECOND))
            .collect()
    }

    #[test]
    fn rungs_are_shed_in_order_until_the_cost_is_within_the_budget() {
        let mut load = Load::new(&[(2, 3.0), (6, 1.0), (8, 0.4)]);
        let mut controller = Controller::new(1.0);
        let made = changes(&mut load, &mut controller, 0..100);
        assert_eq!(made, [Change::Shed(2), Change::Shed(6)]);
        assert_eq!(controller.shed_rungs().collect::<Vec<_>>(), [2, 6]);
    }

    #[test]
    fn a_short_peak_sheds_nothing() {
        let mut load = Load::new(&[(2, 3.0)]);
        let mut controller = Controller::new(1.0);
        assert_eq!(load.step(&mut controller, SECOND), None);
        load.rungs[2] = 0.1;
        assert!(changes(&mut load, &mut controller, 2..100).is_empty());
    }

    #[test]
    fn what_is_affordable_again_comes_back_after_a_while() {
        let mut load = Load::new(&[(2, 3.0), (8, 0.1)]);
        let mut controller = Controller::new(1.0);
        assert_eq!(
            changes(&mut load, &mut controller, 0..10),
            [Change::Shed(2)]
        );
        // Still 3 percent, as far as is known: it stays away.
        assert!(changes(&mut load, &mut controller, 10..200).is_empty());
        let mut controller = Controller::new(5.0);
        let mut load = Load::new(&[(2, 3.0), (8, 3.0)]);
        assert_eq!(
            changes(&mut load, &mut controller, 0..10),
            [Change::Shed(2)]
        );
        load.rungs[8] = 0.1;
        assert_eq!(
            changes(&mut load, &mut controller, 10..60),
            [Change::Resume(2)]
        );
    }

    #[test]
    fn what_comes_and_goes_comes_back_more_and_more_seldom() {
        let mut controller = Controller::new(5.0);
        let mut load = Load::new(&[(2, 3.0)]);
        let mut resumed = 0;
        for second in 0..3_600 {
            // Whenever it is taken up, the rest begins to cost.
            load.rungs[8] = if load.shed[2] { 0.1 } else { 3.0 };
            if let Some(Change::Resume(_)) = load.step(&mut controller, second * SECOND) {
                resumed += 1;
            }
        }
        assert!((3..=8).contains(&resumed), "{resumed}");
    }

    proptest! {
        #[test]
        fn a_steady_load_ends_within_the_budget_or_with_nothing_left(
            costs in proptest::collection::vec(0.0_f64..3.0, LADDER.len()),
            budget in 0.01_f64..10.0,
        ) {
            let costs: Vec<(usize, f64)> = costs.into_iter().enumerate().collect();
            let mut load = Load::new(&costs);
            let mut controller = Controller::new(budget);
            let made = changes(&mut load, &mut controller, 0..120);
            let left: f64 = load.rungs.iter().zip(&load.shed).filter(|(_, shed)| !**shed).map(|(cost, _)| cost).sum();
            prop_assert!(left <= budget);
            let in_order = made.windows(2).all(|pair| match (pair[0], pair[1]) {
                (Change::Shed(one), Change::Shed(other)) => one < other,
                _ => true,
            });
            prop_assert!(in_order, "{made:?}");
            // A load that does not change: what was shed stays away.
            let later = changes(&mut load, &mut controller, 120..4_000);
            prop_assert!(later.iter().all(|change| matches!(change, Change::Resume(_))), "{later:?}");
        }
    }
}
