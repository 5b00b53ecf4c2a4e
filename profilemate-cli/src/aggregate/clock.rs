//! From counter cycles to nanoseconds.

use serde::{Deserialize, Serialize};

/// Shortest distance between two readings that gives a rate.
const BASELINE_NS: u64 = 1_000_000;

/// The length of a cycle, from the first and the latest reading of counter and clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    first: Option<(u64, u64)>,
    rate: Option<(u64, u64)>,
}

impl Clock {
    /// Takes one reading.
    pub fn read(&mut self, cycles: u64, monotonic_ns: u64) {
        let Some((first_cycles, first_ns)) = self.first else {
            self.first = Some((cycles, monotonic_ns));
            return;
        };
        let (Some(cycles), Some(ns)) = (
            cycles.checked_sub(first_cycles),
            monotonic_ns.checked_sub(first_ns),
        ) else {
            return;
        };
        if cycles > 0 && ns >= BASELINE_NS {
            self.rate = Some((ns, cycles));
        }
    }

    /// Whether durations can be told.
    pub fn is_known(&self) -> bool {
        self.rate.is_some()
    }

    /// Nanoseconds of a number of cycles.
    pub fn nanoseconds(&self, cycles: u64) -> Option<u64> {
        let (ns, per_cycles) = self.rate?;
        u64::try_from(u128::from(cycles) * u128::from(ns) / u128::from(per_cycles)).ok()
    }

    /// Nanoseconds from one reading of the counter to a later one.
    pub fn between(&self, entry: u64, end: u64) -> Option<u64> {
        self.nanoseconds(end.checked_sub(entry)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings_that_lie_apart() {
        let mut clock = Clock::default();
        assert_eq!(clock.nanoseconds(10), None);
        clock.read(1_000, 5_000_000);
        clock.read(1_100, 5_000_001);
        assert_eq!(clock.nanoseconds(10), None);
        clock.read(60_001_000, 25_000_000);
        assert_eq!(clock.nanoseconds(3_000), Some(1_000));
        assert_eq!(clock.between(6_000, 9_000), Some(1_000));
        assert_eq!(clock.between(9_000, 6_000), None);
    }

    #[test]
    fn a_reading_that_goes_backwards_changes_nothing() {
        let mut clock = Clock::default();
        clock.read(1_000, 5_000_000);
        clock.read(500, 9_000_000);
        clock.read(2_000, 1);
        assert!(!clock.is_known());
    }

    #[test]
    fn a_very_long_duration_is_none_and_no_panic() {
        let mut clock = Clock::default();
        clock.read(0, 0);
        clock.read(1, u64::MAX);
        assert_eq!(clock.nanoseconds(u64::MAX), None);
    }
}
