//! The steps of an engine, and which of them a worker's call belongs to.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

/// Steps remembered.
const CAPACITY: usize = 64;
/// Steps that an engine may have scheduled and not yet seen the output of: two with async scheduling.
const DEPTH: usize = 2;

/// One schedule call that scheduled tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the schedule call, from 1.
    pub number: u64,
    /// What was scheduled.
    pub shape: BatchShape,
    /// Cycle counter when the call ended.
    pub return_cycles: u64,
    /// Phase of the batch.
    #[serde(with = "super::word")]
    pub phase: super::word::Word,
}

/// What engine and worker both see of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchShape {
    /// Tokens.
    pub tokens: Option<i64>,
    /// Sequences.
    pub seqs: Option<i64>,
    /// Tokens of each sequence, in order.
    pub each: Option<Vec<i64>>,
}

impl BatchShape {
    /// Whether both can be the same batch: equal where both are known, and tokens are known.
    fn fits(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        self.tokens.is_some()
            && self.tokens == other.tokens
            && agree(self.seqs.as_ref(), other.seqs.as_ref())
            && agree(self.each.as_ref(), other.each.as_ref())
    }
}

/// The latest steps of one engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLog {
    steps: VecDeque<Step>,
    pipelined: bool,
    workers: BTreeSet<u32>,
}

impl StepLog {
    /// Appends a step that scheduled tokens.
    pub fn push(&mut self, step: Step) {
        if self.steps.len() == CAPACITY {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
    }

    /// Whether the engine was seen to schedule a step while the one before it was still running.
    pub fn is_pipelined(&self) -> bool {
        self.pipelined
    }

    /// The step that a forward pass of worker `pid` ran, which began at `entry_cycles`. `after` is the step of the
    /// worker's previous pass. `None` if no step fits.
    ///
    /// Passes follow the steps in order. Without overlap the pass belongs to the newest step; with it, to the oldest
    /// one that this worker has not run; there, if none fits, a single fitting one before `after` puts a wrong count
    /// right.
    pub fn join(
        &mut self,
        pid: u32,
        shape: &BatchShape,
        entry_cycles: u64,
        after: Option<u64>,
    ) -> Option<&Step> {
        if self.workers.len() < CAPACITY {
            self.workers.insert(pid);
        }
        if self
            .steps
            .back()
            .is_some_and(|newest| newest.return_cycles > entry_cycles)
        {
            self.pipelined = true;
        }
        let recent = self
            .steps
            .len()
            .saturating_sub(DEPTH.max(self.workers.len()));
        let fits = |step: &&Step| step.return_cycles <= entry_cycles && step.shape.fits(shape);
        let mut later = self
            .steps
            .iter()
            .skip(recent)
            .filter(fits)
            .filter(|step| after.is_none_or(|after| step.number > after));
        let chosen = if self.pipelined {
            later.next()
        } else {
            later.next_back()
        };
        if chosen.is_some() || !self.pipelined {
            return chosen;
        }
        let mut earlier = self
            .steps
            .iter()
            .skip(recent)
            .filter(fits)
            .filter(|step| after.is_some_and(|after| step.number < after));
        match (earlier.next(), earlier.next()) {
            (only, None) => only,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(tokens: i64) -> BatchShape {
        BatchShape {
            tokens: Some(tokens),
            seqs: Some(1),
            each: None,
        }
    }

    fn log(steps: &[(u64, i64, u64)]) -> StepLog {
        let mut log = StepLog::default();
        for &(number, tokens, return_cycles) in steps {
            log.push(Step {
                number,
                shape: shape(tokens),
                return_cycles,
                phase: None,
            });
        }
        log
    }

    fn joined(log: &mut StepLog, tokens: i64, entry: u64, after: Option<u64>) -> Option<u64> {
        log.join(9, &shape(tokens), entry, after)
            .map(|step| step.number)
    }

    #[test]
    fn without_overlap_a_pass_belongs_to_the_newest_step() {
        let mut log = log(&[(1, 4, 100), (2, 4, 200)]);
        assert_eq!(
            joined(&mut log, 4, 210, Some(0)),
            Some(2),
            "the pass of step 1 was lost"
        );
        assert_eq!(
            joined(&mut log, 4, 220, Some(2)),
            None,
            "no step is run twice"
        );
    }

    #[test]
    fn with_overlap_passes_follow_the_steps_in_order() {
        let mut log = log(&[(1, 4, 100), (2, 4, 200)]);
        assert_eq!(joined(&mut log, 4, 150, None), Some(1));
        assert!(log.is_pipelined());
        log.push(Step {
            number: 3,
            shape: shape(4),
            return_cycles: 300,
            phase: None,
        });
        assert_eq!(joined(&mut log, 4, 310, Some(1)), Some(2));
        assert_eq!(joined(&mut log, 4, 320, Some(2)), Some(3));
    }

    #[test]
    fn a_pass_with_other_tokens_is_not_joined() {
        let mut log = log(&[(1, 4, 100)]);
        assert_eq!(joined(&mut log, 5, 150, None), None);
        assert_eq!(log.join(9, &BatchShape::default(), 150, None), None);
    }

    #[test]
    fn a_step_scheduled_after_the_pass_began_is_not_its_step() {
        let mut log = log(&[(1, 4, 100)]);
        assert_eq!(joined(&mut log, 4, 50, None), None);
    }
}
